// Reactions of actors and projectors, and simple handlers: what is sent, where it goes, and when.
#include <doctest/doctest.h>

#include <sourced.hpp>

#include <algorithm>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "support.hpp"

using namespace std::chrono_literals;
using support::error_of;
using sourced::App;
using sourced::dispatch;
using sourced::Dispatch;
using sourced::Dispatches;
using sourced::Envelope;
using sourced::Message;
using sourced::Messages;
using sourced::Metadata;
using sourced::testing::Clock;
using sourced::testing::given;

namespace {

template <int number>
struct E {
    int value = 0;
    static constexpr std::string_view sourced_type = [] {
        constexpr std::string_view names[] = {"e0", "e1", "e2", "e3", "e4", "e5", "e6", "e7", "e8"};
        return names[number];
    }();
    static constexpr sourced::Kind sourced_kind = sourced::Kind::event;
    template <class Archive>
    void serialize(Archive& archive) { archive(CEREAL_NVP(value)); }
};

struct Next {
    int value = 0;
    SOURCED_COMMAND("next", value)
};
struct Greet {
    std::string name;
    SOURCED_COMMAND("greet", name)
};
struct Mail {
    std::string text;
    SOURCED_COMMAND("mail", text)
};
struct Greeted {
    std::string name;
    SOURCED_EVENT("greeted", name)
};

struct Sum {
    int total = 0;
    SOURCED_VALUE(total)
};

/// An actor whose constructor is given by the test.
struct Free : sourced::Actor<Sum> {
    template <class F>
    explicit Free(F declare, std::string_view name = "free") : Actor(name) {
        declare(*this);
    }
    using Actor::command;
    using Actor::event;
    using Actor::options;
    using Actor::reaction;
};

/// A projector whose constructor is given by the test; its rows are read from `projection_totals`.
struct FreeTotals : sourced::Projection<Sum> {
    template <class F>
    explicit FreeTotals(F declare) : Projection("totals") {
        declare(*this);
    }
    using Projection::event;
    using Projection::key;
    using Projection::options;
    using Projection::reaction;
};

/// A handler whose constructor is given by the test.
struct FreeHandler : sourced::Handler {
    template <class F>
    explicit FreeHandler(F declare) : Handler("handler") {
        declare(*this);
    }
    using Handler::on;
    using Handler::options;
};

std::vector<std::string> types(const Messages& messages) {
    std::vector<std::string> list;
    for (const auto& message : messages) list.push_back(message.type);
    return list;
}
Messages of_type(App& app, const std::string& type) {
    return app.store().log({.types = {type}});
}
std::vector<int> values(const Messages& messages) {
    std::vector<int> list;
    for (const auto& message : messages) list.push_back(message.as<Next>().value);
    return list;
}
using Names = std::vector<std::string>;

/// Answers every e1 by the command `next` with the value that the state has by then.
void sum_up(Free& self) {
    self.event([](Sum& sum, const E<1>& event) { sum.total += event.value; });
    self.reaction([](const Sum& sum, const E<1>&) { return dispatch(Next{sum.total}); });
}

struct Mailer : sourced::Actor<Sum> {
    Mailer() : Actor("mailer") {
        command([](const Mail& mail) { return Greeted{mail.text}; });
    }
};
struct Nameless : sourced::Actor<Sum> {};

}  // namespace

// ---- Actors ------------------------------------------------------------------------

TEST_CASE("C6: a reaction sees the state as of its event and answers in its own stream") {
    App app;
    app.add<Free>(sum_up);
    app.dispatch(Messages{Message(E<1>{1}).to("s"), Message(E<1>{2}).to("s"), Message(E<1>{4}).to("s")});
    app.run_until_idle();
    const auto sent = of_type(app, "next");
    CHECK(values(sent) == std::vector{1, 3, 7});
    CHECK(std::all_of(sent.begin(), sent.end(), [](const Message& each) { return each.stream == "s"; }));
}

TEST_CASE("C7: one dispatch goes to another stream, another waits for its time") {
    Clock clock;
    App app({.clock = clock});
    app.add<Free>([&](Free& self) {
        self.reaction([&](const E<1>&) {
            return Dispatches{dispatch(Next{1}).to("different-stream"), dispatch(Greet{"Joe"}).at(clock.now() + 30s)};
        });
    });
    app.dispatch("s", E<1>{});
    app.run_until_idle();
    CHECK(types(app.history("different-stream")) == Names{"next"});
    CHECK(types(app.history("s")) == Names{"e1"});
    const auto waiting = app.store().scheduled();
    REQUIRE(waiting.size() == 1);
    CHECK(waiting[0].due_at == clock.now() + 30s);
    CHECK(waiting[0].message.type == "greet");
    clock.advance(30s);
    app.run_until_idle();
    CHECK(types(app.history("s")) == Names{"e1", "greet"});
}

TEST_CASE("C8: what is dispatched says who produced it, what it follows from, and whose metadata it has") {
    App app;
    app.add<Free>([](Free& self) {
        self.reaction([](const E<1>&) {
            return dispatch(Next{}).with_metadata(Metadata().set("greeting", "Hi!").set("who", "own"));
        });
    });
    const auto event = app.dispatch("s", Message(E<1>{}).with_metadata(Metadata().set("who", "event").set("tid", 7)));
    app.run_until_idle();
    const auto sent = of_type(app, "next");
    REQUIRE(sent.size() == 1);
    CHECK(sent[0].metadata.get("producer") == "free");
    CHECK(sent[0].metadata.get("greeting") == "Hi!");
    CHECK(sent[0].metadata.get("who") == "own");
    CHECK(sent[0].metadata.get("tid") == "7");
    CHECK(sent[0].causation == event.id);
    CHECK(sent[0].correlation == event.correlation);
}

TEST_CASE("C9: one reaction handles each of the types listed for it") {
    App app;
    app.add<Free>([](Free& self) {
        self.reaction<E<1>, E<2>>([](const auto& event) { return dispatch(Next{event.value}); });
    });
    app.dispatch(Messages{Message(E<1>{1}).to("s"), Message(E<2>{2}).to("s"), Message(E<3>{3}).to("s")});
    app.run_until_idle();
    CHECK(values(of_type(app, "next")) == std::vector{1, 2});
}

TEST_CASE("C9: a reaction to listed types may take the message as it is") {
    App app;
    std::vector<std::int64_t> seqs;
    app.add<Free>([&](Free& self) {
        self.event<E<1>, E<2>>([](Sum& sum, const Message& event) { sum.total += static_cast<int>(event.seq); });
        self.reaction<E<1>, E<2>>([&](const Sum& sum, const Message& event) {
            seqs.push_back(event.seq);
            return dispatch(Next{sum.total});
        });
    });
    app.dispatch(Messages{Message(E<1>{1}).to("s"), Message(E<2>{2}).to("s")});
    app.run_until_idle();
    CHECK(seqs == std::vector<std::int64_t>{1, 2});
    CHECK(values(of_type(app, "next")) == std::vector{1, 3});
}

TEST_CASE("D1: the wildcard reacts to what is evolved and has no reaction of its own") {
    // E1 to E3 have reactions of their own, E6 and E7 share one; E1, E4 and E5 are evolved.
    const auto own = [](Free& self) {
        self.reaction([](const E<1>&) { return dispatch(Next{1}); });
        self.reaction([](const E<2>&) { return dispatch(Next{2}); });
        self.reaction([](const E<3>&) { return dispatch(Next{3}); });
        self.reaction<E<6>, E<7>>([](const auto&) { return dispatch(Next{67}); });
    };
    const auto any = [](Free& self) {
        self.reaction([](const Message& event) {
            return dispatch(Greet{event.type});
        });
    };
    const auto evolve = [](Free& self) {
        self.event([](Sum&, const E<1>&) {});
        self.event([](Sum&, const E<4>&) {});
        self.event<E<5>>();
    };
    std::function<void(Free&)> declare;
    SUBCASE("D1: declared last") {
        declare = [=](Free& self) { own(self), evolve(self), any(self); };
    }
    SUBCASE("D1: declared first") {
        declare = [=](Free& self) { any(self), evolve(self), own(self); };
    }
    SUBCASE("D1: declared in between") {
        declare = [=](Free& self) { evolve(self), any(self), own(self); };
    }
    const Free actor(declare);
    auto handled = actor.definition().handled();
    std::sort(handled.begin(), handled.end());
    CHECK(handled == Names{"e1", "e2", "e3", "e4", "e5", "e6", "e7"});
    Names wild;
    for (const auto& [name, reaction] : actor.definition().reactions) {
        if (reaction.wildcard) wild.push_back(name);
    }
    std::sort(wild.begin(), wild.end());
    CHECK(wild == Names{"e4", "e5"});
    CHECK(given(actor).when(E<1>{}).then(dispatch(Next{1})));
    CHECK(given(actor).when(E<4>{}).then(dispatch(Greet{"e4"})));
    CHECK(given(actor).when(E<5>{}).then(dispatch(Greet{"e5"})));
    CHECK(given(actor).when(E<7>{}).then(dispatch(Next{67})));
}

TEST_CASE("D2: what several events lead to is sent in their order") {
    Clock clock;
    App app({.clock = clock});
    app.add<Free>([&](Free& self) {
        self.reaction([](const E<1>&) { return Dispatches{dispatch(Next{1}), dispatch(Next{2})}; });
        self.reaction([&](const E<2>&) {
            return dispatch(Next{3}).with_metadata(Metadata().set("greeting", "Hi!")).at(clock.now() + 10s);
        });
    });
    const auto events = app.dispatch(Messages{Message(E<1>{}).to("s"), Message(E<2>{}).to("s")});
    app.run_until_idle();
    clock.advance(10s);
    app.run_until_idle();
    const auto sent = of_type(app, "next");
    REQUIRE(values(sent) == std::vector{1, 2, 3});
    CHECK(sent[0].causation == events[0].id);
    CHECK(sent[2].causation == events[1].id);
    CHECK(sent[2].metadata.get("greeting") == "Hi!");
    CHECK(sent[0].recorded_at == clock.now() - 10s);
    CHECK(sent[2].recorded_at == clock.now());
    for (const auto& each : sent) CHECK(each.metadata.get("producer") == "free");
}

TEST_CASE("D3: a reaction may send nothing, and what has no reaction leads to nothing") {
    const Free actor([](Free& self) {
        self.event([](Sum&, const E<4>&) {});
        self.reaction([](const E<1>&) -> std::optional<Dispatch> { return std::nullopt; });
        self.reaction([](const E<2>&) { return std::vector<Dispatch>(); });
        self.reaction([](const E<3>&) -> Dispatches<Next> { return {}; });
    });
    CHECK(given(actor).when(E<1>{}).then_nothing());
    CHECK(given(actor).when(E<2>{}).then_nothing());
    CHECK(given(actor).when(E<3>{}).then_nothing());
    CHECK(given(actor).when(E<4>{}).then_nothing());
}

TEST_CASE("D4: the wildcard is given the state and the event") {
    App app;
    std::vector<std::pair<int, std::string>> seen;
    app.add<Free>([&](Free& self) {
        self.reaction([&](const Sum& sum, const Message& event) -> std::optional<Dispatch> {
            seen.emplace_back(sum.total, event.type);
            if (event.is<E<1>>()) return std::nullopt;
            return dispatch(Next{sum.total});
        });
        self.event<E<1>, E<2>>([](Sum& sum, const auto& event) { sum.total += event.value; });
    });
    app.dispatch(Messages{Message(E<1>{1}).to("s"), Message(E<2>{2}).to("s")});
    app.run_until_idle();
    CHECK(seen == std::vector<std::pair<int, std::string>>{{1, "e1"}, {3, "e2"}});
    CHECK(values(of_type(app, "next")) == std::vector{3});
}

TEST_CASE("Reactions: a second wildcard is an error") {
    const auto twice = [] {
        const Free actor([](Free& self) {
            self.reaction([](const Message&) { return dispatch(Next{}); });
            self.reaction([](const Sum&, const Message&) { return dispatch(Next{}); });
        });
    };
    CHECK(error_of(twice) == "actor 'free' has two reaction(const Message&) handlers");
}

TEST_CASE("Reactions: a new stream of another actor is another one each time and has its name in front") {
    App app({.seed = 7});
    app.add<Free>([](Free& self) {
        self.reaction([](const E<1>&) { return dispatch(Mail{"hello"}).to<Mailer>(); });
        self.reaction([](const E<2>&) { return dispatch(Mail{"hello"}).to_new("letter").in(0s); });
    });
    app.add<Mailer>();
    app.dispatch(Messages{Message(E<1>{}).to("s"), Message(E<1>{}).to("s"), Message(E<2>{}).to("s")});
    app.run_until_idle();
    const auto sent = of_type(app, "mail");
    REQUIRE(sent.size() == 3);
    CHECK(sent[0].stream.starts_with("mailer-"));
    CHECK(sent[0].stream.size() == std::string("mailer-").size() + 36);
    CHECK(sent[1].stream.starts_with("mailer-"));
    CHECK(sent[0].stream != sent[1].stream);
    CHECK(sent[2].stream.starts_with("letter-"));
    CHECK(types(app.history(sent[0].stream)) == Names{"mail", "greeted"});
    SUBCASE("a test compares the name in front alone") {
        const Free actor([](Free& self) {
            self.reaction([](const E<1>&) { return dispatch(Mail{"hello"}).to<Mailer>(); });
        });
        CHECK(given(actor).when(E<1>{}).then(dispatch(Mail{"hello"}).to<Mailer>()));
        CHECK_FALSE(given(actor).when(E<1>{}).then(dispatch(Mail{"hello"}).to("mailer")));
    }
    SUBCASE("an actor without a name is called like its class") {
        CHECK(dispatch(Mail{}).to<Nameless>().sending().to.ends_with("Nameless"));
    }
}

TEST_CASE("Reactions: commands reach other actors, whose events come back to the stream they name") {
    // The greeter's stream is told about what happened in the mailer's.
    struct Desk : sourced::Actor<Sum> {
        Desk() : Actor("desk") {
            command([](const Mail& mail) { return Greeted{mail.text}; });
            reaction([](const Greeted& greeted) { return dispatch(Next{7}).to(greeted.name); });
        }
    };
    App app;
    app.add<Free>([](Free& self) {
        self.reaction([](const E<1>&, const Envelope& event) { return dispatch(Mail{event.stream}).to("desk-1"); });
        self.command([](const Next& next) { return E<2>{next.value}; });
    });
    app.add<Desk>();
    const auto first = app.dispatch("s", E<1>{});
    app.run_until_idle();
    CHECK(types(app.history("s")) == Names{"e1", "next", "e2"});
    CHECK(types(app.history("desk-1")) == Names{"mail", "greeted"});
    for (const auto& each : app.store().log()) CHECK(each.correlation == first.id);
}

TEST_CASE("Reactions: an actor answers another actor's events in a stream they share") {
    struct Clerk : sourced::Actor<Sum> {
        Clerk() : Actor("clerk") {
            command([](const Sum& sum, const Greet&) { return E<1>{sum.total}; });
            event([](Sum& sum, const E<1>&) { ++sum.total; });
        }
    };
    App app;
    app.add<Clerk>();
    app.add<Free>([](Free& self) {
        self.event([](Sum& sum, const E<2>& event) { sum.total += event.value; });
        // Decided by the clerk, and not evolved here.
        self.reaction([](const Sum& sum, const E<1>& event) { return dispatch(Next{10 * sum.total + event.value}); });
        self.command([](const Next&) { return E<2>{1}; });
    });
    app.dispatch(Messages{Message(Greet{}).to("s"), Message(E<2>{5}).to("s"), Message(Greet{}).to("s")});
    app.run_until_idle();
    CHECK(values(of_type(app, "next")) == std::vector{50, 51});
    CHECK(app.load<Free>("s").state.total == 7);
}

TEST_CASE("Reactions: with a command that waits in the same batch, each is answered on the state as of its event") {
    App app;
    app.add<Free>([](Free& self) {
        sum_up(self);
        self.command([](const Sum& sum, const Greet&) { return E<1>{100 * sum.total}; });
    });
    app.dispatch(Messages{Message(E<1>{1}).to("s"), Message(Greet{}).to("s"), Message(E<1>{2}).to("s")});
    app.run_until_idle();
    // The command is decided on all there is, the reactions on what was there before.
    CHECK(values(of_type(app, "next")) == std::vector{1, 3, 303});
}

TEST_CASE("Reactions: a dispatch may go where another message stands") {
    const auto other = Message(E<1>{}).to("elsewhere");
    CHECK(dispatch(Next{}).to(other).sending().to == "elsewhere");
    Dispatch erased = dispatch(Next{}).to("a").in(1s).with_metadata(Metadata());
    erased.to(other);
    CHECK(erased.sending().to == "elsewhere");
}

TEST_CASE("Reactions: what can come of a handler is known from its type") {
    using Produces = std::optional<Names>;
    const Free actor([](Free& self) {
        self.event([](Sum&, const E<5>&) {});
        self.command([](const Next& next) { return E<1>{next.value}; });
        self.command([](const Greet&) -> sourced::Decision<E<1>, E<2>> { return {}; });
        self.command([](const Mail&) { return sourced::Events(); }).produces<E<3>>();
        self.reaction([](const E<1>&) { return dispatch(Next{}).to("a").in(1s); });
        self.reaction([](const E<2>&) -> std::optional<sourced::DispatchOf<Greet>> { return std::nullopt; });
        self.reaction([](const E<3>&) -> Dispatches<Next, Mail> { return dispatch(Mail{}); });
        self.reaction([](const E<4>&) -> Dispatch { return dispatch(Next{}); });
        self.reaction([](const Message&) { return std::vector<Dispatch>(); }).produces<Mail, Next>();
        self.reaction<E<6>, E<7>>([](const auto&) { return Dispatches<>(); }).produces<Mail>();
    });
    const auto& definition = actor.definition();
    CHECK(definition.commands.at("next").produces == Produces({"e1"}));
    CHECK(definition.commands.at("greet").produces == Produces({"e1", "e2"}));
    CHECK(definition.commands.at("mail").produces == Produces({"e3"}));
    CHECK(definition.reactions.at("e1").produces == Produces({"next"}));
    CHECK(definition.reactions.at("e2").produces == Produces({"greet"}));
    CHECK(definition.reactions.at("e3").produces == Produces({"next", "mail"}));
    CHECK_FALSE(definition.reactions.at("e4").produces);
    CHECK(definition.reactions.at("e5").produces == Produces({"mail", "next"}));
    CHECK(definition.reactions.at("e7").produces == Produces({"mail"}));
}

// ---- Projectors --------------------------------------------------------------------

namespace {

void total_up(FreeTotals& self) {
    self.event([](Sum& sum, const E<1>& event) { sum.total += event.value; });
}
void react_above_20(FreeTotals& self) {
    total_up(self);
    self.reaction([](const Sum& sum, const E<1>&) -> std::optional<Dispatch> {
        if (sum.total > 20) return dispatch(Next{sum.total});
        return std::nullopt;
    });
}

}  // namespace

TEST_CASE("E5: a projector's reaction sees the totals 10, 20, 25, 31 as of their own events") {
    App app;
    std::vector<int> seen;
    std::size_t batch_size = 50;
    SUBCASE("E5: in one batch") {}
    SUBCASE("E5: one by one") { batch_size = 1; }
    SUBCASE("E5: two at a time") { batch_size = 2; }
    auto& totals = app.add<FreeTotals>([&](FreeTotals& self) {
        total_up(self);
        self.options({.batch_size = batch_size});
        self.reaction([&](const Sum& sum, const E<1>&) -> std::optional<Dispatch> {
            seen.push_back(sum.total);
            if (sum.total > 20) return dispatch(Next{sum.total});
            return std::nullopt;
        });
    });
    Messages events;
    for (const int amount : {10, 10, 5, 6}) events.push_back(Message(E<1>{amount}).to("222"));
    app.dispatch(events);
    app.run_until_idle();
    CHECK(seen == std::vector{10, 20, 25, 31});
    const auto sent = of_type(app, "next");
    CHECK(values(sent) == std::vector{25, 31});
    CHECK(sent.back().stream == "222");
    CHECK(sent.back().metadata.get("producer") == "totals");
    CHECK(totals.get(app.store(), "222")->total == 31);
}

TEST_CASE("E5: totals 10 and 20 lead to a sync alone, 25 and 31 to a command and a sync") {
    const FreeTotals totals(react_above_20);
    const auto actions = [&](const auto& step) {
        Names names;
        for (const auto& action : step.actions()) {
            if (const auto* append = std::get_if<sourced::AppendNext>(&action)) {
                REQUIRE(append->messages.size() == 1);
                CHECK(append->messages[0].stream == "222");
                names.push_back("append " + std::to_string(append->messages[0].template as<Next>().value));
            } else {
                names.push_back(std::holds_alternative<sourced::Sync>(action) ? "sync" : "something else");
            }
        }
        return names;
    };
    CHECK(actions(given(totals).stream("222").when(E<1>{10})) == Names{"sync"});
    CHECK(actions(given(totals, E<1>{10}).stream("222").when(E<1>{10})) == Names{"sync"});
    CHECK(actions(given(totals, E<1>{10}, E<1>{10}).stream("222").when(E<1>{5})) == Names{"append 25", "sync"});
    CHECK(actions(given(totals, E<1>{10}, E<1>{10}, E<1>{5}).stream("222").when(E<1>{6})) ==
          Names{"append 31", "sync"});
    // E7: a replay is synced alone.
    CHECK(actions(given(totals, E<1>{10}, E<1>{10}, E<1>{5}).stream("222").replayed().when(E<1>{6})) == Names{"sync"});
}

TEST_CASE("E5: an event-sourced projector reacts on the state as of each event too") {
    struct History : sourced::EventSourcedProjector<Sum> {
        History() : EventSourcedProjector("history") {
            event([](Sum& sum, const E<1>& event) { sum.total += event.value; });
            reaction([](const Sum& sum, const E<1>&) { return dispatch(Next{sum.total}); });
        }
    };
    App app;
    app.add<History>();
    app.dispatch(Messages{Message(E<1>{1}).to("s"), Message(E<1>{2}).to("s")});
    app.run_until_idle();
    app.dispatch("s", E<1>{4});
    app.run_until_idle();
    CHECK(values(of_type(app, "next")) == std::vector{1, 3, 7});
    CHECK(app.load<History>("s").state.total == 7);
}

TEST_CASE("E6: a projector's wildcard reacts to an evolved event without a reaction of its own") {
    App app;
    app.add<FreeTotals>([](FreeTotals& self) {
        self.reaction([](const Sum& sum, const Message&) -> std::optional<Dispatch> {
            if (sum.total > 10) return dispatch(Next{sum.total});
            return std::nullopt;
        });
        self.event<E<1>, E<2>>([](Sum& sum, const auto& event) { sum.total += event.value; });
        self.reaction([](const E<2>&) -> std::optional<Dispatch> { return std::nullopt; });
    });
    app.dispatch(Messages{Message(E<1>{10}).to("s"), Message(E<2>{5}).to("s"), Message(E<1>{1}).to("s")});
    app.run_until_idle();
    CHECK(values(of_type(app, "next")) == std::vector{16});
}

TEST_CASE("E7: in a replay a projector is synced and does not react") {
    App app;
    auto& totals = app.add<FreeTotals>(react_above_20);
    app.dispatch(Messages{Message(E<1>{10}).to("s"), Message(E<1>{15}).to("s")});
    app.run_until_idle();
    REQUIRE(values(of_type(app, "next")) == std::vector{25});
    app.reset_group("totals");
    CHECK_FALSE(totals.get(app.store(), "s"));
    app.dispatch("s", E<1>{1});
    app.run_until_idle();
    CHECK(totals.get(app.store(), "s")->total == 26);
    CHECK(values(of_type(app, "next")) == std::vector{25, 26});
}

TEST_CASE("E8: a reaction of a projector to what it does not evolve is an error when it is added") {
    App app;
    const auto add = [&] {
        app.add<FreeTotals>([](FreeTotals& self) {
            self.reaction([](const E<2>&) { return dispatch(Next{}); });
            total_up(self);
        });
    };
    CHECK(error_of(add) == "projector 'totals' reacts to 'e2', but has no event handler for it");
}

TEST_CASE("E11: when the reaction to the fourth of five fails, the first three are kept and the others come again") {
    Clock clock;
    App app({.clock = clock});
    bool broken = true;
    std::vector<int> reacted;
    auto& totals = app.add<FreeTotals>([&](FreeTotals& self) {
        total_up(self);
        self.reaction([&](const Sum& sum, const E<1>& event) {
            if (broken && event.value == 8) throw std::runtime_error("no eight");
            reacted.push_back(event.value);
            return dispatch(Next{sum.total});
        });
    });
    Messages events;
    for (const int value : {1, 2, 4, 8, 16}) events.push_back(Message(E<1>{value}).to("s"));
    app.dispatch(events);
    app.run_until_idle();
    CHECK(app.stats().group("totals").newest == 3);
    CHECK(totals.get(app.store(), "s")->total == 7);
    CHECK(values(of_type(app, "next")) == std::vector{1, 3, 7});
    CHECK(reacted == std::vector{1, 2, 4});
    CHECK(app.stats().group("totals").retry_error == "no eight");
    broken = false;
    clock.advance(1min);
    app.run_until_idle();
    CHECK(totals.get(app.store(), "s")->total == 31);
    CHECK(values(of_type(app, "next")) == std::vector{1, 3, 7, 15, 31});
}

TEST_CASE("E11: a sync that fails takes the reactions' commands back with it") {
    struct Failing : sourced::Projector<Sum> {
        explicit Failing(const bool& broken) : Projector("failing") {
            event([](Sum& sum, const E<1>& event) { sum.total += event.value; });
            reaction([](const Sum& sum, const E<1>&) { return dispatch(Next{sum.total}); });
            sync([&broken](const Sum&) {
                if (broken) throw std::runtime_error("the disk is elsewhere");
            });
        }
    };
    Clock clock;
    App app({.clock = clock});
    bool broken = true;
    app.add<Failing>(broken);
    app.dispatch("s", E<1>{1});
    app.run_until_idle();
    CHECK(of_type(app, "next").empty());
    broken = false;
    clock.advance(1min);
    app.run_until_idle();
    CHECK(values(of_type(app, "next")) == std::vector{1});
}

TEST_CASE("Projector: where the state is keyed a reaction takes the event alone") {
    const auto by_value = [](FreeTotals& self) {
        total_up(self);
        self.key([](const E<1>& event) { return event.value % 2; });
    };
    SUBCASE("and is sent for each event") {
        App app;
        auto& totals = app.add<FreeTotals>([&](FreeTotals& self) {
            by_value(self);
            self.reaction([](const E<1>& event) { return dispatch(Next{event.value}); });
        });
        app.dispatch(Messages{Message(E<1>{1}).to("s"), Message(E<1>{2}).to("s"), Message(E<1>{3}).to("s")});
        app.run_until_idle();
        CHECK(values(of_type(app, "next")) == std::vector{1, 2, 3});
        CHECK(totals.get(app.store(), "1")->total == 4);
    }
    SUBCASE("a failing one keeps what came before") {
        App app({.errors = sourced::Retries{.times = 0}});
        auto& totals = app.add<FreeTotals>([&](FreeTotals& self) {
            by_value(self);
            self.reaction([](const E<1>& event) {
                if (event.value == 3) throw std::runtime_error("no three");
                return dispatch(Next{event.value});
            });
        });
        app.dispatch(Messages{Message(E<1>{1}).to("s"), Message(E<1>{3}).to("s"), Message(E<1>{5}).to("s")});
        app.run_until_idle();
        CHECK(values(of_type(app, "next")) == std::vector{1});
        CHECK(totals.get(app.store(), "1")->total == 1);
        CHECK(app.stats().group("totals").newest == 1);
    }
    SUBCASE("one that asks for the state is an error") {
        App app;
        const auto add = [&] {
            app.add<FreeTotals>([&](FreeTotals& self) {
                by_value(self);
                self.reaction([](const Sum&, const E<1>& event) { return dispatch(Next{event.value}); });
            });
        };
        CHECK(error_of(add) ==
              "projector 'totals' is keyed, so its state is not at hand where it reacts to 'e1': write (const Event&)");
    }
}

// ---- Handlers -------------------------------------------------------------------------

TEST_CASE("F1: what a handler returns follows from the message, in its stream") {
    App app;
    app.add<FreeHandler>([](FreeHandler& self) {
        self.on([](const Greet& greet) { return Greeted{greet.name}; });
    });
    const auto cause = app.dispatch("s", Message(Greet{"Joe"}).with_metadata(Metadata().set("tid", 7)));
    app.run_until_idle();
    const auto log = app.history("s");
    REQUIRE(types(log) == Names{"greet", "greeted"});
    CHECK(log[1].as<Greeted>().name == "Joe");
    CHECK(log[1].causation == cause.id);
    CHECK(log[1].correlation == cause.correlation);
    CHECK(log[1].metadata.get("tid") == "7");
    CHECK(log[1].metadata.get("producer") == "handler");
    CHECK(app.stats().group("handler").newest == 1);
}

TEST_CASE("F1: a handler returns one message, several, a dispatch or nothing") {
    Clock clock;
    App app({.clock = clock});
    int called = 0;
    app.add<FreeHandler>([&](FreeHandler& self) {
        self.on([](const E<1>& event) -> std::optional<Next> {
            if (event.value == 0) return std::nullopt;
            return Next{event.value};
        });
        self.on([](const E<2>&) { return std::vector{Next{21}, Next{22}}; });
        self.on([](const E<3>&) { return Messages{Next{31}, Message(Greeted{"Joe"}).to("other")}; });
        self.on([](const E<4>&) { return dispatch(Next{41}).to("other").in(10s); });
        self.on([](const E<5>&) -> Dispatches<Next, Greet> { return {dispatch(Next{51}), dispatch(Greet{"Ann"})}; });
        self.on([&](const E<6>&) { ++called; });
        self.on([](const E<7>&, const Envelope& event) { return Message(Next{int(event.seq)}).to("third"); });
    });
    app.dispatch(Messages{Message(E<1>{0}).to("s"), Message(E<1>{11}).to("s"), Message(E<2>{}).to("s"),
                          Message(E<3>{}).to("s"), Message(E<4>{}).to("s"), Message(E<5>{}).to("s"),
                          Message(E<6>{}).to("s"), Message(E<7>{}).to("s")});
    CHECK(app.run_until_idle() == 8);
    CHECK(values(of_type(app, "next")) == std::vector{11, 21, 22, 31, 51, 8});
    CHECK(types(app.history("other")) == Names{"greeted"});
    CHECK(called == 1);
    clock.advance(10s);
    app.run_until_idle();
    CHECK(types(app.history("other")) == Names{"greeted", "next"});
}

TEST_CASE("F2: through the runtime a handler is given its stream's messages up to the handled one") {
    App app;
    std::vector<Names> histories;
    std::size_t batch_size = 50;
    SUBCASE("F2: in one batch") {}
    SUBCASE("F2: one by one") { batch_size = 1; }
    app.add<FreeHandler>([&](FreeHandler& self) {
        self.options({.batch_size = batch_size});
        self.on([&](const E<1>&, const Messages& history) {
            histories.push_back(types(history));
            return Greeted{std::to_string(history.size())};
        });
        self.on([](const E<2>&) {});
    });
    app.dispatch(Messages{Message(Next{}).to("s"), Message(E<1>{}).to("s"), Message(E<1>{}).to("other"),
                          Message(E<2>{}).to("s"), Message(E<1>{}).to("s"), Message(Next{}).to("s")});
    app.run_until_idle();
    std::sort(histories.begin(), histories.end());
    CHECK(histories[0] == Names{"e1"});
    // With a batch size of one what came of the first stands before the second by then, but behind it in the stream.
    CHECK(histories[1] == Names{"next", "e1"});
    CHECK(histories[2] == Names{"next", "e1", "e2", "e1"});
    CHECK(of_type(app, "greeted").size() == 3);
}

TEST_CASE("F3: one handler is called for each of its types") {
    App app;
    Names seen;
    app.add<FreeHandler>([&](FreeHandler& self) {
        self.on<E<1>, Next>([&](const auto& message, const Envelope& envelope) {
            seen.push_back(envelope.type + std::to_string(message.value));
        });
        self.on<E<2>, Greet>([&](const Message& message) { seen.push_back(std::to_string(message.seq)); });
    });
    app.dispatch(Messages{Message(E<1>{1}).to("s"), Message(Next{2}).to("s"), Message(Greet{}).to("s"),
                          Message(E<2>{}).to("s")});
    app.run_until_idle();
    CHECK(seen == Names{"e11", "next2", "3", "4"});
}

TEST_CASE("F5: whether a handler needs the history is known when it is declared") {
    const FreeHandler without([](FreeHandler& self) { self.on([](const E<1>&, const Envelope&) {}); });
    CHECK_FALSE(without.definition().wants_history);
    const FreeHandler with([](FreeHandler& self) {
        self.on([](const E<1>&) {});
        self.on<E<2>, E<3>>([](const auto&, const Messages&) {});
    });
    CHECK(with.definition().wants_history);
}

TEST_CASE("F6: a handler that asks for it is told of a replay, and what it returns then is dropped") {
    App app;
    std::vector<std::pair<int, bool>> asked;
    std::vector<int> plain;
    app.add<FreeHandler>([&](FreeHandler& self) {
        self.on([&](const E<1>& event, sourced::Replay replay) {
            asked.emplace_back(event.value, replay.value);
            return Next{event.value};
        });
        self.on([&](const E<2>& event) {
            plain.push_back(event.value);
            return Next{event.value};
        });
    });
    app.dispatch(Messages{Message(E<1>{1}).to("s"), Message(E<2>{2}).to("s")});
    app.run_until_idle();
    CHECK(asked == std::vector<std::pair<int, bool>>{{1, false}});
    app.reset_group("handler");
    app.dispatch("s", E<1>{3});
    app.run_until_idle();
    CHECK(asked == std::vector<std::pair<int, bool>>{{1, false}, {1, true}, {3, false}});
    CHECK(plain == std::vector{2});
    CHECK(values(of_type(app, "next")) == std::vector{1, 2, 3});
}

TEST_CASE("F7: a handler's group is called like its class, or as it is said") {
    struct Lights : sourced::Handler {
        Lights() { on([](const E<1>&) {}); }
    };
    App app;
    CHECK(app.add<Lights>().name().ends_with("Lights"));
    CHECK(app.add<FreeHandler>([](FreeHandler&) {}).name() == "handler");
    CHECK(app.stats().group("handler").active);
}

TEST_CASE("F7: a handler begins where it says") {
    App app;
    app.dispatch("s", E<1>{1});
    std::vector<int> seen;
    app.add<FreeHandler>([&](FreeHandler& self) {
        self.options({.start_from = sourced::Start::now()});
        self.on([&](const E<1>& event) { seen.push_back(event.value); });
    });
    app.dispatch("s", E<1>{2});
    app.run_until_idle();
    CHECK(seen == std::vector{2});
}

TEST_CASE("B2: a derived handler adds to those of its base") {
    struct Base : sourced::Handler {
        explicit Base(std::string_view name = "base") : Handler(name) {
            on([](const E<1>&) { return Next{1}; });
        }
    };
    struct Derived : Base {
        Derived() : Base("derived") {
            on(&Derived::second);
        }
        Next second(const E<2>& event) const { return {event.value}; }
    };
    CHECK(Derived().definition().handled() == Names{"e1", "e2"});
    CHECK(Base().definition().handled() == Names{"e1"});
    App app;
    app.add<Derived>();
    app.dispatch(Messages{Message(E<1>{}).to("s"), Message(E<2>{2}).to("s")});
    app.run_until_idle();
    CHECK(values(of_type(app, "next")) == std::vector{1, 2});
}

TEST_CASE("Handler: a second handler for a type is an error") {
    const auto twice = [] {
        const FreeHandler handler([](FreeHandler& self) {
            self.on([](const E<1>&) {});
            self.on([](const E<1>&, const Envelope&) {});
        });
    };
    CHECK(error_of(twice) == "reactor 'handler' has two message handlers for 'e1'");
}
