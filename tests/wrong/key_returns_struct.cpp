// expect: key(): the handler returns neither text nor an integer
#include <sourced.hpp>

struct Add {
    int amount = 0;
    SOURCED_COMMAND("counter.add", amount)
};
struct Added {
    int amount = 0;
    SOURCED_EVENT("counter.added", amount)
};

struct Totals : sourced::Projector<int> {
    Totals() : Projector("totals") {
        key([](const Added& added) { return added; });
    }
};
