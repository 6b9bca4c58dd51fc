// Live: a window that shows a cart while others change it, and a script that follows the log.
#include "cart/cart.hpp"

#include <iostream>

using namespace shop;

namespace {

// Tells whoever shows carts what they come to. Nothing of it is stored: a window that opens later looks for itself.
struct Announcer : sourced::EventSourcedProjector<CartState> {
    explicit Announcer(sourced::App& app) : EventSourcedProjector("announcer") {
        event([](CartState& cart, const ItemAdded& added) {
            cart.items.push_back({added.product_id, added.price, added.quantity});
        });
        sync([&app](const CartState& cart, std::string_view id) {
            app.publish("carts", std::string(id) + " comes to " + std::to_string(cart.total()));
        });
    }
};

}  // namespace

int main() {
    sourced::App app;
    app.add<Cart>();
    app.add<Mailer>();
    app.add<Announcer>(app);

    auto window = app.subscribe("carts");
    auto log = app.follow({.from = sourced::Start::beginning(), .types = {"cart.item_added"}});

    app.start();
    app.dispatch("cart-1", AddItem{"tea", 450, 2});
    const auto notice = window.next(30s);
    const auto message = log.next(30s);
    app.stop();
    if (!notice || !message) return 1;

    std::cout << "the window hears: " << notice->text << '\n';
    std::cout << "the log says: " << message->type << " in " << message->stream << " at position "
              << message->position << '\n';
    return notice->text == "cart-1 comes to 900" && message->as<ItemAdded>().price == 450 ? 0 : 1;
}
