// What can be asked of the shop, and what can be true of it.
#pragma once

#include <sourced.hpp>

#include <cstdint>
#include <string>

namespace retail {

/// Thousandths of a pound: prices have up to three decimals, and money is never counted in floating point.
using Money = std::int64_t;

/// One line of an invoice, as the shop's till wrote it.
struct Line {
    std::string invoice{};  ///< 536365; C536379 cancels something, A563185 adjusts a bad debt
    std::string product{};
    std::string description{};
    std::int64_t quantity = 0;  ///< negative in a cancellation
    Money price = 0;            ///< of one piece
    std::string sold_at{};      ///< 2010-12-01 08:26:00
    std::string customer{};     ///< 17850; empty when nobody knows
    std::string country{};

    [[nodiscard]] Money total() const { return quantity * price; }
    [[nodiscard]] std::string month() const { return sold_at.substr(0, 7); }

    SOURCED_VALUE(invoice, product, description, quantity, price, sold_at, customer, country)
};

// ---- To an invoice's stream, like invoice-536365 -------------------------------

struct RecordLine {
    Line line;

    SOURCED_COMMAND("invoice.record_line", line)
};

struct LineRecorded {
    Line line;

    SOURCED_EVENT("invoice.line_recorded", line)
};

// ---- To a customer's stream, like customer-17850 -------------------------------

struct AddInvoice {
    std::string invoice;
    std::string country;

    SOURCED_COMMAND("customer.add_invoice", invoice, country)
};

struct InvoiceAdded {
    std::string invoice;
    std::string country;

    SOURCED_EVENT("customer.invoice_added", invoice, country)
};

}  // namespace retail
