// The shop as a library, for the program `sourced`:
//
//   sourced --app libshop.so retail.db state invoice-536365
#include "reactors.hpp"

SOURCED_APP(retail::add_shop)
