// expect: reaction(): the handler's parameters cannot be read
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
        reaction([](const auto& added) { return sourced::dispatch(Add{added.amount}); });
    }
};
