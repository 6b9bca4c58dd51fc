// expect: App::handle() takes a command: this type is an event
#include <sourced.hpp>

struct Add {
    int amount = 0;
    SOURCED_COMMAND("counter.add", amount)
};
struct Added {
    int amount = 0;
    SOURCED_EVENT("counter.added", amount)
};

struct Counter : sourced::Actor<int> {
    Counter() : Actor("counter") {
        event<Added>();
    }
};

void use(sourced::App& app) { app.handle<Counter>("counter-1", Added{1}); }
