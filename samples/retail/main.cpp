// Plays a year of a shop: half a million order lines become commands, the commands
// events, the events read models. README.md tells more; messages.hpp and reactors.hpp
// are the shop.
#include "orders.hpp"
#include "progress.hpp"
#include "reactors.hpp"
#include "report.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <iostream>
#include <limits>
#include <optional>
#include <set>
#include <string>
#include <thread>

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using namespace retail;

namespace {

// What the program's exit status says.
enum Exit : int { complete = 0, failed = 1, usage = 2, skipped = 3, interrupted = 130 };
constexpr const char* exit_statuses =
    "Exit status: 0 complete and checked, 1 failed, 2 wrong arguments,\n"
    "3 complete but for malformed lines, 130 interrupted.";

constexpr std::size_t batch_size = 500;      // commands in one transaction
constexpr std::int64_t most_ahead = 20'000;  // lines sent and not yet in the read models: bounds the work in hand
constexpr auto all_records = std::numeric_limits<std::int64_t>::max();

struct Settings {
    std::string input;
    std::string db;
    bool resume = false;
    std::size_t workers = 2;
    std::int64_t most_records = all_records;
};

// The first Ctrl-C asks for a stop, the second ends the program at once.
volatile std::sig_atomic_t stop_asked = 0;

void stop_on_signals() {
    struct sigaction action {};
    action.sa_handler = [](int) { stop_asked = 1; };
    action.sa_flags = static_cast<int>(SA_RESETHAND | SA_RESTART);
    sigaction(SIGINT, &action, nullptr);
    sigaction(SIGTERM, &action, nullptr);
}

// Makes room for a fresh file. Only what an earlier replay left is removed.
void remove_earlier(const std::string& db) {
    if (!fs::exists(db)) return;
    if (!fs::is_regular_file(db)) throw std::runtime_error("'" + db + "' is no file");
    if (fs::file_size(db) > 0) {
        const std::set<std::string> ours{"invoice",  "revenue_by_country", "customer",
                                         "invoices", "revenue_by_month",   "customers"};
        for (const auto& group : sourced::open_store({.path = db})->stats().groups) {
            if (!ours.contains(group.name)) {
                throw std::runtime_error("'" + db + "' holds something else than a replay; it was left alone");
            }
        }
    }
    for (const char* suffix : {"", "-wal", "-shm"}) fs::remove(db + suffix);
}

// The last line that an earlier run sent. Lines are sent in order and in whole
// transactions, so everything before it is in the log as well.
std::optional<sourced::Message> last_sent(sourced::Store& store) {
    auto last = store.log({.types = {"invoice.record_line"}, .limit = 1, .backwards = true});
    if (last.empty()) return std::nullopt;
    return std::move(last.front());
}

// Lines that have reached the tables of revenue: these have few rows, so asking is cheap.
// Throws when a group has stopped, since no more would ever come.
std::int64_t lines_done(sourced::Store& store) {
    std::int64_t lines = 0;
    store.read([&](sourced::Reader& db) {
        if (const auto group =
                db.row("select name, coalesce(error_text, reason) from sourced_groups where status = 'stopped'")) {
            throw std::runtime_error("'" + group->text(0) + "' has stopped: " + group->text(1));
        }
        const auto row = db.row(
            "select min((select total(state ->> 'lines') from projection_revenue_by_country), "
            "(select total(state ->> 'lines') from projection_revenue_by_month))");
        lines = row ? row->integer(0) : 0;
    });
    return lines;
}

std::uintmax_t size_on_disk(const std::string& db) {
    return fs::file_size(db) + (fs::exists(db + "-wal") ? fs::file_size(db + "-wal") : 0);
}

fs::path program_folder() { return fs::canonical("/proc/self/exe").parent_path(); }

/// As it is typed by who stands in this folder.
std::string typed(const fs::path& path) {
    const auto near = fs::absolute(path).lexically_proximate(fs::current_path()).string();
    const std::string text = near.starts_with("..") ? path.string() : near.find('/') == near.npos ? "./" + near : near;
    constexpr const char* safe = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./";
    const bool plain = text.find_first_not_of(safe) == text.npos;
    return plain ? text : "'" + printable(text) + "'";
}

void show_warning(const sourced::LogRecord& record) {
    if (record.level >= sourced::Level::warning) std::cerr << "retail: " + printable(record.text) + "\n";
}

int replay(const Settings& settings) {
    std::optional<Progress> progress;
    const auto say = [&](const std::string& text) {
        if (progress) progress->clear();
        std::cerr << text << std::endl;
    };
    Lines input(settings.input, settings.most_records, [&](std::int64_t line, const std::string& problem) {
        say("line " + std::to_string(line) + ": " + printable(problem));
    });
    if (!settings.resume) remove_earlier(settings.db);

    sourced::App app({.path = settings.db, .claim_time = 2s, .log = show_warning});
    add_shop(app);
    const auto last = last_sent(app.store());
    const auto resume_from = last ? number_of(last->id) : 0;
    if (last) say("going on after line " + grouped(resume_from));

    app.start(settings.workers);
    Totals read;
    std::int64_t done = lines_done(app.store());
    progress.emplace("lines", done);
    const auto show = [&](double share) {
        if (!progress->due()) return;
        done = lines_done(app.store());
        progress->show(done, share > 0 ? static_cast<double>(read.all.lines) / share : 0);
    };

    // Send what was not sent before, in order, never far ahead of the workers.
    for (bool more = true; more && !stop_asked;) {
        sourced::Messages batch;
        while (batch.size() < batch_size && !stop_asked && (more = input.next())) {
            read.add(input.line());
            if (input.number() > resume_from) {
                batch.push_back(input.command());
            } else if (input.number() == resume_from && input.command().payload != last->payload) {
                throw std::runtime_error("'" + settings.db + "' holds a replay of another input");
            }
        }
        app.dispatch(std::move(batch));
        for (show(input.share()); read.all.lines - done > most_ahead && !stop_asked; show(input.share())) {
            std::this_thread::sleep_for(20ms);
            done = lines_done(app.store());
        }
    }
    while (!stop_asked && !app.wait_until_idle(50ms)) show(1);
    app.stop();
    progress->clear();
    if (stop_asked) {
        say("interrupted after " + grouped(lines_done(app.store())) + " lines; the same command with --resume goes on");
        return interrupted;
    }
    if (input.number() < resume_from) {
        throw std::runtime_error("'" + settings.db + "' holds a replay of a longer input");
    }

    const auto books = read_books(app.store());
    const auto messages = app.store().head();
    print_report(books, messages, progress->seconds(), size_on_disk(settings.db));
    Check check;
    check.against(books, read, messages);
    const bool shipped = fs::path(settings.input).filename().string().starts_with("online-retail.csv");
    const bool whole = settings.most_records == all_records;
    if (shipped && whole) check.against_the_shipped_file(books, messages);
    check.print(shipped && whole);
    if (const auto inspector = program_folder() / "sourced"; fs::exists(inspector)) {
        std::cout << "Look into it: " << typed(inspector) << ' ' << typed(settings.db) << std::endl;
    }
    if (input.malformed() > 0) say("malformed lines that were skipped: " + grouped(input.malformed()));
    return !check.passed() ? failed : input.malformed() > 0 ? skipped : complete;
}

}  // namespace

int main(int argc, char** argv) {
    // The compiler was told this source file's place, in full or as seen from the build folder.
    const auto source_folder = fs::weakly_canonical(program_folder() / __FILE__).parent_path();
    Settings settings{.input = source_folder / "online-retail.csv.xz", .db = program_folder() / "retail.db"};

    CLI::App cli("Replays a shop's order lines through actors and read models.", "retail");
    cli.add_option("--input", settings.input, "Order lines as CSV, plain or .xz")->capture_default_str();
    cli.add_option("--db", settings.db, "The file that keeps everything; begun anew unless --resume is given")
        ->capture_default_str();
    cli.add_flag("--resume", settings.resume, "Go on where an interrupted replay of the same input ended");
    cli.add_option("--workers", settings.workers, "Threads that handle messages")
        ->capture_default_str()
        ->check(CLI::Range(1, 64));
    cli.add_option("--lines", settings.most_records, "Stop after so many lines of input")
        ->envname("SOURCED_SAMPLE_LINES")
        ->check(CLI::PositiveNumber);
    cli.footer(exit_statuses);
    try {
        cli.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return cli.exit(error) == 0 ? complete : usage;
    }

    stop_on_signals();
    try {
        return replay(settings);
    } catch (const std::exception& error) {
        std::cerr << "retail: " << error.what() << '\n';
        return failed;
    }
}
