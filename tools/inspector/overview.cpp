// What is in the file: stats, streams, and what the program prints when it is told nothing but a file.
#include "groups.hpp"
#include "inspector.hpp"

#include <algorithm>

namespace sourced::inspector {
namespace {

// ---- stats ----------------------------------------------------------------------

/// Everything that stats tells.
struct Summary {
    FileInfo file;
    Versions versions;
    Stats stats;
    std::vector<TypeCount> types;
    std::optional<Time> first{};     ///< when the first message was recorded
    std::optional<Message> last{};   ///< the newest message
    std::optional<Time> next_due{};  ///< when something that is scheduled is due
    std::size_t recurring = 0;
};

Summary summary_of(Store& store) {
    Summary summary{store.file(), versions(), store.stats(), store.types()};
    for (const auto& message : store.log({.limit = 1})) summary.first = message.recorded_at;
    for (auto& message : store.log({.limit = 1, .backwards = true})) summary.last = std::move(message);
    summary.next_due = store.next_due();
    summary.recurring = store.recurring().size();
    return summary;
}

void write_summary(Json& json, const Summary& summary) {
    const FileInfo& file = summary.file;
    json.key("file").begin().field("path", file.path).field("bytes", file.bytes).field("wal_bytes", file.wal_bytes);
    json.field("page_size", file.page_size).field("schema", file.schema).field("store_id", file.store_id).end();
    json.key("versions").begin().field("sourced", summary.versions.sourced);
    json.field("sqlite", summary.versions.sqlite).field("schema", summary.versions.schema).end();
    json.field("messages", summary.stats.messages).field("first_recorded_at", summary.first);
    json.field("last_recorded_at", summary.last ? std::optional(summary.last->recorded_at) : std::nullopt);
    json.field("streams", summary.stats.streams).field("scheduled", summary.stats.scheduled);
    json.field("next_due", summary.next_due).field("recurring", summary.recurring);
    json.key("types").begin_array();
    for (const auto& type : summary.types) {
        json.begin().field("type", type.name).key("kind");
        if (type.kind) json.value(*type.kind == Kind::command ? "command" : "event");
        else json.null();
        json.field("messages", type.messages).field("estimated", type.estimated).end();
    }
    json.end_array().key("groups").begin_array();
    for (const auto& group : summary.stats.groups) {
        json.begin();
        write_group(json, group);
        json.end();
    }
    json.end_array();
}

std::string version_text(const Summary& summary) {
    return "schema " + std::to_string(summary.file.schema) + ", SQLite " + summary.versions.sqlite + ", sourced " +
           summary.versions.sourced;
}

void print_numbers(Output& out, const Summary& summary) {
    const auto line = [&](const char* label, const std::string& text) {
        out.line(out.paint(Style::heading, label) + std::string(12 - std::string_view(label).size(), ' ') + text);
    };
    const Stats& stats = summary.stats;
    std::string size = bytes_text(summary.file.bytes) + " in pages of " + grouped(summary.file.page_size) + " bytes";
    if (summary.file.wal_bytes > 0) size += ", and a WAL of " + bytes_text(summary.file.wal_bytes);
    line("file", printable(summary.file.path));
    line("size", size);
    line("versions", version_text(summary));
    std::string messages = grouped(stats.messages);
    if (summary.first && summary.last) {
        messages += ", the first " + out.time(*summary.first) + ", the last " + out.time(summary.last->recorded_at);
    }
    line("messages", messages);
    line("streams", grouped(stats.streams));
    std::string scheduled = grouped(stats.scheduled);
    if (summary.next_due) scheduled += ", the next " + out.time(*summary.next_due);
    if (summary.recurring > 0) scheduled += "; recurring: " + std::to_string(summary.recurring);
    line("scheduled", scheduled);
}

std::string messages_of(const TypeCount& type) {
    if (type.estimated && type.messages == 0) return "few";
    return (type.estimated ? "~" : "") + grouped(type.messages);
}

void print_types(Output& out, const std::vector<TypeCount>& types, std::size_t most) {
    constexpr std::size_t bar_columns = 20;
    if (types.empty() || most == 0) return;
    Table table({{"type"}, {"kind"}, {"messages", Table::right}, {""}});
    const auto largest = static_cast<double>(std::max<std::int64_t>(types.front().messages, 1));
    for (std::size_t i = 0; i < std::min(most, types.size()); ++i) {
        const TypeCount& type = types[i];
        const bool command = type.kind == Kind::command;
        const std::string kind = !type.kind ? "-" : command ? "command" : "event";
        table.row({out.paint(command ? Style::command : Style::event, printable(type.name)), kind, messages_of(type),
                   out.bar(static_cast<double>(type.messages) / largest, bar_columns)});
    }
    out.line();
    table.print(out);
    if (types.size() <= most) return;
    out.line(out.paint(Style::faint, "and " + grouped(static_cast<std::int64_t>(types.size() - most)) + " more"));
}

void print_summary(Output& out, const Summary& summary, std::size_t types) {
    print_numbers(out, summary);
    print_types(out, summary.types, types);
    if (summary.stats.groups.empty()) return;
    out.line();
    print_groups(out, summary.stats.groups);
}

struct StatsOptions {
    std::size_t types = 10;
};

Exit show_stats(Context& context, const StatsOptions& options) {
    const Summary summary = summary_of(context.look());
    Output& out = context.out();
    if (out.text()) {
        print_summary(out, summary, options.types);
        return Exit::ok;
    }
    Json json;
    json.begin();
    write_summary(json, summary);
    out.object(json.end().text());
    return Exit::ok;
}

// ---- streams --------------------------------------------------------------------

struct StreamsOptions {
    std::string pattern;
    std::string sort = "updated";
    std::size_t limit = 20;
    bool names = false;
};

/// Asks for one more than is shown, to know whether there are more.
StreamQuery query_of(const StreamsOptions& options) {
    StreamQuery query;
    query.pattern = options.pattern;
    query.limit = std::max(options.limit, options.limit + 1);
    if (options.sort == "seq") query.order = StreamQuery::Order::seq;
    if (options.sort == "name") query.order = StreamQuery::Order::name;
    return query;
}

void write_stream(Json& json, const StreamInfo& stream) {
    json.begin().field("stream", stream.name).field("seq", stream.seq).field("updated_at", stream.updated_at).end();
}

Exit show_streams(Context& context, const StreamsOptions& options) {
    Output& out = context.out();
    Table table({{"stream"}, {"messages", Table::right}, {"last change"}});
    auto streams = context.look().streams(query_of(options));
    const bool more = streams.size() > options.limit;
    if (more) streams.pop_back();
    for (const auto& stream : streams) {
        if (out.text() && options.names) {
            out.line(printable(stream.name));
        } else if (out.text()) {
            table.row({printable(stream.name), grouped(stream.seq), out.time(stream.updated_at)});
        } else {
            Json json;
            if (options.names) json.value(stream.name);
            else write_stream(json, stream);
            out.record(json.text());
        }
    }
    if (!out.text()) out.end_records();
    else if (!table.empty()) table.print(out);
    if (more && !streams.empty()) out.remark("there are more streams: --limit N shows more of them");
    return Exit::ok;
}

// ---- What to do next --------------------------------------------------------------

/// A command line for this very file, and what it does.
struct Next {
    std::string command;
    std::string what;
};

/// The word; nothing for one that cannot be typed, or would be taken for an option.
std::optional<std::string> word(const std::string& text) {
    if (text.empty() || text.front() == '-' || printable(text) != text) return std::nullopt;
    return shell_word(text);
}

/// Three commands that are worth a look, most urgent first.
std::vector<Next> next_commands(Context& context, const Summary& summary) {
    std::vector<Next> next;
    const auto add = [&](const std::string& command, const std::optional<std::string>& name, const std::string& what) {
        if (name && next.size() < 3) next.push_back({context.called(command + *name), what});
    };
    const auto& groups = summary.stats.groups;
    const auto stopped = std::find_if(groups.begin(), groups.end(), [](const auto& group) { return !group.active; });
    const auto troubled = std::find_if(groups.begin(), groups.end(),
                                       [](const auto& group) { return group.parked + group.retrying > 0; });
    if (stopped != groups.end()) {
        add("groups show ", word(stopped->name), "why the group is stopped");
    } else if (troubled != groups.end()) {
        add("groups show ", word(troubled->name), "which streams are parked or wait for a retry");
    }
    if (summary.last) {
        add("stream ", word(summary.last->stream), "the stream that was changed last");
        add("trace ", summary.last->id.to_string(), "what led to the newest message");
    }
    if (summary.stats.scheduled > 0) add("scheduled", "", "what is due when");
    add("tail -f", "", "what is appended from now on");
    add("stats --types 100", "", "all message types");
    add("groups", "", "how far the groups are");
    return next;
}

}  // namespace

Exit show_overview(Context& context) {
    const Summary summary = summary_of(context.look());
    const auto next = next_commands(context, summary);
    Output& out = context.out();
    if (!out.text()) {
        Json json;
        json.begin();
        write_summary(json, summary);
        json.key("next").begin_array();
        for (const auto& each : next) json.value(each.command);
        out.object(json.end_array().end().text());
        return Exit::ok;
    }
    print_summary(out, summary, 5);
    std::size_t width = 0;
    for (const auto& each : next) width = std::max(width, width_of(each.command));
    out.line();
    out.line(out.paint(Style::heading, "next"));
    for (const auto& each : next) {
        const std::string space(width - width_of(each.command), ' ');
        out.line("  " + each.command + space + out.paint(Style::faint, "  # " + each.what));
    }
    return Exit::ok;
}

void add_overview(Commands& commands) {
    {
        auto [command, options] = commands.add<StatsOptions>(
            {"stats", "Shows the whole file in numbers",
             "  sourced shop.db stats\n"
             "  sourced shop.db stats --types 50\n"
             "  sourced shop.db stats -o json | jq '.groups[] | select(.lag > 1000)'",
             "Of a long log the messages of a type are counted in a sample, and of a group with many streams only some "
             "are looked at: such numbers stand behind a ~, and JSON says \"estimated\"."},
            show_stats);
        command.add_option("--types", options.types, "At most so many types, those with most messages first")
            ->check(CLI::NonNegativeNumber)
            ->type_name("N")
            ->capture_default_str();
    }
    {
        auto [command, options] = commands.add<StreamsOptions>(
            {"streams", "Lists streams, those changed last first",
             "  sourced shop.db streams\n"
             "  sourced shop.db streams 'cart-*' --sort seq --limit 5  # the longest carts\n"
             "  sourced shop.db streams 'cart-*' --names --limit 1000000 | wc -l",
             "PATTERN fits whole ids: * is any text, ? any character, [a-c] one of these, [^a-c] none of these, and "
             "[*] a star."},
            show_streams);
        command.add_option("PATTERN", options.pattern, "Only ids that it fits, like 'cart-*'");
        command.add_option("--sort", options.sort, "Those first that changed last, have most messages, or by id")
            ->check(CLI::IsMember({"updated", "seq", "name"}))
            ->capture_default_str();
        command.add_option("--limit", options.limit, "At most so many")
            ->check(CLI::NonNegativeNumber)
            ->type_name("N")
            ->capture_default_str();
        command.add_flag("--names", options.names, "Only the ids, one a line");
    }
}

}  // namespace sourced::inspector
