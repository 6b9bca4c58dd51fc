// A reactor of one's own: a batch in, for each message what is to come of it. Receipts are written into a table in the
// transaction, and leave the house when that is committed.
#include <sourced.hpp>

#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

struct OrderPaid {
    std::string customer;
    int amount = 0;

    SOURCED_EVENT("order.paid", customer, amount)
};
struct ReceiptWritten {
    std::string customer;

    SOURCED_EVENT("receipt.written", customer)
};

struct Outbox : sourced::BatchReactor {
    explicit Outbox(std::vector<std::string>& sent) : BatchReactor("outbox"), sent_(sent) {
        handles<OrderPaid>();
        options({.batch_size = 10});
    }

    sourced::Results handle(const sourced::Batch& batch) override {
        sourced::Results results;
        for (const auto& message : batch) {
            const auto paid = message->as<OrderPaid>();
            if (paid.customer.empty()) {
                // What stands before it is kept; the error strategy decides what becomes of this one.
                return results.fail(*message, std::make_exception_ptr(std::runtime_error("nobody to write to")));
            }
            results.add(*message, {
                sourced::AppendNext{{ReceiptWritten{paid.customer}}},
                sourced::Sync{[paid](sourced::Transaction& db) {
                    db.execute("insert into receipts values (?, ?)", paid.customer, paid.amount);
                }},
                sourced::AfterSync{[this, paid] { sent_.push_back(paid.customer); }},  // at most once
            });
        }
        return results;
    }

private:
    std::vector<std::string>& sent_;
};

int main() {
    std::vector<std::string> sent;
    sourced::App app;
    app.store().transaction([](sourced::Transaction& db) {
        db.execute("create table receipts(customer text not null, amount integer not null) strict");
    });
    app.add<Outbox>(sent);

    app.dispatch("order-1", OrderPaid{"Joe", 20});
    app.dispatch("order-2", OrderPaid{"Ann", 30});
    app.run_until_idle();

    std::int64_t written = 0;
    app.store().read([&](sourced::Reader& db) { written = db.row("select sum(amount) from receipts")->integer(0); });
    std::cout << sent.size() << " receipts sent, " << written << " written\n";
    return sent.size() == 2 && written == 50 && app.history("order-1").size() == 2 ? 0 : 1;
}
