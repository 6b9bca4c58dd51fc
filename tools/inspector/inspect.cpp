// The command line: what all commands share, which there are, and how they end.
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

constexpr const char* exit_statuses =
    "Exit status: 0 ok, 1 failure, 2 wrong usage, 3 a violation was found, 4 not found, 5 busy, 130 interrupted.";

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

/// The command line as CLI11 sees it.
class CommandLine {
public:
    explicit CommandLine(Context& context) : context_(context), commands_(cli_, context, chosen_) {
        cli_.name("sourced");
        cli_.description("Looks into a file of the engine, runs it and mends it.");
        cli_.require_subcommand(0, 1);
        cli_.fallthrough();
        cli_.footer(exit_statuses);
        cli_.add_option("FILE", context.path, "The file to look into");
        cli_.add_option("--app", context.library, "A shared library with an application's types");
        cli_.add_option("-o,--output", output_, "How data is written")
            ->check(CLI::IsMember({"text", "json", "jsonl"}))
            ->capture_default_str();
        cli_.add_flag("--json", json_, "The same as -o json");
        cli_.add_option("--time", times_, "How times are written: relative on a terminal, iso elsewhere")
            ->check(CLI::IsMember({"auto", "relative", "iso"}))
            ->capture_default_str();
        cli_.add_option("--color", colour_, "Whether to use colours")
            ->check(CLI::IsMember({"auto", "always", "never"}))
            ->capture_default_str();
        cli_.add_option("--wait", context.wait, "Seconds to wait while another process holds the file's lock")
            ->check(CLI::NonNegativeNumber)
            ->capture_default_str();
        add_overview(commands_);
    }

    void parse(int argc, char** argv) {
        cli_.parse(argc, argv);
        Output& out = context_.out();
        if (json_) output_ = "json";
        out.format = output_ == "json" ? Format::json : output_ == "jsonl" ? Format::jsonl : Format::text;
        const bool relative = times_ == "relative" || (times_ == "auto" && out.terminal());
        out.times = relative ? TimeStyle::relative : TimeStyle::iso;
        const char* no_color = std::getenv("NO_COLOR");
        const bool wanted = out.terminal() && !(no_color && *no_color);
        out.colour = colour_ == "always" || (colour_ == "auto" && wanted);
    }
    int refuse(const CLI::ParseError& error) {
        const bool asked = error.get_exit_code() == 0;  // for help
        cli_.exit(error);
        return static_cast<int>(asked ? Exit::ok : Exit::usage);
    }
    [[nodiscard]] Exit run() { return chosen_ ? chosen_(context_) : show_overview(context_); }

private:
    Context& context_;
    CLI::App cli_;
    Commands::Run chosen_;
    Commands commands_;
    std::string output_ = "text";
    std::string times_ = "auto";
    std::string colour_ = "auto";
    bool json_ = false;
};

Exit report(Output& out, Exit status, const std::string& text) {
    try {
        out.flush();
    } catch (const Error&) {  // one error is told, the first
    }
    std::cerr << "sourced: ";
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) std::cerr << printable(line) << '\n';
    return status;
}

Exit run(App* app, int argc, char** argv) {
    Context context(app);
    CommandLine line(context);
    try {
        line.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return static_cast<Exit>(line.refuse(error));
    }
    Output& out = context.out();
    ::signal(SIGPIPE, SIG_IGN);
    try {
        const Exit status = line.run();
        out.flush();
        return status;
    } catch (const Closed&) {
        return Exit::ok;
    } catch (const Failed& failed) {
        return report(out, failed.status, failed.what());
    } catch (const BadArgument& error) {
        return report(out, Exit::usage, error.what());
    } catch (const std::exception& error) {
        return report(out, Exit::failure, error.what());
    }
}

}  // namespace

// ---- Context ------------------------------------------------------------------

const std::string& Context::file() const {
    if (path.empty()) throw Failed(Exit::usage, "no file was named: sourced FILE COMMAND");
    return path;
}

std::unique_ptr<Store> Context::open(bool for_changing) const {
    static_cast<void>(for_changing);
    if (!std::filesystem::exists(file())) throw Failed(Exit::failure, "there is no file '" + file() + "'");
    StoreOptions options;
    options.path = file();
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
    std::cerr << plan << '\n';
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
    std::string footer;
    if (!about.more.empty()) footer += about.more + "\n\n";
    if (!about.examples.empty()) footer += "Examples:\n" + about.examples;
    command->footer(footer);
    command->callback([command, chosen = chosen_, run = std::move(run)] {
        if (command->get_subcommands().empty()) *chosen = run;
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
