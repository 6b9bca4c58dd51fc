// What README.md shows is what compiles and runs.
#include <doctest/doctest.h>

#include <fstream>
#include <sstream>
#include <string>

namespace {

std::string read(const std::string& path) {
    std::ifstream file(std::string(SOURCED_ROOT) + "/" + path);
    REQUIRE_MESSAGE(file.good(), "cannot read ", path);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
}

}  // namespace

TEST_CASE("README: the smallest program is samples/smallest.cpp to the letter") {
    const std::string readme = read("README.md");
    const std::string opening = "```cpp\n";
    const auto begin = readme.find(opening);
    REQUIRE(begin != std::string::npos);
    const auto end = readme.find("```", begin + opening.size());
    REQUIRE(end != std::string::npos);
    CHECK(readme.substr(begin + opening.size(), end - begin - opening.size()) == read("samples/smallest.cpp"));
}
