// expect: 2 names provided
// lines: 40
#include <sourced.hpp>

struct Add {
    std::string product;
    int amount = 0;
    int price = 0;

    SOURCED_COMMAND("counter.add", product, amount)
};

sourced::Message use() { return Add{"p1", 1, 2}; }
