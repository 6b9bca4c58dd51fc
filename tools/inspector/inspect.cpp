// The command line: what all commands share, which there are, and how they end.
#include "arguments.hpp"
#include "inspector.hpp"
#include "times.hpp"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <sstream>

namespace sourced::inspector {
namespace {

volatile std::sig_atomic_t stop_asked = 0;
volatile std::sig_atomic_t stop_event = -1;

void stop_on_signals() {
    stop_event = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    struct sigaction action {};
    action.sa_handler = [](int) {
        const int error = errno;
        stop_asked = 1;
        const std::uint64_t one = 1;
        // Only a full counter cannot be written to, and that one is readable.
        [[maybe_unused]] const auto written = ::write(stop_event, &one, sizeof one);
        errno = error;
    };
    action.sa_flags = static_cast<int>(SA_RESETHAND);
    ::sigaction(SIGINT, &action, nullptr);
    ::sigaction(SIGTERM, &action, nullptr);
}

std::string setting(const char* name) {
    const char* const value = std::getenv(name);
    return value ? value : "";
}

/// What shows long text, a command of the shell; empty for nothing.
std::string chosen_pager() {
    for (const char* name : {"SOURCED_PAGER", "PAGER"}) {
        if (!std::getenv(name)) continue;
        const std::string command = setting(name);
        return command == "cat" ? "" : command;
    }
    std::istringstream folders(setting("PATH"));
    for (std::string folder; std::getline(folders, folder, ':');) {
        if (::access((folder + "/less").c_str(), X_OK) == 0) return "less -FRX";
    }
    return {};
}

/// The command line as CLI11 sees it.
class CommandLine {
public:
    explicit CommandLine(App* app) : context_(tree_, app) {
        CLI::App& cli = tree_.program;
        cli.name("sourced");
        cli.require_subcommand(0, 1);
        cli.set_help_flag("-h,--help", "Says how the program, or a command of it, is used");
        cli.add_flag("--version", version_, "Says which versions of library, SQLite and file format these are");
        cli.add_option("--app", context_.library, "A shared library with an application's types")->type_name("LIB");
        cli.add_option("-o,--output", output_,
                       "How data is written: for people, as one JSON text, or as a JSON text a line")
            ->check(CLI::IsMember({"text", "json", "jsonl"}))
            ->capture_default_str();
        cli.add_flag("--json", json_, "The same as -o json");
        cli.add_option("--time", times_, "How times are written in text; auto: relative on a terminal, iso elsewhere")
            ->check(CLI::IsMember({"auto", "relative", "iso", "local", "unix"}))
            ->capture_default_str();
        cli.add_option("--color", colour_, "Whether there are colours; auto: on a terminal, unless NO_COLOR is set")
            ->check(CLI::IsMember({"auto", "always", "never"}))
            ->capture_default_str();
        cli.add_flag("--no-pager", no_pager_,
                     "Shows long text on a terminal as it is, without $SOURCED_PAGER, $PAGER or less");
        cli.add_option("--wait", context_.wait, "How long to wait while another process holds the file's lock")
            ->check(CLI::NonNegativeNumber)
            ->type_name("SECONDS")
            ->capture_default_str();
        Commands commands(tree_, context_);
        add_overview(commands);
        add_messages(commands);
        add_completion(commands);
        add_replay(commands);
        add_state(commands);
        add_send(commands);
        add_trace(commands);
        add_flow(commands);
        add_groups(commands);
        add_schedule(commands);
        add_check(commands);
        add_transfer(commands);
        add_care(commands);
        for (CLI::App* command : cli.get_subcommands({})) one_value_each(*command);
    }

    [[nodiscard]] Context& context() noexcept { return context_; }

    [[nodiscard]] Exit run(const std::vector<std::string>& words) {
        Output& out = context_.out();
        if (!words.empty() && (words.front() == "__complete" || words.front() == "help")) {
            const std::vector<std::string> rest(words.begin() + 1, words.end());
            set_up(out);
            return words.front() == "help" ? show_help(asked_for(rest)) : complete(context_, rest);
        }
        const auto arguments = arrange(tree_.program, words, [this](const CLI::App& command) {
            return tree_.abouts.at(&command).needs_file && !context_.has_file();
        });
        const bool nothing = words.empty() && !context_.has_file();
        if (!arguments.help && !nothing) {
            context_.path = arguments.file;
            parse(arguments);
        }
        set_up(out);
        if (arguments.version) return show_versions();
        if (arguments.help) return show_help(*arguments.command);
        if (nothing) {
            show_help(tree_.program);
            throw Failed(Exit::usage, "no file was named: sourced FILE COMMAND");
        }
        if (tree_.chosen) return tree_.chosen(context_);
        const std::string& file = context_.file();
        if (!std::filesystem::exists(file)) {
            const std::string meant = closest(file, command_names());
            if (!meant.empty()) no_file(file, ". Did you mean the command '" + meant + "'? sourced FILE " + meant);
        }
        return show_overview(context_);
    }

private:
    /// An option that may be given several times takes one value each time, not all words behind it.
    static void one_value_each(CLI::App& command) {
        for (CLI::Option* option : command.get_options({})) {
            if (option->nonpositional()) option->allow_extra_args(false);
        }
        for (CLI::App* below : command.get_subcommands({})) one_value_each(*below);
    }
    [[noreturn]] static void no_file(const std::string& file, const std::string& hint) {
        throw Failed(Exit::failure, "there is no file '" + file + "'" + hint);
    }
    [[nodiscard]] std::vector<std::string> command_names() const {
        std::vector<std::string> names{"help"};
        for (const auto* command : commands_of(tree_.program)) names.push_back(command->get_name());
        return names;
    }
    /// What stands behind `help`.
    [[nodiscard]] const CLI::App& asked_for(const std::vector<std::string>& words) const {
        const CLI::App* command = &tree_.program;
        for (const auto& word : words) {
            const auto* below = find_command(*command, word);
            if (!below) {
                std::vector<std::string> names;
                for (const auto* each : commands_of(*command)) names.push_back(each->get_name());
                const std::string path = path_of(*command);
                throw Failed(Exit::usage, "there is no command '" + path + (path.empty() ? "" : " ") + word + "'" +
                                              did_you_mean(word, names));
            }
            command = below;
        }
        return *command;
    }
    void parse(const Arguments& arguments) {
        std::vector<std::string> words(arguments.words.rbegin(), arguments.words.rend());
        try {
            tree_.program.parse(std::move(words));
        } catch (const CLI::ParseError& error) {
            const std::string path = path_of(*arguments.command);
            throw Failed(Exit::usage, reworded(error.what()) + "; see sourced " + path +
                                          (path.empty() ? "" : " ") + "--help");
        }
    }
    /// CLI11's text, said as the others are: "Could not convert: --limit = many", or "--limit: Value -1 not in range
    /// 0.000000 to" the largest double.
    static std::string reworded(const std::string& text) {
        const std::string_view value = ": Value ";
        const auto found = text.find(value);
        const auto range = text.find(" not in range 0.000000 to ");
        if (found != std::string::npos && range != std::string::npos && found < range) {
            const std::string given = text.substr(found + value.size(), range - found - value.size());
            const bool zero = !given.empty() && given.find_first_not_of("+0") == std::string::npos;
            const std::string wanted = given.starts_with('-') ? "a number that is not negative"
                                       : zero                 ? "a number above 0"
                                                              : "a number";
            return text.substr(0, found) + " takes " + wanted + ", not '" + given + "'";
        }
        const std::string begin = "Could not convert: ";
        const auto equals = text.find(" = ");
        if (!text.starts_with(begin) || equals == std::string::npos) return text;
        const std::string name = text.substr(begin.size(), equals - begin.size());
        return name + " takes a number, not '" + text.substr(equals + 3) + "'";
    }
    void set_up(Output& out) const {
        const std::string format = json_ ? "json" : output_;
        out.format = format == "json" ? Format::json : format == "jsonl" ? Format::jsonl : Format::text;
        const bool relative = times_ == "relative" || (times_ == "auto" && out.terminal());
        out.times = TimeStyle::iso;
        if (relative) out.times = TimeStyle::relative;
        if (times_ == "local") out.times = TimeStyle::local;
        if (times_ == "unix") out.times = TimeStyle::unix;
        const std::string terminal = setting("TERM");
        const bool able = out.terminal() && !terminal.empty() && terminal != "dumb";
        out.colour = colour_ == "always" || (colour_ == "auto" && able && setting("NO_COLOR").empty());
        out.pager = able && !no_pager_ ? chosen_pager() : "";
    }
    Exit show_help(const CLI::App& command) {
        context_.out().line(help_of(tree_, command, context_.out()));
        return Exit::ok;
    }
    Exit show_versions() {
        const Versions all = versions();
        Output& out = context_.out();
        if (out.text()) {
            out.line("sourced " + all.sourced + ", SQLite " + all.sqlite + ", schema " + std::to_string(all.schema));
            return Exit::ok;
        }
        Json json;
        json.begin().field("sourced", all.sourced).field("sqlite", all.sqlite).field("schema", all.schema).end();
        out.object(json.text());
        return Exit::ok;
    }

    Tree tree_;
    Context context_;
    std::string output_ = "text";
    std::string times_ = "auto";
    std::string colour_ = "auto";
    bool json_ = false;
    bool version_ = false;
    bool no_pager_ = false;
};

/// On stderr, line by line.
void say(const std::string& text) {
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) std::cerr << printable(line) << '\n';
}

Exit report(Output& out, Exit status, const std::string& text) {
    try {
        out.finish();
    } catch (const Error&) {  // one error is told, the first
    }
    say("sourced: " + text);
    return status;
}

/// A pager or a program behind a pipe that ends early does not end us: writing fails instead.
class IgnoredPipe {
public:
    IgnoredPipe() {
        struct sigaction ignore {};
        ignore.sa_handler = SIG_IGN;
        ::sigaction(SIGPIPE, &ignore, &before_);
    }
    ~IgnoredPipe() { ::sigaction(SIGPIPE, &before_, nullptr); }
    IgnoredPipe(const IgnoredPipe&) = delete;
    IgnoredPipe& operator=(const IgnoredPipe&) = delete;

private:
    struct sigaction before_ {};
};

Exit run(App* app, int argc, char** argv) {
    CommandLine line(app);
    Output& out = line.context().out();
    const IgnoredPipe ignored;
    try {
        const Exit status = line.run({argv + std::min(argc, 1), argv + argc});
        out.finish();
        return status;
    } catch (const Closed&) {
        return Exit::ok;
    } catch (const Failed& failed) {
        return report(out, failed.status, failed.what());
    } catch (const Busy& error) {
        return report(out, Exit::busy, error.what());
    } catch (const BadArgument& error) {
        return report(out, Exit::usage, error.what());
    } catch (const std::exception& error) {
        return report(out, Exit::failure, error.what());
    }
}

}  // namespace

// ---- Context ------------------------------------------------------------------

bool Context::has_file() const {
    return !path.empty() || (linked_ && !detail::Access::options(*linked_).path.empty());
}

const std::string& Context::file() const {
    if (!has_file()) throw Failed(Exit::usage, "no file was named: sourced FILE COMMAND");
    return path.empty() ? detail::Access::options(*linked_).path : path;
}

std::string Context::called(const std::string& rest) const {
    return "sourced " + (library.empty() ? "" : "--app " + shell_word(library) + " ") + shell_word(file()) + " " + rest;
}

std::unique_ptr<Store> Context::open(bool for_changing) const {
    if (!std::filesystem::exists(file())) throw Failed(Exit::failure, "there is no file '" + file() + "'");
    StoreOptions options;
    options.path = file();
    options.open = for_changing ? Open::existing : Open::read_only;
    options.busy_timeout = std::chrono::duration_cast<Duration>(std::chrono::duration<double>(wait));
    return open_store(options);
}

Store& Context::look() {
    if (!look_) look_ = open(false);
    return *look_;
}

Store& Context::change() {
    if (!change_) change_ = open(true);
    return *change_;
}

void Context::confirm(const std::string& plan) {
    out_.flush();
    say(plan);
    if (yes) return;
    if (::isatty(STDIN_FILENO) != 1) {
        throw Failed(Exit::failure, "nothing was done: --yes does what is planned");
    }
    std::cerr << "Type yes to do this: " << std::flush;
    std::string answer;
    std::getline(std::cin, answer);
    if (answer != "yes") throw Failed(Exit::failure, "nothing was done");
}

bool Context::interrupted() {
    static_cast<void>(interruption());
    return stop_asked != 0;
}

int Context::interruption() {
    static const bool listening = [] {
        stop_on_signals();
        return true;
    }();
    return listening ? stop_event : -1;
}

// ---- Commands -----------------------------------------------------------------

CLI::App& Commands::do_add(const About& about, Run run) {
    CLI::App* command = parent_->add_subcommand(about.name, about.summary);
    command->fallthrough();
    command->require_subcommand(0, 1);
    tree_->abouts[command] = about;
    command->callback([command, tree = tree_, run = std::move(run)] {
        if (command->get_subcommands().empty()) tree->chosen = run;
    });
    return *command;
}

void Commands::plans(CLI::App& command) const {
    command.add_flag("-y,--yes", context_->yes, "Do what is planned without asking");
}

}  // namespace sourced::inspector

namespace sourced {

int inspect(App& app, int argc, char** argv) { return static_cast<int>(inspector::run(&app, argc, argv)); }
int inspect(int argc, char** argv) { return static_cast<int>(inspector::run(nullptr, argc, argv)); }

}  // namespace sourced
