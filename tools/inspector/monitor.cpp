// What monitoring asks: is all well?
#include "inspector.hpp"
#include "times.hpp"

#include <algorithm>

namespace sourced::inspector {
namespace {

struct CheckOptions {
    std::int64_t max_lag = -1;
    std::string max_age;
    std::vector<std::string> groups;
};

/// As monitoring counts: its exit statuses are not those of other commands.
enum class Severity : int { ok = 0, warning = 1, critical = 2 };

const char* name_of(Severity severity) {
    switch (severity) {
    case Severity::ok: return "ok";
    case Severity::warning: return "warning";
    case Severity::critical: break;
    }
    return "critical";
}
std::string upper_name_of(Severity severity) {
    std::string name = name_of(severity);
    for (char& letter : name) letter = static_cast<char>(letter - 'a' + 'A');
    return name;
}

struct Problem {
    Severity severity = Severity::critical;
    std::string group{};  ///< empty: of the file
    std::string text;
};

struct Report {
    std::vector<Problem> problems{};
    std::vector<GroupInfo> groups{};

    [[nodiscard]] Severity severity() const {
        Severity worst = Severity::ok;
        for (const auto& problem : problems) worst = std::max(worst, problem.severity);
        return worst;
    }
};

void judge(Report& report, const GroupInfo& group, const CheckOptions& options, std::optional<Duration> max_age) {
    const auto found = [&](Severity severity, const std::string& text) {
        report.problems.push_back({severity, group.name, text});
    };
    if (!group.active) {
        const std::string why = group.error_type.empty() ? group.reason : group.error_type + ": " + group.error_text;
        found(Severity::critical, "is stopped" + (why.empty() ? "" : " (" + why + ")"));
    }
    if (group.parked > 0) found(Severity::critical, "has " + count_text(group.parked, "parked stream"));
    if (options.max_lag >= 0 && group.lag > options.max_lag) {
        found(Severity::warning, "is " + count_text(group.lag, "message", group.lag_estimated) + " behind, more than " +
                                     grouped(options.max_lag));
    }
    if (max_age && group.lag > 0 && group.lag_time > *max_age) {
        found(Severity::warning,
              "is " + duration_text(group.lag_time) + " behind, more than " + duration_text(*max_age));
    }
    if (group.retrying > 0) {
        found(Severity::warning, "has " + count_text(group.retrying, "stream") + " waiting for a retry");
    }
}

Report look(Context& context, const CheckOptions& options, std::optional<Duration> max_age) {
    Report report;
    try {
        Stats stats = context.look().stats();
        for (const auto& name : options.groups) {
            const bool there = std::any_of(stats.groups.begin(), stats.groups.end(),
                                           [&](const GroupInfo& group) { return group.name == name; });
            if (!there) report.problems.push_back({Severity::critical, name, "is not there"});
        }
        for (auto& group : stats.groups) {
            const auto& wanted = options.groups;
            if (!wanted.empty() && std::find(wanted.begin(), wanted.end(), group.name) == wanted.end()) continue;
            judge(report, group, options, max_age);
            report.groups.push_back(std::move(group));
        }
    } catch (const Failed& failed) {
        if (failed.status == Exit::usage) throw;
        report.problems.push_back({Severity::critical, {}, failed.what()});
    } catch (const std::exception& error) {
        report.problems.push_back({Severity::critical, {}, error.what()});
    }
    std::stable_sort(report.problems.begin(), report.problems.end(),
                     [](const Problem& one, const Problem& other) { return one.severity > other.severity; });
    return report;
}

std::string problem_text(const Problem& problem) {
    return (problem.group.empty() ? "" : in_quotes(problem.group) + " ") + printable(problem.text);
}

/// A label of performance data: in quotes, with those inside doubled, and neither = nor |.
std::string label(const std::string& group, const std::string& what) {
    std::string text = "'";
    for (const char each : printable(group)) {
        if (each == '\'') text += "''";
        else text += each == '=' || each == '|' ? '_' : each;
    }
    return text + " " + what + "'";
}

std::string line_of(const Report& report, const CheckOptions& options, std::optional<Duration> max_age) {
    std::string text = "SOURCED " + upper_name_of(report.severity()) + " - ";
    if (report.problems.empty()) text += count_text(std::ssize(report.groups), "group");
    for (std::size_t i = 0; i < report.problems.size(); ++i) {
        text += (i > 0 ? "; " : "") + problem_text(report.problems[i]);
    }
    std::replace(text.begin(), text.end(), '|', '_');
    const std::string lag_bound = options.max_lag >= 0 ? std::to_string(options.max_lag) : "";
    const auto in_seconds = [](Duration time) {
        return std::to_string(std::chrono::duration_cast<std::chrono::seconds>(time).count());
    };
    for (std::size_t i = 0; i < report.groups.size(); ++i) {
        const auto& group = report.groups[i];
        text += (i == 0 ? " | " : " ") + label(group.name, "lag") + "=" + std::to_string(group.lag) + ";" + lag_bound +
                " " + label(group.name, "age") + "=" + in_seconds(group.lag > 0 ? group.lag_time : Duration{}) + "s;" +
                (max_age ? in_seconds(*max_age) : "");
    }
    return text;
}

void write_report(Json& json, const Report& report) {
    json.begin().field("status", name_of(report.severity())).key("problems").begin_array();
    for (const auto& problem : report.problems) {
        json.begin().field("severity", name_of(problem.severity)).key("group");
        if (problem.group.empty()) json.null();
        else json.value(problem.group);
        json.field("text", problem.text).end();
    }
    json.end_array().key("groups").begin_array();
    for (const auto& group : report.groups) {
        json.begin().field("group", group.name).field("active", group.active).field("lag", group.lag);
        json.field("lag_seconds", std::chrono::duration<double>(group.lag_time).count());
        json.field("lag_estimated", group.lag_estimated).field("retrying", group.retrying);
        json.field("parked", group.parked).end();
    }
    json.end_array().end();
}

Exit check(Context& context, const CheckOptions& options) {
    std::optional<Duration> max_age;
    if (!options.max_age.empty()) max_age = parse_duration(options.max_age);
    (void)context.file();
    const Report report = look(context, options, max_age);
    if (context.out().text()) {
        context.out().line(line_of(report, options, max_age));
    } else {
        Json json;
        write_report(json, report);
        context.out().object(json.text());
    }
    return static_cast<Exit>(report.severity());
}

}  // namespace

void add_check(Commands& commands) {
    auto [command, options] = commands.add<CheckOptions>(
        {"check", "Tells monitoring whether all is well, by its exit status",
         "  sourced shop.db check --max-lag 1000 --max-age 5m\n"
         "  sourced shop.db check --max-age 1h --group mails --group invoices",
         "One line as monitoring systems read it, with the lag and age of each group\n"
         "behind the bar. Exit status:\n"
         "  0  ok\n"
         "  1  warning: a group is further behind than it should be, or a stream waits for\n"
         "     a retry\n"
         "  2  critical: a group is stopped or not there, a stream is parked, the file\n"
         "     cannot be read, or the command line is wrong"},
        check);
    command.add_option("--max-lag", options.max_lag, "Most messages that a group may have open")
        ->check(CLI::NonNegativeNumber);
    command.add_option("--max-age", options.max_age, "Longest that a message may wait for a group")
        ->type_name("DURATION");
    command.add_option("--group", options.groups, "Only this group; may be given several times")->type_name("GROUP");
}

}  // namespace sourced::inspector
