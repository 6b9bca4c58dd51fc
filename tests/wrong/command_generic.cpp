// expect: command(): the handler's parameters cannot be read; name the command's type instead of auto
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
        command([](const int&, const auto& add) { return Added{add.amount}; });
    }
};
