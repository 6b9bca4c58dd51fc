// How groups get through the log, and what can be done about those that do not: groups, workers.
#include "groups.hpp"

#include "application.hpp"
#include "inspector.hpp"
#include "naming.hpp"
#include "times.hpp"

#include <algorithm>

namespace sourced::inspector {
namespace {

// ---- What all of them need ------------------------------------------------------

const GroupInfo& find_group(Context& context, const Stats& stats, const std::string& name) {
    const auto found = std::find_if(stats.groups.begin(), stats.groups.end(),
                                    [&](const GroupInfo& group) { return group.name == name; });
    if (found != stats.groups.end()) return *found;
    std::vector<std::string> names;
    for (const auto& group : stats.groups) names.push_back(group.name);
    throw Failed(Exit::not_found,
                 "there is no group '" + name + "' in '" + context.file() + "'" + did_you_mean(name, names));
}

std::string number_or_dash(std::int64_t number) { return number == 0 ? "-" : grouped(number); }
std::string percent(const sourced::Progress& progress) {
    return std::to_string(100 * progress.done / std::max<std::int64_t>(progress.total, 1)) + " %";
}
std::string error_of(std::string_view type, std::string_view text) {
    return printable(type) + (text.empty() ? "" : ": " + printable(text));
}
double seconds(Duration duration) { return std::chrono::duration<double>(duration).count(); }

std::string status_text(const GroupInfo& group) {
    if (!group.active) return "stopped";
    if (group.rebuild) return "rebuilding";
    return group.replay ? "replaying" : "active";
}
Style style_of(const GroupInfo& group) {
    if (!group.active) return Style::bad;
    return group.parked > 0 || group.retrying > 0 ? Style::warning : Style::good;
}
const char* state_text(OffsetInfo::State state) {
    switch (state) {
    case OffsetInfo::State::idle: return "idle";
    case OffsetInfo::State::ready: return "ready";
    case OffsetInfo::State::claimed: return "claimed";
    case OffsetInfo::State::waiting: return "waiting";
    case OffsetInfo::State::parked: break;
    }
    return "parked";
}

// ---- JSON -----------------------------------------------------------------------

void write_progress(Json& json, std::string_view name, const std::optional<sourced::Progress>& progress) {
    json.key(name);
    if (progress) json.begin().field("done", progress->done).field("total", progress->total).end();
    else json.null();
}

void write_error(Json& json, std::string_view type, std::string_view text, std::int64_t position) {
    json.key("error");
    if (type.empty() && text.empty()) json.null();
    else json.begin().field("type", type).field("text", text).field("position", position).end();
}

void write_offset(Json& json, const OffsetInfo& offset) {
    json.begin().field("stream", offset.stream).field("state", state_text(offset.state)).field("acked", offset.acked);
    json.field("known", offset.known).field("attempts", offset.attempts).field("deaths", offset.deaths);
    write_error(json, offset.error_type, offset.error_text, offset.position);
    json.field("failed_at", offset.failed_at).field("retry_at", offset.retry_at).field("reason", offset.reason);
    json.field("worker", offset.owner).field("pid", offset.owner_pid).end();
}

// ---- groups ---------------------------------------------------------------------

/// What is to be said of a group beside its numbers.
std::string note_on(const Output& out, const GroupInfo& group) {
    std::string note;
    const auto add = [&](const std::string& text) { note += (note.empty() ? "" : "; ") + text; };
    if (group.rebuild) add("rebuild " + percent(*group.rebuild));
    if (group.replay) add("replay " + percent(*group.replay));
    if (!group.active && !group.error_type.empty()) add(error_of(group.error_type, group.error_text));
    else if (!group.active) add(group.reason.empty() ? "no reason was given" : printable(group.reason));
    if (group.next_retry) {
        add("next retry " + out.time(*group.next_retry) +
            (group.retry_error.empty() ? "" : ", " + printable(group.retry_error)));
    } else if (group.active && group.last_error) {
        add(error_of(group.last_error->error_type, group.last_error->error_text));
    }
    return note;
}

std::string lag_text(const GroupInfo& group) {
    return (group.lag_estimated && group.lag > 0 ? "~" : "") + grouped(group.lag);
}

}  // namespace

void write_group(Json& json, const GroupInfo& group) {
    json.field("group", group.name).field("status", status_text(group)).field("active", group.active);
    json.field("reason", group.reason).field("changed_at", group.changed_at);
    write_error(json, group.error_type, group.error_text, group.error_position);
    json.field("lag", group.lag).field("lag_seconds", seconds(group.lag_time));
    json.field("lag_estimated", group.lag_estimated).field("estimated", group.estimated);
    json.field("retrying", group.retrying).field("next_retry", group.next_retry).field("parked", group.parked);
    json.field("skipped", group.skipped).key("last_error");
    if (group.last_error) write_offset(json, *group.last_error);
    else json.null();
    write_progress(json, "replay", group.replay);
    write_progress(json, "rebuild", group.rebuild);
    json.field("generation", group.generation).field("begins", group.begins).field("scanned", group.scanned);
    json.field("streams", group.streams).field("oldest", group.oldest).field("newest", group.newest);
    json.key("types").begin_array();
    for (const auto& type : group.types) {
        const auto since = group.since.find(type);
        json.begin().field("type", type);
        json.field("since", since == group.since.end() ? std::int64_t{1} : since->second).end();
    }
    json.end_array().key("reset");
    if (group.reset_at) {
        json.begin().field("at", *group.reset_at).field("position", group.reset_position);
        json.field("stream", group.reset_stream).field("reason", group.reset_reason).end();
    } else {
        json.null();
    }
}

void print_groups(Output& out, const std::vector<GroupInfo>& groups) {
    constexpr std::size_t bar_columns = 10;
    std::int64_t most = 1;
    for (const auto& group : groups) most = std::max(most, group.lag);
    Table table({{"group"}, {"status"}, {"lag", Table::right}, {""}, {"behind", Table::right},
                 {"retries", Table::right}, {"parked", Table::right}, {"skipped", Table::right}, {"note"}});
    for (const auto& group : groups) {
        const double share = static_cast<double>(group.lag) / static_cast<double>(most);
        table.row({printable(group.name), out.paint(style_of(group), status_text(group)), lag_text(group),
                   group.lag > 0 ? out.bar(share, bar_columns) : "",
                   group.lag > 0 ? duration_text(group.lag_time) : "-", number_or_dash(group.retrying),
                   number_or_dash(group.parked), number_or_dash(group.skipped), note_on(out, group)});
    }
    table.print(out);
}

namespace {

Exit list_groups(Context& context) {
    const Stats stats = context.look().stats();
    Output& out = context.out();
    if (!out.text()) {
        for (const auto& group : stats.groups) {
            Json json;
            json.begin();
            write_group(json, group);
            out.record(json.end().text());
        }
        out.end_records();
        return Exit::ok;
    }
    if (stats.groups.empty()) {
        out.line("no groups");
        return Exit::ok;
    }
    print_groups(out, stats.groups);
    return Exit::ok;
}

// ---- groups show ----------------------------------------------------------------

struct ShowOptions {
    std::string group;
    bool all = false;
    std::string after;
    std::size_t limit = 20;
};

/// What `groups show` tells beside the group's own numbers.
struct Details {
    std::vector<OffsetInfo> claims;
    std::vector<OffsetInfo> waiting;
    std::vector<OffsetInfo> parked;
    std::vector<OffsetInfo> failed;  ///< with an error, but neither of these two: what has stopped the group
    std::vector<Skipped> skipped;
    std::vector<OffsetInfo> offsets;
    std::vector<WorkerInfo> workers;
};

Details details_of(Store& store, const ShowOptions& options) {
    using State = OffsetInfo::State;
    const auto in_state = [&](State state) {
        return store.offsets(options.group, {.limit = options.limit, .state = state});
    };
    Details details{in_state(State::claimed), in_state(State::waiting), in_state(State::parked), {}, {}, {},
                    store.workers()};
    for (auto& offset : store.offsets(options.group, {.limit = options.limit})) {
        const bool told = offset.state == State::parked || offset.state == State::waiting;
        if (!told) details.failed.push_back(std::move(offset));
    }
    details.skipped = store.skipped(options.group, 0, options.limit);
    if (options.all) {
        if (!options.after.empty() && store.stream_seq(options.after) == 0) {
            throw Failed(Exit::not_found, "--after '" + options.after + "': there is no such stream");
        }
        details.offsets = store.offsets(options.group, {.all = true, .after = options.after, .limit = options.limit});
    }
    return details;
}

const WorkerInfo* worker_of(const Details& details, const OffsetInfo& claim) {
    const auto found = std::find_if(details.workers.begin(), details.workers.end(),
                                    [&](const WorkerInfo& worker) { return worker.number == claim.owner; });
    return found == details.workers.end() ? nullptr : &*found;
}

void write_details(Json& json, const Details& details, bool all) {
    json.key("claims").begin_array();
    for (const auto& claim : details.claims) {
        const auto* worker = worker_of(details, claim);
        json.begin().field("stream", claim.stream).field("acked", claim.acked).field("known", claim.known);
        json.field("worker", claim.owner).field("pid", claim.owner_pid).field("host", worker ? worker->host : "");
        json.field("beat", worker ? std::optional(worker->beat) : std::nullopt);
        json.field("alive", worker ? worker->alive : std::optional(false)).end();
    }
    json.end_array();
    const auto write_offsets = [&](std::string_view name, const std::vector<OffsetInfo>& offsets) {
        json.key(name).begin_array();
        for (const auto& offset : offsets) write_offset(json, offset);
        json.end_array();
    };
    write_offsets("retries", details.waiting);
    write_offsets("failures", details.failed);
    write_offsets("parked_streams", details.parked);
    json.key("skipped_messages").begin_array();
    for (const auto& skipped : details.skipped) {
        json.begin().field("number", skipped.number).field("stream", skipped.stream);
        json.field("position", skipped.position).field("id", skipped.id).field("at", skipped.at);
        write_error(json, skipped.error_type, skipped.error_text, skipped.position);
        json.field("reason", skipped.reason).end();
    }
    json.end_array();
    if (all) write_offsets("offsets", details.offsets);
}

std::string life_text(const std::optional<bool>& alive) { return !alive ? "not known" : *alive ? "yes" : "no"; }

void print_facts(Output& out, const GroupInfo& group, std::int64_t head) {
    const auto fact = [&](std::string name, const std::string& text) {
        name.resize(12, ' ');
        out.line(name + text);
    };
    out.line(out.paint(Style::heading, printable(group.name)) + "  " +
             out.paint(style_of(group), status_text(group)));
    if (group.changed_at || !group.reason.empty()) {
        fact(group.active ? "changed" : "stopped", (group.changed_at ? out.time(*group.changed_at) : std::string()) +
                 (group.reason.empty() ? "" : (group.changed_at ? ": " : "") + printable(group.reason)));
    }
    if (!group.error_type.empty()) {
        fact("error", error_of(group.error_type, group.error_text) + " at position " + grouped(group.error_position));
    }
    constexpr std::size_t bar_columns = 20;
    const double handled = head > 0 ? 1 - static_cast<double>(group.lag) / static_cast<double>(head) : 1;
    fact("handled", "[" + out.bar(handled, bar_columns) + "] of the log");
    fact("lag", group.lag == 0 ? "none" : count_text(group.lag, "message", group.lag_estimated) + ", the oldest " +
                                              duration_text(group.lag_time) + " old");
    fact("offsets", group.streams == 0 ? "none yet"
                                       : count_text(group.streams, "stream", group.estimated) + ", from " +
                                             grouped(group.oldest) + " to " + grouped(group.newest));
    fact("searched", "the log up to " + grouped(group.scanned) + " of " + grouped(head));
    fact("begins", group.begins == 0 ? "with the log" : "behind position " + grouped(group.begins));
    if (group.replay) {
        fact("replay", percent(*group.replay) + ", " + grouped(group.replay->done) + " of about " +
                           grouped(group.replay->total) + " positions");
    }
    if (group.rebuild) {
        fact("rebuild", percent(*group.rebuild) + ", " + grouped(group.rebuild->done) + " of about " +
                            grouped(group.rebuild->total) + " positions");
    }
    if (group.generation > 1) fact("generation", std::to_string(group.generation));
    if (group.reset_at) {
        fact("reset", out.time(*group.reset_at) + " to position " + grouped(group.reset_position) +
                          (group.reset_stream.empty() ? "" : " in " + in_quotes(group.reset_stream)) +
                          (group.reset_reason.empty() ? "" : ": " + printable(group.reset_reason)));
    }
    std::string name = "types";
    for (const auto& type : group.types) {
        const auto since = group.since.find(type);
        fact(std::exchange(name, ""),
             printable(type) + (since == group.since.end() ? "" : ", since position " + grouped(since->second)));
    }
}

/// A heading, and how much of what there is is shown.
void print_heading(Output& out, const std::string& name, std::size_t shown, std::int64_t all) {
    const bool cut = static_cast<std::int64_t>(shown) < all;
    const std::string numbers = grouped(static_cast<std::int64_t>(shown)) + " of " + grouped(all);
    out.line();
    out.line(out.paint(Style::heading, name) + (cut ? " (" + numbers + ", --limit shows more)" : ""));
}

void print_claims(Output& out, const Details& details) {
    if (details.claims.empty()) return;
    print_heading(out, "Claims", details.claims.size(), 0);
    Table table({{"stream"}, {"handled", Table::right}, {"known", Table::right}, {"worker", Table::right},
                 {"pid", Table::right}, {"host"}, {"alive"}, {"beat", Table::right}});
    for (const auto& claim : details.claims) {
        const auto* worker = worker_of(details, claim);
        table.row({printable(claim.stream), grouped(claim.acked), grouped(claim.known), std::to_string(claim.owner),
                   worker ? std::to_string(worker->pid) : "-", worker ? printable(worker->host) : "-",
                   worker ? life_text(worker->alive) : "no", worker ? std::to_string(worker->beat) : "-"});
    }
    table.print(out);
    out.line(out.paint(Style::faint, "A claim expires when its worker's beat has stood still for the claim time, as "
                                     "another process sees it."));
}

void print_troubled(Output& out, const std::string& name, const std::vector<OffsetInfo>& offsets, std::int64_t all) {
    if (offsets.empty()) return;
    print_heading(out, name, offsets.size(), all);
    const bool parked = offsets.front().state == OffsetInfo::State::parked;
    Table table({{"stream"}, {"position", Table::right}, {"tries", Table::right}, {"failed"},
                 {parked ? "reason" : "next retry"}, {"error"}});
    for (const auto& offset : offsets) {
        table.row({printable(offset.stream), offset.position > 0 ? grouped(offset.position) : "-",
                   number_or_dash(offset.attempts), offset.failed_at ? out.time(*offset.failed_at) : "-",
                   parked ? printable(offset.reason) : offset.retry_at ? out.time(*offset.retry_at) : "-",
                   offset.error_type.empty() ? "-" : error_of(offset.error_type, offset.error_text)});
    }
    table.print(out);
}

void print_skipped(Output& out, const std::vector<Skipped>& skipped, std::int64_t all) {
    if (skipped.empty()) return;
    print_heading(out, "Skipped messages", skipped.size(), all);
    Table table({{"stream"}, {"position", Table::right}, {"message"}, {"skipped"}, {"reason"}, {"error"}});
    for (const auto& each : skipped) {
        table.row({printable(each.stream), grouped(each.position), each.id.to_string(), out.time(each.at),
                   printable(each.reason), each.error_type.empty() ? "-" : error_of(each.error_type, each.error_text)});
    }
    table.print(out);
}

void print_offsets(Output& out, const std::vector<OffsetInfo>& offsets, std::size_t limit) {
    print_heading(out, "Offsets", offsets.size(), 0);
    if (offsets.empty()) out.line("none");
    else {
        Table table({{"stream"}, {"state"}, {"handled", Table::right}, {"known", Table::right}});
        for (const auto& offset : offsets) {
            table.row({printable(offset.stream), state_text(offset.state), grouped(offset.acked),
                       grouped(offset.known)});
        }
        table.print(out);
    }
    if (offsets.size() == limit) {
        out.line(out.paint(Style::faint, "More: --after " + in_quotes(offsets.back().stream)));
    }
}

Exit show_group(Context& context, const ShowOptions& options) {
    Store& store = context.look();
    const Stats stats = store.stats();
    const GroupInfo& group = find_group(context, stats, options.group);
    const Details details = details_of(store, options);
    Output& out = context.out();
    if (!out.text()) {
        Json json;
        json.begin();
        write_group(json, group);
        write_details(json, details, options.all);
        out.object(json.end().text());
        return Exit::ok;
    }
    print_facts(out, group, stats.messages);
    print_claims(out, details);
    print_troubled(out, "Failed", details.failed, 0);
    print_troubled(out, "Waiting for a retry", details.waiting, group.retrying);
    print_troubled(out, "Parked streams", details.parked, group.parked);
    print_skipped(out, details.skipped, group.skipped);
    if (options.all) print_offsets(out, details.offsets, options.limit);
    return Exit::ok;
}

// ---- groups stop, start ---------------------------------------------------------

struct ChangeOptions {
    std::string group;
    std::string stream;
    std::string reason;
    bool all = false;
};

std::string because(const std::string& reason) { return reason.empty() ? "" : ": " + printable(reason); }

Exit stop_group(Context& context, const ChangeOptions& options) {
    const Stats stats = context.look().stats();
    const GroupInfo& group = find_group(context, stats, options.group);
    context.confirm("Stop group " + in_quotes(group.name) + ": it handles nothing until it is started; work under " +
                    "way is dropped, and done again then." +
                    (group.active ? "" : "\nIt is stopped already, and this reason takes the place of the one kept" +
                                             because(group.reason) + "."));
    context.change().stop_group(options.group, options.reason);
    context.out().line("stopped " + in_quotes(options.group) + because(options.reason));
    return Exit::ok;
}

Exit start_group(Context& context, const ChangeOptions& options) {
    const Stats stats = context.look().stats();
    const GroupInfo& group = find_group(context, stats, options.group);
    std::string plan = "Start group " + in_quotes(group.name) + " where it stopped, " +
                       count_text(group.lag, "message", group.lag_estimated) +
                       " behind; retries come at once, parked " +
                       "streams stay parked.";
    if (group.active) plan += "\nIt is active already: only its retries come at once.";
    context.confirm(plan);
    context.change().start_group(options.group, options.reason);
    context.out().line("started " + in_quotes(options.group) + because(options.reason));
    return Exit::ok;
}

// ---- groups retry ---------------------------------------------------------------

/// Tries all parked streams again. Gives how many they were.
std::int64_t retry_parked(Context& context, const std::string& group) {
    constexpr std::size_t at_once = 1'000;
    std::int64_t retried = 0;
    std::string after;
    while (!context.interrupted()) {
        const auto parked = context.change().offsets(
            group, {.after = after, .limit = at_once, .state = OffsetInfo::State::parked});
        for (const auto& offset : parked) context.change().retry_stream(group, offset.stream);
        retried += static_cast<std::int64_t>(parked.size());
        if (parked.size() < at_once) return retried;
        after = parked.back().stream;
    }
    throw Failed(Exit::interrupted, "interrupted: " + count_text(retried, "parked stream") + " of " + in_quotes(group) +
                                        " will be tried again, the others are parked still");
}

Exit retry_one(Context& context, const GroupInfo& group, const ChangeOptions& options) {
    last_seq(context, options.stream);
    const auto offsets = context.look().offsets(options.group, {.stream = options.stream});
    const auto waiting = context.look().offsets(options.group,
                                                {.stream = options.stream, .state = OffsetInfo::State::waiting});
    if (offsets.empty() && waiting.empty()) {
        throw Failed(Exit::failure, "retry '" + options.stream + "' for group '" + options.group +
                                        "': it is neither parked nor waiting for a retry; nothing was done");
    }
    const OffsetInfo& offset = offsets.empty() ? waiting.front() : offsets.front();
    const bool starts = !group.active && !group.error_type.empty() && group.error_position == offset.position;
    context.confirm("Try stream " + in_quotes(options.stream) + " again for group " + in_quotes(group.name) + " (" +
                    state_text(offset.state) +
                    (offset.error_type.empty() ? "" : ", " + error_of(offset.error_type, offset.error_text)) +
                    "), with its attempts counted anew." +
                    (starts ? "\nThe group was stopped by this error, and is started." : "") +
                    (!starts && !group.active ? "\nThe group is stopped and stays so" + because(group.reason) : ""));
    context.change().retry_stream(options.group, options.stream, options.reason);
    if (starts) context.change().start_group(options.group, options.reason);
    context.out().line("retrying " + in_quotes(options.stream) + " for " + in_quotes(options.group) +
                       (starts ? ", which was started" : "") + because(options.reason));
    return Exit::ok;
}

Exit retry_group(Context& context, const ChangeOptions& options) {
    const Stats stats = context.look().stats();
    const GroupInfo& group = find_group(context, stats, options.group);
    if (!options.stream.empty()) return retry_one(context, group, options);
    const bool failed = !group.active && !group.error_type.empty();
    const std::int64_t parked = options.all ? group.parked : 0;
    if (!group.active && !failed) {
        throw Failed(Exit::failure, "group '" + group.name + "' was stopped by hand" +
                                        (group.reason.empty() ? "" : " ('" + group.reason + "')") +
                                        ": 'groups start' starts it; nothing was done");
    }
    if (!failed && group.retrying == 0 && parked == 0) {
        context.out().line(
            "nothing waits for a retry in " + in_quotes(group.name) +
            (group.parked > 0 ? "; " + count_text(group.parked, "stream") + " parked: --all or --stream" : ""));
        return Exit::ok;
    }
    std::string plan = "In group " + in_quotes(group.name) + ", try again:";
    if (failed) {
        plan += "\n  the message at position " + grouped(group.error_position) + " that stopped it (" +
                error_of(group.error_type, group.error_text) + "); the group is started";
    }
    if (group.retrying > 0) plan += "\n  " + count_text(group.retrying, "stream") + " waiting for a retry";
    if (parked > 0) plan += "\n  " + count_text(parked, "parked stream");
    if (group.parked > 0 && parked == 0) {
        plan += "\nParked: " + count_text(group.parked, "stream") + "; see --all.";
    }
    context.confirm(plan);
    const std::int64_t retried = parked > 0 ? retry_parked(context, options.group) : 0;
    if (failed || group.retrying > 0 || !options.reason.empty()) {
        context.change().start_group(options.group, options.reason);
    }
    context.out().line("retrying " + count_text(group.retrying + retried, "stream") + " of " + in_quotes(group.name) +
                       (failed ? ", which was started" : "") + because(options.reason));
    return Exit::ok;
}

// ---- groups skip, park ----------------------------------------------------------

/// The message that Store::skip_message would pass over.
std::optional<Message> poison_of(Store& store, const GroupInfo& group, const std::string& stream) {
    const auto offsets = store.offsets(group.name, {.stream = stream});
    std::optional<Message> found;
    const auto take = [&](Message& message) {
        const auto since = group.since.find(message.type);
        if (since != group.since.end() && message.position < since->second) return true;
        found = std::move(message);
        return false;
    };
    if (!offsets.empty() && offsets.front().position > 0) {
        LogRange failed{.from = offsets.front().position, .to = offsets.front().position};
        store.read_log(failed, [&](Message& message) {
            found = std::move(message);
            return false;
        });
        return found;
    }
    const auto offset = store.offsets(group.name, {.all = true, .stream = stream});
    // Where nothing was discovered yet, nothing before what was searched is open.
    const std::int64_t from = offset.empty() ? std::max(group.begins, group.scanned) : offset.front().acked;
    store.read_log({.from = from + 1, .types = group.types, .stream = stream}, take);
    return found;
}

Exit skip_message(Context& context, const ChangeOptions& options) {
    constexpr std::size_t shown = 400;
    const Stats stats = context.look().stats();
    const GroupInfo& group = find_group(context, stats, options.group);
    last_seq(context, options.stream);
    const auto message = poison_of(context.look(), group, options.stream);
    if (!message) {
        throw Failed(Exit::failure, "skip a message of '" + options.stream + "' for group '" + group.name +
                                        "': nothing is open there; nothing was done");
    }
    const auto offsets = context.look().offsets(options.group, {.stream = options.stream});
    std::string plan = "Pass over this message of stream " + in_quotes(options.stream) + " for group " +
                       in_quotes(group.name) + ", which will never handle it:\n  " + printable(message->type) + " " +
                       message->id.to_string() + ", seq " + grouped(message->seq) + ", position " +
                       grouped(message->position) + ", " + context.out().time(message->recorded_at) + "\n  " +
                       (message->erased_at ? "(erased)" : shortened(printable(message->payload), shown));
    if (!offsets.empty() && !offsets.front().error_type.empty()) {
        plan += "\n  failed: " + error_of(offsets.front().error_type, offsets.front().error_text);
    }
    if (!group.active) plan += "\nThe group is stopped and stays so" + because(group.reason);
    context.confirm(plan);
    // Others go on meanwhile: no other message than the one that was shown.
    const Skipped skipped =
        context.change().skip_message(options.group, options.stream, options.reason, message->position);
    context.out().line("skipped " + skipped.id.to_string() + " at position " + grouped(skipped.position) + " of " +
                       in_quotes(options.stream) + " for " + in_quotes(options.group) + because(options.reason));
    return Exit::ok;
}

Exit park_stream(Context& context, const ChangeOptions& options) {
    const Stats stats = context.look().stats();
    const GroupInfo& group = find_group(context, stats, options.group);
    last_seq(context, options.stream);
    context.confirm("Park stream " + in_quotes(options.stream) + " for group " + in_quotes(group.name) +
                    ": it is left alone, later messages too, until 'groups retry --stream'; work under way is " +
                    "dropped.");
    context.change().park_stream(options.group, options.stream, options.reason);
    context.out().line("parked " + in_quotes(options.stream) + " for " + in_quotes(options.group) +
                       because(options.reason));
    return Exit::ok;
}

// ---- groups reset ---------------------------------------------------------------

struct ResetOptions {
    std::string group;
    bool to_start = false;
    bool to_end = false;
    std::int64_t to_position = 0;
    std::string to_time;
    std::string stream;
    std::string reason;
};

Exit skip_to_end(Context& context, const GroupInfo& group, const ResetOptions& options, std::int64_t head) {
    std::string plan = "Group " + in_quotes(group.name) + " leaves behind all that it has open up to position " +
                       grouped(head) + ": " + count_text(group.lag, "message", group.lag_estimated) +
                       " that it will never handle.\nA later reset passes them as replays: no command, reaction or " +
                       "other effect comes of them then either.";
    if (group.retrying + group.parked > 0) {
        plan += "\n" + count_text(group.retrying, "stream") + " waiting for a retry and " +
                count_text(group.parked, "parked stream") + " are free again.";
    }
    plan += "\nWhat others append until it is done is left behind too.";
    if (!group.active) plan += "\nThe group is stopped and stays so" + because(group.reason);
    context.confirm(plan);
    const std::int64_t first = context.change().skip_to_end(options.group, options.reason);
    context.out().line("reset " + in_quotes(options.group) + " to the end: position " + grouped(first) +
                       " is the first that it handles" + because(options.reason));
    return Exit::ok;
}

/// The application, where there is one, and what it says of the group; null where it has none of this name.
struct Types {
    std::optional<Application> application{};
    const detail::Definition* definition = nullptr;
};

Types types_of(Context& context, const std::string& group) {
    Types types;
    if (!context.linked() && context.library.empty()) return types;
    types.application.emplace(context);
    for (const auto* definition : types.application->definitions()) {
        if (definition->name == group) types.definition = definition;
    }
    return types;
}

/// What becomes of the rows that the reactor keeps.
std::string rows_text(Context& context, const Types& types, const ResetOptions& options) {
    if (types.definition) {
        const auto& definition = *types.definition;
        const bool empties = static_cast<bool>(definition.on_stream_reset) ||
                             (options.stream.empty() && static_cast<bool>(definition.on_reset));
        if (empties) return "\nFirst its on_reset empties what it keeps, in the same transaction.";
        if (definition.role != detail::Definition::Role::projector || definition.event_sourced) return {};
        return "\nWARNING: it has no on_reset: its rows stay, and it adds to them a second time.";
    }
    const std::string why = types.application ? "the application has no reactor of this name"
                                              : "the application's types are not here";
    return "\nWARNING: " + why + ", so no on_reset runs. A projector that stores its state\n"
           "keeps its rows, and adds to them a second time. For one of those use the application:\n"
           "  sourced --app LIB.so " + printable(context.file()) + " groups reset " + printable(options.group) +
           " ...\nor its replay, which resets and runs it.";
}

Exit reset_group(Context& context, const ResetOptions& options) {
    const int targets = int{options.to_start} + int{options.to_end} + int{options.to_position > 0} +
                        int{!options.to_time.empty()};
    if (targets > 1 || (targets == 0 && options.stream.empty())) {
        throw Failed(Exit::usage,
                     "groups reset takes one of --to-start, --to-end, --to-position N and --to-time T, and but for "
                     "--to-end also --stream S; --stream alone resets the whole stream");
    }
    if (options.to_end && !options.stream.empty()) {
        throw Failed(Exit::usage,
                     "groups reset --to-end is for all streams: 'groups skip' passes over one message of one");
    }
    const Stats stats = context.look().stats();
    const GroupInfo& group = find_group(context, stats, options.group);
    if (options.to_end) return skip_to_end(context, group, options, stats.messages);
    if (!options.stream.empty()) last_seq(context, options.stream);
    Reset reset{.stream = options.stream, .reason = options.reason};
    if (options.to_position > 0) reset.position = options.to_position;
    if (!options.to_time.empty()) reset.time = parse_time(options.to_time, context.out().now);
    Types types = types_of(context, options.group);
    if (types.definition) detail::Access::check_reset(*types.definition, reset);
    const ResetPlan planned = context.look().plan_reset(options.group, reset);
    std::string plan = "Reset group " + in_quotes(group.name) + " to position " + grouped(planned.position) +
                       (options.stream.empty() ? "" : " in stream " + in_quotes(options.stream)) + ": " +
                       count_text(planned.messages, "message", planned.estimated) + " in " +
                       count_text(planned.streams, "stream", planned.estimated) + " come again.\n" +
                       "They come as replays: they change states and read models, but no command, reaction or other " +
                       "effect comes of them a second time.";
    if (group.parked > 0 || group.retrying > 0) plan += "\nParked streams among them go on, retries begin anew.";
    if (!group.active) plan += "\nThe group is stopped and stays so" + because(group.reason);
    plan += rows_text(context, types, options);
    context.confirm(plan);
    if (types.definition) types.application->change({options.group}).reset_group(options.group, reset);
    else context.change().reset_group(options.group, reset, nullptr);
    context.out().line("reset " + in_quotes(options.group) + " to position " + grouped(planned.position) +
                       (options.stream.empty() ? "" : " in " + in_quotes(options.stream)) + because(options.reason));
    return Exit::ok;
}

// ---- workers --------------------------------------------------------------------

Exit list_workers(Context& context) {
    const auto workers = context.look().workers();
    Output& out = context.out();
    Table table({{"worker", Table::right}, {"pid", Table::right}, {"host"}, {"alive"}, {"started"},
                 {"beats", Table::right}, {"claims", Table::right}, {"note"}});
    for (const auto& worker : workers) {
        const bool stale = worker.alive == false;
        if (out.text()) {
            const std::string note = !worker.alive ? "runs on another machine"
                                     : !stale      ? ""
                                     : worker.claims > 0
                                         ? "stale: another process takes its claims when its claim time is over"
                                         : "stale";
            table.row({std::to_string(worker.number), std::to_string(worker.pid), printable(worker.host),
                       out.paint(stale ? Style::bad : Style::plain, life_text(worker.alive)),
                       out.time(worker.started_at), grouped(worker.beat), number_or_dash(worker.claims), note});
            continue;
        }
        Json json;
        json.begin().field("worker", worker.number).field("pid", worker.pid).field("host", worker.host);
        json.field("boot", worker.boot).field("started_at", worker.started_at).field("beat", worker.beat);
        json.field("alive", worker.alive).field("stale", stale).field("claims", worker.claims).end();
        out.record(json.text());
    }
    if (!out.text()) out.end_records();
    else if (workers.empty()) out.line("no workers");
    else table.print(out);
    return Exit::ok;
}

}  // namespace

void add_groups(Commands& commands) {
    CLI::App& groups = commands.add({"groups", "Shows how far each group is; changes how they get through the log",
                                     "  sourced shop.db groups\n"
                                     "  sourced shop.db groups show orders\n"
                                     "  sourced shop.db groups retry orders --all  # after the cause is gone",
                                     "A group is a reactor's name, with how far it has come in the log. Its lag:\n"
                                     "messages of its types that it has not handled. Behind: the age of the oldest\n"
                                     "of them. A number with a ~ is about right."},
                                    list_groups);
    Commands inner = commands.below(groups);

    auto [show, show_options] = inner.add<ShowOptions>(
        {"show", "Shows all that is known of one group",
         "  sourced shop.db groups show orders\n"
         "  sourced shop.db groups show orders --all --limit 1000  # where it stands in each stream"},
        show_group);
    show.add_option("GROUP", show_options.group, "Its name")->required();
    show.add_flag("--all", show_options.all, "Where it stands in every stream, too");
    show.add_option("--after", show_options.after, "With --all: go on behind this stream")->type_name("STREAM");
    show.add_option("--limit", show_options.limit, "At most so many of each list")
        ->check(CLI::NonNegativeNumber)
        ->type_name("N")
        ->capture_default_str();

    const auto changes = [&](const About& about, Exit (*run)(Context&, const ChangeOptions&), bool reason_needed) {
        auto [command, options] = inner.add<ChangeOptions>(about, run);
        command.add_option("GROUP", options.group, "Its name")->required();
        auto* reason = command.add_option("--reason", options.reason, "Why; it is kept in the file");
        if (reason_needed) reason->required();
        inner.plans(command);
        return std::pair<CLI::App*, ChangeOptions*>(&command, &options);
    };
    changes({"stop", "Stops a group: it handles nothing until it is started",
             "  sourced shop.db groups stop orders --reason 'the printer is out of paper'"},
            stop_group, true);
    changes({"start", "Starts a group where it stopped",
             "  sourced shop.db groups start orders --reason 'paper is in'"},
            start_group, false);
    {
        auto [command, options] =
            changes({"retry", "Tries again what failed; starts a group that an error stopped",
                     "  sourced shop.db groups retry orders                  # what waits, and what stopped it\n"
                     "  sourced shop.db groups retry orders --all            # parked streams too\n"
                     "  sourced shop.db groups retry orders --stream cart-7  # this one only"},
                    retry_group, false);
        auto* stream = command->add_option("--stream", options->stream, "This stream only")->type_name("STREAM");
        command->add_flag("--all", options->all, "Parked streams too")->excludes(stream);
    }
    {
        auto [command, options] = changes(
            {"skip", "Passes over one message that cannot be handled; what it was and why is kept",
             "  sourced shop.db groups skip orders --stream cart-7 --reason 'written by a broken version'",
             "It is the message that failed last in the stream, or, where none did, the first\n"
             "that the group has open."},
            skip_message, true);
        command->add_option("--stream", options->stream, "The stream that it stands in")
            ->required()
            ->type_name("STREAM");
    }
    {
        auto [command, options] =
            changes({"park", "Leaves a stream alone, until it is retried",
                     "  sourced shop.db groups park orders --stream cart-7 --reason 'under audit'"},
                    park_stream, true);
        command->add_option("--stream", options->stream, "The stream")->required()->type_name("STREAM");
    }

    auto [reset, reset_options] = inner.add<ResetOptions>(
        {"reset", "Lets a group pass messages again, or leave all that is open behind",
         "  sourced shop.db groups reset prices --to-start --reason 'rounding was wrong'\n"
         "  sourced shop.db groups reset prices --to-time yesterday --reason 'since the new release'\n"
         "  sourced shop.db groups reset mails --to-end --reason 'nobody wants mails of last year'",
         "What comes again comes as a replay: nothing is decided or sent a second time.\n"
         "The application's types are needed to empty the tables of a projector that\n"
         "stores its state: without them its rows stay, and it adds to them again."},
        reset_group);
    reset.add_option("GROUP", reset_options.group, "Its name")->required();
    reset.add_flag("--to-start", reset_options.to_start, "Everything comes again");
    reset.add_flag("--to-end", reset_options.to_end, "Nothing comes again, and what is open is never handled");
    reset.add_option("--to-position", reset_options.to_position, "The first position that comes again")
        ->check(CLI::PositiveNumber);
    reset.add_option("--to-time", reset_options.to_time, "What was recorded from then on comes again")
        ->type_name("TIME");
    reset.add_option("--stream", reset_options.stream, "Only what stands in this stream")->type_name("STREAM");
    reset.add_option("--reason", reset_options.reason, "Why; it is kept in the file")->required();
    inner.plans(reset);

    commands.add({"workers", "Lists the processes that handle messages",
                  "  sourced shop.db workers",
                  "A worker's beat is a count that moves while its process lives; the file keeps\n"
                  "no time of it. Whether a process is alive is told by the operating system, and\n"
                  "only of this machine. When a beat stands still for the claim time, as another\n"
                  "worker sees it, that one takes the claims back."},
                 list_workers);
}

}  // namespace sourced::inspector
