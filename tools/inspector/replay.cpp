// An application's reactors at work on a file: the log once more through one of them, or all of them until a signal.
#include "application.hpp"
#include "inspector.hpp"
#include "times.hpp"

#include <poll.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <iostream>
#include <limits>
#include <mutex>
#include <unordered_map>
#include <unordered_set>

namespace sourced::inspector {
namespace {

using detail::Box;
using detail::Definition;

// ---- What they have in common ------------------------------------------------------

std::string in_quotes(std::string_view text) { return "'" + printable(text) + "'"; }
/// "1 stream", "~5,000 streams".
std::string count_text(std::int64_t number, const std::string& of_what, bool estimated = false) {
    return (estimated ? "~" : "") + grouped(number) + " " + of_what + (number == 1 ? "" : "s");
}
std::string speed_text(std::int64_t messages, double seconds) {
    const auto rate = static_cast<std::int64_t>(static_cast<double>(messages) / std::max(seconds, 0.001));
    return "in " + duration_text(Duration(static_cast<std::int64_t>(seconds * 1e6))) + " (" + grouped(rate) + "/s)";
}

/// The warnings of an engine's threads, which are said on the thread that has the terminal.
class Warnings {
public:
    [[nodiscard]] std::function<void(const LogRecord&)> sink() {
        return [this](const LogRecord& record) {
            if (record.level < Level::warning) return;
            std::string line = std::string(record.level == Level::error ? "error: " : "warning: ") + record.text;
            std::string more;
            for (const auto& [name, value] : record.fields) {
                if (!value.empty()) more += (more.empty() ? "" : ", ") + name + " " + value;
            }
            if (!more.empty()) line += " (" + more + ")";
            const std::lock_guard lock(mutex_);
            lines_.push_back(printable(line));
        };
    }
    void say(Progress& progress) {
        std::vector<std::string> lines;
        {
            const std::lock_guard lock(mutex_);
            lines.swap(lines_);
        }
        if (!lines.empty()) progress.clear();
        for (const auto& line : lines) std::cerr << "sourced: " << line << '\n';
    }

private:
    std::mutex mutex_;
    std::vector<std::string> lines_;
};

const GroupInfo* find_group(const Stats& stats, std::string_view name) {
    const auto found = std::find_if(stats.groups.begin(), stats.groups.end(),
                                    [&](const auto& group) { return group.name == name; });
    return found == stats.groups.end() ? nullptr : &*found;
}

// ---- replay -------------------------------------------------------------------------

struct ReplayOptions {
    std::string group;
    std::string from = "start";
    std::string until;
    std::string rate = "max";
    std::string stream;
    std::string reason;
    bool dry_run = false;
    bool resume = false;
};

/// What was asked for, in positions.
struct Range {
    Reset reset{};
    std::int64_t from = 1;
    std::int64_t until = 0;
    std::int64_t head = 0;
    double rate = 0;  ///< 0: none was given
};

/// The position that is meant; nothing when it is a time, in microseconds if it is a number of that size.
std::optional<std::int64_t> position_in(const std::string& option, const std::string& text) {
    constexpr std::size_t most_digits = 14;
    if (text.empty() || text.size() > most_digits) return std::nullopt;
    std::int64_t position = 0;
    const auto end = text.data() + text.size();
    const auto read = std::from_chars(text.data(), end, position);
    if (read.ec != std::errc() || read.ptr != end || text.front() == '-') return std::nullopt;
    if (position == 0) throw Failed(Exit::usage, option + " 0: a position is 1 or more");
    return position;
}

double rate_of(const std::string& text) {
    if (text == "max") return 0;
    double rate = 0;
    const auto end = text.data() + text.size();
    const auto read = std::from_chars(text.data(), end, rate);
    if (read.ec != std::errc() || read.ptr != end || !std::isfinite(rate) || rate <= 0) {
        throw Failed(Exit::usage, "--rate " + text + ": expected a number of messages a second, or max");
    }
    return rate;
}

Range range_of(Context& context, const ReplayOptions& options) {
    Store& store = context.look();
    Range range;
    range.rate = rate_of(options.rate);
    range.head = range.until = store.head();
    range.reset.stream = options.stream;
    range.reset.reason = options.reason;
    if (const auto position = position_in("--from", options.from)) {
        range.from = range.reset.position = *position;
    } else if (options.from != "start") {
        range.reset.time = parse_time(options.from, context.out().now);
        range.from = store.position_at(*range.reset.time);
    }
    if (const auto position = position_in("--until", options.until)) {
        range.until = std::min(*position, range.head);
    } else if (!options.until.empty()) {
        range.until = store.position_at(parse_time(options.until, context.out().now)) - 1;
    }
    if (!options.resume && range.from > range.until) {
        throw Failed(Exit::usage, "replay from position " + grouped(range.from) + " until " + grouped(range.until) +
                                      ": there is nothing in between; the log ends at position " + grouped(range.head));
    }
    return range;
}

std::string what_it_is(const Definition& definition) {
    switch (definition.role) {
    case Definition::Role::actor: return "an actor";
    case Definition::Role::projector:
        return definition.event_sourced ? "a projector that folds its streams" : "a projector that stores its state";
    case Definition::Role::reactor: break;
    }
    return "a handler, which keeps no state";
}

std::string place_text(Context& context, std::int64_t position) {
    std::string text = "position " + grouped(position);
    context.look().read_log({.from = position, .limit = 1}, [&](const Message& message) {
        text += " (" + context.out().time(message.recorded_at) + ")";
        return false;
    });
    return text;
}

/// Others that work on the file at the same time share the claims.
std::string others_text(Context& context) {
    std::string pids;
    std::int64_t count = 0;
    for (const auto& worker : context.look().workers()) {
        if (worker.alive == false || worker.pid == ::getpid()) continue;
        ++count;
        pids += (pids.empty() ? "" : ", ") + std::to_string(worker.pid) +
                (worker.alive ? "" : " on " + printable(worker.host));
    }
    if (count == 0) return {};
    return "\nWARNING: " + grouped(count) + " other process" + (count > 1 ? "es" : "") +
           " may work on this file (pid " + pids +
           "): if so with this group, they take their share of it, at their own speed and beyond --until.";
}

/// A type that the group handles in the file and this application does not; empty: none. Nothing is claimed then.
std::string unhandled_type(const GroupInfo& group, const Definition& definition) {
    const auto found = std::find_if(group.types.begin(), group.types.end(),
                                    [&](const auto& type) { return !definition.handles(type); });
    return found == group.types.end() ? std::string() : *found;
}

/// The group, if this application can run it.
const GroupInfo& group_in_file(Context& context, const Stats& stats, const Definition& definition) {
    const std::string& name = definition.name;
    const GroupInfo* group = find_group(stats, name);
    if (!group) {
        throw Failed(Exit::not_found, "group '" + name + "' is not in '" + context.file() +
                                          "': it has not handled anything yet; 'work' runs it");
    }
    if (!group->active) {
        throw Failed(Exit::failure, "group '" + name + "' is stopped: " + group->reason + "; start it first: " +
                                        context.called("groups start " + shell_word(name)));
    }
    if (const std::string type = unhandled_type(*group, definition); !type.empty()) {
        throw Failed(Exit::failure, "group '" + name + "' handles '" + type + "' in '" + context.file() +
                                        "', and this application's '" + name +
                                        "' does not: run it with the application that does");
    }
    return *group;
}

struct Plan {
    std::string text;
    std::int64_t messages = 0;  ///< that are to be handled, about
};

Plan plan_of(Context& context, const Definition& definition, const GroupInfo& group, const Range& range,
             const ReplayOptions& options) {
    Plan plan;
    const std::string speed = range.rate > 0 ? "at " + options.rate + " messages/s" : "as fast as it goes";
    if (options.resume) {
        plan.messages = group.lag;
        plan.text = "Go on with group " + in_quotes(group.name) + " up to " + place_text(context, range.until) + ", " +
                    speed + ":\n  " + count_text(group.lag, "message", group.estimated) + " are open, all in all";
        if (group.replay) plan.text += "; it is passing messages again since its last reset";
        plan.text += ".";
    } else {
        Reset behind = range.reset;
        behind.time.reset();
        behind.position = range.until + 1;
        const ResetPlan all = context.look().plan_reset(group.name, range.reset);
        const std::int64_t left = range.until < range.head ? context.look().plan_reset(group.name, behind).messages : 0;
        plan.messages = std::max<std::int64_t>(all.messages - left, 0);
        plan.text = "Replay group " + in_quotes(group.name) + ", " + what_it_is(definition) + ",\n  from " +
                    place_text(context, all.position) + "\n  until " + place_text(context, range.until) +
                    (options.stream.empty() ? "" : ", in stream " + in_quotes(options.stream)) + ", " + speed +
                    ":\n  " + count_text(all.messages, "message", all.estimated) + " in " +
                    count_text(all.streams, "stream", all.estimated) + " were handled before and come again" +
                    (left > 0 ? ", about " + grouped(plan.messages) + " of them now" : "") + ":\n";
        for (const auto& type : all.types) {
            plan.text += "    " + printable(type.name) + " " + (type.estimated ? "~" : "") + grouped(type.messages) +
                         "\n";
        }
        const bool empties = options.stream.empty() ? definition.on_reset || definition.on_stream_reset
                                                    : static_cast<bool>(definition.on_stream_reset);
        if (empties) plan.text += "  First its on_reset empties what it keeps, in the same transaction.\n";
        plan.text += "  They change states and read models; nothing is decided, sent or otherwise done a second time.";
        if (group.lag > 0) {
            plan.text += "\n  " + count_text(group.lag, "message", group.estimated) +
                         " that it has open besides are handled as always, up to there, with all that follows.";
            plan.messages += range.until < range.head ? 0 : group.lag;
        }
        if (left > 0) plan.text += "\n  What stands behind is left for the workers, or for 'replay --resume'.";
    }
    plan.text += others_text(context);
    return plan;
}

std::string how_to_go_on(const Context& context, const ReplayOptions& options, const Range& range) {
    std::string rest = "replay --group " + shell_word(options.group) + " --resume";
    if (!options.until.empty()) rest += " --until " + std::to_string(range.until);
    if (range.rate > 0) rest += " --rate " + options.rate;
    return context.called(rest);
}

const char* result_text(detail::Ran::Result result) {
    switch (result) {
    case detail::Ran::Result::reached: return "reached";
    case detail::Ran::Result::interrupted: return "interrupted";
    case detail::Ran::Result::stalled: break;
    }
    return "stalled";
}

Exit tell_of(Context& context, const ReplayOptions& options, const Range& range, const detail::Ran& ran, double seconds,
             const GroupInfo& group) {
    Output& out = context.out();
    using enum detail::Ran::Result;
    if (!out.text()) {
        Json json;
        json.begin().field("group", options.group).field("result", result_text(ran.result)).field("reason", ran.reason);
        json.field("from", range.from).field("until", range.until).field("messages", ran.messages);
        json.field("seconds", seconds).field("open", group.lag).field("estimated", group.estimated).end();
        out.object(json.text());
    } else {
        const std::string open = group.lag == 0 ? "nothing is open"
                                                : count_text(group.lag, "message", group.estimated) +
                                                      (group.lag == 1 ? " is" : " are") + " open, for the workers";
        out.line("passed " + count_text(ran.messages, "message") + " through " + in_quotes(options.group) + " " +
                 speed_text(ran.messages, seconds) +
                 (ran.result == reached ? ", up to position " + grouped(range.until) : "") + "; " + open);
    }
    out.flush();
    if (ran.result == reached) return Exit::ok;
    const std::string why = ran.result == interrupted ? "interrupted" : "it cannot go on: " + printable(ran.reason);
    std::cerr << "sourced: " << why << "; the group goes on with its next worker, or with\n  "
              << how_to_go_on(context, options, range) << '\n';
    return ran.result == interrupted ? Exit::interrupted : Exit::failure;
}

Exit dry_run(Context& context, const Application& application, const Range& range, const ReplayOptions& options);

Exit replay(Context& context, const ReplayOptions& options) {
    const Application application(context);
    const Definition& definition = application.reactor(options.group);
    if (options.resume && (options.from != "start" || !options.stream.empty() || !options.reason.empty())) {
        throw Failed(Exit::usage, "--resume goes on without a reset: --from, --stream and --reason are for a new "
                                  "replay");
    }
    const Range range = range_of(context, options);
    if (options.dry_run) return dry_run(context, application, range, options);
    const Stats before = context.look().stats();
    const GroupInfo& group = group_in_file(context, before, definition);
    if (!options.resume) detail::Access::check_reset(definition, range.reset);
    const Plan plan = plan_of(context, definition, group, range, options);
    context.confirm(plan.text);

    Warnings warnings;
    App& app = application.change({options.group}, warnings.sink());
    if (!options.resume) app.reset_group(options.group, range.reset);
    detail::Ran ran;
    double seconds = 0;
    {
        Progress progress("messages");
        const auto ask = [&] {
            warnings.say(progress);
            return context.interrupted();
        };
        const auto show = [&](std::int64_t done) { progress.show(done, std::max(done, plan.messages)); };
        ran = detail::Access::run_group(
            app, options.group, {.until = range.until, .rate = range.rate, .progress = show, .stopped = ask});
        seconds = progress.seconds();
        warnings.say(progress);
    }
    const Stats after = app.stats();
    return tell_of(context, options, range, ran, seconds, after.group(options.group));
}

// ---- replay --dry-run ---------------------------------------------------------------

/// A message that cannot be read, or that a state cannot be folded with.
struct Unfit {
    std::int64_t position = 0;
    std::string stream;
    std::string type;
    std::string text;
};

/// A reactor's states in memory, folded with messages as the reactor would do it. Nothing is written; its handlers of
/// commands and reactions, its sync and its on_reset are not called.
class Folding {
public:
    Folding(Store& store, const Application& application, const Definition& definition)
        : store_(store), registry_(application.registry()), definition_(definition) {
        stored_ = definition.role == Definition::Role::projector && !definition.event_sourced;
        if (!stored_) return;
        // A projector that stores its state begins with what it finds in tables that are empty.
        empty_ = open_store();
        try {
            if (definition.on_install) empty_->transaction(definition.on_install);
        } catch (const std::exception& error) {
            throw Failed(Exit::failure, "its on_install fails in memory, where a dry run needs its tables: " +
                                            std::string(error.what()));
        }
    }

    [[nodiscard]] bool folds() const noexcept { return !definition_.events.empty(); }
    /// Whether a state needs its stream from the beginning.
    [[nodiscard]] bool from_start() const noexcept { return folds() && !stored_; }
    [[nodiscard]] std::size_t states() const noexcept { return states_.size(); }

    /// All types that it takes a look at.
    [[nodiscard]] std::vector<std::string> types() const {
        std::vector<std::string> types = definition_.handled();
        for (const auto& [type, evolve] : definition_.events) {
            if (std::find(types.begin(), types.end(), type) == types.end()) types.push_back(type);
        }
        return types;
    }

    /// Throws what is wrong with the message.
    void take(const Message& message) {
        const auto found = definition_.events.find(message.type);
        if (found == definition_.events.end()) {
            read(message);
            return;
        }
        const std::string key = definition_.key ? definition_.key(message) : message.stream;
        const auto place = states_.find(key);
        Box& state = place != states_.end() ? place->second : states_.emplace(key, blank(key)).first->second;
        if (definition_.before_evolve) definition_.before_evolve(state.get(), message);
        if (found->second) found->second(state.get(), message);
    }

private:
    void read(const Message& message) const {
        const TypeInfo* type = registry_.find(message.type);
        if (!type || message.erased_at) return;
        if (auto problems = type->check(message.payload, Reading::tolerant, {}); !problems.empty()) {
            throw Undecodable("it cannot be read", std::move(problems));
        }
    }
    Box blank(std::string_view id) {
        if (!definition_.initial_reads) return definition_.initial(id, nullptr);
        Box state;
        (stored_ ? *empty_ : store_).read([&](Reader& reader) { state = definition_.initial(id, &reader); });
        return state;
    }

    Store& store_;
    const Registry& registry_;
    const Definition& definition_;
    bool stored_ = false;
    std::unique_ptr<Store> empty_;
    std::unordered_map<std::string, Box> states_;  // by stream, or by key
};

/// What a dry run has found.
struct Found {
    static constexpr std::size_t most_unfit = 1000;  // are kept

    std::int64_t messages = 0;
    std::unordered_set<std::string> streams{};
    std::int64_t skipped = 0;
    std::int64_t unfit = 0;
    std::vector<Unfit> first_unfit{};
    bool interrupted = false;

    void note(const Message& message, std::string text) {
        if (++unfit <= static_cast<std::int64_t>(most_unfit)) {
            first_unfit.push_back({message.position, message.stream, message.type, std::move(text)});
        }
    }
};

Found fold(Context& context, Folding& folding, const Range& range, const ReplayOptions& options, Progress& progress) {
    constexpr std::size_t page_size = 4096;
    Store& store = context.look();
    const Stats stats = store.stats();
    std::unordered_set<std::int64_t> passed;
    if (find_group(stats, options.group)) passed = detail::Access::skipped_by(store, options.group);
    Found found;
    LogRange log;
    log.from = folding.from_start() ? 1 : range.from;
    log.to = range.until;
    log.types = folding.types();
    log.stream = options.stream;
    log.limit = page_size;
    const std::int64_t first = log.from;
    Messages page;
    do {
        page.clear();
        store.read_log(log, [&](Message& message) {
            page.push_back(std::move(message));
            return true;
        });
        for (const auto& message : page) {
            found.messages += message.position >= range.from ? 1 : 0;
            found.streams.insert(message.stream);
            if (passed.contains(message.position)) {
                ++found.skipped;
                continue;
            }
            try {
                folding.take(message);
            } catch (const std::exception& error) {
                found.note(message, error.what());
            } catch (...) {
                found.note(message, "what was thrown is no std::exception");
            }
        }
        if (!page.empty()) log.from = page.back().position + 1;
        progress.show(log.from - first, range.until - first + 1);
        found.interrupted = context.interrupted();
    } while (page.size() == page_size && !found.interrupted);
    return found;
}

void show_found(Context& context, const Definition& definition, const Folding& folding, const Found& found,
                double seconds) {
    Output& out = context.out();
    if (!out.text()) {
        Json json;
        json.begin().field("group", definition.name).field("messages", found.messages);
        json.field("streams", found.streams.size()).field("states", folding.states()).field("folded", folding.folds());
        json.field("skipped", found.skipped).field("seconds", seconds).field("interrupted", found.interrupted);
        json.field("unfit", found.unfit).key("first_unfit").begin_array();
        for (const auto& each : found.first_unfit) {
            json.begin().field("position", each.position).field("stream", each.stream).field("type", each.type);
            json.field("text", each.text).end();
        }
        json.end_array().end();
        out.object(json.text());
        return;
    }
    Table table({{"position", Table::right}, {"stream"}, {"type"}, {"what is wrong"}});
    for (const auto& each : found.first_unfit) {
        table.row({grouped(each.position), printable(each.stream), printable(each.type), printable(each.text)});
    }
    if (!table.empty()) table.print(out);
    const auto listed = static_cast<std::int64_t>(found.first_unfit.size());
    if (found.unfit > listed) out.line("... and " + grouped(found.unfit - listed) + " more");
    out.line(count_text(found.messages, "message") + " in " +
             count_text(static_cast<std::int64_t>(found.streams.size()), "stream") + " " +
             (folding.folds() ? "folded into " + count_text(static_cast<std::int64_t>(folding.states()), "state")
                              : "read, not folded: it is " + what_it_is(definition)) +
             " " + speed_text(found.messages, seconds) + ", nothing was written");
    if (found.skipped > 0) out.line(count_text(found.skipped, "message") + " passed over, as the group was made to");
    if (found.unfit == 0) out.line("no message is unfit");
    else out.line(count_text(found.unfit, "message") + " cannot be read or folded");
}

Exit dry_run(Context& context, const Application& application, const Range& range, const ReplayOptions& options) {
    const Definition& definition = application.reactor(options.group);
    detail::Access::check_reset(definition, range.reset);
    Folding folding(context.look(), application, definition);
    Found found;
    double seconds = 0;
    {
        Progress progress("positions");
        found = fold(context, folding, range, options, progress);
        seconds = progress.seconds();
    }
    show_found(context, definition, folding, found, seconds);
    if (found.interrupted) return Exit::interrupted;
    return found.unfit == 0 ? Exit::ok : Exit::failure;
}

// ---- work ---------------------------------------------------------------------------

struct WorkOptions {
    std::optional<std::size_t> workers{};
};

std::string groups_text(const Stats& stats, const std::vector<const Definition*>& definitions) {
    std::string text;
    for (const auto* definition : definitions) {
        const GroupInfo* group = find_group(stats, definition->name);
        text += "\n  " + printable(definition->name);
        if (!group) continue;
        const std::string unhandled = unhandled_type(*group, *definition);
        if (!group->active) text += " (stopped: " + printable(group->reason) + ")";
        else if (!unhandled.empty()) text += " (left alone: it handles " + in_quotes(unhandled) + " in the file)";
        else if (group->lag > 0) text += " (" + count_text(group->lag, "message", group->estimated) + " open)";
    }
    return text;
}

std::int64_t lag_of(const Stats& stats, const std::vector<const Definition*>& definitions) {
    std::int64_t lag = 0;
    for (const auto* definition : definitions) {
        const GroupInfo* group = find_group(stats, definition->name);
        if (group && group->active) lag += group->lag;
    }
    return lag;
}

Exit work(Context& context, const WorkOptions& options) {
    const Application application(context);
    static_cast<void>(context.look());  // a file that cannot be used is told of before anything begins
    Warnings warnings;
    const int stop = context.interruption();
    App& app = application.change({}, warnings.sink());
    const auto definitions = application.definitions();
    const std::size_t workers = options.workers.value_or(detail::Access::options(app).workers);
    std::cerr << "sourced: working on " << in_quotes(context.file()) << " with "
              << count_text(static_cast<std::int64_t>(workers), "worker") << " for"
              << groups_text(app.stats(), definitions) << "\nCtrl-C ends it.\n";
    Progress progress("messages");
    app.start(workers);
    auto looked = std::chrono::steady_clock::time_point{};
    std::int64_t lag = 0;
    while (!context.interrupted()) {
        pollfd end{stop, POLLIN, 0};
        static_cast<void>(::poll(&end, 1, 200));
        warnings.say(progress);
        if (std::chrono::steady_clock::now() - looked >= std::chrono::seconds(1)) {
            lag = lag_of(app.stats(), definitions);
            looked = std::chrono::steady_clock::now();
        }
        const std::int64_t handled = detail::Access::handled(app);
        progress.show(handled, handled + lag);
    }
    progress.clear();
    std::cerr << "sourced: stopping\n";
    app.stop();
    warnings.say(progress);
    const std::int64_t handled = detail::Access::handled(app);
    std::cerr << "sourced: handled " << count_text(handled, "message") << " " << speed_text(handled, progress.seconds())
              << ", " << count_text(lag_of(app.stats(), definitions), "message") << " open\n";
    return Exit::ok;
}

}  // namespace

void add_replay(Commands& commands) {
    auto [replay_command, replaying] = commands.add<ReplayOptions>(
        {"replay", "Passes the log through a group once more",
         "  sourced --app libshop.so shop.db replay --group revenue --reason 'the tax rate was wrong'\n"
         "  sourced --app libshop.so shop.db replay --group revenue --dry-run   # can all of it be read and folded?\n"
         "  sourced --app libshop.so shop.db replay --group cart --from yesterday --until 14:30 --rate 500\n"
         "  sourced --app libshop.so shop.db replay --group cart --resume       # after Ctrl-C",
         "Resets the group, so that it passes again what it has handled from --from on,\n"
         "runs it up to --until, and leaves it live. States and read models change;\n"
         "nothing is decided, sent or otherwise done a second time. A projector that\n"
         "stores its state is passed whole, or for a whole stream.\n\n"
         "--dry-run resets nothing and writes nothing: it folds the states in memory, and\n"
         "shows every message that cannot be read or folded; exit status 1 if there are."},
        replay);
    replay_command.add_option("--group,-g", replaying.group, "Its name")->required()->type_name("GROUP");
    replay_command
        .add_option("--from", replaying.from, "The first message that comes again: start, a position or a time")
        ->type_name("WHERE")
        ->capture_default_str();
    replay_command.add_option("--until", replaying.until,
                              "The last one that is passed now: a position, or a time, before which it was recorded "
                              "(default: the end of the log)")
        ->type_name("WHERE");
    auto* rate = replay_command.add_option("--rate", replaying.rate, "Messages a second, or max")
                     ->type_name("N|max")
                     ->capture_default_str();
    replay_command.add_option("--stream", replaying.stream, "Only what stands in this stream")->type_name("STREAM");
    auto* reason =
        replay_command.add_option("--reason", replaying.reason, "Why; kept in the file")->type_name("WHY");
    auto* resume = replay_command.add_flag("--resume", replaying.resume, "Go on without a reset");
    replay_command.add_flag("--dry-run", replaying.dry_run, "Write nothing: can all of it be read and folded?")
        ->excludes(rate)
        ->excludes(resume)
        ->excludes(reason);
    commands.plans(replay_command);

    auto [work_command, working] = commands.add<WorkOptions>(
        {"work", "Runs an application's reactors on the file until a signal",
         "  sourced --app libshop.so shop.db work\n"
         "  sourced --app libshop.so shop.db work --workers 4",
         "Handles what is open and what comes, together with other processes that work on\n"
         "the same file. SIGINT and SIGTERM end it: batches under way are finished, and\n"
         "the exit status is 0."},
        work);
    work_command.add_option("-w,--workers", working.workers, "Threads (default: the application's own number)")
        ->check(CLI::Range(1, 1024));
}

}  // namespace sourced::inspector
