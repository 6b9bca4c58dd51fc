// expect: run(): the function may change itself (mutable, or a member function without const); it runs on
#include <sourced.hpp>

struct Paid {
    int amount = 0;
    SOURCED_EVENT("trip.paid", amount)
};

struct Trip : sourced::Workflow<int, int, Paid> {
    Trip() : Workflow("trip") {
        run([n = 0](Context&, const int& days) mutable { return days + ++n; });
    }
};
