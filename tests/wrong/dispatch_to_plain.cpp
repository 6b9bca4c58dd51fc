// expect: dispatch(): to<A>() begins a stream of an actor, which A is not
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
        reaction([](const Added&) { return sourced::dispatch(Add{}).to<Add>(); });
    }
};
