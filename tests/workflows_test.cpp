// Durable workflows: functions whose steps are recorded.
#include <atomic>
#include <mutex>
#include <set>
#include <stdexcept>

#include "support.hpp"

using namespace std::chrono_literals;
using sourced::Attempt;
using sourced::StepRetries;
using sourced::WorkflowStatus;

namespace {

struct Trip {
    std::string city{};
    int people = 1;

    SOURCED_VALUE(city, people)
};
struct Booking {
    std::string flight{};
    std::string hotel{};
    int paid = 0;

    SOURCED_VALUE(flight, hotel, paid)
    bool operator==(const Booking&) const = default;
};
struct Paid {
    int amount = 0;
    SOURCED_EVENT("trip.paid", amount)
};
struct Cancelled {
    std::string why{};
    SOURCED_EVENT("trip.cancelled", why)
};
struct Noise {
    SOURCED_EVENT("trip.noise")
};

/// A workflow whose function a test gives.
struct Any : sourced::Workflow<int, std::string, Paid, Cancelled> {
    using Function = std::function<std::string(Context&, int)>;
    explicit Any(Function function) : Workflow("any") {
        run([function = std::move(function)](Context& ctx, const int& input) { return function(ctx, input); });
    }
};

/// The log's types, without what they have in common.
std::vector<std::string> types(const sourced::Messages& history) {
    std::vector<std::string> list;
    for (const auto& message : history) {
        std::string type = message.type;
        if (type.rfind("sourced.workflow_", 0) == 0) type = type.substr(17);
        list.push_back(type.substr(0, type.find(".any")));
    }
    return list;
}
using Names = std::vector<std::string>;

/// An App in memory with one workflow, run on this thread by a clock that is moved by hand.
struct Stage {
    sourced::testing::Clock clock;
    std::vector<std::string> lines;
    sourced::App app;

    explicit Stage(Any::Function function)
        : app({.clock = clock, .log = [this](const sourced::LogRecord& record) {
              std::string line = record.text;
              for (const auto& [key, value] : record.fields) line += " | " + key + "=" + value;
              lines.push_back(line);
          }}) {
        app.add<Any>(std::move(function));
    }
    sourced::WorkflowHandle<Any> start(int input = 1) {
        auto handle = app.start_workflow<Any>("1", input);
        app.run_until_idle();
        return handle;
    }
};

}  // namespace

TEST_CASE("Workflows: Q1: each step is recorded before and after it runs, and the output at the end") {
    Stage stage([](auto& ctx, int) {
        const auto ip = ctx.step("get_ip", [] { return std::string("11.111.111"); });
        return ctx.step("geolocate", [&] { return "somewhere near " + ip; });
    });
    const auto handle = stage.start();
    CHECK(handle.outcome().output() == "somewhere near 11.111.111");
    CHECK(types(handle.history()) == Names{"started", "step_started", "step_completed", "step_started",
                                           "step_completed", "completed"});
    CHECK(handle.history().at(2).payload.find("11.111.111") != std::string::npos);
}

TEST_CASE("Workflows: Q2: a step that fails is recorded with the type and the text of its exception") {
    Stage stage([](auto& ctx, int) -> std::string {
        ctx.step("charge", []() -> int { throw std::out_of_range("card declined"); });
        return "";
    });
    const auto handle = stage.start();
    const auto failure = handle.history().at(2);
    CHECK(failure.type == "sourced.workflow_step_failed");
    CHECK(failure.payload == R"({"call":1,"step":"charge","key":"","attempt":1,"type":"std::out_of_range",)"
                             R"("text":"card declined","retry_at":null})");
    SUBCASE("and the workflow with it, whose text a caller reads") {
        const auto outcome = handle.outcome();
        CHECK(outcome.failed());
        CHECK(outcome.error_type() == "std::out_of_range");
        CHECK(outcome.error_text() == "card declined");
        CHECK_THROWS_WITH_AS((void)outcome.output(), "the workflow has failed: card declined", sourced::Error);
        const auto failed = handle.history().back().as<sourced::WorkflowFailed>();
        CHECK(failed.workflow == "any");
        CHECK(failed.step == "charge");
    }
    SUBCASE("what is no exception counts too") {
        Stage other([](auto& ctx, int) -> std::string {
            ctx.step("charge", [] { throw 5; });
            return "";
        });
        CHECK(other.start().outcome().error_type() == "int");
    }
}

TEST_CASE("Workflows: Q3: a completed step gives its recorded value and is not run again") {
    int first = 0;
    int second = 0;
    Stage stage([&](auto& ctx, int input) {
        const int a = ctx.step("first", [&] { return ++first + input; });
        const int b = ctx.step("second", [&] { return ++second + a; });
        ctx.sleep(1s);
        ctx.template wait_for<Paid>();
        return std::to_string(a) + ' ' + std::to_string(b);
    });
    const auto handle = stage.start(10);
    stage.clock.advance(1s);
    stage.app.run_until_idle();
    stage.app.dispatch(handle.stream(), Paid{1});
    stage.app.run_until_idle();
    CHECK(handle.outcome().output() == "11 12");
    CHECK(first == 1);
    CHECK(second == 1);
}

TEST_CASE("Workflows: Q4: one that has ended answers no message any more") {
    Stage stage([](auto& ctx, int fails) -> std::string {
        if (fails) throw std::runtime_error("no");
        (void)ctx.template wait_for<Paid>(1h);
        return "done";
    });
    SUBCASE("failed") {
        const auto handle = stage.start(1);
        CHECK(handle.outcome().error_text() == "no");
        stage.app.dispatch(handle.stream(), Paid{1});
        stage.app.run_until_idle();
        CHECK(types(handle.history()) == Names{"started", "failed", "trip.paid"});
    }
    SUBCASE("completed, also when the time of a wait passes later") {
        const auto handle = stage.start(0);
        stage.app.dispatch(handle.stream(), Paid{1});
        stage.app.run_until_idle();
        stage.clock.advance(1h);
        stage.app.run_until_idle();
        CHECK(types(handle.history()) ==
              Names{"started", "wait_started", "trip.paid", "wait_ended", "completed", "woken"});
        CHECK(handle.outcome().completed());
    }
}

TEST_CASE("Workflows: Q5: steps of the same name and key run once, wherever they stand") {
    int runs = 0;
    Stage stage([&](auto& ctx, int) {
        const auto twice = [&](int n) {
            return ctx.step("double", n, [&] {
                ++runs;
                return 2 * n;
            });
        };
        return std::to_string(twice(2) + twice(4) + twice(2));
    });
    CHECK(stage.start().outcome().output() == "16");
    CHECK(runs == 2);
    SUBCASE("keys are told apart by their JSON") {
        Stage other([](auto& ctx, int) {
            std::string all;
            for (const std::string key : {"a", "1", ""}) all += ctx.step("text", key, [&] { return "s" + key + ' '; });
            all += ctx.step("text", 1, [&] { return std::string("i1"); });
            return all;
        });
        CHECK(other.start().outcome().output() == "sa s1 s i1");
    }
}

TEST_CASE("Workflows: Q6: a step is tried again as often as it says, then the workflow has failed") {
    int runs = 0;
    std::vector<sourced::Id> ids;
    Stage stage([&](auto& ctx, int) -> std::string {
        ctx.step(
            "flaky",
            [&](const Attempt& attempt) {
                ++runs;
                ids.push_back(attempt.id);
                throw std::runtime_error("try " + std::to_string(attempt.number));
            },
            {.times = 1, .after = 10s});
        return "";
    });
    const auto handle = stage.start();
    CHECK(runs == 1);
    CHECK(types(handle.history()) == Names{"started", "step_started", "step_failed"});
    CHECK(handle.outcome().running());
    stage.clock.advance(9s);
    stage.app.run_until_idle();
    CHECK(runs == 1);
    stage.clock.advance(1s);
    stage.app.run_until_idle();
    CHECK(types(handle.history()) ==
          Names{"started", "step_started", "step_failed", "step_started", "step_failed", "failed"});
    CHECK(handle.outcome().error_text() == "try 2");
    CHECK(ids.at(0) == ids.at(1));
    CHECK_FALSE(ids.at(0).is_nil());
}

TEST_CASE("Workflows: Q6: retries wait twice as long each time, up to a bound, and may go on without end") {
    std::vector<sourced::Time> times;
    sourced::testing::Clock* clock = nullptr;
    Stage stage([&](auto& ctx, int) {
        return ctx.step(
            "flaky",
            [&] {
                times.push_back(clock->now());
                if (times.size() < 6) throw std::runtime_error("not yet");
                return std::string("at last");
            },
            {.times = StepRetries::unlimited, .after = 2s, .at_most = 10s});
    });
    clock = &stage.clock;
    const auto handle = stage.start();
    for (int i = 0; i < 60; ++i) {
        stage.clock.advance(1s);
        stage.app.run_until_idle();
    }
    CHECK(handle.outcome().output() == "at last");
    REQUIRE(times.size() == 6);
    std::vector<std::int64_t> pauses;
    for (std::size_t i = 1; i < times.size(); ++i) pauses.push_back((times[i] - times[i - 1]) / 1s);
    CHECK(pauses == std::vector<std::int64_t>{2, 4, 8, 10, 10});
}

TEST_CASE("Workflows: Q6: a failed step that the function catches can be made good by other steps") {
    Stage stage([](auto& ctx, int) {
        try {
            ctx.step("hotel", []() -> int { throw std::runtime_error("full"); });
        } catch (const sourced::StepFailed& failed) {
            CHECK(std::string(failed.what()) == "step 'hotel' failed: full");
            CHECK(failed.step() == "hotel");
            CHECK(failed.type() == "std::runtime_error");
            return ctx.step("cancel flight", [&] { return "cancelled, the hotel was " + failed.text(); });
        }
        return std::string();
    });
    const auto handle = stage.start();
    CHECK(handle.outcome().output() == "cancelled, the hotel was full");
    CHECK(types(handle.history()) == Names{"started", "step_started", "step_failed", "step_started", "step_completed",
                                           "completed"});
}

namespace {

struct Progress {
    int index = 0;
    std::vector<int> results{};

    SOURCED_VALUE(index, results)
};

}  // namespace

TEST_CASE("Workflows: Q7: what a step changed outlives its failure") {
    int failures = 0;
    Stage stage([&](auto& ctx, int) {
        auto& progress = ctx.template keep<Progress>("progress");
        ctx.step(
            "double all",
            [&] {
                while (progress.index < 5) {
                    if (progress.index == 2 && failures++ == 0) throw std::runtime_error("interrupted");
                    progress.results.push_back(2 * ++progress.index);
                }
            },
            {.times = 1});
        return sourced::encode(progress);
    });
    const auto handle = stage.start();
    const auto history = handle.history();
    REQUIRE(types(history) == Names{"started", "step_started", "kept", "step_failed"});
    CHECK(history[2].payload == R"({"name":"progress","output":{"index":2,"results":[2,4]}})");
    stage.clock.advance(1s);
    stage.app.run_until_idle();
    CHECK(handle.outcome().output() == R"({"index":5,"results":[2,4,6,8,10]})");
    CHECK(types(handle.history()) == Names{"started", "step_started", "kept", "step_failed", "step_started", "kept",
                                           "step_completed", "completed"});
}

TEST_CASE("Workflows: Q7: a value is as it was at each place of the function, in every run") {
    std::vector<std::string> seen;
    Stage stage([&](auto& ctx, int) {
        auto& count = ctx.keep("count", 10);
        CHECK(&count == &ctx.keep("count", 5));
        std::string line = std::to_string(count);
        ctx.step("a", [&] { count += 1; });
        line += ' ' + std::to_string(count);
        ctx.step("nothing", [] {});
        ctx.step("b", [&] { count += 1; });
        line += ' ' + std::to_string(count);
        ctx.sleep(1s);
        seen.push_back(line);
        return line;
    });
    const auto handle = stage.start();
    stage.clock.advance(1s);
    stage.app.run_until_idle();
    CHECK(handle.outcome().output() == "10 11 12");
    CHECK(seen == Names{"10 11 12"});
    const auto list = types(handle.history());
    CHECK(std::count(list.begin(), list.end(), "kept") == 2);
}

TEST_CASE("Workflows: Q8: a sleep ends when its time has passed on the clock") {
    Stage stage([](auto& ctx, int) {
        ctx.sleep(10s);
        return std::string("rested");
    });
    const auto handle = stage.start();
    const auto due = stage.app.scheduled();
    REQUIRE(due.size() == 1);
    CHECK(due[0].due_at == stage.clock.now() + 10s);
    CHECK(types(handle.history()) == Names{"started", "sleep_started"});
    stage.clock.advance(9s);
    stage.app.run_until_idle();
    CHECK(handle.outcome().running());
    stage.clock.advance(1s);
    stage.app.run_until_idle();
    CHECK(types(handle.history()) == Names{"started", "sleep_started", "woken", "completed"});
    CHECK(handle.outcome().output() == "rested");

    SUBCASE("until a time; one that has passed is no sleep") {
        Stage other([&](auto& ctx, int) {
            ctx.sleep_until(stage.clock.now());
            ctx.sleep_until(sourced::Time{});
            return std::string("awake");
        });
        other.clock.set(stage.clock.now() - 1s);
        const auto sleeper = other.start();
        CHECK(sleeper.outcome().running());
        other.clock.advance(1s);
        other.app.run_until_idle();
        CHECK(sleeper.outcome().output() == "awake");
    }
    SUBCASE("a negative one is an error") {
        Stage other([](auto& ctx, int) {
            ctx.sleep(-1s);
            return std::string();
        });
        CHECK(other.start().outcome().error_text() == "sleep: the time is negative");
    }
}

TEST_CASE("Workflows: Q9: what nobody waits for is left alone, and stays readable") {
    Stage stage([](auto& ctx, int) {
        ctx.sleep(1s);
        return std::to_string(ctx.template wait_for<Paid>().amount);
    });
    const auto handle = stage.app.start_workflow<Any>("1", 1);
    stage.app.dispatch(handle.stream(), Noise{});
    stage.app.dispatch(handle.stream(), Cancelled{"bored"});
    stage.app.run_until_idle();
    stage.clock.advance(1s);
    stage.app.dispatch(handle.stream(), Paid{7});
    stage.app.run_until_idle();
    CHECK(handle.outcome().output() == "7");
    CHECK(handle.history().at(2).as<Cancelled>().why == "bored");
}
