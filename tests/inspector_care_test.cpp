// The inspector: keeping a file well.
#include <SQLiteCpp/SQLiteCpp.h>
#include <doctest/doctest.h>
#include <sys/stat.h>

#include <fstream>
#include <set>

#include "inspector.hpp"
#include "sourced.hpp"

using namespace sourced;
using support::contains;
using support::files_in;
using support::inspect;
using support::Ran;
using support::TemporaryDirectory;

namespace {

std::unique_ptr<Store> open_at(const std::string& path) {
    StoreOptions options;
    options.path = path;
    return open_store(options);
}
Message event(std::string payload = "{}") { return support::message(Kind::event, "added", std::move(payload)); }

void fill(const std::string& path, int count = 10) {
    const auto store = open_at(path);
    for (int i = 0; i < count; ++i) store->append("a\n\x1b[31mb", {event()});
}
/// A stranger's connection, which breaks promises.
SQLite::Database stranger(const std::string& path) {
    SQLite::Database database(path, SQLite::OPEN_READWRITE);
    database.exec("PRAGMA wal_autocheckpoint=0");
    return database;
}

}  // namespace

TEST_CASE("verify: says that all is well, or what is broken, and exits with 3 then") {
    const TemporaryDirectory directory;
    const std::string path = directory.file("shop.db");
    fill(path);

    SUBCASE("all is well") {
        const Ran ran = inspect({path, "verify"});
        CHECK(ran.status == 0);
        CHECK(ran.out.starts_with("every promise is kept: 10 messages in "));
        CHECK(ran.err == "");
        CHECK(inspect({path, "verify", "-o", "json"}).out == "[]\n");
        CHECK(inspect({path, "verify", "-o", "jsonl"}).out == "");
        CHECK(inspect({path, "verify", "--no-integrity"}).status == 0);
        CHECK(files_in(directory) == std::set<std::string>{"shop.db"});
    }
    SUBCASE("promises are broken") {
        stranger(path).exec("UPDATE sourced_streams SET seq = 12");
        const Ran ran = inspect({path, "verify"});
        CHECK(ran.status == 3);
        CHECK(contains(ran.out, "promise"));
        CHECK(contains(ran.out, "I2"));
        CHECK(contains(ran.out, "a\\n\\x1b[31mb"));
        CHECK_FALSE(contains(ran.out, "\x1b"));
        CHECK(ran.err.starts_with("sourced: '" + path + "' does not hold what it promises: 1 found, 10 messages in "));
        const Ran json = inspect({path, "verify", "-o", "jsonl"});
        CHECK(json.status == 3);
        CHECK(contains(json.out, R"("invariant":"I2")"));
        CHECK(contains(json.out, R"("stream":"a\n\u001B[31mb","position":10})"));
    }
    SUBCASE("more than are asked for") {
        stranger(path).exec(
            "DROP TRIGGER sourced_messages_no_update; UPDATE sourced_messages SET checksum = 0");
        const Ran all = inspect({path, "verify", "--json"});
        CHECK(all.status == 3);
        const Ran few = inspect({path, "verify", "--limit", "3"});
        CHECK(few.status == 3);
        CHECK(contains(few.err, "3 or more (--limit shows more) found"));
        CHECK(inspect({path, "verify", "--limit", "0"}).status == 2);
    }
    SUBCASE("a page is damaged") {
        open_at(path)->append("large", {event("\"" + std::string(100'000, 'p') + "\"")});
        std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
        file.seekp(static_cast<std::streamoff>(std::filesystem::file_size(path) - 50'000));
        file << std::string(100, 'x');
        file.close();
        const Ran ran = inspect({path, "verify"});
        CHECK(ran.status == 3);
        CHECK(contains(ran.out, "I11"));
    }
}

TEST_CASE("verify: what cannot be checked is an error") {
    const TemporaryDirectory directory;
    const Ran missing = inspect({directory.file("none.db"), "verify"});
    CHECK(missing.status == 1);
    CHECK(contains(missing.err, "there is no file '" + directory.file("none.db") + "'"));
    SQLite::Database other(directory.file("other.db"), SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE);
    other.exec("CREATE TABLE t(n)");
    const Ran foreign = inspect({directory.file("other.db"), "verify"});
    CHECK(foreign.status == 1);
    CHECK(contains(foreign.err, "it holds nothing of the engine"));
    CHECK(inspect({"verify"}).status == 2);
}

TEST_CASE("backup: an online copy that opens and is well") {
    const TemporaryDirectory directory;
    const std::string path = directory.file("shop.db");
    const std::string copy = directory.file("copy.db");
    fill(path);
    {
        const auto store = open_at(path);
        const Ran ran = inspect({path, "backup", copy});
        CHECK(ran.status == 0);
        CHECK(ran.out.starts_with("copied to '" + copy + "': "));
        store->append("later", {event()});
        const Ran again = inspect({path, "backup", copy});
        CHECK(again.status == 1);
        CHECK(again.err == "sourced: '" + copy + "' is there already: name another file, or replace it with --force\n");
        CHECK(support::problems_of(copy) == "");
        CHECK(open_at(copy)->head() == 10);
        CHECK(inspect({path, "backup", "--force", copy, "--json"}).out ==
              "{\"path\":\"" + copy + "\",\"bytes\":" + std::to_string(std::filesystem::file_size(copy)) + "}\n");
        CHECK(open_at(copy)->head() == 11);
    }
    struct stat info {};
    REQUIRE(::stat(copy.c_str(), &info) == 0);
    CHECK((info.st_mode & 0777) == 0600);
    const Ran itself = inspect({path, "backup", "--force", path});
    CHECK(itself.status == 1);
    CHECK(contains(itself.err, "is the file itself"));
    for (const char* end : {"-wal", "-shm"}) {
        const Ran part = inspect({path, "backup", "--force", path + end});
        CHECK(part.status == 1);
        CHECK(contains(part.err, end + std::string("' is a part of the file itself")));
    }
    CHECK(support::problems_of(path) == "");
    const Ran folder = inspect({path, "backup", directory.path()});
    CHECK(folder.status == 1);
    CHECK(contains(folder.err, "is a directory"));
    CHECK(inspect({path, "backup", directory.file("no/copy.db")}).status == 1);
    CHECK(inspect({path, "backup"}).status == 2);
    {
        const auto user = open_at(copy);
        user->append("mine", {event()});
        const Ran used = inspect({path, "backup", "--force", copy});
        CHECK(used.status == 1);
        CHECK(contains(used.err, "is in use"));
    }
    CHECK(files_in(directory) == std::set<std::string>{"copy.db", "shop.db"});
    CHECK(inspect({directory.file("none.db"), "backup", directory.file("other.db")}).status == 1);
    CHECK(files_in(directory) == std::set<std::string>{"copy.db", "shop.db"});
}

TEST_CASE("verify, backup, export: Ctrl-C ends them with 130, and nothing stays behind") {
    const TemporaryDirectory directory;
    const std::string path = directory.file("shop.db");
    const std::string to = directory.file("to");
    fill(path);
    std::vector<std::string> command;
    std::string said;
    SUBCASE("verify") {
        command = {"verify"};
        said = "no message was checked yet";
    }
    SUBCASE("verify without integrity_check") {
        command = {"verify", "--no-integrity"};
        said = "of 10 messages were checked";
    }
    SUBCASE("backup") {
        command = {"backup", to};
        said = "there is no copy";
    }
    SUBCASE("export to a file") {
        command = {"export", "--to", to};
        said = "10 messages were written, and nothing of them is kept";
    }
    SUBCASE("export to stdout") {
        command = {"export"};
        said = "10 messages were written; the last line is missing, so that import notices";
    }
    command.insert(command.begin(), {path, "--wait", "60"});
    std::optional<SQLite::Database> only(stranger(path));
    only->exec("PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE; COMMIT");
    support::Program program(command);
    // It waits for the file, which is ours alone, and takes the signal once it has said that it takes it.
    while (!program.catches(SIGINT)) std::this_thread::yield();
    program.signal(SIGINT);
    only.reset();
    const Ran ran = program.end();
    CHECK(ran.status == 130);
    CHECK(contains(ran.err, "interrupted: "));
    CHECK(contains(ran.err, said));
    CHECK(files_in(directory) == std::set<std::string>{"shop.db"});
    CHECK(support::problems_of(path) == "");
}

TEST_CASE("checkpoint: says what it did, or who held it up") {
    const TemporaryDirectory directory;
    const std::string path = directory.file("shop.db");
    fill(path);
    const auto store = open_at(path);
    for (int i = 0; i < 100; ++i) store->append("s", {event()});

    SUBCASE("done") {
        const Ran ran = inspect({path, "checkpoint"});
        CHECK(ran.status == 0);
        CHECK(contains(ran.out, "pages are in the file\n"));
        CHECK(contains(ran.out, "the log begins anew"));
        const Ran json = inspect({path, "checkpoint", "--json"});
        CHECK(contains(json.out, R"("restarted":true,"held_up_by":"no"})"));
    }
    SUBCASE("held up by a reader") {
        auto reader = stranger(path);
        reader.exec("BEGIN");
        CHECK(reader.execAndGet("SELECT count(*) FROM sourced_messages").getInt() == 110);
        store->append("s", {event()});
        const Ran ran = inspect({path, "checkpoint"});
        CHECK(ran.status == 5);
        CHECK(contains(ran.out, "held up: somebody reads an older state of the file"));
        CHECK(contains(inspect({path, "checkpoint", "--json"}).out, R"("restarted":false,"held_up_by":"reader"})"));
    }
    SUBCASE("held up by a writer") {
        auto writer = stranger(path);
        writer.exec("BEGIN IMMEDIATE");
        const Ran ran = inspect({path, "checkpoint", "--wait", "0.01"});
        CHECK(ran.status == 5);
        CHECK(contains(ran.out, "held up: another process writes"));
    }
    CHECK(inspect({directory.file("none.db"), "checkpoint"}).status == 1);
    CHECK(store->append("s", {event()}).first_seq >= 101);
    CHECK(support::problems_of(path) == "");
}
