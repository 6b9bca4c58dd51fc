// expect: run(): the function returns something else than the workflow's output
#include <sourced.hpp>

struct Paid {
    int amount = 0;
    SOURCED_EVENT("trip.paid", amount)
};

struct Trip : sourced::Workflow<int, int, Paid> {
    Trip() : Workflow("trip") {
        run([](Context&, const int&) { return Paid{1}; });
    }
};
