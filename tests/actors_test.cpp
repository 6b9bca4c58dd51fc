// What actors declare, and what comes of it without a store; C4 to C12 as far as a store is needed are in app_test.cpp.
#include <doctest/doctest.h>

#include <sourced.hpp>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "support.hpp"

using namespace std::chrono_literals;
using support::error_of;
using sourced::Decision;
using sourced::Envelope;
using sourced::Events;
using sourced::Message;
using sourced::Messages;
using sourced::testing::given;

namespace {

struct Add {
    std::string name;
    SOURCED_COMMAND("list.add", name)
};
struct AddAsEvent {  // by mistake under the command's name
    std::string name;
    SOURCED_EVENT("list.add", name)
};
struct Clear {
    SOURCED_COMMAND("list.clear")
};
struct Notify {
    int item_count = 0;
    SOURCED_COMMAND("list.notify", item_count)
};
struct Started {
    SOURCED_EVENT("list.started")
};
struct Added {
    std::string name;
    SOURCED_EVENT("list.added", name)
    static constexpr std::array<std::string_view, 1> sourced_aliases{"list.item_added"};
};
struct Cleared {
    SOURCED_EVENT("list.cleared")
};
struct Noted {
    std::string text;
    SOURCED_EVENT("list.noted", text)
};
struct Archived {
    SOURCED_EVENT("list.archived")
};

struct Items {
    std::string id;
    bool started = false;
    std::vector<std::string> names{};
    std::vector<std::string> log{};
};

struct List : sourced::Actor<Items> {
    List() : Actor("list") {
        state([](std::string_view id) { return Items{.id = std::string(id)}; });
        command([](const Items& list, const Add& add) {
            Events events;
            if (!list.started) events.add(Started{});
            events.add(Added{add.name});
            return events;
        });
        command([](const Items& list, const Clear&) -> Decision<Cleared, Archived> {
            if (list.names.empty()) return {};
            if (list.names.size() > 2) return {Cleared{}, Archived{}};
            if (list.names.front() == "keep") return sourced::refuse("an item is to be kept");
            return Cleared{};
        });
        event([](Items& list, const Started&) { list.started = true; });
        event([](Items& list, const Added& added) { list.names.push_back(added.name); });
        event([](Items& list, const Cleared&) { list.names.clear(); });
    }
};

/// An actor whose constructor is given by the test.
struct Free : sourced::Actor<Items> {
    template <class F>
    explicit Free(F declare) : Actor("free") {
        declare(*this);
    }
    using Actor::before_evolve;
    using Actor::command;
    using Actor::event;
    using Actor::options;
    using Actor::reaction;
    using Actor::state;
    using Actor::sync;
};

Messages numbered(const std::string& stream, Messages messages) {
    std::int64_t seq = 0;
    for (auto& message : messages) message = message.to(stream).with_seq(++seq);
    return messages;
}

}  // namespace

// ---- Evolving --------------------------------------------------------------------

TEST_CASE("B1: events are applied in order, one or several") {
    const List list;
    CHECK(list.evolve("list-1", {Started{}, Added{"a"}, Added{"b"}}).names == std::vector<std::string>{"a", "b"});
    CHECK(list.evolve("list-1", {Added{"a"}}).names == std::vector<std::string>{"a"});
    CHECK(list.evolve("list-1", {}).id == "list-1");
}

TEST_CASE("B2: a derived actor adds handlers, its base keeps its own") {
    struct Base : sourced::Actor<Items> {
        explicit Base(std::string_view name = "base") : Actor(name) {
            event([](Items& items, const Started&) { items.log.push_back("started"); });
            event([](Items& items, const Added&) { items.log.push_back("added"); });
        }
    };
    struct Derived : Base {
        Derived() : Base("derived") {
            event([](Items& items, const Cleared&) { items.log.push_back("cleared"); });
        }
    };
    const Messages past{Started{}, Added{"a"}, Cleared{}};
    CHECK(Derived().evolve("x-1", past).log == std::vector<std::string>{"started", "added", "cleared"});
    CHECK(Base().evolve("x-1", past).log == std::vector<std::string>{"started", "added"});
    CHECK(Derived().definition().order ==
          std::vector<std::string>{"list.started", "list.added", "list.item_added", "list.cleared"});
    CHECK(Base().definition().order.size() == 3);
}

TEST_CASE("B3: an event declared without a handler is known and leaves the state alone") {
    const Free actor([](Free& self) {
        self.event<Archived>();
        self.event([](Items& items, const Added& added) { items.names.push_back(added.name); });
    });
    CHECK(actor.definition().events.contains("list.archived"));
    CHECK(actor.evolve("x-1", {Archived{}, Added{"a"}, Archived{}}).names == std::vector<std::string>{"a"});
}

TEST_CASE("B4: one handler runs for each of the listed events") {
    const Free actor([](Free& self) {
        self.event<Started, Added, Cleared>([](Items& items, const auto& event) {
            items.log.emplace_back(sourced::message_type<std::remove_cvref_t<decltype(event)>>());
        });
    });
    CHECK(actor.evolve("x-1", {Started{}, Archived{}, Added{"a"}, Cleared{}}).log ==
          std::vector<std::string>{"list.started", "list.added", "list.cleared"});
}

TEST_CASE("B5: before_evolve is called before each event that has a handler, with its envelope") {
    const Free actor([](Free& self) {
        self.before_evolve(
            [](Items& items, const Envelope& envelope) { items.log.push_back(std::to_string(envelope.seq)); });
        self.event([](Items& items, const Started&) { items.log.push_back("started"); });
        self.event([](Items& items, const Added&) { items.log.push_back("added"); });
    });
    CHECK(actor.evolve("x-1", numbered("x-1", {Started{}, Added{"a"}, Archived{}})).log ==
          std::vector<std::string>{"1", "started", "2", "added"});
}

TEST_CASE("B6: the state and the seq follow the last message") {
    const auto step = given<List>(Started{}, Added{"a"}).when(Cleared{});
    CHECK(step.state().started);
    CHECK(step.seq() == 3);
}

TEST_CASE("B7: a message of a different stream, or one that does not lie behind the last, is an error") {
    const List list;
    const auto history = numbered("list-1", {Started{}, Added{"a"}});
    CHECK(error_of([&] { (void)list.evolve("list-2", history); }).find("different stream") != std::string::npos);
    CHECK(error_of([&] {
              (void)list.evolve("list-1", {history[1], history[0]});
          }).find("its seq 1 is not behind the last, 2") != std::string::npos);
    CHECK(error_of([&] {
              (void)list.evolve("list-1", {history[0], history[0]});
          }).find("list.started") != std::string::npos);

    SUBCASE("B7: an unknown type still advances the seq") {
        CHECK(given<List>(Archived{}, Archived{}).when(Add{"a"}).events().front().seq == 4);
        const auto unknown = numbered("list-1", {Archived{}, Archived{}, Started{}});
        CHECK(error_of([&] {
                  (void)list.evolve("list-1", {unknown[0], unknown[1], history[1]});
              }).find("not behind") != std::string::npos);
    }
}

TEST_CASE("Actor: stored events under a former name are evolved as well") {
    Message old = Added{"a"};
    old.type = "list.item_added";
    CHECK(List().evolve("list-1", {old}).names == std::vector<std::string>{"a"});
}

// ---- Declaring -------------------------------------------------------------------

TEST_CASE("C1: an actor handles its commands and the events it reacts to, not those it merely evolves") {
    const Free actor([](Free& self) {
        self.command([](const Add&) { return Added{}; });
        self.event([](Items&, const Started&) {});
        self.event([](Items&, const Cleared&) {});
        self.reaction([](const Cleared&) { return sourced::dispatch(Add{"again"}); });
    });
    CHECK(actor.definition().handled() == std::vector<std::string>{"list.add", "list.cleared"});
}

TEST_CASE("C2: one type as command and reaction is an error, whichever comes first") {
    const std::string both = "actor 'free' has 'list.add' both as a command and as a reaction";
    const auto command = [](Free& self) { self.command([](const Add&) { return Added{}; }); };
    const auto reaction = [](Free& self) {
        self.reaction([](const AddAsEvent&) { return sourced::dispatch(Clear{}); });
    };
    CHECK(error_of([&] {
              Free([&](Free& self) {
                  command(self);
                  reaction(self);
              });
          }) == both);
    CHECK(error_of([&] {
              Free([&](Free& self) {
                  reaction(self);
                  command(self);
              });
          }) == both);
}

TEST_CASE("Actor: a second handler for the same type is an error that names both") {
    CHECK(error_of([] {
              Free([](Free& self) {
                  self.command([](const Add&) { return Added{}; });
                  self.command([](const Items&, const Add&) { return Added{}; });
              });
          }) == "actor 'free' has two command handlers for 'list.add'");
    CHECK(error_of([] {
              Free([](Free& self) {
                  self.event([](Items&, const Added&) {});
                  self.event<Started, Added>([](Items&, const auto&) {});
              });
          }) == "actor 'free' has two event handlers for 'list.added'");
    CHECK(error_of([] {
              Free([](Free& self) {
                  self.reaction([](const Added&) { return sourced::dispatch(Clear{}); });
                  self.reaction([](const Added&) { return sourced::dispatch(Clear{}); });
              });
          }) == "actor 'free' has two reaction handlers for 'list.added'");
    CHECK(error_of([] {
              Free([](Free& self) {
                  self.state([] { return Items{}; });
                  self.state([] { return Items{}; });
              });
          }) == "actor 'free' has two state handlers");
}

TEST_CASE("Actor: its name is that of its class unless it has one") {
    struct Nameless : sourced::Actor<int> {};
    CHECK(sourced::detail::make_reactor<Nameless>()->name().find("Nameless") != std::string::npos);
    struct Blank : sourced::Actor<int> {
        Blank() : Actor("  ") {}
    };
    CHECK_THROWS_AS(sourced::detail::make_reactor<Blank>(), sourced::Invalid);
}

TEST_CASE("Actor: a State without default constructor needs a state handler") {
    struct State {
        explicit State(int) {}
    };
    struct Half : sourced::Actor<State> {
        Half() : Actor("half") {}
    };
    struct Whole : sourced::Actor<State> {
        Whole() : Actor("whole") {
            state([] { return State(1); });
        }
    };
    CHECK(error_of([] { (void)sourced::detail::make_reactor<Half>(); }) ==
          "actor 'half' has no state handler, and its State no default constructor");
    CHECK_NOTHROW(sourced::detail::make_reactor<Whole>());
}

TEST_CASE("Actor: options are kept as they are given") {
    const Free actor([](Free& self) {
        self.options({.batch_size = 10, .errors = sourced::Retries{.times = 5}, .start_from = sourced::Start::now()});
    });
    CHECK(actor.definition().options.batch_size == 10u);
    CHECK(actor.definition().options.errors.has_value());
    CHECK(actor.definition().options.start_from.from == sourced::Start::From::now);
}

TEST_CASE("Actor: types that handlers name are registered, also those that are only returned") {
    sourced::Registry registry;
    const List list;
    for (const auto& add : list.definition().registrations) add(registry);
    for (const auto* name :
         {"list.add", "list.clear", "list.started", "list.added", "list.item_added", "list.archived"}) {
        CHECK_MESSAGE(registry.find(name) != nullptr, name);
    }
}

// ---- Handlers of every form --------------------------------------------------------

namespace {

Added add_item(const Items&, const Add& add) { return {add.name}; }
void item_added(Items& items, const Added& added) { items.names.push_back(added.name); }

struct Members : sourced::Actor<Items> {
    Members() : Actor("members") {
        command(&Members::add);
        event(&Members::added);
        reaction(&Members::answer);
    }
    Added add(const Items& items, const Add& add) const {
        return {add.name + prefix + std::to_string(items.names.size())};
    }
    void added(Items& items, const Added& added, const Envelope& envelope) const {
        items.names.push_back(added.name + '@' + std::to_string(envelope.seq));
    }
    sourced::Dispatch answer(const Added&) const { return sourced::dispatch(Notify{7}); }
    std::string prefix = "#";
};

}  // namespace

TEST_CASE("Actor: handlers may be functions or const member functions") {
    const Free functions([](Free& self) {
        self.command(add_item);
        self.event(item_added);
    });
    CHECK(given(functions, Added{"a"}).when(Add{"b"}).then(Added{"b"}));
    CHECK(given(functions, Added{"a"}).state().names == std::vector<std::string>{"a"});
    CHECK(given<Members>(Added{"a"}).when(Add{"b"}).then(Added{"b#1"}));
    CHECK(given<Members>(Added{"a"}, Added{"b"}).state().names == std::vector<std::string>{"a@1", "b@2"});
    CHECK(given<Members>().when(Added{"a"}).then(sourced::dispatch(Notify{7})));
}

TEST_CASE("Actor: a handler may take the state or not, by value or not, and the envelope") {
    const Free actor([](Free& self) {
        self.command([](Items items, Add add, Envelope envelope) {
            return Noted{items.id + add.name + std::to_string(envelope.seq)};
        });
        self.command([](const Clear&, const Envelope& envelope) { return Noted{envelope.stream}; });
        self.reaction(
            [](const Started&, const Envelope& envelope) { return sourced::dispatch(Notify{int(envelope.seq)}); });
        self.reaction([](const Items&, const Cleared&, const Envelope& envelope) {
            return sourced::dispatch(Notify{-int(envelope.seq)});
        });
        self.state([](std::string_view id) { return Items{.id = std::string(id)}; });
    });
    CHECK(given(actor).stream("s-1").when(Add{"x"}).then(Noted{"s-1x1"}));
    CHECK(given(actor).stream("s-2").when(Clear{}).then(Noted{"s-2"}));
    CHECK(given(actor, Added{}).when(Started{}).then(sourced::dispatch(Notify{2})));
    CHECK(given(actor, Added{}).when(Cleared{}).then(sourced::dispatch(Notify{-2})));
}

// ---- Deciding ----------------------------------------------------------------------

TEST_CASE("C3: a decision's events take the next seqs and are in the state") {
    const auto first = given<List>().when(Add{"Shoes"});
    REQUIRE(first.events().size() == 2);
    CHECK(first.events()[0].is<Started>());
    CHECK(first.events()[0].seq == 2);  // the command is 1: it is in the stream too
    CHECK(first.events()[1].is<Added>());
    CHECK(first.events()[1].seq == 3);
    CHECK(first.seq() == 3);
    CHECK(first.state().names.size() == 1);

    const auto second = given<List>(Started{}, Added{"Shoes"}).when(Add{"Socks"});
    CHECK(second.then(Added{"Socks"}));
    CHECK(second.events().front().seq == 4);
    CHECK(second.state().names.size() == 2);
}

TEST_CASE("C4: what is decided follows from its command, in its stream, with its metadata") {
    Message command = Add{"Shoes"};
    command.metadata.set("foo", "bar");
    const auto step = given<List>(Started{}).stream("list-7").when(command);
    REQUIRE(step.events().size() == 1);
    const auto& event = step.events().front();
    CHECK(event.stream == "list-7");
    CHECK(event.seq == 3);
    CHECK(event.causation == command.id);
    CHECK(event.correlation == command.correlation);
    CHECK(event.metadata.get("foo") == "bar");
}

TEST_CASE("C6: a reaction sees the state as of its event, and answers in its own stream") {
    const Free actor([](Free& self) {
        self.event([](Items& items, const Added& added) { items.names.push_back(added.name); });
        self.reaction(
            [](const Items& items, const Added&) { return sourced::dispatch(Notify{int(items.names.size())}); });
    });
    CHECK(given(actor, Added{"a"}, Added{"b"})
              .stream("x-1")
              .when(Added{"c"})
              .then(sourced::dispatch(Notify{3}).to("x-1")));
}

TEST_CASE("C7: a reaction dispatches to other streams and for later, in order") {
    const auto later = sourced::Time(sourced::Duration(5'000'000));
    const Free actor([later](Free& self) {
        self.reaction([later](const Added&) {
            std::vector<sourced::Dispatch> both;
            both.push_back(sourced::dispatch(Notify{1}).to("different-stream"));
            both.push_back(sourced::dispatch(Notify{2}).at(later));
            return both;
        });
    });
    const auto step = given(actor).when(Added{"a"});
    CHECK(step.then(sourced::dispatch(Notify{1}).to("different-stream"), sourced::dispatch(Notify{2}).at(later)));
    CHECK_FALSE(step.then(sourced::dispatch(Notify{2}).at(later), sourced::dispatch(Notify{1}).to("different-stream")));
}

TEST_CASE("C9: one reaction handles each of the listed events") {
    const Free actor([](Free& self) {
        self.reaction<Started, Cleared>([](const Items&, const auto&) { return sourced::dispatch(Add{"x"}); });
    });
    CHECK(given(actor).when(Started{}).then(sourced::dispatch(Add{"x"})));
    CHECK(given(actor).when(Cleared{}).then(sourced::dispatch(Add{"x"})));
    // A type that is no event does not compile: wrong/reaction_unknown_type.cpp
}

TEST_CASE("C10: a command handler may decide on nothing") {
    CHECK(given<List>().when(Clear{}).then_nothing());
    const Free actor([](Free& self) {
        self.command([](const Add& add) -> std::optional<Added> {
            if (add.name.empty()) return std::nullopt;
            return Added{add.name};
        });
        self.command([](const Clear&) { return std::vector<Cleared>(2); });
    });
    CHECK(given(actor).when(Add{""}).then_nothing());
    CHECK(given(actor).when(Add{"a"}).then(Added{"a"}));
    CHECK(given(actor).when(Clear{}).then(Cleared{}, Cleared{}));
}

TEST_CASE("C12: an exception in a command handler leaves no event behind") {
    const Free actor(
        [](Free& self) { self.command([](const Add&) -> Events { throw std::domain_error("no more room"); }); });
    const auto step = given(actor).when(Add{"a"});
    CHECK(step.events().empty());
    CHECK(step.then_throws<std::domain_error>("no more room"));
}

TEST_CASE("Decision: one event, several, none or a refusal") {
    CHECK(given<List>(Added{"a"}).when(Clear{}).then(Cleared{}));
    CHECK(given<List>(Added{"a"}, Added{"b"}, Added{"c"}).when(Clear{}).then(Cleared{}, Archived{}));
    CHECK(given<List>(Added{"keep"}).when(Clear{}).then(sourced::refuse("an item is to be kept")));

    Decision<Added, Cleared> decision;
    decision.add(Added{"a"}).add(Cleared{});
    CHECK(decision.decided().events.size() == 2);
    CHECK_FALSE(decision.decided().refusal);
}

TEST_CASE("Actor: decide() decides without evolving, and knows what it cannot") {
    const List list;
    const auto decided = list.decide(Items{.id = "", .started = true, .names = {"keep"}, .log = {}}, Clear{});
    CHECK(decided.refusal == "an item is to be kept");
    CHECK(decided.events.empty());
    CHECK_THROWS_AS((void)list.decide(Items{}, Notify{}), sourced::NotRegistered);
}

TEST_CASE("Actor: a payload that cannot be read is Undecodable, and names where") {
    Message command = Add{"a"};
    command.payload = R"({"name": 12})";
    CHECK(given<List>().when(command).then_throws<sourced::Undecodable>("/name"));
}

TEST_CASE("Actor: a refusal is an event that the actor may evolve and react to") {
    const Free actor([](Free& self) {
        self.command([](const Add&) -> Decision<Added> { return sourced::refuse("full"); });
        self.event([](Items& items, const sourced::Refused& refused) {
            items.log = {refused.command, refused.reason};
        });
        self.reaction([](const sourced::Refused&) { return sourced::dispatch(Clear{}); });
    });
    const auto step = given(actor).when(Add{"a"});
    CHECK(step.then(sourced::refuse("full")));
    CHECK(step.seq() == 2);
    CHECK(step.state().log == std::vector<std::string>{"list.add", "full"});
    CHECK(given(actor).when(sourced::Refused{"list.add", "full"}).then(sourced::dispatch(Clear{})));
}

// ---- The state as JSON ---------------------------------------------------------------

namespace {

/// As it is for whoever looks at an actor from outside.
template <class State>
struct Shown : sourced::Actor<State> {
    Shown() : sourced::Actor<State>("shown") {}
    [[nodiscard]] static std::string of(const State& state) {
        const auto write = Shown().definition().write_state;
        return write ? write(&state) : "none";
    }
};

struct Counted {
    int count = 0;
    std::vector<std::optional<std::string>> names;
    SOURCED_VALUE(count, names)
};
struct Nowhere {
    int count = 0;
};
/// Written for somebody else's archive, which has what ours has not.
struct Foreign {
    template <class Archive>
    void serialize(Archive& archive) { archive.only_mine(count); }
    int count = 0;
};

}  // namespace

TEST_CASE("Actor: its state can be written as JSON where the codec has one, and compiles where it has none") {
    CHECK(Shown<int>::of(7) == "7");
    CHECK(Shown<std::monostate>::of({}) == "null");
    CHECK(Shown<Counted>::of({2, {"a", std::nullopt}}) == R"({"count":2,"names":["a",null]})");
    CHECK(Shown<Add>::of(Add{"a"}) == R"({"name":"a"})");
    CHECK(Shown<std::map<std::string, Counted>>::of({{"x", {}}}) == R"({"x":{"count":0,"names":[]}})");
    CHECK(Shown<std::variant<int, std::pair<bool, Counted>>>::of(1) == R"({"tag":0,"value":1})");
    CHECK(Shown<Nowhere>::of({}) == "none");
    CHECK(Shown<Foreign>::of({}) == "none");
    CHECK(Shown<long double>::of(1) == "none");
    CHECK(Shown<std::vector<Nowhere>>::of({}) == "none");
    CHECK(Shown<std::map<int, int>>::of({}) == "none");
    CHECK(Shown<std::variant<int, Nowhere>>::of(1) == "none");
    CHECK(Shown<Nowhere>().definition().state_name().find("Nowhere") != std::string::npos);
}

// ---- Dispatch ------------------------------------------------------------------------

TEST_CASE("Dispatch: the later word holds, and nonsense is refused") {
    auto dispatch = sourced::dispatch(Notify{1}).to("a").at(sourced::Time(1s)).in(20s).to("b");
    CHECK(dispatch.sending().to == "b");
    CHECK(dispatch.sending().after == sourced::Duration(20s));
    CHECK_FALSE(dispatch.sending().at);
    dispatch.at(std::chrono::sys_time<std::chrono::nanoseconds>(1500ns));
    CHECK(dispatch.sending().at == sourced::Time(sourced::Duration(2)));
    CHECK_FALSE(dispatch.sending().after);
    dispatch.with_metadata(sourced::Metadata().set("a", 1)).with_metadata(sourced::Metadata().set("b", 2));
    CHECK(dispatch.sending().message.metadata.keys() == std::vector<std::string>{"a", "b"});
    CHECK_THROWS_AS(dispatch.in(-1s), sourced::Invalid);
    CHECK_THROWS_AS(dispatch.to(""), sourced::Invalid);
}
