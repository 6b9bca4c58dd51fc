// What the commands of the inspector share: how they are declared, what they are given, how they end.
#pragma once

#include "output.hpp"
#include "sourced.hpp"

#include <CLI/CLI.hpp>

#include <csignal>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sourced::inspector {

/// What the program's exit status says.
enum class Exit : int { ok = 0, failure = 1, usage = 2, violation = 3, not_found = 4, busy = 5, interrupted = 130 };

/// Ends a command: the text goes to stderr, behind the program's name.
struct Failed : Error {
    Failed(Exit exit_status, const std::string& text) : Error(text), status(exit_status) {}
    Exit status;
};

class Context;

/// What the help says of a command.
struct About {
    std::string name;
    std::string summary;   ///< one line, without a full stop
    std::string examples;  ///< lines like "sourced shop.db streams 'cart-*'", each with what it does behind "  # "
    std::string more{};    ///< paragraphs below the options
    bool needs_file = true;  ///< false: FILE may be left out, and stands nowhere but before the command
};

/// All commands, and which of them was asked for.
struct Tree {
    CLI::App program;
    std::map<const CLI::App*, About> abouts;
    std::function<Exit(Context&)> chosen;
};

/// What every command is given: the file, where its words go, and what was asked for all commands.
class Context {
public:
    /// `app`: the application that was linked in; null when there is none.
    Context(const Tree& tree, App* app) : tree_(&tree), linked_(app) {}
    Context(const Context&) = delete;
    Context& operator=(const Context&) = delete;

    /// The file for looking; opened at the first call, never created or changed.
    [[nodiscard]] Store& look();
    /// The file for changing; opened at the first call, never created.
    [[nodiscard]] Store& change();
    /// The file's path: as it was named, else the linked App's. Throws Failed(usage) when there is neither.
    [[nodiscard]] const std::string& file() const;
    [[nodiscard]] bool has_file() const;
    /// The command line that runs the program on the same file again, as a shell takes it.
    [[nodiscard]] std::string called(const std::string& rest) const;
    [[nodiscard]] Output& out() noexcept { return out_; }
    [[nodiscard]] App* linked() const noexcept { return linked_; }
    [[nodiscard]] const Tree& tree() const noexcept { return *tree_; }

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

    const Tree* tree_;
    App* linked_;
    Output out_;
    std::unique_ptr<Store> look_;
    std::unique_ptr<Store> change_;
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

    Commands(Tree& tree, Context& context) : Commands(tree.program, tree, context) {}

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
    [[nodiscard]] Commands below(CLI::App& command) const { return {command, *tree_, *context_}; }
    /// Gives a command the flag --yes: it calls Context::confirm.
    void plans(CLI::App& command) const;

private:
    Commands(CLI::App& parent, Tree& tree, Context& context) : parent_(&parent), tree_(&tree), context_(&context) {}
    CLI::App& do_add(const About& about, Run run);

    CLI::App* parent_;
    Tree* tree_;
    Context* context_;
};

// ---- The commands, a file each for those that belong together ---------------------

void add_overview(Commands& commands);     // stats, streams
void add_messages(Commands& commands);     // stream, message, log, tail
void add_completion(Commands& commands);   // completion, and the hidden ones that make the man page and complete
void add_replay(Commands& commands);       // replay, work
void add_state(Commands& commands);        // state
void add_send(Commands& commands);         // schema, send
void add_trace(Commands& commands);        // trace
void add_flow(Commands& commands);         // flow
void add_groups(Commands& commands);       // groups, workers
void add_schedule(Commands& commands);     // scheduled
void add_check(Commands& commands);        // check
void add_transfer(Commands& commands);     // export, import
void add_care(Commands& commands);         // verify, backup, checkpoint

/// The commands of the program in the sections of the help.
[[nodiscard]] std::vector<std::pair<std::string, std::vector<const CLI::App*>>> sections(const CLI::App& program);
/// The help of a command, or of the whole program.
[[nodiscard]] std::string help_of(const Tree& tree, const CLI::App& command, const Output& out);

/// What a shell may put at the end of a command line: for each a line "word<TAB>what it is", and at the end ":files"
/// where names of files will do too, else ":end". The last word is the one that is being typed.
Exit complete(Context& context, const std::vector<std::string>& words);

/// What `sourced FILE` alone prints.
Exit show_overview(Context& context);

}  // namespace sourced::inspector
