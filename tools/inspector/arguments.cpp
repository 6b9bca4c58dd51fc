#include "arguments.hpp"

#include "inspector.hpp"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <utility>

namespace sourced::inspector {
namespace {

std::string joined(const std::vector<std::string>& words, const std::string& between) {
    std::string text;
    for (const auto& word : words) text += (text.empty() ? "" : between) + word;
    return text;
}

std::vector<std::string> names_of(const std::vector<const CLI::App*>& commands) {
    std::vector<std::string> names;
    for (const auto* command : commands) names.push_back(command->get_name());
    return names;
}

[[noreturn]] void fail(const CLI::App& command, const std::string& text, const std::string& hint) {
    const std::string path = path_of(command);
    const std::string help = "; see sourced " + (path.empty() ? "" : path + " ") + "--help";
    throw Failed(Exit::usage, text + (hint.empty() ? help : hint));
}

/// Goes through the words one by one.
class Reader {
public:
    Reader(const CLI::App& program, const std::vector<std::string>& words,
           const std::function<bool(const CLI::App&)>& takes_file)
        : program_(program), words_(words), takes_file_(takes_file), command_(&program) {}

    Arguments read() {
        read_words();
        arguments_.command = command_;
        if (!arguments_.help && !arguments_.version) finish();
        return std::move(arguments_);
    }
    Reached read_unfinished() {
        unfinished_ = true;
        read_words();
        const bool wants_file = command_ == &program_ || takes_file_(*command_);
        return {command_, waiting_, arguments_.file, arguments_.file.empty() && wants_file, plain_.size(), plain_only_};
    }

private:
    void read_words() {
        while (at_ < words_.size()) {
            const std::string& word = words_[at_++];
            if (!plain_only_ && word == "--") plain_only_ = true;
            else if (plain_only_ || !is_option(word)) plain(word);
            else if (word.starts_with("--")) long_option(word.substr(2));
            else short_options(word.substr(1));
        }
    }
    bool is_option(const std::string& word) const {
        if (word.size() < 2 || word[0] != '-') return false;
        return std::isdigit(static_cast<unsigned char>(word[1])) == 0;  // a negative number
    }

    // ---- words that are no options

    void plain(const std::string& word) {
        const auto* below = plain_only_ || !plain_.empty() ? nullptr : find_command(*command_, word);
        if (below) return enter(*below);
        if (command_ == &program_ && !arguments_.file.empty()) {
            if (word != "help") unknown_command(word);
            arguments_.help = true;  // sourced FILE help COMMAND
            return;
        }
        if (arguments_.file.empty() && (command_ == &program_ || takes_file_(*command_))) {
            arguments_.file = word;
            return;
        }
        plain_.push_back(word);
    }
    void enter(const CLI::App& command) {
        command_ = &command;
        arguments_.words.push_back(command.get_name());
    }
    [[noreturn]] void unknown_command(const std::string& word) const {
        const auto names = names_of(commands_of(program_));
        const std::string& first = arguments_.file;
        // `sourced staats shop.db`: the first is no file, and nearly a command.
        if (!std::filesystem::exists(first) && std::filesystem::exists(word)) {
            fail(program_, "there is no command '" + first + "'", did_you_mean(first, names));
        }
        fail(program_, "there is no command '" + word + "'", did_you_mean(word, names));
    }

    // ---- options

    [[noreturn]] void unknown_option(const std::string& word) const {
        std::vector<std::string> names;
        for (const auto* command = command_; command; command = command->get_parent()) {
            for (const auto* option : options_of(*command)) {
                for (auto& name : inspector::names_of(*option)) {
                    if (name.starts_with("--")) names.push_back(std::move(name));
                }
            }
        }
        std::string hint = did_you_mean(word, names);
        for (const auto* command : commands_of(program_)) {
            for (const auto* option : options_of(*command)) {
                const auto theirs = inspector::names_of(*option);
                if (command_ != &program_ || std::find(theirs.begin(), theirs.end(), word) == theirs.end()) continue;
                hint = " before the command: it belongs behind it, sourced FILE COMMAND " + word;
            }
        }
        const std::string of = command_ == &program_ ? "" : " for '" + path_of(*command_) + "'";
        fail(*command_, "there is no option '" + word + "'" + of, hint);
    }
    void long_option(const std::string& word) {
        const auto equals = word.find('=');
        const std::string name = word.substr(0, equals);
        const auto* option = find_option(*command_, "--" + name);
        if (!option) unknown_option("--" + name);
        if (equals == std::string::npos) return take(*option, "--" + name);
        if (!takes_value(*option)) return arguments_.words.push_back("--" + word);
        value(*option, "--" + name, word.substr(equals + 1));
    }
    void short_options(const std::string& letters) {
        for (std::size_t i = 0; i < letters.size(); ++i) {
            const std::string letter = letters.substr(i, 1);
            const auto* option = find_option(*command_, "-" + letter);
            if (!option) unknown_option("-" + (i == 0 ? letters : letter));
            if (!takes_value(*option) || i + 1 == letters.size()) {
                take(*option, "-" + letter);
                continue;
            }
            const std::size_t from = letters[i + 1] == '=' ? i + 2 : i + 1;
            return value(*option, "-" + letter, letters.substr(from));
        }
    }
    /// An option whose value, if it takes one, is the next word, whatever that begins with.
    void take(const CLI::Option& option, const std::string& name) {
        if (option.check_lname("help")) {
            arguments_.help = true;
        } else if (option.check_lname("version")) {
            arguments_.version = true;
        } else if (!takes_value(option)) {
            arguments_.words.push_back(name);
        } else if (words_.size() - at_ < static_cast<std::size_t>(option.get_items_expected_min()) && unfinished_) {
            waiting_ = &option;
            at_ = words_.size();
        } else {
            values(option, name);
        }
    }
    void values(const CLI::Option& option, const std::string& name) {
        const auto count = static_cast<std::size_t>(option.get_items_expected_min());
        if (words_.size() - at_ < count) {
            const std::string many = count == 1 ? "a value" : std::to_string(count) + " values";
            const std::string given = at_ == words_.size() ? ", and none was given" : ", and fewer were given";
            fail(*command_, name + " takes " + many + ", " + value_of(option) + given, {});
        }
        value(option, name, words_[at_++]);
        for (std::size_t i = 1; i < count; ++i) arguments_.words.push_back(words_[at_++]);
    }
    void value(const CLI::Option& option, const std::string& name, const std::string& text) {
        check(option, name, text);
        arguments_.words.push_back(name);
        arguments_.words.push_back(text);
    }
    void check(const CLI::Option& option, const std::string& name, const std::string& text) const {
        const auto choices = choices_of(option);
        if (choices.empty() || std::find(choices.begin(), choices.end(), text) != choices.end()) return;
        const std::string taken = name + " is one of " + joined(choices, ", ") + ", not '" + text + "'";
        const std::string hint = did_you_mean(text, choices);
        throw Failed(Exit::usage, taken + hint);
    }

    // ---- the end

    void finish() {
        const auto takes = positionals_of(*command_);
        std::size_t most = 0;
        for (const auto* each : takes) most += static_cast<std::size_t>(std::max(1, each->get_items_expected_max()));
        if (plain_.size() > most) too_many(plain_[most], most);
        for (std::size_t i = 0; i < std::min(plain_.size(), takes.size()); ++i) {
            check(*takes[i], takes[i]->get_name(), plain_[i]);
        }
        for (std::size_t i = plain_.size(); i < takes.size(); ++i) {
            if (takes[i]->get_required()) missing(*takes[i]);
        }
        if (plain_.empty()) return;
        arguments_.words.push_back("--");
        arguments_.words.insert(arguments_.words.end(), plain_.begin(), plain_.end());
    }
    [[noreturn]] void too_many(const std::string& word, std::size_t most) const {
        const auto below = commands_of(*command_);
        const std::string path = path_of(*command_);
        if (most == 0 && !below.empty()) {
            fail(*command_, "there is no command '" + path + " " + word + "'", did_you_mean(word, names_of(below)));
        }
        fail(*command_, "'" + path + "' does not take '" + word + "'", {});
    }
    [[noreturn]] void missing(const CLI::Option& option) const {
        fail(*command_, "'" + path_of(*command_) + "' needs " + option.get_name(), {});
    }

    const CLI::App& program_;
    const std::vector<std::string>& words_;
    const std::function<bool(const CLI::App&)>& takes_file_;
    const CLI::App* command_;
    std::size_t at_ = 0;
    bool plain_only_ = false;
    bool unfinished_ = false;
    const CLI::Option* waiting_ = nullptr;
    std::vector<std::string> plain_;
    Arguments arguments_;
};

}  // namespace

Arguments arrange(const CLI::App& program, const std::vector<std::string>& words,
                  const std::function<bool(const CLI::App&)>& takes_file) {
    return Reader(program, words, takes_file).read();
}

Reached reached(const CLI::App& program, const std::vector<std::string>& words,
                const std::function<bool(const CLI::App&)>& takes_file) {
    return Reader(program, words, takes_file).read_unfinished();
}

// ---- What the tree says ---------------------------------------------------------

std::vector<const CLI::App*> commands_of(const CLI::App& command) {
    return command.get_subcommands([](const CLI::App* each) { return !each->get_group().empty(); });
}

std::vector<const CLI::Option*> positionals_of(const CLI::App& command) {
    return command.get_options([](const CLI::Option* each) { return each->get_positional(); });
}

std::vector<const CLI::Option*> options_of(const CLI::App& command) {
    return command.get_options(
        [](const CLI::Option* each) { return each->nonpositional() && !each->get_group().empty(); });
}

const CLI::App* find_command(const CLI::App& parent, const std::string& name) {
    for (const auto* command : parent.get_subcommands([](const CLI::App*) { return true; })) {
        if (command->get_name() == name) return command;
    }
    return nullptr;
}

const CLI::Option* find_option(const CLI::App& command, const std::string& name) {
    for (const auto* level = &command; level; level = level->get_parent()) {
        for (const auto* option : level->get_options()) {
            const auto names = names_of(*option);
            if (std::find(names.begin(), names.end(), name) != names.end()) return option;
        }
    }
    return nullptr;
}

std::string path_of(const CLI::App& command) {
    if (!command.get_parent()) return {};
    const std::string above = path_of(*command.get_parent());
    return above + (above.empty() ? "" : " ") + command.get_name();
}

std::vector<std::string> names_of(const CLI::Option& option) {
    std::vector<std::string> names;
    for (const auto& name : option.get_snames()) names.push_back("-" + name);
    for (const auto& name : option.get_lnames()) names.push_back("--" + name);
    return names;
}

bool takes_value(const CLI::Option& option) { return option.get_items_expected_min() > 0; }

std::vector<std::string> choices_of(const CLI::Option& option) {
    const std::string type = option.get_type_name();
    const auto begin = type.find('{');
    const auto end = type.find('}', begin);
    if (begin == std::string::npos || end == std::string::npos) return {};
    std::vector<std::string> choices(1);
    for (const char c : type.substr(begin + 1, end - begin - 1)) {
        if (c == ',') choices.emplace_back();
        else choices.back() += c;
    }
    return choices;
}

std::string value_of(const CLI::Option& option) {
    if (const auto choices = choices_of(option); !choices.empty()) return joined(choices, "|");
    const std::string type = option.get_type_name();
    const std::string name = type.substr(0, type.find(':'));
    const std::string one = name == "INT" || name == "UINT" || name == "FLOAT" ? "N" : name;
    std::string all = one;
    for (int more = option.get_items_expected_min(); more > 1; --more) all += " " + one;
    return all;
}

}  // namespace sourced::inspector
