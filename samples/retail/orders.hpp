// From a record of the shop's file to a command.
#pragma once

#include "csv.hpp"
#include "messages.hpp"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace retail {

/// The columns of the file.
inline const std::vector<std::string> columns{"InvoiceNo",   "StockCode", "Description", "Quantity",
                                              "InvoiceDate", "UnitPrice", "CustomerID",  "Country"};

namespace detail {

[[noreturn]] inline void refuse(std::size_t column, std::string_view expected, std::string_view found) {
    throw std::invalid_argument(columns[column] + ": expected " + std::string(expected) + ", found '" +
                                std::string(found.substr(0, 80)) + "'");
}

inline bool digits(std::string_view text) {
    return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

inline std::int64_t number(std::string_view text) {
    std::int64_t value = 0;
    std::from_chars(text.data(), text.data() + text.size(), value);
    return value;
}

}  // namespace detail

/// "-12" as -12. At most six digits, so that no total ever overflows.
[[nodiscard]] inline std::int64_t parse_quantity(std::string_view text) {
    const auto unsigned_text = text.substr(text.starts_with('-') ? 1 : 0);
    if (!detail::digits(unsigned_text) || unsigned_text.size() > 6) detail::refuse(3, "an integer below a million", text);
    return detail::number(text);
}

/// "2.55" as 2550. Never by way of a floating point number: 1.255 * 1000 is 1254.9999999999998.
[[nodiscard]] inline Money parse_price(std::string_view text) {
    const auto unsigned_text = text.substr(text.starts_with('-') ? 1 : 0);
    const auto point = std::min(unsigned_text.find('.'), unsigned_text.size());
    const auto whole = unsigned_text.substr(0, point);
    auto decimals = std::string(unsigned_text.substr(std::min(point + 1, unsigned_text.size())));
    const bool decimals_fit = point == unsigned_text.size() || (detail::digits(decimals) && decimals.size() <= 3);
    if (!detail::digits(whole) || whole.size() > 6 || !decimals_fit) {
        detail::refuse(5, "a price below a million with at most three decimals", text);
    }
    decimals.resize(3, '0');
    const auto thousandths = detail::number(whole) * 1000 + detail::number(decimals);
    return text.starts_with('-') ? -thousandths : thousandths;
}

/// "17850.0" as "17850"; empty when nobody knows the customer.
[[nodiscard]] inline std::string parse_customer(std::string_view text) {
    const auto id = text.ends_with(".0") ? text.substr(0, text.size() - 2) : text;
    if (!text.empty() && (!detail::digits(id) || id.size() > 18)) detail::refuse(6, "a number or nothing", text);
    return std::string(id);
}

/// "2010-12-01 08:26:00", if that is a time there was.
[[nodiscard]] inline std::string parse_time(std::string_view text) {
    constexpr std::string_view shape = "0000-00-00 00:00:00";
    bool fits = text.size() == shape.size();
    for (std::size_t at = 0; fits && at < shape.size(); ++at) {
        fits = shape[at] == '0' ? detail::digits(text.substr(at, 1)) : text[at] == shape[at];
    }
    if (fits) {
        const auto part = [&](std::size_t from, std::size_t size) { return detail::number(text.substr(from, size)); };
        const auto day = std::chrono::year(static_cast<int>(part(0, 4))) / static_cast<int>(part(5, 2)) /
                         static_cast<int>(part(8, 2));
        fits = day.ok() && part(11, 2) < 24 && part(14, 2) < 60 && part(17, 2) < 60;
    }
    if (!fits) detail::refuse(4, "a time like 2010-12-01 08:26:00", text);
    return std::string(text);
}

/// The order line that a record holds. Throws std::invalid_argument with the
/// column, what it should hold and what it does hold.
[[nodiscard]] inline Line parse_line(const std::vector<std::string>& fields) {
    const auto& invoice = fields[0];
    const auto letter = invoice.starts_with('C') || invoice.starts_with('A') ? 1u : 0u;
    if (!detail::digits(std::string_view(invoice).substr(letter)) || invoice.size() > 18) {
        detail::refuse(0, "a number, after C for a cancellation or A for an adjustment", invoice);
    }
    if (fields[7].empty()) detail::refuse(7, "a country", "");
    return {.invoice = invoice,
            .product = fields[1],
            .description = fields[2],
            .quantity = parse_quantity(fields[3]),
            .price = parse_price(fields[5]),
            .sold_at = parse_time(fields[4]),
            .customer = parse_customer(fields[6]),
            .country = fields[7]};
}

}  // namespace retail
