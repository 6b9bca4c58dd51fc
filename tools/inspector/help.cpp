// What the program says of itself.
#include "arguments.hpp"
#include "inspector.hpp"

#include <algorithm>
#include <sstream>
#include <utility>

namespace sourced::inspector {
namespace {

constexpr std::size_t whole_width = 100;
constexpr std::size_t most_name_width = 28;

std::vector<std::string> lines_of(const std::string& text) {
    std::vector<std::string> lines;
    std::istringstream stream(text);
    for (std::string line; std::getline(stream, line);) lines.push_back(line);
    return lines;
}

/// Words in lines of at most so many columns.
std::vector<std::string> wrapped(const std::string& text, std::size_t columns) {
    std::vector<std::string> lines(1);
    std::istringstream words(text);
    for (std::string word; words >> word;) {
        std::string& line = lines.back();
        if (!line.empty() && line.size() + 1 + word.size() > columns) lines.push_back(word);
        else line += (line.empty() ? "" : " ") + word;
    }
    return lines;
}

/// Lines that are too long are wrapped, with their indentation; the others stay as they are.
std::string paragraphs(const std::string& text) {
    std::string all;
    for (const auto& line : lines_of(text)) {
        if (line.size() <= whole_width) {
            all += line + "\n";
            continue;
        }
        const std::string indentation(line.find_first_not_of(' '), ' ');
        for (const auto& part : wrapped(line, whole_width - indentation.size())) all += indentation + part + "\n";
    }
    return all;
}

struct Entry {
    std::string name;
    std::string text;
};

std::string list(const std::vector<Entry>& entries) {
    std::size_t width = 0;
    for (const auto& entry : entries) {
        if (entry.name.size() <= most_name_width) width = std::max(width, entry.name.size());
    }
    std::string listed;
    for (const auto& entry : entries) {
        std::string begin = "  " + entry.name;
        if (entry.name.size() > width) {
            listed += begin + "\n";
            begin.clear();
        }
        for (const auto& line : wrapped(entry.text, whole_width - width - 4)) {
            begin.resize(width + 4, ' ');
            listed += begin + line + "\n";
            begin.clear();
        }
    }
    return listed;
}

/// Of an option: "-o, --output text|json|jsonl".
std::string spelled(const CLI::Option& option) {
    std::string text;
    for (const auto& name : names_of(option)) text += (text.empty() ? "" : ", ") + name;
    if (text.starts_with("--")) text = "    " + text;
    return takes_value(option) ? text + " " + value_of(option) : text;
}

std::string described(const CLI::Option& option) {
    std::string text = option.get_description();
    if (const std::string value = option.get_default_str(); !value.empty()) text += " [" + value + "]";
    return text;
}

std::vector<Entry> options(const CLI::App& command) {
    std::vector<Entry> entries;
    const bool program = !command.get_parent();
    for (const auto* option : options_of(command)) {
        if (program || option != command.get_help_ptr()) entries.push_back({spelled(*option), described(*option)});
    }
    return entries;
}

std::vector<Entry> commands(const std::vector<const CLI::App*>& all) {
    std::vector<Entry> entries;
    for (const auto* command : all) entries.push_back({command->get_name(), command->get_description()});
    return entries;
}

/// The lines with what they do, one below the other.
std::string examples(const std::string& text) {
    std::vector<Entry> entries;
    std::size_t width = 0;
    for (const auto& line : lines_of(text)) {
        const auto begin = line.find_first_not_of(' ');
        if (begin == std::string::npos) continue;
        const auto remark = line.find("  # ");
        const auto end = line.find_last_not_of(' ', remark == std::string::npos ? line.size() : remark);
        const std::string does = remark == std::string::npos ? "" : line.substr(remark + 4);
        entries.push_back({line.substr(begin, end + 1 - begin), does});
        width = std::max(width, entries.back().name.size());
    }
    std::string shown;
    for (auto& [line, remark] : entries) {
        shown += "  " + line;
        if (!remark.empty()) shown += std::string(width - line.size(), ' ') + "  # " + remark;
        shown += "\n";
    }
    return shown;
}

struct Section {
    const char* title;
    std::vector<std::string> commands;
};

constexpr const char* program_examples =
    "sourced shop.db  # an overview\n"
    "sourced shop.db streams 'cart-*'  # streams whose id matches\n"
    "sourced shop.db stream cart-1  # what happened to one of them\n"
    "sourced shop.db groups  # who is how far behind\n"
    "sourced shop.db -o jsonl log | jq .type  # for other programs\n"
    "sourced help groups reset  # all about one command";

std::string program_help(const Tree& tree, const Output& out) {
    const auto heading = [&](const std::string& text) { return "\n" + out.paint(Style::heading, text) + "\n"; };
    std::string text = "Looks into a file of the engine, runs it and mends it.\n";
    text += heading("Usage:") + "  sourced FILE                      an overview of the file\n"
            "  sourced FILE COMMAND ...          what the commands below show and do\n"
            "  sourced help COMMAND              says how it is used\n"
            "  sourced --app LIB FILE COMMAND    the same with an application's types\n";
    for (const auto& [title, listed] : sections(tree.program)) {
        if (!listed.empty()) text += heading(title + ":") + list(commands(listed));
    }
    text += heading("Options, before or behind the command:") + list(options(tree.program));
    text += heading("Examples:") + examples(program_examples);
    text += heading("Exit status:") +
            "  0 ok, 1 failure, 2 wrong usage, 3 a violation was found, 4 not found, 5 busy,\n  130 interrupted\n";
    return text;
}

}  // namespace

std::vector<std::pair<std::string, std::vector<const CLI::App*>>> sections(const CLI::App& program) {
    const std::vector<Section> named{
        {"Look", {"stats", "streams", "stream", "message", "log", "tail", "trace", "flow", "state", "schema"}},
        {"Watch and steer", {"groups", "scheduled", "workers", "check"}},
        {"Run", {"send", "work", "replay"}},
        {"Move and mend", {"export", "import", "verify", "backup", "checkpoint"}},
        {"More", {}},  // and all that no section names
    };
    auto rest = commands_of(program);
    std::vector<std::pair<std::string, std::vector<const CLI::App*>>> all;
    for (const auto& section : named) {
        all.push_back({section.title, {}});
        for (const auto& name : section.commands) {
            const auto found = std::find(rest.begin(), rest.end(), find_command(program, name));
            if (found == rest.end()) continue;
            all.back().second.push_back(*found);
            rest.erase(found);
        }
    }
    all.back().second.insert(all.back().second.end(), rest.begin(), rest.end());
    return all;
}

std::string help_of(const Tree& tree, const CLI::App& command, const Output& out) {
    std::string text;
    if (!command.get_parent()) {
        text = program_help(tree, out);
    } else {
        const About& about = tree.abouts.at(&command);
        const auto heading = [&](const char* title) { return "\n" + out.paint(Style::heading, title) + "\n"; };
        std::string usage = "  sourced " + std::string(about.needs_file ? "FILE " : "[FILE] ") + path_of(command);
        std::vector<Entry> operands;
        for (const auto* operand : positionals_of(command)) {
            const std::string name = operand->get_name(true) + (operand->get_items_expected_max() > 1 ? "..." : "");
            usage += operand->get_required() ? " " + name : " [" + name + "]";
            operands.push_back({name, described(*operand)});
        }
        const auto below = commands_of(command);
        const auto own = options(command);
        if (!below.empty()) usage += " [COMMAND ...]";
        if (!own.empty()) usage += " [OPTIONS]";
        text = about.summary + ".\n" + heading("Usage:") + usage + "\n";
        if (!operands.empty()) text += "\n" + list(operands);
        if (!below.empty()) text += heading("Commands:") + list(commands(below));
        if (!own.empty()) text += heading("Options, and those of sourced --help:") + list(own);
        if (!about.more.empty()) text += "\n" + paragraphs(about.more);
        text += heading("Examples:") + examples(about.examples);
    }
    text.pop_back();  // the last newline
    return text;
}

}  // namespace sourced::inspector
