// trace and flow: what follows from what, as people and programs see it.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sourced.hpp>
#include <sys/stat.h>

#include <array>

#include "inspector.hpp"

using namespace sourced;
using support::golden;
using support::inspect;

namespace {

const std::vector<std::string> utf8{"LC_ALL=C.UTF-8"};

/// The same number gives the same id.
Id id(std::uint8_t number) { return Id({1, 0x90, 0, 0, 0, 0, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, number}); }
std::string text(std::uint8_t number) { return id(number).to_string(); }

Message made(std::uint8_t number, Kind kind, std::string type, std::uint8_t cause = 0, std::uint8_t correlation = 0) {
    Message message = support::message(kind, std::move(type), R"({"n":1})");
    message.id = id(number);
    message.causation = id(cause > 0 ? cause : number);
    message.correlation = id(correlation > 0 ? correlation : number);
    return message;
}

/// A file that is told what happens, a moment after the other.
class File {
public:
    explicit File(const std::string& name = "shop.db") : path(directory_.file(name)) {
        StoreOptions options;
        options.path = path;
        options.clock = [this] { return now_; };
        store_ = open_store(options);
    }
    void add(const std::string& stream, const Message& message, Duration later = std::chrono::milliseconds(2)) {
        now_ += later;
        store_->append(stream, {message});
    }
    Store& store() { return *store_; }
    /// The program's words with the path taken out of them.
    support::Ran run(std::vector<std::string> arguments, const std::vector<std::string>& environment = utf8) {
        arguments.insert(arguments.begin(), path);
        auto ran = inspect(arguments, {}, environment);
        ran.err = support::replaced(ran.err, path, "shop.db");
        return ran;
    }
    [[nodiscard]] Time now() const { return now_; }

private:
    support::TemporaryDirectory directory_;
    Time now_{std::chrono::seconds(1'700'000'000)};
    std::unique_ptr<Store> store_;

public:
    const std::string path;
};

/// A booking: who asks, what is decided, a refusal, something that waits, and a message that was skipped.
class Booking : public File {
public:
    Booking() {
        store().register_group({"mailer", {"booking.requested", "room.reserved"}});
        rooms_ = store().register_group({"rooms", {"room.reserve", "room.reserved"}}).id;
        add("booking-1", made(1, Kind::command, "booking.request"));
        add("booking-1", made(2, Kind::event, "booking.requested", 1, 1));
        add("room-7", made(3, Kind::command, "room.reserve", 2, 1), std::chrono::milliseconds(1500));
        add("room-7", made(4, Kind::event, "room.reserved", 3, 1));
        add("mail-1", made(5, Kind::command, "mail.send", 2, 1));
        Message refused = made(6, Kind::event, "sourced.refused", 5, 1);
        refused.payload = R"({"command":"mail.send","reason":"no address"})";
        add("mail-1", refused);
        add("booking-2", made(7, Kind::command, "booking.request"));
        Scheduled reminder{now() + std::chrono::hours(1), made(8, Kind::command, "mail.remind", 4, 1)};
        reminder.message.stream = "mail-1";
        store().schedule({reminder});
        store().skip_message("mailer", "booking-1", "the printer is on fire");
        fail("room-7", 4);
    }

private:
    /// Lets the rooms throw over a message.
    void fail(const std::string& stream, std::int64_t position) {
        for (const auto& claim : store().exchange({{}, rooms_, 10}).claims) {
            Handled handled;
            handled.claim = claim;
            handled.acked = position - 1;
            const auto later = Resolution::retry(now() + std::chrono::hours(1));
            handled.failure = Failure{position, "std::runtime_error", "no key", later};
            if (claim.stream_name == stream) store().exchange({{handled}, rooms_, 0});
        }
    }

    std::int64_t rooms_ = 0;
};

/// How often a text has another in it.
std::size_t count(const std::string& text, const std::string& what) {
    std::size_t found = 0;
    for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + what.size())) ++found;
    return found;
}

/// A folder with a program `dot` in it that does what its lines say.
class FakeDot {
public:
    explicit FakeDot(const std::string& script) {
        std::ofstream(directory_.file("dot")) << "#!/bin/sh\n" + script + "\n";
        ::chmod(directory_.file("dot").c_str(), 0755);
    }
    [[nodiscard]] std::vector<std::string> environment() const {
        return {"PATH=" + directory_.path() + ":/usr/bin:/bin"};
    }

private:
    support::TemporaryDirectory directory_;
};

}  // namespace

TEST_CASE("trace: a tree of what follows from what, with streams, delays, what waits, was refused or skipped") {
    Booking file;
    const auto ran = file.run({"trace", text(3)});
    CHECK(ran.status == 0);
    CHECK(ran.err.empty());
    CHECK(ran.out == golden("trace.txt", ran.out));
    const auto plain = file.run({"trace", text(3), "--ascii"}).out;
    CHECK(plain == golden("trace_ascii.txt", plain));
    CHECK(file.run({"trace", text(3)}, {}).out == plain);  // no UTF-8 there
    CHECK(file.run({"trace", text(3)}, {"LC_ALL=C.UTF-8", "NO_COLOR=1"}).out == ran.out);
}

TEST_CASE("trace: commands, events and refusals have colours where they are wanted") {
    Booking file;
    const auto ran = file.run({"trace", "@1", "--color", "always"});
    CHECK(count(ran.out, "\x1b[34m[booking.request]\x1b[0m") == 1);
    CHECK(count(ran.out, "\x1b[33m(booking.requested)\x1b[0m") == 1);
    CHECK(count(ran.out, "\x1b[31m(sourced.refused)\x1b[0m") == 1);
}

TEST_CASE("trace: a message is named by id, by the beginning of one, by stream and seq, or by position") {
    Booking file;
    const auto tree = [&](const std::string& name) { return file.run({"trace", name}).out; };
    const std::string whole = tree(text(4));
    CHECK(count(whole, "this one") == 1);
    CHECK(tree("room-7@2") == whole);
    CHECK(tree("@4") == whole);
    CHECK(tree("01900000-0000-7000-8000-000000000004") == whole);
    CHECK(tree(text(4).substr(0, 36)) == whole);
    CHECK(tree(text(7).substr(0, 35) + "7") != whole);

    Message other = made(9, Kind::event, "other");
    other.id = other.causation = other.correlation = Id::parse("11111111-2222-7333-8444-555555555555");
    file.add("other", other);
    CHECK(count(tree("11111111"), "(other)") == 1);
    CHECK(tree("11111111-22") == tree("1111111122"));
    // Of the correlation, without a message of that id; and something that waits.
    CHECK(count(tree(text(8)), "this one") == 1);
    CHECK(count(tree(text(8)), "due 2023-11-14T23:13:21.") == 1);
}

TEST_CASE("trace: what cannot be found, or names nothing, is told from what can") {
    Booking file;
    auto ran = file.run({"trace", "01909999"});
    CHECK(ran.status == 4);
    CHECK(ran.err == "sourced: there is no message '01909999' in 'shop.db'\n");
    CHECK(ran.out.empty());
    CHECK(file.run({"trace", "room-7@3"}).status == 4);
    CHECK(file.run({"trace", "@8"}).status == 4);
    CHECK(file.run({"trace", "01909999-0000-7000-8000-000000000004"}).status == 4);
    for (const char* wrong : {"0190", "room-7@", "room-7@x", "room-7@0", "@-1", "@99999999999999999999", "zzzzzzzz"}) {
        CAPTURE(wrong);
        ran = file.run({"trace", wrong});
        CHECK(ran.status == 2);
        CHECK(ran.err == "sourced: '" + std::string(wrong) +
                             "' names no message: give its id or 8 digits or more of its beginning, STREAM@SEQ, or "
                             "@POSITION\n");
    }
    ran = file.run({"trace", "01900000"});
    CHECK(ran.status == 2);
    CHECK(ran.err == "sourced: '01900000' is the beginning of several ids: " + text(1) + ", " + text(2) + ", " +
                         text(3) + ", " + text(4) + ", " + text(5) + ", and more\n");
    CHECK(file.run({"trace"}).status == 2);
    CHECK(file.run({"trace", "@1", "--format", "png"}).status == 2);
    const auto none = file.run({"trace", "@1", "--limit", "0"});
    CHECK(none.status == 2);
    CHECK(none.err.find("--limit takes a number above 0, not '0'; see") != std::string::npos);
}

TEST_CASE("trace: for pages and for Graphviz it is the same drawing") {
    Booking file;
    const auto mermaid = file.run({"trace", "@3", "--format", "mermaid"});
    CHECK(mermaid.out == golden("trace.mermaid", mermaid.out));
    const auto dot = file.run({"trace", "@3", "--format", "dot"});
    CHECK(dot.out == golden("trace.dot", dot.out));
}

TEST_CASE("trace: as JSON it holds the messages as they were stored") {
    Booking file;
    const auto ran = file.run({"trace", "@3", "-o", "json"});
    CHECK(ran.out == golden("trace.json", ran.out));
    CHECK(file.run({"trace", "@3", "--format", "json"}).out == ran.out);
    CHECK(count(file.run({"trace", "@3", "-o", "jsonl"}).out, "\n") == 1);
}

TEST_CASE("trace: a cause that is not in the log is said to be outside, one that is not shown to be left out") {
    File file;
    Message astray = made(1, Kind::event, "moved", 9, 9);
    file.add("a", astray);
    file.add("a", made(2, Kind::event, "told", 1, 9));
    Message told = made(3, Kind::event, "decided", 8, 9);
    told.metadata.set("outside_cause", text(8));
    file.add("b", told);
    const auto ran = file.run({"trace", text(9)});  // the correlation, whose first message is elsewhere
    CHECK(ran.out == golden("trace_outside.txt", ran.out));
    CHECK(count(file.run({"trace", "a@1", "--format", "mermaid"}).out, "its cause is outside of this log") == 2);
    CHECK(count(file.run({"trace", "a@1", "-o", "json"}).out,
                "\"outside_cause\":[\"" + text(1) + "\",\"" + text(3) + "\"]") == 1);
}

TEST_CASE("trace: messages that are each other's cause are drawn once") {
    File file;
    file.add("a", made(1, Kind::event, "hen", 2, 1));
    file.add("a", made(2, Kind::event, "egg", 1, 1));
    const auto ran = file.run({"trace", "@2"});
    CHECK(count(ran.out, "(hen)") == 1);
    CHECK(count(ran.out, "(egg)") == 1);
    CHECK(ran.out.find("(hen)") < ran.out.find("└─▶ (egg)"));
}

TEST_CASE("trace: a chain of 100,000 messages is drawn to its limit, around what was asked for") {
    File file;
    constexpr std::int64_t length = 100'000;
    Messages chain;
    for (std::int64_t i = 0; i < length; ++i) {
        chain.push_back(support::message(i % 2 == 0 ? Kind::command : Kind::event, "step", "{}",
                                         chain.empty() ? nullptr : &chain.back()));
    }
    file.store().append("a", chain);
    const auto at = [&](const std::string& name, const std::string& limit) {
        return file.run({"trace", name, "--limit", limit});
    };
    const auto first = at("@1", "100");
    CHECK(count(first.out, "step") == 100);
    CHECK(first.err ==
          "sourced: more messages belong to it: --limit 1000 shows more of them, and the trace of a later one shows "
          "what is around that\n");
    const auto middle = at("@50000", "100");
    CHECK(count(middle.out, "step") == 100);
    CHECK(count(middle.out, "a@50000  ") == 1);
    CHECK(count(middle.out, "a@49951 ") == 1);
    CHECK(count(middle.out, "a@50001 ") == 1);
    CHECK(count(middle.out, "a@1\n") == 1);
    CHECK(count(middle.out, "(its cause is left out)") == 1);
    const auto whole = at("@100000", "100000");
    CHECK(whole.err.empty());
    CHECK(count(whole.out, "step") == length);
    CHECK(count(whole.out, "\n+99984 ") > 0);  // levels whose lines are left out
    std::size_t widest = 0;
    for (std::size_t begin = 0, end = 0; (end = whole.out.find('\n', begin)) != std::string::npos; begin = end + 1) {
        widest = std::max(widest, end - begin);
    }
    CHECK(widest < 250);
}

TEST_CASE("trace and flow: hostile names reach neither a terminal nor a drawing program") {
    const std::string hostile = "a\"]\n<script>alert(1)</script>\x1b[31m&|\\";
    File file;
    file.add(hostile, made(1, Kind::command, hostile));
    file.add(hostile, made(2, Kind::event, hostile + "2", 1, 1));
    Message refused = made(3, Kind::event, "sourced.refused", 1, 1);
    refused.payload = R"({"command":"x","reason":"\u001b[2J\" --> x"})";
    file.add("s", refused);
    file.store().register_group({hostile, {hostile + "2"}});
    for (const char* const command : {"trace", "flow"}) {
        for (const char* const format : {"ascii", "mermaid", "dot", "json"}) {
            CAPTURE(command);
            CAPTURE(format);
            std::vector<std::string> arguments{command};
            if (arguments[0] == "trace") arguments.emplace_back("@1");
            arguments.insert(arguments.end(), {"--format", format});
            const auto ran = file.run(arguments);
            CHECK(ran.status == 0);
            CHECK(ran.out.find('\x1b') == std::string::npos);
            if (std::string(format) == "mermaid") CHECK(ran.out.find("<script>") == std::string::npos);
            if (std::string(format) == "mermaid") CHECK(ran.out.find("\"]\n<") == std::string::npos);
            const auto name = std::string("hostile_") + command + "." + format;
            CHECK(ran.out == golden(name, ran.out));
        }
    }
}

TEST_CASE("flow: what was seen in the file is drawn with counts, groups and the way to other streams") {
    Booking file;
    const auto ran = file.run({"flow", "--observed"});
    CHECK(ran.status == 0);
    CHECK(ran.err.empty());
    CHECK(ran.out == golden("flow_observed.txt", ran.out));
    CHECK(file.run({"flow"}).out == ran.out);  // there are no types to tell more
    const auto plain = file.run({"flow", "--ascii"}).out;
    CHECK(plain == golden("flow_observed_ascii.txt", plain));
    CHECK(file.run({"flow"}, {}).out == plain);
    const auto mermaid = file.run({"flow", "--format", "mermaid"}).out;
    CHECK(mermaid == golden("flow_observed.mermaid", mermaid));
    const auto dot = file.run({"flow", "--format", "dot"}).out;
    CHECK(dot == golden("flow_observed.dot", dot));
    const auto json = file.run({"flow", "-o", "json"}).out;
    CHECK(json == golden("flow_observed.json", json));
}

TEST_CASE("flow: of a long log only the newest messages are looked at, which is said") {
    Booking file;
    const auto ran = file.run({"flow", "--limit", "3"});
    CHECK(ran.err == "sourced: seen among the newest 3 of 7 messages; --limit 0 looks at all\n");
    CHECK(count(ran.out, "room.reserve]") == 0);
    CHECK(count(file.run({"flow", "--limit", "3", "-o", "json"}).out, "\"messages\":3,\"complete\":false") == 1);
    CHECK(file.run({"flow", "--limit", "0"}).err.empty());
    CHECK(file.run({"flow", "--limit", "-1"}).status == 2);
}

TEST_CASE("flow: nothing leads to nothing") {
    File file;
    CHECK(file.run({"flow"}).out == "nothing leads to anything\n");
    CHECK(file.run({"flow", "--format", "mermaid"}).out.starts_with("flowchart LR\n"));
}

TEST_CASE("flow: many groups at a type are one in a text, and each by itself in a drawing") {
    File file;
    file.add("a", made(1, Kind::command, "go"));
    file.add("a", made(2, Kind::event, "went", 1, 1));
    for (const char* name : {"one", "two", "three", "four"}) file.store().register_group({name, {"went"}});
    CHECK(count(file.run({"flow"}).out, "{one, two and 2 more}") == 1);
    CHECK(count(file.run({"flow", "--format", "mermaid"}).out, "event_went --> automation_") == 4);
}

TEST_CASE("flow: what is wide or deep stays within 80 columns, and what goes round is drawn once") {
    File file;
    constexpr std::uint8_t length = 40;
    for (std::uint8_t i = 1; i <= length; ++i) {
        const auto before = static_cast<std::uint8_t>(i - 1);
        file.add("a", made(i, i % 2 == 1 ? Kind::command : Kind::event, "a.step_" + std::to_string(i), before, 1));
    }
    file.add("a", made(41, Kind::command, "a.step_1", length, 1));
    const auto ran = file.run({"flow", "--ascii"});
    CHECK(ran.out == golden("flow_deep.txt", ran.out));
    CHECK(ran.out.starts_with("[a.step_1] 1x from outside\n"));
    CHECK(count(ran.out, "[a.step_1] 1x ^\n") == 1);
    std::size_t begin = 0;
    for (std::size_t end = 0; (end = ran.out.find('\n', begin)) != std::string::npos; begin = end + 1) {
        CHECK(end - begin <= 80);
    }
}

TEST_CASE("flow: an application's types are drawn as people like to look at them") {
    for (const std::string sample : {"cart", "order", "hotel", "retail"}) {
        CAPTURE(sample);
        const auto drawn = [&](const std::vector<std::string>& more) {
            std::vector<std::string> arguments{"flow"};
            arguments.insert(arguments.end(), more.begin(), more.end());
            return support::Program(arguments, {"LC_ALL=C.UTF-8", "SAMPLE=" + sample}, "drawn").end();
        };
        const auto ran = drawn({});
        CHECK(ran.status == 0);
        CHECK(ran.err.empty());
        CHECK(ran.out == golden("flow_" + sample + ".txt", ran.out));
        CHECK(count(drawn({"--ascii"}).out, "\n") == count(ran.out, "\n"));
        CHECK(drawn({"--format", "dot"}).out.starts_with("digraph sourced {\n"));
    }
}

TEST_CASE("flow: the drawings of an application are those of its topology") {
    const auto drawn = [](const std::vector<std::string>& arguments) {
        return support::Program(arguments, {"SAMPLE=retail"}, "drawn").end().out;
    };
    std::ifstream page(std::string(SOURCED_ROOT) + "/samples/retail/README.md");
    std::ostringstream text;
    text << page.rdbuf();
    CHECK(count(text.str(), "```mermaid\n" + drawn({"flow", "--format", "mermaid"}) + "```\n") == 1);
    const auto json = drawn({"flow", "-o", "json"});
    CHECK(count(json, "\"id\":\"invoices-rm\"") == 1);
    CHECK(drawn({"flow", "--format", "json"}) == json);
    CHECK(count(drawn({"flow", "-o", "jsonl"}), "\n") == count(json, "\"id\":"));
}

TEST_CASE("flow: types come from a library too, and a file is needed only without them") {
    const auto library = support::Program::folder() + "/libinspected.so";
    if (std::filesystem::exists(library)) {
        const auto loaded = inspect({"--app", library, "flow"}, {}, utf8);
        CHECK(loaded.status == 0);
        CHECK(loaded.out == support::Program({"flow"}, utf8, "inspected").end().out);
        CHECK(count(loaded.out, "[cart.put] ──▶ (cart.item_put)") == 1);
    }
    const auto nothing = inspect({"flow"});
    CHECK(nothing.status == 2);
    CHECK(nothing.err ==
          "sourced: flow: name a file, to see in it what followed from what: sourced FILE flow; or an application with "
          "its types: sourced --app libshop.so flow\n");
    const auto observed = support::Program({"flow", "--observed"}, {"SAMPLE=cart"}, "drawn").end();
    CHECK(observed.status == 2);
    CHECK(observed.err ==
          "sourced: flow: name a file, to see in it what followed from what: sourced FILE flow --observed\n");
    Booking file;
    const auto seen = support::Program({file.path, "flow", "--observed"}, utf8, "drawn").end();
    CHECK(seen.out == file.run({"flow"}).out);
}

TEST_CASE("svg: Graphviz draws it, and its absence and its failures are told") {
    Booking file;
    const std::vector<std::string> arguments{"flow", "--format", "svg"};
    SUBCASE("what the program says is the picture") {
        const FakeDot dot("echo \"<svg $*>\"; cat");
        const auto ran = file.run(arguments, dot.environment());
        CHECK(ran.status == 0);
        CHECK(ran.out == "<svg -Tsvg>\n" + file.run({"flow", "--format", "dot"}).out);
    }
    SUBCASE("there is none") {
        const support::TemporaryDirectory empty;
        const auto ran = file.run(arguments, {"PATH=" + empty.path()});
        CHECK(ran.status == 1);
        CHECK(ran.out.empty());
        CHECK(ran.err == "sourced: draw as svg: there is no program 'dot', which is in the package 'graphviz'; without "
                         "it: --format dot, or --format mermaid\n");
    }
    SUBCASE("it fails, whether it has read what it was told or not") {
        const FakeDot dot("exec <&-; echo 'out of ink' >&2; exit 3");
        const auto ran = file.run(arguments, dot.environment());
        CHECK(ran.status == 1);
        CHECK(ran.err == "sourced: draw as svg: 'dot' ended with status 3: out of ink\n");
    }
}
