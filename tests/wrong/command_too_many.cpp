// expect: command(): the handler has too many parameters
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
        command([](const int&, const Add& add, const sourced::Envelope&, int) { return Added{add.amount}; });
    }
};
