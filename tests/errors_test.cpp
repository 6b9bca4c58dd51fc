// What becomes of messages that cannot be handled: strategies, parked streams, skipped messages, handlers that kill
// their process or do not return.
#include <SQLiteCpp/SQLiteCpp.h>
#include <doctest/doctest.h>
#include <sourced.hpp>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <mutex>
#include <string>
#include <vector>

#include "support.hpp"

namespace errors_test {

using namespace sourced;
using namespace std::chrono_literals;
using support::Child;
using support::Gate;
using support::error_of;
using support::problems_of;
using testing::Clock;
using Directory = support::TemporaryDirectory;
using Strings = std::vector<std::string>;
using State = OffsetInfo::State;

struct Print {
    std::string text;
    SOURCED_COMMAND("paper.print", text)
};
struct Printed {
    std::string text;
    SOURCED_EVENT("paper.printed", text)
};
struct Jam : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// What the printers of a test do and have done.
struct Office {
    std::mutex mutex{};
    Strings jams{};     // texts that fail
    Strings printed{};
    int calls = 0;

    void print(const std::string& text) {
        const std::lock_guard lock(mutex);
        ++calls;
        if (std::count(jams.begin(), jams.end(), text) > 0) throw Jam("paper jam: " + text);
        printed.push_back(text);
    }
    void repair() {
        const std::lock_guard lock(mutex);
        jams.clear();
    }
};

struct Printer : Actor<int> {
    explicit Printer(Office& office, ReactorOptions with = {}, std::string_view name = "printer") : Actor(name) {
        command([&office](int, const Print& print) {
            office.print(print.text);
            return Printed{print.text};
        });
        event([](int& pages, const Printed&) { ++pages; });
        options(std::move(with));
    }
};

std::int64_t seconds_between(Time from, Time to) {
    return std::chrono::duration_cast<std::chrono::seconds>(to - from).count();
}

/// The trouble of one stream of a group.
OffsetInfo offset_of(App& app, std::string_view group, std::string_view stream) {
    for (const auto& offset : app.store().offsets(group, {.all = true})) {
        if (offset.stream == stream) return offset;
    }
    FAIL("no offset of ", std::string(stream));
    return {};
}

// ==== Strategies =================================================================

TEST_CASE("K1: without retries the first exception stops the group and keeps exception and message") {
    Office office{.jams = {"a"}};
    App app({.errors = Retries{.times = 0}});
    app.add<Printer>(office);
    app.dispatch("p1", Print{"a"});
    app.run_until_idle();
    CHECK(office.calls == 1);
    const GroupInfo group = app.stats().group("printer");
    CHECK_FALSE(group.active);
    CHECK(group.reason == "paper jam: a");
    CHECK(group.error_type == "errors_test::Jam");
    CHECK(group.error_text == "paper jam: a");
    CHECK(group.error_position == 1);
    CHECK(offset_of(app, "printer", "p1").position == 1);
}

TEST_CASE("K2: three retries after 5, 10 and 15 seconds, on_retry for each, then on_stop and the stop once") {
    Clock clock;
    Office office{.jams = {"a"}};
    std::vector<std::pair<int, std::int64_t>> retries;
    Strings stops;
    std::vector<bool> active;
    App* telling = nullptr;
    Retries three{.times = 3, .after = 5s, .at_most = 60s};
    three.backoff = [](Duration after, int retry) { return after * retry; };
    three.on_retry = [&](int retry, const Fault& fault, Time when) {
        retries.emplace_back(retry, seconds_between(clock.now(), when));
        CHECK(fault.message.as<Print>().text == "a");
        CHECK(telling->store().offsets("printer").at(0).attempts == retry);  // recorded already
    };
    three.on_stop = [&](const Fault& fault) {
        stops.push_back(fault.type + ": " + fault.text + " at " + std::to_string(fault.message.position));
        CHECK(fault.attempt == 4);
        CHECK(fault.group == "printer");
        active.push_back(telling->stats().group("printer").active);
    };
    App app({.errors = std::move(three), .clock = clock});
    telling = &app;
    app.add<Printer>(office);
    app.dispatch("p1", Print{"a"});
    for (int i = 0; i < 10; ++i) {
        app.run_until_idle();
        const auto next = app.stats().group("printer").next_retry;
        if (next) clock.set(*next - 1us);
        app.run_until_idle();
        if (next) clock.set(*next);
    }
    CHECK(retries == std::vector<std::pair<int, std::int64_t>>{{1, 5}, {2, 10}, {3, 15}});
    CHECK(stops == Strings{"errors_test::Jam: paper jam: a at 1"});
    CHECK(active == std::vector<bool>{false});
    CHECK(office.calls == 4);
}

TEST_CASE("K3: the exception of a batch of one reaches the strategy with message and group, nothing is acknowledged") {
    Office office{.jams = {"a"}};
    Strings told;
    App app({.batch_size = 1, .errors = [&](const Fault& fault) {
                 told.push_back(fault.group + ' ' + fault.message.stream + ' ' + fault.message.type + ' ' + fault.text);
                 return Resolution::stop("out of order");
             }});
    app.add<Printer>(office);
    app.dispatch("p1", Print{"a"});
    CHECK(app.run_until_idle() == 0);
    CHECK(told == Strings{"printer p1 paper.print paper jam: a"});
    const GroupInfo group = app.stats().group("printer");
    CHECK(group.streams == 0);
    CHECK(group.reason == "out of order");
    CHECK(group.error_text == "paper jam: a");
}

TEST_CASE("K4: the exception of a command that is handled at once reaches its caller, and no strategy") {
    Office office{.jams = {"a"}};
    App app({.errors = [](const Fault&) { return Resolution::skip(); }});
    app.add<Printer>(office);
    CHECK_THROWS_AS(app.handle<Printer>("p1", Print{"a"}), Jam);
    CHECK(app.store().head() == 0);
    CHECK(app.store().skipped("printer").empty());
}

TEST_CASE("K7: a retry keeps its attempts, stats show when it is due, and the group stays active") {
    Clock clock;
    Office office{.jams = {"a"}};
    App app({.errors = [](const Fault& fault) { return Resolution::retry(fault.at + 4s); }, .clock = clock});
    app.add<Printer>(office);
    app.dispatch("p1", Print{"a"});
    for (int attempt = 1; attempt < 5; ++attempt) {
        app.run_until_idle();
        const OffsetInfo offset = offset_of(app, "printer", "p1");
        CHECK(offset.state == State::waiting);
        CHECK(offset.attempts == attempt);
        CHECK(offset.retry_at == clock.now() + 4s);
        CHECK(offset.failed_at == clock.now());
        const GroupInfo group = app.stats().group("printer");
        CHECK(group.active);
        CHECK(group.retrying == 1);
        CHECK(group.next_retry == clock.now() + 4s);
        clock.advance(4s);
    }
}

TEST_CASE("K8: a stop by hand shows its reason, a start its own") {
    Clock clock;
    Office office;
    App app({.clock = clock});
    app.add<Printer>(office);
    app.stop_group("printer", "holidays");
    app.dispatch("p1", Print{"a"});
    CHECK(app.run_until_idle() == 0);
    CHECK_FALSE(app.stats().group("printer").active);
    CHECK(app.stats().group("printer").reason == "holidays");
    CHECK(app.stats().group("printer").changed_at == clock.now());
    clock.advance(1s);
    app.start_group("printer", "back to work");
    CHECK(app.stats().group("printer").active);
    CHECK(app.stats().group("printer").reason == "back to work");
    CHECK(app.stats().group("printer").changed_at == clock.now());
    CHECK(app.run_until_idle() == 1);
}

struct Patience {
    int most = 1;
    Resolution operator()(const Fault& fault) const {
        return fault.attempt <= most ? Resolution::retry(fault.at) : Resolution::park("patience is over");
    }
};
Resolution always_skip(const Fault&) { return Resolution::skip("never mind"); }

TEST_CASE("K9: objects, functions and lambdas are strategies, for all groups or for one") {
    Office office{.jams = {"a"}};
    App app({.errors = Patience{2}});
    app.add<Printer>(office);
    app.add<Printer>(office, ReactorOptions{.errors = always_skip}, "careless");
    app.dispatch("p1", Print{"a"});
    app.dispatch("p1", Print{"b"});
    app.run_until_idle();
    CHECK(office.calls == 3 + 2);
    CHECK(offset_of(app, "printer", "p1").state == State::parked);
    CHECK(offset_of(app, "printer", "p1").reason == "patience is over");
    CHECK(app.stats().group("careless").newest == 2);
    REQUIRE(app.store().skipped("careless").size() == 1);
    CHECK(app.store().skipped("careless")[0].reason == "never mind");
    CHECK(app.store().skipped("printer").empty());
}

TEST_CASE("K9: Retries that make no sense are refused") {
    CHECK(error_of<Invalid>([] { (void)ErrorStrategy(Retries{.times = -1}); }) == "Retries: times is -1");
    CHECK(error_of<Invalid>([] { (void)ErrorStrategy(Retries{.then = Resolution::retry({})}); }) ==
          "Retries: what comes after the last retry is to stop, to park or to skip");
}

TEST_CASE("K10: a success clears attempts and the error, the next failure is a first one") {
    Clock clock;
    Office office{.jams = {"a"}};
    std::vector<int> attempts;
    App app({.errors = [&](const Fault& fault) {
                 attempts.push_back(fault.attempt);
                 return Resolution::retry(fault.at + 1s);
             },
             .clock = clock});
    app.add<Printer>(office);
    for (int round = 0; round < 2; ++round) {
        office.jams = {"a"};
        app.dispatch("p1", Print{"a"});
        for (int i = 0; i < 2; ++i) {
            app.run_until_idle();
            clock.advance(1s);
        }
        office.repair();
        CHECK(app.run_until_idle() == 1);
        CHECK(app.store().offsets("printer").empty());
        CHECK(offset_of(app, "printer", "p1").attempts == 0);
    }
    CHECK(attempts == std::vector<int>{1, 2, 1, 2});
}

TEST_CASE("K11: the strategy sees the exception itself, also in the middle of a batch") {
    Office office{.jams = {"c"}};
    Strings told;
    App app({.errors = [&](const Fault& fault) {
        try {
            std::rethrow_exception(fault.error);
        } catch (const Jam& jam) {
            told.push_back(fault.message.as<Print>().text + ": " + jam.what());
        }
        return Resolution::skip();
    }});
    app.add<Printer>(office);
    for (const char* text : {"a", "b", "c", "d"}) app.dispatch("p1", Print{text});
    app.run_until_idle();
    CHECK(told == Strings{"c: paper jam: c"});
    CHECK(app.load<Printer>("p1").state == 3);
}

TEST_CASE("K12: a failing stream delays no other stream of its group, waiting or parked") {
    Clock clock;
    Office office{.jams = {"a"}};
    Resolution then = Resolution::retry(clock.now() + 1h);
    SUBCASE("waiting") {}
    SUBCASE("parked") { then = Resolution::park(); }
    App app({.errors = [&](const Fault&) { return then; }, .clock = clock});
    app.add<Printer>(office);
    app.dispatch("p1", Print{"a"});
    for (int i = 2; i < 12; ++i) app.dispatch("p" + std::to_string(i), Print{"fine"});
    app.dispatch("p1", Print{"behind"});
    CHECK(app.run_until_idle() == 10);
    CHECK(app.stats().group("printer").active);
    CHECK(office.calls == 11);
}

TEST_CASE("Strategy: one that throws stops the group, with what it said and what the handler said") {
    Office office{.jams = {"a"}};
    App app({.errors = [](const Fault&) -> Resolution { throw std::logic_error("no idea"); }});
    app.add<Printer>(office);
    app.dispatch("p1", Print{"a"});
    app.run_until_idle();
    const GroupInfo group = app.stats().group("printer");
    CHECK_FALSE(group.active);
    CHECK(group.reason == "the error strategy failed with std::logic_error: no idea; it was told of "
                          "errors_test::Jam: paper jam: a");
    CHECK(group.error_text == "paper jam: a");
    CHECK(group.error_type == "errors_test::Jam");
}

TEST_CASE("Strategy: what on_retry and on_stop throw is logged and changes nothing") {
    Office office{.jams = {"a"}};
    Strings lines;
    Retries once{.times = 1, .after = 0s};
    once.on_retry = [](int, const Fault&, Time) { throw std::runtime_error("first"); };
    once.on_stop = [](const Fault&) { throw 42; };
    App app({.errors = std::move(once), .log = [&](const LogRecord& line) {
                 if (line.text.find("to be told") != std::string::npos) lines.push_back(line.fields.at(1).second);
             }});
    app.add<Printer>(office);
    app.dispatch("p1", Print{"a"});
    app.run_until_idle();
    CHECK_FALSE(app.stats().group("printer").active);
    CHECK(lines == Strings{"first", "an exception that is no std::exception was thrown"});
}

TEST_CASE("Strategy: the log says what became of each failure") {
    Clock clock;
    Office office{.jams = {"a"}};
    std::vector<Resolution> resolutions{Resolution::stop(), Resolution::skip("never mind"), Resolution::park(),
                                        Resolution::retry(clock.now())};
    Strings lines;
    App app({.errors = [&](const Fault&) {
                 const Resolution next = resolutions.back();
                 resolutions.pop_back();
                 return next;
             },
             .clock = clock,
             .log = [&](const LogRecord& line) {
                 if (!line.text.starts_with("a message failed")) return;
                 lines.push_back(line.text + (line.level == Level::error ? " (error) " : " (warning) ") +
                                 line.fields.at(1).second + ": " + line.fields.at(4).second);
             }});
    app.add<Printer>(office);
    app.dispatch("p1", Print{"a"});
    app.run_until_idle();
    app.dispatch("p2", Print{"a"});
    app.dispatch("p3", Print{"a"});
    app.run_until_idle();
    CHECK(lines == Strings{"a message failed and will be tried again (warning) p1: paper jam: a",
                           "a message failed, its stream is parked (error) p1: paper jam: a",
                           "a message failed and is skipped (warning) p2: paper jam: a",
                           "a message failed, its group is stopped (error) p3: paper jam: a"});
}

TEST_CASE("Strategy: it may use the App, since no lock is held") {
    Office office{.jams = {"a"}};
    App* self = nullptr;
    App app({.errors = [&](const Fault& fault) {
        self->dispatch("complaints", Print{fault.text});
        return Resolution::skip();
    }});
    self = &app;
    app.add<Printer>(office);
    app.dispatch("p1", Print{"a"});
    app.run_until_idle();
    CHECK(office.printed == Strings{"paper jam: a"});
}

// ==== Parking and skipping =======================================================

TEST_CASE("Park: later messages of the stream wait, also those that come later, until it is tried again") {
    const Directory directory;
    Clock clock;
    Office office{.jams = {"b"}};
    App app({.path = directory.file(), .errors = Retries{.times = 0, .then = Resolution::park()}, .clock = clock});
    app.add<Printer>(office);
    for (const char* text : {"a", "b", "c"}) app.dispatch("p1", Print{text});
    CHECK(app.run_until_idle() == 1);
    app.dispatch("p1", Print{"d"});
    app.dispatch("p2", Print{"e"});
    CHECK(app.run_until_idle() == 1);
    CHECK(app.wait_until_idle(0s));
    CHECK(app.stats().group("printer").active);
    CHECK(app.stats().group("printer").parked == 1);
    CHECK(app.stats().group("printer").lag == 3);
    const auto troubled = app.store().offsets("printer");
    REQUIRE(troubled.size() == 1);
    CHECK(troubled[0].stream == "p1");
    CHECK(troubled[0].state == State::parked);
    CHECK(troubled[0].acked == 1);
    CHECK(troubled[0].position == 2);
    CHECK(troubled[0].attempts == 1);
    CHECK(troubled[0].error_type == "errors_test::Jam");
    CHECK(troubled[0].error_text == "paper jam: b");
    CHECK(troubled[0].reason == "paper jam: b");
    CHECK(problems_of(directory.file()) == "");

    SUBCASE("started again, the group leaves it parked") {
        app.stop_group("printer");
        app.start_group("printer");
        CHECK(app.run_until_idle() == 0);
        CHECK(app.store().offsets("printer").at(0).error_text == "paper jam: b");
        office.repair();
        app.retry_stream("printer", "p1");
        CHECK(app.run_until_idle() == 3);
    }
    SUBCASE("tried again without a repair it is parked again") {
        app.retry_stream("printer", "p1");
        CHECK(app.run_until_idle() == 0);
        CHECK(app.store().offsets("printer").at(0).attempts == 1);
        office.repair();
        app.retry_stream("printer", "p1");
        CHECK(app.run_until_idle() == 3);
    }
    SUBCASE("its message skipped, it goes on behind it") {
        const Skipped skipped = app.skip_message("printer", "p1", "too thick");
        CHECK(skipped.position == 2);
        CHECK(app.run_until_idle() == 2);
        const auto all = app.store().skipped("printer");
        REQUIRE(all.size() == 1);
        CHECK(all[0].stream == "p1");
        CHECK(all[0].position == 2);
        CHECK(all[0].id == app.history("p1").at(1).id);
        CHECK(all[0].at == clock.now());
        CHECK(all[0].error_type == "errors_test::Jam");
        CHECK(all[0].error_text == "paper jam: b");
        CHECK(all[0].reason == "too thick");
        CHECK(app.store().skipped("printer", all[0].number).empty());
    }
    SUBCASE("a reset of the group takes it up again") {
        office.repair();
        app.reset_group("printer");
        CHECK(app.run_until_idle() > 0);
    }
    CHECK(app.store().offsets("printer").empty());
    CHECK(app.stats().group("printer").parked == 0);
    CHECK(app.stats().group("printer").lag == 0);
    CHECK(problems_of(directory.file()) == "");
}

struct Strict : Actor<int> {
    Strict() : Actor("strict") {
        command([](int, const Print& print) -> Events { throw Park("needs a human: " + print.text); });
    }
};

TEST_CASE("Park: thrown by a handler it parks the stream whatever the strategy says") {
    int asked = 0;
    App app({.errors = [&](const Fault&) {
        ++asked;
        return Resolution::stop();
    }});
    app.add<Strict>();
    app.dispatch("p1", Print{"a"});
    app.run_until_idle();
    CHECK(asked == 0);
    CHECK(app.stats().group("strict").active);
    const OffsetInfo offset = offset_of(app, "strict", "p1");
    CHECK(offset.state == State::parked);
    CHECK(offset.error_type == "sourced::Park");
    CHECK(offset.reason == "needs a human: a");
}

TEST_CASE("Park: by hand, before anything is there for the group or while messages wait") {
    Office office;
    App app;
    app.add<Printer>(office);
    app.store().append("p1", {Printed{"nobody's command"}});
    app.park_stream("printer", "p1", "not yet");
    app.dispatch("p1", Print{"a"});
    CHECK(app.run_until_idle() == 0);
    CHECK(offset_of(app, "printer", "p1").reason == "not yet");
    CHECK(offset_of(app, "printer", "p1").error_type == "");
    CHECK(error_of<Error>([&] { app.handle<Printer>("p1", Print{"b"}); }) ==
          "'p1' is parked for group 'printer': not yet");
    app.retry_stream("printer", "p1");
    CHECK(app.run_until_idle() == 1);
}

TEST_CASE("Park: by hand it drops the work under way, which fails the fence") {
    std::atomic<bool> inside{false};
    std::atomic<bool> go_on{false};
    struct Slow : Actor<int> {
        Slow(std::atomic<bool>& inside, std::atomic<bool>& go_on) : Actor("slow") {
            command([&](int, const Print& print) {
                inside = true;
                inside.notify_all();
                go_on.wait(false);
                return Printed{print.text};
            });
        }
    };
    App app;
    app.add<Slow>(inside, go_on);
    app.start(1);
    app.dispatch("p1", Print{"a"});
    inside.wait(false);
    CHECK(error_of<Error>([&] { app.retry_stream("slow", "p1"); }) ==
          "retry 'p1' for group 'slow': it is neither parked nor waiting for a retry");
    app.park_stream("slow", "p1");
    go_on = true;
    go_on.notify_all();
    CHECK(app.wait_until_idle(60s));
    app.stop();
    CHECK(app.history("p1").size() == 1);
    CHECK(offset_of(app, "slow", "p1").state == State::parked);
    app.retry_stream("slow", "p1");
    CHECK(app.run_until_idle() == 1);
    CHECK(app.history("p1").size() == 2);
}

TEST_CASE("By hand: a stream whose retry is under way is not tried again at the same time") {
    std::atomic<int> calls{0};
    std::atomic<bool> go_on{false};
    struct Slow : Actor<int> {
        Slow(std::atomic<int>& calls, std::atomic<bool>& go_on) : Actor("slow") {
            command([&](int, const Print& print) {
                if (++calls == 1) throw Jam("paper jam");
                calls.notify_all();
                go_on.wait(false);
                return Printed{print.text};
            });
        }
    };
    App app({.errors = [](const Fault& fault) { return Resolution::retry(fault.at); }});
    app.add<Slow>(calls, go_on);
    app.start(1);
    app.dispatch("p1", Print{"a"});
    for (int seen = calls; seen < 2; seen = calls) calls.wait(seen);
    CHECK(error_of<Error>([&] { app.retry_stream("slow", "p1"); }) ==
          "retry 'p1' for group 'slow': it is being handled");
    go_on = true;
    go_on.notify_all();
    CHECK(app.wait_until_idle(60s));
    app.stop();
    CHECK(calls == 2);
    CHECK(app.history("p1").size() == 2);
}

TEST_CASE("Skip: the strategy's skip passes one message over, in a batch and at its end") {
    const Directory directory;
    Office office{.jams = {"b", "d"}};
    int told = 0;
    Retries skipping{.times = 0, .then = Resolution::skip("cannot be printed")};
    skipping.on_stop = [&](const Fault&) { ++told; };
    App app({.path = directory.file(), .errors = std::move(skipping)});
    app.add<Printer>(office);
    for (const char* text : {"a", "b", "c", "d"}) app.dispatch("p1", Print{text});
    app.run_until_idle();
    CHECK(office.printed == Strings{"a", "c"});
    CHECK(told == 2);
    const auto all = app.store().skipped("printer");
    REQUIRE(all.size() == 2);
    CHECK(all[0].error_text == "paper jam: b");
    CHECK(all[1].error_text == "paper jam: d");
    CHECK(all[1].reason == "cannot be printed");
    CHECK(app.stats().group("printer").skipped == 2);
    CHECK(app.store().offsets("printer").empty());
    CHECK(app.stats().group("printer").lag == 0);
    CHECK(problems_of(directory.file()) == "");
}

TEST_CASE("Skip: where a state cannot be folded its event is passed over, and the command that needs it handled") {
    App app({.errors = Retries{.times = 0, .then = Resolution::park()}});
    Office office;
    app.add<Printer>(office);
    app.dispatch("p1", Print{"a"});
    Message bad = Printed{"x"};
    bad.payload = R"({"text":[]})";
    app.store().append("p1", {bad});
    app.run_until_idle();
    const OffsetInfo parked = offset_of(app, "printer", "p1");
    CHECK(parked.position == 2);
    CHECK(parked.acked == 0);
    CHECK(app.skip_message("printer", "p1").position == 2);
    CHECK(app.store().skipped("printer").at(0).id == app.history("p1").at(1).id);
    CHECK(office.calls == 0);
    CHECK(app.run_until_idle() == 1);
    CHECK(office.printed == Strings{"a"});
    CHECK(app.stats().group("printer").lag == 0);
    CHECK(error_of<Error>([&] { (void)app.skip_message("printer", "p1"); }) ==
          "skip a message of 'p1' for group 'printer': nothing is open there");
}

/// What must not be folded: its handlers throw, or it cannot be read.
Message unfoldable(bool readable) {
    Message message = Printed{"torn"};
    if (!readable) message.payload = R"({"text":[]})";
    return message;
}

struct Copy {
    std::string text;
    SOURCED_COMMAND("paper.copy", text)
};

/// Numbers its pages, by the state that a fold has made.
struct Numbering : Actor<int> {
    explicit Numbering(bool reacts = false, std::string_view name = "numbering") : Actor(name) {
        command([](int pages, const Print& print) { return Printed{print.text + std::to_string(pages)}; });
        event([](int& pages, const Printed& printed) {
            ++pages;  // half of the change is made when it throws
            if (printed.text == "torn") throw Jam("torn");
        });
        if (reacts) {
            reaction([](int pages, const Message& event) {
                return dispatch(Copy{event.as<Printed>().text + " of " + std::to_string(pages)}).to("copies");
            });
        }
    }
};

Strings printed_in(App& app, std::string_view stream) {
    Strings texts;
    for (const auto& message : app.history(stream)) {
        if (message.is<Printed>() && message.payload.find("[]") == std::string::npos) {
            texts.push_back(message.as<Printed>().text);
        }
    }
    std::erase(texts, "torn");
    return texts;
}

TEST_CASE("Skip: an actor's state is folded without a skipped event ever after, whoever asks for it") {
    const Directory directory;
    bool readable = true;
    bool by_hand = false;
    std::size_t cached = 0;
    SUBCASE("whose handler throws, by the strategy") {}
    SUBCASE("whose handler throws, by hand") { by_hand = true; }
    SUBCASE("whose handler throws, with the state in memory") { cached = 100; }
    SUBCASE("whose payload cannot be read") { readable = false; }
    SUBCASE("whose payload cannot be read, by hand") { readable = false, by_hand = true; }
    Options with{.path = directory.file()};
    with.errors = Retries{.times = 0, .then = by_hand ? Resolution::park() : Resolution::skip("torn")};
    with.cached_states = cached;
    {
        App app(with);
        app.add<Numbering>();
        app.add<Numbering>(false, "other");
        app.dispatch("p1", Print{"a"});
        app.stop_group("other");
        app.run_until_idle();
        app.store().append("p1", {unfoldable(readable)});
        app.dispatch("p1", Print{"b"});
        app.dispatch("p1", Print{"c"});
        app.run_until_idle();
        if (by_hand) {
            CHECK(printed_in(app, "p1") == Strings{"a0"});
            CHECK_THROWS((void)app.load<Numbering>("p1"));
            CHECK(app.skip_message("numbering", "p1", "torn").position == 3);
            app.run_until_idle();
        }
        CHECK(printed_in(app, "p1") == Strings{"a0", "b1", "c2"});
        const auto all = app.store().skipped("numbering");
        REQUIRE(all.size() == 1);
        CHECK(all[0].position == 3);
        CHECK(all[0].reason == "torn");
        CHECK(app.load<Numbering>("p1").state == 3);
    }
    App app(with);
    app.add<Numbering>();
    CHECK(app.load<Numbering>("p1", 3).state == 1);
    CHECK(app.load<Numbering>("p1").state == 3);
    app.dispatch("p1", Print{"d"});
    app.run_until_idle();
    (void)app.handle<Numbering>("p1", Print{"e"});
    (void)app.unit<Numbering>().handle("p1", Print{"f"});
    (void)app.unit<Numbering>({.store_commands = false}).handle("p1", Print{"g"});
    auto draft = app.draft<Numbering>("p1", 2);
    CHECK(draft.state() == 1);
    CHECK(draft.catch_up().size() == app.history("p1").size() - 2);
    CHECK(draft.state() == 7);
    (void)draft.decide(Print{"h"});
    (void)draft.save();
    CHECK(printed_in(app, "p1") == Strings{"a0", "b1", "c2", "d3", "e4", "f5", "g6", "h7"});
    CHECK(app.store().skipped("numbering").size() == 1);

    // What was not skipped fails as before, and is skipped for itself.
    app.store().append("p1", {unfoldable(readable)});
    CHECK_THROWS((void)app.load<Numbering>("p1"));
    CHECK_THROWS((void)app.handle<Numbering>("p1", Print{"i"}));
    CHECK_THROWS((void)app.unit<Numbering>().handle("p1", Print{"i"}));
    app.dispatch("p1", Print{"i"});
    app.run_until_idle();
    if (by_hand) {
        (void)app.skip_message("numbering", "p1");
        app.run_until_idle();
    }
    CHECK(app.store().skipped("numbering").size() == 2);
    CHECK(printed_in(app, "p1").back() == "i8");
    CHECK(app.load<Numbering>("p1").state == 9);
    CHECK(problems_of(directory.file()) == "");
}

TEST_CASE("Skip: what one group has skipped stands in the way of others that have not") {
    Strings failed;
    App app({.errors = [&](const Fault& fault) {
        failed.push_back(fault.group);
        return fault.group == "numbering" ? Resolution::skip() : Resolution::park();
    }});
    app.add<Numbering>();
    app.add<Numbering>(false, "other");
    app.store().append("p1", {unfoldable(true)});
    app.dispatch("p1", Print{"a"});
    app.run_until_idle();
    CHECK(failed.size() == 2);
    CHECK(printed_in(app, "p1") == Strings{"a0"});
    CHECK(offset_of(app, "other", "p1").state == State::parked);
    CHECK(app.store().skipped("other").empty());
}

TEST_CASE("Skip: reactions to an event that was skipped are not called, those to the others see the state without it") {
    App app({.errors = Retries{.times = 0, .then = Resolution::skip()}});
    app.add<Numbering>(true);
    Strings expected;
    SUBCASE("alone") {
        app.store().append("p1", {Printed{"a"}, unfoldable(true), Printed{"b"}});
        expected = {"a of 1", "b of 2"};
    }
    SUBCASE("a command stands open before it") {
        app.dispatch("p1", Print{"z"});
        app.store().append("p1", {unfoldable(true)});
        expected = {"z0 of 1"};
    }
    app.run_until_idle();
    Strings copies;
    for (const auto& message : app.history("copies")) copies.push_back(message.as<Copy>().text);
    CHECK(copies == expected);
    CHECK(app.store().skipped("numbering").size() == 1);
    CHECK(app.stats().group("numbering").lag == 0);
}

/// Keeps its fold of each stream in a table, and what its sync was told of.
struct Counting : EventSourcedProjector<int> {
    explicit Counting(Strings& told, ReactorOptions with = {}) : EventSourcedProjector("counting") {
        on_install([](Transaction& db) {
            db.execute("create table if not exists " + db.table("counting") + " (id text primary key, pages integer)");
        });
        event([](int& pages, const Printed& printed) {
            ++pages;
            if (printed.text == "torn") throw Jam("torn");
        });
        sync([&told](const int& pages, std::string_view id, const Batch& batch, Transaction& db) {
            for (const auto& entry : batch) told.push_back(std::to_string(entry.message->seq));
            db.execute("insert or replace into " + db.table("counting") + " values (?, ?)", id, pages);
        });
        options(std::move(with));
    }
};
std::int64_t pages_in(App& app, std::string_view id) {
    std::int64_t pages = -1;
    app.store().read([&](Reader& db) {
        if (const auto row = db.row("select pages from counting where id = ?", id)) pages = row->integer(0);
    });
    return pages;
}

TEST_CASE("Skip: an event-sourced projector's state is folded without a skipped event ever after") {
    const Directory directory;
    bool readable = true;
    bool by_hand = false;
    std::size_t batch_size = 100;
    SUBCASE("whose handler throws, by the strategy") {}
    SUBCASE("whose handler throws, one at a time") { batch_size = 1; }
    SUBCASE("whose handler throws, by hand") { by_hand = true; }
    SUBCASE("whose payload cannot be read") { readable = false; }
    Options with{.path = directory.file()};
    with.errors = Retries{.times = 0, .then = by_hand ? Resolution::park() : Resolution::skip()};
    Strings told;
    {
        App app(with);
        app.add<Counting>(told, ReactorOptions{.batch_size = batch_size});
        app.store().append("p1", {Printed{"a"}, unfoldable(readable), Printed{"b"}});
        app.run_until_idle();
        if (by_hand) {
            CHECK(pages_in(app, "p1") == 1);
            CHECK(app.skip_message("counting", "p1").position == 2);
            app.run_until_idle();
        }
        CHECK(pages_in(app, "p1") == 2);
        app.store().append("p1", {Printed{"c"}});
        app.run_until_idle();
        CHECK(pages_in(app, "p1") == 3);
        CHECK(told == Strings{"1", "3", "4"});
    }
    App app(with);
    app.add<Counting>(told, ReactorOptions{.batch_size = batch_size});
    app.store().append("p1", {Printed{"d"}});
    app.run_until_idle();
    CHECK(pages_in(app, "p1") == 4);
    CHECK(app.load<Counting>("p1").state == 4);
    SUBCASE("after a reset too") {
        app.reset_group("counting");
        app.run_until_idle();
        CHECK(told == Strings{"1", "3", "4", "5", "1", "3", "4", "5"});
    }
    SUBCASE("and where it is built anew") {
        app.rebuild("counting");
        app.store().append("p1", {Printed{"e"}});
        app.run_until_idle();
        CHECK(pages_in(app, "p1") == 5);
    }
    CHECK(pages_in(app, "p1") == app.load<Counting>("p1").state);
    CHECK(app.store().skipped("counting").size() == 1);
    CHECK(app.store().offsets("counting").empty());
    CHECK(app.stats().group("counting").lag == 0);
    CHECK(problems_of(directory.file()) == "");
}

TEST_CASE("By hand: unknown groups and streams, and nothing to retry or to skip, are errors that say so") {
    Office office;
    App app;
    app.add<Printer>(office);
    app.dispatch("p1", Print{"a"});
    app.run_until_idle();
    const std::string nobody = "there is no group 'nobody' in this file";
    CHECK(error_of<NotRegistered>([&] { app.retry_stream("nobody", "p1"); }) == nobody);
    CHECK(error_of<NotRegistered>([&] { app.skip_message("nobody", "p1"); }) == nobody);
    CHECK(error_of<NotRegistered>([&] { app.park_stream("nobody", "p1"); }) == nobody);
    CHECK(error_of<NotRegistered>([&] { (void)app.store().offsets("nobody"); }) == nobody);
    CHECK(error_of<NotRegistered>([&] { (void)app.store().skipped("nobody"); }) == nobody);
    CHECK(error_of<Error>([&] { app.retry_stream("printer", "p9"); }) ==
          "retry 'p9' for group 'printer': there is no such stream");
    CHECK(error_of<Error>([&] { app.skip_message("printer", "p9"); }) ==
          "skip a message of 'p9' for group 'printer': there is no such stream");
    CHECK(error_of<Error>([&] { app.park_stream("printer", "p9"); }) ==
          "park 'p9' for group 'printer': there is no such stream");
    CHECK(error_of<Error>([&] { app.retry_stream("printer", "p1"); }) ==
          "retry 'p1' for group 'printer': it is neither parked nor waiting for a retry");
    CHECK(error_of<Error>([&] { app.skip_message("printer", "p1"); }) ==
          "skip a message of 'p1' for group 'printer': nothing is open there");
    CHECK(error_of<Error>([&] { (void)app.store().offsets("printer", {.after = "p9"}); }) ==
          "offsets after 'p9': there is no such stream");
}

TEST_CASE("Offsets: troubled streams are listed page by page") {
    Office office{.jams = {"a"}};
    App app({.errors = Retries{.times = 0, .then = Resolution::park()}});
    app.add<Printer>(office);
    for (int i = 0; i < 7; ++i) {
        app.dispatch("good-" + std::to_string(i), Print{"fine"});
        app.dispatch("bad-" + std::to_string(i), Print{"a"});
    }
    app.run_until_idle();
    Strings names;
    OffsetRange page{.limit = 3};
    for (;;) {
        const auto offsets = app.store().offsets("printer", page);
        for (const auto& offset : offsets) names.push_back(offset.stream);
        if (offsets.size() < 3) break;
        page.after = offsets.back().stream;
    }
    CHECK(names == Strings{"bad-0", "bad-1", "bad-2", "bad-3", "bad-4", "bad-5", "bad-6"});
    CHECK(app.store().offsets("printer", {.all = true}).size() == 14);
    CHECK(app.stats().group("printer").parked == 7);
}

TEST_CASE("Offsets: one stream is asked for by its name") {
    Office office{.jams = {"a"}};
    App app({.errors = Retries{.times = 0, .then = Resolution::park()}});
    app.add<Printer>(office);
    for (const auto* stream : {"bad-0", "bad-1", "bad-2"}) app.dispatch(stream, Print{"a"});
    app.dispatch("good", Print{"fine"});
    app.run_until_idle();
    const auto named = [&](const OffsetRange& range) {
        Strings names;
        for (const auto& offset : app.store().offsets("printer", range)) names.push_back(offset.stream);
        return names;
    };
    CHECK(named({.stream = "bad-1"}) == Strings{"bad-1"});
    CHECK(named({.stream = "good"}).empty());
    CHECK(named({.all = true, .stream = "good"}) == Strings{"good"});
    CHECK(named({.all = true, .stream = "nobody"}).empty());
}

// ==== Handlers that take their process down, or do not return ====================

/// Dies over "deadly", in the way it is told.
struct Deadly : Actor<int> {
    explicit Deadly(std::string how) : Actor("deadly") {
        command([how = std::move(how)](int, const Print& print) -> Events {
            if (print.text != "deadly") return Printed{print.text};
            if (how == "abort") std::abort();
            if (how == "kill") ::kill(::getpid(), SIGKILL);
            if (how == "throw 42") throw 42;
            return {};
        });
    }
};

TEST_CASE("child: handles what kills" * doctest::skip()) {
    ::signal(SIGABRT, SIG_DFL);  // the end is what was wanted, nobody need tell of it
    const auto arguments = Child::arguments();
    App app({.path = arguments.at(0), .errors = Retries{.then = Resolution::park("it kills")}, .deaths = 2});
    app.add<Deadly>(arguments.at(1));
    app.run_until_idle();
    Child::report("survived");
}

TEST_CASE("Death: a handler that kills its process meets the strategy's last word, and the others go on") {
    std::string how;
    SUBCASE("abort") { how = "abort"; }
    SUBCASE("kill") { how = "kill"; }
    const Directory directory;
    App app({.path = directory.file()});
    app.add<Deadly>("not at all");
    app.dispatch("p1", Print{"a"});
    app.run_until_idle();
    app.dispatch("p1", Print{"deadly"});
    for (int death = 1; death <= 3; ++death) {
        Child child("handles what kills", {directory.file(), how});
        CHECK_FALSE(child.line());
        child.wait();
        CHECK(app.store().beat(0us) == 1);  // silent for no time at all: long enough
        CHECK(offset_of(app, "deadly", "p1").deaths == death);
    }
    app.dispatch("p2", Print{"fine"});
    Child child("handles what kills", {directory.file(), how});
    CHECK(child.line() == "survived");
    const OffsetInfo parked = offset_of(app, "deadly", "p1");
    CHECK(parked.state == State::parked);
    CHECK(parked.reason == "it kills");
    CHECK(parked.error_type == "process death");
    CHECK(parked.error_text ==
          "the process died 3 times, or its handler did not return, while handling 'p1' from position 3");
    CHECK(parked.position == 3);
    CHECK(app.history("p2").size() == 2);
    CHECK(app.stats().group("deadly").active);
    CHECK(app.stats().group("deadly").lag == 1);
    CHECK(problems_of(directory.file()) == "");
}

TEST_CASE("Death: a strategy that wants to try again has the group stopped") {
    const Directory directory;
    Office office;
    int deaths = 0;
    App app({.path = directory.file(), .errors = [&](const Fault& fault) {
                 deaths = fault.deaths;
                 return Resolution::retry(fault.at);
             },
             .deaths = 0});
    app.add<Printer>(office);
    app.dispatch("p1", Print{"a"});
    const auto group = app.stats().group("printer").id;
    const auto dying = open_store({.path = directory.file()});
    (void)dying->register_group({"printer", Printer(office).definition().handled()});
    REQUIRE(dying->claim_stream(group, "p1"));
    CHECK(app.store().beat(0us) == 1);
    app.run_until_idle();
    CHECK(deaths == 1);
    CHECK(office.calls == 0);
    CHECK(app.stats().group("printer").reason.find("trying again is no answer: the process died 1 times") == 0);
}

TEST_CASE("Death: a thrown number is a failure like any other") {
    App app({.errors = Retries{.times = 0, .then = Resolution::skip()}});
    app.add<Deadly>("throw 42");
    app.dispatch("p1", Print{"deadly"});
    app.dispatch("p1", Print{"a"});
    app.run_until_idle();
    REQUIRE(app.store().skipped("deadly").size() == 1);
    CHECK(app.store().skipped("deadly")[0].error_type == "int");
    CHECK(app.stats().group("deadly").lag == 0);
}

struct Stuck : Actor<int> {
    explicit Stuck(Gate& gate) : Actor("stuck") {
        command([&gate](int, const Print& print) {
            if (print.text == "stuck") gate.pass();
            return Printed{print.text};
        });
    }
};

TEST_CASE("Slow: a handler that does not return is shown by stats and logged once") {
    Gate gate;
    std::mutex mutex;
    std::vector<LogRecord> lines;
    std::atomic<int> told{0};
    App* self = nullptr;
    App app({.slow_after = 1us, .log = [&](const LogRecord& line) {
                 const std::lock_guard lock(mutex);
                 if (line.text != "a handler has not returned yet") return;
                 CHECK(self->stats().slow.size() == 1);  // a sink may look around
                 lines.push_back(line);
                 ++told;
                 told.notify_all();
             }});
    self = &app;
    app.add<Stuck>(gate);
    app.start(1);
    CHECK(app.stats().slow.empty());
    app.dispatch("p1", Print{"stuck"});
    REQUIRE(gate.wait_for_waiting(1));
    told.wait(0);
    const auto slow = app.stats().slow;
    REQUIRE(slow.size() == 1);
    CHECK(slow[0].group == "stuck");
    CHECK(slow[0].stream == "p1");
    CHECK(slow[0].thread == "worker 0");
    CHECK(slow[0].running >= 1us);
    CHECK_FALSE(slow[0].given_up);
    gate.open();
    CHECK(app.wait_until_idle(60s));
    app.stop();
    CHECK(app.stats().slow.empty());
    CHECK(lines.size() == 1);
    CHECK(lines[0].fields.at(1).second == "p1");
    CHECK(app.history("p1").size() == 2);
}

TEST_CASE("Slow: past the limit its claims pass to others, what it did is dropped, and it counts as a death") {
    const Directory directory;
    Gate gate;
    std::atomic<int> given_up{0};
    App app({.path = directory.file(), .slow_after = 0us, .give_up_after = 1ms, .log = [&](const LogRecord& line) {
                 if (line.text != "a handler does not return, its claims are taken back") return;
                 ++given_up;
                 given_up.notify_all();
             }});
    app.add<Stuck>(gate);
    for (int i = 0; i < 5; ++i) app.dispatch("p" + std::to_string(i), Print{i == 0 ? "stuck" : "fine"});
    app.start(1);
    REQUIRE(gate.wait_for_waiting(1));
    given_up.wait(0);
    CHECK(app.stats().slow.at(0).given_up);
    CHECK(offset_of(app, "stuck", "p0").state == State::ready);
    CHECK(offset_of(app, "stuck", "p0").deaths == 1);
    {
        // Another process takes the streams over: those that were claimed with the stuck one as well.
        Gate wide_open;
        wide_open.open();
        App other({.path = directory.file()});
        other.add<Stuck>(wide_open);
        CHECK(other.run_until_idle() == 5);
    }
    CHECK(app.history("p0").size() == 2);
    gate.open();
    app.stop();
    for (int i = 0; i < 5; ++i) CHECK(app.history("p" + std::to_string(i)).size() == 2);
    CHECK(app.stats().group("stuck").lag == 0);
    CHECK(problems_of(directory.file()) == "");
}

}  // namespace errors_test
