// expect: given() and stage() take an actor, a projector, a handler or a reactor
// lines: 14
#include <sourced.hpp>

struct Shop {};

void use() { (void)sourced::testing::stage<Shop>(); }
