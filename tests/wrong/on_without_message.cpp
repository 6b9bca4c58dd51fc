// expect: on(): the handler has no message among its parameters
#include <sourced.hpp>

struct Add {
    int amount = 0;
    SOURCED_COMMAND("counter.add", amount)
};
struct Added {
    int amount = 0;
    SOURCED_EVENT("counter.added", amount)
};

struct Wrong : sourced::Handler {
    Wrong() : Handler("wrong") {
        on([](const sourced::Envelope&) {});
    }
};
