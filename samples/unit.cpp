// A synchronous unit: an order, the stock and a list of orders in one transaction, without workers. The commands come
// as JSON from outside, as a web form would send them.
#include <sourced.hpp>

#include <iostream>
#include <stdexcept>
#include <string>

struct PlaceOrder {
    std::string item;
    int quantity = 0;

    SOURCED_COMMAND("order.place", item, quantity)
    static sourced::Rules rules() {
        return {{"item", sourced::required}, {"quantity", sourced::at_least(1), sourced::lax}};
    }
};
struct OrderPlaced {
    std::string item;
    int quantity = 0;

    SOURCED_EVENT("order.placed", item, quantity)
};
struct TakeFromStock {
    int quantity = 0;

    SOURCED_COMMAND("stock.take", quantity)
};
struct TakenFromStock {
    int quantity = 0;

    SOURCED_EVENT("stock.taken", quantity)
};

struct OrderState {
    int placed = 0;

    SOURCED_VALUE(placed)
};

struct Orders : sourced::Actor<OrderState> {
    Orders() : Actor("orders") {
        command([](const OrderState& order, const PlaceOrder& place) -> sourced::Decision<OrderPlaced> {
            if (order.placed > 0) return sourced::refuse("it is placed already");
            return OrderPlaced{place.item, place.quantity};
        });
        event([](OrderState& order, const OrderPlaced& placed) { order.placed = placed.quantity; });
        reaction([](const OrderPlaced& placed) {
            return sourced::dispatch(TakeFromStock{placed.quantity}).to("stock-" + placed.item);
        });
    }
};

struct Stock : sourced::Actor<int> {  // its state: how many were taken
    Stock() : Actor("stock") {
        command([](int taken, const TakeFromStock& take) {
            if (taken + take.quantity > 10) throw std::runtime_error("only 10 are in stock");
            return TakenFromStock{take.quantity};
        });
        event([](int& taken, const TakenFromStock& take) { taken += take.quantity; });
    }
};

struct OrderList : sourced::Projection<OrderState> {
    OrderList() : Projection("order_list") {
        event([](OrderState& row, const OrderPlaced& placed) { row.placed = placed.quantity; });
    }
};

int main() {
    sourced::App app;
    app.add<Orders>();
    app.add<Stock>();
    auto& list = app.add<OrderList>();
    const auto unit = app.unit<Orders, Stock, OrderList>();

    // What a request may contain, and nothing else.
    const auto order = [&](const std::string& stream, const std::string& body) {
        sourced::Metadata who;
        who.set("user", "joe");
        const sourced::CommandContext context(app.registry(),
                                              {.stream = stream, .metadata = who, .allow = {"order.place"}});
        std::cout << stream << ": ";
        try {
            const auto result = unit.handle(stream, context.build(body));
            if (result.refused()) std::cout << "refused, " << result.reason() << '\n';
            else std::cout << result.messages().size() << " messages, all handled\n";
        } catch (const sourced::Invalid& invalid) {
            std::cout << "not placed\n";
            for (const auto& problem : invalid.problems()) {
                std::cout << "  " << problem.path << ": " << problem.text << '\n';
            }
        } catch (const std::exception& error) {
            std::cout << "not placed, " << error.what() << '\n';
        }
    };
    order("order-1", R"({"type":"order.place","payload":{"item":"tea","quantity":"8"}})");
    order("order-1", R"({"type":"order.place","payload":{"item":"tea","quantity":1}})");
    order("order-2", R"({"type":"order.place","payload":{"item":"tea","quantity":3}})");  // the stock says no to it all
    order("order-3", R"({"type":"order.place","payload":{"quantity":0},"seq":7})");

    // A look at what would happen, without storing anything.
    auto draft = app.draft<Orders>("order-4");
    std::cout << "a draft: " << draft.decide(PlaceOrder{"tea", 2}).events().size() << " event, "
              << app.history("order-4").size() << " stored\n";

    const bool alone = app.run_until_idle() == 0;  // nothing is left for workers
    return alone && list.get(app.store(), "order-1")->placed == 8 && app.history("order-2").empty() ? 0 : 1;
}
