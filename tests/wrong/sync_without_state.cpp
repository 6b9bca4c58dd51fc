// expect: sync(): the handler's first parameter is not const State&
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
        sync([](std::string_view, sourced::Transaction&) {});
    }
};
