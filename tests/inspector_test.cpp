// The inspector's command line: what all commands have in common.
#include <doctest/doctest.h>

#include <map>

#include "inspector.hpp"
#include "sourced.hpp"

using support::inspect;
using support::Ran;

namespace {

/// A file with one stream that has this id.
std::string file_with(const support::TemporaryDirectory& directory, const std::string& stream) {
    const std::string file = directory.file("shop.db");
    sourced::StoreOptions options;
    options.path = file;
    const auto store = sourced::open_store(options);
    store->append(stream, {support::message(sourced::Kind::event, "cart.opened")});
    return file;
}

/// An error of the program as a whole: nothing on stdout, one line on stderr.
void check_refused(const std::vector<std::string>& arguments, int status, const std::string& text) {
    const auto ran = inspect(arguments);
    CAPTURE(arguments.back());
    CHECK(ran.status == status);
    CHECK(ran.out.empty());
    CHECK(ran.err == "sourced: " + text + "\n");
}

/// The commands that a help lists, those of the whole program for an empty path.
std::vector<std::string> commands_in(const std::string& help) {
    std::vector<std::string> commands;
    bool listed = false;
    std::istringstream lines(help);
    for (std::string line; std::getline(lines, line);) {
        if (!line.empty() && line[0] != ' ') {
            for (const char* title : {"Look:", "Watch and steer:", "Run:", "Move and mend:", "More:", "Commands:"}) {
                listed = line == title;
                if (listed) break;
            }
        } else if (listed && line.size() > 2 && line[2] != ' ') {
            commands.push_back(line.substr(2, line.find(' ', 2) - 2));
        }
    }
    return commands;
}

/// Every command with its help, "groups show" too.
std::map<std::string, std::string> all_helps() {
    std::map<std::string, std::string> helps;
    std::vector<std::vector<std::string>> waiting;
    for (const auto& name : commands_in(inspect({"--help"}).out)) waiting.push_back({name});
    while (!waiting.empty()) {
        auto words = std::move(waiting.back());
        waiting.pop_back();
        std::string path;
        for (const auto& word : words) path += (path.empty() ? "" : " ") + word;
        words.insert(words.begin(), "help");
        helps[path] = inspect(words).out;
        words.erase(words.begin());
        for (const auto& name : commands_in(helps[path])) {
            waiting.push_back(words);
            waiting.back().push_back(name);
        }
    }
    return helps;
}

}  // namespace

TEST_CASE("inspector: without a file it says how it is called") {
    check_refused({"stats"}, 2, "no file was named: sourced FILE COMMAND");
    const auto ran = inspect({});
    CHECK(ran.status == 2);
    CHECK(ran.out == inspect({"--help"}).out);
    CHECK(ran.err == "sourced: no file was named: sourced FILE COMMAND\n");
}

TEST_CASE("inspector: a file that is not there is an error, and is not created") {
    const support::TemporaryDirectory directory;
    const std::string missing = directory.file("missing.db");
    check_refused({missing, "stats"}, 1, "there is no file '" + missing + "'");
    check_refused({missing}, 1, "there is no file '" + missing + "'");
    CHECK(std::filesystem::is_empty(directory.path()));
}

TEST_CASE("inspector: a misspelt command is named, with the one that was likely meant") {
    const support::TemporaryDirectory directory;
    const std::string file = file_with(directory, "cart-1");
    check_refused({file, "staats"}, 2, "there is no command 'staats'. Did you mean 'stats'?");
    check_refused({file, "strem"}, 2, "there is no command 'strem'. Did you mean 'streams'?");
    check_refused({file, "elephant"}, 2, "there is no command 'elephant'; see sourced --help");
    check_refused({"staats", file}, 2, "there is no command 'staats'. Did you mean 'stats'?");
    check_refused({"staats"}, 1, "there is no file 'staats'. Did you mean the command 'stats'? sourced FILE stats");
    check_refused({"help", "staats"}, 2, "there is no command 'staats'. Did you mean 'stats'?");
}

TEST_CASE("inspector: a misspelt option or value is named, with the one that was likely meant") {
    const support::TemporaryDirectory directory;
    const std::string file = file_with(directory, "cart-1");
    check_refused({file, "streams", "--limt", "3"}, 2,
                  "there is no option '--limt' for 'streams'. Did you mean '--limit'?");
    check_refused({file, "streams", "-z"}, 2, "there is no option '-z' for 'streams'; see sourced streams --help");
    check_refused({"--ouput", "json", file}, 2, "there is no option '--ouput'. Did you mean '--output'?");
    check_refused({"--limit", "3", file, "streams"}, 2,
                  "there is no option '--limit' before the command: it belongs behind it, like sourced FILE streams "
                  "--limit");
    check_refused({file, "stats", "-o", "jsn"}, 2,
                  "-o is one of text, json, jsonl, not 'jsn'. Did you mean 'json'?");
    check_refused({file, "streams", "--limit"}, 2,
                  "--limit takes a value, N, and none was given; see sourced streams --help");
    check_refused({file, "streams", "--limit", "many"}, 2,
                  "--limit takes a number, not 'many'; see sourced streams --help");
    check_refused({file, "stats", "more"}, 2, "'stats' does not take 'more'; see sourced stats --help");
}

TEST_CASE("inspector: FILE stands before the command or right behind it, options anywhere") {
    const support::TemporaryDirectory directory;
    const std::string file = file_with(directory, "cart-1");
    const auto wanted = inspect({file, "streams", "-o", "jsonl"});
    CHECK(wanted.status == 0);
    CHECK(wanted.out.find(R"("stream":"cart-1")") != std::string::npos);
    CHECK(inspect({"streams", file, "-o", "jsonl"}).out == wanted.out);
    CHECK(inspect({"-o", "jsonl", file, "streams"}).out == wanted.out);
    CHECK(inspect({"-ojsonl", "streams", file}).out == wanted.out);
    CHECK(inspect({"--output=jsonl", "streams", "--limit=5", file}).out == wanted.out);
}

TEST_CASE("inspector: its versions are those of library, SQLite and file format") {
    const auto versions = sourced::versions();
    CHECK(versions.sourced == SOURCED_VERSION);
    const auto ran = inspect({"--version"});
    CHECK(ran.status == 0);
    CHECK(ran.out == "sourced " + versions.sourced + ", SQLite " + versions.sqlite + ", schema " +
                         std::to_string(versions.schema) + "\n");
    CHECK(inspect({"--version", "--json"}).out == "{\"sourced\":\"" + versions.sourced + "\",\"sqlite\":\"" +
                                                      versions.sqlite + "\",\"schema\":" +
                                                      std::to_string(versions.schema) + "}\n");
}

TEST_CASE("inspector: help is the same however it is asked for, and needs no file") {
    for (const std::string name : {"stats", "streams"}) {
        const auto ran = inspect({"help", name});
        CHECK(ran.status == 0);
        CHECK(ran.err.empty());
        CHECK(inspect({name, "--help"}).out == ran.out);
        CHECK(inspect({"missing.db", name, "-h"}).out == ran.out);
    }
    CHECK(inspect({"help"}).out == inspect({"-h"}).out);
}

TEST_CASE("inspector: every command is listed, has a summary, and fits into 80 columns") {
    for (const auto& [command, help] : all_helps()) {
        CAPTURE(command);
        std::istringstream lines(help);
        std::string summary;
        std::getline(lines, summary);
        CHECK(summary.size() > 10);
        CHECK(summary.ends_with('.'));
        bool examples = false;
        for (std::string line; std::getline(lines, line);) {
            examples = examples || line == "Examples:";
            CAPTURE(line);
            CHECK((examples || line.size() <= 80));
        }
    }
}

TEST_CASE("inspector: every command shows examples, and each of them can be run") {
    const support::TemporaryDirectory directory;
    for (const auto& [command, help] : all_helps()) {
        CAPTURE(command);
        const auto begin = help.find("\nExamples:\n");
        REQUIRE(begin != std::string::npos);
        int examples = 0;
        std::istringstream lines(help.substr(begin + 11));
        for (std::string line; std::getline(lines, line);) {
            CAPTURE(line);
            if (line.find_first_not_of(' ') == std::string::npos) continue;
            ++examples;
            REQUIRE(line.starts_with("  sourced "));
            // Its files are missing, which must be all that is wrong.
            const std::string first = line.substr(0, line.find(" | "));
            const std::string shell = "cd '" + directory.path() + "' && PATH='" + support::Program::folder() +
                                      "':$PATH; " + first + " >said 2>&1 </dev/null";
            const int status = std::system(shell.c_str());
            std::ifstream said(directory.file("said"));
            const std::string words{std::istreambuf_iterator<char>(said), {}};
            CHECK_MESSAGE(WEXITSTATUS(status) != 2, words);
            CHECK_MESSAGE(WEXITSTATUS(status) < 126, words);
        }
        CHECK(examples > 0);
    }
}
