// A cart at the console: what it decides, what it was, and what follows from it 20 seconds later.
#include "cart/cart.hpp"

#include <iostream>

using namespace shop;

int main() {
    sourced::testing::Clock clock;  // moved by hand, so that nobody waits for the email
    sourced::App app({.clock = clock});
    app.add<Cart>();
    app.add<Mailer>();
    const auto& listings = app.add<CartListings>();

    auto cart = app.actor<Cart>("cart-1");
    cart.handle(AddItem{"tea", 450, 2});
    cart.handle(AddItem{"pot", 2500, 1});
    cart.handle(CheckOut{});
    const auto late = cart.handle(AddItem{"cup", 700, 6});
    std::cout << "more cups: " << (late ? "added" : late.reason()) << '\n';

    std::cout << "the cart is " << cart.state().status << ", " << cart.state().total() << " pence, at seq "
              << cart.seq() << "; after the tea it was " << cart.state(2).total() << " pence\n";
    for (const auto& message : cart.history()) {
        std::cout << "  " << message.seq << ' ' << message.type << ' ' << message.payload << '\n';
    }

    app.run_until_idle();
    std::cout << "messages to the mailer now: " << app.history("mailer").size();
    clock.advance(20s);
    app.run_until_idle();
    std::cout << ", and 20 seconds later: " << app.history("mailer").size() << '\n';

    const auto listing = listings.get(app.store(), "cart-1");
    std::cout << "listed: " << listing->items << " items, " << listing->total << " pence\n";
}
