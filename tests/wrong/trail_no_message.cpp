// expect: a trail is made of commands and events: a type has no SOURCED_COMMAND or SOURCED_EVENT line
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

void use() { (void)sourced::testing::stage<Shop>().when(Buy{1}).then_trail(Buy{1}, 3); }
