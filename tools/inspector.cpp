// The program `sourced`: the inspector without an application's types, or with those that --app loads.
#include "sourced.hpp"

int main(int argc, char** argv) { return sourced::inspect(argc, argv); }
