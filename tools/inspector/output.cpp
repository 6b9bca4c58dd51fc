#include "output.hpp"

#include <fcntl.h>
#include <locale.h>
#include <spawn.h>
#include <rapidjson/memorystream.h>
#include <rapidjson/reader.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <wchar.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cctype>
#include <cmath>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <iostream>

namespace sourced::inspector {
namespace {

/// The code point that begins at `at`, and how many bytes it takes; nothing for what is no UTF-8.
struct CodePoint {
    char32_t value = 0;
    std::size_t bytes = 0;
};
std::optional<CodePoint> code_point(std::string_view text, std::size_t at) {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    const unsigned char first = byte(at);
    if (first < 0x80) return CodePoint{first, 1};
    const std::size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
    if (first < 0xC2 || first > 0xF4 || at + length > text.size()) return std::nullopt;
    char32_t value = first & (0xFFu >> (length + 1));
    for (std::size_t i = 1; i < length; ++i) {
        if ((byte(at + i) & 0xC0) != 0x80) return std::nullopt;
        value = (value << 6) | (byte(at + i) & 0x3Fu);
    }
    constexpr std::array<char32_t, 5> least{0, 0, 0x80, 0x800, 0x10000};
    if (value < least[length] || value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) return std::nullopt;
    return CodePoint{value, length};
}

/// What a terminal might obey, or what changes the order in which text is read.
bool is_unsafe(char32_t value) {
    if (value < 0x20 || (value >= 0x7F && value < 0xA0)) return true;
    if (value == 0x061C || (value >= 0x200B && value <= 0x200F)) return true;
    return (value >= 0x2028 && value <= 0x202E) || (value >= 0x2060 && value <= 0x206F) || value == 0xFEFF;
}

std::string hex(std::uint32_t value, int digits) {
    std::array<char, 16> text{};
    std::snprintf(text.data(), text.size(), "%0*x", digits, value);
    return text.data();
}

/// Nothing but printable ASCII.
bool is_plain(std::string_view text) {
    return std::all_of(text.begin(), text.end(), [](char c) { return c >= 0x20 && c < 0x7F; });
}

/// What breaks a line, or stands in JSON between its parts only.
bool breaks_lines(char c) { return static_cast<unsigned char>(c) < 0x20; }

bool is_json(std::string_view text) {
    if (text.empty()) return false;
    // Iterative: how deep it is nested is its own affair. Numbers as text: none is too large.
    constexpr unsigned checking = rapidjson::kParseIterativeFlag | rapidjson::kParseNumbersAsStringsFlag;
    rapidjson::MemoryStream stream(text.data(), text.size());
    rapidjson::Reader reader;
    rapidjson::BaseReaderHandler<> ignore;
    return !reader.Parse<checking>(stream, ignore).IsError();
}

/// Whether JSON can be found again byte for byte in a line that Output writes.
bool stays_as_it_is(std::string_view json) {
    if (is_plain(json)) return json.front() != ' ' && json.back() != ' ';
    return std::none_of(json.begin(), json.end(), breaks_lines) && json.front() != ' ' && json.back() != ' ' &&
           safe_json(json) == json;
}

/// How many characters have to be put in, taken out, changed, or swapped with their neighbour.
std::size_t edits(std::string_view from, std::string_view to) {
    std::vector<std::size_t> before_last(to.size() + 1);
    std::vector<std::size_t> last(to.size() + 1);
    std::vector<std::size_t> row(to.size() + 1);
    for (std::size_t j = 0; j <= to.size(); ++j) row[j] = j;
    for (std::size_t i = 1; i <= from.size(); ++i) {
        before_last.swap(last);
        last.swap(row);
        row[0] = i;
        for (std::size_t j = 1; j <= to.size(); ++j) {
            const bool same = from[i - 1] == to[j - 1];
            row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (same ? 0 : 1)});
            const bool swapped = i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1];
            if (swapped) row[j] = std::min(row[j], before_last[j - 2] + 1);
        }
    }
    return row[to.size()];
}

/// Whether the environment says that the terminal shows UTF-8.
bool speaks_unicode() {
    for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
        const char* const value = std::getenv(name);
        if (!value || !*value) continue;
        std::string locale = value;
        std::transform(locale.begin(), locale.end(), locale.begin(), [](unsigned char c) { return std::tolower(c); });
        return locale.find("utf-8") != std::string::npos || locale.find("utf8") != std::string::npos;
    }
    return false;
}

/// Columns of a character. The locale that the program runs in may know nothing of wide ones.
int columns_of(char32_t value) {
    static const locale_t wide = ::newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
    if (value < 0x300 || !wide) return 1;
    const locale_t before = ::uselocale(wide);  // of this thread
    const int columns = ::wcwidth(static_cast<wchar_t>(value));
    ::uselocale(before);
    return columns < 0 ? 1 : columns;
}

/// What stands at a place of printable text: a character, or a colour of ours, which takes no column.
struct Piece {
    std::size_t bytes = 1;
    std::size_t columns = 1;
};
Piece piece(std::string_view text, std::size_t at) {
    if (text[at] == '\x1b') {
        const auto end = text.find('m', at);
        return {(end == std::string_view::npos ? text.size() : end + 1) - at, 0};
    }
    const auto found = code_point(text, at);
    if (!found) return {};
    return {found->bytes, static_cast<std::size_t>(columns_of(found->value))};
}

std::string local_text(Time time) {
    const std::time_t seconds = std::chrono::system_clock::to_time_t(time);
    std::tm parts{};
    std::array<char, 64> text{};
    ::localtime_r(&seconds, &parts);
    std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S %Z", &parts);
    return text.data();
}

std::string unix_text(Time time) {
    const auto since = time.time_since_epoch();
    const auto seconds = std::chrono::floor<std::chrono::seconds>(since);
    std::array<char, 64> text{};
    std::snprintf(text.data(), text.size(), "@%lld.%06d", static_cast<long long>(seconds.count()),
                  static_cast<int>((since - seconds).count()));
    return text.data();
}

std::string one_decimal(double value, const char* unit) {
    std::array<char, 64> text{};
    std::snprintf(text.data(), text.size(), value < 9.95 ? "%.1f %s" : "%.0f %s", value, unit);
    return text.data();
}

}  // namespace

// ---- Text ---------------------------------------------------------------------

bool is_utf8(std::string_view text) {
    for (std::size_t at = 0; at < text.size();) {
        const auto found = code_point(text, at);
        if (!found) return false;
        at += found->bytes;
    }
    return true;
}

std::string safe_json(std::string_view json) {
    if (is_plain(json)) return std::string(json);
    std::string safe;
    safe.reserve(json.size());
    for (std::size_t at = 0; at < json.size();) {
        const auto found = code_point(json, at);
        if (!found) {
            safe += "\\ufffd";
            ++at;
            continue;
        }
        if (found->value >= 0x7F && is_unsafe(found->value)) safe += "\\u" + hex(found->value, 4);
        else safe += json.substr(at, found->bytes);
        at += found->bytes;
    }
    return safe;
}

std::string printable(std::string_view text) {
    std::string shown;
    shown.reserve(text.size());
    for (std::size_t at = 0; at < text.size();) {
        const auto found = code_point(text, at);
        if (!found) {
            shown += "\\x" + hex(static_cast<unsigned char>(text[at]), 2);
            ++at;
            continue;
        }
        if (found->value == '\n') shown += "\\n";
        else if (found->value == '\r') shown += "\\r";
        else if (found->value == '\t') shown += "\\t";
        else if (found->value < 0x80 && is_unsafe(found->value)) shown += "\\x" + hex(found->value, 2);
        else if (is_unsafe(found->value)) shown += "\\u" + hex(found->value, 4);
        else shown += text.substr(at, found->bytes);
        at += found->bytes;
    }
    return shown;
}

std::size_t width_of(std::string_view text) {
    std::size_t columns = 0;
    for (std::size_t at = 0; at < text.size();) {
        const Piece next = piece(text, at);
        columns += next.columns;
        at += next.bytes;
    }
    return columns;
}

std::string shortened(const std::string& text, std::size_t columns) {
    if (width_of(text) <= columns) return text;
    if (columns == 0) return {};
    std::string cut;
    std::size_t used = 0;
    for (std::size_t at = 0; at < text.size();) {
        const Piece next = piece(text, at);
        if (used + next.columns > columns - 1) break;
        cut += text.substr(at, next.bytes);
        used += next.columns;
        at += next.bytes;
    }
    cut += "…";
    return text.find('\x1b') == std::string::npos ? cut : cut + "\x1b[0m";
}

std::string closest(std::string_view text, const std::vector<std::string>& candidates) {
    std::size_t least = std::min<std::size_t>(3, 1 + text.size() / 4) + 1;  // a short word has many neighbours
    std::string found;
    for (const auto& candidate : candidates) {
        std::size_t distance = edits(text, candidate);
        if (text.size() >= 3 && candidate.starts_with(text)) distance = std::min<std::size_t>(distance, 1);
        if (distance >= least) continue;
        least = distance;
        found = candidate;
    }
    return found;
}

std::string did_you_mean(std::string_view text, const std::vector<std::string>& candidates) {
    const std::string found = closest(text, candidates);
    return found.empty() ? found : ". Did you mean '" + found + "'?";
}

std::string grouped(std::int64_t number) {
    auto digits = std::to_string(number);
    const std::size_t sign = number < 0 ? 1 : 0;
    for (auto at = digits.size(); at > sign + 3;) digits.insert(at -= 3, ",");
    return digits;
}

std::string in_quotes(std::string_view text) { return "'" + printable(text) + "'"; }

std::string shell_word(std::string_view text) {
    constexpr std::string_view plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:@%+,-";
    if (!text.empty() && text.find_first_not_of(plain) == std::string_view::npos) return std::string(text);
    std::string quoted = "'";
    for (const char each : printable(text)) quoted += each == '\'' ? std::string("'\\''") : std::string(1, each);
    return quoted + "'";
}

std::string count_text(std::int64_t number, const std::string& of_what, bool estimated) {
    return (estimated ? "~" : "") + grouped(number) + " " + of_what + (number == 1 ? "" : "s");
}

std::string bytes_text(std::int64_t bytes) {
    constexpr std::array<const char*, 5> units{"B", "kB", "MB", "GB", "TB"};
    if (bytes < 1000) return std::to_string(bytes) + " B";
    auto value = static_cast<double>(bytes);
    std::size_t unit = 0;
    while (value >= 999.5 && unit + 1 < units.size()) {
        value /= 1000;
        ++unit;
    }
    return one_decimal(value, units[unit]);
}

std::string duration_text(Duration duration) {
    const auto micros = static_cast<double>(std::llabs(duration.count()));
    const std::string sign = duration.count() < 0 ? "-" : "";
    if (micros < 1e3) return sign + one_decimal(micros, "us");
    if (micros < 1e6) return sign + one_decimal(micros / 1e3, "ms");
    const double seconds = micros / 1e6;
    if (seconds < 90) return sign + one_decimal(seconds, "s");
    if (seconds < 90 * 60) return sign + one_decimal(seconds / 60, "min");
    if (seconds < 36 * 3600.0) return sign + one_decimal(seconds / 3600, "h");
    if (seconds < 730 * 86400.0) return sign + one_decimal(seconds / 86400, "days");
    return sign + one_decimal(seconds / (365.25 * 86400), "years");
}

std::string iso_text(Time time) {
    using namespace std::chrono;
    const auto day = floor<days>(time);
    const year_month_day date(day);
    const hh_mm_ss<microseconds> clock(time - day);
    std::array<char, 64> text{};
    std::snprintf(text.data(), text.size(), "%04d-%02u-%02uT%02d:%02d:%02d", static_cast<int>(date.year()),
                  static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
                  static_cast<int>(clock.hours().count()), static_cast<int>(clock.minutes().count()),
                  static_cast<int>(clock.seconds().count()));
    std::string iso = text.data();
    if (const auto fraction = clock.subseconds().count(); fraction != 0) {
        std::snprintf(text.data(), text.size(), ".%06d", static_cast<int>(fraction));
        iso += text.data();
        while (iso.back() == '0') iso.pop_back();
    }
    return iso + "Z";
}

// ---- JSON ---------------------------------------------------------------------

Json& Json::begin() {
    writer_.StartObject();
    return *this;
}
Json& Json::end() {
    writer_.EndObject();
    return *this;
}
Json& Json::begin_array() {
    writer_.StartArray();
    return *this;
}
Json& Json::end_array() {
    writer_.EndArray();
    return *this;
}
Json& Json::key(std::string_view name) {
    writer_.Key(name.data(), static_cast<rapidjson::SizeType>(name.size()));
    return *this;
}
Json& Json::value(std::string_view text) {
    const std::string shown = is_plain(text) || is_utf8(text) ? std::string() : printable(text);
    if (!shown.empty()) text = shown;
    writer_.String(text.data() ? text.data() : "", static_cast<rapidjson::SizeType>(text.size()));
    return *this;
}
Json& Json::value(std::int64_t number) {
    writer_.Int64(number);
    return *this;
}
Json& Json::value(double number) {
    writer_.Double(number);
    return *this;
}
Json& Json::value(bool yes) {
    writer_.Bool(yes);
    return *this;
}
Json& Json::null() {
    writer_.Null();
    return *this;
}
Json& Json::raw(std::string_view json) {
    writer_.RawValue(json.data(), json.size(), rapidjson::kObjectType);
    return *this;
}

std::vector<std::string> pretty(std::string_view json) {
    std::vector<std::string> lines{""};
    std::size_t depth = 0;
    bool in_string = false;
    const auto begin_line = [&] { lines.emplace_back(2 * std::min<std::size_t>(depth, 40), ' '); };
    for (std::size_t at = 0; at < json.size(); ++at) {
        const char c = json[at];
        if (in_string) {
            lines.back() += c;
            if (c == '\\' && at + 1 < json.size()) lines.back() += json[++at];
            else if (c == '"') in_string = false;
            continue;
        }
        if (c == ' ' || c == '\n' || c == '\r' || c == '\t') continue;
        const auto next = json.find_first_not_of(" \n\r\t", at + 1);
        const char behind = next == std::string_view::npos ? '\0' : json[next];
        if (c == '{' || c == '[') {
            lines.back() += c;
            if (behind == '}' || behind == ']') {
                lines.back() += behind;
                at = next;
                continue;
            }
            ++depth;
            begin_line();
        } else if (c == '}' || c == ']') {
            if (depth > 0) --depth;
            begin_line();
            lines.back() += c;
        } else if (c == ',') {
            lines.back() += c;
            begin_line();
        } else {
            lines.back() += c;
            if (c == ':') lines.back() += ' ';
            in_string = c == '"';
        }
    }
    return lines;
}

Json& Json::text_field(std::string_view name, std::string_view content) {
    if (is_plain(content) || is_utf8(content)) return key(name).value(content);
    const auto* const bytes = reinterpret_cast<const std::byte*>(content.data());
    return key(std::string(name) + "_base64").raw(encode(std::vector<std::byte>(bytes, bytes + content.size())));
}
Json& Json::json_field(std::string_view name, std::string_view content, Bytes bytes) {
    if (!is_json(content) || (bytes == Bytes::all && !stays_as_it_is(content))) {
        return text_field(std::string(name) + "_text", content);
    }
    key(name);
    if (std::none_of(content.begin(), content.end(), breaks_lines)) return raw(content);
    std::string in_one_line(content);
    std::replace_if(in_one_line.begin(), in_one_line.end(), breaks_lines, ' ');
    return raw(in_one_line);
}
Json& Json::time_field(std::string_view name, Time content) {
    constexpr Time first = std::chrono::sys_days(std::chrono::year(0) / 1 / 1);
    constexpr Time last = std::chrono::sys_days(std::chrono::year(10'000) / 1 / 1);
    if (content >= first && content < last) return field(name, content);
    return field(name, static_cast<std::int64_t>(content.time_since_epoch().count()));
}
void Json::clear() {
    buffer_.Clear();
    writer_.Reset(buffer_);
}

void write_message(Json& json, const Message& message, Bytes bytes) {
    json.begin().field("position", message.position).text_field("stream", message.stream).field("seq", message.seq);
    json.text_field("type", message.type).field("kind", message.kind == Kind::command ? "command" : "event");
    json.field("schema", message.schema).field("id", message.id).field("causation", message.causation);
    json.field("correlation", message.correlation).time_field("recorded_at", message.recorded_at);
    json.time_field("occurred_at", message.occurred_at).json_field("metadata", message.metadata.json(), bytes);
    if (message.erased_at) json.key("payload").null().time_field("erased_at", *message.erased_at);
    else json.json_field("payload", message.payload, bytes);
    json.end();
}

void write_scheduled(Json& json, const Scheduled& entry, Bytes bytes) {
    const Message& message = entry.message;
    json.time_field("due_at", entry.due_at).text_field("stream", message.stream).text_field("type", message.type);
    json.field("kind", message.kind == Kind::command ? "command" : "event").field("schema", message.schema);
    json.field("id", message.id).field("causation", message.causation).field("correlation", message.correlation);
    if (message.occurred_at != Time{}) json.time_field("occurred_at", message.occurred_at);
    json.json_field("metadata", message.metadata.json(), bytes).json_field("payload", message.payload, bytes);
}

// ---- Output -------------------------------------------------------------------

Output::Output()
    : now(std::chrono::floor<Duration>(std::chrono::system_clock::now())),
      terminal_(::isatty(STDOUT_FILENO) == 1),
      unicode_(speaks_unicode()),
      target_(STDOUT_FILENO) {
    if (!terminal_) return;
    winsize size{};
    const bool known = ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0;
    width_ = known && size.ws_col > 0 ? size.ws_col : 80;
    height_ = known && size.ws_row > 0 ? size.ws_row : 24;
}

Output::~Output() { end_pager(); }

void Output::line(std::string_view text) {
    write(text);
    write("\n");
}

void Output::remark(std::string_view text) {
    if (this->text() && terminal_) return line(paint(Style::faint, text));
    flush();
    std::cerr << "sourced: " << text << '\n';
}

void Output::record(std::string_view json) {
    if (format == Format::json) write(in_array_ ? ",\n" : "[\n");
    in_array_ = true;
    write(safe_json(json));
    if (format != Format::json) write("\n");
}

void Output::object(std::string_view json) {
    write(safe_json(json));
    write("\n");
}

void Output::end_records() {
    if (format == Format::json) write(in_array_ ? "\n]\n" : "[]\n");
    in_array_ = false;
}

void Output::write(std::string_view text) {
    buffer_ += text;
    if (buffer_.size() < 1u << 16) return;
    if (pager_pid_ == 0 && !pager.empty()) start_pager();
    give();
}

void Output::flush() {
    pager.clear();
    give();
}

void Output::finish() {
    const auto lines = static_cast<std::size_t>(std::count(buffer_.begin(), buffer_.end(), '\n'));
    if (pager_pid_ == 0 && !pager.empty() && lines >= height_) start_pager();
    give();
    end_pager();
}

void Output::give() {
    for (std::string_view rest = buffer_; !rest.empty();) {
        const auto written = ::write(target_, rest.data(), rest.size());
        if (written >= 0) {
            rest.remove_prefix(static_cast<std::size_t>(written));
        } else if (errno != EINTR) {
            const int error = errno;
            buffer_.clear();
            end_pager();
            if (error == EPIPE) throw Closed("stdout was closed");
            throw Error(std::string("writing to stdout failed: ") + std::strerror(error));
        }
    }
    buffer_.clear();
}

void Output::start_pager() {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) return;  // shown without one
    std::vector<std::string> settings;
    for (char** entry = environ; *entry; ++entry) settings.emplace_back(*entry);
    if (!std::getenv("LESS")) settings.emplace_back("LESS=FRX");
    std::vector<char*> environment;
    for (auto& setting : settings) environment.push_back(setting.data());
    environment.push_back(nullptr);
    std::string shell = "sh";
    std::string option = "-c";
    std::array<char*, 4> arguments{shell.data(), option.data(), pager.data(), nullptr};

    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t defaults;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawnattr_init(&attributes);
    ::posix_spawn_file_actions_adddup2(&actions, ends[0], STDIN_FILENO);
    ::sigemptyset(&defaults);
    ::sigaddset(&defaults, SIGPIPE);
    ::posix_spawnattr_setsigdefault(&attributes, &defaults);
    ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
    const int error = ::posix_spawnp(&pager_pid_, "sh", &actions, &attributes, arguments.data(), environment.data());
    ::posix_spawnattr_destroy(&attributes);
    ::posix_spawn_file_actions_destroy(&actions);
    ::close(ends[0]);
    if (error != 0) {
        ::close(ends[1]);
        pager_pid_ = 0;
        return;
    }
    target_ = ends[1];
    // Ctrl-C is for the pager: without us it would fight with the shell for the terminal.
    struct sigaction current {};
    ::sigaction(SIGINT, nullptr, &current);
    if (current.sa_handler != SIG_DFL) return;
    std::signal(SIGINT, SIG_IGN);
    interrupts_ = true;
}

void Output::end_pager() noexcept {
    if (pager_pid_ == 0) return;
    ::close(target_);
    target_ = STDOUT_FILENO;
    while (::waitpid(pager_pid_, nullptr, 0) < 0 && errno == EINTR) {}
    pager_pid_ = 0;
    if (interrupts_) std::signal(SIGINT, SIG_DFL);
    interrupts_ = false;
}

std::string Output::paint(Style style, std::string_view text) const {
    constexpr std::array<const char*, 8> codes{"", "1", "34", "33", "32", "33", "31", "2"};
    const char* code = codes[static_cast<std::size_t>(style)];
    if (!colour || !*code) return std::string(text);
    return std::string("\x1b[") + code + "m" + std::string(text) + "\x1b[0m";
}

std::string Output::time(Time time) const {
    switch (times) {
        case TimeStyle::iso: return iso_text(time);
        case TimeStyle::local: return local_text(time);
        case TimeStyle::unix: return unix_text(time);
        case TimeStyle::relative: break;
    }
    if (time <= now) return duration_text(now - time) + " ago";
    return "in " + duration_text(time - now);
}

std::string Output::bar(double share, std::size_t columns) const {
    const double bounded = std::clamp(share, 0.0, 1.0);
    auto full = static_cast<std::size_t>(bounded * static_cast<double>(columns) + 0.5);
    if (share > 0) full = std::max<std::size_t>(full, 1);
    std::string bar;
    for (std::size_t i = 0; i < full; ++i) bar += unicode_ ? "█" : "#";
    return bar + std::string(columns - full, ' ');
}

// ---- Table --------------------------------------------------------------------

void Table::print(Output& out) const {
    std::vector<std::size_t> widths;
    for (const auto& column : columns_) widths.push_back(width_of(column.title));
    for (const auto& row : rows_) {
        for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width_of(row[i]));
    }
    std::size_t total = 2 * (widths.size() - 1);
    for (const auto width : widths) total += width;
    constexpr std::size_t least = 8;
    while (out.width() > 0 && total > out.width()) {
        std::size_t widest = columns_.size();
        for (std::size_t i = 0; i < columns_.size(); ++i) {
            if (columns_[i].align == left && (widest == columns_.size() || widths[i] > widths[widest])) widest = i;
        }
        if (widest == columns_.size() || widths[widest] <= least) break;
        --widths[widest];
        --total;
    }
    const auto print_row = [&](const auto& cell_of, Style style) {
        std::string text;
        for (std::size_t i = 0; i < columns_.size(); ++i) {
            const std::string cell = shortened(cell_of(i), widths[i]);
            const std::string space(widths[i] - std::min(widths[i], width_of(cell)), ' ');
            if (i > 0) text += "  ";
            text += columns_[i].align == right ? space + cell : cell + space;
        }
        while (!text.empty() && text.back() == ' ') text.pop_back();
        out.line(out.paint(style, text));
    };
    print_row([&](std::size_t i) { return columns_[i].title; }, Style::heading);
    for (const auto& row : rows_) {
        print_row([&](std::size_t i) { return i < row.size() ? row[i] : std::string(); }, Style::plain);
    }
}

// ---- Progress -----------------------------------------------------------------

Progress::Progress(std::string unit) : unit_(std::move(unit)) {
    const char* const kind = std::getenv("TERM");
    terminal_ = ::isatty(STDERR_FILENO) == 1 && kind && std::strcmp(kind, "dumb") != 0;
    shown_ = began_;  // what is done at once needs no bar
}

bool Progress::due() {
    using namespace std::chrono_literals;
    if (Clock::now() - shown_ < (terminal_ ? Clock::duration(100ms) : Clock::duration(5s))) return false;
    shown_ = Clock::now();
    return true;
}

void Progress::say(const std::string& text) {
    if (!due()) return;
    visible_ = terminal_;
    std::fputs((terminal_ ? "\r" + text + "\x1b[K" : text + "\n").c_str(), stderr);
}

void Progress::show(std::int64_t done, std::int64_t total) {
    if (!due()) return;
    const double share = total > 0 ? std::clamp(static_cast<double>(done) / static_cast<double>(total), 0.0, 1.0) : 0;
    const double rate = static_cast<double>(done) / std::max(0.001, seconds());
    std::string text = grouped(done) + " " + unit_ + "  " + grouped(static_cast<std::int64_t>(rate)) + "/s";
    if (total > 0) {
        text = std::to_string(static_cast<int>(share * 100)) + " %  " + text;
        const double left = static_cast<double>(total - done) / std::max(1.0, rate);
        text += "  " + duration_text(Duration(static_cast<std::int64_t>(left * 1e6))) + " left";
    }
    if (terminal_) {
        constexpr std::size_t width = 30;
        const auto full = static_cast<std::size_t>(share * width);
        text = "\r[" + std::string(full, '#') + std::string(width - full, '.') + "] " + text + "\x1b[K";
    } else {
        text += "\n";
    }
    visible_ = terminal_;
    std::fputs(text.c_str(), stderr);
}

void Progress::clear() {
    if (visible_) std::fputs("\r\x1b[K", stderr);
    visible_ = false;
}

double Progress::seconds() const { return std::chrono::duration<double>(Clock::now() - began_).count(); }

}  // namespace sourced::inspector
