// A group as several commands show it.
#pragma once

#include "inspector.hpp"

#include <vector>

namespace sourced::inspector {

/// The fields of a group, inside of an object.
void write_group(Json& json, const GroupInfo& group);
/// A line for each: status, lag with a bar, what is in trouble.
void print_groups(Output& out, const std::vector<GroupInfo>& groups);

}  // namespace sourced::inspector
