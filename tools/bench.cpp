// bench: the workloads W1 to W9 on the engine and on a floor, in turn, in one run.
//
//     bench                 all of them, as a table
//     bench W3 --json       W3-async and W3-sync, one JSON object a line
//
// The floor (bench_floor.h) is what SQLite itself costs. Each measurement runs in a
// process of its own, so that neither side inherits threads, caches or memory of an
// earlier one. Sides alternate, and the median of the rounds is reported.

#include <sourced.hpp>

#include "bench_floor.h"

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <algorithm>
#include <atomic>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <latch>
#include <new>
#include <numeric>
#include <sstream>
#include <thread>
#include <utility>

namespace {

using namespace std::chrono_literals;

// ---- What is stored -------------------------------------------------------------

struct AddItem {
    std::string product_id;
    int price = 0;
    int quantity = 1;

    SOURCED_COMMAND("cart.add_item", product_id, price, quantity)
};

struct ItemAdded {
    std::string product_id;
    int price = 0;
    int quantity = 1;

    SOURCED_EVENT("cart.item_added", product_id, price, quantity)
};

struct Item {
    std::string product_id;
    int price = 0;
    int quantity = 0;
};

struct CartState {
    std::vector<Item> items{};
};

// Its state grows with every event, as states of real actors do: W4 would see it copied.
struct Cart : sourced::Actor<CartState> {
    Cart() : Actor("cart") {
        command([](const CartState&, const AddItem& add) {
            return ItemAdded{add.product_id, add.price, add.quantity};
        });
        event([](CartState& cart, const ItemAdded& added) {
            cart.items.push_back({added.product_id, added.price, added.quantity});
        });
    }
};

struct Total {
    std::int64_t events = 0;
    std::int64_t sum = 0;
};

struct Totals : sourced::Projector<Total> {
    Totals() : Projector("totals") {
        on_install([](sourced::Transaction& transaction) {
            transaction.execute(
                "create table if not exists totals (id text primary key, events integer, sum integer) without rowid");
        });
        state([](std::string_view id, sourced::Reader& reader) {
            const auto row = reader.row("select events, sum from totals where id = ?", id);
            return row ? Total{row->integer(0), row->integer(1)} : Total{};
        });
        event([](Total& total, const ItemAdded& added) {
            ++total.events;
            total.sum += added.price;
        });
        sync([](const Total& total, std::string_view id, sourced::Transaction& transaction) {
            transaction.execute("insert or replace into totals (id, events, sum) values (?, ?, ?)", id, total.events,
                                total.sum);
        });
    }
};

// A scheduled message that says how late it came.
struct Ring {
    std::int64_t due_us = 0;

    SOURCED_COMMAND("bell.ring", due_us)
};
struct Rung {
    SOURCED_EVENT("bell.rung")
};
struct Bell : sourced::Actor<std::monostate> {
    explicit Bell(std::atomic<std::int64_t>& late_us) : Actor("bell") {
        command([&late_us](const std::monostate&, const Ring& ring) {
            const auto now = std::chrono::system_clock::now().time_since_epoch();
            late_us = std::chrono::duration_cast<std::chrono::microseconds>(now).count() - ring.due_us;
            return Rung{};
        });
    }
};

const AddItem add_item{"p123", 1000, 2};
const ItemAdded item_added{"p123", 1000, 2};

std::string stream_name(long number) {
    char text[32];
    const int length = std::snprintf(text, sizeof text, "cart-%06ld", number);
    return std::string(text, static_cast<std::size_t>(length));
}

// ---- One measurement --------------------------------------------------------------

enum class Mode { normal, full };
const char* name_of(Mode mode) { return mode == Mode::normal ? "NORMAL" : "FULL"; }

constexpr std::size_t most_fields = 8;

// What one measurement found. It crosses from the measuring process by shared memory,
// so it holds no pointer but to literals, which both processes have at the same place.
struct Sample {
    double value = 0;
    double cpu_us = 0;  // per operation
    struct Field {
        const char* name = nullptr;
        double value = 0;
    };
    std::array<Field, most_fields> fields{};

    Sample& with(const char* name, double number) {
        for (auto& field : fields) {
            if (field.name) continue;
            field = {name, number};
            return *this;
        }
        throw std::logic_error("more fields than a sample holds");
    }
    [[nodiscard]] double field(std::string_view name) const {
        for (const auto& each : fields) {
            if (each.name && name == each.name) return each.value;
        }
        return 0;
    }
};

double median(std::vector<double> numbers) {
    if (numbers.empty()) return 0;
    std::sort(numbers.begin(), numbers.end());
    const auto middle = numbers.size() / 2;
    return numbers.size() % 2 == 1 ? numbers[middle] : (numbers[middle - 1] + numbers[middle]) / 2;
}

double percentile(std::vector<double> numbers, double share) {
    if (numbers.empty()) return 0;
    std::sort(numbers.begin(), numbers.end());
    const auto index = static_cast<std::size_t>(share * static_cast<double>(numbers.size()));
    return numbers[std::min(index, numbers.size() - 1)];
}

Sample median(const std::vector<Sample>& samples) {
    const auto over = [&](auto get) {
        std::vector<double> numbers;
        for (const auto& sample : samples) numbers.push_back(get(sample));
        return median(std::move(numbers));
    };
    Sample result;
    result.value = over([](const Sample& sample) { return sample.value; });
    result.cpu_us = over([](const Sample& sample) { return sample.cpu_us; });
    for (const auto& field : samples.front().fields) {
        if (field.name) result.with(field.name, over([&](const Sample& sample) { return sample.field(field.name); }));
    }
    return result;
}

Sample per_second(const floor_run& run) {
    const auto operations = static_cast<double>(run.operations);
    return {.value = operations / run.seconds, .cpu_us = run.cpu_seconds * 1e6 / operations};
}

Sample latency(const std::vector<double>& seconds) {
    Sample sample{.value = percentile(seconds, 0.5) * 1e6};
    return sample.with("p99_us", percentile(seconds, 0.985) * 1e6);
}

class Stopwatch {
public:
    [[nodiscard]] Sample per_second(long operations) const { return ::per_second(run(operations)); }
    [[nodiscard]] floor_run run(long operations) const { return {operations, floor_now() - wall_, floor_cpu() - cpu_}; }

private:
    double wall_ = floor_now();
    double cpu_ = floor_cpu();
};

volatile std::sig_atomic_t interrupted = 0;

// A child that ends with its parent, and by the signals that the parent only notes.
pid_t fork_child() {
    const pid_t child = fork();
    if (child < 0) throw std::system_error(errno, std::generic_category(), "fork");
    if (child > 0) return child;
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0UL, 0UL, 0UL);
    for (const int signal : {SIGINT, SIGTERM}) std::signal(signal, SIG_DFL);
    return 0;
}

// Runs `measure` in a child process and gives what it found.
Sample in_process(const std::function<Sample()>& measure) {
    void* memory = mmap(nullptr, sizeof(Sample), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::system_error(errno, std::generic_category(), "share memory");
    auto* found = new (memory) Sample;
    std::cout.flush();
    const pid_t child = fork_child();
    if (child == 0) {
        int status = 1;
        try {
            *found = measure();
            status = 0;
        } catch (const std::exception& error) {
            std::fprintf(stderr, "bench: %s\n", error.what());
        }
        _exit(status);
    }
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) kill(child, SIGTERM);
    const Sample sample = *found;
    munmap(memory, sizeof(Sample));
    if (interrupted) throw std::runtime_error("interrupted");
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) throw std::runtime_error("the measuring process failed");
    return sample;
}

// ---- Where and how much -------------------------------------------------------------

// Holds the files of a run and takes them away at the end.
class Folder {
public:
    explicit Folder(const std::filesystem::path& parent) {
        auto pattern = (parent / "bench-XXXXXX").string();
        if (!mkdtemp(pattern.data())) throw std::system_error(errno, std::generic_category(), pattern);
        path_ = pattern;
    }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    ~Folder() {
        std::error_code ignored;  // nobody is left who could do anything about it
        std::filesystem::remove_all(path_, ignored);
    }
    [[nodiscard]] std::string file(const char* name) const { return (path_ / name).string(); }
    // The same, not there yet.
    [[nodiscard]] std::string fresh(const char* name) const {
        const auto path = file(name);
        for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::remove(path + suffix);
        return path;
    }

private:
    std::filesystem::path path_;
};

struct Bench {
    const Folder& folder;
    bool full = false;  // everything in full length
    std::size_t workers = 2;
    int rounds = 0;               // 0: as many as the workload asks for
    double commits_a_second = 0;  // of the floor at FULL

    // How many commits of one operation each are measured: the planned number, unless this
    // disk would take seconds for them.
    [[nodiscard]] long operations(Mode mode, long planned) const {
        if (full || mode == Mode::normal) return planned;
        return std::clamp(static_cast<long>(commits_a_second * 3), std::min(planned, 2000L), planned);
    }
};

// What both sides of a workload are given.
struct Place {
    const Bench& bench;
    Mode mode;
    std::string path;  // no file yet

    [[nodiscard]] long operations(long planned) const { return bench.operations(mode, planned); }
};

using Side = std::function<Sample(const Place&)>;

// An open floor.
class Floor {
public:
    Floor(const Place& place, long streams) : log_(floor_open(place.path.c_str(), name_of(place.mode), streams)) {}
    Floor(const Floor&) = delete;
    Floor& operator=(const Floor&) = delete;
    ~Floor() { floor_close(log_); }
    operator floor_log*() const noexcept { return log_; }

private:
    floor_log* log_;
};

sourced::Durability durability(Mode mode) {
    return mode == Mode::normal ? sourced::Durability::normal : sourced::Durability::full;
}

sourced::Options options(const Place& place) {
    sourced::Options options;
    options.path = place.path;
    options.durability = durability(place.mode);
    options.log = [](const sourced::LogRecord& record) {
        // Warnings are the same at each of the hundred times a file is opened here.
        if (record.level >= sourced::Level::error) std::fprintf(stderr, "bench: engine: %s\n", record.text.c_str());
    };
    return options;
}

std::unique_ptr<sourced::Store> open_store(const Place& place) {
    sourced::StoreOptions options;
    options.path = place.path;
    options.durability = durability(place.mode);
    return sourced::open_store(options);
}

// A figure for work that was not done would be the fastest of all.
void require(std::int64_t found, std::int64_t expected, const char* what) {
    if (found == expected) return;
    throw std::runtime_error(std::string(what) + ": expected " + std::to_string(expected) + ", found " +
                             std::to_string(found));
}

void wait_until_idle(sourced::App& app) {
    if (!app.wait_until_idle(5min)) throw std::runtime_error("the engine is not idle after 5 minutes");
}

// Waits for another thread or process, exact to some 20 us, without taking much of a core from it.
template <class Condition>
void wait_until(Condition condition) {
    prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
    const double deadline = floor_now() + 60;
    while (!condition()) {
        if (floor_now() > deadline) throw std::runtime_error("nothing happened for a minute");
        std::this_thread::sleep_for(15us);
    }
}

// ---- W1, W2: appends ----------------------------------------------------------------

constexpr long many_streams = 10'000;

Sample append_single(const Place& place) {
    const long count = place.operations(many_streams * 5);
    const auto store = open_store(place);
    const Stopwatch watch;
    for (long i = 0; i < count; ++i) store->append(stream_name(i % many_streams), {item_added});
    auto sample = watch.per_second(count);
    require(store->head(), count, "events appended");
    return sample;
}

Sample append_single_floor(const Place& place) {
    const Floor log(place, many_streams);
    return per_second(floor_append(log, place.operations(many_streams * 5), 1));
}

// Each producer has streams of its own and waits for every commit.
Sample append_concurrently(const Place& place) {
    constexpr long producers = 64;
    const long count = many_streams * 5 / producers * producers;
    const auto store = open_store(place);
    std::latch start(producers + 1);
    std::vector<std::jthread> threads;
    for (long producer = 0; producer < producers; ++producer) {
        threads.emplace_back([&, producer] {
            start.arrive_and_wait();
            for (long i = producer; i < count; i += producers) {
                store->append(stream_name(i % many_streams), {item_added});
            }
        });
    }
    start.arrive_and_wait();
    const Stopwatch watch;
    threads.clear();
    auto sample = watch.per_second(count);
    require(store->head(), count, "events appended");
    return sample;
}

constexpr long batch_appends = 500;
constexpr long batch_events = 100;

Sample append_batches(const Place& place) {
    const auto store = open_store(place);
    const Stopwatch watch;
    for (long i = 0; i < batch_appends; ++i) {
        sourced::Messages messages;
        messages.reserve(batch_events);
        for (long j = 0; j < batch_events; ++j) messages.emplace_back(item_added);
        store->append(stream_name(i), messages);
    }
    auto sample = watch.per_second(batch_appends * batch_events);
    require(store->head(), batch_appends * batch_events, "events appended");
    return sample;
}

Sample append_batches_floor(const Place& place) {
    const Floor log(place, batch_appends);
    return per_second(floor_append_many(log, batch_appends, batch_events));
}

// ---- W3, W4: commands ---------------------------------------------------------------

constexpr long command_streams = 1000;
constexpr long command_count = command_streams * 20;
constexpr long dispatch_batch = 64;

// Dispatches `count` commands to `streams` streams from `first` on in turn, a batch in a transaction.
void dispatch(sourced::App& app, long count, long first, long streams) {
    for (long from = 0; from < count; from += dispatch_batch) {
        sourced::Messages batch;
        batch.reserve(dispatch_batch);
        for (long i = from; i < std::min(from + dispatch_batch, count); ++i) {
            batch.push_back(sourced::Message(add_item).to(stream_name(first + i % streams)));
        }
        app.dispatch(std::move(batch));
    }
}

Sample handle_async(const Place& place) {
    sourced::App app(options(place));
    app.add<Cart>();
    app.start(place.bench.workers);
    const Stopwatch watch;
    dispatch(app, command_count, 0, command_streams);
    wait_until_idle(app);
    auto sample = watch.per_second(command_count);
    require(app.store().head(), 2 * command_count, "messages in the log");
    return sample;
}

Sample handle_async_floor(const Place& place) {
    const Floor log(place, command_streams);
    return per_second(floor_queue(log, command_count, dispatch_batch));
}

Sample handle_sync(const Place& place) {
    const long count = place.operations(command_count);
    sourced::App app(options(place));
    app.add<Cart>();
    const Stopwatch watch;
    for (long i = 0; i < count; ++i) app.handle<Cart>(stream_name(i % command_streams), add_item);
    auto sample = watch.per_second(count);
    require(app.store().head(), 2 * count, "messages in the log");
    return sample;
}

Sample handle_sync_floor(const Place& place) {
    const Floor log(place, command_streams);
    return per_second(floor_handle(log, place.operations(command_count)));
}

constexpr long long_stream = 5000;
constexpr std::ptrdiff_t compared = 500;

// The last against the first, by medians: a checkpoint that happens to fall into one of them
// is no property of the stream's length. The plain sums stand beside.
Sample growth(const std::vector<double>& seconds) {
    const std::vector<double> first(seconds.begin(), seconds.begin() + compared);
    const std::vector<double> last(seconds.end() - compared, seconds.end());
    const auto sum = [](const std::vector<double>& numbers) { return std::reduce(numbers.begin(), numbers.end()); };
    Sample sample{.value = median(last) / median(first)};
    return sample.with("ratio_of_sums", sum(last) / sum(first));
}

Sample one_stream(const Place& place) {
    std::vector<double> seconds(long_stream);
    sourced::App app(options(place));
    app.add<Cart>();
    const double cpu = floor_cpu();
    for (auto& each : seconds) {
        const double from = floor_now();
        app.handle<Cart>("cart-1", add_item);
        each = floor_now() - from;
    }
    auto sample = growth(seconds);
    sample.cpu_us = (floor_cpu() - cpu) * 1e6 / long_stream;
    require(app.store().head(), 2 * long_stream, "messages in the log");
    return sample;
}

Sample one_stream_floor(const Place& place) {
    std::vector<double> seconds(long_stream);
    const Floor log(place, 1);
    const auto run = floor_one_stream(log, long_stream, seconds.data());
    auto sample = growth(seconds);
    sample.cpu_us = per_second(run).cpu_us;
    return sample;
}

// ---- W5, W6: reading ----------------------------------------------------------------

// `each` events for every stream, in rounds over the streams when `interleaved`, else one stream after the other.
void fill(sourced::Store& store, long streams, long each, bool interleaved) {
    constexpr long streams_a_transaction = 200;
    const long passes = interleaved ? each : 1;
    for (long pass = 0; pass < passes; ++pass) {
        for (long from = 0; from < streams; from += streams_a_transaction) {
            std::vector<sourced::Append> parts;
            for (long stream = from; stream < std::min(from + streams_a_transaction, streams); ++stream) {
                sourced::Append part{.stream = stream_name(stream), .messages = {}};
                for (long i = 0; i < each / passes; ++i) part.messages.emplace_back(item_added);
                parts.push_back(std::move(part));
            }
            store.append_all(parts);
        }
    }
}

constexpr long projected = 100'000;

Sample project(const Place& place) {
    {
        const auto store = open_store(place);
        fill(*store, many_streams, projected / many_streams, true);
    }
    sourced::App app(options(place));
    const Stopwatch watch;
    app.add<Totals>();
    app.start(place.bench.workers);
    wait_until_idle(app);
    auto sample = watch.per_second(projected);
    app.store().read([](sourced::Reader& reader) {
        require(reader.row("select sum(events) from totals")->integer(0), projected, "events in the read model");
    });
    return sample;
}

Sample project_floor(const Place& place) {
    const Floor log(place, many_streams);
    floor_append(log, projected, 1000);
    return per_second(floor_project(log));
}

constexpr long hydrated = 10'000;
constexpr int loads = 7;

// Cold: nothing of the file is in the process. That the system has it in memory is the case a user meets, too.
Sample load(const Place& place) {
    {
        const auto store = open_store(place);
        for (long i = 0; i < hydrated; i += 100) {
            std::vector<sourced::Append> parts;
            for (long j = i; j < i + 100; ++j) {
                parts.push_back({.stream = stream_name(0), .messages = {item_added}});
                parts.push_back({.stream = stream_name(1 + j % (command_streams - 1)), .messages = {item_added}});
            }
            store->append_all(parts);
        }
    }
    std::vector<Sample> samples;
    for (int i = 0; i < loads; ++i) {
        sourced::App app(options(place));
        app.add<Cart>();
        const Stopwatch watch;
        const auto loaded = app.load<Cart>(stream_name(0));
        samples.push_back(watch.per_second(hydrated));
        require(loaded.seq, hydrated, "last seq");
        require(static_cast<std::int64_t>(loaded.state.items.size()), hydrated, "items in the state");
    }
    return median(samples);
}

Sample load_floor(const Place& place) {
    {
        const Floor log(place, command_streams);
        floor_fill_one(log, hydrated, 1);
    }
    std::vector<Sample> samples;
    for (int i = 0; i < loads; ++i) samples.push_back(per_second(floor_load(place.path.c_str(), name_of(place.mode))));
    return median(samples);
}

// ---- W7: latency ----------------------------------------------------------------------

constexpr long latency_samples = 200;
constexpr long latency_streams = 100;

// From before the dispatch until the event stands in the log for everybody to see: the worker's commit is behind it.
std::vector<double> dispatch_and_wait(sourced::App& app) {
    std::vector<double> seconds;
    for (long i = 0; i < latency_samples; ++i) {
        std::this_thread::sleep_for(5ms);
        const auto stream = stream_name(i % latency_streams);
        const auto handled = 2 * (i / latency_streams + 1);
        const double from = floor_now();
        app.dispatch(stream, add_item);
        wait_until([&] { return app.store().stream_seq(stream) == handled; });
        seconds.push_back(floor_now() - from);
    }
    return seconds;
}

// Per cent of a core that this process takes while nothing happens.
double idle_percent(const Place& place) {
    std::this_thread::sleep_for(200ms);  // what follows the last command ends
    const double wall = floor_now();
    const double cpu = floor_cpu();
    std::this_thread::sleep_for(place.bench.full ? 10s : 2s);
    return 100 * (floor_cpu() - cpu) / (floor_now() - wall);
}

Sample notice(const Place& place) {
    sourced::App app(options(place));
    app.add<Cart>();
    app.start(place.bench.workers);
    std::this_thread::sleep_for(100ms);
    const double cpu = floor_cpu();
    auto sample = latency(dispatch_and_wait(app));
    sample.cpu_us = (floor_cpu() - cpu) * 1e6 / latency_samples;
    return sample.with("idle_percent", idle_percent(place));
}

Sample notice_floor(const Place& place) {
    std::vector<double> seconds(latency_samples);
    const Floor log(place, latency_streams);
    floor_latency(log, latency_samples, seconds.data());
    return latency(seconds);
}

// Shared by the process that dispatches and the one that handles.
struct Shared {
    std::atomic<bool> ready = false;
    std::atomic<bool> done = false;
    std::array<double, latency_samples> seconds{};
};

Sample notice_other(const Place& place) {
    void* memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::system_error(errno, std::generic_category(), "share memory");
    auto* shared = new (memory) Shared;
    // Forked before either opens the file. The child handles; its end follows from `done`.
    const pid_t child = fork_child();
    if (child == 0) {
        int status = 1;
        try {
            sourced::App app(options(place));
            app.add<Cart>();
            app.start(place.bench.workers);
            shared->ready = true;
            while (!shared->done) std::this_thread::sleep_for(20ms);
            app.stop();
            status = 0;
        } catch (const std::exception& error) {
            std::fprintf(stderr, "bench: the handling process: %s\n", error.what());
        }
        _exit(status);
    }
    std::vector<double> seconds;
    try {
        wait_until([&] {
            if (waitpid(child, nullptr, WNOHANG) != 0) throw std::runtime_error("the handling process ended");
            return shared->ready.load();
        });
        sourced::App app(options(place));
        app.add<Cart>();  // its types are needed; no worker is started here
        std::this_thread::sleep_for(100ms);
        seconds = dispatch_and_wait(app);
    } catch (...) {
        shared->done = true;
        waitpid(child, nullptr, 0);
        throw;
    }
    shared->done = true;
    waitpid(child, nullptr, 0);
    munmap(memory, sizeof(Shared));
    return latency(seconds);
}

Sample notice_other_floor(const Place& place) {
    std::vector<double> seconds(latency_samples);
    floor_latency_other(place.path.c_str(), name_of(place.mode), 1000, latency_samples, seconds.data());
    return latency(seconds);
}

// ---- W8: cost against size --------------------------------------------------------------

constexpr long per_stream = 10;  // messages a stream holds in a filled file
// Streams that the measured work goes to, neighbours in the middle: work that is spread over more pages in a larger
// file costs the floor as much and would hide what grows in the engine.
constexpr long touched = 1000;
constexpr long grown_appends = 2000;
constexpr long grown_commands = 2000;
constexpr long grown_claims = 300;

// In every stream a command was handled, so that groups have a row for it.
void fill_engine(const Place& place, long messages) {
    const long streams = messages / per_stream;
    sourced::App app(options(place));
    app.add<Cart>();
    app.start(place.bench.workers);
    dispatch(app, streams, 0, streams);
    wait_until_idle(app);
    app.stop();
    fill(app.store(), streams, per_stream - 2, false);
    app.run_until_idle();
    require(app.store().head(), messages, "messages in the log");
}

void fill_floor(const Place& place, long messages) {
    const long streams = messages / per_stream;
    const Floor log(place, streams);
    floor_queue(log, streams, 1000);
    floor_fill(log, per_stream - 1);  // its command is no message of the stream any more
}

Sample grown_engine(const Place& place, long messages) {
    const long streams = messages / per_stream;
    const long first = (streams - touched) / 2;
    sourced::App app(options(place));
    app.add<Cart>();
    const auto append = [&](long count) {
        for (long i = 0; i < count; ++i) app.store().append(stream_name(first + i % touched), {item_added});
    };
    const auto claim = [&](long count) {
        for (long i = 0; i < count; ++i) {
            app.dispatch(stream_name(first + i % touched), add_item);
            app.run_until_idle();
        }
    };
    append(touched);
    app.run_until_idle();
    const Stopwatch appending;
    append(grown_appends);
    const auto appended = appending.per_second(grown_appends);
    app.run_until_idle();
    claim(touched / 10);
    const Stopwatch claiming;
    claim(grown_claims);
    const auto claimed = claiming.per_second(grown_claims);
    app.start(place.bench.workers);
    dispatch(app, touched, first, touched);  // every state is in memory after this
    wait_until_idle(app);
    const Stopwatch handling;
    dispatch(app, grown_commands, first, touched);
    wait_until_idle(app);
    const auto handled = handling.per_second(grown_commands);
    return Sample{}.with("W1", appended.cpu_us).with("W3", handled.cpu_us).with("claim", claimed.cpu_us);
}

Sample grown_floor(const Place& place, long messages) {
    const long streams = messages / per_stream;
    const Floor log(place, streams);
    floor_read_heads(log);
    floor_turn_to(log, (streams - touched) / 2, touched);
    floor_append(log, touched, 1);
    const auto appended = per_second(floor_append(log, grown_appends, 1));
    floor_claim(log, touched / 10);
    const auto claimed = per_second(floor_claim(log, grown_claims));
    floor_queue(log, touched, dispatch_batch);
    const auto handled = per_second(floor_queue(log, grown_commands, dispatch_batch));
    return Sample{}.with("W1", appended.cpu_us).with("W3", handled.cpu_us).with("claim", claimed.cpu_us);
}

// ---- W9: the schedule ---------------------------------------------------------------------

constexpr long scheduled = 100'000;

sourced::Time now() { return std::chrono::time_point_cast<sourced::Time::duration>(std::chrono::system_clock::now()); }

// Nobody handles them: what is measured is the way into the log.
Sample promote(const Place& place) {
    Sample sample;
    {
        sourced::App app(options(place));
        const auto due = now();
        for (long from = 0; from < scheduled; from += 1000) {
            std::vector<sourced::Scheduled> entries;
            for (long i = from; i < from + 1000; ++i) {
                entries.push_back({due, sourced::Message(item_added).to(stream_name(i % many_streams))});
            }
            app.store().schedule(entries);
        }
        const Stopwatch watch;
        app.start(1);
        wait_until([&] {
            std::this_thread::sleep_for(1ms);  // looking costs what is being measured
            return app.store().head() >= scheduled;
        });
        sample = watch.per_second(scheduled);
        app.stop();
        require(app.store().head(), scheduled, "messages in the log");
    }
    // How late is the handler of one that becomes due while nothing else happens?
    std::filesystem::remove(place.path);
    constexpr int rings = 100;
    std::atomic<std::int64_t> late_us = -1;
    std::vector<double> late;
    sourced::App app(options(place));
    app.add<Bell>(late_us);
    app.start(place.bench.workers);
    for (int i = 0; i < rings; ++i) {
        late_us = -1;
        const auto due = now() + std::chrono::microseconds(15'000 + i * 37 % 1000);
        const auto due_us = std::chrono::duration_cast<std::chrono::microseconds>(due.time_since_epoch()).count();
        app.store().schedule({{due, sourced::Message(Ring{due_us}).to("bell")}});
        wait_until([&] {
            std::this_thread::sleep_for(100us);
            return late_us >= 0;
        });
        late.push_back(static_cast<double>(late_us));
    }
    return sample.with("late_p50_us", percentile(late, 0.5)).with("late_p99_us", percentile(late, 0.985));
}

Sample promote_floor(const Place& place) {
    const Floor log(place, many_streams);
    floor_schedule(log, scheduled);
    return per_second(floor_promote(log));
}

// ---- Reporting ------------------------------------------------------------------------------

struct Line {
    std::string workload;
    Mode mode = Mode::normal;
    double engine = 0;
    double floor = 0;
    double ratio = 0;
    std::string unit;
    double cpu_us = 0;
    std::vector<std::pair<std::string, double>> fields;
};

// What is asked of one number of a line.
struct Target {
    std::string of;  // "ratio", "engine" or a field
    bool at_least = true;
    double normal = 0;
    double full = 0;

    [[nodiscard]] double bound(Mode mode) const { return mode == Mode::normal ? normal : full; }
};
constexpr double none = 0;

double number_of(const Line& line, const std::string& name) {
    if (name == "ratio") return line.ratio;
    if (name == "engine") return line.engine;
    for (const auto& [key, value] : line.fields) {
        if (key == name) return value;
    }
    throw std::logic_error("no number is called " + name);
}

struct Workload {
    std::string name;
    std::string unit;
    std::vector<Target> targets;
    std::function<Line(const Bench&, const Workload&, Mode)> run;
};

// Three digits that count; the JSON form has the same numbers.
std::string text_of(double number) {
    char text[48];
    const double size = std::abs(number);
    const int digits = size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3;
    std::snprintf(text, sizeof text, "%.*f", digits, number);
    return text;
}

void print_json(const Line& line) {
    std::ostringstream out;
    out << R"({"workload":")" << line.workload << R"(","mode":")" << name_of(line.mode) << R"(","engine":)"
        << text_of(line.engine) << R"(,"floor":)" << text_of(line.floor) << R"(,"ratio":)" << text_of(line.ratio)
        << R"(,"unit":")" << line.unit << R"(","cpu_us":)" << text_of(line.cpu_us);
    for (const auto& [key, value] : line.fields) out << ",\"" << key << "\":" << text_of(value);
    out << '}';
    std::cout << out.str() << std::endl;
}

constexpr const char* row_format = "%-9s %-7s %10s %10s %7s %9s  %-15s %-7s %s\n";

void print_head() {
    std::printf(row_format, "workload", "mode", "engine", "floor", "ratio", "CPU us/op", "unit", "target", "");
}

void print_row(const Line& line, const Workload& workload) {
    std::string verdict;
    bool met = true;
    for (const auto& target : workload.targets) {
        const double bound = target.bound(line.mode);
        if (bound == none) continue;
        const double found = number_of(line, target.of);
        met = met && (target.at_least ? found >= bound : found <= bound);
        if (!verdict.empty()) verdict += ", ";
        verdict += target.of + (target.at_least ? " >= " : " <= ") + text_of(bound);
    }
    std::string more;
    for (const auto& [key, value] : line.fields) {
        if (key.find("cpu_us") != std::string::npos) continue;  // enough for people: the engine's, in its column
        more += (more.empty() ? "" : ", ") + key + " " + text_of(value);
    }
    std::string notes = verdict.empty() ? "-" : verdict;
    if (!more.empty()) notes += "  (" + more + ")";
    std::printf(row_format, line.workload.c_str(), name_of(line.mode), text_of(line.engine).c_str(),
                text_of(line.floor).c_str(), text_of(line.ratio).c_str(), text_of(line.cpu_us).c_str(),
                line.unit.c_str(),
                verdict.empty() ? "-"
                : met           ? "met"
                                : "MISSED",
                notes.c_str());
    std::fflush(stdout);
}

// ---- Running ----------------------------------------------------------------------------------

// Both sides in turn; the one that begins changes with each round.
std::pair<Sample, Sample> in_turn(const Bench& bench, const std::string& name, Mode mode, int rounds,
                                  const Side& engine, const Side& floor) {
    const double budget = bench.full ? 120 : 20;  // seconds after which no further round begins
    const double began = floor_now();
    std::vector<Sample> engines;
    std::vector<Sample> floors;
    if (bench.rounds > 0) rounds = bench.rounds;
    for (int round = 0; round < rounds && (round == 0 || floor_now() - began < budget); ++round) {
        std::fprintf(stderr, "%s %s: round %d of %d\n", name.c_str(), name_of(mode), round + 1, rounds);
        for (const bool engine_now : {round % 2 == 0, round % 2 != 0}) {
            const Place place{bench, mode, bench.folder.fresh("log.db")};
            const auto& side = engine_now ? engine : floor;
            (engine_now ? engines : floors).push_back(in_process([&] { return side(place); }));
        }
    }
    return {median(engines), median(floors)};
}

Line compare(const Bench& bench, const Workload& workload, Mode mode, int rounds, const Side& engine,
             const Side& floor) {
    const auto measured = in_turn(bench, workload.name, mode, rounds, engine, floor);
    Line line{.workload = workload.name,
              .mode = mode,
              .engine = measured.first.value,
              .floor = measured.second.value,
              .ratio = measured.first.value / measured.second.value,
              .unit = workload.unit,
              .cpu_us = measured.first.cpu_us,
              .fields = {}};
    if (measured.second.cpu_us > 0) line.fields.emplace_back("floor_cpu_us", measured.second.cpu_us);
    for (const auto& field : measured.first.fields) {
        if (field.name) line.fields.emplace_back(field.name, field.value);
    }
    for (const auto& field : measured.second.fields) {
        if (field.name) line.fields.emplace_back(std::string("floor_") + field.name, field.value);
    }
    return line;
}

auto compared_with(Side engine, Side floor, int rounds) {
    return [=](const Bench& bench, const Workload& workload, Mode mode) {
        return compare(bench, workload, mode, rounds, engine, floor);
    };
}

// W4 sets the engine against itself; the floor only shows what the disk does.
Line compare_growth(const Bench& bench, const Workload& workload, Mode mode) {
    auto line = compare(bench, workload, mode, 5, one_stream, one_stream_floor);
    line.ratio = line.engine;
    return line;
}

// Fills a file of each size for each side once for both modes, and works on copies of the small
// one and on the large one itself, which hardly grows by it.
class Sizes {
public:
    [[nodiscard]] Line run(const Bench& bench, const Workload& workload, Mode mode) {
        std::vector<long> sizes{10'000, 1'000'000};
        if (bench.full) sizes.push_back(10'000'000);
        if (!std::exchange(filled_, true)) {
            for (const long size : sizes) fill(bench, size);
        }
        Line line{.workload = workload.name, .mode = mode, .unit = workload.unit, .fields = {}};
        std::vector<Figures> figures;
        for (const long size : sizes) figures.push_back(measure(bench, mode, size));
        const auto& small = figures.front();
        line.cpu_us = small.engine.field("W3");
        for (std::size_t i = 1; i < figures.size(); ++i) {
            for (const char* part : {"W1", "W3", "claim"}) {
                const double engine = figures[i].engine.field(part) / small.engine.field(part);
                const double floor = figures[i].floor.field(part) / small.floor.field(part);
                const auto name = std::string(part) + (i == 1 ? "_1M" : "_10M");
                line.fields.emplace_back(name + "_growth", engine);
                line.fields.emplace_back(name + "_floor_growth", floor);
                if (engine / floor <= line.ratio) continue;
                line.ratio = engine / floor;
                line.engine = engine;
                line.floor = floor;
            }
        }
        for (const char* part : {"W1", "W3", "claim"}) {
            line.fields.emplace_back(std::string(part) + "_10k_cpu_us", small.engine.field(part));
            line.fields.emplace_back(std::string(part) + "_1M_cpu_us", figures[1].engine.field(part));
        }
        return line;
    }

private:
    struct Figures {
        Sample engine;
        Sample floor;
    };

    static std::string file(bool engine, long size) { return (engine ? "engine-" : "floor-") + std::to_string(size); }

    static void fill(const Bench& bench, long size) {
        for (const bool engine : {true, false}) {
            std::fprintf(stderr, "W8: filling the %s with %ld messages\n", engine ? "engine" : "floor", size);
            const Place place{bench, Mode::normal, bench.folder.fresh(file(engine, size).c_str())};
            in_process([&] {
                engine ? fill_engine(place, size) : fill_floor(place, size);
                return Sample{};
            });
        }
    }

    static Figures measure(const Bench& bench, Mode mode, long size) {
        const int rounds = bench.rounds > 0 ? bench.rounds : 5;
        std::vector<Sample> engines;
        std::vector<Sample> floors;
        for (int round = 0; round < rounds; ++round) {
            std::fprintf(stderr, "W8 %s: %ld messages, round %d of %d\n", name_of(mode), size, round + 1, rounds);
            for (const bool engine : {round % 2 == 0, round % 2 != 0}) {
                Place place{bench, mode, bench.folder.file(file(engine, size).c_str())};
                if (size == 10'000) {
                    place.path = bench.folder.fresh("log.db");
                    std::filesystem::copy_file(bench.folder.file(file(engine, size).c_str()), place.path);
                }
                auto sample = in_process([&] { return engine ? grown_engine(place, size) : grown_floor(place, size); });
                (engine ? engines : floors).push_back(sample);
            }
        }
        return {median(engines), median(floors)};
    }

    bool filled_ = false;
};

std::vector<Workload> workloads() {
    const auto sizes = std::make_shared<Sizes>();
    return {
        {"W1", "events/s", {{"ratio", true, 0.50, 0.75}}, compared_with(append_single, append_single_floor, 3)},
        {"W1-64", "events/s", {{"ratio", true, none, 4}}, compared_with(append_concurrently, append_single_floor, 3)},
        {"W2", "events/s", {{"ratio", true, 0.40, 0.40}}, compared_with(append_batches, append_batches_floor, 7)},
        {"W3-async", "commands/s", {{"ratio", true, 0.50, 0.50}}, compared_with(handle_async, handle_async_floor, 7)},
        {"W3-sync", "commands/s", {{"ratio", true, 0.60, 0.60}}, compared_with(handle_sync, handle_sync_floor, 3)},
        {"W4", "last/first", {{"ratio", false, 1.10, 1.10}}, compare_growth},
        {"W5", "events/s", {{"ratio", true, 0.40, 0.40}}, compared_with(project, project_floor, 5)},
        {"W6", "events/s", {{"ratio", true, 0.33, 0.33}}, compared_with(load, load_floor, 3)},
        {"W7",
         "us (p50)",
         {{"ratio", false, 1.5, 1.5}, {"p99_us", false, 1000, 1000}, {"idle_percent", false, 0.5, 0.5}},
         compared_with(notice, notice_floor, 3)},
        {"W7-other", "us (p50)", {{"engine", false, 1000, 1000}}, compared_with(notice_other, notice_other_floor, 3)},
        {"W8",
         "times the CPU",
         {{"ratio", false, 1.3, 1.3}},
         [sizes](const Bench& bench, const Workload& workload, Mode mode) {
             return sizes->run(bench, workload, mode);
         }},
        {"W9",
         "messages/s",
         {{"engine", true, 100'000, 100'000}, {"late_p99_us", false, 2000, 2000}},
         compared_with(promote, promote_floor, 3)},
    };
}

double commits_a_second(const Folder& folder) {
    const auto path = folder.fresh("log.db");
    return in_process([&] {
               floor_log* log = floor_open(path.c_str(), "FULL", 500);
               const auto sample = per_second(floor_append(log, 500, 1));
               floor_close(log);
               return sample;
           })
        .value;
}

void note_load() {
    double load = 0;
    const auto cores = static_cast<double>(std::thread::hardware_concurrency());
    if (getloadavg(&load, 1) == 1 && load > cores / 2) {
        std::fprintf(stderr,
                     "bench: the machine is busy (load %.1f on %.0f cores): trust the ratios and CPU times only\n",
                     load, cores);
    }
}

constexpr const char* usage =
    R"(usage: bench [workload ...] [options]

Runs the workloads W1 to W9 (default: all; a name may be cut: W3 is W3-async and W3-sync) on the engine
and on a floor in C, in turn, and prints what the engine reaches of the floor.

  --json          one JSON object a line instead of the table
  --full          full length, W8 with 10 million messages, too; no limit of time
  --dir FOLDER    where the files are put while it runs: on a disk (default: beside this program)
  --mode MODE     NORMAL or FULL only
  --rounds N      rounds of each workload instead of its own number
  --workers N     worker threads of the engine (default: 2)
)";

struct Arguments {
    std::vector<std::string> workloads{};
    // Beside the program: a build folder is on a disk, and nobody keeps anything in it.
    std::string parent = std::filesystem::read_symlink("/proc/self/exe").parent_path().string();
    std::string mode{};
    bool json = false;
    bool full = false;
    bool help = false;
    int rounds = 0;
    std::size_t workers = 2;
};

Arguments parse(const std::vector<std::string>& given) {
    Arguments arguments;
    for (std::size_t i = 0; i < given.size(); ++i) {
        const auto& word = given[i];
        const auto value = [&]() -> const std::string& {
            if (++i == given.size()) throw std::invalid_argument(word + " wants a value");
            return given[i];
        };
        const auto number = [&] {
            const auto& text = value();
            char* end = nullptr;
            const long found = std::strtol(text.c_str(), &end, 10);
            if (*end != 0 || found < 1 || found > 1000)
                throw std::invalid_argument(word + ": not from 1 to 1000: " + text);
            return static_cast<int>(found);
        };
        if (word == "--json") {
            arguments.json = true;
        } else if (word == "--full") {
            arguments.full = true;
        } else if (word == "--help" || word == "-h") {
            arguments.help = true;
        } else if (word == "--dir") {
            arguments.parent = value();
        } else if (word == "--mode") {
            arguments.mode = value();
            if (arguments.mode != "NORMAL" && arguments.mode != "FULL") {
                throw std::invalid_argument("--mode is NORMAL or FULL, not " + arguments.mode);
            }
        } else if (word == "--rounds") {
            arguments.rounds = number();
        } else if (word == "--workers") {
            arguments.workers = static_cast<std::size_t>(number());
        } else if (word.rfind("-", 0) == 0) {
            throw std::invalid_argument("no such option: " + word);
        } else {
            arguments.workloads.push_back(word);
        }
    }
    return arguments;
}

int run(const Arguments& arguments) {
    const auto all = workloads();
    const auto begins = [](const Workload& workload, const std::string& prefix) {
        return workload.name.rfind(prefix, 0) == 0;
    };
    for (const auto& prefix : arguments.workloads) {
        if (std::any_of(all.begin(), all.end(), [&](const auto& workload) { return begins(workload, prefix); }))
            continue;
        throw std::invalid_argument("no workload begins with " + prefix);
    }
    const auto wanted = [&](const Workload& workload) {
        const auto& prefixes = arguments.workloads;
        return prefixes.empty() || std::any_of(prefixes.begin(), prefixes.end(),
                                               [&](const auto& prefix) { return begins(workload, prefix); });
    };

    struct sigaction note {};
    note.sa_handler = [](int) { interrupted = 1; };  // and no restart, so that waiting for a child ends
    for (const int signal : {SIGINT, SIGTERM}) sigaction(signal, &note, nullptr);
    const Folder folder(arguments.parent);
    const Bench bench{folder, arguments.full, arguments.workers, arguments.rounds, commits_a_second(folder)};
    std::fprintf(stderr, "bench: %.0f commits a second at FULL on this disk\n", bench.commits_a_second);
    if (bench.operations(Mode::full, many_streams * 5) < many_streams * 5) {
        std::fprintf(stderr, "bench: single commits at FULL are measured on fewer operations (--full: on all)\n");
    }
    note_load();
    if (!arguments.json) print_head();
    int failed = 0;
    for (const auto& workload : all) {
        if (!wanted(workload)) continue;
        for (const auto mode : {Mode::normal, Mode::full}) {
            if (!arguments.mode.empty() && arguments.mode != name_of(mode)) continue;
            try {
                const auto line = workload.run(bench, workload, mode);
                arguments.json ? print_json(line) : print_row(line, workload);
            } catch (const std::exception& error) {
                std::fprintf(stderr, "bench: %s %s: %s\n", workload.name.c_str(), name_of(mode), error.what());
                if (interrupted) return 130;
                ++failed;
            }
        }
    }
    return failed == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        const auto arguments = parse(std::vector<std::string>(argv + 1, argv + argc));
        if (arguments.help) {
            std::fputs(usage, stdout);
            return 0;
        }
        return run(arguments);
    } catch (const std::invalid_argument& error) {
        std::fprintf(stderr, "bench: %s\n\n%s", error.what(), usage);
        return 2;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "bench: %s\n", error.what());
        return 1;
    }
}
