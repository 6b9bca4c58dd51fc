// Messages that wait for their time, those that come again and again, and files of older versions.
#include <SQLiteCpp/SQLiteCpp.h>
#include <doctest/doctest.h>
#include <sourced.hpp>

#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "support.hpp"

namespace schedule_test {

using namespace sourced;
using namespace std::chrono_literals;
using Directory = support::TemporaryDirectory;

struct Add {
    std::string name;
    SOURCED_COMMAND("list.add", name)
};
struct Added {
    std::string name;
    SOURCED_EVENT("list.added", name)
};
struct List : Actor<int> {
    List() : Actor("list") {
        command([](int, const Add& add) { return Added{add.name}; });
        event([](int& count, const Added&) { ++count; });
        reaction([](const Added& added) -> std::optional<Dispatch> {
            if (added.name != "apple") return std::nullopt;
            return dispatch(Add{"later"}).in(24h);
        });
    }
};
struct Names : Projection<int> {
    Names() : Projection("names") {
        event([](int& count, const Added&) { ++count; });
    }
};

std::string text_of(const std::string& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
}

std::string problems_of(const std::string& path) {
    std::string text;
    for (const auto& violation : verify(path)) text += violation.invariant + ": " + violation.text + '\n';
    return text;
}

// ==== Files of version 1 =======================================================

struct OldFile {
    OldFile() {
        SQLite::Database file(directory.file(), SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE);
        file.exec("PRAGMA journal_mode=WAL");
        file.exec(text_of(SOURCED_ROOT "/tests/version_1.sql"));
    }
    [[nodiscard]] std::int64_t version() const {
        SQLite::Database file(directory.file());
        return file.execAndGet("SELECT value FROM sourced_meta WHERE key = 'schema_version'").getInt64();
    }
    Directory directory{};
};

TEST_CASE("Migration: a file of version 1 goes on where it was, with its messages, offsets and schedule") {
    const OldFile old;
    CHECK(old.version() == 1);
    CHECK(problems_of(old.directory.file()) == "");  // looking at it does not change it
    CHECK(old.version() == 1);

    testing::Clock clock;
    clock.advance(10s);
    App app({.path = old.directory.file(), .clock = clock});
    app.add<List>();
    const auto& names = app.add<Names>();
    CHECK(app.load<List>("list-1").state == 1);
    CHECK(app.store().scheduled().size() == 1);
    CHECK(app.stats().group("names").newest == 4);
    CHECK(app.run_until_idle() == 3);  // only what was open: the command, its event twice
    CHECK(app.load<List>("list-1").state == 2);
    CHECK(names.get(app.store(), "list-1") == 2);
    clock.advance(24h);
    app.run_until_idle();
    CHECK(app.load<List>("list-1").state == 3);
    CHECK(app.history("list-1").back().correlation == app.history("list-1").front().id);
    CHECK(old.version() == 2);
    CHECK(problems_of(old.directory.file()) == "");
}

TEST_CASE("Migration: it is done whole or not at all, and once between processes") {
    const OldFile old;
    SUBCASE("what stands in its way leaves the file as it was") {
        SQLite::Database(old.directory.file(), SQLite::OPEN_READWRITE).exec("CREATE TABLE sourced_recurring(x)");
        CHECK_THROWS_AS(App({.path = old.directory.file()}), StoreError);
        CHECK(old.version() == 1);
        SQLite::Database(old.directory.file(), SQLite::OPEN_READWRITE).exec("DROP TABLE sourced_recurring");
    }
    SUBCASE("a second process that opens it finds the new version") {
        const App first({.path = old.directory.file()});
        CHECK(old.version() == 2);
    }
    App app({.path = old.directory.file()});
    CHECK(app.store().head() == 5);
    CHECK(old.version() == 2);
    CHECK(problems_of(old.directory.file()) == "");
}

TEST_CASE("Migration: a newer file is refused and left alone") {
    const OldFile old;
    SQLite::Database(old.directory.file(), SQLite::OPEN_READWRITE)
        .exec("UPDATE sourced_meta SET value = 3 WHERE key = 'schema_version'");
    const std::string wanted = "open '" + old.directory.file() +
                               "': it has schema version 3, this program knows 2: use a newer version of the program";
    CHECK_THROWS_WITH_AS(App({.path = old.directory.file()}), wanted.c_str(), StoreError);
    CHECK(old.version() == 3);
}

}  // namespace schedule_test
