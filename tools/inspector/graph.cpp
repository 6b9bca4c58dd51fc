#include "graph.hpp"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <map>

extern char** environ;

namespace sourced::inspector {

// ---- What it is drawn as ------------------------------------------------------

void add_picture_options(CLI::App& command, PictureOptions& options) {
    command.add_option("--format", options.format, "What it is drawn as; svg needs Graphviz")
        ->check(CLI::IsMember({"ascii", "mermaid", "dot", "svg", "json"}))
        ->capture_default_str();
    command.add_flag("--ascii", options.ascii, "Without box-drawing characters, which are used where the locale has "
                                               "them");
}

namespace {

/// Both ends of a pipe, closed when they go.
class Pipe {
public:
    Pipe() {
        if (::pipe2(ends_.data(), O_CLOEXEC) != 0) {
            throw Failed(Exit::failure, std::string("draw a picture: no pipe: ") + std::strerror(errno));
        }
    }
    Pipe(const Pipe&) = delete;
    Pipe& operator=(const Pipe&) = delete;
    ~Pipe() {
        close_end(0);
        close_end(1);
    }
    [[nodiscard]] int end(std::size_t which) const noexcept { return ends_[which]; }
    void close_end(std::size_t which) noexcept {
        if (ends_[which] >= 0) ::close(ends_[which]);
        ends_[which] = -1;
    }

private:
    std::array<int, 2> ends_{-1, -1};
};

/// What a program says when it is told something.
struct Said {
    int status = 0;
    std::string out;
    std::string err;
};

/// Writes and reads at once, so that neither side waits for the other for ever.
void talk(Pipe& in, Pipe& out, Pipe& err, std::string_view told, Said& said) {
    ::fcntl(in.end(1), F_SETFL, O_NONBLOCK);
    if (told.empty()) in.close_end(1);
    while (out.end(0) >= 0 || err.end(0) >= 0) {
        std::array<pollfd, 3> files{{{in.end(1), POLLOUT, 0}, {out.end(0), POLLIN, 0}, {err.end(0), POLLIN, 0}}};
        if (::poll(files.data(), files.size(), -1) < 0 && errno != EINTR) return;
        if (files[0].revents != 0) {
            const auto size = ::write(in.end(1), told.data(), told.size());
            if (size > 0) told.remove_prefix(static_cast<std::size_t>(size));
            const bool refused = size < 0 && errno != EAGAIN && errno != EINTR;
            if (refused || told.empty()) in.close_end(1);
        }
        for (std::size_t i = 1; i < files.size(); ++i) {
            if (files[i].revents == 0) continue;
            std::array<char, 65536> buffer{};
            const auto size = ::read(files[i].fd, buffer.data(), buffer.size());
            if (size > 0) (i == 1 ? said.out : said.err).append(buffer.data(), static_cast<std::size_t>(size));
            else if (size == 0 || errno != EINTR) (i == 1 ? out : err).close_end(0);
        }
    }
}

/// Runs a program of the PATH, without a shell. Nothing when there is none.
std::optional<Said> run(std::vector<std::string> words, std::string_view told) {
    Pipe in;
    Pipe out;
    Pipe err;
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, in.end(0), STDIN_FILENO);
    ::posix_spawn_file_actions_adddup2(&actions, out.end(1), STDOUT_FILENO);
    ::posix_spawn_file_actions_adddup2(&actions, err.end(1), STDERR_FILENO);
    std::vector<char*> arguments;
    for (auto& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    pid_t pid = 0;
    const int error = ::posix_spawnp(&pid, arguments[0], &actions, nullptr, arguments.data(), environ);
    ::posix_spawn_file_actions_destroy(&actions);
    if (error != 0) return std::nullopt;
    in.close_end(0);
    out.close_end(1);
    err.close_end(1);
    // Who ends before it has read everything must not end us.
    struct sigaction ignored {};
    struct sigaction before {};
    ignored.sa_handler = SIG_IGN;
    ::sigaction(SIGPIPE, &ignored, &before);
    Said said;
    talk(in, out, err, told, said);
    ::sigaction(SIGPIPE, &before, nullptr);
    int status = 0;
    while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
    said.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return said;
}

std::string svg(const std::string& dot) {
    const auto said = run({"dot", "-Tsvg"}, dot);
    // A program that cannot be started may also end with 127 by itself.
    if (!said || said->status == 127) {
        throw Failed(Exit::failure, "draw as svg: there is no program 'dot', which is in the package 'graphviz'; "
                                    "without it: --format dot, or --format mermaid");
    }
    if (said->status != 0) {
        throw Failed(Exit::failure, "draw as svg: 'dot' ended with status " + std::to_string(said->status) + ": " +
                                        said->err.substr(0, 500));
    }
    return said->out;
}

}  // namespace

void draw(Output& out, const PictureOptions& options, const detail::Drawing& drawing) {
    std::string text = options.format == "mermaid" ? drawing.mermaid() : drawing.dot();
    if (options.format == "svg") text = svg(text);
    while (text.ends_with('\n')) text.pop_back();
    out.line(text);
}

// ---- Text ---------------------------------------------------------------------

const Strokes& Strokes::of(const Output& out, const PictureOptions& options) {
    static constexpr Strokes boxes{{"├─▶ ", "└─▶ ", " ──▶ ", " ─┬─▶ ", "  ├─▶ ", "  └─▶ "},
                                   {"├╌▶ ", "└╌▶ ", " ╌╌▶ ", " ─┬╌▶ ", "  ├╌▶ ", "  └╌▶ "},
                                   "│   ", "    ", "  │   ", "◀", "✗", "↑", "…", "×"};
    static constexpr Strokes plain{{"+-> ", "`-> ", " --> ", " -+-> ", "  +-> ", "  `-> "},
                                   {"+.> ", "`.> ", " ..> ", " -+.> ", "  +.> ", "  `.> "},
                                   "|   ", "    ", "  |   ", "<--", "x", "^", "...", "x"};
    return out.unicode() && !options.ascii ? boxes : plain;
}

Piece& Piece::operator+=(const Piece& more) {
    text += more.text;
    width += more.width;
    return *this;
}

Piece named(const Output& out, detail::Drawing::Look look, std::string_view name) {
    struct Manner {
        std::string_view open, close;
        Style style;
    };
    constexpr std::array<Manner, 6> manners{{{"[", "]", Style::command},
                                             {"(", ")", Style::event},
                                             {"{", "}", Style::heading},
                                             {"<", ">", Style::good},
                                             {"", "", Style::faint},
                                             {"(", ")", Style::bad}}};
    constexpr std::size_t longest = 50;
    const auto& manner = manners[static_cast<std::size_t>(look)];
    std::string text(manner.open);
    text += shortened(printable(name), longest);
    text += manner.close;
    return {out.paint(manner.style, text), width_of(text)};
}

void outline(const Forest& tree, const Strokes& strokes, const std::function<bool(std::size_t)>& waits,
             const std::function<void(std::size_t, const Piece& lines)>& visit) {
    constexpr std::size_t shown = 16;  // levels
    constexpr std::size_t step = 8;    // so many are left out at once
    struct Next {
        std::size_t node;
        std::size_t depth;
        bool last;
    };
    std::vector<Next> stack;
    const auto push = [&](const std::vector<std::size_t>& nodes, std::size_t depth) {
        for (std::size_t i = nodes.size(); i-- > 0;) stack.push_back({nodes[i], depth, i + 1 == nodes.size()});
    };
    push(tree.roots, 0);
    std::vector<bool> more;  // for each depth, whether others come below on it
    while (!stack.empty()) {
        const Next next = stack.back();
        stack.pop_back();
        more.resize(next.depth + 1);
        more[next.depth] = !next.last;
        const std::size_t left_out = next.depth <= shown ? 0 : (next.depth - shown + step - 1) / step * step;
        std::string lines;
        if (left_out > 0) lines = "+" + std::to_string(left_out) + " ";
        for (std::size_t depth = left_out + 1; depth < next.depth; ++depth) {
            lines += more[depth] ? strokes.past : strokes.nothing;
        }
        if (next.depth > 0) {
            const auto& own = waits(next.node) ? strokes.dashed : strokes.solid;
            lines += next.last ? own.last : own.branch;
        }
        visit(next.node, Piece(lines));
        push(tree.children[next.node], next.depth + 1);
    }
}

// ---- A graph as text ----------------------------------------------------------

namespace {

/// A node with what follows it.
struct TextNode {
    struct Arrow {
        std::size_t to = 0;
        Piece label{};
        bool dashed = false;
    };
    Piece label{};
    Piece note{};         // said once, where it is drawn with what follows
    bool passes = false;  // only says who turns one thing into another: it stands on one line with the other
    std::vector<Arrow> arrows{};
};

/// A place in the picture where a node stands, by its name alone or with all that follows.
struct Spot {
    Piece head{};
    bool dashed = false;  // the line that leads to it
    bool passes = false;
    std::vector<Spot> below{};
    std::size_t need = 0;  // columns that it takes when everything hangs below what it follows from
};

/// Says where each node of a graph stands.
class Spots {
public:
    Spots(const std::vector<TextNode>& nodes, const Strokes& strokes)
        : nodes_(nodes), strokes_(strokes), drawn_(nodes.size()), later_(nodes.size()) {}

    std::vector<Spot> all() {
        std::vector<bool> led_to(nodes_.size());
        for (const auto& node : nodes_) {
            for (const auto& arrow : node.arrows) led_to[arrow.to] = true;
        }
        for (std::size_t i = 0; i < nodes_.size(); ++i) {
            if (!led_to[i]) add(i);
        }
        // What only its own effects lead to.
        for (std::size_t i = 0; i < nodes_.size(); ++i) add(i);
        return std::move(spots_);
    }

private:
    static constexpr std::size_t deepest = 12;

    void add(std::size_t node) {
        if (drawn_[node]) return;
        std::vector<std::size_t> next{node};
        while (!next.empty()) {
            const auto first = next.back();
            next.pop_back();
            if (!drawn_[first]) spots_.push_back(place(first, {}, false, 0));
            // What was too deep in it stands below it.
            next.insert(next.end(), waiting_.rbegin(), waiting_.rend());
            waiting_.clear();
        }
    }

    Spot place(std::size_t node, const Piece& note, bool dashed, std::size_t depth) {
        Spot spot;
        spot.head = nodes_[node].label;
        spot.dashed = dashed;
        spot.passes = nodes_[node].passes;
        spot.head += note;
        const bool leads = !nodes_[node].arrows.empty();
        const bool noted = nodes_[node].note.width > 0;
        if (leads && (drawn_[node] || depth >= deepest)) {
            spot.head += Piece(" " + std::string(strokes_.again));
            if (!drawn_[node] && !later_[node]) waiting_.push_back(node);
            if (!drawn_[node]) later_[node] = true;
        } else {
            drawn_[node] = true;
            if (noted) spot.head += Piece(note.width > 0 ? ", " : " ");
            if (noted) spot.head += nodes_[node].note;
            // What leads nowhere comes first: it is done in a line.
            for (const bool further : {false, true}) {
                for (const auto& arrow : nodes_[node].arrows) {
                    if (nodes_[arrow.to].arrows.empty() == further) continue;
                    spot.below.push_back(place(arrow.to, arrow.label, arrow.dashed, depth + 1));
                }
            }
        }
        measure(spot);
        return spot;
    }

    void measure(Spot& spot) const {
        spot.need = spot.head.width;
        for (const auto& below : spot.below) {
            spot.need = std::max(spot.need, width_of(strokes_.solid.last) + below.need);
        }
    }

    const std::vector<TextNode>& nodes_;
    const Strokes& strokes_;
    std::vector<bool> drawn_;
    std::vector<bool> later_;
    std::vector<std::size_t> waiting_;
    std::vector<Spot> spots_;
};

/// Lays spots out in so many columns, in few lines: what follows stands to the right of what it follows from, or below
/// it, or below the line that leads to it.
class Layout {
public:
    explicit Layout(const Strokes& strokes) : strokes_(strokes) {}

    [[nodiscard]] std::vector<Piece> lines(const Spot& spot, std::size_t columns) {
        switch (best(spot, columns).way) {
            case Way::alone: return {spot.head};
            case Way::beside: return beside(spot, columns);
            case Way::below: return below(spot.head, spot, columns);
            case Way::below_line: break;
        }
        Piece head = spot.head;
        const Spot& end = end_of_line(spot, columns, &head);
        return below(head, end, columns);
    }

private:
    enum class Way { alone, beside, below, below_line };
    struct Best {
        Way way = Way::alone;
        std::size_t cost = 1;
    };

    /// The cost is the number of lines, and a bit more where one has to look twice.
    Best best(const Spot& spot, std::size_t columns) {
        if (spot.below.empty()) return {};
        const auto known = best_.find({&spot, columns});
        if (known != best_.end()) return known->second;
        const bool one = spot.below.size() == 1;
        Best found{Way::below, (one && spot.passes ? 3 : 1) + cost_below(spot, columns)};
        const std::size_t used = spot.head.width + width_of(one ? strokes_.solid.arrow : strokes_.solid.fork);
        if (used + widest_need(spot) <= columns) {
            std::size_t cost = 0;
            for (const auto& each : spot.below) cost += best(each, columns - used).cost;
            if (cost <= found.cost) found = {Way::beside, cost};
        }
        if (one) {
            const Spot& end = end_of_line(spot, columns);
            const std::size_t cost = 3 + cost_below(end, columns);
            if (&end != &spot && cost < found.cost) found = {Way::below_line, cost};
        }
        best_.emplace(std::pair(&spot, columns), found);
        return found;
    }
    std::size_t cost_below(const Spot& spot, std::size_t columns) {
        const std::size_t rest = rest_below(columns);
        std::size_t cost = 0;
        for (const auto& each : spot.below) cost += best(each, rest).cost;
        return cost;
    }
    [[nodiscard]] std::size_t rest_below(std::size_t columns) const {
        const std::size_t indent = width_of(strokes_.solid.last);
        return columns > indent ? columns - indent : 0;
    }
    [[nodiscard]] static std::size_t widest_need(const Spot& spot) {
        std::size_t need = 0;
        for (const auto& each : spot.below) need = std::max(need, each.need);
        return need;
    }
    /// How far a line gets on which each is followed by one.
    [[nodiscard]] const Spot& end_of_line(const Spot& spot, std::size_t columns, Piece* line = nullptr) const {
        const Spot* end = &spot;
        Piece on_line;  // since the last place where it may end
        std::size_t width = spot.head.width;
        for (const Spot* at = &spot; at->below.size() == 1; at = &at->below.front()) {
            const Spot& next = at->below.front();
            on_line += Piece((next.dashed ? strokes_.dashed : strokes_.solid).arrow);
            on_line += next.head;
            if (width + on_line.width > columns) break;
            if (next.passes && next.below.size() == 1) continue;
            if (line) *line += on_line;
            width += on_line.width;
            on_line = {};
            end = &next;
        }
        return *end;
    }

    [[nodiscard]] std::vector<Piece> beside(const Spot& spot, std::size_t columns) {
        const bool one = spot.below.size() == 1;
        const Piece space(std::string(spot.head.width, ' '));
        std::vector<Piece> all;
        for (const auto& each : spot.below) {
            const bool first = &each == &spot.below.front();
            const bool last = &each == &spot.below.back();
            const auto& own = each.dashed ? strokes_.dashed : strokes_.solid;
            const Piece front(one ? own.arrow : first ? own.fork : last ? own.end : own.next);
            const Piece side(last ? std::string(front.width, ' ') : std::string(strokes_.beside));
            append(all, lines(each, columns - spot.head.width - front.width), first ? spot.head : space, front, space,
                   side);
        }
        return all;
    }
    [[nodiscard]] std::vector<Piece> below(const Piece& head, const Spot& spot, std::size_t columns) {
        std::vector<Piece> all{head};
        for (const auto& each : spot.below) {
            const bool last = &each == &spot.below.back();
            const auto& own = each.dashed ? strokes_.dashed : strokes_.solid;
            append(all, lines(each, rest_below(columns)), {}, Piece(last ? own.last : own.branch), {},
                   Piece(last ? strokes_.nothing : strokes_.past));
        }
        return all;
    }
    static void append(std::vector<Piece>& all, const std::vector<Piece>& block, const Piece& head, const Piece& front,
                       const Piece& space, const Piece& side) {
        for (std::size_t i = 0; i < block.size(); ++i) {
            Piece line = i == 0 ? head : space;
            line += i == 0 ? front : side;
            line += block[i];
            all.push_back(std::move(line));
        }
    }

    const Strokes& strokes_;
    std::map<std::pair<const Spot*, std::size_t>, Best> best_;
};

}  // namespace

std::vector<std::string> text_of(const detail::Drawing& drawing, const Output& out, const Strokes& strokes,
                                 std::size_t columns) {
    std::vector<TextNode> nodes(drawing.nodes.size());
    for (std::size_t i = 0; i < nodes.size(); ++i) {
        nodes[i].label = named(out, drawing.nodes[i].look, drawing.nodes[i].label);
        for (const auto& note : drawing.nodes[i].notes) nodes[i].note += Piece(printable(note));
        nodes[i].passes = drawing.nodes[i].look == detail::Drawing::Look::automation;
    }
    for (const auto& arrow : drawing.arrows) {
        const Piece label(arrow.label.empty() ? "" : " " + printable(arrow.label));
        nodes[arrow.from].arrows.push_back({arrow.to, label, arrow.dashed});
    }
    Layout layout(strokes);
    std::vector<std::string> all;
    const auto spots = Spots(nodes, strokes).all();
    for (const auto& spot : spots) {
        if (!all.empty()) all.emplace_back();
        for (auto& line : layout.lines(spot, columns)) {
            while (line.text.ends_with(' ')) line.text.pop_back();
            all.push_back(std::move(line.text));
        }
    }
    return all;
}

}  // namespace sourced::inspector
