// Messages that wait for their time, those that come again and again, and files of older versions.
#include <SQLiteCpp/SQLiteCpp.h>
#include <doctest/doctest.h>
#include <sourced.hpp>

#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "support.hpp"

namespace schedule_test {

using namespace sourced;
using support::problems_of;
using namespace std::chrono_literals;
using Directory = support::TemporaryDirectory;

struct Add {
    std::string name;
    SOURCED_COMMAND("list.add", name)
};
struct Added {
    std::string name;
    SOURCED_EVENT("list.added", name)
};
struct List : Actor<int> {
    List() : Actor("list") {
        command([](int, const Add& add) { return Added{add.name}; });
        event([](int& count, const Added&) { ++count; });
        reaction([](const Added& added) -> std::optional<Dispatch> {
            if (added.name != "apple") return std::nullopt;
            return dispatch(Add{"later"}).in(24h);
        });
    }
};
struct Names : Projection<int> {
    Names() : Projection("names") {
        event([](int& count, const Added&) { ++count; });
    }
};

std::string text_of(const std::string& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
}

// ==== Files of version 1 =======================================================

struct OldFile {
    OldFile() {
        SQLite::Database file(directory.file(), SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE);
        file.exec("PRAGMA journal_mode=WAL");
        file.exec(text_of(SOURCED_ROOT "/tests/version_1.sql"));
    }
    [[nodiscard]] std::int64_t version() const {
        SQLite::Database file(directory.file());
        return file.execAndGet("SELECT value FROM sourced_meta WHERE key = 'schema_version'").getInt64();
    }
    Directory directory{};
};

TEST_CASE("Migration: a file of version 1 goes on where it was, with its messages, offsets and schedule") {
    const OldFile old;
    CHECK(old.version() == 1);
    CHECK(problems_of(old.directory.file()) == "");  // looking at it does not change it
    CHECK(old.version() == 1);

    testing::Clock clock;
    clock.advance(10s);
    App app({.path = old.directory.file(), .clock = clock});
    app.add<List>();
    const auto& names = app.add<Names>();
    CHECK(app.load<List>("list-1").state == 1);
    CHECK(app.store().scheduled().size() == 1);
    CHECK(app.stats().group("names").newest == 4);
    CHECK(app.run_until_idle() == 3);  // only what was open: the command, its event twice
    CHECK(app.load<List>("list-1").state == 2);
    CHECK(names.get(app.store(), "list-1") == 2);
    clock.advance(24h);
    app.run_until_idle();
    CHECK(app.load<List>("list-1").state == 3);
    CHECK(app.history("list-1").back().correlation == app.history("list-1").front().id);
    CHECK(old.version() == 2);
    CHECK(problems_of(old.directory.file()) == "");
}

TEST_CASE("child: opener" * doctest::skip()) {
    support::Child::report("ready");
    if (!support::Child::told()) return;
    const auto store = open_store({.path = support::Child::arguments().at(0), .busy_timeout = 1min});
    support::Child::report(std::to_string(store->head()));
}

TEST_CASE("Migration: of several processes that open the file at once, one does it") {
    const OldFile old;
    std::vector<std::unique_ptr<support::Child>> children;
    for (int i = 0; i < 4; ++i) {
        children.push_back(std::make_unique<support::Child>("opener", std::vector{old.directory.file()}));
        REQUIRE(children.back()->line() == "ready");
    }
    for (const auto& child : children) child->tell("go");
    for (const auto& child : children) {
        CHECK(child->line() == "5");
        CHECK(child->wait() == 0);
    }
    CHECK(old.version() == 2);
    CHECK(problems_of(old.directory.file()) == "");
}

TEST_CASE("Migration: it is done whole or not at all") {
    const OldFile old;
    SUBCASE("what stands in its way leaves the file as it was") {
        SQLite::Database(old.directory.file(), SQLite::OPEN_READWRITE).exec("CREATE TABLE sourced_recurring(x)");
        CHECK_THROWS_AS(App({.path = old.directory.file()}), StoreError);
        CHECK(old.version() == 1);
        SQLite::Database(old.directory.file(), SQLite::OPEN_READWRITE).exec("DROP TABLE sourced_recurring");
    }
    SUBCASE("who opens it later finds the new version") {
        const App first({.path = old.directory.file()});
        CHECK(old.version() == 2);
    }
    App app({.path = old.directory.file()});
    CHECK(app.store().head() == 5);
    CHECK(old.version() == 2);
    CHECK(problems_of(old.directory.file()) == "");
}

TEST_CASE("Migration: a newer file is refused and left alone") {
    const OldFile old;
    SQLite::Database(old.directory.file(), SQLite::OPEN_READWRITE)
        .exec("UPDATE sourced_meta SET value = 3 WHERE key = 'schema_version'");
    const std::string wanted = "open '" + old.directory.file() +
                               "': it has schema version 3, this program knows 2: use a newer version of the program";
    CHECK_THROWS_WITH_AS(App({.path = old.directory.file()}), wanted.c_str(), StoreError);
    CHECK(old.version() == 3);
}

// ==== Messages that wait =======================================================

std::vector<std::string> names_in(App& app, std::string_view stream) {
    std::vector<std::string> names;
    for (const auto& message : app.history(stream)) {
        if (message.is<Added>()) names.push_back(message.as<Added>().name);
    }
    return names;
}

TEST_CASE("L1: the App keeps a message until its time, or for a while") {
    testing::Clock clock;
    App app({.clock = clock});
    app.add<List>();
    app.dispatch("s1", Add{"m0"});
    const Message m1 = app.schedule("s1", Add{"m1"}, 2s);
    app.schedule("s1", Add{"m2"}, clock.now() + 2s);
    app.schedule("s1", Add{"m3"}, std::chrono::system_clock::time_point(clock.now() + 10s));
    CHECK(m1.stream == "s1");
    CHECK(app.store().find(m1.id) == std::nullopt);
    app.run_until_idle();
    CHECK(names_in(app, "s1") == std::vector<std::string>{"m0"});
    clock.advance(3s);
    app.run_until_idle();
    CHECK(names_in(app, "s1") == std::vector<std::string>{"m0", "m1", "m2"});
    CHECK(app.store().find(m1.id)->recorded_at == clock.now());
    clock.advance(8s);
    app.run_until_idle();
    CHECK(names_in(app, "s1") == std::vector<std::string>{"m0", "m1", "m2", "m3"});
    app.schedule("s1", Add{"past"}, clock.now() - 1h);
    app.run_until_idle();
    CHECK(names_in(app, "s1").back() == "past");
}

TEST_CASE("Schedule: what cannot be scheduled is refused with a sentence") {
    App app;
    app.add<List>();
    CHECK_THROWS_WITH_AS(app.schedule("s", Add{"m"}, -1s), "schedule 'list.add': the delay is negative", Invalid);
    CHECK_THROWS_AS(app.schedule(" ", Add{"m"}, 1s), Invalid);
    Message wrong = Add{"m"};
    wrong.payload = R"({"name":7})";
    CHECK_THROWS_AS(app.schedule("s", wrong, 1s), Invalid);
    CHECK_THROWS_AS(app.every("tick", 1s, "s", wrong), Invalid);
    CHECK_THROWS_AS(app.every("tick", 0s, "s", Add{"m"}), Invalid);
    CHECK(app.scheduled().empty());
    const Message message = app.schedule("s", Add{"m"}, 1h);
    app.schedule("s", message, 2h);  // the same once more is no mistake
    CHECK(app.scheduled().size() == 1);
    CHECK_THROWS_AS(app.schedule("t", message.to("t"), 1h), Invalid);
}

TEST_CASE("Schedule: listed, cancelled and run now from the App") {
    testing::Clock clock;
    App app({.clock = clock});
    app.add<List>();
    const Id one = app.schedule("s1", Add{"one"}, 1h).id;
    const Id two = app.schedule("s2", Add{"two"}, 2h).id;
    CHECK(app.scheduled().size() == 2);
    CHECK(app.scheduled(10, "s2").at(0).due_at == clock.now() + 2h);
    CHECK(app.cancel(one) == ScheduleChange::done);
    CHECK(app.run_now(two) == ScheduleChange::done);
    app.run_until_idle();
    CHECK(names_in(app, "s2") == std::vector<std::string>{"two"});
    CHECK(app.cancel(two) == ScheduleChange::has_run);
    CHECK(app.run_now(one) == ScheduleChange::unknown);
    clock.advance(3h);
    CHECK(app.run_until_idle() == 0);
}

TEST_CASE("I4: what a reaction schedules keeps cause and correlation, and can be cancelled until it is due") {
    testing::Clock clock;
    App app({.clock = clock});
    app.add<List>();
    const Message source = app.dispatch("s1", Add{"apple"});
    app.run_until_idle();
    CHECK(names_in(app, "s1") == std::vector<std::string>{"apple"});
    const auto waiting = app.scheduled();
    REQUIRE(waiting.size() == 1);
    CHECK(waiting[0].due_at == clock.now() + 24h);
    CHECK(waiting[0].message.correlation == source.id);
    SUBCASE("in its time it is there, and the source does not come again") {
        clock.advance(24h + 1s);
        CHECK(app.run_until_idle() == 2);  // it, and its event
        const auto later = app.store().find(waiting[0].message.id);
        REQUIRE(later);
        CHECK(later->causation == app.history("s1").at(1).id);
        CHECK(later->correlation == source.id);
        CHECK(names_in(app, "s1") == std::vector<std::string>{"apple", "later"});
    }
    SUBCASE("cancelled it never comes") {
        CHECK(app.cancel(waiting[0].message.id) == ScheduleChange::done);
        clock.advance(48h);
        CHECK(app.run_until_idle() == 0);
    }
}

TEST_CASE("Every: a message comes at its interval, across restarts, and each is handled") {
    const Directory directory;
    testing::Clock clock;
    const auto begin = [&](std::string name, Duration interval = 24h) {
        auto app = std::make_unique<App>(Options{.path = directory.file(), .clock = clock});
        app->add<List>();
        app->every("nightly", interval, "report", Add{std::move(name)});
        return app;
    };
    auto app = begin("one");
    CHECK(app->run_until_idle() == 0);
    clock.advance(24h);
    CHECK(app->run_until_idle() > 0);
    CHECK(names_in(*app, "report") == std::vector<std::string>{"one"});
    CHECK(app->history("report").at(0).metadata.get("schedule") == "nightly");
    CHECK(app->history("report").at(0).causation == app->history("report").at(0).id);

    clock.advance(20h);
    app.reset();
    app = begin("one");  // its rhythm does not begin anew
    clock.advance(4h);
    app->run_until_idle();
    CHECK(names_in(*app, "report").size() == 2);

    app.reset();
    clock.advance(240h);  // nothing ran: ten were missed
    app = begin("two");
    app->run_until_idle();
    CHECK(names_in(*app, "report") == std::vector<std::string>{"one", "one", "two"});
    clock.advance(24h);
    app->run_until_idle();
    CHECK(names_in(*app, "report").size() == 4);

    app->every("nightly", 1h, "report", Add{"hourly"});
    clock.advance(1h);
    app->run_until_idle();
    CHECK(names_in(*app, "report").back() == "hourly");
    REQUIRE(app->recurring().size() == 1);
    CHECK(app->recurring()[0].name == "nightly");
    CHECK(app->recurring()[0].every == 1h);
    CHECK(app->recurring()[0].next == app->scheduled().at(0).due_at);
    CHECK(app->cancel_every("nightly"));
    CHECK(app->recurring().empty());
    CHECK_FALSE(app->cancel_every("nightly"));
    clock.advance(240h);
    CHECK(app->run_until_idle() == 0);
    app.reset();
    CHECK(problems_of(directory.file()) == "");
}

TEST_CASE("Every: at a time of day that has passed it begins with the next") {
    testing::Clock clock;
    App app({.clock = clock});
    app.add<List>();
    const Time two_o_clock = clock.now() + 2h;
    clock.advance(30h);
    app.every("nightly", 24h, "report", Add{"night"}, two_o_clock);
    CHECK(app.scheduled().at(0).due_at == two_o_clock + 48h);
    app.every("nightly", 24h, "report", Add{"night"}, two_o_clock + 24h);  // the same rhythm
    CHECK(app.scheduled().at(0).due_at == two_o_clock + 48h);
    app.every("nightly", 24h, "report", Add{"night"}, two_o_clock + 1h);
    CHECK(app.scheduled().at(0).due_at == two_o_clock + 49h);
}

TEST_CASE("Every: workers send it in its time, without being asked") {
    const Directory directory;
    App app({.path = directory.file()});
    app.add<List>();
    app.start(1);
    app.every("tick", 1ms, "clockwork", Add{"tick"});
    const Id later = app.schedule("once", Add{"once"}, 1ms).id;
    const auto deadline = std::chrono::steady_clock::now() + 60s;
    while ((names_in(app, "clockwork").size() < 3 || names_in(app, "once").empty()) &&
           std::chrono::steady_clock::now() < deadline) {
        std::this_thread::yield();
    }
    app.stop();
    CHECK(names_in(app, "clockwork").size() >= 3);
    CHECK(app.cancel(later) == ScheduleChange::has_run);
    CHECK(problems_of(directory.file()) == "");
}

TEST_CASE("child: promoter" * doctest::skip()) {
    const auto arguments = support::Child::arguments();
    auto store = open_store({.path = arguments.at(0), .busy_timeout = 1min});
    support::Child::report("ready");
    if (!support::Child::told()) return;
    std::size_t moved = 0;
    for (int idle = 0; idle < 3;) {
        const auto count = store->promote(Time(std::chrono::hours(24 * 365 * 100)), 5);
        moved += count;
        idle = count == 0 ? idle + 1 : 0;
    }
    support::Child::report(std::to_string(moved));
}

TEST_CASE("L2: several processes promote every message exactly once, recurring ones included") {
    const Directory directory;
    const auto store = open_store({.path = directory.file()});
    std::vector<Scheduled> entries;
    for (int i = 0; i < 300; ++i) {
        entries.push_back({Time(std::chrono::seconds(i % 7)), Message(Add{"m"}).to("s" + std::to_string(i % 5))});
    }
    store->schedule(entries);
    Recurring recurring;
    recurring.name = "once in a life";
    recurring.every = std::chrono::hours(24 * 365 * 300);
    recurring.first = Time(std::chrono::hours(24 * 365 * 90));
    recurring.message = Message(Add{"r"}).to("r");
    store->recur(recurring);
    std::vector<std::unique_ptr<support::Child>> children;
    for (int i = 0; i < 3; ++i) {
        children.push_back(std::make_unique<support::Child>("promoter", std::vector{directory.file()}));
        REQUIRE(children.back()->line() == "ready");
    }
    for (const auto& child : children) child->tell("go");
    int moved = 0;
    for (const auto& child : children) moved += std::stoi(child->line().value_or("0"));
    CHECK(moved == 301);
    CHECK(store->head() == 301);
    CHECK(store->stream_seq("r") == 1);
    CHECK(store->scheduled().size() == 1);
    CHECK(store->next_due() == *recurring.first + recurring.every);
    CHECK(problems_of(directory.file()) == "");
}

TEST_CASE("Every: two processes that declare the same have one, and verify sees what is missing") {
    const Directory directory;
    testing::Clock clock;
    App one({.path = directory.file(), .clock = clock});
    App two({.path = directory.file(), .clock = clock});
    for (auto* app : {&one, &two}) {
        app->add<List>();
        app->every("tick", 10s, "clockwork", Add{"tick"});
    }
    CHECK(one.scheduled().size() == 1);
    clock.advance(10s);
    one.run_until_idle();
    two.run_until_idle();
    CHECK(names_in(one, "clockwork").size() == 1);
    CHECK(problems_of(directory.file()) == "");
    SQLite::Database(directory.file(), SQLite::OPEN_READWRITE).exec("DELETE FROM sourced_scheduled");
    CHECK(problems_of(directory.file()) ==
          "I9: the recurring message 'tick' is due at " +
              std::to_string((clock.now() + 10s).time_since_epoch().count()) + ", but nothing waits\n");
    one.every("other", 1h, "clockwork", Add{"other"});
    const auto due = [&](Duration delay) { return std::to_string((clock.now() + delay).time_since_epoch().count()); };
    SQLite::Database(directory.file(), SQLite::OPEN_READWRITE).exec("UPDATE sourced_scheduled SET due_at = due_at + 1");
    CHECK(problems_of(directory.file()).find("I9: the recurring message 'other' is due at " + due(1h) +
                                             ", what waits is due at " + due(1h + 1us) + "\n") != std::string::npos);
    one.cancel_every("other");
    clock.advance(10s);
    one.run_until_idle();
    one.every("later", 1s, "clockwork", Add{"later"});
    clock.advance(1s);
    one.run_until_idle();  // whatever is promoted next mends it
    CHECK(problems_of(directory.file()) == "");
}

// ==== Times without end ========================================================

TEST_CASE("Times: what is scheduled for the end of time never comes, for the beginning at once") {
    testing::Clock clock;
    App app({.clock = clock});
    app.add<List>();
    const Id never = app.schedule("list-1", Add{"never"}, Duration::max()).id;
    app.schedule("list-1", Add{"neither"}, Time::max());
    app.schedule("list-1", Add{"nor this"}, std::chrono::sys_days::max());
    app.schedule("list-2", Add{"at once"}, Time::min());
    app.schedule("list-2", Add{"as well"}, std::chrono::sys_days::min());
    app.dispatch("list-3", Add{"first"});
    app.run_until_idle();
    CHECK(names_in(app, "list-2") == std::vector<std::string>{"at once", "as well"});
    const auto waiting = app.scheduled(10, "list-1");
    REQUIRE(waiting.size() == 3);
    for (const auto& each : waiting) CHECK(each.due_at == Time::max());
    app.start(1);
    CHECK(app.wait_until_idle(Duration::max()));
    CHECK(app.wait(1, {"list"}, Duration::max()).result == Waited::Result::reached);
    app.stop();
    CHECK(app.run_now(never) == ScheduleChange::done);
    app.run_until_idle();
    CHECK(names_in(app, "list-1") == std::vector<std::string>{"never"});
}

TEST_CASE("Times: a reaction may send something after the longest delay there is") {
    struct Patient : Actor<int> {
        Patient() : Actor("patient") {
            event([](int&, const Added&) {});
            reaction([](const Added&) { return dispatch(Add{"later"}).in(Duration::max()); });
        }
    };
    App app;
    app.add<Patient>();
    app.store().append("list-1", {Added{"one"}});
    app.run_until_idle();
    REQUIRE(app.scheduled().size() == 1);
    CHECK(app.scheduled()[0].due_at == Time::max());
}

TEST_CASE("Every: times that lie too far off are refused") {
    testing::Clock clock;
    App app({.clock = clock});
    app.add<List>();
    const auto refused = [&](Duration interval, std::optional<Time> first) {
        try {
            if (first) app.every("tick", interval, "clockwork", Add{"tick"}, *first);
            else app.every("tick", interval, "clockwork", Add{"tick"});
        } catch (const Invalid& error) {
            return std::string(error.what());
        }
        return std::string();
    };
    const std::string first = "every 'tick': the first time is ";
    const std::string within = " microseconds, it has to be within 10000 years from now";
    CHECK(refused(1s, Time::max()) == first + "9223372036854775807" + within);
    CHECK(refused(1s, Time::min()) == first + "-9223372036854775808" + within);
    CHECK(refused(Duration::max(), {}) ==
          "every 'tick': the interval is 9223372036854775807 microseconds, it has to be at most 10000 years");
    CHECK(refused(Duration(0), {}) == "every 'tick': the interval is 0 microseconds, it has to be positive");
    CHECK(refused(Duration::min(), {}) ==
          "every 'tick': the interval is -9223372036854775808 microseconds, it has to be positive");
    CHECK(app.recurring().empty());
    const Duration longest = std::chrono::hours(24 * 365) * 10'000;
    CHECK(refused(longest, clock.now() - longest) == "");
    CHECK(app.scheduled().at(0).due_at == clock.now());
    CHECK(refused(longest, clock.now() + longest - 1s) == "");
    CHECK(app.cancel(app.scheduled().at(0).message.id) == ScheduleChange::done);
    CHECK(app.scheduled().at(0).due_at == clock.now() + 2 * longest - 1s);
}

TEST_CASE("Times: a group may begin so long ago that it is before everything") {
    App app;
    app.store().append("list-1", {Added{"one"}});
    for (const auto ago : {Duration::max(), Duration(0), Duration::min()}) {
        auto follower = app.follow({.from = Start::ago(ago)});
        CHECK(follower.next(Duration(0)).has_value() == (ago == Duration::max()));
    }
    struct Seen : Projection<int> {
        explicit Seen(Duration ago) : Projection("seen " + std::to_string(ago.count())) {
            options({.start_from = Start::ago(ago)});
            event([](int&, const Added&) {});
        }
    };
    app.add<Seen>(Duration::max());
    app.add<Seen>(Duration::min());
    CHECK(app.run_until_idle() == 1);
}

TEST_CASE("Times: a retry that is put off without end, or to before everything, is one") {
    struct Fails : Actor<int> {
        Fails(Time at, int& runs) : Actor("fails") {
            options({.errors = [at](const Fault&) { return Resolution::retry(at); }});
            command([&runs](int, const Add&) -> Events {
                if (++runs < 3) throw Error("no");
                return {};
            });
        }
    };
    for (const auto at : {Time::max(), Time::min()}) {
        int runs = 0;
        App app;
        app.add<Fails>(at, runs);
        app.dispatch("list-1", Add{"one"});
        app.run_until_idle();
        CHECK(runs == (at == Time::max() ? 1 : 3));
        const auto& group = app.stats().group("fails");
        CHECK(group.next_retry == (at == Time::max() ? std::optional(at) : std::nullopt));
    }
}

TEST_CASE("Times: retries may be as far apart as there is time, however many there were") {
    struct Failing : Actor<int> {
        explicit Failing(Retries retries) : Actor("failing") {
            options({.errors = std::move(retries)});
            command([](int, const Add&) -> Events { throw Error("no"); });
        }
    };
    const auto next_retry = [](Retries retries, int attempts) {
        testing::Clock clock;
        App app({.clock = clock});
        app.add<Failing>(std::move(retries));
        app.dispatch("list-1", Add{"one"});
        for (int i = 0; i < attempts; ++i) {
            app.run_until_idle();
            if (i + 1 < attempts) app.retry_stream("failing", "list-1");
        }
        return app.stats().group("failing").next_retry;
    };
    constexpr int many = std::numeric_limits<int>::max();
    CHECK(next_retry({.times = many, .after = 1s, .at_most = Duration::max()}, 1) == testing::Clock().now() + 1s);
    CHECK(next_retry({.after = Duration::max(), .at_most = Duration::max()}, 1) == Time::max());
    CHECK(next_retry({.at_most = Duration::max(), .backoff = [](Duration, int) { return Duration::max(); }}, 1) ==
          Time::max());
    Fault fault{nullptr, {}, {}, Message(Add{"one"}), "failing", 100, 0, testing::Clock().now()};
    CHECK(ErrorStrategy(Retries{.times = many, .at_most = Duration::max()})(fault).at == Time::max());
}

}  // namespace schedule_test
