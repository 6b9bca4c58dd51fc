// The command line before CLI11 reads it, and what help, completion and man page have to know of CLI11's tree.
#pragma once

#include <CLI/CLI.hpp>

#include <functional>
#include <string>
#include <vector>

namespace sourced::inspector {

/// The words of a command line, in an order that leaves nothing to guess.
struct Arguments {
    std::string file{};                 ///< empty: none was named
    const CLI::App* command = nullptr;  ///< the innermost that was named; the program itself when none was
    bool help = false;                  ///< was asked for, and nothing else counts
    bool version = false;
    std::vector<std::string> words{};   ///< for CLI11: without FILE, and what an option is not stands behind "--"
};

/// Reads a command line: which word is FILE, which are commands, which are values of options. FILE stands before the
/// command or right behind it. What begins with a dash is an option, except as the value of one and behind "--".
/// `takes_file`: whether a command needs to be told a file; only then it is looked for behind the command.
/// Throws Failed(usage) for commands and options that there are not, with what was likely meant.
[[nodiscard]] Arguments arrange(const CLI::App& program, const std::vector<std::string>& words,
                                const std::function<bool(const CLI::App&)>& takes_file);

/// How far the words of an unfinished command line go.
struct Reached {
    const CLI::App* command = nullptr;
    const CLI::Option* waiting = nullptr;  ///< the option whose value comes next
    std::string file{};
    bool wants_file = false;  ///< the next word that is no option may be FILE
    std::size_t plain = 0;    ///< words so far that are neither options nor FILE nor commands
    bool plain_only = false;  ///< "--" was there
};

/// The same reading, of the words that are there already. Throws Failed(usage) where they are wrong.
[[nodiscard]] Reached reached(const CLI::App& program, const std::vector<std::string>& words,
                              const std::function<bool(const CLI::App&)>& takes_file);

// ---- What the tree says ---------------------------------------------------------

[[nodiscard]] std::vector<const CLI::App*> commands_of(const CLI::App& command);
[[nodiscard]] std::vector<const CLI::Option*> positionals_of(const CLI::App& command);
[[nodiscard]] std::vector<const CLI::Option*> options_of(const CLI::App& command);
/// The command of this name below another one; null when there is none.
[[nodiscard]] const CLI::App* find_command(const CLI::App& parent, const std::string& name);
/// The option "-n" or "--limit" of a command or of those above it; null when there is none.
[[nodiscard]] const CLI::Option* find_option(const CLI::App& command, const std::string& name);
/// Its names behind the program's: "groups show".
[[nodiscard]] std::string path_of(const CLI::App& command);

/// Of an option: "-n" and "--limit", as far as it has them.
[[nodiscard]] std::vector<std::string> names_of(const CLI::Option& option);
[[nodiscard]] bool takes_value(const CLI::Option& option);
/// The words that may be its value; none when it takes others too.
[[nodiscard]] std::vector<std::string> choices_of(const CLI::Option& option);
/// What stands for its value in the help: "N", "TEXT", "ascii|dot".
[[nodiscard]] std::string value_of(const CLI::Option& option);

}  // namespace sourced::inspector
