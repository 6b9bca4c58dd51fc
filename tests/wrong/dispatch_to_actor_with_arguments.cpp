// expect: dispatch(): to<A>() asks an A for its name, and A has no default constructor
#include <sourced.hpp>

struct Add {
    int amount = 0;
    SOURCED_COMMAND("counter.add", amount)
};
struct Added {
    int amount = 0;
    SOURCED_EVENT("counter.added", amount)
};

struct Other : sourced::Actor<int> {
    explicit Other(int) : Actor("other") {}
};
struct Wrong : sourced::Actor<int> {
    Wrong() : Actor("wrong") {
        reaction([](const Added&) { return sourced::dispatch(Add{}).to<Other>(); });
    }
};
