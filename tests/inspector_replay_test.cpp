// The inspector's commands that have an application's reactors work on a file: replay, work.
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "inspector.hpp"
#include "inspector_replay.hpp"

using namespace std::chrono_literals;
using replayed::Add;
using replayed::Added;
using sourced::App;
using sourced::Message;
using sourced::Messages;
using support::bytes_of;
using support::inspect;
using support::Program;
using support::Ran;

namespace {

using Arguments = std::vector<std::string>;

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// A file with six commands, two in each of three streams, and all that came of them is handled. Seconds pass between
/// one and the next.
class Tills {
public:
    Tills() {
        App app({.path = file(), .clock = [this] { return now_ += 1s; }, .seed = 7});
        replayed::add_all(app);
        for (int i = 0; i < 6; ++i) {
            app.dispatch("s" + std::to_string(i % 3), Add{i + 1});
            app.run_until_idle();
        }
    }
    [[nodiscard]] std::string file() const { return directory_.file("tills.db"); }

    /// `replayed FILE arguments...`
    [[nodiscard]] Arguments arguments(Arguments arguments) const {
        arguments.insert(arguments.begin(), file());
        return arguments;
    }
    Ran run(const Arguments& more) const { return Program(arguments(more), {}, "replayed").end(); }
    Ran replay(const std::string& group, Arguments more = {}) const {
        more.insert(more.begin(), {"replay", "--group", group});
        return run(more);
    }

    void append(const std::string& stream, const Messages& messages) const { open()->append(stream, messages); }
    [[nodiscard]] std::unique_ptr<sourced::Store> open() const { return sourced::open_store({.path = file()}); }
    [[nodiscard]] sourced::GroupInfo group(const std::string& name) const { return open()->stats().group(name); }
    [[nodiscard]] std::int64_t head() const { return open()->head(); }
    /// All rows of a table, a line each.
    [[nodiscard]] std::string rows(const std::string& table) const {
        std::string text;
        open()->read([&](sourced::Reader& db) {
            for (const auto& row : db.query("select * from " + table + " order by 1")) {
                text += row.text(0) + " " + row.text(1) + "\n";
            }
        });
        return text;
    }
    void change(const std::string& sql) const {
        open()->transaction([&](sourced::Transaction& db) { db.execute(sql); });
    }

private:
    support::TemporaryDirectory directory_;
    sourced::Time now_{std::chrono::hours(500'000)};
};

}  // namespace

TEST_CASE("replay: a read model is built anew from the log, and nothing is decided or sent twice") {
    const Tills tills;
    const std::string before = tills.rows("totals");
    const std::int64_t head = tills.head();
    CHECK(before == "s0 5\ns1 7\ns2 9\n");
    tills.change("update totals set sum = 1000");
    const auto ran = tills.replay("totals", {"--yes", "--reason", "it was wrong"});
    CHECK(ran.status == 0);
    CHECK(has(ran.out, "passed 6 messages through 'totals' in "));
    CHECK(has(ran.out, ", up to position " + std::to_string(head) + "; nothing is open\n"));
    CHECK(tills.rows("totals") == before);
    CHECK(tills.head() == head);
    CHECK(tills.group("totals").reset_reason == "it was wrong");
    CHECK(tills.group("totals").active);

    for (const char* group : {"till", "history", "by_size", "mailer"}) {
        CAPTURE(group);
        const std::string rows = tills.rows("history") + tills.rows("projection_by_size");
        CHECK(tills.replay(group, {"-y"}).status == 0);
        CHECK(tills.rows("history") + tills.rows("projection_by_size") == rows);
        CHECK(tills.head() == head);
    }
    CHECK(support::problems_of(tills.file()) == "");
}

TEST_CASE("replay: its plan is shown first, and without --yes nothing is done") {
    const Tills tills;
    const std::string before = bytes_of(tills.file());
    const auto ran = tills.replay("totals");
    CHECK(ran.status == 1);
    CHECK(ran.out.empty());
    CHECK(support::golden("replay_plan.txt", ran.err) == ran.err);
    CHECK(bytes_of(tills.file()) == before);
    const auto part = tills.replay("history", {"--from", "3", "--until", "9", "--rate", "100", "--stream", "s1"});
    CHECK(support::golden("replay_plan_part.txt", part.err) == part.err);
    const auto rest = tills.replay("till", {"--resume"});
    CHECK(support::golden("replay_plan_resume.txt", rest.err) == rest.err);
}

TEST_CASE("replay: what was never handled is handled now, with its effects, and the plan says so") {
    const Tills tills;
    tills.append("s0", {Message(Add{5})});
    const auto ran = tills.replay("till", {"--yes"});
    CHECK(ran.status == 0);
    CHECK(has(ran.err, "1 message that it has open besides are handled as always"));
    CHECK(tills.open()->stream("s0").back().as<Added>().amount == 5);
}

TEST_CASE("replay: from and until take positions and times; what lies behind stays open, and --resume goes on") {
    const Tills tills;
    const auto log = tills.open()->log({.types = {"till.added"}});
    const auto time_of = [](const Message& message) {
        return std::to_string(message.recorded_at.time_since_epoch().count());
    };
    tills.change("update history set sum = 0");
    const auto ran = tills.replay("history", {"--yes", "--from", std::to_string(log.at(1).position), "--until",
                                              std::to_string(log.at(3).position), "--json"});
    CHECK(ran.status == 0);
    CHECK(has(ran.out, R"("result":"reached","reason":"")"));
    CHECK(has(ran.out, R"("until":)" + std::to_string(log.at(3).position) + R"(,"messages":3,)"));
    CHECK(has(ran.out, R"("open":2,)"));
    CHECK(tills.group("history").lag == 2);

    const auto rest = tills.replay("history", {"--yes", "--resume"});
    CHECK(rest.status == 0);
    CHECK(has(rest.out, "passed 2 messages through 'history'"));
    CHECK(tills.rows("history") == tills.rows("totals"));

    const auto timed =
        tills.replay("history", {"--yes", "--from", time_of(log.at(1)), "--until", time_of(log.at(3)), "-o", "jsonl"});
    CHECK(timed.status == 0);
    CHECK(has(timed.out, R"("from":)" + std::to_string(log.at(1).position)));
    CHECK(has(timed.out, R"("until":)" + std::to_string(log.at(3).position - 1) + R"(,"messages":2,)"));
    CHECK(tills.replay("history", {"--yes", "--resume", "--until", "1000000"}).status == 0);
    CHECK(tills.group("history").lag == 0);
    CHECK(support::problems_of(tills.file()) == "");
}

TEST_CASE("replay: one stream of a read model comes again alone") {
    const Tills tills;
    tills.change("update totals set sum = 1000");
    CHECK(tills.replay("totals", {"--yes", "--stream", "s1"}).status == 0);
    CHECK(tills.rows("totals") == "s0 1000\ns1 7\ns2 1000\n");
}

TEST_CASE("replay: Ctrl-C ends it well and says how to go on, and --resume does") {
    const Tills tills;
    const std::string before = tills.rows("totals");
    const auto words = tills.arguments({"replay", "--group", "totals", "--yes", "--rate", "0.5", "--until", "1000000"});
    Program program(words, {}, "replayed");
    const auto store = tills.open();
    const auto limit = std::chrono::steady_clock::now() + 60s;
    while (!store->stats().group("totals").replay || tills.rows("totals").empty()) {
        REQUIRE(std::chrono::steady_clock::now() < limit);
    }
    program.signal(SIGINT);
    const auto ran = program.end();
    CHECK(ran.status == 130);
    CHECK(has(ran.out, "open, for the workers\n"));
    CHECK(has(ran.err, "sourced: interrupted; the group goes on with its next worker, or with\n  sourced " +
                           tills.file() + " replay --group totals --resume --until 24 --rate 0.5\n"));
    CHECK(tills.rows("totals") != before);
    for (const auto& offset : store->offsets("totals", {.all = true})) CHECK(offset.owner == 0);
    const auto rest = tills.replay("totals", {"--yes", "--resume"});
    CHECK(rest.status == 0);
    CHECK(tills.rows("totals") == before);
    CHECK(support::problems_of(tills.file()) == "");
}

TEST_CASE("replay: where the group cannot go on it ends with a failure and says why") {
    const Tills tills;
    tills.append("s0", {Message(Added{14})});
    const auto ran = tills.replay("totals", {"--yes"});
    CHECK(ran.status == 1);
    CHECK(has(ran.err, "sourced: it cannot go on: it is stopped: 14 is too much; the group goes on"));
    CHECK(has(ran.err, "a message failed, its group is stopped (group totals, stream s0, position "));
    const auto again = tills.replay("totals", {"--yes"});
    CHECK(again.status == 1);
    CHECK(again.err == "sourced: group 'totals' is stopped: 14 is too much; start it first: sourced " + tills.file() +
                           " groups start totals\n");
}

TEST_CASE("replay: a group that handles more in the file than the application does is left to another") {
    const Tills tills;
    tills.open()->register_group({"totals", {"till.added", "till.counted"}, {}});
    const std::string file = tills.file().substr(0, tills.file().size() - 8) + "it's.db";
    std::filesystem::copy(tills.file(), file);
    const auto ran = Program({file, "replay", "--group", "totals", "--yes"}, {}, "replayed").end();
    CHECK(ran.status == 1);
    CHECK(ran.err == "sourced: group 'totals' handles 'till.counted' in '" + file +
                         "', and this application's 'totals' does not: run it with the application that does\n");
    tills.open()->stop_group("history", "enough");
    std::filesystem::copy(tills.file(), file, std::filesystem::copy_options::overwrite_existing);
    const auto stopped = Program({file, "replay", "--group", "history"}, {}, "replayed").end();
    Program program({file, "work"}, {}, "replayed");
    REQUIRE(program.wait_for_err("Ctrl-C ends it.\n"));
    program.signal(SIGINT);
    CHECK(has(program.end().err, "\n  totals (left alone: it handles 'till.counted' in the file)\n"));
    CHECK(has(stopped.err, "it'\\''s.db' groups start history\n"));
}

TEST_CASE("replay: it says when others work on the file") {
    const Tills tills;
    App app({.path = tills.file()});
    app.add<replayed::History>();
    app.start(1);
    const auto ran = tills.replay("totals");
    app.stop();
    CHECK(has(ran.err, "WARNING: 1 other process may work on this file (pid " + std::to_string(::getpid()) + "): "));
}

TEST_CASE("replay: what is asked for in a wrong way is refused with a sentence, and nothing is done") {
    const Tills tills;
    const std::string before = bytes_of(tills.file());
    const auto refused = [&](int status, const Arguments& arguments, const std::string& text) {
        const auto ran = tills.run(arguments);
        CAPTURE(text);
        CHECK(ran.status == status);
        CHECK(ran.out.empty());
        CHECK(ran.err == "sourced: " + text + "\n");
    };
    const std::string g = "--group";
    refused(4, {"replay", g, "total"},
            "there is no reactor 'total' in this application, but 'till', 'history', 'totals', 'by_size', 'mailer'. "
            "Did you mean 'totals'?");
    refused(2, {"replay", g, "totals", "--from", "9", "--until", "3"},
            "replay from position 9 until 3: there is nothing in between; the log ends at position 24");
    refused(2, {"replay", g, "totals", "--from", "0"}, "--from 0: a position is 1 or more");
    for (const char* rate : {"0", "-1", "fast", "1x", "inf"}) {
        refused(2, {"replay", g, "totals", std::string("--rate=") + rate},
                std::string("--rate ") + rate + ": expected a number of messages a second, or max");
    }
    refused(2, {"replay", g, "totals", "--resume", "--from", "3"},
            "--resume goes on without a reset: --from, --stream and --reason are for a new replay");
    refused(1, {"replay", g, "totals", "--from", "3"},
            "reset 'totals' from a position or a time: a projector that stores its state would add twice; reset it "
            "whole, or for one whole stream");
    for (const char* time : {"someday", "99999999999999999999"}) {
        const auto ran = tills.replay("totals", {"--from", time});
        CHECK(ran.status == 2);
        CHECK(has(ran.err, std::string("sourced: '") + time + "' is no time"));
    }
    CHECK(tills.replay("totals", {"--dry-run", "--resume"}).status == 2);
    CHECK(tills.run({"replay"}).status == 2);
    refused(1, {"replay", g, "totals", "--stream", "nobody"}, "reset in 'nobody': there is no such stream");
    CHECK(bytes_of(tills.file()) == before);

    const auto none = inspect({tills.file(), "replay", g, "totals"});
    CHECK(none.status == 2);
    CHECK(has(none.err, "this needs the types of an application"));
    const support::TemporaryDirectory directory;
    { const auto store = sourced::open_store({.path = directory.file("empty.db")}); }
    const auto empty = Program({directory.file("empty.db"), "replay", g, "totals"}, {}, "replayed").end();
    CHECK(empty.status == 2);
    sourced::open_store({.path = directory.file("empty.db")})->append("s", {Message(Added{1})});
    const auto fresh = Program({directory.file("empty.db"), "replay", g, "totals"}, {}, "replayed").end();
    CHECK(fresh.status == 4);
    CHECK(fresh.err == "sourced: group 'totals' is not in '" + directory.file("empty.db") +
                           "': it has not handled anything yet; 'work' runs it\n");
    const auto missing = Program({directory.file("missing.db"), "replay", g, "totals"}, {}, "replayed").end();
    CHECK(missing.status == 1);
    CHECK(has(missing.err, "missing.db"));
    CHECK(!std::filesystem::exists(directory.file("missing.db")));
}

TEST_CASE("replay: an application that is on a file itself is played there, and nowhere else") {
    const Tills tills;
    const Tills other;
    tills.change("update totals set sum = 1000");
    const std::vector<std::string> there{"REPLAYED_PATH=" + tills.file()};
    CHECK(Program({"replay", "--group", "totals", "--yes"}, there, "replayed").end().status == 0);
    CHECK(tills.rows("totals") == other.rows("totals"));
    const auto ran = Program({other.file(), "replay", "--group", "totals", "--yes"}, there, "replayed").end();
    CHECK(ran.status == 2);
    CHECK(ran.err.ends_with("sourced: this program works on '" + tills.file() + "'; leave '" + other.file() +
                            "' out\n"));
}

// ==== replay --dry-run ===============================================================

TEST_CASE("replay --dry-run: it folds everything in memory and leaves the file as it is, byte for byte") {
    const Tills tills;
    const auto store = tills.open();  // so that the WAL stays
    store->append("s9", {Message(Added{1})});
    const std::string before = bytes_of(tills.file());
    const std::string wal = bytes_of(tills.file() + "-wal");
    REQUIRE(!wal.empty());
    const auto check = [&](const std::string& group, Arguments more, const std::string& text) {
        more.insert(more.begin(), "--dry-run");
        const auto ran = tills.replay(group, more);
        CAPTURE(ran.out);
        CHECK(ran.status == 0);
        CHECK(ran.out.starts_with(text + " in "));
        CHECK(ran.out.ends_with(", nothing was written\nno message is unfit\n"));
    };
    check("totals", {}, "7 messages in 4 streams folded into 4 states");
    check("history", {}, "7 messages in 4 streams folded into 4 states");
    check("by_size", {}, "7 messages in 4 streams folded into 2 states");
    check("till", {}, "13 messages in 4 streams folded into 4 states");
    check("totals", {"--stream", "s1"}, "2 messages in 1 stream folded into 1 state");
    check("history", {"--from", "9", "--until", "24"}, "4 messages in 3 streams folded into 3 states");
    check("mailer", {}, "7 messages in 4 streams read, not folded: it is a handler, which keeps no state");
    CHECK(bytes_of(tills.file()) == before);
    CHECK(bytes_of(tills.file() + "-wal") == wal);
}

TEST_CASE("replay --dry-run: every message that cannot be read or folded is shown, and it ends with a failure") {
    const Tills tills;
    Message wrong(Added{1});
    wrong.payload = R"({"amount":"a lot"})";
    tills.append("s0", {wrong});
    tills.append("s\n1", {Message(Added{13})});
    const auto till = tills.replay("till", {"--dry-run"});
    CHECK(till.status == 1);
    CHECK(has(till.out, "25  s0 "));
    CHECK(has(till.out, "/amount: expected integer, got \"a lot\""));
    CHECK(has(till.out, "26  s\\n1"));
    CHECK(has(till.out, "13 is \\x1b[31mnot\\x1b[0m counted\n"));
    CHECK(till.out.ends_with(", nothing was written\n2 messages cannot be read or folded\n"));
    CHECK(tills.replay("totals", {"--dry-run"}).status == 1);
    const auto mailer = tills.replay("mailer", {"--dry-run", "--json"});
    CHECK(mailer.status == 1);
    CHECK(has(mailer.out, R"("folded":false)"));
    CHECK(has(mailer.out, R"("unfit":1,"first_unfit":[{"position":25,"stream":"s0","type":"till.added","text":")"));
    CHECK(tills.replay("till", {"--dry-run", "--until", "24"}).status == 0);
}

TEST_CASE("replay --dry-run: what the group was made to pass over is no failure") {
    const Tills tills;
    tills.append("s0", {Message(Added{14})});
    tills.replay("totals", {"--yes"});
    REQUIRE(!tills.group("totals").active);
    tills.open()->skip_message("totals", "s0", "too much");
    const auto ran = tills.replay("totals", {"--dry-run"});
    CHECK(ran.status == 0);
    CHECK(has(ran.out, "1 message passed over, as the group was made to\nno message is unfit\n"));
}

TEST_CASE("replay --dry-run: a group that is not in the file yet can be tried") {
    const support::TemporaryDirectory directory;
    sourced::open_store({.path = directory.file()})->append("s", {Message(Added{1}), Message(Added{14})});
    const auto ran = Program({directory.file(), "replay", "--group", "totals", "--dry-run"}, {}, "replayed").end();
    CHECK(ran.status == 1);
    CHECK(has(ran.out, "14 is too much"));
    CHECK(sourced::open_store({.path = directory.file()})->stats().groups.empty());
}

// ==== work ===========================================================================

TEST_CASE("work: it handles what is open and what comes until a signal, and ends well") {
    const support::TemporaryDirectory directory;
    const auto store = sourced::open_store({.path = directory.file()});
    store->append("s0", {Message(Add{1})});
    for (const int signal : {SIGTERM, SIGINT}) {
        Program program({directory.file(), "work", "--workers", "1"}, {}, "replayed");
        REQUIRE(program.wait_for_err("Ctrl-C ends it.\n"));
        store->append("s0", {Message(Add{2})});
        const std::int64_t head = store->head();
        const auto limit = std::chrono::steady_clock::now() + 60s;
        while (!store->standing("till", head).reached) REQUIRE(std::chrono::steady_clock::now() < limit);
        program.signal(signal);
        const auto ran = program.end();
        CHECK(ran.status == 0);
        CHECK(ran.out.empty());
        CHECK(has(ran.err, "sourced: working on '" + directory.file() + "' with 1 worker for\n  till"));
        CHECK(has(ran.err, "\n  mailer"));
        CHECK(has(ran.err, "sourced: stopping\nsourced: handled "));
    }
    CHECK(store->log({.types = {"till.added"}}).size() == 3);
    for (const auto& worker : store->workers()) CHECK(worker.claims == 0);
}

TEST_CASE("work, replay: the plain program does both with an application from a library") {
    const std::string library = Program::folder() + "/libinspected.so";
    if (!std::filesystem::exists(library)) return;  // a build without shared libraries
    const support::TemporaryDirectory directory;
    const auto store = sourced::open_store({.path = directory.file()});
    Program program({"--app", library, directory.file(), "work"});
    REQUIRE(program.wait_for_err("Ctrl-C ends it.\n"));
    program.signal(SIGTERM);
    const auto ran = program.end();
    CHECK(ran.status == 0);
    CHECK(has(ran.err, "with 2 workers for\n  cart\n"));
    CHECK(store->stats().group("cart").active);
    store->append("s", {support::message(sourced::Kind::event, "note.taken")});
    CHECK(inspect({"--app", library, directory.file(), "replay", "-g", "mailer", "--yes"}).out.starts_with(
        "passed 1 message through 'mailer' in "));
}

TEST_CASE("work: what the engine warns of is said as it may stand on a terminal") {
    const Tills tills;
    tills.append("s0", {Message(Added{13})});
    Program program(tills.arguments({"work"}), {}, "replayed");
    REQUIRE(program.wait_for_err("its group is stopped (group till"));
    program.signal(SIGTERM);
    const auto ran = program.end();
    CHECK(ran.status == 0);
    CHECK(has(ran.err, "13 is \\x1b[31mnot\\x1b[0m counted"));
    CHECK(!has(ran.err, "\x1b"));
    Program again(tills.arguments({"work", "--workers", "2"}), {}, "replayed");
    REQUIRE(again.wait_for_err("till (stopped: 13 is \\x1b[31mnot"));
    again.signal(SIGINT);
    CHECK(again.end().status == 0);
}

TEST_CASE("work: without types or a file, or with a wrong number of workers, it says what to do") {
    const Tills tills;
    const auto none = inspect({tills.file(), "work"});
    CHECK(none.status == 2);
    CHECK(has(none.err, "this needs the types of an application. Load them: sourced --app libshop.so " + tills.file()));
    CHECK(tills.run({"work", "--workers", "0"}).status == 2);
    CHECK(tills.run({"work", "--workers", "2000"}).status == 2);
    const support::TemporaryDirectory directory;
    const auto missing = Program({directory.file("missing.db"), "work"}, {}, "replayed").end();
    CHECK(missing.status == 1);
    CHECK(std::filesystem::is_empty(directory.path()));
}
