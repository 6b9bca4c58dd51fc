// Promises under fire: processes that die, stop and come back late, several programs on one file, checkpoints,
// damaged bits, clocks that jump. See verify() for what "the file is sound" means.
#include <doctest/doctest.h>
#include <sqlite3.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <iterator>
#include <map>
#include <random>
#include <set>
#include <thread>

#include "support.hpp"
#include "vfs_shim.hpp"

using namespace sourced;
using namespace std::chrono_literals;
using support::Child;
using support::message;
using support::TemporaryDirectory;

namespace {

// ---- a file, seen from outside ----

/// What verify() found, one line each; empty when all is well.
std::string violations(const std::string& path, const VerifyOptions& options = {}) {
    std::string text;
    for (const auto& violation : verify(path, options)) text += violation.invariant + ": " + violation.text + "\n";
    return text;
}

/// A connection that is not the engine's.
class Stranger {
public:
    explicit Stranger(const std::string& path, const std::string& vfs = {}) {
        constexpr int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
        if (sqlite3_open_v2(path.c_str(), &handle_, flags, vfs.empty() ? nullptr : vfs.c_str()) != SQLITE_OK) {
            throw std::runtime_error("open " + path);
        }
        execute("PRAGMA wal_autocheckpoint=0");
    }
    Stranger(const Stranger&) = delete;
    Stranger& operator=(const Stranger&) = delete;
    ~Stranger() { sqlite3_close(handle_); }

    int attempt(const std::string& sql) { return sqlite3_exec(handle_, sql.c_str(), nullptr, nullptr, nullptr); }
    void execute(const std::string& sql) {
        if (attempt(sql) != SQLITE_OK) throw std::runtime_error(sql + ": " + sqlite3_errmsg(handle_));
    }
    std::string text(const std::string& sql) {
        std::string found;
        const auto keep = [](void* to, int columns, char** values, char**) {
            if (columns > 0 && values[0]) *static_cast<std::string*>(to) += values[0];
            return 0;
        };
        if (sqlite3_exec(handle_, sql.c_str(), keep, &found, nullptr) != SQLITE_OK) {
            return std::string("error: ") + sqlite3_errmsg(handle_);
        }
        return found;
    }
    void checkpoint() { sqlite3_wal_checkpoint_v2(handle_, "main", SQLITE_CHECKPOINT_PASSIVE, nullptr, nullptr); }

private:
    sqlite3* handle_ = nullptr;
};

// ---- a worker without an App: one event for each command ----

const std::unordered_set<std::string> evolved{"done"};

GroupSpec workers() { return {"workers", {"work"}, {}}; }

/// Decides the open commands of a claim: for each an event in the same stream.
Handled decide(Store& store, const Claim& claim) {
    Handled handled;
    handled.claim = claim;
    handled.acked = claim.acked;
    handled.evolves = &evolved;
    Append part{claim.stream_name, {}, any_seq};
    store.read_stream(claim.stream_name, {}, [&](Message& found) {
        handled.decided_on = found.seq;
        if (found.type == "work" && found.position > claim.acked) {
            part.messages.push_back(message(Kind::event, "done", found.payload, &found));
            handled.acked = found.position;
        }
        return true;
    });
    if (!part.messages.empty()) handled.appends.push_back(std::move(part));
    return handled;
}

/// Claims and handles until there is nothing left; gives how many units were committed.
int work_until_idle(Store& store, std::int64_t group) {
    Exchange step;
    step.group = group;
    step.claims = 16;
    int done = 0;
    while (true) {
        const Exchanged got = store.exchange(step);
        for (const auto& outcome : got.outcomes) done += outcome.result == Outcome::Result::done ? 1 : 0;
        step.finished.clear();
        for (const auto& claim : got.claims) step.finished.push_back(decide(store, claim));
        if (step.finished.empty() && !got.more) return done;
    }
}

void send(Store& store, const std::string& stream, int count) {
    for (int i = 0; i < count; ++i) store.append(stream, {message(Kind::command, "work", std::to_string(i))});
}

/// Every command has one event, and in each stream they follow the order of the commands.
void check_once_and_in_order(Store& store) {
    std::map<std::string, std::vector<std::string>> commands;
    std::map<std::string, std::vector<std::string>> causes;
    store.read_log({}, [&](Message& found) {
        if (found.type == "work") commands[found.stream].push_back(found.id.to_string());
        if (found.type == "done") causes[found.stream].push_back(found.causation.to_string());
        return true;
    });
    CHECK(commands == causes);
}

Claim claim_one(Store& store, std::int64_t group) {
    Exchange step;
    step.group = group;
    step.claims = 1;
    Exchanged got = store.exchange(step);
    REQUIRE(got.claims.size() == 1);
    return got.claims.front();
}

}  // namespace

// ==== Zombies ==================================================================

TEST_CASE("child: zombie" * doctest::skip()) {
    const auto store = open_store({.path = Child::arguments().at(0)});
    const auto group = store->register_group(workers()).id;
    Exchange late;
    late.finished.push_back(decide(*store, claim_one(*store, group)));
    ::raise(SIGSTOP);  // for longer than a claim lives; the parent lets us go on
    const auto outcomes = store->exchange(late).outcomes;
    Child::report(outcomes.at(0).result == Outcome::Result::lost ? "lost" : "written");
    // It is a good worker again, under a name that the others know.
    late.finished = {decide(*store, claim_one(*store, group))};
    Child::report("holds");
    REQUIRE(Child::told());
    CHECK(store->exchange(late).outcomes.at(0).result == Outcome::Result::done);
    work_until_idle(*store, group);
}

TEST_CASE("Zombie: a process stopped past its claim's expiry comes back to nothing, and all is done once, in order") {
    const TemporaryDirectory directory;
    const auto path = directory.file();
    const auto store = open_store({.path = path});
    const auto group = store->register_group(workers()).id;
    for (int round = 0; round < 3; ++round) {
        send(*store, "s", 20);
        Child zombie("zombie", {path});
        zombie.wait_until_stopped();
        CHECK(work_until_idle(*store, group) == 0);  // it is the zombie's
        const auto deadline = std::chrono::steady_clock::now() + 30s;
        while (store->beat(200ms) == 0 && std::chrono::steady_clock::now() < deadline) store->wait_for_others(20ms);
        CHECK(work_until_idle(*store, group) == 1);
        send(*store, "s", 5);
        zombie.signal(SIGCONT);
        CHECK(zombie.line() == "lost");
        CHECK(zombie.line() == "holds");
        CHECK(violations(path) == "");
        zombie.tell("go on");
        CHECK(zombie.wait() == 0);
        CHECK(store->stats().group("workers").lag == 0);
    }
    check_once_and_in_order(*store);
    CHECK(violations(path) == "");
}

TEST_CASE("Zombie: a claim that was taken back is not its first holder's again when the same process claims anew") {
    const auto store = open_store();
    const auto group = store->register_group(workers()).id;
    send(*store, "s", 3);
    Exchange late;
    late.finished.push_back(decide(*store, claim_one(*store, group)));
    store->stop_group("workers", "for a moment");
    store->start_group("workers");
    const Claim second = claim_one(*store, group);
    CHECK(second.fence > late.finished.front().claim.fence);
    CHECK(store->exchange(late).outcomes.at(0).result == Outcome::Result::lost);
    Exchange step;
    step.finished.push_back(decide(*store, second));
    CHECK(store->exchange(step).outcomes.at(0).result == Outcome::Result::done);
    check_once_and_in_order(*store);
}

// ==== Checkpoints ==============================================================

TEST_CASE("WAL reset: the shim's commit in the middle of a bare checkpoint loses what SQLite had committed") {
    if (sqlite3_libversion_number() >= 3044006) return;  // repaired: nothing left to show
    const TemporaryDirectory directory;
    support::VfsShim shim;
    Stranger writer(directory.file());
    writer.execute("PRAGMA journal_mode=WAL; CREATE TABLE t(n INTEGER PRIMARY KEY, x)");
    Stranger checkpointer(directory.file(), shim.name());
    CHECK(checkpointer.text("SELECT count(*) FROM t") == "0");
    for (int i = 0; i < 50; ++i) writer.execute("INSERT INTO t(x) VALUES(randomblob(5000))");
    shim.before_checkpoint = [&] { writer.checkpoint(); };
    shim.in_checkpoint = [&] { writer.execute("INSERT INTO t(x) VALUES(randomblob(5000))"); };
    checkpointer.checkpoint();
    for (int i = 0; i < 20; ++i) writer.attempt("INSERT INTO t(x) VALUES(randomblob(5000))");
    CHECK((checkpointer.text("SELECT count(*) FROM t") != "71" || writer.text("PRAGMA integrity_check") != "ok"));
}

TEST_CASE("WAL reset: a commit in the middle of a checkpoint of the store is refused, and nothing is lost") {
    const TemporaryDirectory directory;
    const auto path = directory.file();
    support::VfsShim shim;
    std::vector<Id> acknowledged;
    int checkpoints = 0;
    int refused = 0;
    {
        auto store = open_store({.path = path, .checkpoint_bytes = 1, .vfs = shim.name()});
        Stranger stranger(path);
        stranger.execute("CREATE TABLE theirs(n INTEGER PRIMARY KEY, x)");
        for (int i = 0; i < 600; ++i) {
            if (!shim.in_checkpoint) {
                // The whole WAL is in the file by the time the store looks at it, so that a commit would start it over.
                shim.before_checkpoint = [&] { stranger.checkpoint(); };
                shim.in_checkpoint = [&] {
                    ++checkpoints;
                    refused += stranger.attempt("INSERT INTO theirs(x) VALUES(randomblob(5000))") == SQLITE_BUSY;
                };
            }
            const std::string text(static_cast<std::size_t>(i) * 7 % 900, 'x');
            const auto sent = message(Kind::event, "done", '"' + text + '"');
            store->append("s" + std::to_string(i % 7), {sent});
            acknowledged.push_back(sent.id);
        }
        shim.before_checkpoint = nullptr;
        shim.in_checkpoint = nullptr;
        CHECK(store->head() == 600);
    }
    CHECK(checkpoints >= 2);
    CHECK(refused == checkpoints);
    CHECK(violations(path, {.acknowledged = acknowledged}) == "");
}

// ==== Damage ===================================================================

namespace {

std::string bytes_of(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}
void write_bytes(const std::string& path, const std::string& bytes) {
    std::ofstream file(path, std::ios::binary | std::ios::trunc);
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

std::string written(const Message& m) {
    std::string text = m.stream + '|' + std::to_string(m.seq) + '|' + std::to_string(m.position) + '|' + m.type + '|';
    text += std::to_string(static_cast<int>(m.kind)) + '|' + std::to_string(m.schema) + '|' + m.id.to_string() + '|';
    text += m.causation.to_string() + '|' + m.correlation.to_string() + '|';
    text += std::to_string(m.recorded_at.time_since_epoch().count()) + '|';
    text += std::to_string(m.occurred_at.time_since_epoch().count()) + '|' + m.metadata.json() + '|' + m.payload + '\n';
    return text;
}

/// Every message, as it is read through the log and through its stream.
std::string everything(const std::string& path) {
    const auto store = open_store({.path = path});
    std::string text;
    std::set<std::string> streams;
    store->read_log({}, [&](Message& found) {
        text += written(found);
        streams.insert(found.stream);
        return true;
    });
    for (const auto& stream : streams) {
        store->read_stream(stream, {}, [&](Message& found) {
            text += written(found);
            return true;
        });
    }
    for (const auto& found : store->log()) {
        text += written(store->find(found.id).value());
        for (const auto& related : store->correlated(found.id)) text += written(related);
    }
    return text;
}

}  // namespace

TEST_CASE("Bit flips: after any one flipped bit verify reports it or every message reads unchanged") {
    const TemporaryDirectory directory;
    {
        const auto store = open_store({.path = directory.file()});
        const auto group = store->register_group(workers()).id;
        for (int i = 0; i < 60; ++i) {
            auto sent = message(Kind::command, "work", "{\"n\":" + std::to_string(i) + "}");
            if (i % 3 == 0) sent.metadata = Metadata::parse("{\"user\":\"u" + std::to_string(i) + "\"}");
            if (i % 4 == 0) sent.occurred_at = Time(std::chrono::hours(i));
            store->append("stream-" + std::to_string(i % 9), {sent});
            if (i == 30) work_until_idle(*store, group);
        }
        work_until_idle(*store, group);
        send(*store, "waits", 2);
    }
    REQUIRE(violations(directory.file()) == "");
    const std::string sound = bytes_of(directory.file());
    const std::string expected = everything(directory.file());
    REQUIRE(sound == bytes_of(directory.file()));

    std::vector<std::size_t> used;  // most of a page is empty
    for (std::size_t i = 0; i < sound.size(); ++i) {
        if (sound[i] != 0) used.push_back(i);
    }
    std::mt19937_64 random(20);
    const int flips = support::sanitized ? 150 : 800;
    int reported = 0;
    for (int i = 0; i < flips; ++i) {
        const auto byte = i % 10 == 0  ? random() % 100
                          : i % 3 == 0 ? random() % sound.size()
                                       : used[random() % used.size()];
        const auto bit = byte * 8 + random() % 8;
        std::string damaged = sound;
        damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
        const auto path = directory.file(std::to_string(i) + ".db");
        write_bytes(path, damaged);
        bool found = true;
        try {
            found = !verify(path, {.limit = 1}).empty();
        } catch (const StoreError&) {
            // It cannot even be opened: as good as told.
        }
        reported += found;
        if (!found) {
            CAPTURE(bit);
            std::string read;
            try {
                read = everything(path);
            } catch (const std::exception& error) {
                read = error.what();
            }
            CHECK(read == expected);
        }
        for (const char* rest : {"", "-wal", "-shm"}) ::unlink((path + rest).c_str());
    }
    CHECK(reported > flips / 3);
}

TEST_CASE("Verify: what is broken is named, with its stream and position") {
    const TemporaryDirectory directory;
    const auto path = directory.file();
    std::vector<Message> sent;
    {
        const auto store = open_store({.path = path});
        const auto group = store->register_group(workers()).id;
        for (int i = 0; i < 4; ++i) {
            sent.push_back(message(Kind::command, "work"));
            store->append(i % 2 == 0 ? "a" : "b", {sent.back()});
        }
        work_until_idle(*store, group);
        store->append("a", {message(Kind::command, "work")});
        // Positions: a 1 and 3, b 2 and 4, then their events, a 5 and 6, b 7 and 8; a 9 waits.
        REQUIRE(store->stream("a").back().position == 9);
        REQUIRE(store->stream("a").at(3).position == 6);
    }
    // Each case breaks a copy, without the triggers that would refuse it.
    int copy = 0;
    const auto broken = [&](const std::string& sql) {
        const auto file = directory.file(std::to_string(++copy) + ".db");
        write_bytes(file, bytes_of(path));
        Stranger stranger(file);
        std::string triggers;
        for (const char* name : {"no_delete", "no_update", "no_replace"}) {
            const std::string trigger = std::string("sourced_messages_") + name;
            triggers += stranger.text("SELECT sql FROM sqlite_master WHERE name = '" + trigger + "'") + ";";
            stranger.execute("DROP TRIGGER " + trigger);
        }
        stranger.execute(sql + ";" + triggers);
        return file;
    };
    const auto found = [](const std::string& file, const std::string& invariant) {
        for (auto& violation : verify(file)) {
            if (violation.invariant == invariant) return violation;
        }
        return Violation{"none", violations(file)};
    };
    const auto clean = broken("SELECT 1");
    CHECK(violations(clean) == "");

    const auto check = [&](const char* invariant, const std::string& sql, const char* stream, std::int64_t position) {
        const auto violation = found(broken(sql), invariant);
        CAPTURE(sql);
        CHECK_MESSAGE(violation.invariant == invariant, violation.text);
        CHECK(violation.stream == stream);
        CHECK(violation.position == position);
    };
    check("I1", "UPDATE sourced_messages SET seq = 9 WHERE position = 9", "a", 9);
    check("I1", "UPDATE sourced_messages SET position = 99 WHERE position = 9", "a", 99);
    check("I1", "UPDATE sourced_messages SET recorded_at = 1 WHERE position = 2", "b", 2);
    check("I2", "UPDATE sourced_streams SET seq = 77 WHERE name = 'b'", "b", 8);
    check("I3", "UPDATE sourced_messages SET causation = randomblob(16) WHERE position = 6", "a", 6);
    check("I3", "UPDATE sourced_messages SET causation = (SELECT id FROM sourced_messages WHERE position = 8) "
                "WHERE position = 2", "b", 2);
    check("I3", "UPDATE sourced_messages SET correlation = randomblob(16) WHERE position = 6", "a", 6);
    check("I4", "UPDATE sourced_offsets SET acked = 1000, known = 1000, highest = 1000 "
                "WHERE stream = (SELECT id FROM sourced_streams WHERE name = 'b')", "b", 0);
    check("I4", "DELETE FROM sourced_offsets WHERE stream = (SELECT id FROM sourced_streams WHERE name = 'b')", "b", 2);
    check("I4", "UPDATE sourced_offsets SET acked = 1, known = 1 WHERE stream = (SELECT id FROM sourced_streams "
                "WHERE name = 'a')", "a", 3);
    check("I5", "UPDATE sourced_messages SET causation = (SELECT causation FROM sourced_messages WHERE position = 5), "
                "recorded_at = recorded_at + 1 WHERE position = 6", "a", 6);
    check("I7", "UPDATE sourced_messages SET causation = (SELECT id FROM sourced_messages WHERE position = 3) WHERE "
                "position = 5; UPDATE sourced_messages SET causation = (SELECT id FROM sourced_messages WHERE "
                "position = 1) WHERE position = 6", "a", 6);
    check("I8", "UPDATE sourced_offsets SET owner = 5 WHERE stream = (SELECT id FROM sourced_streams WHERE name = 'b')",
          "b", 0);
    check("I8", "UPDATE sourced_offsets SET state = 2, owner = 5 "
                "WHERE stream = (SELECT id FROM sourced_streams WHERE name = 'b')", "b", 0);
    check("I9", "INSERT INTO sourced_scheduled SELECT 1, 1, 'b', type, 1, id, NULL, NULL, NULL, NULL, payload "
                "FROM sourced_messages WHERE position = 2", "b", 2);
    check("I11", "UPDATE sourced_messages SET payload = '{\"n\":1}' WHERE position = 2", "b", 2);
    check("I11", "UPDATE sourced_types SET kind = 1 WHERE name = 'work'", "a", 1);
    check("I11", "DROP INDEX sourced_offsets_ready", "", 0);
    check("I12", "INSERT INTO sourced_workers VALUES(5, 1, '', '', 0, 0); "
                 "UPDATE sourced_groups SET status = 'stopped'; "
                 "UPDATE sourced_offsets SET state = 2, owner = 5 WHERE stream = (SELECT id FROM sourced_streams "
                 "WHERE name = 'b')", "b", 0);

    std::vector<Id> acknowledged{sent[0].id};
    CHECK(violations(path, {.acknowledged = acknowledged}) == "");
    const Id stranger = Id::make();
    acknowledged.push_back(stranger);
    const auto lost = verify(path, {.acknowledged = acknowledged});
    REQUIRE(lost.size() == 1);
    CHECK(lost.front().invariant == "I10");
    CHECK(lost.front().text.find(stranger.to_string()) != std::string::npos);
}

TEST_CASE("Verify: whoever is told how far it is can end it") {
    const TemporaryDirectory directory;
    const auto store = open_store({.path = directory.file()});
    send(*store, "s", 10);
    std::vector<Duration> told;
    CHECK(violations(directory.file(), {.integrity_progress = [&](Duration running) { told.push_back(running); }}) ==
          "");
    REQUIRE(!told.empty());
    CHECK(told.back() > Duration(0));
    const auto end = [] { throw std::logic_error("enough"); };
    CHECK_THROWS_WITH_AS((void)violations(directory.file(), {.integrity_progress = [&](Duration) { end(); }}), "enough",
                         std::logic_error);
    CHECK_THROWS_WITH_AS(
        (void)violations(directory.file(), {.progress = [&](std::int64_t, std::int64_t) { end(); }}), "enough",
        std::logic_error);
    CHECK(violations(directory.file()) == "");
}

TEST_CASE("Verify: a file that is not there or holds nothing of the engine is an error, and looking changes nothing") {
    const TemporaryDirectory directory;
    CHECK_THROWS_AS(static_cast<void>(verify(directory.file("none.db"))), StoreError);
    Stranger(directory.file("other.db")).execute("CREATE TABLE t(n)");
    CHECK_THROWS_AS(static_cast<void>(verify(directory.file("other.db"))), StoreError);

    {
        const auto store = open_store({.path = directory.file()});
        send(*store, "s", 10);
        const auto before = bytes_of(directory.file());
        const auto wal = bytes_of(directory.file() + "-wal");
        std::int64_t total = 0;
        CHECK(violations(directory.file(), {.progress = [&](std::int64_t done, std::int64_t all) {
                  total = done == all ? all : 0;
              }}) == "");
        CHECK(total == 10);
        CHECK(bytes_of(directory.file()) == before);
        CHECK(bytes_of(directory.file() + "-wal") == wal);
    }
    // Closed: all of it is in the file.
    const auto before = bytes_of(directory.file());
    CHECK(violations(directory.file()) == "");
    CHECK(bytes_of(directory.file()) == before);
}

// ==== Several programs =========================================================

TEST_CASE("Two versions of a program on one file miss nothing") {
    const TemporaryDirectory directory;
    const auto old_version = open_store({.path = directory.file()});
    const auto new_version = open_store({.path = directory.file()});
    const auto group = old_version->register_group({"g", {"A"}, {}}).id;
    Exchange ask;
    ask.group = group;
    ask.claims = 4;
    old_version->append("s", {message(Kind::event, "A")});
    const auto held = old_version->exchange(ask).claims;  // the old version is at work when the new one comes
    REQUIRE(held.size() == 1);

    CHECK(new_version->register_group({"g", {"A", "B"}, {}}).id == group);
    old_version->append("s", {message(Kind::event, "B"), message(Kind::event, "A")});
    new_version->append("t", {message(Kind::event, "B")});

    Exchange late = ask;
    late.finished.push_back({.claim = held.front(), .acked = 3});  // it has seen A and A, and knows nothing of B
    const auto answer = old_version->exchange(late);
    CHECK(answer.outcomes.at(0).result == Outcome::Result::lost);
    CHECK_FALSE(answer.active);
    CHECK(answer.claims.empty());
    CHECK_FALSE(old_version->claim_stream(group, "t"));

    // It declares its types again when it is restarted: the stored set does not shrink.
    CHECK(old_version->register_group({"g", {"A"}, {}}).id == group);
    CHECK_FALSE(old_version->exchange(ask).active);

    std::vector<std::int64_t> delivered;
    const auto got = new_version->exchange(ask);
    for (const auto& claim : got.claims) {
        new_version->read_stream(claim.stream_name, {}, [&](Message& found) {
            if (found.position > claim.acked) delivered.push_back(found.position);
            return true;
        });
    }
    std::sort(delivered.begin(), delivered.end());
    CHECK(delivered == std::vector<std::int64_t>{1, 2, 3, 4});
    CHECK(violations(directory.file()) == "");
}

namespace {

constexpr int writers = 8;
constexpr int writes = 150;
constexpr int fresh_files = 12;

}  // namespace

TEST_CASE("child: writer" * doctest::skip()) {
    const auto arguments = Child::arguments();
    const std::string& self = arguments.at(1);
    for (int i = 0; i < fresh_files; ++i) {  // the file does not even exist yet
        Child::report("ready");
        REQUIRE(Child::told());
        (void)open_store({.path = arguments.at(0) + std::to_string(i)});
    }
    Child::report("ready");
    REQUIRE(Child::told());
    const auto store = open_store({.path = arguments.at(0), .busy_timeout = 30s, .checkpoint_bytes = 1 << 18});
    const auto group = store->register_group(workers()).id;
    int conflicts = 0;
    for (int i = 0; i < writes; ++i) {
        store->append("own-" + self, {message(Kind::event, "noted")}, expect_seq(i));
        store->append("shared", {message(Kind::command, "work")});
        while (true) {
            try {
                const auto seq = store->stream_seq("fought-for");
                store->append("fought-for", {message(Kind::event, "noted")}, expect_seq(seq));
                break;
            } catch (const Conflict&) {
                ++conflicts;
            }
        }
        if (i % 10 == 0) work_until_idle(*store, group);
        if (i % 50 == 0) store->beat(60s);
    }
    Child::report("done");
    REQUIRE(Child::told());  // the others have written everything: what is left is for whoever comes first
    while (store->stats().group("workers").lag > 0) {
        if (work_until_idle(*store, group) == 0) store->wait_for_others(10ms);
    }
}

TEST_CASE("Eight processes: they create the file, write, checkpoint and handle at once, and no error escapes") {
    const TemporaryDirectory directory;
    const auto path = directory.file();
    std::vector<std::unique_ptr<Child>> children;
    for (int i = 0; i < writers; ++i) {
        children.push_back(std::make_unique<Child>("writer", std::vector{path, std::to_string(i)}));
    }
    for (int i = 0; i < fresh_files + 1; ++i) {
        for (auto& child : children) REQUIRE(child->line() == "ready");
        for (auto& child : children) child->tell("go");
    }
    for (auto& child : children) CHECK(child->line() == "done");
    for (auto& child : children) child->tell("finish");
    for (auto& child : children) CHECK(child->wait() == 0);

    const auto store = open_store({.path = path});
    CHECK(store->stream_seq("fought-for") == writers * writes);
    CHECK(store->stream_seq("shared") == 2 * writers * writes);
    for (int i = 0; i < writers; ++i) CHECK(store->stream_seq("own-" + std::to_string(i)) == writes);
    CHECK(store->stats().group("workers").lag == 0);
    check_once_and_in_order(*store);
    CHECK(violations(path) == "");
}

// ==== Clocks ===================================================================

TEST_CASE("Clock: an hour back or a day ahead, nothing is early, nothing is lost and no claim is taken or stuck") {
    const TemporaryDirectory directory;
    const auto start = Time(std::chrono::hours(24 * 365 * 50));
    Time now = start;
    Time other_now = start;
    const auto store = open_store({.path = directory.file(), .clock = [&] { return now; }});
    const auto other = open_store({.path = directory.file(), .clock = [&] { return other_now; }});
    const auto group = store->register_group(workers()).id;
    (void)other->register_group(workers());

    send(*store, "s", 2);
    auto due = message(Kind::command, "work");
    due.stream = "s";
    store->schedule({{start + 10min, due}});

    SUBCASE("an hour back") {
        now = other_now = start - 1h;
        send(*store, "s", 1);
        CHECK(store->log().back().recorded_at == start);  // times in the log never go back
        CHECK(store->promote(now) == 0);
        now = start + 10min - 1us;
        CHECK(store->promote(now) == 0);
        now = start + 10min;
        CHECK(store->promote(now) == 1);
    }
    SUBCASE("a day ahead") {
        now = start + 24h;
        CHECK(store->promote(now) == 1);  // the time it was given has come
        CHECK(store->promote(now) == 0);
        now = start;
        send(*store, "s", 1);
        CHECK(store->log().back().recorded_at == start + 24h);
    }
    // Claims go by beats and steady clocks: a wall clock that jumps takes none away and keeps none alive.
    const Claim held = claim_one(*store, group);
    other_now = start + 48h;
    CHECK(other->beat(1h) == 0);
    CHECK(store->beat(1h) == 0);
    CHECK(other->beat(1h) == 0);
    other_now = start - 48h;
    CHECK(other->beat(0us) == 1);  // silent for the claim's time, which is none here
    CHECK(work_until_idle(*other, group) >= 1);
    Exchange late;
    late.finished.push_back(decide(*store, held));
    CHECK(store->exchange(late).outcomes.at(0).result == Outcome::Result::lost);
    CHECK(store->stream_seq("s") == 8);
    CHECK(store->stats().scheduled == 0);
    CHECK(store->stats().group("workers").lag == 0);
    check_once_and_in_order(*store);
    CHECK(violations(directory.file()) == "");
}

TEST_CASE("Clock: a retry waits for its time, and a clock that jumps ahead brings it at once") {
    Time now = Time(std::chrono::hours(24 * 365 * 50));
    const auto store = open_store({.clock = [&] { return now; }});
    const auto group = store->register_group(workers()).id;
    send(*store, "s", 1);
    Exchange step;
    step.group = group;
    step.claims = 4;
    Handled failed{.claim = claim_one(*store, group), .acked = 0};
    failed.failure = Failure{1, "std::runtime_error", "no", sourced::Resolution::retry(now + 4s)};
    step.finished.push_back(failed);
    CHECK(store->exchange(step).claims.empty());
    step.finished.clear();
    now -= 1h;
    CHECK(store->exchange(step).claims.empty());
    now += 25h;
    CHECK(store->exchange(step).claims.size() == 1);
}

// ==== Storms ===================================================================

namespace {

struct Deposit {
    std::int64_t amount = 0;

    SOURCED_COMMAND("account.deposit", amount)
};
struct Deposited {
    std::int64_t amount = 0;

    SOURCED_EVENT("account.deposited", amount)
};
struct Notify {
    std::string account;

    SOURCED_COMMAND("notice.notify", account)
};
struct Notified {
    std::string account;

    SOURCED_EVENT("notice.notified", account)
};

struct AccountState {
    std::int64_t count = 0;
};

/// One event for each deposit, and a notice for every fourth amount.
struct Account : Actor<AccountState> {
    Account() : Actor("account") {
        command([](const AccountState&, const Deposit& deposit) { return Deposited{deposit.amount}; });
        event([](AccountState& account, const Deposited&) { ++account.count; });
        reaction([](const Deposited& deposited) -> std::optional<Dispatch> {
            if (deposited.amount % 4 != 0) return std::nullopt;
            const auto stream = "notices-" + std::to_string(deposited.amount % 12);
            return dispatch(Notify{std::to_string(deposited.amount)}).to(stream);
        });
    }
};

struct Notices : Actor<std::monostate> {
    Notices() : Actor("notices") {
        command([](const std::monostate&, const Notify& notify) { return Notified{notify.account}; });
    }
};

struct Total {
    std::int64_t count = 0;
    std::int64_t sum = 0;
};

struct Totals : Projector<Total> {
    Totals() : Projector("totals") {
        state([](std::string_view id, Reader& db) {
            const auto row = db.row("SELECT count, sum FROM totals WHERE account = ?", id);
            return row ? Total{row->integer(0), row->integer(1)} : Total{};
        });
        event([](Total& total, const Deposited& deposited) {
            ++total.count;
            total.sum += deposited.amount;
        });
        sync([](const Total& total, std::string_view id, Transaction& db) {
            db.execute("INSERT OR REPLACE INTO totals VALUES(?, ?, ?)", id, total.count, total.sum);
        });
        on_install([](Transaction& db) {
            db.execute("CREATE TABLE IF NOT EXISTS totals(account TEXT PRIMARY KEY, count INTEGER, sum INTEGER)");
        });
    }
};

constexpr auto storm_claim_time = 150ms;
constexpr int accounts = 24;

Options storm_options(const std::string& path) {
    Options options;
    options.path = path;
    options.claim_time = storm_claim_time;
    options.claim_count = 4;
    options.batch_size = 8;
    options.busy_timeout = 30s;
    options.checkpoint_bytes = 1 << 18;  // so that many die in the middle of a checkpoint
    return options;
}

void add_all(App& app) {
    app.add<Account>();
    app.add<Notices>();
    app.add<Totals>();
}

/// What was acknowledged, outside the file: one id a line, each written at once, so that it survives its writer.
class Ledger {
public:
    explicit Ledger(const std::string& path)
        : file_(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)), path_(path) {}
    Ledger(const Ledger&) = delete;
    Ledger& operator=(const Ledger&) = delete;
    ~Ledger() { ::close(file_); }

    void note(const Id& id) {
        const std::string line = id.to_string() + '\n';
        REQUIRE(::write(file_, line.data(), line.size()) == static_cast<ssize_t>(line.size()));
    }
    [[nodiscard]] std::vector<Id> ids() const {
        std::vector<Id> ids;
        std::ifstream file(path_);
        for (std::string line; std::getline(file, line);) ids.push_back(Id::parse(line));
        return ids;
    }

private:
    int file_;
    std::string path_;
};

void deposit(App& app, Ledger& ledger, std::mt19937_64& random) {
    const auto stream = "account-" + std::to_string(random() % accounts);
    ledger.note(app.dispatch(stream, Deposit{static_cast<std::int64_t>(random() % 1000)}).id);
}

/// Processes that deposit and handle at once, on one file.
class Storm {
public:
    explicit Storm(std::uint64_t seed) : random_(seed), ledger_(directory_.file("ledger")) {}

    void start(std::size_t processes) {
        while (children_.size() < processes) children_.push_back(spawn());
    }
    [[nodiscard]] Child& any() { return *children_[random_() % children_.size()]; }
    /// Kills one at random, whatever it is doing, and starts another.
    void kill_one() {
        auto& child = children_[random_() % children_.size()];
        child.reset();
        child = spawn();
    }
    void kill_all() { children_.clear(); }

    /// Deposits from here too, for a random time.
    void deposit_for(std::chrono::milliseconds at_most) {
        if (!app_) {
            app_ = std::make_unique<App>(storm_options(path()));
            add_all(*app_);
        }
        const auto wait = std::chrono::microseconds(random_() % static_cast<std::uint64_t>(at_most / 1us));
        const auto until = std::chrono::steady_clock::now() + wait;
        while (std::chrono::steady_clock::now() < until) {
            deposit(*app_, ledger_, random_);
            ::poll(nullptr, 0, 2);
        }
    }

    /// After the last fault: all is handled in time, and nothing is lost, doubled or out of order.
    void check() {
        app_.reset();
        const auto begun = std::chrono::steady_clock::now();
        {
            App app(storm_options(path()));
            add_all(app);
            app.start(2);
            const auto longest = (storm_claim_time + 2s) * (support::sanitized ? 10 : 1);
            CHECK(app.wait_until_idle(longest));
            CHECK(std::chrono::steady_clock::now() - begun < longest);
            app.stop();
            for (const auto& group : app.stats().groups) {
                CAPTURE(group.name);
                CHECK(group.lag == 0);
                CHECK(group.active);
                CHECK(group.reason == "");
            }
        }
        const auto acknowledged = ledger_.ids();
        MESSAGE(acknowledged.size() << " commands acknowledged");
        CHECK(acknowledged.size() > 100);
        CHECK(violations(path(), {.acknowledged = acknowledged}) == "");

        const auto store = open_store({.path = path()});
        std::map<std::string, std::vector<std::string>> commands;  // by stream
        std::map<std::string, std::vector<std::string>> outcomes;
        std::map<std::string, std::string> payloads;
        std::vector<std::string> to_notify;
        std::vector<std::string> notified;
        std::map<std::string, Total> folded;
        store->read_log({}, [&](Message& found) {
            if (found.kind == Kind::command) {
                commands[found.stream].push_back(found.id.to_string());
                payloads[found.id.to_string()] = found.payload;
            } else {
                outcomes[found.stream].push_back(found.causation.to_string());
                CHECK(payloads[found.causation.to_string()] == found.payload);
            }
            if (found.type == "account.deposited") {
                const auto amount = found.as<Deposited>().amount;
                Total& total = folded[found.stream];
                ++total.count;
                total.sum += amount;
                if (amount % 4 == 0) to_notify.push_back(found.id.to_string());
            }
            if (found.type == "notice.notify") notified.push_back(found.causation.to_string());
            return true;
        });
        CHECK(commands == outcomes);  // one each, in the order of the commands
        std::sort(to_notify.begin(), to_notify.end());
        std::sort(notified.begin(), notified.end());
        CHECK(to_notify == notified);
        store->read([&](Reader& db) {
            const auto rows = db.query("SELECT account, count, sum FROM totals");
            CHECK(rows.size() == folded.size());
            for (const auto& row : rows) {
                CHECK(row.integer(1) == folded[row.text(0)].count);
                CHECK(row.integer(2) == folded[row.text(0)].sum);
            }
        });
    }

    [[nodiscard]] std::string path() const { return directory_.file(); }

private:
    std::unique_ptr<Child> spawn() {
        const std::vector<std::string> arguments{path(), directory_.file("ledger"), std::to_string(random_())};
        return std::make_unique<Child>("storm", arguments);
    }

    std::mt19937_64 random_;
    TemporaryDirectory directory_;
    Ledger ledger_;
    std::vector<std::unique_ptr<Child>> children_;
    std::unique_ptr<App> app_;
};

}  // namespace

TEST_CASE("child: storm" * doctest::skip()) {
    const auto arguments = Child::arguments();
    App app(storm_options(arguments.at(0)));
    add_all(app);
    app.start(2);
    Ledger ledger(arguments.at(1));
    std::mt19937_64 random(std::stoull(arguments.at(2)));
    pollfd parent{STDIN_FILENO, POLLIN, 0};
    // Until we are killed, or the parent has gone.
    while (::poll(&parent, 1, static_cast<int>(random() % 6)) == 0) deposit(app, ledger, random);
}

TEST_CASE("Kill storm: processes die at any moment, and every acknowledged command has its effects exactly once") {
    const char* given = std::getenv("SOURCED_STORM_SECONDS");
    const auto duration = std::chrono::seconds(given && *given ? std::stoi(given) : 20);
    Storm storm(330);
    storm.start(6);
    const auto wanted = duration.count() * (support::sanitized ? 2 : 15);
    int kills = 0;
    const auto begun = std::chrono::steady_clock::now();
    const auto past = [&](auto time) { return std::chrono::steady_clock::now() > begun + time; };
    while (!past(duration) || (kills < wanted && !past(3 * duration))) {  // a busy machine gets more time
        storm.deposit_for(70ms);
        storm.kill_one();
        ++kills;
    }
    storm.kill_all();
    MESSAGE(kills << " kills in " << duration.count() << " s");
    CHECK(kills >= wanted);
    storm.check();
}

TEST_CASE("Zombie storm: processes stand still past their claims' expiry, and nothing is doubled or out of order") {
    Storm storm(3836);
    storm.start(3);
    for (int i = 0; i < 10; ++i) {
        Child& zombie = storm.any();
        storm.deposit_for(100ms);
        // It may stand still in the middle of a write, and nobody else can write then: the others wait, and so do we.
        zombie.signal(SIGSTOP);
        ::poll(nullptr, 0, static_cast<int>(2 * storm_claim_time / 1ms));
        zombie.signal(SIGCONT);
    }
    storm.kill_all();
    storm.check();
}

namespace {

/// Answers each deposit twenty seconds later.
struct SlowAccount : Actor<std::monostate> {
    SlowAccount() : Actor("account") {
        command([](const std::monostate&, const Deposit& deposit) { return Deposited{deposit.amount}; });
        reaction([](const Deposited&) { return dispatch(Notify{}).to("notices").in(20s); });
    }
};

}  // namespace

TEST_CASE("Clock: an App whose clock jumps an hour back and a day ahead sends nothing early, late or twice") {
    const TemporaryDirectory directory;
    const auto start = Time(std::chrono::hours(24 * 365 * 50));
    Time now = start;
    Options options;
    options.path = directory.file();
    options.clock = [&] { return now; };
    App app(options);
    app.add<SlowAccount>();
    app.add<Notices>();
    const auto notified = [&] {
        app.run_until_idle();
        return app.store().log({.types = {"notice.notified"}}).size();
    };
    app.dispatch("a", Deposit{1});
    CHECK(notified() == 0);
    now = start - 1h;
    app.dispatch("a", Deposit{2});  // its answer is due 20 s later by the same clock, whatever time the log shows
    CHECK(notified() == 0);
    now = start + 20s - 1us;
    CHECK(notified() == 1);
    now = start + 20s;
    CHECK(notified() == 2);
    now = start + 24h;
    app.dispatch("a", Deposit{3});
    CHECK(notified() == 2);
    now = start + 48h;
    CHECK(notified() == 3);
    now = start;
    app.dispatch("a", Deposit{4});
    CHECK(notified() == 3);
    now = start + 72h;
    CHECK(notified() == 4);
    for (const auto& group : app.stats().groups) CHECK(group.lag == 0);
    CHECK(violations(directory.file()) == "");
}
