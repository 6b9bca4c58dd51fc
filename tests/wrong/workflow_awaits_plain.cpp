// expect: Workflow: what it waits for are events: a type behind the output has no SOURCED_EVENT line
#include <sourced.hpp>

struct Plain {
    int amount = 0;
};

struct Trip : sourced::Workflow<int, int, Plain> {
    Trip() : Workflow("trip") {
        run([](Context&, const int& days) { return days; });
    }
};
