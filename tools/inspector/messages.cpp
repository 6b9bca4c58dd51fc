// Messages one by one: stream, message, log, tail.
#include "naming.hpp"
#include "times.hpp"
#include "where.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <iostream>
#include <limits>
#include <thread>
#include <utility>

namespace sourced::inspector {
namespace {

constexpr std::int64_t no_end = std::numeric_limits<std::int64_t>::max();

// ---- Which messages ------------------------------------------------------------

/// What the messages of a listing have in common.
struct Filter {
    std::vector<std::string> types{};
    std::string stream{};
    std::string where{};
    std::string grep{};
};

/// Decides on what the store does not filter.
class Wanted {
public:
    explicit Wanted(const Filter& filter) : types_(filter.types), grep_(filter.grep) {
        if (!filter.where.empty()) where_ = Where::parse(filter.where);
    }
    [[nodiscard]] bool operator()(const Message& message) const {
        if (!types_.empty() && std::find(types_.begin(), types_.end(), message.type) == types_.end()) return false;
        if (!grep_.empty() && !holds(message.payload) && !holds(message.metadata.json())) return false;
        return !where_ || (*where_)(message);
    }

private:
    [[nodiscard]] bool holds(const std::string& text) const { return text.find(grep_) != std::string::npos; }

    std::vector<std::string> types_;
    std::string grep_;
    std::optional<Where> where_;
};

/// Seqs of a stream, or positions of the log where no stream is given. Both ends are included.
struct Part {
    std::int64_t from = 1;
    std::int64_t to = 0;
    bool backwards = false;

    [[nodiscard]] bool empty() const noexcept { return from > to; }
    [[nodiscard]] std::int64_t size() const noexcept { return empty() ? 0 : to - from + 1; }
};

/// Goes through a part of a file in pages that are short in time and memory, so that no reader of ours holds up a
/// checkpoint, however much there is and however slowly it is taken.
class Pages {
public:
    Pages(Store& store, const Filter& filter, const Wanted& wanted, const Part& part)
        : store_(store), filter_(filter), wanted_(wanted), left_(part), total_(part.size()) {}

    /// The next messages that are wanted, at most `limit`; there may be none among those that were looked at. False
    /// when everything was looked at before.
    [[nodiscard]] bool next(Messages& page, std::size_t limit = most) {
        page.clear();
        if (left_.empty() || limit == 0) return false;
        Part window = left_;
        if (left_.backwards) window.from = std::max(left_.from, left_.to - (look - 1));
        else window.to = left_.from + std::min(left_.to - left_.from, look - 1);
        std::size_t bytes = 0;
        std::optional<std::int64_t> stopped;
        read(window, [&](Message& message) {
            if (!wanted_(message)) return true;
            const auto number = filter_.stream.empty() ? message.position : message.seq;
            bytes += message.payload.size() + message.metadata.json().size();
            page.push_back(std::move(message));
            if (page.size() < std::min(limit, most) && bytes < most_bytes) return true;
            stopped = number;
            return false;
        });
        if (left_.backwards) left_.to = stopped.value_or(window.from) - 1;
        else left_.from = stopped.value_or(window.to) + 1;
        return true;
    }
    [[nodiscard]] std::int64_t done() const noexcept { return total_ - left_.size(); }
    [[nodiscard]] std::int64_t total() const noexcept { return total_; }

private:
    static constexpr std::int64_t look = 10'000;
    static constexpr std::size_t most = 1000;
    static constexpr std::size_t most_bytes = 4u << 20;

    void read(const Part& window, const Visit& visit) {
        if (!filter_.stream.empty()) {
            StreamRange range;
            range.from = window.from;
            range.to = window.to;
            range.backwards = window.backwards;
            store_.read_stream(filter_.stream, range, visit);
            return;
        }
        LogRange range;
        range.from = window.from;
        range.to = window.to;
        range.types = filter_.types;
        range.backwards = window.backwards;
        store_.read_log(range, visit);
    }

    Store& store_;
    const Filter& filter_;
    const Wanted& wanted_;
    Part left_;
    std::int64_t total_;
};

/// The first seq from 1 to `last` of whose message `reached` is true, as it is of all behind; last + 1 without any.
template <class Reached>
std::int64_t first_seq(Store& store, std::string_view stream, std::int64_t last, const Reached& reached) {
    std::int64_t low = 1;
    std::int64_t high = last + 1;
    while (low < high) {
        const std::int64_t middle = low + (high - low) / 2;
        bool is_reached = false;
        StreamRange range;
        range.from = range.to = middle;
        store.read_stream(stream, range, [&](Message& message) {
            is_reached = reached(message);
            return false;
        });
        if (is_reached) high = middle;
        else low = middle + 1;
    }
    return low;
}

/// The first seq of a stream recorded at or after `time`, as first_seq().
std::int64_t first_seq_at(Store& store, std::string_view stream, std::int64_t last, Time time) {
    return first_seq(store, stream, last, [&](const Message& message) { return message.recorded_at >= time; });
}

// ---- Showing them ----------------------------------------------------------------

/// Text of several columns, of which only the last is cut.
[[nodiscard]] std::string padded(const std::string& text, std::size_t columns, bool right = false) {
    const std::string space(columns - std::min(columns, width_of(text)), ' ');
    return right ? space + text : text + space;
}

/// Writes messages as they come: a line each, or JSON.
class Listing {
public:
    enum class Of { log, stream };
    Listing(Output& out, Of of, bool full) : out_(out), of_(of), full_(full || !out.terminal()) {}

    void show(const Messages& messages) {
        if (!out_.text()) {
            for (const auto& message : messages) show_json(message);
            return;
        }
        std::vector<Cells> rows;
        for (const auto& message : messages) rows.push_back(cells(message));
        if (!rows.empty() && !begun_) rows.insert(rows.begin(), heading());
        for (const auto& row : rows) {
            for (std::size_t i = 0; i < widths_.size(); ++i) widths_[i] = std::max(widths_[i], width_of(row.text[i]));
        }
        for (const auto& row : rows) line(row);
        begun_ = begun_ || !rows.empty();
    }
    void end() {
        if (!out_.text()) out_.end_records();
    }

private:
    /// Number, time, place, mark and type.
    struct Cells {
        std::array<std::string, 4> text{};
        std::string payload{};
        Style style = Style::plain;
    };

    [[nodiscard]] Cells heading() const {
        return {{of_ == Of::log ? "position" : "seq", "time", of_ == Of::log ? "stream@seq" : "", "  type"},
                "payload",
                Style::heading};
    }
    [[nodiscard]] Cells cells(const Message& message) const {
        const bool command = message.kind == Kind::command;
        Cells row;
        row.text[0] = std::to_string(of_ == Of::log ? message.position : message.seq);
        row.text[1] = out_.time(message.recorded_at);
        if (of_ == Of::log) row.text[2] = printable(message.stream) + "@" + std::to_string(message.seq);
        row.text[3] = (command ? "> " : "  ") + printable(message.type);
        row.payload = message.erased_at ? "erased " + out_.time(*message.erased_at) : printable(message.payload);
        row.style = command ? Style::command : Style::event;
        return row;
    }
    void line(const Cells& row) const {
        std::string text = padded(row.text[0], widths_[0], true) + "  " + padded(row.text[1], widths_[1]) + "  ";
        if (of_ == Of::log) text += padded(row.text[2], widths_[2]) + "  ";
        const std::string type = padded(row.text[3], widths_[3]);
        const std::size_t used = width_of(text) + width_of(type) + 2;
        constexpr std::size_t least = 20;
        const std::size_t room = out_.width() > used + least ? out_.width() - used : least;
        const std::string payload = full_ ? row.payload : shortened(row.payload, room);
        if (row.style == Style::heading) out_.line(out_.paint(row.style, text + type + "  " + payload));
        else out_.line(text + out_.paint(row.style, type) + "  " + payload);
    }
    void show_json(const Message& message) const {
        Json json;
        write_message(json, message);
        out_.record(json.text());
    }

    Output& out_;
    Of of_;
    bool full_;
    bool begun_ = false;
    std::array<std::size_t, 4> widths_{};
};

/// Types that no message has are told, with those that were likely meant: it need be no mistake.
void tell_unknown_types(Context& context, const Filter& filter) {
    if (filter.types.empty()) return;
    std::vector<std::string> names;
    for (const auto& type : context.look().types()) names.push_back(type.name);
    for (const auto& type : filter.types) {
        if (std::find(names.begin(), names.end(), type) != names.end()) continue;
        std::cerr << "sourced: no message has the type '" << printable(type + "'" + did_you_mean(type, names)) << '\n';
    }
}

/// Shows what is wanted of a part, at most `limit` messages.
Exit list(Context& context, const Filter& filter, const Wanted& wanted, const Part& part, std::int64_t limit,
          Listing& listing) {
    Output& out = context.out();
    Pages pages(context.look(), filter, wanted, part);
    Progress progress("messages");
    Messages page;
    std::int64_t left = limit;
    double shown = 0;
    bool interrupted = context.interrupted();
    while (!interrupted && pages.next(page, static_cast<std::size_t>(left))) {
        left -= static_cast<std::int64_t>(page.size());
        const bool only_bar = page.empty() || !out.terminal();
        if (!only_bar) progress.clear();
        listing.show(page);
        // What a long search has found is shown while it goes on; what comes at once may go through a pager.
        if (progress.seconds() > shown + 0.5) {
            out.flush();
            shown = progress.seconds();
        }
        if (left > 0 && only_bar && !out.paged()) progress.show(pages.done(), pages.total());
        interrupted = context.interrupted();
    }
    progress.clear();
    return interrupted ? Exit::interrupted : Exit::ok;
}

// ---- What was asked for -----------------------------------------------------------

struct ListOptions {
    Filter filter{};
    std::int64_t from = 1;
    std::int64_t to = no_end;
    std::string since{};
    std::string until{};
    std::int64_t limit = no_end;
    bool reverse = false;
    bool full = false;
};

void add_type(CLI::App& command, Filter& filter) {
    command.add_option("--type", filter.types, "Only messages of this type; may be given several times")
        ->type_name("TYPE");
}
void add_where(CLI::App& command, Filter& filter) {
    command.add_option("--where", filter.where, "Only messages of which this is true: see sourced log --help")
        ->type_name("EXPR");
}
void add_grep(CLI::App& command, Filter& filter) {
    command.add_option("--grep", filter.grep,
                       "Only messages with this text in payload or metadata, as it stands there in JSON")
        ->type_name("TEXT");
}
void add_ends(CLI::App& command, ListOptions& options, const std::string& numbers) {
    command.add_option("--from", options.from, "The first " + numbers)->check(CLI::PositiveNumber)->type_name("N");
    command.add_option("--to", options.to, "The last " + numbers)->check(CLI::PositiveNumber)->type_name("N");
    command.add_option("--since", options.since, "Recorded at or after this time")->type_name("TIME");
    command.add_option("--until", options.until, "Recorded before this time")->type_name("TIME");
    command.add_option("--limit", options.limit, "At most so many")->check(CLI::NonNegativeNumber)->type_name("N");
    command.add_flag("--reverse", options.reverse, "The newest first");
}
void add_full(CLI::App& command, bool& full) {
    command.add_flag("--full", full, "Payloads are not cut at the end of the terminal's line");
}

struct Times {
    std::optional<Time> since{};
    std::optional<Time> until{};
};

/// What is wrong with the ends is said before the file is opened.
[[nodiscard]] Times check(const ListOptions& options, Time now) {
    if (options.from > options.to) {
        throw Failed(Exit::usage, "--from " + std::to_string(options.from) + " is behind --to " +
                                      std::to_string(options.to) + ": with --reverse, too, --from is the lower one");
    }
    Times times;
    if (!options.since.empty()) times.since = parse_time(options.since, now);
    if (!options.until.empty()) times.until = parse_time(options.until, now);
    if (times.since && times.until && *times.since > *times.until) {
        throw Failed(Exit::usage, "--since " + iso_text(*times.since) + " is later than --until " +
                                      iso_text(*times.until));
    }
    return times;
}

/// The part of a stream that the options mean; `from` and `to` are seqs.
[[nodiscard]] Part part_of_stream(Context& context, const std::string& stream, const ListOptions& options,
                                  const Times& times) {
    const auto last = last_seq(context, stream);
    Store& store = context.look();
    Part part{options.from, std::min(options.to, last), options.reverse};
    if (times.since) part.from = std::max(part.from, first_seq_at(store, stream, last, *times.since));
    if (times.until) part.to = std::min(part.to, first_seq_at(store, stream, last, *times.until) - 1);
    return part;
}

[[nodiscard]] Part part_of_log(Store& store, const ListOptions& options, const Times& times) {
    Part part{options.from, std::min(options.to, store.head()), options.reverse};
    if (times.since) part.from = std::max(part.from, store.position_at(*times.since));
    if (times.until) part.to = std::min(part.to, store.position_at(*times.until) - 1);
    return part;
}

/// The same for one stream's messages in it, as seqs.
[[nodiscard]] Part part_of_log(Context& context, const std::string& stream, const ListOptions& options,
                               const Times& times) {
    const auto last = last_seq(context, stream);
    Store& store = context.look();
    const auto seq_of = [&](std::int64_t position) {
        return first_seq(store, stream, last, [&](const Message& message) { return message.position >= position; });
    };
    const Part positions = part_of_log(store, options, times);
    if (positions.empty()) return positions;
    return {seq_of(positions.from), seq_of(positions.to + 1) - 1, options.reverse};
}

// ---- stream, log ------------------------------------------------------------------

Exit show_stream(Context& context, const ListOptions& options) {
    const Times times = check(options, context.out().now);
    const Wanted wanted(options.filter);
    tell_unknown_types(context, options.filter);
    const Part part = part_of_stream(context, options.filter.stream, options, times);
    Listing listing(context.out(), Listing::Of::stream, options.full);
    const Exit end = list(context, options.filter, wanted, part, options.limit, listing);
    listing.end();
    return end;
}

Exit show_log(Context& context, const ListOptions& options) {
    const Times times = check(options, context.out().now);
    const Wanted wanted(options.filter);
    Store& store = context.look();
    tell_unknown_types(context, options.filter);
    const auto& stream = options.filter.stream;
    const Part part =
        stream.empty() ? part_of_log(store, options, times) : part_of_log(context, stream, options, times);
    Listing listing(context.out(), Listing::Of::log, options.full);
    const Exit end = list(context, options.filter, wanted, part, options.limit, listing);
    listing.end();
    return end;
}

// ---- tail -------------------------------------------------------------------------

struct TailOptions {
    Filter filter{};
    std::int64_t lines = 10;
    bool follow = false;
    bool full = false;
};

/// Which file stands under a path; nothing when there is none.
[[nodiscard]] std::optional<std::pair<dev_t, ino_t>> file_under(const std::string& path) {
    struct stat found {};
    if (::stat(path.c_str(), &found) != 0) return std::nullopt;
    return std::pair(found.st_dev, found.st_ino);
}

/// Ends the waiting for others when there is a reason to: a signal, nobody who reads stdout any more, another file
/// under the path.
class Guard {
public:
    enum class Why { none, interrupted, closed, removed, replaced, failed };

    /// `file`: what stood under the path before the store was opened.
    Guard(Store& store, const std::string& path, std::optional<std::pair<dev_t, ino_t>> file, int interruption)
        : store_(store),
          path_(path),
          file_(file),
          interruption_(interruption),
          stop_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)),
          inotify_(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC)) {
        if (inotify_ >= 0) ::inotify_add_watch(inotify_, path.c_str(), IN_ATTRIB | IN_MOVE_SELF | IN_DELETE_SELF);
        why_ = look_at_file();
        thread_ = std::thread([this] { watch(); });
    }
    Guard(const Guard&) = delete;
    Guard& operator=(const Guard&) = delete;
    ~Guard() {
        const std::uint64_t one = 1;
        [[maybe_unused]] const auto written = ::write(stop_, &one, sizeof one);
        thread_.join();
        ::close(stop_);
        if (inotify_ >= 0) ::close(inotify_);
    }
    [[nodiscard]] Why why() const noexcept { return why_; }

private:
    void watch() {
        pollfd files[4] = {
            {stop_, POLLIN, 0}, {interruption_, POLLIN, 0}, {STDOUT_FILENO, 0, 0}, {inotify_, POLLIN, 0}};
        while (why_ == Why::none) {
            const int ready = ::poll(files, 4, -1);
            if (ready < 0 && errno == EINTR) continue;
            if (ready < 0) why_ = Why::failed;
            if (files[0].revents != 0) return;
            if (files[1].revents != 0) why_ = Why::interrupted;
            else if (files[2].revents != 0) why_ = Why::closed;
            else if (files[3].revents != 0) why_ = look_at_file();
        }
        store_.interrupt_wait();
    }
    [[nodiscard]] Why look_at_file() const {
        char events[4096];
        while (::read(inotify_, events, sizeof events) > 0) {}
        const auto now = file_under(path_);
        if (!now) return Why::removed;
        return now == file_ ? Why::none : Why::replaced;
    }

    Store& store_;
    std::string path_;
    std::optional<std::pair<dev_t, ino_t>> file_;
    int interruption_;
    int stop_;
    int inotify_;
    std::atomic<Why> why_{Why::none};
    std::thread thread_;
};

/// Where the last messages that are wanted begin: so many of them, in what is not behind `head`.
[[nodiscard]] std::optional<std::int64_t> begin_of_last(Context& context, const TailOptions& options,
                                                        const Wanted& wanted, const Part& all) {
    Part part = all;
    part.backwards = true;
    Pages pages(context.look(), options.filter, wanted, part);
    Progress progress("messages");
    Messages page;
    std::int64_t begin = all.to + 1;
    std::int64_t left = options.lines;
    while (pages.next(page, static_cast<std::size_t>(left))) {
        if (context.interrupted()) return std::nullopt;
        left -= static_cast<std::int64_t>(page.size());
        if (!page.empty()) begin = options.filter.stream.empty() ? page.back().position : page.back().seq;
        if (left > 0) progress.show(pages.done(), pages.total());
    }
    return begin;
}

[[nodiscard]] Time now() { return std::chrono::floor<Duration>(std::chrono::system_clock::now()); }

/// The last number there is: of the stream, or of the log.
[[nodiscard]] std::int64_t last_number(Store& store, const std::string& stream) {
    return stream.empty() ? store.head() : store.stream_seq(stream);
}

/// Shows what comes behind a number, until there is a reason to end.
Exit follow(Context& context, const TailOptions& options, const Wanted& wanted, Guard& guard, std::int64_t behind,
            Listing& listing) {
    Store& store = context.look();
    Messages page;
    while (true) {
        const auto why = guard.why();
        const auto last = last_number(store, options.filter.stream);
        Pages pages(store, options.filter, wanted, {behind + 1, last, false});
        while (guard.why() != Guard::Why::interrupted && pages.next(page)) {
            context.out().now = now();
            listing.show(page);
            context.out().flush();
        }
        behind = std::max(behind, last);
        switch (why) {
            case Guard::Why::none: break;
            case Guard::Why::interrupted: return Exit::interrupted;
            case Guard::Why::closed: return Exit::ok;
            case Guard::Why::removed:
                throw Failed(Exit::failure, "'" + context.file() + "' was removed while it was followed");
            case Guard::Why::replaced:
                throw Failed(Exit::failure,
                             "'" + context.file() + "' was replaced by another file while it was followed");
            case Guard::Why::failed: throw Failed(Exit::failure, "waiting for '" + context.file() + "' failed");
        }
        // The store tells: this is not how often is looked, but how long nothing is to happen.
        static_cast<void>(store.wait_for_others(std::chrono::hours(1)));
    }
}

Exit show_tail(Context& context, const TailOptions& options) {
    const Wanted wanted(options.filter);
    if (options.follow) context.out().flush();  // nothing of this goes through a pager
    const auto file = file_under(context.file());
    Store& store = context.look();
    tell_unknown_types(context, options.filter);
    const auto& stream = options.filter.stream;
    const Part all{1, last_number(store, stream), false};
    if (all.empty() && !stream.empty()) {
        if (!options.follow) no_such_stream(context, stream);
        std::cerr << "sourced: there is no stream '" << printable(stream) << "' yet\n";
    }
    const auto begin = begin_of_last(context, options, wanted, all);
    if (!begin) return Exit::interrupted;
    Listing listing(context.out(), Listing::Of::log, options.full);
    Exit end = list(context, options.filter, wanted, {*begin, all.to, false}, options.lines, listing);
    if (end == Exit::ok && options.follow) {
        context.out().flush();
        Guard guard(store, context.file(), file, context.interruption());
        end = follow(context, options, wanted, guard, all.to, listing);
    }
    listing.end();
    return end;
}

// ---- message ----------------------------------------------------------------------

struct MessageOptions {
    std::string name{};
    std::int64_t limit = 20;
};

/// What a group has made of a message.
struct Handling {
    std::string group;
    std::string state;     ///< handled, skipped, open, claimed, waiting, parked, before
    std::string detail{};  ///< why it is so
};

[[nodiscard]] std::optional<Skipped> find_skipped(Store& store, const std::string& group, const Message& message) {
    std::int64_t after = 0;
    while (true) {
        constexpr std::size_t page = 1000;
        const auto records = store.skipped(group, after, page);
        for (const auto& record : records) {
            if (record.id == message.id) return record;
        }
        if (records.size() < page) return std::nullopt;
        after = records.back().number;
    }
}

/// Of what stands open for the group in the message's stream.
[[nodiscard]] Handling open_state(const GroupInfo& group, const OffsetInfo& offset, const Message& message) {
    const std::string error = offset.position == message.position && !offset.error_type.empty()
                                  ? offset.error_type + ": " + offset.error_text
                                  : std::string();
    switch (offset.state) {
        case OffsetInfo::State::parked: return {group.name, "parked", offset.reason.empty() ? error : offset.reason};
        case OffsetInfo::State::waiting: return {group.name, "waiting", error};
        case OffsetInfo::State::claimed: return {group.name, "claimed", "by worker " + std::to_string(offset.owner)};
        case OffsetInfo::State::idle:
        case OffsetInfo::State::ready: break;
    }
    return {group.name, "open", group.active ? error : "the group is stopped"};
}

[[nodiscard]] Handling handling(Store& store, const GroupInfo& group, const Message& message) {
    if (const auto skipped = find_skipped(store, group.name, message)) {
        return {group.name, "skipped", skipped->reason};
    }
    const auto since = group.since.find(message.type);
    if (message.position <= group.begins || (since != group.since.end() && message.position < since->second)) {
        return {group.name, "before", "the group begins behind it"};
    }
    OffsetRange only;
    only.all = true;
    only.stream = message.stream;
    const auto offsets = store.offsets(group.name, only);
    if (offsets.empty()) return {group.name, "open", group.active ? "" : "the group is stopped"};
    if (offsets.front().acked >= message.position) return {group.name, "handled"};
    return open_state(group, offsets.front(), message);
}

/// Of all groups that handle messages of its type.
[[nodiscard]] std::vector<Handling> handlings(Store& store, const Message& message) {
    std::vector<Handling> all;
    for (const auto& group : store.stats().groups) {
        if (std::find(group.types.begin(), group.types.end(), message.type) == group.types.end()) continue;
        all.push_back(handling(store, group, message));
    }
    return all;
}

/// A message and what is around it.
struct Surroundings {
    Message message;
    std::optional<Message> cause{};
    Messages effects{};
    bool more_effects = false;
    std::vector<Handling> groups{};
};

[[nodiscard]] Surroundings surroundings(Context& context, const MessageOptions& options) {
    Surroundings found;
    found.message = message_named(context, options.name);
    Store& store = context.look();
    if (found.message.causation != found.message.id) found.cause = store.find(found.message.causation);
    const auto most = static_cast<std::size_t>(options.limit);
    found.effects = store.effects(found.message.id, most + 1);
    found.more_effects = found.effects.size() > most;
    if (found.more_effects) found.effects.pop_back();
    found.groups = handlings(store, found.message);
    return found;
}

[[nodiscard]] std::string place(const Message& message) {
    return printable(message.stream) + "@" + std::to_string(message.seq);
}

[[nodiscard]] std::string kind_text(const Message& message) {
    return message.kind == Kind::command ? "command" : "event";
}

/// A message in one line: its type, where it stands, and its id.
[[nodiscard]] std::string in_short(const Output& out, const Message& message) {
    const Style style = message.kind == Kind::command ? Style::command : Style::event;
    return out.paint(style, printable(message.type)) + "  " + place(message) + "  @" +
           std::to_string(message.position) + "  " + message.id.to_string();
}

/// "2026-11-21T17:12:43Z (3 min ago)" on a terminal.
[[nodiscard]] std::string exact_time(const Output& out, Time time) {
    return out.times == TimeStyle::iso ? iso_text(time) : iso_text(time) + " (" + out.time(time) + ")";
}

/// The name of something and behind it one line or several.
void show_field(Output& out, std::string name, const std::vector<std::string>& lines) {
    for (const auto& line : lines) {
        out.line(out.paint(Style::faint, padded(name, 13)) + line);
        name.clear();
    }
}
void show_field(Output& out, std::string name, const std::string& line) {
    show_field(out, std::move(name), std::vector<std::string>{line});
}

void show_envelope(Output& out, const Message& message) {
    const Style style = message.kind == Kind::command ? Style::command : Style::event;
    show_field(out, "message", message.id.to_string());
    show_field(out, "type", out.paint(style, printable(message.type)) + " (" + kind_text(message) + ", schema " +
                                std::to_string(message.schema) + ")");
    show_field(out, "stream", place(message));
    show_field(out, "position", std::to_string(message.position));
    show_field(out, "recorded", exact_time(out, message.recorded_at));
    if (message.occurred_at != Time() && message.occurred_at != message.recorded_at) {
        show_field(out, "occurred", exact_time(out, message.occurred_at));
    }
    show_field(out, "correlation", message.correlation == message.id ? "begins here" : message.correlation.to_string());
    if (!message.metadata.empty()) show_field(out, "metadata", printable(message.metadata.json()));
    if (message.erased_at) {
        show_field(out, "payload", "erased " + exact_time(out, *message.erased_at));
        return;
    }
    auto lines = pretty(message.payload);
    for (auto& line : lines) line = printable(line);
    show_field(out, "payload", lines);
}

void show_text(Output& out, const Surroundings& found) {
    const Message& message = found.message;
    show_envelope(out, message);
    if (message.causation == message.id) show_field(out, "cause", "none: it came from outside");
    else if (found.cause) show_field(out, "cause", in_short(out, *found.cause));
    else show_field(out, "cause", message.causation.to_string() + ", which is not in this file");
    std::vector<std::string> lines;
    for (const auto& effect : found.effects) lines.push_back(in_short(out, effect));
    if (found.more_effects) lines.push_back("and more: --limit says how many are shown");
    show_field(out, "effects", lines.empty() ? std::vector<std::string>{"none"} : lines);
    lines.clear();
    std::size_t widest = 0;
    for (const auto& group : found.groups) widest = std::max(widest, width_of(printable(group.group)));
    for (const auto& group : found.groups) {
        const std::string detail = group.detail.empty() ? "" : ": " + printable(group.detail);
        lines.push_back(padded(printable(group.group), widest) + "  " + group.state + detail);
    }
    show_field(out, "groups", lines.empty() ? std::vector<std::string>{"none handles this type"} : lines);
}

void show_json(Output& out, const Surroundings& found) {
    Json json;
    json.begin().key("message");
    write_message(json, found.message);
    json.key("cause");
    if (found.cause) write_message(json, *found.cause);
    else json.null();
    json.key("effects").begin_array();
    for (const auto& effect : found.effects) write_message(json, effect);
    json.end_array().field("more_effects", found.more_effects).key("groups").begin_array();
    for (const auto& group : found.groups) {
        json.begin().field("group", group.group).field("state", group.state).field("text", group.detail).end();
    }
    json.end_array().end();
    out.object(json.text());
}

Exit show_message(Context& context, const MessageOptions& options) {
    const auto found = surroundings(context, options);
    if (context.out().text()) show_text(context.out(), found);
    else show_json(context.out(), found);
    return Exit::ok;
}

}  // namespace

void add_messages(Commands& commands) {
    const std::string times = "TIME is one of " + std::string(accepted_times()) + ".";
    const std::string lines =
        "A line of text is a message; > stands before commands. On a terminal payloads are cut at the end of the line.";
    {
        auto [command, options] = commands.add<ListOptions>(
            {"stream", "Shows the messages of a stream",
             "  sourced shop.db stream cart-1\n"
             "  sourced shop.db stream cart-1 --from 10 --to 20\n"
             "  sourced shop.db stream cart-1 --reverse --limit 5  # the last five, the newest first\n"
             "  sourced shop.db stream cart-1 --since -2h -o jsonl",
             lines + "\n\n" + times},
            show_stream);
        command.add_option("ID", options.filter.stream, "The stream's id")->required();
        add_ends(command, options, "seq");
        add_type(command, options.filter);
        add_where(command, options.filter);
        add_grep(command, options.filter);
        add_full(command, options.full);
    }
    {
        auto [command, options] = commands.add<ListOptions>(
            {"log", "Shows messages of the whole log",
             "  sourced shop.db log --since yesterday --type cart.item_added --type cart.item_removed\n"
             "  sourced shop.db log --where \"payload.price > 10 and metadata.user_id = 7\"\n"
             "  sourced shop.db log --grep p-4711 --reverse --limit 1  # the last that mentions it\n"
             "  sourced shop.db log --stream cart-1 -o jsonl",
             lines + "\n\n" + times + "\n\n--where " + std::string(Where::grammar())},
            show_log);
        add_ends(command, options, "position");
        command.add_option("--stream", options.filter.stream, "Only messages of this stream")->type_name("STREAM");
        add_type(command, options.filter);
        add_where(command, options.filter);
        add_grep(command, options.filter);
        add_full(command, options.full);
    }
    {
        auto [command, options] = commands.add<TailOptions>(
            {"tail", "Shows the end of the log, and what is appended to it",
             "  sourced shop.db tail\n"
             "  sourced shop.db tail -f  # until Ctrl-C\n"
             "  sourced shop.db tail -f -n 0 --type cart.checked_out -o jsonl",
             lines},
            show_tail);
        command.add_flag("-f,--follow", options.follow, "Goes on with what any process appends, until Ctrl-C");
        command.add_option("-n,--lines", options.lines, "So many messages that are there already")
            ->check(CLI::NonNegativeNumber)
            ->type_name("N")
            ->capture_default_str();
        command.add_option("--stream", options.filter.stream, "Only messages of this stream")->type_name("STREAM");
        add_type(command, options.filter);
        add_where(command, options.filter);
        add_grep(command, options.filter);
        add_full(command, options.full);
    }
    {
        auto [command, options] = commands.add<MessageOptions>(
            {"message", "Shows a message: what it says, what it follows from, what followed, who has handled it",
             "  sourced shop.db message 01890a5d-ac96-774b-bcce-b302099a8057\n"
             "  sourced shop.db message cart-1@3\n"
             "  sourced shop.db message @901 -o json"},
            show_message);
        command.add_option("ID", options.name, message_names)->required();
        command.add_option("--limit", options.limit, "At most so many effects")
            ->check(CLI::Range(std::int64_t{0}, std::int64_t{1'000'000}))
            ->type_name("N")
            ->capture_default_str();
    }
}

}  // namespace sourced::inspector
