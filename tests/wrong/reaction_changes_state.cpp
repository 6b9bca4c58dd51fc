// expect: reaction(): the handler takes the state as State&, but only events change it
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
        reaction([](int&, const Added&) { return sourced::dispatch(Add{1}); });
    }
};
