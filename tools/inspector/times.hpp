// Times and durations as people write them on a command line, in one place for all commands.
#pragma once

#include <string>
#include <string_view>

#include "sourced.hpp"

namespace sourced::inspector {

/// What somebody wrote on the command line cannot be read. Ends a command as wrong usage; the text may have lines.
struct BadArgument : Invalid {
    using Invalid::Invalid;
};

/// What parse_time takes, in a few words, for help and for error texts.
[[nodiscard]] std::string_view accepted_times() noexcept;
/// What parse_duration takes.
[[nodiscard]] std::string_view accepted_durations() noexcept;

/// The time that `text` stands for. Without a zone it is UTC.
///
///     2026-05-17T14:30:00.5Z   2026-05-17 14:30+02:00   2026-05-17        ISO 8601; a date is its midnight
///     14:30   14:30:05                                                    of the day that `now` is in
///     now   today   yesterday   tomorrow                                  the days: their midnights
///     -5m   2h ago   1h30m ago   +5m   in 2 days                          before and after `now`
///     @1779028200   @1779028200.25   1779028200250000                     seconds since 1970; microseconds, as the
///                                                                         file holds them (15 digits or more)
///
/// Upper or lower case. Throws BadArgument, saying what is wrong with it and what is accepted.
[[nodiscard]] Time parse_time(std::string_view text, Time now);

/// How long `text` says: numbers, also with a fraction, each with its unit: us, ms, s, m, h, d, w or the words.
///
///     90s   5m   1h30m   2d   1.5h   250ms   3 days   0
///
/// Never negative. Throws BadArgument, saying what is wrong with it and what is accepted.
[[nodiscard]] Duration parse_duration(std::string_view text);

}  // namespace sourced::inspector
