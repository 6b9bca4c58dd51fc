// expect: App::add() takes the type of a reactor, and what to make it from: app.add<Cart>(price)
// F4
#include <sourced.hpp>

struct Add {
    int amount = 0;
    SOURCED_COMMAND("counter.add", amount)
};
struct Counter : sourced::Actor<int> {
    Counter() : Actor("counter") {
        command([](int, const Add&) -> sourced::Events { return {}; });
    }
};

void use(sourced::App& app) { app.add(Counter()); }
