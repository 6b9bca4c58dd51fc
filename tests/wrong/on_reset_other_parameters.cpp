// expect: on_reset() takes a handler with the parameters (Transaction&) or (std::string_view stream, Transaction&)
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
        on_reset([](sourced::Reader&) {});
    }
};
