// expect: handles(): a type has no SOURCED_COMMAND or SOURCED_EVENT line
#include <sourced.hpp>

struct Add {
    int amount = 0;
    SOURCED_COMMAND("counter.add", amount)
};
struct Added {
    int amount = 0;
    SOURCED_EVENT("counter.added", amount)
};

struct Wrong : sourced::BatchReactor {
    Wrong() : BatchReactor("wrong") { handles<Added, int>(); }
    sourced::Results handle(const sourced::Batch&) override { return {}; }
};
