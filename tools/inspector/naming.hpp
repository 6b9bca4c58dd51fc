// How people name streams and messages on the command line.
#pragma once

#include "inspector.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace sourced::inspector {

/// Nothing for a text that is no id.
[[nodiscard]] std::optional<Id> id_of(std::string_view text);

/// Ends a command for a stream that has no message, with the one that was likely meant: Failed(not_found).
[[noreturn]] void no_such_stream(Context& context, std::string_view stream);
/// The last seq of a stream. Throws Failed(not_found) when it has no message.
std::int64_t last_seq(Context& context, std::string_view stream);

/// What the help says of an argument that message_named() reads.
constexpr const char* message_names = "An id or 8 digits or more of its beginning, STREAM@SEQ, or @POSITION";

/// The message that is meant by an id, by the beginning of one if there is only one such, by `stream@seq`, or by
/// `@position`. Throws Failed: not_found, or usage for what is none of these or is the beginning of several.
[[nodiscard]] Message message_named(Context& context, const std::string& name);

}  // namespace sourced::inspector
