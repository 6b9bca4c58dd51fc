// expect: App::unit() names the reactors that work together
#include <sourced.hpp>

void f(sourced::App& app) { (void)app.unit<>(sourced::UnitOptions{}); }
