// What waits for its time, and what can be done about it: scheduled.
#include "naming.hpp"

#include <algorithm>
#include <unordered_map>

namespace sourced::inspector {
namespace {

/// What recurs, by the id of the occurrence that waits.
std::unordered_map<std::string, Recurring> recurring_by_id(Store& store) {
    std::unordered_map<std::string, Recurring> all;
    for (auto& each : store.recurring()) {
        const std::string id = each.next_id.to_string();
        all.emplace(id, std::move(each));
    }
    return all;
}

// ---- scheduled ------------------------------------------------------------------

struct ListOptions {
    std::string stream;
    std::size_t limit = 20;
};

void write_entry(Json& json, const Scheduled& entry, const Recurring* recurring, Time now) {
    json.begin();
    write_scheduled(json, entry);
    json.field("overdue", entry.due_at < now).key("recurring");
    if (recurring) {
        const auto every = std::chrono::duration<double>(recurring->every).count();
        json.begin().field("name", recurring->name).field("every_seconds", every);
        json.field("next", recurring->next + recurring->every).end();
    } else {
        json.null();
    }
    json.end();
}

Exit list_scheduled(Context& context, const ListOptions& options) {
    Store& store = context.look();
    Output& out = context.out();
    const auto recurring = recurring_by_id(store);
    Table table({{"due"}, {"stream"}, {"type"}, {"id"}, {"recurring"}});
    const auto entries = store.scheduled(options.limit, options.stream);
    for (const auto& entry : entries) {
        const auto found = recurring.find(entry.message.id.to_string());
        const Recurring* again = found == recurring.end() ? nullptr : &found->second;
        if (!out.text()) {
            Json json;
            write_entry(json, entry, again, out.now);
            out.record(json.text());
            continue;
        }
        const bool overdue = entry.due_at < out.now;
        const std::string due = out.time(entry.due_at) + (overdue ? ", overdue" : "");
        table.row({out.paint(overdue ? Style::bad : Style::plain, due), printable(entry.message.stream),
                   out.paint(entry.message.kind == Kind::command ? Style::command : Style::event,
                             printable(entry.message.type)),
                   entry.message.id.to_string(),
                   again ? printable(again->name) + ", every " + duration_text(again->every) : ""});
    }
    if (!out.text()) {
        out.end_records();
        return Exit::ok;
    }
    if (entries.empty()) {
        out.line("nothing is scheduled" + (options.stream.empty() ? "" : " for " + in_quotes(options.stream)));
        return Exit::ok;
    }
    table.print(out);
    if (entries.size() == options.limit) out.line(out.paint(Style::faint, "There may be more: --limit shows them."));
    return Exit::ok;
}

// ---- scheduled cancel, now ------------------------------------------------------

struct ChangeOptions {
    std::string id;
    std::string name;
};

/// What of the schedule is meant. Throws Failed.
Scheduled waiting(Context& context, const std::string& what, const Id& id) {
    if (auto entry = context.look().find_scheduled(id)) return std::move(*entry);
    if (const auto message = context.look().find(id)) {
        throw Failed(Exit::failure, what + " " + id.to_string() + ": too late, it is in the log at position " +
                                        std::to_string(message->position));
    }
    throw Failed(Exit::not_found,
                 what + " " + id.to_string() + ": no message of this id waits, and none is in the log");
}

/// A change that came too late, though it was planned in time.
void check_change(ScheduleChange change, const std::string& what) {
    if (change == ScheduleChange::has_run) throw Failed(Exit::failure, what + ": too late, it is in the log meanwhile");
    if (change == ScheduleChange::unknown) throw Failed(Exit::not_found, what + ": it is not scheduled any more");
}

std::string described(Output& out, const Scheduled& entry) {
    constexpr std::size_t shown = 400;
    return "\n  " + printable(entry.message.type) + " for stream " + in_quotes(entry.message.stream) + ", due " +
           out.time(entry.due_at) + "\n  " + shortened(printable(entry.message.payload), shown);
}

/// What recurs under a name. Throws Failed.
Recurring recurring_named(Context& context, const std::string& what, const std::string& name) {
    std::vector<std::string> names;
    for (auto& each : context.look().recurring()) {
        if (each.name == name) return std::move(each);
        names.push_back(each.name);
    }
    throw Failed(Exit::not_found,
                 what + " '" + name + "': nothing recurs under this name" + did_you_mean(name, names));
}

Exit cancel_recurring(Context& context, const std::string& name) {
    const Recurring recurring = recurring_named(context, "cancel", name);
    context.confirm("End what is sent again and again as " + in_quotes(name) + ", every " +
                    duration_text(recurring.every) + ", with the occurrence that waits:" +
                    described(context.out(), {recurring.next, recurring.message}) +
                    "\nA program that declares it brings it back when it starts.");
    if (!context.change().cancel_recurring(name)) {
        throw Failed(Exit::not_found, "cancel '" + name + "': nothing recurs under this name any more");
    }
    context.out().line("cancelled " + in_quotes(name) + ", which came every " + duration_text(recurring.every));
    return Exit::ok;
}

Exit cancel_scheduled(Context& context, const ChangeOptions& options) {
    if (options.id.empty() == options.name.empty()) {
        throw Failed(Exit::usage, "scheduled cancel takes an id, or the name of what recurs");
    }
    if (!options.name.empty()) return cancel_recurring(context, options.name);
    const auto id = id_of(options.id);
    if (!id) return cancel_recurring(context, options.id);
    const Scheduled entry = waiting(context, "cancel", *id);
    const auto recurring = recurring_by_id(context.look());
    const auto again = recurring.find(entry.message.id.to_string());
    context.confirm("Cancel message " + entry.message.id.to_string() + ":" + described(context.out(), entry) +
                    (again == recurring.end() ? ""
                                              : "\nOf " + in_quotes(again->second.name) +
                                                    " this occurrence is left out, the next comes " +
                                                    context.out().time(again->second.next + again->second.every)));
    check_change(context.change().cancel(entry.message.id), "cancel " + entry.message.id.to_string());
    context.out().line("cancelled " + entry.message.id.to_string() + ", " + printable(entry.message.type) + " for " +
                       in_quotes(entry.message.stream));
    return Exit::ok;
}

Exit run_now(Context& context, const ChangeOptions& options) {
    const auto id = id_of(options.id);
    const Id meant = id ? *id : recurring_named(context, "run", options.id).next_id;
    const Scheduled entry = waiting(context, "run", meant);
    const auto all = recurring_by_id(context.look());
    const auto again = all.find(entry.message.id.to_string());
    context.confirm("Move message " + entry.message.id.to_string() + " into the log now:" +
                    described(context.out(), entry) +
                    (again == all.end() ? ""
                                        : "\nOf " + in_quotes(again->second.name) + " this is an extra occurrence, " +
                                              "the next still comes in its time."));
    check_change(context.change().run_now(entry.message.id), "run " + entry.message.id.to_string());
    context.out().line("moved " + entry.message.id.to_string() + " into the log: " + printable(entry.message.type) +
                       " in " + in_quotes(entry.message.stream));
    return Exit::ok;
}

}  // namespace

void add_schedule(Commands& commands) {
    auto [scheduled, list] = commands.add<ListOptions>(
        {"scheduled", "Lists what is due when; cancels it, or sends it now",
         "  sourced shop.db scheduled --stream cart-7\n"
         "  sourced shop.db scheduled now 01890a5d-ac96-774b-bcce-b302099a8057\n"
         "  sourced shop.db scheduled cancel nightly-report  # by the name of what recurs"},
        list_scheduled);
    scheduled.add_option("--stream", list.stream, "Only what is for this stream")->type_name("STREAM");
    scheduled.add_option("--limit", list.limit, "At most so many")
        ->check(CLI::NonNegativeNumber)
        ->type_name("N")
        ->capture_default_str();

    Commands below = commands.below(scheduled);
    auto [cancel, cancelled] = below.add<ChangeOptions>(
        {"cancel", "Takes a message out of the schedule, or ends what recurs",
         "  sourced shop.db scheduled cancel 01890a5d-ac96-774b-bcce-b302099a8057\n"
         "  sourced shop.db scheduled cancel --name nightly-report",
         "By its id, one occurrence of what recurs is left out; by its name, it ends."},
        cancel_scheduled);
    cancel.add_option("ID", cancelled.id, "The message's id, or the name of what recurs");
    cancel.add_option("--name", cancelled.name, "The name of what recurs, also where it looks like an id")
        ->type_name("NAME");
    below.plans(cancel);

    auto [now, moved] = below.add<ChangeOptions>(
        {"now", "Moves a scheduled message into the log at once",
         "  sourced shop.db scheduled now 01890a5d-ac96-774b-bcce-b302099a8057"},
        run_now);
    now.add_option("ID", moved.id, "The message's id, or the name of what recurs")->required();
    below.plans(now);
}

}  // namespace sourced::inspector
