// The inspector's command line: what all commands have in common.
#include <doctest/doctest.h>

#include <map>

#include "inspector.hpp"
#include "sourced.hpp"

using support::inspect;
using support::Ran;
using support::Terminal;

namespace {

const doctest::skip at_terminal(!support::has_terminals());

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

/// Of a line for the shell: what stands before the first pipe, redirection or remark.
std::string first_call(const std::string& line) {
    char quote = 0;
    for (std::size_t i = 0; i < line.size(); ++i) {
        if (quote) quote = line[i] == quote ? '\0' : quote;
        else if (line[i] == '\'' || line[i] == '"') quote = line[i];
        else if (std::string("|<>#").find(line[i]) != std::string::npos) return line.substr(0, i);
    }
    return line;
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
    check_refused({file, "streans"}, 2, "there is no command 'streans'. Did you mean 'streams'?");
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
                  "there is no option '--limit' before the command: it belongs behind it, sourced FILE COMMAND "
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

TEST_CASE("inspector: a stream may be called like a command or an option, and a value may begin with a dash") {
    for (const std::string stream : {"stats", "help", "--limit", "-x", "-5"}) {
        CAPTURE(stream);
        const support::TemporaryDirectory inner;
        const std::string file = file_with(inner, stream);
        const std::string seen = "\"stream\":\"" + stream + "\"";
        CHECK(inspect({file, "stream", "-o", "jsonl", "--", stream}).out.find(seen) != std::string::npos);
        CHECK(inspect({file, "log", "-o", "jsonl", "--stream", stream}).out.find(seen) != std::string::npos);
        CHECK(inspect({file, "log", "-o", "jsonl", "--stream=" + stream}).out.find(seen) != std::string::npos);
        if (stream[0] == '-' && stream != "-5") continue;
        CHECK(inspect({file, "stream", stream, "-o", "jsonl"}).out.find(seen) != std::string::npos);
        CHECK(inspect({"stream", file, stream, "-o", "jsonl"}).out.find(seen) != std::string::npos);
    }
    const support::TemporaryDirectory inner;
    const std::string file = file_with(inner, "cart-1");
    CHECK(inspect({file, "log", "--since", "-5m", "-o", "jsonl"}).out.find("cart-1") != std::string::npos);
    CHECK(inspect({file, "log", "--since=-5m", "-o", "jsonl"}).out.find("cart-1") != std::string::npos);
    CHECK(inspect({file, "log", "--until", "-5m", "-o", "jsonl"}).out.empty());
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
        CHECK(inspect({"missing.db", "help", name}).out == ran.out);
    }
    CHECK(inspect({"help"}).out == inspect({"-h"}).out);
}

TEST_CASE("inspector: every command is listed, has a summary, and fits into 100 columns") {
    for (const auto& each : all_helps()) {
        const std::string& help = each.second;
        CAPTURE(each.first);
        std::istringstream lines(help);
        std::string summary;
        std::getline(lines, summary);
        CHECK(summary.size() > 10);
        CHECK(summary.ends_with('.'));
        // Commands are not broken.
        const auto examples = help.rfind("\nExamples:\n");
        bool lonely = false;  // one word, in the middle of a paragraph
        while (std::getline(lines, summary) && static_cast<std::size_t>(lines.tellg()) < examples) {
            CAPTURE(summary);
            CHECK(summary.size() <= 100);
            CHECK_FALSE((lonely && !summary.empty()));
            lonely = !summary.empty() && summary.find(' ') == std::string::npos && !summary.ends_with(':');
        }
    }
}

TEST_CASE("inspector: every command shows examples, and each of them can be run") {
    const support::TemporaryDirectory directory;
    for (const auto& each : all_helps()) {
        const std::string& help = each.second;
        CAPTURE(each.first);
        const auto begin = help.rfind("\nExamples:\n");
        REQUIRE(begin != std::string::npos);
        int examples = 0;
        std::istringstream lines(help.substr(begin + 11));
        for (std::string line; std::getline(lines, line);) {
            CAPTURE(line);
            if (line.find_first_not_of(' ') == std::string::npos) continue;
            ++examples;
            const auto call = line.find(line.starts_with("  sourced ") ? "sourced " : "| sourced ");
            REQUIRE(call != std::string::npos);
            // Its files are missing, which must be all that is wrong.
            const std::string first = first_call(line.substr(line.find("sourced ", call)));
            const std::string shell = "cd '" + directory.path() + "' && PATH='" + support::Program::folder() +
                                      "':$PATH; " + first + " >said 2>&1 </dev/null";
            const int status = std::system(shell.c_str());
            std::ifstream said(directory.file("said"));
            const std::string words{std::istreambuf_iterator<char>(said), {}};
            for (const char* wrong : {"there is no option", "there is no command", "does not take", " needs "}) {
                CHECK_MESSAGE(words.find(wrong) == std::string::npos, words);
            }
            // A missing library is wrong usage; and check has a 2 of its own.
            const bool excused = line.find("--app") != std::string::npos || words.starts_with("SOURCED CRITICAL");
            CHECK_MESSAGE((WEXITSTATUS(status) != 2 || excused), words);
            CHECK_MESSAGE(WEXITSTATUS(status) < 126, words);
        }
        CHECK(examples > 0);
    }
}

// ---- What comes out ---------------------------------------------------------------

TEST_CASE("inspector: nothing of what is stored can give a terminal orders") {
    // Escape sequence, bell, DEL, C1 as UTF-8 and as a byte, bidi override, zero width, no UTF-8; and what may stay.
    const std::string hostile =
        "a\x1b[31m\x07\x7f\xc2\x9b" "31m\x9b\xe2\x80\xae\xe2\x80\x8b\xff\n\r\tb \xe4\xbd\xa0 \\";
    const std::string shown = "a\\x1b[31m\\x07\\x7f\\u009b31m\\x9b\\u202e\\u200b\\xff\\n\\r\\tb \xe4\xbd\xa0 \\";
    const support::TemporaryDirectory directory;
    const std::string file = file_with(directory, hostile);
    const auto text = inspect({file, "streams"});
    CHECK(text.status == 0);
    CHECK(text.out.find(shown) != std::string::npos);
    if (support::has_terminals()) {
        const auto seen = Terminal({file, "streams", "--color", "never"}).end();
        CHECK(seen.out.find(shown.substr(0, 40)) != std::string::npos);
    }
    const support::TemporaryDirectory other;
    const std::string unicode =
        file_with(other, support::replaced(support::replaced(hostile, "m\x9b", "m"), "\xff", ""));
    for (const char* format : {"json", "jsonl"}) {
        CHECK(inspect({file, "streams", "-o", format}).out.find("{\"stream_base64\":\"YRtbMzFt") != std::string::npos);
        const auto json = inspect({unicode, "streams", "-o", format});
        CAPTURE(json.out);
        CHECK(json.status == 0);
        CHECK(std::none_of(json.out.begin(), json.out.end(), [](char c) { return c >= 0 && c < 0x20 && c != '\n'; }));
        CHECK(json.out.find('\x7f') == std::string::npos);
        CHECK(json.out.find("a\\u001B[31m\\u0007\\u007f\\u009b31m") != std::string::npos);
        CHECK(json.out.find("\xe2\x80\xae") == std::string::npos);
    }
    const auto error = inspect({directory.file("x\x1b[2J.db"), "stats"});
    CHECK(error.err.find('\x1b') == std::string::npos);
    CHECK(error.err.find("x\\x1b[2J.db") != std::string::npos);
}

TEST_CASE("inspector: colours are for terminals, unless something says otherwise" * at_terminal) {
    const support::TemporaryDirectory directory;
    const std::string file = file_with(directory, "cart-1");
    const auto coloured = [](const Ran& ran) { return ran.out.find('\x1b') != std::string::npos; };
    CHECK(coloured(Terminal({file, "streams"}).end()));
    CHECK(!coloured(Terminal({file, "streams", "--color=never"}).end()));
    CHECK(!coloured(Terminal({file, "streams"}, {"NO_COLOR=1"}).end()));
    CHECK(coloured(Terminal({file, "streams"}, {"NO_COLOR="}).end()));
    CHECK(!coloured(Terminal({file, "streams"}, {"TERM=dumb"}).end()));
    CHECK(coloured(Terminal({file, "streams", "--color", "always"}, {"NO_COLOR=1"}).end()));
    CHECK(!coloured(inspect({file, "streams"})));
    CHECK(coloured(inspect({file, "streams", "--color", "always"})));
    CHECK(!coloured(Terminal({file, "streams", "--json"}).end()));
}

TEST_CASE("inspector: times are relative on a terminal, ISO elsewhere, and as --time says" * at_terminal) {
    const support::TemporaryDirectory directory;
    const std::string file = directory.file("shop.db");
    {
        sourced::StoreOptions options;
        options.path = file;
        options.clock = [] { return sourced::Time(std::chrono::microseconds(1'700'000'000'250'000)); };
        sourced::open_store(options)->append("cart-1", {support::message(sourced::Kind::event, "cart.opened")});
    }
    const auto shows = [&](const Ran& ran, const std::string& text) {
        CHECK_MESSAGE(ran.out.find(text) != std::string::npos, ran.out);
    };
    shows(Terminal({file, "streams"}).end(), " ago");
    shows(inspect({file, "streams"}), "2023-11-14T22:13:20.25Z");
    shows(Terminal({file, "streams", "--time", "iso"}).end(), "2023-11-14T22:13:20.25Z");
    shows(inspect({file, "streams", "--time", "relative"}), " ago");
    shows(inspect({file, "streams", "--time", "unix"}), "@1700000000.250000");
    shows(inspect({file, "streams", "--time", "local"}, {}, {"TZ=XYZ-2"}), "2023-11-15 00:13:20 XYZ");
    shows(inspect({file, "streams", "--time", "unix", "-o", "jsonl"}), "2023-11-14T22:13:20.25Z");
}

TEST_CASE("inspector: on a narrow terminal columns are cut, and wide characters take two" * at_terminal) {
    const support::TemporaryDirectory directory;
    const std::string wide = "\xe4\xbd\xa0\xe5\xa5\xbd";  // two characters, four columns
    std::string stream;
    for (int i = 0; i < 20; ++i) stream += wide;
    const std::string file = file_with(directory, stream);
    const auto ran = Terminal({file, "streams", "--color", "never"}, {}, 50).end();
    const auto at = ran.out.find(wide);
    REQUIRE(at != std::string::npos);
    const std::string line = ran.out.substr(at, ran.out.find('\n', at) - at);
    CHECK(line.find("\xe2\x80\xa6") != std::string::npos);  // the ellipsis
    CHECK(line.find("1 ") != std::string::npos);            // the columns behind it are there
    std::size_t characters = 0;
    for (const char c : line) characters += (static_cast<unsigned char>(c) & 0xC0) != 0x80 ? 1 : 0;
    std::size_t twice = 0;
    for (std::size_t i = 0; i + 1 < line.size(); ++i) twice += static_cast<unsigned char>(line[i]) >= 0xE4 ? 1 : 0;
    CHECK(characters + twice <= 50);
    CHECK(characters + twice >= 48);
    CHECK(inspect({file, "streams"}).out.find(stream) != std::string::npos);
}

TEST_CASE("inspector: what is longer than the terminal goes through the pager, all else does not" * at_terminal) {
    const std::vector<std::string> paged{"SOURCED_PAGER=sed 's/^/paged: /'"};
    CHECK(Terminal({"--help"}, paged, 80, 10).end().out.starts_with("paged: "));
    CHECK(Terminal({"help", "stats"}, paged, 80, 60).end().out.find("paged") == std::string::npos);
    CHECK(Terminal({"--help"}, {"PAGER=sed 's/^/also: /'"}, 80, 10).end().out.starts_with("also: "));
    CHECK(Terminal({"--help"}, {"PAGER=sed 's/^/also: /'", paged[0]}, 80, 10).end().out.starts_with("paged: "));
    CHECK(Terminal({"--help"}, {"PAGER=cat"}, 80, 10).end().out.find("Usage") != std::string::npos);
    CHECK(Terminal({"--help"}, {"PAGER="}, 80, 10).end().out.find("Usage") != std::string::npos);
    CHECK(Terminal({"--help"}, {paged[0], "TERM=dumb"}, 80, 10).end().out.find("paged") == std::string::npos);
    CHECK(inspect({"--help"}, {}, paged).out.find("paged") == std::string::npos);
    const support::TemporaryDirectory directory;
    CHECK(Terminal({file_with(directory, "cart-1"), "trace", "@1"}, paged, 80, 2).end().out.starts_with("paged: "));
}

TEST_CASE("inspector: a pager that is left early is no error, nor is a pipe that is closed" * at_terminal) {
    const auto left = Terminal({"--help"}, {"SOURCED_PAGER=head -n 1"}, 80, 10).end();
    CHECK(left.status == 0);
    CHECK(std::count(left.out.begin(), left.out.end(), '\n') == 1);
    // Nobody is at the other end of the pipe, from the start.
    const std::string script = "exec 3> >(exec true); wait $!; '" + support::Program::folder() + "/sourced' --help >&3";
    CHECK(std::system(("bash -c \"" + script + "\"").c_str()) == 0);
    const std::string full = "'" + support::Program::folder() + "/sourced' --help >/dev/full 2>/dev/null";
    CHECK(WEXITSTATUS(std::system(full.c_str())) == 1);
}

TEST_CASE("inspector: wide characters are known in any locale") {
    const support::TemporaryDirectory directory;
    const std::string file = file_with(directory, "\xe4\xbd\xa0");
    CHECK(inspect({file, "streams"}, {}, {"LC_ALL=C"}).out == inspect({file, "streams"}, {}, {"LC_ALL=C.UTF-8"}).out);
}

TEST_CASE("inspector: at a terminal a plan is carried out when somebody types yes, and not otherwise" * at_terminal) {
    const support::TemporaryDirectory directory;
    const std::string file = file_with(directory, "cart-1");
    sourced::StoreOptions options;
    options.path = file;
    (void)sourced::open_store(options)->register_group({"mails", {"cart.opened"}, {}});
    const auto stopped = [&] {
        const auto groups = sourced::open_store(options)->stats().groups;
        return groups.size() == 1 && !groups[0].active;
    };
    for (const std::string answer : {"no\n", "\n", "y\n", "\x04"}) {
        Terminal terminal({file, "groups", "stop", "mails", "--reason", "maintenance"});
        REQUIRE(terminal.wait_for("Type yes to do this: "));
        terminal.tell(answer);
        const auto ran = terminal.end();
        CHECK(ran.status == 1);
        CHECK(ran.out.find("nothing was done") != std::string::npos);
        CHECK(!stopped());
    }
    Terminal terminal({file, "groups", "stop", "mails", "--reason", "maintenance"});
    REQUIRE(terminal.wait_for("Type yes to do this: "));
    CHECK(!stopped());
    terminal.tell("yes\n");
    CHECK(terminal.end().status == 0);
    CHECK(stopped());
}

TEST_CASE("inspector: Ctrl-C at a question ends the program with nothing done" * at_terminal) {
    const support::TemporaryDirectory directory;
    const std::string file = file_with(directory, "cart-1");
    sourced::StoreOptions options;
    options.path = file;
    (void)sourced::open_store(options)->register_group({"mails", {"cart.opened"}, {}});
    Terminal terminal({file, "groups", "stop", "mails", "--reason", "maintenance"});
    REQUIRE(terminal.wait_for("Type yes to do this: "));
    terminal.tell("\x03");
    CHECK(terminal.end().status == 130);
    CHECK(sourced::open_store(options)->stats().groups[0].active);
}
