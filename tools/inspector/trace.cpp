// trace: what a message follows from, and what followed from it.
#include "graph.hpp"
#include "naming.hpp"

#include <algorithm>
#include <map>
#include <unordered_map>
#include <unordered_set>

namespace sourced::inspector {
namespace {

constexpr std::size_t most_looked_at = 10'000;  // of what is scheduled, and of what was skipped

struct TraceOptions {
    std::string name{};
    std::size_t limit = 200;
    PictureOptions picture{};
};

/// What a group has not done with a message.
struct Trouble {
    std::string group;
    std::string state;  ///< skipped, parked, waiting, failed
    std::string text;
};

/// A message of the picture. Those that wait for their time come behind those of the log.
struct Step {
    Message message{};
    std::optional<Time> due_at{};
    std::size_t cause = none;  ///< its place, where the cause is in the picture too
    bool outside = false;      ///< its cause is not in the log
    bool begins = false;       ///< it is its own cause
    std::vector<Trouble> troubles{};

    static constexpr auto none = static_cast<std::size_t>(-1);
};

struct Trace {
    Id correlation{};
    std::optional<Id> asked{};
    std::vector<Step> steps{};
    bool more = false;            ///< the correlation has messages that are left out
    bool more_scheduled = false;  ///< there is more in the schedule than was looked through
    bool more_skipped = false;    ///< the same of what groups were made to pass over
};

struct IdHash {
    std::size_t operator()(const Id& id) const noexcept {
        return std::hash<std::string_view>()({reinterpret_cast<const char*>(id.bytes().data()), id.bytes().size()});
    }
};

/// Reads a trace: of a correlation that is too long the way to the message that was asked for, what came after that,
/// and how it all began.
class Tracer {
public:
    Tracer(Context& context, std::size_t limit) : context_(context), store_(context.look()), limit_(limit) {}

    Trace trace(const std::string& name) {
        read_scheduled();
        const auto asked = begin(name);
        take_all(asked);
        for (auto& [position, message] : messages_) trace_.steps.push_back({std::move(message)});
        for (auto& entry : scheduled_) {
            if (!belongs(entry.message)) continue;
            if (trace_.steps.size() >= limit_ && entry.message.id != trace_.asked) {
                trace_.more = true;
                continue;
            }
            trace_.steps.push_back({std::move(entry.message), entry.due_at});
        }
        connect();
        add_troubles();
        return std::move(trace_);
    }

private:
    void read_scheduled() {
        scheduled_ = store_.scheduled(most_looked_at + 1);
        trace_.more_scheduled = scheduled_.size() > most_looked_at;
        if (trace_.more_scheduled) scheduled_.pop_back();
    }

    /// What was asked for: a message of the log or the schedule, or a correlation whose first message is not here.
    std::optional<Message> begin(const std::string& name) {
        if (name.size() == 36) {
            if (const auto id = id_of(name); id && !store_.find(*id)) {
                const auto waits = std::find_if(scheduled_.begin(), scheduled_.end(),
                                                [&](const auto& entry) { return entry.message.id == *id; });
                if (waits != scheduled_.end()) {
                    trace_.correlation = waits->message.correlation;
                    trace_.asked = *id;
                    return std::nullopt;
                }
                LogRange range;
                range.correlation = *id;
                range.limit = 1;
                trace_.correlation = *id;
                if (!store_.log(range).empty()) return std::nullopt;
            }
        }
        auto message = message_named(context_, name);
        trace_.correlation = message.correlation;
        trace_.asked = message.id;
        return message;
    }
    void take_all(const std::optional<Message>& asked) {
        if (asked) take(*asked);
        if (asked) take_causes(*asked);
        if (read({}, limit_ + 1) <= limit_) return;
        trace_.more = true;
        messages_.clear();
        if (!asked) {
            read({}, limit_);
            return;
        }
        take(*asked);
        take_causes(*asked);
        read({.from = asked->position + 1}, messages_.size() + (limit_ - std::min(limit_, messages_.size())) / 2);
        read({}, limit_);
    }
    /// Reads on until there are so many in all. Gives how many there are.
    std::size_t read(LogRange range, std::size_t until) {
        range.correlation = trace_.correlation;
        store_.read_log(range, [&](Message& message) {
            if (messages_.size() < until) take(message);
            return messages_.size() < until;
        });
        return messages_.size();
    }
    void take(const Message& message) { messages_.emplace(message.position, message); }
    /// The way from the first cause, or its end if it is long.
    void take_causes(const Message& asked) {
        Id cause = asked.causation;
        for (Id effect = asked.id; cause != effect && messages_.size() < (limit_ + 1) / 2;) {
            const auto found = store_.find(cause);
            if (!found || messages_.contains(found->position)) return;
            take(*found);
            effect = cause;
            cause = found->causation;
        }
    }

    [[nodiscard]] bool belongs(const Message& message) const {
        return message.correlation == trace_.correlation || message.id == trace_.asked;
    }

    void connect() {
        auto& steps = trace_.steps;
        std::unordered_map<Id, std::size_t, IdHash> places;
        for (std::size_t i = 0; i < steps.size(); ++i) places.emplace(steps[i].message.id, i);
        for (auto& step : steps) {
            const auto& message = step.message;
            step.begins = message.causation == message.id;
            if (const auto place = places.find(message.causation); !step.begins && place != places.end()) {
                step.cause = place->second;
            } else if (!step.begins) {
                step.outside = !store_.find(message.causation);
            }
            step.outside = step.outside || message.metadata.has("outside_cause");
        }
    }

    void add_troubles() {
        std::unordered_map<std::int64_t, Step*> by_position;
        for (auto& step : trace_.steps) {
            if (!step.due_at) by_position.emplace(step.message.position, &step);
        }
        const auto add = [&](std::int64_t position, Trouble trouble) {
            const auto found = by_position.find(position);
            if (found != by_position.end()) found->second->troubles.push_back(std::move(trouble));
        };
        auto records = store_.skipped({}, 0, most_looked_at + 1);
        trace_.more_skipped = records.size() > most_looked_at;
        for (const auto& skipped : records) add(skipped.position, {skipped.group, "skipped", skipped.reason});
        std::unordered_set<std::string> streams;
        for (const auto& [position, step] : by_position) streams.insert(step->message.stream);
        for (const auto& stream : streams) {
            OffsetRange range;
            range.stream = stream;
            for (const auto& offset : store_.offsets({}, range)) {
                const bool parked = offset.state == OffsetInfo::State::parked;
                const bool waits = offset.state == OffsetInfo::State::waiting;
                add(offset.position, {offset.group, parked ? "parked" : waits ? "waiting" : "failed",
                                      offset.error_text.empty() ? offset.reason : offset.error_text});
            }
        }
    }

    Context& context_;
    Store& store_;
    std::size_t limit_;
    Trace trace_;
    std::vector<Scheduled> scheduled_;
    std::map<std::int64_t, Message> messages_;  // by position
};

// ---- What is said of a message ------------------------------------------------

bool is_refusal(const Message& message) { return message.type == "sourced.refused"; }

detail::Drawing::Look look_of(const Message& message) {
    using Look = detail::Drawing::Look;
    if (is_refusal(message)) return Look::refused;
    return message.kind == Kind::command ? Look::command : Look::event;
}

/// Why, of a refusal that can be read.
std::string reason_of(const Message& message) {
    try {
        return message.as<Refused>().reason;
    } catch (const Undecodable&) {
        return {};
    }
}

/// How long after its cause it came.
std::optional<Duration> delay_of(const Trace& trace, const Step& step) {
    if (step.cause == Step::none || step.due_at) return std::nullopt;
    return step.message.recorded_at - trace.steps[step.cause].message.recorded_at;
}
std::string delay_text(Duration delay) { return (delay.count() < 0 ? "" : "+") + duration_text(delay); }

/// Where its cause is, when that is not in the picture.
std::string cause_note(const Step& step) {
    if (step.outside) return "its cause is outside of this log";
    return step.begins || step.cause != Step::none ? "" : "its cause is left out";
}

std::string note_of(const Trouble& trouble) {
    std::string note = trouble.state + " by " + trouble.group;
    if (trouble.state == "failed") note = "failed in " + trouble.group;
    if (trouble.state == "waiting") note = "failed in " + trouble.group + ", waits for its retry";
    return note + (trouble.text.empty() ? "" : ": " + trouble.text);
}

// ---- As text ------------------------------------------------------------------

/// Which messages hang below which; what causes itself by way of others begins a tree, too.
Forest tree_of(const Trace& trace) {
    const auto& steps = trace.steps;
    Forest tree;
    tree.children.resize(steps.size());
    std::vector<bool> seen(steps.size());
    const auto see = [&](std::size_t root) {
        tree.roots.push_back(root);
        seen[root] = true;
        for (std::vector<std::size_t> next{root}; !next.empty();) {
            const auto node = next.back();
            next.pop_back();
            auto& children = tree.children[node];
            children.erase(std::remove_if(children.begin(), children.end(), [&](auto child) { return seen[child]; }),
                           children.end());
            for (const auto child : children) {
                seen[child] = true;
                next.push_back(child);
            }
        }
    };
    for (std::size_t i = 0; i < steps.size(); ++i) {
        if (steps[i].cause != Step::none) tree.children[steps[i].cause].push_back(i);
    }
    for (std::size_t i = 0; i < steps.size(); ++i) {
        if (steps[i].cause == Step::none) see(i);
    }
    for (std::size_t i = 0; i < steps.size(); ++i) {
        if (!seen[i]) see(i);
    }
    std::sort(tree.roots.begin(), tree.roots.end());
    return tree;
}

class TraceText {
public:
    TraceText(Output& out, const Trace& trace, const PictureOptions& options)
        : out_(out), trace_(trace), strokes_(Strokes::of(out, options)) {}

    void print() {
        out_.line(heading());
        out_.line();
        const auto waits = [&](std::size_t i) { return trace_.steps[i].due_at.has_value(); };
        outline(tree_of(trace_), strokes_, waits, [&](std::size_t i, const Piece& lines) { add(i, lines); });
        std::size_t widest = 0;
        std::size_t widest_place = 0;
        for (const auto& row : rows_) {
            if (row.what.width <= most) widest = std::max(widest, row.what.width);
            widest_place = std::max(widest_place, row.place.width);
        }
        for (const auto& row : rows_) {
            std::string line = row.what.text + padding(widest, row.what.width) + "  " + row.place.text;
            if (!row.rest.empty()) line += padding(widest_place, row.place.width) + "  " + row.rest;
            out_.line(line);
        }
    }

private:
    static constexpr std::size_t most = 60;  // columns that are lined up; what is longer sticks out

    struct Row {
        Piece what;
        Piece place;
        std::string rest;
    };

    static std::string padding(std::size_t columns, std::size_t used) {
        return std::string(columns > used ? columns - used : 0, ' ');
    }

    [[nodiscard]] std::string heading() const {
        std::unordered_set<std::string> streams;
        std::size_t waiting = 0;
        std::optional<Time> first;
        Time last{};
        for (const auto& step : trace_.steps) {
            waiting += step.due_at ? 1 : 0;
            if (step.due_at) continue;
            streams.insert(step.message.stream);
            first = std::min(first.value_or(step.message.recorded_at), step.message.recorded_at);
            last = std::max(last, step.message.recorded_at);
        }
        const auto count = [](std::size_t number, const std::string& one) {
            return grouped(static_cast<std::int64_t>(number)) + " " + one + (number == 1 ? "" : "s");
        };
        std::string text = count(trace_.steps.size() - waiting, "message") + " in " + count(streams.size(), "stream");
        if (first && *first != last) text += ", " + duration_text(last - *first);
        if (waiting > 0) text += ", " + std::to_string(waiting) + " scheduled";
        if (first) text += ", " + out_.time(*first);
        return out_.paint(Style::heading, "correlation " + trace_.correlation.to_string()) + "  " + text;
    }

    void add(std::size_t i, const Piece& lines) {
        const auto& step = trace_.steps[i];
        const auto& message = step.message;
        Row row;
        row.what = Piece(out_.paint(Style::faint, lines.text), lines.width);
        row.what += named(out_, look_of(message), message.type);
        if (message.seq > 0) row.place = Piece(printable(message.stream) + "@" + std::to_string(message.seq));
        else row.place = Piece(printable(message.stream));
        const auto say = [&](Style style, const std::string& text) {
            row.rest += (row.rest.empty() ? "" : "  ") + out_.paint(style, text);
        };
        if (step.due_at) say(Style::faint, "due " + out_.time(*step.due_at));
        if (const auto delay = delay_of(trace_, step)) say(Style::faint, delay_text(*delay));
        if (message.id == trace_.asked) say(Style::heading, std::string(strokes_.mark) + " this one");
        if (is_refusal(message)) say(Style::bad, std::string(strokes_.cross) + " " + printable(reason_of(message)));
        for (const auto& trouble : step.troubles) {
            say(Style::warning, std::string(strokes_.cross) + " " + printable(note_of(trouble)));
        }
        if (const auto note = cause_note(step); !note.empty()) say(Style::warning, "(" + note + ")");
        rows_.push_back(std::move(row));
    }
    Output& out_;
    const Trace& trace_;
    const Strokes& strokes_;
    std::vector<Row> rows_;
};

// ---- For others ---------------------------------------------------------------

detail::Drawing drawing_of(const Output& out, const Trace& trace) {
    using Look = detail::Drawing::Look;
    detail::Drawing drawing;
    for (const auto& step : trace.steps) {
        const auto& message = step.message;
        detail::Drawing::Node node;
        node.look = look_of(message);
        node.id = std::to_string(drawing.nodes.size() + 1);
        node.label = message.type;
        node.notes.push_back(message.stream + (message.seq > 0 ? "@" + std::to_string(message.seq) : ""));
        if (step.due_at) node.notes.push_back("due " + out.time(*step.due_at));
        if (is_refusal(message)) node.notes.push_back(reason_of(message));
        for (const auto& trouble : step.troubles) node.notes.push_back(note_of(trouble));
        node.dashed = step.due_at.has_value();
        node.marked = message.id == trace.asked;
        drawing.nodes.push_back(std::move(node));
    }
    for (std::size_t i = 0; i < trace.steps.size(); ++i) {
        const auto& step = trace.steps[i];
        if (step.cause != Step::none) {
            const auto delay = delay_of(trace, step);
            drawing.arrows.push_back({step.cause, i, delay ? delay_text(*delay) : "", step.due_at.has_value()});
        } else if (const auto note = cause_note(step); !note.empty()) {
            drawing.arrows.push_back({drawing.nodes.size(), i, {}, true});
            const auto name = std::to_string(drawing.nodes.size() + 1);
            drawing.nodes.push_back({Look::unknown, name, note, {}, {}, true, false});
        }
    }
    return drawing;
}

void write_json(Output& out, const Trace& trace) {
    Json json;
    json.begin().field("correlation", trace.correlation).field("asked", trace.asked);
    json.field("complete", !trace.more && !trace.more_scheduled && !trace.more_skipped);
    json.key("messages").begin_array();
    for (const auto& step : trace.steps) {
        if (!step.due_at) write_message(json, step.message);
    }
    json.end_array().key("scheduled").begin_array();
    for (const auto& step : trace.steps) {
        if (!step.due_at) continue;
        json.begin();
        write_scheduled(json, {*step.due_at, step.message});
        json.end();
    }
    json.end_array().key("outside_cause").begin_array();
    for (const auto& step : trace.steps) {
        if (step.outside) json.value(step.message.id);
    }
    json.end_array().key("troubles").begin_array();
    for (const auto& step : trace.steps) {
        for (const auto& trouble : step.troubles) {
            json.begin().field("id", step.message.id).field("group", trouble.group).field("state", trouble.state);
            json.field("text", trouble.text).end();
        }
    }
    json.end_array().end();
    out.object(json.text());
}

Exit show_trace(Context& context, const TraceOptions& options) {
    const Trace trace = Tracer(context, std::max<std::size_t>(options.limit, 1)).trace(options.name);
    Output& out = context.out();
    if (options.picture.json(out)) write_json(out, trace);
    else if (options.picture.text()) TraceText(out, trace, options.picture).print();
    else draw(out, options.picture, drawing_of(out, trace));
    if (trace.more) {
        constexpr std::size_t most = std::numeric_limits<std::size_t>::max() / 10;
        out.remark("more messages belong to it: --limit " + std::to_string(10 * std::min(options.limit, most)) +
                   " shows more of them, and the trace of a later one shows what is around that");
    }
    const auto looked_at = [&](bool more, const std::string& of) {
        if (more) out.remark("of " + of + " only the first " + grouped(most_looked_at) + " were looked through");
    };
    looked_at(trace.more_scheduled, "the schedule");
    looked_at(trace.more_skipped, "what was skipped");
    return Exit::ok;
}

}  // namespace

void add_trace(Commands& commands) {
    auto [command, options] = commands.add<TraceOptions>(
        {"trace", "Shows what a message follows from and what followed from it",
         "  sourced shop.db trace 01890a5d-ac96-774b-bcce-b302099a8057\n"
         "  sourced shop.db trace cart-1@3                   # by stream and seq\n"
         "  sourced shop.db trace @1024 --format mermaid     # by position, for a page\n"
         "  sourced shop.db trace cart-1@3 --format svg > trace.svg\n",
         "Every message of the same correlation is in the picture: [commands], (events), and with dashed lines\n"
         "what is scheduled. The time behind a message is how long after its cause it was recorded."},
        show_trace);
    command.add_option("ID", options.name, std::string(message_names) + ", or the id of a correlation")->required();
    command.add_option("--limit", options.limit, "At most so many messages")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    add_picture_options(command, options.picture);
}

}  // namespace sourced::inspector
