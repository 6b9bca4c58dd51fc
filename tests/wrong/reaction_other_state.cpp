// expect: reaction(): the handler's first parameter is not the State; write (const State&, const Event&) or (const Event&)
#include <sourced.hpp>

#include <string>

struct Added {
    int amount = 0;
    SOURCED_EVENT("counter.added", amount)
};
struct Add {
    int amount = 0;
    SOURCED_COMMAND("counter.add", amount)
};

struct Counter : sourced::Actor<int> {
    Counter() : Actor("counter") {
        reaction([](const std::string&, const Added& added) { return sourced::dispatch(Add{added.amount}); });
    }
};
