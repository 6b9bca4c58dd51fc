// expect: ctx.wait_for(): the workflow does not say that it waits for this event; write
#include <sourced.hpp>

struct Paid {
    int amount = 0;
    SOURCED_EVENT("trip.paid", amount)
};

struct Trip : sourced::Workflow<int, int> {
    Trip() : Workflow("trip") {
        run([](Context& ctx, const int&) { return ctx.wait_for<Paid>().amount; });
    }
};
