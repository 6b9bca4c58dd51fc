// The lines of an export: one thing a line, as JSON that reads back to the same bytes. tools/README.md describes them.
#pragma once

#include "output.hpp"
#include "sourced.hpp"

#include <rapidjson/reader.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace sourced::inspector {

/// The first line of an export.
struct ExportBegin {
    static constexpr std::int64_t known_version = 1;

    std::int64_t version = known_version;
    Time exported_at{};
    bool complete = true;  ///< the whole log and the schedule; otherwise some of the log
    bool groups = false;   ///< with what the groups have come to
};

/// The last line: how many of each there are in front of it.
struct ExportEnd {
    std::int64_t messages = 0;
    std::int64_t scheduled = 0;
    std::int64_t recurring = 0;
    std::int64_t groups = 0;
    std::int64_t offsets = 0;
    std::int64_t skipped = 0;

    [[nodiscard]] bool operator==(const ExportEnd&) const = default;
};

/// What one line holds.
using ExportLine = std::variant<ExportBegin, Message, Scheduled, Recurring, GroupPart, ExportEnd>;

/// Makes lines. The text that a call gives lives until the next.
class LineWriter {
public:
    [[nodiscard]] std::string_view line(const ExportBegin& begin);
    [[nodiscard]] std::string_view line(const Message& message);
    [[nodiscard]] std::string_view line(const Scheduled& scheduled);
    [[nodiscard]] std::string_view line(const Recurring& recurring);
    [[nodiscard]] std::string_view line(const GroupPart& part);
    [[nodiscard]] std::string_view line(const ExportEnd& end);

private:
    Json& begin(const char* name);
    [[nodiscard]] std::string_view end();
    void part(const GroupRecord& record);
    void part(const OffsetRecord& record);
    void part(const SkipRecord& record);

    Json json_;
    std::string safe_;
};

/// Reads lines.
class LineReader {
public:
    /// Throws Invalid: which field, and what is wrong with it.
    [[nodiscard]] ExportLine read(std::string_view line);

private:
    /// A member of an object: its JSON text, and for a string what that stands for.
    struct Member {
        std::string key;
        std::string_view json;  // of the line
        std::string text;
        bool is_string = false;
        bool taken = false;
    };
    class Handler;
    class Members;

    /// `depth`: of objects in each other, from 0.
    [[nodiscard]] Members members(std::string_view json, std::size_t depth);
    [[nodiscard]] GroupPart part(const std::string& name, Members& members);

    rapidjson::Reader reader_;
    std::array<std::vector<Member>, 3> kept_;  // their memory is used again
};

}  // namespace sourced::inspector
