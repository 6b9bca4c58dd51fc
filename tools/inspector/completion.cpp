// What shells and `man` know of the program: all of it comes from the tree of commands.
#include "arguments.hpp"
#include "inspector.hpp"

#include <algorithm>
#include <set>
#include <sstream>

namespace sourced::inspector {
namespace {

// The shells ask the program itself; it answers as complete() says.
constexpr const char* bash_script = R"sh(# bash completion for sourced
_sourced() {
    local words=() word lines=() line i current prefix
    for ((i = 1; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]//[\"\'\\]/}
        [[ $word != '~/'* ]] || word=$HOME/${word#'~/'}
        # bash takes words apart at = and :
        line=
        ((${#words[@]} == 0)) || line=${words[-1]}
        if [[ -n $line && ($word == [=:]* || $line == *[=:]) && $COMP_LINE == *"$line$word"* ]]; then
            words[-1]+=$word
        else
            words+=("$word")
        fi
    done
    mapfile -t lines < <("${COMP_WORDS[0]}" __complete "${words[@]}" 2>/dev/null)
    ((${#lines[@]})) || return 0
    current=${words[-1]} prefix=
    [[ $current != *[=:]* ]] || prefix=${current%"${current##*[=:]}"}
    COMPREPLY=()
    for line in "${lines[@]::${#lines[@]}-1}"; do
        printf -v word %q "${line%%$'\t'*}"
        COMPREPLY+=("${word#"$prefix"}")
    done
    [[ ${lines[-1]} == :files ]] || return 0
    compopt -o filenames 2>/dev/null
    mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -f -- "${current#"$prefix"}")
}
complete -F _sourced sourced
)sh";

constexpr const char* zsh_script = R"sh(#compdef sourced
_sourced() {
    local -a lines values
    local line directive
    lines=("${(@f)$("${words[1]}" __complete "${(@Q)words[2,CURRENT]}" 2>/dev/null)}")
    (( $#lines )) || return 1
    directive=$lines[-1]
    for line in "${(@)lines[1,-2]}"; do
        values+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
    done
    (( $#values )) && _describe sourced values
    if [[ $directive == :files ]]; then
        compset -P '--[a-z-]#='
        _files
    fi
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _sourced "$@"
else
    compdef _sourced sourced
fi
)sh";

constexpr const char* fish_script = R"sh(# fish completion for sourced
function __sourced_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l lines ($words[1] __complete $words[2..-1] "$current" 2>/dev/null)
    test (count $lines) -gt 0; or return
    test (count $lines) -eq 1; or printf '%s\n' $lines[1..-2]
    if test "$lines[-1]" = :files
        __fish_complete_path (string replace -r '^--[a-z-]*=' '' -- "$current")
    end
end
complete -c sourced -f -a '(__sourced_complete)'
)sh";

// ---- What may come next -----------------------------------------------------------

/// Words that go on from what was typed.
class Candidates {
public:
    explicit Candidates(Context& context, std::string typed) : context_(context), typed_(std::move(typed)) {}

    void add(const std::string& word, const std::string& text) {
        if (word.starts_with(typed_) && printable(word) == word) found_.push_back(word + "\t" + printable(text));
    }
    void files() noexcept { files_ = true; }
    void options(const CLI::App& command) {
        for (const auto* level = &command; level; level = level->get_parent()) {
            for (const auto* option : options_of(*level)) {
                const auto names = names_of(*option);
                add(names.back(), option->get_description());
                if (typed_ == names.front() && names.size() > 1) add(names.front(), option->get_description());
            }
        }
    }
    void commands(const CLI::App& parent) {
        for (const auto* command : commands_of(parent)) add(command->get_name(), command->get_description());
    }
    /// Of an option or a positional of `command`; `before`: what stands before the value in the same word.
    void values(const CLI::App& command, const CLI::Option& option, const std::string& before = {}) {
        for (const auto& choice : choices_of(option)) add(before + choice, option.get_description());
        const std::string kind = option.get_positional() ? option.get_name(true) : option.get_type_name();
        const std::string name = names_of(option).empty() ? "" : names_of(option).back();
        static const std::set<std::string> streams_by_id{"stream", "state"};
        static const std::set<std::string> of_files{"FILE", "LIB", "DEST", "EXPORT"};
        if (of_files.contains(kind)) files();
        else if (kind == "GROUP" || name == "--group") stored_groups(before);
        else if (kind == "TYPE" || name == "--type") stored_types(before);
        else if (kind == "STREAM" || kind == "PATTERN" || name == "--stream") stored_streams(before);
        else if (kind == "ID" && streams_by_id.contains(command.get_name())) stored_streams(before);
    }
    void print() const {
        Output& out = context_.out();
        for (const auto& line : found_) out.line(line);
        out.line(files_ ? ":files" : ":end");
    }

private:
    void stored_groups(const std::string& before) {
        for (const auto& group : context_.look().stats().groups) add(before + group.name, "a group of the file");
    }
    void stored_types(const std::string& before) {
        for (const auto& type : context_.look().types()) add(before + type.name, "a message type of the file");
    }
    void stored_streams(const std::string& before) {
        std::string pattern;
        for (const char c : typed_.substr(before.size())) {
            const bool special = c == '*' || c == '?' || c == '[';
            pattern += special ? std::string("[") + c + "]" : std::string(1, c);
        }
        for (const auto& stream : context_.look().streams({.pattern = pattern + "*", .limit = 50})) {
            add(before + stream.name, "a stream of the file");
        }
    }

    Context& context_;
    std::string typed_;
    std::vector<std::string> found_;
    bool files_ = false;
};

void find_candidates(Context& context, const std::vector<std::string>& before, const std::string& typed,
                     Candidates& found) {
    const CLI::App& program = context.tree().program;
    const auto at = reached(program, before, [&context](const CLI::App& command) {
        return context.tree().abouts.at(&command).needs_file;
    });
    context.path = at.file;
    context.wait = 0;
    if (at.waiting) return found.values(*at.command, *at.waiting);
    if (!at.plain_only && typed.starts_with("--") && typed.find('=') != std::string::npos) {
        const auto equals = typed.find('=');
        const auto* option = find_option(*at.command, typed.substr(0, equals));
        if (option && takes_value(*option)) found.values(*at.command, *option, typed.substr(0, equals + 1));
        return;
    }
    if (!at.plain_only && typed.starts_with("-")) return found.options(*at.command);
    if (at.plain == 0 && !at.plain_only) found.commands(*at.command);
    if (at.command == &program && at.file.empty()) found.add("help", "Says how a command is used");
    if (at.wants_file) return found.files();
    const auto positionals = positionals_of(*at.command);
    if (positionals.empty()) return;
    const auto& next = *positionals[std::min(at.plain, positionals.size() - 1)];
    if (at.plain < positionals.size() || next.get_items_expected_max() > 1) found.values(*at.command, next);
}

// ---- The man page -----------------------------------------------------------------

/// Text as roff shows it to the letter.
std::string roff(const std::string& text) {
    std::string escaped;
    for (const char c : text) {
        const bool begins = escaped.empty() || escaped.back() == '\n';
        if (begins && (c == '.' || c == '\'')) escaped += "\\&";
        if (c == '\\') escaped += "\\e";
        else if (c == '-') escaped += "\\-";
        else if (c == '\'') escaped += "\\(aq";
        else if (c == '`') escaped += "\\(ga";
        else if (c == '^') escaped += "\\(ha";
        else if (c == '~') escaped += "\\(ti";
        else escaped += c;
    }
    return escaped;
}

/// An argument of a macro, in quotes.
std::string in_quotes(const std::string& text) {
    std::string escaped;
    for (const char c : roff(text)) escaped += c == '"' ? std::string("\\(dq") : std::string(1, c);
    return '"' + escaped + '"';
}

class ManPage {
public:
    explicit ManPage(const Tree& tree) : tree_(tree) {}

    std::string write() {
        text_ = ".TH SOURCED 1 \"\" " + in_quotes("sourced " + versions().sourced) + " \"User Commands\"\n";
        section("NAME");
        text_ += "sourced \\- look into a file of the sourced engine, run it and mend it\n";
        section("SYNOPSIS");
        text_ += ".B sourced\n[\\fIOPTIONS\\fR] \\fIFILE\\fR [\\fICOMMAND\\fR ...]\n";
        section("DESCRIPTION");
        text_ += roff(
            "Shows what is in a file of the engine: messages, streams, groups, what caused what. FILE alone prints an\n"
            "overview. The file is opened for reading only unless a command changes it, and it is never created. What\n"
            "changes it shows its plan first, and asks.\n");
        section("OPTIONS");
        text_ += "They stand before or behind the command.\n";
        options(tree_.program);
        section("COMMANDS");
        for (const auto& [title, commands] : sections(tree_.program)) {
            for (const auto* command : commands) write_command(*command);
        }
        section("EXIT STATUS");
        for (const auto& [status, meaning] : statuses) entry(std::to_string(status), meaning);
        section("ENVIRONMENT");
        entry("SOURCED_PAGER, PAGER", "What shows text that is longer than the terminal; less where neither is set.");
        entry("NO_COLOR", "No colours, unless --color always says otherwise.");
        entry("TERM", "dumb: neither colours nor a pager.");
        return std::move(text_);
    }

private:
    static constexpr std::pair<int, const char*> statuses[] = {
        {0, "Done."},
        {1, "It failed."},
        {2, "The command line was wrong."},
        {3, "A violation was found."},
        {4, "What was asked for is not there."},
        {5, "Another process holds the file."},
        {130, "Interrupted."},
    };

    void section(const std::string& title) { text_ += ".SH " + in_quotes(title) + "\n"; }
    void entry(const std::string& name, const std::string& meaning) {
        text_ += ".TP\n.B " + in_quotes(name) + "\n" + roff(meaning) + "\n";
    }
    void options(const CLI::App& command) {
        for (const auto* option : options_of(command)) {
            if (command.get_parent() && option == command.get_help_ptr()) continue;
            std::string names;
            for (const auto& name : names_of(*option)) names += (names.empty() ? "" : ", ") + name;
            if (takes_value(*option)) names += " " + value_of(*option);
            std::string text = option->get_description() + ".";
            if (const auto given = option->get_default_str(); !given.empty()) text += " Default: " + given + ".";
            entry(names, text);
        }
    }
    /// Lines that are indented stay as they are, the others are filled.
    void paragraphs(const std::string& lines) {
        bool filled = true;
        text_ += ".PP\n";
        std::istringstream stream(lines);
        for (std::string line; std::getline(stream, line);) {
            if (line.empty()) {
                text_ += ".sp\n";
                continue;
            }
            if (filled != (line[0] != ' ')) text_ += filled ? ".nf\n" : ".fi\n";
            filled = line[0] != ' ';
            text_ += roff(line) + "\n";
        }
        if (!filled) text_ += ".fi\n";
    }
    void examples(const std::string& lines) {
        text_ += ".PP\n.nf\n";
        std::istringstream stream(lines);
        for (std::string line; std::getline(stream, line);) {
            const auto begin = line.find_first_not_of(' ');
            if (begin != std::string::npos) text_ += roff(line.substr(begin)) + "\n";
        }
        text_ += ".fi\n";
    }
    void write_command(const CLI::App& command) {
        const About& about = tree_.abouts.at(&command);
        std::string usage = path_of(command);
        for (const auto* operand : positionals_of(command)) usage += " " + operand->get_name(true);
        text_ += ".SS " + in_quotes(usage) + "\n" + roff(about.summary + ".") + "\n";
        for (const auto* operand : positionals_of(command)) {
            entry(operand->get_name(true), operand->get_description() + ".");
        }
        options(command);
        if (!about.more.empty()) paragraphs(about.more);
        examples(about.examples);
        for (const auto* below : commands_of(command)) write_command(*below);
    }

    const Tree& tree_;
    std::string text_;
};

// ---- The commands -----------------------------------------------------------------

struct CompletionOptions {
    std::string shell;
};

Exit show_completion(Context& context, const CompletionOptions& options) {
    const bool bash = options.shell == "bash";
    const std::string script = bash ? bash_script : options.shell == "zsh" ? zsh_script : fish_script;
    context.out().line(script.substr(0, script.size() - 1));
    return Exit::ok;
}

Exit show_manual(Context& context) {
    const std::string page = ManPage(context.tree()).write();
    context.out().line(page.substr(0, page.size() - 1));
    return Exit::ok;
}

}  // namespace

Exit complete(Context& context, const std::vector<std::string>& words) {
    const std::string typed = words.empty() ? "" : words.back();
    std::vector<std::string> before(words.begin(), words.empty() ? words.end() : words.end() - 1);
    Candidates found(context, typed);
    const CLI::App* asked = &context.tree().program;
    if (!before.empty() && before.front() == "help") {
        for (std::size_t i = 1; i < before.size() && asked; ++i) asked = find_command(*asked, before[i]);
        if (asked) found.commands(*asked);
        found.print();
        return Exit::ok;
    }
    try {
        find_candidates(context, before, typed, found);
    } catch (const Error&) {  // a wrong line or a file that cannot be read: nobody is asking for the reason now
    }
    found.print();
    return Exit::ok;
}

void add_completion(Commands& commands) {
    auto [command, options] = commands.add<CompletionOptions>(
        {"completion", "Prints what a shell needs to complete command lines of sourced",
         "sourced completion bash > ~/.local/share/bash-completion/completions/sourced\n"
         "sourced completion zsh > ~/.zfunc/_sourced  # a folder of $fpath\n"
         "sourced completion fish > ~/.config/fish/completions/sourced.fish",
         "An installed sourced has brought these files along.", false},
        show_completion);
    command.add_option("SHELL", options.shell, "The shell")
        ->required()
        ->check(CLI::IsMember({"bash", "zsh", "fish"}));

    commands.add({"manual", "Prints the man page", "sourced manual | man -l -", {}, false}, show_manual).group("");
}

}  // namespace sourced::inspector
