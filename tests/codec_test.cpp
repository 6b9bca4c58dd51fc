// The codec: JSON from and to C++ types, schemas, rules, hostile input.
#include <sourced.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <deque>
#include <list>
#include <map>
#include <random>
#include <set>

using namespace sourced;
using namespace std::chrono_literals;

namespace codec_test {

enum class Status { open, closed };
SOURCED_ENUM(Status, open, closed)

enum class Number : std::uint8_t { one = 1, two = 2 };

struct Price {
    std::int64_t amount = 0;
    std::string currency = "EUR";

    bool operator==(const Price&) const = default;
    SOURCED_VALUE(amount, currency)
};

struct Paid {
    int amount = 0;

    bool operator==(const Paid&) const = default;
    SOURCED_EVENT("paid", amount)
};

struct Refunded {
    std::string reason;

    bool operator==(const Refunded&) const = default;
    SOURCED_EVENT("refunded", reason)
};

struct Everything {
    bool flag = false;
    std::int8_t i8 = 0;
    std::uint8_t u8 = 0;
    std::int16_t i16 = 0;
    std::uint16_t u16 = 0;
    std::int32_t i32 = 0;
    std::uint32_t u32 = 0;
    std::int64_t i64 = 0;
    std::uint64_t u64 = 0;
    float f = 0;
    double d = 0;
    std::string text;
    Price price;
    std::vector<Price> prices;
    std::array<int, 3> three{};
    std::set<std::string> names;
    std::pair<int, std::string> pair;
    std::tuple<int, bool, double> triple;
    std::optional<int> some;
    std::optional<Price> none;
    std::variant<int, std::string, Paid, Refunded> choice;
    std::map<std::string, std::vector<int>> by_name;
    std::unordered_map<std::string, int> by_hash;
    Status status = Status::open;
    Number number = Number::one;
    std::vector<std::byte> bytes;
    std::array<std::byte, 4> four_bytes{};
    Time time{};
    std::chrono::sys_time<std::chrono::nanoseconds> nanos{};
    std::chrono::sys_seconds seconds{};
    std::chrono::milliseconds wait{};
    Id id;
    std::vector<bool> bits;
    std::list<int> list;
    std::deque<int> deque;
    Metadata metadata;

    bool operator==(const Everything&) const = default;
    SOURCED_VALUE(flag, i8, u8, i16, u16, i32, u32, i64, u64, f, d, text, price, prices, three, names, pair, triple,
                  some, none, choice, by_name, by_hash, status, number, bytes, four_bytes, time, nanos, seconds, wait,
                  id, bits, list, deque, metadata)
};

struct Tree {
    std::string name;
    std::vector<Tree> children{};

    SOURCED_VALUE(name, children)
};

struct Item {
    std::string product_id;
    int price = 0;
    int quantity = 1;

    SOURCED_VALUE(product_id, price, quantity)
};

struct Order {
    std::vector<Item> items;

    SOURCED_VALUE(items)
};

struct EmailRules {
    static void coerce(std::string& text) {
        for (char& c : text) {
            if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
        }
    }
    static std::optional<std::string> check(const std::string& text) {
        if (text.ends_with("@example.com")) return std::nullopt;
        return "expected an address at example.com";
    }
    static std::vector<Rule> rules() { return {length(3, 40)}; }
    static constexpr std::string_view schema = R"({"type":"string","format":"email"})";
};
using CorporateEmail = Checked<std::string, EmailRules>;

struct SignUp {
    CorporateEmail email;
    int age = 18;
    std::string code;
    double share = 0;
    std::vector<int> tags{};
    bool agreed = false;

    SOURCED_COMMAND("sign_up", email, age, code, share, tags, agreed)
    static Rules rules() {
        return {{"email", required},
                {"age", at_least(0), at_most(150), lax},
                {"code", matches("[A-Z]{2}-\\d+"), lax},
                {"share", at_most(0.5)},
                {"tags", length(0, 2)},
                {"agreed", lax}};
    }
};

struct Misruled {
    int value = 0;

    SOURCED_VALUE(value)
    static Rules rules() { return {{"valeu", required}}; }
};

class Hidden {
public:
    Hidden() = default;
    explicit Hidden(int value) : value_(value) {}
    [[nodiscard]] int value() const { return value_; }

private:
    friend class cereal::access;
    template <class Archive>
    void serialize(Archive& archive) {
        archive(cereal::make_nvp("value", value_));
    }
    int value_ = 0;
};

struct Split {
    int doubled = 0;

    template <class Archive>
    void save(Archive& archive) const {
        archive(cereal::make_nvp("half", doubled / 2));
    }
    template <class Archive>
    void load(Archive& archive) {
        int half = 0;
        archive(cereal::make_nvp("half", half));
        doubled = half * 2;
    }
};

struct Foreign {
    int left = 0;
    int right = 0;
};
template <class Archive>
void serialize(Archive& archive, Foreign& value) {
    archive(value.left, value.right);
}

template <class T>
Problems problems(std::string_view json, Reading reading = Reading::tolerant, const Limits& limits = {}) {
    try {
        (void)decode<T>(json, reading, limits);
    } catch (const Invalid& error) {
        return error.problems();
    }
    return {};
}

template <class T>
std::string problem(std::string_view json, Reading reading = Reading::tolerant) {
    std::string all;
    for (const auto& one : problems<T>(json, reading)) all += (all.empty() ? "" : " | ") + one.path + ": " + one.text;
    return all;
}

template <class T>
T again(const T& value) {
    return decode<T>(encode(value), Reading::strict);
}

std::string write_error(auto&& value) {
    try {
        (void)encode(value);
    } catch (const Invalid& error) {
        return error.what();
    }
    return "nothing was thrown";
}

Everything filled() {
    Everything all;
    all.flag = true;
    all.i8 = -128;
    all.u8 = 255;
    all.i16 = -32768;
    all.u16 = 65535;
    all.i32 = std::numeric_limits<std::int32_t>::min();
    all.u32 = std::numeric_limits<std::uint32_t>::max();
    all.i64 = std::numeric_limits<std::int64_t>::min();
    all.u64 = std::numeric_limits<std::uint64_t>::max();
    all.f = 0.1f;
    all.d = 0.1;
    all.text = std::string("a\"\\/\b\f\n\r\t\x01\0b \u00e9\u20ac\U0001F600", 22);
    all.price = {5, "USD"};
    all.prices = {{1, "EUR"}, {2, "CHF"}};
    all.three = {1, 2, 3};
    all.names = {"x", "y"};
    all.pair = {1, "one"};
    all.triple = {1, true, 0.5};
    all.some = 7;
    all.choice = Refunded{"late"};
    all.by_name = {{"a", {1, 2}}, {"", {}}};
    all.by_hash = {{"k", 1}};
    all.status = Status::closed;
    all.number = Number::two;
    all.bytes = {std::byte{0}, std::byte{255}, std::byte{16}, std::byte{7}};
    all.four_bytes = {std::byte{1}, std::byte{2}, std::byte{3}, std::byte{4}};
    all.time = Time(1'700'000'000'123'456us);
    all.nanos = std::chrono::sys_time<std::chrono::nanoseconds>(-1ns);
    all.seconds = std::chrono::sys_seconds(-62167219200s);
    all.wait = -250ms;
    all.id = Id::parse("01890a5d-ac96-774b-bcce-b302099a8057");
    all.bits = {true, false};
    all.list = {1};
    all.deque = {2};
    all.metadata.set("by", "me");
    return all;
}

}  // namespace codec_test

using namespace codec_test;

TEST_CASE("Codec: every supported type comes back as it was") {
    CHECK(again(filled()) == filled());
    CHECK(again(Everything{}) == Everything{});
}

TEST_CASE("Codec: the text of each type") {
    CHECK(encode(Price{1, "x"}) == R"({"amount":1,"currency":"x"})");
    CHECK(encode(std::variant<int, Paid>(Paid{3})) == R"({"tag":"paid","value":{"amount":3}})");
    CHECK(encode(std::variant<int, Paid>(3)) == R"({"tag":0,"value":3})");
    CHECK(encode(std::pair(1, std::string("a"))) == R"([1,"a"])");
    CHECK(encode(std::optional<int>()) == "null");
    CHECK(encode(Status::closed) == R"("closed")");
    CHECK(encode(Number::two) == "2");
    CHECK(encode(std::vector<std::byte>{std::byte{1}, std::byte{2}}) == R"("AQI=")");
    CHECK(encode(Time(0us)) == R"("1970-01-01T00:00:00Z")");
    CHECK(encode(Time(1'700'000'000'120'000us)) == R"("2023-11-14T22:13:20.120Z")");
    CHECK(encode(Time(-1us)) == R"("1969-12-31T23:59:59.999999Z")");
    CHECK(encode(std::chrono::seconds(5)) == "5");
    CHECK(encode(std::map<std::string, int>{{"a\"", 1}}) == R"({"a\"":1})");
    CHECK(encode(std::string("\x01\x1f\n")) == R"("\u0001\u001f\n")");
}

TEST_CASE("Codec: doubles are short and come back bit by bit") {
    CHECK(encode(0.1) == "0.1");
    CHECK(encode(1e300) == "1e+300");
    CHECK(encode(1.0) == "1");
    CHECK(encode(-0.0) == "-0.0");
    CHECK(std::signbit(again(-0.0)));
    CHECK(encode(0.1f) == "0.1");
    std::mt19937_64 random(42);
    for (int i = 0; i < 20'000; ++i) {
        const std::uint64_t bits = random();
        double value = 0;
        std::memcpy(&value, &bits, sizeof value);
        if (!std::isfinite(value)) continue;
        const double back = again(value);
        REQUIRE(std::memcmp(&back, &value, sizeof value) == 0);
    }
    for (const double value : {std::numeric_limits<double>::min(), std::numeric_limits<double>::max(),
                               std::numeric_limits<double>::denorm_min(), 18446744073709551616.0, 9007199254740993.0}) {
        CHECK(again(value) == value);
    }
}

TEST_CASE("Codec: integers are exact to 64 bits and refused outside their type") {
    CHECK(decode<std::int64_t>("9223372036854775807") == std::numeric_limits<std::int64_t>::max());
    CHECK(decode<std::uint64_t>("18446744073709551615") == std::numeric_limits<std::uint64_t>::max());
    CHECK(problem<std::int64_t>("9223372036854775808") ==
          ": expected integer from -9223372036854775808 to 9223372036854775807, got 9223372036854775808");
    CHECK(problem<std::uint64_t>("18446744073709551616") == ": expected integer, got 18446744073709551616.0");
    CHECK(problem<std::int8_t>("128") == ": expected integer from -128 to 127, got 128");
    CHECK(problem<std::uint8_t>("-1") == ": expected integer from 0 to 255, got -1");
    CHECK(problem<int>("1.0") == ": expected integer, got 1.0");
    CHECK(problem<int>("true") == ": expected integer, got true");
    CHECK(problem<float>("1e39") == ": expected number of single precision, got 1e+39");
}

TEST_CASE("Codec: cereal's serialize works in its forms") {
    CHECK(encode(Hidden(3)) == R"({"value":3})");
    CHECK(decode<Hidden>(R"({"value":3})").value() == 3);
    CHECK(encode(Split{8}) == R"({"half":4})");
    CHECK(decode<Split>(R"({"half":4})").doubled == 8);
    CHECK(encode(Foreign{1, 2}) == R"({"value0":1,"value1":2})");
    CHECK(decode<Foreign>(R"({"value1":2,"value0":1})").right == 2);
}

TEST_CASE("Reader: an absent field keeps its default, an unknown one is ignored, in any order") {
    const auto item = decode<Item>(R"({"new":{"a":[1,2]},"price":5,"product_id":"p"})");
    CHECK(item.product_id == "p");
    CHECK(item.price == 5);
    CHECK(item.quantity == 1);
    CHECK(decode<Item>("{}").quantity == 1);
    CHECK(decode<Item>(R"({"quantity":3,"price":2,"product_id":"x"})").quantity == 3);
    CHECK(decode<Item>(R"({"price":2,"quantity":3})").quantity == 3);
}

TEST_CASE("Reader: every problem is told with its path") {
    CHECK(problem<Order>(R"({"items":[{"price":1},{"price":"x"},{"product_id":5,"quantity":null},7]})") ==
          R"(/items/1/price: expected integer, got "x" | /items/2/product_id: expected string, got 5 | )"
          R"(/items/2/quantity: expected integer, got null | /items/3: expected object, got 7)");
    CHECK(problem<Order>(R"({"items":{}})") == "/items: expected array, got an object");
    CHECK(problem<std::map<std::string, int>>(R"({"a/b~c":"x"})") == R"(/a~1b~0c: expected integer, got "x")");
    CHECK(problem<bool>("1") == ": expected boolean, got 1");
    CHECK(problem<double>(R"("1")") == R"(: expected number, got "1")");
    CHECK(problem<Status>(R"("ajar")") == R"(: expected one of open, closed, got "ajar")");
    CHECK(problem<std::array<int, 2>>("[1]") == ": expected 2 elements, got 1");
    CHECK(problem<std::array<int, 2>>("[1,2,3]") == ": expected 2 elements, got 3");
    CHECK(problem<std::pair<int, int>>("[1]") == ": expected 2 elements, got 1");
    CHECK(problem<std::monostate>("1") == ": expected null, got 1");
    CHECK(problem<std::set<int>>("[1,1]") == "/1: stands twice in a set");
    CHECK(problem<Id>(R"("x")") == R"(: expected UUID, got "x")");
    CHECK(problem<std::vector<std::byte>>(R"("AQI")") == R"(: expected base64 text, got "AQI")");
    CHECK(problem<std::vector<std::byte>>(R"("AQJ=")") == R"(: expected base64 text, got "AQJ=")");
    CHECK(problem<std::array<std::byte, 1>>(R"("AQI=")") == R"(: expected base64 of 1 bytes, got "AQI=")");
    CHECK(problem<Metadata>("1") == ": expected object, got 1");
    CHECK(problem<int>(R"(")" + std::string(100, 'x') + R"(")").size() < 100);
    CHECK(problem<int>(R"("\u0007\n")") == R"(: expected integer, got "\x07\x0a")");
}

TEST_CASE("Reader: the alternative of a variant is found by its tag, wherever that stands") {
    using V = std::variant<int, std::string, Paid>;
    CHECK(std::get<Paid>(decode<V>(R"({"value":{"amount":4},"tag":"paid"})")).amount == 4);
    CHECK(std::get<std::string>(decode<V>(R"({"tag":1,"value":"x"})")) == "x");
    CHECK(problem<V>(R"({"tag":"lost","value":1})") == "/tag: names none of the alternatives");
    CHECK(problem<V>(R"({"tag":2,"value":1})") == "/tag: names none of the alternatives");
    CHECK(problem<V>(R"({"tag":0})") == "/value: is missing");
    CHECK(problem<V>(R"({"value":0})") == "/tag: is missing");
    CHECK(problem<V>(R"({"tag":0,"value":"x"})") == R"(/value: expected integer, got "x")");
    CHECK(problem<V>("[]") == ": expected object, got an array");
}

TEST_CASE("Reader: times are RFC 3339 with Z or an offset, and nothing else") {
    CHECK(decode<Time>(R"("2023-11-14T22:13:20.123456Z")") == Time(1'700'000'000'123'456us));
    CHECK(decode<Time>(R"("2023-11-15T00:13:20+02:00")") == Time(1'700'000'000s));
    CHECK(decode<Time>(R"("2023-11-14T22:13:20.1234567Z")") == Time(1'700'000'000'123'456us));
    for (const char* wrong : {"2023-11-14", "2023-02-29T00:00:00Z", "2023-13-01T00:00:00Z", "2023-11-14T24:00:00Z",
                              "2023-11-14T22:13:20", "2023-11-14T22:13:20Zx", "2023-11-14T22:13:20.Z", ""}) {
        CAPTURE(wrong);
        CHECK(problem<Time>('"' + std::string(wrong) + '"') ==
              ": expected time like 2026-01-31T12:00:00Z, got \"" + std::string(wrong) + '"');
    }
    CHECK(problem<std::chrono::sys_time<std::chrono::nanoseconds>>(R"("9999-01-01T00:00:00Z")") ==
          R"(: expected time within the range of its type, got "9999-01-01T00:00:00Z")");
}

TEST_CASE("Reader: read strictly, unknown fields are problems") {
    CHECK(problem<Order>(R"({"items":[{"size":1}],"more":2})", Reading::strict) ==
          "/items/0/size: unknown field | /more: unknown field");
    CHECK(problem<Order>(R"({"items":[{"size":1}],"more":2})").empty());
}

TEST_CASE("Reader: a key that stands twice is a problem") {
    CHECK(problem<Item>(R"({"price":1,"price":2})") == "/price: stands twice");
    CHECK(problem<Item>(R"({"product_id":"a","price":1,"quantity":1,"price":2})") == "/price: stands twice");
    CHECK(problem<std::map<std::string, int>>(R"({"a":1,"a":1})") == "/a: stands twice");
}

TEST_CASE("Rules: each is asked when reading strictly, and not for stored facts") {
    const std::string good =
        R"({"email":"A@Example.com","age":"30","code":"AB-1","share":0.5,"tags":[1,2],"agreed":"true"})";
    const auto taken = decode<SignUp>(good, Reading::strict);
    CHECK(taken.email.get() == "a@example.com");
    CHECK(taken.age == 30);
    CHECK(taken.agreed);
    CHECK(
        problem<SignUp>(R"({"email":"x@elsewhere.org","age":-1,"code":"ab","share":0.6,"tags":[1,2,3],"agreed":"yes"})",
                        Reading::strict) ==
        R"(/email: expected an address at example.com | /age: expected at least 0, got -1 | )"
        R"(/code: expected text like [A-Z]{2}-\d+, got "ab" | /share: expected at most 0.5, got 0.6 | )"
        R"(/tags: expected 0 to 2 elements, got 3 | /agreed: expected boolean, got "yes")");
    CHECK(problem<SignUp>(R"({"age":"151"})", Reading::strict) ==
          R"(/email: is missing | /age: expected at most 150, got "151")");
    CHECK(problem<SignUp>(R"({"email":""})", Reading::strict).find("/email: expected 3 to 40 characters, got 0") == 0);
    CHECK(problem<SignUp>(R"({"email":"x","age":-1,"share":9})").empty());
    CHECK(problem<SignUp>(R"({"age":"30"})") == R"(/age: expected integer, got "30")");
    CHECK(problem<Item>(R"({"price":"12"})", Reading::strict) == R"(/price: expected integer, got "12")");
}

TEST_CASE("Rules: a message cannot be made against them") {
    CHECK_NOTHROW((void)Message(SignUp{.email = "a@example.com", .age = 3, .code = "AB-1"}));
    CHECK_THROWS_AS((void)Message(SignUp{.email = "a@elsewhere.org", .age = 3, .code = "AB-1"}), Invalid);
    CHECK_THROWS_AS((void)Message(SignUp{.email = "a@example.com", .age = 151, .code = "AB-1"}), Invalid);
}

TEST_CASE("Rules: a name that is no field is an error at first use") {
    CHECK_THROWS_WITH_AS((void)decode<Misruled>("{}", Reading::strict), "rules: there is no field 'valeu'", Error);
}

namespace {
bool fits(std::string_view pattern, const std::string& text) {
    const detail::RuleSet set(Rules{{"", matches(pattern)}});
    const std::string json = encode(text);
    detail::JsonReader reader(json, Reading::strict, {});
    reader.check(set.fields.front(), set, reader.here());
    return reader.problem_count() == 0;
}
}  // namespace

TEST_CASE("Rules: patterns match whole texts") {
    CHECK(fits("abc", "abc"));
    CHECK(!fits("abc", "abcd"));
    CHECK(!fits("abc", "xabc"));
    CHECK(fits("a*", ""));
    CHECK(fits("(ab)+", "abab"));
    CHECK(!fits("(ab)+", "aba"));
    CHECK(fits("a|bc|d", "bc"));
    CHECK(fits("a|bc|d", "d"));
    CHECK(!fits("a|bc|d", "ad"));
    CHECK(fits("x(a|b|)y", "xy"));
    CHECK(fits("x(a|b)*y", "xababy"));
    CHECK(fits("[^a-c]{2,3}", "dde"));
    CHECK(!fits("[^a-c]{2,3}", "d"));
    CHECK(!fits("[^a-c]{2,3}", "ddddd"));
    CHECK(fits("((a|b){2}|c)+", "abcba"));
    CHECK(fits(".\\.\\d\\w\\s", "\u20ac.5_ "));
    CHECK(fits("[\\w.+-]+@[\\w-]+(\\.[\\w-]+)+", "a.b+c@example.co.uk"));
    CHECK(fits("(a*)*b", std::string(100'000, 'a') + "b"));
    CHECK(!fits("(a*)*b", std::string(100'000, 'a')));
    for (const char* wrong : {"(", ")", "[", "a{2", "*", "\\", "\\q", "a{3,2}", "a{9999}", "^a", "((a{999}){999})"}) {
        CAPTURE(wrong);
        CHECK_THROWS_AS((void)fits(wrong, ""), Error);
    }
}

TEST_CASE("Schema: types and rules are described") {
    CHECK(json_schema<Price>() ==
          R"({"type":"object","properties":{"amount":{"type":"integer"},"currency":{"type":"string"}}})");
    CHECK(
        json_schema<SignUp>() ==
        R"({"type":"object","properties":{)"
        R"("email":{"type":"string","format":"email","allOf":[{"minLength":3,"minItems":3},{"maxLength":40,"maxItems":40}]},)"
        R"("age":{"type":"integer","minimum":-2147483648,"maximum":2147483647,"allOf":[{"minimum":0},{"maximum":150}]},)"
        R"("code":{"type":"string","allOf":[{"pattern":"^(?:[A-Z]{2}-\\d+)$"}]},)"
        R"("share":{"type":"number","allOf":[{"maximum":0.5}]},)"
        R"("tags":{"type":"array","items":{"type":"integer","minimum":-2147483648,"maximum":2147483647},)"
        R"("allOf":[{"minLength":0,"minItems":0},{"maxLength":2,"maxItems":2}]},)"
        R"("agreed":{"type":"boolean"}},"required":["email"]})");
    CHECK(json_schema<Status>() == R"({"enum":["open","closed"]})");
    CHECK(json_schema<std::optional<bool>>() == R"({"anyOf":[{"type":"boolean"},{"type":"null"}]})");
    CHECK(json_schema<std::variant<bool, Paid>>().find(R"("tag":{"const":"paid"})") != std::string::npos);
    CHECK(
        json_schema<Tree>() ==
        R"({"type":"object","properties":{"name":{"type":"string"},"children":{"type":"array","items":{"$ref":"#"}}}})");
    const std::string all = json_schema<Everything>();
    CHECK_NOTHROW((void)Metadata::parse(all));  // it is a JSON object without doubled keys
}

TEST_CASE("Writer: what JSON cannot hold is refused with its path") {
    CHECK(write_error(Price{1, "a\xff"}) ==
          "write JSON: /currency: cannot write a string that is no UTF-8: byte 1 of \"a\"...");
    CHECK(write_error(std::vector<double>{1, std::nan("")}) == "write JSON: /1: cannot write NaN");
    CHECK(write_error(std::map<std::string, double>{{"k", -INFINITY}}) ==
          "write JSON: /k: cannot write an infinite number");
    CHECK(write_error(std::string("\xed\xa0\x80")) != "nothing was thrown");
    CHECK(write_error(std::string("\xc0\xaf")) != "nothing was thrown");
    CHECK(write_error(std::string("\xf4\x90\x80\x80")) != "nothing was thrown");
    CHECK(write_error(std::string("12345678\xe2\x82")) != "nothing was thrown");
    CHECK(write_error(Time::max()) == "write JSON: cannot write a time outside the years 0 to 9999");
    CHECK(write_error(static_cast<Status>(9)) == "write JSON: cannot write an enum value without a name");
    Tree tree;
    for (int i = 0; i < 100; ++i) tree = Tree{"t", {tree}};
    CHECK(write_error(tree).find("nested deeper than 64") != std::string::npos);
    CHECK(encode(Price{1, "still fine"}) == R"({"amount":1,"currency":"still fine"})");
}

TEST_CASE("Hostile: what is no JSON is refused, nothing is cut") {
    for (const std::string& wrong : {std::string(),
                                     std::string(" "),
                                     std::string("{"),
                                     std::string("[1,]"),
                                     std::string("{\"a\":1} x"),
                                     std::string("1 2"),
                                     std::string("{}\0", 3),
                                     std::string("{}\0{}", 5),
                                     std::string("nul"),
                                     std::string("1e999"),
                                     std::string("-1e999"),
                                     std::string("[1e999]"),
                                     std::string("01"),
                                     std::string("'a'"),
                                     std::string("NaN"),
                                     std::string("\"\xff\""),
                                     std::string("\"\xc0\x80\""),
                                     std::string("\"\xed\xa0\x80\""),
                                     std::string("\"\xf5\x80\x80\x80\""),
                                     std::string(R"("\ud800")"),
                                     std::string(R"("\udc00")"),
                                     std::string(R"("\ud800\u0041")"),
                                     std::string("\"a\nb\""),
                                     std::string("\"\\x\""),
                                     std::string("\"abc"),
                                     std::string("{\"a\"}"),
                                     std::string("{1:2}"),
                                     std::string("// x\n1"),
                                     std::string("\xef\xbb\xbf") + "1"}) {
        CAPTURE(wrong);
        const auto found = problems<Metadata>(wrong);
        REQUIRE(found.size() == 1);
        CHECK(found[0].path.empty());
        CHECK(found[0].text.starts_with("no JSON: "));
        CHECK(problems<Item>(R"({"x":)" + wrong + "}").size() == 1);  // also where nobody wants the value
    }
    CHECK(decode<std::string>(R"("a\u0000b")") == std::string("a\0b", 3));
    CHECK(decode<std::string>(R"("\ud83d\ude00")") == "\U0001F600");
    CHECK(problem<int>("1e400") == ": no JSON: Number too big to be stored in double. at byte 0");
}

TEST_CASE("Hostile: nesting of 1,000,000 and text beyond the limit are refused") {
    CHECK(problem<Item>(std::string(1'000'000, '[')) ==
          ": no JSON: it is nested too deeply, 64 levels are allowed at byte 64");
    std::string deep;
    for (int i = 0; i < 1'000'000; ++i) deep += R"({"a":)";
    CHECK(problems<Item>(deep).size() == 1);
    CHECK_NOTHROW((void)decode<Item>(R"({"x":)" + std::string(63, '[') + std::string(63, ']') + "}"));
    CHECK(problems<Item>(R"({"x":)" + std::string(64, '[') + std::string(64, ']') + "}").size() == 1);
    const std::string large = '"' + std::string(64u << 20, 'x') + '"';
    CHECK(problem<std::string>(large) == ": it has 67108866 bytes, 16777216 are allowed");
    CHECK(decode<std::string>(large, Reading::tolerant, Limits{.bytes = 100u << 20}).size() == 64u << 20);
    CHECK(problems<std::string>("\"123\"", Reading::tolerant, Limits{.bytes = 4}).size() == 1);
    Tree tree = decode<Tree>(R"({"name":"still fine"})");
    CHECK(tree.name == "still fine");
}

TEST_CASE("Hostile: 100,000 keys are read, unknown, doubled or wrong") {
    std::string object = "{";
    std::string twice = "{";
    for (int i = 0; i < 100'000; ++i) {
        object += (i ? ",\"k" : "\"k") + std::to_string(i) + "\":" + std::to_string(i);
        twice += i ? ",\"price\":1" : "\"price\":1";
    }
    object += "}";
    twice += "}";
    CHECK(decode<std::map<std::string, int>>(object).size() == 100'000);
    CHECK(decode<Item>(object).quantity == 1);
    const auto unknown = problems<Item>(object, Reading::strict);
    CHECK(unknown.size() == 100);
    CHECK(unknown.back().text == "there are more problems");
    CHECK(problems<Item>(twice).size() == 100);
    CHECK(problems<std::map<std::string, std::string>>(object).size() == 100);
    CHECK(Metadata::parse(object).keys().size() == 100'000);
}

TEST_CASE("Hostile: random damage never crashes, and what is read writes what it means") {
    const std::string good = encode(filled());
    std::mt19937 random(7);
    for (int i = 0; i < 20'000; ++i) {
        std::string text = good;
        for (auto changes = random() % 3 + 1; changes > 0; --changes) {
            const std::size_t at = random() % text.size();
            switch (random() % 3) {
                case 0: text[at] = static_cast<char>(random()); break;
                case 1: text.erase(at, random() % 8 + 1); break;
                default: text.insert(at, 1, "{}[]\",:\\0-.eE\xff"[random() % 15]);
            }
        }
        try {
            const auto value = decode<Everything>(text, Reading::strict);
            REQUIRE(again(value) == value);
        } catch (const Invalid& error) {
            REQUIRE(!error.problems().empty());
            REQUIRE(!std::string(error.what()).empty());
        }
    }
}
