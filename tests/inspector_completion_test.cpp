// What shells and man are told of the inspector.
#include <doctest/doctest.h>

#include <set>

#include "inspector.hpp"
#include "sourced.hpp"

using support::inspect;

namespace {

/// A shop.db with two streams, in a folder that is left for it.
std::string shop(const support::TemporaryDirectory& directory) {
    sourced::StoreOptions options;
    options.path = directory.file("shop.db");
    const auto store = sourced::open_store(options);
    store->append("cart-1", {support::message(sourced::Kind::event, "cart.opened")});
    (void)store->register_group({"mails", {"cart.opened"}, {}});
    store->append("order:7", {support::message(sourced::Kind::event, "order.opened")});
    return options.path;
}

/// What bash offers at the end of a line, in the folder of `directory`, a word a line.
std::string offered(const support::TemporaryDirectory& directory, const std::string& line) {
    // As readline takes a line apart: at blanks, and at = and : too.
    const std::string script = R"sh(
source <(sourced completion bash)
COMP_LINE=$1 COMP_POINT=${#1} COMP_WORDS=() word=
for ((i = 0; i < ${#1}; i++)); do
    c=${1:i:1}
    case $c in
        ' ') [[ -z $word ]] || COMP_WORDS+=("$word"); word= ;;
        [=:])
            [[ -z $word ]] || COMP_WORDS+=("$word")
            COMP_WORDS+=("$c") word=
            ;;
        *) word+=$c ;;
    esac
done
case $1 in *[=:]) ;; *) COMP_WORDS+=("$word") ;; esac
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
function_of=$(complete -p sourced) function_of=${function_of##*-F } function_of=${function_of%% *}
"$function_of"
printf '%s\n' "${COMPREPLY[@]}"
)sh";
    std::ofstream(directory.file("script")) << script;
    const std::string command = "cd '" + directory.path() + "' && PATH='" + support::Program::folder() +
                                "':$PATH bash script '" + line + "' >offered 2>&1";
    CHECK(std::system(command.c_str()) == 0);
    std::ifstream file(directory.file("offered"));
    std::string words{std::istreambuf_iterator<char>(file), {}};
    std::filesystem::remove(directory.file("script"));
    std::filesystem::remove(directory.file("offered"));
    return words;
}

/// Runs a checker of such files, where it is installed.
void check_with(const std::string& program, const std::string& options, const std::string& text) {
    if (std::system(("command -v " + program + " >/dev/null").c_str()) != 0) {
        MESSAGE(program << " is not installed: not checked");
        return;
    }
    const support::TemporaryDirectory directory;
    std::ofstream(directory.file("text")) << text;
    const std::string file = "'" + directory.file("text") + "'";
    const std::string said = "'" + directory.file("said") + "'";
    CHECK(std::system((program + " " + options + " " + file + " >" + said + " 2>&1").c_str()) == 0);
    std::ifstream words(directory.file("said"));
    CHECK(std::string{std::istreambuf_iterator<char>(words), {}}.empty());
}

}  // namespace

TEST_CASE("Completion: bash completes commands, options and their values") {
    const support::TemporaryDirectory directory;
    shop(directory);
    CHECK(offered(directory, "sourced shop.db compl") == "completion\n");
    CHECK(offered(directory, "sourced shop.db streams --lim") == "--limit\n");
    CHECK(offered(directory, "sourced shop.db streams --output j") == "json\njsonl\n");
    CHECK(offered(directory, "sourced shop.db streams --output=j") == "json\njsonl\n");
    CHECK(offered(directory, "sourced shop.db streams --output=") == "text\njson\njsonl\n");
    CHECK(offered(directory, "sourced shop.db streams -o j") == "json\njsonl\n");
    CHECK(offered(directory, "sourced completion ") == "bash\nzsh\nfish\n");
    CHECK(offered(directory, "sourced help strea").find("streams\n") != std::string::npos);
    CHECK(offered(directory, "sourced shop.db nonsense ") == "\n");
}

TEST_CASE("Completion: bash completes files where a file is expected") {
    const support::TemporaryDirectory directory;
    shop(directory);
    CHECK(offered(directory, "sourced sh") == "shop.db\n");
    CHECK(offered(directory, "sourced --app sh") == "shop.db\n");
    CHECK(offered(directory, "sourced --app=sh") == "shop.db\n");
    CHECK(offered(directory, "sourced stats sh") == "shop.db\n");
    CHECK(offered(directory, "sourced other.db import sh") == "shop.db\n");
    CHECK(offered(directory, "sourced shop.db stats sh") == "\n");
}

TEST_CASE("Completion: bash completes streams, types and groups from the file, and never creates one") {
    const support::TemporaryDirectory directory;
    shop(directory);
    CHECK(offered(directory, "sourced shop.db stream ca") == "cart-1\n");
    CHECK(offered(directory, "sourced shop.db stream order:") == "7\n");
    CHECK(offered(directory, "sourced shop.db stream [") == "\n");
    CHECK(offered(directory, "sourced shop.db log --stream ca") == "cart-1\n");
    CHECK(offered(directory, "sourced shop.db streams ca") == "cart-1\n");
    CHECK(offered(directory, "sourced shop.db groups sto") == "stop\n");
    CHECK(offered(directory, "sourced shop.db groups stop m") == "mails\n");
    CHECK(offered(directory, "sourced shop.db check --group m") == "mails\n");
    CHECK(offered(directory, "sourced shop.db log --type=order") == "order.opened\n");
    CHECK(offered(directory, "sourced other.db stream ca") == "\n");
    CHECK(!std::filesystem::exists(directory.file("other.db")));
}

TEST_CASE("Completion: nothing is hidden that the help names, and nothing named that is hidden") {
    const auto all = inspect({"__complete", "shop.db", ""}).out;
    CHECK(all.find("stats\tShows the whole file in numbers\n") != std::string::npos);
    CHECK(all.find("completion\t") != std::string::npos);
    CHECK(all.find("manual") == std::string::npos);
    CHECK(all.find("__complete") == std::string::npos);
    CHECK(inspect({"--help"}).out.find("manual") == std::string::npos);
}

TEST_CASE("Completion: zsh and fish can read their scripts") {
    check_with("bash", "-n", inspect({"completion", "bash"}).out);
    check_with("zsh", "-n", inspect({"completion", "zsh"}).out);
    check_with("fish", "-n", inspect({"completion", "fish"}).out);
    const auto ran = inspect({"completion", "fishy"});
    CHECK(ran.status == 2);
    CHECK(ran.err == "sourced: SHELL is one of bash, zsh, fish, not 'fishy'. Did you mean 'fish'?\n");
    CHECK(inspect({"completion"}).err == "sourced: 'completion' needs SHELL; see sourced completion --help\n");
}

TEST_CASE("Man page: it describes every command, option and exit status") {
    const auto ran = inspect({"manual"});
    CHECK(ran.status == 0);
    CHECK(ran.out.starts_with(".TH SOURCED 1 "));
    for (const char* heading :
         {"NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "COMMANDS", "EXIT STATUS", "ENVIRONMENT"}) {
        CAPTURE(heading);
        CHECK(ran.out.find("\n.SH \"" + std::string(heading) + "\"\n") != std::string::npos);
    }
    std::istringstream commands(inspect({"__complete", "shop.db", ""}).out);
    for (std::string line; std::getline(commands, line) && line[0] != ':';) {
        const std::string name = line.substr(0, line.find('\t'));
        CAPTURE(name);
        CHECK(ran.out.find("\n.SS \"" + name) != std::string::npos);
    }
    CHECK(ran.out.find("\n.B \"\\-o, \\-\\-output text|json|jsonl\"\n") != std::string::npos);
    CHECK(ran.out.find("\nsourced shop.db streams") != std::string::npos);
    // A grammar keeps its lines and its indentation.
    CHECK(ran.out.find("\n.nf\n    expr       = and\\-expr { \"or\" and\\-expr } ;\n") != std::string::npos);
    // Only what we meant to be a macro begins like one.
    std::istringstream lines(ran.out);
    for (std::string line; std::getline(lines, line);) {
        if (line.empty() || (line[0] != '.' && line[0] != '\'')) continue;
        CAPTURE(line);
        const std::set<std::string> macros{".TH", ".SH", ".SS", ".TP", ".B ", ".PP", ".nf", ".fi", ".sp"};
        CHECK(macros.contains(line.substr(0, 3)));
    }
    check_with("groff", "-man -Tutf8 -ww -z", ran.out);
    check_with("mandoc", "-Tlint -Werror", ran.out);
}
