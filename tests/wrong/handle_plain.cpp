// expect: App::handle() takes a command: this type has no SOURCED_COMMAND line
#include <sourced.hpp>

struct Add {
    int number = 0;
};
struct Cart : sourced::Actor<int> {
    Cart() : Actor("cart") {}
};

void f(sourced::App& app) { (void)app.handle<Cart>("cart-1", Add{1}); }
