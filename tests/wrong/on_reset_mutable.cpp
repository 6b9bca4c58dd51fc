// expect: on_reset() takes a const handler with the parameters (Transaction&) or (std::string_view stream, Transaction&)
#include <sourced.hpp>

struct Totals : sourced::Projector<int> {
    Totals() : Projector("totals") {
        on_reset([calls = 0](sourced::Transaction&) mutable { ++calls; });
    }
};
