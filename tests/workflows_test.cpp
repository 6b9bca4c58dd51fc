// Durable workflows: functions whose steps are recorded.
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <functional>
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
    const auto holds = [&](std::size_t index, const std::string& text) {
        return handle.history().at(index).payload.find(text) != std::string::npos;
    };
    CHECK(holds(1, R"("step":"get_ip")"));
    CHECK(holds(2, R"("output":"11.111.111")"));
    CHECK(holds(3, R"("step":"geolocate")"));
    CHECK(holds(4, R"("output":"somewhere near 11.111.111")"));
    CHECK(holds(5, R"("output":"somewhere near 11.111.111")"));
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
    CHECK(handle.outcome().failed());
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
            const sourced::StepFailed often("hotel", 3, "T", "full");
            CHECK(std::string(often.what()) == "step 'hotel' failed 3 times: full");
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
    SUBCASE("one without end is an error, and so is such a wait") {
        for (const bool sleeps : {true, false}) {
            Stage other([sleeps](auto& ctx, int) {
                if (sleeps) ctx.sleep(sourced::Duration::max());
                else (void)ctx.template wait_for<Paid>(sourced::Duration::max());
                return std::string();
            });
            const auto outcome = other.start().wait(sourced::Duration::max());
            CHECK(outcome.error_text() == "write JSON: /until: cannot write a time outside the years 0 to 9999");
        }
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

// ---- Waiting

TEST_CASE("Workflows: a wait has the next event of its type, come before or after, and each is had once") {
    Stage stage([](auto& ctx, int) {
        const int first = ctx.template wait_for<Paid>().amount;
        const int second = ctx.template wait_for<Paid>().amount;
        const int third = ctx.template wait_for<Paid>().amount;
        return std::to_string(first) + ' ' + std::to_string(second) + ' ' + std::to_string(third);
    });
    const auto handle = stage.app.workflow<Any>("1");
    stage.app.dispatch(handle.stream(), Paid{1});  // even before it was started
    CHECK(handle.outcome().running());
    (void)stage.start();
    stage.app.dispatch(handle.stream(), Paid{2});
    stage.app.dispatch(handle.stream(), Paid{3});
    stage.app.run_until_idle();
    CHECK(handle.outcome().output() == "1 2 3");
    CHECK(types(handle.history()) == Names{"trip.paid", "started", "wait_ended", "wait_started", "trip.paid",
                                           "trip.paid", "wait_ended", "wait_ended", "completed"});
}

TEST_CASE("Workflows: a wait with a timeout gives nothing when none has come in time") {
    Stage stage([](auto& ctx, int) {
        const auto in_time = ctx.template wait_for<Paid>(10s);
        const auto later = ctx.template wait_for<Paid>();
        return (in_time ? std::to_string(in_time->amount) : "none") + ' ' + std::to_string(later.amount);
    });
    const auto handle = stage.start();
    SUBCASE("in time") {
        stage.app.dispatch(handle.stream(), Paid{1});
        stage.app.run_until_idle();
        stage.clock.advance(10s);
        stage.app.dispatch(handle.stream(), Paid{2});
        stage.app.run_until_idle();
        CHECK(handle.outcome().output() == "1 2");
    }
    SUBCASE("too late: the next wait has it") {
        stage.clock.advance(10s);
        stage.app.run_until_idle();
        stage.app.dispatch(handle.stream(), Paid{1});
        stage.app.run_until_idle();
        CHECK(handle.outcome().output() == "none 1");
    }
    SUBCASE("the order of the stream decides, not who looks when") {
        stage.clock.advance(10s);
        (void)stage.app.store().promote(stage.clock.now());
        stage.app.dispatch(handle.stream(), Paid{1});
        stage.app.run_until_idle();
        CHECK(handle.outcome().output() == "none 1");
    }
}

TEST_CASE("Workflows: a wait for several types has the first that comes") {
    Stage stage([](auto& ctx, int) {
        const auto first = ctx.template wait_for<Paid, Cancelled>();
        const auto second = ctx.template wait_for<Paid, Cancelled>(1s);
        std::string text = first.index() == 0 ? std::to_string(std::get<Paid>(first).amount) : std::get<1>(first).why;
        return text + (second ? " and more" : " alone");
    });
    const auto handle = stage.start();
    stage.app.dispatch(handle.stream(), Cancelled{"ill"});
    stage.app.run_until_idle();
    stage.clock.advance(1s);
    stage.app.run_until_idle();
    CHECK(handle.outcome().output() == "ill alone");
}

namespace {

struct PaidBefore {
    int amount = 0;
    SOURCED_EVENT("trip.paid_before", amount)
};
struct PaidNow {
    int amount = 0;
    SOURCED_EVENT("trip.paid_now", amount)
    static constexpr std::array<std::string_view, 1> sourced_aliases{"trip.paid_before"};
};
template <class E>
struct Renamed : sourced::Workflow<int, std::string, E> {
    using typename sourced::Workflow<int, std::string, E>::Context;
    Renamed() : sourced::Workflow<int, std::string, E>("renamed") {
        this->run([](Context& ctx, const int&) {
            const int first = ctx.template wait_for<E>().amount;
            return std::to_string(first) + ' ' + std::to_string(ctx.template wait_for<E>().amount);
        });
    }
};

}  // namespace

TEST_CASE("Workflows: an event that is waited for may get another name meanwhile") {
    const support::TemporaryDirectory directory;
    {
        sourced::App app({.path = directory.file()});
        app.add<Renamed<PaidBefore>>();
        (void)app.start_workflow<Renamed<PaidBefore>>("1", 1);
        app.dispatch("renamed-1", PaidBefore{1});
        app.run_until_idle();
    }
    sourced::App app({.path = directory.file()});
    app.add<Renamed<PaidNow>>();
    app.dispatch("renamed-1", PaidNow{2});
    app.run_until_idle();
    CHECK(app.workflow<Renamed<PaidNow>>("1").outcome().output() == "1 2");
}

TEST_CASE("Workflows: what ends them are events for everybody") {
    struct Board : sourced::Projection<Progress> {
        Board() : Projection("board") {
            event([](Progress& progress, const sourced::WorkflowCompleted&) { ++progress.index; });
            event([](Progress& progress, const sourced::WorkflowFailed& failed) {
                progress.results.push_back(static_cast<int>(failed.text.size()));
            });
        }
    };
    Stage stage([](auto&, int input) -> std::string {
        if (input == 2) throw std::runtime_error("abc");
        return "well";
    });
    const auto& board = stage.app.add<Board>();
    (void)stage.start();
    (void)stage.app.start_workflow<Any>("2", 2);
    stage.app.run_until_idle();
    CHECK(board.get(stage.app.store(), "any-1")->index == 1);
    CHECK(board.get(stage.app.store(), "any-2")->results == std::vector<int>{3});
}

TEST_CASE("Workflows: time, chance and ids are the same in every run") {
    std::vector<std::string> seen;
    Stage stage([&](auto& ctx, int) {
        const auto at = ctx.now();
        const auto number = ctx.random();
        const auto id = ctx.new_id();
        CHECK(id != ctx.new_id());
        CHECK(number != ctx.random());
        seen.push_back(sourced::encode(at) + std::to_string(number) + id.to_string());
        ctx.sleep(1h);
        return sourced::encode(at);
    });
    const auto started = stage.clock.now();
    const auto handle = stage.start();
    stage.clock.advance(1h);
    stage.app.run_until_idle();
    CHECK(handle.outcome().output() == sourced::encode(started));
    REQUIRE(seen.size() == 2);
    CHECK(seen[0] == seen[1]);
}

// ---- Starting

namespace {

struct Silent : sourced::Workflow<Trip, void> {
    explicit Silent(std::atomic<int>* runs) : Workflow("silent"), runs_(runs) { run(&Silent::go); }
    void go(Context& ctx, const Trip& trip) const {
        ctx.step("visit " + trip.city, [&] { *runs_ += trip.people; });
    }
    std::atomic<int>* runs_;
};

}  // namespace

TEST_CASE("Workflows: one is started once under its id, with any input, and may have no output") {
    std::atomic<int> runs{0};
    sourced::App app;
    app.add<Silent>(&runs);
    const auto handle = app.start_workflow<Silent>("4711", Trip{"Lisbon", 2});
    CHECK(handle.id() == "4711");
    CHECK(handle.stream() == "silent-4711");
    CHECK(handle.outcome().running());
    CHECK_THROWS_WITH_AS(handle.outcome().output(), "the workflow has not ended yet", sourced::Error);
    CHECK(app.start_workflow<Silent>("4711", Trip{"Lisbon", 2}).stream() == handle.stream());
    app.run_until_idle();
    (void)app.start_workflow<Silent>("4711", Trip{"Lisbon", 2});
    app.run_until_idle();
    CHECK(runs == 2);
    CHECK(handle.outcome().completed());
    handle.outcome().output();
    CHECK_THROWS_WITH_AS((void)app.start_workflow<Silent>("4711", Trip{"Porto", 2}),
                         "start workflow 'silent-4711': it was started with another input", sourced::Invalid);
    CHECK_THROWS_WITH_AS((void)app.start_workflow<Silent>(" ", Trip{}), "start workflow 'silent': its id is blank",
                         sourced::Invalid);
    const auto other = app.start_workflow<Silent>(Trip{"Porto", 1});
    CHECK(other.id() != app.start_workflow<Silent>(Trip{"Porto", 1}).id());
    app.run_until_idle();
    CHECK(runs == 4);
    CHECK_THROWS_AS((void)app.start_workflow<Any>("1", 1), sourced::NotRegistered);
}

namespace {

struct TripWithMeals {
    std::string city{};
    int people = 1;
    bool meals = false;

    SOURCED_VALUE(city, people, meals)
};
template <class Input>
struct Simple : sourced::Workflow<Input, int> {
    using typename sourced::Workflow<Input, int>::Context;
    Simple() : sourced::Workflow<Input, int>("simple") {
        this->run([](Context&, const Input& input) { return input.people; });
    }
};

}  // namespace

TEST_CASE("Workflows: the input of one that is started again may have got a field since") {
    const support::TemporaryDirectory directory;
    {
        sourced::App app({.path = directory.file()});
        app.add<Simple<Trip>>();
        (void)app.start_workflow<Simple<Trip>>("1", Trip{"Lisbon", 2});
    }
    sourced::App app({.path = directory.file()});
    app.add<Simple<TripWithMeals>>();
    const auto handle = app.start_workflow<Simple<TripWithMeals>>("1", TripWithMeals{"Lisbon", 2});
    CHECK_THROWS_AS((void)app.start_workflow<Simple<TripWithMeals>>("1", TripWithMeals{"Lisbon", 2, true}),
                    sourced::Invalid);
    app.run_until_idle();
    CHECK(handle.outcome().output() == 2);
}

TEST_CASE("Workflows: one needs a name and a function, and only one of it") {
    struct Nameless : sourced::Workflow<int, int> {
        Nameless() : Workflow(" ") {}
    };
    struct Empty : sourced::Workflow<int, int> {
        Empty() : Workflow("empty") {}
    };
    struct Twice : sourced::Workflow<int, int> {
        Twice() : Workflow("twice") {
            run([](Context&, const int& n) { return n; });
            run([](Context&, const int& n) { return n; });
        }
    };
    sourced::App app;
    CHECK_THROWS_WITH_AS(app.add<Nameless>(), "a workflow's name is blank: it is what its progress is kept under",
                         sourced::Invalid);
    CHECK_THROWS_WITH_AS(app.add<Empty>(), "reactor 'empty' has no run() handler", sourced::Error);
    CHECK_THROWS_WITH_AS(app.add<Twice>(), "reactor 'twice' has two run handlers", sourced::Error);
}

// ---- A function that has changed

TEST_CASE("Workflows: Q10: a function whose calls no longer match the history is reported and does nothing") {
    int later = 0;
    const Any before([](auto& ctx, int) {
        ctx.step("book hotel", [] {});
        ctx.sleep(1s);
        return std::string();
    });
    auto history = sourced::testing::Rehearsal(before, 1).history();
    REQUIRE(types(history) == Names{"started", "step_started", "step_completed", "sleep_started"});

    // What a run leads to, as if it had been stored.
    sourced::testing::Clock clock;
    const auto next = [&](const Any& workflow) {
        return workflow.advance("any-1", history, {clock, [] { return sourced::Id::make(); }});
    };
    const auto append = [&](const sourced::Actions& actions) {
        for (const auto& message : std::get<sourced::AppendNext>(actions.at(0)).messages) {
            history.push_back(message.to("any-1").with_seq(static_cast<std::int64_t>(history.size()) + 1));
        }
    };
    const auto refused = [&](Any::Function function) {
        try {
            (void)next(Any(std::move(function)));
        } catch (const sourced::Error& error) {
            return std::string(error.what());
        }
        return std::string("nothing");
    };
    const std::string who = "workflow 'any' at 'any-1': ";
    CHECK(refused([&](auto& ctx, int) {
              ctx.step("rent car", [&] { ++later; });
              return std::string();
          }) == who + "its call 1 is step 'rent car', but its history has step 'book hotel' there (seq 2): the "
                      "function has changed");
    CHECK(refused([&](auto& ctx, int) {
              ctx.step("book hotel", [&] { ++later; });
              (void)ctx.template wait_for<Paid, Cancelled>();
              return std::string();
          }) == who + "its call 2 is wait for 'trip.paid' or 'trip.cancelled', but its history has sleep there (seq "
                      "4): the function has changed");
    CHECK(refused([&](auto& ctx, int) {
              (void)ctx.now();
              return std::string();
          }) == who + "its call 1 is now(), but its history has step 'book hotel' there (seq 2): the function has "
                      "changed");
    CHECK(refused([&](auto& ctx, int) {
              ctx.step("book hotel", [&] { ++later; });
              return std::string();
          }) == who + "it ends after 1 calls, but its history has sleep as call 2 (seq 4): the function has changed");
    CHECK(refused([&](auto& ctx, int) {
              const int room = ctx.step("book hotel", [&] { return ++later; });
              return std::to_string(room);
          }) == who + "what step 'book hotel' returned cannot be read: it returned nothing");
    CHECK(later == 0);

    SUBCASE("a step that ran before it shows keeps its outcome") {
        int runs = 0;
        history.resize(1);
        const Any changed([&](auto& ctx, int) {
            ctx.step("first", 1, [&] { ++runs; });
            ctx.step("new", [] {});
            return std::string();
        });
        append(next(changed));
        const Any old([&](auto& ctx, int) {
            ctx.step("old", [] {});
            return std::string();
        });
        append(next(old));
        append(next(changed));
        CHECK(types(history) == Names{"started", "step_started", "step_started", "step_completed", "woken"});
        CHECK(runs == 1);
        CHECK_THROWS_AS((void)next(changed), sourced::Error);
        CHECK(runs == 1);
    }
}

TEST_CASE("Workflows: one can be tested without a store, by a clock that is moved by hand") {
    int tries = 0;
    std::vector<sourced::Time> times;
    struct Outside : sourced::Workflow<Trip, Booking, Paid> {
        Outside(int* tries, std::vector<sourced::Time>* times) : Workflow("outside") {
            run([=](Context& ctx, const Trip& trip) {
                const auto flight = ctx.step(
                    "flight",
                    [&] {
                        if (++*tries < 3) throw std::runtime_error("busy");
                        return "to " + trip.city;
                    },
                    {.times = 2, .after = 1min});
                times->push_back(ctx.now());
                ctx.sleep(24h);
                const auto paid = ctx.wait_for<Paid>(1h);
                return Booking{flight, "", paid ? paid->amount : 0};
            });
        }
    };
    const Outside workflow(&tries, &times);
    sourced::testing::Rehearsal trip(workflow, Trip{"Lisbon"});
    const auto began = trip.now();
    CHECK(trip.outcome().running());
    REQUIRE(trip.scheduled().size() == 1);
    CHECK(trip.scheduled()[0].due_at == began + 1min);
    trip.advance(2h);
    REQUIRE(!times.empty());
    CHECK(times[0] == began + 3min);  // not two hours: what falls due happens at its own time
    CHECK(trip.outcome().running());
    SUBCASE("paid") {
        trip.send(Paid{350}).advance(24h);
        CHECK(trip.outcome().output() == Booking{"to Lisbon", "", 350});
    }
    SUBCASE("not paid") {
        trip.advance(48h);
        CHECK(trip.outcome().output() == Booking{"to Lisbon", "", 0});
    }
    CHECK(tries == 3);
}

TEST_CASE("Workflows: records that cannot be read any more are told by what they are and where") {
    sourced::testing::Clock clock;
    const std::string who = "workflow 'any' at 'any-1': ";
    // What is said about the history of one function when another runs over it, or over something else.
    const auto said = [&](const Any::Function& before, const Any::Function& now,
                          const std::function<void(sourced::Messages&)>& spoil, bool paid = true) {
        const Any first(before);
        sourced::testing::Rehearsal rehearsal(first, 1);
        if (paid) rehearsal.send(Paid{1});
        auto history = rehearsal.history();
        spoil(history);
        try {
            (void)Any(now).advance("any-1", history, {clock, [] { return sourced::Id::make(); }});
        } catch (const sourced::Park& park) {
            const std::string text = park.what();
            return text.starts_with(who) ? text.substr(who.size()) : text;
        }
        return std::string("nothing");
    };
    const auto nothing = [](sourced::Messages&) {};
    const Any::Function plain = [](auto& ctx, int) {
        ctx.step("a", [] { return std::string("x"); });
        ctx.sleep(1s);
        return std::string();
    };
    const Any::Function waits = [](auto& ctx, int) {
        (void)ctx.template wait_for<Paid>();
        ctx.sleep(1s);
        return std::string();
    };
    const auto keeps = [](auto initial) {
        return [initial](auto& ctx, int) {
            auto& kept = ctx.keep("k", initial);
            ctx.step("a", [&] { kept = {}; });
            ctx.sleep(1s);
            return std::string();
        };
    };
    CHECK(said(plain, plain, nothing) == "nothing");
    CHECK(said(plain, [](auto& ctx, int) { return std::to_string(ctx.step("a", [] { return 1; })); }, nothing) ==
          "what step 'a' returned cannot be read: read JSON: /output: expected integer, got \"x\"");
    CHECK(said(plain, plain, [](auto& history) { history[0].payload = R"({"input":"one"})"; }) ==
          "its input cannot be read: read JSON: /input: expected integer, got \"one\"");
    CHECK(said(plain, plain, [](auto& history) { history[0].erased_at = sourced::Time{}; })
              .starts_with("its input cannot be read: "));
    CHECK(said(plain, plain, [](auto& history) { history[2].erased_at = sourced::Time{}; }) ==
          "the record at seq 3 was erased");
    CHECK(said(plain, plain, [](auto& history) { history[2].payload = "[]"; })
              .starts_with("the record at seq 3 cannot be read: "));
    CHECK(said(waits, waits, [](auto& history) { history[2].payload = R"({"amount":"x"})"; })
              .starts_with("what was waited for cannot be read: read 'trip.paid' in stream 'any-1' at seq 3"));
    CHECK(said(waits, waits, [](auto& history) { history.erase(history.begin() + 2); }) ==
          "seq 3, which it waited for, is gone");
    CHECK(said(keeps(std::string("x")), keeps(5), nothing).starts_with("what it keeps as 'k' cannot be read: "));
    const sourced::WorkflowOutcome<int> changed({.status = sourced::WorkflowStatus::completed,
                                                 .payload = R"({"workflow":"any","output":"x"})"});
    CHECK_THROWS_WITH_AS((void)changed.output(),
                         "read the output of a workflow: read JSON: /output: expected integer, got \"x\"",
                         sourced::Undecodable);
    CHECK(said(plain, [](auto& ctx, int) {
              ctx.keep("k", 1);
              ctx.keep("k", std::string());
              return std::string();
          }, nothing) == "it keeps 'k' as two different types");
}

TEST_CASE("Workflows: a function that catches what ends a run is reported") {
    const std::string text = "workflow 'any' at 'any-1': its function has caught the exception that ends a run: catch "
                             "(...) has to pass it on with throw;";
    for (int way = 1; way <= 3; ++way) {
        Stage each([way](auto& ctx, int) {
            try {
                ctx.step("a", [] {});
            } catch (...) {
                if (way == 1) return std::string("swallowed");
                if (way == 2) throw std::runtime_error("another");
                try {
                    ctx.sleep(1s);
                } catch (const std::exception&) {
                    return std::string("swallowed again");
                }
            }
            return std::string();
        });
        const auto handle = each.start();
        CHECK(types(handle.history()) == Names{"started"});
        CHECK(handle.outcome().parked());
        CHECK(handle.outcome().error_type() == "sourced::Park");
        CHECK(handle.outcome().error_text() == text);
        CHECK_THROWS_WITH_AS((void)handle.outcome().output(), ("the workflow is parked: " + text).c_str(),
                             sourced::Error);
    }
}

TEST_CASE("Workflows: Q10: a function that has changed parks its instance, which goes on when it is put right") {
    const support::TemporaryDirectory directory;
    int flights = 0;
    const auto version = [&](const std::string& second) {
        return [&flights, second](auto& ctx, int) {
            ctx.step("flight", [&] { ++flights; });
            if (second == "sleep") ctx.sleep(1s);
            else ctx.step(second, [] {});
            return second;
        };
    };
    sourced::testing::Clock clock;
    const sourced::Options options{.path = directory.file(), .clock = clock};
    {
        sourced::App app(options);
        app.add<Any>(version("sleep"));
        (void)app.start_workflow<Any>("1", 1);
        app.run_until_idle();
    }
    clock.advance(1s);
    {
        sourced::App app(options);
        app.add<Any>(version("hotel"));
        app.start(1);
        const auto outcome = app.workflow<Any>("1").wait(60s);
        REQUIRE(outcome.parked());
        CHECK(outcome.error_text() ==
              "workflow 'any' at 'any-1': its call 2 is step 'hotel', but its history has sleep there (seq 4): the "
              "function has changed");
        CHECK(app.stats().group("any").active);
        CHECK(app.stats().group("any").parked == 1);
        CHECK(app.start_workflow<Any>("2", 1).wait(60s).output() == "hotel");  // others go on
    }
    sourced::App app(options);
    app.add<Any>(version("sleep"));
    app.retry_stream("any", "any-1");
    app.run_until_idle();
    CHECK(app.workflow<Any>("1").outcome().output() == "sleep");
    CHECK(flights == 2);  // one each
}

TEST_CASE("Workflows: a step may park its instance, and begins again when that is tried again") {
    int runs = 0;
    Stage stage([&](auto& ctx, int) {
        try {
            return ctx.step("pay", [&]() -> std::string {
                if (++runs == 1) throw sourced::Park("the bank is closed for good");
                return "paid";
            }, {.times = 5});
        } catch (const std::exception&) {
            return std::string("caught, which changes nothing");
        }
    });
    const auto handle = stage.start();
    CHECK(handle.outcome().parked());
    CHECK(handle.outcome().error_text() == "the bank is closed for good");
    CHECK(types(handle.history()) == Names{"started", "step_started"});
    stage.app.retry_stream("any", "any-1");
    stage.app.run_until_idle();
    CHECK(handle.outcome().output() == "paid");
}

TEST_CASE("Workflows: what is passed again after a reset runs no step, not even the one that is due") {
    int runs = 0;
    sourced::App app({.batch_size = 1});
    app.add<Any>([&](auto& ctx, int) {
        return ctx.step("pay", [&]() -> std::string {
            if (++runs == 1) throw sourced::Park("later");
            return "paid";
        });
    });
    const auto handle = app.start_workflow<Any>("1", 1);
    app.run_until_idle();
    CHECK(handle.outcome().parked());
    app.reset_group("any");
    app.run_until_idle();
    CHECK(handle.outcome().output() == "paid");
    CHECK(runs == 2);
}

TEST_CASE("Workflows: none runs in a unit") {
    sourced::App app;
    app.add<Any>([](auto&, int) { return std::string(); });
    CHECK_THROWS_WITH_AS((void)app.unit<Any>(), "unit: 'any' is a workflow: its steps are run by workers",
                         sourced::Error);
}

TEST_CASE("Workflows: steps do not nest") {
    Stage stage([](auto& ctx, int) {
        ctx.step("outer", [&] { ctx.step("inner", [] {}); });
        return std::string();
    });
    CHECK(stage.start().outcome().error_text() == "step 'outer' asks for step 'inner' from inside: steps do not nest");
}

// ---- Restarts

namespace {

struct Journal {
    std::string path;
    void note(const std::string& line) const {
        const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        const std::string text = line + '\n';
        CHECK(::write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
        ::close(file);
    }
    [[nodiscard]] Names lines() const {
        Names all;
        const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
        std::string text(10000, '\0');
        text.resize(static_cast<std::size_t>(std::max<ssize_t>(::read(file, text.data(), text.size()), 0)));
        ::close(file);
        for (std::size_t at = 0; at < text.size(); at = text.find('\n', at) + 1) {
            all.push_back(text.substr(at, text.find('\n', at) - at));
        }
        return all;
    }
};

/// Notes what it does in a file; the first time in the middle step it dies, if it is told to.
struct Journey : sourced::Workflow<Trip, Booking, Paid> {
    Journey(Journal journal, bool dies) : Workflow("journey") {
        run([journal, dies](Context& ctx, const Trip& trip) {
            Booking booking;
            booking.flight = ctx.step("flight", [&] {
                journal.note("flight to " + trip.city);
                return std::string("F1");
            });
            booking.hotel = ctx.step("hotel", trip.city, [&] {
                journal.note("hotel");
                if (dies) ::kill(::getpid(), SIGKILL);
                return std::string("H1");
            });
            booking.paid = ctx.wait_for<Paid>().amount;
            ctx.step("hotel", trip.city, [&] { journal.note("never again"); return std::string(); });
            return booking;
        });
    }
};

sourced::Options options(const std::string& path) {
    sourced::Options options;
    options.path = path;
    options.claim_time = 200ms;
    return options;
}

}  // namespace

TEST_CASE("Workflows: Q10: completed steps stay completed after a restart") {
    const support::TemporaryDirectory directory;
    const Journal journal{directory.file("journal")};
    for (int start = 0; start < 3; ++start) {
        sourced::App app(options(directory.file()));
        app.add<Journey>(journal, false);
        const auto handle = app.start_workflow<Journey>("1", Trip{"Lisbon"});
        app.run_until_idle();
        CHECK(handle.outcome().running());
        CHECK(journal.lines() == Names{"flight to Lisbon", "hotel"});
    }
    sourced::App app(options(directory.file()));
    app.add<Journey>(journal, false);
    app.dispatch("journey-1", Paid{350});
    app.run_until_idle();
    CHECK(app.workflow<Journey>("1").outcome().output() == Booking{"F1", "H1", 350});
    CHECK(journal.lines() == Names{"flight to Lisbon", "hotel"});
}

TEST_CASE("child: journey" * doctest::skip()) {
    const auto arguments = support::Child::arguments();
    sourced::App app(options(arguments.at(0)));
    app.add<Journey>(Journal{arguments.at(1)}, true);
    (void)app.start_workflow<Journey>("1", Trip{"Lisbon"});
    app.start(2);
    (void)support::Child::told();
}

TEST_CASE("Workflows: Q10: a step whose process was killed runs again, those before it do not, under normal workers") {
    const support::TemporaryDirectory directory;
    const Journal journal{directory.file("journal")};
    for (int deaths = 1; deaths <= 2; ++deaths) {
        support::Child child("journey", {directory.file(), journal.path});
        CHECK(child.wait() == 128 + SIGKILL);
        CHECK(journal.lines().size() == static_cast<std::size_t>(1 + deaths));
    }
    auto wary = options(directory.file());
    wary.deaths = 1;
    sourced::App app(wary);
    app.add<Journey>(journal, false);
    app.start(2);
    const auto handle = app.workflow<Journey>("1");
    app.dispatch(handle.stream(), Paid{350});
    const auto parked = handle.wait(60s);
    CHECK(parked.parked());
    CHECK(parked.error_text().find("the process died 2 times") != std::string::npos);
    app.retry_stream("journey", handle.stream());
    const auto outcome = handle.wait(60s);
    REQUIRE(outcome.completed());
    CHECK(outcome.output() == Booking{"F1", "H1", 350});
    CHECK(journal.lines() == Names{"flight to Lisbon", "hotel", "hotel", "hotel"});
    app.stop();
    CHECK(sourced::verify(directory.file()).empty());
}

TEST_CASE("Workflows: Q10: many run side by side under the workers of two Apps, each step once") {
    const support::TemporaryDirectory directory;
    constexpr int many = 40;
    std::mutex mutex;
    std::set<std::string> done;
    int runs = 0;
    sourced::App app(options(directory.file()));
    auto small = options(directory.file());
    small.batch_size = 1;
    sourced::App other(small);
    const Any::Function function = [&](auto& ctx, int input) {
        int sum = 0;
        for (int i = 0; i < 5; ++i) {
            sum += ctx.step("add", [&] {
                const std::lock_guard lock(mutex);
                ++runs;
                done.insert(ctx.stream() + ' ' + std::to_string(i));
                return input;
            });
            sum += ctx.template wait_for<Paid>().amount;
        }
        return std::to_string(sum);
    };
    app.add<Any>(function);
    other.add<Any>(function);  // message by message: none may take for open what has been done behind it
    app.start(2);
    other.start(2);
    std::vector<sourced::WorkflowHandle<Any>> handles;
    for (int i = 0; i < many; ++i) {
        handles.push_back(app.start_workflow<Any>(std::to_string(i), i));
        for (int k = 0; k < 5; ++k) {
            app.dispatch(handles.back().stream(), Paid{100});
            app.dispatch(handles.back().stream(), Cancelled{});
        }
    }
    for (int i = 0; i < many; ++i) {
        const auto outcome = handles[static_cast<std::size_t>(i)].wait(60s);
        REQUIRE(outcome.completed());
        CHECK(outcome.output() == std::to_string(5 * i + 500));
    }
    CHECK(handles[0].wait(60s).completed());  // it is over already
    CHECK(runs == 5 * many);
    CHECK(done.size() == 5 * many);
    app.stop();
    other.stop();
    CHECK(sourced::verify(directory.file()).empty());
}

TEST_CASE("Workflows: a slow step holds no other instance up") {
    sourced::App app;
    std::mutex mutex;
    std::condition_variable changed;
    int waiting = 0;
    app.add<Any>([&](auto& ctx, int) {
        ctx.step("meet", [&] {
            std::unique_lock lock(mutex);
            ++waiting;
            changed.notify_all();
            changed.wait(lock, [&] { return waiting >= 3; });  // all at the same time
        });
        return std::string();
    });
    std::vector<sourced::WorkflowHandle<Any>> handles;
    for (const char* id : {"1", "2", "3"}) handles.push_back(app.start_workflow<Any>(id, 1));
    app.start(3);
    for (const auto& handle : handles) CHECK(handle.wait(60s).completed());
}

TEST_CASE("Workflows: events in streams that are none of its business are passed over, and a reset runs no step") {
    int runs = 0;
    Stage stage([&](auto& ctx, int) {
        ctx.step("a", [&] { ++runs; });
        return std::to_string(ctx.template wait_for<Paid>().amount);
    });
    const auto handle = stage.start();
    stage.app.dispatch("payments", Paid{1});
    stage.app.dispatch("any-stranger", Paid{1});  // looks like one, but was never started
    stage.app.run_until_idle();
    CHECK(stage.app.history("payments").size() == 1);
    CHECK(stage.app.history("any-stranger").size() == 1);
    CHECK(stage.app.stats().group("any").lag == 0);

    stage.app.reset_group("any");
    stage.app.run_until_idle();
    CHECK(types(handle.history()) == Names{"started", "step_started", "step_completed", "wait_started"});
    stage.app.dispatch(handle.stream(), Paid{5});
    stage.app.run_until_idle();
    CHECK(handle.outcome().output() == "5");
    CHECK(runs == 1);
}
