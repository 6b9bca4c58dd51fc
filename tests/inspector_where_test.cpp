// What people write on the inspector's command line: times, durations, and the language of --where.
#include <doctest/doctest.h>

#include <sstream>

#include "support.hpp"
#include "tools/inspector/where.hpp"

using namespace sourced;
using inspector::parse_duration;
using inspector::parse_time;
using inspector::Where;
using support::error_of;

namespace {

constexpr std::int64_t second = 1'000'000;

/// Sunday, 17 May 2026, 14:30:00 UTC.
constexpr Time now{Duration(1'779'028'200 * second)};
constexpr Time midnight{Duration(1'778'976'000 * second)};

std::int64_t seconds_from_now(const std::string& text) { return (parse_time(text, now) - now).count() / second; }
std::int64_t microseconds(const std::string& text) { return parse_duration(text).count(); }
std::string time_error(const std::string& text) { return error_of([&] { (void)parse_time(text, now); }); }
std::string duration_error(const std::string& text) { return error_of([&] { (void)parse_duration(text); }); }

Message message(const std::string& payload, const std::string& metadata = "{}") {
    Message made;
    made.id = Id::parse("01890a5d-ac96-774b-bcce-b302099a8057");
    made.stream = "cart-1";
    made.seq = 3;
    made.position = 9;
    made.type = "cart.item_added";
    made.causation = Id::parse("01890a5d-ac96-774b-bcce-b302099a8050");
    made.correlation = made.causation;
    made.recorded_at = now;
    made.occurred_at = midnight;
    made.metadata = Metadata::parse(metadata);
    made.payload = payload;
    return made;
}

const Message item =
    message(R"({"product_id":"p1","price":12.50,"count":9007199254740993,"gift":true,"note":null,)"
            R"("items":[{"price":5,"tags":["a"]},{"price":15,"tags":[]}],"grid":[[1,2],[3]],"odd.name":{"":1}})",
            R"({"user_id":7,"from":"10.0.0.1"})");

bool is(const std::string& expression, const Message& of = item) { return Where::parse(expression, now)(of); }
std::string where_error(const std::string& expression) {
    return error_of<inspector::BadArgument>([&] { (void)Where::parse(expression, now); });
}
/// The error's first line, without "--where: ", and the column of its mark.
std::pair<std::string, std::size_t> where_mark(const std::string& expression) {
    const auto error = where_error(expression);
    const auto first = error.find('\n');
    const auto last = error.rfind('\n');
    if (first == std::string::npos || last == first) return {error, 0};
    return {error.substr(9, first - 9), error.size() - last - 4};
}

bool holds(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

// ---- times ---------------------------------------------------------------------

TEST_CASE("times: ISO 8601 is read with and without a zone, to the microsecond") {
    CHECK(parse_time("2026-05-17T14:30:00Z", now) == now);
    CHECK(parse_time("2026-05-17t14:30z", now) == now);
    CHECK(parse_time("2026-05-17 14:30", now) == now);
    CHECK(parse_time("  2026-05-17T16:30:00+02:00 ", now) == now);
    CHECK(parse_time("2026-05-17T09:00:00-0530", now) == now);
    CHECK(parse_time("2026-05-17 16:30 +02", now) == now);
    CHECK(parse_time("2026-05-17T14:30:00.000001Z", now) - now == Duration(1));
    CHECK(parse_time("2026-05-17T14:30:00,5Z", now) - now == Duration(second / 2));
    CHECK(parse_time("2026-05-17T14:30:00.1234567891Z", now) - now == Duration(123456));
    CHECK(parse_time("2026-05-17", now) == midnight);
    CHECK(parse_time("2026-05-16T24:00", now) == midnight);
    CHECK(parse_time("1969-12-31T23:59:59Z", now) == Time(Duration(-second)));
    CHECK(parse_time("2024-02-29", now) - parse_time("2024-02-28", now) == std::chrono::hours(24));
}

TEST_CASE("times: a time of day is that of today, and the days have names") {
    CHECK(parse_time("14:30", now) == now);
    CHECK(parse_time("00:00:01", now) - midnight == Duration(second));
    CHECK(parse_time("now", now) == now);
    CHECK(parse_time("Today", now) == midnight);
    CHECK(midnight - parse_time("yesterday", now) == std::chrono::hours(24));
    CHECK(parse_time("TOMORROW", now) - midnight == std::chrono::hours(24));
}

TEST_CASE("times: what is relative counts from now, in both directions") {
    CHECK(seconds_from_now("-5m") == -300);
    CHECK(seconds_from_now("5m ago") == -300);
    CHECK(seconds_from_now("2 hours 5 minutes ago") == -7500);
    CHECK(seconds_from_now("-1h30m") == -5400);
    CHECK(seconds_from_now("+90s") == 90);
    CHECK(seconds_from_now("in 2 days") == 172800);
    CHECK(seconds_from_now("-0") == 0);
}

TEST_CASE("times: seconds since 1970 stand behind @, microseconds as they are in the file") {
    CHECK(parse_time("@1779028200", now) == now);
    CHECK(parse_time("@1779028200.25", now) - now == Duration(second / 4));
    CHECK(parse_time("@0", now) == Time());
    CHECK(parse_time("1779028200250000", now) - now == Duration(second / 4));
}

TEST_CASE("times: an error says what is wrong with which text, and what is accepted") {
    CHECK(time_error("soon") == "'soon' is no time: it is none that is known; accepted are " +
                                    std::string(inspector::accepted_times()));
    CHECK(holds(time_error(""), "'' is no time: it is empty"));
    CHECK(holds(time_error("2026-02-30"), "there is no such day"));
    CHECK(holds(time_error("2026-13-01"), "there is no such day"));
    CHECK(holds(time_error("2026-05-17T25:00"), "there is no such time of day"));
    CHECK(holds(time_error("24:01"), "there is no such time of day"));
    CHECK(holds(time_error("14:30:60"), "there is no such time of day"));
    CHECK(holds(time_error("14:30:5"), "seconds are written with two digits"));
    CHECK(holds(time_error("14:30:05."), "digits are missing behind the point"));
    CHECK(holds(time_error("2026-05-17T1430"), "hours and minutes are written 14:30"));
    CHECK(holds(time_error("2026-05-17x"), "behind the date stands a T or a space"));
    CHECK(holds(time_error("14:30 CET"), "a zone is written Z or +02:00"));
    CHECK(holds(time_error("14:30+2"), "a zone is written Z or +02:00"));
    CHECK(holds(time_error("14:30+24:00"), "there is no such zone"));
    CHECK(holds(time_error("14:30Z!"), "something is left behind the zone"));
    CHECK(holds(time_error("5m"), "is it before or after now: -5m or +5m?"));
    CHECK(holds(time_error("5 ago"), "the number 5 has no unit: is it 5s or 5m?"));
    CHECK(holds(time_error("-3 fortnights"), "'fortnights' is no unit of time"));
    CHECK(holds(time_error("@soon"), "behind @ stand seconds since 1970"));
    CHECK(holds(time_error("@99999999999999999999"), "it is too far away"));
    CHECK(holds(time_error("99999999999999999999"), "it is too far away"));
    CHECK(holds(time_error("12345"), "it is none that is known"));
    CHECK(holds(error_of([] { (void)parse_time("-15000000w", Time::min()); }), "it is too far away"));
}

// ---- durations -----------------------------------------------------------------

TEST_CASE("durations: numbers with units are added up, exactly") {
    CHECK(microseconds("90s") == 90 * second);
    CHECK(microseconds("5m") == 300 * second);
    CHECK(microseconds("1h30m") == 5400 * second);
    CHECK(microseconds("1H 30 Min") == 5400 * second);
    CHECK(microseconds("2d") == 172800 * second);
    CHECK(microseconds("1w") == 604800 * second);
    CHECK(microseconds("1.5h") == 5400 * second);
    CHECK(microseconds("0.1s") == second / 10);
    CHECK(microseconds("250ms") == second / 4);
    CHECK(microseconds("7us") == 7);
    CHECK(microseconds("3 days") == 259200 * second);
    CHECK(microseconds("0") == 0);
}

TEST_CASE("durations: an error says what is wrong with which text, and what is accepted") {
    CHECK(duration_error("90") == "'90' is no duration: the number 90 has no unit: is it 90s or 90m?; accepted are " +
                                      std::string(inspector::accepted_durations()));
    CHECK(holds(duration_error(""), "it is empty"));
    CHECK(holds(duration_error("-5m"), "it is negative"));
    CHECK(holds(duration_error("m"), "a number is missing"));
    CHECK(holds(duration_error("1.h"), "digits are missing behind the point"));
    CHECK(holds(duration_error("1 year"), "'year' is no unit of time"));
    CHECK(holds(duration_error("1h30"), "the number 30 has no unit"));
    CHECK(holds(duration_error("99999999999999w"), "it is too long"));
    CHECK(holds(duration_error("99999999999999999999s"), "it is too long"));
}

// ---- --where -------------------------------------------------------------------

TEST_CASE("where: every field of the envelope is compared with values of its own kind") {
    CHECK(is("type = 'cart.item_added'"));
    CHECK(is("type == \"cart.item_added\""));
    CHECK_FALSE(is("type = 'cart.item'"));
    CHECK(is("type ~ 'item'"));
    CHECK_FALSE(is("type ~ 'Item'"));
    CHECK(is("stream >= 'cart-' and stream < 'cart-2'"));
    CHECK(is("stream in ('cart-0', 'cart-1')"));
    CHECK(is("kind = 'event' and kind != 'command'"));
    CHECK(is("seq = 3 and seq < 4 and seq <= 3 and seq > 2.5 and seq >= 3 and seq != 4"));
    CHECK(is("position in (1, 9)"));
    CHECK(is("position < 1e30 and position > -1e30"));
    CHECK(is("schema = 1"));
    CHECK(is("id = '01890A5D-AC96-774B-BCCE-B302099A8057'"));
    CHECK(is("id ~ 'B302099a8057'"));
    CHECK(is("causation = '01890a5d-ac96-774b-bcce-b302099a8050'"));
    CHECK(is("correlation != '01890a5d-ac96-774b-bcce-b302099a8057'"));
}

TEST_CASE("where: times are compared with texts that stand for times") {
    CHECK(is("recorded_at = '2026-05-17T14:30Z'"));
    CHECK(is("recorded_at >= '-1m' and recorded_at <= 'now'"));
    CHECK_FALSE(is("recorded_at < '2026-05-17'"));
    CHECK(is("occurred_at = 'today'"));
    CHECK(is("occurred_at in ('yesterday', 'today')"));
    Message fresh = item;
    fresh.occurred_at = {};
    CHECK(is("occurred_at = 'now'", fresh));
}

TEST_CASE("where: payload and metadata are reached by names, indexes and any element") {
    CHECK(is("payload.product_id = 'p1'"));
    CHECK(is("payload.items[0].price = 5"));
    CHECK(is("payload.items[1].price = 15"));
    CHECK_FALSE(is("payload.items[0].price = 15"));
    CHECK(is("payload.items[*].price = 15"));
    CHECK(is("payload.items[*].tags[*] = 'a'"));
    CHECK_FALSE(is("payload.items[1].tags[*] = 'a'"));
    CHECK(is("payload.grid[*][0] = 3"));
    CHECK(is("payload.grid[0][1] = 2"));
    CHECK_FALSE(is("payload.grid[1][1] = 2"));
    CHECK(is("payload['odd.name'][\"\"] = 1"));
    CHECK(is("metadata.user_id = 7"));
    CHECK(is("metadata.from ~ '0.0'"));
    CHECK(is("payload = 'whole'", message("\"whole\"")));
    CHECK(is("payload[1] = 2", message("[1,2]")));
    CHECK(is("payload.a[*].b = 1", message(R"({"a":[[],{"c":1},{"b":1}]})")));
    CHECK_FALSE(is("payload.a.b = 1", message(R"({"a":{"x":{"b":1}},"b":1})")));
}

TEST_CASE("where: and binds before or, not before both, and parentheses before all") {
    CHECK(is("payload.price > 10 and (type = 'x' or metadata.user_id = 7)"));
    CHECK(is("seq = 3 or seq = 4 and seq = 5"));
    CHECK_FALSE(is("(seq = 3 or seq = 4) and seq = 5"));
    CHECK_FALSE(is("not seq = 3 or seq = 4"));
    CHECK(is("not (seq = 4 or seq = 5)"));
    CHECK(is("NOT not seq = 3"));
    CHECK(is("seq=3 AND(position=9)"));
}

TEST_CASE("where: what is missing makes a comparison false, also with !=, and exists tells") {
    CHECK_FALSE(is("payload.missing = 1"));
    CHECK_FALSE(is("payload.missing != 1"));
    CHECK_FALSE(is("payload.missing = null"));
    CHECK_FALSE(is("payload.missing in (1, null)"));
    CHECK(is("not payload.missing = 1"));
    CHECK(is("exists payload.note and payload.note = null"));
    CHECK_FALSE(is("exists payload.missing"));
    CHECK(is("exists payload.items[1]"));
    CHECK_FALSE(is("exists payload.items[2]"));
    CHECK(is("exists payload.items and exists payload"));
    CHECK_FALSE(is("exists payload", message("")));
}

TEST_CASE("where: values of different kinds are unequal and have no order") {
    CHECK_FALSE(is("payload.price = '12.50'"));
    CHECK(is("payload.price != '12.50'"));
    CHECK_FALSE(is("payload.product_id > 0"));
    CHECK_FALSE(is("payload.note < 1"));
    CHECK(is("payload.gift = true and payload.gift != false and payload.gift != 1"));
    CHECK(is("payload.items != null"));
    CHECK_FALSE(is("payload.items = null"));
    CHECK_FALSE(is("payload.price ~ '12'"));
}

TEST_CASE("where: numbers are compared exactly, whatever they are written like") {
    CHECK(is("payload.count = 9007199254740993"));
    CHECK_FALSE(is("payload.count = 9007199254740992"));
    CHECK(is("payload.count > 9007199254740992.5"));
    CHECK(is("payload.price = 12.5"));
    CHECK(is("payload.price = 1.25e1"));
    CHECK(is("payload.price = 1250E-2"));
    const auto number = [](const std::string& text) { return message("{\"n\":" + text + "}"); };
    CHECK(is("payload.n = 9223372036854775807", number("9223372036854775807")));
    CHECK(is("payload.n > 9223372036854775807", number("9223372036854775808")));
    CHECK(is("payload.n < -9223372036854775808", number("-9223372036854775809")));
    CHECK(is("payload.n != 18446744073709551617", number("18446744073709551616")));
    CHECK(is("payload.n < 0.30000000000000000001", number("0.3")));
    CHECK(is("payload.n = 0", number("-0.0e5")));
    CHECK(is("payload.n = 100", number("1e2")));
    CHECK(is("payload.n = 0.001", number("1e-3")));
    CHECK(is("payload.n < 1e-400", number("1e-401")));
    CHECK(is("payload.n < 1e99999999999999999999", number("1e308")));
    CHECK(is("payload.n > -1e99999999999999999999", number("-1e308")));
    CHECK(is("payload.n > 1e-99999999999999999999", number("1e-308")));
    CHECK(is("payload.n < -0.5", number("-0.51")));
}

TEST_CASE("where: strings take both quotes, escapes, NUL and any characters") {
    CHECK(is(R"(payload.t = 'it\'s "so"')", message(R"({"t":"it's \"so\""})")));
    CHECK(is(R"(payload.t = "a\\\"\/\n\r\t\b\f")", message(R"({"t":"a\\\"/\n\r\t\b\f"})")));
    CHECK(is(R"(payload.t = '\u0041\u00e9\u20ac\ud83d\ude00')", message(R"({"t":"Aé€😀"})")));
    CHECK(is(R"(payload.t = 'a\u0000b')", message("{\"t\":\"a\\u0000b\"}")));
    CHECK_FALSE(is("payload.t = 'a'", message("{\"t\":\"a\\u0000b\"}")));
    CHECK(is("payload.größe = 'weiß'", message(R"({"größe":"weiß"})")));
}

TEST_CASE("where: a payload that is no JSON, erased or very deep has no fields and does no harm") {
    const std::string deep(1'000'000, '[');
    CHECK_FALSE(is("exists payload[0]", message(deep)));
    CHECK(is("exists payload[0]", message(deep + std::string(1'000'000, ']'))));
    CHECK_FALSE(is("payload.a = 1", message(R"({"a":1,)")));
    CHECK_FALSE(is("payload.a = 1", message(R"({"a":1} x)")));
    CHECK_FALSE(is("payload.a = 1", message("{\"a\":1,\"b\":\"\xff\"}")));
    CHECK_FALSE(is("payload.a != 1", message("")));
    CHECK(is("not payload.a = 1 and seq = 3", message("}{")));
    const auto where = Where::parse("payload.a = 1", now);
    CHECK(where(message(R"({"a":1})")));
    CHECK_FALSE(where(message(R"({"a":2})")));
    CHECK(where(message(R"({"a":[1],"a":1})")));
}

TEST_CASE("where: an error shows the place and says what was expected") {
    CHECK(where_error("payload.price > ") ==
          "--where: expected a value: a string in quotes, a number, true, false or null\n"
          "  payload.price > \n"
          "                  ^");
    CHECK(where_error("größe = 1 ") ==
          "--where: there is no field 'größe': expected id, stream, seq, position, type, kind, schema, causation, "
          "correlation, recorded_at, occurred_at, payload.NAME, metadata.NAME\n"
          "  größe = 1 \n"
          "  ^");
    using Mark = std::pair<std::string, std::size_t>;
    const std::string value = "expected a value: a string in quotes, a number, true, false or null";
    CHECK(where_mark("type = cart.added") == Mark{value + "; is it 'cart'?", 7});
    CHECK(where_mark("payload.é ! 1") == Mark{"expected an operator: = != < <= > >= ~ in", 10});
    CHECK(where_mark("payload.a = 1 payload.b = 2") == Mark{"expected 'and', 'or' or the end", 14});
    CHECK(where_mark("(seq = 1") == Mark{"expected 'and', 'or' or ')'", 8});
    CHECK(where_mark("seq in 1") == Mark{"expected '(' and values", 7});
    CHECK(where_mark("seq in (1 2)") == Mark{"expected ',' or ')'", 10});
    CHECK(where_mark("payload. = 1") == Mark{"expected a name behind the point; others are written [\"a name\"]", 8});
    CHECK(where_mark("payload[-1] = 1") == Mark{"expected a number from 0, * or a name in quotes", 8});
    CHECK(where_mark("payload[99999999999999999999] = 1") ==
          Mark{"expected a number from 0, * or a name in quotes", 8});
    CHECK(where_mark("payload[0 = 1") == Mark{"expected ']'", 10});
    CHECK(where_mark("type = 'x") == Mark{"this string does not end: expected '", 7});
    CHECK(where_mark("type = 'x\\") ==
          Mark{"expected one of the escapes \\\\ \\' \\\" \\/ \\n \\r \\t \\b \\f \\u0041", 9});
    CHECK(where_mark("type = '\\u12'") == Mark{"expected four hexadecimal digits behind \\u", 8});
    CHECK(where_mark("type = '\\ud800'") == Mark{"half of a surrogate pair is no character", 8});
    CHECK(where_mark("seq = 1.") == Mark{"expected a digit", 8});
    CHECK(where_mark("seq = -") == Mark{"expected a digit", 7});
    CHECK(where_mark("seq = 1x") == Mark{"expected the end of the number", 7});
    CHECK(where_mark("seq = '1'") == Mark{"expected a number", 6});
    CHECK(where_mark("type = 1") == Mark{"expected a string in quotes", 7});
    CHECK(where_mark("kind = 'evnt'") == Mark{"expected 'command' or 'event'", 7});
    CHECK(where_mark("kind > 'event'") == Mark{"kinds have no order: expected = != in", 5});
    CHECK(where_mark("seq ~ 1") == Mark{"~ looks for a part of a text: this is none", 4});
    CHECK(where_mark("recorded_at > 5") == Mark{"expected a time in quotes", 14});
    CHECK(where_mark("payload.a > true") ==
          Mark{"true, false and null have no order: expected a string in quotes or a number", 12});
    CHECK(where_mark("payload.a ~ 1") == Mark{"expected a string in quotes", 12});
    CHECK(where_mark("exists seq") == Mark{"every message has one: expected payload or metadata", 7});
    CHECK(holds(where_error("recorded_at > 'soon'"), "'soon' is no time"));
    CHECK(holds(where_error("id = 'x'"), "a part of an id is found with ~"));
    CHECK(holds(where_error(""), "expected a field: id, stream"));
    CHECK(holds(where_error(std::string(100'000, '(')), "nested deeper than 200"));
    CHECK(where_error("seq\n=\x1b'").find('\x1b') == std::string::npos);
}

TEST_CASE("where: the examples of the grammar can be read") {
    const std::string grammar(Where::grammar());
    auto at = grammar.find("Examples:\n");
    REQUIRE(at != std::string::npos);
    int examples = 0;
    std::istringstream lines(grammar.substr(at));
    for (std::string line; std::getline(lines, line);) {
        if (!line.starts_with("    ")) continue;
        CHECK(where_error(line) == "");
        ++examples;
    }
    CHECK(examples == 4);
}
