// Notifications: channels for live user interfaces, and following the log as it grows.
#include <doctest/doctest.h>

#include <SQLiteCpp/SQLiteCpp.h>
#include <sourced.hpp>

#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "support.hpp"

using namespace std::chrono_literals;
using support::Gate;
using support::error_of;
using sourced::App;
using sourced::Follower;
using sourced::Message;
using sourced::Notice;
using sourced::Start;
using sourced::Subscription;

namespace {

struct Add {
    int number = 0;
    SOURCED_COMMAND("list.add", number)
};
struct Added {
    int number = 0;
    SOURCED_EVENT("list.added", number)
};
struct Removed {
    int number = 0;
    SOURCED_EVENT("list.removed", number)
};

struct List : sourced::Actor<int> {
    List() : Actor("list") {
        command([](const int&, const Add& add) { return Added{add.number}; });
        event([](int& count, const Added&) { ++count; });
    }
};

/// What callbacks were given, awaited by the test.
template <class T>
class Seen {
public:
    void add(T value) {
        const std::lock_guard lock(mutex_);  // kept: who waits may be the last to need this
        values_.push_back(std::move(value));
        changed_.notify_all();
    }
    /// The first `count`; fewer when they did not come within a minute.
    std::vector<T> wait_for(std::size_t count) {
        std::unique_lock lock(mutex_);
        changed_.wait_for(lock, 60s, [&] { return values_.size() >= count; });
        return values_;
    }

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<T> values_;
};

using Strings = std::vector<std::string>;
using Numbers = std::vector<std::int64_t>;

Message added(int number) { return Message(Added{number}); }

/// Gives up after a minute, so that a message that is missing fails a test instead of stopping it.
std::optional<Message> next(Follower& follower) { return follower.next(60s); }

Numbers take(Follower& follower, std::size_t count) {
    Numbers positions;
    for (std::size_t i = 0; i < count; ++i) {
        const auto message = next(follower);
        if (!message) break;
        positions.push_back(message->position);
    }
    return positions;
}

Numbers from_to(std::int64_t first, std::int64_t last) {
    Numbers numbers;
    for (auto number = first; number <= last; ++number) numbers.push_back(number);
    return numbers;
}

std::size_t threads_of_this_process() {
    const std::filesystem::directory_iterator tasks("/proc/self/task");
    return static_cast<std::size_t>(std::distance(begin(tasks), end(tasks)));
}

}  // namespace

// ---- Channels ---------------------------------------------------------------------------------

TEST_CASE("T1: messages are received in order, and stop ends the loop") {
    App app;
    auto carts = app.subscribe("carts");
    CHECK(app.publish("carts", "one") == 1);
    CHECK(app.publish("carts", Added{2}) == 1);
    CHECK(app.publish("carts", Message(Added{3}).to("cart-1")) == 1);
    CHECK(app.publish("carts", "stop") == 1);
    CHECK(app.publish("carts", "never seen") == 1);
    std::vector<Notice> seen;
    while (const auto notice = carts.next()) {
        seen.push_back(*notice);
        if (notice->text == "stop") carts.stop();
    }
    REQUIRE(seen.size() == 4);
    CHECK(seen[0].channel == "carts");
    CHECK(seen[0].text == "one");
    CHECK_FALSE(seen[0].message);
    CHECK(seen[1].text == R"({"number":2})");
    CHECK(seen[1].message->as<Added>().number == 2);
    CHECK(seen[2].message->stream == "cart-1");
    CHECK(carts.stopped());
    CHECK_FALSE(carts.next());
    CHECK(app.publish("carts", "nobody is there") == 0);
}

TEST_CASE("T1: each subscriber has its own copy, and its own place") {
    App app;
    auto first = app.subscribe("carts");
    CHECK(app.publish("carts", "a") == 1);
    auto second = app.subscribe("carts");
    CHECK(app.publish("carts", "b") == 2);
    auto notice = first.next();
    notice->text = "changed";
    CHECK(first.next()->text == "b");
    CHECK(second.next()->text == "b");
    CHECK_FALSE(second.next(0us));
}

TEST_CASE("T1: a slow subscriber does not hold up a fast one") {
    App app;
    Gate gate;
    Seen<std::string> slow;
    Seen<std::string> fast;
    auto slow_one = app.subscribe("carts", [&](const Notice& notice) {
        gate.pass();
        slow.add(notice.text);
    });
    auto fast_one = app.subscribe("carts", [&](const Notice& notice) { fast.add(notice.text); });
    for (const auto* text : {"a", "b", "c"}) app.publish("carts", text);
    CHECK(fast.wait_for(3) == Strings{"a", "b", "c"});
    CHECK(slow.wait_for(0).empty());
    gate.open();
    CHECK(slow.wait_for(3) == Strings{"a", "b", "c"});
}

TEST_CASE("T1: channels are independent") {
    App app;
    auto carts = app.subscribe("carts");
    auto rooms = app.subscribe("rooms");
    CHECK(app.publish("carts", "c") == 1);
    CHECK(app.publish("rooms", "r") == 1);
    CHECK(app.publish("halls", "h") == 0);
    CHECK(carts.next()->text == "c");
    CHECK(rooms.next()->text == "r");
    carts.stop();
    CHECK(app.publish("rooms", "again") == 1);
    CHECK(rooms.next()->text == "again");
    CHECK_FALSE(rooms.next(0us));
}

TEST_CASE("channels: a full queue loses its oldest notices, and the next one says how many") {
    App app;
    auto carts = app.subscribe("carts", {.limit = 3});
    auto roomy = app.subscribe("carts");
    for (int i = 1; i <= 5; ++i) app.publish("carts", std::to_string(i));
    auto notice = carts.next();
    CHECK(notice->text == "3");
    CHECK(notice->missed == 2);
    notice = carts.next();
    CHECK(notice->text == "4");
    CHECK(notice->missed == 0);
    CHECK(carts.next()->text == "5");
    CHECK(roomy.next()->text == "1");
    CHECK(roomy.next()->missed == 0);
}

TEST_CASE("channels: stop wakes who waits, from any thread") {
    App app;
    auto carts = app.subscribe("carts");
    std::jthread stopper([&] { carts.stop(); });
    CHECK_FALSE(carts.next());
}

TEST_CASE("channels: destroying a subscription unsubscribes, after the callback that is under way") {
    App app;
    Gate gate;
    std::atomic<bool> over{false};
    auto carts = std::make_unique<Subscription>(app.subscribe("carts", [&](const Notice&) {
        gate.pass();
        over = true;
    }));
    app.publish("carts", "a");
    app.publish("carts", "b");
    REQUIRE(gate.wait_for_waiting(1));
    std::jthread opener([&] {
        while (app.publish("carts", "c") == 1) std::this_thread::yield();  // the destructor has unsubscribed
        CHECK_FALSE(over);
        gate.open();
    });
    carts.reset();
    CHECK(over);
    CHECK(app.publish("carts", "d") == 0);
}

TEST_CASE("channels: a callback may end its own subscription") {
    App app;
    Seen<std::string> seen;
    std::optional<Subscription> carts;
    Gate ready;
    SUBCASE("by stop") {
        carts = app.subscribe("carts", [&](const Notice& notice) {
            ready.pass();
            carts->stop();
            seen.add(notice.text);
        });
    }
    SUBCASE("by destroying it") {
        carts = app.subscribe("carts", [&](const Notice& notice) {
            auto& told = seen;
            const auto text = notice.text;
            ready.pass();
            carts.reset();
            told.add(text);
        });
    }
    app.publish("carts", "a");
    app.publish("carts", "b");
    ready.open();
    CHECK(seen.wait_for(1) == Strings{"a"});
    CHECK(app.publish("carts", "c") == 0);
}

TEST_CASE("channels: what a callback throws is logged, and the next notice follows") {
    Seen<std::string> log;
    App app({.log = [&](const sourced::LogRecord& record) {
        log.add(record.text + ": " + record.fields.at(0).second + " (" + record.fields.at(1).second + ")");
    }});
    Seen<std::string> seen;
    auto carts = app.subscribe("carts", [&](const Notice& notice) {
        if (notice.text == "a") throw std::runtime_error("no cart");
        if (notice.text == "b") throw 7;
        seen.add(notice.text);
    });
    for (const auto* text : {"a", "b", "c"}) app.publish("carts", text);
    CHECK(seen.wait_for(1) == Strings{"c"});
    const auto lines = log.wait_for(2);
    CHECK(lines.at(0) == "a callback threw, going on with what follows: no cart (carts)");
    CHECK(lines.at(1) ==
          "a callback threw, going on with what follows: an exception that is no std::exception was thrown (carts)");
}

TEST_CASE("channels: sync handlers and callbacks may publish") {
    App app;
    struct Telling : sourced::Projector<int> {
        explicit Telling(App& app) : Projector("telling") {
            state([](std::string_view) { return 0; });
            event([](int& number, const Added& added) { number = added.number; });
            sync([&app](const int& number, std::string_view, sourced::Transaction&) {
                app.publish("numbers", std::to_string(number));
            });
        }
    };
    app.add<Telling>(app);
    Seen<std::string> seen;
    const auto twice = app.subscribe("numbers", [&](const Notice& notice) {
        app.dispatch("other", Removed{});
        app.publish("more", notice.text + notice.text);
    });
    const auto more = app.subscribe("more", [&](const Notice& notice) { seen.add(notice.text); });
    app.dispatch("list", Added{4});
    app.run_until_idle();
    CHECK(seen.wait_for(1) == Strings{"44"});
}

TEST_CASE("channels: a subscription ends with its App and may outlive it") {
    auto app = std::make_unique<App>();
    Gate gate;
    std::atomic<int> calls{0};
    auto* raw = app.get();
    Subscription waits = app->subscribe("carts");
    Subscription called = app->subscribe("carts", [&](const Notice&) {
        gate.pass();
        raw->publish("others", "the App is whole while a callback runs");
        ++calls;
    });
    app->publish("carts", "a");
    app->publish("carts", "b");
    REQUIRE(gate.wait_for_waiting(1));
    CHECK(waits.next()->text == "a");
    CHECK(waits.next()->text == "b");
    std::jthread opener([&] {
        CHECK_FALSE(waits.next());  // ended by the App
        while (!called.stopped()) std::this_thread::yield();
        gate.open();
    });
    app.reset();
    CHECK(calls == 1);
    CHECK(waits.stopped());
    CHECK(called.stopped());
    CHECK_FALSE(waits.next());
    waits.stop();
}

TEST_CASE("channels: an App waits for a callback that has ended its own subscription") {
    auto app = std::make_unique<App>();
    auto* raw = app.get();
    Gate stopped;
    std::atomic<bool> over{false};
    std::optional<Subscription> carts;
    carts = app->subscribe("carts", [&](const Notice&) {
        carts->stop();
        stopped.pass();
        raw->publish("others", "the App is whole while a callback runs");
        over = true;
        throw std::runtime_error("told to the log of an App that is still there");
    });
    auto others = app->subscribe("others");
    app->publish("carts", "a");
    REQUIRE(stopped.wait_for_waiting(1));
    std::jthread opener([&] {
        (void)others.next();  // nothing: the App is being destroyed
        stopped.open();
    });
    app.reset();
    CHECK(over);
}

TEST_CASE("channels: subscriptions move, and one of nothing is stopped") {
    App app;
    Subscription nothing;
    CHECK(nothing.stopped());
    CHECK_FALSE(nothing.next());
    nothing.stop();
    auto carts = app.subscribe("carts");
    nothing = std::move(carts);
    CHECK(app.publish("carts", "a") == 1);
    CHECK(nothing.next()->text == "a");
    nothing = app.subscribe("rooms");
    CHECK(app.publish("carts", "b") == 0);
    CHECK(app.publish("rooms", "c") == 1);
}

TEST_CASE("T2: what makes no sense is refused when subscribing") {
    App app;
    CHECK(error_of([&] { (void)app.subscribe(""); }) == "subscribe: the channel has no name");
    CHECK(error_of([&] { (void)app.subscribe("carts", {.limit = 0}); }) ==
          "subscribe to 'carts': limit is 0, expected at least 1");
    CHECK(error_of([&] { (void)app.subscribe("carts", std::function<void(const Notice&)>()); }) ==
          "subscribe to 'carts': the callback is empty");
    CHECK(error_of([&] { (void)app.follow({}, std::function<void(const Message&)>()); }) ==
          "follow: the callback is empty");
    auto called = app.subscribe("carts", [](const Notice&) {});
    CHECK(error_of([&] { (void)called.next(); }) == "next: what comes here is given to the callback");
    auto following = app.follow({}, [](const Message&) {});
    CHECK(error_of([&] { (void)following.next(0us); }) == "next: what comes here is given to the callback");
}

// ---- Following the log -------------------------------------------------------------------------

TEST_CASE("following: every message in order of position, from where it was asked") {
    const support::TemporaryDirectory directory;
    sourced::testing::Clock clock;
    std::string path;
    SUBCASE("in a file") { path = directory.file(); }
    SUBCASE("in memory") {}
    App app({.path = path, .clock = clock});
    for (int i = 1; i <= 3; ++i) {
        app.dispatch("s" + std::to_string(i % 2), added(i));
        clock.advance(1s);
    }
    auto all = app.follow({.from = Start::beginning()});
    auto now = app.follow();
    auto second = app.follow({.from = Start::at(std::int64_t(2))});
    auto later = app.follow({.from = Start::at(std::int64_t(5))});
    auto timed = app.follow({.from = Start::at(clock.now() - 1s)});
    auto early = app.follow({.from = Start::at(std::int64_t(-7))});
    app.dispatch("s1", added(4));
    app.dispatch("s1", added(5));
    CHECK(take(all, 5) == from_to(1, 5));
    CHECK(take(now, 2) == from_to(4, 5));
    CHECK(take(second, 4) == from_to(2, 5));
    CHECK(take(later, 1) == from_to(5, 5));
    CHECK(take(timed, 3) == from_to(3, 5));
    CHECK(take(early, 5) == from_to(1, 5));
    for (auto* follower : {&all, &now, &second, &later, &timed, &early}) {
        CHECK_FALSE(follower->next(0us));
        CHECK(follower->position() == 5);
    }
}

TEST_CASE("following: by type and stream, and the position passes what is filtered away") {
    App app;
    auto removed = app.follow({.types = {"list.removed", "list.unknown"}});
    auto stream = app.follow({.types = {}, .stream = "b"});
    app.dispatch("a", added(1));
    app.dispatch("b", added(2));
    app.dispatch("a", Removed{3});
    app.dispatch("a", added(4));
    CHECK(removed.position() == 0);
    CHECK(next(removed)->as<Removed>().number == 3);
    CHECK(next(stream)->as<Added>().number == 2);
    CHECK_FALSE(removed.next(0us));
    CHECK(removed.position() == 4);
    CHECK_FALSE(stream.next(0us));
    CHECK(stream.position() == 4);
}

TEST_CASE("following: more than is read at a time comes exactly once, large payloads too") {
    App app;
    sourced::Messages messages;
    for (int i = 0; i < 1000; ++i) messages.push_back(added(i).to("s"));
    app.dispatch(messages);
    for (int i = 0; i < 3; ++i) {
        auto large = support::message(sourced::Kind::event, "large", '"' + std::string(700'000, 'x') + '"');
        app.store().append("large", {large});
    }
    auto all = app.follow({.from = Start::beginning()});
    CHECK(take(all, 10) == from_to(1, 10));
    CHECK(all.position() == 10);
    CHECK(take(all, 993) == from_to(11, 1003));
    CHECK_FALSE(all.next(0us));
}

TEST_CASE("following: while many write and workers handle, nothing is lost, doubled or out of order") {
    const support::TemporaryDirectory directory;
    App app({.path = directory.file()});
    app.add<List>();
    Seen<std::int64_t> called;
    auto callback = app.follow({}, [&](const Message& message) { called.add(message.position); });
    auto pulled = app.follow();
    app.start(2);
    {
        std::vector<std::jthread> writers;
        for (int writer = 0; writer < 3; ++writer) {
            writers.emplace_back([&app, writer] {
                for (int i = 0; i < 50; ++i) app.dispatch("list-" + std::to_string(writer), Add{i});
            });
        }
        CHECK(take(pulled, 300) == from_to(1, 300));
    }
    CHECK(called.wait_for(300) == from_to(1, 300));
    app.stop();
    app.dispatch("list-0", Add{0});
    CHECK(take(pulled, 1) == from_to(301, 301));  // workers have nothing to do with it
}

TEST_CASE("following: another App on the file is followed") {
    const support::TemporaryDirectory directory;
    App reader({.path = directory.file()});
    App writer({.path = directory.file()});
    bool workers = false;
    SUBCASE("while workers run") { workers = true; }
    SUBCASE("without workers") {}
    if (workers) reader.start(1);
    auto follower = reader.follow();
    for (int i = 1; i <= 3; ++i) {
        writer.dispatch("s", added(i));
        CHECK(next(follower)->as<Added>().number == i);
    }
    if (workers) reader.stop();  // the follower goes on by itself
    writer.dispatch("s", added(4));
    CHECK(next(follower)->as<Added>().number == 4);
    if (!workers) reader.start(1);
    writer.dispatch("s", added(5));
    CHECK(next(follower)->as<Added>().number == 5);
}

TEST_CASE("child: writes when it is told" * doctest::skip()) {
    const auto arguments = support::Child::arguments();
    App app({.path = arguments.at(0)});
    for (int i = 1; support::Child::told(); ++i) {
        app.dispatch("s", added(i));
        support::Child::report("written");
    }
}

TEST_CASE("following: another process is followed") {
    const support::TemporaryDirectory directory;
    App app({.path = directory.file()});
    app.dispatch("s", added(0));
    Seen<int> seen;
    auto follower = app.follow({}, [&](const Message& message) { seen.add(message.as<Added>().number); });
    support::Child child("writes when it is told", {directory.file()});
    for (int i = 1; i <= 3; ++i) {
        child.tell("write");
        REQUIRE(child.line() == "written");
        REQUIRE(seen.wait_for(static_cast<std::size_t>(i)).size() == static_cast<std::size_t>(i));
    }
    CHECK(seen.wait_for(3) == std::vector<int>{1, 2, 3});
}

TEST_CASE("following: nobody watches the file when the last follower has gone") {
    const support::TemporaryDirectory directory;
    App app({.path = directory.file()});
    const auto before = threads_of_this_process();
    auto first = std::make_unique<Follower>(app.follow());
    auto second = std::make_unique<Follower>(app.follow());
    CHECK(threads_of_this_process() == before + 1);
    first.reset();
    second.reset();
    const auto give_up = std::chrono::steady_clock::now() + 60s;
    while (threads_of_this_process() > before && std::chrono::steady_clock::now() < give_up) std::this_thread::yield();
    CHECK(threads_of_this_process() == before);
    App other({.path = directory.file()});
    auto third = app.follow();
    other.dispatch("s", added(1));
    CHECK(next(third)->position == 1);
}

TEST_CASE("following: a callback that throws is reported, and following goes on") {
    Seen<std::string> log;
    App app({.log = [&](const sourced::LogRecord& record) {
        log.add(record.text + ": " + record.fields.at(0).second + " at " + record.fields.at(1).second);
    }});
    Seen<std::int64_t> seen;
    auto follower = app.follow({}, [&](const Message& message) {
        if (message.position == 1) throw std::runtime_error("not this one");
        seen.add(message.position);
    });
    app.dispatch("s", added(1));
    app.dispatch("s", added(2));
    CHECK(seen.wait_for(1) == Numbers{2});
    CHECK(log.wait_for(1).at(0) == "a callback threw, going on with what follows: not this one at 1");
    CHECK(follower.position() == 2);
}

TEST_CASE("following: while the file cannot be read nothing is lost, and it is said once") {
    const support::TemporaryDirectory directory;
    Seen<std::string> log;
    App app({.path = directory.file(), .log = [&](const sourced::LogRecord& record) {
        if (record.text.starts_with("a follower")) log.add(record.text);
    }});
    app.dispatch("s", added(1));
    SQLite::Database shell(directory.file(), SQLite::OPEN_READWRITE);
    shell.exec("pragma wal_autocheckpoint = 0; alter table sourced_messages rename to elsewhere");
    auto pulled = app.follow({.from = Start::beginning()});
    CHECK_THROWS_AS((void)pulled.next(0us), sourced::StoreError);
    CHECK_THROWS_AS((void)pulled.next(0us), sourced::StoreError);
    Seen<std::int64_t> seen;
    auto called = app.follow({.from = Start::beginning()}, [&](const Message& message) { seen.add(message.position); });
    CHECK(log.wait_for(1) == Strings{"a follower cannot read, going on trying"});
    shell.exec("alter table elsewhere rename to sourced_messages");
    CHECK(seen.wait_for(1) == Numbers{1});
    CHECK(take(pulled, 1) == Numbers{1});
    CHECK(log.wait_for(1).size() == 1);
}

TEST_CASE("following: callbacks may use the App, and write what they themselves follow") {
    App app;
    app.add<List>();
    Seen<int> seen;
    auto follower = app.follow({.types = {"list.added"}}, [&](const Message& message) {
        const int number = message.as<Added>().number;
        seen.add(number);
        if (number < 5) app.handle<List>("list", Add{number + 1});
    });
    app.handle<List>("list", Add{1});
    CHECK(seen.wait_for(5) == std::vector<int>{1, 2, 3, 4, 5});
}

TEST_CASE("following: stop wakes who waits; it ends with its App and may outlive it") {
    const support::TemporaryDirectory directory;
    auto app = std::make_unique<App>(sourced::Options{.path = directory.file()});
    auto stopped = app->follow();
    {
        std::jthread stopper([&] { stopped.stop(); });
        CHECK_FALSE(stopped.next());
    }
    app->dispatch("s", added(1));
    CHECK_FALSE(stopped.next());
    auto waiting = app->follow();
    auto called = app->follow({}, [](const Message&) {});
    std::jthread waiter([&] { CHECK_FALSE(waiting.next()); });
    app.reset();
    CHECK(called.stopped());
    CHECK_FALSE(waiting.next());
    CHECK(waiting.position() == 1);
}

TEST_CASE("notifications: a child process leaves alone what its parent listens to") {
    const support::TemporaryDirectory directory;
    auto app = std::make_unique<App>(sourced::Options{.path = directory.file()});
    auto pulled = std::make_unique<Subscription>(app->subscribe("carts"));
    auto called = std::make_unique<Subscription>(app->subscribe("carts", [](const Notice&) {}));
    auto follower = std::make_unique<Follower>(app->follow({}, [](const Message&) {}));
    const std::string parent = std::to_string(::getpid());
    const ::pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        const std::string suffix = " process " + parent + " and cannot be used after a fork";
        const std::string app_refuses = "this App belongs to" + suffix;
        bool right = error_of([&] { app->publish("carts", "a"); }) == app_refuses;
        right &= error_of([&] { (void)app->subscribe("carts"); }) == app_refuses;
        right &= error_of([&] { (void)app->follow(); }) == app_refuses;
        right &= error_of([&] { (void)pulled->next(); }) == "next: this belongs to" + suffix;
        right &= pulled->stopped() && follower->position() == 0;
        pulled->stop();
        pulled.reset();
        called.reset();
        follower.reset();
        app.reset();
        ::_exit(right ? 0 : 1);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
    CHECK(app->publish("carts", "b") == 2);
    CHECK(pulled->next()->text == "b");
}

// ---- What an App is told -------------------------------------------------------------------------

TEST_CASE("T2: an App needs to be told nothing: in memory, two workers, with channels") {
    const sourced::Options options;
    CHECK(options.path.empty());
    CHECK(options.workers == 2);
    CHECK(options.batch_size == 50);
    CHECK(options.durability == sourced::Durability::full);
    CHECK(sourced::SubscribeOptions().limit == 1000);
    CHECK(sourced::FollowOptions().from.from == Start::From::now);
    App app;
    app.add<List>();
    auto lists = app.subscribe("lists");
    app.handle<List>("list-1", Add{1});
    CHECK(app.load<List>("list-1").state == 1);
    CHECK(app.publish("lists", "list-1") == 1);
}

TEST_CASE("T2: options that make no sense are refused, each by its name") {
    CHECK(error_of([] { App app({.batch_size = 0}); }) == "options of the App: /batch_size: expected at least 1, got 0");
    CHECK(error_of([] { App app({.claim_count = 0}); }) ==
          "options of the App: /claim_count: expected at least 1, got 0");
    CHECK(error_of([] { App app({.workers = 5000}); }) ==
          "options of the App: /workers: expected at most 1024, got 5000");
    CHECK(error_of([] { App app({.claim_time = -10s, .deaths = -1}); }) ==
          "options of the App: /claim_time: expected at least 1 us, got -10 s; /deaths: expected at least 0, got -1");
    CHECK(error_of([] { App app({.limits = {.depth = 0, .bytes = 1}}); }) ==
          "options of the App: /limits/depth: expected at least 1, got 0; /limits/bytes: expected at least 2, got 1");
    CHECK(error_of([] { App app({.busy_timeout = -1us}); }) ==
          "options of the App: /busy_timeout: expected at least 0 s, got -1 us");
    CHECK(error_of([] { App app({.checkpoint_bytes = 0}); }) ==
          "options of the App: /checkpoint_bytes: expected at least 1, got 0");
    CHECK(error_of([] { App app({.checkpoint_bytes = std::size_t{1} << 41}); }) ==
          "options of the App: /checkpoint_bytes: expected at most 1099511627776, got 2199023255552");
    CHECK(error_of([] { App app({.busy_timeout = 1000h}); }) ==
          "options of the App: /busy_timeout: expected at most 86400 s, got 3600000 s");
    const support::TemporaryDirectory directory;
    CHECK(error_of([&] { App app({.path = directory.file(), .batch_size = 0}); }) ==
          "options of the App: /batch_size: expected at least 1, got 0");
    CHECK_FALSE(std::filesystem::exists(directory.file()));  // nothing was opened
}

TEST_CASE("T2: a reactor's options are checked when it is added") {
    struct Eager : sourced::Actor<int> {
        Eager() : Actor("eager") {
            command([](const Add& add) { return Added{add.number}; });
            options({.batch_size = 0});
        }
    };
    App app;
    CHECK(error_of([&] { app.add<Eager>(); }) == "add 'eager': /batch_size: expected at least 1, got 0");
    CHECK(app.stats().groups.empty());
}

TEST_CASE("T2: what sets a reactor up runs once for each App, before anything else") {
    int installed = 0;
    struct Table : sourced::Projector<int> {
        explicit Table(int& installed) : Projector("table") {
            on_install([&installed](sourced::Transaction& db) {
                ++installed;
                db.execute("create table if not exists numbers(number integer)");
            });
            state([](std::string_view) { return 0; });
            event([](int& number, const Added& added) { number = added.number; });
            sync([](const int& number, sourced::Transaction& db) {
                db.execute("insert into numbers values (?)", number);
            });
        }
    };
    App app;
    app.add<Table>(installed);
    CHECK(installed == 1);
    app.dispatch("s", Added{1});
    app.dispatch("s", Added{2});
    app.run_until_idle();
    CHECK(installed == 1);
}

// ==== An App that is destroyed by what it calls ===================================

namespace {

struct Ends : sourced::Actor<int> {
    explicit Ends(std::function<void()> end) : Actor("ends") {
        command([end = std::move(end)](const int&, const Add&) -> sourced::Events {
            end();
            return {};
        });
    }
};

/// Tells when the options that hold it are gone: they are the last of an App.
struct Last {
    explicit Last(Seen<int>& seen) : ended(seen) {}
    Last(const Last&) = delete;
    Last& operator=(const Last&) = delete;
    ~Last() { ended.add(1); }
    Seen<int>& ended;
};

}  // namespace

TEST_CASE("App: destroyed by a callback or handler of its own it ends after that call, and the log is told") {
    Seen<std::string> errors;
    Seen<int> ended;
    Seen<int> go;
    sourced::Options options;
    options.log = [&errors, last = std::make_shared<Last>(ended)](const sourced::LogRecord& record) {
        if (record.level == sourced::Level::error) errors.add(record.text);
    };
    auto app = std::make_unique<App>(std::move(options));
    const auto end = [&] {
        (void)go.wait_for(1);  // nobody else is in a call of it any more
        app.reset();
        CHECK(ended.wait_for(0).empty());
    };
    app->add<Ends>(end);
    app->dispatch("list-1", Add{1});
    Follower follower;
    Subscription subscription;
    SUBCASE("of a follower") {
        follower = app->follow({.from = Start::beginning()}, [&](const Message&) { end(); });
        go.add(1);
    }
    SUBCASE("of a subscription") {
        subscription = app->subscribe("lists", [&](const Notice&) { end(); });
        app->publish("lists", "changed");
        go.add(1);
    }
    SUBCASE("of a worker") {
        app->start(2);
        go.add(1);
    }
    SUBCASE("of run_until_idle") {
        go.add(1);
        App& same = *app;
        CHECK(same.run_until_idle() == 1);
    }
    CHECK(ended.wait_for(1) == std::vector<int>{1});
    CHECK(errors.wait_for(1) ==
          std::vector<std::string>{"the App was destroyed from inside a handler or callback of it, it ends afterwards"});
}
