// expect: reaction(): the handler returns something else than a Dispatch
#include <sourced.hpp>

struct Add {
    int amount = 0;
    SOURCED_COMMAND("counter.add", amount)
};
struct Added {
    int amount = 0;
    SOURCED_EVENT("counter.added", amount)
};

struct Wrong : sourced::Projector<int> {
    Wrong() : Projector("wrong") {
        reaction([](const Added& added) { return added; });
    }
};
