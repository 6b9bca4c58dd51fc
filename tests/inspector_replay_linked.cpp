// A program that has the inspector linked in; REPLAYED_PATH in the environment puts its App on a file.
#include <cstdlib>

#include "inspector_replay.hpp"

int main(int argc, char** argv) {
    const char* path = std::getenv("REPLAYED_PATH");
    sourced::App app({.path = path ? path : "", .errors = sourced::Retries{.times = 0}});
    replayed::add_all(app);
    return sourced::inspect(app, argc, argv);
}
