// A program that has the inspector linked in; INSPECTED_PATH in the environment puts its App on a file.
#include <cstdlib>

#include "inspector_types.hpp"

int main(int argc, char** argv) {
    const char* path = std::getenv("INSPECTED_PATH");
    sourced::App app({.path = path ? path : ""});
    inspected::add_all(app);
    return sourced::inspect(app, argc, argv);
}
