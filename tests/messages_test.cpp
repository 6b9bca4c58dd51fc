// Messages: envelopes, ids, metadata, causes, the registry.
#include <sourced.hpp>

#include <doctest/doctest.h>

#include <set>
#include <thread>

#include "support.hpp"

using namespace sourced;
using support::error_of;
using namespace std::chrono_literals;

namespace {

struct Add {
    int value = 0;

    SOURCED_COMMAND("test.add", value)
};

struct Added {
    int value = 0;

    SOURCED_EVENT("test.added", value)
    static constexpr int sourced_schema = 3;
    static constexpr std::array<std::string_view, 1> sourced_aliases{"test.was_added"};
};

struct Blank {
    SOURCED_EVENT("test.blank")
};

struct AnotherAdd {
    std::string text;

    SOURCED_COMMAND("test.add", text)
};

struct TakesAlias {
    int value = 0;

    SOURCED_EVENT("test.was_added", value)
};

struct LongForm {
    int value = 0;

    static constexpr std::string_view sourced_type = "test.long_form";
    static constexpr Kind sourced_kind = Kind::command;
    template <class Archive>
    void serialize(Archive& archive) {
        archive(CEREAL_NVP(value));
    }
};

struct Ruled {
    int value = 0;

    SOURCED_COMMAND("test.ruled", value)
    static Rules rules() { return {{"value", at_least(0)}}; }
};

Registry registry() {
    Registry types;
    types.add<Add>();
    types.add<Added>();
    types.add<Blank>();
    return types;
}

Message stored() {
    Message message = Message(Add{1}).to("123");
    message.recorded_at = Time(1000s);
    return message;
}

std::size_t count(const Messages& messages) { return messages.size(); }

static_assert(is_message<Add> && is_message<LongForm> && !is_message<int> && !is_message<Message>);
static_assert(message_type<Added>() == "test.added" && message_kind<Added>() == Kind::event);
static_assert(message_schema<Added>() == 3 && message_schema<Add>() == 1);
static_assert(std::is_aggregate_v<Add> && std::is_aggregate_v<Blank>);

}  // namespace

TEST_CASE(
    "A1: a payload that does not fit its type is invalid, reported under its path, and building it does not throw") {
    const Registry types = registry();
    Message message;
    CHECK_NOTHROW(message = types.revive("test.add", "123", R"({"value":"aaa"})"));
    CHECK(types.problems(message) == Problems{{"/payload/value", R"(expected integer, got "aaa")"}});
    CHECK(error_of<Invalid>([&] { types.check(message); }) ==
          R"(check message 'test.add': /payload/value: expected integer, got "aaa")");
}

TEST_CASE("A2: a message without a stream is invalid, with one it is valid") {
    const Registry types = registry();
    CHECK(types.problems(Add{1}) == Problems{{"/stream", "is blank"}});
    CHECK(types.problems(Message(Add{1}).to(" ")) == Problems{{"/stream", "is blank"}});
    CHECK(types.problems(Message(Add{1}).to("123")).empty());
}

TEST_CASE("A3: a message built without a payload has one, and its fields read as their defaults") {
    const Registry types = registry();
    const Message message = types.revive("test.add", "123", "");
    CHECK(message.payload == "{}");
    CHECK(message.as<Add>().value == 0);
    CHECK(Message(Blank{}).payload == "{}");
}

TEST_CASE("A4: a fresh message has an id, is its own cause and correlation, and has no metadata") {
    const Message message = Add{1};
    CHECK(!message.id.is_nil());
    CHECK(message.causation == message.id);
    CHECK(message.correlation == message.id);
    CHECK(message.type == "test.add");
    CHECK(message.kind == Kind::command);
    CHECK(message.schema == 1);
    CHECK(message.seq == 0);  // 1 once it is stored
    CHECK(message.metadata.empty());
    CHECK(message.metadata.json() == "{}");
    CHECK(Message(Added{1}).schema == 3);
}

TEST_CASE("A5: plain data is revived as the message it names") {
    const Registry types = registry();
    const Message message = types.revive("test.add", "123", R"({"value":1})");
    CHECK(types.problems(message).empty());
    CHECK(message.stream == "123");
    CHECK(message.kind == Kind::command);
    CHECK(message.as<Add>().value == 1);
    CHECK(types.revive("test.was_added", "123", "").type == "test.added");
}

TEST_CASE("A6: an unknown type is refused by its name") {
    const Registry types = registry();
    CHECK(error_of<NotRegistered>([&] { (void)types.revive("test.unknown", "1", "{}"); }) ==
          "find message type 'test.unknown': it is not registered");
    CHECK(types.find("test.unknown") == nullptr);
}

TEST_CASE("A7: a look-up scoped to commands does not know events") {
    const Registry types = registry();
    CHECK(error_of<NotRegistered>([&] { (void)types.revive("test.added", "1", "{}", Kind::command); }) ==
          "find command type 'test.added': it is not registered");
    CHECK_NOTHROW((void)types.revive("test.added", "1", "{}"));
    CHECK_NOTHROW((void)types.revive("test.added", "1", "{}", Kind::event));
}

TEST_CASE("A8: what follows a message takes its id as cause, its correlation, stream and metadata") {
    Message add = Message(Add{1}).to("123");
    add.correlation = Id::make();
    add.metadata.set("user_id", 10);
    const Message added = add.follow(Added{add.as<Add>().value});
    CHECK(added.causation == add.id);
    CHECK(added.correlation == add.correlation);
    CHECK(added.id != add.id);
    CHECK(added.stream == "123");
    CHECK(added.metadata.get("user_id") == "10");
    CHECK(added.as<Added>().value == 1);

    SUBCASE("A8: own metadata wins") {
        Message own = Added{2};
        own.metadata.set("user_id", 11).set("by", "test");
        const Message both = add.follow(own);
        CHECK(both.metadata.json() == R"({"user_id":11,"by":"test"})");
        CHECK(own.caused_by(add).causation == add.id);
    }
}

TEST_CASE("A9: what follows may have a seq or a stream of its own") {
    const Message add = Message(Add{1}).to("123");
    CHECK(add.follow(Added{2}).with_seq(2).seq == 2);
    const Message elsewhere = add.follow(Message(Added{2}).to("foo"));
    CHECK(elsewhere.stream == "foo");
    CHECK(elsewhere.causation == add.id);
    CHECK(elsewhere.correlation == add.correlation);
}

TEST_CASE("A10: a message moves forward in time as a copy, and never back") {
    const Message message = stored();
    const Message later = message.at(message.recorded_at + 10s);
    CHECK(later.occurred_at == message.recorded_at + 10s);
    CHECK(message.occurred_at == Time{});
    CHECK(error_of<Invalid>([&] { (void)message.at(message.recorded_at - 10s); }) ==
          "move message 'test.add' back in time: it happened 10000000 us later");
    CHECK_THROWS_AS((void)later.at(message.recorded_at), Invalid);
    CHECK(later.occurred(Time(1s)).occurred_at == Time(1s));
}

TEST_CASE("A11: a message goes to another stream as a copy") {
    const Message message = stored();
    CHECK(message.to("222").stream == "222");
    CHECK(message.stream == "123");
    CHECK(Message(Add{1}).to(message).stream == "123");
}

TEST_CASE("A12: new stream ids differ and carry their prefix") {
    CHECK(new_stream_id() != new_stream_id());
    const auto one = new_stream_id("cart");
    const auto two = new_stream_id("cart");
    CHECK(one.starts_with("cart-"));
    CHECK(two.starts_with("cart-"));
    CHECK(one != two);
}

TEST_CASE("A13: a message that breaks its type's rules cannot be made") {
    CHECK(error_of<Invalid>([] { (void)Message(Ruled{-1}); }) ==
          "make a message 'test.ruled': /value: expected at least 0, got -1");
    CHECK_NOTHROW((void)Message(Ruled{0}));
}

TEST_CASE("A14: a second type under a name is an error, and the first stays") {
    Registry types = registry();
    CHECK_NOTHROW(types.add<Add>());
    CHECK(error_of<Error>([&] { types.add<AnotherAdd>(); }) ==
          "register message type 'test.add': another C++ type has that name already");
    CHECK(error_of<Error>([&] { types.add<TakesAlias>(); }) ==
          "register message type 'test.was_added': another C++ type has that name already as an alias of 'test.added'");
    CHECK(types.types().size() == 3);
    CHECK(types.problems(Message(Add{1}).to("1")).empty());
}

TEST_CASE("Message: a type in its long form is a message like others") {
    Registry types;
    types.add<LongForm>();
    CHECK(Message(LongForm{4}).payload == R"({"value":4})");
    CHECK(Message(LongForm{4}).as<LongForm>().value == 4);
}

TEST_CASE("Message: a payload is read under an old name of its type, and never as another") {
    Message old = Added{5};
    old.type = "test.was_added";
    CHECK(old.is<Added>());
    CHECK(old.as<Added>().value == 5);
    old.stream = "s";
    old.seq = 4;
    old.position = 77;
    CHECK(error_of<Undecodable>([&] { (void)old.as<Add>(); }) ==
          "read 'test.was_added' in stream 's' at seq 4 (position 77) as 'test.add': it is of another type");
    old.payload = R"({"value":"x"})";
    CHECK(error_of<Undecodable>([&] { (void)old.as<Added>(); }) ==
          "read 'test.was_added' in stream 's' at seq 4 (position 77) as 'test.added': /value: expected integer, got "
          "\"x\"");
    old.erased_at = Time(1s);
    CHECK(error_of<Undecodable>([&] { (void)old.as<Added>(); }).ends_with("its payload was erased"));
}

TEST_CASE("Message: structs convert to messages where a list is expected") {
    CHECK(count({Added{1}, Blank{}}) == 2);
    CHECK(count({Added{1}}) == 1);
}

TEST_CASE("Message: a new id stays its own cause") {
    const Id id = Id::make();
    const Message first = Message(Add{1}).with_id(id);
    CHECK(first.id == id);
    CHECK(first.causation == id);
    const Message next = first.follow(Added{1}).with_id(Id::make());
    CHECK(next.causation == id);
}

TEST_CASE("Id: ids of a thread ascend, differ between threads, and are UUIDs of version 7") {
    std::vector<Id> ids;
    for (int i = 0; i < 10'000; ++i) ids.push_back(Id::make());
    for (std::size_t i = 1; i < ids.size(); ++i) REQUIRE(ids[i - 1] < ids[i]);
    std::vector<Id> others;
    std::thread([&] {
        for (int i = 0; i < 10'000; ++i) others.push_back(Id::make());
    }).join();
    std::set<Id> all(ids.begin(), ids.end());
    all.insert(others.begin(), others.end());
    CHECK(all.size() == 20'000);
    CHECK((ids[0].bytes()[6] >> 4) == 7);
    CHECK((ids[0].bytes()[8] >> 6) == 2);
}

TEST_CASE("Id: the same seed and times give the same ids, ascending even when the clock goes back") {
    IdSource one(7);
    IdSource two(7);
    const Id first = Id::make(Time(5000ms), one);
    CHECK(first == Id::make(Time(5000ms), two));
    CHECK(first.time() == Time(5000ms));
    const Id second = Id::make(Time(1000ms), one);
    CHECK(second > first);
    CHECK(Id::make(Time(6000ms), one) > second);
}

TEST_CASE("Id: text is read back, and anything else refused") {
    const Id id = Id::make();
    CHECK(Id::parse(id.to_string()) == id);
    CHECK(Id::parse("01890A5D-AC96-774B-BCCE-B302099A8057").to_string() == "01890a5d-ac96-774b-bcce-b302099a8057");
    CHECK(Id().is_nil());
    CHECK(error_of<Invalid>([] { (void)Id::parse("x"); }) == "read an id: expected UUID, got \"x\"");
    CHECK_THROWS_AS((void)Id::parse("01890a5d-ac96-774b-bcce-b302099a805g"), Invalid);
    CHECK(std::hash<Id>()(id) == std::hash<Id>()(Id::parse(id.to_string())));
}

TEST_CASE("Metadata: keys hold text, numbers and bools, and a later value replaces an earlier") {
    Metadata metadata;
    CHECK(metadata.empty());
    metadata.set("user", "ann").set("age", 10).set("ratio", 0.5).set("admin", true);
    CHECK(metadata.json() == R"({"user":"ann","age":10,"ratio":0.5,"admin":true})");
    metadata.set("age", std::numeric_limits<std::int64_t>::min());
    CHECK(metadata.get("age") == "-9223372036854775808");
    CHECK(metadata.get("user") == "ann");
    CHECK(metadata.get("admin") == "true");
    CHECK(!metadata.get("none").has_value());
    CHECK(metadata.has("ratio"));
    CHECK(metadata.keys() == std::vector<std::string>{"user", "age", "ratio", "admin"});
    metadata.set_json("list", R"([1, {"a": null}])");
    CHECK(metadata.get("list") == R"([1,{"a":null}])");
}

TEST_CASE("Metadata: equality does not ask for the order of keys") {
    CHECK(Metadata::parse(R"({"a":1,"b":"x"})") == Metadata::parse(R"({ "b": "x", "a": 1 })"));
    CHECK(!(Metadata::parse(R"({"a":1})") == Metadata::parse(R"({"a":2})")));
    CHECK(Metadata::parse("{}") == Metadata());
    CHECK(Metadata::parse("{}").empty());
}

TEST_CASE("Metadata: what is no JSON object is refused") {
    CHECK(error_of<Invalid>([] { (void)Metadata::parse("[1]"); }) == "read metadata: expected object, got an array");
    CHECK(error_of<Invalid>([] { (void)Metadata::parse(R"({"a":1,"a":2})"); }).find("stands twice") !=
          std::string::npos);
    CHECK_THROWS_AS((void)Metadata::parse("{"), Invalid);
    CHECK_THROWS_AS((void)Metadata::parse(""), Invalid);
    CHECK_THROWS_AS(Metadata().set("a", "\xff"), Invalid);
    CHECK_THROWS_AS(Metadata().set_json("a", "1 2"), Invalid);
}
