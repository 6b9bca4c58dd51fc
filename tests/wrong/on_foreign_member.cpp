// expect: on(): the handler is a member function of another class
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
    void see(const Added&) const {}
};
struct Wrong : sourced::Handler {
    Wrong() : Handler("wrong") {
        on(&Other::see);
    }
};
