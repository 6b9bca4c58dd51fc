// expect: produces(): a type has no SOURCED_COMMAND or SOURCED_EVENT line
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
        command([](const Add&) { return sourced::Events(); }).produces<int>();
    }
};
