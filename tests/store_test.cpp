// The SQLite store: the contract, against a file and in memory, and what only the file has.
#include <SQLiteCpp/SQLiteCpp.h>
#include <doctest/doctest.h>
#include <signal.h>
#include <sourced.hpp>
#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <mutex>

#include "support.hpp"

namespace {

using Directory = support::TemporaryDirectory;

struct FileStore {
    Directory directory{};

    std::unique_ptr<sourced::Store> open(sourced::StoreOptions options = {}) const {
        options.path = directory.file();
        return sourced::open_store(options);
    }
};
struct MemoryStore {
    std::unique_ptr<sourced::Store> open(const sourced::StoreOptions& options = {}) const {
        return sourced::open_store(options);
    }
};

}  // namespace

TYPE_TO_STRING(FileStore);
TYPE_TO_STRING(MemoryStore);
#define STORE_KINDS FileStore, MemoryStore
#include "store_contract.hpp"

namespace {

using namespace sourced;
using namespace store_test;

std::unique_ptr<Store> open_at(const std::string& path, StoreOptions options = {}) {
    options.path = path;
    return open_store(options);
}
std::string open_error(const std::string& path) {
    return error_of([&] { (void)open_at(path); });
}
std::string bytes_of(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}
std::uintmax_t size_of(const std::string& path) {
    std::error_code missing;
    const auto size = std::filesystem::file_size(path, missing);
    return missing ? 0 : size;
}
/// A stranger's connection, with SQLite's own habits.
SQLite::Database stranger(const std::string& path) {
    SQLite::Database database(path, SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE);
    database.setBusyTimeout(2000);
    database.exec("PRAGMA wal_autocheckpoint=0");
    return database;
}
/// What verify() finds, as one text.
std::string damage(const std::string& path, const std::vector<Id>& acknowledged = {}) {
    VerifyOptions options;
    options.acknowledged = acknowledged;
    std::string text;
    for (const auto& each : verify(path, options)) text += each.invariant + ": " + each.text + "\n";
    return text;
}

/// Runs `body` in a process of its own; gives what it returned, or how it ended.
class Child {
public:
    explicit Child(const std::function<std::string()>& body) {
        int ends[2];
        if (::pipe(ends) != 0) throw std::runtime_error("pipe failed");
        std::cout.flush();
        process_ = ::fork();
        if (process_ == 0) {
            last_number() += static_cast<std::uint64_t>(::getpid()) << 30;  // ids of its own
            std::string text;
            try {
                text = body();
            } catch (const std::exception& error) {
                text = std::string("threw: ") + error.what();
            }
            if (::write(ends[1], text.data(), text.size()) < 0) ::_exit(2);
            ::_exit(0);
        }
        ::close(ends[1]);
        read_ = ends[0];
    }
    Child(const Child&) = delete;
    Child& operator=(const Child&) = delete;
    Child(Child&& other) noexcept : process_(std::exchange(other.process_, 0)), read_(std::exchange(other.read_, -1)) {}
    ~Child() {
        if (process_ > 0) (void)result();
    }
    std::string result() {
        std::string text;
        char buffer[4096];
        for (ssize_t size = 0; (size = ::read(read_, buffer, sizeof buffer)) > 0;) {
            text.append(buffer, static_cast<std::size_t>(size));
        }
        ::close(read_);
        int status = 0;
        ::waitpid(std::exchange(process_, 0), &status, 0);
        if (WIFSIGNALED(status)) return "killed by signal " + std::to_string(WTERMSIG(status));
        return text;
    }

private:
    ::pid_t process_ = 0;
    int read_ = -1;
};

}  // namespace

// ---- Opening ----------------------------------------------------------------------------

TEST_CASE("SQLite file: a new one is for its owner alone and leaves user_version to the application") {
    const Directory directory;
    const auto mask = ::umask(0);
    const auto store = open_at(directory.file());
    store->append("s", {message("a")});
    ::umask(mask);
    for (const char* suffix : {"", "-wal", "-shm"}) {
        CAPTURE(suffix);
        struct stat info {};
        REQUIRE(::stat((directory.file() + suffix).c_str(), &info) == 0);
        CHECK((info.st_mode & 0777) == 0600);
    }
    auto other = stranger(directory.file());
    CHECK(other.execAndGet("PRAGMA user_version").getInt() == 0);
    CHECK(other.execAndGet("PRAGMA application_id").getInt() == 0x53524344);
    CHECK(other.execAndGet("PRAGMA journal_mode").getString() == "wal");
    CHECK(other.execAndGet("SELECT count(*) FROM sourced_log WHERE stream = 's'").getInt() == 1);
    CHECK(other.execAndGet("SELECT count(*) FROM sqlite_master WHERE name NOT LIKE 'sourced!_%' ESCAPE '!' "
                           "AND name NOT LIKE 'sqlite!_%' ESCAPE '!'")
              .getInt() == 0);
}

TEST_CASE("SQLite file: everything is there after closing, and after the death of the process") {
    const Directory directory;
    const Message first = command("C", "{\"n\":1}");
    {
        const auto store = open_at(directory.file());
        store->append("s", {first});
        store->schedule({due(at(5), "s", message("later"))});
        store->register_group({"g", {"C"}, {}});
    }
    CHECK(size_of(directory.file("store.db-wal")) == 0);  // closed properly
    Child child([&] {
        const auto store = open_at(directory.file());
        store->append("s", {message("E", "{\"n\":2}")});
        ::kill(::getpid(), SIGKILL);
        return std::string();
    });
    CHECK(child.result() == "killed by signal 9");
    const auto store = open_at(directory.file());
    CHECK(types(store->stream("s")) == std::vector<std::string>{"C", "E"});
    CHECK(store->append("s", {first}).repeated);
    CHECK(store->promote(at(5)) == 1);
    CHECK(store->append("s", {message("E")}, expect_seq(3)).last_position == 4);
    CHECK(claim(*store, store->register_group({"g", {"C"}, {}}).id).size() == 1);
    CHECK(damage(directory.file()) == "");
}

TEST_CASE("SQLite file: what cannot be opened says what was tried, on what, and what was found") {
    const Directory directory;
    const std::string path = directory.file();
    const std::string tried = "open '" + path + "': ";
    SUBCASE("no database") {
        std::ofstream(path) << std::string(5000, 'x');
        CHECK(contains(open_error(path), tried + "the file is not a SQLite database"));
        CHECK(bytes_of(path) == std::string(5000, 'x'));
    }
    SUBCASE("a directory") {
        std::filesystem::create_directory(path);
        CHECK(open_error(path) == tried + "it is a directory");
    }
    SUBCASE("a missing directory") {
        const std::string far = directory.file("missing/store.db");
        CHECK(open_error(far) ==
              "open '" + far + "': the directory '" + directory.file("missing") +
                  "' cannot be used: No such file or directory");
    }
    SUBCASE("a newer schema") {
        (void)open_at(path);
        stranger(path).exec("UPDATE sourced_meta SET value = 99 WHERE key = 'schema_version'");
        CHECK(open_error(path) ==
              tried + "it has schema version 99, this program knows 2: use a newer version of the program");
    }
    SUBCASE("another application's file, which is not touched") {
        {
            SQLite::Database other(path, SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE);
            other.exec("PRAGMA application_id=77; CREATE TABLE theirs(x)");
        }
        const std::string before = bytes_of(path);
        CHECK(open_error(path) == tried + "it belongs to another application (application_id 77)");
        CHECK(bytes_of(path) == before);
    }
    SUBCASE("text that is not UTF-8") {
        {
            SQLite::Database other(path, SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE);
            other.exec("PRAGMA encoding='UTF-16le'; CREATE TABLE mine(x)");
        }
        CHECK(open_error(path) == tried + "its text is not stored as UTF-8");
    }
    SUBCASE("a lock that is held too long") {
        auto other = stranger(path);
        other.exec("CREATE TABLE mine(x); BEGIN IMMEDIATE");
        StoreOptions options;
        options.busy_timeout = std::chrono::milliseconds(20);
        const std::string text = error_of([&] { (void)open_at(path, options); });
        CHECK(contains(text, tried + "another process holds the write lock"));
        other.exec("COMMIT");
        CHECK(open_at(path, options)->head() == 0);
        other.exec("BEGIN IMMEDIATE");
        CHECK(open_at(path, options)->head() == 0);  // once the tables are there, no lock is needed
    }
    CHECK_THROWS_AS((void)open_at(directory.file("missing/store.db")), StoreError);
}

TEST_CASE("SQLite file: one that has the application's tables already is taken as it is") {
    const Directory directory;
    {
        SQLite::Database mine(directory.file(), SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE);
        mine.exec("PRAGMA user_version=12; CREATE TABLE mine(x); INSERT INTO mine VALUES(1)");
    }
    const auto store = open_at(directory.file());
    store->append("s", {message("a")});
    store->read([](Reader& reader) { CHECK(reader.row("SELECT x FROM mine")->integer(0) == 1); });
    CHECK(stranger(directory.file()).execAndGet("PRAGMA user_version").getInt() == 12);
}

TEST_CASE("SQLite file: a directory or file without the right to write is a clear error, and works again after") {
    const Directory directory;
    const std::string path = directory.file();
    {
        const auto store = open_at(path);
        store->append("s", {message("a")});
    }
    ::chmod(directory.path().c_str(), 0555);
    // The superuser may write everywhere, so the store is opened as somebody else.
    const auto tried_by_nobody = [&](const std::string& file) {
        return Child([&] {
                   if (::getuid() == 0 && ::setuid(65534) != 0) return std::string("setuid failed");
                   return open_error(file);
               })
            .result();
    };
    CHECK(contains(tried_by_nobody(directory.file("new.db")), "new.db': it cannot be created: Permission denied"));
    ::chmod(path.c_str(), 0444);
    const std::string refused = "open '" + path + "': the file or its directory cannot be written";
    CHECK(contains(tried_by_nobody(path), refused));
    ::chmod(path.c_str(), 0666);
    CHECK(contains(tried_by_nobody(path), refused));
    ::chmod(directory.path().c_str(), 0777);
    CHECK(tried_by_nobody(path) == "");
    CHECK(open_at(path)->head() == 1);
}

TEST_CASE("SQLite file: 8 processes open a fresh one at once") {
    for (int round = 0; round < 5; ++round) {
        const Directory directory;
        int gate[2];
        REQUIRE(::pipe(gate) == 0);
        std::vector<Child> children;
        for (int i = 0; i < 8; ++i) {
            children.emplace_back([&] {
                char ignored = 0;
                ::close(gate[1]);
                if (::read(gate[0], &ignored, 1) != 0) return std::string("no gate");
                const auto store = open_at(directory.file());
                store->append("s", {message("a")});
                return std::string();
            });
        }
        ::close(gate[0]);
        ::close(gate[1]);
        for (auto& child : children) CHECK(child.result() == "");
        CHECK(damage(directory.file()) == "");
        CHECK(open_at(directory.file())->stream_seq("s") == 8);
    }
}

// ---- Strangers ----------------------------------------------------------------------------

TEST_CASE("SQLite file: the log is append-only for everybody who opens it") {
    const Directory directory;
    const auto store = open_at(directory.file());
    store->append("s", {message("a", "{\"n\":1}"), message("b")});
    auto other = stranger(directory.file());
    for (const char* sql : {
             "DELETE FROM sourced_messages",
             "DELETE FROM sourced_messages WHERE position = 2",
             "UPDATE sourced_messages SET payload = '{}' WHERE position = 1",
             "UPDATE sourced_messages SET payload = NULL",
             "UPDATE sourced_messages SET seq = seq + 10",
             "UPDATE sourced_messages SET erased_at = 1",
             "UPDATE sourced_messages SET erased_at = 1, payload = NULL, type = 2 WHERE position = 1",
             "INSERT OR REPLACE INTO sourced_messages SELECT * FROM sourced_messages WHERE position = 1",
             "REPLACE INTO sourced_messages SELECT * FROM sourced_messages",
             "INSERT INTO sourced_messages(position, stream, seq, type, schema, id, recorded_at, checksum) "
             "VALUES(1, 1, 9, 1, 1, randomblob(16), 1, 1)",
         }) {
        CAPTURE(sql);
        CHECK(contains(error_of([&] { other.exec(sql); }), "append-only"));
    }
    CHECK(store->stream("s")[0].payload == "{\"n\":1}");
    CHECK(damage(directory.file()) == "");
    CHECK(store->append("s", {message("c")}).last_position == 3);
    // The one road left.
    CHECK(other.exec("UPDATE sourced_messages SET payload = NULL, erased_at = 5000000 WHERE position = 1") == 1);
    CHECK(store->stream("s")[0].erased_at == at(5));
    CHECK(store->stream("s")[0].payload == "");
}

TEST_CASE("SQLite file: what others have written is seen, and nothing that was remembered stands in the way") {
    const Directory directory;
    const auto one = open_at(directory.file());
    const auto two = open_at(directory.file());
    one->append("s", {message("a")}, expect_seq(0));
    two->append("s", {message("b")}, expect_seq(1));
    two->append("new", {message("c")}, expect_seq(0));
    CHECK(one->append("s", {message("c")}, expect_seq(2)).last_position == 4);
    CHECK_THROWS_AS(two->append("s", {message("c")}, expect_seq(2)), Conflict);
    CHECK(one->append("new", {message("b")}, expect_seq(1)).last_seq == 2);
    for (const auto* store : {&one, &two}) {
        CHECK(types((*store)->log()) == std::vector<std::string>{"a", "b", "c", "c", "b"});
        CHECK(positions((*store)->log()) == counting(1, 5));
    }
    stranger(directory.file()).exec("CREATE TABLE noted(x); CREATE TABLE mine(x);"
                                    "CREATE TRIGGER noting AFTER INSERT ON mine "
                                    "BEGIN INSERT INTO noted VALUES(1); END");
    one->transaction([](Transaction& transaction) { transaction.execute("INSERT INTO mine VALUES(1)"); });
    CHECK(stranger(directory.file()).execAndGet("SELECT count(*) FROM noted").getInt() == 1);
    CHECK(damage(directory.file()) == "");
}

TEST_CASE("SQLite file: L2: two stores promote every message exactly once") {
    const Directory directory;
    const auto one = open_at(directory.file());
    const auto two = open_at(directory.file());
    std::vector<Scheduled> entries;
    for (int i = 0; i < 400; ++i) entries.push_back(due(at(i % 11), "s" + std::to_string(i % 3), message("m")));
    one->schedule(entries);
    std::atomic<std::size_t> moved{0};
    in_parallel(2, [&](int thread) {
        while (const auto count = (thread == 0 ? one : two)->promote(at(50), 7)) moved += count;
    });
    CHECK(moved == 400);
    CHECK(positions(one->log()) == counting(1, 400));
    CHECK(damage(directory.file()) == "");
}

TEST_CASE("SQLite file: 8 processes write at once and no error escapes") {
    const Directory directory;
    (void)open_at(directory.file());
    constexpr int each = 40;
    std::vector<Child> children;
    for (int i = 0; i < 8; ++i) {
        children.emplace_back([&, i] {
            StoreOptions options;
            options.busy_timeout = std::chrono::minutes(1);  // nobody is served in turn, and the machine may be busy
            const auto store = open_at(directory.file(), options);
            const std::string own = "own-" + std::to_string(i);
            for (int n = 0; n < each; ++n) {
                store->append(own, {message("a")}, expect_seq(n));
                while (true) {
                    try {
                        store->append("shared", {message("b")}, expect_seq(store->stream_seq("shared")));
                        break;
                    } catch (const Conflict&) {  // another process was quicker
                    }
                }
                store->append_all({{"any", several("c", 2), any_seq}, {own + "-too", several("d", 1), any_seq}});
            }
            return std::string();
        });
    }
    for (auto& child : children) CHECK(child.result() == "");
    const auto store = open_at(directory.file());
    CHECK(positions(store->log()) == counting(1, 8 * each * 5));
    CHECK(seqs(store->stream("shared")) == counting(1, 8 * each));
    CHECK(store->stream_seq("any") == 8 * each * 2);
    CHECK(damage(directory.file()) == "");
}

TEST_CASE("SQLite file: a process that forked refuses its parent's handle, and does no harm by closing it") {
    const Directory directory;
    auto store = open_at(directory.file());
    store->append("s", {message("a")});
    Child child([&] {
        std::string texts;
        texts += error_of([&] { store->append("s", {message("a")}); }) + "|";
        texts += error_of([&] { (void)store->head(); }) + "|";
        texts += error_of([&] { (void)store->beat(std::chrono::seconds(1)); });
        store.reset();
        return texts;
    });
    const std::string texts = child.result();
    CHECK(contains(texts, "was opened by process " + std::to_string(::getpid()) +
                              " and cannot be used after a fork: open it anew|the store of '"));
    CHECK(std::count(texts.begin(), texts.end(), '|') == 2);
    CHECK(store->append("s", {message("a")}).last_seq == 2);
    CHECK(size_of(directory.file("store.db-wal")) > 0);
    CHECK(damage(directory.file()) == "");
}

// ---- User code with SQLiteCpp ------------------------------------------------------------------

TEST_CASE("SQLite file: a statement that user code leaves on a row does no harm") {
    const Directory directory;
    const auto store = open_at(directory.file());
    std::optional<SQLite::Statement> left;
    std::optional<SQLite::Statement> returning;
    store->transaction([&](Transaction& transaction) {
        transaction.execute("CREATE TABLE mine(x)");
        transaction.execute("INSERT INTO mine VALUES(1), (2), (3)");
        left.emplace(database(transaction), "SELECT x FROM mine");
        CHECK(left->executeStep());
        returning.emplace(database(transaction), "INSERT INTO mine VALUES(4), (5) RETURNING x");
        CHECK(returning->executeStep());
    });
    CHECK(store->append("s", {message("a")}).last_seq == 1);
    store->append("t", {message("a")});
    const auto group = store->register_group({"g", {"a"}, {}}).id;
    const auto claims = claim(*store, group, 2);
    REQUIRE(claims.size() == 2);
    Exchange step;
    for (const auto& each : claims) {
        step.finished.push_back(handled(each, each.known));
        step.finished.back().sync = [&](Transaction& transaction) {
            left.emplace(database(transaction), "SELECT x FROM mine");
            CHECK(left->executeStep());
        };
    }
    const auto outcomes = store->exchange(step).outcomes;
    CHECK(outcomes.at(0).result == Went::done);
    CHECK(outcomes.at(1).result == Went::done);
    store->read([](Reader& reader) { CHECK(reader.row("SELECT count(*) FROM mine")->integer(0) == 5); });
    left.reset();
    returning.reset();
    CHECK(open_at(directory.file())->append("s", {message("a")}).last_seq == 2);
}

TEST_CASE("SQLite file: user code cannot end the transaction through the connection either") {
    const Directory directory;
    const auto store = open_at(directory.file());
    store->transaction([](Transaction& transaction) { transaction.execute("CREATE TABLE mine(x UNIQUE)"); });
    for (const char* sql : {"COMMIT", "ROLLBACK", "BEGIN", "SAVEPOINT a", "PRAGMA synchronous=OFF",
                            "DELETE FROM sourced_messages", "ATTACH ':memory:' AS other"}) {
        CAPTURE(sql);
        store->transaction([&](Transaction& transaction) {
            CHECK_THROWS_AS(database(transaction).exec(sql), SQLite::Exception);
        });
        CHECK_THROWS_AS(store->transaction([&](Transaction& transaction) { database(transaction).exec(sql); }),
                        SQLite::Exception);
    }
    // When it was ended all the same, nothing after that is committed by itself.
    CHECK(contains(error_of([&] {
                       store->transaction([](Transaction& transaction) {
                           auto& raw = database(transaction);
                           raw.exec("INSERT INTO mine VALUES(1)");
                           (void)error_of([&] { raw.exec("INSERT OR ROLLBACK INTO mine VALUES(1)"); });
                           (void)error_of([&] { raw.exec("INSERT INTO mine VALUES(2)"); });
                           (void)error_of([&] { transaction.append("s", {message("a")}); });
                       });
                   }),
                   "user code ended the transaction"));
    store->read([](Reader& reader) { CHECK(reader.query("SELECT * FROM mine").empty()); });
    CHECK(store->head() == 0);
    CHECK(store->append("s", {message("a")}).last_seq == 1);
}

// ---- Other processes' workers --------------------------------------------------------------------

TEST_CASE("SQLite file: claims live as long as their process's beat moves") {
    using namespace std::chrono_literals;
    const Directory directory;
    auto first = open_at(directory.file());
    const auto second = open_at(directory.file());
    first->append_all({{"s1", several("E", 2), any_seq}, {"s2", several("E", 1), any_seq}});
    const auto group = first->register_group({"g", {"E"}, {}}).id;
    CHECK(second->register_group({"g", {"E"}, {}}).id == group);
    const auto mine = claim(*first, group);
    REQUIRE(mine.size() == 1);
    CHECK(mine[0].stream_name == "s1");
    const auto theirs = claim(*second, group, 5);
    REQUIRE(theirs.size() == 1);
    CHECK(theirs[0].stream_name == "s2");

    SUBCASE("while it beats nothing is taken, however short the claim time is seen between two beats") {
        for (int i = 0; i < 3; ++i) {
            CHECK(first->beat(1h) == 0);
            CHECK(second->beat(1us) == 0);
        }
        CHECK(claim(*second, group, 5).empty());
        CHECK(finish(*first, handled(mine[0], 1)).result == Went::done);
    }
    SUBCASE("seen unchanged for the claim time: taken back, with the death counted, and the late one is fenced off") {
        CHECK(second->beat(1h) == 0);
        CHECK(second->beat(1h) == 0);  // unchanged, though not for long
        CHECK(second->beat(0us) == 1);
        const auto taken = claim(*second, group, 5);
        REQUIRE(taken.size() == 1);
        CHECK(taken[0].stream_name == "s1");
        CHECK(taken[0].deaths == 1);
        CHECK(taken[0].acked == 0);
        CHECK(taken[0].fence > mine[0].fence);
        Handled late = handled(mine[0], 2);
        late.appends.push_back({"out", several("F", 1), any_seq});
        CHECK(finish(*first, late).result == Went::lost);
        CHECK(first->head() == 3);
        CHECK(finish(*second, handled(taken[0], 1)).result == Went::done);
        const auto again = claim(*second, group, 5);
        REQUIRE(again.size() == 1);
        CHECK(again[0].deaths == 0);  // it got through
        CHECK(finish(*first, late).result == Went::lost);
        // The one that was taken for dead is a new worker from now on.
        CHECK(first->beat(1h) == 0);
        first->append("s9", {message("E")});
        CHECK(claim(*first, group, 5).size() == 1);
        CHECK(second->beat(1h) == 0);
    }
    SUBCASE("a graceful end gives the claims back at once, and no death is counted") {
        first.reset();
        const auto taken = claim(*second, group, 5);
        REQUIRE(taken.size() == 1);
        CHECK(taken[0].deaths == 0);
        CHECK(taken[0].fence > mine[0].fence);
    }
    SUBCASE("a worker of an earlier boot of this machine is dead, whatever its beat") {
        stranger(directory.file()).exec("UPDATE sourced_workers SET boot_id = 'earlier' WHERE id = 1");
        CHECK(second->beat(1h) == 1);
        CHECK(claim(*second, group, 5).size() == 1);
    }
    SUBCASE("who lives is told of this machine only") {
        CHECK(second->workers().at(0).alive == true);
        CHECK(second->workers().at(1).alive == true);
        stranger(directory.file()).exec("UPDATE sourced_workers SET boot_id = 'earlier' WHERE id = 1");
        CHECK(second->workers().at(0).alive == false);
        CHECK(second->workers().at(0).boot == "earlier");
        stranger(directory.file()).exec("UPDATE sourced_workers SET host = 'far away' WHERE id = 1");
        CHECK_FALSE(second->workers().at(0).alive.has_value());
        CHECK(second->workers().at(0).host == "far away");
    }
    SUBCASE("a claim whose worker has no row is taken back") {
        stranger(directory.file()).exec("DELETE FROM sourced_workers WHERE id = 1");
        CHECK(second->beat(1h) == 1);
        CHECK(claim(*second, group, 5).size() == 1);
    }
    CHECK(damage(directory.file()) == "");
}

TEST_CASE("SQLite file: a group that left everything behind keeps every promise") {
    const Directory directory;
    const auto store = open_at(directory.file());
    const auto group = store->register_group({"g", {"E"}, {}}).id;
    for (int i = 0; i < 20; ++i) store->append("s" + std::to_string(i % 7), several("E", 2));
    const auto claims = claim(*store, group, 3);
    finish(*store, handled(claims.at(0), 1));
    store->append("new", {message("E")});
    CHECK(store->skip_to_end("g", "all of it is old") == 42);
    CHECK(damage(directory.file()) == "");
    store->append("new", {message("E")});
    CHECK(drain(*store, group, {"E"}) == Numbers{42});
    CHECK(damage(directory.file()) == "");
}

TEST_CASE("SQLite file: the claims of a process that was killed are taken over") {
    using namespace std::chrono_literals;
    const Directory directory;
    const auto store = open_at(directory.file());
    store->append("s", {message("E")});
    const auto group = store->register_group({"g", {"E"}, {}}).id;
    Child child([&] {
        const auto own = open_at(directory.file());
        own->register_group({"g", {"E"}, {}});
        if (claim(*own, group).size() != 1) return std::string("no claim");
        ::kill(::getpid(), SIGKILL);
        return std::string();
    });
    CHECK(child.result() == "killed by signal 9");
    CHECK(claim(*store, group).empty());
    CHECK(store->workers().at(0).alive == false);
    CHECK(store->workers().at(0).claims == 1);
    CHECK(store->beat(1h) == 0);
    CHECK(store->beat(0us) == 1);
    CHECK(store->workers().size() == 1);
    const auto claims = claim(*store, group);
    REQUIRE(claims.size() == 1);
    CHECK(claims[0].deaths == 1);
    CHECK(finish(*store, handled(claims[0], 1)).result == Went::done);
}

TEST_CASE("SQLite file: two versions of a program do not make each other miss messages") {
    const Directory directory;
    const auto older = open_at(directory.file());
    const auto newer = open_at(directory.file());
    const auto group = older->register_group({"g", {"A"}, {}}).id;
    older->append("s1", {message("A")});
    const auto held = claim(*older, group);
    REQUIRE(held.size() == 1);
    newer->register_group({"g", {"A", "B"}, {}});
    older->append("s1", {message("B"), message("A")});
    older->append("s2", {message("B")});
    // The older one cannot handle B: it takes no new work of the group, and what it holds it may not acknowledge
    // over a B that it does not see.
    Exchange step;
    step.group = group;
    step.claims = 5;
    step.finished.push_back(handled(held[0], 3));
    Exchanged result = older->exchange(step);
    CHECK(result.outcomes.at(0).result == Went::lost);
    CHECK(result.claims.empty());
    CHECK_FALSE(result.active);
    CHECK_FALSE(older->claim_stream(group, "s2").has_value());
    CHECK(drain(*newer, group, {"A", "B"}) == Numbers{1, 2, 3, 4});
    // Starting the older one again does not shrink the set.
    CHECK(older->register_group({"g", {"A"}, {}}).id == group);
    step.finished.clear();
    CHECK_FALSE(older->exchange(step).active);
    newer->append("s2", {message("B")});
    CHECK(older->exchange(step).claims.empty());
    CHECK(drain(*newer, group, {"A", "B"}) == Numbers{5});
    CHECK(damage(directory.file()) == "");
}

TEST_CASE("SQLite file: waiting for others ends when another process has written") {
    const Directory directory;
    const auto store = open_at(directory.file());
    store->append("s", {message("a")});
    CHECK_FALSE(store->wait_for_others(std::chrono::milliseconds(1)));
    for (int i = 0; i < 3; ++i) {
        Child child([&] {
            open_at(directory.file())->append("s", {message("b")});
            return std::string();
        });
        CHECK(store->wait_for_others(std::chrono::minutes(1)));
        CHECK(child.result() == "");
        while (store->wait_for_others(std::chrono::milliseconds(1))) {}  // its closing
    }
    CHECK(store->stream_seq("s") == 4);
}

// ---- Reading only -----------------------------------------------------------------------------

namespace {

std::unique_ptr<Store> read_at(const std::string& path) {
    StoreOptions options;
    options.open = Open::read_only;
    options.busy_timeout = std::chrono::milliseconds(20);
    return open_at(path, options);
}
template <class E = StoreError>
std::string read_error(const std::string& path) {
    return error_of<E>([&] { (void)read_at(path)->log(); });
}
std::string existing_error(const std::string& path) {
    StoreOptions options;
    options.open = Open::existing;
    return error_of<StoreError>([&] { (void)open_at(path, options); });
}
/// The files of a directory with their sizes.
std::string files_of(const std::string& directory) {
    std::map<std::string, std::uintmax_t> files;
    for (const auto& entry : std::filesystem::directory_iterator(directory)) {
        files[entry.path().filename().string()] = entry.file_size();
    }
    std::string text;
    for (const auto& [name, size] : files) text += name + " " + std::to_string(size) + "\n";
    return text;
}
/// Overwrites a part of a file.
void spoil(const std::string& path, std::size_t at, std::size_t count, char with) {
    std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(static_cast<std::streamoff>(at));
    file << std::string(count, with);
}
/// Runs `body` as somebody who owns nothing: the superuser may read and write everything.
std::string as_nobody(const std::function<std::string()>& body) {
    return Child([&] {
               if (::getuid() == 0 && ::setuid(65534) != 0) return std::string("setuid failed");
               return body();
           })
        .result();
}

}  // namespace

TEST_CASE("Reading only: everything can be read, nothing is changed, nothing stays behind") {
    const Directory directory;
    const std::string path = directory.file();
    {
        const auto store = open_at(path);
        const auto group = store->register_group({"g", {"a"}, {}}).id;
        store->append("s", {message("a"), message("b")});
        store->append("t", {message("a")});
        CHECK(drain(*store, group, {"a"}) == Numbers{1, 3});
        store->schedule({due(Time(Duration(std::int64_t{1} << 60)), "s", message("a"))});
    }
    const std::string before = bytes_of(path);
    const std::string files = files_of(directory.path());
    {
        const auto store = read_at(path);
        CHECK(positions(store->log()) == Numbers{1, 2, 3});
        CHECK(seqs(store->stream("s")) == Numbers{1, 2});
        CHECK(store->recent_streams().size() == 2);
        CHECK(store->scheduled().size() == 1);
        CHECK(store->stats().group("g").lag == 0);
        CHECK(store->offsets("g", {.all = true}).size() == 2);
        CHECK(store->standing("g", 3).reached);
        store->read([](Reader& reader) {
            CHECK(reader.row("SELECT count(*) FROM sourced_messages")->integer(0) == 3);
            CHECK_THROWS_AS((void)reader.row("DELETE FROM sourced_groups"), StoreError);
        });
        CHECK_FALSE(store->wait_for_others(std::chrono::milliseconds(1)));
    }
    CHECK(bytes_of(path) == before);
    CHECK(files_of(directory.path()) == files);
}

TEST_CASE("Reading only: whatever would write is refused by name") {
    const Directory directory;
    const std::string path = directory.file();
    (void)open_at(path)->append("s", {message("a")});
    const auto store = read_at(path);
    const std::string refused = " in '" + path + "': it was opened for reading only";
    const auto text = [&](const auto& call) { return error_of<StoreError>(call); };
    CHECK(text([&] { store->append("s", {message("a")}); }) == "append to 's'" + refused);
    CHECK(text([&] { (void)store->append_all({{"s", {message("a")}}}); }) == "append to 1 streams" + refused);
    CHECK(text([&] { store->transaction([](Transaction&) { FAIL("it ran"); }); }) == "transaction" + refused);
    CHECK(text([&] { store->unit([](UnitTransaction&) { FAIL("it ran"); }); }) == "unit" + refused);
    CHECK(text([&] { store->schedule({due(Time(), "s", message("a"))}); }) == "schedule 1 messages" + refused);
    CHECK(contains(text([&] { (void)store->promote(Time()); }), refused));
    CHECK(contains(text([&] { store->cancel(id(1)); }), refused));
    CHECK(contains(text([&] { store->run_now(id(1)); }), refused));
    CHECK(contains(text([&] { (void)store->register_group({"g", {"a"}, {}}); }), refused));
    CHECK(contains(text([&] { store->stop_group("g", "why"); }), refused));
    CHECK(contains(text([&] { store->start_group("g"); }), refused));
    CHECK(contains(text([&] { store->reset_group("g", {}, {}); }), refused));
    CHECK(contains(text([&] { store->retry_stream("g", "s"); }), refused));
    CHECK(contains(text([&] { store->park_stream("g", "s", "why"); }), refused));
    CHECK(contains(text([&] { (void)store->skip_message("g", "s", "why"); }), refused));
    CHECK(contains(text([&] { (void)store->exchange({}); }), refused));
    CHECK(contains(text([&] { (void)store->beat(std::chrono::seconds(1)); }), refused));
    CHECK(store->head() == 1);
}

TEST_CASE("Reading only: stands beside a store of this process that writes, and hears of what it writes") {
    const Directory directory;
    const std::string path = directory.file();
    auto writing = open_at(path);
    writing->append("s", {message("a")});
    const auto reading = read_at(path);
    CHECK(reading->head() == 1);
    CHECK_FALSE(reading->wait_for_others(std::chrono::milliseconds(1)));
    for (int i = 2; i < 5; ++i) {
        writing->append("s", {message("b")});
        CHECK(reading->wait_for_others(std::chrono::minutes(1)));
        CHECK(reading->head() == i);
    }
    std::jthread late([&] { writing->append("s", {message("b")}); });
    CHECK(reading->wait_for_others(std::chrono::minutes(1)));
    late.join();
    // The one that writes goes and comes again: the WAL that is watched is the one it writes to.
    writing.reset();
    CHECK(size_of(path + "-wal") > 0);
    while (reading->wait_for_others(std::chrono::milliseconds(1))) {}
    writing = open_at(path);
    writing->append("s", {message("c")});
    CHECK(reading->wait_for_others(std::chrono::minutes(1)));
    CHECK(reading->stream_seq("s") == 6);
}

TEST_CASE("Reading only: closing leaves the file to those who still have it open, and the log of one who died") {
    const Directory directory;
    const std::string path = directory.file();
    {
        const auto first = open_at(path);
        { CHECK(read_at(path)->head() == 0); }
        CHECK(std::filesystem::exists(path + "-wal"));
        first->append("s", {message("a")});
        CHECK(read_at(path)->head() == 1);
        CHECK(size_of(path + "-wal") > 0);
    }
    Child killed([&] {
        const auto store = open_at(path);
        store->append("s", {message("b")});
        ::raise(SIGKILL);
        return std::string();
    });
    CHECK(killed.result() == "killed by signal 9");
    const std::string before = bytes_of(path);
    const std::string log = bytes_of(path + "-wal");
    CHECK(read_at(path)->head() == 2);
    CHECK(bytes_of(path) == before);
    CHECK(bytes_of(path + "-wal") == log);
    CHECK(open_at(path)->head() == 2);
    CHECK(damage(path) == "");
}

TEST_CASE("Reading only: a file that is missing, or not the engine's, is said to be so and left as it is") {
    const Directory directory;
    const std::string path = directory.file();
    const std::string tried = "open '" + path + "': ";
    const auto both = [&](const std::string& text) {
        const std::string files = files_of(directory.path());
        CHECK(read_error(path) == text);
        CHECK(existing_error(path) == text);
        CHECK(files_of(directory.path()) == files);
    };
    SUBCASE("missing") { both(tried + "there is no such file"); }
    SUBCASE("in a missing directory") {
        const std::string far = directory.file("missing/store.db");
        CHECK(read_error(far) == "open '" + far + "': there is no such file");
    }
    SUBCASE("behind a file") {
        std::ofstream(path) << "x";
        CHECK(read_error(path + "/store.db") == "open '" + path + "/store.db': it cannot be reached: Not a directory");
    }
    SUBCASE("a directory") {
        std::filesystem::create_directory(path);
        CHECK(read_error(path) == tried + "it is a directory");
        CHECK(existing_error(path) == tried + "it is a directory");
    }
    SUBCASE("a pipe, which nobody waits for") {
        REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
        CHECK(read_error(path) == tried + "it is not a file but a device, a pipe or a socket");
    }
    SUBCASE("empty") {
        std::ofstream file(path);
        both(tried + "it is empty: nothing of the engine was ever stored in it");
    }
    SUBCASE("text") {
        std::ofstream(path) << std::string(5000, 'x');
        CHECK(contains(read_error(path), tried + "the file is not a SQLite database"));
        CHECK(contains(existing_error(path), tried + "the file is not a SQLite database"));
    }
    SUBCASE("a few bytes") {
        std::ofstream(path) << "xy";
        both(tried + "it is not a SQLite database: it has only 2 bytes");
    }
    SUBCASE("another application's") {
        stranger(path).exec("PRAGMA application_id=77; CREATE TABLE theirs(x)");
        both(tried + "it belongs to another application (application_id 77)");
    }
    SUBCASE("a database without an owner") {
        stranger(path).exec("CREATE TABLE theirs(x)");
        CHECK(read_error(path) == tried + "it is a SQLite database with nothing of the engine in it");
        CHECK(existing_error(path) == tried + "it is a SQLite database with nothing of the engine in it");
    }
    SUBCASE("another application's in WAL mode, and nothing of us stays behind") {
        stranger(path).exec("PRAGMA journal_mode=WAL; CREATE TABLE theirs(x)");
        const std::string files = files_of(directory.path());
        CHECK(read_error(path) == tried + "it is a SQLite database with nothing of the engine in it");
        CHECK(files_of(directory.path()) == files);
    }
    SUBCASE("in memory") {
        CHECK(read_error("") ==
              "open memory: nothing is there yet in memory: only a file can be opened as one that exists");
    }
}

TEST_CASE("Reading only: another version's file is refused with what can be done") {
    const Directory directory;
    const std::string path = directory.file();
    const std::string tried = "open '" + path + "': ";
    (void)open_at(path);
    const auto version = [&](int number) {
        const std::string value = std::to_string(number);
        stranger(path).exec("UPDATE sourced_meta SET value = " + value + " WHERE key = 'schema_version'");
    };
    version(99);
    CHECK(read_error(path) ==
          tried + "it has schema version 99, this program knows 2: use a newer version of the program");
    version(1);
    CHECK(read_error(path) == tried + "it has schema version 1, this program reads 2: open it for writing once, which "
                                      "brings it to that version");
    version(2);
    CHECK(read_error(path) == "");
}

TEST_CASE("Reading only: a file that somebody has for himself is busy") {
    const Directory directory;
    const std::string path = directory.file();
    (void)open_at(path)->append("s", {message("a")});
    auto other = stranger(path);
    other.exec("PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE; COMMIT");
    CHECK(read_error<Busy>(path) ==
          "open '" + path + "': another process keeps it locked for itself alone: try again when that is done");
}

TEST_CASE("SQLite file: whoever waits too long for a lock gets Busy") {
    const Directory directory;
    const std::string path = directory.file();
    StoreOptions options;
    options.busy_timeout = std::chrono::milliseconds(20);
    options.open = Open::existing;
    (void)open_at(path);
    const auto store = open_at(path, options);
    auto other = stranger(path);
    other.exec("BEGIN IMMEDIATE");
    CHECK_THROWS_AS(store->append("s", {message("a")}), Busy);
    other.exec("COMMIT; PRAGMA application_id=0; DELETE FROM sourced_meta; DROP TABLE sourced_meta; BEGIN IMMEDIATE");
    options.open = Open::create;
    CHECK_THROWS_AS((void)open_at(path, options), Busy);
}

TEST_CASE("Reading only: a damaged file says so, at once or when the damage is met") {
    const Directory directory;
    const std::string path = directory.file();
    {
        const auto store = open_at(path);
        for (int i = 0; i < 40; ++i) store->append("s" + std::to_string(i), several("a", 40));
    }
    const auto size = static_cast<std::size_t>(size_of(path));
    REQUIRE(size > 40'000);
    const std::string tried = "open '" + path + "': ";
    SUBCASE("another header") {
        spoil(path, 0, 16, 'x');
        CHECK(contains(read_error(path), tried + "the file is not a SQLite database"));
    }
    SUBCASE("a header of zeros") {
        spoil(path, 0, 100, '\0');
        CHECK(contains(read_error(path), tried + "the file is not a SQLite database"));
    }
    SUBCASE("its end is missing") {
        std::filesystem::resize_file(path, size / 2);
        CHECK(contains(read_error(path),
                       tried + "the file is damaged: verify finds what is broken, a backup is the way back ("));
    }
    SUBCASE("its first page only") {
        std::filesystem::resize_file(path, 4096);
        CHECK(contains(read_error(path), tried + "the file is damaged"));
    }
    SUBCASE("the schema is zeros") {
        spoil(path, 100, 3996, '\0');
        CHECK(contains(read_error(path), tried + "the file is damaged"));
    }
    SUBCASE("the log is zeros") {
        spoil(path, 4096 * 20, size - 4096 * 20, '\0');
        CHECK(contains(read_error(path), "in '" + path + "': the file is damaged"));
    }
    SUBCASE("everything behind the header is noise") {
        spoil(path, 4096, size - 4096, '\xa5');
        CHECK(contains(read_error(path), "the file is damaged"));
    }
}

TEST_CASE("Reading only: rights that are missing are named, and what can be done") {
    const Directory directory;
    const std::string path = directory.file();
    const std::string tried = "open '" + path + "': ";
    auto store = open_at(path);
    store->append("s", {message("a")});
    ::chmod(directory.path().c_str(), 0555);
    const auto tried_by_nobody = [&] {
        return as_nobody([&] {
            try {
                return "head " + std::to_string(read_at(path)->head());
            } catch (const StoreError& error) {
                return std::string(error.what());
            }
        });
    };
    CHECK(tried_by_nobody() == tried + "it cannot be read: Permission denied");
    for (const char* suffix : {"", "-wal", "-shm"}) ::chmod((path + suffix).c_str(), 0444);
    // Somebody has it open: what nobody may write can be read.
    CHECK(tried_by_nobody() == "head 1");
    ::chmod(directory.path().c_str(), 0777);
    store.reset();
    ::chmod(directory.path().c_str(), 0555);
    CHECK(tried_by_nobody() ==
          tried + "nobody has it open, and to read it SQLite has to make a -wal and a -shm beside it, which the "
                  "directory '" + directory.path() + "' does not let this user do: copy the file to where this user "
                  "may write");
    ::chmod(directory.path().c_str(), 0777);
    CHECK(tried_by_nobody() == "head 1");
    CHECK(read_at(path)->head() == 1);  // with what was left behind
    CHECK(open_at(path)->head() == 1);
    ::chmod(path.c_str(), 0666);
    ::chmod(directory.path().c_str(), 0000);
    CHECK(tried_by_nobody() == tried + "it cannot be reached: Permission denied");
    ::chmod(directory.path().c_str(), 0700);
}

TEST_CASE("Opening what exists: it is brought to this version and written to, never made") {
    const Directory directory;
    const std::string path = directory.file();
    CHECK(existing_error(path) == "open '" + path + "': there is no such file");
    CHECK_FALSE(std::filesystem::exists(path));
    (void)open_at(path);
    StoreOptions options;
    options.open = Open::existing;
    CHECK(open_at(path, options)->append("s", {message("a")}).last_position == 1);
}

TEST_CASE("Opening what exists: what is not the engine's, or of a newer one, is left as it is") {
    const Directory directory;
    const std::string path = directory.file();
    std::string found;
    {
        SQLite::Database other(path, SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE);
        SUBCASE("a stranger's") {
            other.exec("CREATE TABLE mine(n)");
            found = "it is a SQLite database with nothing of the engine in it";
        }
        SUBCASE("a newer one's") {
            other.exec("CREATE TABLE sourced_meta(key, value); INSERT INTO sourced_meta VALUES('schema_version', 99)");
            found = "it has schema version 99, this program knows 2: use a newer version of the program";
        }
    }
    CHECK(existing_error(path) == "open '" + path + "': " + found);
    SQLite::Database other(path, SQLite::OPEN_READONLY);
    CHECK(other.execAndGet("PRAGMA journal_mode").getString() == "delete");
}

// ---- Trouble ------------------------------------------------------------------------------------

TEST_CASE("SQLite file: a lock held by a stranger is waited for, then an error, and work goes on when it is free") {
    const Directory directory;
    StoreOptions options;
    options.busy_timeout = std::chrono::milliseconds(20);
    const auto store = open_at(directory.file(), options);
    store->append("s", {message("a")});
    auto other = stranger(directory.file());
    other.exec("BEGIN IMMEDIATE");
    const Message waiting = message("b");
    const std::string text = error_of([&] { store->append("s", {waiting}); });
    CHECK(contains(text, "append to 's' in '" + directory.file() + "': another process holds the write lock"));
    CHECK_THROWS_AS(store->transaction([](Transaction&) { FAIL("it has no lock to run under"); }), StoreError);
    CHECK(store->stream_seq("s") == 1);  // reading needs no lock
    other.exec("COMMIT");
    CHECK(store->append("s", {waiting}).last_seq == 2);

    const auto patient = open_at(directory.file());
    other.exec("BEGIN IMMEDIATE");
    std::atomic<bool> began{false};
    std::jthread writer([&] {
        began = true;
        patient->append("s", {message("c")});
    });
    while (!began) std::this_thread::yield();
    other.exec("COMMIT");
    writer.join();
    CHECK(store->stream_seq("s") == 3);
}

TEST_CASE("SQLite file: one that was moved away is a clear error, and work goes on when it is back") {
    const Directory directory;
    const std::string away = directory.file("away.db");
    const auto store = open_at(directory.file());
    store->append("s", {message("a")});
    std::filesystem::rename(directory.file(), away);
    const Message waiting = message("b");
    const std::string expected =
        "append to 's' in '" + directory.file() + "': the file was moved, deleted or replaced while it was open";
    CHECK(error_of([&] { store->append("s", {waiting}); }) == expected);
    {
        std::ofstream(directory.file()) << "somebody else's";
        CHECK(error_of([&] { store->append("s", {waiting}); }) == expected);
    }
    CHECK(bytes_of(directory.file()) == "somebody else's");
    std::filesystem::rename(away, directory.file());
    CHECK(store->append("s", {waiting}).last_seq == 2);
    CHECK(damage(directory.file()) == "");
}

TEST_CASE("SQLite file: what is imported in batches is the same row by row, checksums too, and holds its promises") {
    const Directory directory;
    HandClock clock;
    Messages all;
    {
        const auto source = open_at(directory.file("a.db"), clock.options());
        (void)strange_log(*source, clock);
        for (int i = 0; i < 200; ++i) {
            const Message first = command("do", "{\"n\":" + std::to_string(i) + "}");
            source->append("s" + std::to_string(i % 7), {first, follow(first, message("done"))});
        }
        all = source->log();
        const auto store = open_at(directory.file("b.db"));
        for (std::size_t i = 0; i < all.size(); i += 37) {
            const auto end = all.begin() + static_cast<std::ptrdiff_t>(std::min(i + 37, all.size()));
            store->import_log({all.begin() + static_cast<std::ptrdiff_t>(i), end});
        }
    }
    CHECK(damage(directory.file("b.db")) == "");
    auto database = stranger(directory.file("a.db"));
    database.exec("ATTACH '" + directory.file("b.db") + "' AS other");
    const std::string columns =
        "SELECT m.position, s.name, s.seq AS head, s.updated_at, m.seq, t.name, t.kind, m.schema, m.id, m.causation, "
        "m.correlation, m.recorded_at, m.occurred_at, m.metadata, m.payload, m.erased_at, m.checksum FROM ";
    const auto of = [&](const std::string& name) {
        return columns + name + ".sourced_messages m JOIN " + name + ".sourced_streams s ON s.id = m.stream JOIN " +
               name + ".sourced_types t ON t.id = m.type";
    };
    CHECK(database.execAndGet("SELECT count(*) FROM (" + of("main") + " EXCEPT " + of("other") + ")").getInt() == 0);
    CHECK(database.execAndGet("SELECT count(*) FROM (" + of("other") + " EXCEPT " + of("main") + ")").getInt() == 0);
    CHECK(database.execAndGet("SELECT count(*) FROM other.sourced_messages").getInt() == 404);
}

TEST_CASE("SQLite file: a checkpoint by hand brings the log into the file and says who holds it up") {
    const Directory directory;
    const auto store = open_at(directory.file(), {.busy_timeout = std::chrono::milliseconds(20)});
    store->append("s", several("a", 100));
    const auto before = size_of(directory.file());

    SUBCASE("nobody") {
        const auto done = store->checkpoint();
        CHECK(done.frames > 0);
        CHECK(done.moved == done.frames);
        CHECK(done.restarted);
        CHECK(done.held == Checkpoint::Held::no);
        CHECK(size_of(directory.file()) > before);
        CHECK(store->append("s", several("a", 1)).first_position == 101);
        CHECK(store->checkpoint().frames < done.frames);
    }
    SUBCASE("a reader of an older state") {
        auto reader = stranger(directory.file());
        reader.exec("BEGIN");
        CHECK(reader.execAndGet("SELECT count(*) FROM sourced_messages").getInt() == 100);
        store->append("s", several("a", 10));
        const auto held = store->checkpoint();
        CHECK(held.held == Checkpoint::Held::reader);
        CHECK(held.moved < held.frames);
        CHECK_FALSE(held.restarted);
        reader.exec("ROLLBACK");
        CHECK(store->checkpoint().restarted);
    }
    SUBCASE("another process that writes") {
        auto writer = stranger(directory.file());
        writer.exec("BEGIN IMMEDIATE");
        const auto held = store->checkpoint();
        CHECK(held.held == Checkpoint::Held::writer);
        CHECK_FALSE(held.restarted);
        CHECK(held.moved == 0);
    }
    CHECK(open_store()->checkpoint().frames == 0);
    CHECK(damage(directory.file()) == "");
}

TEST_CASE("SQLite file: a backup is one state of the file, whole or not there") {
    const Directory directory;
    const auto store = open_at(directory.file());
    store->append("s", several("a", 5000));
    const std::string copy = directory.file("copy.db");
    const auto files = [&] {
        std::set<std::string> names;
        for (const auto& entry : std::filesystem::directory_iterator(directory.path())) {
            names.insert(entry.path().filename());
        }
        return names;
    };
    const auto before = files();
    std::int64_t calls = 0;

    SUBCASE("while others write") {
        std::int64_t last = 0;
        std::int64_t total = 0;
        store->backup(copy, {.progress = [&](std::int64_t done, std::int64_t all) {
            if (++calls == 1) store->append("s", several("a", 5000));
            last = done;
            total = all;
        }});
        CHECK(calls >= 1);
        CHECK(last == total);
        CHECK(total > 100);
        struct stat info {};
        REQUIRE(::stat(copy.c_str(), &info) == 0);
        CHECK((info.st_mode & 0777) == 0600);
        CHECK(damage(copy) == "");
        CHECK(open_at(copy)->head() == 5000);
        CHECK(store->head() == 10000);
        auto names = files();
        names.erase("copy.db");
        names.erase("copy.db-wal");
        names.erase("copy.db-shm");
        CHECK(names == before);
    }
    SUBCASE("what breaks it off leaves nothing behind") {
        CHECK_THROWS_WITH_AS(store->backup(copy, {.progress = [](std::int64_t, std::int64_t) {
                                 throw std::logic_error("enough");
                             }}),
                             "enough", std::logic_error);
        CHECK(files() == before);
        CHECK(store->append("s", several("a", 1)).first_position == 5001);
    }
    SUBCASE("never over another file, unless asked for") {
        std::ofstream(copy) << "something";
        CHECK(error_of<StoreError>([&] { store->backup(copy); }) ==
              "back '" + directory.file() + "' up: '" + copy + "' is there already");
        CHECK(bytes_of(copy) == "something");
        store->backup(copy, {.replace = true});
        CHECK(open_at(copy)->head() == 5000);
    }
    SUBCASE("never over a file that is in use") {
        store->backup(copy);
        const auto user = open_at(copy);
        user->append("s", several("a", 1));
        CHECK(contains(error_of<StoreError>([&] { store->backup(copy, {.replace = true}); }), "is in use"));
        CHECK(user->head() == 5001);
    }
    SUBCASE("never over itself, nor a directory, nor into none") {
        CHECK(contains(error_of<StoreError>([&] { store->backup(directory.file(), {.replace = true}); }),
                       "is the file itself"));
        CHECK(contains(error_of<StoreError>([&] { store->backup(directory.path(), {.replace = true}); }),
                       "is a directory"));
        CHECK(contains(error_of<StoreError>([&] { store->backup(directory.file("no/copy.db")); }), "No such file"));
        CHECK(files() == before);
    }
    SUBCASE("from memory") {
        const auto memory = open_store();
        memory->append("s", several("a", 3));
        memory->backup(copy);
        CHECK(open_at(copy)->head() == 3);
        CHECK(damage(copy) == "");
    }
}

TEST_CASE("SQLite file: the WAL stays bounded under readers, while much is written") {
    const Directory directory;
    StoreOptions options;
    options.durability = Durability::normal;
    options.checkpoint_bytes = 1u << 20;
    std::mutex mutex;
    std::string warnings;
    options.warn = [&](std::string_view text) {
        const std::lock_guard lock(mutex);
        warnings += text;
    };
    const auto store = open_at(directory.file(), options);
    warnings.clear();  // opening warns of an old SQLite
    std::atomic<bool> done{false};
    std::uintmax_t largest = 0;
    std::atomic<int> reads{0};
    {
        std::vector<std::jthread> readers;
        for (int i = 0; i < 3; ++i) {
            readers.emplace_back([&] {
                while (!done) {
                    int count = 0;
                    store->read_log({}, [&](Message&) { return ++count < 20; });
                    ++reads;
                }
            });
        }
        const std::string payload = "\"" + std::string(4000, 'x') + "\"";
        for (int i = 0; i < 4000; ++i) {
            store->append("s" + std::to_string(i % 10), {message("a", payload)});
            if (i % 100 == 0) largest = std::max(largest, size_of(directory.file("store.db-wal")));
        }
        done = true;
    }
    CHECK(reads > 3);
    CHECK(largest > (1u << 20));
    CHECK(largest < (12u << 20));  // 16 MB and more went through it
    CHECK(warnings == "");
    CHECK(positions(store->log()) == counting(1, 4000));
    CHECK(damage(directory.file()) == "");
}

// ---- A disk that fails at its k-th call -------------------------------------------------------------

namespace {

/// A VFS over the default one that fails at its k-th call that reaches the disk.
class FaultyDisk {
public:
    enum class Trouble { full, broken };

    static FaultyDisk& get() {
        static FaultyDisk disk;
        return disk;
    }
    static constexpr const char* name = "store-test-faults";

    /// The k-th call from now on fails, and with `sticky` all that follow until repair().
    /// A full disk fails writes only.
    void arm(int k, Trouble trouble, bool sticky) {
        left_ = k;
        trouble_ = trouble;
        sticky_ = sticky;
        hits_ = 0;
    }
    void repair() { left_ = 0; }
    [[nodiscard]] int hits() const noexcept { return hits_; }

private:
    struct File {
        sqlite3_file base;
        [[nodiscard]] static sqlite3_file* real(sqlite3_file* file) {
            return reinterpret_cast<sqlite3_file*>(reinterpret_cast<char*>(file) + sizeof(File));
        }
    };

    FaultyDisk() {
        under_ = sqlite3_vfs_find(nullptr);
        vfs_ = *under_;
        vfs_.zName = name;
        vfs_.pNext = nullptr;
        vfs_.szOsFile = static_cast<int>(sizeof(File)) + under_->szOsFile;
        vfs_.xOpen = [](sqlite3_vfs*, const char* path, sqlite3_file* file, int flags, int* out) {
            file->pMethods = nullptr;
            if (const int code = get().due(SQLITE_CANTOPEN, 0)) return code;
            const int code = get().under_->xOpen(get().under_, path, File::real(file), flags, out);
            if (File::real(file)->pMethods) file->pMethods = &get().methods_;
            return code;
        };
        vfs_.xDelete = [](sqlite3_vfs*, const char* path, int sync) {
            if (const int code = get().due(SQLITE_IOERR_DELETE, 0)) return code;
            return get().under_->xDelete(get().under_, path, sync);
        };
        vfs_.xAccess = [](sqlite3_vfs*, const char* path, int flags, int* out) {
            return get().under_->xAccess(get().under_, path, flags, out);
        };
        vfs_.xFullPathname = [](sqlite3_vfs*, const char* path, int size, char* out) {
            return get().under_->xFullPathname(get().under_, path, size, out);
        };
        methods_.iVersion = 2;  // without xFetch: nothing is mapped past us
        methods_.xClose = [](sqlite3_file* f) { return File::real(f)->pMethods->xClose(File::real(f)); };
        methods_.xRead = [](sqlite3_file* f, void* data, int size, sqlite3_int64 at) {
            if (const int code = get().due(SQLITE_IOERR_READ, 0)) return code;
            return File::real(f)->pMethods->xRead(File::real(f), data, size, at);
        };
        methods_.xWrite = [](sqlite3_file* f, const void* data, int size, sqlite3_int64 at) {
            if (const int code = get().due(SQLITE_IOERR_WRITE, SQLITE_FULL)) {
                // As a disk may do it: the first half arrives.
                (void)File::real(f)->pMethods->xWrite(File::real(f), data, size / 2, at);
                return code;
            }
            return File::real(f)->pMethods->xWrite(File::real(f), data, size, at);
        };
        methods_.xTruncate = [](sqlite3_file* f, sqlite3_int64 size) {
            if (const int code = get().due(SQLITE_IOERR_TRUNCATE, 0)) return code;
            return File::real(f)->pMethods->xTruncate(File::real(f), size);
        };
        methods_.xSync = [](sqlite3_file* f, int flags) {
            if (const int code = get().due(SQLITE_IOERR_FSYNC, 0)) return code;
            return File::real(f)->pMethods->xSync(File::real(f), flags);
        };
        methods_.xFileSize = [](sqlite3_file* f, sqlite3_int64* size) {
            if (const int code = get().due(SQLITE_IOERR_FSTAT, 0)) return code;
            return File::real(f)->pMethods->xFileSize(File::real(f), size);
        };
        methods_.xLock = [](sqlite3_file* f, int level) {
            return File::real(f)->pMethods->xLock(File::real(f), level);
        };
        methods_.xUnlock = [](sqlite3_file* f, int level) {
            return File::real(f)->pMethods->xUnlock(File::real(f), level);
        };
        methods_.xCheckReservedLock = [](sqlite3_file* f, int* out) {
            return File::real(f)->pMethods->xCheckReservedLock(File::real(f), out);
        };
        methods_.xFileControl = [](sqlite3_file* f, int op, void* argument) {
            return File::real(f)->pMethods->xFileControl(File::real(f), op, argument);
        };
        methods_.xSectorSize = [](sqlite3_file* f) { return File::real(f)->pMethods->xSectorSize(File::real(f)); };
        methods_.xDeviceCharacteristics = [](sqlite3_file* f) {
            return File::real(f)->pMethods->xDeviceCharacteristics(File::real(f));
        };
        methods_.xShmMap = [](sqlite3_file* f, int region, int size, int extend, void volatile** out) {
            if (const int code = get().due(SQLITE_IOERR_SHMMAP, SQLITE_FULL)) return code;
            return File::real(f)->pMethods->xShmMap(File::real(f), region, size, extend, out);
        };
        methods_.xShmLock = [](sqlite3_file* f, int offset, int count, int flags) {
            return File::real(f)->pMethods->xShmLock(File::real(f), offset, count, flags);
        };
        methods_.xShmBarrier = [](sqlite3_file* f) { File::real(f)->pMethods->xShmBarrier(File::real(f)); };
        methods_.xShmUnmap = [](sqlite3_file* f, int remove) {
            return File::real(f)->pMethods->xShmUnmap(File::real(f), remove);
        };
        sqlite3_vfs_register(&vfs_, 0);
    }

    /// The code to fail with, or 0.
    int due(int broken, int full) {
        const int code = trouble_ == Trouble::full ? full : broken;
        if (code == 0 || left_ == 0) return 0;
        if (left_ > 1) {
            --left_;
            return 0;
        }
        if (!sticky_) left_ = 0;
        ++hits_;
        return code;
    }

    sqlite3_vfs* under_ = nullptr;
    sqlite3_vfs vfs_{};
    sqlite3_io_methods methods_{};
    std::atomic<int> left_{0};
    std::atomic<int> hits_{0};
    Trouble trouble_ = Trouble::full;
    bool sticky_ = false;
};

/// Where no disk slows down what is written and thrown away hundreds of times.
std::string fast_directory() {
    return ::access("/dev/shm", W_OK) == 0 ? "/dev/shm" : std::filesystem::temp_directory_path().string();
}

/// What an application does in a minute, on a disk that fails. Each step is tried again after an error, with
/// the cause gone; gives the errors, and in `lost` what was acknowledged without being so.
class Scenario {
public:
    explicit Scenario(std::string path) : path_(std::move(path)) {}

    void run() {
        using namespace std::chrono_literals;
        StoreOptions options;
        options.path = path_;
        options.vfs = FaultyDisk::name;
        options.checkpoint_bytes = 1;  // as often as it may
        options.warn = [](std::string_view) {};
        std::unique_ptr<Store> store;
        step([&] { store = open_store(options); });
        if (!store) return;
        step([&] {
            store->transaction([](Transaction& transaction) {
                transaction.execute("CREATE TABLE IF NOT EXISTS sums(id TEXT, n INTEGER)");
            });
        });
        const Messages two{message("E"), message("E")};
        step([&] { store->append("s1", two); });
        note(two);
        const std::vector<Append> parts{{"s2", {message("E", long_payload)}, any_seq}, {"s3", {message("E")}, any_seq}};
        step([&] { store->append_all(parts); });
        note(parts[0].messages);
        note(parts[1].messages);
        const Message later = message("L");
        step([&] { store->schedule({due(at(5), "s4", later)}); });
        std::size_t moved = 0;
        step([&] { moved += store->promote(at(5)); });
        note({later});
        const Messages grouped{message("G"), message("G"), message("G")};
        step([&] {
            in_one_group(*store, {[&] { step([&] { store->append("s5", {grouped[0]}); }); },
                                  [&] { step([&] { store->append("s6", {grouped[1]}); }); },
                                  [&] { step([&] { store->append("s5", {grouped[2]}); }); }});
        });
        note(grouped);
        std::int64_t group = 0;
        step([&] { group = store->register_group({"sums", {"E"}, {}}).id; });
        for (int rounds = 0; rounds < 30 && handled_ < 4; ++rounds) {
            std::vector<Claim> claims;
            step([&] { claims = claim(*store, group, 2); });
            if (claims.empty()) {  // a claim whose commit was reported as failed: nobody beats for it
                step([&] { (void)store->beat(0us); });
                step([&] { handled_ = store->stats().group("sums").lag == 0 ? 4 : 0; });
                continue;
            }
            for (const auto& each : claims) {
                const Message effect = message("F");
                step([&] {
                    const auto found = pending(*store, each, {"E"});
                    if (found.empty()) return;
                    Handled done = handled(each, found.back());
                    done.appends.push_back({"effects", {effect}, any_seq});
                    done.sync = [&](Transaction& transaction) {
                        for (std::size_t i = 0; i < found.size(); ++i) {
                            transaction.execute("INSERT INTO sums VALUES(?, ?)", each.stream_name, found[i]);
                        }
                    };
                    (void)finish(*store, done);
                });
            }
        }
        const Message host = message("H");
        step([&] {
            if (store->find(host.id)) return;  // "outcome unknown" is what a host transaction has to look up
            store->transaction([&](Transaction& transaction) {
                transaction.execute("INSERT INTO sums VALUES('host', 0)");
                transaction.append("s7", {host});
            });
        });
        note({host});
    }

    /// What the file shows against what was acknowledged.
    [[nodiscard]] std::string result() const {
        std::string text = wrong_;
        text += damage(path_, acknowledged_);
        const auto store = open_at(path_);
        store->read([&](Reader& reader) {
            const auto count = [&](const char* sql) { return reader.row(sql)->integer(0); };
            if (count("SELECT count(*) FROM sums WHERE id <> 'host'") != 4) text += "an effect is missing or double\n";
            if (count("SELECT count(DISTINCT n) FROM sums WHERE id <> 'host'") != 4) text += "an effect is double\n";
            if (count("SELECT count(*) FROM sums WHERE id = 'host'") != 1) text += "the transaction did not run once\n";
            if (count("SELECT count(*) FROM sourced_scheduled") != 0) text += "a message waits still\n";
        });
        const auto effects = store->stream_seq("effects");
        if (effects != 3) text += std::to_string(effects) + " effects for 3 streams\n";
        if (store->head() != 12) text += "the log has " + std::to_string(store->head()) + " messages, not 12\n";
        return text;
    }
    [[nodiscard]] int errors() const noexcept { return errors_; }

private:
    void step(const std::function<void()>& body) {
        std::string last;
        for (int tries = 0; tries < 4; ++tries) {
            try {
                body();
                return;
            } catch (const StoreError& error) {
                last = error.what();
                ++errors_;
                FaultyDisk::get().repair();
            } catch (const std::exception& error) {
                last = std::string("not a StoreError: ") + error.what();
                break;
            }
        }
        const std::lock_guard lock(mutex_);
        wrong_ += "did not go on: " + last + "\n";
    }
    void note(const Messages& messages) {
        for (const auto& each : messages) acknowledged_.push_back(each.id);
    }

    std::string path_;
    const std::string long_payload = "\"" + std::string(20'000, 'x') + "\"";
    std::vector<Id> acknowledged_;
    std::mutex mutex_;
    std::string wrong_;
    std::atomic<int> errors_{0};
    std::int64_t handled_ = 0;
};

void check_disk(FaultyDisk::Trouble trouble, bool sticky, int stride) {
    auto& disk = FaultyDisk::get();
    int failures = 0;
    int k = 1;
    for (;; k += stride) {
        const Directory directory(fast_directory());
        Scenario scenario(directory.file());
        disk.arm(k, trouble, sticky);
        scenario.run();
        const bool hit = disk.hits() > 0;
        disk.repair();
        const std::string result = scenario.result();
        failures += scenario.errors() > 0;
        CAPTURE(k);
        REQUIRE(result == "");
        if (!hit) break;
    }
    CHECK(k > 20);
    CHECK(failures > 5);
}

}  // namespace

TEST_CASE("SQLite file: a disk that is full at its k-th write loses nothing, writes nothing half, and work goes on") {
    SUBCASE("for one write") { check_disk(FaultyDisk::Trouble::full, false, 1); }
    SUBCASE("until there is space again") { check_disk(FaultyDisk::Trouble::full, true, 2); }
}

TEST_CASE("SQLite file: a disk that fails at its k-th call loses nothing, writes nothing half, and work goes on") {
    SUBCASE("for one call") { check_disk(FaultyDisk::Trouble::broken, false, 1); }
    SUBCASE("until it is repaired") { check_disk(FaultyDisk::Trouble::broken, true, 3); }
}

TEST_CASE("SQLite file: a full disk and a failing one say so") {
    const Directory directory;
    auto& disk = FaultyDisk::get();
    StoreOptions options;
    options.vfs = FaultyDisk::name;
    const auto store = open_at(directory.file(), options);
    store->append("s", {message("a")});
    const auto text = [&](FaultyDisk::Trouble trouble) {
        disk.arm(1, trouble, true);
        std::string found = error_of([&] { store->append("s", {message("a")}); });
        disk.repair();
        return found;
    };
    const std::string tried = "append to 's' in '" + directory.file() + "': ";
    CHECK(contains(text(FaultyDisk::Trouble::full), tried + "the disk is full"));
    CHECK(store->append("s", {message("a")}).last_seq == 2);
    CHECK(contains(text(FaultyDisk::Trouble::broken), tried + "reading or writing the file failed"));
    CHECK(store->append("s", {message("a")}).last_seq == 3);
}

TEST_CASE("SQLite file: an error of a statement for many rows can be read") {
    const Directory directory;
    const auto store = open_at(directory.file());
    store->append("s", {message("a")});
    stranger(directory.file())
        .exec("CREATE INDEX never ON sourced_messages(CASE WHEN position > 1 THEN abs(-9223372036854775807 - 1) END)");
    const std::string text = error_of([&] { store->append("s", several("a", 100)); });
    CHECK(contains(text, "integer overflow"));
    CHECK(text.ends_with(" ..."));
    CHECK(text.size() < 600);
}

TEST_CASE("SQLite file: a copy that there is no room for says so, and nothing of it stays") {
    const Directory directory;
    const auto store = open_at(directory.file());
    for (int i = 0; i < 100; ++i) store->append("s", {message("a", "\"" + std::string(1000, 'p') + "\"")});
    const std::string before = files_of(directory.path());
    rlimit room{};
    REQUIRE(::getrlimit(RLIMIT_FSIZE, &room) == 0);
    const rlimit little{20'000, room.rlim_max};
    const auto told = ::signal(SIGXFSZ, SIG_IGN);
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &little) == 0);
    const std::string text = error_of([&] { store->backup(directory.path() + "/copy.db"); });
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &room) == 0);
    ::signal(SIGXFSZ, told);
    CHECK(contains(text, "reading or writing the file failed (disk I/O error, code "));
    CHECK(files_of(directory.path()) == before);
}

TEST_CASE("SQLite file: opening warns when other connections can damage it, and open_connection's cannot") {
    const Directory directory;
    StoreOptions options;
    std::string warnings;
    options.warn = [&](std::string_view text) { warnings += text; };
    const auto store = open_at(directory.file(), options);
    const bool old = sqlite3_libversion_number() < 3044006;
    if (old) CHECK(warnings.find("use sourced::open_connection") != std::string::npos);

    store->append("s", {message("a", "{}")});
    const auto connection = sourced::open_connection(directory.file());
    CHECK(connection->execAndGet("PRAGMA wal_autocheckpoint").getInt() == 0);
    CHECK(connection->execAndGet("SELECT count(*) FROM sourced_log").getInt() == 1);
    CHECK_THROWS_WITH_AS(
        (void)sourced::open_connection(directory.file("none.db")),
        ("open a connection to '" + directory.file("none.db") +
         "': the file cannot be opened (unable to open database file)").c_str(),
        StoreError);
    CHECK(!std::filesystem::exists(directory.file("none.db")));
}
