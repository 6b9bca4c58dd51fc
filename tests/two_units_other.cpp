#include <sourced.hpp>

std::string note_from_other_unit(sourced::App& app);

namespace {

struct Noted {
    std::string text;

    SOURCED_EVENT("two_units.noted", text)
};

}  // namespace

std::string note_from_other_unit(sourced::App& app) { return app.history("note-1").front().as<Noted>().text; }
