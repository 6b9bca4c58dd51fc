// expect: run(): the function takes something else than (Context&, const Input&)
#include <sourced.hpp>

struct Paid {
    int amount = 0;
    SOURCED_EVENT("trip.paid", amount)
};

struct Trip : sourced::Workflow<int, int, Paid> {
    Trip() : Workflow("trip") {
        run([](Context&, const Paid& paid) { return paid.amount; });
    }
};
