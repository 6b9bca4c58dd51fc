// The inspector's command line: what all commands have in common.
#include <doctest/doctest.h>

#include "inspector.hpp"

using support::inspect;

TEST_CASE("inspector: without a file it says how it is called") {
    const auto ran = inspect({"stats"});
    CHECK(ran.status == 2);
    CHECK(ran.out.empty());
    CHECK(ran.err == "sourced: no file was named: sourced FILE COMMAND\n");
}

TEST_CASE("inspector: a file that is not there is an error, and is not created") {
    const support::TemporaryDirectory directory;
    const auto ran = inspect({directory.file("missing.db"), "stats"});
    CHECK(ran.status == 1);
    CHECK(ran.out.empty());
    CHECK(ran.err.find("missing.db'") != std::string::npos);
    CHECK(std::filesystem::is_empty(directory.path()));
}
