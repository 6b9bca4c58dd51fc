// expect: Draft::decide() takes a command: this type is an event
#include <sourced.hpp>

struct Added {
    int amount = 0;
    SOURCED_EVENT("counter.added", amount)
};
struct Counter : sourced::Actor<int> {
    Counter() : Actor("counter") { event<Added>(); }
};

void use(sourced::Draft<Counter>& draft) { (void)draft.decide(Added{1}); }
