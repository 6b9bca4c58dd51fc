// expect: App::add() takes an actor, a projector, a handler or a reactor
// F4
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

void use(sourced::App& app) { app.add<Plain>(); }
