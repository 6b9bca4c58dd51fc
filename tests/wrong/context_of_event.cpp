// expect: a CommandContext builds commands: this type is an event
#include <sourced.hpp>

struct Added {
    int amount = 0;
    SOURCED_EVENT("counter.added", amount)
};

void use(sourced::CommandContext& context) { (void)context.build<Added>("{}"); }
