// expect: dispatch() sends commands: this type has no SOURCED_COMMAND line
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
        reaction([](const Added&) { return sourced::dispatch(Plain{}); });
    }
};
