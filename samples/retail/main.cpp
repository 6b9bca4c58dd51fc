// Plays a year of a shop: half a million order lines become commands, the commands
// events, the events read models. README.md tells more; messages.hpp and reactors.hpp
// are the shop.
#include "orders.hpp"
#include "progress.hpp"
#include "reactors.hpp"
#include "report.hpp"

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <limits>
#include <optional>
#include <string>
#include <thread>

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using namespace retail;

namespace {

// What the program's exit status says.
enum Exit : int { complete = 0, failed = 1, usage = 2, skipped = 3, interrupted = 130 };

constexpr std::size_t batch_size = 500;        // commands in one transaction
constexpr std::int64_t most_ahead = 20'000;    // lines sent that are not yet in the read models: bounds the work in hand

constexpr const char* help = R"(Replays a shop's order lines through actors and read models.

  retail [--input FILE] [--db FILE] [--resume] [--workers N]

  --input FILE   CSV, plain or .xz (default: the file that is shipped with the sample)
  --db FILE      where everything is kept (default: retail.db beside this program);
                 begun anew unless --resume is given
  --resume       goes on where an interrupted replay of the same input ended
  --workers N    threads that handle messages (default: 2)

SOURCED_SAMPLE_LINES=N in the environment ends the input after N lines.
Exit status: 0 complete and checked, 1 failed, 2 wrong arguments, 3 complete but malformed
lines were skipped, 130 interrupted.
)";

struct Settings {
    fs::path input;
    fs::path db;
    bool resume = false;
    std::size_t workers = 2;
    std::int64_t most_records = std::numeric_limits<std::int64_t>::max();
};

struct UsageError : std::runtime_error {
    using runtime_error::runtime_error;
};

std::int64_t positive(const std::string& what, const std::string& text) {
    if (!detail::digits(text) || text.size() > 15 || detail::number(text) == 0) {
        throw UsageError(what + ": expected a number above 0, found '" + text + "'");
    }
    return detail::number(text);
}

Settings settings_from(const std::vector<std::string>& arguments) {
    const auto program_folder = fs::canonical("/proc/self/exe").parent_path();
    // The compiler was given this file's path, absolute or as seen from the build folder.
    const auto source_folder = (program_folder / __FILE__).parent_path();
    Settings settings{.input = source_folder / "online-retail.csv.xz", .db = program_folder / "retail.db"};
    for (std::size_t at = 0; at < arguments.size(); ++at) {
        const auto& option = arguments[at];
        const auto value = [&] {
            if (++at == arguments.size()) throw UsageError(option + " needs a value");
            return arguments[at];
        };
        if (option == "--input") {
            settings.input = value();
        } else if (option == "--db") {
            settings.db = value();
        } else if (option == "--resume") {
            settings.resume = true;
        } else if (option == "--workers") {
            settings.workers = static_cast<std::size_t>(positive(option, value()));
        } else {
            throw UsageError("unknown argument '" + option + "'");
        }
    }
    if (const char* lines = std::getenv("SOURCED_SAMPLE_LINES")) {
        settings.most_records = positive("SOURCED_SAMPLE_LINES", lines);
    }
    return settings;
}

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
void remove_earlier(const fs::path& db) {
    if (!fs::exists(db)) return;
    if (fs::file_size(db) > 0) {
        bool ours = false;
        sourced::open_store({.path = db.string()})->read([&](sourced::Reader& reader) {
            ours = reader.query("select 1 from sourced_groups where name not in ('invoice', 'customer', 'invoices', "
                                "'revenue_by_country', 'revenue_by_month', 'customers')").empty();
        });
        if (!ours) throw std::runtime_error("'" + db.string() + "' holds something else than a replay; it was left alone");
    }
    for (const char* suffix : {"", "-wal", "-shm"}) fs::remove(db.string() + suffix);
}

// The last line that an earlier run sent. Lines are sent in order and in whole
// transactions, so everything before it is in the log as well.
std::optional<sourced::Message> last_sent(sourced::Store& store) {
    auto last = store.log({.types = {"invoice.record_line"}, .limit = 1, .backwards = true});
    if (last.empty()) return std::nullopt;
    return std::move(last.front());
}

// Lines that have reached every read model.
std::int64_t lines_done(sourced::Store& store) {
    std::int64_t lines = 0;
    store.read([&](sourced::Reader& db) {
        lines = db.row("select min(lines) from (select total(lines) lines from revenue_by_country "
                       "union all select total(lines) from revenue_by_month "
                       "union all select total(lines) from invoices)")->integer(0);
    });
    return lines;
}

void throw_if_stopped(sourced::App& app) {
    for (const auto& group : app.stats().groups) {
        if (!group.active) throw std::runtime_error("'" + group.name + "' stopped: " + group.reason + " " + group.error_text);
    }
}

int replay(const Settings& settings) {
    CsvReader reader(settings.input);
    if (reader.header() != columns) throw std::runtime_error("read '" + settings.input.string() + "': these are not its columns");
    if (!settings.resume) remove_earlier(settings.db);

    sourced::App app({.path = settings.db.string(), .log = [](const sourced::LogRecord& record) {
        if (record.level >= sourced::Level::warning) std::cerr << "retail: " << record.text << '\n';
    }});
    add_shop(app);
    const auto last = last_sent(app.store());
    const auto resume_from = last ? line_number(last->id) : 0;
    if (last) std::cerr << "resuming after line " << grouped(resume_from) << '\n';

    std::int64_t done = lines_done(app.store());
    Progress progress("lines", done);
    Totals read;
    std::int64_t malformed = 0;
    const auto show = [&](double total) {
        if (progress.due()) progress.show(done = lines_done(app.store()), total);
    };

    Record record;
    const auto next_message = [&]() -> std::optional<sourced::Message> { };
    app.start(settings.workers);
    return complete;
}

}  // namespace

int main(int argc, char** argv) {
    return 0;
}
