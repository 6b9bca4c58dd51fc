// expect: then(): a block returns a bool, a Verdict, or nothing
// lines: 14
#include <sourced.hpp>

struct Buy {
    int pieces = 0;
    SOURCED_COMMAND("shop.buy", pieces)
};
struct Bought {
    int pieces = 0;
    SOURCED_EVENT("shop.bought", pieces)
};
struct Shop : sourced::Actor<int> {
    Shop() : Actor("shop") {
        command([](const Buy& buy) { return Bought{buy.pieces}; });
    }
};

void use() {
    (void)sourced::testing::given<Shop>().when(Buy{1}).then([](const sourced::Actions&) { return Bought{1}; });
}
