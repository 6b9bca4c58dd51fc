// scheduled and what is below it.
#include <doctest/doctest.h>
#include <rapidjson/document.h>

#include <algorithm>
#include <fstream>
#include <iterator>

#include "inspector.hpp"
#include "sourced.hpp"

using namespace sourced;
using support::golden;
using support::inspect;
using support::replaced;

namespace {

using Words = std::vector<std::string>;

constexpr const char* hostile = "\x1b[31mred\nline\x07";
constexpr const char* hostile_shown = R"(\x1b[31mred\nline\x07)";

Time at(std::int64_t seconds) { return Time(std::chrono::seconds(seconds)); }
constexpr std::int64_t year_2100 = 4'102'444'800;

Id id(std::uint8_t number) { return Id({1, 0x90, 0, 0, 0, 0, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, number}); }

/// A file with this in its schedule: a command of 1970 that is overdue, one of 2100, and a report that recurs.
class Shop {
public:
    Shop() {
        const auto store = open();
        store->schedule({entry(at(60), "cart-1", "cart.expire", 1), entry(at(year_2100), "cart-2", "cart.remind", 2)});
        store->recur(report());
    }

    static Scheduled entry(Time due, const std::string& stream, const std::string& type, std::uint8_t number) {
        Message message = support::message(Kind::command, type, R"({"text":"hello"})");
        message.id = message.causation = message.correlation = id(number);
        message.stream = stream;
        return {due, message};
    }
    static Recurring report() {
        Recurring recurring;
        recurring.name = "nightly-report";
        recurring.every = std::chrono::hours(24);
        recurring.first = at(year_2100 + 3600);
        recurring.message = support::message(Kind::command, "report.make");
        recurring.message.stream = "reports";
        return recurring;
    }

    [[nodiscard]] std::unique_ptr<Store> open() const {
        StoreOptions options;
        options.path = path;
        options.seed = 7;
        return open_store(options);
    }
    [[nodiscard]] support::Ran run(Words words) const {
        words.insert(words.begin(), path);
        return inspect(words);
    }
    [[nodiscard]] std::string said(const Words& words) const {
        const auto ran = run(words);
        CHECK(ran.status == 0);
        CHECK(ran.err == "");
        return replaced(ran.out, path, "FILE");
    }
    [[nodiscard]] Id report_id() const { return open()->recurring().at(0).next_id; }

private:
    support::TemporaryDirectory directory_;

public:
    const std::string path = directory_.file("shop.db");
};

std::string planned_and_done(const Shop& shop, const Words& words) {
    return support::planned_and_done(shop.path, words);
}

void check_refused(const Shop& shop, const Words& words, int status, const std::string& text) {
    support::check_refused(shop.path, words, status, text);
}

}  // namespace

TEST_CASE("scheduled: what waits stands in order of its time, with what is overdue and what recurs") {
    const Shop shop;
    const std::string text = replaced(shop.said({"scheduled"}), shop.report_id().to_string(),
                                      "01900000-0000-7000-8000-00000000REPO");
    CHECK(text == golden("scheduled.txt", text));
    CHECK(shop.said({"scheduled", "--stream", "cart-9"}) == "nothing is scheduled for 'cart-9'\n");
    const std::string one = shop.said({"scheduled", "--limit", "1"});
    CHECK(one.find("cart-1") != std::string::npos);
    CHECK(one.find("cart-2") == std::string::npos);
    CHECK(one.find("There may be more: --limit shows them.\n") != std::string::npos);
    CHECK(shop.run({"scheduled", "--limit", "-1"}).status == 2);
    const std::string cart = shop.said({"scheduled", "--stream", "cart-2"});
    CHECK(cart.find("cart.remind") != std::string::npos);
    CHECK(cart.find("cart.expire") == std::string::npos);
}

TEST_CASE("scheduled: times are told as people say them") {
    const Shop shop;
    shop.open()->schedule({Shop::entry(std::chrono::floor<Duration>(std::chrono::system_clock::now()) +
                                           std::chrono::hours(50),
                                       "cart-3", "cart.remind", 3)});
    const std::string text = shop.said({"scheduled", "--time", "relative"});
    CHECK(text.find("years ago, overdue  ") != std::string::npos);
    CHECK(text.find("in 2.1 days  ") != std::string::npos);
}

TEST_CASE("scheduled: as JSON it is what the store tells") {
    const Shop shop;
    rapidjson::Document entries;
    entries.Parse(shop.said({"scheduled", "--json"}).c_str());
    REQUIRE_FALSE(entries.HasParseError());
    REQUIRE(entries.Size() == 3);
    const auto text = [&](unsigned entry, const char* field) { return std::string(entries[entry][field].GetString()); };
    CHECK(text(0, "due_at") == "1970-01-01T00:01:00Z");
    CHECK(entries[0]["overdue"].GetBool());
    CHECK(text(0, "id") == id(1).to_string());
    CHECK(text(0, "stream") == "cart-1");
    CHECK(text(0, "type") == "cart.expire");
    CHECK(text(0, "kind") == "command");
    CHECK(std::string(entries[0]["payload"]["text"].GetString()) == "hello");
    CHECK(entries[0]["recurring"].IsNull());
    CHECK_FALSE(entries[1]["overdue"].GetBool());
    CHECK(text(2, "id") == shop.report_id().to_string());
    CHECK(std::string(entries[2]["recurring"]["name"].GetString()) == "nightly-report");
    CHECK(entries[2]["recurring"]["every_seconds"].GetDouble() == 86400.0);
    CHECK(std::string(entries[2]["recurring"]["next"].GetString()) == "2100-01-02T01:00:00Z");
}

TEST_CASE("scheduled cancel: by an id, and the message is gone") {
    const Shop shop;
    CHECK(planned_and_done(shop, {"scheduled", "cancel", id(2).to_string()}) ==
          "Cancel message " + id(2).to_string() +
              ":\n  cart.remind for stream 'cart-2', due 2100-01-01T00:00:00Z\n  {\"text\":\"hello\"}\ncancelled " +
              id(2).to_string() + ", cart.remind for 'cart-2'\n");
    CHECK_FALSE(shop.open()->find_scheduled(id(2)));
    check_refused(shop, {"scheduled", "cancel", id(2).to_string(), "--yes"}, 4,
                  "cancel " + id(2).to_string() + ": no message of this id waits, and none is in the log");
}

TEST_CASE("scheduled cancel: an occurrence of what recurs is left out, its name ends it") {
    const Shop shop;
    const std::string first = shop.report_id().to_string();
    const std::string said = planned_and_done(shop, {"scheduled", "cancel", first});
    CHECK(said.find("Of 'nightly-report' this occurrence is left out, the next comes 2100-01-02T01:00:00Z\n") !=
          std::string::npos);
    REQUIRE(shop.open()->recurring().size() == 1);
    CHECK(shop.report_id().to_string() != first);
    CHECK(planned_and_done(shop, {"scheduled", "cancel", "nightly-report"}) ==
          "End what is sent again and again as 'nightly-report', every 24 h, with the occurrence that waits:\n"
          "  report.make for stream 'reports', due 2100-01-02T01:00:00Z\n  {}\n"
          "A program that declares it brings it back when it starts.\n"
          "cancelled 'nightly-report', which came every 24 h\n");
    CHECK(shop.open()->recurring().empty());
    CHECK(shop.open()->scheduled().size() == 2);
}

TEST_CASE("scheduled cancel: --name takes a name, also one that looks like an id") {
    const Shop shop;
    Recurring odd = Shop::report();
    odd.name = id(2).to_string();
    shop.open()->recur(odd);
    CHECK(planned_and_done(shop, {"scheduled", "cancel", "--name", odd.name}).find("End what is sent again") == 0);
    CHECK(shop.open()->recurring().size() == 1);
    CHECK(shop.open()->find_scheduled(id(2)));
    check_refused(shop, {"scheduled", "cancel", "--name", "elephant", "--yes"}, 4,
                  "cancel 'elephant': nothing recurs under this name");
    check_refused(shop, {"scheduled", "cancel", "nightly-reprot", "--yes"}, 4,
                  "cancel 'nightly-reprot': nothing recurs under this name. Did you mean 'nightly-report'?");
    check_refused(shop, {"scheduled", "cancel", "--yes"}, 2,
                  "scheduled cancel takes an id, or the name of what recurs");
    check_refused(shop, {"scheduled", "cancel", id(1).to_string(), "--name", "nightly-report", "--yes"}, 2,
                  "scheduled cancel takes an id, or the name of what recurs");
}

TEST_CASE("scheduled now: the message is in the log at once, and not a second time") {
    const Shop shop;
    CHECK(planned_and_done(shop, {"scheduled", "now", id(2).to_string()}) ==
          "Move message " + id(2).to_string() +
              " into the log now:\n  cart.remind for stream 'cart-2', due 2100-01-01T00:00:00Z\n"
              "  {\"text\":\"hello\"}\nmoved " +
              id(2).to_string() + " into the log: cart.remind in 'cart-2'\n");
    CHECK(shop.open()->find(id(2)));
    CHECK_FALSE(shop.open()->find_scheduled(id(2)));
    check_refused(shop, {"scheduled", "now", id(2).to_string(), "--yes"}, 1,
                  "run " + id(2).to_string() + ": too late, it is in the log at position 1");
    check_refused(shop, {"scheduled", "cancel", id(2).to_string(), "--yes"}, 1,
                  "cancel " + id(2).to_string() + ": too late, it is in the log at position 1");
    check_refused(shop, {"scheduled", "now", "nightly-reprot", "--yes"}, 4,
                  "run 'nightly-reprot': nothing recurs under this name. Did you mean 'nightly-report'?");
    check_refused(shop, {"scheduled", "now", id(9).to_string(), "--yes"}, 4,
                  "run " + id(9).to_string() + ": no message of this id waits, and none is in the log");
    CHECK(shop.run({"scheduled", "now", "--yes"}).status == 2);
}

TEST_CASE("scheduled now: what recurs comes once more, by its name too") {
    const Shop shop;
    const std::string waits = shop.report_id().to_string();
    const std::string said = planned_and_done(shop, {"scheduled", "now", "nightly-report"});
    CHECK(said.find("Of 'nightly-report' this is an extra occurrence, the next still comes in its time.\n") !=
          std::string::npos);
    CHECK(shop.open()->head() == 1);
    CHECK(shop.open()->recurring().at(0).next == at(year_2100 + 3600));
}

TEST_CASE("scheduled: names from the file reach no terminal raw") {
    const Shop shop;
    auto entry = Shop::entry(at(year_2100), hostile, "cart.remind", 5);
    entry.message.payload = R"({"text":"\u001b[2J"})";
    shop.open()->schedule({entry});
    Recurring recurring = Shop::report();
    recurring.name = hostile;
    shop.open()->recur(recurring);
    std::string all;
    for (const Words& words : std::vector<Words>{{"scheduled"},
                                                 {"scheduled", "--stream", hostile},
                                                 {"scheduled", "--json"},
                                                 {"scheduled", "now", id(5).to_string()},
                                                 {"scheduled", "cancel", hostile},
                                                 {"scheduled", "cancel", id(5).to_string(), "--yes"}}) {
        const auto ran = shop.run(words);
        CHECK((ran.out + ran.err).find(words.back() == "--json" ? "red" : hostile_shown) != std::string::npos);
        all += ran.out + ran.err;
    }
    CHECK(all.find('\x1b') == std::string::npos);
    CHECK(all.find('\x07') == std::string::npos);
}

TEST_CASE("scheduled: what is neither UTF-8 nor JSON leaves the list JSON") {
    const Shop shop;
    auto entry = Shop::entry(at(year_2100), "cart-\xff", "cart.remind", 5);
    entry.message.payload = "}{\x1b";
    shop.open()->schedule({entry});
    rapidjson::Document entries;
    entries.Parse<rapidjson::kParseValidateEncodingFlag>(shop.said({"scheduled", "--json"}).c_str());
    REQUIRE_FALSE(entries.HasParseError());
    REQUIRE(entries.Size() == 4);
    const auto found = std::find_if(entries.Begin(), entries.End(),
                                    [](const auto& each) { return each.HasMember("stream_base64"); });
    REQUIRE(found != entries.End());
    CHECK(std::string((*found)["payload_text"].GetString()) == "}{\x1b");
}

TEST_CASE("scheduled: another process that holds the file's lock makes a change end as busy") {
    const Shop shop;
    const auto store = shop.open();
    store->transaction([&](Transaction&) {
        CHECK(shop.run({"scheduled", "cancel", id(2).to_string(), "--yes", "--wait", "0.05"}).status == 5);
        CHECK(shop.run({"scheduled", "cancel", "nightly-report", "--yes", "--wait", "0.05"}).status == 5);
        CHECK(shop.run({"scheduled", "now", id(2).to_string(), "--yes", "--wait", "0.05"}).status == 5);
    });
    CHECK(store->find_scheduled(id(2)));
}
