// A small application for the inspector's tests: compiled into them, into a library and into a program.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "sourced.hpp"

namespace inspected {

struct Put {
    std::string item;
    int count = 1;

    SOURCED_COMMAND("cart.put", item, count)
    static sourced::Rules rules() {
        using namespace sourced;
        return {{"item", required, length(1, 20)}, {"count", at_least(1), lax}};
    }
};
struct ItemPut {
    std::string item;
    int count = 1;

    SOURCED_EVENT("cart.item_put", item, count)
};
struct Broken {
    SOURCED_EVENT("cart.broken")
};

struct Count {
    int pieces = 0;

    SOURCED_VALUE(pieces)
};
struct Cart {
    std::string id;
    std::map<std::string, Count> items{};
    std::vector<std::string> order{};
    int changes = 0;

    SOURCED_VALUE(id, items, order, changes)
};

/// Begins with its id, counts what is folded, and cannot take what is broken.
struct Carts : sourced::Actor<Cart> {
    Carts() : Actor("cart") {
        state([](std::string_view id) { return Cart{.id = std::string(id)}; });
        command([](const Cart& cart, const Put& put) -> sourced::Decision<ItemPut> {
            if (cart.order.size() >= 3) return sourced::refuse("full");
            return ItemPut{put.item, put.count};
        });
        before_evolve([](Cart& cart) { ++cart.changes; });
        event([](Cart& cart, const ItemPut& put) {
            if (cart.items[put.item].pieces == 0) cart.order.push_back(put.item);
            cart.items[put.item].pieces += put.count;
        });
        event([](Cart&, const Broken&) { throw std::runtime_error("it is broken"); });
    }
};

struct Pieces : sourced::EventSourcedProjector<int> {
    Pieces() : EventSourcedProjector("pieces") {
        event([](int& pieces, const ItemPut& put) { pieces += put.count; });
    }
};

/// A State that the codec has no JSON for.
struct Opaque {
    std::map<int, int> numbers;
};
struct Note {
    SOURCED_EVENT("note.taken")
};
struct Notes : sourced::Actor<Opaque> {
    Notes() : Actor("notes") {
        event([](Opaque& notes, const Note&) { ++notes.numbers[1]; });
    }
};

struct Totals : sourced::Projection<Count> {
    Totals() : Projection("totals") {
        event([](Count& count, const ItemPut& put) { count.pieces += put.count; });
    }
};
struct Rows : sourced::Projector<int> {
    Rows() : Projector("rows") {
        on_install([](sourced::Transaction& db) { db.execute("create table if not exists rows_of(id text)"); });
        state([](std::string_view) { return 0; });
        event([](int&, const ItemPut&) {});
    }
};
struct Mailer : sourced::Handler {
    Mailer() : Handler("mailer") {
        on([](const Note&) {});
    }
};

inline void add_all(sourced::App& app) {
    app.add<Carts>();
    app.add<Pieces>();
    app.add<Notes>();
    app.add<Totals>();
    app.add<Rows>();
    app.add<Mailer>();
}

}  // namespace inspected
