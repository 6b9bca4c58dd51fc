#include "lines.hpp"

#include <rapidjson/error/en.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstring>

namespace sourced::inspector {
namespace {

// Iterative: how deep a payload is nested is its own affair. Numbers as text: none is too large.
constexpr unsigned parsing =
    rapidjson::kParseIterativeFlag | rapidjson::kParseNumbersAsStringsFlag | rapidjson::kParseValidateEncodingFlag;

/// Text in memory as RapidJSON reads it. It need not end with NUL; a NUL in it is one.
class Text {
public:
    using Ch = char;
    explicit Text(std::string_view text) : begin_(text.data()), at_(text.data()), end_(text.data() + text.size()) {}

    [[nodiscard]] char Peek() const { return at_ == end_ ? '\0' : *at_; }
    char Take() { return at_ == end_ ? '\0' : *at_++; }
    [[nodiscard]] std::size_t Tell() const { return static_cast<std::size_t>(at_ - begin_); }
    // Only for those who write where they read.
    char* PutBegin() { return nullptr; }
    void Put(char) {}
    void Flush() {}
    std::size_t PutEnd(char*) { return 0; }

private:
    const char* begin_;
    const char* at_;
    const char* end_;
};

constexpr std::array<const char*, 5> states{"idle", "ready", "claimed", "waiting", "parked"};

const char* kind_name(Kind kind) { return kind == Kind::command ? "command" : "event"; }

void unless_empty(Json& json, std::string_view name, std::string_view content) {
    if (!content.empty()) json.text_field(name, content);
}

// ---- Reading ------------------------------------------------------------------

[[noreturn]] void wrong(std::string_view field, std::string_view expected, std::string_view found) {
    constexpr std::size_t longest = 60;
    std::string text = "/" + std::string(field) + ": expected " + std::string(expected) + ", got ";
    text += found.substr(0, longest);
    if (found.size() > longest) text += "...";
    throw Invalid(text);
}

template <class Number>
bool read_number(std::string_view text, Number& number) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    return error == std::errc() && end == text.data() + text.size();
}

/// 2026-11-21T17:12:43.123456Z, as iso_text() writes it.
std::optional<Time> read_time(std::string_view text) {
    using namespace std::chrono;
    const auto digits = [&](std::size_t from, std::size_t count, auto& number) {
        if (text.size() < from + count || text[from] == '-') return false;
        return read_number(text.substr(from, count), number);
    };
    const auto is = [&](std::size_t at, char c) { return at < text.size() && text[at] == c; };
    int year_number = 0;
    unsigned month_number = 0;
    unsigned day_number = 0;
    int hour = 0;
    int minute = 0;
    int second = 0;
    const bool shaped = digits(0, 4, year_number) && is(4, '-') && digits(5, 2, month_number) && is(7, '-') &&
                        digits(8, 2, day_number) && is(10, 'T') && digits(11, 2, hour) && is(13, ':') &&
                        digits(14, 2, minute) && is(16, ':') && digits(17, 2, second) && text.back() == 'Z';
    const year_month_day date{year(year_number), month(month_number), day(day_number)};
    if (!shaped || !date.ok() || hour > 23 || minute > 59 || second > 59) return std::nullopt;
    std::int64_t fraction = 0;
    if (text.size() > 20) {
        const std::size_t count = text.size() - 21;
        if (!is(19, '.') || count < 1 || count > 6 || !digits(20, count, fraction)) return std::nullopt;
        for (std::size_t i = count; i < 6; ++i) fraction *= 10;
    } else if (text.size() != 20) {
        return std::nullopt;
    }
    return Time(sys_days(date)) + hours(hour) + minutes(minute) + seconds(second) + microseconds(fraction);
}

}  // namespace

// ---- LineWriter ---------------------------------------------------------------

Json& LineWriter::begin(const char* name) {
    json_.clear();
    return json_.begin().key(name).begin();
}

std::string_view LineWriter::end() {
    while (!json_.complete()) json_.end();
    safe_ = safe_json(json_.text());  // what was embedded is not changed by it
    return safe_;
}

std::string_view LineWriter::line(const ExportBegin& content) {
    begin("export").field("version", content.version).time_field("exported_at", content.exported_at);
    json_.field("complete", content.complete).field("groups", content.groups);
    return end();
}

std::string_view LineWriter::line(const Message& content) {
    json_.clear();
    write_message(json_, content, Bytes::all);
    return end();
}

std::string_view LineWriter::line(const Scheduled& content) {
    write_scheduled(begin("scheduled"), content, Bytes::all);
    return end();
}

std::string_view LineWriter::line(const Recurring& content) {
    const Message& each = content.message;
    begin("recurring").text_field("name", content.name);
    json_.field("every", static_cast<std::int64_t>(content.every.count()));
    if (content.first) json_.time_field("first", *content.first);
    json_.time_field("next", content.next).field("next_id", content.next_id).text_field("stream", each.stream);
    json_.text_field("type", each.type).field("kind", kind_name(each.kind)).field("schema", each.schema);
    json_.json_field("metadata", each.metadata.json(), Bytes::all).json_field("payload", each.payload, Bytes::all);
    return end();
}

std::string_view LineWriter::line(const GroupPart& content) {
    std::visit([this](const auto& one) { part(one); }, content);
    return end();
}

void LineWriter::part(const GroupRecord& record) {
    begin("group").text_field("name", record.name).field("generation", record.generation).key("handles").begin();
    for (const auto& [type, since] : record.handles) json_.field(type, since);
    json_.end().field("begins", record.begins).field("scanned", record.scanned).field("active", record.active);
    unless_empty(json_, "reason", record.reason);
    unless_empty(json_, "error_type", record.error_type);
    unless_empty(json_, "error_text", record.error_text);
    if (record.error_position != 0) json_.field("error_position", record.error_position);
    json_.time_field("created_at", record.created_at);
    if (record.changed_at) json_.time_field("changed_at", *record.changed_at);
}

void LineWriter::part(const OffsetRecord& record) {
    const OffsetInfo& offset = record.offset;
    begin("offset").text_field("group", record.group).text_field("stream", offset.stream);
    json_.field("state", states[static_cast<std::size_t>(offset.state)]).field("acked", offset.acked);
    json_.field("known", offset.known).field("highest", record.highest);
    if (offset.attempts != 0) json_.field("attempts", offset.attempts);
    if (offset.deaths != 0) json_.field("deaths", offset.deaths);
    if (offset.position != 0) json_.field("position", offset.position);
    unless_empty(json_, "error_type", offset.error_type);
    unless_empty(json_, "error_text", offset.error_text);
    unless_empty(json_, "reason", offset.reason);
    if (offset.failed_at) json_.time_field("failed_at", *offset.failed_at);
    if (offset.retry_at) json_.time_field("retry_at", *offset.retry_at);
}

void LineWriter::part(const SkipRecord& record) {
    const Skipped& skipped = record.skipped;
    begin("skipped").text_field("group", record.group).text_field("stream", skipped.stream);
    json_.field("position", skipped.position).field("id", skipped.id).time_field("at", skipped.at);
    unless_empty(json_, "error_type", skipped.error_type);
    unless_empty(json_, "error_text", skipped.error_text);
    json_.text_field("reason", skipped.reason);
}

std::string_view LineWriter::line(const ExportEnd& content) {
    begin("end").field("messages", content.messages).field("scheduled", content.scheduled);
    json_.field("recurring", content.recurring).field("groups", content.groups);
    json_.field("offsets", content.offsets).field("skipped", content.skipped);
    return end();
}

// ---- LineReader ---------------------------------------------------------------

/// The members of one object, each to be taken once.
class LineReader::Members {
public:
    Members(std::vector<Member>& all, std::size_t count) : all_(&all), count_(count) {}

    [[nodiscard]] std::size_t count() const noexcept { return count_; }
    [[nodiscard]] bool empty() const noexcept { return count_ == 0; }
    [[nodiscard]] const std::string& first() const { return all_->front().key; }

    [[nodiscard]] Member* find(std::string_view key) {
        for (std::size_t i = 0; i < count_; ++i) {  // they mostly stand in the order in which they are asked for
            Member& member = (*all_)[(next_ + i) % count_];
            if (member.taken || member.key != key) continue;
            member.taken = true;
            next_ = (next_ + i + 1) % count_;
            return &member;
        }
        return nullptr;
    }
    [[nodiscard]] Member& get(std::string_view key) {
        if (Member* member = find(key)) return *member;
        throw Invalid("/" + std::string(key) + ": it is missing");
    }

    [[nodiscard]] std::optional<std::string> text_if(std::string_view key) {
        if (Member* member = find(key)) return string_of(*member);
        if (const Member* const member = find(std::string(key) + "_base64")) return bytes_of(*member);
        return std::nullopt;
    }
    [[nodiscard]] std::string text(std::string_view key) {
        if (auto found = text_if(key)) return std::move(*found);
        throw Invalid("/" + std::string(key) + ": it is missing");
    }
    [[nodiscard]] std::string text_or_empty(std::string_view key) { return text_if(key).value_or(std::string()); }

    /// JSON text, byte for byte.
    [[nodiscard]] std::optional<std::string> json_if(std::string_view key) {
        if (const Member* member = find(key)) return std::string(member->json);
        return text_if(std::string(key) + "_text");
    }

    [[nodiscard]] std::int64_t number(std::string_view key) { return number_of(get(key)); }
    [[nodiscard]] std::int64_t number_or(std::string_view key, std::int64_t other) {
        const Member* member = find(key);
        return member ? number_of(*member) : other;
    }
    [[nodiscard]] int small_number_or(std::string_view key, int other) {
        const Member* member = find(key);
        if (!member) return other;
        int number = 0;
        if (!read_number(member->json, number)) wrong(member->key, "a small integer", member->json);
        return number;
    }
    [[nodiscard]] bool flag(std::string_view key) {
        const Member& member = get(key);
        if (member.json != "true" && member.json != "false") wrong(key, "true or false", member.json);
        return member.json == "true";
    }
    [[nodiscard]] Id id(std::string_view key) { return id_of(get(key)); }
    [[nodiscard]] std::optional<Id> id_if(std::string_view key) {
        const Member* member = find(key);
        return member ? std::optional(id_of(*member)) : std::nullopt;
    }
    [[nodiscard]] Time time(std::string_view key) { return time_of(get(key)); }
    [[nodiscard]] std::optional<Time> time_if(std::string_view key) {
        const Member* member = find(key);
        return member ? std::optional(time_of(*member)) : std::nullopt;
    }
    [[nodiscard]] Kind kind() {
        const Member& member = get("kind");
        if (member.is_string && member.text == "command") return Kind::command;
        if (member.is_string && member.text == "event") return Kind::event;
        wrong("kind", "\"command\" or \"event\"", member.json);
    }
    [[nodiscard]] std::string_view object(std::string_view key) {
        const Member& member = get(key);
        if (member.json.front() != '{') wrong(key, "an object", member.json);
        return member.json;
    }

    /// All of them, whatever they are called.
    template <class Each>
    void each_number(const Each& each) {
        for (std::size_t i = 0; i < count_; ++i) {
            (*all_)[i].taken = true;
            each((*all_)[i].key, number_of((*all_)[i]));
        }
    }

    void finish() const {
        for (std::size_t i = 0; i < count_; ++i) {
            const Member& member = (*all_)[i];
            if (!member.taken) throw Invalid("/" + member.key + ": it is no field of this line, or stands twice");
        }
    }

private:
    static std::string string_of(Member& member) {
        if (!member.is_string) wrong(member.key, "a string", member.json);
        return std::move(member.text);
    }
    static std::string bytes_of(const Member& member) {
        try {
            const auto bytes = decode<std::vector<std::byte>>(member.json);
            return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
        } catch (const Invalid&) {
            wrong(member.key, "base64", member.json);
        }
    }
    static std::int64_t number_of(const Member& member) {
        std::int64_t number = 0;
        if (!read_number(member.json, number)) wrong(member.key, "an integer", member.json);
        return number;
    }
    static Id id_of(const Member& member) {
        if (!member.is_string) wrong(member.key, "an id", member.json);
        try {
            return Id::parse(member.text);
        } catch (const Invalid&) {
            wrong(member.key, "an id", member.json);
        }
    }
    static Time time_of(const Member& member) {
        if (!member.is_string) return Time(Duration(number_of(member)));
        if (const auto time = read_time(member.text)) return *time;
        wrong(member.key, "a time like 2026-05-17T14:30:00.5Z, or microseconds since 1970", member.json);
    }

    std::vector<Member>* all_;
    std::size_t count_;
    std::size_t next_ = 0;
};

/// Takes the members of the outermost object apart.
class LineReader::Handler : public rapidjson::BaseReaderHandler<rapidjson::UTF8<>, LineReader::Handler> {
public:
    Handler(std::string_view json, const Text& at, std::vector<Member>& members)
        : json_(json), at_(at), members_(members) {}

    [[nodiscard]] std::size_t count() const noexcept { return count_; }

    bool Key(const char* text, rapidjson::SizeType size, bool) {
        if (depth_ != 1) return true;
        if (count_ == members_.size()) members_.emplace_back();
        Member& member = members_[count_];
        member.key.assign(text, size);
        member.is_string = member.taken = false;
        begin_ = json_.find_first_not_of(": \t\r\n", at_.Tell());
        return true;
    }
    bool String(const char* text, rapidjson::SizeType size, bool) {
        if (depth_ != 1) return depth_ > 1;
        members_[count_].text.assign(text, size);
        members_[count_].is_string = true;
        return value();
    }
    bool Default() { return depth_ == 1 ? value() : depth_ > 1; }
    bool RawNumber(const char*, rapidjson::SizeType, bool) { return Default(); }
    bool StartObject() {
        ++depth_;
        return true;
    }
    bool EndObject(rapidjson::SizeType) {
        if (--depth_ == 1) return value(1);
        return true;
    }
    bool StartArray() { return depth_++ > 0; }
    bool EndArray(rapidjson::SizeType) {
        if (--depth_ == 1) return value(1);
        return true;
    }

private:
    /// `left`: the iterative parser tells of a bracket before it has taken it.
    bool value(std::size_t left = 0) {
        members_[count_].json = json_.substr(begin_, at_.Tell() + left - begin_);
        ++count_;
        return true;
    }

    std::string_view json_;
    const Text& at_;
    std::vector<Member>& members_;
    std::size_t count_ = 0;
    std::size_t begin_ = 0;
    int depth_ = 0;
};

LineReader::Members LineReader::members(std::string_view json, std::size_t depth) {
    Text stream(json);
    Handler handler(json, stream, kept_[depth]);
    const auto result = reader_.Parse<parsing>(stream, handler);
    if (result.Code() == rapidjson::kParseErrorTermination) throw Invalid("it is JSON, but not an object");
    if (result.IsError()) {
        throw Invalid("it is not JSON: " + std::string(rapidjson::GetParseError_En(result.Code())) + " (byte " +
                      std::to_string(result.Offset() + 1) + ")");
    }
    return {kept_[depth], handler.count()};
}

namespace {

template <class Members>
void read_payload(Members& members, Message& message) {
    if (const auto metadata = members.json_if("metadata")) {
        try {
            message.metadata = Metadata::parse(*metadata);
        } catch (const Invalid& error) {
            throw Invalid("/metadata: " + std::string(error.what()));
        }
    }
    auto payload = members.json_if("payload");
    if (!payload) throw Invalid("/payload: it is missing");
    message.payload = std::move(*payload);
}

/// What messages have in common, wherever they stand.
template <class Members>
void read_message(Members& members, Message& message) {
    message.type = members.text("type");
    message.kind = members.kind();
    message.schema = members.small_number_or("schema", 1);
    message.id = members.id("id");
    message.causation = members.id_if("causation").value_or(message.id);
    message.correlation = members.id_if("correlation").value_or(message.id);
    if (const auto occurred = members.time_if("occurred_at")) message.occurred_at = *occurred;
    read_payload(members, message);
    message.erased_at = members.time_if("erased_at");
    if (!message.erased_at) return;
    if (message.payload != "null") wrong("payload", "null, as it was erased", message.payload);
    message.payload.clear();
}

template <class Members>
Message read_logged(Members& members) {
    Message message;
    message.position = members.number_or("position", 0);
    message.stream = members.text("stream");
    message.seq = members.number("seq");
    read_message(members, message);
    message.recorded_at = members.time("recorded_at");
    return message;
}

template <class Members>
Scheduled read_scheduled(Members& members) {
    Scheduled scheduled;
    scheduled.due_at = members.time("due_at");
    scheduled.message.stream = members.text("stream");
    read_message(members, scheduled.message);
    return scheduled;
}

template <class Members>
Recurring read_recurring(Members& members) {
    Recurring recurring;
    recurring.name = members.text("name");
    recurring.every = Duration(members.number("every"));
    recurring.first = members.time_if("first");
    recurring.next = members.time("next");
    recurring.next_id = members.id("next_id");
    Message& each = recurring.message;
    each.stream = members.text("stream");
    each.type = members.text("type");
    each.kind = members.kind();
    each.schema = members.small_number_or("schema", 1);
    read_payload(members, each);
    return recurring;
}

}  // namespace

GroupPart LineReader::part(const std::string& name, Members& members) {
    if (name == "group") {
        GroupRecord record;
        record.name = members.text("name");
        record.generation = members.number("generation");
        auto handles = this->members(members.object("handles"), 2);
        const auto add = [&](const std::string& type, std::int64_t since) { record.handles.emplace_back(type, since); };
        handles.each_number(add);
        record.begins = members.number("begins");
        record.scanned = members.number("scanned");
        record.active = members.flag("active");
        record.reason = members.text_or_empty("reason");
        record.error_type = members.text_or_empty("error_type");
        record.error_text = members.text_or_empty("error_text");
        record.error_position = members.number_or("error_position", 0);
        record.created_at = members.time("created_at");
        record.changed_at = members.time_if("changed_at");
        return record;
    }
    if (name == "offset") {
        OffsetRecord record;
        OffsetInfo& offset = record.offset;
        record.group = members.text("group");
        offset.stream = members.text("stream");
        const std::string state = members.text("state");
        const auto found = std::find(states.begin(), states.end(), state);
        if (found == states.end()) wrong("state", "idle, ready, claimed, waiting or parked", state);
        offset.state = static_cast<OffsetInfo::State>(found - states.begin());
        offset.acked = members.number("acked");
        offset.known = members.number("known");
        record.highest = members.number("highest");
        offset.attempts = members.small_number_or("attempts", 0);
        offset.deaths = members.small_number_or("deaths", 0);
        offset.position = members.number_or("position", 0);
        offset.error_type = members.text_or_empty("error_type");
        offset.error_text = members.text_or_empty("error_text");
        offset.reason = members.text_or_empty("reason");
        offset.failed_at = members.time_if("failed_at");
        offset.retry_at = members.time_if("retry_at");
        return record;
    }
    SkipRecord record;
    record.group = members.text("group");
    record.skipped.stream = members.text("stream");
    record.skipped.position = members.number("position");
    record.skipped.id = members.id("id");
    record.skipped.at = members.time("at");
    record.skipped.error_type = members.text_or_empty("error_type");
    record.skipped.error_text = members.text_or_empty("error_text");
    record.skipped.reason = members.text("reason");
    return record;
}

ExportLine LineReader::read(std::string_view line) {
    Members outer = members(line, 0);
    if (outer.empty()) throw Invalid("it is an object without a member");
    const std::string name = outer.first();
    if (outer.count() > 1 || name == "position") {
        ExportLine message = read_logged(outer);
        outer.finish();
        return message;
    }
    constexpr std::array<std::string_view, 7> names{"export", "scheduled", "recurring", "group",
                                                    "offset", "skipped",   "end"};
    if (std::find(names.begin(), names.end(), name) == names.end()) {
        throw Invalid("/" + name + ": no line of an export begins like this");
    }
    Members inner = members(outer.object(name), 1);
    ExportLine read;
    if (name == "export") {
        ExportBegin begin;
        begin.version = inner.number("version");
        if (begin.version != ExportBegin::known_version) {
            throw Invalid("/export/version: it is " + std::to_string(begin.version) + ", this program knows " +
                          std::to_string(ExportBegin::known_version) + ": use a newer version of the program");
        }
        begin.exported_at = inner.time("exported_at");
        begin.complete = inner.flag("complete");
        begin.groups = inner.flag("groups");
        read = begin;
    } else if (name == "scheduled") {
        read = read_scheduled(inner);
    } else if (name == "recurring") {
        read = read_recurring(inner);
    } else if (name == "end") {
        ExportEnd end;
        end.messages = inner.number("messages");
        end.scheduled = inner.number("scheduled");
        end.recurring = inner.number("recurring");
        end.groups = inner.number("groups");
        end.offsets = inner.number("offsets");
        end.skipped = inner.number("skipped");
        read = end;
    } else {
        read = part(name, inner);
    }
    inner.finish();
    return read;
}

}  // namespace sourced::inspector
