// expect: a hook of a CommandContext is called with (T&) or (T&, Metadata&)
#include <sourced.hpp>

struct Add {
    int amount = 0;
    SOURCED_COMMAND("counter.add", amount)
};

void use(sourced::CommandContext& context) {
    context.on<Add>([](Add&, int) {});
}
