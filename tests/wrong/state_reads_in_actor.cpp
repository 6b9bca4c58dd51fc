// expect: state(): the handler takes something else than () or (std::string_view id)
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
        state([](std::string_view, sourced::Reader&) { return 0; });
    }
};
