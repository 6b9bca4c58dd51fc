// expect: run(): the function is a member function of another class
#include <sourced.hpp>

struct Paid {
    int amount = 0;
    SOURCED_EVENT("trip.paid", amount)
};

struct Other {
    int go(sourced::Context&, const int& days) const { return days; }
};
struct Trip : sourced::Workflow<int, int, Paid> {
    Trip() : Workflow("trip") {
        run(&Other::go);
    }
};
