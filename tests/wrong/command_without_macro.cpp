// expect: command(): the type of the handler's command has no SOURCED_COMMAND line
#include <sourced.hpp>

struct Add {
    int amount = 0;
    SOURCED_COMMAND("counter.add", amount)
};
struct Added {
    int amount = 0;
    SOURCED_EVENT("counter.added", amount)
};
struct Plain {
    int amount = 0;
};

struct Counter : sourced::Actor<int> {
    Counter() : Actor("counter") {
        command([](const int&, const Plain& plain) { return Added{plain.amount}; });
    }
};
