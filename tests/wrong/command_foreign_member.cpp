// expect: command(): the handler is a member function of another class
#include <sourced.hpp>

struct Add {
    int amount = 0;
    SOURCED_COMMAND("counter.add", amount)
};
struct Added {
    int amount = 0;
    SOURCED_EVENT("counter.added", amount)
};

struct Other {
    Added add(const int&, const Add& add) const { return {add.amount}; }
};
struct Counter : sourced::Actor<int> {
    Counter() : Actor("counter") {
        command(&Other::add);
    }
};
