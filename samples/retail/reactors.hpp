// The shop: who decides, and which tables follow.
#pragma once

#include "messages.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

namespace retail {

// ---- Actors: commands become events, events ask for more -----------------------

struct InvoiceState {
    int lines = 0;
    Money total = 0;

    SOURCED_VALUE(lines, total)  // so that it can be looked at
};

/// Records every line, and tells the customer of the invoice when its first line is there.
struct Invoice : sourced::Actor<InvoiceState> {
    Invoice() : Actor("invoice") {
        command([](const InvoiceState&, const RecordLine& record) { return LineRecorded{record.line}; });

        event([](InvoiceState& invoice, const LineRecorded& recorded) {
            ++invoice.lines;
            invoice.total += recorded.line.total();
        });

        reaction([](const InvoiceState& invoice, const LineRecorded& recorded) -> sourced::Dispatches<AddInvoice> {
            const auto& line = recorded.line;
            if (invoice.lines > 1 || line.customer.empty()) return {};
            return sourced::dispatch(AddInvoice{line.invoice, line.country}).to("customer-" + line.customer);
        });
    }
};

/// Remembers which invoices a customer got. It needs no state to decide.
struct Customer : sourced::Actor<std::monostate> {
    Customer() : Actor("customer") {
        command([](const std::monostate&, const AddInvoice& add) { return InvoiceAdded{add.invoice, add.country}; });
    }
};

// ---- Read models: tables in the same file, each event in them exactly once -------

struct InvoiceRow {
    std::int64_t lines = 0;
    Money total = 0;
    bool cancelled = false;
};

/// A table of its own, written by SQL: one row for each invoice.
struct Invoices : sourced::Projector<InvoiceRow> {
    Invoices() : Projector("invoices") {
        on_install([](sourced::Transaction& db) {
            db.execute(
                "create table if not exists invoices(id text primary key, lines integer not null, "
                "total integer not null, cancelled integer not null) strict, without rowid");
        });

        state([](std::string_view stream, sourced::Reader& db) {
            const auto row = db.row("select lines, total, cancelled from invoices where id = ?", stream);
            return row ? InvoiceRow{row->integer(0), row->integer(1), row->integer(2) != 0} : InvoiceRow{};
        });

        event([](InvoiceRow& invoice, const LineRecorded& recorded) {
            ++invoice.lines;
            invoice.total += recorded.line.total();
            invoice.cancelled = recorded.line.invoice.starts_with('C');
        });

        sync([](const InvoiceRow& invoice, std::string_view stream, sourced::Transaction& db) {
            db.execute("insert or replace into invoices values(?, ?, ?, ?)", stream, invoice.lines, invoice.total,
                       invoice.cancelled);
        });

        on_reset([](sourced::Transaction& db) { db.execute("delete from invoices"); });
    }
};

struct Revenue {
    std::int64_t lines = 0;
    Money total = 0;

    SOURCED_VALUE(lines, total)
};

/// Without SQL: the state is kept as JSON. Keyed by what a line says, not by its stream.
struct RevenueByCountry : sourced::Projection<Revenue> {
    RevenueByCountry() : Projection("revenue_by_country") {
        key([](const LineRecorded& recorded) { return recorded.line.country; });

        event([](Revenue& revenue, const LineRecorded& recorded) {
            ++revenue.lines;
            revenue.total += recorded.line.total();
        });
    }
};

struct RevenueByMonth : sourced::Projection<Revenue> {
    RevenueByMonth() : Projection("revenue_by_month") {
        key([](const LineRecorded& recorded) { return recorded.line.month(); });

        event([](Revenue& revenue, const LineRecorded& recorded) {
            ++revenue.lines;
            revenue.total += recorded.line.total();
        });
    }
};

struct CustomerCard {
    std::int64_t invoices = 0;
    std::string country;  ///< of the last invoice

    SOURCED_VALUE(invoices, country)
};

struct Customers : sourced::Projection<CustomerCard> {
    Customers() : Projection("customers") {
        event([](CustomerCard& customer, const InvoiceAdded& added) {
            ++customer.invoices;
            customer.country = added.country;
        });
    }
};

inline void add_shop(sourced::App& app) {
    app.add<Invoice>();
    app.add<Customer>();
    app.add<Invoices>();
    app.add<RevenueByCountry>();
    app.add<RevenueByMonth>();
    app.add<Customers>();
}

}  // namespace retail
