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
using support::error_of;
using support::problems_of;
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

TEST_CASE("J3: a group is reset by its name or its reactor; an unknown one, or an unknown stream, is an error") {
    Diary diary;
    App app;
    const auto& totals = app.add<Totals>(diary);
    app.store().append("s1", {Added{1}});
    app.run_until_idle();
    app.reset_group(totals.name());
    CHECK(app.run_until_idle() == 1);
    app.reset_group<Totals>({.stream = "s1"});
    CHECK(app.run_until_idle() == 1);
    CHECK_THROWS_AS(app.reset_group<History>(), NotRegistered);
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

// ==== Read models that are built anew ==========================================

struct Late {
    int amount = 0;
    SOURCED_EVENT("till.late", amount)
};

/// Five kinds of read models; what they keep is multiplied by a factor, so that a rebuild shows.
struct OwnRows : Projector<std::int64_t> {
    explicit OwnRows(Diary& diary, int factor = 1) : Projector("own_rows") {
        on_install([](Transaction& db) {
            const std::string table = db.table("own_rows");
            db.execute("create table if not exists " + table + " (id text primary key, sum integer not null)");
            db.execute("create index if not exists own_rows_by_sum on " + table + " (sum)");
        });
        state([](std::string_view id, Reader& db) {
            const auto row = db.row("select sum from " + db.table("own_rows") + " where id = ?", id);
            return row ? row->integer(0) : 0;
        });
        event([&diary, factor](std::int64_t& sum, const Added& added, const Envelope& envelope) {
            if (diary.before) diary.before(static_cast<const Message&>(envelope));
            sum += added.amount * factor;
        });
        sync([&diary](const std::int64_t& sum, std::string_view id, const Batch& batch, Transaction& db) {
            diary.note(id, batch);
            db.execute("insert or replace into " + db.table("own_rows") + " values (?, ?)", id, sum);
        });
        on_reset([](Transaction& db) { db.execute("delete from " + db.table("own_rows")); });
    }
};
struct OwnKeys : Projector<std::int64_t> {
    explicit OwnKeys(int factor = 1) : Projector("own_keys") {
        on_install([](Transaction& db) {
            db.execute("create table if not exists " + db.table("own_keys") + " (id text primary key, sum integer)");
        });
        key([](const Added& added) { return added.amount % 2; });
        state([](std::string_view id, Reader& db) {
            const auto row = db.row("select sum from " + db.table("own_keys") + " where id = ?", id);
            return row ? row->integer(0) : 0;
        });
        event([factor](std::int64_t& sum, const Added& added) { sum += added.amount * factor; });
        sync([](const std::int64_t& sum, std::string_view id, Transaction& db) {
            db.execute("insert or replace into " + db.table("own_keys") + " values (?, ?)", id, sum);
        });
    }
};
struct Folded : EventSourcedProjector<std::vector<int>> {
    explicit Folded(int factor = 1) : EventSourcedProjector("folded") {
        on_install([](Transaction& db) {
            db.execute("create table if not exists " + db.table("folded") + " (id text primary key, sum integer)");
        });
        event([](std::vector<int>& all, const Added& added) { all.push_back(added.amount); });
        sync([factor](const std::vector<int>& all, std::string_view id, Transaction& db) {
            std::int64_t sum = 0;
            for (const int each : all) sum += each * factor;
            db.execute("insert or replace into " + db.table("folded") + " values (?, ?)", id, sum);
        });
    }
};
struct Ready : Projection<std::int64_t> {
    explicit Ready(int factor = 1) : Projection("ready") {
        event([factor](std::int64_t& sum, const Added& added) { sum += added.amount * factor; });
    }
};
struct ReadyKeys : Projection<std::int64_t> {
    explicit ReadyKeys(int factor = 1) : Projection("ready_keys") {
        key([](const Added& added) { return added.amount % 2; });
        event([factor](std::int64_t& sum, const Added& added) { sum += added.amount * factor; });
    }
};

/// An App with all of them.
struct Shop {
    Shop(Options options, int factor) : app(std::move(options)) {
        app.add<OwnRows>(diary, factor);
        app.add<OwnKeys>(factor);
        app.add<Folded>(factor);
        ready = &app.add<Ready>(factor);
        ready_keys = &app.add<ReadyKeys>(factor);
    }
    [[nodiscard]] std::vector<std::int64_t> sums() {
        return {sum_in(app, "own_rows", "s1"), sum_in(app, "own_keys", "1"), sum_in(app, "folded", "s1"),
                ready->get(app.store(), "s1").value_or(-1), ready_keys->get(app.store(), "1").value_or(-1)};
    }
    Diary diary{};
    App app;
    const Ready* ready = nullptr;
    const ReadyKeys* ready_keys = nullptr;
};
constexpr std::array groups{"own_rows", "own_keys", "folded", "ready", "ready_keys"};
using Numbers = std::vector<std::int64_t>;

std::vector<std::string> tables_like(App& app, const std::string& pattern) {
    std::vector<std::string> names;
    app.store().read([&](Reader& db) {
        for (const auto& row : db.query("select name from sqlite_master where name like ? order by name", pattern)) {
            names.push_back(row.text(0));
        }
    });
    return names;
}

TEST_CASE("Rebuild: every kind of read model is built anew by new code, and goes on from there") {
    const Directory directory;
    std::string path;
    SUBCASE("in a file") { path = directory.file(); }
    SUBCASE("in memory") {}
    auto shop = std::make_unique<Shop>(Options{.path = path, .batch_size = 2}, 1);
    for (const int amount : {1, 2, 3, 5}) {
        shop->app.store().append("s1", {Added{amount}});
        shop->app.store().append("s2", {Added{amount * 10}});
    }
    shop->app.run_until_idle();
    CHECK(shop->sums() == Numbers{11, 9, 11, 11, 9});
    int factor = 1;
    if (!path.empty()) {
        shop.reset();
        factor = 100;
        shop = std::make_unique<Shop>(Options{.path = path, .batch_size = 2}, factor);
    }
    for (const char* group : groups) {
        const Rebuilt rebuilt = shop->app.rebuild(group);
        CHECK(rebuilt.generation == 2);
        CHECK(rebuilt.messages == 8);
        CHECK(rebuilt.passes == 1);
    }
    CHECK(shop->sums() == Numbers{11 * factor, 9 * factor, 11 * factor, 11 * factor, 9 * factor});
    CHECK(shop->app.run_until_idle() == 0);
    CHECK(tables_like(shop->app, "%generation\\_%").empty());
    shop->app.store().append("s1", {Added{7}});
    CHECK(shop->app.run_until_idle() == 5);
    CHECK(shop->sums() == Numbers{18 * factor, 16 * factor, 18 * factor, 18 * factor, 16 * factor});
    CHECK(shop->app.rebuild("ready").generation == 3);
    CHECK(shop->app.stats().group("ready").generation == 3);
    CHECK(shop->app.stats().group("folded").generation == 2);
    CHECK(shop->sums() == Numbers{18 * factor, 16 * factor, 18 * factor, 18 * factor, 16 * factor});
    if (!path.empty()) CHECK(problems_of(path) == "");
}

TEST_CASE("Rebuild: the old one is read and kept up to date until the new one takes its place") {
    const Directory directory;
    {
        Shop before({.path = directory.file()}, 1);
        for (int i = 0; i < 40; ++i) before.app.store().append("s" + std::to_string(i % 4), {Added{1}});
        before.app.run_until_idle();
    }
    Shop shop({.path = directory.file(), .batch_size = 3, .claim_count = 1}, 10);
    std::vector<Progress> told;
    bool beside = false;
    shop.diary.take();
    const Rebuilt rebuilt = shop.app.rebuild("own_rows", {.progress = [&](const Progress& progress) {
        told.push_back(progress);
        CHECK(shop.app.stats().group("own_rows").generation == 1);
        if (told.size() == 1) {
            CHECK(sum_in(shop.app, "own_rows", "s1") == 10);
            shop.app.store().append("s1", {Added{1}});
            shop.app.store().append("new", {Added{1}});
            CHECK(shop.app.run_until_idle() == 10);  // five read models, the old one among them
        }
        CHECK(sum_in(shop.app, "own_rows", "s1") == 20);
        beside |= !tables_like(shop.app, "own_rows_generation_2").empty();
        shop.app.store().read([&](Reader& db) {  // people with a SQL shell see what is served
            const auto lag = db.row("select count(*) from sourced_lag where \"group\" = 'own_rows'");
            CHECK(lag->integer(0) == 5);
        });
        const auto seen = shop.app.stats().group("own_rows").rebuild;
        REQUIRE(seen);
        CHECK(seen->total == 42);
        CHECK(problems_of(directory.file()) == "");
    }});
    CHECK(beside);
    CHECK(rebuilt.messages == 42);
    CHECK(sum_in(shop.app, "own_rows", "s1") == 110);
    CHECK(sum_in(shop.app, "own_rows", "new") == 10);
    REQUIRE(told.size() > 10);
    CHECK(std::is_sorted(told.begin(), told.end(), [](const auto& a, const auto& b) { return a.done < b.done; }));
    CHECK(told.front().total == 40);
    CHECK(told.back().done == told.back().total);
    CHECK_FALSE(shop.app.stats().group("own_rows").rebuild);
    // What the new one handled was a replay, all of it.
    Seen live;
    for (const auto& seen : shop.diary.take()) {
        if (!seen.replay) live.push_back(seen);
    }
    CHECK(live == Seen{{"s1", 1, false}, {"new", 1, false}});
    CHECK(shop.app.run_until_idle() == 0);
    CHECK(problems_of(directory.file()) == "");
}

TEST_CASE("Rebuild: what the old one has not handled stays live for the workers, so no effect is lost or repeated") {
    Shop shop({}, 1);
    shop.app.store().append("s1", {Added{1}, Added{2}});
    shop.app.run_until_idle();
    shop.app.store().append("s1", {Added{3}});
    shop.app.store().append("s2", {Added{4}});
    shop.diary.take();
    CHECK(shop.app.rebuild<OwnRows>().messages == 2);
    CHECK(shop.diary.take() == Seen{{"s1", 1, true}, {"s1", 2, true}});
    shop.app.run_until_idle();
    CHECK(shop.diary.take() == Seen{{"s1", 3, false}, {"s2", 4, false}});
    shop.app.reset_group("own_rows");
    shop.app.run_until_idle();
    for (const auto& seen : shop.diary.take()) CHECK(seen.replay);
    CHECK(sum_in(shop.app, "own_rows", "s1") == 6);
    CHECK(sum_in(shop.app, "own_rows", "s2") == 4);
}

struct Reacting : Projection<std::int64_t> {
    Reacting() : Projection("reacting") {
        event([](std::int64_t& sum, const Added& added) { sum += added.amount; });
        reaction([](const std::int64_t& sum, const Added&) {
            return dispatch(Note{static_cast<int>(sum)}).to("notes");
        });
    }
};

TEST_CASE("Rebuild: a parked stream stays parked, with its rows, until it is tried again") {
    App app({.errors = Retries{.times = 0, .then = Resolution::park("odd")}});
    bool good = false;
    struct Picky : Projection<std::int64_t> {
        explicit Picky(const bool& good) : Projection("picky") {
            event([](std::int64_t& sum, const Added& added) { sum += added.amount; });
            reaction([&good](const Added& added) {
                if (added.amount == 2 && !good) throw std::runtime_error("two");
                return dispatch(Note{added.amount}).to("notes");
            });
        }
    };
    auto& picky = app.add<Picky>(good);
    app.store().append("s1", {Added{1}, Added{2}, Added{4}});
    app.store().append("s2", {Added{8}});
    app.run_until_idle();
    app.park_stream("picky", "s2", "by hand");
    CHECK(app.rebuild("picky").messages == 2);
    const auto troubled = app.store().offsets("picky");
    REQUIRE(troubled.size() == 2);
    CHECK(troubled[0].state == OffsetInfo::State::parked);
    CHECK(troubled[0].reason == "odd");
    CHECK(troubled[0].error_text == "two");
    CHECK(troubled[0].position == 2);
    CHECK(troubled[1].reason == "by hand");
    CHECK(picky.get(app.store(), "s1") == 1);
    CHECK(picky.get(app.store(), "s2") == 8);
    app.store().append("s2", {Added{16}});
    CHECK(app.run_until_idle() == 0);
    good = true;
    app.retry_stream("picky", "s1");
    app.retry_stream("picky", "s2");
    CHECK(app.run_until_idle() == 3);
    CHECK(picky.get(app.store(), "s1") == 7);
    CHECK(picky.get(app.store(), "s2") == 24);
    CHECK(app.history("notes").size() == 5);
}

TEST_CASE("J4: the reactions of a projector happen once, whether it is reset or built anew") {
    const Directory directory;
    App app({.path = directory.file(), .batch_size = 2});
    const auto& reacting = app.add<Reacting>();
    app.store().append("s1", {Added{1}, Added{2}, Added{3}});
    app.run_until_idle();
    CHECK(app.history("notes").size() == 3);
    app.reset_group("reacting");
    app.run_until_idle();
    app.store().append("s1", {Added{4}});
    app.store().append("s2", {Added{5}});
    app.rebuild("reacting");
    CHECK(app.history("notes").size() == 3);
    app.rebuild("reacting");
    app.run_until_idle();
    app.rebuild("reacting");
    app.run_until_idle();
    CHECK(app.history("notes").size() == 5);
    CHECK(app.history("notes").at(3).as<Note>().amount == 10);
    CHECK(reacting.get(app.store(), "s1") == 10);
    CHECK(reacting.get(app.store(), "s2") == 5);
    CHECK(problems_of(directory.file()) == "");
}

struct WithLate : Projection<std::int64_t> {
    explicit WithLate(bool late) : Projection("with_late") {
        event([](std::int64_t& sum, const Added& added) { sum += added.amount; });
        if (!late) return;
        event([](std::int64_t& sum, const Late& event) { sum += 100 * event.amount; });
        reaction([](const Late&) { return dispatch(Note{1}).to("notes"); });
    }
};

TEST_CASE("Rebuild: a type that was added later gets its history") {
    const Directory directory;
    {
        App app({.path = directory.file()});
        app.add<WithLate>(false);
        app.store().append("s1", {Added{1}, Late{1}, Added{1}, Late{1}});
        app.store().append("only-late", {Late{3}});
        app.run_until_idle();
    }
    App app({.path = directory.file()});
    const auto& with_late = app.add<WithLate>(true);
    app.store().append("s1", {Late{1}});
    app.run_until_idle();
    CHECK(with_late.get(app.store(), "s1") == 102);
    CHECK(with_late.get(app.store(), "only-late") == std::nullopt);
    app.rebuild("with_late");
    CHECK(with_late.get(app.store(), "s1") == 302);
    CHECK(with_late.get(app.store(), "only-late") == 300);
    CHECK(app.run_until_idle() == 0);
    CHECK(app.history("notes").size() == 1);  // for the one that came live
    app.reset_group("with_late");
    app.run_until_idle();
    CHECK(with_late.get(app.store(), "only-late") == 300);
    CHECK(app.history("notes").size() == 1);  // what it was told by the rebuild is a replay from then on
    CHECK(problems_of(directory.file()) == "");
}

struct FromNow : Projection<std::int64_t> {
    FromNow() : Projection("from_now") {
        options({.start_from = Start::now()});
        event([](std::int64_t& sum, const Added& added) { sum += added.amount; });
    }
};

TEST_CASE("Rebuild: it begins where the group began") {
    App app;
    app.store().append("s1", {Added{1}});
    const auto& from_now = app.add<FromNow>();
    app.store().append("s1", {Added{2}});
    app.run_until_idle();
    CHECK(from_now.get(app.store(), "s1") == 2);
    CHECK(app.rebuild("from_now").messages == 1);
    CHECK(from_now.get(app.store(), "s1") == 2);
}

TEST_CASE("Rebuild: a message that cannot be handled ends it, and the old one goes on") {
    const Directory directory;
    Shop shop({.path = directory.file(), .batch_size = 2}, 1);
    shop.app.store().append("s1", {Added{1}, Added{2}, Added{3}});
    shop.app.run_until_idle();
    shop.diary.before = [](const Message& message) {
        if (message.seq == 3) throw std::runtime_error("three is too many");
    };
    CHECK(error_of([&] { shop.app.rebuild("own_rows"); }) ==
          "rebuild 'own_rows': 's1' failed at position 3: three is too many");
    shop.diary.before = nullptr;
    CHECK(tables_like(shop.app, "own_rows_generation%").empty());
    CHECK(sum_in(shop.app, "own_rows", "s1") == 6);
    CHECK(shop.app.stats().group("own_rows").active);
    CHECK(error_of([&] {
              shop.app.rebuild("own_rows", {.progress = [](const Progress&) { throw Error("enough"); }});
          }) == "enough");
    CHECK(tables_like(shop.app, "own_rows_generation%").empty());
    shop.app.store().append("s1", {Added{4}});
    shop.app.run_until_idle();
    CHECK(sum_in(shop.app, "own_rows", "s1") == 10);
    CHECK(shop.app.rebuild("own_rows").messages == 4);
    CHECK(problems_of(directory.file()) == "");
}

TEST_CASE("Rebuild: what the old one has skipped is skipped again, unless new code can handle it") {
    const Directory directory;
    Shop shop({.path = directory.file(), .errors = Retries{.times = 0}}, 1);
    shop.diary.before = [](const Message& message) {
        if (message.as<Added>().amount < 0) throw std::runtime_error("less than nothing");
    };
    shop.app.store().append("s1", {Added{1}, Added{-1}, Added{2}, Added{-2}});
    for (int i = 0; i < 2; ++i) {
        shop.app.run_until_idle();
        shop.app.skip_message("own_rows", "s1");
        shop.app.start_group("own_rows");
    }
    CHECK(shop.app.store().skipped("own_rows").size() == 2);
    CHECK(sum_in(shop.app, "own_rows", "s1") == 3);
    CHECK(shop.app.rebuild("own_rows").generation == 2);
    CHECK(sum_in(shop.app, "own_rows", "s1") == 3);
    auto skipped = shop.app.store().skipped("own_rows");
    REQUIRE(skipped.size() == 2);
    CHECK(skipped[0].position == 2);
    CHECK(skipped[1].position == 4);
    CHECK(skipped[0].reason == "skipped before it was built anew");
    shop.diary.before = [](const Message& message) {
        if (message.as<Added>().amount == -2) throw std::runtime_error("much less than nothing");
    };
    shop.app.rebuild("own_rows");
    CHECK(sum_in(shop.app, "own_rows", "s1") == 2);
    skipped = shop.app.store().skipped("own_rows");
    REQUIRE(skipped.size() == 1);
    CHECK(skipped[0].position == 4);
    CHECK(problems_of(directory.file()) == "");
}

struct NoInstall : Projector<int> {
    NoInstall() : Projector("no_install") {
        event([](int&, const Added&) {});
        sync([](const int&, Transaction&) {});
    }
};
struct NoSync : EventSourcedProjector<int> {
    NoSync() : EventSourcedProjector("no_sync") {
        event([](int&, const Added&) {});
    }
};
struct PlainTable : Projector<int> {
    PlainTable(bool asks, bool creates) : Projector("plain") {
        on_install([asks, creates](Transaction& db) {
            db.execute("create table if not exists plain (id text primary key, sum integer)");
            if (!asks) return;
            const std::string table = db.table("plain");
            if (creates) db.execute("create table if not exists " + table + " (id text primary key, sum integer)");
        });
        event([](int& count, const Added&) { ++count; });
        sync([](const int& count, std::string_view id, Transaction& db) {
            db.execute("insert or replace into plain values (?, ?)", id, count);
        });
    }
};

TEST_CASE("Rebuild: what cannot be rebuilt is refused with a sentence that says what to do") {
    const std::string advice =
        "; create its tables in on_install, under the names that db.table(\"name\") gives, and ask for them wherever "
        "they are used";
    App app;
    app.add<NoInstall>();
    app.add<NoSync>();
    app.add<Till>();
    CHECK(error_of([&] { app.rebuild("no_install"); }) == "rebuild 'no_install': it has no on_install" + advice);
    CHECK(error_of([&] { app.rebuild("no_sync"); }) ==
          "rebuild 'no_sync': it has no sync, so nothing is kept of it" + advice);
    CHECK(error_of([&] { app.rebuild("till"); }) ==
          "rebuild 'till': only projectors keep a read model that can be built anew");
    CHECK_THROWS_WITH_AS(app.rebuild("nobody"), "rebuild 'nobody': no reactor of this name was added", NotRegistered);
    const auto plain = [&](bool asks, bool creates) {
        App one;
        one.add<PlainTable>(asks, creates);
        one.store().append("s1", {Added{1}});
        one.run_until_idle();
        one.store().transaction([](Transaction& db) { db.execute("update plain set sum = 7"); });
        const std::string error = error_of([&] { one.rebuild("plain"); });
        CHECK(sum_in(one, "plain", "s1") == 7);  // what is read is not touched
        CHECK(tables_like(one, "plain\\_generation%").empty());
        return error;
    };
    CHECK(plain(false, false) == "rebuild 'plain': its on_install asks for no table" + advice);
    CHECK(plain(true, false) ==
          "rebuild 'plain': its on_install asks for the table 'plain' and creates none of the name that it is given, "
          "'plain_generation_2'");
    CHECK(plain(true, true) ==
          "rebuild 'plain': 's1' failed at position 1: rebuild 'plain': its sync wrote and asked for no table" +
              advice);
}

/// Looks into another's read model while it is built itself.
struct Curious : Projector<std::int64_t> {
    explicit Curious(const Ready*& ready) : Projector("curious") {
        on_install([](Transaction& db) {
            db.execute("create table if not exists " + db.table("curious") + " (id text primary key, sum integer)");
        });
        event([](std::int64_t& sum, const Added& added) { sum += added.amount; });
        sync([&ready](const std::int64_t&, std::string_view id, Transaction& db) {
            db.execute("insert or replace into " + db.table("curious") + " values (?, ?)", id,
                       ready->get(db, id).value_or(-1));
        });
    }
};

TEST_CASE("Rebuild: the tables of others keep their names") {
    Shop shop({}, 1);
    shop.app.add<Curious>(shop.ready);
    shop.app.store().append("s1", {Added{5}});
    shop.app.run_until_idle();
    shop.app.rebuild("curious");
    CHECK(sum_in(shop.app, "curious", "s1") == 5);
}

TEST_CASE("Rebuild: indexes, views and triggers on the table are there afterwards") {
    const Directory directory;
    Shop shop({.path = directory.file()}, 1);
    shop.app.store().append("s1", {Added{5}});
    shop.app.run_until_idle();
    shop.app.store().transaction(
        [](Transaction& db) { db.execute("create view rich as select id from own_rows where sum > 4"); });
    for (int i = 0; i < 2; ++i) {
        shop.app.rebuild("own_rows");
        CHECK(tables_like(shop.app, "own_rows%") == std::vector<std::string>{"own_rows", "own_rows_by_sum"});
        shop.app.store().read([](Reader& db) { CHECK(db.row("select id from rich")->text(0) == "s1"); });
    }
    CHECK(problems_of(directory.file()) == "");
}

/// Two tables, the second refers to the first.
struct Ledger : EventSourcedProjector<int> {
    explicit Ledger(int factor) : EventSourcedProjector("ledger") {
        on_install([](Transaction& db) {
            const std::string accounts = db.table("accounts");
            db.execute("create table if not exists " + accounts + " (id text primary key)");
            db.execute("create table if not exists " + db.table("entries") +
                       " (seq integer, account text not null references " + accounts + "(id), sum integer)");
        });
        event([](int&, const Added&) {});
        sync([factor](const int&, std::string_view id, const Batch& batch, Transaction& db) {
            db.execute("insert or ignore into " + db.table("accounts") + " values (?)", id);
            for (const auto& each : batch) {
                db.execute("insert into " + db.table("entries") + " values (?, ?, ?)", each->seq, id,
                           each->as<Added>().amount * factor);
            }
        });
    }
};

TEST_CASE("Rebuild: tables that refer to each other do so afterwards; those of others may not refer to them") {
    const Directory directory;
    for (const int factor : {1, 10, 100}) {
        App app({.path = directory.file()});
        app.add<Ledger>(factor);
        if (factor == 1) {
            app.store().append("a", {Added{1}, Added{2}});
            app.run_until_idle();
        }
        app.rebuild("ledger");
        app.store().read([&](Reader& db) {
            CHECK(db.row("select sum(sum) from entries join accounts on id = account")->integer(0) == 3 * factor);
        });
        CHECK_THROWS_AS(app.store().transaction([](Transaction& db) {
            db.execute("insert into entries values (9, 'nobody', 1)");
        }), StoreError);
    }
    App app({.path = directory.file()});
    app.add<Ledger>(1);
    app.store().transaction([](Transaction& db) {
        db.execute("create table remarks (account text references accounts(id) on delete cascade)");
        db.execute("insert into remarks values ('a')");
    });
    CHECK(error_of([&] { app.rebuild("ledger"); }) ==
          "rebuild 'ledger': the table 'remarks' refers to 'accounts' by a foreign key, and its rows would go with the "
          "old ones");
    app.store().read([](Reader& db) { CHECK(db.query("select * from remarks").size() == 1); });
    CHECK(problems_of(directory.file()) == "");
}

TEST_CASE("Rebuild: two at once: within a process one is refused, between processes the later one goes on") {
    const Directory directory;
    Shop one({.path = directory.file()}, 1);
    Shop two({.path = directory.file()}, 1);
    for (int i = 0; i < 10; ++i) one.app.store().append("s1", {Added{1}});
    one.app.run_until_idle();
    bool tried = false;
    const std::string first = error_of([&] {
        one.app.rebuild("own_rows", {.progress = [&](const Progress&) {
            if (std::exchange(tried, true)) return;
            CHECK(error_of([&] { one.app.rebuild("own_rows"); }) == "rebuild 'own_rows': that is under way already");
            one.app.rebuild("ready");
            CHECK(two.app.rebuild("own_rows").generation == 3);
        }});
    });
    CHECK(first == "rebuild 'own_rows': another process has begun to rebuild it");
    CHECK(one.sums() == Numbers{10, 10, 10, 10, 10});
    CHECK(one.app.stats().group("own_rows").generation == 3);
    CHECK(tables_like(one.app, "%generation\\_%").empty());
    CHECK(one.app.rebuild("own_rows").generation == 4);
    CHECK(problems_of(directory.file()) == "");
}

TEST_CASE("Rebuild: when another program adds types to the group meanwhile, it has to be begun again") {
    const Directory directory;
    App old({.path = directory.file()});
    const auto& with_late = old.add<WithLate>(false);
    old.store().append("s1", {Added{1}});
    old.run_until_idle();
    const std::string error = error_of([&] {
        old.rebuild("with_late", {.progress = [&](const Progress&) {
            App fresh({.path = directory.file()});
            fresh.add<WithLate>(true);
        }});
    });
    CHECK(error == "rebuild 'with_late': its group handles more types than when it was begun: rebuild it again");
    CHECK(error_of([&] { old.rebuild("with_late"); }) ==
          "rebuild 'with_late': its group handles types that this program does not");
    CHECK(with_late.get(old.store(), "s1") == 1);
    CHECK(problems_of(directory.file()) == "");
}

TEST_CASE("child: rebuilder" * doctest::skip()) {
    Shop shop({.path = support::Child::arguments().at(0), .batch_size = 1, .claim_count = 1}, 10);
    shop.app.rebuild("own_rows", {.progress = [](const Progress& progress) {
        if (progress.done < 5) return;
        support::Child::report("in the middle");
        (void)support::Child::told();
    }});
}

TEST_CASE("Rebuild: a process that dies over it leaves the old one served, and the next begins anew") {
    const Directory directory;
    Shop shop({.path = directory.file(), .claim_time = 10s}, 1);
    for (int i = 0; i < 20; ++i) shop.app.store().append("s" + std::to_string(i % 3), {Added{1}});
    shop.app.run_until_idle();
    {
        support::Child child("rebuilder", {directory.file()});
        REQUIRE(child.line() == "in the middle");
        child.signal(SIGKILL);
        CHECK(child.wait() == 128 + SIGKILL);
    }
    CHECK(tables_like(shop.app, "own_rows_generation%") == std::vector<std::string>{"own_rows_generation_2"});
    CHECK(shop.app.stats().group("own_rows").rebuild);
    CHECK(problems_of(directory.file()) == "");
    shop.app.store().append("s1", {Added{1}});
    shop.app.run_until_idle();
    CHECK(sum_in(shop.app, "own_rows", "s1") == 8);
    CHECK(shop.app.rebuild("own_rows").generation == 3);
    CHECK(sum_in(shop.app, "own_rows", "s1") == 8);
    CHECK(tables_like(shop.app, "own_rows_generation%").empty());
    CHECK(problems_of(directory.file()) == "");
}

TEST_CASE("Verify: what is built beside belongs to a group that is served, and its tables are there") {
    const Directory directory;
    Shop shop({.path = directory.file()}, 1);
    shop.app.store().append("s1", {Added{1}});
    shop.app.run_until_idle();
    std::string found;
    const auto broken_by = [&](const std::string& sql) {
        found.clear();
        CHECK_THROWS(shop.app.rebuild("own_rows", {.progress = [&](const Progress&) {
            {
                SQLite::Database file(directory.file(), SQLite::OPEN_READWRITE, 5000);
                file.exec(sql);
            }
            found = problems_of(directory.file());
            throw Error("enough");
        }}));
        return found;
    };
    CHECK(broken_by("DROP TABLE own_rows_generation_2") ==
          "I4: generation 2 of group 'own_rows' has no table 'own_rows_generation_2'\n");
    CHECK(broken_by("UPDATE sourced_groups SET active = 0 WHERE name = 'own_rows'")
              .find("I4: group 'own_rows' has no generation that is served\n") != std::string::npos);
}

TEST_CASE("child: appender" * doctest::skip()) {
    App app({.path = support::Child::arguments().at(0), .busy_timeout = 1min});
    support::Child::report("ready");
    if (!support::Child::told()) return;
    for (int i = 0; i < 150; ++i) app.store().append("s" + std::to_string(i % 5), {Added{1}});
    support::Child::report("done");
}

TEST_CASE("Rebuild: while workers run, another process appends and readers read, nothing is ever missing or mixed") {
    const Directory directory;
    constexpr int factor = 1000;
    constexpr int many = 400;
    {
        Shop before({.path = directory.file()}, 1);
        before.app.add<Reacting>();
        for (int i = 0; i < many; ++i) before.app.store().append("s" + std::to_string(i % 5), {Added{1}});
        before.app.run_until_idle();
    }
    Shop shop({.path = directory.file(), .batch_size = 7, .claim_count = 2, .busy_timeout = 1min}, factor);
    shop.app.add<Reacting>();
    support::Child child("appender", {directory.file()});
    REQUIRE(child.line() == "ready");

    std::atomic<bool> over{false};
    std::atomic<int> wrong{0};
    std::atomic<int> looked{0};
    std::thread reader([&] {
        // The old rows are small, or mostly so once the workers write by the new factor; the new ones are all large.
        while (!over) {
            shop.app.store().read([&](Reader& db) {
                const auto row = db.row("select count(*), min(sum) from own_rows");
                const auto group = db.row(
                    "select generation from sourced_groups where name = 'own_rows' and active = 1");
                const bool fresh = group->integer(0) == 2;
                const std::int64_t least = row->integer(1);
                // A row of the old generation counts 80 messages by the old factor.
                if (row->integer(0) != 5 || least < 80 || fresh != (least % factor == 0)) ++wrong;
                ++looked;
            });
        }
    });
    shop.app.start(2);
    child.tell("go");
    const Rebuilt rebuilt = shop.app.rebuild("own_rows");
    CHECK(rebuilt.messages >= many);
    for (int i = 0; i < 3; ++i) shop.app.rebuild("reacting");
    CHECK(child.line() == "done");
    for (const char* group : groups) {
        if (group != groups[0]) shop.app.rebuild(group);
    }
    REQUIRE(shop.app.wait_until_idle(60s));
    over = true;
    reader.join();
    shop.app.stop();
    CHECK(wrong == 0);
    CHECK(looked > 0);
    std::int64_t sum = 0;
    for (int i = 0; i < 5; ++i) sum += sum_in(shop.app, "own_rows", "s" + std::to_string(i));
    CHECK(sum == (many + 150) * factor);
    CHECK(sum_in(shop.app, "folded", "s1") == sum / 5);
    CHECK(shop.ready->get(shop.app.store(), "s1") == sum / 5);
    CHECK(shop.ready_keys->get(shop.app.store(), "1") == sum);
    CHECK(sum_in(shop.app, "own_keys", "1") == sum);
    CHECK(shop.app.history("notes").size() == many + 150);  // no reaction was lost or repeated
    CHECK(problems_of(directory.file()) == "");
}

// ==== One group by itself ======================================================

using detail::Ran;
using detail::RunOptions;

Ran run_group(App& app, std::string_view group, const RunOptions& options = {}) {
    return detail::Access::run_group(app, group, options);
}

/// Positions 1 to 12: four in each of s0, s1, s2 in turn.
void fill_in_turn(App& app) {
    for (int i = 0; i < 12; ++i) app.store().append("s" + std::to_string(i % 3), {Added{i + 1}});
}

std::int64_t highest_of(const Seen& seen) {
    std::int64_t highest = 0;
    for (const auto& each : seen) highest = std::max<std::int64_t>(highest, each.amount);
    return highest;
}

TEST_CASE("Running one group: it handles what it has open up to a position, and nothing behind it or of others") {
    for (const bool in_file : {false, true}) {
        const Directory directory;
        Diary totals;
        Diary history;
        App app({.path = in_file ? directory.file() : std::string(), .batch_size = 3});
        app.add<Totals>(totals);
        app.add<History>(history);
        fill_in_turn(app);
        std::vector<std::int64_t> told;
        const auto ran = run_group(app, "totals", {.until = 7, .progress = [&](auto count) { told.push_back(count); }});
        CHECK(ran.result == Ran::Result::reached);
        CHECK(ran.messages == 7);
        CHECK(told.back() == 7);
        const Seen seen = totals.take();
        CHECK(seen.size() == 7);
        CHECK(highest_of(seen) == 7);
        CHECK(history.take().empty());
        CHECK(sum_in(app, "totals", "s0") == 1 + 4 + 7);
        CHECK(sum_in(app, "totals", "s1") == 2 + 5);
        CHECK(app.store().standing("totals", 7).reached);
        CHECK_FALSE(app.store().standing("totals", 8).reached);
        CHECK(app.stats().group("totals").lag == 5);

        CHECK(run_group(app, "totals", {.until = 7}).messages == 0);
        CHECK(run_group(app, "totals", {.until = 8}).messages == 1);
        CHECK(run_group(app, "totals").messages == 4);
        CHECK(sum_in(app, "totals", "s2") == 3 + 6 + 9 + 12);
        CHECK(app.run_until_idle() == 12);  // the other's
        CHECK(totals.take().size() == 5);
        if (in_file) CHECK(problems_of(directory.file()) == "");
    }
}

TEST_CASE("Running one group: what lies behind the position is left for the workers") {
    Diary diary;
    App app;
    app.add<Totals>(diary);
    app.add<Till>();
    fill_in_turn(app);
    run_group(app, "totals", {.until = 5});
    CHECK(run_group(app, "till", {.until = 5}).messages == 5);
    CHECK(app.history("notes").size() == 5);
    app.start(2);
    REQUIRE(app.wait_until_idle(60s));
    app.stop();
    CHECK(diary.take().size() == 12);
    CHECK(app.history("notes").size() == 12);
}

TEST_CASE("Running one group: part of a replay leaves the rest of it a replay, and decides nothing twice") {
    const Directory directory;
    Diary diary;
    App app({.path = directory.file(), .batch_size = 2});
    app.add<Till>();
    app.add<History>(diary);
    for (int i = 0; i < 12; ++i) app.dispatch("s" + std::to_string(i % 3), Add{1});
    app.run_until_idle();
    const std::int64_t notes = static_cast<std::int64_t>(app.history("notes").size());
    diary.take();
    app.reset_group("history", {.position = 16});
    app.reset_group("till");
    CHECK(run_group(app, "history", {.until = 20}).result == Ran::Result::reached);
    CHECK(run_group(app, "till", {.until = 15}).result == Ran::Result::reached);
    CHECK(run_group(app, "till").result == Ran::Result::reached);
    const Seen first = diary.take();
    CHECK(run_group(app, "history").result == Ran::Result::reached);
    for (const auto& seen : {first, diary.take()}) {
        CHECK(!seen.empty());
        CHECK(std::all_of(seen.begin(), seen.end(), [](const auto& each) { return each.replay; }));
    }
    CHECK(static_cast<std::int64_t>(app.history("notes").size()) == notes);
    CHECK(app.load<Till>("s0").state == 4);
    CHECK(sum_in(app, "history", "s0") == 4);
    CHECK(problems_of(directory.file()) == "");
}

TEST_CASE("Running one group: it ends when it is told to, with all claims given back") {
    const Directory directory;
    Diary diary;
    App app({.path = directory.file(), .batch_size = 1, .claim_count = 3});
    app.add<Totals>(diary);
    fill_in_turn(app);
    std::int64_t handled = 0;
    const auto ran = run_group(app, "totals", {.progress = [&](auto count) { handled = count; },
                                               .stopped = [&] { return handled >= 3; }});
    CHECK(ran.result == Ran::Result::interrupted);
    CHECK(ran.messages == static_cast<std::int64_t>(diary.take().size()));
    CHECK(ran.messages < 12);
    for (const auto& offset : app.store().offsets("totals", {.all = true})) CHECK(offset.owner == 0);
    CHECK(run_group(app, "totals").messages == 12 - ran.messages);
    CHECK(problems_of(directory.file()) == "");
}

TEST_CASE("Running one group: it is never faster than the rate, and asks all the while whether it is to stop") {
    Diary diary;
    App app;
    app.add<Totals>(diary);
    for (int i = 0; i < 30; ++i) app.store().append("s" + std::to_string(i % 3), {Added{i + 1}});
    std::int64_t most = 0;
    std::int64_t before = 0;
    const auto began = std::chrono::steady_clock::now();
    const auto ran = run_group(app, "totals", {.rate = 200, .progress = [&](auto count) {
                                                   most = std::max(most, count - std::exchange(before, count));
                                               }});
    const auto took = std::chrono::steady_clock::now() - began;
    CHECK(ran.messages == 30);
    CHECK(most <= 10);
    CHECK(took >= 100ms);  // what the last turn handled need not be waited for
    app.reset_group("totals");
    int asked = 0;
    const auto slow = run_group(app, "totals", {.rate = 0.001, .stopped = [&] { return ++asked > 5; }});
    CHECK(slow.result == Ran::Result::interrupted);
    CHECK(slow.messages == 1);
}

struct Weak : Handler {
    explicit Weak(ErrorStrategy errors) : Handler("weak") {
        options({.errors = std::move(errors)});
        on([](const Added& added) {
            if (added.amount == 4) throw std::runtime_error("not 4");
        });
    }
};

TEST_CASE("Running one group: where it cannot get to the position by itself it ends and says why") {
    const auto reason_with = [](const ErrorStrategy& errors) {
        App app;
        app.add<Weak>(errors);
        fill_in_turn(app);
        const auto ran = run_group(app, "weak");
        CHECK(ran.result == Ran::Result::stalled);
        return ran.reason;
    };
    CHECK(reason_with([](const Fault&) { return Resolution::stop(); }) == "it is stopped: not 4");
    CHECK(reason_with([](const Fault&) { return Resolution::park("for later"); }) == "'s0' is parked: for later");
    CHECK(reason_with([](const Fault& fault) { return Resolution::retry(fault.at + 1h); }) ==
          "'s0' waits for its retry: not 4");

    const Directory directory;
    App app({.path = directory.file()});
    app.add<Weak>(Retries{.times = 0});
    app.store().append("s0", {Added{1}});
    open_store({.path = directory.file()})->register_group({"weak", {"till.added", "till.counted"}, {}});
    CHECK(run_group(app, "weak").reason == "this program does not handle all of its types");

    CHECK(error_of<NotRegistered>([&] { run_group(app, "strong"); }) ==
          "run 'strong': no reactor of this name was added");
    app.start(1);
    CHECK(error_of([&] { run_group(app, "weak"); }) == "run 'weak': workers are running; stop() first");
}

TEST_CASE("Running one group: what another process holds is waited for") {
    const Directory directory;
    Diary diary;
    App app({.path = directory.file()});
    app.add<Totals>(diary);
    fill_in_turn(app);
    App other({.path = directory.file()});
    Diary elsewhere;
    other.add<Totals>(elsewhere);
    std::optional<Claim> claim = other.store().claim_stream(other.stats().group("totals").id, "s1");
    REQUIRE(claim);
    std::int64_t handled = 0;
    const auto ran = run_group(app, "totals", {.progress = [&](auto count) { handled = count; },
                                               .stopped = [&] {
                                                   if (handled == 8 && claim) other.store().revoke({*claim});
                                                   if (handled == 8) claim.reset();
                                                   return false;
                                               }});
    CHECK(ran.result == Ran::Result::reached);
    CHECK(ran.messages == 12);
    CHECK(diary.take().size() == 12);
}

}  // namespace replay_test
