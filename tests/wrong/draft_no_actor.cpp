// expect: App::draft() takes an actor
#include <sourced.hpp>

struct Cart {};

void use(sourced::App& app) { (void)app.draft<Cart>("cart-1"); }
