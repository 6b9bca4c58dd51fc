// An order, its payment in a stream of its own, and telemetry that takes note of both.
#pragma once

#include <sourced.hpp>

#include <string>
#include <string_view>
#include <variant>

namespace shop {

// ---- Orders -------------------------------------------------------------------

struct OrderStarted {
    SOURCED_EVENT("order.started")
};
struct StartPayment {
    int amount = 0;

    SOURCED_COMMAND("order.start_payment", amount)
};
struct PaymentStarted {
    int amount = 0;
    std::string payment;

    SOURCED_EVENT("order.payment_started", amount, payment)
};

// ---- Payments -----------------------------------------------------------------

struct ProcessPayment {
    int amount = 0;

    SOURCED_COMMAND("payment.process", amount)
};
struct PaymentProcessed {
    int amount = 0;

    SOURCED_EVENT("payment.processed", amount)
};

// ---- Telemetry ----------------------------------------------------------------

struct Logged {
    std::string text;

    SOURCED_EVENT("telemetry.logged", text)
};

struct OrderState {
    std::string id;
    std::string status = "none";
    int amount = 0;

    SOURCED_VALUE(id, status, amount)
};

/// One stream for each order. It starts a payment, and the payment goes its own way.
struct Order : sourced::Actor<OrderState> {
    Order() : Actor("order") {
        state([](std::string_view id) { return OrderState{std::string(id)}; });
        command([](const OrderState& order, const StartPayment& start) -> sourced::Decision<PaymentStarted> {
            if (order.status != "open") return sourced::refuse("the order is not open");
            return PaymentStarted{start.amount, "payment-of-" + order.id};
        });
        event([](OrderState& order, const OrderStarted&) { order.status = "open"; });
        event([](OrderState& order, const PaymentStarted& payment) {
            order.status = "in payment";
            order.amount = payment.amount;
        });
        reaction([](const PaymentStarted& payment) {
            return sourced::dispatch(ProcessPayment{payment.amount}).to(payment.payment);
        });
    }
};

struct Payment : sourced::Actor<std::monostate> {
    Payment() : Actor("payment") {
        command([](const ProcessPayment& process) { return PaymentProcessed{process.amount}; });
        event<PaymentProcessed>();
    }
};

/// Writes beside each fact, in the same stream, that it was seen.
struct Telemetry : sourced::Handler {
    Telemetry() : Handler("telemetry") {
        on<PaymentStarted, PaymentProcessed>([](const auto&, const sourced::Envelope& seen) {
            return Logged{seen.type + " in " + seen.stream};
        });
    }
};

}  // namespace shop
