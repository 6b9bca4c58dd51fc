// Read models: state-stored, event-sourced, keyed, and kept as rows without SQL.
#include <doctest/doctest.h>

#include <sourced.hpp>

#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "support.hpp"

using sourced::App;
using support::error_of;
using sourced::Batch;
using sourced::Envelope;
using sourced::Message;
using sourced::Messages;
using sourced::Reader;
using sourced::Transaction;
using sourced::testing::given;

namespace {

struct Added {
    int amount = 0;
    std::string country = "GB";
    SOURCED_EVENT("till.added", amount, country)
};
struct Taken {
    int amount = 0;
    std::string country = "GB";
    SOURCED_EVENT("till.taken", amount, country)
};
struct Closed {
    SOURCED_EVENT("till.closed")
};

struct Total {
    std::int64_t sum = 0;
    std::string last{};
    std::int64_t seq = 0;

    SOURCED_VALUE(sum, last, seq)
    bool operator==(const Total&) const = default;
};

void count(Total& total, const Added& added) {
    total.sum += added.amount;
    total.last = "added";
}
void count(Total& total, const Taken& taken) {
    total.sum -= taken.amount;
    total.last = "taken";
}

/// Counts what is asked of it; kept in memory, which is enough where nothing fails.
struct Till : sourced::Projector<Total> {
    using Rows = std::map<std::string, Total, std::less<>>;

    explicit Till(Rows& rows) : Projector("till") {
        state([this, &rows](std::string_view id) {
            ++loads;
            const auto row = rows.find(id);
            return row == rows.end() ? Total{} : row->second;
        });
        before_evolve([](Total& total, const Envelope& envelope) { total.seq = envelope.seq; });
        event<Added, Taken>([](Total& total, const auto& event) { count(total, event); });
        sync([this, &rows](const Total& total, std::string_view id, const Batch& batch) {
            batches.push_back(batch.size());
            rows[std::string(id)] = total;
        });
    }
    mutable int loads = 0;
    mutable std::vector<std::size_t> batches;
};

/// The same in a table of its own.
struct TillTable : sourced::Projector<Total> {
    explicit TillTable(int highest = 1000) : Projector("till_table") {
        on_install([](Transaction& db) {
            db.execute("create table if not exists till (id text primary key, sum integer not null) strict");
        });
        on_reset([](Transaction& db) { db.execute("delete from till"); });
        state([](std::string_view id, Reader& db) {
            const auto row = db.row("select sum from till where id = ?", id);
            return Total{.sum = row ? row->integer(0) : 0};
        });
        event([](Total& total, const Added& added) { count(total, added); });
        event([](Total& total, const Taken& taken) { count(total, taken); });
        sync([highest](const Total& total, std::string_view id, Transaction& db) {
            db.execute("insert into till values (?, ?) on conflict (id) do update set sum = excluded.sum", id,
                       total.sum);
            if (total.sum > highest) throw std::range_error("too much in the till");
        });
    }
};

struct History : sourced::EventSourcedProjector<Total> {
    explicit History(std::vector<Total>& seen) : EventSourcedProjector("history") {
        before_evolve([](Total& total, const Envelope& envelope) { total.seq = envelope.seq; });
        event<Added, Taken>([](Total& total, const auto& event) { count(total, event); });
        sync([&seen](const Total& total) { seen.push_back(total); });
    }
};

struct Revenue : sourced::Projection<Total> {
    explicit Revenue(std::string_view name = "revenue") : Projection(name) {
        key<Added, Taken>([](const auto& event) { return event.country; });
        event<Added, Taken>([](Total& total, const auto& event) { count(total, event); });
    }
};

struct PerStream : sourced::Projection<Total> {
    PerStream() : Projection("per stream") {
        state([](std::string_view id) { return Total{.sum = 0, .last = "new " + std::string(id)}; });
        event([](Total& total, const Added& added) { total.sum += added.amount; });
    }
};

std::int64_t table_sum(App& app, std::string_view id) {
    std::int64_t sum = -1;
    app.store().read([&](Reader& db) {
        if (const auto row = db.row("select sum from till where id = ?", id)) sum = row->integer(0);
    });
    return sum;
}

/// A projector whose constructor is given by the test.
struct Free : sourced::Projector<Total> {
    template <class F>
    explicit Free(F declare) : Projector("free") {
        declare(*this);
    }
    using Projector::event;
    using Projector::key;
    using Projector::on_install;
    using Projector::on_reset;
    using Projector::state;
    using Projector::sync;
};

}  // namespace

// ---- State-stored ---------------------------------------------------------------------

TEST_CASE("E1: with nothing stored a state begins blank and is stored after the batch") {
    Till::Rows rows;
    App app;
    app.add<Till>(rows);
    app.dispatch("till-1", Added{10});
    app.run_until_idle();
    CHECK(rows["till-1"].sum == 10);
}

TEST_CASE("E2: what is stored is loaded and added to") {
    Till::Rows rows{{"till-1", Total{.sum = 10}}};
    App app;
    app.add<Till>(rows);
    app.dispatch("till-1", Added{10});
    app.run_until_idle();
    CHECK(rows["till-1"].sum == 20);
}

TEST_CASE("E4: the last evolved event is the one whose seq before_evolve sees last") {
    Till::Rows rows;
    CHECK(given(Till(rows), Added{1}, Added{2}).state().seq == 2);
    CHECK(given(Till(rows), Added{1}, Added{2}, Closed{}).state().seq == 2);

    App app;
    app.add<Till>(rows);
    app.dispatch("till-1", Added{1});
    app.dispatch("till-1", Closed{});
    app.dispatch("till-1", Taken{2});
    app.run_until_idle();
    CHECK(rows["till-1"] == Total{-1, "taken", 3});
}

TEST_CASE("E9: without a name a projector is called like its class") {
    struct Unnamed : sourced::EventSourcedProjector<Total> {};
    App app;
    const auto& unnamed = app.add<Unnamed>();
    CHECK(unnamed.name().find("Unnamed") != std::string::npos);
    CHECK(app.stats().group(unnamed.name()).active);
}

TEST_CASE("E10: a batch of five is one load and one sync") {
    Till::Rows rows;
    App app;
    const auto& till = app.add<Till>(rows);
    for (int i = 1; i <= 5; ++i) app.dispatch("till-1", Added{i});
    app.run_until_idle();
    CHECK(till.loads == 1);
    CHECK(till.batches == std::vector<std::size_t>{5});
    CHECK(rows["till-1"].sum == 15);
}

TEST_CASE("Projector: its own table is loaded from and written to through the engine's file") {
    support::TemporaryDirectory directory;
    {
        App app({.path = directory.file()});
        app.add<TillTable>();
        app.dispatch("till-1", Added{10});
        app.dispatch("till-2", Added{1});
        app.run_until_idle();
        app.dispatch("till-1", Taken{4});
        app.run_until_idle();
        CHECK(table_sum(app, "till-1") == 6);
    }
    App again({.path = directory.file()});
    again.add<TillTable>();
    again.dispatch("till-1", Added{1});
    again.run_until_idle();
    CHECK(table_sum(again, "till-1") == 7);
    CHECK(table_sum(again, "till-2") == 1);
}

TEST_CASE("E12: a failing sync leaves row and offset alone, and is tried again") {
    sourced::testing::Clock clock;
    App app({.errors = sourced::Retries{.times = 1, .after = std::chrono::seconds(1)}, .clock = clock});
    app.add<TillTable>(100);
    app.dispatch("till-1", Added{60});
    app.run_until_idle();
    const auto offset = app.stats().group("till_table").newest;

    app.dispatch("till-1", Added{60});
    app.run_until_idle();
    CHECK(table_sum(app, "till-1") == 60);
    CHECK(app.stats().group("till_table").newest == offset);
    CHECK(app.stats().group("till_table").retry_error.find("too much in the till") != std::string::npos);

    clock.advance(std::chrono::seconds(60));
    app.run_until_idle();
    CHECK_FALSE(app.stats().group("till_table").active);
    CHECK(app.stats().group("till_table").error_type == "std::range_error");
    CHECK(table_sum(app, "till-1") == 60);
}

TEST_CASE("Projector: a reset empties the table and builds it anew") {
    App app;
    app.add<TillTable>();
    app.dispatch("till-1", Added{10});
    app.dispatch("till-2", Added{5});
    app.run_until_idle();
    app.store().transaction([](Transaction& db) { db.execute("insert into till values ('stale', 1)"); });
    app.reset_group("till_table");
    CHECK(table_sum(app, "till-1") == -1);
    app.run_until_idle();
    CHECK(table_sum(app, "till-1") == 10);
    CHECK(table_sum(app, "till-2") == 5);
    CHECK(table_sum(app, "stale") == -1);
}

TEST_CASE("Projector: a sync is told which events are live and which are replayed") {
    std::vector<std::string> seen;
    const auto declare = [&seen](Free& self) {
        self.state([](std::string_view) { return Total{}; });
        self.event<Added>();  // known, without an effect on the state
        self.sync([&seen](const Total&, const Batch& batch) {
            for (const auto& event : batch) {
                seen.push_back(std::to_string(event->as<Added>().amount) + '@' + std::to_string(event->seq) +
                               (event.replay ? " again" : ""));
            }
            seen.push_back(batch.replay() ? "a replay" : "live");
        });
    };
    App app;
    app.add<Free>(declare);
    app.dispatch("till-1", Added{7});
    app.run_until_idle();
    app.reset_group("free");
    app.dispatch("till-1", Added{8});
    app.run_until_idle();
    CHECK(seen == std::vector<std::string>{"7@1", "live", "7@1 again", "8@2", "live"});
    seen.clear();
    app.reset_group("free");
    app.run_until_idle();
    CHECK(seen == std::vector<std::string>{"7@1 again", "8@2 again", "a replay"});
}

TEST_CASE("Projector: a state handler that reads finds its tables in a test, too") {
    CHECK(given(TillTable(), Added{1}).state().sum == 1);
}

// ---- Event-sourced --------------------------------------------------------------------

TEST_CASE("E3: an event-sourced state is what the whole stream makes of it") {
    std::vector<Total> seen;
    App app;
    app.add<History>(seen);
    app.dispatch("till-1", Added{10});
    app.run_until_idle();
    app.dispatch("till-1", Added{5});
    app.run_until_idle();
    CHECK(seen == std::vector<Total>{{10, "added", 1}, {15, "added", 2}});
    CHECK(app.load<History>("till-1").state == Total{15, "added", 2});
    CHECK(app.load<History>("till-1", 1).state.sum == 10);
}

TEST_CASE("EventSourcedProjector: evolves like an actor, with the same guards") {
    std::vector<Total> seen;
    const History history(seen);
    CHECK(history.evolve("till-1", {Added{3}, Taken{1}}).sum == 2);
    CHECK_THROWS_AS((void)history.evolve("till-1", {Message(Added{3}).to("till-2")}), sourced::Error);
}

// ---- Keyed ----------------------------------------------------------------------------

TEST_CASE("Projector: keyed by a value of the event, streams add to the same row") {
    App app;
    const auto& revenue = app.add<Revenue>();
    app.dispatch("till-1", Added{10, "GB"});
    app.dispatch("till-2", Added{5, "FR"});
    app.dispatch("till-1", Added{7, "FR"});
    app.dispatch("till-3", Taken{2, "GB"});
    app.run_until_idle();
    CHECK(revenue.get(app.store(), "GB")->sum == 8);
    CHECK(revenue.get(app.store(), "FR")->sum == 12);
    CHECK_FALSE(revenue.get(app.store(), "DE"));

    app.reset_group("revenue");
    CHECK_FALSE(revenue.get(app.store(), "GB"));
    app.run_until_idle();
    CHECK(revenue.get(app.store(), "GB")->sum == 8);
    CHECK(revenue.get(app.store(), "FR")->sum == 12);
}

TEST_CASE("Projector: keyed rows lose nothing though workers handle streams of the same key at once") {
    support::TemporaryDirectory directory;
    App app({.path = directory.file(), .batch_size = 3});
    const auto& revenue = app.add<Revenue>();
    app.start(3);
    std::map<std::string, std::int64_t> expected;
    for (int i = 0; i < 600; ++i) {
        const std::string country = i % 3 == 0 ? "GB" : i % 5 == 0 ? "FR" : "DE";
        app.dispatch("till-" + std::to_string(i % 17), Added{i, country});
        expected[country] += i;
    }
    REQUIRE(app.wait_until_idle(std::chrono::seconds(60)));
    for (const auto& row : expected) {
        CHECK_MESSAGE(revenue.get(app.store(), row.first)->sum == row.second, row.first);
    }
}

TEST_CASE("Projector: keys may be integers, and ask for the envelope") {
    const Free projector([](Free& self) {
        self.key([](const Added& added, const Envelope& envelope) { return added.amount + envelope.seq; });
        self.event([](Total&, const Added&) {});
    });
    CHECK(projector.definition().key(Message(Added{40}).with_seq(2)) == "42");
}

TEST_CASE("Projector: when one event has a key, all have to have one") {
    struct Half : sourced::Projector<Total> {
        Half() : Projector("half") {
            key([](const Added& added) { return added.country; });
            event([](Total&, const Added&) {});
            event([](Total&, const Taken&) {});
        }
    };
    struct Unused : sourced::Projector<Total> {
        Unused() : Projector("unused") {
            key<Added, Taken>([](const auto& event) { return event.country; });
            event([](Total&, const Added&) {});
        }
    };
    App app;
    CHECK(error_of([&] { app.add<Half>(); }) == "projector 'half' is keyed, but has no key handler for 'till.taken'");
    CHECK(error_of([&] { app.add<Unused>(); }) ==
          "projector 'unused' has a key handler for 'till.taken', but no event handler");
}

TEST_CASE("Projector: a second handler of any verb is an error") {
    const auto twice = [](auto declare) {
        return error_of([&] {
            Free([&](Free& self) {
                declare(self);
                declare(self);
            });
        });
    };
    CHECK(twice([](Free& self) { self.event<Added>(); }) == "projector 'free' has two event handlers for 'till.added'");
    CHECK(twice([](Free& self) { self.key([](const Added& added) { return added.country; }); }) ==
          "projector 'free' has two key handlers for 'till.added'");
    CHECK(twice([](Free& self) { self.sync([](const Total&) {}); }) == "projector 'free' has two sync handlers");
    CHECK(twice([](Free& self) { self.on_reset([](Transaction&) {}); }) ==
          "projector 'free' has two on_reset handlers");
    CHECK(twice([](Free& self) { self.on_install([](Transaction&) {}); }) ==
          "projector 'free' has two on_install handlers");
}

// ---- Rows without SQL -------------------------------------------------------------------

TEST_CASE("Projection: a state is a JSON row that survives and that SQL can read") {
    support::TemporaryDirectory directory;
    {
        App app({.path = directory.file()});
        app.add<PerStream>();
        app.dispatch("till-1", Added{10});
        app.run_until_idle();
    }
    App app({.path = directory.file()});
    const auto& rows = app.add<PerStream>();
    app.dispatch("till-1", Added{3});
    app.dispatch("till-2", Added{1});
    app.run_until_idle();
    CHECK(rows.get(app.store(), "till-1") == Total{13, "new till-1", 0});
    app.store().read([&](Reader& db) {
        const auto sums = db.query(R"(select id, state ->> '$.sum' from "projection_per stream" order by id)");
        REQUIRE(sums.size() == 2);
        CHECK(sums[0].integer(1) == 13);
        CHECK(sums[1].text(0) == "till-2");
        CHECK(rows.get(db, "till-2")->sum == 1);
    });
}

TEST_CASE("Projection: any name makes a table") {
    for (const auto* name : {"sqlite_master", "sourced_messages", "a\"b", "; drop table x", "umlaut ä", "select"}) {
        App app;
        const auto& revenue = app.add<Revenue>(name);
        app.dispatch("till-1", Added{10});
        app.run_until_idle();
        CHECK_MESSAGE(revenue.get(app.store(), "GB").value_or(Total{}).sum == 10, name);
        app.reset_group(name);
        CHECK_FALSE(revenue.get(app.store(), "GB"));
    }
}

TEST_CASE("Projection: a name with a NUL, or that differs from another by case alone, is refused") {
    using namespace std::string_view_literals;
    App app;
    CHECK_THROWS_AS(app.add<Revenue>("a\0b"sv), sourced::Invalid);
    app.add<Revenue>("revenue");
    CHECK(error_of([&] { app.add<Revenue>("Revenue"); }).find("SQLite does not tell them apart") != std::string::npos);
}

TEST_CASE("Projection: a row that holds something else is Undecodable and names the row") {
    App app;
    const auto& revenue = app.add<Revenue>();
    app.store().transaction(
        [](Transaction& db) { db.execute("insert into projection_revenue values ('GB', ?)", R"({"sum": "many"})"); });
    try {
        (void)revenue.get(app.store(), "GB");
        FAIL("it was read");
    } catch (const sourced::Undecodable& undecodable) {
        const std::string text = undecodable.what();
        CHECK(text.find("'GB' of projection_revenue") != std::string::npos);
        CHECK(text.find("/sum") != std::string::npos);
    }
}

TEST_CASE("Projection: tested without a file it begins with its blank state") {
    CHECK(given<PerStream>(Added{3}).stream("till-9").then_state(Total{3, "new till-9", 0}));
    CHECK(given<Revenue>(Added{3}, Taken{1}).then_state(Total{2, "taken", 0}));
}
