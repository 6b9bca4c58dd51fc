// expect: on(): the handler takes the message by a reference that could change it
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
        on([](Added& added) { added.amount = 0; });
    }
};
