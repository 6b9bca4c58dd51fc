// expect: on(): the handler returns something that is neither a message nor a Dispatch
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
        on([](const Added& added) { return added.amount; });
    }
};
