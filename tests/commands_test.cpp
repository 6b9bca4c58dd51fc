// Commands: from outside text, decided in memory, handled without being stored; and where groups begin.
#include <doctest/doctest.h>
#include <SQLiteCpp/SQLiteCpp.h>
#include <sourced.hpp>

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include "support.hpp"

namespace {

using namespace sourced;
using namespace std::chrono_literals;
using support::TemporaryDirectory;
using support::error_of;
using testing::Clock;
using Names = std::vector<std::string>;

struct AddItem {
    std::string product;
    int price = 0;
    std::vector<std::string> tags;

    SOURCED_COMMAND("shop.add_item", product, price, tags)
    static constexpr std::array<std::string_view, 1> sourced_aliases{"shop.add"};
    static Rules rules() { return {{"product", required, length(1, 10)}, {"price", at_least(0), lax}}; }
};
struct CheckOut {
    SOURCED_COMMAND("shop.check_out")
};
struct ItemAdded {
    std::string product;
    int price = 0;
    SOURCED_EVENT("shop.item_added", product, price)
};

struct Cart : Actor<int> {
    Cart() : Actor("cart") {
        command([](int total, const AddItem& add) -> Decision<ItemAdded> {
            if (total + add.price > 1000) return refuse("too expensive");
            return ItemAdded{add.product, add.price};
        });
        command([](int, const CheckOut&) { return Events(); });
        event([](int& total, const ItemAdded& added) { total += added.price; });
    }
};

/// "path: text" of everything that is wrong, a line each.
template <class Body>
std::string problems_of(const Body& body) {
    std::string all;
    try {
        (void)body();
    } catch (const Invalid& invalid) {
        for (const auto& each : invalid.problems()) {
            all += (all.empty() ? "" : "\n") + each.path + ": " + each.text;
        }
    }
    return all;
}

const std::string add_p1 = R"({"type":"shop.add_item","payload":{"product":"p1","price":7}})";

}  // namespace

// ---- from outside text -----------------------------------------------------------------------

TEST_CASE("CommandContext: commands are made of text, with defaults") {
    App app;
    app.add<Cart>();
    ContextOptions options;
    options.stream = "123";
    options.metadata = Metadata::parse(R"({"user_id":10})");

    SUBCASE("N1: the default stream and metadata are there") {
        const Message message = CommandContext(app.registry(), options).build(add_p1);
        CHECK(message.type == "shop.add_item");
        CHECK(message.kind == Kind::command);
        CHECK(message.stream == "123");
        CHECK(message.metadata.get("user_id") == "10");
        CHECK(message.as<AddItem>().product == "p1");
        CHECK_FALSE(message.id.is_nil());
        CHECK(message.causation == message.id);
        CHECK(message.correlation == message.id);
        CHECK(message.seq == 0);
        CHECK(app.dispatch(message.stream, message).seq == 1);
        CHECK(app.run_until_idle() == 1);
        CHECK(app.load<Cart>("123").state == 7);
    }
    SUBCASE("N1: a stream in the text wins, where that is allowed") {
        options.own_stream = true;
        const CommandContext context(app.registry(), options);
        CHECK(context.build(R"({"type":"shop.check_out","stream":"aaa"})").stream == "aaa");
        CHECK(context.build(R"({"type":"shop.check_out"})").stream == "123");
        CHECK(problems_of([&] { return context.build(R"({"type":"shop.check_out","stream":" "})"); }) ==
              "/stream: is blank");
        options.own_stream = false;
        CHECK(problems_of([&] {
                  return CommandContext(app.registry(), options).build(R"({"type":"shop.check_out","stream":"aaa"})");
              }) == "/stream: may not be given from outside");
    }
    SUBCASE("N1: the form with a known type takes the payload alone") {
        const CommandContext context(app.registry(), options);
        const Message message = context.build<AddItem>(R"({"product":"p1"})");
        CHECK(message.stream == "123");
        CHECK(message.metadata.get("user_id") == "10");
        CHECK(message.as<AddItem>().product == "p1");
        CHECK(problems_of([&] { return context.build<AddItem>(R"({"price":-1,"stream":"x"})"); }) ==
              "/payload/product: is missing\n/payload/price: expected at least 0, got -1\n"
              "/payload/stream: unknown field");
        CHECK(context.build<CheckOut>("{}").type == "shop.check_out");
    }
    SUBCASE("no payload is an empty one, an old name is the type's") {
        const CommandContext context(app.registry(), options);
        CHECK(context.build(R"({"type":"shop.check_out"})").payload == "{}");
        CHECK(context.build(R"({"payload":{"product":"x"},"type":"shop.add"})").type == "shop.add_item");
    }
    SUBCASE("lax values are stored as the type writes them") {
        const CommandContext context(app.registry(), options);
        const Message message = context.build(R"({"type":"shop.add_item","payload":{"price":"12","product":"p"}})");
        CHECK(message.payload == R"({"product":"p","price":12,"tags":[]})");
    }
}

TEST_CASE("CommandContext: N2: only commands that are known and allowed") {
    App app;
    app.add<Cart>();
    ContextOptions options;
    options.stream = "123";
    const auto build = [&](const std::string& type) {
        return problems_of([&] {
            return CommandContext(app.registry(), options).build(R"({"type":")" + type + R"(","payload":{}})");
        });
    };
    CHECK(build("shop.nothing") == "/type: no command 'shop.nothing' can be sent here");
    CHECK(build("shop.item_added") == "/type: no command 'shop.item_added' can be sent here");
    CHECK(build("") == "/type: no command '' can be sent here");
    CHECK(build("shop.check_out").empty());
    options.allow = {"shop.add_item"};
    CHECK(build("shop.check_out") == "/type: no command 'shop.check_out' can be sent here");
    CHECK(build("shop.add") == "/payload/product: is missing");  // an old name of what is allowed
    CHECK(problems_of([&] { return CommandContext(app.registry(), options).build<CheckOut>("{}"); }) ==
          "/type: no command 'shop.check_out' can be sent here");
    options.allow = {"shop.item_added"};
    CHECK_THROWS_AS(CommandContext(app.registry(), options), NotRegistered);
    options.allow = {"shop.nothing"};
    CHECK_THROWS_AS(CommandContext(app.registry(), options), NotRegistered);
}

TEST_CASE("CommandContext: everything that is wrong is said at once, with its path") {
    App app;
    app.add<Cart>();
    const CommandContext context(app.registry(), {.stream = "123"});
    const auto build = [&](const std::string& text) { return problems_of([&] { return context.build(text); }); };

    CHECK(build(R"({"type":"shop.add_item","payload":{"product":"","price":"x","tags":[1,"a"]},"more":1})") ==
          "/more: unknown field\n/payload/product: is empty\n"
          "/payload/product: expected 1 to 10 characters, got 0\n/payload/price: expected integer, got \"x\"\n"
          "/payload/tags/0: expected string, got 1");
    CHECK(build(R"({"type":7})") == "/type: expected string, got 7");
    CHECK(build(R"({})") == "/type: is missing");
    CHECK(build(R"([])") == ": expected object, got an array");
    CHECK(build(R"({"type":"shop.add_item","payload":[]})") == "/payload: expected object, got an array");
    CHECK(build(R"({"type":"shop.check_out","payload":null})") == "/payload: expected object, got null");
    CHECK(problems_of([&] { return CommandContext(app.registry()).build(R"({"type":"x","stream":"y"})"); }) ==
          "/stream: may not be given from outside\n/type: no command 'x' can be sent here");
    CHECK(problems_of([&] { return CommandContext(app.registry()).build(R"({"type":"shop.check_out"})"); }) ==
          "/stream: is blank");
    CHECK(error_of([&] { (void)context.build(R"({"type":"shop.add_item"})"); }) ==
          "build a command 'shop.add_item': /payload/product: is missing");
}

TEST_CASE("CommandContext: the envelope cannot be forged") {
    App app;
    app.add<Cart>();
    const CommandContext context(app.registry(), {.stream = "123", .own_stream = true});
    for (const std::string field : {"id", "seq", "position", "kind", "schema", "causation", "causation_id", "cause",
                                    "correlation", "correlation_id", "recorded_at", "occurred_at", "metadata"}) {
        const std::string text =
            R"({"type":"shop.check_out",")" + field + R"(":"0190a5d1-ac96-774b-bcce-b302099a8057"})";
        CHECK(problems_of([&] { return context.build(text); }) ==
              "/" + field + ": may not be given from outside");
    }
}

TEST_CASE("CommandContext: hostile text is refused with its place, in bounded memory") {
    App app;
    app.add<Cart>();
    const CommandContext context(app.registry(), {.stream = "123"});
    const auto build = [&](const std::string& text) {
        return problems_of([&] { return context.build(text); });
    };
    CHECK(build("") == ": no JSON: The document is empty. at byte 0");
    CHECK(build("{") == ": no JSON: Missing a name for object member. at byte 1");
    CHECK(build(R"({"type":"shop.check_out"} x)") ==
          ": no JSON: The document root must not be followed by other values. at byte 26");
    SUBCASE("nested a million deep") {
        const std::string deep = R"({"type":"shop.check_out","payload":)" + std::string(1'000'000, '[');
        CHECK(build(deep) == ": no JSON: it is nested too deeply, 64 levels are allowed at byte 98");
    }
    SUBCASE("64 MB") {
        std::string large = R"({"type":"shop.add_item","payload":{"product":")";
        large.resize(64u << 20, 'x');
        CHECK(build(large) == ": it has 67108864 bytes, 16777216 are allowed");
        const CommandContext small(app.registry(), {.stream = "123", .limits = {.bytes = 20}});
        CHECK(problems_of([&] { return small.build(add_p1); }) == ": it has 61 bytes, 20 are allowed");
    }
    SUBCASE("keys that stand twice") {
        CHECK(build(R"({"type":"shop.check_out","type":"shop.add_item"})") == "/type: stands twice");
        CHECK(build(R"({"type":"shop.check_out","payload":{},"payload":{}})") == "/payload: stands twice");
        CHECK(build(R"({"type":"shop.add_item","payload":{"product":"a","price":1,"product":"b"}})") ==
              "/payload/product: stands twice");
    }
    SUBCASE("text that is no UTF-8, and NUL") {
        CHECK(build("{\"type\":\"shop.add_item\",\"payload\":{\"product\":\"\xFF\"}}") ==
              ": no JSON: Invalid encoding in string. at byte 46");
        const std::string nul = std::string("{\"type\":\"shop.check_out\"") + '\0' + "}";
        CHECK(build(nul) == ": no JSON: a NUL character at byte 24");
    }
    SUBCASE("a hundred thousand unknown fields are a hundred problems") {
        std::string many = R"({"type":"shop.check_out")";
        for (int i = 0; i < 100'000; ++i) many += ",\"f" + std::to_string(i) + "\":1";
        const std::string all = build(many + "}");
        CHECK(std::count(all.begin(), all.end(), '\n') == 99);
        CHECK(all.ends_with(": there are more problems"));
    }
}

TEST_CASE("CommandContext: hooks complete what is built") {
    App app;
    app.add<Cart>();
    CommandContext context(app.registry(), {.stream = "123"});
    context.on<AddItem>([](AddItem& add) { add.price += 1; })
        .on<AddItem>([](AddItem& add, Metadata& metadata) {
            add.tags.push_back("seen");
            metadata.set("by", "hook");
        })
        .any([](Message& message) { message.metadata.set("host", "here"); });
    const Message added = context.build(add_p1);
    CHECK(added.as<AddItem>().price == 8);
    CHECK(added.as<AddItem>().tags == Names{"seen"});
    CHECK(added.metadata.get("by") == "hook");
    CHECK(added.metadata.get("host") == "here");
    const Message other = context.build(R"({"type":"shop.check_out"})");
    CHECK_FALSE(other.metadata.has("by"));
    CHECK(other.metadata.get("host") == "here");

    SUBCASE("a hook of all can choose the stream") {
        CommandContext chosen(app.registry());
        chosen.any([](Message& message) { message.stream = message.type == "shop.check_out" ? "" : "chosen"; });
        CHECK(chosen.build(add_p1).stream == "chosen");
        CHECK(problems_of([&] { return chosen.build(R"({"type":"shop.check_out"})"); }) == "/stream: is blank");
    }
    SUBCASE("what a hook leaves behind has to obey the rules, too") {
        context.on<AddItem>([](AddItem& add) { add.price = -5; });
        CHECK(problems_of([&] { return context.build(add_p1); }) == "/payload/price: expected at least 0, got -5");
    }
    SUBCASE("hooks see only what is valid") {
        int calls = 0;
        context.on<AddItem>([&calls](AddItem&) { ++calls; });
        CHECK(problems_of([&] { return context.build(R"({"type":"shop.add_item","payload":{}})"); }) ==
              "/payload/product: is missing");
        CHECK(calls == 0);
    }
    SUBCASE("of a type nobody registered") {
        App empty;
        CommandContext nobody(empty.registry());
        CHECK_THROWS_AS(nobody.on<AddItem>([](AddItem&) {}), NotRegistered);
    }
}

// ---- decided in memory -----------------------------------------------------------------------

namespace {

struct StartPerson {
    std::string name;
    SOURCED_COMMAND("person.start", name)
    static Rules rules() { return {{"name", required}}; }
};
struct UpdateAge {
    int age = 0;
    SOURCED_COMMAND("person.update_age", age)
};
struct Started {
    std::string name;
    SOURCED_EVENT("person.started", name)
};
struct AgeUpdated {
    int age = 0;
    SOURCED_EVENT("person.age_updated", age)
};
struct Greet {
    SOURCED_COMMAND("person.greet")
};
struct Greeted {
    SOURCED_EVENT("person.greeted")
};
struct Looked {
    SOURCED_EVENT("person.looked")
};

struct PersonState {
    std::string name;
    int age = 0;
    SOURCED_VALUE(name, age)
};

struct Person : Actor<PersonState> {
    explicit Person(bool greets = false) : Actor("person") {
        command([](const PersonState& person, const StartPerson& start) -> Decision<Started> {
            if (!person.name.empty()) return refuse("started already");
            return Started{start.name};
        });
        command([](const PersonState& person, const UpdateAge& update) {
            if (person.name.empty()) throw std::runtime_error("nobody there");
            return AgeUpdated{update.age};
        });
        event([](PersonState& person, const Started& started) { person.name = started.name; });
        event([](PersonState& person, const AgeUpdated& updated) { person.age = updated.age; });
        command([](const PersonState&, const Greet&) { return Greeted{}; });
        if (greets) reaction([](const PersonState&, const Started&) { return dispatch(Greet{}); });
    }
};

Names types(const Messages& messages) {
    Names names;
    for (const auto& message : messages) names.push_back(message.type);
    return names;
}

}  // namespace

TEST_CASE("Draft: P1: loading gives the state, the seq and what is new") {
    App app;
    app.add<Person>();
    app.store().append("joe", {Started{"Joe"}, AgeUpdated{40}});
    auto draft = app.draft<Person>("joe");
    CHECK(draft.seq() == 2);
    CHECK(draft.state().age == 40);
    CHECK(types(draft.news()) == Names{"person.started", "person.age_updated"});
    CHECK(draft.stream() == "joe");
    CHECK(app.load<Person>("joe").seq == 2);
    CHECK(app.load<Person>("joe").state.age == 40);
    CHECK(app.actor<Person>("joe").state().name == draft.state().name);

    CHECK(draft.catch_up().empty());
    app.store().append("joe", {AgeUpdated{41}});
    CHECK(types(draft.catch_up()) == Names{"person.age_updated"});
    CHECK(draft.catch_up().empty());
    CHECK(draft.seq() == 3);
    CHECK(draft.state().age == 41);

    const auto past = app.draft<Person>("joe", 1);
    CHECK(past.seq() == 1);
    CHECK(past.state().age == 0);
    CHECK(past.news().size() == 1);
    CHECK(app.load<Person>("joe", 1).seq == 1);
    auto later = app.draft<Person>("joe", 1);
    CHECK(types(later.catch_up(2)) == Names{"person.age_updated"});
    CHECK(later.seq() == 2);
}

TEST_CASE("P2: the history of a bound actor, also a part of it") {
    App app;
    app.add<Person>();
    app.store().append("joe", {Started{"Joe"}, AgeUpdated{40}});
    const auto joe = app.actor<Person>("joe");
    CHECK(joe.history().size() == 2);
    CHECK(types(joe.history({.to = 1})) == Names{"person.started"});
    CHECK(app.history("joe", {.from = 2}).size() == 1);
}

TEST_CASE("Draft: P3: commands are decided in memory") {
    App app;
    app.add<Person>();
    auto draft = app.draft<Person>("joe");
    SUBCASE("a valid command: its event, seq 1, nothing stored") {
        const Trial trial = draft.decide(StartPerson{"Joe"});
        CHECK(trial);
        CHECK(trial.valid());
        CHECK(trial.command().stream == "joe");
        CHECK(types(trial.events()) == Names{"person.started"});
        CHECK(trial.events()[0].seq == 1);
        CHECK(trial.events()[0].causation == trial.command().id);
        CHECK(draft.seq() == 1);
        CHECK(draft.state().name == "Joe");
        CHECK(app.store().head() == 0);
    }
    SUBCASE("an invalid command: its problems, no events, seq 0") {
        const Trial typed = draft.decide(StartPerson{""});
        CHECK_FALSE(typed);
        CHECK_FALSE(typed.valid());
        CHECK(typed.problems()[0].path == "/payload/name");
        Message message = StartPerson{"Joe"};
        message.payload = R"({"name":7})";
        const Trial read = draft.decide(message);
        CHECK_FALSE(read.valid());
        CHECK(read.problems()[0].path == "/payload/name");
        CHECK(read.events().empty());
        CHECK(draft.seq() == 0);
        CHECK(draft.events().empty());
    }
    SUBCASE("decisions build on each other, a refusal is one of them") {
        CHECK(draft.decide(StartPerson{"Joe"}));
        CHECK(draft.decide(UpdateAge{40}));
        const Trial refused = draft.decide(StartPerson{"Jane"});
        CHECK_FALSE(refused);
        CHECK(refused.valid());
        CHECK(refused.reason() == "started already");
        CHECK(types(draft.events()) == Names{"person.started", "person.age_updated", "sourced.refused"});
        CHECK(draft.state().age == 40);
        CHECK(draft.seq() == 3);
        draft.discard();
        CHECK(draft.events().empty());
        CHECK(draft.seq() == 0);
        CHECK(draft.state().name.empty());
    }
    SUBCASE("an exception changes nothing, an unknown command is an error") {
        CHECK_THROWS_WITH((void)draft.decide(UpdateAge{1}), "nobody there");
        CHECK(draft.seq() == 0);
        CHECK_THROWS_WITH_AS((void)draft.decide(AddItem{"x", 1, {}}),
                             "'person' has no handler for the command 'shop.add_item'", NotRegistered);
    }
    SUBCASE("who has decisions does not catch up") {
        (void)draft.decide(StartPerson{"Joe"});
        CHECK_THROWS_WITH((void)draft.catch_up(),
                          "the draft of 'joe' has decisions that are not saved: save or discard them");
    }
}

TEST_CASE("Draft: P3: the durable form stores the decisions") {
    const TemporaryDirectory directory;
    const std::string path = directory.file();
    {
        App app({.path = path, .busy_timeout = 1ms});
        auto& person = app.add<Person>(true);
        CHECK(person.name() == "person");
        auto draft = app.draft<Person>("joe");
        CHECK(draft.save().empty());
        const Trial started = draft.decide(StartPerson{"Joe"});
        const Trial updated = draft.decide(UpdateAge{40});

        SUBCASE("with their commands") {
            const Messages stored = draft.save();
            CHECK(types(stored) ==
                  Names{"person.start", "person.update_age", "person.started", "person.age_updated"});
            CHECK(types(app.history("joe")) == types(stored));
            CHECK(stored[2].causation == started.command().id);
            CHECK(stored[3].id == updated.events()[0].id);
            CHECK(stored[3].seq == 4);
            CHECK(draft.seq() == 4);
            CHECK(draft.events().empty());
            CHECK(draft.catch_up().empty());
            CHECK(app.run_until_idle() == 2);  // the reaction, and what it sent; no command is decided again
            CHECK(types(draft.catch_up()) == Names{"person.greet", "person.greeted"});
            CHECK(draft.decide(UpdateAge{41}));
            (void)draft.save();
            CHECK(app.load<Person>("joe").state.age == 41);
            CHECK(app.run_until_idle() == 0);
        }
        SUBCASE("without their commands") {
            const Messages stored = draft.save({.store_commands = false});
            CHECK(types(app.history("joe")) == Names{"person.started", "person.age_updated"});
            CHECK(stored[0].metadata.get("outside_cause") == started.command().id.to_string());
            CHECK(draft.seq() == 2);
            CHECK(app.run_until_idle() == 2);
            CHECK(app.history("joe").size() == 4);
        }
        SUBCASE("not when the stream has moved on") {
            app.store().append("joe", {AgeUpdated{7}});
            CHECK_THROWS_WITH_AS(
                (void)draft.save(),
                "save the draft of 'joe': it was made on seq 0, and the stream has moved on", Conflict);
            CHECK(draft.events().size() == 2);
            draft.discard();
            CHECK(draft.catch_up().size() == 1);
        }
        SUBCASE("what does not matter to the state is no conflict, what is pending is handled first") {
            app.store().append("joe", {Looked{}});
            app.dispatch("joe", Greet{});
            CHECK(draft.save().size() == 4);
            CHECK(types(app.history("joe"))[2] == "person.greeted");
            CHECK(draft.seq() == 7);
        }
        SUBCASE("a store that cannot write is an error, and the draft is as before") {
            {
                const auto other = open_connection(path);
                other->exec("BEGIN IMMEDIATE");
                CHECK_THROWS_AS((void)draft.save(), StoreError);
                other->exec("ROLLBACK");
            }
            CHECK(app.store().head() == 0);
            CHECK(draft.seq() == 2);
            CHECK(draft.save().size() == 4);
        }
        SUBCASE("of a stopped group") {
            app.stop_group("person");
            CHECK_THROWS_WITH((void)draft.save(), "group 'person' is stopped");
            CHECK(draft.events().size() == 2);
        }
    }
    for (const auto& violation : verify(path)) FAIL_CHECK(violation.invariant << ": " << violation.text);
}

TEST_CASE("Draft: an actor's sync is told of each command and what came of it") {
    struct Noting : Actor<int> {
        Noting() : Actor("noting") {
            command([](int, const AddItem& add) { return ItemAdded{add.product, add.price}; });
            event([](int& total, const ItemAdded& added) { total += added.price; });
            sync([this](const int& total, const Batch& batch) {
                for (const auto& each : batch) told += each->type + " " + std::to_string(each->seq) + "; ";
                told += std::to_string(total);
            });
        }
        std::string told;
    };
    App app;
    auto& noting = app.add<Noting>();
    auto draft = app.draft<Noting>("n");
    (void)draft.decide(AddItem{"a", 1, {}});
    (void)draft.decide(AddItem{"b", 2, {}});
    SUBCASE("stored commands") {
        (void)draft.save();
        CHECK(noting.told == "shop.add_item 1; shop.item_added 3; shop.add_item 2; shop.item_added 4; 3");
    }
    SUBCASE("commands that are not stored have no seq") {
        (void)draft.save({.store_commands = false});
        CHECK(noting.told == "shop.add_item 0; shop.item_added 1; shop.add_item 0; shop.item_added 2; 3");
    }
    SUBCASE("handled at once without being stored") {
        (void)app.handle<Noting>("m", AddItem{"c", 5, {}}, {.store_commands = false});
        CHECK(noting.told == "shop.add_item 0; shop.item_added 1; 5");
    }
}

// ---- handled at once -------------------------------------------------------------------------

TEST_CASE("handle: commands are stored with their events unless they are not to be") {
    const TemporaryDirectory directory;
    const std::string path = directory.file();
    {
        App app({.path = path});
        app.add<Person>(true);
        const auto stored = app.handle<Person>("joe", StartPerson{"Joe"});
        CHECK(types(app.history("joe")) == Names{"person.start", "person.started"});
        CHECK(stored.command().seq == 1);
        CHECK_FALSE(stored.events()[0].metadata.has("outside_cause"));

        const HandleOptions unstored{.store_commands = false};
        const auto result = app.handle<Person>("jane", StartPerson{"Jane"}, unstored);
        CHECK(types(app.history("jane")) == Names{"person.started"});
        CHECK(result.command().seq == 0);
        CHECK(result.command().type == "person.start");
        CHECK(result.events()[0].seq == 1);
        CHECK(result.events()[0].causation == result.command().id);
        CHECK(result.events()[0].correlation == result.command().id);
        CHECK(app.history("jane")[0].metadata.get("outside_cause") == result.command().id.to_string());
        // The reaction of either is run, once; and what it sends is not "outside" itself.
        CHECK(app.run_until_idle() == 4);
        CHECK(types(app.history("jane")) == Names{"person.started", "person.greet", "person.greeted"});

        CHECK(app.actor<Person>("jane").handle(UpdateAge{30}, unstored));
        CHECK(app.load<Person>("jane").state.age == 30);
        CHECK(app.handle<Person>("jane", StartPerson{"again"}, unstored).reason() == "started already");
        CHECK(types(app.history("jane")).back() == "sourced.refused");
        app.dispatch("jane", UpdateAge{31});
        CHECK(app.handle<Person>("jane", UpdateAge{32}, unstored));  // what is pending comes first
        CHECK(app.load<Person>("jane").state.age == 32);
        CHECK(app.history("jane")[app.history("jane").size() - 2].as<AgeUpdated>().age == 31);
        CHECK(app.run_until_idle() == 0);
        CHECK_THROWS_WITH(app.handle<Person>("nobody", UpdateAge{1}, unstored), "nobody there");
        CHECK(app.history("nobody").empty());
    }
    for (const auto& violation : verify(path)) FAIL_CHECK(violation.invariant << ": " << violation.text);
}

TEST_CASE("handle: an outcome without events leaves nothing of a command that is not stored") {
    App app;
    app.add<Cart>();
    CHECK(app.handle<Cart>("c", CheckOut{}, {.store_commands = false}));
    CHECK(app.store().head() == 0);
    CHECK(app.handle<Cart>("c", CheckOut{}));
    CHECK(app.history("c").size() == 1);
}

TEST_CASE("handle: a command from a CommandContext is taken as it is") {
    App app;
    app.add<Cart>();
    const CommandContext context(app.registry(), {.stream = "c"});
    const Message message = context.build(add_p1);
    const auto result = app.handle<Cart>(message.stream, message);
    CHECK(result.command().id == message.id);
    CHECK(app.load<Cart>("c").state == 7);
    Message broken = message.with_id(Id::make());
    broken.payload = R"({"product":""})";
    CHECK_THROWS_AS(app.handle<Cart>("c", broken), Invalid);
    CHECK_THROWS_AS(app.handle<Cart>("c", Message(ItemAdded{"x", 1})), NotRegistered);
    CHECK(app.history("c").size() == 2);
}

TEST_CASE("verify: a cause outside of the log is named by the message that follows from it, and by no other") {
    const TemporaryDirectory directory;
    const std::string path = directory.file();
    const Id outside = Id::make();
    const auto caused = [&](const std::string& metadata) {
        Message message = ItemAdded{"x", 1};
        message.causation = message.correlation = outside;
        message.metadata = Metadata::parse(metadata);
        return message;
    };
    {
        App app({.path = path});
        app.store().append("s", {caused(R"({"outside_cause":")" + outside.to_string() + R"("})"),
                                 caused(R"({"outside_cause":true})")});
    }
    CHECK(verify(path).empty());
    {
        App app({.path = path});
        // Inherited from the message before: it says nothing of this one's cause.
        app.store().append("s", {caused(R"({"outside_cause":")" + Id::make().to_string() + R"("})")});
    }
    const auto violations = verify(path);
    REQUIRE(violations.size() == 1);
    CHECK(violations[0].invariant == "I3");
}

// ---- where a group begins --------------------------------------------------------------------

namespace {

struct Seen : BatchReactor {
    Seen(std::string_view name, Start start) : BatchReactor(name) {
        handles<ItemAdded>();
        ReactorOptions own;
        own.start_from = start;
        options(own);
    }
    Results handle(const Batch& batch) override {
        Results results;
        for (const auto& each : batch) {
            prices.push_back(each->as<ItemAdded>().price);
            results.add(*each, {});
        }
        return results;
    }
    std::vector<int> prices;
};
struct OfTheClass : BatchReactor {
    OfTheClass() { handles<ItemAdded>(); }
    Results handle(const Batch&) override { return {}; }
};

}  // namespace

TEST_CASE("Start: where a group begins is evaluated once, by the App's clock") {
    const TemporaryDirectory directory;
    const std::string path = directory.file();
    Clock clock;
    {
        App app({.path = path, .clock = clock});
        app.store().append("s", {ItemAdded{"old", 1}});
        clock.advance(57s);
        app.store().append("s", {ItemAdded{"young", 2}});
        clock.advance(3s);
    }
    SUBCASE("H9: 60 and 3 seconds ago, started 5 seconds ago: only the younger one is delivered") {
        App app({.path = path, .clock = clock});
        auto& seen = app.add<Seen>("seen", Start::ago(5s));
        auto& at = app.add<Seen>("at", Start::at(clock.now() - 5s));
        app.run_until_idle();
        CHECK(seen.prices == std::vector<int>{2});
        CHECK(at.prices == std::vector<int>{2});
    }
    SUBCASE("F7: a time that is told when the group is stored, and not again") {
        {
            App app({.path = path, .clock = clock});
            app.add<Seen>("seen", Start::ago(5s));
        }
        clock.advance(1h);
        App app({.path = path, .clock = clock});
        auto& seen = app.add<Seen>("seen", Start::ago(5s));
        app.run_until_idle();
        CHECK(seen.prices == std::vector<int>{2});
        CHECK(app.stats().group("seen").begins == 1);
    }
    SUBCASE("F7: the name is the class's unless it is given, the beginning is the log's unless it is chosen") {
        App app({.path = path, .clock = clock});
        CHECK(app.add<OfTheClass>().name().ends_with("OfTheClass"));
        auto& seen = app.add<Seen>("seen", Start());
        auto& now = app.add<Seen>("now", Start::now());
        auto& all = app.add<Seen>("all", Start::ago(24h));
        app.stop_group(app.stats().groups.front().name);
        app.run_until_idle();
        CHECK(seen.name() == "seen");
        CHECK(seen.prices == std::vector<int>{1, 2});
        CHECK(now.prices.empty());
        CHECK(all.prices == std::vector<int>{1, 2});
    }
    SUBCASE("a follower can begin so long ago, too") {
        App app({.path = path, .clock = clock});
        auto follower = app.follow({.from = Start::ago(5s)});
        CHECK(follower.next(0s)->as<ItemAdded>().price == 2);
        CHECK_FALSE(follower.next(0s).has_value());
    }
}
