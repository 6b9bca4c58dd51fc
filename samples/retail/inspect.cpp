// The program `sourced` with the shop's types in it:
//
//   retail_inspect retail.db state invoice-536365
#include "reactors.hpp"

int main(int argc, char** argv) {
    sourced::App app;
    retail::add_shop(app);
    return sourced::inspect(app, argc, argv);
}
