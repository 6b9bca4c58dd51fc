// expect: given() and stage() take an actor, a projector, a handler or a reactor
#include <sourced.hpp>

struct Shop {};

void use() { (void)sourced::testing::given<Shop>(); }
