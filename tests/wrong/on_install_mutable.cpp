// expect: on_install() takes a const handler with the one parameter Transaction&
#include <sourced.hpp>

struct Totals : sourced::Projector<int> {
    Totals() : Projector("totals") {
        on_install([calls = 0](sourced::Transaction&) mutable { ++calls; });
    }
};
