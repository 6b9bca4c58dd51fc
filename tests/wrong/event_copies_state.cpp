// expect: event(): the handler cannot change the state it takes; write State&
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
        event([](int total, const Added& added) { total += added.amount; });
    }
};
