// expect: on(): the type of the handler's message has no SOURCED_EVENT or SOURCED_COMMAND line
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
        on([](const int&) {});
    }
};
