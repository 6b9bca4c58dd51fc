// Commands: from outside text, decided in memory, handled without being stored; and where groups begin.
#include <doctest/doctest.h>
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

template <class Body>
std::string error_of(const Body& body) {
    try {
        body();
    } catch (const std::exception& error) {
        return error.what();
    }
    return {};
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
