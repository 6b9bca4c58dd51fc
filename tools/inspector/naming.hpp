// How people name a message on the command line.
#pragma once

#include "inspector.hpp"

#include <string>

namespace sourced::inspector {

/// What the help says of an argument that message_named() reads.
constexpr const char* message_names = "An id or 8 digits or more of its beginning, STREAM@SEQ, or @POSITION";

/// The message that is meant by an id, by the beginning of one if there is only one such, by `stream@seq`, or by
/// `@position`. Throws Failed: not_found, or usage for what is none of these or is the beginning of several.
[[nodiscard]] Message message_named(Context& context, const std::string& name);

}  // namespace sourced::inspector
