// From file to file: export and import.
#include "inspector.hpp"
#include "lines.hpp"
#include "times.hpp"
#include "where.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iostream>

namespace sourced::inspector {
namespace {

/// A command was asked to end; `what()` says what was done.
Failed stopped(const std::string& done) { return {Exit::interrupted, "interrupted: " + done}; }

std::string messages_text(std::int64_t count) { return grouped(count) + (count == 1 ? " message" : " messages"); }

// ---- export -------------------------------------------------------------------

struct ExportOptions {
    std::string to;
    bool force = false;
    bool groups = false;
    std::string where;
    std::vector<std::string> types;
    std::string stream;
    std::string from;
    std::string until;

    [[nodiscard]] bool filters() const {
        return !where.empty() || !types.empty() || !stream.empty() || !from.empty() || !until.empty();
    }
};

/// Where the lines go: stdout, or a file that appears under its name when it is whole.
class Sink {
public:
    explicit Sink(const ExportOptions& options) : path_(options.to), force_(options.force) {
        if (path_.empty() || path_ == "-") return;
        check_target();
        struct stat info {};
        if (::stat(path_.c_str(), &info) == 0 && !S_ISREG(info.st_mode)) {  // a device or a pipe is written to
            file_ = ::open(path_.c_str(), O_WRONLY | O_CLOEXEC);
            if (file_ < 0) throw Failed(Exit::failure, "'" + path_ + "' cannot be written: " + std::strerror(errno));
            return;
        }
        draft_.emplace(path_, force_);
        file_ = draft_->file();
    }
    Sink(const Sink&) = delete;
    Sink& operator=(const Sink&) = delete;
    ~Sink() {
        if (file_ != STDOUT_FILENO && !draft_) ::close(file_);
    }

    void line(std::string_view text) {
        buffer_ += text;
        buffer_ += '\n';
        bytes_ += static_cast<std::int64_t>(text.size()) + 1;
        if (buffer_.size() >= 1u << 18) flush();
    }
    void finish() {
        flush();
        if (!draft_) return;
        check_target();
        draft_->keep();
    }
    [[nodiscard]] std::int64_t bytes() const noexcept { return bytes_; }

private:
    void check_target() const {
        std::error_code ignored;
        if (std::filesystem::is_directory(path_, ignored)) {
            throw Failed(Exit::failure, "'" + path_ + "' is a directory");
        }
        if (force_ || !std::filesystem::exists(path_, ignored)) return;
        throw Failed(Exit::failure, "'" + path_ + "' is there already: name another file, or replace it with --force");
    }
    void flush() {
        for (std::string_view rest = buffer_; !rest.empty();) {
            const auto written = ::write(file_, rest.data(), rest.size());
            if (written >= 0) rest.remove_prefix(static_cast<std::size_t>(written));
            else if (errno != EINTR) cannot_write();
        }
        buffer_.clear();
    }
    [[noreturn]] void cannot_write() const {
        const std::string cause = std::strerror(errno);
        if (errno == EPIPE && file_ == STDOUT_FILENO) throw Closed("stdout was closed");
        const std::string where = file_ == STDOUT_FILENO ? "stdout" : "'" + path_ + "'";
        throw Failed(Exit::failure, "writing to " + where + " failed: " + cause);
    }

    std::string path_;
    bool force_;
    std::optional<detail::Draft> draft_;
    int file_ = STDOUT_FILENO;
    std::string buffer_;
    std::int64_t bytes_ = 0;
};

/// The position that `text` means: itself, or that of the first message recorded at or after a time.
std::int64_t position_of(Context& context, const std::string& text) {
    std::int64_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error == std::errc() && end == text.data() + text.size() && text.size() < 15) return number;
    return context.look().position_at(parse_time(text, context.out().now));
}

/// The options, unless what they name is a part of the file that is read: replaced, all of it would be lost.
const ExportOptions& checked(Context& context, const ExportOptions& options) {
    for (const char* end : {"", "-wal", "-shm"}) {
        std::error_code missing;
        if (!std::filesystem::equivalent(options.to, context.file() + end, missing)) continue;
        throw Failed(Exit::failure, "'" + options.to + "' is " + (*end ? "a part of " : "") + "the file itself");
    }
    return options;
}

class Export {
public:
    Export(Context& context, const ExportOptions& options)
        : context_(context), options_(options), sink_(checked(context, options)) {
        range_.types = options.types;
        range_.stream = options.stream;
        if (!options.from.empty()) range_.from = position_of(context, options.from);
        if (!options.until.empty()) range_.to = position_of(context, options.until) - 1;
        if (!options.where.empty()) where_.emplace(Where::parse(options.where, context.out().now));
    }

    void run() {
        const bool complete = !options_.filters();
        ExportBegin begin;
        begin.exported_at = context_.out().now;
        begin.complete = complete;
        begin.groups = options_.groups;
        sink_.line(writer_.line(begin));
        context_.look().snapshot([&](Snapshot& snapshot) {
            messages(snapshot);
            if (complete) schedule(snapshot);
            if (options_.groups) groups(snapshot);
        });
        sink_.line(writer_.line(count_));
        sink_.finish();
    }
    [[nodiscard]] const ExportEnd& count() const noexcept { return count_; }
    [[nodiscard]] std::int64_t bytes() const noexcept { return sink_.bytes(); }

private:
    void messages(Snapshot& snapshot) {
        Progress progress("messages");
        const std::int64_t head = snapshot.head();
        const std::int64_t total = std::max<std::int64_t>(std::min(head, range_.to) - range_.from + 1, 0);
        // In parts, so that somebody who waits for rare messages sees how far it is, and can end it.
        constexpr std::int64_t at_once = 4096;
        LogRange part = range_;
        for (std::int64_t from = std::max<std::int64_t>(range_.from, 1); from <= std::min(head, range_.to);
             from += at_once) {
            part.from = from;
            part.to = std::min({from + at_once - 1, head, range_.to});
            snapshot.read_log(part, [&](Message& message) {
                if (where_ && !(*where_)(message)) return true;
                sink_.line(writer_.line(message));
                ++count_.messages;
                return true;
            });
            check_interrupted();
            progress.show(part.to - range_.from + 1, total);
        }
    }
    void schedule(Snapshot& snapshot) {
        snapshot.scheduled([&](const Scheduled& entry) {
            sink_.line(writer_.line(entry));
            if (++count_.scheduled % 1024 == 0) check_interrupted();
            return true;
        });
        for (const auto& recurring : snapshot.recurring()) {
            sink_.line(writer_.line(recurring));
            ++count_.recurring;
        }
    }
    void groups(Snapshot& snapshot) {
        Progress progress("offsets");
        snapshot.groups([&](const GroupPart& part) {
            sink_.line(writer_.line(part));
            if (std::holds_alternative<GroupRecord>(part)) ++count_.groups;
            else if (std::holds_alternative<SkipRecord>(part)) ++count_.skipped;
            else if (++count_.offsets % 1024 == 0) {
                check_interrupted();
                progress.show(count_.offsets, 0);
            }
            return true;
        });
    }
    void check_interrupted() {
        if (!context_.interrupted()) return;
        const bool file = !options_.to.empty() && options_.to != "-";
        throw stopped(messages_text(count_.messages) + " were written" +
                      (file ? ", and nothing of them is kept" : "; the last line is missing, so that import notices"));
    }

    Context& context_;
    const ExportOptions& options_;
    Sink sink_;
    LineWriter writer_;
    LogRange range_;
    std::optional<Where> where_;
    ExportEnd count_;
};

/// "3 scheduled, 2 recurring, 4 groups", with what there is any of.
std::string others_text(const ExportEnd& count) {
    std::string text;
    const auto add = [&](std::int64_t number, const char* what) {
        if (number != 0) text += ", " + grouped(number) + " " + what;
    };
    add(count.scheduled, "scheduled");
    add(count.recurring, "recurring");
    add(count.groups, count.groups == 1 ? "group" : "groups");
    add(count.offsets, count.offsets == 1 ? "offset" : "offsets");
    add(count.skipped, "skipped");
    return text;
}

Exit export_log(Context& context, const ExportOptions& options) {
    if (options.groups && options.filters()) {
        throw Failed(Exit::usage,
                     "--groups goes with the whole log only: where groups stand says nothing about a part of it");
    }
    static_cast<void>(context.interrupted());  // from here on it ends well
    const auto began = std::chrono::steady_clock::now();
    static_cast<void>(context.look());  // its -wal and -shm are there now
    Export job(context, options);
    job.run();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
    const auto micros = Duration(static_cast<std::int64_t>(took.count() * 1e6));
    std::cerr << "exported " << messages_text(job.count().messages) << others_text(job.count()) << ": "
              << bytes_text(job.bytes()) << " in " << duration_text(micros) << '\n';
    return Exit::ok;
}

// ---- import -------------------------------------------------------------------

struct ImportOptions {
    std::string from;
    bool create = false;
    bool dry_run = false;
    bool groups = false;
};

/// The lines of a file or of stdin.
class Source {
public:
    Source(Context& context, const std::string& path)
        : context_(context), name_(path.empty() || path == "-" ? "stdin" : "'" + path + "'") {
        if (name_ == "stdin") {
            if (::isatty(STDIN_FILENO) == 1) {
                throw Failed(Exit::usage, "no export was named, and stdin is a terminal: sourced FILE import EXPORT");
            }
        } else {
            file_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
            if (file_ < 0) throw Failed(Exit::failure, name_ + " cannot be read: " + std::strerror(errno));
        }
        struct stat info {};
        if (::fstat(file_, &info) != 0) return;
        if (S_ISDIR(info.st_mode)) throw Failed(Exit::failure, name_ + " is a directory");
        if (S_ISREG(info.st_mode)) total_ = info.st_size;
    }
    Source(const Source&) = delete;
    Source& operator=(const Source&) = delete;
    ~Source() {
        if (file_ != STDIN_FILENO) ::close(file_);
    }

    /// The next line without its end, which lives until the next call; nothing at the end. What stands behind the last
    /// end of a line is no line: it was cut off.
    [[nodiscard]] std::optional<std::string_view> next() {
        while (true) {
            const std::string_view read(buffer_.data(), end_);
            if (const auto end = read.find('\n', searched_); end != read.npos) {
                const auto line = read.substr(at_, end - at_);
                at_ = searched_ = end + 1;
                ++number_;
                done_ += static_cast<std::int64_t>(line.size()) + 1;
                return line;
            }
            searched_ = end_;
            if (!fill()) return std::nullopt;
        }
    }
    [[nodiscard]] const std::string& name() const noexcept { return name_; }
    [[nodiscard]] std::int64_t number() const noexcept { return number_; }  ///< of the last line
    [[nodiscard]] std::int64_t done() const noexcept { return done_; }      ///< bytes
    [[nodiscard]] std::int64_t total() const noexcept { return total_; }    ///< 0: nobody knows

private:
    static constexpr std::size_t at_once = 1u << 18;
    static constexpr std::size_t longest = 1u << 30;

    bool fill() {
        if (at_ > 0) {
            std::memmove(buffer_.data(), buffer_.data() + at_, end_ - at_);
            end_ -= at_;
            searched_ -= at_;
            at_ = 0;
        }
        if (buffer_.size() - end_ < at_once) {
            if (end_ >= longest) {
                throw Failed(Exit::failure, name_ + ", line " + std::to_string(number_ + 1) + " is too long");
            }
            buffer_.resize(std::max(buffer_.size() * 2, 2 * at_once));
        }
        while (true) {
            const auto size = ::read(file_, buffer_.data() + end_, at_once);
            if (size >= 0) {
                end_ += static_cast<std::size_t>(size);
                return size > 0;
            }
            if (errno != EINTR) throw Failed(Exit::failure, "reading " + name_ + " failed: " + std::strerror(errno));
            if (context_.interrupted()) return false;
        }
    }

    Context& context_;
    std::string name_;
    int file_ = STDIN_FILENO;
    std::int64_t total_ = 0;
    std::int64_t done_ = 0;
    std::int64_t number_ = 0;
    std::vector<char> buffer_;
    std::size_t at_ = 0;
    std::size_t searched_ = 0;
    std::size_t end_ = 0;
};

/// A directory that is gone with what is in it.
class Scratch {
public:
    Scratch() : path_((std::filesystem::temp_directory_path() / "sourced-XXXXXX").string()) {
        if (!::mkdtemp(path_.data())) {
            throw Failed(Exit::failure, "no directory for a trial at '" + path_ + "': " + std::strerror(errno));
        }
    }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    ~Scratch() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    [[nodiscard]] std::string file() const { return path_ + "/trial.db"; }

private:
    std::string path_;
};

/// The file that takes the lines. For a trial that is a copy of it; nothing of the file itself is changed then.
class Target {
public:
    Target(Context& context, const ImportOptions& options) : path_(context.file()) {
        std::error_code ignored;
        const bool there = std::filesystem::exists(path_, ignored);
        if (!there && !options.create) {
            throw Failed(Exit::failure, "there is no file '" + path_ + "': --create makes it");
        }
        StoreOptions opening;
        opening.path = path_;
        opening.open = options.create ? Open::create : Open::existing;
        opening.busy_timeout = std::chrono::duration_cast<Duration>(std::chrono::duration<double>(context.wait));
        opening.max_payload = 1u << 30;  // it was not too large for those who recorded it
        if (options.dry_run) {
            scratch_.emplace();
            if (there) copy(context);
            opening.path = scratch_->file();
            opening.open = Open::create;
            opening.durability = Durability::normal;
        } else if (!there) {
            make();
        }
        store_ = open_store(opening);
        before_ = store_->head();
    }
    Target(const Target&) = delete;
    Target& operator=(const Target&) = delete;
    ~Target() {
        if (!created_ || taken_ || (store_ && !is_empty())) return;
        store_.reset();
        // Who closes the file last takes its -wal away: if it is there, somebody else has the file open.
        if (::access((path_ + "-wal").c_str(), F_OK) != 0) ::unlink(path_.c_str());
    }

    [[nodiscard]] Store& store() noexcept { return *store_; }
    [[nodiscard]] std::int64_t before() const noexcept { return before_; }
    [[nodiscard]] const std::string& path() const noexcept { return path_; }
    /// A file that was made for it stays: something is in it, or nothing was to come.
    void keep() noexcept { taken_ = true; }

private:
    /// Whether it is us who make the file, and nobody else at the same time.
    void make() {
        const int file = ::open(path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        created_ = file >= 0;
        if (created_) ::close(file);
    }
    [[nodiscard]] bool is_empty() const noexcept {
        try {
            return store_->head() == 0 && store_->scheduled(1).empty() && store_->stats().groups.empty();
        } catch (const std::exception&) {
            return false;
        }
    }
    void copy(Context& context) {
        Progress progress("pages copied for the trial");
        context.look().backup(scratch_->file(), {.progress = [&](std::int64_t done, std::int64_t total) {
            progress.show(done, total);
            if (context.interrupted()) throw stopped("nothing was written");
        }});
    }

    std::string path_;
    std::optional<Scratch> scratch_;
    std::unique_ptr<Store> store_;
    std::int64_t before_ = 0;
    bool created_ = false;
    bool taken_ = false;
};

class Import {
public:
    Import(Context& context, const ImportOptions& options)
        : context_(context), options_(options), source_(context, options.from) {
        begin_ = first_line();
        if (options.groups && !begin_.groups) {
            throw Failed(Exit::failure, source_.name() + " has no groups in it: export --groups puts them there");
        }
        target_.emplace(context, options);
    }

    [[nodiscard]] const Target& target() const noexcept { return *target_; }
    [[nodiscard]] const Source& source() const noexcept { return source_; }
    [[nodiscard]] const ExportEnd& count() const noexcept { return count_; }
    [[nodiscard]] const Imported& imported() const noexcept { return imported_; }
    [[nodiscard]] bool has_groups() const noexcept { return begin_.groups; }

    void run() {
        Progress progress("kB");
        progress_ = &progress;
        while (auto line = next()) {
            if (auto* const message = std::get_if<Message>(&*line)) take(std::move(*message));
            else if (auto* const entry = std::get_if<Scheduled>(&*line)) take(std::move(*entry));
            else if (auto* const recurring = std::get_if<Recurring>(&*line)) take(std::move(*recurring));
            else if (auto* const part = std::get_if<GroupPart>(&*line)) take_groups(std::move(*part));
            else throw stop_at("it begins a second export");
        }
        flush();
        if (!end_) cut_off();
        if (!(*end_ == seen_)) {
            throw Failed(Exit::failure, source_.name() + " does not hold as much as its last line says: " +
                                            messages_text(seen_.messages) + others_text(seen_) + ", not " +
                                            messages_text(end_->messages) + others_text(*end_) + "; " + so_far());
        }
        target_->keep();
    }

private:
    static constexpr std::size_t messages_at_once = 16'384;
    static constexpr std::size_t bytes_at_once = 16u << 20;

    [[nodiscard]] Failed at_line(const std::string& found) const {
        return {Exit::failure, source_.name() + ", line " + std::to_string(source_.number()) + ": " + found};
    }
    /// What is in the file by now, and how to go on.
    [[nodiscard]] std::string so_far() const {
        if (options_.dry_run) return "this was a trial, nothing was written";
        if (kept_line_ == 0) return "nothing was written";
        return "everything up to line " + std::to_string(kept_line_) +
               " is in the file, and the same import made again goes on behind it";
    }

    ExportBegin first_line() {
        const auto line = source_.next();
        if (!line) throw Failed(Exit::failure, source_.name() + " has no line in it");
        std::string found = "it is a line of an export, but not the first";
        try {
            const ExportLine read = reader_.read(*line);
            if (const auto* const begin = std::get_if<ExportBegin>(&read)) return *begin;
        } catch (const Invalid& error) {
            found = error.what();
        }
        throw Failed(Exit::failure, source_.name() + " is no export of this program. Its first line: " + found);
    }

    /// The next line of what was exported; nothing behind the last.
    std::optional<ExportLine> next() {
        if (end_) {
            if (source_.next()) throw stop_at("there is more behind the line that says it is the last");
            return std::nullopt;
        }
        const auto line = source_.next();
        if (!line) return std::nullopt;
        try {
            ExportLine read = reader_.read(*line);
            if (const auto* const end = std::get_if<ExportEnd>(&read)) {
                end_ = *end;
                return next();
            }
            if (source_.number() % 512 == 0) progress_->show(source_.done() / 1000, source_.total() / 1000);
            return read;
        } catch (const Invalid& error) {
            throw stop_at(error.what());
        }
    }
    /// What came before the line is kept.
    Failed stop_at(const std::string& found) {
        const Failed failed = at_line(found);
        flush();
        return {Exit::failure, std::string(failed.what()) + "; " + so_far()};
    }

    // ---- messages

    void take(Message message) {
        if (seen_.scheduled + seen_.recurring + seen_.groups != 0) throw stop_at("a message behind what is no message");
        bytes_ += message.payload.size() + message.stream.size() + message.metadata.json().size();
        messages_.push_back(std::move(message));
        lines_.push_back(source_.number());
        ++seen_.messages;
        if (messages_.size() >= messages_at_once || bytes_ >= bytes_at_once) flush();
    }

    /// Writes what waits to be written. On error, what stands before the line that is to blame is written.
    void flush() {
        if (!messages_.empty()) {
            std::optional<Unfit> unfit;
            try {
                add(target_->store().import_log(messages_));
                kept_line_ = lines_.back();
            } catch (const Unfit& error) {
                unfit = error;
            }
            if (unfit) keep_before(*unfit);
            messages_.clear();
            lines_.clear();
            bytes_ = 0;
        }
        if (!scheduled_.empty()) {
            keep_scheduled();
            count_.scheduled += static_cast<std::int64_t>(scheduled_.size());
            scheduled_.clear();
            kept(scheduled_line_);
        }
        if (!context_.interrupted()) return;
        progress_->clear();
        throw stopped(so_far());
    }
    void keep_scheduled() {
        try {
            target_->store().schedule(scheduled_);
        } catch (const Invalid& error) {
            const std::string last = std::to_string(scheduled_line_);
            scheduled_.clear();
            throw Failed(Exit::failure, source_.name() + ", one of the lines up to " + last + ": " + error.what() +
                                            "; " + so_far());
        }
    }
    void kept(std::int64_t line) {
        kept_line_ = line;
        target_->keep();
    }
    void add(const Imported& more) {
        imported_.appended += more.appended;
        imported_.known += more.known;
        imported_.moved += more.moved;
        count_.messages = imported_.appended + imported_.known;
        target_->keep();
    }
    [[noreturn]] void keep_before(const Unfit& unfit) {
        const std::int64_t line = lines_[unfit.index()];
        messages_.resize(unfit.index());
        if (!messages_.empty()) {
            add(target_->store().import_log(messages_));
            kept_line_ = lines_[unfit.index() - 1];
        }
        messages_.clear();
        std::string text = source_.name() + ", line " + std::to_string(line) + ": " + unfit.what();
        const bool hole = unfit.field() == "seq" || unfit.field() == "causation";
        if (hole && !begin_.complete) {
            text += ". This export holds only a part of its log: what is imported has to be whole streams, with all "
                    "that caused their messages";
        }
        throw Failed(Exit::failure, text + "; " + so_far());
    }

    // ---- the schedule

    void take(Scheduled entry) {
        if (seen_.recurring + seen_.groups != 0) throw stop_at("a scheduled message behind what comes after those");
        scheduled_.push_back(std::move(entry));
        scheduled_line_ = source_.number();
        ++seen_.scheduled;
        if (scheduled_.size() >= messages_at_once) flush();
    }
    void take(Recurring recurring) {
        if (seen_.groups != 0) throw stop_at("what recurs behind the groups");
        flush();
        ++seen_.recurring;
        try {
            target_->store().import_recurring({std::move(recurring)});
        } catch (const Invalid& error) {
            throw stop_at(error.what());
        }
        ++count_.recurring;
        kept(source_.number());
    }

    // ---- groups

    void take_groups(GroupPart first) {
        flush();
        if (!options_.groups) {
            see(first);
            return;
        }
        const std::int64_t head = target_->store().head();
        if (imported_.moved != 0 || head != imported_.appended + imported_.known) {
            throw Failed(Exit::failure,
                         "groups can only be taken over into a file that has nothing but the messages of this export, "
                         "at the same positions; " +
                             so_far());
        }
        std::optional<GroupPart> waiting = std::move(first);
        const auto next_part = [&]() -> std::optional<GroupPart> {
            if (waiting) {
                see(*waiting);
                return std::exchange(waiting, std::nullopt);
            }
            auto line = next();
            if (!line && !end_) cut_off();
            if (!line) return std::nullopt;
            auto* const part = std::get_if<GroupPart>(&*line);
            if (!part) throw stop_at("it is no part of a group");
            see(*part);
            if (source_.number() % 1024 == 0 && context_.interrupted()) throw stopped(so_far());
            return std::move(*part);
        };
        try {
            target_->store().import_groups(next_part);
        } catch (const Invalid& error) {
            throw stop_at(error.what());
        }
        count_.groups = seen_.groups;
        count_.offsets = seen_.offsets;
        count_.skipped = seen_.skipped;
        kept(source_.number());
    }
    void see(const GroupPart& part) {
        if (std::holds_alternative<GroupRecord>(part)) ++seen_.groups;
        else if (std::holds_alternative<OffsetRecord>(part)) ++seen_.offsets;
        else ++seen_.skipped;
    }

    [[noreturn]] void cut_off() {
        if (context_.interrupted()) throw stopped(so_far());
        throw Failed(Exit::failure, source_.name() + " was cut off behind line " + std::to_string(source_.number()) +
                                        ": its last line is missing; " + so_far());
    }

    Context& context_;
    const ImportOptions& options_;
    Source source_;
    LineReader reader_;
    ExportBegin begin_;
    std::optional<Target> target_;
    Progress* progress_ = nullptr;

    Messages messages_;
    std::vector<std::int64_t> lines_;
    std::size_t bytes_ = 0;
    std::vector<Scheduled> scheduled_;
    std::int64_t scheduled_line_ = 0;  // of the last of them

    Imported imported_;
    ExportEnd seen_;   // in the lines
    ExportEnd count_;  // taken
    std::optional<ExportEnd> end_;
    std::int64_t kept_line_ = 0;
};

Exit import_log(Context& context, const ImportOptions& options) {
    static_cast<void>(context.interrupted());  // from here on it ends well
    const auto began = std::chrono::steady_clock::now();
    Import job(context, options);
    if (job.target().before() != 0 && !options.dry_run) {
        context.confirm("import " + job.source().name() + " into '" + job.target().path() + "', which has " +
                        messages_text(job.target().before()) +
                        " already: what is new is appended for good, what is there already is passed over");
    }
    job.run();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
    const Imported& imported = job.imported();
    Output& out = context.out();
    if (!out.text()) {
        Json json;
        json.begin().field("appended", imported.appended).field("known", imported.known);
        json.field("scheduled", job.count().scheduled).field("recurring", job.count().recurring);
        json.field("groups", job.count().groups).field("offsets", job.count().offsets);
        json.field("skipped", job.count().skipped).field("dry_run", options.dry_run).end();
        out.object(json.text());
    } else {
        ExportEnd others = job.count();
        std::string text = options.dry_run ? "would import " : "imported ";
        text += messages_text(imported.appended) + others_text(others);
        if (imported.known != 0) text += " (" + messages_text(imported.known) + " passed over: there already)";
        out.line(text + " in " + duration_text(Duration(static_cast<std::int64_t>(took.count() * 1e6))));
    }
    out.flush();
    if (!options.groups && imported.appended != 0) {
        std::cerr << "How far groups are was not taken over: a program that starts on this file handles all its "
                     "commands again, and does again whatever follows from them.\n";
        if (job.has_groups()) std::cerr << "The export has it: import --groups takes it over, into an empty file.\n";
    }
    return Exit::ok;
}

constexpr const char* export_more =
    "Writes JSON lines: one that says what follows, one for each message in the order of the log, the schedule, the "
    "groups, and a last one that counts them, so that import notices what was cut off. It is one state of the file, "
    "whatever is written meanwhile. tools/README.md describes the lines.\n\n"
    "With a filter it holds messages only. Such an export can be imported when it has whole streams in it, and all "
    "that caused their messages.";

constexpr const char* import_more =
    "Messages keep their ids, seqs, times, causes, metadata and payloads. Each has to be the next one of its stream "
    "and recorded no earlier than the last one in the file; what is there already, and equal, is passed over. So an "
    "import that broke off is made again from the beginning.\n\n"
    "How far groups are comes along with --groups only, and only into a file that has nothing else in it. Without it, "
    "a program that starts on the file handles all its commands again.";

}  // namespace

void add_transfer(Commands& commands) {
    auto [exporting, out] = commands.add<ExportOptions>(
        {"export", "Writes log and schedule as JSON lines",
         "  sourced shop.db export --to shop.jsonl               # the log and the schedule\n"
         "  sourced shop.db export --groups | gzip > shop.gz      # with where the groups stand\n"
         "  sourced shop.db export --stream cart-1 --from 2026-05-01\n"
         "  sourced shop.db export --where 'payload.price > 10'   # these messages only",
         export_more},
        export_log);
    exporting.add_option("--to", out.to, "The file to write; without it, stdout")->type_name("FILE");
    exporting.add_flag("--force", out.force, "Replace the file if it is there already");
    exporting.add_flag("--groups", out.groups, "Also what the groups have come to: offsets, errors, skipped messages");
    exporting.add_option("--where", out.where, "Only messages of which this is true")->type_name("EXPR");
    exporting.add_option("--type", out.types, "Only messages of this type; may be given several times")
        ->type_name("TYPE");
    exporting.add_option("--stream", out.stream, "Only messages of this stream")->type_name("STREAM");
    exporting.add_option("--from", out.from, "From this position or time on")->type_name("POSITION|TIME");
    exporting.add_option("--until", out.until, "Up to this position or time, which is left out")
        ->type_name("POSITION|TIME");

    auto [importing, in] = commands.add<ImportOptions>(
        {"import", "Takes what export wrote into a file",
         "  sourced new.db import --create shop.jsonl             # into a new file\n"
         "  sourced new.db import --create --groups shop.jsonl    # a program goes on there where it was here\n"
         "  zcat shop.gz | sourced new.db import --create -\n"
         "  sourced shop.db import --dry-run more.jsonl           # would it fit?",
         import_more},
        import_log);
    importing.add_option("EXPORT", in.from, "What export wrote; - or nothing: stdin");
    importing.add_flag("--create", in.create, "Make the file if it is not there");
    importing.add_flag("--dry-run", in.dry_run,
                       "Do it all with a copy of the file in the directory for temporary files, and change nothing");
    importing.add_flag("--groups", in.groups, "Also what the groups have come to");
    commands.plans(importing);
}

}  // namespace sourced::inspector
