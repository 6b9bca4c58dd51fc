// What a stream's messages have made of an actor's state, at any point.
#include "application.hpp"
#include "naming.hpp"
#include "times.hpp"

#include <rapidjson/document.h>

#include <algorithm>
#include <charconv>
#include <iostream>
#include <map>
#include <set>

namespace sourced::inspector {
namespace {

using detail::Definition;
using Document = rapidjson::Document;
using Value = rapidjson::Value;

// ---- What differs between two JSON texts ----------------------------------------

struct Change {
    std::string path;
    std::optional<std::string> old;  ///< JSON; nothing: it was not there
    std::optional<std::string> now;
};
using Changes = std::vector<Change>;

std::string json_of(const Value& value) {
    rapidjson::StringBuffer buffer;
    rapidjson::Writer<rapidjson::StringBuffer> writer(buffer);
    value.Accept(writer);
    return {buffer.GetString(), buffer.GetSize()};
}

Document parsed(std::string_view json) {
    Document document;
    document.Parse<rapidjson::kParseFullPrecisionFlag>(json.data(), json.size());
    return document;
}

/// As it stands in a JSON pointer.
std::string step_of(std::string_view key) {
    std::string step = "/";
    for (const char letter : key) step += letter == '~' ? "~0" : letter == '/' ? "~1" : std::string(1, letter);
    return step;
}

class Comparison {
public:
    static Changes of(std::string_view old, std::string_view now) {
        Comparison comparison;
        comparison.compare("", parsed(old), parsed(now));
        return std::move(comparison.changes_);
    }

private:
    void compare(const std::string& path, const Value& old, const Value& now) {
        if (old.IsObject() && now.IsObject()) return compare_members(path, old, now);
        if (old.IsArray() && now.IsArray()) return compare_elements(path, old, now);
        if (old != now) changes_.push_back({path, json_of(old), json_of(now)});
    }
    void compare_members(const std::string& path, const Value& old, const Value& now) {
        for (const auto& member : old.GetObject()) {
            const std::string place = path + step_of(text(member.name));
            const auto found = now.FindMember(member.name);
            if (found == now.MemberEnd()) changes_.push_back({place, json_of(member.value), std::nullopt});
            else compare(place, member.value, found->value);
        }
        for (const auto& member : now.GetObject()) {
            if (old.HasMember(member.name)) continue;
            changes_.push_back({path + step_of(text(member.name)), std::nullopt, json_of(member.value)});
        }
    }
    void compare_elements(const std::string& path, const Value& old, const Value& now) {
        for (rapidjson::SizeType i = 0; i < std::max(old.Size(), now.Size()); ++i) {
            const std::string place = path + "/" + std::to_string(i);
            if (i >= now.Size()) changes_.push_back({place, json_of(old[i]), std::nullopt});
            else if (i >= old.Size()) changes_.push_back({place, std::nullopt, json_of(now[i])});
            else compare(place, old[i], now[i]);
        }
    }
    static std::string_view text(const Value& name) { return {name.GetString(), name.GetStringLength()}; }

    Changes changes_;
};

// ---- The fold -------------------------------------------------------------------

/// A stream in memory, as the engine itself folds it for one of its reactors.
class Fold : public DraftBase {
public:
    Fold(App& app, const Definition& definition, std::string_view id)
        : DraftBase(detail::Access::engine(app), definition, id, 0), definition_(definition) {}

    /// Goes on to a seq. Throws Failed, naming the message that the state cannot be folded with.
    void to(std::int64_t seq) {
        try {
            (void)catch_up(seq);
        } catch (const std::exception&) {
            find_culprit(seq);
        }
    }
    [[nodiscard]] std::string json() const {
        try {
            return definition_.write_state(erased_state());
        } catch (const Invalid& invalid) {
            throw Failed(Exit::failure, "the state of '" + stream() + "' at seq " + std::to_string(this->seq()) +
                                            " has no JSON: " + invalid.what());
        }
    }

private:
    /// It lies behind what is folded already, at or before `bad`.
    [[noreturn]] void find_culprit(std::int64_t bad) {
        while (bad > seq()) {
            const std::int64_t middle = seq() + std::max<std::int64_t>((bad - seq()) / 2, 1);
            try {
                (void)catch_up(middle);
            } catch (const std::exception& error) {
                if (middle == seq() + 1) refuse(middle, error.what());
                bad = middle;
            }
        }
        throw Failed(Exit::failure, "'" + stream() + "' could not be folded, and now it can: try again");
    }
    [[noreturn]] void refuse(std::int64_t at, const std::string& why) const {
        std::string text = "'" + definition_.name + "' cannot be folded with the message at seq " +
                           std::to_string(at) + " of '" + stream() + "': " + why;
        if (at > 1) text += " (--at " + std::to_string(at - 1) + " shows the state before it)";
        throw Failed(Exit::failure, text);
    }

    const Definition& definition_;
};

// ---- Which reactor, which seq -----------------------------------------------------

/// Throws Failed when the reactor has no state that can be folded and shown.
void check_foldable(const Definition& definition, const std::string& file) {
    const std::string it = "'" + definition.name + "'";
    if (definition.role == Definition::Role::reactor) {
        throw Failed(Exit::usage, it + " is a handler or a workflow, which has no state of its own");
    }
    if (definition.role == Definition::Role::projector && !definition.event_sourced) {
        const std::string what = it + " is a projector that stores its state itself, as it is now; its rows stand in ";
        const std::string shell = "sqlite3 -readonly " + file;
        if (definition.table.empty()) throw Failed(Exit::usage, what + "tables of its own: " + shell + " .tables");
        throw Failed(Exit::usage, what + "a table: " + shell + " \"select state from \\\"" + definition.table +
                                      "\\\" where id = '...'\"");
    }
    if (!definition.write_state) {
        throw Failed(Exit::failure, "the state of " + it + " has no JSON: give " + definition.state_name() +
                                        " a line SOURCED_VALUE(fields...) that names all its fields");
    }
}

/// Whether what the reactor folds or decides is among these types.
bool concerns(const Definition& definition, const std::set<std::string>& types) {
    const bool folds = definition.role == Definition::Role::actor || definition.event_sourced;
    return folds && std::any_of(types.begin(), types.end(), [&](const auto& type) {
        return definition.events.contains(type) || definition.commands.contains(type);
    });
}

std::set<std::string> types_in(Store& store, const std::string& stream) {
    std::set<std::string> types;
    store.read_stream(stream, {.limit = 1000}, [&](Message& message) {
        types.insert(message.type);
        return true;
    });
    return types;
}

const Definition& only_one(const Application& application, const std::set<std::string>& types,
                           const std::string& stream) {
    const Definition* found = nullptr;
    std::string names;
    int count = 0;
    for (const auto* definition : application.definitions()) {
        if (!concerns(*definition, types)) continue;
        found = definition;
        names += (count++ > 0 ? ", '" : "'") + definition->name + "'";
    }
    if (count == 1) return *found;
    if (count > 1) {
        throw Failed(Exit::usage, "several fold streams like '" + stream + "': say --actor, one of " + names);
    }
    throw Failed(Exit::not_found, "no actor of this application knows a type that stands in '" + stream + "'");
}

std::optional<std::int64_t> whole_number(std::string_view text) {
    std::int64_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return number;
}

/// One stream, and what was asked of it.
struct Subject {
    Store& store;
    std::string stream;
    std::int64_t last;  ///< its last seq
    Time now;

    /// The seq that a seq or a time stands for.
    [[nodiscard]] std::int64_t seq(const std::string& point) const {
        const auto number = whole_number(point);
        if (!number) return seq(parse_time(point, now));
        if (*number < 0 || *number > last) {
            throw Failed(Exit::not_found, "there is no seq " + point + " in '" + stream + "': its last is " +
                                              std::to_string(last));
        }
        return *number;
    }
    /// The last one that was recorded up to a time; 0: none was.
    [[nodiscard]] std::int64_t seq(Time time) const {
        std::int64_t found = 0;
        store.read_stream(stream, {.backwards = true}, [&](Message& message) {
            if (message.recorded_at > time) return true;
            found = message.seq;
            return false;
        });
        return found;
    }
    [[nodiscard]] std::optional<Message> message(std::int64_t at) const {
        auto found = store.stream(stream, {.from = at, .to = at});
        if (at == 0 || found.empty()) return std::nullopt;
        return std::move(found.front());
    }
};

// ---- Showing --------------------------------------------------------------------

void write_point(Json& json, const std::optional<Message>& message) {
    if (!message) {
        json.field("seq", 0);
        return;
    }
    json.field("seq", message->seq).field("position", message->position).field("recorded_at", message->recorded_at);
}

std::string point_text(const Output& out, const std::optional<Message>& message) {
    if (!message) return "before its first message";
    return "at seq " + std::to_string(message->seq) + ", " + out.time(message->recorded_at);
}

void write_changes(Json& json, const Changes& changes) {
    json.key("changes").begin_array();
    for (const auto& change : changes) {
        json.begin().field("path", change.path);
        if (change.old) json.key("old").raw(*change.old);
        if (change.now) json.key("new").raw(*change.now);
        json.end();
    }
    json.end_array();
}

void show_changes(Output& out, const Changes& changes) {
    // A whole document that changes at once would fill the terminal.
    const auto fitted = [&](const std::string& json) {
        const std::string text = printable(json);
        return out.width() > 0 ? shortened(text, std::max<std::size_t>(out.width() / 2, 20)) : text;
    };
    if (changes.empty()) out.line("  " + out.paint(Style::faint, "nothing changed"));
    for (const auto& change : changes) {
        const std::string path = change.path.empty() ? "(all of it)" : printable(change.path);
        if (!change.old) out.line(out.paint(Style::good, "+ ") + path + "  " + fitted(*change.now));
        else if (!change.now) out.line(out.paint(Style::bad, "- ") + path + "  " + fitted(*change.old));
        else out.line("  " + path + "  " + fitted(*change.old) + " -> " + fitted(*change.now));
    }
}

struct StateOptions {
    std::string stream;
    std::string actor;
    std::string at;
    std::vector<std::string> diff;
    bool steps = false;
};

Exit show_one(Output& out, const Subject& subject, const Definition& definition, Fold& fold, std::int64_t seq) {
    fold.to(seq);
    const auto message = subject.message(seq);
    if (out.text()) {
        out.line(out.paint(Style::heading, printable(subject.stream)) + " " + point_text(out, message));
        for (const auto& line : pretty(fold.json())) out.line(printable(line));
        return Exit::ok;
    }
    Json json;
    json.begin().field("stream", subject.stream).field("actor", definition.name);
    write_point(json, message);
    json.key("state").raw(fold.json()).end();
    out.object(json.text());
    return Exit::ok;
}

Exit show_diff(Output& out, const Subject& subject, const Definition& definition, Fold& fold, std::int64_t from,
               std::int64_t to) {
    fold.to(std::min(from, to));
    const std::string earlier = fold.json();
    fold.to(std::max(from, to));
    const std::string later = fold.json();
    const Changes changes = from <= to ? Comparison::of(earlier, later) : Comparison::of(later, earlier);
    if (out.text()) {
        out.line(out.paint(Style::heading, printable(subject.stream)) + " from " +
                 point_text(out, subject.message(from)).substr(3) + " to " +
                 point_text(out, subject.message(to)).substr(3));
        show_changes(out, changes);
        return Exit::ok;
    }
    Json json;
    json.begin().field("stream", subject.stream).field("actor", definition.name);
    json.key("from").begin();
    write_point(json, subject.message(from));
    json.end().key("to").begin();
    write_point(json, subject.message(to));
    json.end();
    write_changes(json, changes);
    json.end();
    out.object(json.text());
    return Exit::ok;
}

/// Why the group has skipped messages of the stream, by position.
std::map<std::int64_t, std::string> skipped_in(Store& store, const Definition& definition, const std::string& stream) {
    std::map<std::int64_t, std::string> reasons;
    try {
        for (std::int64_t after = 0;;) {
            const auto page = store.skipped(definition.name, after);
            if (page.empty()) return reasons;
            for (const auto& each : page) {
                if (each.stream == stream) reasons[each.position] = each.reason;
            }
            after = page.back().number;
        }
    } catch (const NotRegistered&) {
        return reasons;  // the file has not met this group
    }
}

void show_step(Output& out, const Message& message, const std::string* skipped, const Changes& changes) {
    if (!out.text()) {
        Json json;
        json.begin().field("seq", message.seq).field("position", message.position).field("type", message.type);
        json.field("kind", message.kind == Kind::command ? "command" : "event").field("id", message.id);
        json.field("recorded_at", message.recorded_at);
        if (skipped) json.field("skipped", *skipped);
        write_changes(json, changes);
        json.end();
        out.record(json.text());
        return;
    }
    const Style style = message.kind == Kind::command ? Style::command : Style::event;
    out.line(std::to_string(message.seq) + "  " + out.paint(style, printable(message.type)) + "  " +
             out.paint(Style::faint, out.time(message.recorded_at)));
    if (skipped) out.line("  " + out.paint(Style::warning, "the group skipped it: " + printable(*skipped)));
    // A command changes nothing by itself: what it has led to stands behind it.
    if (!changes.empty() || message.kind == Kind::event) show_changes(out, changes);
}

/// Shows what each message has changed, up to a seq; false when Ctrl-C ended it.
bool walk(Context& context, const Subject& subject, const Definition& definition, Fold& fold, std::int64_t upto) {
    const auto skipped = skipped_in(subject.store, definition, subject.stream);
    std::string before = fold.json();
    for (std::int64_t seq = 1; seq <= upto; ++seq) {
        if (context.interrupted()) return false;
        fold.to(seq);
        const Message& message = fold.news().back();
        std::string after = fold.json();
        const auto reason = skipped.find(message.position);
        show_step(context.out(), message, reason == skipped.end() ? nullptr : &reason->second,
                  Comparison::of(before, after));
        before = std::move(after);
    }
    return true;
}

Exit show_steps(Context& context, const Subject& subject, const Definition& definition, Fold& fold,
                std::int64_t upto) {
    Output& out = context.out();
    if (out.text()) {
        out.line(out.paint(Style::heading, printable(subject.stream)) + " " + point_text(out, std::nullopt));
        for (const auto& line : pretty(fold.json())) out.line(printable(line));
        return walk(context, subject, definition, fold, upto) ? Exit::ok : Exit::interrupted;
    }
    Json json;
    json.begin().field("seq", 0).key("state").raw(fold.json()).end();
    out.record(json.text());
    bool whole = false;
    try {
        whole = walk(context, subject, definition, fold, upto);
    } catch (...) {
        out.end_records();  // what there is, is JSON
        throw;
    }
    out.end_records();
    return whole ? Exit::ok : Exit::interrupted;
}

Exit show_state(Context& context, const StateOptions& options) {
    Application application(context);
    if (options.steps && !options.diff.empty()) throw Failed(Exit::usage, "--steps and --diff are two ways to look");
    if (!options.at.empty() && !options.diff.empty()) throw Failed(Exit::usage, "--at and --diff exclude each other");
    if (!options.actor.empty()) check_foldable(application.reactor(options.actor), context.file());
    App& app = application.look();
    Store& store = app.store();
    const Subject subject{store, options.stream, store.stream_seq(options.stream), context.out().now};
    if (subject.last == 0) no_such_stream(context, options.stream);
    const auto types = types_in(store, options.stream);
    const Definition& definition =
        options.actor.empty() ? only_one(application, types, options.stream) : application.reactor(options.actor);
    check_foldable(definition, context.file());
    if (!concerns(definition, types)) {
        std::cerr << "sourced: '" << printable(definition.name) << "' handles none of the types that stand in '"
                  << printable(options.stream) << "': its state there is blank\n";
    }
    Fold fold(app, definition, options.stream);
    if (!options.diff.empty()) {
        return show_diff(context.out(), subject, definition, fold, subject.seq(options.diff[0]),
                         subject.seq(options.diff[1]));
    }
    const std::int64_t upto = options.at.empty() ? subject.last : subject.seq(options.at);
    if (options.steps) return show_steps(context, subject, definition, fold, upto);
    return show_one(context.out(), subject, definition, fold, upto);
}

}  // namespace

void add_state(Commands& commands) {
    auto [command, options] = commands.add<StateOptions>(
        {"state", "Shows what a stream's messages have made of an actor's state",
         "  sourced --app libshop.so shop.db state invoice-536365              # now\n"
         "  sourced --app libshop.so shop.db state invoice-536365 --at 12      # at seq 12\n"
         "  sourced --app libshop.so shop.db state invoice-536365 --at '2h ago'\n"
         "  sourced --app libshop.so shop.db state invoice-536365 --diff 3 12  # what changed\n"
         "  sourced --app libshop.so shop.db state invoice-536365 --steps      # one by one",
         "Needs the application's types. The state is folded in memory, by the engine and\n"
         "the actor's own handlers; nothing is written. It is shown as JSON, so its type\n"
         "needs a line SOURCED_VALUE(fields...) unless the codec knows it. A point is a\n"
         "seq, or a time: 2026-05-17T14:30:00Z, 14:30, '2h ago'."},
        show_state);
    command.add_option("ID", options.stream, "The stream")->required();
    command.add_option("--actor", options.actor, "The actor or event-sourced projector, where several fold it")
        ->type_name("GROUP");
    command.add_option("--at", options.at, "As of this point, instead of now")->type_name("POINT");
    command.add_option("--diff", options.diff, "What changed between two points")->expected(2)->type_name("POINT");
    command.add_flag("--steps", options.steps, "Every message with what it changed, up to --at");
}

}  // namespace sourced::inspector
