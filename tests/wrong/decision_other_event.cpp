// expect: this event is not among those that the Decision names
#include <sourced.hpp>

struct Add {
    int amount = 0;
    SOURCED_COMMAND("counter.add", amount)
};
struct Added {
    int amount = 0;
    SOURCED_EVENT("counter.added", amount)
};

struct Removed {
    SOURCED_EVENT("counter.removed")
};
struct Counter : sourced::Actor<int> {
    Counter() : Actor("counter") {
        command([](const int&, const Add&) -> sourced::Decision<Added> { return Removed{}; });
    }
};
