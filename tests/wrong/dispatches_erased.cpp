// expect: this Dispatch no longer says which command it sends
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
        reaction([](const Added&) {
            sourced::Dispatches<Add> dispatches;
            const sourced::Dispatch erased = sourced::dispatch(Add{});
            dispatches.add(erased);
            return dispatches;
        });
    }
};
