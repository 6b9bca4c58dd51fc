// What README.md and the guide show is what compiles and runs.
#include <doctest/doctest.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <regex>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "support.hpp"

namespace fs = std::filesystem;

namespace {

using Lines = std::vector<std::string>;

std::string read(const std::string& path) {
    std::ifstream file(std::string(SOURCED_ROOT) + "/" + path);
    REQUIRE_MESSAGE(file.good(), "cannot read ", path);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
}

Lines lines_of(const std::string& text) {
    Lines lines;
    std::istringstream stream(text);
    for (std::string line; std::getline(stream, line);) lines.push_back(line);
    return lines;
}

/// A block between ``` lines, and the file that it stands in.
struct Listing {
    std::string language;
    std::string source;  ///< the last file that the paragraph before names in `backticks`
    Lines lines;
};

std::string last_file_of(const std::string& paragraph) {
    std::string file;
    for (auto at = paragraph.find('`'); at != std::string::npos; at = paragraph.find('`', at + 1)) {
        const auto end = paragraph.find('`', at + 1);
        if (end == std::string::npos) break;
        const auto word = paragraph.substr(at + 1, end - at - 1);
        if (word.ends_with(".cpp") || word.ends_with(".hpp")) file = word;
        at = end;
    }
    return file;
}

std::vector<Listing> listings(const std::string& markdown) {
    std::vector<Listing> found;
    std::string paragraph;
    bool fresh = true;
    bool inside = false;
    for (const auto& line : lines_of(markdown)) {
        if (line.rfind("```", 0) == 0) {
            inside = !inside;
            if (inside) found.push_back({line.substr(3), last_file_of(paragraph), {}});
            fresh = true;
        } else if (inside) {
            found.back().lines.push_back(line);
        } else if (line.empty()) {
            fresh = true;
        } else {
            if (std::exchange(fresh, false)) paragraph.clear();
            paragraph += line + ' ';
        }
    }
    return found;
}

std::size_t indentation(const Lines& lines) {
    std::size_t least = std::string::npos;
    for (const auto& line : lines) least = std::min(least, line.find_first_not_of(' '));
    return least == std::string::npos ? 0 : least;
}

Lines without_indentation(const Lines& lines) {
    const std::size_t width = indentation(lines);
    Lines shifted;
    for (const auto& line : lines) shifted.push_back(line.size() < width ? "" : line.substr(width));
    return shifted;
}

/// The parts of a listing: `// ...` on a line of its own stands for what was left out.
std::vector<Lines> parts_of(const Lines& listing) {
    std::vector<Lines> parts(1);
    for (const auto& line : listing) {
        const auto begin = line.find_first_not_of(' ');
        if (begin != std::string::npos && line.substr(begin) == "// ...") parts.emplace_back();
        else parts.back().push_back(line);
    }
    std::vector<Lines> whole;
    for (auto& part : parts) {
        while (!part.empty() && part.back().empty()) part.pop_back();
        while (!part.empty() && part.front().empty()) part.erase(part.begin());
        if (!part.empty()) whole.push_back(without_indentation(part));
    }
    return whole;
}

/// The first line of a listing that does not stand in the file, in its order; none when all of it does.
std::string first_difference(const Lines& listing, const Lines& file) {
    std::size_t from = 0;
    for (const auto& part : parts_of(listing)) {
        bool found = false;
        for (std::size_t at = from; !found && at + part.size() <= file.size(); ++at) {
            const Lines candidate(file.begin() + static_cast<std::ptrdiff_t>(at),
                                  file.begin() + static_cast<std::ptrdiff_t>(at + part.size()));
            if (without_indentation(candidate) != part) continue;
            found = true;
            from = at + part.size();
        }
        if (!found) return part.front();
    }
    return "";
}

/// What a heading is called in a link.
std::string anchor_of(const std::string& heading) {
    std::string anchor = "#";
    for (const char character : heading) {
        const auto letter = static_cast<unsigned char>(character);
        if (character == ' ') anchor += '-';
        else if (std::isalnum(letter) != 0 || character == '-') anchor += static_cast<char>(std::tolower(letter));
    }
    return anchor;
}

/// What a built sample prints, given these lines to read.
std::string run(const std::string& command, const Lines& input) {
    const support::TemporaryDirectory directory;
    std::ofstream script(directory.file("input"));
    for (const auto& line : input) script << line << '\n';
    script.close();
    const auto folder = fs::canonical("/proc/self/exe").parent_path().string();
    const std::string whole = "cd '" + directory.path() + "' && '" + folder + "'/" + command + " < input 2>&1";
    std::FILE* pipe = ::popen(whole.c_str(), "r");
    REQUIRE(pipe != nullptr);
    std::string output;
    for (int character = std::fgetc(pipe); character != EOF; character = std::fgetc(pipe)) {
        output += static_cast<char>(character);
    }
    CHECK_MESSAGE(::pclose(pipe) == 0, command, " ended with an error: ", output);
    return output;
}

/// A line without what differs from run to run, and from a large file to a small one: numbers, times, ids, bars.
std::string shape_of(const std::string& line) {
    static const std::vector<std::pair<std::regex, std::string>> rules{
        {std::regex("[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z"), "TIME"},
        {std::regex("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}"), "ID"},
        {std::regex("~?[0-9][0-9,.]* (us|ms|s|min|h)\\b"), "DURATION"},
        {std::regex("~?[0-9][0-9,.]* [kMG]?B\\b"), "SIZE"},
        {std::regex("~?[0-9][0-9,.]*"), "N"},
        {std::regex("█+"), ""},
        {std::regex(" +"), " "},
        {std::regex("^ | $"), ""},
    };
    std::string shape = line;
    for (const auto& [pattern, replacement] : rules) shape = std::regex_replace(shape, pattern, replacement);
    return shape;
}

/// A command of a session, and the lines that it prints.
struct Step {
    std::string command;
    Lines shown;
};
std::vector<Step> steps_of(const Lines& session) {
    std::vector<Step> steps;
    for (const auto& line : session) {
        if (line.starts_with("$ ")) steps.push_back({line.substr(2), {}});
        else if (!steps.empty()) steps.back().shown.push_back(line);
    }
    return steps;
}

}  // namespace

TEST_CASE("README: the smallest program is samples/smallest.cpp to the letter") {
    bool found = false;
    for (const auto& listing : listings(read("README.md"))) {
        if (listing.source != "samples/smallest.cpp") continue;
        found = true;
        CHECK(listing.lines == lines_of(read("samples/smallest.cpp")));
    }
    CHECK(found);
}

TEST_CASE("Guide: every C++ listing stands in the compiled sample it names") {
    std::size_t count = 0;
    for (const auto& listing : listings(read("samples/README.md"))) {
        if (listing.language != "cpp") continue;
        CAPTURE(listing.source);
        const std::string difference = first_difference(listing.lines, lines_of(read("samples/" + listing.source)));
        CHECK_MESSAGE(difference.empty(), "not in the file, or not in this order: ", difference);
        ++count;
    }
    CHECK(count > 0);
}

TEST_CASE("Guide: every session shows what the program prints") {
    std::size_t count = 0;
    for (const auto& listing : listings(read("samples/README.md"))) {
        if (listing.language != "console") continue;
        REQUIRE(!listing.lines.empty());
        const std::string& first = listing.lines.front();
        CAPTURE(first);
        REQUIRE(first.rfind("$ ", 0) == 0);
        Lines input;
        const Lines shown(listing.lines.begin() + 1, listing.lines.end());
        for (const auto& line : shown) {
            if (line.rfind("cart> ", 0) == 0) input.push_back(line.substr(6));
        }
        CHECK(lines_of(run(first.substr(2), input)) == shown);
        ++count;
    }
    CHECK(count > 0);
}

TEST_CASE("Guide: every sample is named in it") {
    const std::string guide = read("samples/README.md");
    for (const auto& entry : fs::recursive_directory_iterator(std::string(SOURCED_ROOT) + "/samples")) {
        const auto extension = entry.path().extension();
        if (extension != ".cpp" && extension != ".hpp") continue;
        std::string name = fs::relative(entry.path(), std::string(SOURCED_ROOT) + "/samples").string();
        if (name.rfind("retail/", 0) == 0) name = "retail";  // has a page of its own
        CAPTURE(name);
        CHECK(guide.find('`' + name + '`') != std::string::npos);
    }
}

TEST_CASE("Guide: every link leads to a file or a heading that is there") {
    std::string prose;
    std::vector<std::string> headings;
    bool inside = false;
    for (const auto& line : lines_of(read("samples/README.md"))) {
        inside ^= line.rfind("```", 0) == 0;
        if (inside) continue;
        prose += line + '\n';
        if (line.rfind("## ", 0) == 0) headings.push_back(anchor_of(line.substr(3)));
    }
    for (std::size_t at = prose.find("]("); at != std::string::npos; at = prose.find("](", at + 2)) {
        const std::string target = prose.substr(at + 2, prose.find(')', at) - at - 2);
        CAPTURE(target);
        if (target.rfind('#', 0) == 0) CHECK(std::count(headings.begin(), headings.end(), target) == 1);
        else CHECK(fs::exists(std::string(SOURCED_ROOT) + "/samples/" + target));
    }
}

TEST_CASE("README: the tour shows what the inspector prints") {
    const support::TemporaryDirectory directory;
    const auto folder = fs::canonical("/proc/self/exe").parent_path();
    const std::string inside = "cd '" + directory.path() + "' && ";
    for (const char* name : {"sourced", "libshop.so"}) {
        if (fs::exists(folder / name)) fs::create_symlink(folder / name, directory.file(name));
    }
    const std::string demo = "'" + (folder / "retail").string() + "' --lines 2000 --db retail.db >/dev/null 2>&1";
    REQUIRE(std::system((inside + demo).c_str()) == 0);

    std::size_t count = 0;
    for (const auto& listing : listings(read("README.md"))) {
        if (listing.language != "console") continue;
        for (auto& step : steps_of(listing.lines)) {
            const std::string& command = step.command;
            Lines& shown = step.shown;
            if (command.starts_with("cd ")) continue;
            if (command.find("libshop.so") != std::string::npos && !fs::exists(directory.file("libshop.so"))) continue;
            CAPTURE(command);
            REQUIRE(command.starts_with("./sourced "));
            const std::string printed = directory.file("printed");
            CHECK(std::system((inside + "LC_ALL=C.UTF-8 " + command + " >'" + printed + "'").c_str()) == 0);
            std::ifstream file(printed);
            std::vector<std::string> shapes;
            for (std::string line; std::getline(file, line);) shapes.push_back(shape_of(line));
            const bool whole = shown.empty() || shown.back() != "...";
            if (!whole) shown.pop_back();
            CHECK((whole ? shapes.size() == shown.size() : shapes.size() > shown.size()));
            // In any order: what is even in a small file need not be so in a large one.
            for (const auto& line : shown) {
                const auto found = std::find(shapes.begin(), shapes.end(), shape_of(line));
                CHECK_MESSAGE(found != shapes.end(), "not printed: ", line);
                if (found != shapes.end()) shapes.erase(found);
            }
            ++count;
        }
    }
    CHECK(count > 4);
}
