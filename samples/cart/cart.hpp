// A shopping cart: messages, an actor, a delayed command to another actor, and a read model.
#pragma once

#include <sourced.hpp>

#include <chrono>
#include <string>
#include <variant>
#include <vector>

namespace shop {

using namespace std::chrono_literals;

// ---- Messages: what can be asked, what can be true --------------------------

struct AddItem {
    std::string product_id;
    int price = 0;
    int quantity = 1;

    SOURCED_COMMAND("cart.add_item", product_id, price, quantity)
};

struct ItemAdded {
    std::string product_id;
    int price = 0;
    int quantity = 1;

    SOURCED_EVENT("cart.item_added", product_id, price, quantity)
};

struct CheckOut {
    SOURCED_COMMAND("cart.check_out")
};

struct CheckedOut {
    SOURCED_EVENT("cart.checked_out")
};

struct SendAdminEmail {
    std::string product_id;

    SOURCED_COMMAND("mail.send_admin_email", product_id)
};

struct AdminEmailSent {
    SOURCED_EVENT("mail.admin_email_sent")
};

// ---- The cart ---------------------------------------------------------------

struct CartItem {
    std::string product_id;
    int price = 0;
    int quantity = 0;
};

struct CartState {
    std::string id;
    std::string status = "open";
    std::vector<CartItem> items{};

    [[nodiscard]] int total() const {
        int sum = 0;
        for (const auto& item : items) sum += item.price * item.quantity;
        return sum;
    }
};

struct Cart : sourced::Actor<CartState> {
    Cart() : Actor("cart") {
        state([](std::string_view id) { return CartState{.id = std::string(id)}; });

        command([](const CartState& cart, const AddItem& add) -> sourced::Decision<ItemAdded> {
            if (cart.status != "open") return sourced::refuse("cart is not open");
            return ItemAdded{add.product_id, add.price, add.quantity};
        });

        command([](const CartState& cart, const CheckOut&) -> sourced::Decision<CheckedOut> {
            if (cart.items.empty()) return sourced::refuse("cart is empty");
            return CheckedOut{};
        });

        event([](CartState& cart, const ItemAdded& added) {
            cart.items.push_back({added.product_id, added.price, added.quantity});
        });

        event([](CartState& cart, const CheckedOut&) { cart.status = "checked out"; });

        reaction([](const ItemAdded& added) {
            return sourced::dispatch(SendAdminEmail{added.product_id}).to("mailer").in(20s);
        });
    }
};

// ---- The mailer: no state, one command ---------------------------------------

struct Mailer : sourced::Actor<std::monostate> {
    Mailer() : Actor("mailer") {
        command([](const std::monostate&, const SendAdminEmail&) { return AdminEmailSent{}; });
    }
};

// ---- What all carts come to: a read model, one JSON row for each cart ------------

struct Listing {
    int items = 0;
    int total = 0;
    bool checked_out = false;

    SOURCED_VALUE(items, total, checked_out)
};

struct CartListings : sourced::Projection<Listing> {
    CartListings() : Projection("cart_listings") {
        event([](Listing& listing, const ItemAdded& added) {
            listing.items += added.quantity;
            listing.total += added.price * added.quantity;
        });

        event([](Listing& listing, const CheckedOut&) { listing.checked_out = true; });
    }
};

}  // namespace shop
