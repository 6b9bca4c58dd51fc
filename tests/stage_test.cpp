// Several reactors on a stage: their whole trail.
#include <doctest/doctest.h>

#include <sourced.hpp>

#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "../samples/order/order.hpp"

using namespace std::chrono_literals;
using namespace shop;
using sourced::Message;
using sourced::testing::line;
using sourced::testing::stage;
using sourced::testing::Verdict;

namespace {

std::string text_of(const Verdict& verdict) {
    std::ostringstream out;
    out << verdict;
    return out.str();
}

const std::string payment = "payment-of-order-1";
const std::string heading = "the trail is not as expected (- missing, + unexpected):\n";

struct Remind {
    SOURCED_COMMAND("order.remind")
};
struct Reminded {
    SOURCED_EVENT("order.reminded")
};

/// Reminds of orders that were begun, 20 seconds later.
struct Reminder : sourced::Actor<std::monostate> {
    Reminder() : Actor("reminder") {
        reaction([](const OrderStarted&) { return sourced::dispatch(Remind{}).in(20s); });
        command([](const Remind&) { return Reminded{}; });
    }
};

struct Amount {
    int sum = 0;
    int payments = 0;

    SOURCED_VALUE(sum, payments)
};
struct Amounts : sourced::Projection<Amount> {
    explicit Amounts(std::string_view name) : Projection(name) {
        event([](Amount& amount, const PaymentStarted& started) {
            amount.sum += started.amount;
            ++amount.payments;
        });
    }
};

/// Begins a stream for each payment.
struct Splitter : sourced::Actor<std::monostate> {
    Splitter() : Actor("splitter") {
        reaction([](const PaymentStarted& started) {
            return sourced::dispatch(ProcessPayment{started.amount}).to<Payment>();
        });
    }
};

/// Counts what it sees in its own stream.
struct Counter : sourced::Handler {
    Counter() : Handler("counter") {
        on([](const PaymentStarted&, const sourced::Messages& history, sourced::Replay replay) {
            return Logged{std::to_string(history.size()) + (replay ? ", replayed" : "")};
        });
    }
};

/// Doubles an amount a day later.
struct Overnight : sourced::Workflow<Amount, Amount> {
    Overnight() : Workflow("overnight") {
        run([](sourced::Context& ctx, const Amount& amount) {
            const int sum = ctx.step("double", [&] { return amount.sum * 2; });
            ctx.sleep(24h);
            return Amount{sum, amount.payments};
        });
    }
};

struct Picky : sourced::Actor<std::monostate> {
    explicit Picky(std::optional<sourced::ErrorStrategy> errors = {}) : Actor("picky") {
        options({.errors = errors});
        command([](const StartPayment& start) -> sourced::Decision<PaymentStarted> {
            if (start.amount > 100) throw std::out_of_range("too much for me");
            return PaymentStarted{start.amount, payment};
        });
    }
};

}  // namespace

TEST_CASE("S5: an order, its payment and telemetry leave a trail of exactly seven messages") {
    const auto paid = stage<Order, Payment, Telemetry>().given(OrderStarted{}).when(StartPayment{10});
    CHECK(paid.then_trail(OrderStarted{},
                          StartPayment{10},
                          line(PaymentStarted{10, payment}).by("order"),
                          line(Logged{"order.payment_started in order-1"}).by("telemetry"),
                          line(ProcessPayment{10}).in(payment).by("order"),
                          line(PaymentProcessed{10}).in(payment).by("payment"),
                          line(Logged{"payment.processed in " + payment}).in(payment).by("telemetry")));
    CHECK(paid.trail().size() == 7);
    CHECK(paid.then_state<Order>(OrderState{"order-1", "in payment", 10}));
}

TEST_CASE("stage: then() asks for what came of the last message alone") {
    auto orders = stage<Order>().given(OrderStarted{});
    CHECK(orders.then());
    CHECK(orders.then_trail(OrderStarted{}));
    orders.when(StartPayment{10});
    CHECK(orders.then(PaymentStarted{10, payment}, Message(ProcessPayment{10}).to(payment)));
    orders.when(StartPayment{20});
    CHECK(orders.then(sourced::Refused{"order.start_payment", "the order is not open"}));
    CHECK_FALSE(orders.then());
    CHECK(orders.trail().size() == 6);
}

TEST_CASE("stage: a trail that is not as expected is shown whole, with what is missing and what is too much") {
    const auto paid = stage<Order>().given(OrderStarted{}).when(StartPayment{10});
    const std::string started = sourced::encode(PaymentStarted{10, payment});
    CHECK(text_of(paid.then_trail(OrderStarted{}, StartPayment{10}, PaymentStarted{20, payment},
                                  line(ProcessPayment{10}).in(payment))) ==
          heading +
          "   1   order-1             order.started {}\n"
          "   2   order-1             order.start_payment {\"amount\":10}\n"
          "     - order-1             order.payment_started {\"amount\":20,\"payment\":\"payment-of-order-1\"}\n"
          "   3 + order-1             order.payment_started " + started + "  by order\n"
          "   4   payment-of-order-1  payment.process {\"amount\":10}  by order");
    CHECK(text_of(paid.then(line(PaymentStarted{10, payment}).by("payment"))) ==
          heading +
          "     - order-1             order.payment_started " + started + "  by payment\n"
          "   3 + order-1             order.payment_started " + started + "  by order\n"
          "   4 + payment-of-order-1  payment.process {\"amount\":10}  by order");
    CHECK(text_of(stage<Order>().then_trail()) == "as expected: nothing");
}

TEST_CASE("stage: the same message in another stream is another line") {
    const auto paid = stage<Order>().given(OrderStarted{}).when(StartPayment{10});
    CHECK_FALSE(paid.then(PaymentStarted{10, payment}, ProcessPayment{10}));
    const auto far = stage<Order>().stream("order-berlin").given(OrderStarted{}).when(StartPayment{10});
    CHECK(far.then(PaymentStarted{10, "payment-of-order-berlin"},
                   line(ProcessPayment{10}).in("payment-of-order-berlin")));
}

TEST_CASE("stage: a stream that is begun is named by its prefix") {
    const auto split = stage<Splitter, Payment>().when(PaymentStarted{10, ""}, PaymentStarted{20, ""});
    CHECK(split.then(line(ProcessPayment{10}).in_new("payment"), line(PaymentProcessed{10}).in_new("payment"),
                     line(ProcessPayment{20}).in_new("payment"), line(PaymentProcessed{20}).in_new("payment")));
    CHECK_FALSE(split.then(line(ProcessPayment{10}).in_new("pay"), line(PaymentProcessed{10}).in_new("payment"),
                           line(ProcessPayment{20}).in_new("payment"), line(PaymentProcessed{20}).in_new("payment")));
    CHECK_FALSE(stage<Order>().given(OrderStarted{}).when(StartPayment{1}).then(
        PaymentStarted{1, payment}, line(ProcessPayment{1}).in_new("payment")));
}

TEST_CASE("stage: handlers see the history, and the past without effects") {
    CHECK(stage<Counter>().given(PaymentStarted{1, ""}).when(PaymentStarted{2, ""}).then(Logged{"2"}));
}

TEST_CASE("stage: time passes only when the test says so") {
    auto reminded = stage<Reminder>().when(OrderStarted{});
    CHECK(reminded.then());
    CHECK(reminded.after(19s).then());
    CHECK(text_of(reminded.then(Remind{})) ==
          heading +
          "     - reminder-1  order.remind {}\n"
          "  waits for 1000000 us: reminder-1  order.remind {}");
    CHECK(reminded.after(1s).then(Remind{}, Reminded{}));
    CHECK(reminded.then_trail(OrderStarted{}, line(Remind{}), line(Reminded{}).by("reminder")));
}

TEST_CASE("stage: a workflow goes on as time passes") {
    auto night = stage<Overnight, Telemetry>();
    const auto handle = night.app().start_workflow<Overnight>("one", Amount{4, 1});
    night.after(0s);
    CHECK_FALSE(handle.outcome());
    night.after(23h);
    CHECK_FALSE(handle.outcome());
    night.after(1h);
    REQUIRE(handle.outcome());
    CHECK(handle.outcome().output().sum == 8);
}

TEST_CASE("stage: the past makes states and read models, but nobody reacts to it") {
    const auto reminded = stage<Reminder>()
                              .add<Amounts>("amounts")
                              .given(OrderStarted{}, PaymentStarted{5, payment}, StartPayment{1})
                              .when(PaymentStarted{6, payment});
    CHECK(reminded.then());
    CHECK(reminded.app().store().scheduled().empty());
    CHECK(reminded.trail().size() == 4);
    std::string state;
    reminded.app().store().read([&](sourced::Reader& reader) {
        state = reader.row("select state from projection_amounts where id = 'reminder-1'")->text(0);
    });
    CHECK(state == R"({"sum":11,"payments":2})");
}

TEST_CASE("S3: nothing is added to the past once something has happened") {
    auto orders = stage<Order>().given(OrderStarted{}).when(StartPayment{10});
    const std::string over = ": the past is over, something has happened on the stage already";
    CHECK_THROWS_WITH_AS(orders.given(OrderStarted{}), ("given" + over).c_str(), sourced::Error);
    CHECK_THROWS_WITH_AS(orders.add<Payment>(), ("add" + over).c_str(), sourced::Error);
    CHECK_THROWS_WITH_AS(orders.stream("other"), ("stream" + over).c_str(), sourced::Error);
    CHECK(orders.trail().size() == 4);

    auto asked = stage<Order>().given(OrderStarted{});
    CHECK(asked.then_trail(OrderStarted{}));
    CHECK_THROWS_WITH_AS(asked.given(OrderStarted{}), ("given" + over).c_str(), sourced::Error);
}

TEST_CASE("stage: an exception stops its reactor, and every verdict says so") {
    auto picky = stage<Picky, Telemetry>().when(StartPayment{1000});
    CHECK(text_of(picky.then()) ==
          "a reactor was stopped: nothing\n"
          "  ! 'picky' stopped at position 1: std::out_of_range \"too much for me\"");
    CHECK(picky.then_stopped("picky", "too much"));
    CHECK_FALSE(picky.then_stopped("picky", "too little"));
    CHECK_FALSE(picky.then_stopped("telemetry"));
    CHECK_THROWS_AS((void)picky.then_stopped("nobody"), sourced::NotRegistered);
    CHECK(text_of(stage<Picky>().when(StartPayment{1}).then_stopped("picky")) ==
          "expected 'picky' stopped by \"\"\n"
          "but got  nothing");
}

TEST_CASE("stage: a reactor keeps its own error strategy, and a failing verdict tells what came of it") {
    using sourced::Resolution;
    auto retried = stage<>().add<Picky>(sourced::Retries{.times = 1, .after = 1s, .then = Resolution::skip()});
    retried.stream("s").when(StartPayment{1000});
    CHECK(retried.then());
    CHECK(text_of(retried.then(Remind{})) ==
          heading +
          "     - s  order.remind {}\n"
          "  ! 'picky' waits to retry 's' at position 1: std::out_of_range \"too much for me\"");
    CHECK(text_of(retried.after(2s).then(Remind{})) ==
          heading +
          "     - s  order.remind {}\n"
          "  ! 'picky' skipped position 1: std::out_of_range \"too much for me\"");
    CHECK(retried.when(StartPayment{1}).then(PaymentStarted{1, payment}));

    auto parked = stage<>().add<Picky>(sourced::Retries{.times = 0, .then = Resolution::park()});
    parked.stream("s").when(StartPayment{1000}, StartPayment{1});
    CHECK(parked.then());
    CHECK(text_of(parked.then(Remind{})) ==
          heading +
          "     - s  order.remind {}\n"
          "  ! 'picky' parked 's' at position 1: std::out_of_range \"too much for me\"");
}
