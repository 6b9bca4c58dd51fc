// expect: this command is not among those that the Dispatches name
#include <sourced.hpp>

struct Add {
    int amount = 0;
    SOURCED_COMMAND("counter.add", amount)
};
struct Added {
    int amount = 0;
    SOURCED_EVENT("counter.added", amount)
};

struct Take {
    SOURCED_COMMAND("counter.take")
};
struct Wrong : sourced::Actor<int> {
    Wrong() : Actor("wrong") {
        reaction([](const Added&) -> sourced::Dispatches<Take> { return sourced::dispatch(Add{}); });
    }
};
