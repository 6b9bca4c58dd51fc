// The cart of samples/cart, tested as its author would.
#include "../samples/cart/cart.hpp"

#include <doctest/doctest.h>

using namespace shop;
using sourced::testing::given;

TEST_CASE("Cart: adding an item records it") {
    CHECK(given<Cart>()
              .when(AddItem{.product_id = "p1", .price = 1000, .quantity = 2})
              .then(ItemAdded{.product_id = "p1", .price = 1000, .quantity = 2}));
}

TEST_CASE("Cart: a cart that was checked out refuses more items") {
    CHECK(given<Cart>(ItemAdded{"p1", 1000, 2}, CheckedOut{})
              .when(AddItem{"p2", 500, 1})
              .then(sourced::refuse("cart is not open")));
}

TEST_CASE("Cart: an empty cart is not checked out") {
    CHECK(given<Cart>().when(CheckOut{}).then(sourced::refuse("cart is empty")));
}

TEST_CASE("Cart: an added item asks for an email 20 seconds later, in the mailer's stream") {
    CHECK(given<Cart>()
              .when(ItemAdded{"p1", 1000, 2})
              .then(sourced::dispatch(SendAdminEmail{"p1"}).to("mailer").in(20s)));
}

TEST_CASE("Mailer: sends what it is asked to send") {
    CHECK(given<Mailer>().when(SendAdminEmail{"p1"}).then(AdminEmailSent{}));
}

TEST_CASE("CartListings: counts items and their price") {
    CHECK(given<CartListings>(ItemAdded{"p1", 1000, 2}, ItemAdded{"p2", 1, 1}, CheckedOut{})
              .then_state(Listing{3, 2001, true}));
}

TEST_CASE("App: the email leaves when its time has come") {
    sourced::testing::Clock clock;
    sourced::App app({.clock = clock});
    auto& cart = app.add<Cart>();
    app.add<Mailer>();
    auto& listings = app.add<CartListings>();

    app.dispatch("cart-1", AddItem{"p1", 1000, 2});
    app.run_until_idle();
    CHECK(cart.evolve("cart-1", app.history("cart-1")).total() == 2000);
    CHECK(listings.get(app.store(), "cart-1")->total == 2000);
    CHECK(app.history("mailer").empty());

    clock.advance(20s);
    app.run_until_idle();
    CHECK(app.history("mailer").size() == 2);
}
