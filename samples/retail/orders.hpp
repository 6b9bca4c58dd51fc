// From the shop's file to commands.
#pragma once

#include "csv.hpp"
#include "messages.hpp"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <functional>
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
    if (!detail::digits(unsigned_text) || unsigned_text.size() > 6)
        detail::refuse(3, "an integer below a million", text);
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

/// The id of the command that line `number` becomes: the same in every replay, so that none is ever recorded twice.
/// Laid out as a UUID of version 7, one millisecond a line from the shop's first sale on: ids sort as the lines do.
[[nodiscard]] inline sourced::Id id_of(std::int64_t number) {
    constexpr std::int64_t first_sale = 1'291'191'960'000;  // 2010-12-01 08:26, in milliseconds
    sourced::Id::Bytes bytes{};
    const auto put = [&](std::size_t from, std::size_t size, std::int64_t value) {
        for (auto at = from + size; at-- > from; value >>= 8) bytes[at] = static_cast<std::uint8_t>(value & 0xFF);
    };
    put(0, 6, first_sale + number);
    put(8, 8, number);
    bytes[6] = 0x70;  // version
    bytes[8] = 0x80;  // variant
    return sourced::Id(bytes);
}

/// The line that an id was made for.
[[nodiscard]] inline std::int64_t number_of(const sourced::Id& id) {
    std::int64_t number = 0;
    for (std::size_t at = 9; at < 16; ++at) number = number * 256 + id.bytes()[at];
    return number;
}

/// The order lines of a file in order; malformed ones are reported and left out.
///
///     Lines lines(path, most, report);
///     while (lines.next()) batch.push_back(lines.command());
class Lines {
public:
    /// Told of each malformed line: where it begins in the file, and what is wrong.
    using Report = std::function<void(std::int64_t line, const std::string& problem)>;

    /// Throws std::runtime_error when the file cannot be read or has other columns.
    Lines(const std::filesystem::path& path, std::int64_t most, Report report)
        : reader_(path), most_(most), report_(std::move(report)) {
        if (reader_.header() != columns) {
            throw std::runtime_error("read '" + path.string() +
                                     "': its first line does not name the columns InvoiceNo, " +
                                     "StockCode, Description, Quantity, InvoiceDate, UnitPrice, CustomerID, Country");
        }
    }

    /// Goes to the next line that is in order; false at the end.
    bool next() {
        while (record_.number < most_ && reader_.next(record_)) {
            try {
                if (!record_.problem.empty()) throw std::invalid_argument(record_.problem);
                line_ = parse_line(record_.fields);
                command_ =
                    sourced::Message(RecordLine{line_}).to("invoice-" + line_.invoice).with_id(id_of(record_.number));
                return true;
            } catch (const std::invalid_argument& problem) {
                skip(problem.what());
            } catch (const sourced::Invalid& problem) {  // text that is no UTF-8
                skip(problem.problems().front().text);
            }
        }
        return false;
    }

    [[nodiscard]] const Line& line() const noexcept { return line_; }
    /// What it becomes, addressed to its invoice.
    [[nodiscard]] const sourced::Message& command() const noexcept { return command_; }
    /// The record's number in the file; at the end, how many there were.
    [[nodiscard]] std::int64_t number() const noexcept { return record_.number; }
    /// Lines that were left out.
    [[nodiscard]] std::int64_t malformed() const noexcept { return malformed_; }
    /// How much of the input has been read, 0 to 1; 0 when nobody knows.
    [[nodiscard]] double share() const noexcept {
        return std::max(reader_.share(), static_cast<double>(record_.number) / static_cast<double>(most_));
    }

private:
    void skip(const std::string& problem) {
        ++malformed_;
        report_(record_.line, problem);
    }

    CsvReader reader_;
    std::int64_t most_;
    Report report_;
    Record record_;
    Line line_;
    sourced::Message command_;
    std::int64_t malformed_ = 0;
};

}  // namespace retail
