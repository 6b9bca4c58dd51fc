// given / when / then for one reactor of every kind, and the clock that is set by hand.
#include <doctest/doctest.h>

#include <sourced.hpp>

#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <variant>
#include <vector>

using namespace std::chrono_literals;
using sourced::Acknowledge;
using sourced::Actions;
using sourced::AfterSync;
using sourced::AppendAfter;
using sourced::AppendNext;
using sourced::Message;
using sourced::Schedule;
using sourced::Sync;
using sourced::testing::given;

namespace {

struct Buy {
    int pieces = 0;
    SOURCED_COMMAND("shop.buy", pieces)
};
struct Bought {
    int pieces = 0;
    SOURCED_EVENT("shop.bought", pieces)
};
struct Ship {
    int pieces = 0;
    SOURCED_COMMAND("shop.ship", pieces)
};
struct Stock {
    int pieces = 10;
    std::string stream{};

    SOURCED_VALUE(pieces, stream)
};

struct Shop : sourced::Actor<Stock> {
    Shop() : Actor("shop") {
        state([](std::string_view id) { return Stock{.stream = std::string(id)}; });
        command([](const Stock& stock, const Buy& buy) -> sourced::Decision<Bought> {
            if (buy.pieces < 0) throw std::out_of_range("pieces are negative");
            if (buy.pieces > stock.pieces) return sourced::refuse("sold out");
            if (buy.pieces == 0) return {};
            return Bought{buy.pieces};
        });
        event([](Stock& stock, const Bought& bought) { stock.pieces -= bought.pieces; });
        reaction([](const Bought& bought) { return sourced::dispatch(Ship{bought.pieces}).to("carrier").in(1s); });
    }
};

struct Sold : sourced::EventSourcedProjector<Stock> {
    explicit Sold(int first) : EventSourcedProjector("sold") {
        state([first](std::string_view id) { return Stock{first, std::string(id)}; });
        event([](Stock& stock, const Bought& bought) { stock.pieces += bought.pieces; });
    }
};

/// Writes down what it has decided.
struct Booker : sourced::Actor<std::monostate> {
    Booker() : Actor("booker") {
        command([](const Buy& buy) { return Bought{buy.pieces}; });
        event<Bought>();
        reaction([](const Bought&) { return std::optional<sourced::Dispatch>(); });
        sync([](const std::monostate&, const sourced::Batch& batch, sourced::Transaction& db) {
            db.execute("create table if not exists ledger (line text)");
            for (const auto& message : batch) {
                db.execute("insert into ledger values (?)", message->type + ' ' + std::to_string(message->seq) + ' ');
            }
        });
    }
};

struct Shelf {
    std::vector<int> pieces{};
    std::vector<std::string> names{};

    SOURCED_VALUE(pieces, names)
};
struct Shelves : sourced::EventSourcedProjector<Shelf> {
    Shelves() : EventSourcedProjector("shelves") {
        event([](Shelf& shelf, const Bought& bought) { shelf.pieces.push_back(bought.pieces); });
    }
};

/// Keeps its sum in a table of its own.
struct Ledger : sourced::Projector<Stock> {
    Ledger() : Projector("ledger") {
        on_install([](sourced::Transaction& db) {
            db.execute("create table if not exists ledger (id text primary key, line text not null)");
        });
        state([](std::string_view id, sourced::Reader& db) {
            CHECK_FALSE(db.row("select 1 from ledger where id = ?", id));
            return Stock{0, std::string(id)};
        });
        event([](Stock& stock, const Bought& bought) { stock.pieces += bought.pieces; });
        sync([](const Stock& stock, std::string_view id, const sourced::Batch& batch, sourced::Transaction& db) {
            db.execute("insert or replace into ledger values (?, ?)", id,
                       stock.stream + ' ' + std::to_string(stock.pieces) + " in " + std::to_string(batch.size()) +
                           (batch.replay() ? ", replayed" : ""));
            if (stock.pieces > 100) throw std::range_error("too many");
        });
    }
};
std::string ledger_of(sourced::Store& store) {
    std::string line;
    store.read([&](sourced::Reader& db) {
        for (const auto& row : db.query("select line from ledger")) line += row.text(0);
    });
    return line;
}

/// Does with each purchase what its number says.
struct Clerk : sourced::Handler {
    Clerk() : Handler("clerk") {
        on([](const Buy& buy, const sourced::Messages& history) -> std::optional<Bought> {
            if (buy.pieces < 0) throw std::out_of_range("pieces are negative");
            if (buy.pieces == 0) return std::nullopt;
            return Bought{static_cast<int>(history.size())};
        });
        on([](const Bought& bought) { return sourced::dispatch(Ship{bought.pieces}).to("carrier"); });
        on([](const Ship& ship) { return Message(Bought{ship.pieces}).to("elsewhere"); });
    }
};

/// Answers what it evolves.
struct Watch : sourced::EventSourcedProjector<Stock> {
    Watch() : EventSourcedProjector("watch") {
        event([](Stock& stock, const Bought& bought) { stock.pieces += bought.pieces; });
        reaction([](const Stock& stock, const Message&) {
            return sourced::dispatch(Ship{stock.pieces}).to_new("carrier");
        });
    }
};

struct Counted {
    int times = 0;

    SOURCED_VALUE(times)
};
struct ByPieces : sourced::Projection<Counted> {
    ByPieces() : Projection("by_pieces") {
        key([](const Bought& bought) { return bought.pieces; });
        event([](Counted& counted, const Bought&) { ++counted.times; });
    }
};

struct Noting : sourced::BatchReactor {
    explicit Noting(int* after = nullptr) : BatchReactor("noting"), after_(after) { handles<Bought>(); }
    sourced::Results handle(const sourced::Batch& batch) override {
        sourced::Results results;
        for (const auto& message : batch) {
            const int pieces = message->as<Bought>().pieces;
            results.add(*message, {Sync{[pieces](sourced::Transaction& db) {
                                       db.execute("insert into notes values (?)", pieces);
                                   }},
                                   AfterSync{[after = after_] {
                                       if (after) ++*after;
                                   }}});
        }
        return results;
    }

private:
    int* after_;
};

/// Does with each order something else.
struct Free : sourced::BatchReactor {
    Free() : BatchReactor("free") {
        handles<Bought, Buy>();
        wants_history();
    }
    sourced::Results handle(const sourced::Batch& batch) override {
        sourced::Results results;
        for (const auto& message : batch) {
            if (message->is<Bought>()) {
                results.add(*message, {AppendNext{{Bought{message->as<Bought>().pieces + 1}}}});
                continue;
            }
            switch (message->as<Buy>().pieces) {
                case 1: results.add(*message, {AppendNext{{Message(Ship{1}).to("carrier")}}}); break;
                case 2: results.add(*message, {Schedule{sourced::Time(1h), {Ship{2}}}}); break;
                case 3: results.add(*message, {AppendAfter{7, {Ship{3}}, {}}}); break;
                case 4: results.add(*message, {AppendNext{{Ship{static_cast<int>(batch.history().size())}}}}); break;
                case 5: results.add(*message, {AfterSync{}, Acknowledge{message->id}}); break;
                case 6:
                    results.add(*message, {AppendNext{{Ship{6}}}});
                    results.fail(*batch[1], std::make_exception_ptr(std::runtime_error("half done")));
                    return results;
                case 7: return sourced::Results::retry();
                default: return sourced::Results::retry(sourced::Time(2h));
            }
        }
        return results;
    }
};

std::string text_of(const sourced::testing::Verdict& verdict) {
    std::ostringstream out;
    out << verdict;
    return out.str();
}

}  // namespace

TEST_CASE("S1: events, a refusal, a dispatch and nothing are each told apart; ids are not compared") {
    CHECK(given<Shop>().when(Buy{3}).then(Bought{3}));
    CHECK_FALSE(given<Shop>().when(Buy{3}).then(Bought{4}));
    CHECK_FALSE(given<Shop>().when(Buy{3}).then(Bought{3}, Bought{3}));
    CHECK_FALSE(given<Shop>().when(Buy{3}).then_nothing());

    CHECK(given<Shop>(Bought{8}).when(Buy{3}).then(sourced::refuse("sold out")));
    CHECK_FALSE(given<Shop>(Bought{8}).when(Buy{3}).then(sourced::refuse("closed")));
    CHECK_FALSE(given<Shop>(Bought{8}).when(Buy{3}).then(Bought{3}));

    CHECK(given<Shop>().when(Bought{3}).then(sourced::dispatch(Ship{3}).to("carrier").in(1s)));
    CHECK_FALSE(given<Shop>().when(Bought{3}).then(sourced::dispatch(Ship{3}).to("carrier").in(2s)));
    CHECK_FALSE(given<Shop>().when(Bought{3}).then(sourced::dispatch(Ship{3}).to("mailer").in(1s)));
    CHECK_FALSE(given<Shop>().when(Bought{3}).then(sourced::dispatch(Ship{4}).to("carrier").in(1s)));

    CHECK(given<Shop>().when(Buy{0}).then_nothing());
    CHECK(given<Shop>().when(Buy{0}).then());
    CHECK_FALSE(given<Shop>().when(Buy{0}).then(Bought{0}));
}

TEST_CASE("S2: an expected exception has to be raised, of the right type, with a part of the text") {
    CHECK(given<Shop>().when(Buy{-1}).then_throws());
    CHECK(given<Shop>().when(Buy{-1}).then_throws<std::out_of_range>("negative"));
    CHECK_FALSE(given<Shop>().when(Buy{-1}).then_throws<std::out_of_range>("positive"));
    CHECK_FALSE(given<Shop>().when(Buy{-1}).then_throws<std::length_error>());
    CHECK_FALSE(given<Shop>().when(Buy{1}).then_throws());
    CHECK_FALSE(given<Shop>().when(Buy{-1}).then_nothing());
}

TEST_CASE("when: a message that nobody handles is told as such") {
    CHECK(given<Shop>().when(Ship{1}).then_throws<sourced::NotRegistered>("'shop' handles no 'shop.ship'"));
}

TEST_CASE("Verdict: its text says what was expected and what came instead") {
    CHECK(text_of(given<Shop>().when(Buy{3}).then(Bought{3})) == R"(as expected: shop.bought {"pieces":3})");
    CHECK(text_of(given<Shop>(Bought{8}).when(Buy{3}).then(Bought{3})) ==
          "expected shop.bought {\"pieces\":3}\n"
          "but got  refusal \"sold out\"");
    CHECK(text_of(given<Shop>().when(Bought{3}).then_nothing()) ==
          "expected nothing\n"
          "but got  dispatch of shop.ship {\"pieces\":3} to 'carrier' in 1000000 us");
    CHECK(text_of(given<Shop>().when(Buy{-1}).then(Bought{1}, Bought{2})) ==
          "expected shop.bought {\"pieces\":1}\n"
          "         shop.bought {\"pieces\":2}\n"
          "but got  exception std::out_of_range \"pieces are negative\"");
}

TEST_CASE("Verdict: it prints itself in doctest, and where only a bool and a stream are known") {
    const auto verdict = given<Shop>().when(Buy{3}).then(Bought{4});
    CHECK(std::string(doctest::toString(verdict).c_str()) ==
          "expected shop.bought {\"pieces\":4}\n"
          "but got  shop.bought {\"pieces\":3}");
    std::ostringstream out;
    if (!verdict) out << verdict;
    CHECK(out.str() == verdict.text());
}

TEST_CASE("given: the past may be told in parts, and the stream has a name") {
    CHECK(given<Shop>(Bought{1}).and_given(Bought{2}, Bought{3}).state().pieces == 4);
    CHECK(given<Shop>().state().stream == "shop-1");
    CHECK(given<Shop>(Bought{1}).stream("berlin").state().stream == "berlin");
    auto past = given<Shop>();
    past.stream("rome").and_given(Bought{4});
    CHECK(past.then_state(Stock{6, "rome"}));
    CHECK(past.when(Buy{6}).then(Bought{6}));
    CHECK(past.when(Buy{7}).then(sourced::refuse("sold out")));
}

TEST_CASE("S1: a reactor whose constructor wants arguments is handed in") {
    const Sold sold(100);
    CHECK(given(sold, Bought{1}, Bought{2}).stream("s").then_state(Stock{103, "s"}));
    CHECK(given(Sold(5), Bought{1}).state().pieces == 6);
    CHECK_FALSE(given(sold).then_state(Stock{}));
}

TEST_CASE("given: a projector sees an event and has nothing to answer") {
    const auto step = given(Sold(1)).when(Bought{4});
    CHECK(step.then_nothing());
    CHECK(step.state().pieces == 5);
}

TEST_CASE("S2: an exception as a value has to be of that type and to say exactly that") {
    const auto step = given<Shop>().when(Buy{-1});
    CHECK(step.then(std::out_of_range("pieces are negative")));
    CHECK(text_of(step.then(std::out_of_range("pieces"))) ==
          "expected exception std::out_of_range \"pieces\"\n"
          "but got  exception std::out_of_range \"pieces are negative\"");
    CHECK_FALSE(step.then(std::logic_error("pieces are negative")));
    CHECK(text_of(given<Shop>().when(Buy{0}).then(std::out_of_range("pieces are negative"))) ==
          "expected exception std::out_of_range \"pieces are negative\"\n"
          "but got  nothing");
    CHECK(text_of(given<Shop>().when(Buy{0}).then_throws<std::out_of_range>()) ==
          "expected exception std::out_of_range\n"
          "but got  nothing");
}

template <class T>
concept can_be_given = requires(const T& asked) { asked.and_given(Bought{1}); };

TEST_CASE("S3: what was asked has no past any more to be added to") {
    static_assert(!can_be_given<decltype(given<Shop>().when(Buy{1}))>);
    static_assert(!can_be_given<decltype(given<Shop>().when(Buy{1}).then(Bought{1}))>);
    // Each step has the past that was told when it was taken.
    auto shop = given<Shop>();
    const auto before = shop.when(Buy{10});
    shop.and_given(Bought{8});
    CHECK(before.then(Bought{10}));
    CHECK(shop.when(Buy{10}).then(sourced::refuse("sold out")));
}

TEST_CASE("S4: a block is given the actions, the state or the step") {
    const auto step = given<Shop>(Bought{1}).when(Buy{3});
    CHECK(step.then([](const Actions& actions) {
        REQUIRE(actions.size() == 1);
        const auto& events = std::get<AppendNext>(actions[0]).messages;
        return events.size() == 1 && events[0].as<Bought>().pieces == 3 && events[0].seq == 3;
    }));
    CHECK(step.then([](const Stock& stock) { return stock.pieces == 6; }));
    CHECK(step.then([](const auto& same) { return same.then(Bought{3}); }));
    CHECK(step.then([](const auto& same) { CHECK(same.seq() == 3); }));
    CHECK(text_of(step.then([](const Stock& stock) { return stock.pieces == 7; })) ==
          "a block says that it is not as expected");
    CHECK(text_of(step.then([](const Stock&) { throw std::runtime_error("no stock"); })) ==
          "a block threw: exception std::runtime_error \"no stock\"");
    CHECK(text_of(given<Shop>().when(Buy{-1}).then([](const Stock&) { return true; })) ==
          "expected nothing\n"
          "but got  exception std::out_of_range \"pieces are negative\"");

    const auto sent = given<Shop>().when(Bought{3});
    CHECK(sent.then([](const Actions& actions) {
        const auto& later = std::get<Schedule>(actions.at(0));
        return later.due_at == sourced::testing::Clock().now() + 1s && later.messages.at(0).stream == "carrier";
    }));
}

TEST_CASE("then: more can be asked, and the text names the link that fails") {
    const auto step = given<Shop>().when(Buy{3});
    CHECK(step.then(Bought{3})
              .and_then([](const Stock& stock) { return stock.pieces == 7; })
              .and_then([](const Actions& actions) { return actions.size() == 1; })
              .and_then_state(Stock{7, "shop-1"}));
    CHECK(text_of(step.then(Bought{3}).and_then(Bought{4}).and_then(Bought{5})) ==
          "link 2 of the chain: expected shop.bought {\"pieces\":4}\n"
          "but got  shop.bought {\"pieces\":3}");
    CHECK(text_of(step.then(Bought{4}).and_then(Bought{3})) ==
          "expected shop.bought {\"pieces\":4}\n"
          "but got  shop.bought {\"pieces\":3}");
    CHECK(given<Shop>().when(Buy{-1}).then_throws("negative").and_then([](const Stock& stock) {
        return stock.pieces == 10;
    }).and_then_state(Stock{10, "shop-1"}));
    CHECK_FALSE(given<Shop>().when(Buy{-1}).then_state(Stock{10, "shop-1"}));
    CHECK(text_of(step.then(Bought{3}).and_then([](const Stock&) { return true; })) ==
          "as expected: shop.bought {\"pieces\":3}\n"
          "as expected: a block");
}

TEST_CASE("then_state: the text says what differs, and nothing else") {
    CHECK(text_of(given<Shop>(Bought{1}).then_state(Stock{10, "shop-1"})) ==
          "the state differs\n"
          "  /pieces: expected 10, found 9");
    CHECK(text_of(given<Shop>().when(Buy{2}).then_state(Stock{9, "shop-2"})) ==
          "the state differs\n"
          "  /pieces: expected 9, found 8\n"
          "  /stream: expected \"shop-2\", found \"shop-1\"");
    CHECK(text_of(given<Shop>().then_state(Stock{10, "shop-1"})) ==
          R"(as expected: state {"pieces":10,"stream":"shop-1"})");
    const auto lists = given<Shelves>(Bought{1}, Bought{2}).when(Bought{3});
    CHECK(lists.then_state(Shelf{{1, 2, 3}, {}}));
    CHECK(text_of(lists.then_state(Shelf{{1, 4}, {"a"}})) ==
          "the state differs\n"
          "  /names/0: expected \"a\", found nothing\n"
          "  /pieces/1: expected 4, found 2\n"
          "  /names: expected nothing, found []\n"
          "  /pieces/2: expected nothing, found 3");
}

TEST_CASE("S4: syncs run in a transaction of a real store, and what they wrote can be looked at") {
    const auto step = given<Ledger>(Bought{2}).stream("berlin").when(Bought{3});
    CHECK(step.then_nothing());
    CHECK(step.then([](const Actions& actions) {
        return actions.size() == 1 && std::holds_alternative<Sync>(actions[0]);
    }));
    CHECK(ledger_of(step.store()).empty());
    const auto synced = step.run_syncs();
    CHECK(synced.then_nothing());
    CHECK(ledger_of(synced.store()) == "berlin 5 in 1");
    CHECK(given<Ledger>().when(Bought{1}, Bought{1}).run_syncs().then([](const auto& run) {
        return ledger_of(run.store()) == "ledger-1 2 in 2";
    }));
    CHECK(given<Ledger>()
              .when(Bought{4})
              .then_nothing()
              .run_syncs()
              .and_then([](const auto& run) { return ledger_of(run.store()) == "ledger-1 4 in 1"; }));
}

TEST_CASE("S4: what a sync throws is what came of the step, and nothing is written") {
    const auto step = given<Ledger>().when(Bought{101}).run_syncs();
    CHECK(step.then_throws<std::range_error>("too many"));
    CHECK(text_of(step.then_nothing()) ==
          "expected nothing\n"
          "but got  exception std::range_error \"too many\"");
    CHECK(ledger_of(step.store()).empty());
    CHECK(text_of(given<Ledger>().when(Bought{101}).then_nothing().run_syncs()) ==
          "link 2 of the chain: expected nothing\n"
          "but got  exception std::range_error \"too many\"");
}

TEST_CASE("S4: an actor's sync is told of the command and its events, and only of those") {
    CHECK(given<Booker>(Bought{1}).when(Buy{2}, Buy{3}).run_syncs().then([](const auto& run) {
        return ledger_of(run.store()) == "shop.buy 2 shop.bought 4 shop.buy 3 shop.bought 5 ";
    }));
    CHECK(given<Booker>().when(Bought{1}).run_syncs().then([](const Actions& actions) { return actions.empty(); }));
    CHECK(given<Booker>().replayed().when(Buy{1}).then([](const Actions& actions) { return actions.empty(); }));
}

TEST_CASE("run_syncs: there is no store before it where a reactor has no tables") {
    const auto step = given<Noting>().when(Bought{1});
    CHECK_THROWS_WITH_AS((void)step.store(), "there is no store before run_syncs(): 'noting' has no tables",
                         sourced::Error);
    int after = 0;
    const auto run = given(Noting(&after)).when(Bought{1}).run_syncs([](sourced::Transaction& db) {
        db.execute("create table notes (pieces integer)");
    });
    CHECK(after == 1);
    run.store().read([](sourced::Reader& db) { CHECK(db.row("select sum(pieces) from notes")->integer(0) == 1); });
    CHECK(given<Noting>().when(Bought{1}).run_syncs().then_throws<sourced::StoreError>("no such table"));
}

TEST_CASE("given: a keyed read model is that of the last message's key") {
    CHECK(given<ByPieces>(Bought{1}, Bought{2}, Bought{2}).then_state(Counted{2}));
    CHECK(given<ByPieces>(Bought{1}, Bought{2}).when(Bought{1}, Bought{1}).then_state(Counted{3}));
    CHECK_THROWS_WITH_AS((void)given<ByPieces>().when(Bought{1}, Bought{2}),
                         "when: 'shop.bought' is for the key '1', and the test is of '2'", sourced::Error);
    const auto step = given<ByPieces>(Bought{1}, Bought{2}).when(Bought{1});
    CHECK(step.then_state(Counted{2}));
    CHECK(step.run_syncs().then([](const auto& run) {
        return ByPieces().get(run.store(), "1")->times == 2 && !ByPieces().get(run.store(), "2");
    }));
}

TEST_CASE("when: a reactor of your own is given a batch, and its actions are compared as messages") {
    CHECK(given<Free>().when(Bought{1}).then(Bought{2}));
    CHECK(given<Free>().when(Bought{1}, Bought{5}).then(Bought{2}, Bought{6}));
    CHECK(given<Free>().when(Buy{1}).then(Message(Ship{1}).to("carrier")));
    CHECK_FALSE(given<Free>().when(Buy{1}).then(Ship{1}));
    CHECK(given<Free>().when(Buy{2}).then(sourced::dispatch(Ship{2}).at(sourced::Time(1h))));
    CHECK(text_of(given<Free>().when(Buy{2}).then_nothing()) ==
          "expected nothing\n"
          "but got  dispatch of shop.ship {\"pieces\":2} to 'free-1' at 3600000000 us");
    CHECK(given<Free>().when(Buy{3}).then(Ship{3}));
    CHECK(given<Free>(Bought{1}, Bought{1}).when(Buy{4}).then(Ship{3}));
    CHECK(given<Free>().when(Buy{5}).then([](const Actions& actions) {
        return actions.size() == 2 && std::holds_alternative<AfterSync>(actions[0]) &&
               std::holds_alternative<Acknowledge>(actions[1]);
    }));
    CHECK(given<Free>().when(Buy{6}, Bought{1}).then(Ship{6}, std::runtime_error("half done")));
    CHECK(given<Free>().when(Ship{1}).then_throws<sourced::NotRegistered>("'free' handles no 'shop.ship'"));
}

TEST_CASE("when: a handler's messages and dispatches, with the history that the past makes") {
    CHECK(given<Clerk>().when(Buy{1}).then(Bought{1}));
    CHECK(given<Clerk>(Buy{1}, Bought{1}).when(Buy{1}).then(Bought{3}));
    CHECK(given<Clerk>().when(Buy{0}).then_nothing());
    CHECK(given<Clerk>().when(Buy{-1}).then(std::out_of_range("pieces are negative")));
    CHECK(given<Clerk>().when(Bought{2}).then(sourced::dispatch(Ship{2}).to("carrier")));
    CHECK(given<Clerk>().when(Ship{2}).then(Message(Bought{2}).to("elsewhere")));
    CHECK(text_of(given<Clerk>().when(Bought{2}).then(Ship{2})) ==
          "expected shop.ship {\"pieces\":2}\n"
          "but got  shop.ship {\"pieces\":2} to 'carrier'");
    CHECK(given<Clerk>().replayed().when(Bought{2}).then_nothing());
}

TEST_CASE("when: a projector's reaction, also the one to everything, sees the state as of its event") {
    CHECK(given<Watch>(Bought{1}).when(Bought{2}).then(sourced::dispatch(Ship{13}).to_new("carrier")));
    CHECK_FALSE(given<Watch>(Bought{1}).when(Bought{2}).then(sourced::dispatch(Ship{13}).to("carrier")));
    CHECK(text_of(given<Watch>().when(Bought{2}).then_nothing()) ==
          "expected nothing\n"
          "but got  dispatch of shop.ship {\"pieces\":12} to a new 'carrier'");
    CHECK(given<Watch>().when(Bought{2}).then([](const Actions& actions) {
        return std::get<AppendNext>(actions.at(0)).messages.at(0).stream.rfind("carrier-", 0) == 0;
    }));
}

TEST_CASE("then_retry: a reactor that wants its batch again, at once or at a time") {
    CHECK(given<Free>().when(Buy{7}).then_retry());
    CHECK_FALSE(given<Free>().when(Buy{7}).then_retry(sourced::Time(2h)));
    CHECK(given<Free>().when(Buy{8}).then_retry());
    CHECK(given<Free>().when(Buy{8}).then_retry(sourced::Time(2h)));
    CHECK(text_of(given<Free>().when(Buy{8}).then_nothing()) ==
          "expected nothing\n"
          "but got  the batch again at 7200000000 us");
    CHECK_FALSE(given<Free>().when(Buy{1}).then_retry());
}

TEST_CASE("replayed: states change and syncs run, but nothing is decided or sent") {
    CHECK(given<Shop>().replayed().when(Buy{3}).then_nothing());
    CHECK(given<Shop>().replayed().when(Bought{3}).then_nothing().and_then_state(Stock{7, "shop-1"}));
    CHECK(given<Free>().replayed().when(Buy{1}).then_nothing());
    CHECK(given<Free>().replayed().when(Buy{5}).then([](const Actions& actions) {
        return actions.size() == 1 && std::holds_alternative<Acknowledge>(actions[0]);
    }));
    CHECK(ledger_of(given<Ledger>().replayed().when(Bought{3}).run_syncs().store()) == "ledger-1 3 in 1, replayed");
}

TEST_CASE("when: a message for another stream is refused") {
    CHECK_THROWS_WITH_AS((void)given<Shop>().stream("rome").when(Message(Buy{1}).to("oslo")),
                         "when: 'shop.buy' is for the stream 'oslo', and the test is of 'rome'", sourced::Error);
    CHECK(given<Shop>().stream("rome").when(Message(Buy{1}).to("rome")).then(Bought{1}));
}

TEST_CASE("Clock: copies show the same time, which moves only by hand") {
    sourced::testing::Clock clock;
    const auto start = clock.now();
    const std::function<sourced::Time()> copy = clock;
    CHECK(copy() == start);
    clock.advance(20s);
    CHECK(copy() - start == 20s);
    clock.set(start);
    CHECK(copy() == start);
    CHECK(sourced::testing::Clock(sourced::Time(1h)).now() == sourced::Time(1h));

    std::thread other([clock]() mutable { clock.advance(1s); });
    other.join();
    CHECK(clock.now() - start == 1s);
}
