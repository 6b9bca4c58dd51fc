// flow: what leads to what, as an application's types say it or as it was seen in the log.
#include "application.hpp"
#include "graph.hpp"

#include <algorithm>
#include <map>
#include <sstream>

namespace sourced::inspector {
namespace {

using Drawing = detail::Drawing;

struct FlowOptions {
    bool observed = false;
    std::size_t limit = 100'000;
    PictureOptions picture{};
};

/// `dashed`: what lines say that are; empty: nothing.
void show_text(Output& out, const Drawing& drawing, const PictureOptions& options, std::string_view dashed) {
    if (drawing.nodes.empty()) return out.line("nothing leads to anything");
    const auto& strokes = Strokes::of(out, options);
    for (const auto& line : text_of(drawing, out, strokes, out.width() > 0 ? out.width() : 80)) out.line(line);
    std::string legend = "[command]  (event)  ";
    legend += dashed.empty() ? "{reaction}  <read model>" : "{group}";
    legend += "  " + std::string(strokes.again) + " drawn elsewhere" + (dashed.empty() ? "" : " ");
    if (!dashed.empty()) (legend += strokes.dashed.arrow) += dashed;
    out.line();
    out.line(out.paint(Style::faint, legend));
}

// ---- As the types say it ------------------------------------------------------

/// The same with names that say no more than they need where the arrows are seen: "on cart.opened" behind
/// cart.opened is who does it.
Drawing shortened(Drawing drawing) {
    for (const auto& arrow : drawing.arrows) {
        auto& node = drawing.nodes[arrow.to];
        if (node.look != Drawing::Look::automation || node.group.empty()) continue;
        if (node.label == "on " + drawing.nodes[arrow.from].label) node.label = node.group;
    }
    return drawing;
}

/// The nodes as the topology gives them, one a line.
void write_json(Output& out, const Topology& topology) {
    const std::string json = topology.json();
    if (out.text()) return out.object(std::string_view(json).substr(0, json.size() - 1));
    std::istringstream lines(json);
    for (std::string line; std::getline(lines, line);) {
        if (!line.starts_with('{')) continue;
        if (line.ends_with(',')) line.pop_back();
        out.record(line);
    }
    out.end_records();
}

void show_declared(Output& out, const Topology& topology, const FlowOptions& options) {
    if (options.picture.json(out)) write_json(out, topology);
    else if (options.picture.text()) show_text(out, shortened(topology.drawing()), options.picture, {});
    else draw(out, options.picture, topology.drawing());
}

// ---- As it was seen -----------------------------------------------------------

/// Draws pairs of cause and effect. A command stands with the group that handles it, and so do the events that come
/// of it; from there arrows lead to the other groups that handle them.
class Seen {
public:
    /// More than `most` groups at one type are drawn as one.
    Seen(const Causations& causations, const std::vector<GroupInfo>& groups,
         std::size_t most = std::numeric_limits<std::size_t>::max())
        : most_(most) {
        for (const auto& group : groups) {
            for (const auto& type : group.types) handlers_[type].push_back(group.name);
        }
        for (const auto& pair : causations.pairs) add(pair);
        for (const auto& arrow : drawing_.arrows) {
            for (auto& note : drawing_.nodes[arrow.to].notes) {
                if (!note.ends_with(outside)) note += outside;
            }
        }
        const std::size_t types = drawing_.nodes.size();
        for (std::size_t i = 0; i < types; ++i) give_home(i);
        for (const auto& pair : causations.pairs) follow_home(pair);
        for (std::size_t i = 0; i < types; ++i) add_handlers(i);
    }
    [[nodiscard]] const Drawing& drawing() const noexcept { return drawing_; }

private:
    using Look = Drawing::Look;
    static constexpr std::string_view outside = " from outside";

    static std::string count(std::int64_t number) { return grouped(number) + "x"; }

    void add(const Causation& pair) {
        const auto effect = place(pair.effect, pair.effect_kind);
        if (pair.cause.empty()) {
            drawing_.nodes[effect].notes.push_back(count(pair.here));
            return;
        }
        std::string label = count(pair.here + pair.elsewhere);
        if (pair.here > 0 && pair.elsewhere > 0) label += ", " + grouped(pair.elsewhere) + " elsewhere";
        drawing_.arrows.push_back({place(pair.cause, pair.cause_kind), effect, label, pair.elsewhere > 0});
    }
    std::size_t place(const std::string& type, Kind kind) {
        const auto [found, fresh] = places_.emplace(type, drawing_.nodes.size());
        if (!fresh) return found->second;
        Drawing::Node node;
        node.look = type == "sourced.refused" ? Look::refused : kind == Kind::command ? Look::command : Look::event;
        node.id = node.label = type;
        drawing_.nodes.push_back(std::move(node));
        return found->second;
    }

    void give_home(std::size_t type) {
        auto& node = drawing_.nodes[type];
        const auto& handlers = handlers_[node.label];
        if (node.look == Look::command && handlers.size() == 1) node.group = handlers.front();
    }
    void follow_home(const Causation& pair) {
        if (pair.cause.empty() || pair.here == 0) return;
        auto& node = drawing_.nodes[places_.at(pair.effect)];
        const auto& cause = drawing_.nodes[places_.at(pair.cause)];
        if (node.look == Look::event && cause.look == Look::command && node.group.empty()) node.group = cause.group;
    }
    void add_handlers(std::size_t type) {
        const std::string home = drawing_.nodes[type].group;
        auto groups = handlers_[drawing_.nodes[type].label];
        groups.erase(std::remove(groups.begin(), groups.end(), home), groups.end());
        if (groups.size() > most_) groups = {groups[0] + ", " + groups[1] + " and " + grouped(
                                                 static_cast<std::int64_t>(groups.size() - 2)) + " more"};
        for (const auto& group : groups) {
            const auto [found, fresh] = groups_.emplace(group, drawing_.nodes.size());
            if (fresh) drawing_.nodes.push_back({Look::automation, group, group, {}, {}, false, false});
            drawing_.arrows.push_back({type, found->second, {}, false});
        }
    }

    std::size_t most_;
    Drawing drawing_;
    std::map<std::string, std::vector<std::string>> handlers_;  // of a type
    std::map<std::string, std::size_t> places_;
    std::map<std::string, std::size_t> groups_;
};

void write_json(Output& out, const Causations& causations, const std::vector<GroupInfo>& groups) {
    const auto kind = [](Kind of) { return of == Kind::command ? "command" : "event"; };
    Json json;
    json.begin().field("messages", causations.messages).field("complete", causations.whole);
    json.key("pairs").begin_array();
    for (const auto& pair : causations.pairs) {
        json.begin();
        if (pair.cause.empty()) json.key("cause").null().key("cause_kind").null();
        else json.field("cause", pair.cause).field("cause_kind", kind(pair.cause_kind));
        json.field("effect", pair.effect).field("effect_kind", kind(pair.effect_kind));
        json.field("same_stream", pair.cause.empty() ? 0 : pair.here).field("other_stream", pair.elsewhere);
        json.field("count", pair.here + pair.elsewhere).end();
    }
    json.end_array().key("groups").begin_array();
    for (const auto& group : groups) {
        json.begin().field("group", group.name).key("types").begin_array();
        for (const auto& type : group.types) json.value(type);
        json.end_array().end();
    }
    json.end_array().end();
    out.object(json.text());
}

void show_seen(Context& context, const FlowOptions& options) {
    Store& store = context.look();
    Output& out = context.out();
    Causations causations;
    {
        Progress progress("messages");
        const auto limit = options.limit == 0 ? std::numeric_limits<std::size_t>::max() : options.limit;
        causations = store.causations(limit, [&](const sourced::Progress& done) {
            progress.show(done.done, done.total);
            return !context.interrupted();
        });
    }
    if (context.interrupted()) throw Failed(Exit::interrupted, "interrupted");
    const auto groups = store.stats().groups;
    if (options.picture.json(out)) {
        write_json(out, causations, groups);
    } else if (options.picture.text()) {
        show_text(out, Seen(causations, groups, 3).drawing(), options.picture, "to another stream");
    } else {
        draw(out, options.picture, Seen(causations, groups).drawing());
    }
    if (causations.whole) return;
    out.remark("seen among the newest " + grouped(causations.messages) + " of " + grouped(store.head()) +
               " messages; --limit 0 looks at all");
}

Exit show_flow(Context& context, const FlowOptions& options) {
    const bool has_types = context.linked() || !context.library.empty();
    if (has_types && !options.observed) {
        show_declared(context.out(), Topology(Application(context).app()), options);
        return Exit::ok;
    }
    if (!context.has_file()) {
        throw Failed(Exit::usage, "flow: name a file, to see in it what followed from what: sourced FILE flow" +
                                      std::string(has_types ? " --observed" : "; or an application with its types: "
                                                                              "sourced --app libshop.so flow"));
    }
    show_seen(context, options);
    return Exit::ok;
}

}  // namespace

void add_flow(Commands& commands) {
    auto [command, options] = commands.add<FlowOptions>(
        {"flow", "Draws what leads to what: commands, events, reactions, read models",
         "  sourced --app libshop.so flow                    # as the application's types say it\n"
         "  sourced shop.db flow --observed                  # as it was seen in the log, with counts\n"
         "  sourced shop.db flow --format svg > flow.svg\n",
         "[command], (event), {reaction}, <read model>, and ? where a handler does not say what comes of it. What is "
         "drawn with all that follows at another place has an arrow up behind its name. In an observed flow dashed "
         "lines lead to other streams, {group} is who handles an event beside those it came from, and 12x is how "
         "often. Without an application's types the flow is an observed one.",
         false},
        show_flow);
    command.add_flag("--observed", options.observed, "From what followed from what in the file");
    command.add_option("--limit", options.limit, "Look at so many of the newest messages, 0: at all")
        ->check(CLI::NonNegativeNumber)
        ->type_name("N")
        ->capture_default_str();
    add_picture_options(command, options.picture);
}

}  // namespace sourced::inspector
