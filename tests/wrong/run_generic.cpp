// expect: run(): the function's parameters cannot be read; write (Context&, const Input&) instead of auto
#include <sourced.hpp>

struct Paid {
    int amount = 0;
    SOURCED_EVENT("trip.paid", amount)
};

struct Trip : sourced::Workflow<int, int, Paid> {
    Trip() : Workflow("trip") {
        run([](auto&, const auto& days) { return days; });
    }
};
