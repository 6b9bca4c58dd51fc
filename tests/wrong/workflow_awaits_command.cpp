// expect: Workflow: what it waits for are events: a type behind the output is a command
#include <sourced.hpp>

struct Pay {
    int amount = 0;
    SOURCED_COMMAND("trip.pay", amount)
};

struct Trip : sourced::Workflow<int, int, Pay> {
    Trip() : Workflow("trip") {
        run([](Context&, const int& days) { return days; });
    }
};
