// expect: command(): the handler may change itself
#include <sourced.hpp>

struct Add {
    int amount = 0;
    SOURCED_COMMAND("counter.add", amount)
};
struct Added {
    int amount = 0;
    SOURCED_EVENT("counter.added", amount)
};

struct Counter : sourced::Actor<int> {
    Counter() : Actor("counter") {
        command([calls = 0](const int&, const Add&) mutable { return Added{++calls}; });
    }
};
