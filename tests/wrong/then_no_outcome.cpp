// expect: then() takes messages, refuse(), dispatch(), exceptions, or one block that looks at the actions, the state or the step
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

void use() { (void)sourced::testing::given<Shop>().when(Buy{1}).then(3); }
