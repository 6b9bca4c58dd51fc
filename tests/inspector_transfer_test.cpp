// The inspector: a log that goes from file to file.
#include <SQLiteCpp/SQLiteCpp.h>
#include <doctest/doctest.h>
#include <sys/stat.h>

#include <fstream>
#include <set>
#include <sstream>

#include "inspector.hpp"
#include "sourced.hpp"

using namespace sourced;
using support::contains;
using support::files_in;
using support::inspect;
using support::Ran;
using support::TemporaryDirectory;

namespace {

constexpr Time far_off{std::chrono::hours(24 * 365 * 100)};

Message event(std::string type, std::string payload = "{}") {
    return support::message(Kind::event, std::move(type), std::move(payload));
}
Message command(std::string type, std::string payload = "{}") {
    return support::message(Kind::command, std::move(type), std::move(payload));
}
Message follow(const Message& cause, Message next) {
    next.causation = cause.id;
    next.correlation = cause.correlation;
    return next;
}

std::unique_ptr<Store> open_at(const std::string& path) {
    StoreOptions options;
    options.path = path;
    return open_store(options);
}

/// Names and payloads that somebody may think of who means no good.
std::vector<std::string> hostile_texts() {
    return {"plain",
            "it's \"quoted\";--%_\\",
            "line\nbreak\r\n\ttab",
            std::string("nul\0inside", 10),
            "\x1b[31mred\x1b[0m \xe2\x80\xae rtl \xef\xbb\xbf",
            "\xff\xfe no UTF-8 \xc0\x80",
            "\xed\xa0\x80 half of a pair",
            std::string(10'000, 'n'),
            "caf\xc3\xa9 \xf0\x9f\x98\x80"};
}
std::vector<std::string> payloads() {
    return {"{}",
            "null",
            "true",
            "12",
            "-1.5e3",
            "1e400",
            "\"text\"",
            "[]",
            "",
            " {\"spaces\" : [ 1 ,2 ] } ",
            "{\n  \"pretty\": true\n}",
            "{\"a\":1,\"a\":2}",
            "\"\\ud800 half, \\u0000, \\u0041\"",
            "\"\xe2\x80\xae\xc2\x80\"",
            "no JSON at all",
            "{\"broken\":",
            "\"\xff\"",
            std::string("\0", 1),
            std::string(1000, '[') + std::string(1000, ']'),
            "\"" + std::string(3'000'000, 'p') + "\""};
}

/// A file with all that can be in a log and in a schedule.
void fill(Store& store) {
    for (const auto& text : hostile_texts()) {
        Message first = command("do it", "{\"n\":1}");
        Message then = follow(first, event(text, "{\"n\":2}"));
        then.schema = 7;
        then.occurred_at = Time(std::chrono::seconds(-77));
        then.metadata.set("user", "me").set_json("odd", "\"\\u0000\\n\\ud83d\\ude00\"");
        store.append(text, {first, then});
    }
    const Message cause = command("start");
    store.append("payloads", {cause});
    for (const auto& payload : payloads()) store.append("payloads", {follow(cause, event("kept", payload))});
    Message outside = event("kept");
    outside.causation = Id::make();
    outside.metadata = Metadata::parse("{ \"outside_cause\":\n true }");
    store.append("payloads", {outside});
    for (const auto& text : hostile_texts()) {
        Message later = follow(cause, event("later", "{ \"n\" : 1}"));
        later.stream = text;
        later.metadata.set("text", "for later");
        store.schedule({{far_off, later}});
        Recurring every;
        every.name = text;
        every.every = std::chrono::hours(1);
        if (text.size() % 2 == 0) every.first = far_off;
        every.message = event("tick", "{}").to(text);
        try {
            store.recur(every);
        } catch (const Invalid&) {  // its name goes into metadata, which is JSON
        }
    }
}

/// Takes a payload out of the file for good, as the trigger allows it; the row's checksum is the old one then.
void erase(const std::string& path, std::int64_t position) {
    SQLite::Database database(path, SQLite::OPEN_READWRITE);
    database.exec("PRAGMA wal_autocheckpoint=0");
    SQLite::Statement update(database, "UPDATE sourced_messages SET payload = NULL, erased_at = ? WHERE position = ?");
    update.bind(1, std::int64_t{1'700'000'000'000'000});
    update.bind(2, position);
    update.exec();
}

/// All rows of log, schedule and groups with names instead of numbers.
std::string rows_of(const std::string& path, bool groups = true) {
    SQLite::Database database(path, SQLite::OPEN_READONLY);
    std::vector<std::string> queries{
        "SELECT m.position, s.name, m.seq, t.name, t.kind, m.schema, m.id, m.causation, m.correlation, m.recorded_at, "
        "m.occurred_at, m.metadata, m.payload, m.erased_at, m.checksum FROM sourced_messages m "
        "JOIN sourced_streams s ON s.id = m.stream JOIN sourced_types t ON t.id = m.type ORDER BY m.position",
        "SELECT name, seq, updated_at FROM sourced_streams ORDER BY name",
        "SELECT c.due_at, c.stream, t.name, t.kind, c.schema, c.message_id, c.causation, c.correlation, c.occurred_at, "
        "c.metadata, c.payload FROM sourced_scheduled c JOIN sourced_types t ON t.id = c.type ORDER BY c.due_at, c.id",
        "SELECT r.name, r.every, r.first, r.due_at, r.message_id, r.stream, t.name, r.schema, r.metadata, r.payload "
        "FROM sourced_recurring r JOIN sourced_types t ON t.id = r.type ORDER BY r.name"};
    if (groups) {
        queries.insert(
            queries.end(),
            {"SELECT name, generation, active, handles, begins, scanned, status, reason, error_type, error_text, "
             "error_position, created_at, changed_at FROM sourced_groups ORDER BY id",
             "SELECT g.name, s.name, o.acked, o.known, o.highest, o.pending, o.state, o.owner, o.attempts, "
             "o.attempted, o.deaths, o.retry_at, o.error_type, o.error_text, o.failed_at, o.reason "
             "FROM sourced_offsets o JOIN sourced_groups g ON g.id = o.grp JOIN sourced_streams s ON s.id = o.stream "
             "ORDER BY g.id, s.name",
             "SELECT g.name, s.name, k.position, k.message_id, k.skipped_at, k.error_type, k.error_text, k.reason "
             "FROM sourced_skipped k JOIN sourced_groups g ON g.id = k.grp JOIN sourced_streams s ON s.id = k.stream "
             "ORDER BY k.id"});
    }
    std::ostringstream rows;
    for (const auto& sql : queries) {
        SQLite::Statement query(database, sql);
        rows << "--\n";
        while (query.executeStep()) {
            for (int i = 0; i < query.getColumnCount(); ++i) {
                rows << (query.getColumn(i).isNull() ? std::string("NULL") : query.getColumn(i).getString()) << '|';
            }
            rows << '\n';
        }
    }
    return rows.str();
}

void write(const std::string& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }
std::string read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}
std::vector<std::string> lines_of(const std::string& text) {
    std::vector<std::string> lines;
    std::istringstream stream(text);
    for (std::string line; std::getline(stream, line);) lines.push_back(line);
    return lines;
}
std::string joined(const std::vector<std::string>& lines) {
    std::string text;
    for (const auto& line : lines) text += line + '\n';
    return text;
}

/// Its export as lines: messages 1 to 4 of two streams stand in lines 2 to 5.
std::vector<std::string> small_export(const TemporaryDirectory& directory) {
    const std::string path = directory.file("small.db");
    {
        const auto store = open_at(path);
        const Message first = command("add", R"({"n":1})");
        store->append("a", {first, follow(first, event("added", R"({"n":1})"))});
        const Message second = command("add", R"({"n":2})");
        store->append("b", {second, follow(second, event("added", R"({"n":2})"))});
        store->schedule({{far_off, event("added").to("a")}});
        (void)store->register_group({"g", {"add"}, {}});
    }
    auto lines = lines_of(inspect({path, "export", "--groups"}).out);
    REQUIRE(lines.size() == 8);
    return lines;
}

}  // namespace

TEST_CASE("export, import: the same log and schedule, column by column, whatever stands in it") {
    const TemporaryDirectory directory;
    const std::string path = directory.file("from.db");
    std::string counts;
    {
        const auto store = open_at(path);
        fill(*store);
        counts = "40 messages, " + std::to_string(store->scheduled(1000).size()) + " scheduled, " +
                 std::to_string(store->recurring().size()) + " recurring";
    }
    const std::string lines = directory.file("lines.jsonl");
    const Ran out = inspect({path, "export", "--to", lines});
    CHECK(out.status == 0);
    CHECK(out.out == "");
    CHECK(out.err.starts_with("exported " + counts + ": "));
    const std::string text = read(lines);
    for (const char c : text) {
        if (static_cast<unsigned char>(c) < 0x20 && c != '\n') FAIL("a control character stands in the lines");
    }
    for (const auto& line : lines_of(text)) {
        CHECK(line.front() == '{');
        CHECK(line.back() == '}');
    }
    CHECK_FALSE(contains(text, "\xe2\x80\xae"));

    const Ran in = inspect({directory.file("to.db"), "import", "--create", lines});
    CHECK(in.status == 0);
    CHECK(in.out.starts_with("imported " + counts + " in "));
    CHECK(contains(in.err, "a program that starts on this file handles all its commands again"));
    CHECK(files_in(directory) == std::set<std::string>{"from.db", "lines.jsonl", "to.db"});
    CHECK(rows_of(directory.file("to.db")) == rows_of(path));
    CHECK(support::problems_of(directory.file("to.db")) == "");
    struct stat info {};
    REQUIRE(::stat(directory.file("to.db").c_str(), &info) == 0);
    CHECK((info.st_mode & 0777) == 0600);

    // And what comes of that is the same again, but for the first line, which says when.
    const auto again = lines_of(inspect({directory.file("to.db"), "export"}).out);
    auto first = lines_of(text);
    REQUIRE(again.size() == first.size());
    CHECK(std::equal(again.begin() + 1, again.end(), first.begin() + 1));
}

TEST_CASE("export, import: erased payloads stay erased") {
    const TemporaryDirectory directory;
    const std::string path = directory.file("from.db");
    fill(*open_at(path));
    erase(path, 2);
    const Ran out = inspect({path, "export"});
    CHECK(contains(out.out, R"("payload":null,"erased_at":"2023-11-14T22:13:20Z"})"));
    CHECK(inspect({directory.file("to.db"), "import", "--create"}, out.out).status == 0);
    const auto messages = open_at(directory.file("to.db"))->log();
    REQUIRE(messages.size() == 40);
    CHECK(messages == open_at(path)->log());
    CHECK(messages[1].erased_at == Time(std::chrono::seconds(1'700'000'000)));
    CHECK(messages[1].payload == "");
    CHECK(support::problems_of(directory.file("to.db")) == "");
}

TEST_CASE("export, import: with --groups a program goes on where it was, without it begins anew") {
    const TemporaryDirectory directory;
    const std::string path = directory.file("from.db");
    {
        const auto store = open_at(path);
        fill(*store);
        for (const char* stream : {"handled", "parked", "claimed", "failed"}) {
            store->append(stream, {command("do it"), command("do it")});
        }
        const auto group = store->register_group({"line\nbreak \xc3\xa9", {"do it", "kept"}, {}}).id;
        (void)store->register_group({"stopped", {"later"}, Start::at(3)});
        store->stop_group("stopped", "a \"reason\"\n");
        Exchange step;
        step.group = group;
        step.claims = 100;
        const auto claims = store->exchange(step).claims;
        REQUIRE(claims.size() > 8);
        Exchange done;
        for (const auto& claim : claims) {
            Handled handled;
            handled.claim = claim;
            handled.acked = claim.acked;
            if (claim.stream_name == "handled") {
                handled.acked = claim.known;
            } else if (claim.stream_name == "failed") {
                handled.failure = Failure{claim.known, "std::runtime_error", "no\npaper", Resolution::retry(far_off)};
            } else if (claim.stream_name == "claimed") {
                continue;
            } else {
                handled.release = true;
            }
            done.finished.push_back(std::move(handled));
        }
        (void)store->exchange(done);
        store->park_stream("line\nbreak \xc3\xa9", "parked", "no good");
        (void)store->skip_message("line\nbreak \xc3\xa9", "payloads", "not this one");
    }  // what was claimed is given back
    const Ran out = inspect({path, "export", "--groups"});
    CHECK(out.status == 0);
    CHECK(contains(out.err, ", 2 groups, "));
    CHECK(contains(out.err, ", 1 skipped: "));

    const std::string with = directory.file("with.db");
    const Ran in = inspect({with, "import", "--create", "--groups", "-o", "json"}, out.out);
    CHECK(in.status == 0);
    CHECK(in.err == "");
    CHECK(contains(in.out, R"("groups":2)"));
    CHECK(rows_of(with) == rows_of(path));
    CHECK(support::problems_of(with) == "");

    const std::string without = directory.file("without.db");
    const Ran plain = inspect({without, "import", "--create"}, out.out);
    CHECK(plain.status == 0);
    CHECK(contains(plain.err, "handles all its commands again"));
    CHECK(contains(plain.err, "import --groups takes it over"));
    CHECK(rows_of(without, false) == rows_of(path, false));
    CHECK(open_at(without)->stats().groups.empty());

    // Into a file that has more in it, groups do not fit.
    open_at(without)->append("more", {event("kept")});
    const Ran late = inspect({without, "import", "--groups", "--yes"}, out.out);
    CHECK(late.status == 1);
    CHECK(contains(late.err,
                   "groups can only be taken over into a file that has nothing but the messages of this export"));
    CHECK(open_at(without)->stats().groups.empty());
}

TEST_CASE("export: filters choose messages, and what is no whole stream is refused by import") {
    const TemporaryDirectory directory;
    (void)small_export(directory);
    const std::string path = directory.file("small.db");
    const auto count = [&](std::vector<std::string> filter) {
        std::vector<std::string> words{path, "export"};
        words.insert(words.end(), filter.begin(), filter.end());
        const Ran ran = inspect(words);
        CHECK(ran.status == 0);
        const auto lines = lines_of(ran.out);
        REQUIRE(lines.size() >= 2);
        CHECK(contains(lines.front(), "\"complete\":false"));
        CHECK(contains(lines.back(), "\"scheduled\":0"));
        return lines.size() - 2;
    };
    CHECK(count({"--stream", "a"}) == 2);
    CHECK(count({"--type", "added"}) == 2);
    CHECK(count({"--type", "added", "--type", "add"}) == 4);
    CHECK(count({"--where", "payload.n = 2"}) == 2);
    CHECK(count({"--from", "2", "--until", "4"}) == 2);
    CHECK(count({"--from", "-1d"}) == 4);
    CHECK(count({"--until", "-1d"}) == 0);
    CHECK(count({"--stream", "b", "--where", "type = 'added'"}) == 1);

    const std::string other = directory.file("other.db");
    CHECK(inspect({other, "import", "--create"}, inspect({path, "export", "--stream", "a"}).out).status == 0);
    CHECK(open_at(other)->head() == 2);
    const Ran hole = inspect({other, "import", "--yes"}, inspect({path, "export", "--type", "added"}).out);
    CHECK(hole.status == 1);
    CHECK(contains(hole.err,
                   "line 3: import seq 2 of 'b': /seq: expected 1. This export holds only a part of its log"));
    const Ran both = inspect({path, "export", "--groups", "--stream", "a"});
    CHECK(both.status == 2);
    CHECK(contains(both.err, "--groups goes with the whole log only"));
    CHECK(inspect({path, "export", "--where", "payload.n >"}).status == 2);
    CHECK(inspect({path, "export", "--from", "someday"}).status == 2);
}

TEST_CASE("export: a file is replaced with --force only, and is whole or not there") {
    const TemporaryDirectory directory;
    (void)small_export(directory);
    const std::string path = directory.file("small.db");
    const std::string to = directory.file("to.jsonl");
    write(to, "precious");
    const Ran refused = inspect({path, "export", "--to", to});
    CHECK(refused.status == 1);
    CHECK(refused.err == "sourced: '" + to + "' is there already: name another file, or replace it with --force\n");
    CHECK(read(to) == "precious");
    CHECK(inspect({path, "export", "--to", to, "--force"}).status == 0);
    CHECK(lines_of(read(to)).size() == 7);
    struct stat info {};
    REQUIRE(::stat(to.c_str(), &info) == 0);
    CHECK((info.st_mode & 0777) == 0600);
    const Ran folder = inspect({path, "export", "--to", directory.path(), "--force"});
    CHECK(folder.status == 1);
    CHECK(contains(folder.err, "is a directory"));
    const Ran nowhere = inspect({path, "export", "--to", directory.file("no/to.jsonl")});
    CHECK(nowhere.status == 1);
    CHECK(contains(nowhere.err, "cannot be created: No such file or directory"));
    CHECK(files_in(directory) == std::set<std::string>{"small.db", "to.jsonl"});
    // What is no file is written to, not replaced.
    const std::string full = directory.file("full");
    std::filesystem::create_symlink("/dev/full", full);
    const Ran none_left = inspect({path, "export", "--to", full, "--force"});
    CHECK(none_left.status == 1);
    CHECK(none_left.err == "sourced: writing to '" + full + "' failed: No space left on device\n");
    CHECK(std::filesystem::is_symlink(full));
}

TEST_CASE("export: the file itself is never replaced, whatever it is called") {
    const TemporaryDirectory directory;
    (void)small_export(directory);
    const std::string path = directory.file("small.db");
    const std::string link = directory.file("link");
    std::filesystem::create_symlink(path, link);
    for (const std::string& to : {path, directory.file("./small.db"), link}) {
        const Ran ran = inspect({path, "export", "--force", "--to", to});
        CHECK(ran.status == 1);
        CHECK(ran.err == "sourced: '" + to + "' is the file itself\n");
    }
    for (const std::string& to : {path + "-wal", path + "-shm"}) {
        CHECK(inspect({path, "export", "--force", "--to", to}).err == "sourced: '" + to +
                                                                         "' is a part of the file itself\n");
    }
    CHECK(std::filesystem::is_symlink(link));
    CHECK(open_at(path)->head() == 4);
    CHECK(support::problems_of(path) == "");
}

TEST_CASE("export: of a file that grows it is one state") {
    const TemporaryDirectory directory;
    const std::string path = directory.file("grows.db");
    const auto store = open_at(path);
    const std::string payload = "\"" + std::string(2000, 'p') + "\"";
    for (int i = 0; i < 100; ++i) store->append("s", Messages(1, event("a", payload)));
    support::Program program({path, "export"});
    // The pipe holds less than that: the first of it is there, and the program waits.
    REQUIRE(program.wait_for_out("\"position\":1,"));
    for (int i = 0; i < 100; ++i) store->append("s", Messages(1, event("a")));
    const Ran ran = program.end();
    CHECK(ran.status == 0);
    const auto lines = lines_of(ran.out);
    CHECK(contains(lines.back(), "{\"messages\":" + std::to_string(lines.size() - 2) + ","));
    CHECK(inspect({directory.file("to.db"), "import", "--create"}, ran.out).status == 0);
    CHECK(support::problems_of(directory.file("to.db")) == "");
}

TEST_CASE("import: a missing file is made with --create only, and not kept when nothing comes into it") {
    const TemporaryDirectory directory;
    const auto lines = small_export(directory);
    const std::string path = directory.file("new.db");
    const Ran missing = inspect({path, "import"}, joined(lines));
    CHECK(missing.status == 1);
    CHECK(missing.err == "sourced: there is no file '" + path + "': --create makes it\n");
    auto wrong = lines;
    wrong[1] = wrong[2];
    CHECK(inspect({path, "import", "--create"}, joined(wrong)).status == 1);
    CHECK(files_in(directory) == std::set<std::string>{"small.db"});
    CHECK(inspect({path, "import", "--create"}, joined(lines)).status == 0);
    CHECK(open_at(path)->head() == 4);
    const std::string empty = directory.file("empty.db");
    (void)open_at(empty);
    const Ran nothing = inspect({directory.file("also.db"), "import", "--create"}, inspect({empty, "export"}).out);
    CHECK(nothing.status == 0);
    CHECK(files_in(directory) == std::set<std::string>{"also.db", "empty.db", "new.db", "small.db"});
}

TEST_CASE("import: a file that it has made and somebody else uses is not taken away") {
    const TemporaryDirectory directory;
    const auto lines = small_export(directory);
    const std::string path = directory.file("new.db");
    support::Program program({path, "import", "--create"});
    program.tell(lines[0] + "\n");
    while (!std::filesystem::exists(path)) program.check_running();
    std::unique_ptr<Store> store = open_at(path);
    SUBCASE("it has it open") {}
    SUBCASE("it has written to it") {
        store->append("mine", {event("added")});
        store.reset();
    }
    program.tell("no line of an export\n");
    CHECK(program.end().status == 1);
    REQUIRE(std::filesystem::exists(path));
    if (store) store->append("mine", {event("added")});
    CHECK(open_at(path)->head() == 1);
    CHECK(support::problems_of(path) == "");
}

TEST_CASE("import: into a file that has messages it asks first, and passes over what is there") {
    const TemporaryDirectory directory;
    auto lines = small_export(directory);
    const std::string path = directory.file("new.db");
    auto part = lines;
    part.erase(part.begin() + 4, part.end());  // the first three messages
    const Ran cut = inspect({path, "import", "--create"}, joined(part));
    CHECK(cut.status == 1);
    CHECK(cut.err == "sourced: stdin was cut off behind line 4: its last line is missing; everything up to line 4 is "
                     "in the file, and the same import made again goes on behind it\n");
    CHECK(open_at(path)->head() == 3);

    const Ran asked = inspect({path, "import"}, joined(lines));
    CHECK(asked.status == 1);
    CHECK(contains(asked.err, "which has 3 messages already"));
    CHECK(contains(asked.err, "--yes does what is planned"));
    CHECK(open_at(path)->head() == 3);
    const Ran done = inspect({path, "import", "--yes", "--groups"}, joined(lines));
    CHECK(done.status == 0);
    CHECK(done.out.starts_with("imported 1 message, 1 scheduled, 1 group (3 messages passed over: there already) in "));
    CHECK(rows_of(path) == rows_of(directory.file("small.db")));
    const Ran json = inspect({path, "import", "--yes", "-o", "json"}, joined(lines));
    CHECK(json.out == "{\"appended\":0,\"known\":4,\"scheduled\":1,\"recurring\":0,\"groups\":0,\"offsets\":0,"
                      "\"skipped\":0,\"dry_run\":false}\n");
    CHECK(rows_of(path) == rows_of(directory.file("small.db")));
}

TEST_CASE("import: --dry-run tells the same and changes nothing") {
    const TemporaryDirectory directory;
    const auto lines = small_export(directory);
    const std::string path = directory.file("new.db");
    const std::vector<std::string> temporary{"TMPDIR=" + directory.path()};
    CHECK(inspect({path, "import", "--dry-run"}, joined(lines), temporary).status == 1);
    const Ran fresh = inspect({path, "import", "--create", "--dry-run"}, joined(lines), temporary);
    CHECK(fresh.status == 0);
    CHECK(fresh.out.starts_with("would import 4 messages, 1 scheduled in "));
    CHECK(files_in(directory) == std::set<std::string>{"small.db"});

    const std::string small = directory.file("small.db");
    const std::string before = read(small);
    const Ran known = inspect({small, "import", "--dry-run"}, joined(lines), temporary);
    CHECK(known.status == 0);
    CHECK(contains(known.out, "4 messages passed over"));
    auto wrong = lines;
    wrong[2] = support::replaced(wrong[2], R"({"n":1})", R"({"n":9})");
    const Ran refused = inspect({small, "import", "--dry-run"}, joined(wrong), temporary);
    CHECK(refused.status == 1);
    CHECK(contains(refused.err,
                   "line 3: import seq 2 of 'a': /payload: the message is there already with another payload; this was "
                   "a trial, nothing was written"));
    CHECK(read(small) == before);
    CHECK(files_in(directory) == std::set<std::string>{"small.db"});
}

TEST_CASE("import: what is wrong is told with its line and its field, and what came before it is kept") {
    const TemporaryDirectory directory;
    auto lines = small_export(directory);
    const std::string path = directory.file("new.db");
    std::string text;
    std::int64_t kept = 2;
    const auto change = [&](std::size_t line, const std::string& from, const std::string& to) {
        REQUIRE(contains(lines[line - 1], from));
        lines[line - 1] = support::replaced(lines[line - 1], from, to);
    };
    SUBCASE("no JSON") {
        lines[3] = "{\"position\":3,";
        text = "line 4: it is not JSON: ";
    }
    SUBCASE("no UTF-8") {
        change(4, R"("stream":"b")", "\"stream\":\"\xff\"");
        text = "line 4: it is not JSON: Invalid encoding in string.";
    }
    SUBCASE("no object") {
        lines[3] = "[1]";
        text = "line 4: it is JSON, but not an object";
    }
    SUBCASE("an empty line") {
        lines[3] = "";
        text = "line 4: it is not JSON: The document is empty.";
    }
    SUBCASE("an empty object") {
        lines[3] = "{}";
        text = "line 4: it is an object without a member";
    }
    SUBCASE("something else") {
        lines[3] = R"({"thing":{}})";
        text = "line 4: /thing: no line of an export begins like this";
    }
    SUBCASE("a field that is missing") {
        change(4, R"("seq":1,)", "");
        text = "line 4: /seq: it is missing";
    }
    SUBCASE("a payload that is missing") {
        change(4, R"(,"payload":{"n":2})", "");
        text = "line 4: /payload: it is missing";
    }
    SUBCASE("a field that is none") {
        change(4, R"("seq":1,)", R"("seq":1,"sequence":1,)");
        text = "line 4: /sequence: it is no field of this line, or stands twice";
    }
    SUBCASE("a field that stands twice") {
        change(4, R"("seq":1,)", R"("seq":1,"seq":1,)");
        text = "line 4: /seq: it is no field of this line, or stands twice";
    }
    SUBCASE("a number that is none") {
        change(4, R"("seq":1,)", R"("seq":"1",)");
        text = R"(line 4: /seq: expected an integer, got "1")";
    }
    SUBCASE("a number that is too large") {
        change(4, R"("schema":1,)", R"("schema":5000000000,)");
        text = "line 4: /schema: expected a small integer, got 5000000000";
    }
    SUBCASE("a name that is none") {
        change(4, R"("stream":"b")", R"("stream":7)");
        text = "line 4: /stream: expected a string, got 7";
    }
    SUBCASE("bytes that are none") {
        change(4, R"("stream":"b")", R"("stream_base64":"b?")");
        text = R"(line 4: /stream_base64: expected base64, got "b?")";
    }
    SUBCASE("a kind that is none") {
        change(4, R"("kind":"command")", R"("kind":"order")");
        text = R"(line 4: /kind: expected "command" or "event", got "order")";
    }
    SUBCASE("an id that is none") {
        change(4, R"("id":")", R"("id":"x)");
        text = "line 4: /id: expected an id, got \"x";
    }
    SUBCASE("a time that is none") {
        change(4, R"("recorded_at":"2)", R"("recorded_at":"x)");
        text = "line 4: /recorded_at: expected a time like 2026-05-17T14:30:00.5Z, or microseconds since 1970, got \"x";
    }
    SUBCASE("metadata that is no object") {
        change(4, R"("metadata":{})", R"("metadata":[])");
        text = "line 4: /metadata: ";
    }
    SUBCASE("erased, and still there") {
        change(4, R"("payload":{"n":2})", R"("payload":{"n":2},"erased_at":"2026-05-17T14:30:00Z")");
        text = R"(line 4: /payload: expected null, as it was erased, got {"n":2})";
    }
    SUBCASE("a seq that is not the next one") {
        change(5, R"("seq":2)", R"("seq":4)");
        kept = 3;
        text = "line 5: import seq 4 of 'b': /seq: expected 2; everything up to line 4 is in the file";
    }
    SUBCASE("a time before the one before it") {
        lines[3].replace(lines[3].find(R"("recorded_at":")") + 15, 4, "1999");
        text = "line 4: import seq 1 of 'b': /recorded_at: the log ends with a message that was recorded ";
    }
    SUBCASE("messages behind the schedule") {
        std::swap(lines[4], lines[5]);
        kept = 3;
        text = "line 6: a message behind what is no message";
    }
    SUBCASE("more behind the end") {
        lines.push_back(lines[4]);
        kept = 4;
        text = "line 9: there is more behind the line that says it is the last";
    }
    SUBCASE("a second beginning") {
        lines[3] = lines[0];
        text = "line 4: it begins a second export";
    }
    SUBCASE("fewer lines than were written") {
        lines.erase(lines.begin() + 4);
        kept = 3;
        text = "does not hold as much as its last line says: 3 messages, 1 scheduled, 1 group, not 4 messages, "
               "1 scheduled, 1 group; everything up to line";
    }
    const Ran ran = inspect({path, "import", "--create", "-"}, joined(lines));
    CAPTURE(text);
    CAPTURE(ran.err);
    CHECK(ran.status == 1);
    CHECK(ran.out == "");
    CHECK(contains(ran.err, text));
    CHECK(contains(ran.err, "is in the file, and the same import made again goes on behind it\n"));
    CHECK(lines_of(ran.err).size() == 1);
    CHECK(open_at(path)->head() == kept);
    CHECK(support::problems_of(path) == "");
}

TEST_CASE("import: what is no export is refused before a file is made") {
    const TemporaryDirectory directory;
    const auto lines = small_export(directory);
    const std::string path = directory.file("new.db");
    const auto refused = [&](const std::string& text) {
        const Ran ran = inspect({path, "import", "--create"}, text);
        CHECK(ran.status == 1);
        CHECK(files_in(directory) == std::set<std::string>{"small.db"});
        return ran.err;
    };
    CHECK(refused("") == "sourced: stdin has no line in it\n");
    CHECK(refused("hello\n") == "sourced: stdin is no export of this program. Its first line: it is not JSON: Invalid "
                                "value. (byte 1)\n");
    CHECK(refused(lines[1] + "\n") ==
          "sourced: stdin is no export of this program. Its first line: it is a line of an export, but not the "
          "first\n");
    CHECK(contains(refused(support::replaced(lines[0], "\"version\":1", "\"version\":2") + "\n"),
                   "/export/version: it is 2, this program knows 1: use a newer version of the program"));
    const Ran missing = inspect({path, "import", "--create", directory.file("none")});
    CHECK(missing.status == 1);
    CHECK(contains(missing.err, "none' cannot be read: No such file or directory"));
    const Ran folder = inspect({path, "import", "--create", directory.path()});
    CHECK(folder.status == 1);
    CHECK(contains(folder.err, "is a directory"));
    const Ran none = inspect({path, "import", "--create", "--groups"},
                             support::replaced(lines[0], "\"groups\":true", "\"groups\":false") + "\n");
    CHECK(none.status == 1);
    CHECK(contains(none.err, "stdin has no groups in it: export --groups puts them there"));
    CHECK(files_in(directory) == std::set<std::string>{"small.db"});
}

TEST_CASE("import: groups come whole or not at all") {
    const TemporaryDirectory directory;
    auto lines = small_export(directory);
    const std::string path = directory.file("new.db");
    std::string text;
    SUBCASE("cut off among them") {
        lines.pop_back();
        text = "was cut off behind line 7";
    }
    SUBCASE("wrong among them") {
        lines[6] = support::replaced(lines[6], "\"scanned\":0", "\"scanned\":9");
        text = "scanned is 9, and the log ends at 4";
    }
    const Ran ran = inspect({path, "import", "--create", "--groups"}, joined(lines));
    CHECK(ran.status == 1);
    CHECK(contains(ran.err, text));
    CHECK(contains(ran.err, "everything up to line 6 is in the file"));
    CHECK(open_at(path)->head() == 4);
    CHECK(open_at(path)->scheduled().size() == 1);
    CHECK(open_at(path)->stats().groups.empty());
}

TEST_CASE("import: Ctrl-C ends it between lines, and it goes on from there") {
    const TemporaryDirectory directory;
    const auto lines = small_export(directory);
    const std::string path = directory.file("new.db");
    support::Program program({path, "import", "--create"});
    program.tell(joined({lines[0], lines[1], lines[2]}));
    // It reads from a pipe that nobody closes; the file is there once it has begun.
    while (!std::filesystem::exists(path)) program.check_running();
    program.signal(SIGINT);
    program.tell(lines[3] + "\n");
    const Ran ran = program.end();
    CHECK(ran.status == 130);
    CHECK(contains(ran.err, "interrupted: "));
    CHECK(inspect({path, "import", "--create", "--yes"}, joined(lines)).status == 0);
    CHECK(rows_of(path, false) == rows_of(directory.file("small.db"), false));
}
