// Pictures: trees and graphs as text, and what draws them elsewhere.
#pragma once

#include "inspector.hpp"

#include <functional>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace sourced::inspector {

/// What `flow` and `trace` have in common on the command line.
struct PictureOptions {
    std::string format = "ascii";  ///< or mermaid, dot, svg, json
    bool ascii = false;            ///< plain ASCII, whatever the terminal can

    [[nodiscard]] bool json(const Output& out) const { return !out.text() || format == "json"; }
    [[nodiscard]] bool text() const { return format == "ascii"; }
};
void add_picture_options(CLI::App& command, PictureOptions& options);

/// Writes Mermaid, dot or SVG. Throws Failed where Graphviz is needed and is not there, or fails.
void draw(Output& out, const PictureOptions& options, const detail::Drawing& drawing);

/// The lines that text pictures are made of. Dashed ones lead to what is not there yet, or to elsewhere.
struct Strokes {
    struct Lines {
        std::string_view branch, last;             ///< in front of what hangs below something
        std::string_view arrow, fork, next, end;  ///< from left to right, to one or to several
    };
    Lines solid, dashed;
    std::string_view past, nothing, beside;  ///< where lines lead to others further down, or do not
    std::string_view mark, cross, again, ellipsis, times;

    [[nodiscard]] static const Strokes& of(const Output& out, const PictureOptions& options);
};

/// A text with what it takes on a terminal, where colours take nothing.
struct Piece {
    std::string text{};
    std::size_t width = 0;

    Piece() = default;
    /// Of text that has gone through printable().
    explicit Piece(std::string_view plain) : text(plain), width(width_of(plain)) {}
    Piece(std::string painted, std::size_t columns) : text(std::move(painted)), width(columns) {}
    Piece& operator+=(const Piece& more);
};

/// A name as it stands in all text pictures: [command], (event), {reaction}, <read model>. From any text; what is long
/// is cut.
[[nodiscard]] Piece named(const Output& out, detail::Drawing::Look look, std::string_view name);

/// Nodes that hang below each other, by their places.
struct Forest {
    std::vector<std::size_t> roots{};
    std::vector<std::vector<std::size_t>> children{};
};

/// Goes through a tree from top to bottom without using the stack; `visit` gets a node with the lines in front of it.
/// `waits`: which of them are drawn dashed. Far down, the lines of what stands high above are left out, and the number
/// of levels stands there instead.
void outline(const Forest& tree, const Strokes& strokes, const std::function<bool(std::size_t)>& waits,
             const std::function<void(std::size_t, const Piece& lines)>& visit);

/// A drawing as lines of text in so many columns. What several arrows lead to is drawn once; the others lead to its
/// name with a mark.
[[nodiscard]] std::vector<std::string> text_of(const detail::Drawing& drawing, const Output& out,
                                               const Strokes& strokes, std::size_t columns);

}  // namespace sourced::inspector
