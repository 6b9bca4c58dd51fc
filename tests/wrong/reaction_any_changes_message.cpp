// expect: reaction(): the handler takes the event by a reference that could change it
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
        reaction([](sourced::Message&) { return sourced::dispatch(Add{}); });
    }
};
