// expect: command(): the handler's first parameter is not the actor's State
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
        command([](const std::string&, const Add& add) { return Added{add.amount}; });
    }
};
