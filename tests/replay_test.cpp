// Groups that pass messages again: resets whole and in part, and read models that are built anew.
#include <SQLiteCpp/SQLiteCpp.h>
#include <doctest/doctest.h>
#include <sourced.hpp>

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "support.hpp"

namespace replay_test {

using namespace sourced;
using namespace std::chrono_literals;
using Directory = support::TemporaryDirectory;

struct Add {
    int amount = 0;
    SOURCED_COMMAND("till.add", amount)
};
struct Added {
    int amount = 0;
    SOURCED_EVENT("till.added", amount)
};
struct Note {
    int amount = 0;
    SOURCED_COMMAND("notes.note", amount)
};

/// What handlers have seen, in order.
struct Diary {
    struct Seen {
        std::string stream;
        int amount = 0;
        bool replay = false;
        bool operator==(const Seen&) const = default;
    };
    std::vector<Seen> seen{};
    std::function<void(const Message&)> before{};  // called for each message that is about to be evolved
    std::mutex mutex{};

    void note(std::string_view stream, const Batch& batch) {
        const std::lock_guard lock(mutex);
        for (const auto& each : batch) {
            seen.push_back({std::string(stream), each->as<Added>().amount, each.replay});
        }
    }
    std::vector<Seen> take() {
        const std::lock_guard lock(mutex);
        return std::exchange(seen, {});
    }
};
using Seen = std::vector<Diary::Seen>;

std::ostream& operator<<(std::ostream& out, const Diary::Seen& seen) {
    return out << seen.stream << ':' << seen.amount << (seen.replay ? " again" : "");
}

/// Decides, and tells `notes` of each event.
struct Till : Actor<int> {
    Till() : Actor("till") {
        command([](int, const Add& add) { return Added{add.amount}; });
        event([](int& sum, const Added& added) { sum += added.amount; });
        reaction([](int sum, const Added&) { return dispatch(Note{sum}).to("notes"); });
    }
};

/// Keeps the fold of each stream in a table.
struct History : EventSourcedProjector<std::vector<int>> {
    explicit History(Diary& diary) : EventSourcedProjector("history") {
        on_install([](Transaction& db) {
            db.execute("create table if not exists history (id text primary key, sum integer not null)");
        });
        event([](std::vector<int>& all, const Added& added) { all.push_back(added.amount); });
        sync([&diary](const std::vector<int>& all, std::string_view id, const Batch& batch, Transaction& db) {
            diary.note(id, batch);
            std::int64_t sum = 0;
            for (const int each : all) sum += each;
            db.execute("insert or replace into history values (?, ?)", id, sum);
        });
    }
};

/// Loads and stores the sum of each stream, or of each key.
struct Totals : Projector<std::int64_t> {
    explicit Totals(Diary& diary, bool stream_reset = true) : Projector("totals") {
        on_install([](Transaction& db) {
            db.execute("create table if not exists totals (id text primary key, sum integer not null)");
        });
        state([](std::string_view id, Reader& db) {
            const auto row = db.row("select sum from totals where id = ?", id);
            return row ? row->integer(0) : 0;
        });
        event([](std::int64_t& sum, const Added& added) { sum += added.amount; });
        sync([&diary](const std::int64_t& sum, std::string_view id, const Batch& batch, Transaction& db) {
            diary.note(id, batch);
            db.execute("insert or replace into totals values (?, ?)", id, sum);
        });
        on_reset([](Transaction& db) { db.execute("delete from totals"); });
        if (!stream_reset) return;
        on_reset([](std::string_view id, Transaction& db) { db.execute("delete from totals where id = ?", id); });
    }
};

struct Sums : Projection<std::int64_t> {
    Sums() : Projection("sums") {
        event([](std::int64_t& sum, const Added& added) { sum += added.amount; });
    }
};

struct BySize : Projection<std::int64_t> {
    BySize() : Projection("by_size") {
        key([](const Added& added) -> std::string { return added.amount < 10 ? "small" : "large"; });
        event([](std::int64_t& count, const Added&) { ++count; });
    }
};

std::int64_t sum_in(App& app, const std::string& table, std::string_view id) {
    std::int64_t sum = -1;
    app.store().read([&](Reader& db) {
        if (const auto row = db.row("select sum from " + table + " where id = ?", id)) sum = row->integer(0);
    });
    return sum;
}

std::string problems_of(const std::string& path) {
    std::string text;
    for (const auto& violation : verify(path)) text += violation.invariant + ": " + violation.text + '\n';
    return text;
}

template <class F>
std::string error_of(const F& body) {
    try {
        body();
    } catch (const std::exception& error) {
        return error.what();
    }
    return {};
}

// ==== Replays through the runtime ==============================================

TEST_CASE("J1: what was handled before a reset comes again as a replay, from a file as from memory") {
    const Directory directory;
    for (const std::string& path : {std::string(), directory.file()}) {
        Diary diary;
        App app({.path = path});
        app.add<Totals>(diary);
        app.store().append("s1", {Added{1}});
        app.run_until_idle();
        CHECK(app.run_until_idle() == 0);
        app.reset_group("totals");
        CHECK(app.run_until_idle() == 1);
        CHECK(diary.take() == Seen{{"s1", 1, false}, {"s1", 1, true}});
        CHECK(sum_in(app, "totals", "s1") == 1);
    }
    CHECK(problems_of(directory.file()) == "");
}

TEST_CASE("J2: live and replayed messages are told apart in one batch") {
    Diary diary;
    App app;
    app.add<Totals>(diary);
    app.store().append("s1", {Added{1}, Added{2}});
    app.run_until_idle();
    app.reset_group("totals");
    app.store().append("s1", {Added{3}});
    diary.take();
    CHECK(app.run_until_idle() == 3);
    CHECK(diary.take() == Seen{{"s1", 1, true}, {"s1", 2, true}, {"s1", 3, false}});
    CHECK(sum_in(app, "totals", "s1") == 6);
}

TEST_CASE("J3: a group is reset by its name; an unknown one, or an unknown stream, is an error") {
    Diary diary;
    App app;
    const auto& totals = app.add<Totals>(diary);
    app.store().append("s1", {Added{1}});
    app.run_until_idle();
    app.reset_group(totals.name());
    CHECK(app.run_until_idle() == 1);
    CHECK_THROWS_AS(app.reset_group("nobody"), NotRegistered);
    CHECK(error_of([&] { app.reset_group("totals", {.stream = "s9"}); }) ==
          "reset in 's9': there is no such stream");
}

TEST_CASE("J4: an actor decides and reacts once, whatever is reset, a projector syncs again") {
    const Directory directory;
    Diary diary;
    App app({.path = directory.file()});
    app.add<Till>();
    app.add<History>(diary);
    for (const char* stream : {"t1", "t2"}) {
        app.dispatch(stream, Add{1});
        app.dispatch(stream, Add{2});
    }
    app.run_until_idle();
    const auto head = app.store().head();
    CHECK(app.history("notes").size() == 4);
    diary.take();
    SUBCASE("whole") { app.reset_group("till"); }
    SUBCASE("from a position") { app.reset_group("till", {.position = 3}); }
    SUBCASE("one stream") { app.reset_group("till", {.stream = "t1"}); }
    SUBCASE("again and again, in the middle of a replay") {
        app.reset_group("till");
        app.reset_group("till", {.position = 2});
        app.reset_group("till", {.stream = "t2"});
    }
    app.reset_group("history");
    CHECK(app.run_until_idle() > 0);
    CHECK(app.store().head() == head);
    for (const auto& seen : diary.take()) CHECK(seen.replay);
    app.dispatch("t1", Add{4});
    app.run_until_idle();
    CHECK(app.store().head() == head + 3);  // the command, its event, the note
    CHECK(app.history("notes").back().as<Note>().amount == 7);
    CHECK(problems_of(directory.file()) == "");
}

TEST_CASE("J5: a message that was never handled is none of a replay, whatever other streams have handled") {
    Diary diary;
    App app({.batch_size = 50});
    app.add<Till>();
    app.add<History>(diary);
    app.store().append("s1", {Added{1}});
    app.store().append("s2", {Added{2}});
    app.store().append("s1", {Added{3}});
    app.store().append("s2", {Added{4}});
    app.run_until_idle();
    CHECK(app.history("notes").size() == 4);
    auto seen = diary.take();
    CHECK(std::none_of(seen.begin(), seen.end(), [](const auto& each) { return each.replay; }));
    CHECK(seen.size() == 4);

    app.reset_group("history");
    app.reset_group("till");
    app.store().append("s3", {Added{5}});
    app.run_until_idle();
    seen = diary.take();
    REQUIRE(seen.size() == 5);
    for (const auto& each : seen) CHECK(each.replay == (each.stream != "s3"));
    CHECK(app.history("notes").size() == 5);
}

struct Fragile : Actor<int> {
    explicit Fragile(bool& fails) : Actor("fragile") {
        command([&fails](int, const Add& add) {
            if (add.amount == 1 && std::exchange(fails, false)) throw std::runtime_error("not yet");
            return Added{add.amount};
        });
    }
};

TEST_CASE("J6: a command that failed once is executed though another stream has come further meanwhile") {
    testing::Clock clock;
    bool fails = true;
    App app({.clock = clock});
    app.add<Fragile>(fails);
    app.dispatch("s1", Add{1});
    app.dispatch("s2", Add{2});
    app.run_until_idle();
    CHECK(app.history("s1").size() == 1);
    CHECK(app.history("s2").size() == 2);
    SUBCASE("by itself") {}
    SUBCASE("and though the group is reset before") { app.reset_group("fragile"); }
    clock.advance(1h);
    app.run_until_idle();
    REQUIRE(app.history("s1").size() == 2);
    CHECK(app.history("s1").back().as<Added>().amount == 1);
    CHECK(app.history("s2").size() == 2);
}

// ==== Resets in part ===========================================================

TEST_CASE("Reset: what folds its streams can begin anew at a position, at a time, or in one stream") {
    testing::Clock clock;
    Diary diary;
    App app({.clock = clock});
    app.add<History>(diary);
    app.store().append("s1", {Added{1}});
    app.store().append("s2", {Added{2}});
    clock.advance(1min);
    const Time noon = clock.now();
    app.store().append("s1", {Added{3}});
    clock.advance(1min);
    app.store().append("s2", {Added{4}});
    app.store().append("s3", {Added{5}});
    app.run_until_idle();
    diary.take();
    app.store().transaction([](Transaction& db) { db.execute("update history set sum = 0"); });
    SUBCASE("a position, the first that comes again") {
        app.reset_group("history", {.position = 4});
        CHECK(app.run_until_idle() == 2);
        CHECK(diary.take() == Seen{{"s2", 4, true}, {"s3", 5, true}});
        CHECK(sum_in(app, "history", "s2") == 6);  // the fold of the whole stream
        CHECK(sum_in(app, "history", "s1") == 0);
    }
    SUBCASE("a time, from the first message recorded at or after it") {
        app.reset_group("history", {.time = noon});
        CHECK(app.run_until_idle() == 3);
        CHECK(diary.take() == Seen{{"s1", 3, true}, {"s2", 4, true}, {"s3", 5, true}});
        app.reset_group("history", {.time = noon + 1us});
        CHECK(app.run_until_idle() == 2);
        app.reset_group("history", {.time = clock.now() + 1h});
        CHECK(app.run_until_idle() == 0);
    }
    SUBCASE("one stream") {
        app.reset_group("history", {.stream = "s1"});
        CHECK(app.run_until_idle() == 2);
        CHECK(diary.take() == Seen{{"s1", 1, true}, {"s1", 3, true}});
        CHECK(sum_in(app, "history", "s1") == 4);
        CHECK(sum_in(app, "history", "s2") == 0);
    }
    SUBCASE("one stream from a position") {
        app.reset_group("history", {.position = 3, .stream = "s1"});
        CHECK(app.run_until_idle() == 1);
        CHECK(diary.take() == Seen{{"s1", 3, true}});
    }
    SUBCASE("a position and a time are one too many") {
        CHECK(error_of([&] { app.reset_group("history", {.position = 3, .time = noon}); }) ==
              "reset: a position and a time are given, one is enough");
        CHECK(app.run_until_idle() == 0);
    }
}

TEST_CASE("Reset: one stream of a read model that stores its state is taken out and built anew") {
    Diary diary;
    App app;
    app.add<Totals>(diary);
    const auto& sums = app.add<Sums>();
    app.store().append("s1", {Added{1}, Added{2}});
    app.store().append("s2", {Added{4}});
    app.run_until_idle();
    diary.take();
    app.reset_group("totals", {.stream = "s1"});
    app.reset_group("sums", {.stream = "s1"});
    CHECK(sum_in(app, "totals", "s1") == -1);  // in the same transaction
    CHECK(sums.get(app.store(), "s1") == std::nullopt);
    CHECK(sum_in(app, "totals", "s2") == 4);
    CHECK(sums.get(app.store(), "s2") == 4);
    app.store().append("s1", {Added{8}});
    CHECK(app.run_until_idle() == 6);
    CHECK(sum_in(app, "totals", "s1") == 11);
    CHECK(sums.get(app.store(), "s1") == 11);
    CHECK(diary.take() == Seen{{"s1", 1, true}, {"s1", 2, true}, {"s1", 8, false}});
}

struct StreamsOnly : Projector<std::int64_t> {
    explicit StreamsOnly(std::vector<std::string>& taken_out) : Projector("streams_only") {
        event([](std::int64_t& sum, const Added& added) { sum += added.amount; });
        on_reset([&](std::string_view stream, Transaction&) { taken_out.emplace_back(stream); });
    }
};

TEST_CASE("Reset: where there is only an on_reset for one stream, a whole reset calls it for each") {
    std::vector<std::string> taken_out;
    App app;
    app.add<StreamsOnly>(taken_out);
    app.store().append("s1", {Added{1}});
    app.store().append("s2", {Added{1}});
    app.store().append("s3", {Note{1}});
    app.run_until_idle();
    app.reset_group("streams_only");
    std::sort(taken_out.begin(), taken_out.end());
    CHECK(taken_out == std::vector<std::string>{"s1", "s2"});
}

TEST_CASE("Reset: what would add twice is refused with a sentence, and nothing is reset") {
    Diary diary;
    App app;
    app.add<Totals>(diary, false);
    app.add<BySize>();
    app.store().append("s1", {Added{1}, Added{20}});
    app.run_until_idle();
    const std::string partly =
        " from a position or a time: a projector that stores its state would add twice; reset it whole, or for one "
        "whole stream";
    CHECK(error_of([&] { app.reset_group("totals", {.position = 2}); }) == "reset 'totals'" + partly);
    CHECK(error_of([&] { app.reset_group("by_size", {.time = Time()}); }) == "reset 'by_size'" + partly);
    CHECK(error_of([&] { app.reset_group("totals", {.stream = "s1"}); }) ==
          "reset 'totals' in 's1': it has no on_reset for one stream; give it a handler (std::string_view stream, "
          "Transaction&)");
    CHECK(error_of([&] { app.reset_group("by_size", {.stream = "s1"}); }) ==
          "reset 'by_size' in 's1': its rows are kept by key, and streams share them; reset it whole");
    CHECK(app.run_until_idle() == 0);
    app.reset_group("by_size");
    CHECK(app.run_until_idle() == 2);
}

TEST_CASE("Reset: how far a replay is can be seen, and why it was begun") {
    testing::Clock clock;
    Diary diary;
    App app({.batch_size = 1, .clock = clock});
    app.add<Till>();
    app.add<Totals>(diary);
    for (int i = 0; i < 20; ++i) app.store().append("s" + std::to_string(i % 4), {Added{1}});
    app.run_until_idle();
    auto info = app.stats().group("totals");
    CHECK_FALSE(info.replay);
    CHECK_FALSE(info.reset_at);
    clock.advance(1s);
    app.reset_group("totals", {.reason = "wrong tax"});
    info = app.stats().group("totals");
    REQUIRE(info.replay);
    CHECK(info.replay->done == 0);
    CHECK(info.replay->total == 20);
    CHECK(info.reset_at == clock.now());
    CHECK(info.reset_reason == "wrong tax");
    CHECK(info.lag == 20);
    CHECK_FALSE(app.stats().group("till").replay);
    // By hand, so that it can be looked at in between.
    std::vector<std::int64_t> done;
    while (const auto claim = app.store().claim_stream(info.id, "s0")) {
        Handled handled;
        handled.claim = *claim;
        handled.acked = claim->acked + 4 < 17 ? claim->acked + 4 : 17;
        app.store().exchange({.finished = {handled}});
        const auto replay = app.stats().group("totals").replay;
        done.push_back(replay ? replay->done : -1);
    }
    CHECK(done == std::vector<std::int64_t>{1, 2, 3, 4, 4});
    app.run_until_idle();
    info = app.stats().group("totals");
    CHECK_FALSE(info.replay);
    CHECK(info.reset_reason == "wrong tax");

    app.reset_group("till", {.position = 11, .stream = "s0"});
    info = app.stats().group("till");
    REQUIRE(info.replay);
    CHECK(info.replay->done == 0);
    CHECK(info.replay->total == 7);  // s0 ends at 17
    app.run_until_idle();
    CHECK_FALSE(app.stats().group("till").replay);
}

TEST_CASE("Reset: while workers are at it no message is lost, none is added twice, nothing is sent twice") {
    const Directory directory;
    Diary diary;
    App app({.path = directory.file(), .batch_size = 3});
    app.add<Till>();
    app.add<Totals>(diary);
    app.add<History>(diary);
    app.start(3);
    constexpr int streams = 5;
    constexpr int each = 40;
    for (int i = 0; i < each; ++i) {
        for (int stream = 0; stream < streams; ++stream) app.dispatch("s" + std::to_string(stream), Add{1});
        if (i % 4 == 1) app.reset_group("totals");
        if (i % 4 == 2) app.reset_group("history", {.position = i + 1});
        if (i % 4 == 3) app.reset_group("till", {.stream = "s" + std::to_string(i % streams)});
        if (i % 8 == 4) app.reset_group("totals", {.stream = "s1"});
    }
    REQUIRE(app.wait_until_idle(60s));
    app.stop();
    for (int stream = 0; stream < streams; ++stream) {
        const std::string name = "s" + std::to_string(stream);
        CHECK(app.history(name).size() == 2 * each);
        CHECK(sum_in(app, "totals", name) == each);
        CHECK(sum_in(app, "history", name) == each);
    }
    CHECK(app.history("notes").size() == streams * each);
    CHECK(problems_of(directory.file()) == "");
}

}  // namespace replay_test
