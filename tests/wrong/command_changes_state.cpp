// expect: command(): the handler takes the state as State&, but only events change it
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
        command([](int& count, const Add& add) {
            count += add.amount;
            return Added{add.amount};
        });
    }
};
