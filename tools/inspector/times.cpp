#include "times.hpp"

#include <array>
#include <cstdint>
#include <optional>

namespace sourced::inspector {
namespace {

using namespace std::chrono_literals;
using std::chrono::days;

constexpr std::int64_t no_number = -1;

[[nodiscard]] bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }
[[nodiscard]] bool is_letter(char c) noexcept { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

[[nodiscard]] std::string lower(std::string_view text) {
    std::string result;
    for (const char c : text) result += (c >= 'A' && c <= 'Z') ? static_cast<char>(c - 'A' + 'a') : c;
    return result;
}

[[nodiscard]] std::string_view trimmed(std::string_view text) noexcept {
    while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
    while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
    return text;
}

/// Reads a text from left to right.
class Cursor {
public:
    explicit Cursor(std::string_view text) noexcept : rest_(text) {}

    [[nodiscard]] bool done() const noexcept { return rest_.empty(); }
    [[nodiscard]] char peek() const noexcept { return rest_.empty() ? '\0' : rest_.front(); }
    [[nodiscard]] bool take(char c) noexcept {
        if (peek() != c) return false;
        rest_.remove_prefix(1);
        return true;
    }
    [[nodiscard]] bool take_any(std::string_view choice) noexcept {
        if (rest_.empty() || choice.find(rest_.front()) == std::string_view::npos) return false;
        rest_.remove_prefix(1);
        return true;
    }
    void skip_spaces() noexcept {
        while (take(' ')) {}
    }
    [[nodiscard]] std::string_view digits() noexcept { return while_true(is_digit); }
    [[nodiscard]] std::string_view letters() noexcept { return while_true(is_letter); }
    /// Exactly so many digits, or no_number.
    [[nodiscard]] std::int64_t number(std::size_t width) noexcept {
        if (rest_.size() < width) return no_number;
        std::int64_t value = 0;
        for (const char c : rest_.substr(0, width)) {
            if (!is_digit(c)) return no_number;
            value = value * 10 + (c - '0');
        }
        rest_.remove_prefix(width);
        return value;
    }

private:
    template <class Is>
    [[nodiscard]] std::string_view while_true(Is is) noexcept {
        std::size_t length = 0;
        while (length < rest_.size() && is(rest_[length])) ++length;
        const auto found = rest_.substr(0, length);
        rest_.remove_prefix(length);
        return found;
    }

    std::string_view rest_;
};

/// The digits as a number; nothing when it does not fit.
[[nodiscard]] std::optional<std::int64_t> whole(std::string_view digits) noexcept {
    std::int64_t value = 0;
    for (const char c : digits) {
        if (__builtin_mul_overflow(value, std::int64_t{10}, &value)) return std::nullopt;
        if (__builtin_add_overflow(value, std::int64_t{c - '0'}, &value)) return std::nullopt;
    }
    return value;
}

/// The digits behind a decimal point, as a part of `unit`; what is below a microsecond is cut off.
[[nodiscard]] std::int64_t part_of(std::string_view digits, std::int64_t unit) noexcept {
    std::int64_t value = 0;
    std::int64_t scale = 1;
    for (const char c : digits.substr(0, 6)) {
        value = value * 10 + (c - '0');
        scale *= 10;
    }
    return value * unit / scale;  // a week and six digits: far from the end of the type
}

// ---- durations

struct Unit {
    std::string_view name;
    std::int64_t microseconds;
};
constexpr std::int64_t second = 1'000'000;
constexpr std::array<Unit, 26> units{{
    {"us", 1}, {"microsecond", 1}, {"microseconds", 1},
    {"ms", 1000}, {"millisecond", 1000}, {"milliseconds", 1000},
    {"s", second}, {"sec", second}, {"second", second}, {"seconds", second},
    {"m", 60 * second}, {"min", 60 * second}, {"mins", 60 * second}, {"minute", 60 * second}, {"minutes", 60 * second},
    {"h", 3600 * second}, {"hr", 3600 * second}, {"hrs", 3600 * second}, {"hour", 3600 * second},
    {"hours", 3600 * second},
    {"d", 86400 * second}, {"day", 86400 * second}, {"days", 86400 * second},
    {"w", 604800 * second}, {"week", 604800 * second}, {"weeks", 604800 * second},
}};

[[nodiscard]] std::int64_t unit_of(std::string_view name, const std::string& number) {
    for (const auto& unit : units) {
        if (unit.name == name) return unit.microseconds;
    }
    if (name.empty()) throw Invalid("the number " + number + " has no unit: is it " + number + "s or " + number + "m?");
    throw Invalid("'" + std::string(name) + "' is no unit of time");
}

/// A sum of numbers with units. Throws Invalid without saying of what text.
[[nodiscard]] Duration sum(std::string_view given) {
    if (given == "0") return Duration(0);
    const std::string text = lower(given);
    Cursor cursor(text);
    std::int64_t total = 0;
    do {
        const std::string digits(cursor.digits());
        if (digits.empty()) throw Invalid("a number is missing");
        std::string fraction;
        if (cursor.take('.')) {
            fraction = cursor.digits();
            if (fraction.empty()) throw Invalid("digits are missing behind the point");
        }
        cursor.skip_spaces();
        const auto unit = unit_of(cursor.letters(), fraction.empty() ? digits : digits + '.' + fraction);
        const auto number = whole(digits);
        std::int64_t amount = 0;
        if (!number || __builtin_mul_overflow(*number, unit, &amount) ||
            __builtin_add_overflow(amount, part_of(fraction, unit), &amount) ||
            __builtin_add_overflow(total, amount, &total)) {
            throw Invalid("it is too long");
        }
        cursor.skip_spaces();
    } while (!cursor.done());
    return Duration(total);
}

// ---- times

[[nodiscard]] Time moved(Time now, Duration by, bool back) {
    std::int64_t result = 0;
    const auto from = now.time_since_epoch().count();
    const bool over = back ? __builtin_sub_overflow(from, by.count(), &result)
                           : __builtin_add_overflow(from, by.count(), &result);
    if (over) throw Invalid("it is too far away");
    return Time(Duration(result));
}

/// `-5m`, `+5m`, `2h ago`, `in 2 days`; nothing when it is none of these.
[[nodiscard]] std::optional<Time> relative(std::string_view text, Time now) {
    if (text.front() == '-') return moved(now, sum(trimmed(text.substr(1))), true);
    if (text.front() == '+') return moved(now, sum(trimmed(text.substr(1))), false);
    if (text.ends_with(" ago")) return moved(now, sum(trimmed(text.substr(0, text.size() - 4))), true);
    if (text.starts_with("in ")) return moved(now, sum(trimmed(text.substr(3))), false);
    return std::nullopt;
}

[[nodiscard]] std::optional<Time> word(std::string_view text, Time now) {
    if (text == "now") return now;
    if (text != "today" && text != "yesterday" && text != "tomorrow") return std::nullopt;
    const Time today = std::chrono::floor<days>(now);
    if (text == "yesterday") return today - days(1);
    return text == "tomorrow" ? today + days(1) : today;
}

/// `@` and seconds, or a long number of microseconds since 1970.
[[nodiscard]] std::optional<Time> since_1970(std::string_view text) {
    Cursor cursor(text);
    const bool seconds = cursor.take('@');
    const auto digits = cursor.digits();
    if (!seconds) {
        if (!cursor.done() || digits.size() < 15) return std::nullopt;
        if (const auto number = whole(digits)) return Time(Duration(*number));
        throw Invalid("it is too far away");
    }
    std::string_view fraction;
    if (!digits.empty() && cursor.take('.')) fraction = cursor.digits();
    if (digits.empty() || !cursor.done()) throw Invalid("behind @ stand seconds since 1970");
    const auto number = whole(digits);
    std::int64_t result = 0;
    if (!number || __builtin_mul_overflow(*number, second, &result) ||
        __builtin_add_overflow(result, part_of(fraction, second), &result)) {
        throw Invalid("it is too far away");
    }
    return Time(Duration(result));
}

/// The time of the day, with seconds and their fraction where they stand there.
[[nodiscard]] Duration clock_time(Cursor& cursor) {
    const auto hours = cursor.number(2);
    const auto minutes = cursor.take(':') ? cursor.number(2) : no_number;
    if (hours == no_number || minutes == no_number) throw Invalid("hours and minutes are written 14:30");
    std::int64_t seconds = 0;
    std::int64_t fraction = 0;
    if (cursor.take(':')) {
        seconds = cursor.number(2);
        if (seconds == no_number) throw Invalid("seconds are written with two digits");
        if (cursor.take_any(".,")) {
            const auto digits = cursor.digits();
            if (digits.empty()) throw Invalid("digits are missing behind the point");
            fraction = part_of(digits, second);
        }
    }
    if (hours > 24 || minutes > 59 || seconds > 59) throw Invalid("there is no such time of day");
    if (hours == 24 && (minutes > 0 || seconds > 0 || fraction > 0)) throw Invalid("there is no such time of day");
    return std::chrono::hours(hours) + std::chrono::minutes(minutes) + std::chrono::seconds(seconds) +
           Duration(fraction);
}

/// How far a zone is ahead of UTC: `Z`, `+02:00`, `-0500`, `+02`, or nothing at all.
[[nodiscard]] Duration zone(Cursor& cursor) {
    if (cursor.done() || cursor.take_any("zZ")) return Duration(0);
    const bool behind = cursor.peek() == '-';
    if (!cursor.take_any("+-")) throw Invalid("a zone is written Z or +02:00");
    const auto hours = cursor.number(2);
    std::int64_t minutes = 0;
    if (cursor.take(':') || is_digit(cursor.peek())) minutes = cursor.number(2);
    if (hours == no_number || minutes == no_number) throw Invalid("a zone is written Z or +02:00");
    if (hours > 23 || minutes > 59) throw Invalid("there is no such zone");
    const Duration ahead = std::chrono::hours(hours) + std::chrono::minutes(minutes);
    return behind ? -ahead : ahead;
}

/// Whether it is a duration, which alone does not say in which direction.
[[nodiscard]] bool is_duration(std::string_view text) {
    try {
        return sum(text) > Duration(0);
    } catch (const Invalid&) {
        return false;
    }
}

[[nodiscard]] Time iso(std::string_view text, Time now) {
    Cursor cursor(text);
    const bool of_today = text.size() > 2 && text[2] == ':';
    Time midnight = std::chrono::floor<days>(now);
    if (!of_today) {
        const auto year = cursor.number(4);
        const auto month = cursor.take('-') ? cursor.number(2) : no_number;
        const auto day = cursor.take('-') ? cursor.number(2) : no_number;
        if (year == no_number || month == no_number || day == no_number) throw Invalid("it is none that is known");
        const auto date = std::chrono::year(static_cast<int>(year)) / std::chrono::month(static_cast<unsigned>(month)) /
                          std::chrono::day(static_cast<unsigned>(day));
        if (!date.ok()) throw Invalid("there is no such day");
        midnight = std::chrono::sys_days(date);
        if (cursor.done()) return midnight;
        if (!cursor.take_any("Tt ")) throw Invalid("behind the date stands a T or a space, and the time of day");
    }
    const Duration of_day = clock_time(cursor);
    cursor.skip_spaces();
    const Duration ahead = zone(cursor);
    if (!cursor.done()) throw Invalid("something is left behind the zone");
    return midnight + of_day - ahead;
}

}  // namespace

std::string_view accepted_times() noexcept {
    return "2026-05-17T14:30:00Z, 2026-05-17 14:30+02:00, 2026-05-17, 14:30 (of today; all UTC without a zone), now, "
           "today, yesterday, tomorrow, -5m, '2h ago', +1h30m, 'in 2 days', @1779028200 (seconds since 1970)";
}

std::string_view accepted_durations() noexcept {
    return "90s, 5m, 1h30m, 2d, 1.5h, 250ms, '3 days' (units: us, ms, s, m, h, d, w)";
}

Time parse_time(std::string_view text, Time now) {
    const std::string plain = lower(trimmed(text));
    try {
        if (plain.empty()) throw Invalid("it is empty");
        if (const auto time = word(plain, now)) return *time;
        if (const auto time = relative(plain, now)) return *time;
        if (const auto time = since_1970(plain)) return *time;
        if (is_duration(plain)) throw Invalid("is it before or after now: -" + plain + " or +" + plain + "?");
        return iso(plain, now);
    } catch (const Invalid& problem) {
        throw BadArgument("'" + std::string(text) + "' is no time: " + problem.what() + "; accepted are " +
                      std::string(accepted_times()));
    }
}

Duration parse_duration(std::string_view text) {
    const std::string_view plain = trimmed(text);
    try {
        if (plain.empty()) throw Invalid("it is empty");
        if (plain.front() == '-') throw Invalid("it is negative");
        return sum(plain);
    } catch (const Invalid& problem) {
        throw BadArgument("'" + std::string(text) + "' is no duration: " + problem.what() + "; accepted are " +
                      std::string(accepted_durations()));
    }
}

}  // namespace sourced::inspector
