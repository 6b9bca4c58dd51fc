// The inspector's messages one by one: stream, log, message, tail.
#include <doctest/doctest.h>

#include "inspector.hpp"

#include <SQLiteCpp/Database.h>
#include <rapidjson/document.h>

using namespace sourced;
using support::golden;
using support::inspect;
using support::Program;
using support::TemporaryDirectory;

namespace {

constexpr std::int64_t second = 1'000'000;
/// Sunday, 17 May 2026, 14:30:00 UTC.
constexpr Time start{Duration(1'779'028'200 * second)};

/// A file in which every id and every time is the same in all runs: a message a second.
class Shop {
public:
    Shop() : store_(open_store(options())) {}

    const Message& add(const std::string& stream, Kind kind, const std::string& type, const std::string& payload,
                       const Message* cause = nullptr, const Metadata& metadata = {}) {
        Message made = support::message(kind, type, payload, cause);
        made = made.with_id(Id::make(now_, ids_));
        made.metadata = metadata;
        store_->append(stream, {made});
        now_ += Duration(second);
        messages_.push_back(store_->log({.from = head() + 1}).front());
        return messages_.back();
    }
    /// A cart that is filled and checked out, and another one.
    Shop& fill() {
        Metadata joe;
        joe.set("user_id", 7);
        const Message add_1 =
            add("cart-1", Kind::command, "cart.add_item", R"({"price":12.50,"id":"p1"})", nullptr, joe);
        add("cart-1", Kind::event, "cart.item_added", R"({"price":12.50,"id":"p1"})", &add_1, joe);
        const Message add_2 = add("cart-2", Kind::command, "cart.add_item", R"({"price":3,"id":"p2"})");
        add("cart-2", Kind::event, "cart.item_added", R"({"price":3,"id":"p2","tags":["a",{}],"of":{"x":[]}})", &add_2);
        const Message out = add("cart-1", Kind::command, "cart.check_out", "{}", nullptr, joe);
        add("cart-1", Kind::event, "cart.checked_out", R"({"total":12.50})", &out, joe);
        return *this;
    }
    /// As many messages as are asked for, in turns in three streams.
    Shop& fill(int count) {
        Messages parts[3];
        for (int i = 0; i < count; ++i) {
            const std::string payload = "{\"number\":" + std::to_string(i) + "}";
            parts[i % 3].push_back(support::message(Kind::event, i % 2 ? "odd" : "even", payload));
        }
        for (int i = 0; i < 3; ++i) store_->append("stream-" + std::to_string(i), parts[i]);
        return *this;
    }

    void close() { store_.reset(); }
    void reopen() { store_ = open_store(options()); }

    [[nodiscard]] std::string file() const { return directory_.file("shop.db"); }
    [[nodiscard]] std::int64_t head() const { return static_cast<std::int64_t>(messages_.size()); }
    [[nodiscard]] const Messages& messages() const { return messages_; }
    [[nodiscard]] Store& store() { return *store_; }

    support::Ran run(std::vector<std::string> arguments) const {
        arguments.insert(arguments.begin(), file());
        return inspect(arguments);
    }
    /// What a command shows; its status has to be 0, and nothing stands on stderr but how far it was.
    std::string shown(const std::vector<std::string>& arguments) const {
        const auto ran = run(arguments);
        CHECK(ran.status == 0);
        CHECK(ran.err.find("sourced:") == std::string::npos);
        return ran.out;
    }
    /// The same for JSON lines: the positions of what is shown, like "1 2 5".
    std::string positions(std::vector<std::string> arguments) const {
        arguments.insert(arguments.end(), {"-o", "jsonl"});
        std::istringstream lines(shown(arguments));
        std::string all;
        for (std::string line; std::getline(lines, line);) {
            rapidjson::Document json;
            json.Parse(line.c_str());
            REQUIRE(json.IsObject());
            all += (all.empty() ? "" : " ") + std::to_string(json["position"].GetInt64());
        }
        return all;
    }
    /// What is said of a mistake, with its status in front.
    std::string refused(const std::vector<std::string>& arguments) const {
        const auto ran = run(arguments);
        CHECK(ran.out == "");
        return std::to_string(ran.status) + " " + support::replaced(ran.err, file(), "FILE");
    }

private:
    StoreOptions options() {
        StoreOptions made;
        made.path = file();
        made.clock = [this] { return now_; };
        return made;
    }

    TemporaryDirectory directory_;
    Time now_ = start;
    IdSource ids_{42};
    std::unique_ptr<Store> store_;
    Messages messages_;
};

/// Handles all that is open for a group, by doing nothing.
void handle_all(Store& store, std::int64_t group) {
    Exchange step;
    step.group = group;
    step.claims = 10;
    while (true) {
        const Exchanged got = store.exchange(step);
        step.finished.clear();
        for (const auto& claim : got.claims) {
            Handled done;
            done.claim = claim;
            done.acked = claim.known;
            step.finished.push_back(std::move(done));
        }
        if (step.finished.empty() && !got.more) return;
    }
}

bool holds(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

std::size_t count(const std::string& text, const std::string& part) {
    std::size_t found = 0;
    for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++found;
    return found;
}

/// Nothing that a terminal obeys, and nothing that is no UTF-8 or turns the direction of text.
bool is_harmless(const std::string& text) {
    for (const char c : text) {
        if ((static_cast<unsigned char>(c) < 0x20 && c != '\n') || c == 0x7f) return false;
    }
    return !holds(text, "\xe2\x80\xae") && !holds(text, "\xc2\x9b") && !holds(text, "\xff");
}

/// A shown message equals the stored one in everything.
void check_equal(const rapidjson::Value& shown, const Message& stored) {
    const auto text = [&](const char* name) {
        return std::string(shown[name].GetString(), shown[name].GetStringLength());
    };
    const auto same_json = [](const rapidjson::Value& value, const std::string& json) {
        rapidjson::Document other;
        other.Parse(json.c_str());
        return value == other;
    };
    CHECK(shown["position"].GetInt64() == stored.position);
    CHECK(text("stream") == stored.stream);
    CHECK(shown["seq"].GetInt64() == stored.seq);
    CHECK(text("type") == stored.type);
    CHECK(text("kind") == (stored.kind == Kind::command ? "command" : "event"));
    CHECK(shown["schema"].GetInt() == stored.schema);
    CHECK(text("id") == stored.id.to_string());
    CHECK(text("causation") == stored.causation.to_string());
    CHECK(text("correlation") == stored.correlation.to_string());
    CHECK(same_json(shown["metadata"], stored.metadata.json()));
    CHECK(same_json(shown["payload"], stored.payload));
}

void check_equal(const std::string& json, const Messages& stored) {
    rapidjson::Document shown;
    shown.Parse(json.c_str());
    REQUIRE(shown.IsArray());
    REQUIRE(shown.Size() == stored.size());
    for (rapidjson::SizeType i = 0; i < shown.Size(); ++i) check_equal(shown[i], stored[i]);
}

}  // namespace

// ---- stream ---------------------------------------------------------------------

TEST_CASE("stream: the messages of a stream are shown in their order") {
    Shop shop;
    shop.fill();
    const auto text = shop.shown({"stream", "cart-1"});
    CHECK(text == golden("log/stream.txt", text));
    CHECK(shop.positions({"stream", "cart-1"}) == "1 2 5 6");
    CHECK(shop.positions({"stream", "cart-1", "--reverse"}) == "6 5 2 1");
    check_equal(shop.shown({"stream", "cart-1", "-o", "json"}), shop.store().stream("cart-1"));
}

TEST_CASE("stream: seqs, times, types, a condition and a limit choose some of them") {
    Shop shop;
    shop.fill();
    CHECK(shop.positions({"stream", "cart-1", "--from", "2", "--to", "3"}) == "2 5");
    CHECK(shop.positions({"stream", "cart-1", "--from", "2", "--reverse", "--limit", "2"}) == "6 5");
    CHECK(shop.positions({"stream", "cart-1", "--since", "2026-05-17T14:30:01Z"}) == "2 5 6");
    CHECK(shop.positions({"stream", "cart-1", "--since", "2026-05-17T14:30:02Z", "--until", "@1779028204"}) == "");
    CHECK(shop.positions({"stream", "cart-1", "--until", "2026-05-17 14:30:04"}) == "1 2");
    CHECK(shop.positions({"stream", "cart-1", "--type", "cart.add_item", "--type", "cart.checked_out"}) == "1 6");
    CHECK(shop.positions({"stream", "cart-1", "--where", "kind = 'command'"}) == "1 5");
    CHECK(shop.positions({"stream", "cart-1", "--limit", "0"}) == "");
    CHECK(shop.positions({"stream", "cart-1", "--from", "9"}) == "");
}

TEST_CASE("stream: mistakes are told apart") {
    Shop shop;
    shop.fill();
    CHECK(shop.refused({"stream", "cart-3"}) ==
          "4 sourced: there is no stream 'cart-3' in 'FILE'. Did you mean 'cart-1'?\n");
    CHECK(shop.refused({"stream", "cart-[1]"}).starts_with("4 sourced: there is no stream 'cart-[1]' in 'FILE'"));
    CHECK(shop.refused({"stream", std::string(1000, 'x')}) ==
          "4 sourced: there is no stream '" + std::string(1000, 'x') + "' in 'FILE'\n");
    CHECK(shop.refused({"stream", "quite another"}) == "4 sourced: there is no stream 'quite another' in 'FILE'\n");
    std::vector<Append> orders;
    for (int i = 2000; i < 3100; ++i) {
        orders.push_back({"order-" + std::to_string(i), {support::message(Kind::event, "order.made")}, any_seq});
    }
    shop.store().append_all(orders);
    CHECK(shop.refused({"stream", "order-200x"}) ==
          "4 sourced: there is no stream 'order-200x' in 'FILE'. Did you mean 'order-2000'?\n");
    CHECK(shop.refused({"stream", "cart-1", "--from", "3", "--to", "2"}) ==
          "2 sourced: --from 3 is behind --to 2: with --reverse, too, --from is the lower one\n");
    CHECK(shop.refused({"stream", "cart-1", "--since", "@2", "--until", "@1"}) ==
          "2 sourced: --since 1970-01-01T00:00:02Z is later than --until 1970-01-01T00:00:01Z\n");
    CHECK(holds(shop.refused({"stream", "cart-1", "--since", "soon"}), "'soon' is no time: it is none that is known"));
    CHECK(shop.refused({"stream", "cart-1", "--from", "0"}).starts_with("2 "));
    CHECK(shop.refused({"stream"}).starts_with("2 "));
}

// ---- log ------------------------------------------------------------------------

TEST_CASE("log: all messages are shown in the order of the log") {
    Shop shop;
    shop.fill();
    const auto text = shop.shown({"log"});
    CHECK(text == golden("log/log.txt", text));
    CHECK(shop.positions({"log"}) == "1 2 3 4 5 6");
    CHECK(shop.positions({"log", "--reverse", "--limit", "3"}) == "6 5 4");
    check_equal(shop.shown({"log", "-o", "json"}), shop.store().log());
}

TEST_CASE("log: an empty log is shown as nothing, in JSON as an empty array") {
    Shop shop;
    CHECK(shop.shown({"log"}) == "");
    CHECK(shop.shown({"log", "-o", "json"}) == "[]\n");
    CHECK(shop.shown({"log", "-o", "jsonl"}) == "");
    CHECK(shop.shown({"tail"}) == "");
}

TEST_CASE("log: filters are all true of what is shown") {
    Shop shop;
    shop.fill();
    CHECK(shop.positions({"log", "--type", "cart.item_added"}) == "2 4");
    const auto unknown = shop.run({"log", "--type", "cart.item_add"});
    CHECK(unknown.status == 0);
    CHECK(unknown.out == "");
    CHECK(unknown.err == "sourced: no message has the type 'cart.item_add'. Did you mean 'cart.item_added'?\n");
    CHECK(shop.positions({"log", "--stream", "cart-2"}) == "3 4");
    CHECK(shop.positions({"log", "--stream", "cart-1", "--from", "2", "--to", "5"}) == "2 5");
    CHECK(shop.positions({"log", "--stream", "cart-1", "--from", "3", "--to", "4"}) == "");
    CHECK(shop.positions({"log", "--stream", "cart-1", "--since", "2026-05-17T14:30:02Z", "--reverse"}) == "6 5");
    CHECK(shop.positions({"log", "--from", "2", "--to", "4"}) == "2 3 4");
    CHECK(shop.positions({"log", "--since", "2026-05-17T14:30:03Z", "--until", "2026-05-17T14:30:05Z"}) == "4 5");
    CHECK(shop.positions({"log", "--until", "2026-05-17"}) == "");
    CHECK(shop.positions({"log", "--since", "2026-05-18"}) == "");
    CHECK(shop.positions({"log", "--where", "payload.price > 10 and (type = 'x' or metadata.user_id = 7)"}) == "1 2");
    CHECK(shop.positions({"log", "--where", "exists payload.tags[1]"}) == "4");
    CHECK(shop.positions({"log", "--grep", "p2"}) == "3 4");
    CHECK(shop.positions({"tail", "--grep", "p2"}) == "3 4");
    CHECK(shop.positions({"stream", "cart-2", "--grep", "p2"}) == "3 4");
    CHECK(shop.positions({"log", "--grep", "user_id", "--type", "cart.checked_out"}) == "6");
    CHECK(shop.refused({"log", "--stream", "cart-11"}) ==
          "4 sourced: there is no stream 'cart-11' in 'FILE'. Did you mean 'cart-1'?\n");
}

TEST_CASE("log: a mistake in --where is shown with its place") {
    Shop shop;
    CHECK(shop.refused({"log", "--where", "payload.price >"}) ==
          "2 sourced: --where: expected a value: a string in quotes, a number, true, false or null\n"
          "  payload.price >\n"
          "                 ^\n");
    const auto help = shop.shown({"log", "--help"});
    CHECK(holds(help, "comparison = field operator value"));
    CHECK(holds(help, "yesterday, tomorrow"));
}

TEST_CASE("log: more than a page is shown whole, in both directions and with filters") {
    Shop shop;
    shop.fill(25'000);
    CHECK(count(shop.shown({"log", "-o", "jsonl"}), "\n") == 25'000);
    CHECK(count(shop.shown({"log", "-o", "jsonl", "--reverse"}), "\n") == 25'000);
    CHECK(count(shop.shown({"log", "-o", "jsonl", "--type", "odd"}), "\n") == 12'500);
    CHECK(count(shop.shown({"log", "-o", "jsonl", "--limit", "11111"}), "\n") == 11'111);
    CHECK(count(shop.shown({"stream", "stream-1", "-o", "jsonl"}), "\n") == 8'333);
    CHECK(shop.positions({"log", "--where", "payload.number in (0, 9999, 24999)"}) == "1 3334 8334");
    CHECK(shop.positions({"log", "--where", "payload.number in (0, 9999, 24999)", "--reverse"}) == "8334 3334 1");
    CHECK(shop.positions({"tail", "-n", "1", "--where", "payload.number = 0"}) == "1");
}

// ---- hostile content ------------------------------------------------------------

TEST_CASE("log: hostile names and payloads reach no terminal raw, and JSON as they were stored") {
    Shop shop;
    const std::string evil = "cart\x1b[2J\r\n\x7f\xc2\x9b\xe2\x80\xae";
    shop.add(evil, Kind::event, "type\x1b]0;x\x07", "{\"text\":\"\xe2\x80\xae\xc2\x9b \\u001b[2J \\u0000 \x7f\"}");
    shop.add(std::string("nul\0here", 8), Kind::command, "x", "{}");
    const std::vector<std::vector<std::string>> commands{
        {"log"}, {"log", "-o", "json"}, {"tail"}, {"stream", evil}, {"message", "@1"}, {"message", evil + "@1"},
        {"message", "@1", "-o", "json"}};
    for (const auto& command : commands) {
        const auto text = shop.shown(command);
        CHECK(text != "");
        CHECK(is_harmless(text));
    }
    const auto text = shop.shown({"log"});
    CHECK(text == golden("log/hostile.txt", text));
    check_equal(shop.shown({"log", "-o", "json"}), shop.store().log());
    CHECK(is_harmless(shop.refused({"stream", evil + "\xff"})));
    CHECK(is_harmless(shop.refused({"message", evil + "\xff"})));
    CHECK(is_harmless(shop.refused({"log", "--where", evil + "\xff"})));
}

TEST_CASE("log: a payload that is no JSON does no harm, in text and in JSON") {
    Shop shop;
    shop.add("s", Kind::event, "x", "}{\x1b[2J\xff");
    shop.add("s", Kind::event, "x", std::string(100'000, '['));
    for (const char* command : {"log", "tail"}) {
        const auto text = shop.shown({command});
        CHECK(is_harmless(text));
        CHECK(holds(text, "}{\\x1b[2J\\xff\n"));
    }
    CHECK(is_harmless(shop.shown({"message", "@1"})));
    CHECK(holds(shop.shown({"message", "@2"}), "groups       none handles this type"));
    const auto json = shop.shown({"log", "-o", "json"});
    CHECK(is_harmless(json));
    rapidjson::Document parsed;
    parsed.Parse<rapidjson::kParseIterativeFlag>(json.c_str());
    REQUIRE(parsed.IsArray());
    CHECK(parsed.Size() == 2);
    CHECK(shop.shown({"log", "--where", "exists payload"}) == "");
}

// ---- message --------------------------------------------------------------------

TEST_CASE("message: everything about a message is shown, by any of its names") {
    Shop shop;
    shop.fill();
    const auto text = shop.shown({"message", "@4"});
    CHECK(text == golden("log/message.txt", text));
    CHECK(shop.shown({"message", "cart-2@2"}) == text);
    const auto id = shop.messages()[3].id.to_string();
    CHECK(shop.shown({"message", id}) == text);
    CHECK(shop.shown({"message", id.substr(0, 13)}) == text);
    CHECK(holds(shop.refused({"message", id.substr(0, 8)}), "' is the beginning of several ids: "));
    const auto first = shop.shown({"message", "@1"});
    CHECK(first == golden("log/message_first.txt", first));
}

TEST_CASE("message: its effects and what every group has made of it are shown") {
    Shop shop;
    shop.fill();
    Store& store = shop.store();
    handle_all(store, store.register_group({"handled", {"cart.item_added"}}).id);
    store.register_group({"before", {"cart.item_added"}, Start::now()});
    store.register_group({"open", {"cart.item_added"}});
    store.register_group({"other", {"cart.checked_out"}});
    store.register_group({"parked", {"cart.item_added"}});
    store.park_stream("parked", "cart-2", "the price list is wrong");
    store.register_group({"skipped", {"cart.item_added"}});
    store.skip_message("skipped", "cart-2", "it was a test");
    store.register_group({"stopped", {"cart.item_added"}});
    store.stop_group("stopped", "for the night");
    const auto text = shop.shown({"message", "@4"});
    CHECK(text == golden("log/message_groups.txt", text));
    rapidjson::Document json;
    json.Parse(shop.shown({"message", "@4", "-o", "json"}).c_str());
    REQUIRE(json["groups"].IsArray());
    CHECK(json["groups"].Size() == 6);
    for (const auto& group : json["groups"].GetArray()) {
        CHECK(group["text"].IsString());
        const std::string name = group["group"].GetString();
        CHECK(std::string(group["state"].GetString()) == (name == "stopped" ? "open" : name));
    }
}

TEST_CASE("message: effects are shown as far as --limit allows") {
    Shop shop;
    const Message cause = shop.add("s", Kind::command, "start", "{}");
    for (int i = 0; i < 3; ++i) shop.add("s", Kind::event, "happened", "{}", &cause);
    CHECK(count(shop.shown({"message", "@1"}), "happened  s@") == 3);
    const auto two = shop.shown({"message", "@1", "--limit", "2"});
    CHECK(count(two, "happened  s@") == 2);
    CHECK(holds(two, "and more: --limit says how many are shown"));
    CHECK(holds(shop.shown({"message", "@2"}), "effects      none\n"));
    CHECK(shop.refused({"message", "@1", "--limit", "-1"}).starts_with("2 "));
    rapidjson::Document json;
    json.Parse(shop.shown({"message", "@1", "--limit", "2", "-o", "json"}).c_str());
    REQUIRE(json["effects"].Size() == 2);
    check_equal(json["effects"][1], shop.messages()[2]);
    CHECK(json["more_effects"].GetBool());
}

TEST_CASE("message: what was erased, and a cause that is not in the file, are told") {
    Shop shop;
    Message stranger = support::message(Kind::event, "elsewhere");
    stranger = stranger.with_id(Id::parse("01890a5d-ac96-774b-bcce-b302099a8057"));
    shop.add("s", Kind::event, "happened", R"({"name":"Joe"})", &stranger);
    CHECK(holds(shop.shown({"message", "@1"}), "01890a5d-ac96-774b-bcce-b302099a8057, which is not in this file"));
    SQLite::Database other(shop.file(), SQLite::OPEN_READWRITE);
    other.exec("PRAGMA wal_autocheckpoint = 0");
    other.exec("UPDATE sourced_messages SET payload = NULL, erased_at = recorded_at WHERE position = 1");
    CHECK(holds(shop.shown({"message", "@1"}), "payload      erased 2026-05-17T14:30:00Z\n"));
    CHECK(holds(shop.shown({"log"}), "erased 2026-05-17T14:30:00Z\n"));
    CHECK(holds(shop.shown({"log", "-o", "jsonl"}), R"("payload":null,"erased_at":"2026-05-17T14:30:00Z"})"));
    CHECK(shop.shown({"log", "--where", "exists payload.name"}) == "");
}

TEST_CASE("message: as JSON it is the message with its cause") {
    Shop shop;
    shop.fill();
    rapidjson::Document json;
    json.Parse(shop.shown({"message", "@4", "-o", "json"}).c_str());
    REQUIRE(json.IsObject());
    check_equal(json["message"], shop.messages()[3]);
    check_equal(json["cause"], shop.messages()[2]);
    json.Parse(shop.shown({"message", "@1", "-o", "jsonl"}).c_str());
    CHECK(json["cause"].IsNull());
}

TEST_CASE("message: what is not there is told with what is") {
    Shop shop;
    shop.fill();
    CHECK(shop.refused({"message", "@7"}) == "4 sourced: there is no message '@7' in 'FILE': its positions end at 6\n");
    CHECK(shop.refused({"message", "cart-2@3"}) ==
          "4 sourced: there is no message 'cart-2@3' in 'FILE': the seqs of that stream end at 2\n");
    CHECK(shop.refused({"message", "cart-9@1"}) ==
          "4 sourced: there is no stream 'cart-9' in 'FILE'. Did you mean 'cart-1'?\n");
    CHECK(shop.refused({"message", "01890a5d-ac96-774b-bcce-b302099a8057"}) ==
          "4 sourced: there is no message '01890a5d-ac96-774b-bcce-b302099a8057' in 'FILE'\n");
    CHECK(shop.refused({"message", "cart-1"}).starts_with("2 sourced: 'cart-1' names no message: give its id"));
    Message later = support::message(Kind::command, "cart.expire").to("cart-1");
    shop.store().schedule({{Time(std::chrono::hours(24 * 365 * 100)), later}});
    CHECK(shop.refused({"message", later.id.to_string()}) ==
          "4 sourced: there is no message '" + later.id.to_string() +
              "' in 'FILE': it waits in the schedule until 2069-12-07T00:00:00Z\n");
}

// ---- tail -----------------------------------------------------------------------

TEST_CASE("tail: the last messages are shown in the order of the log") {
    Shop shop;
    shop.fill();
    CHECK(shop.positions({"tail"}) == "1 2 3 4 5 6");
    CHECK(shop.positions({"tail", "-n", "2"}) == "5 6");
    CHECK(shop.positions({"tail", "-n", "0"}) == "");
    CHECK(shop.positions({"tail", "-n", "1", "--type", "cart.item_added"}) == "4");
    CHECK(shop.positions({"tail", "-n", "3", "--stream", "cart-1"}) == "2 5 6");
    CHECK(shop.positions({"tail", "-n", "1", "--where", "metadata.user_id = 7 and kind = 'command'"}) == "5");
    CHECK(shop.refused({"tail", "--stream", "cart-12"}) ==
          "4 sourced: there is no stream 'cart-12' in 'FILE'. Did you mean 'cart-1'?\n");
}

TEST_CASE("tail: -f shows what another process appends, each message once, until Ctrl-C") {
    Shop shop;
    shop.fill();
    Program tail({shop.file(), "tail", "-f", "-n", "1", "-o", "jsonl"});
    CHECK(tail.wait_for_out("\"position\":6"));
    std::string expected = "6";
    for (int i = 7; i < 300; ++i) {
        shop.add("cart-1", Kind::event, "cart.item_added", R"({"price":1})");
        expected += " " + std::to_string(i);
        if (i % 50 == 0) CHECK(tail.wait_for_out("\"position\":" + std::to_string(i)));
    }
    CHECK(tail.wait_for_out("\"position\":299"));
    tail.signal(SIGINT);
    const auto ran = tail.end();
    CHECK(ran.status == 130);
    CHECK(ran.err == "");
    CHECK(count(ran.out, "\n") == 294);
    std::string seen;
    for (auto at = ran.out.find("\"position\":"); at != std::string::npos; at = ran.out.find("\"position\":", at + 1)) {
        seen += (seen.empty() ? "" : " ") + std::to_string(std::strtol(ran.out.c_str() + at + 11, nullptr, 10));
    }
    CHECK(seen == expected);
}

TEST_CASE("tail: -f passes over what is not wanted, and waits for a stream that is not there yet") {
    Shop shop;
    shop.fill();
    Program tail({shop.file(), "tail", "-f", "--stream", "cart-9", "--where", "payload.price > 1", "-o", "json"});
    CHECK(tail.wait_for_err("sourced: there is no stream 'cart-9' yet\n"));
    shop.add("cart-9", Kind::event, "cart.item_added", R"({"price":1})");
    shop.add("cart-1", Kind::event, "cart.item_added", R"({"price":2})");
    const Message wanted = shop.add("cart-9", Kind::event, "cart.item_added", R"({"price":2})");
    CHECK(tail.wait_for_out("\"seq\":2"));
    tail.signal(SIGTERM);
    const auto ran = tail.end();
    CHECK(ran.status == 130);
    check_equal(ran.out, {wanted});
}

TEST_CASE("tail: -f on a file that nobody has open shows what the next one appends, and the one after that") {
    Shop shop;
    shop.fill();
    shop.close();
    Program tail({shop.file(), "tail", "-f", "-n", "1", "-o", "jsonl"});
    CHECK(tail.wait_for_out("\"position\":6"));
    for (int i = 7; i < 9; ++i) {
        shop.reopen();
        shop.add("cart-1", Kind::event, "cart.item_added", "{}");
        shop.close();
        CHECK(tail.wait_for_out("\"position\":" + std::to_string(i)));
    }
    tail.signal(SIGINT);
    CHECK(tail.end().status == 130);
}

TEST_CASE("tail: -f ends quietly when nobody reads any more, also when nothing comes") {
    Shop shop;
    shop.fill();
    Program tail({shop.file(), "tail", "-f"});
    CHECK(tail.wait_for_out("cart.checked_out"));
    tail.close_out();
    const auto ran = tail.end();
    CHECK(ran.status == 0);
    CHECK(ran.err == "");
}

TEST_CASE("tail: -f tells that the file was removed or replaced") {
    for (const bool replaced : {false, true}) {
        Shop shop;
        shop.fill();
        Shop other;
        Program tail({shop.file(), "tail", "-f"});
        CHECK(tail.wait_for_out("cart.checked_out"));
        if (replaced) std::filesystem::rename(other.file(), shop.file());
        else std::filesystem::remove(shop.file());
        const auto ran = tail.end();
        CHECK(ran.status == 1);
        CHECK(ran.err == "sourced: '" + shop.file() +
                             (replaced ? "' was replaced by another file while it was followed\n"
                                       : "' was removed while it was followed\n"));
    }
}

TEST_CASE("log: Ctrl-C ends a long listing, and what was shown is whole") {
    Shop shop;
    shop.fill(25'000);
    Program log({shop.file(), "log", "-o", "json"});
    CHECK(log.wait_for_out("\"position\":1,"));  // a pipe does not hold the rest
    log.signal(SIGINT);
    const auto ran = log.end();
    CHECK(ran.status == 130);
    rapidjson::Document json;
    json.Parse(ran.out.c_str());
    REQUIRE(json.IsArray());
    CHECK(json.Size() > 0);
    CHECK(json.Size() < 25'000);
}

TEST_CASE("log: a closed stdout ends it without a word") {
    Shop shop;
    shop.fill(25'000);
    Program log({shop.file(), "log"});
    log.close_out();
    const auto ran = log.end();
    CHECK(ran.status == 0);
    CHECK(ran.err == "");
}
