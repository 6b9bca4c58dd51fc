// expect: before_evolve(): the handler takes something else
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
        before_evolve([](int&, const Added&) {});
    }
};
