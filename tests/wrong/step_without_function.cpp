// expect: ctx.step(): the step is no function that takes () or (const Attempt&)
#include <sourced.hpp>

struct Paid {
    int amount = 0;
    SOURCED_EVENT("trip.paid", amount)
};

struct Trip : sourced::Workflow<int, int, Paid> {
    Trip() : Workflow("trip") {
        run([](Context& ctx, const int& days) {
            ctx.step("book", days);
            return days;
        });
    }
};
