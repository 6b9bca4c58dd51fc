// Workers: threads that share the streams among them, wake up, wait, fail, stop, and start again.
#include <doctest/doctest.h>

#include <SQLiteCpp/SQLiteCpp.h>
#include <sourced.hpp>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <csignal>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "support.hpp"

using namespace std::chrono_literals;
using support::Gate;
using sourced::App;
using sourced::Batch;
using sourced::Message;
using sourced::Messages;
using sourced::Transaction;

namespace {

struct Count {
    int by = 1;
    SOURCED_COMMAND("counter.count", by)
};
struct Counted {
    int by = 1;
    int total = 0;
    SOURCED_EVENT("counter.counted", by, total)
};
struct Remind {
    SOURCED_COMMAND("counter.remind")
};
struct Reminded {
    SOURCED_EVENT("counter.reminded")
};

struct Trouble : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct Counter : sourced::Actor<int> {
    explicit Counter(std::string_view name = "counter") : Actor(name) {
        command([](const int& total, const Count& count) { return Counted{count.by, total + count.by}; });
        command([](const int&, const Remind&) { return Reminded{}; });
        event([](int& total, const Counted& counted) { total += counted.by; });
    }
};

/// What happened, in order, told by many threads, awaited by one.
class Journal {
public:
    void add(const std::string& stream, std::int64_t seq) {
        {
            const std::lock_guard lock(mutex_);
            seqs_[stream].push_back(seq);
            ++count_;
        }
        changed_.notify_all();
    }
    bool wait_for(std::size_t count) {
        std::unique_lock lock(mutex_);
        return changed_.wait_for(lock, 30s, [&] { return count_ >= count; });
    }
    std::map<std::string, std::vector<std::int64_t>> seqs() {
        const std::lock_guard lock(mutex_);
        return seqs_;
    }

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::map<std::string, std::vector<std::int64_t>> seqs_;
    std::size_t count_ = 0;
};

struct Watcher : sourced::Projector<int> {
    explicit Watcher(Journal& journal, sourced::ReactorOptions given = {}) : Projector("watcher") {
        state([](std::string_view) { return 0; });
        event([](int& count, const Counted&) { ++count; });
        sync([&journal](const int&, std::string_view id, const Batch& batch) {
            for (const auto& event : batch) journal.add(std::string(id), event->seq);
        });
        options(std::move(given));
    }
};

void append(App& app, const std::string& stream, int count) {
    for (int i = 0; i < count; ++i) app.store().append(stream, {Counted{1, i}});
}

/// Both kinds of store, in turn.
std::string some_path(const support::TemporaryDirectory& directory, bool file) {
    return file ? directory.file() : std::string();
}

}  // namespace

TEST_CASE("H19: three workers pass each stream in order and each message once") {
    const support::TemporaryDirectory directory;
    for (const bool file : {false, true}) {
        for (const std::size_t batch : {1u, 7u, 50u, 500u}) {
            CAPTURE(batch);
            Journal journal;
            App app({.path = file ? directory.file(std::to_string(batch)) : std::string(),
                     .durability = sourced::Durability::normal});
            app.add<Watcher>(journal, sourced::ReactorOptions{.batch_size = batch});
            app.start(3);
            std::thread other([&] { append(app, "stream2", 120); });
            append(app, "stream1", 100);
            other.join();
            REQUIRE(app.wait_until_idle(30s));
            const auto seqs = journal.seqs();
            for (const auto& [stream, size] : {std::pair("stream1", 100), std::pair("stream2", 120)}) {
                std::vector<std::int64_t> expected;
                for (int seq = 1; seq <= size; ++seq) expected.push_back(seq);
                CHECK(seqs.at(stream) == expected);
            }
            const auto group = app.stats().group("watcher");
            CHECK(group.lag == 0);
            CHECK(group.newest == 220);
        }
    }
}

namespace {
struct Gated : sourced::Actor<int> {
    Gated(Gate& gate, std::function<void(const std::string&, bool)> inside) : Actor("gated") {
        command([&gate, inside = std::move(inside)](const int&, const Count& count, const sourced::Envelope& envelope) {
            inside(envelope.stream, true);
            gate.pass();
            inside(envelope.stream, false);
            return Counted{count.by, 0};
        });
    }
};
}  // namespace

TEST_CASE("H2: two workers take different streams of a group at the same time, never the same one") {
    Gate gate;
    std::mutex mutex;
    std::multiset<std::string> inside;
    bool doubled = false;
    App app({.claim_count = 1});
    app.add<Gated>(gate, [&](const std::string& stream, bool enters) {
        const std::lock_guard lock(mutex);
        if (enters) {
            inside.insert(stream);
            doubled |= inside.count(stream) > 1;
        } else {
            inside.erase(inside.find(stream));
        }
    });
    for (int i = 0; i < 3; ++i) {
        app.dispatch("s1", Count{});
        app.dispatch("s2", Count{});
    }
    app.start(2);
    REQUIRE(gate.wait_for_waiting(2));
    {
        const std::lock_guard lock(mutex);
        CHECK(inside == std::multiset<std::string>{"s1", "s2"});
    }
    gate.open();
    CHECK(app.wait_until_idle(30s));
    CHECK_FALSE(doubled);
    CHECK(app.history("s1").size() == 6);
    CHECK(app.history("s2").size() == 6);
}

TEST_CASE("Workers: what is dispatched while they run is handled, from any thread") {
    const support::TemporaryDirectory directory;
    for (const bool file : {false, true}) {
        App app({.path = some_path(directory, file), .durability = sourced::Durability::normal});
        app.add<Counter>();
        app.start(2);
        std::vector<std::thread> threads;
        for (int t = 0; t < 4; ++t) {
            threads.emplace_back([&, t] {
                for (int i = 0; i < 100; ++i) app.dispatch("c" + std::to_string((t + i) % 10), Count{1});
            });
        }
        for (auto& thread : threads) thread.join();
        REQUIRE(app.wait_until_idle(30s));
        int total = 0;
        for (int i = 0; i < 10; ++i) total += app.load<Counter>("c" + std::to_string(i)).state;
        CHECK(total == 400);
        CHECK(app.store().head() == 800);
    }
}

TEST_CASE("Workers: commands handled at once by many threads and commands of workers are one order") {
    const support::TemporaryDirectory directory;
    for (const bool file : {false, true}) {
        App app({.path = some_path(directory, file), .durability = sourced::Durability::normal});
        app.add<Counter>();
        app.start(2);
        std::vector<std::thread> threads;
        for (int t = 0; t < 3; ++t) {
            threads.emplace_back([&] {
                for (int i = 0; i < 60; ++i) {
                    app.handle<Counter>("hot", Count{1});
                    app.dispatch("hot", Count{1});
                }
            });
        }
        for (auto& thread : threads) thread.join();
        REQUIRE(app.wait_until_idle(30s));
        int expected = 0;
        for (const auto& message : app.history("hot")) {
            if (message.is<Counted>()) CHECK(message.as<Counted>().total == ++expected);
        }
        CHECK(expected == 360);
    }
}

TEST_CASE("Workers: stop ends them, start begins again, and nothing is lost between") {
    App app;
    app.add<Counter>();
    CHECK_NOTHROW(app.stop());
    for (int round = 1; round <= 3; ++round) {
        app.start(2);
        CHECK_THROWS_AS(app.start(1), sourced::Error);
        CHECK_THROWS_AS(app.add<Counter>("another"), sourced::Error);
        CHECK_THROWS_AS((void)app.run_until_idle(), sourced::Error);
        app.dispatch("c", Count{1});
        CHECK(app.wait_until_idle(30s));
        app.stop();
        app.dispatch("c", Count{1});
        CHECK_FALSE(app.wait_until_idle(0s));
        CHECK(app.run_until_idle() == 1);
        CHECK(app.load<Counter>("c").state == 2 * round);
    }
}

TEST_CASE("Workers: a stop in the middle gives claims back for others to take") {
    const support::TemporaryDirectory directory;
    Gate gate;
    std::atomic<int> handled = 0;
    {
        App app({.path = directory.file()});
        app.add<Gated>(gate, [&](const std::string&, bool enters) { handled += enters ? 0 : 1; });
        for (int i = 0; i < 100; ++i) app.dispatch("s" + std::to_string(i), Count{});
        app.start(1);
        REQUIRE(gate.wait_for_waiting(1));
        std::thread stops([&] { app.stop(); });
        gate.open();
        stops.join();
        // The same process still lives, so nobody else would take them back.
        const auto before = handled.load();
        app.run_until_idle();
        CHECK(handled == 100);
        CHECK(before <= 100);
    }
    App again({.path = directory.file()});
    again.add<Counter>("gated");
    CHECK(again.stats().group("gated").lag == 0);
}

namespace {
struct Failing : sourced::Actor<int> {
    explicit Failing(std::atomic<int>& failures) : Actor("failing") {
        command([&failures](const int& total, const Count& count) {
            if (count.by < 0 && failures.fetch_sub(1) > 0) {
                if (count.by == -1) throw Trouble("not yet");
                throw 42;
            }
            return Counted{count.by, total};
        });
        options({.errors = sourced::Retries{.times = 3, .after = 1ms}});
    }
};
}  // namespace

TEST_CASE("Workers: what a handler throws ends no worker, and retries come at their time") {
    std::atomic<int> failures = 3;
    App app;
    app.add<Failing>(failures);
    app.start(2);
    SUBCASE("an exception") { app.dispatch("c", Count{-1}); }
    SUBCASE("something that is no exception") { app.dispatch("c", Count{-2}); }
    app.dispatch("other", Count{1});
    CHECK(app.wait_until_idle(30s));
    CHECK(failures == -1);
    CHECK(app.history("c").size() == 2);
    CHECK(app.stats().group("failing").active);
}

TEST_CASE("Workers: a group that gave up waits for its start, the others go on") {
    std::atomic<int> failures = 4;
    App app;
    app.add<Failing>(failures);
    app.add<Counter>();
    app.start(2);
    app.dispatch("c", Count{-2});
    REQUIRE(app.wait_until_idle(30s));
    const auto group = app.stats().group("failing");
    CHECK_FALSE(group.active);
    CHECK(group.error_type == "int");
    app.start_group("failing");
    REQUIRE(app.wait_until_idle(30s));
    CHECK(app.history("c").size() == 3);
}

namespace {
struct Reminding : sourced::Actor<int> {
    Reminding() : Actor("reminding") {
        command([](const int&, const Count&) { return Counted{}; });
        event<Counted>();
        reaction([](const Counted&) { return sourced::dispatch(Remind{}).to("reminders").in(20ms); });
    }
};
struct Reminders : sourced::Actor<int> {
    explicit Reminders(Journal& journal) : Actor("reminders") {
        command([&journal](const int&, const Remind&, const sourced::Envelope& envelope) {
            journal.add(envelope.stream, envelope.seq);
            return Reminded{};
        });
    }
};
}  // namespace

TEST_CASE("Workers: what was sent for later wakes them at its time") {
    const support::TemporaryDirectory directory;
    for (const bool file : {false, true}) {
        Journal journal;
        App app({.path = some_path(directory, file)});
        app.add<Reminding>();
        app.add<Reminders>(journal);
        app.start(1);
        const auto begun = std::chrono::steady_clock::now();
        app.dispatch("c", Count{});
        REQUIRE(journal.wait_for(1));
        CHECK(std::chrono::steady_clock::now() - begun >= 20ms);
    }
}

TEST_CASE("Workers: what another process wrote is noticed without a call") {
    const support::TemporaryDirectory directory;
    Journal journal;
    App app({.path = directory.file()});
    app.add<Watcher>(journal);
    app.start(1);
    CHECK(app.wait_until_idle(30s));
    App other({.path = directory.file()});  // a connection of its own is as good as a process here
    append(other, "s1", 1);
    REQUIRE(journal.wait_for(1));
}

TEST_CASE("Workers: two Apps on one file share the streams, and each message is handled once") {
    const support::TemporaryDirectory directory;
    Journal journal;
    const sourced::Options options{.path = directory.file(), .durability = sourced::Durability::normal};
    App first(options);
    App second(options);
    first.add<Watcher>(journal);
    second.add<Watcher>(journal);
    first.add<Counter>();
    second.add<Counter>();
    first.start(2);
    second.start(2);
    for (int i = 0; i < 200; ++i) (i % 2 == 0 ? first : second).dispatch("c" + std::to_string(i % 20), Count{1});
    REQUIRE(journal.wait_for(200));
    CHECK(first.wait_until_idle(30s));
    for (const auto& [stream, seqs] : journal.seqs()) {
        CHECK(seqs.size() == 10);
        CHECK(std::is_sorted(seqs.begin(), seqs.end()));
        CHECK(first.load<Counter>(stream).state == 10);
    }
}

TEST_CASE("Workers: while the store has trouble they wait, say so once, and go on after it") {
    const support::TemporaryDirectory directory;
    Gate gate;
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<std::string> lines;
    const auto said = [&](std::string_view text) {
        return std::count_if(lines.begin(), lines.end(),
                             [&](const auto& line) { return line.find(text) != std::string::npos; });
    };
    App app({.path = directory.file(), .busy_timeout = 2ms, .log = [&](const sourced::LogRecord& line) {
                 const std::lock_guard lock(mutex);
                 lines.push_back(line.text);
                 changed.notify_all();
             }});
    app.add<Gated>(gate, [](const std::string&, bool) {});
    app.dispatch("c", Count{1});
    app.start(2);
    REQUIRE(gate.wait_for_waiting(1));
    {
        SQLite::Database stranger(directory.file(), SQLite::OPEN_READWRITE, 30'000);
        stranger.exec("begin immediate");
        gate.open();  // what is handled now cannot be committed
        std::unique_lock lock(mutex);
        REQUIRE(changed.wait_for(lock, 30s, [&] { return said("trouble") > 0; }));
        lock.unlock();
        stranger.exec("rollback");
    }
    CHECK(app.wait_until_idle(30s));
    app.stop();
    CHECK(said("trouble") == 1);
    CHECK(said("works again") == 1);
    CHECK(app.history("c").size() == 2);
    CHECK(app.stats().group("gated").retrying == 0);
}

TEST_CASE("M7: run returns after SIGTERM and SIGINT and leaves the handlers as they were") {
    static std::atomic<int> ours = 0;
    ours = 0;
    int number = SIGTERM;
    SUBCASE("SIGTERM") {}
    SUBCASE("SIGINT") { number = SIGINT; }
    struct sigaction action {};
    struct sigaction before {};
    action.sa_handler = [](int) { ++ours; };
    ::sigaction(number, &action, &before);
    {
        Journal journal;
        App app;
        app.add<Watcher>(journal);
        append(app, "s1", 1);
        std::thread signals([&] {
            (void)journal.wait_for(1);
            ::kill(::getpid(), number);
        });
        app.run(2);
        signals.join();
        CHECK(ours == 0);
        CHECK(app.run_until_idle() == 0);
    }
    ::raise(number);
    CHECK(ours == 1);
    ::sigaction(number, &before, nullptr);
}

TEST_CASE("App: a process that forked is refused its parent's App, and does no harm by ending") {
    const support::TemporaryDirectory directory;
    App app({.path = directory.file()});
    app.add<Counter>();
    app.start(1);
    app.dispatch("c", Count{1});
    const ::pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        int code = 1;
        try {
            app.dispatch("c", Count{1});
        } catch (const sourced::Error&) {
            code = 0;
        }
        ::_exit(code);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
    CHECK(app.wait_until_idle(30s));
    CHECK(app.load<Counter>("c").state == 1);
}
