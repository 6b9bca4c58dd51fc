// expect: only 2 names
// lines: 60
#include <sourced.hpp>

struct Add {
    std::string product;
    int amount = 0;
    int price = 0;

    SOURCED_COMMAND("counter.add", product, amount)
};

sourced::Message use() { return Add{"p1", 1, 2}; }
