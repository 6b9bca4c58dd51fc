// expect: a CommandContext builds commands: this type has no SOURCED_COMMAND line
#include <sourced.hpp>

struct Add {
    int amount = 0;
};

void use(sourced::CommandContext& context) { (void)context.build<Add>("{}"); }
