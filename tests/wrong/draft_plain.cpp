// expect: Draft::decide() takes a command: this type has no SOURCED_COMMAND line
#include <sourced.hpp>

struct Add {
    int amount = 0;
};
struct Counter : sourced::Actor<int> {
    Counter() : Actor("counter") {}
};

void use(sourced::Draft<Counter>& draft) { (void)draft.decide(Add{1}); }
