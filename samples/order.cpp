// An order asks for its payment, which is made elsewhere, and telemetry looks on: three reactors that know of each
// other only by messages.
#include "order/order.hpp"

#include <iostream>

using namespace shop;

int main() {
    sourced::App app;
    app.add<Order>();
    app.add<Payment>();
    app.add<Telemetry>();

    app.dispatch("order-1", OrderStarted{});
    app.dispatch("order-1", StartPayment{1000});
    app.run_until_idle();

    for (const auto& message : app.store().log()) {
        std::cout << message.stream << ' ' << message.type << ' ' << message.payload << '\n';
    }
    return app.store().head() == 7 && app.history("payment-of-order-1").size() == 3 ? 0 : 1;
}
