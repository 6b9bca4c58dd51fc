// Groups: stopping, starting and waiting for them, where they begin, and the threads and processes that serve them.
#include <SQLiteCpp/SQLiteCpp.h>
#include <doctest/doctest.h>
#include <sourced.hpp>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "support.hpp"

namespace groups_test {

using namespace sourced;
using namespace std::chrono_literals;
using support::Child;
using support::error_of;
using testing::Clock;
using Directory = support::TemporaryDirectory;
using Strings = std::vector<std::string>;
using Result = Waited::Result;

struct Add {
    int number = 0;
    SOURCED_COMMAND("list.add", number)
};
struct Added {
    int number = 0;
    SOURCED_EVENT("list.added", number)
};
struct Other {
    int number = 0;
    SOURCED_EVENT("other.happened", number)
};

struct List : Actor<int> {
    explicit List(std::string_view name = "list") : Actor(name) {
        command([](int, const Add& add) -> Events {
            if (add.number < 0) throw std::runtime_error("negative");
            return Added{add.number};
        });
        event([](int& count, const Added&) { ++count; });
    }
};
struct Names : Projection<int> {
    explicit Names(std::string_view name = "names") : Projection(name) {
        event([](int& count, const Added&) { ++count; });
    }
};

// ==== Hooks ======================================================================

struct Hooked : Projection<int> {
    explicit Hooked(Strings& told) : Projection("hooked") {
        event([](int& count, const Added& added) {
            if (added.number < 0) throw std::runtime_error("negative");
            ++count;
        });
        on_start([&told] { told.push_back("started"); });
        on_stop([&told](std::string_view reason) { told.push_back("stopped: " + std::string(reason)); });
    }
};
struct HookedActor : List {
    explicit HookedActor(Strings& told) : List("hooked_actor") {
        on_stop([&told](std::string_view reason) { told.push_back("actor: " + std::string(reason)); });
        on_start([] { throw std::runtime_error("no coffee"); });
    }
};

TEST_CASE("Hooks: on_stop and on_start are told after the commit, by hand and over an error") {
    Strings told;
    Strings lines;
    App app({.errors = Retries{.times = 0}, .log = [&](const LogRecord& line) {
                 if (line.text == "on_start failed") lines.push_back(line.fields.at(1).second);
             }});
    app.add<Hooked>(told);
    app.add<HookedActor>(told);
    app.stop_group("hooked", "lunch");
    app.start_group("hooked");
    CHECK(told == Strings{"stopped: lunch", "started"});
    app.store().append("s1", {Added{-1}});
    app.run_until_idle();
    app.run_until_idle();
    CHECK(told == Strings{"stopped: lunch", "started", "stopped: negative"});
    app.stop_group("hooked_actor");
    app.start_group("hooked_actor");
    CHECK(told.back() == "actor: stopped by hand");
    CHECK(lines == Strings{"no coffee"});
    CHECK(app.stats().group("hooked_actor").active);
}

TEST_CASE("Hooks: what is stopped in vain tells nobody") {
    Strings told;
    App app;
    app.add<Hooked>(told);
    CHECK(error_of<NotRegistered>([&] { app.stop_group("nobody"); }) == "there is no group 'nobody' in this file");
    CHECK(error_of<NotRegistered>([&] { app.start_group("nobody"); }) == "there is no group 'nobody' in this file");
    CHECK(told.empty());
}

// ==== Where a group begins =======================================================

struct From : List {
    From(std::string_view name, Start start) : List(name) { options({.start_from = start}); }
};

TEST_CASE("Start: now, at a position, at a time, evaluated once") {
    const Directory directory;
    Clock clock;
    const Time before = clock.now();
    const auto run = [&](std::string_view name, Start start) {
        App app({.path = directory.file(), .clock = clock});
        app.add<From>(name, start);
        return app.run_until_idle();
    };
    {
        App app({.path = directory.file(), .clock = clock});
        app.add<From>("first", Start::now());
        for (int i = 1; i <= 4; ++i) {
            app.dispatch("s" + std::to_string(i), Add{i});
            clock.advance(10s);
        }
        CHECK(app.run_until_idle() == 4);  // they came later than "now"
    }
    CHECK(run("from_now", Start::now()) == 0);
    CHECK(run("from_position", Start::at(std::int64_t{3})) == 2);
    CHECK(run("from_time", Start::at(before + 25s)) == 1);
    CHECK(run("from_start", Start::beginning()) == 4);
    CHECK(run("from_below", Start::at(std::int64_t{-7})) == 4);
    CHECK(run("from_now", Start::beginning()) == 0);  // what it begins with is kept
}

// ==== Waiting ====================================================================

TEST_CASE("wait: a caller reads its own writes once the groups have handled them") {
    App app;
    app.add<List>();
    const auto& names = app.add<Names>();
    app.start(2);
    for (int i = 1; i <= 20; ++i) {
        const Message command = app.dispatch("s1", Add{i});
        REQUIRE(app.wait(command, {"list"}, 60s));
        const Messages history = app.history("s1");
        REQUIRE(history.size() == static_cast<std::size_t>(2 * i));
        REQUIRE(app.wait(history.back(), {"names"}, 60s));
        REQUIRE(names.get(app.store(), "s1") == i);
        REQUIRE(app.wait(history.back().position, {}, 60s));
    }
}

TEST_CASE("wait: what cannot get there by itself is stalled, and says why") {
    Clock clock;
    App app({.errors = Retries{.times = 1, .after = 1s, .then = Resolution::park("give it to a human")},
             .clock = clock});
    app.add<List>();
    app.add<Names>();
    const Message good = app.dispatch("good", Add{1});
    const Message bad = app.dispatch("bad", Add{-1});

    Waited waited = app.wait(good, {}, 0s);
    CHECK(waited.result == Result::timed_out);
    CHECK(waited.group == "list");
    CHECK_FALSE(waited);

    app.run_until_idle();
    CHECK(app.wait(good, {}, 0s));
    CHECK(app.wait(good.position, {}, 0s));  // the other stream stands behind it
    waited = app.wait(bad, {}, 60s);
    CHECK(waited.result == Result::stalled);
    CHECK(waited.group == "list");
    CHECK(waited.reason == "'bad' waits for its retry: negative");
    CHECK(app.wait(bad.position, {"names"}, 0s));

    clock.advance(1s);
    app.run_until_idle();
    waited = app.wait(bad.position, {"names", "list"}, 60s);
    CHECK(waited.result == Result::stalled);
    CHECK(waited.reason == "'bad' is parked: give it to a human");

    app.stop_group("list", "lunch");
    CHECK(app.wait(good, {}, 0s));
    CHECK(app.wait(bad, {}, 60s).reason == "it is stopped: lunch");
    app.start_group("list");
    app.skip_message("list", "bad");
    CHECK(app.wait(bad.position, {}, 0s));
}

TEST_CASE("wait: a position that is still to come, and one that another thread handles") {
    App app;
    app.add<List>();
    CHECK(app.wait(3, {}, 0s).result == Result::timed_out);
    std::thread other([&] {
        for (int i = 1; i <= 3; ++i) app.dispatch("s1", Add{i});
        app.run_until_idle();
    });
    CHECK(app.wait(3, {}, 60s));
    other.join();
    CHECK(app.load<List>("s1").state == 3);
}

TEST_CASE("child: works for others" * doctest::skip()) {
    App app({.path = Child::arguments().at(0)});
    app.add<List>();
    app.start(1);
    Child::report("works");
    (void)Child::told();
}

TEST_CASE("wait: it is right also when another process works") {
    const Directory directory;
    App app({.path = directory.file()});
    app.add<List>();
    Child child("works for others", {directory.file()});
    REQUIRE(child.line() == "works");
    for (int i = 1; i <= 5; ++i) REQUIRE(app.wait(app.dispatch("s1", Add{i}), {"list"}, 60s));
    CHECK(app.history("s1").size() == 10);
    child.tell("enough");
    CHECK(child.wait() == 0);
}

struct Impatient : List {
    explicit Impatient(App*& app, std::string& said) : List("impatient") {
        reaction([&](const Added&) -> std::optional<Dispatch> {
            said = error_of<Error>([&] { (void)app->wait(1, {}, 60s); });
            return std::nullopt;
        });
    }
};

TEST_CASE("wait: what makes no sense is refused") {
    App app;
    App* self = &app;
    std::string said;
    app.add<Impatient>(self, said);
    CHECK(error_of<NotRegistered>([&] { (void)app.wait(0, {"nobody"}, 0s); }) ==
          "there is no group 'nobody' in this file");
    CHECK(error_of<Invalid>([&] { (void)app.wait(Message(Add{1}), {}, 0s); }) ==
          "wait for 'list.add': the message was not stored");
    app.start(1);
    app.dispatch("s1", Add{1});
    CHECK(app.wait_until_idle(60s));
    app.stop();
    CHECK(said == "wait: called from a handler; a worker cannot wait for itself");
}

// ==== Stats ======================================================================

TEST_CASE("Stats: lag in messages and in seconds, what is parked and retried, and the last error") {
    Clock clock;
    App app({.errors = [](const Fault& fault) {
                 return fault.message.stream == "parked" ? Resolution::park() : Resolution::retry(fault.at + 1h);
             },
             .clock = clock});
    app.add<List>();
    app.dispatch("good", Add{1});
    app.dispatch("waiting", Add{-1});
    app.run_until_idle();
    clock.advance(30s);
    app.dispatch("parked", Add{-1});
    app.dispatch("parked", Add{2});
    app.run_until_idle();
    clock.advance(30s);
    const GroupInfo group = app.stats().group("list");
    CHECK(group.lag == 3);
    CHECK(group.lag_time == 60s);
    CHECK(group.parked == 1);
    CHECK(group.retrying == 1);
    CHECK_FALSE(group.estimated);
    REQUIRE(group.last_error);
    CHECK(group.last_error->stream == "parked");
    CHECK(group.last_error->error_text == "negative");
    CHECK(group.last_error->position == app.history("parked").at(0).position);
    CHECK(group.last_error->failed_at == clock.now() - 30s);
    app.skip_message("list", "parked");
    CHECK(app.stats().group("list").last_error->stream == "waiting");
    app.skip_message("list", "waiting");
    CHECK_FALSE(app.stats().group("list").last_error);
}

TEST_CASE("Stats: of many streams they are estimated, and say so") {
    constexpr int streams = 6000;
    const auto near = [](std::int64_t found, std::int64_t right) { return std::abs(found - right) <= right / 10; };
    App app;
    app.add<List>();
    const auto append = [&](int first, int last) {
        std::vector<Append> parts;
        for (int i = first; i < last; ++i) {
            parts.push_back({"s" + std::to_string(i), {Message(Added{1}), Message(Other{1})}, any_seq});
        }
        app.store().append_all(parts);
    };
    const auto group = app.store().register_group({"events", {"list.added"}}).id;
    append(0, streams);
    CHECK(app.stats().group("events").estimated);  // twice as many messages as are looked at
    CHECK(near(app.stats().group("events").lag, streams));
    CHECK(app.stats().group("list").lag == 0);
    const auto take = [&](std::size_t left) {
        for (Exchange step{{}, group, left};;) {
            auto claims = app.store().exchange(step).claims;
            step.finished.clear();
            if (claims.empty()) break;
            step.claims -= claims.size();
            for (auto& claim : claims) {
                auto& handled = step.finished.emplace_back();
                handled.acked = claim.known;
                handled.claim = std::move(claim);
            }
        }
    };
    take(2 * streams);
    const GroupInfo done = app.stats().group("events");
    CHECK(done.estimated);
    CHECK(near(done.streams, streams));
    CHECK(near(done.newest, 2 * streams));
    CHECK(done.lag == 0);
    app.reset_group("list");
    app.store().reset_group("events", {}, nullptr);
    CHECK(near(app.stats().group("events").lag, streams));
    CHECK(app.stats().streams == streams);
    const auto replay = app.stats().group("events").replay;
    REQUIRE(replay);
    CHECK(replay->done == 0);
    CHECK(near(replay->total, 2 * streams));
    take(streams / 2);
    CHECK(app.stats().group("events").estimated);
    // The first half of the streams has the lower positions: a quarter of the way.
    CHECK(near(app.stats().group("events").replay->done, streams / 2));
    take(2 * streams);
    CHECK_FALSE(app.stats().group("events").replay);
}

TEST_CASE("Stats: a lag that is estimated is near, also where commands and events take turns") {
    App app;
    const auto event = app.store().register_group({"events", {"list.added"}}).id;
    for (int i = 0; i < 10; ++i) {
        Messages turns;
        for (int j = 0; j < 2000; ++j) {
            turns.push_back(Message(Add{1}));
            turns.push_back(Message(Added{1}));
        }
        app.store().append("s", turns);
    }
    const GroupInfo group = app.stats().group("events");
    CHECK(group.id == event);
    CHECK(group.lag_estimated);
    CHECK(group.lag > 18'000);
    CHECK(group.lag < 22'000);
}

TEST_CASE("Stats: of very many streams in trouble, and of a rebuild of many, about how many is said") {
    constexpr int streams = 12'000;
    const auto near = [](std::int64_t found, std::int64_t right) { return std::abs(found - right) <= right / 5; };
    Clock clock;
    App app({.clock = clock});
    auto& store = app.store();
    std::vector<Append> parts;
    for (int i = 0; i < streams; ++i) parts.push_back({"s" + std::to_string(i), {Message(Added{1})}, any_seq});
    store.append_all(parts);
    const auto group = store.register_group({"events", {"list.added"}}).id;
    // Every second stream fails, those by turns for good and for an hour; of the rest as many as are wanted go well.
    const auto take = [&](std::int64_t id, std::size_t left, bool fails) {
        for (Exchange step{{}, id, std::min<std::size_t>(left, 500)}; left > 0;) {
            auto claims = store.exchange(step).claims;
            step.finished.clear();
            if (claims.empty()) break;
            left -= claims.size();
            step.claims = std::min<std::size_t>(left, 500);
            for (auto& claim : claims) {
                auto& handled = step.finished.emplace_back();
                handled.acked = claim.known;
                if (fails && claim.known % 2 == 0) {
                    handled.acked = claim.acked;
                    handled.failure = Failure{claim.known, "std::runtime_error", "no"};
                    handled.failure->resolution =
                        claim.known % 4 == 0 ? Resolution::park() : Resolution::retry(clock.now() + 1h);
                }
                handled.claim = std::move(claim);
            }
            if (left == 0) store.exchange(step);
        }
    };
    take(group, streams, true);
    GroupInfo info = store.stats().group("events");
    CHECK(info.estimated);
    CHECK(near(info.parked, streams / 4));
    CHECK(info.retrying == streams / 4);  // as few are counted
    CHECK(near(info.streams, streams / 2));
    CHECK(near(info.lag, streams / 2));
    CHECK(info.lag_estimated);
    REQUIRE(info.last_error);
    CHECK(info.last_error->error_text == "no");
    CHECK(info.next_retry == clock.now() + 1h);
    CHECK_FALSE(info.rebuild);

    app.reset_group("events");
    take(group, streams, false);
    info = store.stats().group("events");
    CHECK(info.parked == 0);
    CHECK(info.retrying == 0);
    CHECK(info.lag == 0);
    CHECK(info.estimated);
    CHECK_FALSE(info.lag_estimated);
    const Generation built = store.begin_generation(
        "events", [](Transaction&, std::int64_t) { return std::vector<std::string>(); });
    take(built.group, streams / 2, false);
    info = store.stats().group("events");
    REQUIRE(info.rebuild);
    // The first half of the streams has the lower positions: a quarter of the way.
    CHECK(near(info.rebuild->total, streams));
    CHECK(near(info.rebuild->done, streams / 4));
}

// ==== Threads and processes ======================================================

/// Counts what it is given.
struct Counter : Actor<int> {
    Counter(std::string_view name, std::vector<std::string>& order, std::mutex& mutex) : Actor(name) {
        command([this, &order, &mutex](int, const Add&) {
            const std::lock_guard lock(mutex);
            order.push_back(this->name());
            return Events{};
        });
    }
};
struct Listener : Actor<int> {
    Listener(std::vector<std::string>& order, std::mutex& mutex) : Actor("listener") {
        reaction([&order, &mutex](const Other&) -> std::optional<Dispatch> {
            const std::lock_guard lock(mutex);
            order.push_back("listener");
            return std::nullopt;
        });
        event<Other>();
    }
};

TEST_CASE("M1: five producers and five workers lose nothing, and handle nothing twice") {
    std::vector<std::string> order;
    std::mutex mutex;
    App app;
    app.add<Counter>("counter", order, mutex);
    app.start(5);
    std::vector<std::thread> producers;
    for (int producer = 0; producer < 5; ++producer) {
        producers.emplace_back([&app, producer] {
            for (int i = 0; i < 20; ++i) app.dispatch("s" + std::to_string(producer) + std::to_string(i % 4), Add{i});
        });
    }
    for (auto& producer : producers) producer.join();
    CHECK(app.wait(100, {}, 60s));
    app.stop();
    CHECK(order.size() == 100);
}

TEST_CASE("M1: a busy group does not starve another, though there is one worker") {
    std::vector<std::string> order;
    std::mutex mutex;
    App app({.claim_count = 4});
    app.add<Counter>("busy", order, mutex);
    app.add<Listener>(order, mutex);
    for (int i = 0; i < 300; ++i) app.dispatch("s" + std::to_string(i), Add{i});
    app.store().append("other", {Other{1}});
    app.start(1);
    CHECK(app.wait(301, {}, 60s));
    app.stop();
    const auto found = std::find(order.begin(), order.end(), "listener");
    REQUIRE(found != order.end());
    CHECK(found - order.begin() < 50);
    CHECK(order.size() == 301);
}

TEST_CASE("M2: a worker goes on until nothing is found, in batches and claims of one") {
    std::vector<std::string> order;
    std::mutex mutex;
    App app({.batch_size = 1, .claim_count = 1});
    app.add<Counter>("counter", order, mutex);
    for (int i = 0; i < 50; ++i) app.dispatch("s" + std::to_string(i % 3), Add{i});
    app.start(1);
    CHECK(app.wait(50, {}, 60s));
    app.stop();
    CHECK(order.size() == 50);
}

TEST_CASE("M3: types nobody handles wake nobody, a group that is started again is served at once") {
    std::vector<std::string> order;
    std::mutex mutex;
    App app;
    app.add<Counter>("counter", order, mutex);
    app.start(1);
    app.store().append("s1", {Other{1}});
    app.stop_group("counter");
    const Message command = app.dispatch("s1", Add{1});
    CHECK(app.wait(command, {}, 60s).result == Result::stalled);
    app.start_group("counter");
    CHECK(app.wait(command, {}, 60s));
    app.stop();
    CHECK(order.size() == 1);
}

TEST_CASE("M4: a commit tells each of its types once") {
    const auto store = open_store();
    std::vector<std::string> types;
    store->on_commit([&](const Committed& commit) { types = *commit.types; });
    store->append("s1", {Added{1}, Other{1}, Added{2}});
    std::sort(types.begin(), types.end());
    CHECK(types == Strings{"list.added", "other.happened"});
}

TEST_CASE("M5, M6: what is there before the start is handled after it, by as many workers as were asked for") {
    std::vector<std::string> order;
    std::mutex mutex;
    Strings lines;
    App app({.workers = 2, .log = [&](const LogRecord& line) {
                 const std::lock_guard lock(mutex);
                 if (line.text == "workers started") lines.push_back(line.fields.at(0).second);
             }});
    app.add<Counter>("counter", order, mutex);
    const Message command = app.dispatch("s1", Add{1});
    app.start(0);
    CHECK(app.wait(command, {}, 0s).result == Result::timed_out);
    CHECK(order.empty());
    app.start();
    CHECK(app.wait(command, {}, 60s));
    app.stop();
    app.stop();
    CHECK(lines == Strings{"2"});
    CHECK(order.size() == 1);
}

TEST_CASE("child: claims and waits" * doctest::skip()) {
    const auto store = open_store({.path = Child::arguments().at(0)});
    const auto group = store->register_group({"list", List().definition().handled()}).id;
    if (!store->claim_stream(group, "s1")) return;
    Child::report("claimed");
    (void)Child::told();
}

TEST_CASE("M9: a claim of a process that was killed before its first beat is taken over") {
    const Directory directory;
    App app({.path = directory.file()});
    app.add<List>();
    app.dispatch("s1", Add{1});
    {
        Child child("claims and waits", {directory.file()});
        REQUIRE(child.line() == "claimed");
        CHECK(app.run_until_idle() == 0);
        child.signal(SIGKILL);
        CHECK(child.wait() == 128 + SIGKILL);
    }
    CHECK(app.store().offsets("list", {.all = true}).at(0).owner != 0);
    CHECK(app.store().beat(1h) == 0);  // too early to tell
    CHECK(app.store().beat(0us) == 1);
    CHECK(app.run_until_idle() == 1);
    CHECK(verify(directory.file()).empty());
}

TEST_CASE("M8, M9: beats of two processes are kept apart, a live one keeps its claims and none keeps a dead one's") {
    const Directory directory;
    App app({.path = directory.file()});
    app.add<List>();
    app.dispatch("s1", Add{1});
    {
        Child dead("claims and waits", {directory.file()});
        REQUIRE(dead.line() == "claimed");
        dead.signal(SIGKILL);
        dead.wait();
    }
    const auto owner = app.store().offsets("list", {.all = true}).at(0).owner;
    const auto fresh = open_store({.path = directory.file()});
    (void)fresh->register_group({"list", List().definition().handled()});
    (void)fresh->beat(1h);
    (void)fresh->beat(1h);
    CHECK(app.store().offsets("list", {.all = true}).at(0).owner == owner);
    app.dispatch("s2", Add{2});
    const auto group = app.stats().group("list").id;
    REQUIRE(fresh->claim_stream(group, "s2"));
    CHECK(app.store().beat(1h) == 0);
    (void)fresh->beat(1h);  // it lives
    SQLite::Database file(directory.file());
    CHECK(file.execAndGet("SELECT count(DISTINCT beat) FROM sourced_workers").getInt() > 1);
    CHECK(fresh->beat(0us) >= 1);  // whoever has been silent since; not itself
    CHECK(fresh->offsets("list", {.all = true}).at(0).owner == 0);
    CHECK(fresh->offsets("list", {.all = true}).at(1).owner != 0);
}

TEST_CASE("Supervision: what is thrown in a thread of the engine does not end it") {
    std::atomic<int> failures{0};
    std::atomic<int> told{0};
    App app({.clock = [&]() -> Time {
                 // Only threads of the engine meet it, and not always in the same place.
                 if (failures > 0 && failures-- > 0) throw 42;
                 return std::chrono::floor<Duration>(std::chrono::system_clock::now());
             },
             .log = [&](const LogRecord& line) {
                 if (line.text == "a thread of the engine failed and is started again") {
                     ++told;
                     told.notify_all();
                 }
                 throw std::runtime_error("the log is full");
             }});
    app.add<List>();
    app.start(2);
    failures = 3;
    told.wait(0);
    failures = 0;
    CHECK(app.wait(app.dispatch("s1", Add{1}), {}, 60s));
    app.stop();
}

}  // namespace groups_test
