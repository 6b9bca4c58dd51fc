// expect: on(): after the message the handler takes something else
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
        on<Added, Add>([](const auto& message, int) { return message; });
    }
};
