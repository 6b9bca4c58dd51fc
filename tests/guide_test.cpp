// What README.md and the guide show is what compiles and runs.
#include <doctest/doctest.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <filesystem>
#include <fstream>
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
