// Keeping a file well: verify, backup and checkpoint.
#include "inspector.hpp"

#include <filesystem>
#include <iostream>

namespace sourced::inspector {
namespace {

std::int64_t size_of(const std::string& path) {
    std::error_code missing;
    const auto size = std::filesystem::file_size(path, missing);
    return missing ? 0 : static_cast<std::int64_t>(size);
}

/// A time that is shown in a result.
class Watch {
public:
    [[nodiscard]] Duration elapsed() const { return std::chrono::duration_cast<Duration>(Clock::now() - began_); }
    [[nodiscard]] std::string text() const { return duration_text(elapsed()); }

private:
    using Clock = std::chrono::steady_clock;
    Clock::time_point began_ = Clock::now();
};

// ---- verify -------------------------------------------------------------------

struct CheckOptions {
    bool no_integrity = false;
    std::size_t limit = 100;
};

void show(Output& out, const std::vector<Violation>& violations) {
    Table table({{"promise"}, {"position", Table::right}, {"what is wrong"}});
    for (const auto& violation : violations) {
        if (out.text()) {
            const std::string position = violation.position == 0 ? std::string() : grouped(violation.position);
            table.row({violation.invariant, position, printable(violation.text)});
            continue;
        }
        Json json;
        json.begin().field("invariant", violation.invariant).field("text", violation.text);
        json.text_field("stream", violation.stream).field("position", violation.position).end();
        out.record(json.text());
    }
    if (!out.text()) out.end_records();
    else if (!table.empty()) table.print(out);
}

Exit verify_file(Context& context, const CheckOptions& options) {
    // Not by opening it: what cannot be opened can be verified.
    std::error_code unknown;
    if (!std::filesystem::exists(context.file(), unknown)) {
        throw Failed(Exit::failure, "there is no file '" + context.file() + "'");
    }
    static_cast<void>(context.interrupted());  // from here on it ends well
    const Watch watch;
    std::int64_t checked = 0;
    VerifyOptions checking;
    checking.integrity = !options.no_integrity;
    checking.limit = options.limit;
    std::optional<Progress> progress;
    checking.integrity_progress = [&](Duration running) {
        if (!progress) progress.emplace("");
        progress->say("SQLite checks its pages (integrity_check): " + duration_text(running) +
                      ". It does not tell how far it is");
        if (context.interrupted()) throw Failed(Exit::interrupted, "interrupted: no message was checked yet");
    };
    std::optional<Progress> messages;
    checking.progress = [&](std::int64_t done, std::int64_t total) {
        if (!messages) {
            progress.reset();
            messages.emplace("messages");
        }
        messages->show(done, total);
        checked = done;
        if (!context.interrupted()) return;
        throw Failed(Exit::interrupted, "interrupted: " + grouped(done) + " of " + grouped(total) +
                                            " messages were checked, and not yet whether they fit together");
    };
    const auto violations = verify(context.file(), checking);
    progress.reset();
    messages.reset();
    show(context.out(), violations);
    context.out().flush();
    const std::string said = grouped(checked) + " messages in " + watch.text();
    if (violations.empty()) {
        if (context.out().text()) context.out().line("every promise is kept: " + said);
        return Exit::ok;
    }
    const std::string more = violations.size() >= options.limit ? " or more (--limit shows more)" : "";
    std::cerr << "sourced: '" << printable(context.file()) << "' does not hold what it promises: "
              << grouped(static_cast<std::int64_t>(violations.size())) << more << " found, " << said << '\n';
    return Exit::violation;
}

constexpr const char* verify_more =
    "I1   the seqs of a stream are 1..n in the order of their positions, positions are 1..n\n"
    "I2   a stream's head is its last message's seq\n"
    "I3   ids are unique; a cause exists, comes earlier and has the same correlation\n"
    "I4   no offset lies beyond the log, no group has passed over a message that it handles\n"
    "I5   what came of a command was written in one transaction, once\n"
    "I7   what came of a stream's commands by one group follows their order\n"
    "I8   a claim has an owner that is known\n"
    "I9   a message is scheduled or in the log, not both; of what recurs the next one waits\n"
    "I11  row checksums, the engine's own schema, SQLite's integrity_check and foreign_key_check\n"
    "I12  a stopped group holds no claim\n\n"
    "Looks at one state of the file while others write, and changes nothing. Exit status 3: a promise is broken.";

// ---- backup -------------------------------------------------------------------

struct CopyOptions {
    std::string to;
    bool force = false;
};

Exit back_up(Context& context, const CopyOptions& options) {
    std::error_code ignored;
    if (!options.force && std::filesystem::exists(options.to, ignored) &&
        !std::filesystem::is_directory(options.to, ignored)) {
        throw Failed(Exit::failure,
                     "'" + options.to + "' is there already: name another file, or replace it with --force");
    }
    static_cast<void>(context.interrupted());  // from here on it ends well
    const Watch watch;
    {
        Progress progress("pages");
        context.look().backup(options.to, {.replace = options.force, .progress = [&](auto done, auto total) {
            progress.show(done, total);
            if (context.interrupted()) throw Failed(Exit::interrupted, "interrupted: there is no copy");
        }});
    }
    const std::int64_t bytes = size_of(options.to);
    Output& out = context.out();
    if (out.text()) {
        out.line("copied to '" + printable(options.to) + "': " + bytes_text(bytes) + " in " + watch.text());
        return Exit::ok;
    }
    Json json;
    json.begin().text_field("path", options.to).field("bytes", bytes).end();
    out.object(json.text());
    return Exit::ok;
}

// ---- checkpoint ---------------------------------------------------------------

const char* held_name(Checkpoint::Held held) {
    switch (held) {
    case Checkpoint::Held::reader: return "reader";
    case Checkpoint::Held::writer: return "writer";
    case Checkpoint::Held::no: break;
    }
    return "no";
}

std::string held_text(const Checkpoint& done) {
    switch (done.held) {
    case Checkpoint::Held::reader:
        return "held up: somebody reads an older state of the file, and what came after it has to stay in the log. Try "
               "again when that has ended";
    case Checkpoint::Held::writer:
        return "held up: another process writes to the file, or brings its log into it. Try again, or wait longer for "
               "it with --wait";
    case Checkpoint::Held::no: break;
    }
    return "the log begins anew; its file keeps its size until the last process closes it";
}

Exit bring_in(Context& context) {
    const std::string& file = context.file();
    Store& store = context.change();
    const std::int64_t file_before = size_of(file);
    const std::int64_t log_before = size_of(file + "-wal");
    const Checkpoint done = store.checkpoint();
    const std::int64_t file_after = size_of(file);
    const std::int64_t log_after = size_of(file + "-wal");
    Output& out = context.out();
    if (out.text()) {
        out.line("file  " + bytes_text(file_before) + " before, " + bytes_text(file_after) + " now");
        out.line("log   " + bytes_text(log_before) + " before, " + bytes_text(log_after) + " now: " +
                 grouped(done.moved) + " of " + grouped(done.frames) + " pages are in the file");
        out.line(held_text(done));
    } else {
        Json json;
        json.begin().field("file_bytes_before", file_before).field("file_bytes", file_after);
        json.field("log_bytes_before", log_before).field("log_bytes", log_after);
        json.field("pages", done.frames).field("pages_moved", done.moved).field("restarted", done.restarted);
        json.field("held_up_by", held_name(done.held)).end();
        out.object(json.text());
    }
    return done.held == Checkpoint::Held::no ? Exit::ok : Exit::busy;
}

}  // namespace

void add_care(Commands& commands) {
    auto [checking, check] = commands.add<CheckOptions>(
        {"verify", "Checks whether the file is what it promises to be",
         "  sourced shop.db verify                   # everything\n"
         "  sourced shop.db verify --no-integrity     # faster: not SQLite's own pages\n"
         "  sourced shop.db verify -o jsonl | jq .text",
         verify_more},
        verify_file);
    checking.add_flag("--no-integrity", check.no_integrity, "Leave out SQLite's own check of every page");
    checking.add_option("--limit", check.limit, "Stop after so many violations")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();

    auto [copying, copy] = commands.add<CopyOptions>(
        {"backup", "Copies the file while it is in use",
         "  sourced shop.db backup shop-2026-05-17.db\n"
         "  sourced shop.db backup --force last.db    # replaces it",
         "The copy is one state of the file, readable by you only, and appears under its name when it is whole and on "
         "the disk."},
        back_up);
    copying.add_option("DEST", copy.to, "The copy")->required();
    copying.add_flag("--force", copy.force, "Replace the file if it is there already, unless it is in use");

    commands.add({"checkpoint", "Brings the write-ahead log into the file",
                  "  sourced shop.db checkpoint",
                  "The engine does this by itself whenever the log has grown, and safely: SQLite before 3.51.3 can "
                  "damage a file when a checkpoint meets a commit that restarts the log. Exit status 5: something held "
                  "it up."},
                 bring_in);
}

}  // namespace sourced::inspector
