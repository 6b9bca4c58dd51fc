// Units: several reactors that handle a message and all that follows from it in one transaction.
#include <doctest/doctest.h>
#include <sourced.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "support.hpp"

namespace {

using namespace sourced;
using namespace std::chrono_literals;
using support::TemporaryDirectory;
using support::error_of;
using testing::Clock;

struct Create {
    std::string item;
    SOURCED_COMMAND("unit.create", item)
};
struct Created {
    std::string item;
    SOURCED_EVENT("unit.created", item)
};
struct Notify {
    std::string item;
    SOURCED_COMMAND("unit.notify", item)
};
struct Notified {
    SOURCED_EVENT("unit.notified")
};
struct Ship {
    std::string item;
    SOURCED_COMMAND("unit.ship", item)
};
struct Shipped {
    SOURCED_EVENT("unit.shipped")
};
struct Remind {
    SOURCED_COMMAND("unit.remind")
};
struct Reminded {
    SOURCED_EVENT("unit.reminded")
};

struct Order {
    std::vector<std::string> items;
    bool notified = false;
    SOURCED_VALUE(items, notified)
};

/// Create -> Created -> (reaction) Notify -> Notified, in the order's own stream.
struct Orders : Actor<Order> {
    Orders() : Actor("orders") {
        command([](const Order& order, const Create& create) -> Decision<Created> {
            if (create.item.empty()) return refuse("no item");
            if (order.items.size() >= 3) throw std::runtime_error("too many items");
            return Created{create.item};
        });
        event([](Order& order, const Created& created) { order.items.push_back(created.item); });
        reaction([](const Order& order, const Created& created) {
            seen.push_back(order.items.size());
            return dispatch(Notify{created.item});
        });
        command([](const Order&, const Notify&) { return Notified{}; });
        event([](Order& order, const Notified&) { order.notified = true; });
    }
    static inline std::vector<std::size_t> seen;  // how many items each reaction saw
};

/// Rows of what was created.
struct Listings : Projection<Order> {
    Listings() : Projection("listings") {
        event([](Order& order, const Created& created) { order.items.push_back(created.item); });
    }
};

/// Sends what was created to another stream.
struct Dispatcher : Actor<int> {
    Dispatcher() : Actor("dispatcher") {
        event<Created>();
        reaction([](const Created& created) { return dispatch(Ship{created.item}).to("ship-" + created.item); });
    }
};
struct Shipping : Actor<int> {
    Shipping() : Actor("shipping") {
        command([](int, const Ship&) { return Shipped{}; });
        event([](int& count, const Shipped&) { ++count; });
    }
};

std::vector<std::string> types(const Messages& messages) {
    std::vector<std::string> names;
    for (const auto& message : messages) names.push_back(message.type);
    return names;
}
using Names = std::vector<std::string>;

const Names chain{"unit.create", "unit.created", "unit.notify", "unit.notified"};

}  // namespace

TEST_CASE("Unit: what follows from a message is handled at once") {
    Orders::seen.clear();
    const Clock clock;
    App app({.clock = clock});
    app.add<Orders>();
    auto& listings = app.add<Listings>();
    auto unit = app.unit<Orders, Listings>();

    SUBCASE("O1: the whole chain in one call, the results by reactor") {
        const auto result = unit.handle("order-1", Create{"book"});
        CHECK(result);
        CHECK(types(result.messages()) == chain);
        CHECK(types(app.history("order-1")) == chain);
        CHECK(types(result.events<Orders>()) == Names{"unit.created", "unit.notified"});
        CHECK(result.events("orders").size() == 2);
        CHECK(result.first().type == "unit.create");
        CHECK(result.first().seq == 1);
        CHECK(result.events<Orders>().back().seq == 4);
        CHECK(result.events<Orders>().back().position == 4);
        CHECK(app.load<Orders>("order-1").state.notified);
        CHECK(app.load<Orders>("order-1").seq == 4);
    }
    SUBCASE("O2: a projector's rows are there, its own events are none") {
        const auto result = unit.handle("order-1", Create{"book"});
        CHECK(listings.get(app.store(), "order-1")->items == Names{"book"});
        CHECK(result.events<Listings>().empty());
    }
    SUBCASE("O3: workers find nothing afterwards") {
        (void)unit.handle("order-1", Create{"book"});
        CHECK(app.wait_until_idle(0s));
        CHECK(app.run_until_idle() == 0);
        CHECK(app.history("order-1").size() == 4);
        CHECK(listings.get(app.store(), "order-1")->items.size() == 1);
        app.dispatch("order-1", Create{"pen"});
        CHECK(app.run_until_idle() == 4);  // two commands, an event for each of the two
        CHECK(listings.get(app.store(), "order-1")->items == Names{"book", "pen"});
    }
    SUBCASE("O4: one correlation, and the first one's metadata on every message") {
        const Message first =
            Message(Create{"book"}).with_metadata(Metadata::parse(R"({"request_id":"r1","user_id":10})"));
        const auto result = unit.handle("order-1", first);
        REQUIRE(result.messages().size() == 4);
        for (std::size_t i = 0; i < 4; ++i) {
            const Message& each = result.messages()[i];
            CHECK(each.correlation == first.id);
            CHECK(each.metadata.get("request_id") == "r1");
            CHECK(each.metadata.get("user_id") == "10");
            CHECK(each.causation == result.messages()[i == 0 ? 0 : i - 1].id);
        }
        CHECK(result.messages()[2].metadata.get("producer") == "orders");
        CHECK(app.store().correlated(first.id).size() == 4);
    }
    SUBCASE("a refused command is an answer, not an error") {
        const auto result = unit.handle("order-1", Create{""});
        CHECK(result.refused());
        CHECK_FALSE(result);
        CHECK(result.reason() == "no item");
        CHECK(types(result.messages()) == Names{"unit.create", "sourced.refused"});
        CHECK(types(result.events<Orders>()) == Names{"sourced.refused"});
    }
    SUBCASE("reactions see the state as of their own event, on cached states too") {
        (void)unit.handle("order-1", Create{"a"});
        (void)unit.handle("order-1", Create{"b"});
        (void)app.handle<Orders>("order-1", Create{"c"});
        app.run_until_idle();
        CHECK(Orders::seen == std::vector<std::size_t>{1, 2, 3});
        CHECK(app.load<Orders>("order-1").state.items == Names{"a", "b", "c"});
        CHECK(listings.get(app.store(), "order-1")->items == Names{"a", "b", "c"});
    }
    SUBCASE("an event can be the first, too") {
        const auto result = unit.handle("order-1", Created{"found"});
        CHECK(types(result.messages()) == Names{"unit.created", "unit.notify", "unit.notified"});
        CHECK(result.events<Orders>().size() == 1);
        CHECK(app.wait_until_idle(0s));
    }
    SUBCASE("O10: used again for a second stream, four messages each") {
        (void)unit.handle("order-1", Create{"a"});
        (void)unit.handle("order-2", Create{"b"});
        CHECK(types(app.history("order-1")) == chain);
        CHECK(types(app.history("order-2")) == chain);
        CHECK(listings.get(app.store(), "order-2")->items == Names{"b"});
    }
    SUBCASE("the same message again is not handled again") {
        const Message first = Create{"book"};
        (void)unit.handle("order-1", first);
        const auto again = unit.handle("order-1", first);
        CHECK(types(again.messages()) == chain);
        CHECK(again.first().seq == 1);
        CHECK(again.events<Orders>().empty());
        CHECK(app.history("order-1").size() == 4);
        CHECK(Orders::seen.size() == 1);
    }
    SUBCASE("a message that breaks its rules, and a blank stream, are Invalid") {
        Message broken = Create{"x"};
        broken.payload = R"({"item":7})";
        CHECK_THROWS_AS((void)unit.handle("order-1", broken), Invalid);
        CHECK_THROWS_AS((void)unit.handle(" ", Create{"x"}), Invalid);
        CHECK(app.store().head() == 0);
    }
    SUBCASE("the reactors of a unit are known, each named once") {
        CHECK(error_of([&] { (void)app.unit<Orders, Orders>(); }) == "unit: 'orders' is named twice");
        CHECK(error_of([&] { (void)app.unit({"orders", "nobody"}); }) == "no reactor 'nobody' was added to this App");
        CHECK(error_of([&] { (void)app.unit(std::vector<std::string>{}); }) == "unit: it names no reactor");
        CHECK_THROWS_AS((void)app.unit<Shipping>(), NotRegistered);
        const auto result = app.unit({"orders"}).handle("order-1", Create{"x"});
        CHECK(error_of([&] { (void)result.events("listings"); }) == "'listings' is no reactor of this unit");
        CHECK(error_of([&] { (void)result.events<Listings>(); }) ==
              "no (anonymous namespace)::Listings is part of this unit");
        CHECK_THROWS_AS((void)result.events<Listings>(), NotRegistered);
    }
}

// ---- what ends a unit ----------------------------------------------------------------------

namespace {

struct Echo {
    int left = 0;
    SOURCED_COMMAND("unit.echo", left)
};
struct Echoed {
    int left = 0;
    SOURCED_EVENT("unit.echoed", left)
};
/// Sends to itself for as long as it is told to.
struct Echoing : Actor<int> {
    Echoing() : Actor("echoing") {
        command([](int, const Echo& echo) { return Echoed{echo.left - 1}; });
        event([](int& count, const Echoed&) { ++count; });
        reaction([](const Echoed& echoed) -> std::optional<Dispatch> {
            if (echoed.left == 0) return std::nullopt;
            return dispatch(Echo{echoed.left});
        });
    }
};

struct Counted {
    int count = 0;
    SOURCED_VALUE(count)
};
struct Counter : Projection<Counted> {
    Counter() : Projection("counter") {
        event([](Counted& counted, const Echoed&) { ++counted.count; });
    }
};

/// Fails in its sync once it was told to.
struct Failing : Projector<int> {
    Failing() : Projector("failing") {
        on_install([](Transaction& db) { db.execute("create table if not exists seen(id text, count int)"); });
        event<Notified>();
        sync([](const int&, std::string_view id, Transaction& db) {
            db.execute("insert into seen values(?, 1)", id);
            if (fails) throw std::domain_error("sync failed");
        });
    }
    static inline bool fails = false;
};

}  // namespace

TEST_CASE("Unit: O5: one that goes round in circles ends at its limit, and nothing is kept") {
    App app;
    app.add<Echoing>();
    const auto unit = [&](std::size_t limit) { return app.unit<Echoing>({.limit = limit}); };
    CHECK(error_of([&] { (void)unit(5).handle("e", Echo{100}); }) ==
          "unit: exceeded 5 iterations, the last message is 'unit.echoed' for 'e'");
    CHECK(app.store().head() == 0);
    CHECK(app.run_until_idle() == 0);
    CHECK(unit(6).handle("e", Echo{3}).messages().size() == 6);  // six were handled: that is within the limit
    CHECK_THROWS_AS((void)unit(5).handle("e", Echo{3}), Error);
    CHECK(unit(100).handle("e", Echo{50}).messages().size() == 100);
    CHECK_THROWS_AS((void)app.unit<Echoing>().handle("e", Echo{51}), Error);
}

TEST_CASE("Unit: O6: what a member throws comes out, and everything is rolled back") {
    App app;
    app.add<Orders>();
    app.add<Failing>();
    auto unit = app.unit<Orders, Failing>();
    Failing::fails = true;
    CHECK_THROWS_AS((void)unit.handle("order-1", Create{"book"}), std::domain_error);
    CHECK(app.history("order-1").empty());
    CHECK(app.store().head() == 0);
    app.store().read([](Reader& db) { CHECK(db.query("select * from seen").empty()); });
    CHECK(app.stats().group("orders").active);
    Failing::fails = false;
    // Neither have the states kept anything of it.
    (void)unit.handle("order-1", Create{"pen"});
    CHECK(app.load<Orders>("order-1").state.items == Names{"pen"});

    SUBCASE("O9: syncs run within") {
        app.store().read([](Reader& db) { CHECK(db.query("select * from seen").size() == 1); });
        Failing::fails = true;
        CHECK_THROWS((void)unit.handle("order-1", Create{"more"}));
        app.store().read([](Reader& db) { CHECK(db.query("select * from seen").size() == 1); });
        Failing::fails = false;
    }
    SUBCASE("a command handler's exception, too") {
        (void)unit.handle("order-1", Create{"b"});
        (void)unit.handle("order-1", Create{"c"});
        CHECK(error_of([&] { (void)unit.handle("order-1", Create{"d"}); }) == "too many items");
        CHECK(app.history("order-1").size() == 12);
        CHECK(app.load<Orders>("order-1").state.items.size() == 3);
    }
    SUBCASE("a call into the App from a handler is refused") {
        struct Calling : Actor<int> {
            explicit Calling(App& to) : Actor("calling") {
                command([&to](int, const Remind&) {
                    to.dispatch("x", Create{"x"});
                    return Reminded{};
                });
            }
        };
        app.add<Calling>(app);
        CHECK(error_of([&] { (void)app.unit<Calling>().handle("c", Remind{}); }) ==
              "the store was called from inside one of its own transactions: use the Transaction instead");
        CHECK(app.history("c").empty());
    }
    SUBCASE("a parked stream is an error at once, and stays parked") {
        const auto parked = [&] { return error_of([&] { (void)unit.handle("order-3", Create{"x"}); }); };
        app.dispatch("order-3", Create{"y"});
        app.run_until_idle();
        app.park_stream("failing", "order-3", "by hand");
        CHECK(parked() == "'order-3' is parked for group 'failing': by hand");
        app.store().append("order-3", {Created{"z"}});
        CHECK(parked() == "'order-3' is parked for group 'failing': by hand");
        CHECK(app.stats().group("failing").parked == 1);
    }
    SUBCASE("a stopped group is an error") {
        app.stop_group("failing");
        CHECK(error_of([&] { (void)unit.handle("order-2", Create{"x"}); }) == "group 'failing' is stopped");
        CHECK(app.history("order-2").empty());
    }
}

// ---- what leaves a unit --------------------------------------------------------------------

TEST_CASE("Unit: what is for later, and what is for others") {
    const Clock clock;
    App app({.clock = clock});
    SUBCASE("O7: a scheduled message is neither handled nor in its stream") {
        struct Reminding : Actor<int> {
            Reminding() : Actor("reminding") {
                event<Created>();
                reaction([](const Created&) { return dispatch(Remind{}).in(1h); });
                command([](int, const Remind&) { return Reminded{}; });
            }
        };
        app.add<Orders>();
        app.add<Reminding>();
        const auto result = app.unit<Orders, Reminding>().handle("order-1", Create{"book"});
        CHECK(types(result.messages()) == chain);
        REQUIRE(app.store().scheduled().size() == 1);
        CHECK(app.store().scheduled()[0].due_at == clock.now() + 1h);
        CHECK(app.store().scheduled()[0].message.correlation == result.first().id);
        CHECK(app.run_until_idle() == 0);
        Clock(clock).advance(2h);
        CHECK(app.run_until_idle() == 1);
        CHECK(types(app.history("order-1")).back() == "unit.reminded");
    }
    SUBCASE("O8: a message for a reactor outside of the unit is stored for the workers") {
        app.add<Orders>();
        app.add<Dispatcher>();
        app.add<Shipping>();
        const auto result = app.unit<Orders, Dispatcher>().handle("order-1", Create{"book"});
        CHECK(types(result.events<Dispatcher>()).empty());
        CHECK(types(app.history("ship-book")) == Names{"unit.ship"});
        CHECK(app.run_until_idle() == 1);
        CHECK(types(app.history("ship-book")) == Names{"unit.ship", "unit.shipped"});
    }
    SUBCASE("messages go to other streams, breadth first in the order of the log") {
        app.add<Orders>();
        app.add<Dispatcher>();
        app.add<Shipping>();
        const auto result = app.unit<Orders, Dispatcher, Shipping>().handle("order-1", Create{"book"});
        CHECK(types(result.messages()) == Names{"unit.create", "unit.created", "unit.notify", "unit.ship",
                                                "unit.notified", "unit.shipped"});
        for (std::size_t i = 0; i < 6; ++i) CHECK(result.messages()[i].position == static_cast<std::int64_t>(i + 1));
        CHECK(types(result.events<Shipping>()) == Names{"unit.shipped"});
        CHECK(app.load<Shipping>("ship-book").state == 1);
        CHECK(app.run_until_idle() == 0);
    }
}

TEST_CASE("Unit: reactors, their actions and what is to be done after the commit") {
    struct Acting : BatchReactor {
        Acting() : BatchReactor("acting") {
            handles<Created>();
            wants_history();
        }
        Results handle(const Batch& batch) override {
            Results results;
            for (const auto& each : batch) {
                if (asks_again) return Results::retry();
                history = batch.history().size();
                Actions actions;
                actions.push_back(AppendNext{{Reminded{}}});
                actions.push_back(Sync{[](Transaction& db) { db.execute("create table acted(x)"); }});
                actions.push_back(AfterSync{[this] { ++after; }});
                if (conflicts) actions.push_back(AppendAfter{99, {Reminded{}}, each->stream});
                results.add(*each, std::move(actions));
            }
            return results;
        }
        bool asks_again = false;
        bool conflicts = false;
        std::size_t history = 0;
        int after = 0;
    };
    App app;
    app.add<Orders>();
    auto& acting = app.add<Acting>();
    auto unit = app.unit<Orders, Acting>();
    SUBCASE("they are carried out") {
        const auto result = unit.handle("order-1", Create{"x"});
        CHECK(types(result.events<Acting>()) == Names{"unit.reminded"});
        CHECK(acting.after == 1);
        CHECK(acting.history == 2);
        app.store().read([](Reader& db) { CHECK(db.row("select count(*) from acted")->integer(0) == 0); });
        CHECK(app.run_until_idle() == 0);
    }
    SUBCASE("a retry that a reactor asks for is an error of the unit") {
        acting.asks_again = true;
        CHECK(error_of([&] { (void)unit.handle("order-1", Create{"x"}); }) ==
              "unit: 'acting' has not handled 'unit.created' (seq 2 of 'order-1'); it may ask workers to be called "
              "again, not a unit");
        CHECK(app.store().head() == 0);
        CHECK(acting.after == 0);
    }
    SUBCASE("a stream that is not where an action expects it is a Conflict") {
        acting.conflicts = true;
        CHECK_THROWS_AS((void)unit.handle("order-1", Create{"x"}), Conflict);
        CHECK(app.store().head() == 0);
        CHECK(acting.after == 0);
    }
}

TEST_CASE("Unit: handlers and a projector's reactions take part as well") {
    struct Answering : Handler {
        Answering() : Handler("answering") {
            on([](const Created& created) { return dispatch(Ship{created.item}); });
        }
    };
    struct Announcing : Projector<int> {
        Announcing() : Projector("announcing") {
            event([](int& count, const Shipped&) { ++count; });
            sync([this](const int& count) { synced += count; });
            reaction([](const int& count, const Shipped&) {
                return dispatch(Create{"gift " + std::to_string(count)}).to("gifts");
            });
        }
        int synced = 0;
    };
    App app;
    app.add<Answering>();
    app.add<Shipping>();
    auto& announcing = app.add<Announcing>();
    const auto result = app.unit<Answering, Shipping, Announcing>().handle("order-1", Created{"book"});
    CHECK(types(result.messages()) == Names{"unit.created", "unit.ship", "unit.shipped", "unit.create"});
    CHECK(app.history("gifts")[0].as<Create>().item == "gift 1");
    CHECK(announcing.synced == 1);
    CHECK(app.run_until_idle() == 0);
    const auto unstored = app.unit<Answering, Shipping, Announcing>({.store_commands = false});
    CHECK(types(unstored.handle("order-1", Created{"pen"}).messages()) ==
          Names{"unit.created", "unit.shipped", "unit.create"});
    CHECK(app.run_until_idle() == 0);
    CHECK(app.load<Shipping>("order-1").state == 2);
}

// ---- commands that are not stored ----------------------------------------------------------

TEST_CASE("Unit: O10: without storing commands the events are stored, the chain is complete") {
    const TemporaryDirectory directory;
    const std::string path = directory.file();
    {
        App app({.path = path});
        app.add<Orders>();
        auto& listings = app.add<Listings>();
        app.add<Dispatcher>();
        app.add<Shipping>();
        auto unit = app.unit<Orders, Listings, Dispatcher>({.store_commands = false});
        for (const std::string stream : {"order-1", "order-2"}) {
            const Message first = Message(Create{"book"}).with_metadata(Metadata::parse(R"({"user_id":10})"));
            const auto result = unit.handle(stream, first);
            CHECK(types(app.history(stream)) == Names{"unit.created", "unit.notified"});
            CHECK(types(result.messages()) == Names{"unit.created", "unit.ship", "unit.notified"});
            CHECK(result.first().id == first.id);
            CHECK(result.first().seq == 0);
            CHECK(result.events<Orders>().size() == 2);
            for (const auto& each : result.messages()) {
                CHECK(each.correlation == first.id);
                CHECK(each.metadata.get("user_id") == "10");
            }
            const Messages events = app.history(stream);
            CHECK(events[0].causation == first.id);
            CHECK(events[0].metadata.get("outside_cause") == first.id.to_string());
            CHECK(events[1].metadata.get("outside_cause") == events[1].causation.to_string());
            CHECK(app.load<Orders>(stream).state.notified);
            CHECK(app.load<Orders>(stream).seq == 2);
            CHECK(listings.get(app.store(), stream)->items == Names{"book"});
        }
        // The command for the reactor outside was stored, or nobody would ever handle it.
        CHECK(types(app.history("ship-book")) == Names{"unit.ship", "unit.ship"});
        CHECK(app.run_until_idle() == 2);
        CHECK(app.load<Shipping>("ship-book").state == 2);
        CHECK(app.run_until_idle() == 0);

        // What comes later in the streams is handled as ever.
        app.dispatch("order-1", Create{"pen"});
        app.run_until_idle();
        CHECK(app.load<Orders>("order-1").state.items == Names{"book", "pen"});
        CHECK(unit.handle("order-1", Create{""}).reason() == "no item");
        CHECK(types(app.history("order-1")).back() == "sourced.refused");
    }
    for (const auto& violation : verify(path)) FAIL_CHECK(violation.invariant << ": " << violation.text);
}

TEST_CASE("Unit: a command that somebody outside of the unit handles as well is stored for him") {
    struct Auditing : BatchReactor {
        Auditing() : BatchReactor("auditing") { handles<Create>(); }
        Results handle(const Batch& batch) override {
            Results results;
            for (const auto& each : batch) results.add(*each, {});
            return results;
        }
    };
    App app;
    app.add<Orders>();
    app.add<Auditing>();
    (void)app.unit<Orders>({.store_commands = false}).handle("order-1", Create{"x"});
    CHECK(types(app.history("order-1")) == Names{"unit.create", "unit.created", "unit.notified"});
    CHECK(app.run_until_idle() == 1);
}

// ---- with others at work --------------------------------------------------------------------

TEST_CASE("Unit: what is pending for a member is handled first") {
    App app;
    app.add<Orders>();
    auto& listings = app.add<Listings>();
    auto unit = app.unit<Orders, Listings>();
    SUBCASE("commands that wait for the workers") {
        app.dispatch("order-1", Create{"a"});
        app.dispatch("order-1", Create{"b"});
        const auto result = unit.handle("order-1", Create{"c"});
        CHECK(types(result.messages()) == chain);
        CHECK(app.load<Orders>("order-1").state.items == Names{"a", "b", "c"});
        CHECK(listings.get(app.store(), "order-1")->items == Names{"a", "b", "c"});
        CHECK(app.run_until_idle() == 0);
    }
    SUBCASE("without storing commands as well") {
        app.dispatch("order-1", Create{"a"});
        (void)app.unit<Orders, Listings>({.store_commands = false}).handle("order-1", Create{"b"});
        CHECK(app.load<Orders>("order-1").state.items == Names{"a", "b"});
        CHECK(listings.get(app.store(), "order-1")->items == Names{"a", "b"});
    }
    SUBCASE("a message before it that fails is said") {
        for (const char* item : {"a", "b", "c"}) (void)unit.handle("order-1", Create{item});
        app.dispatch("order-1", Create{"d"});
        CHECK(error_of([&] { (void)unit.handle("order-1", Create{"e"}); }) ==
              "'order-1': a message before this one failed: too many items");
        CHECK(app.history("order-1").size() == 13);
    }
}

TEST_CASE("Unit: a stream that another holds for longer than the claim time is busy") {
    App app({.claim_time = 20ms});
    app.add<Orders>();
    app.add<Listings>();
    const auto group = app.store().register_group({"listings", {}, {}}).id;
    app.store().append("order-1", {Created{"a"}});
    REQUIRE(app.store().claim_stream(group, "order-1").has_value());
    CHECK(error_of([&] { (void)app.unit<Orders, Listings>().handle("order-1", Create{"x"}); }) ==
          "order-1 is busy: another worker of 'listings' has held it for longer than the claim time, or a message in "
          "it waits for its retry");
    CHECK(app.unit<Orders, Listings>().handle("order-2", Create{"x"}).messages().size() == 4);
}

TEST_CASE("Unit: several threads and the workers share streams, nothing is lost or handled twice") {
    const TemporaryDirectory directory;
    const std::string path = directory.file();
    constexpr int each = 25;
    {
        App app({.path = path, .claim_time = 60s});
        app.add<Echoing>();
        auto& counter = app.add<Counter>();
        app.start(2);
        auto unit = app.unit<Echoing, Counter>();
        {
            std::vector<std::jthread> threads;
            for (int thread = 0; thread < 3; ++thread) {
                threads.emplace_back([&, thread] {
                    for (int i = 0; i < each; ++i) {
                        const std::string stream = "e-" + std::to_string((i + thread) % 2);
                        if (thread == 2) app.dispatch(stream, Echo{2});
                        else (void)unit.handle(stream, Echo{2});
                    }
                });
            }
        }
        CHECK(app.wait_until_idle(60s));
        app.stop();
        int total = 0;
        for (const std::string stream : {"e-0", "e-1"}) {
            total += counter.get(app.store(), stream)->count;
            CHECK(app.load<Echoing>(stream).state == counter.get(app.store(), stream)->count);
        }
        CHECK(total == 3 * each * 2);
    }
    for (const auto& violation : verify(path)) FAIL_CHECK(violation.invariant << ": " << violation.text);
}
