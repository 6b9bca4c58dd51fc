// The language of --where: which messages are meant.
#pragma once

#include <memory>
#include <string_view>

#include "sourced.hpp"
#include "times.hpp"

namespace sourced::inspector {

/// An expression over the fields of a message.
///
///     const auto dear = Where::parse("payload.price > 10 and type = 'cart.item_added'");
///     if (dear(message)) show(message);
///
/// `grammar()` describes the language. The payload and the metadata are read only where the expression needs them, once
/// a message, in memory that does not grow with the nesting on the stack. For one thread at a time.
class Where {
public:
    /// Times in it are relative to `now`. Throws BadArgument: what was expected, the expression, and a mark under
    /// the place.
    [[nodiscard]] static Where parse(std::string_view text);
    [[nodiscard]] static Where parse(std::string_view text, Time now);

    /// The grammar with examples, for the help.
    [[nodiscard]] static std::string_view grammar() noexcept;

    Where(Where&&) noexcept;
    Where& operator=(Where&&) noexcept;
    ~Where();

    /// Whether it is true of the message. What is no JSON has no fields.
    [[nodiscard]] bool operator()(const Message& message) const;

private:
    class Program;
    explicit Where(std::unique_ptr<Program> program) noexcept;

    std::unique_ptr<Program> program_;
};

}  // namespace sourced::inspector
