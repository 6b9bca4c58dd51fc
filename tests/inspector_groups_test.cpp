// groups and all that is below it, workers, check.
#include <doctest/doctest.h>
#include <SQLiteCpp/Database.h>
#include <rapidjson/document.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <fstream>
#include <iterator>

#include "inspector.hpp"
#include "inspector_types.hpp"
#include "sourced.hpp"

using namespace sourced;
using support::golden;
using support::inspect;
using support::replaced;

namespace {

using Words = std::vector<std::string>;

constexpr const char* hostile = "\x1b[31mred\nline|pipe=\x07'quote'";
constexpr const char* hostile_shown = R"(\x1b[31mred\nline|pipe=\x07'quote')";

/// Messages were recorded when nobody has lived yet: ages are told from the newest of them, whatever the time is.
Time future(std::int64_t seconds) { return Time(std::chrono::seconds(4'102'444'800 + seconds)); }

Id id(std::uint8_t number) { return Id({1, 0x90, 0, 0, 0, 0, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, number}); }

/// A file with groups in all states.
class Shop {
public:
    Shop() : store_(open()) {}

    [[nodiscard]] std::unique_ptr<Store> open() const {
        StoreOptions options;
        options.path = path;
        options.clock = [this] { return now_.load(); };
        return open_store(options);
    }
    [[nodiscard]] Store& store() { return *store_; }
    /// Nobody has the file open any more.
    void leave() { store_.reset(); }

    void set(std::int64_t seconds) { now_ = future(seconds); }
    void append(const std::string& stream, const std::string& type, const std::string& payload = "{}") {
        Message message = support::message(Kind::event, type, payload);
        message.id = message.causation = message.correlation = id(++last_);
        store_->append(stream, {message});
    }
    std::int64_t group(const std::string& name, std::vector<std::string> types) {
        return store_->register_group({name, std::move(types), {}}).id;
    }
    std::vector<Claim> claim(std::int64_t group, std::size_t count) {
        Exchange step;
        step.group = group;
        step.claims = count;
        return store_->exchange(step).claims;
    }
    void handle(const Claim& claim, std::int64_t acked, std::optional<Failure> failure = {}) {
        Exchange step;
        step.finished.resize(1);
        step.finished[0].claim = claim;
        step.finished[0].acked = acked;
        step.finished[0].failure = std::move(failure);
        (void)store_->exchange(step);
    }
    /// Handles all that the group has open.
    void handle_all(std::int64_t group) {
        for (auto claims = claim(group, 100); !claims.empty(); claims = claim(group, 100)) {
            for (const auto& each : claims) handle(each, each.known);
        }
    }

    [[nodiscard]] support::Ran run(Words words, const std::string& in = {}) const {
        words.insert(words.begin(), path);
        return inspect(words, in);
    }
    /// What a command says that ends well and says nothing on stderr.
    [[nodiscard]] std::string said(const Words& words) const {
        const auto ran = run(words);
        CHECK(ran.status == 0);
        CHECK(ran.err == "");
        return replaced(ran.out, path, "FILE");
    }
    /// Of a group, from the file.
    [[nodiscard]] GroupInfo info(const std::string& name) const { return open()->stats().group(name); }

private:
    support::TemporaryDirectory directory_;

public:
    const std::string path = directory_.file("shop.db");

private:
    std::atomic<Time> now_{future(0)};
    std::uint8_t last_ = 0;
    std::unique_ptr<Store> store_;
};

Failure failure(std::int64_t position, Resolution resolution, const std::string& text = "out of paper") {
    return {position, "std::runtime_error", text, std::move(resolution)};
}

/// "orders" has a stream that waits, one that is parked and one of which a message was skipped; "mails" was stopped by
/// an error; "prices" passes messages again; "audit" has handled all.
void fill(Shop& shop) {
    const auto orders = shop.group("orders", {"order.placed", "order.paid"});
    const auto mails = shop.group("mails", {"order.paid"});
    const auto prices = shop.group("prices", {"order.placed"});
    const auto audit = shop.group("audit", {"order.shipped"});
    for (const auto* stream : {"order-1", "order-2", "order-3", "order-4", "order-5"}) {
        shop.append(stream, "order.placed", R"({"price":10})");
    }
    shop.set(60);
    for (const auto* stream : {"order-1", "order-2"}) shop.append(stream, "order.paid");
    shop.append("order-1", "order.shipped");
    shop.handle_all(audit);
    shop.handle_all(prices);
    shop.store().reset_group("prices", {.position = 2, .reason = "rounding was wrong"}, nullptr);
    const auto mail = shop.claim(mails, 1);
    REQUIRE(mail.size() == 1);
    shop.handle(mail[0], 0, failure(6, Resolution::stop(), "no such host"));
    const auto claims = shop.claim(orders, 5);
    REQUIRE(claims.size() == 5);
    shop.handle(claims[0], 6);
    shop.handle(claims[1], 2, failure(7, Resolution::retry(future(600))));
    shop.handle(claims[2], 0, failure(3, Resolution::park("the price is not known")));
    shop.handle(claims[3], 0, failure(4, Resolution::skip("a test order")));
    shop.set(90);
    shop.append("order-5", "order.paid");
}

rapidjson::Document parsed(const std::string& json) {
    rapidjson::Document document;
    document.Parse(json.c_str());
    REQUIRE_MESSAGE(!document.HasParseError(), json);
    return document;
}

std::string text_of(const rapidjson::Value& value) {
    REQUIRE(value.IsString());
    return {value.GetString(), value.GetStringLength()};
}

std::string planned_and_done(Shop& shop, const Words& words) {
    shop.leave();
    return support::planned_and_done(shop.path, words);
}

void check_refused(const Shop& shop, const Words& words, int status, const std::string& text) {
    support::check_refused(shop.path, words, status, text);
}

}  // namespace

// ---- groups ---------------------------------------------------------------------

TEST_CASE("groups: one line a group tells how far it is and what is wrong with it") {
    Shop shop;
    fill(shop);
    const std::string text = shop.said({"groups"});
    CHECK(text == golden("groups.txt", text));
}

TEST_CASE("groups: as JSON they are what the store tells") {
    Shop shop;
    fill(shop);
    const auto groups = parsed(shop.said({"groups", "--json"}));
    REQUIRE(groups.Size() == 4);
    const auto& orders = groups[0];
    const auto info = shop.store().stats().group("orders");
    CHECK(text_of(orders["group"]) == "orders");
    CHECK(text_of(orders["status"]) == "active");
    CHECK(orders["lag"].GetInt64() == info.lag);
    CHECK(orders["lag_seconds"].GetDouble() == 90.0);
    CHECK(orders["estimated"].GetBool() == false);
    CHECK(orders["retrying"].GetInt64() == 1);
    CHECK(text_of(orders["next_retry"]) == "2100-01-01T00:10:00Z");
    CHECK(orders["parked"].GetInt64() == 1);
    CHECK(orders["skipped"].GetInt64() == 1);
    CHECK(text_of(orders["last_error"]["error"]["text"]) == "out of paper");
    CHECK(orders["scanned"].GetInt64() == info.scanned);
    CHECK(text_of(orders["types"][0]["type"]) == "order.paid");
    CHECK(orders["types"][0]["since"].GetInt64() == 1);
    CHECK(orders["reset"].IsNull());
    const auto& mails = groups[1];
    CHECK(text_of(mails["status"]) == "stopped");
    CHECK(mails["active"].GetBool() == false);
    CHECK(text_of(mails["error"]["type"]) == "std::runtime_error");
    CHECK(text_of(mails["error"]["text"]) == "no such host");
    CHECK(mails["error"]["position"].GetInt64() == 6);
    const auto& prices = groups[2];
    CHECK(text_of(prices["status"]) == "replaying");
    CHECK(prices["replay"]["total"].GetInt64() > 0);
    CHECK(prices["reset"]["position"].GetInt64() == 2);
    CHECK(text_of(prices["reset"]["reason"]) == "rounding was wrong");

    const std::string lines = shop.said({"groups", "-o", "jsonl"});
    CHECK(std::count(lines.begin(), lines.end(), '\n') == 4);
    CHECK(text_of(parsed(lines.substr(0, lines.find('\n')))["group"]) == "orders");
}

TEST_CASE("groups: in a file without any it says so") {
    const Shop shop;
    CHECK(shop.said({"groups"}) == "no groups\n");
    CHECK(shop.said({"groups", "--json"}) == "[]\n");
    CHECK(shop.said({"workers"}) == "no workers\n");
}

TEST_CASE("groups show: all of one group, with what waits, is parked and was skipped") {
    Shop shop;
    fill(shop);
    const std::string text = shop.said({"groups", "show", "orders"});
    CHECK(text.find("\nClaims\n") != std::string::npos);
    CHECK(text.find("\norder-5 ") != std::string::npos);
    shop.store().stop_group("audit", "for the night");
    shop.leave();
    CHECK(shop.said({"groups", "show", "orders"}) ==
          golden("groups_show.txt", shop.said({"groups", "show", "orders"})));
    CHECK(shop.said({"groups", "show", "mails"}) ==
          golden("groups_show_stopped.txt", shop.said({"groups", "show", "mails"})));
    CHECK(shop.said({"groups", "show", "prices"}) ==
          golden("groups_show_replay.txt", shop.said({"groups", "show", "prices"})));
    CHECK(shop.said({"groups", "show", "audit"}).find("stopped     2100-01-01T00:01:30Z: for the night\n") !=
          std::string::npos);
}

TEST_CASE("groups show: a claim is told with its owner") {
    Shop shop;
    fill(shop);
    const auto group = parsed(shop.said({"groups", "show", "orders", "--json"}));
    const auto worker = shop.store().workers().at(0);
    REQUIRE(group["claims"].Size() == 1);
    const auto& claim = group["claims"][0];
    CHECK(text_of(claim["stream"]) == "order-5");
    CHECK(claim["worker"].GetInt64() == worker.number);
    CHECK(claim["pid"].GetInt64() == ::getpid());
    CHECK(text_of(claim["host"]) == worker.host);
    CHECK(claim["alive"].GetBool() == true);
    CHECK(text_of(group["retries"][0]["stream"]) == "order-2");
    CHECK(text_of(group["retries"][0]["retry_at"]) == "2100-01-01T00:10:00Z");
    CHECK(text_of(group["parked_streams"][0]["reason"]) == "the price is not known");
    CHECK(text_of(group["skipped_messages"][0]["id"]) == id(4).to_string());
    CHECK(text_of(group["skipped_messages"][0]["reason"]) == "a test order");
}

TEST_CASE("groups show: offsets come in pages") {
    Shop shop;
    fill(shop);
    const auto streams = [&](Words words) {
        words.insert(words.begin(), {"groups", "show", "orders", "--all", "--json"});
        const auto group = parsed(shop.said(words));
        std::string names;
        for (const auto& offset : group["offsets"].GetArray()) names += text_of(offset["stream"]) + " ";
        return names;
    };
    CHECK(streams({}) == "order-1 order-2 order-3 order-4 order-5 ");
    CHECK(streams({"--limit", "2"}) == "order-1 order-2 ");
    CHECK(shop.run({"groups", "show", "orders", "--limit", "-1"}).status == 2);
    CHECK(streams({"--limit", "2", "--after", "order-2"}) == "order-3 order-4 ");
    const std::string text = shop.said({"groups", "show", "orders", "--all", "--limit", "2"});
    CHECK(text.find("More: --after 'order-2'\n") != std::string::npos);
    check_refused(shop, {"groups", "show", "orders", "--all", "--after", "order-9"}, 4,
                  "--after 'order-9': there is no such stream");
}

TEST_CASE("groups: what is not there is told with what was likely meant") {
    Shop shop;
    fill(shop);
    check_refused(shop, {"groups", "show", "oders"}, 4, "there is no group 'oders' in 'FILE'. Did you mean 'orders'?");
    check_refused(shop, {"groups", "stop", "elephant", "--reason", "x", "-y"}, 4,
                  "there is no group 'elephant' in 'FILE'");
    check_refused(shop, {"groups", "park", "orders", "--stream", "oder-1", "--reason", "x", "-y"}, 4,
                  "there is no stream 'oder-1' in 'FILE'. Did you mean 'order-1'?");
    check_refused(shop, {"groups", "retry", "orders", "--stream", "zebra", "-y"}, 4,
                  "there is no stream 'zebra' in 'FILE'");
    check_refused(shop, {"groups", "skip", "orders", "--stream", "zebra", "--reason", "x", "-y"}, 4,
                  "there is no stream 'zebra' in 'FILE'");
    check_refused(shop, {"groups", "reset", "orders", "--stream", "zebra", "--reason", "x", "-y"}, 4,
                  "there is no stream 'zebra' in 'FILE'");
}

// ---- groups stop, start, retry --------------------------------------------------

TEST_CASE("groups stop: the group stays stopped, with its reason, and starts with another") {
    Shop shop;
    fill(shop);
    CHECK(planned_and_done(shop, {"groups", "stop", "orders", "--reason", "the printer is away"}) ==
          "Stop group 'orders': it handles nothing until it is started; work under way is dropped, and done again "
          "then.\nstopped 'orders': the printer is away\n");
    CHECK_FALSE(shop.info("orders").active);
    CHECK(shop.info("orders").reason == "the printer is away");
    CHECK(shop.info("orders").retrying == 1);
    CHECK(shop.said({"groups", "show", "orders"}).find(": the printer is away\n") != std::string::npos);
    // Whoever opens the file later finds it stopped.
    CHECK(shop.open()->register_group({"orders", {"order.placed", "order.paid"}, {}}).active == false);

    CHECK(planned_and_done(shop, {"groups", "start", "orders", "--reason", "it is back"}) ==
          "Start group 'orders' where it stopped, 4 messages behind; retries come at once, parked streams stay "
          "parked.\nstarted 'orders': it is back\n");
    CHECK(shop.info("orders").active);
    CHECK(shop.info("orders").reason == "it is back");
    CHECK(shop.info("orders").retrying == 0);
    CHECK(shop.info("orders").parked == 1);
}

TEST_CASE("groups stop: what is stopped already says so, and a reason is needed") {
    Shop shop;
    fill(shop);
    shop.leave();
    const auto ran = shop.run({"groups", "stop", "mails", "--reason", "for the night", "--yes"});
    CHECK(ran.status == 0);
    CHECK(ran.err.find("It is stopped already, and this reason takes the place of the one kept: no such host.") !=
          std::string::npos);
    CHECK(shop.run({"groups", "stop", "orders", "--yes"}).status == 2);
    CHECK(shop.info("orders").active);
    CHECK(shop.run({"groups", "start", "orders", "--yes"}).err.find("It is active already") != std::string::npos);
}

TEST_CASE("groups retry: what waits is tried at once, what is parked only when that is asked for") {
    Shop shop;
    fill(shop);
    CHECK(planned_and_done(shop, {"groups", "retry", "orders", "--reason", "paper is in"}) ==
          "In group 'orders', try again:\n  1 stream waiting for a retry\nParked: 1 stream; see --all.\n"
          "retrying 1 stream of 'orders': paper is in\n");
    CHECK(shop.info("orders").retrying == 0);
    CHECK(shop.info("orders").parked == 1);
    CHECK(shop.info("orders").reason == "paper is in");
    CHECK(shop.said({"groups", "retry", "orders"}) ==
          "nothing waits for a retry in 'orders'; 1 stream parked: --all or --stream\n");
    CHECK(planned_and_done(shop, {"groups", "retry", "orders", "--all"}) ==
          "In group 'orders', try again:\n  1 parked stream\nretrying 1 stream of 'orders'\n");
    CHECK(shop.info("orders").parked == 0);
    CHECK(shop.said({"groups", "retry", "orders", "--all"}) == "nothing waits for a retry in 'orders'\n");
}

TEST_CASE("groups retry: one stream") {
    Shop shop;
    fill(shop);
    CHECK(planned_and_done(shop, {"groups", "retry", "orders", "--stream", "order-3", "--reason", "10 euros"}) ==
          "Try stream 'order-3' again for group 'orders' (parked, std::runtime_error: out of paper), with its attempts "
          "counted anew.\nretrying 'order-3' for 'orders': 10 euros\n");
    CHECK(shop.info("orders").parked == 0);
    CHECK(shop.info("orders").retrying == 1);
    CHECK(shop.info("orders").reason == "10 euros");
    check_refused(shop, {"groups", "retry", "orders", "--stream", "order-1", "--yes"}, 1,
                  "retry 'order-1' for group 'orders': it is neither parked nor waiting for a retry; nothing was done");
    CHECK(shop.run({"groups", "retry", "orders", "--stream", "order-1", "--all"}).status == 2);
}

TEST_CASE("groups retry: a group that an error stopped is started, one that was stopped by hand is not") {
    Shop shop;
    fill(shop);
    shop.store().stop_group("audit", "for the night");
    CHECK(planned_and_done(shop, {"groups", "retry", "mails"}) ==
          "In group 'mails', try again:\n  the message at position 6 that stopped it (std::runtime_error: no such "
          "host); the group is started\nretrying 0 streams of 'mails', which was started\n");
    CHECK(shop.info("mails").active);
    CHECK(shop.info("mails").error_type == "");
    check_refused(shop, {"groups", "retry", "audit", "--yes"}, 1,
                  "group 'audit' was stopped by hand ('for the night'): 'groups start' starts it; nothing was done");
    CHECK_FALSE(shop.info("audit").active);
}

TEST_CASE("groups retry: the stream that stopped its group starts it") {
    Shop shop;
    fill(shop);
    const std::string said = planned_and_done(shop, {"groups", "retry", "mails", "--stream", "order-1"});
    CHECK(said.find("The group was stopped by this error, and is started.\n") != std::string::npos);
    CHECK(said.find("retrying 'order-1' for 'mails', which was started\n") != std::string::npos);
    CHECK(shop.info("mails").active);
}

// ---- groups skip, park ----------------------------------------------------------

TEST_CASE("groups skip: the message is shown first, then passed over and recorded") {
    Shop shop;
    fill(shop);
    const std::string said = planned_and_done(
        shop, {"groups", "skip", "orders", "--stream", "order-3", "--reason", "written by a broken version"});
    CHECK(said == golden("groups_skip.txt", said));
    const auto skipped = shop.open()->skipped("orders");
    REQUIRE(skipped.size() == 2);
    CHECK(skipped[1].position == 3);
    CHECK(skipped[1].reason == "written by a broken version");
    CHECK(shop.info("orders").parked == 0);
}

TEST_CASE("groups skip: without a failure it is the first message that is open") {
    Shop shop;
    fill(shop);
    const auto plan = shop.run({"groups", "skip", "prices", "--stream", "order-4", "--reason", "x"});
    CHECK(plan.err.find("order.placed " + id(4).to_string() + ", seq 1, position 4,") != std::string::npos);
    check_refused(shop, {"groups", "skip", "audit", "--stream", "order-1", "--reason", "x", "--yes"}, 1,
                  "skip a message of 'order-1' for group 'audit': nothing is open there; nothing was done");
    shop.append("order-6", "order.placed");
    const auto undiscovered = shop.run({"groups", "skip", "prices", "--stream", "order-6", "--reason", "x"});
    CHECK(undiscovered.err.find("seq 1, position 10,") != std::string::npos);
    shop.leave();
    const auto done = shop.run({"groups", "skip", "prices", "--stream", "order-6", "--reason", "x", "--yes"});
    CHECK(done.out == "skipped " + id(10).to_string() + " at position 10 of 'order-6' for 'prices': x\n");
}

TEST_CASE("groups skip: what was shown is passed over, or nothing" * doctest::skip(!support::has_terminals())) {
    Shop shop;
    fill(shop);
    shop.append("order-3", "order.placed");
    support::Terminal terminal({shop.path, "groups", "skip", "orders", "--stream", "order-3", "--reason", "x"});
    REQUIRE(terminal.wait_for("position 3,"));
    REQUIRE(terminal.wait_for("Type yes"));
    shop.open()->skip_message("orders", "order-3", "somebody else did");
    terminal.tell("yes\n");
    const auto ran = terminal.end();
    CHECK(ran.status == 1);
    CHECK(ran.out.find("it would be the one at position 10 now, not that at 3") != std::string::npos);
    CHECK(shop.open()->skipped("orders").size() == 2);
}

TEST_CASE("groups park: the stream is left alone, with its reason") {
    Shop shop;
    fill(shop);
    CHECK(planned_and_done(shop, {"groups", "park", "orders", "--stream", "order-1", "--reason", "under audit"}) ==
          "Park stream 'order-1' for group 'orders': it is left alone, later messages too, until 'groups retry "
          "--stream'; work under way is dropped.\nparked 'order-1' for 'orders': under audit\n");
    const auto offset = shop.open()->offsets("orders", {.stream = "order-1"}).at(0);
    CHECK(offset.state == OffsetInfo::State::parked);
    CHECK(offset.reason == "under audit");
}

// ---- groups reset ---------------------------------------------------------------

TEST_CASE("groups reset: the plan counts what comes again, and warns of what the file cannot know") {
    Shop shop;
    fill(shop);
    shop.handle_all(shop.group("history", {"order.placed"}));
    const std::string said =
        planned_and_done(shop, {"groups", "reset", "history", "--to-start", "--reason", "rounding was wrong"});
    CHECK(said == golden("groups_reset.txt", said));
    CHECK(shop.info("history").lag == 5);
    CHECK(shop.info("history").reset_reason == "rounding was wrong");
}

TEST_CASE("groups reset: to a position, to a time, and one stream") {
    Shop shop;
    fill(shop);
    shop.handle_all(shop.group("history", {"order.placed", "order.paid"}));
    const auto reset = [&](Words words) {
        words.insert(words.begin(), {"groups", "reset", "history", "--reason", "x", "--yes"});
        const auto ran = shop.run(words);
        CHECK(ran.status == 0);
        const auto lag = shop.info("history").lag;
        shop.handle_all(shop.group("history", {"order.placed", "order.paid"}));
        return ran.err.substr(0, ran.err.find('\n')) + " / " + std::to_string(lag);
    };
    CHECK(reset({"--to-position", "5"}) ==
          "Reset group 'history' to position 5: 4 messages in 3 streams come again. / 4");
    CHECK(reset({"--to-time", "2100-01-01T00:01:00Z"}) ==
          "Reset group 'history' to position 6: 3 messages in 3 streams come again. / 3");
    CHECK(reset({"--stream", "order-2"}) ==
          "Reset group 'history' to position 1 in stream 'order-2': 2 messages in 1 stream come again. / 2");
    CHECK(reset({"--stream", "order-2", "--to-position", "3"}) ==
          "Reset group 'history' to position 3 in stream 'order-2': 1 message in 1 stream come again. / 1");
}

TEST_CASE("groups reset: with the application's types its on_reset runs, and its rules hold" *
          doctest::skip(!std::filesystem::exists(support::Program::folder() + "/libinspected.so"))) {
    const support::TemporaryDirectory directory;
    const std::string file = directory.file("carts.db");
    const auto pieces = [&] {
        std::string rows;
        open_store({.path = file})->read([&](Reader& reader) {
            for (const auto& row : reader.query("SELECT state FROM projection_totals")) rows += row.text(0) + " ";
        });
        return rows;
    };
    {
        App app({.path = file});
        inspected::add_all(app);
        app.dispatch("c1", inspected::Put{"pen", 2});
        app.dispatch("c1", inspected::Put{"ink", 3});
        app.run_until_idle();
    }
    REQUIRE(pieces() == R"({"pieces":5} )");
    const std::string library = support::Program::folder() + "/libinspected.so";
    const auto reset = [&](Words words) {
        words.insert(words.begin(), {"--app", library, file, "groups", "reset"});
        words.insert(words.end(), {"--reason", "x", "--yes"});
        return inspect(words);
    };
    const auto whole = reset({"totals", "--to-start"});
    CHECK(whole.status == 0);
    CHECK(whole.err.find("First its on_reset empties what it keeps, in the same transaction.\n") != std::string::npos);
    CHECK(whole.err.find("WARNING") == std::string::npos);
    CHECK(whole.out == "reset 'totals' to position 1: x\n");
    CHECK(pieces() == "");
    CHECK(open_store({.path = file})->stats().group("totals").lag == 2);

    const auto part = reset({"totals", "--to-position", "2"});
    CHECK(part.status == 1);
    CHECK(part.err == "sourced: reset 'totals' from a position or a time: a projector that stores its state would add "
                      "twice; reset it whole, or for one whole stream\n");
    const auto actor = reset({"cart", "--to-position", "2"});
    CHECK(actor.status == 0);
    CHECK(actor.err.find("WARNING") == std::string::npos);
    const auto bare = reset({"rows", "--to-start"});
    CHECK(bare.status == 0);
    CHECK(bare.err.find("WARNING: it has no on_reset: its rows stay, and it adds to them a second time.\n") !=
          std::string::npos);
    open_store({.path = file})->register_group({"another", {"cart.put"}, {}});
    const auto other = reset({"another", "--to-start"});
    CHECK(other.status == 0);
    CHECK(other.err.find("WARNING: the application has no reactor of this name, so no on_reset runs.") !=
          std::string::npos);
    CHECK(support::problems_of(file) == "");
}

TEST_CASE("groups reset: to the end, what is open is never handled") {
    Shop shop;
    fill(shop);
    const std::string said =
        planned_and_done(shop, {"groups", "reset", "orders", "--to-end", "--reason", "nobody wants these any more"});
    CHECK(said == golden("groups_reset_to_end.txt", said));
    CHECK(shop.info("orders").lag == 0);
    CHECK(shop.info("orders").parked == 0);
    CHECK(shop.info("orders").reset_reason == "nobody wants these any more");
}

TEST_CASE("groups reset: one target is needed, and one only") {
    Shop shop;
    fill(shop);
    const std::string which =
        "groups reset takes one of --to-start, --to-end, --to-position N and --to-time T, and but for --to-end also "
        "--stream S; --stream alone resets the whole stream";
    const Words reset{"groups", "reset", "orders", "--reason", "x", "--yes"};
    const auto with = [&](const Words& more) {
        Words words = reset;
        words.insert(words.end(), more.begin(), more.end());
        return words;
    };
    check_refused(shop, reset, 2, which);
    check_refused(shop, with({"--to-start", "--to-end"}), 2, which);
    check_refused(shop, with({"--to-end", "--stream", "order-1"}), 2,
                  "groups reset --to-end is for all streams: 'groups skip' passes over one message of one");
    CHECK(shop.run(with({"--to-position", "0"})).status == 2);
    CHECK(shop.run(with({"--to-time", "whenever"})).status == 2);
    CHECK(shop.run({"groups", "reset", "orders", "--to-start", "--yes"}).status == 2);
    CHECK_FALSE(shop.info("orders").reset_at);
}

// ---- Hostile text, a busy file --------------------------------------------------

TEST_CASE("groups: names and reasons from the file reach no terminal raw") {
    Shop shop;
    const auto group = shop.group(hostile, {"order.placed"});
    shop.append(hostile, "order.placed", R"({"text":"\u001b[2J"})");
    const auto claims = shop.claim(group, 1);
    REQUIRE(claims.size() == 1);
    shop.handle(claims[0], 0, failure(1, Resolution::park(hostile), hostile));
    shop.leave();
    std::string all;
    const auto collect = [&](const Words& words) {
        const auto ran = shop.run(words);
        CHECK(ran.status < 3);
        CHECK(ran.out.find(hostile_shown) + ran.err.find(hostile_shown) != 2 * std::string::npos);
        all += ran.out + ran.err;
    };
    collect({"groups"});
    collect({"groups", "show", hostile, "--all"});
    collect({"groups", "skip", hostile, "--stream", hostile, "--reason", hostile});
    collect({"groups", "retry", hostile, "--stream", hostile, "--reason", hostile});
    collect({"groups", "reset", hostile, "--to-start", "--reason", hostile});
    collect({"groups", "stop", hostile, "--reason", hostile, "--yes"});
    collect({"groups"});
    all += shop.run({"groups", "show", hostile, "--json"}).out + shop.run({"check", "--json"}).out;
    all += shop.run({"check"}).out;
    CHECK(all.find('\x1b') == std::string::npos);
    CHECK(all.find('\x07') == std::string::npos);
    CHECK(text_of(parsed(shop.said({"groups", "--json"}))[0]["reason"]) == hostile);
}

TEST_CASE("groups: another process that holds the file's lock makes every change end as busy") {
    Shop shop;
    fill(shop);
    shop.store().transaction([&](Transaction&) {
        for (const Words& words : std::vector<Words>{{"stop", "orders", "--reason", "x"},
                                                     {"start", "orders"},
                                                     {"reset", "orders", "--to-start", "--reason", "x"},
                                                     {"reset", "orders", "--to-end", "--reason", "x"},
                                                     {"retry", "orders"},
                                                     {"skip", "orders", "--stream", "order-3", "--reason", "x"},
                                                     {"park", "orders", "--stream", "order-1", "--reason", "x"}}) {
            Words all{"groups"};
            all.insert(all.end(), words.begin(), words.end());
            all.insert(all.end(), {"--yes", "--wait", "0.05"});
            const auto ran = shop.run(all);
            CAPTURE(ran.err);
            CHECK(ran.status == 5);
            CHECK(ran.out == "");
        }
        CHECK(shop.run({"groups"}).status == 0);  // looking needs no lock
    });
    CHECK(shop.info("orders").active);
}

// ---- workers --------------------------------------------------------------------

TEST_CASE("workers: who lives and what he holds, and who does not") {
    Shop shop;
    fill(shop);
    const auto workers = parsed(shop.said({"workers", "--json"}));
    REQUIRE(workers.Size() == 1);
    CHECK(workers[0]["pid"].GetInt64() == ::getpid());
    CHECK(workers[0]["worker"].GetInt64() > 0);
    CHECK(workers[0]["alive"].GetBool() == true);
    CHECK(workers[0]["stale"].GetBool() == false);
    CHECK(workers[0]["claims"].GetInt64() == 1);
    CHECK(text_of(workers[0]["started_at"]) == "2100-01-01T00:01:00Z");
    const auto worker = shop.store().workers().at(0);
    std::string text = shop.said({"workers"});
    CHECK(text.find(worker.host) != std::string::npos);
    CHECK(text.find("  yes") != std::string::npos);
}

TEST_CASE("workers: who has died is stale, and of another machine nothing is known") {
    Shop shop;
    fill(shop);
    const auto change = [&](const std::string& set) {
        SQLite::Database file(shop.path, SQLite::OPEN_READWRITE);
        file.exec("PRAGMA wal_autocheckpoint=0");
        file.exec("UPDATE sourced_workers SET " + set);
    };
    change("pid = 1073741824");  // more than there can be
    const auto dead = parsed(shop.said({"workers", "--json"}));
    CHECK(dead[0]["alive"].GetBool() == false);
    CHECK(dead[0]["stale"].GetBool() == true);
    CHECK(shop.said({"workers"}).find("  stale: another process takes its claims when its claim time is over\n") !=
          std::string::npos);
    CHECK(shop.said({"groups", "show", "orders"}).find("  no ") != std::string::npos);
    change("host = 'far away'");
    const auto far = parsed(shop.said({"workers", "--json"}));
    CHECK(far[0]["alive"].IsNull());
    CHECK(far[0]["stale"].GetBool() == false);
    CHECK(text_of(far[0]["host"]) == "far away");
    CHECK(shop.said({"workers"}).find("  runs on another machine\n") != std::string::npos);
}

// ---- check ----------------------------------------------------------------------

TEST_CASE("check: 0 when all is well") {
    Shop shop;
    fill(shop);
    const auto ran = shop.run({"check", "--group", "audit", "--max-lag", "0", "--max-age", "1m"});
    CHECK(ran.status == 0);
    CHECK(ran.err == "");
    CHECK(ran.out == "SOURCED OK - 1 group | 'audit lag'=0;0 'audit age'=0s;60\n");
}

TEST_CASE("check: 1 for what is late or waits for a retry") {
    Shop shop;
    shop.handle_all(shop.group("audit", {"order.shipped"}));
    const auto orders = shop.group("orders", {"order.placed"});
    for (int i = 0; i < 3; ++i) shop.append("order-1", "order.placed");
    shop.set(90);
    shop.append("order-2", "order.placed");
    CHECK(shop.run({"check", "--max-lag", "4", "--max-age", "90s"}).status == 0);
    const auto late = shop.run({"check", "--max-lag", "3", "--max-age", "1m"});
    CHECK(late.status == 1);
    CHECK(late.out ==
          "SOURCED WARNING - 'orders' is 4 messages behind, more than 3; 'orders' is 1.5 min behind, more than 60 s | "
          "'audit lag'=0;3 'audit age'=0s;60 'orders lag'=4;3 'orders age'=90s;60\n");
    const auto claims = shop.claim(orders, 1);
    shop.handle(claims.at(0), 0, failure(1, Resolution::retry(future(600))));
    const auto retries = shop.run({"check"});
    CHECK(retries.status == 1);
    CHECK(retries.out.find("'orders' has 1 stream waiting for a retry |") != std::string::npos);
}

TEST_CASE("check: 2 for what is stopped, parked or not there, and for a file that cannot be read") {
    Shop shop;
    fill(shop);
    const auto ran = shop.run({"check", "--max-lag", "0"});
    CHECK(ran.status == 2);
    CHECK(ran.err == "");
    CHECK(ran.out == golden("check.txt", ran.out));
    const auto nobody = shop.run({"check", "--group", "nobody"});
    CHECK(nobody.status == 2);
    CHECK(nobody.out == "SOURCED CRITICAL - 'nobody' is not there\n");
    const auto missing = inspect({shop.path + ".not", "check"});
    CHECK(missing.status == 2);
    CHECK(missing.out.starts_with("SOURCED CRITICAL - there is no file '"));
    CHECK_FALSE(std::filesystem::exists(shop.path + ".not"));
    CHECK(shop.run({"check", "--max-age", "soon"}).status == 2);

    const auto report = parsed(shop.run({"check", "--json"}).out);
    CHECK(text_of(report["status"]) == "critical");
    CHECK(text_of(report["problems"][0]["severity"]) == "critical");
    CHECK(report["groups"].Size() == 4);
    CHECK(report["groups"][0]["parked"].GetInt64() == 1);
}
