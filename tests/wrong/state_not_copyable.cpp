// expect: the State of an actor or projector has to be copyable
#include <sourced.hpp>

struct State {
    std::unique_ptr<int> only;
};

struct Counter : sourced::Actor<State> {
    Counter() : Actor("counter") {}
};
