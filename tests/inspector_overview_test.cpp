// The inspector's stats, streams, and what it prints for a file alone.
#include <doctest/doctest.h>

#include "inspector.hpp"

#include <rapidjson/document.h>

#include <regex>

using namespace sourced;
using support::golden;
using support::inspect;
using support::replaced;
using support::TemporaryDirectory;

namespace {

/// Sunday, 17 May 2026, 14:30:00 UTC.
constexpr Time start{std::chrono::seconds(1'779'028'200)};

/// A file whose ids and times are the same in all runs.
class Shop {
public:
    Shop() : store_(open_store(options())) {}

    /// A command and what came of it, an hour later than the one before.
    Shop& add(const std::string& stream, const std::string& name, int events = 1) {
        now_ += std::chrono::hours(1);
        Messages made{fresh(Kind::command, name)};
        for (int i = 0; i < events; ++i) made.push_back(fresh(Kind::event, name + "_done", &made.front()));
        store_->append(stream, made);
        last_ = made.back().id;
        return *this;
    }
    /// Four groups: one that has done its work, one that has not, one with a parked and a waiting stream, and one
    /// that is stopped.
    Shop& with_groups() {
        const std::vector<std::string> types{"cart.add", "cart.check_out"};
        const auto register_group = [&](const char* name) { return store_->register_group({name, types}).id; };
        handle(register_group("done"), [](const Claim&) { return std::optional<Resolution>(); });
        (void)register_group("late");
        handle(register_group("mail"), [&](const Claim& claim) {
            if (claim.stream_name == "cart-1") return std::optional(Resolution::park());
            if (claim.stream_name == "cart-2") return std::optional(Resolution::retry(now_ + std::chrono::hours(1)));
            return std::optional<Resolution>();
        });
        (void)register_group("tax");
        store_->stop_group("tax", "the rate was wrong");
        return *this;
    }
    Shop& fill() {
        add("cart-1", "cart.add").add("cart-2", "cart.add", 3).add("cart-3", "cart.add");
        return add("cart-1", "cart.check_out").add("invoice-1", "invoice.make");
    }
    Shop& schedule() {
        Message later = fresh(Kind::command, "cart.remind");
        later.stream = "cart-1";
        store_->schedule({{now_ + std::chrono::hours(3), later}});
        return *this;
    }

    [[nodiscard]] std::string file() const { return directory_.file("shop.db"); }
    [[nodiscard]] Store& store() { return *store_; }
    [[nodiscard]] const Id& last() const { return last_; }

    [[nodiscard]] support::Ran run(std::vector<std::string> arguments) const {
        arguments.insert(arguments.begin(), file());
        return inspect(arguments);
    }
    /// What is shown, without what differs from run to run and from machine to machine.
    [[nodiscard]] std::string shown(const std::vector<std::string>& arguments) const {
        const auto ran = run(arguments);
        CHECK(ran.status == 0);
        CHECK(ran.err == "");
        std::string text = replaced(ran.out, file(), "shop.db");
        const Versions all = versions();
        text = replaced(text, "SQLite " + all.sqlite, "SQLite X");
        text = replaced(text, "sourced " + all.sourced, "sourced X");
        const auto size = text.find("and a WAL of ");
        if (size != std::string::npos) text.replace(size, text.find('\n', size) - size, "and a WAL");
        // How long ago that was, and how wide that makes the columns.
        text = std::regex_replace(text, std::regex("[0-9.]+ (days|years)"), "AGE");
        const auto groups = text.find("\ngroup ");
        if (groups == std::string::npos) return text;
        return text.substr(0, groups) + std::regex_replace(text.substr(groups), std::regex("   +"), "  ");
    }
    [[nodiscard]] rapidjson::Document json(const std::vector<std::string>& arguments) const {
        const auto ran = run(arguments);
        CHECK(ran.status == 0);
        rapidjson::Document document;
        document.Parse<rapidjson::kParseValidateEncodingFlag>(ran.out.c_str());
        REQUIRE_FALSE(document.HasParseError());
        return document;
    }
    [[nodiscard]] std::string refused(const std::vector<std::string>& arguments) const {
        const auto ran = run(arguments);
        CHECK(ran.out == "");
        return std::to_string(ran.status) + " " + ran.err;
    }

private:
    StoreOptions options() {
        StoreOptions made;
        made.path = file();
        made.clock = [this] { return now_; };
        return made;
    }
    Message fresh(Kind kind, const std::string& type, const Message* cause = nullptr) {
        Message made = support::message(kind, type, "{}", cause).with_id(Id::make(now_, ids_));
        if (!cause) made.correlation = made.causation = made.id;
        return made;
    }
    /// Lets a group handle everything, or fail as it is told.
    template <class Fails>
    void handle(std::int64_t group, const Fails& fails) {
        for (Exchange step{{}, group, 10};;) {
            auto claims = store_->exchange(step).claims;
            step.finished.clear();
            if (claims.empty()) return;
            for (auto& claim : claims) {
                auto& handled = step.finished.emplace_back();
                handled.acked = claim.known;
                if (const auto resolution = fails(claim)) {
                    handled.acked = claim.acked;
                    handled.failure = Failure{claim.pending, "std::runtime_error", "no answer", *resolution};
                }
                handled.claim = std::move(claim);
            }
        }
    }

    TemporaryDirectory directory_;
    Time now_ = start;
    IdSource ids_{42};
    std::unique_ptr<Store> store_;
    Id last_{};
};

std::vector<std::string> lines_of(const std::string& text) {
    std::vector<std::string> lines;
    std::istringstream rest(text);
    for (std::string line; std::getline(rest, line);) lines.push_back(line);
    return lines;
}
/// The first word of each line behind a heading, as one text.
std::string first_words(const std::string& text) {
    std::string words;
    const auto lines = lines_of(text);
    for (std::size_t i = 1; i < lines.size(); ++i) {
        words += (words.empty() ? "" : " ") + lines[i].substr(0, lines[i].find(' '));
    }
    return words;
}
bool holds(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

// ---- stats ----------------------------------------------------------------------

TEST_CASE("inspector stats: the file in numbers, its types with bars, and its groups with their lag") {
    Shop shop;
    shop.fill().with_groups().schedule();
    const std::string text = shop.shown({"stats", "--time", "iso"});
    CHECK(text == golden("overview/stats.txt", text));
}

TEST_CASE("inspector stats: JSON holds what the store says") {
    Shop shop;
    shop.fill().with_groups().schedule();
    shop.store().recur({.name = "nightly", .every = std::chrono::hours(24),
                        .message = support::message(Kind::command, "shop.close").to("shop")});
    const auto json = shop.json({"stats", "--json"});
    const FileInfo file = shop.store().file();
    CHECK(json["file"]["path"].GetString() == shop.file());
    CHECK(json["file"]["bytes"].GetInt64() == file.bytes);
    CHECK(json["file"]["wal_bytes"].GetInt64() == file.wal_bytes);
    CHECK(json["file"]["wal_bytes"].GetInt64() > 0);
    CHECK(json["file"]["page_size"].GetInt64() == file.page_size);
    CHECK(json["file"]["schema"].GetInt64() == file.schema);
    CHECK(json["file"]["store_id"].GetString() == file.store_id);
    CHECK(json["versions"]["sqlite"].GetString() == versions().sqlite);
    CHECK(json["versions"]["sourced"].GetString() == versions().sourced);
    CHECK(json["versions"]["schema"].GetInt() == versions().schema);
    CHECK(json["messages"].GetInt64() == 12);
    CHECK(json["streams"].GetInt64() == 4);
    CHECK(json["scheduled"].GetInt64() == 2);
    CHECK(json["recurring"].GetInt64() == 1);
    CHECK(json["first_recorded_at"] == "2026-05-17T15:30:00Z");
    CHECK(json["last_recorded_at"] == "2026-05-17T19:30:00Z");
    CHECK(json["next_due"] == "2026-05-17T22:30:00Z");
    std::string types;
    for (const auto& type : json["types"].GetArray()) {
        types += std::string(type["type"].GetString()) + ":" + std::to_string(type["messages"].GetInt64()) + " ";
        CHECK_FALSE(type["estimated"].GetBool());
    }
    CHECK(types ==
          "cart.add_done:5 cart.add:3 cart.check_out:1 cart.check_out_done:1 invoice.make:1 invoice.make_done:1 "
          "cart.remind:0 shop.close:0 ");
    CHECK(json["types"][0]["kind"] == "event");
    CHECK(json["types"][1]["kind"] == "command");
    const auto& groups = json["groups"];
    REQUIRE(groups.Size() == 4);
    const Stats stats = shop.store().stats();
    for (rapidjson::SizeType i = 0; i < 4; ++i) {
        CHECK(groups[i]["group"].GetString() == stats.groups[i].name);
        CHECK(groups[i]["lag"].GetInt64() == stats.groups[i].lag);
        CHECK(groups[i]["parked"].GetInt64() == stats.groups[i].parked);
    }
    CHECK(groups[1]["lag"].GetInt64() == 4);
}

TEST_CASE("inspector stats: an empty file has numbers too") {
    Shop shop;
    const std::string text = shop.shown({"stats"});
    CHECK(holds(text, "messages    0\n"));
    CHECK(holds(text, "scheduled   0\n"));
    CHECK_FALSE(holds(text, "group"));
    const auto json = shop.json({"stats", "-o", "json"});
    CHECK(json["messages"].GetInt64() == 0);
    CHECK(json["first_recorded_at"].IsNull());
    CHECK(json["groups"].Empty());
    CHECK(json["types"].Empty());
}

TEST_CASE("inspector stats: of many types as many are listed as are asked for") {
    Shop shop;
    for (int i = 10; i < 22; ++i) shop.add("s", "type." + std::to_string(i));
    CHECK(holds(shop.shown({"stats"}), "and 14 more\n"));
    const std::string few = shop.shown({"stats", "--types", "2"});
    CHECK(holds(few, "type.10 "));
    CHECK(holds(few, "type.10_done "));
    CHECK_FALSE(holds(few, "type.11 "));
    CHECK_FALSE(holds(shop.shown({"stats", "--types", "100"}), "more\n"));
    CHECK_FALSE(holds(shop.shown({"stats", "--types", "0"}), "type."));
    CHECK(shop.json({"stats", "--types", "2", "--json"})["types"].Size() == 24);
}

TEST_CASE("inspector stats: what a sample says stands behind a ~") {
    Shop shop;
    for (int i = 0; i < 52; ++i) shop.add("s", "big", 1000);
    shop.add("s", "rare");
    const std::string text = shop.shown({"stats"});
    CHECK(holds(text, "messages    52,054"));
    for (const auto& line : lines_of(text)) {
        if (line.starts_with("big_done ")) CHECK(holds(line, " ~5"));
        if (line.starts_with("rare ")) CHECK(holds(line, " few"));
    }
    CHECK(holds(text, "\nbig_done "));
    CHECK(holds(text, "\nrare "));
    CHECK(shop.json({"stats", "--json"})["types"][0]["estimated"].GetBool());
}

// ---- streams --------------------------------------------------------------------

TEST_CASE("inspector streams: those changed last come first") {
    Shop shop;
    shop.fill();
    const std::string text = shop.shown({"streams", "--time", "iso"});
    CHECK(text == golden("overview/streams.txt", text));
}

TEST_CASE("inspector streams: sorted, chosen by a pattern and cut as is asked for") {
    Shop shop;
    shop.fill();
    CHECK(first_words(shop.shown({"streams", "--sort", "seq"})) == "cart-2 cart-1 invoice-1 cart-3");
    CHECK(first_words(shop.shown({"streams", "--sort", "name"})) == "cart-1 cart-2 cart-3 invoice-1");
    CHECK(first_words(shop.shown({"streams", "cart-*"})) == "cart-1 cart-3 cart-2");
    CHECK(first_words(shop.shown({"streams", "*-[13]", "--sort", "name"})) == "cart-1 cart-3 invoice-1");
    const auto one = shop.run({"streams", "--limit", "1"});
    CHECK(first_words(one.out) == "invoice-1");
    CHECK(one.err == "sourced: there are more streams: --limit N shows more of them\n");
    CHECK(first_words(shop.shown({"streams", "--limit", "4"})) == "invoice-1 cart-1 cart-3 cart-2");
    CHECK(shop.shown({"streams", "--names", "--sort", "name"}) == "cart-1\ncart-2\ncart-3\ninvoice-1\n");
    CHECK(shop.shown({"streams", "nothing-*"}) == "");
    CHECK(shop.shown({"streams", "--limit", "0"}) == "");
}

TEST_CASE("inspector streams: JSON, as one text and a line each") {
    Shop shop;
    shop.fill();
    const auto json = shop.json({"streams", "--json", "--sort", "seq", "--limit", "2"});
    REQUIRE(json.Size() == 2);
    CHECK(json[0]["stream"] == "cart-2");
    CHECK(json[0]["seq"].GetInt64() == 4);
    CHECK(json[0]["updated_at"] == "2026-05-17T16:30:00Z");
    CHECK(shop.shown({"streams", "-o", "jsonl", "--names", "cart-[12]", "--sort", "name"}) ==
          "\"cart-1\"\n\"cart-2\"\n");
    CHECK(shop.json({"streams", "--json", "nothing-*"}).Empty());
}

TEST_CASE("inspector streams: ids that a terminal would obey are shown as escapes, in JSON as they are") {
    Shop shop;
    const std::string hostile = "a\x1b[2J\n\x80 b";
    shop.add(hostile, "cart.add");
    shop.add("\xe2\x80\xaeright", "cart.add");
    CHECK(shop.shown({"streams", "--names"}) == "\\u202eright\na\\x1b[2J\\n\\x80 b\n");
    const std::string text = shop.run({"streams"}).out + shop.run({"stats"}).out + shop.run({}).out;
    CHECK_FALSE(holds(text, "\x1b"));
    CHECK_FALSE(holds(text, "\xe2\x80\xae"));
    CHECK_FALSE(holds(shop.run({"streams", "-o", "jsonl"}).out, "\x1b"));
    const auto ids = shop.json({"streams", "--json"});
    CHECK(ids[0]["stream"] == "\xe2\x80\xaeright");
    CHECK(ids[1]["stream_base64"] == "YRtbMkoKgCBi");
    CHECK(shop.json({"streams", "--json", "--names"})[1] == "a\\x1b[2J\\n\\x80 b");
}

TEST_CASE("inspector streams: what cannot be meant is refused") {
    Shop shop;
    CHECK(holds(shop.refused({"streams", "--sort", "size"}), "2 sourced: "));
    CHECK(holds(shop.refused({"streams", "--sort", "size"}), "--sort"));
    const std::string negative = " takes a number that is not negative, not '-1'";
    CHECK(holds(shop.refused({"streams", "--limit", "-1"}), "2 sourced: --limit" + negative));
    CHECK(holds(shop.refused({"streams", "--limit", "many"}), "2 sourced: --limit takes a number, not 'many'"));
    CHECK(holds(shop.refused({"stats", "--types", "-1"}), "2 sourced: --types" + negative));
}

// ---- A file alone -----------------------------------------------------------------

TEST_CASE("inspector: a file alone shows its numbers and three commands that are worth a look") {
    Shop shop;
    shop.fill().with_groups().schedule();
    const std::string text = replaced(shop.shown({"--time", "iso"}), shop.last().to_string(), "LAST");
    CHECK(text == golden("overview/file.txt", text));
}

TEST_CASE("inspector: the commands that a file alone names can be run as they stand there") {
    Shop shop;
    const auto next = [&] {
        std::vector<std::string> all;
        const auto json = shop.json({"--json"});
        for (const auto& command : json["next"].GetArray()) all.emplace_back(command.GetString());
        return all;
    };
    const auto check_all = [&] {
        const auto commands = next();
        REQUIRE(commands.size() == 3);
        for (const auto& command : commands) {
            CAPTURE(command);
            if (command.ends_with("tail -f")) continue;  // it would not end
            const std::string line = "PATH='" + support::Program::folder() + "':$PATH; " + command + " >/dev/null 2>&1";
            CHECK(std::system(line.c_str()) == 0);
        }
    };
    const std::string begin = "sourced " + shop.file() + " ";
    SUBCASE("an empty file") {
        check_all();
        CHECK(next().front() == begin + "tail -f");
    }
    SUBCASE("a healthy one") {
        shop.fill();
        check_all();
        CHECK(next() == std::vector<std::string>{begin + "stream invoice-1", begin + "trace " + shop.last().to_string(),
                                                 begin + "tail -f"});
    }
    SUBCASE("one with something scheduled") {
        shop.fill().schedule();
        check_all();
        CHECK(next().back() == begin + "scheduled");
    }
    SUBCASE("one with a stopped group and streams in trouble") {
        shop.fill().with_groups();
        check_all();
        CHECK(next().front() == begin + "groups show tax");
        shop.store().start_group("tax");
        check_all();
        CHECK(next().front() == begin + "groups show mail");
    }
    SUBCASE("one with ids that a shell would take apart") {
        shop.add("it's $HOME; `x` \"y\" *", "cart.add");
        check_all();
        CHECK(next().front() == begin + "stream 'it'\\''s $HOME; `x` \"y\" *'");
    }
    SUBCASE("one with ids that cannot be typed, or look like options") {
        shop.add("--names", "cart.add");
        check_all();
        CHECK(next().front() == begin + "trace " + shop.last().to_string());
        shop.add("a\tb", "cart.add");
        check_all();
        CHECK(next().front() == begin + "trace " + shop.last().to_string());
    }
}

TEST_CASE("inspector: looking at a file changes nothing of it, and leaves nothing beside it") {
    const TemporaryDirectory directory;
    const std::string file = directory.file("shop.db");
    StoreOptions options;
    options.path = file;
    open_store(options)->append("s", {support::message(Kind::event, "a")});
    const auto bytes = [&] {
        std::ifstream in(file, std::ios::binary);
        return std::string(std::istreambuf_iterator<char>(in), {});
    };
    const std::string before = bytes();
    for (const char* command : {"stats", "streams"}) CHECK(inspect({file, command}).status == 0);
    CHECK(inspect({file}).status == 0);
    CHECK(bytes() == before);
    CHECK_FALSE(std::filesystem::exists(file + "-wal"));
    CHECK_FALSE(std::filesystem::exists(file + "-shm"));
}

TEST_CASE("inspector: a file that cannot be looked at says why, and what can be done") {
    Shop shop;
    const TemporaryDirectory directory;
    const std::string file = directory.file("x.db");
    const auto refused = [&] {
        const auto ran = inspect({file, "stats"});
        CHECK(ran.out == "");
        return std::to_string(ran.status) + " " + replaced(ran.err, file, "FILE");
    };
    { std::ofstream empty(file); }
    CHECK(refused() == "1 sourced: open 'FILE': it is empty: nothing of the engine was ever stored in it\n");
    std::ofstream(file) << std::string(5000, 'x');
    CHECK(holds(refused(), "1 sourced: open 'FILE': the file is not a SQLite database"));
    std::filesystem::remove(file);
    std::filesystem::create_directory(file);
    CHECK(refused() == "1 sourced: open 'FILE': it is a directory\n");
}
