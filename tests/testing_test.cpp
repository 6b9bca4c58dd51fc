// given / when / then, and the clock that is set by hand.
#include <doctest/doctest.h>

#include <sourced.hpp>

#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <variant>

using namespace std::chrono_literals;
using sourced::testing::given;

namespace {

struct Buy {
    int pieces = 0;
    SOURCED_COMMAND("shop.buy", pieces)
};
struct Bought {
    int pieces = 0;
    SOURCED_EVENT("shop.bought", pieces)
};
struct Ship {
    int pieces = 0;
    SOURCED_COMMAND("shop.ship", pieces)
};
struct Stock {
    int pieces = 10;
    std::string stream{};

    SOURCED_VALUE(pieces, stream)
};

struct Shop : sourced::Actor<Stock> {
    Shop() : Actor("shop") {
        state([](std::string_view id) { return Stock{.stream = std::string(id)}; });
        command([](const Stock& stock, const Buy& buy) -> sourced::Decision<Bought> {
            if (buy.pieces < 0) throw std::out_of_range("pieces are negative");
            if (buy.pieces > stock.pieces) return sourced::refuse("sold out");
            if (buy.pieces == 0) return {};
            return Bought{buy.pieces};
        });
        event([](Stock& stock, const Bought& bought) { stock.pieces -= bought.pieces; });
        reaction([](const Bought& bought) { return sourced::dispatch(Ship{bought.pieces}).to("carrier").in(1s); });
    }
};

struct Sold : sourced::EventSourcedProjector<Stock> {
    explicit Sold(int first) : EventSourcedProjector("sold") {
        state([first](std::string_view id) { return Stock{first, std::string(id)}; });
        event([](Stock& stock, const Bought& bought) { stock.pieces += bought.pieces; });
    }
};

std::string text_of(const sourced::testing::Verdict& verdict) {
    std::ostringstream out;
    out << verdict;
    return out.str();
}

}  // namespace

TEST_CASE("then: events, a refusal, a dispatch and nothing are each told apart") {
    CHECK(given<Shop>().when(Buy{3}).then(Bought{3}));
    CHECK_FALSE(given<Shop>().when(Buy{3}).then(Bought{4}));
    CHECK_FALSE(given<Shop>().when(Buy{3}).then(Bought{3}, Bought{3}));
    CHECK_FALSE(given<Shop>().when(Buy{3}).then_nothing());

    CHECK(given<Shop>(Bought{8}).when(Buy{3}).then(sourced::refuse("sold out")));
    CHECK_FALSE(given<Shop>(Bought{8}).when(Buy{3}).then(sourced::refuse("closed")));
    CHECK_FALSE(given<Shop>(Bought{8}).when(Buy{3}).then(Bought{3}));

    CHECK(given<Shop>().when(Bought{3}).then(sourced::dispatch(Ship{3}).to("carrier").in(1s)));
    CHECK_FALSE(given<Shop>().when(Bought{3}).then(sourced::dispatch(Ship{3}).to("carrier").in(2s)));
    CHECK_FALSE(given<Shop>().when(Bought{3}).then(sourced::dispatch(Ship{3}).to("mailer").in(1s)));
    CHECK_FALSE(given<Shop>().when(Bought{3}).then(sourced::dispatch(Ship{4}).to("carrier").in(1s)));

    CHECK(given<Shop>().when(Buy{0}).then_nothing());
    CHECK(given<Shop>().when(Buy{0}).then());
    CHECK_FALSE(given<Shop>().when(Buy{0}).then(Bought{0}));
}

TEST_CASE("then_throws: the type and a part of the text have to be right") {
    CHECK(given<Shop>().when(Buy{-1}).then_throws());
    CHECK(given<Shop>().when(Buy{-1}).then_throws<std::out_of_range>("negative"));
    CHECK_FALSE(given<Shop>().when(Buy{-1}).then_throws<std::out_of_range>("positive"));
    CHECK_FALSE(given<Shop>().when(Buy{-1}).then_throws<std::length_error>());
    CHECK_FALSE(given<Shop>().when(Buy{1}).then_throws());
    CHECK_FALSE(given<Shop>().when(Buy{-1}).then_nothing());
}

TEST_CASE("when: a message that nobody handles is told as such") {
    CHECK(given<Shop>().when(Ship{1}).then_throws<sourced::NotRegistered>("'shop' handles no 'shop.ship'"));
}

TEST_CASE("Verdict: its text says what was expected and what came instead") {
    CHECK(text_of(given<Shop>().when(Buy{3}).then(Bought{3})) == R"(as expected: shop.bought {"pieces":3})");
    CHECK(text_of(given<Shop>(Bought{8}).when(Buy{3}).then(Bought{3})) ==
          "expected shop.bought {\"pieces\":3}\n"
          "but got  refusal \"sold out\"");
    CHECK(text_of(given<Shop>().when(Bought{3}).then_nothing()) ==
          "expected nothing\n"
          "but got  dispatch of shop.ship {\"pieces\":3} to 'carrier' in 1000000 us");
    CHECK(text_of(given<Shop>().when(Buy{-1}).then(Bought{1}, Bought{2})) ==
          "expected shop.bought {\"pieces\":1}\n"
          "         shop.bought {\"pieces\":2}\n"
          "but got  exception std::out_of_range \"pieces are negative\"");
}

TEST_CASE("given: the past may be told in parts, and the stream has a name") {
    CHECK(given<Shop>(Bought{1}).and_given(Bought{2}, Bought{3}).state().pieces == 4);
    CHECK(given<Shop>().state().stream == "shop-1");
    CHECK(given<Shop>(Bought{1}).stream("berlin").state().stream == "berlin");
    auto past = given<Shop>();
    past.stream("rome").and_given(Bought{4});
    CHECK(past.then_state(Stock{6, "rome"}));
    CHECK(past.when(Buy{6}).then(Bought{6}));
    CHECK(past.when(Buy{7}).then(sourced::refuse("sold out")));
}

TEST_CASE("given: a reactor whose constructor wants arguments is handed in") {
    const Sold sold(100);
    CHECK(given(sold, Bought{1}, Bought{2}).stream("s").then_state(Stock{103, "s"}));
    CHECK(given(Sold(5), Bought{1}).state().pieces == 6);
    CHECK_FALSE(given(sold).then_state(Stock{}));
}

TEST_CASE("given: a projector sees an event and has nothing to answer") {
    const auto step = given(Sold(1)).when(Bought{4});
    CHECK(step.then_nothing());
    CHECK(step.state().pieces == 5);
}

TEST_CASE("Clock: copies show the same time, which moves only by hand") {
    sourced::testing::Clock clock;
    const auto start = clock.now();
    const std::function<sourced::Time()> copy = clock;
    CHECK(copy() == start);
    clock.advance(20s);
    CHECK(copy() - start == 20s);
    clock.set(start);
    CHECK(copy() == start);
    CHECK(sourced::testing::Clock(sourced::Time(1h)).now() == sourced::Time(1h));

    std::thread other([clock]() mutable { clock.advance(1s); });
    other.join();
    CHECK(clock.now() - start == 1s);
}
