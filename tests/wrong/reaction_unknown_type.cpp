// expect: reaction(): the type of the handler's event has no SOURCED_EVENT line
// C9
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
        reaction<Added, Plain>([](const auto& event) { return sourced::dispatch(Add{event.amount}); });
    }
};
