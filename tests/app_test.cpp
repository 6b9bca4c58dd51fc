// What an App does on the calling thread: dispatching, handling, batches, replays, failures, time.
#include <doctest/doctest.h>

#include <SQLiteCpp/SQLiteCpp.h>
#include <sourced.hpp>
#include <sqlite3.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "support.hpp"

using namespace std::chrono_literals;
using sourced::App;
using sourced::Batch;
using sourced::Decision;
using sourced::Envelope;
using sourced::Events;
using sourced::Message;
using sourced::Messages;
using sourced::Transaction;
using sourced::testing::Clock;

namespace {

// ---- a list of items ------------------------------------------------------------

struct Add {
    std::string name;
    SOURCED_COMMAND("list.add", name)
};
struct AddTwice {
    std::string name;
    SOURCED_COMMAND("list.add_twice", name)
};
struct Ignore {
    SOURCED_COMMAND("list.ignore")
};
struct Break {
    std::string text;
    SOURCED_COMMAND("list.break", text)
};
struct Added {
    std::string name;
    int number = 0;
    SOURCED_EVENT("list.added", name, number)
};
struct Note {
    int count = 0;
    SOURCED_COMMAND("note.make", count)
};
struct Noted {
    int count = 0;
    SOURCED_EVENT("note.made", count)
};
/// Nobody's.
struct Stranger {
    int value = 0;
    SOURCED_EVENT("stranger.came", value)
};

struct Items {
    std::string id;
    std::vector<std::string> names;
    std::int64_t seq = 0;
};

struct Trouble : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct List : sourced::Actor<Items> {
    explicit List(std::string_view name = "list") : Actor(name) {
        state([](std::string_view id) { return Items{std::string(id), {}, 0}; });
        command([](const Items& items, const Add& add) -> Decision<Added> {
            if (items.names.size() >= 100) return sourced::refuse("the list is full");
            if (std::count(items.names.begin(), items.names.end(), add.name) > 0 && add.name == "unique") {
                return sourced::refuse("is there already");
            }
            return Added{add.name, static_cast<int>(items.names.size()) + 1};
        });
        command([](const Items& items, const AddTwice& add) {
            const int number = static_cast<int>(items.names.size());
            return Events{Added{add.name, number + 1}, Added{add.name, number + 2}};
        });
        command([](const Items&, const Ignore&) { return Events{}; });
        command([](const Items&, const Break& broken) -> Events { throw Trouble(broken.text); });
        event([](Items& items, const Added& added, const Envelope& envelope) {
            items.names.push_back(added.name);
            items.seq = envelope.seq;
        });
    }
};

/// Answers each item with a note that says how many there were just then.
struct Counting : List {
    Counting() : List("counting") {
        reaction([](const Items& items, const Added&) {
            return sourced::dispatch(Note{static_cast<int>(items.names.size())}).to("notes");
        });
    }
};

struct Notes : sourced::Actor<std::monostate> {
    Notes() : Actor("notes") {
        command([](const std::monostate&, const Note& note) { return Noted{note.count}; });
    }
};

// ---- a projector that tells what it was given -------------------------------------

struct Seen {
    std::string stream;
    std::int64_t seq = 0;
    bool replay = false;
    bool operator==(const Seen&) const = default;
};
std::ostream& operator<<(std::ostream& out, const Seen& seen) {
    return out << seen.stream << ':' << seen.seq << (seen.replay ? " (replay)" : "");
}

struct Diary {
    std::vector<Seen> seen;
    std::vector<std::size_t> batches;
    int loads = 0;
    int failures_left = 0;           // of sync
    std::string fails_for;           // the payload at which evolving fails
};

struct Watcher : sourced::Projector<int> {
    explicit Watcher(Diary& diary, sourced::ReactorOptions given = {}, std::string_view name = "watcher")
        : Projector(name) {
        state([&diary](std::string_view) { return ++diary.loads, 0; });
        event([&diary](int& count, const Added& added) {
            if (!diary.fails_for.empty() && added.name == diary.fails_for) throw Trouble("cannot stand " + added.name);
            ++count;
        });
        sync([&diary](const int&, std::string_view id, const Batch& batch, Transaction&) {
            if (diary.failures_left > 0) {
                --diary.failures_left;
                throw Trouble("sync failed");
            }
            diary.batches.push_back(batch.size());
            for (const auto& event : batch) diary.seen.push_back({std::string(id), event->seq, event.replay});
        });
        options(std::move(given));
    }
};

std::vector<std::string> types(const Messages& messages) {
    std::vector<std::string> names;
    for (const auto& message : messages) names.push_back(message.type);
    return names;
}
std::vector<int> numbers(const Messages& messages) {
    std::vector<int> numbers;
    for (const auto& message : messages) {
        if (message.is<Added>()) numbers.push_back(message.as<Added>().number);
    }
    return numbers;
}
Message to(std::string_view stream, Message message) { return std::move(message).to(stream); }

}  // namespace

// ==== Dispatching ====================================================================

TEST_CASE("A13: a dispatched message is stored and given back as it is stored") {
    App app;
    app.add<List>();
    const Message sent = app.dispatch("list-1", Add{"milk"});
    CHECK(sent.seq == 1);
    CHECK(sent.position == 1);
    CHECK(sent.stream == "list-1");
    const auto stored = app.store().find(sent.id);
    REQUIRE(stored);
    CHECK(stored->as<Add>().name == "milk");
    CHECK(stored->recorded_at == sent.recorded_at);
    CHECK(stored->causation == sent.id);
    CHECK(stored->correlation == sent.id);
}

TEST_CASE("A13: an invalid message is refused and nothing is stored") {
    App app;
    app.add<List>();
    CHECK_THROWS_AS(app.dispatch(" ", Add{"milk"}), sourced::Invalid);
    Message raw = Add{"milk"};
    raw.payload = R"({"name":7})";
    CHECK_THROWS_AS(app.dispatch("list-1", raw), sourced::Invalid);
    CHECK_THROWS_AS(app.dispatch({to("list-1", Add{"milk"}), to("list-1", raw)}), sourced::Invalid);
    CHECK_THROWS_AS(app.dispatch({Message(Add{"milk"})}), sourced::Invalid);
    CHECK(app.store().head() == 0);
}

TEST_CASE("App: a message of a type that nobody registered is kept") {
    App app;
    app.add<List>();
    app.dispatch("list-1", Stranger{3});
    CHECK(app.history("list-1").front().as<Stranger>().value == 3);
    CHECK(app.run_until_idle() == 0);
}

TEST_CASE("App: several messages for several streams are dispatched as one") {
    App app;
    const auto sent = app.dispatch({to("a", Add{"1"}), to("b", Add{"2"}), to("a", Add{"3"})});
    CHECK(sent[0].seq == 1);
    CHECK(sent[1].seq == 1);
    CHECK(sent[2].seq == 2);
    CHECK(sent[2].position == 3);
}

TEST_CASE("App: a second reactor of the same name is an error") {
    App app;
    app.add<List>();
    CHECK_THROWS_AS(app.add<List>(), sourced::Error);
}

// ==== Actors ===========================================================================

TEST_CASE("C4: events follow their command in its stream, with its metadata and correlation") {
    App app;
    app.add<List>();
    Message first = AddTwice{"milk"};
    first.metadata.set("foo", "bar");
    const Message command = app.dispatch("list-1", first);
    CHECK(app.run_until_idle() == 1);
    const auto history = app.history("list-1");
    REQUIRE(history.size() == 3);
    for (std::size_t i = 1; i < 3; ++i) {
        CHECK(history[i].seq == static_cast<std::int64_t>(i) + 1);
        CHECK(history[i].stream == "list-1");
        CHECK(history[i].metadata.get("foo") == "bar");
        CHECK(history[i].causation == command.id);
        CHECK(history[i].correlation == command.correlation);
        CHECK(history[i].id != command.id);
    }
}

namespace {
struct Recorder : List {
    struct Call {
        std::string id;
        std::size_t items;
        std::vector<std::string> types;
        std::vector<std::int64_t> seqs;
    };
    explicit Recorder(std::vector<Call>& calls) : List("recorder") {
        sync([&calls](const Items& items, std::string_view id, const Batch& batch) {
            Call call{std::string(id), items.names.size(), {}, {}};
            for (const auto& message : batch) {
                call.types.push_back(message->type);
                call.seqs.push_back(message->seq);
            }
            calls.push_back(std::move(call));
        });
    }
};
}  // namespace

TEST_CASE("C5: an actor's sync gets each command, exactly the events appended for it, and the state after them") {
    std::vector<Recorder::Call> calls;
    App app;
    app.add<Recorder>(calls);
    app.dispatch("list-1", AddTwice{"milk"});
    app.dispatch("list-1", Add{"tea"});
    CHECK(calls.empty());
    app.run_until_idle();
    REQUIRE(calls.size() == 1);
    CHECK(calls[0].id == "list-1");
    CHECK(calls[0].items == 3);
    CHECK(calls[0].types ==
          std::vector<std::string>{"list.add_twice", "list.added", "list.added", "list.add", "list.added"});
    CHECK(calls[0].seqs == std::vector<std::int64_t>{1, 3, 4, 2, 5});

    SUBCASE("and when it is handled at once") {
        app.handle<Recorder>("list-1", Add{"bread"});
        REQUIRE(calls.size() == 2);
        CHECK(calls[1].items == 4);
        CHECK(calls[1].seqs == std::vector<std::int64_t>{6, 7});
    }
}

TEST_CASE("sync: a conflict that it catches costs nothing, reactions neither") {
    struct Catching : List {
        Catching() : List("catching") {
            reaction([](const Added& added) { return sourced::dispatch(Ignore{}).to("told-" + added.name); });
            sync([](const Items&, std::string_view, const Batch&, Transaction& transaction) {
                CHECK_THROWS_AS(transaction.append("other", {Ignore{}}, sourced::expect_seq(9)), sourced::Conflict);
            });
        }
    };
    App app;
    app.add<Catching>();
    app.handle<Catching>("list-1", Add{"milk"});
    app.dispatch("list-1", Add{"tea"});
    app.run_until_idle();
    CHECK(app.load<Catching>("list-1").state.names.size() == 2);
    CHECK(app.history("told-milk").size() == 1);
    CHECK(app.history("told-tea").size() == 1);
    CHECK(app.history("other").empty());
}

TEST_CASE("C10: a command that leads to nothing is handled all the same") {
    App app;
    app.add<List>();
    app.dispatch("list-1", Ignore{});
    CHECK(app.run_until_idle() == 1);
    CHECK(app.history("list-1").size() == 1);
    CHECK(app.stats().group("list").lag == 0);
    CHECK(app.run_until_idle() == 0);
}

TEST_CASE("C11: queued commands are each decided on the state that the one before has left") {
    App app;
    app.add<List>();
    for (const char* name : {"a", "b", "c"}) app.dispatch("list-1", Add{name});
    CHECK(app.run_until_idle() == 3);
    const auto history = app.history("list-1");
    REQUIRE(history.size() == 6);
    CHECK(numbers(history) == std::vector<int>{1, 2, 3});
    CHECK(history[5].seq == 6);
    CHECK(app.stats().group("list").retrying == 0);
}

TEST_CASE("C11: a batch that ends before the commands do goes on where it ended") {
    App app({.batch_size = 3});
    app.add<List>();
    for (int i = 0; i < 10; ++i) app.dispatch("list-1", Add{std::to_string(i)});
    CHECK(app.run_until_idle() == 10);
    CHECK(numbers(app.history("list-1")) == std::vector<int>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10});
    app.dispatch("list-1", Add{"more"});
    CHECK(app.run_until_idle() == 1);
    CHECK(app.load<List>("list-1").state.names.size() == 11);
}

TEST_CASE("C12: what a command handler throws leaves nothing of that command behind") {
    Clock clock;
    App app({.clock = clock});
    app.add<List>();
    app.dispatch("list-1", Add{"a"});
    app.dispatch("list-1", Break{"no"});
    app.dispatch("list-1", Add{"b"});
    CHECK(app.run_until_idle() == 1);
    CHECK(types(app.history("list-1")) == std::vector<std::string>{"list.add", "list.break", "list.add", "list.added"});
    CHECK(app.stats().group("list").retrying == 1);

    SUBCASE("and reaches the caller when it is handled at once") {
        CHECK_THROWS_WITH_AS(app.handle<List>("list-2", Break{"not now"}), "not now", Trouble);
        CHECK(app.history("list-2").empty());
        CHECK(app.handle<List>("list-2", Add{"a"}).events().size() == 1);
    }
}

TEST_CASE("Actor: a refusal is one event that its command has caused") {
    App app;
    app.add<List>();
    app.dispatch("list-1", Add{"unique"});
    const Message second = app.dispatch("list-1", Add{"unique"});
    app.run_until_idle();
    const auto history = app.history("list-1");
    REQUIRE(history.size() == 4);
    CHECK(history[3].as<sourced::Refused>().reason == "is there already");
    CHECK(history[3].causation == second.id);
    CHECK(app.stats().group("list").lag == 0);
}

namespace {
struct Stamp {
    sourced::Time at{};
    std::int64_t seq = 0;
    std::int64_t position = 0;
    bool operator==(const Stamp&) const = default;
};
struct Stamped : sourced::Actor<std::vector<Stamp>> {
    Stamped() : Actor("stamped") {
        command([](const std::vector<Stamp>&, const Add& add) { return Added{add.name, 0}; });
        event([](std::vector<Stamp>& stamps, const Added&, const Envelope& envelope) {
            stamps.push_back({envelope.recorded_at, envelope.seq, envelope.position});
        });
    }
};
}  // namespace

TEST_CASE("Actor: a state made of envelopes is the same in memory as from the file") {
    App app;
    app.add<Stamped>();
    for (int i = 0; i < 3; ++i) {
        app.dispatch("s1", Add{"a"});
        app.dispatch("s1", Add{"b"});
        app.run_until_idle();
        app.handle<Stamped>("s1", Add{"c"});
        app.handle<Stamped>("s1", Add{"d"});
    }
    std::vector<Stamp> expected;
    for (const auto& message : app.history("s1")) {
        if (message.is<Added>()) expected.push_back({message.recorded_at, message.seq, message.position});
    }
    CHECK(expected.size() == 12);
    CHECK(app.load<Stamped>("s1").state == expected);
}

TEST_CASE("Actor: a reaction sees the state as of its own event") {
    App app;
    app.add<Counting>();
    app.add<Notes>();
    for (const char* name : {"a", "b", "c"}) app.dispatch("list-1", Add{name});
    app.dispatch("list-1", AddTwice{"d"});
    app.run_until_idle();
    std::vector<int> counts;
    for (const auto& message : app.history("notes")) {
        if (message.is<Note>()) counts.push_back(message.as<Note>().count);
    }
    CHECK(counts == std::vector<int>{1, 2, 3, 4, 5});
    const auto note = app.history("notes").front();
    const auto added = app.store().find(note.causation);
    REQUIRE(added);
    CHECK(added->is<Added>());
    CHECK(note.correlation == added->correlation);
}

TEST_CASE("C8: what a reaction dispatches names its group as the producer, what a command decides does not") {
    App app;
    app.add<Counting>();
    app.add<Notes>();
    app.dispatch("list-1", Add{"a"});
    app.run_until_idle();
    CHECK(app.history("notes").front().metadata.get("producer") == "counting");
    for (const auto& message : app.history("list-1")) CHECK(!message.metadata.has("producer"));
}

namespace {
struct Delayed : sourced::Actor<int> {
    Delayed() : Actor("delayed") {
        command([](const int&, const Add& add) { return Added{add.name, 0}; });
        event([](int& count, const Added&) { ++count; });
        reaction([](const Added& added) {
            return std::vector{sourced::dispatch(Note{1}).to("notes").in(20s), sourced::dispatch(Note{2}).to("notes"),
                               sourced::dispatch(Note{3}).to("notes").in(added.name == "late" ? 60s : 10s)};
        });
    }
};
}  // namespace

TEST_CASE("Actor: what a reaction sends for later is in the log at its time, not before") {
    Clock clock;
    App app({.clock = clock});
    app.add<Delayed>();
    app.dispatch("list-1", Add{"x"});
    app.run_until_idle();
    const auto counts = [&] {
        std::vector<int> all;
        for (const auto& message : app.history("notes")) all.push_back(message.as<Note>().count);
        return all;
    };
    CHECK(counts() == std::vector<int>{2});
    clock.advance(10s - 1us);
    app.run_until_idle();
    CHECK(counts() == std::vector<int>{2});
    clock.advance(1us);
    app.run_until_idle();
    CHECK(counts() == std::vector<int>{2, 3});
    clock.advance(10s);
    app.run_until_idle();
    CHECK(counts() == std::vector<int>{2, 3, 1});
    const auto late = app.history("notes").back();
    CHECK(app.store().find(late.causation)->is<Added>());
}

namespace {
/// Another writer adds an item while the first command is being decided.
struct Overtaken : sourced::Actor<int> {
    explicit Overtaken(std::function<void(int)> meanwhile) : Actor("overtaken") {
        command([meanwhile = std::move(meanwhile)](const int& count, const Add& add) {
            meanwhile(count);
            return Added{add.name, count + 1};
        });
        event([](int& count, const Added&) { ++count; });
    }
};
}  // namespace

TEST_CASE("Actor: a decision that was overtaken by an event is taken again on the new state") {
    App* reach = nullptr;
    std::vector<int> decided_on;
    App app;
    app.add<Overtaken>([&](int count) {
        decided_on.push_back(count);
        if (decided_on.size() == 1) reach->store().append("list-1", {Added{"other", 1}});
    });
    reach = &app;
    SUBCASE("by a worker") {
        app.dispatch("list-1", Add{"mine"});
        CHECK(app.run_until_idle() == 1);
    }
    SUBCASE("at once") {
        CHECK(app.handle<Overtaken>("list-1", Add{"mine"}).events().front().as<Added>().number == 2);
    }
    CHECK(decided_on == std::vector<int>{0, 1});
    CHECK(numbers(app.history("list-1")) == std::vector<int>{1, 2});
    CHECK(app.stats().group("overtaken").retrying == 0);
}

TEST_CASE("Actor: a message that the actor does not evolve is no conflict") {
    App* reach = nullptr;
    int decisions = 0;
    App app;
    app.add<Overtaken>([&](int) {
        if (++decisions == 1) reach->dispatch("list-1", Add{"next"});
    });
    reach = &app;
    app.dispatch("list-1", Add{"mine"});
    app.run_until_idle();
    CHECK(decisions == 2);
    CHECK(numbers(app.history("list-1")) == std::vector<int>{1, 2});
}

// ==== Handling at once =================================================================

TEST_CASE("App: handle gives the command and its events as they are stored") {
    App app;
    app.add<List>();
    const auto result = app.handle<List>("list-1", AddTwice{"milk"});
    CHECK(result);
    CHECK(result.command().seq == 1);
    REQUIRE(result.events().size() == 2);
    CHECK(result.events()[1].seq == 3);
    CHECK(result.events()[1].causation == result.command().id);
    const auto history = app.history("list-1");
    REQUIRE(history.size() == 3);
    CHECK(history[2].id == result.events()[1].id);
    CHECK(history[2].recorded_at == result.events()[1].recorded_at);
    CHECK(app.run_until_idle() == 0);
}

TEST_CASE("App: handle tells why a command was refused, and stores that") {
    App app;
    app.add<List>();
    app.handle<List>("list-1", Add{"unique"});
    const auto result = app.handle<List>("list-1", Add{"unique"});
    CHECK(result.refused());
    CHECK(result.reason() == "is there already");
    REQUIRE(result.events().size() == 1);
    CHECK(result.events()[0].as<sourced::Refused>().reason == "is there already");
    CHECK(app.history("list-1").size() == 4);
}

TEST_CASE("App: handle first handles what is pending for the actor in this stream") {
    App app;
    app.add<List>();
    app.dispatch("list-1", Add{"first"});
    CHECK(app.handle<List>("list-1", Add{"second"}).events()[0].as<Added>().number == 2);
    CHECK(app.run_until_idle() == 0);
}

TEST_CASE("App: handle goes on from what workers and others have made of the stream") {
    App app;
    app.add<List>();
    app.handle<List>("list-1", Add{"a"});
    app.dispatch("list-1", Add{"b"});
    app.run_until_idle();
    CHECK(app.handle<List>("list-1", Add{"c"}).events()[0].as<Added>().number == 3);
    app.store().append("list-1", {Added{"d", 4}});
    CHECK(app.handle<List>("list-1", Add{"e"}).events()[0].as<Added>().number == 5);
}

TEST_CASE("App: own reactions to what handle has stored are handled before the next command") {
    App app;
    app.add<Counting>();
    for (int i = 1; i <= 3; ++i) CHECK(app.handle<Counting>("list-1", Add{"x"}).events()[0].as<Added>().number == i);
    CHECK(app.history("notes").size() == 2);
    app.run_until_idle();
    CHECK(app.history("notes").size() == 3);
}

TEST_CASE("App: handle says so when a message before its command fails") {
    Clock clock;
    App app({.clock = clock});
    app.add<List>();
    app.dispatch("list-1", Break{"stuck"});
    CHECK_THROWS_WITH_AS(app.handle<List>("list-1", Add{"a"}), doctest::Contains("stuck"), sourced::Error);
    CHECK(app.history("list-1").size() == 1);
}

TEST_CASE("App: an actor without events does not read its stream again for each command") {
    App app;
    app.add<Notes>();
    for (int i = 0; i < 20; ++i) CHECK(app.handle<Notes>("notes", Note{i}).events()[0].as<Noted>().count == i);
    for (int i = 0; i < 20; ++i) app.dispatch("notes", Note{i});
    CHECK(app.run_until_idle() == 20);
    CHECK(app.history("notes").size() == 80);
}

TEST_CASE("P1: load folds the stream, whole or up to a seq, and again when it has grown") {
    App app;
    app.add<List>();
    app.store().append("list-1", {Added{"a", 1}, Added{"b", 2}});
    auto loaded = app.load<List>("list-1");
    CHECK(loaded.seq == 2);
    CHECK(loaded.state.names == std::vector<std::string>{"a", "b"});
    app.store().append("list-1", {Added{"c", 3}});
    CHECK(app.load<List>("list-1").seq == 3);
    CHECK(app.load<List>("list-1", 1).state.names == std::vector<std::string>{"a"});
    CHECK(app.load<List>("list-1", 1).seq == 1);
    CHECK(app.load<List>("nobody").seq == 0);

    auto list = app.actor<List>("list-1");
    CHECK(list.seq() == 3);
    CHECK(list.state(2).names.size() == 2);
    list.handle(Add{"d"});
    CHECK(list.state().names.size() == 4);
    CHECK(list.history().size() == 5);
}

TEST_CASE("P2: history gives a stream's messages, up to a seq when asked") {
    App app;
    app.store().append("list-1", {Added{"a", 1}, Added{"b", 2}, Added{"c", 3}});
    CHECK(app.history("list-1").size() == 3);
    CHECK(app.history("list-1", {.to = 2}).back().as<Added>().name == "b");
    CHECK(app.history("nobody").empty());
}

// ==== Batches and groups ===============================================================

TEST_CASE("H1: a group passes the messages it handles one after the other, then nothing") {
    Diary diary;
    App app;
    app.add<Watcher>(diary, sourced::ReactorOptions{.batch_size = 1});
    app.dispatch("s1", Ignore{});
    app.store().append("s1", {Added{"a", 1}, Added{"b", 2}});
    CHECK(app.run_until_idle() == 2);
    CHECK(diary.seen == std::vector<Seen>{{"s1", 2, false}, {"s1", 3, false}});
    CHECK(diary.batches == std::vector<std::size_t>{1, 1});
    CHECK(app.run_until_idle() == 0);
}

TEST_CASE("H3: another group begins at its own first message") {
    Diary first;
    Diary second;
    App app;
    app.add<Watcher>(first);
    app.store().append("s1", {Added{"a", 1}});
    app.run_until_idle();
    app.add<Watcher>(second, sourced::ReactorOptions{}, "another");
    app.run_until_idle();
    CHECK(first.seen == second.seen);
    CHECK(first.seen.size() == 1);
}

TEST_CASE("H4: a stopped group gets nothing until it is started again") {
    Diary diary;
    App app;
    app.add<Watcher>(diary);
    app.stop_group("watcher");
    app.store().append("s1", {Added{"a", 1}});
    CHECK(app.run_until_idle() == 0);
    CHECK_FALSE(app.stats().group("watcher").active);
    app.start_group("watcher");
    CHECK(app.run_until_idle() == 1);
}

namespace {
struct Strangers : sourced::Projector<int> {
    Strangers() : Projector("strangers") {
        state([](std::string_view) { return 0; });
        event([](int& count, const Stranger&) { ++count; });
    }
};
}  // namespace

TEST_CASE("H6: stats tell where each group stands") {
    Diary first;
    Diary stopped;
    App app;
    app.add<Watcher>(first, sourced::ReactorOptions{}, "first");
    app.add<Strangers>();
    app.add<Watcher>(stopped, sourced::ReactorOptions{}, "stopped");
    app.stop_group("stopped");
    app.dispatch("s1", Ignore{});
    app.store().append("s1", {Added{"a", 1}, Stranger{1}});
    app.store().append("s2", {Message(Ignore{}), Message(Added{"b", 1})});
    app.run_until_idle();
    const auto stats = app.stats();
    CHECK(stats.messages == 5);
    CHECK(stats.streams == 2);
    CHECK(stats.group("first").oldest == 2);
    CHECK(stats.group("first").newest == 5);
    CHECK(stats.group("first").streams == 2);
    CHECK(stats.group("strangers").oldest == 3);
    CHECK(stats.group("strangers").newest == 3);
    CHECK(stats.group("strangers").streams == 1);
    CHECK(stats.group("stopped").oldest == 0);
    CHECK(stats.group("stopped").newest == 0);
    CHECK(stats.group("stopped").streams == 0);
    CHECK_THROWS_AS((void)stats.group("nobody"), sourced::NotRegistered);
}

TEST_CASE("H7: a group whose type is not in the log stays at 0 until it is") {
    App app;
    app.add<Notes>();
    for (int i = 0; i < 5; ++i) app.store().append("s1", {Added{"a", i}});
    CHECK(app.run_until_idle() == 0);
    CHECK(app.stats().group("notes").newest == 0);
    app.dispatch("s1", Note{1});
    CHECK(app.run_until_idle() == 1);
    CHECK(app.stats().group("notes").oldest == 6);
    CHECK(app.stats().group("notes").newest == 6);
    CHECK(app.stats().group("notes").streams == 1);
}

TEST_CASE("H8: with nothing to do nothing is handled") {
    Diary diary;
    App app;
    app.add<Watcher>(diary);
    CHECK(app.run_until_idle() == 0);
    app.store().append("s1", {Added{"a", 1}});
    CHECK(app.run_until_idle() == 1);
    CHECK(app.run_until_idle() == 0);
    CHECK(diary.batches.size() == 1);
}

TEST_CASE("H9: a group that starts at a time gets what was recorded from then on") {
    Clock clock;
    Diary diary;
    App app({.clock = clock});
    app.store().append("s1", {Added{"old", 1}});
    clock.advance(57s);
    app.store().append("s1", {Added{"new", 2}});
    clock.advance(3s);
    app.add<Watcher>(diary, sourced::ReactorOptions{.start_from = sourced::Start::at(clock.now() - 5s)});
    CHECK(app.run_until_idle() == 1);
    CHECK(diary.seen == std::vector<Seen>{{"s1", 2, false}});
}

TEST_CASE("H10: a batch takes what is there, at most its size, in order") {
    Diary diary;
    App app;
    SUBCASE("10 of 3") {
        app.add<Watcher>(diary, sourced::ReactorOptions{.batch_size = 10});
        app.store().append("s1", {Added{"a", 1}, Added{"b", 2}, Added{"c", 3}});
        CHECK(app.run_until_idle() == 3);
        CHECK(diary.batches == std::vector<std::size_t>{3});
        CHECK(diary.loads == 1);
    }
    SUBCASE("3 of 5") {
        app.add<Watcher>(diary, sourced::ReactorOptions{.batch_size = 3});
        for (int i = 0; i < 5; ++i) app.store().append("s1", {Added{"a", i}});
        CHECK(app.run_until_idle() == 5);
        CHECK(diary.batches == std::vector<std::size_t>{3, 2});
    }
    for (std::size_t i = 0; i < diary.seen.size(); ++i) CHECK(diary.seen[i].seq == static_cast<std::int64_t>(i) + 1);
}

TEST_CASE("H11: a batch holds the handled types only") {
    Diary diary;
    App app;
    app.add<Watcher>(diary);
    app.store().append("s1", {Added{"a", 1}, Stranger{}, Added{"b", 2}, Stranger{}});
    CHECK(app.run_until_idle() == 2);
    CHECK(diary.seen == std::vector<Seen>{{"s1", 1, false}, {"s1", 3, false}});
    CHECK(diary.batches == std::vector<std::size_t>{2});
}

TEST_CASE("H15: a stream that waits for its retry is left alone until then") {
    Clock clock;
    Diary diary;
    App app({.errors = sourced::Retries{.times = 3, .after = 4s, .at_most = 60s}, .clock = clock});
    app.add<Watcher>(diary);
    diary.failures_left = 1;
    app.store().append("s1", {Added{"a", 1}});
    CHECK(app.run_until_idle() == 0);
    CHECK(app.stats().group("watcher").next_retry == clock.now() + 4s);
    clock.advance(4s - 1us);
    CHECK(app.run_until_idle() == 0);
    clock.advance(1us);
    CHECK(app.run_until_idle() == 1);
}

TEST_CASE("H20: the one stream of many that has work is found at the first look") {
    Diary diary;
    App app;
    app.add<Watcher>(diary);
    std::vector<sourced::Append> parts;
    for (int i = 0; i < 3000; ++i) {
        parts.push_back({"s" + std::to_string(i), {i == 2000 ? Message(Added{"a", 1}) : Message(Stranger{i})}});
    }
    app.store().append_all(parts);
    sourced::Exchange look;
    look.group = app.stats().group("watcher").id;
    look.claims = 64;
    const auto found = app.store().exchange(look);
    REQUIRE(found.claims.size() == 1);
    CHECK(found.claims[0].stream_name == "s2000");
    CHECK_FALSE(found.more);
}

TEST_CASE("H21: a claim costs the same however much was handled and however many streams are at their end") {
    Diary diary;
    App app;
    app.add<Watcher>(diary);
    // The work of SQLite's machine over all statements: the same on every machine, busy or not.
    const auto steps = [&] {
        std::int64_t sum = 0;
        app.store().transaction([&](Transaction& transaction) {
            auto* handle = sourced::database(transaction).getHandle();
            for (auto* one = sqlite3_next_stmt(handle, nullptr); one; one = sqlite3_next_stmt(handle, one)) {
                sum += sqlite3_stmt_status(one, SQLITE_STMTSTATUS_VM_STEP, 0);
            }
        });
        return sum;
    };
    const auto cost_of = [&](int messages) {
        const auto before = steps();
        for (int i = 0; i < messages; ++i) {
            app.store().append("s0", {Added{"a", i}});
            CHECK(app.run_until_idle() == 1);
        }
        return steps() - before;
    };
    (void)cost_of(3);  // statements are prepared
    const auto small = cost_of(30);
    std::vector<sourced::Append> parts;
    for (int i = 1; i <= 5000; ++i) parts.push_back({"s" + std::to_string(i), {Added{"a", 1}, Added{"b", 2}}});
    app.store().append_all(parts);
    CHECK(app.run_until_idle() == 10'000);
    (void)cost_of(3);
    CHECK(cost_of(30) < small + small / 4);
}

// ==== Replays ==========================================================================

TEST_CASE("J1: what was handled before a reset comes again as a replay") {
    Diary diary;
    App app;
    app.add<Watcher>(diary);
    app.store().append("s1", {Added{"a", 1}});
    app.run_until_idle();
    CHECK(app.run_until_idle() == 0);
    app.reset_group("watcher");
    CHECK(app.run_until_idle() == 1);
    CHECK(diary.seen == std::vector<Seen>{{"s1", 1, false}, {"s1", 1, true}});
}

TEST_CASE("J2: a batch tells which of its messages are replayed") {
    Diary diary;
    App app;
    app.add<Watcher>(diary);
    app.store().append("s1", {Added{"a", 1}, Added{"b", 2}});
    app.run_until_idle();
    app.reset_group("watcher");
    app.store().append("s1", {Added{"c", 3}});
    diary.seen.clear();
    app.run_until_idle();
    CHECK(diary.seen == std::vector<Seen>{{"s1", 1, true}, {"s1", 2, true}, {"s1", 3, false}});
    CHECK(diary.batches == std::vector<std::size_t>{2, 3});
}

TEST_CASE("J3: a group is reset by its reactor's name; one that is not there is an error") {
    Diary diary;
    App app;
    const auto& watcher = app.add<Watcher>(diary);
    app.store().append("s1", {Added{"a", 1}});
    app.run_until_idle();
    app.reset_group(watcher.name());
    CHECK(app.run_until_idle() == 1);
    CHECK_THROWS_AS(app.reset_group("nobody"), sourced::NotRegistered);
}

TEST_CASE("Replay: an actor neither decides nor reacts a second time") {
    App app;
    app.add<Counting>();
    app.dispatch("list-1", Add{"a"});
    app.run_until_idle();
    const auto before = app.store().head();
    app.reset_group("counting");
    app.run_until_idle();
    CHECK(app.store().head() == before);
    app.dispatch("list-1", Add{"b"});
    app.run_until_idle();
    CHECK(numbers(app.history("list-1")) == std::vector<int>{1, 2});
    CHECK(app.history("notes").back().as<Note>().count == 2);
}

TEST_CASE("J5: what was never handled is no replay, whatever other streams have handled") {
    Diary diary;
    App app;
    app.add<Watcher>(diary);
    diary.fails_for = "bad";
    app.store().append("s1", {Added{"a", 1}});
    app.store().append("s2", {Added{"bad", 1}});
    app.store().append("s1", {Added{"a", 2}});
    app.store().append("s2", {Added{"b", 2}});
    app.run_until_idle();
    CHECK(diary.seen == std::vector<Seen>{{"s1", 1, false}, {"s1", 2, false}});
    diary.fails_for.clear();
    app.start_group("watcher");
    diary.seen.clear();
    app.run_until_idle();
    CHECK(diary.seen == std::vector<Seen>{{"s2", 1, false}, {"s2", 2, false}});
}

namespace {
struct Flaky : sourced::Actor<int> {
    explicit Flaky(int& failures) : Actor("flaky") {
        command([&failures](const int& count, const Add& add) {
            if (add.name == "flaky" && failures > 0) {
                --failures;
                throw Trouble("not yet");
            }
            return Added{add.name, count + 1};
        });
        event([](int& count, const Added&) { ++count; });
    }
};
}  // namespace

TEST_CASE("J6: a command that failed is carried out later though another stream went on meanwhile") {
    Clock clock;
    int failures = 1;
    App app({.clock = clock});
    app.add<Flaky>(failures);
    app.dispatch("s1", Add{"flaky"});
    app.dispatch("s2", Add{"other"});
    CHECK(app.run_until_idle() == 1);
    CHECK(app.history("s1").size() == 1);
    clock.advance(1s);
    CHECK(app.run_until_idle() == 1);
    CHECK(types(app.history("s1")) == std::vector<std::string>{"list.add", "list.added"});
}

// ==== Failures =========================================================================

TEST_CASE("K10: after a success the retries are counted anew") {
    Clock clock;
    int failures = 0;
    App app({.errors = sourced::Retries{.times = 1, .after = 1s}, .clock = clock});
    app.add<Flaky>(failures);
    for (int round = 0; round < 3; ++round) {
        failures = 1;
        app.dispatch("s1", Add{"flaky"});
        CHECK(app.run_until_idle() == 0);
        clock.advance(1s);
        CHECK(app.run_until_idle() == 1);
    }
    CHECK(app.stats().group("flaky").active);
}

TEST_CASE("K12: a failing stream does not hold up the others of its group") {
    Clock clock;
    int failures = 1;
    App app({.clock = clock});
    app.add<Flaky>(failures);
    app.dispatch("s1", Add{"flaky"});
    for (int i = 0; i < 10; ++i) app.dispatch("s" + std::to_string(i + 2), Add{"fine"});
    CHECK(app.run_until_idle() == 10);
    CHECK(app.stats().group("flaky").retrying == 1);
    CHECK(app.stats().group("flaky").retry_error == "not yet");
}

TEST_CASE("Failure: when its retries are used up the group stops and keeps the error") {
    Clock clock;
    int failures = 100;
    std::vector<std::string> lines;
    App app({.clock = clock, .log = [&](const sourced::LogRecord& line) {
                 if (line.level >= sourced::Level::warning) lines.push_back(line.text);
             }});
    app.add<Flaky>(failures);
    app.dispatch("s1", Add{"flaky"});
    for (int i = 0; i < 10; ++i) {
        app.run_until_idle();
        clock.advance(1s);
    }
    CHECK(failures == 96);  // once and three retries
    const auto group = app.stats().group("flaky");
    CHECK_FALSE(group.active);
    CHECK(group.error_text == "not yet");
    CHECK(group.error_type.find("Trouble") != std::string::npos);
    CHECK(group.error_position == 1);
    CHECK(lines.size() == 4);
    failures = 0;
    app.start_group("flaky");
    CHECK(app.run_until_idle() == 1);
}

TEST_CASE("Failure: the waits before retries double up to the greatest") {
    Clock clock;
    int failures = 100;
    App app({.errors = sourced::Retries{.times = 5, .after = 1s, .at_most = 3s}, .clock = clock});
    app.add<Flaky>(failures);
    app.dispatch("s1", Add{"flaky"});
    std::vector<std::int64_t> waits;
    for (int i = 0; i < 5; ++i) {
        app.run_until_idle();
        const auto next = app.stats().group("flaky").next_retry;
        REQUIRE(next);
        waits.push_back(std::chrono::duration_cast<std::chrono::milliseconds>(*next - clock.now()).count());
        clock.set(*next);
    }
    CHECK(waits == std::vector<std::int64_t>{1000, 2000, 3000, 3000, 3000});
}

TEST_CASE("Failure: what comes before the culprit in a batch is kept, the rest comes again") {
    Clock clock;
    Diary diary;
    App app({.clock = clock});
    app.add<Watcher>(diary);
    for (const char* name : {"a", "b", "bad", "d"}) app.store().append("s1", {Added{name, 0}});
    diary.fails_for = "bad";
    CHECK(app.run_until_idle() == 2);
    CHECK(diary.batches == std::vector<std::size_t>{2});
    CHECK(app.stats().group("watcher").newest == 2);
    diary.fails_for.clear();
    clock.advance(1s);
    CHECK(app.run_until_idle() == 2);
    CHECK(diary.seen.back() == Seen{"s1", 4, false});
}

TEST_CASE("Failure: a message that takes its process down again and again stops the group, counted apart") {
    const support::TemporaryDirectory directory;
    App app({.path = directory.file(), .deaths = 2});
    app.add<List>();
    app.dispatch("s1", Add{"deadly"});
    const auto group = app.stats().group("list").id;
    for (int i = 0; i < 3; ++i) {
        const auto dying = sourced::open_store({.path = directory.file()});
        (void)dying->register_group({"list", List().definition().handled()});
        REQUIRE(dying->claim_stream(group, "s1"));
        CHECK(app.store().beat(0us) == 1);  // it was silent for no time at all: long enough
    }
    CHECK(app.run_until_idle() == 0);
    const auto stopped = app.stats().group("list");
    CHECK_FALSE(stopped.active);
    CHECK(stopped.error_text.find("died 3 times") != std::string::npos);
    CHECK(stopped.error_position == 1);
    app.start_group("list");
    CHECK(app.run_until_idle() == 1);
}

TEST_CASE("Failure: a payload that cannot be read is a failure of its message") {
    Clock clock;
    App app({.clock = clock});
    app.add<List>();
    Message bad = Added{"a", 1};
    bad.payload = R"({"name":["no"]})";
    app.store().append("s1", {bad});
    app.dispatch("s1", Add{"b"});
    app.dispatch("s2", Add{"b"});
    CHECK(app.run_until_idle() == 1);
    CHECK(app.stats().group("list").retrying == 1);
    CHECK(app.stats().group("list").retry_error.find("name") != std::string::npos);
}

// ==== Projectors in the transaction ====================================================

namespace {
struct Count {
    std::int64_t sum = 0;
};
constexpr const char* create_totals = "create table if not exists totals(id text primary key, sum integer)";

struct Totals : sourced::Projector<Count> {
    explicit Totals(int& failures) : Projector("totals") {
        on_install([](Transaction& db) { db.execute(create_totals); });
        on_reset([](Transaction& db) { db.execute("delete from totals"); });
        state([](std::string_view id, sourced::Reader& db) {
            const auto row = db.row("select sum from totals where id = ?", id);
            return Count{row ? row->integer(0) : 0};
        });
        event([](Count& count, const Added& added) { count.sum += added.number; });
        sync([&failures](const Count& count, std::string_view id, Transaction& db) {
            db.execute("insert or replace into totals values(?, ?)", id, count.sum);
            if (failures > 0) {
                --failures;
                throw Trouble("after writing");
            }
        });
    }
};
std::int64_t total(App& app, std::string_view id) {
    std::int64_t sum = -1;
    app.store().read([&](sourced::Reader& db) {
        if (const auto row = db.row("select sum from totals where id = ?", id)) sum = row->integer(0);
    });
    return sum;
}
}  // namespace

TEST_CASE("E12: a sync that fails leaves row and offset as they were, and the failure is recorded") {
    Clock clock;
    int failures = 0;
    App app({.clock = clock});
    app.add<Totals>(failures);
    app.store().append("s1", {Added{"a", 10}});
    app.run_until_idle();
    CHECK(total(app, "s1") == 10);
    failures = 1;
    app.store().append("s1", {Added{"a", 5}});
    app.store().append("s2", {Added{"a", 7}});
    CHECK(app.run_until_idle() == 1);  // the other stream
    CHECK(total(app, "s1") == 10);
    CHECK(app.stats().group("totals").retry_error == "after writing");
    clock.advance(1s);
    CHECK(app.run_until_idle() == 1);
    CHECK(total(app, "s1") == 15);
    CHECK(total(app, "s2") == 7);
}

TEST_CASE("E12: in a batch the message whose sync fails is found, what comes before it is kept") {
    Clock clock;
    Diary diary;
    App app({.clock = clock});
    struct Picky : sourced::Projector<Count> {
        explicit Picky(int& bad) : Projector("picky") {
            on_install([](Transaction& db) { db.execute(create_totals); });
            state([](std::string_view id, sourced::Reader& db) {
                const auto row = db.row("select sum from totals where id = ?", id);
                return Count{row ? row->integer(0) : 0};
            });
            event([](Count& count, const Added& added) { count.sum += added.number; });
            sync([&bad](const Count& count, std::string_view id, const Batch& batch, Transaction& db) {
                for (const auto& event : batch) {
                    if (event->as<Added>().number == bad) throw Trouble("bad number");
                }
                db.execute("insert or replace into totals values(?, ?)", id, count.sum);
            });
        }
    };
    int bad = 4;
    app.add<Picky>(bad);
    app.store().append("s1", {Added{"", 1}, Added{"", 2}, Added{"", 3}, Added{"", 4}, Added{"", 5}});
    CHECK(app.run_until_idle() == 3);
    CHECK(total(app, "s1") == 6);
    CHECK(app.stats().group("picky").newest == 3);
    bad = 0;
    clock.advance(1s);
    CHECK(app.run_until_idle() == 2);
    CHECK(total(app, "s1") == 15);
}

TEST_CASE("Projector: a reset empties its table in the same transaction and builds it anew") {
    int failures = 0;
    App app;
    app.add<Totals>(failures);
    app.store().append("s1", {Added{"a", 10}, Added{"b", 1}});
    app.run_until_idle();
    app.reset_group("totals");
    CHECK(total(app, "s1") == -1);
    app.run_until_idle();
    CHECK(total(app, "s1") == 11);
}

namespace {
struct ByName : sourced::Projector<Count> {
    explicit ByName(std::vector<std::size_t>& batches) : Projector("by_name") {
        on_install([](Transaction& db) { db.execute(create_totals); });
        key([](const Added& added) { return added.name; });
        state([](std::string_view id, sourced::Reader& db) {
            const auto row = db.row("select sum from totals where id = ?", id);
            return Count{row ? row->integer(0) : 0};
        });
        event([](Count& count, const Added& added) { count.sum += added.number; });
        sync([&batches](const Count& count, std::string_view id, const Batch& batch, Transaction& db) {
            batches.push_back(batch.size());
            db.execute("insert or replace into totals values(?, ?)", id, count.sum);
        });
    }
};
}  // namespace

TEST_CASE("Projector: keyed by a value of the event it loads and stores once for each key of a batch") {
    std::vector<std::size_t> batches;
    App app;
    app.add<ByName>(batches);
    app.store().append("s1", {Added{"tea", 1}, Added{"milk", 2}, Added{"tea", 4}});
    app.store().append("s2", {Added{"tea", 8}});
    CHECK(app.run_until_idle() == 4);
    CHECK(total(app, "tea") == 13);
    CHECK(total(app, "milk") == 2);
    CHECK(batches == std::vector<std::size_t>{2, 1, 1});
}

namespace {
struct History : sourced::EventSourcedProjector<std::vector<std::string>> {
    using States = std::map<std::string, std::vector<std::string>>;
    explicit History(States& states) : EventSourcedProjector("history") {
        event([](std::vector<std::string>& names, const Added& added) { names.push_back(added.name); });
        sync([&states](const std::vector<std::string>& names, std::string_view id) {
            states[std::string(id)] = names;
        });
        options({.batch_size = 2});
    }
};
}  // namespace

TEST_CASE("Projector: an event-sourced one syncs the fold of the stream up to the end of each batch") {
    History::States states;
    App app;
    app.add<History>(states);
    app.store().append("s1", {Added{"a", 1}, Added{"b", 2}, Added{"c", 3}});
    CHECK(app.load<History>("s1").state.size() == 3);
    CHECK(app.run_until_idle() == 3);
    CHECK(states["s1"] == std::vector<std::string>{"a", "b", "c"});
    CHECK(app.load<History>("s1", 1).state == std::vector<std::string>{"a"});

    SUBCASE("and passes a stream again after a reset") {
        app.reset_group("history");
        states.clear();
        CHECK(app.run_until_idle() == 3);
        CHECK(states["s1"].size() == 3);
    }
    SUBCASE("and goes on with what was added") {
        app.store().append("s1", {Added{"d", 4}});
        CHECK(app.run_until_idle() == 1);
        CHECK(states["s1"].size() == 4);
    }
}

TEST_CASE("G6: what a host transaction appended is gone when it throws") {
    App app;
    app.add<List>();
    CHECK_THROWS_AS(app.store().transaction([](Transaction& transaction) {
        transaction.append("s1", {Add{"a"}});
        throw Trouble("no");
    }),
                    Trouble);
    CHECK(app.history("s1").empty());
    app.store().transaction([](Transaction& transaction) { transaction.append("s1", {Add{"a"}}); });
    CHECK(app.run_until_idle() == 1);
}

TEST_CASE("App: the same seed and the same calls give the same ids") {
    const auto ids = [] {
        Clock clock;
        App app({.clock = clock, .seed = 7});
        app.add<List>();
        app.dispatch("s1", AddTwice{"a"});
        app.run_until_idle();
        std::vector<std::string> all;
        for (const auto& message : app.history("s1", {.from = 2})) all.push_back(message.id.to_string());
        return all;
    };
    const auto first = ids();
    CHECK(first.size() == 2);
    CHECK(first == ids());
}

TEST_CASE("App: a payload beyond the limits is refused and nothing is stored") {
    sourced::Options options;
    options.limits.bytes = 40;
    App app(options);
    app.add<List>();
    CHECK_THROWS_AS((void)app.dispatch("list-1", Add{std::string(100, 'x')}), sourced::Invalid);
    CHECK(app.history("list-1").empty());
    CHECK(app.store().head() == 0);
    (void)app.dispatch("list-1", Add{"short"});
    CHECK(app.store().head() == 1);
}

TEST_CASE("App: start takes the workers of the options") {
    sourced::Options options;
    options.workers = 3;
    std::vector<std::string> lines;
    options.log = [&](const sourced::LogRecord& record) {
        for (const auto& [name, value] : record.fields) lines.push_back(name + "=" + value);
    };
    App app(options);
    app.add<List>();
    app.start();
    app.stop();
    CHECK(std::count(lines.begin(), lines.end(), "workers=3") == 1);
}

TEST_CASE("run_until_idle: a handler that calls it is told so, instead of waiting for itself") {
    struct Calling : List {
        explicit Calling(App& app) : List("calling") {
            reaction([&app](const Added&) {
                app.run_until_idle();
                return sourced::dispatch(Ignore{});
            });
        }
    };
    App app({.errors = sourced::Retries{.times = 0}});
    app.add<Calling>(app);
    app.dispatch("list-1", Add{"milk"});
    app.run_until_idle();
    CHECK(app.stats().group("calling").error_text ==
          "run_until_idle: called from a handler; it is what calls the handler");
}

// ---- an App in memory that is put on a file ----------------------------------------

/// Cannot be installed while `broken`.
struct Picky : sourced::EventSourcedProjector<int> {
    explicit Picky(const bool& broken) : EventSourcedProjector("picky") {
        on_install([&broken](Transaction& db) {
            if (broken) throw Trouble("no room");
            db.execute("create table if not exists picky (id text primary key)");
        });
        event([](int& count, const Noted&) { ++count; });
        sync([](int) {});
    }
};

TEST_CASE("Moving: an App in memory works on with the same reactors on a file, and with new options") {
    const support::TemporaryDirectory directory;
    Clock clock;
    App app({.seed = 7});
    auto& counting = app.add<Counting>();
    auto& notes = app.add<Notes>();
    app.every("tidy", 24h, "list-1", Message(Ignore{}));
    sourced::Options options = sourced::detail::Access::options(app);
    options.path = directory.file();
    options.clock = clock;
    sourced::detail::Access::move_to(app, options);
    CHECK(sourced::detail::Access::options(app).path == directory.file());
    CHECK(sourced::detail::Access::options(app).seed == 7);
    CHECK(app.recurring().at(0).name == "tidy");
    CHECK(counting.definition().clock() == clock.now());

    app.dispatch("list-1", Add{"milk"});
    app.run_until_idle();
    CHECK(app.load<Counting>("list-1").state.names == std::vector<std::string>{"milk"});
    CHECK(app.history("notes").at(0).recorded_at == clock.now());
    CHECK(notes.name() == "notes");
    CHECK(App({.path = directory.file()}).stats().group("counting").types.size() == 5);
}

TEST_CASE("Moving: only some of the reactors take part, the others are left out of the file, their types known") {
    const support::TemporaryDirectory directory;
    App app;
    auto& list = app.add<List>();
    app.add<Notes>();
    sourced::detail::Access::move_to(app, {.path = directory.file()}, {"notes"});
    CHECK(app.stats().groups.size() == 1);
    CHECK(app.registry().find("list.add"));
    CHECK(list.name() == "list");
    app.dispatch("list-1", Add{"milk"});
    app.dispatch("notes", Note{3});
    CHECK(app.run_until_idle() == 1);
    CHECK(support::error_of<sourced::NotRegistered>([&] { (void)app.load<List>("list-1"); }) != "");
}

TEST_CASE("Moving: what cannot be moved is refused with a sentence, and the App is as before") {
    const support::TemporaryDirectory directory;
    const auto tried = [&](App& app, const std::string& path, const std::vector<std::string>& only = {}) {
        return support::error_of([&] { sourced::detail::Access::move_to(app, {.path = path}, only); });
    };
    const std::string what = "move the App to '" + directory.file() + "': ";
    bool broken = false;
    Clock clock;
    App app({.clock = clock});
    auto& list = app.add<List>();
    app.add<Picky>(broken);
    broken = true;
    CHECK(tried(app, directory.file()) == "no room");
    CHECK(tried(app, "") == "move the App to a file: the options name none");
    CHECK(tried(app, directory.file(), {"lists"}) == "no reactor 'lists' was added to this App");
    CHECK(tried(app, directory.path() + "/none/store.db").find("store.db") != std::string::npos);
    CHECK(list.definition().clock() == clock.now());
    app.start(1);
    CHECK(tried(app, directory.file()) == what + "workers are running; stop() first");
    app.stop();
    app.dispatch("list-1", Add{"milk"});
    CHECK(app.run_until_idle() == 1);
    CHECK(app.load<List>("list-1").state.names.size() == 1);
    broken = false;
    CHECK(tried(app, directory.file()) == what + "something was sent to it in memory, and would be lost");

    App later;
    later.add<List>();
    later.schedule("list-1", Add{"milk"}, 1h);
    CHECK(tried(later, directory.file()) == what + "something was sent to it in memory, and would be lost");
    App there({.path = directory.file()});
    CHECK(tried(there, directory.file("other.db")) ==
          "move the App to '" + directory.file("other.db") + "': it is on '" + directory.file() + "' already");

    struct Moving : sourced::Handler {
        Moving(App& app, std::string& said) : Handler("moving") {
            on([&](const Noted&) {
                said = support::error_of([&] { sourced::detail::Access::move_to(app, {.path = "elsewhere.db"}); });
            });
        }
    };
    App inside;
    std::string said;
    inside.add<Moving>(inside, said);
    inside.store().append("notes", {Noted{1}});
    inside.run_until_idle();
    CHECK(!std::filesystem::exists("elsewhere.db"));
    CHECK(said == "move the App to 'elsewhere.db': called from a handler or callback of it");
}

TEST_CASE("App: opened for reading only it shows what is there, and writes nothing") {
    const support::TemporaryDirectory directory;
    const auto bytes = [&] {
        std::ifstream file(directory.file(), std::ios::binary);
        return std::string(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    };
    {
        App app({.path = directory.file()});
        app.add<List>();
        app.handle<List>("list-1", Add{"a"});
        app.handle<List>("list-1", Add{"b"});
    }
    const std::string before = bytes();
    {
        Diary diary;
        App app({.path = directory.file(), .open = sourced::Open::read_only});
        app.add<List>();
        app.add<Counting>();  // two that the file has not met: their states are kept apart
        app.add<Watcher>(diary);
        app.add<Notes>();
        CHECK(app.load<List>("list-1").state.names == std::vector<std::string>{"a", "b"});
        CHECK(app.load<Counting>("list-1", 2).state.names == std::vector<std::string>{"a"});
        CHECK(app.load<Counting>("list-1").state.names.size() == 2);
        CHECK(app.load<Notes>("list-1").seq == 4);
        CHECK(app.draft<List>("list-1").decide(Add{"c"}).valid());
        CHECK(app.history("list-1").size() == 4);
        CHECK(app.stats().groups.size() == 1);
        CHECK_THROWS_AS(app.dispatch("list-1", Add{"c"}), sourced::StoreError);
        CHECK_THROWS_AS(app.handle<List>("list-1", Add{"c"}), sourced::StoreError);
        CHECK_THROWS_AS(app.run_until_idle(), sourced::StoreError);
    }
    CHECK(bytes() == before);
    App memory;
    memory.add<List>();
    memory.every("nightly", 24h, "list-1", Add{"n"});
    sourced::detail::Access::move_to(memory, {.path = directory.file(), .open = sourced::Open::read_only});
    CHECK(memory.load<List>("list-1").state.names.size() == 2);
    CHECK(memory.recurring().empty());
}
