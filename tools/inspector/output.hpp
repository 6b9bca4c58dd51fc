// How the inspector speaks: text for people, JSON for programs, progress on stderr.
#pragma once

#include "sourced.hpp"

#include <sys/types.h>

#include <rapidjson/stringbuffer.h>
#include <rapidjson/writer.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace sourced::inspector {

// ---- Text ---------------------------------------------------------------------

/// Text from a file as it may stand on a terminal and in one line: control characters, invalid UTF-8 and characters
/// that change the direction of text are shown as escapes (\n, \x1b, \u202e); a backslash stays one.
[[nodiscard]] std::string printable(std::string_view text);
/// Columns that printable text takes; wide and combining characters count as they are shown.
[[nodiscard]] std::size_t width_of(std::string_view text);
/// Whether all of it is UTF-8.
[[nodiscard]] bool is_utf8(std::string_view text);
/// JSON text with the characters escaped that no terminal should see; they stand inside of strings only.
[[nodiscard]] std::string safe_json(std::string_view json);
/// At most so many columns, the last of them an ellipsis when something was cut.
[[nodiscard]] std::string shortened(const std::string& text, std::size_t columns);

/// The candidate that is most like a misspelt text; empty when none is near enough.
[[nodiscard]] std::string closest(std::string_view text, const std::vector<std::string>& candidates);
/// The same as the end of an error's text: ". Did you mean 'stats'?", or empty.
[[nodiscard]] std::string did_you_mean(std::string_view text, const std::vector<std::string>& candidates);

/// A name from a file in quotes, printable.
[[nodiscard]] std::string in_quotes(std::string_view text);
/// A word as a shell takes it, in quotes where it has to be.
[[nodiscard]] std::string shell_word(std::string_view text);
/// 541909 as "541,909".
[[nodiscard]] std::string grouped(std::int64_t number);
/// "1 stream", "2 streams", and "~5,000 streams" for a number that is about right.
[[nodiscard]] std::string count_text(std::int64_t number, const std::string& of_what, bool estimated = false);
/// 395313152 as "395 MB".
[[nodiscard]] std::string bytes_text(std::int64_t bytes);
/// As people say it: "1.2 ms", "14 s", "3 min", "5 h", "12 days".
[[nodiscard]] std::string duration_text(Duration duration);
/// 2026-11-21T17:12:43.123456Z, without a fraction of zeros.
[[nodiscard]] std::string iso_text(Time time);

// ---- JSON ---------------------------------------------------------------------

/// How JSON inside of JSON is to be found again.
enum class Bytes {
    meant,  ///< by what it means: white space and escapes may differ
    all     ///< byte for byte
};

/// Writes one JSON text.
///
///     Json json;
///     json.begin().field("stream", info.name).field("seq", info.seq).end();
///     out.record(json.text());
class Json {
public:
    Json() : writer_(buffer_) {}
    Json(const Json&) = delete;
    Json& operator=(const Json&) = delete;

    Json& begin();
    Json& end();
    Json& begin_array();
    Json& end_array();
    Json& key(std::string_view name);
    /// As text without a name; what is no UTF-8 stands there as printable() shows it.
    Json& value(std::string_view text);
    Json& value(const char* text) { return value(std::string_view(text)); }
    Json& value(const std::string& text) { return value(std::string_view(text)); }
    Json& value(std::int64_t number);
    Json& value(int number) { return value(std::int64_t{number}); }
    Json& value(std::size_t number) { return value(static_cast<std::int64_t>(number)); }
    Json& value(double number);
    Json& value(bool yes);
    Json& value(Time time) { return value(iso_text(time)); }
    Json& value(const Id& id) { return value(id.to_string()); }
    Json& null();
    /// Valid JSON text as it is.
    Json& raw(std::string_view json);
    /// Text of which every byte shall be found again: as base64 under `<name>_base64` when it is no UTF-8.
    Json& text_field(std::string_view name, std::string_view content);
    /// Text that should be JSON: as a string under `<name>_text` when it is not, or would not be found again as `bytes`
    /// asks for.
    Json& json_field(std::string_view name, std::string_view content, Bytes bytes);
    /// A time; where no calendar reaches, as microseconds since 1970.
    Json& time_field(std::string_view name, Time content);

    /// Begins anew, in the same memory.
    void clear();
    [[nodiscard]] bool complete() const { return writer_.IsComplete(); }

    template <class T>
    Json& field(std::string_view name, const T& content) {
        if constexpr (std::is_convertible_v<const T&, std::string_view>) return text_field(name, content);
        else return key(name).value(content);
    }
    template <class T>
    Json& field(std::string_view name, const std::optional<T>& content) {
        key(name);
        return content ? value(*content) : null();
    }

    [[nodiscard]] std::string_view text() const { return {buffer_.GetString(), buffer_.GetSize()}; }

private:
    rapidjson::StringBuffer buffer_;
    rapidjson::Writer<rapidjson::StringBuffer> writer_;
};

/// JSON with a member or an element on each line, otherwise as it was.
[[nodiscard]] std::vector<std::string> pretty(std::string_view json);

/// A message as all commands give it: position, stream, seq, type, kind, schema, id, causation, correlation,
/// recorded_at, occurred_at, metadata, payload (null when erased), erased_at when it was; see tools/README.md for what
/// cannot be written like this.
void write_message(Json& json, const Message& message, Bytes bytes = Bytes::meant);
/// What waits for its time as all commands give it: due_at and the fields of a message but those that it gets in the
/// log. Into an object that is open, so that a command can say more of it.
void write_scheduled(Json& json, const Scheduled& entry, Bytes bytes = Bytes::meant);

// ---- Where it goes ------------------------------------------------------------

enum class Format { text, json, jsonl };
enum class TimeStyle { relative, iso, local, unix };
enum class Style { plain, heading, command, event, good, warning, bad, faint };

/// Who read stdout has closed it: a command ends without a word, as after `| head`.
struct Closed : Error {
    using Error::Error;
};

/// The program's stdout.
class Output {
public:
    Output();
    ~Output();
    Output(const Output&) = delete;
    Output& operator=(const Output&) = delete;

    [[nodiscard]] bool text() const noexcept { return format == Format::text; }
    [[nodiscard]] bool terminal() const noexcept { return terminal_; }
    /// Of the terminal in columns; 0 when there is none, and nothing has to be cut.
    [[nodiscard]] std::size_t width() const noexcept { return width_; }
    /// Whether a pager has the terminal: nothing but its text may stand there.
    [[nodiscard]] bool paged() const noexcept { return pager_pid_ != 0; }
    /// Whether box-drawing characters can be shown.
    [[nodiscard]] bool unicode() const noexcept { return unicode_; }

    /// One line of text; what comes from the file has gone through printable().
    void line(std::string_view text = {});
    /// What is to be said beside the data: below it for who reads text on a terminal, where a pager shows it too, and
    /// on stderr for others.
    void remark(std::string_view text);
    /// One of several JSON objects: an element of an array, or a line of its own for jsonl.
    void record(std::string_view json);
    /// The only JSON object of a command.
    void object(std::string_view json);
    /// Ends an array of records, an empty one too. Called once after a command that gives records.
    void end_records();
    /// Shows what was written so far, for who waits or asks after it; nothing goes through a pager from then on.
    /// Throws Closed, and Error for a full disk and the like; what could not be written is dropped.
    void flush();
    /// The end: on a terminal, what is longer than that goes through the pager, and this waits for it. Throws as
    /// flush().
    void finish();

    /// In colour, where that was asked for.
    [[nodiscard]] std::string paint(Style style, std::string_view text) const;
    /// A time as it is shown: "3 min ago", ISO, "2026-11-21 18:12:43 CET", or "@" and the seconds since 1970.
    [[nodiscard]] std::string time(Time time) const;
    /// A share of a width in columns as a bar, at least one piece when it is not nothing.
    [[nodiscard]] std::string bar(double share, std::size_t columns) const;

    Format format = Format::text;
    TimeStyle times = TimeStyle::iso;
    bool colour = false;
    Time now{};  ///< when the command began
    std::string pager{};  ///< a command of the shell; empty: none

private:
    void write(std::string_view text);
    void give();
    void start_pager();
    void end_pager() noexcept;

    bool terminal_ = false;
    bool unicode_ = false;
    std::size_t width_ = 0;
    std::size_t height_ = 0;
    int target_;  // stdout, or what the pager reads
    pid_t pager_pid_ = 0;
    bool interrupts_ = false;  // SIGINT was taken from us for the pager's time
    std::string buffer_;
    bool in_array_ = false;
};

/// Rows of text in columns.
///
///     Table table({{"stream"}, {"messages", Table::right}});
///     table.row({printable(info.name), grouped(info.seq)});
///     table.print(out);
///
/// On a terminal the widest left column is cut where the rows would not fit.
class Table {
public:
    enum Align { left, right };
    struct Column {
        std::string title;
        Align align = left;
    };

    explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
    void row(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
    [[nodiscard]] bool empty() const noexcept { return rows_.empty(); }
    void print(Output& out) const;

private:
    std::vector<Column> columns_;
    std::vector<std::vector<std::string>> rows_;
};

/// Shows on stderr how far a long job is: on a terminal a bar that renews itself, elsewhere a line every five seconds.
///
///     Progress progress("messages");
///     while (work()) progress.show(done, total);
///
/// The bar is gone when the object is.
class Progress {
public:
    explicit Progress(std::string unit);
    ~Progress() { clear(); }
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;

    /// `total` 0: nobody knows. Cheap when nothing new is to be shown.
    void show(std::int64_t done, std::int64_t total);
    /// What there is to say where nothing can be counted.
    void say(const std::string& text);
    /// Takes the bar away, so that something else can be said.
    void clear();
    [[nodiscard]] double seconds() const;

private:
    using Clock = std::chrono::steady_clock;

    [[nodiscard]] bool due();

    std::string unit_;
    Clock::time_point began_ = Clock::now();
    Clock::time_point shown_{};
    bool terminal_ = false;
    bool visible_ = false;
};

}  // namespace sourced::inspector
