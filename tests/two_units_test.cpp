// The header is included by two translation units of one program: this one and two_units_other.cpp.
#include <doctest/doctest.h>
#include <sourced.hpp>

struct Noted {
    std::string text;

    SOURCED_EVENT("two_units.noted", text)
};

std::string note_from_other_unit(sourced::App& app);

TEST_CASE("Header: two translation units of one program may include it") {
    sourced::App app;
    app.dispatch("note-1", Noted{"here"});
    CHECK(note_from_other_unit(app) == "here");
}
