// expect: ctx.step(): the step returns a pointer or a view, which cannot be recorded; return a std::string or
#include <sourced.hpp>

struct Paid {
    int amount = 0;
    SOURCED_EVENT("trip.paid", amount)
};

struct Trip : sourced::Workflow<int, int, Paid> {
    Trip() : Workflow("trip") {
        run([](Context& ctx, const int&) {
            ctx.step("book", [] { return "F1"; });
            return 1;
        });
    }
};
