// expect: App::unit() takes actors, projectors, handlers and reactors
#include <sourced.hpp>

struct Cart {};

void f(sourced::App& app) { (void)app.unit<Cart>(); }
