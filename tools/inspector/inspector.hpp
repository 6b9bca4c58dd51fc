// What the commands of the inspector share: how they are declared, what they are given, how they end.
#pragma once

#include "output.hpp"
#include "sourced.hpp"

#include <CLI/CLI.hpp>

#include <csignal>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace sourced::inspector {

/// What the program's exit status says.
enum class Exit : int { ok = 0, failure = 1, usage = 2, violation = 3, not_found = 4, busy = 5, interrupted = 130 };

/// Ends a command: the text goes to stderr, behind the program's name.
struct Failed : Error {
    Failed(Exit exit_status, const std::string& text) : Error(text), status(exit_status) {}
    Exit status;
};

/// What every command is given: the file, where its words go, and what was asked for all commands.
class Context {
public:
    /// `app`: the application that was linked in; null when there is none.
    explicit Context(App* app) : linked_(app) {}
    Context(const Context&) = delete;
    Context& operator=(const Context&) = delete;

    /// The file for looking; opened at the first call, never created or changed.
    [[nodiscard]] Store& look();
    /// The file for changing; opened at the first call, never created.
    [[nodiscard]] Store& change();
    /// The file's path. Throws Failed(usage) when none was named.
    [[nodiscard]] const std::string& file() const;
    [[nodiscard]] Output& out() noexcept { return out_; }
    [[nodiscard]] App* linked() const noexcept { return linked_; }

    /// Shows what a command is about to do, and asks: returns when --yes was given or somebody at a terminal typed
    /// "yes". Throws Failed(failure) otherwise, with nothing done. The command was declared with Commands::plans.
    void confirm(const std::string& plan);

    /// Whether Ctrl-C or SIGTERM came. From the first call on they end nothing by themselves; the second one does.
    [[nodiscard]] bool interrupted();
    /// Becomes readable when interrupted() becomes true, for who waits with poll(). Never read from it.
    [[nodiscard]] int interruption();

    // ---- what was given on the command line for all commands

    std::string path{};     ///< FILE
    std::string library{};  ///< --app
    bool yes = false;       ///< --yes
    double wait = 5;        ///< --wait: seconds for another process's lock

private:
    std::unique_ptr<Store> open(bool for_changing) const;

    App* linked_;
    Output out_;
    std::unique_ptr<Store> look_;
    std::unique_ptr<Store> change_;
};

/// What the help says of a command.
struct About {
    std::string name;
    std::string summary;   ///< one line, without a full stop
    std::string examples;  ///< lines of the form "sourced shop.db streams 'cart-*'", each with what it does behind "  # "
    std::string more{};    ///< paragraphs below the options
};

/// Declares commands. For example:
///
///     auto [command, options] = commands.add<StreamsOptions>({"streams", "Lists streams", examples}, show_streams);
///     command.add_option("PATTERN", options.pattern, "Only ids that match, like 'cart-*'");
///
/// where show_streams is a function `(Context&, const StreamsOptions&) -> Exit`.
class Commands {
public:
    using Run = std::function<Exit(Context&)>;

    Commands(CLI::App& parent, Context& context, Run& chosen) : parent_(&parent), context_(&context), chosen_(&chosen) {}

    template <class Options>
    struct Declared {
        CLI::App& command;
        Options& options;
    };

    template <class Options>
    Declared<Options> add(const About& about, Exit (*run)(Context&, const Options&)) {
        auto options = std::make_shared<Options>();
        CLI::App& command = do_add(about, [options, run](Context& context) { return run(context, *options); });
        return {command, *options};
    }
    CLI::App& add(const About& about, Exit (*run)(Context&)) { return do_add(about, run); }

    /// For the commands below another one, like `groups show`.
    [[nodiscard]] Commands below(CLI::App& command) const { return {command, *context_, *chosen_}; }
    /// Gives a command the flag --yes: it calls Context::confirm.
    void plans(CLI::App& command) const;

private:
    CLI::App& do_add(const About& about, Run run);

    CLI::App* parent_;
    Context* context_;
    Run* chosen_;
};

// ---- The commands, a file each for those that belong together ---------------------

void add_overview(Commands& commands);     // stats, streams

/// What `sourced FILE` alone prints.
Exit show_overview(Context& context);

}  // namespace sourced::inspector
