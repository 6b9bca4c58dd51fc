// expect: Unit::handle() takes a command or an event: this type has no SOURCED_COMMAND or SOURCED_EVENT line
#include <sourced.hpp>

struct Added {
    int number = 0;
};

void f(sourced::Unit& unit) { (void)unit.handle("cart-1", Added{1}); }
