// What came out: a short report, and whether it is what went in.
#pragma once

#include "progress.hpp"
#include "reactors.hpp"

#include <cstdint>
#include <iomanip>
#include <iostream>
#include <map>
#include <string>

namespace retail {

/// Lines and revenue, as a whole and in parts.
struct Totals {
    struct Part {
        std::int64_t lines = 0;
        Money revenue = 0;

        [[nodiscard]] bool operator==(const Part&) const = default;
    };

    Part all;
    std::map<std::string, Part> countries;
    std::map<std::string, Part> months;

    void add(const Line& line) {
        for (auto* part : {&all, &countries[line.country], &months[line.month()]}) {
            ++part->lines;
            part->revenue += line.total();
        }
    }
};

/// What the read models say.
struct Books {
    Totals totals;
    Totals::Part invoice_totals;
    std::int64_t invoices = 0;
    std::int64_t cancellations = 0;
    std::int64_t customers = 0;
    std::int64_t customer_invoices = 0;
};

[[nodiscard]] inline Books read_books(sourced::Store& store) {
    Books books;
    store.read([&](sourced::Reader& db) {
        const std::string revenue = "select id, state ->> 'lines', state ->> 'total' from projection_revenue_by_";
        for (const auto& row : db.query(revenue + "country")) {
            books.totals.countries[row.text(0)] = {row.integer(1), row.integer(2)};
            books.totals.all.lines += row.integer(1);
            books.totals.all.revenue += row.integer(2);
        }
        for (const auto& row : db.query(revenue + "month")) {
            books.totals.months[row.text(0)] = {row.integer(1), row.integer(2)};
        }
        const auto sums = db.query("select count(*), sum(cancelled), sum(lines), sum(total) from invoices").front();
        books.invoices = sums.integer(0);
        books.cancellations = sums.integer(1);
        books.invoice_totals = {sums.integer(2), sums.integer(3)};
        const auto customers = db.query("select count(*), sum(state ->> 'invoices') from projection_customers").front();
        books.customers = customers.integer(0);
        books.customer_invoices = customers.integer(1);
    });
    return books;
}

/// Text from the file, safe to print: it may hold escape sequences.
[[nodiscard]] inline std::string printable(std::string text) {
    for (auto& c : text) {
        if (static_cast<unsigned char>(c) < ' ' || c == '\x7f') c = '?';
    }
    return text;
}

inline void print_report(const Books& books, std::int64_t messages, double seconds, std::uintmax_t bytes) {
    std::multimap<Money, std::string, std::greater<>> ranking;
    for (const auto& [country, part] : books.totals.countries) ranking.emplace(part.revenue, country);

    std::cout << std::left << std::setw(24) << "Top countries" << std::right << std::setw(10) << "lines"
              << std::setw(18) << "revenue" << '\n';
    int rank = 0;
    for (const auto& [revenue, country] : ranking) {
        if (++rank > 8) break;
        std::cout << "  " << std::left << std::setw(22) << printable(country) << std::right << std::setw(10)
                  << grouped(books.totals.countries.at(country).lines) << std::setw(18) << money(revenue) << '\n';
    }
    std::cout << std::left << std::setw(24) << "All" << std::right << std::setw(10) << grouped(books.totals.all.lines)
              << std::setw(18) << money(books.totals.all.revenue) << "\n\n";

    std::cout << grouped(books.invoices) << " invoices, " << grouped(books.cancellations) << " of them cancellations; "
              << grouped(books.customers) << " customers\n"
              << grouped(messages) << " messages in " << std::fixed << std::setprecision(1) << seconds << " s, "
              << static_cast<double>(bytes) / 1e6 << " MB on disk\n";
}

/// Compares what the read models hold with what was read, or with numbers known beforehand, and says
/// where they differ.
class Check {
public:
    template <class T>
    void equal(const std::string& what, const T& found, const T& expected, std::string (*show)(T) = grouped) {
        ++checked_;
        if (found == expected) return;
        ++wrong_;
        std::cout << "MISMATCH " << printable(what) << ": expected " << show(expected) << ", found " << show(found)
                  << '\n';
    }

    void equal(const std::string& what, const Totals::Part& found, const Totals::Part& expected) {
        equal(what + ": lines", found.lines, expected.lines);
        equal(what + ": revenue", found.revenue, expected.revenue, money);
    }

    void equal(const std::map<std::string, Totals::Part>& found, const std::map<std::string, Totals::Part>& expected) {
        equal<std::int64_t>("parts", std::ssize(found), std::ssize(expected));
        for (const auto& [name, part] : expected) {
            const auto same = found.find(name);
            equal(name, same == found.end() ? Totals::Part{} : same->second, part);
        }
    }

    /// Every line that was read is in every read model, once.
    void against(const Books& books, const Totals& read, std::int64_t messages) {
        equal("all countries", books.totals.all, read.all);
        equal("all invoices", books.invoice_totals, read.all);
        equal(books.totals.countries, read.countries);
        equal(books.totals.months, read.months);
        // A line is a command and an event; so is the news to a customer.
        equal("messages", messages, 2 * (read.all.lines + books.customer_invoices));
    }

    /// The whole of online-retail.csv, as counted by others.
    void against_the_shipped_file(const Books& books, std::int64_t messages) {
        equal("known total", books.totals.all, {541'909, 9'747'747'934});
        equal<std::int64_t>("known number of invoices", books.invoices, 25'900);
        equal<std::int64_t>("known number of messages", messages, 1'128'198);
        const std::pair<std::string, Totals::Part> known[] = {{"United Kingdom", {495'478, 8'187'806'364}},
                                                              {"Netherlands", {2'371, 284'661'540}},
                                                              {"EIRE", {8'196, 263'276'820}}};
        for (const auto& [country, part] : known) {
            const auto row = books.totals.countries.find(country);
            equal(country, row == books.totals.countries.end() ? Totals::Part{} : row->second, part);
        }
    }

    void print(bool known_totals) const {
        std::cout << (passed() ? "Checked: " : "WRONG: ") << grouped(checked_ - wrong_) << " of " << grouped(checked_)
                  << " numbers in the read models are those of the input"
                  << (known_totals ? " and the known totals of the shipped file\n" : "\n");
    }
    [[nodiscard]] bool passed() const noexcept { return wrong_ == 0; }

private:
    std::int64_t checked_ = 0;
    std::int64_t wrong_ = 0;
};

}  // namespace retail
