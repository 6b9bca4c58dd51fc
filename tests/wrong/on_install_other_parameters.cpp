// expect: on_install() takes a handler with the one parameter Transaction&
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
        on_install([](sourced::Reader&) {});
    }
};
