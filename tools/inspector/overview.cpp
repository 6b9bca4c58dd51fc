// What is in the file: stats, streams, and what the program prints when it is told nothing but a file.
#include "inspector.hpp"

namespace sourced::inspector {
namespace {

Exit show_stats(Context& context) {
    const Stats stats = context.look().stats();
    Output& out = context.out();
    if (!out.text()) {
        Json json;
        json.begin().field("messages", stats.messages).field("streams", stats.streams);
        json.field("scheduled", stats.scheduled).field("groups", stats.groups.size()).end();
        out.object(json.text());
        return Exit::ok;
    }
    out.line("messages   " + grouped(stats.messages));
    out.line("streams    " + grouped(stats.streams));
    out.line("scheduled  " + grouped(stats.scheduled));
    out.line("groups     " + grouped(static_cast<std::int64_t>(stats.groups.size())));
    return Exit::ok;
}

struct StreamsOptions {
    std::int64_t limit = 20;
};

Exit show_streams(Context& context, const StreamsOptions& options) {
    Output& out = context.out();
    Table table({{"stream"}, {"messages", Table::right}, {"last change"}});
    for (const auto& stream : context.look().recent_streams(options.limit)) {
        if (out.text()) {
            table.row({printable(stream.name), grouped(stream.seq), out.time(stream.updated_at)});
            continue;
        }
        Json json;
        json.begin().field("stream", stream.name).field("seq", stream.seq).field("updated_at", stream.updated_at).end();
        out.record(json.text());
    }
    if (out.text()) table.print(out);
    else out.end_records();
    return Exit::ok;
}

}  // namespace

Exit show_overview(Context& context) { return show_stats(context); }

void add_overview(Commands& commands) {
    commands.add({"stats", "Shows the whole file in numbers", "  sourced shop.db stats"}, show_stats);

    auto [command, options] = commands.add<StreamsOptions>(
        {"streams", "Lists streams, those changed last first", "  sourced shop.db streams --limit 50"}, show_streams);
    command.add_option("--limit", options.limit, "At most so many")->capture_default_str();
}

}  // namespace sourced::inspector
