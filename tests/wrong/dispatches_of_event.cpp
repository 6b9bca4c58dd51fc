// expect: Dispatches are made of what dispatch() gives
#include <sourced.hpp>

struct Add {
    int amount = 0;
    SOURCED_COMMAND("counter.add", amount)
};
struct Added {
    int amount = 0;
    SOURCED_EVENT("counter.added", amount)
};

struct Wrong : sourced::Actor<int> {
    Wrong() : Actor("wrong") {
        reaction([](const Added& added) {
            sourced::Dispatches<Add> dispatches;
            dispatches.add(added);
            return dispatches;
        });
    }
};
