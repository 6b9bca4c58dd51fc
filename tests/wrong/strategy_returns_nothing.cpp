// expect: an error strategy is a Retries, or is called with a const Fault& and returns a Resolution
#include <sourced.hpp>

void ignore(const sourced::Fault&) {}
const sourced::Options options{.errors = ignore};
