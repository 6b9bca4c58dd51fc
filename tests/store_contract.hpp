// What every store promises: one suite, run against each kind of store.
//
// A test program defines its kinds and includes this file:
//
//     struct MemoryStore {
//         std::unique_ptr<sourced::Store> open(sourced::StoreOptions options = {});
//     };
//     TYPE_TO_STRING(MemoryStore);
//     #define STORE_KINDS MemoryStore
//     #include "store_contract.hpp"
//
// `open` is called once for each object; the store starts empty.
#pragma once

#include <doctest/doctest.h>
#include <sourced.hpp>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <fstream>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <unordered_set>
#include <vector>

#include "support.hpp"

namespace store_test {

using namespace sourced;
using support::error_of;
using Numbers = std::vector<std::int64_t>;

// ---- Messages without a type behind them ----------------------------------------

/// The same number gives the same id.
inline Id id(std::uint64_t number) {
    std::array<std::uint8_t, 16> bytes{1, 0x90, 0, 0, 0, 0, 0x70, 0, 0x80};
    for (std::size_t i = 0; i < 7; ++i) bytes[15 - i] = static_cast<std::uint8_t>(number >> (8 * i));
    return Id(bytes);
}
inline std::atomic<std::uint64_t>& last_number() {
    static std::atomic<std::uint64_t> last{1'000'000};
    return last;
}
inline std::uint64_t next_number() { return ++last_number(); }
inline Message message(std::string_view type, std::string_view payload = "{}", Kind kind = Kind::event) {
    Message made;
    made.id = id(next_number());
    made.causation = made.correlation = made.id;
    made.type = type;
    made.kind = kind;
    made.payload = payload;
    return made;
}
inline Message command(std::string_view type, std::string_view payload = "{}") {
    return message(type, payload, Kind::command);
}
inline Message follow(const Message& cause, Message next) {
    next.causation = cause.id;
    next.correlation = cause.correlation;
    return next;
}
inline Messages several(std::string_view type, int count) {
    Messages made;
    for (int i = 0; i < count; ++i) made.push_back(message(type));
    return made;
}
inline Scheduled due(Time time, std::string_view stream, Message made) {
    made.stream = stream;
    return Scheduled{time, std::move(made)};
}

inline Numbers seqs(const Messages& messages) {
    Numbers numbers;
    for (const auto& each : messages) numbers.push_back(each.seq);
    return numbers;
}
inline Numbers positions(const Messages& messages) {
    Numbers numbers;
    for (const auto& each : messages) numbers.push_back(each.position);
    return numbers;
}
inline std::vector<Id> ids(const Messages& messages) {
    std::vector<Id> all;
    for (const auto& each : messages) all.push_back(each.id);
    return all;
}
inline std::vector<std::string> types(const Messages& messages) {
    std::vector<std::string> all;
    for (const auto& each : messages) all.push_back(each.type);
    return all;
}
inline Numbers counting(std::int64_t from, std::int64_t to) {
    Numbers numbers;
    for (auto i = from; i <= to; ++i) numbers.push_back(i);
    return numbers;
}

inline bool contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

/// A clock that stands until it is moved.
class HandClock {
public:
    [[nodiscard]] Time now() const { return Time(Duration(now_.load())); }
    void set(std::int64_t seconds) { now_ = seconds * 1'000'000; }
    [[nodiscard]] std::function<Time()> function() const {
        return [this] { return now(); };
    }
    [[nodiscard]] StoreOptions options() const {
        StoreOptions options;
        options.clock = function();
        return options;
    }

private:
    std::atomic<std::int64_t> now_{1'000'000'000};
};
inline Time at(std::int64_t seconds) { return Time(std::chrono::seconds(seconds)); }

/// Runs `body(0)` to `body(threads - 1)` at once and passes on the first exception.
inline void in_parallel(int threads, const std::function<void(int)>& body) {
    std::vector<std::exception_ptr> errors(static_cast<std::size_t>(threads));
    {
        std::vector<std::jthread> running;
        for (int i = 0; i < threads; ++i) {
            running.emplace_back([&, i] {
                try {
                    body(i);
                } catch (...) {
                    errors[static_cast<std::size_t>(i)] = std::current_exception();
                }
            });
        }
    }
    for (const auto& error : errors) {
        if (error) std::rethrow_exception(error);
    }
}

/// Has all bodies wait for the writer while one transaction holds it, so that they share the next one.
inline void in_one_group(Store& store, const std::vector<std::function<void()>>& bodies) {
    std::vector<std::atomic<long>> threads(bodies.size());
    std::vector<std::exception_ptr> errors(bodies.size());
    std::vector<std::jthread> running;
    const auto asleep = [](long thread) {
        std::string word;
        std::ifstream file("/proc/self/task/" + std::to_string(thread) + "/stat");
        while (file >> word && word.back() != ')') {}
        return file >> word && word == "S";
    };
    store.transaction([&](Transaction&) {
        for (std::size_t i = 0; i < bodies.size(); ++i) {
            running.emplace_back([&, i] {
                threads[i] = ::syscall(SYS_gettid);
                try {
                    bodies[i]();
                } catch (...) {
                    errors[i] = std::current_exception();
                }
            });
            while (threads[i] == 0 || !asleep(threads[i])) std::this_thread::yield();
        }
    });
    running.clear();
    for (const auto& error : errors) {
        if (error) std::rethrow_exception(error);
    }
}

// ---- A worker's steps -------------------------------------------------------------

/// Claims up to `count` streams.
inline std::vector<Claim> claim(Store& store, std::int64_t group, std::size_t count = 1) {
    Exchange step;
    step.group = group;
    step.claims = count;
    return store.exchange(step).claims;
}
inline Outcome finish(Store& store, Handled handled) {
    Exchange step;
    step.finished.push_back(std::move(handled));
    return store.exchange(step).outcomes.at(0);
}
inline Handled handled(const Claim& claim, std::int64_t acked) {
    Handled made;
    made.claim = claim;
    made.acked = acked;
    return made;
}
inline Handled failed(const Claim& claim, std::int64_t position, std::optional<Time> retry_at) {
    Handled made = handled(claim, claim.acked);
    const auto resolution = retry_at ? Resolution::retry(*retry_at) : Resolution::stop();
    made.failure = Failure{position, "std::runtime_error", "no paper", resolution};
    return made;
}
/// Positions of the group's messages behind the claim, as a worker would find them.
inline Numbers pending(Store& store, const Claim& claim, const std::vector<std::string>& wanted) {
    LogRange range;
    range.from = claim.pending;
    range.stream = claim.stream_name;
    range.types = wanted;
    return positions(store.log(range));
}
/// Handles all there is, one message at a time; gives the positions in order.
inline Numbers drain(Store& store, std::int64_t group, const std::vector<std::string>& wanted) {
    Numbers order;
    while (true) {
        const auto claims = claim(store, group);
        if (claims.empty()) return order;
        const auto found = pending(store, claims[0], wanted);
        Handled done = handled(claims[0], found.empty() ? claims[0].known : found.front());
        if (!found.empty()) order.push_back(found.front());
        if (finish(store, done).result != Outcome::Result::done) return {-1};
    }
}
using Went = Outcome::Result;

// ---- Append and read ----------------------------------------------------------------

TEST_CASE_TEMPLATE("Store: messages come back as they were appended, in order", Kind_, STORE_KINDS) {
    Kind_ kind;
    HandClock clock;
    auto store = kind.open(clock.options());

    SUBCASE("G1: what was appended is read back equal, a list and a single one") {
        Message first = command("cart.add_item", R"({"product_id":"p1"})");
        Message second = follow(first, message("cart.item_added", R"({"product_id":"p1","price":10})"));
        second.schema = 3;
        second.occurred_at = at(77);
        second.metadata = Metadata::parse(R"({"user":10})");
        const Appended done = store->append("s1", {first, second}, expect_seq(0));
        CHECK(done.first_seq == 1);
        CHECK(done.last_seq == 2);
        CHECK(done.first_position == 1);
        CHECK(done.last_position == 2);
        CHECK(done.recorded_at == clock.now());
        CHECK_FALSE(done.repeated);
        CHECK(store->append("s1", {message("cart.opened")}, expect_seq(2)).last_seq == 3);

        const Messages found = store->stream("s1");
        REQUIRE(found.size() == 3);
        CHECK(seqs(found) == Numbers{1, 2, 3});
        CHECK(found[0].id == first.id);
        CHECK(found[0].causation == first.id);
        CHECK(found[0].correlation == first.id);
        CHECK(found[0].kind == Kind::command);
        CHECK(found[0].type == "cart.add_item");
        CHECK(found[0].payload == first.payload);
        CHECK(found[0].schema == 1);
        CHECK(found[0].metadata.empty());
        CHECK(found[0].occurred_at == found[0].recorded_at);
        CHECK(found[1].stream == "s1");
        CHECK(found[1].position == 2);
        CHECK(found[1].id == second.id);
        CHECK(found[1].causation == first.id);
        CHECK(found[1].correlation == first.id);
        CHECK(found[1].kind == Kind::event);
        CHECK(found[1].payload == second.payload);
        CHECK(found[1].schema == 3);
        CHECK(found[1].occurred_at == at(77));
        CHECK(found[1].recorded_at == clock.now());
        CHECK(found[1].metadata.json() == R"({"user":10})");
        CHECK_FALSE(found[1].erased_at.has_value());

        const auto again = store->find(second.id);
        REQUIRE(again.has_value());
        CHECK(again->stream == "s1");
        CHECK(again->position == 2);
        CHECK(again->payload == second.payload);
        CHECK_FALSE(store->find(id(1)).has_value());
    }
    SUBCASE("G2: an empty list is a no-op, with an expected seq and without") {
        CHECK(store->append("s1", {}, expect_seq(7)).last_seq == 0);
        CHECK(store->append("s1", {}).last_position == 0);
        CHECK(store->stream("s1").empty());
        CHECK(store->head() == 0);
        CHECK(store->recent_streams().empty());
        CHECK(store->append_all({}).empty());
        store->schedule({});
    }
    SUBCASE("G3: a writer that expects an older seq is refused and nothing is written") {
        const Message kept = message("a", R"({"n":1})");
        store->append("s1", {kept}, expect_seq(0));
        CHECK_THROWS_AS(store->append("s1", {message("a", R"({"n":2})")}, expect_seq(0)), Conflict);
        CHECK(error_of([&] { store->append("s1", {message("a")}, expect_seq(0)); }) ==
              "append to 's1': expected seq 0, found 1");
        const Messages found = store->stream("s1");
        REQUIRE(found.size() == 1);
        CHECK(found[0].id == kept.id);
        CHECK(found[0].payload == kept.payload);
        CHECK(store->head() == 1);
    }
    SUBCASE("G4: one append takes messages of one stream only") {
        Message elsewhere = message("a");
        elsewhere.stream = "s2";
        CHECK_THROWS_AS(store->append("s1", {message("a"), elsewhere}), Invalid);
        CHECK(store->head() == 0);
        CHECK(store->stream("s1").empty());
        Message here = message("a");
        here.stream = "s1";
        CHECK(store->append("s1", {message("a"), here}).last_seq == 2);
    }
    SUBCASE("G5: without an expected seq messages take the next ones") {
        store->append("s1", {message("a")}, expect_seq(0));
        CHECK(store->append("s1", {message("a")}).last_seq == 2);
        CHECK(seqs(store->stream("s1")) == Numbers{1, 2});
        CHECK(store->append("s1", several("a", 3)).first_seq == 3);
        CHECK(seqs(store->stream("s1")) == counting(1, 5));
        store->append("s2", several("a", 2));
        CHECK(seqs(store->stream("s2")) == Numbers{1, 2});
        CHECK(store->stream_seq("s1") == 5);
        CHECK(store->stream_seq("nobody") == 0);
    }
    SUBCASE("G6: a transaction that throws leaves nothing to read") {
        CHECK_THROWS_AS(store->transaction([&](Transaction& transaction) {
            transaction.append("s1", {message("a")});
            throw std::logic_error("changed my mind");
        }),
                        std::logic_error);
        CHECK(store->stream("s1").empty());
        CHECK(store->head() == 0);
        CHECK(store->append("s1", {message("a")}).first_position == 1);
    }
    SUBCASE("G7: a part of a stream: up to a seq, behind one, backwards, so many") {
        store->append("s1", several("a", 5));
        const auto part = [&](StreamRange range) { return seqs(store->stream("s1", range)); };
        CHECK(part({.to = 2}) == Numbers{1, 2});
        CHECK(part({.from = 4}) == Numbers{4, 5});
        CHECK(part({.from = 2, .to = 4}) == Numbers{2, 3, 4});
        CHECK(part({.limit = 2}) == Numbers{1, 2});
        CHECK(part({.limit = 0}).empty());
        CHECK(part({.backwards = true}) == Numbers{5, 4, 3, 2, 1});
        CHECK(part({.to = 4, .limit = 2, .backwards = true}) == Numbers{4, 3});
        CHECK(part({.from = 6}).empty());
        CHECK(part({.from = 4, .to = 2}).empty());
        CHECK(part({.from = -3, .to = 1}) == Numbers{1});
    }
    SUBCASE("G8: a stream's messages only; a stream nobody knows is empty") {
        store->append("s1", several("a", 2));
        store->append("s2", several("b", 1));
        store->append("s1", several("a", 1));
        CHECK(positions(store->stream("s1")) == Numbers{1, 2, 4});
        CHECK(positions(store->stream("s2")) == Numbers{3});
        CHECK(store->stream("s3").empty());
    }
    SUBCASE("G9: a correlation in log order; an unknown id gives nothing") {
        const Message root = command("a");
        const Message one = follow(root, message("b"));
        const Message two = follow(one, message("c"));
        store->append("s1", {root});
        store->append("s2", {one});
        store->append("s1", {message("other")});
        store->append("s3", {two});
        const std::vector<Id> chain{root.id, one.id, two.id};
        CHECK(ids(store->correlated(two.id)) == chain);
        CHECK(ids(store->correlated(root.id)) == chain);
        CHECK(types(store->correlated(one.id)) == std::vector<std::string>{"a", "b", "c"});
        CHECK(store->correlated(two.id)[2].stream == "s3");
        CHECK(store->correlated(id(1)).empty());
    }
    SUBCASE("a correlation can be cut short, and asked for by an id that is not in the log") {
        const Message root = command("a");
        const Message one = follow(root, message("b"));
        const Message two = follow(one, message("c"));
        store->append("s1", {root, one, two});
        CHECK(ids(store->correlated(two.id, 2)) == std::vector<Id>{root.id, one.id});
        CHECK(store->correlated(root.id, 0).empty());
        CHECK(store->correlated(root.id, 7).size() == 3);
        Message stray = message("d");
        stray.causation = stray.correlation = id(5);
        store->append("s1", {stray});
        CHECK(ids(store->correlated(id(5))) == std::vector<Id>{stray.id});
        CHECK(ids(store->correlated(stray.id)) == std::vector<Id>{stray.id});
        CHECK(store->correlated(Id()).empty());
    }
    SUBCASE("the effects of a message are what it is the cause of, and no more") {
        const Message root = command("a");
        const Message one = follow(root, message("b"));
        const Message two = follow(one, message("c"));
        const Message three = follow(root, message("d"));
        store->append("s1", {root, one});
        store->append("s2", {two, message("other"), three});
        CHECK(ids(store->effects(root.id)) == std::vector<Id>{one.id, three.id});
        CHECK(ids(store->effects(one.id)) == std::vector<Id>{two.id});
        CHECK(store->effects(two.id).empty());
        CHECK(ids(store->effects(root.id, 1)) == std::vector<Id>{one.id});
        CHECK(store->effects(root.id, 0).empty());
        CHECK(store->effects(id(1)).empty());
    }
    SUBCASE("a correlation is a part of the log like others; what it began with need not be there") {
        const Message root = command("a");
        const Message one = follow(root, message("b"));
        const Message two = follow(one, message("c"));
        Message before = follow(root, message("d"));
        store->append("s1", {before});  // known before what it follows from
        store->append("s1", {root});
        store->append("s2", {one});
        store->append("s1", {message("other")});
        store->append("s2", {two});
        const auto part = [&](LogRange range) {
            range.correlation = root.id;
            return positions(store->log(range));
        };
        CHECK(part({}) == Numbers{1, 2, 3, 5});
        CHECK(part({.backwards = true}) == Numbers{5, 3, 2, 1});
        CHECK(part({.limit = 2}) == Numbers{1, 2});
        CHECK(part({.limit = 3, .backwards = true}) == Numbers{5, 3, 2});
        CHECK(part({.limit = 0}).empty());
        CHECK(part({.from = 2, .to = 3}) == Numbers{2, 3});
        CHECK(part({.from = 3}) == Numbers{3, 5});
        CHECK(part({.types = {"b", "a"}}) == Numbers{2, 3});
        CHECK(part({.stream = "s1"}) == Numbers{1, 2});
        CHECK(part({.stream = "s2", .limit = 1, .backwards = true}) == Numbers{5});

        Message astray = message("e");
        astray.correlation = id(7);
        store->append("s3", {astray});
        LogRange range;
        range.correlation = id(7);
        CHECK(positions(store->log(range)) == Numbers{6});
        range.correlation = id(8);
        CHECK(store->log(range).empty());
    }
    SUBCASE("ids are found by how they begin") {
        const auto add = [&](const char* text) {
            Message added = message("a");
            added.id = added.causation = added.correlation = Id::parse(text);
            store->append("s", {added});
            return added.id;
        };
        const Id second = add("01890a5d-ac96-774b-bcce-b302099a8057");
        const Id first = add("01890a5d-ac96-774b-bcce-000000000000");
        const Id third = add("01890a5e-0000-7000-8000-000000000000");
        CHECK(store->ids("01890a5d") == std::vector<Id>{first, second});
        CHECK(store->ids("01890a5d-AC96-774b-bcce-b") == std::vector<Id>{second});
        CHECK(store->ids("0189") == std::vector<Id>{first, second, third});
        CHECK(store->ids("0189", 2) == std::vector<Id>{first, second});
        CHECK(store->ids(third.to_string()) == std::vector<Id>{third});
        CHECK(store->ids("ff").empty());
        for (const char* wrong : {"", "-", "0189x", "01890a5d-ac96-774b-bcce-b302099a80570"}) {
            CHECK_THROWS_AS(static_cast<void>(store->ids(wrong)), Invalid);
        }
    }
    SUBCASE("what followed from what is counted by type, in the same stream and elsewhere") {
        CHECK(store->causations().pairs.empty());
        CHECK(store->causations().whole);
        const Message root = command("a");
        const Message again = command("a");
        const Message one = follow(root, message("b"));
        Message astray = message("d");
        astray.causation = id(7);
        store->append("s1", {root, one, follow(root, message("b")), again});
        store->append("s2", {follow(again, message("b")), follow(one, command("c")), astray});
        const auto all = store->causations();
        using Pairs = std::vector<Causation>;
        CHECK(all.pairs == Pairs{{"", Kind::event, "a", Kind::command, 2, 0},
                                 {"a", Kind::command, "b", Kind::event, 2, 1},
                                 {"b", Kind::event, "c", Kind::command, 0, 1},
                                 {"", Kind::event, "d", Kind::event, 1, 0}});
        CHECK(all.messages == 7);
        CHECK(all.whole);
        const auto newest = store->causations(2);
        CHECK(newest.pairs == Pairs{all.pairs[2], all.pairs[3]});
        CHECK(newest.messages == 2);
        CHECK_FALSE(newest.whole);

        store->append("s3", std::vector<Message>(several("e", 5000)));
        std::vector<Progress> told;
        const auto ended = store->causations(5000, [&](const Progress& progress) {
            told.push_back(progress);
            return false;
        });
        REQUIRE(told.size() == 1);
        CHECK(told[0].total == 5000);
        CHECK(ended.messages == told[0].done);
        CHECK_FALSE(ended.whole);
    }
    SUBCASE("G10: recent streams, newest first") {
        clock.set(2'000'000'000);
        store->append("s1", {message("a")});
        clock.set(2'000'000'005);
        store->append("s2", several("a", 10));
        auto streams = store->recent_streams();
        REQUIRE(streams.size() == 2);
        CHECK(streams[0].name == "s2");
        CHECK(streams[0].seq == 10);
        CHECK(streams[0].updated_at == at(2'000'000'005));
        CHECK(streams[1].name == "s1");
        CHECK(streams[1].seq == 1);
        for (int i = 3; i <= 12; ++i) {
            clock.set(2'000'000'010 + i);
            store->append("s" + std::to_string(i), {message("a")});
        }
        CHECK(store->recent_streams().size() == 10);
        streams = store->recent_streams(3);
        REQUIRE(streams.size() == 3);
        CHECK(streams[0].name == "s12");
        CHECK(streams[2].name == "s10");
        CHECK(store->recent_streams(0).empty());
        CHECK(store->recent_streams(1000).size() == 12);
        CHECK_THROWS_AS((void)store->recent_streams(-1), Invalid);
        CHECK(contains(error_of([&] { (void)store->recent_streams(-1); }), "limit must be a positive integer"));
    }
    SUBCASE("G11: neither a gap nor a lower seq can be made, and appending goes on afterwards") {
        store->append("s1", {message("a")}, expect_seq(0));
        CHECK_THROWS_AS(store->append("s1", {message("a")}, expect_seq(4)), Conflict);
        store->append("s1", {message("a")});
        CHECK_THROWS_AS(store->append("s1", {message("a")}, expect_seq(1)), Conflict);
        Message numbered = message("a");
        numbered.seq = 17;
        numbered.position = 99;
        CHECK(store->append("s1", {numbered}).last_seq == 3);
        CHECK(seqs(store->stream("s1")) == counting(1, 3));
        CHECK(positions(store->log()) == counting(1, 3));
    }
}

TEST_CASE_TEMPLATE("Store: streams are listed by change, by messages or by name; all, or those a pattern fits", Kind,
                   STORE_KINDS) {
    Kind kind;
    HandClock clock;
    const auto store = kind.open(clock.options());
    using Order = StreamQuery::Order;
    const auto names = [&](const StreamQuery& query) {
        std::string text;
        for (const auto& stream : store->streams(query)) text += stream.name + ":" + std::to_string(stream.seq) + " ";
        return text;
    };
    CHECK(names({}) == "");
    store->append("cart-1", several("a", 2));
    clock.set(2000);
    store->append("invoice-1", several("a", 3));
    store->append_all({{"cart-2", several("a", 1)}, {"Cart-3", several("a", 1)}});
    clock.set(3000);
    store->append("b\u00e4r", several("a", 3));
    CHECK(names({}) == "b\u00e4r:3 Cart-3:1 cart-2:1 invoice-1:3 cart-1:2 ");
    CHECK(names({.order = Order::seq}) == "b\u00e4r:3 invoice-1:3 cart-1:2 Cart-3:1 cart-2:1 ");
    CHECK(names({.order = Order::name}) == "Cart-3:1 b\u00e4r:3 cart-1:2 cart-2:1 invoice-1:3 ");
    CHECK(names({.limit = 2}) == "b\u00e4r:3 Cart-3:1 ");
    CHECK(names({.order = Order::seq, .limit = 2}) == "b\u00e4r:3 invoice-1:3 ");
    CHECK(names({.order = Order::name, .limit = 2}) == "Cart-3:1 b\u00e4r:3 ");
    CHECK(names({.limit = 0}) == "");
    for (const Order order : {Order::updated, Order::seq, Order::name}) {
        CAPTURE(static_cast<int>(order));
        CHECK(store->streams({.pattern = "*art-*", .order = order}).size() == 3);
        CHECK(store->streams({.pattern = "cart-*", .order = order}).size() == 2);
        CHECK(store->streams({.pattern = "cart-?", .order = order, .limit = 1}).size() == 1);
        CHECK(names({.pattern = "[a-z]art-2", .order = order}) == "cart-2:1 ");
        CHECK(names({.pattern = "[^a-z]art-*", .order = order}) == "Cart-3:1 ");
        CHECK(names({.pattern = "b?r", .order = order}) == "b\u00e4r:3 ");
        CHECK(names({.pattern = "cart", .order = order}) == "");
        CHECK(names({.pattern = "[*]", .order = order}) == "");
        CHECK(names({.pattern = "'; --", .order = order}) == "");
    }
    CHECK(store->streams()[0].updated_at == clock.now());
    // Streams that changed last long ago are found behind many messages of another.
    for (int i = 0; i < 6; ++i) store->append("busy", several("a", 1000));
    CHECK(names({.limit = 3}) == "busy:6000 b\u00e4r:3 Cart-3:1 ");
    CHECK(names({.pattern = "c*"}) == "cart-2:1 cart-1:2 ");
    CHECK(store->recent_streams(6).back().name == "cart-1");
}

TEST_CASE_TEMPLATE("Store: message types are counted; of a long log a sample is, and says so", Kind, STORE_KINDS) {
    Kind kind;
    const auto store = kind.open({});
    CHECK(store->types().empty());
    (void)store->register_group({"g", {"never", "a"}, {}});
    store->append("s", several("a", 2));
    store->append("s", {command("c"), message("b"), message("b"), message("b")});
    auto types = store->types();
    REQUIRE(types.size() == 4);
    CHECK(types[0].name == "b");
    CHECK(types[0].messages == 3);
    CHECK(types[1].name == "a");
    CHECK(types[1].messages == 2);
    CHECK(types[1].kind == sourced::Kind::event);
    CHECK(types[2].kind == sourced::Kind::command);
    CHECK(types[3].name == "never");
    CHECK(types[3].messages == 0);
    CHECK_FALSE(types[3].kind.has_value());
    for (const auto& type : types) CHECK_FALSE(type.estimated);
    // Commands and events that take turns: a sample at even distances would see only one of them.
    for (int i = 0; i < 6; ++i) {
        Messages turns;
        for (int j = 0; j < 5000; ++j) {
            turns.push_back(command("c"));
            turns.push_back(message("e"));
        }
        store->append("s", turns);
    }
    types = store->types();
    REQUIRE(types.size() == 5);
    std::int64_t all = 0;
    for (const auto& type : types) {
        all += type.messages;
        CHECK(type.estimated == (type.name != "never"));
        if (type.name != "c" && type.name != "e") continue;
        CHECK(type.messages > 27'000);
        CHECK(type.messages < 33'000);
    }
    CHECK(std::abs(all - store->head()) < 10);
}

TEST_CASE_TEMPLATE("Store: a file says what it is", Kind, STORE_KINDS) {
    Kind kind;
    const auto store = kind.open({});
    const FileInfo before = store->file();
    store->append("s", several("a", 1000));
    const FileInfo file = store->file();
    CHECK(file.page_size == 4096);
    CHECK(file.schema == 2);
    CHECK(file.store_id.size() == 32);
    CHECK(file.store_id == before.store_id);
    CHECK(file.sqlite.substr(0, 2) == "3.");
    CHECK(file.bytes + file.wal_bytes > before.bytes + before.wal_bytes);
    CHECK(file.path.empty() == (file.wal_bytes == 0));
}

TEST_CASE_TEMPLATE("Store: what cannot be a message is refused by its own error", Kind_, STORE_KINDS) {
    Kind_ kind;
    StoreOptions options;
    options.max_payload = 100;
    auto store = kind.open(options);
    for (const char* blank : {"", " ", "\t\n "}) {
        CHECK_THROWS_AS(store->append(blank, {message("a")}), Invalid);
        CHECK_THROWS_AS(store->schedule({due(at(1), blank, message("a"))}), Invalid);
    }
    CHECK_THROWS_AS(store->append("s1", {message("")}), Invalid);
    Message nameless = message("a");
    nameless.id = Id();
    CHECK_THROWS_AS(store->append("s1", {nameless}), Invalid);
    const Message large = message("a", "\"" + std::string(99, 'x') + "\"");
    CHECK(contains(error_of([&] { store->append("s1", {large}); }), "101 bytes, at most 100"));
    CHECK_THROWS_AS(store->schedule({due(at(1), "s1", large)}), Invalid);
    CHECK(store->head() == 0);
    CHECK(store->append("s1", {message("a", "\"" + std::string(98, 'x') + "\"")}).last_seq == 1);
}

TEST_CASE_TEMPLATE("Store: an append is idempotent by message id", Kind_, STORE_KINDS) {
    Kind_ kind;
    HandClock clock;
    auto store = kind.open(clock.options());
    const Messages list{message("a", R"({"n":1})"), message("b", R"({"n":2})")};
    store->append("s0", {message("x")});
    const Appended first = store->append("s1", list, expect_seq(0));
    clock.set(1'500'000'000);
    store->append("s1", {message("x")});

    SUBCASE("all known and equal: the first result is given, whatever seq is expected") {
        for (const Expect expected : {any_seq, expect_seq(0), expect_seq(3), expect_seq(9)}) {
            const Appended again = store->append("s1", list, expected);
            CHECK(again.repeated);
            CHECK(again.first_seq == first.first_seq);
            CHECK(again.last_seq == first.last_seq);
            CHECK(again.first_position == first.first_position);
            CHECK(again.last_position == first.last_position);
            CHECK(again.recorded_at == first.recorded_at);
        }
        const Appended second = store->append("s1", {list[1]}, expect_seq(0));
        CHECK(second.repeated);
        CHECK(second.first_seq == 2);
    }
    SUBCASE("only some known: refused, also when the first of the list is new") {
        CHECK_THROWS_AS(store->append("s1", {list[0], message("c")}), Invalid);
        CHECK_THROWS_AS(store->append("s1", {message("c"), list[0]}), Invalid);
        CHECK_THROWS_AS(store->append("s1", {message("c"), list[0]}, expect_seq(3)), Invalid);
        CHECK_THROWS_AS(store->append("s9", {message("c"), list[0]}), Invalid);
    }
    SUBCASE("another stream, type or payload: refused") {
        CHECK_THROWS_AS(store->append("s2", list), Invalid);
        CHECK_THROWS_AS(store->append("s0", list), Invalid);
        Message other = list[0];
        other.type = "z";
        CHECK_THROWS_AS(store->append("s1", {other, list[1]}), Invalid);
        other = list[0];
        other.payload = R"({"n":7})";
        CHECK_THROWS_AS(store->append("s1", {other, list[1]}), Invalid);
        CHECK_THROWS_AS(store->append("s1", {other, list[1]}, expect_seq(0)), Invalid);
    }
    SUBCASE("an id twice in one list: refused") {
        const Message twice = message("c");
        CHECK_THROWS_AS(store->append("s1", {twice, twice}), Invalid);
    }
    SUBCASE("ids are unique across log and schedule") {
        const Message later = message("c", R"({"n":3})");
        store->schedule({due(at(3'000'000'000), "s5", later)});
        store->schedule({due(at(3'000'000'000), "s5", later)});
        CHECK(store->scheduled().size() == 1);
        CHECK_THROWS_AS(store->append("s5", {later}), Invalid);
        Message other = later;
        other.payload = "{}";
        CHECK_THROWS_AS(store->schedule({due(at(3'000'000'000), "s5", other)}), Invalid);
        store->schedule({due(at(3'000'000'000), "s1", list[1])});  // happened already
        CHECK_THROWS_AS(store->schedule({due(at(3'000'000'000), "s2", list[1])}), Invalid);
        CHECK(store->scheduled().size() == 1);
        CHECK(store->promote(at(3'000'000'000)) == 1);
        CHECK(store->append("s5", {later}).repeated);
    }
    const std::size_t expected = store->stream("s5").size() + 4;
    CHECK(store->log().size() == expected);
    CHECK(seqs(store->stream("s1")) == counting(1, 3));
    CHECK(store->stream("s9").empty());
    CHECK(store->append("s1", {message("y")}).last_seq == 4);
}

TEST_CASE_TEMPLATE("Store: an append to several streams is done whole or not at all", Kind_, STORE_KINDS) {
    Kind_ kind;
    auto store = kind.open();
    store->append("s1", {message("a")});
    const auto done = store->append_all({{"s1", several("b", 2), expect_seq(1)}, {"s2", several("c", 1), expect_seq(0)},
                                         {"s3", {}, any_seq}, {"s1", several("d", 1), expect_seq(3)}});
    REQUIRE(done.size() == 4);
    CHECK(done[0].first_position == 2);
    CHECK(done[0].last_seq == 3);
    CHECK(done[1].last_position == 4);
    CHECK(done[2].last_seq == 0);
    CHECK(done[3].last_seq == 4);
    CHECK(types(store->log()) == std::vector<std::string>{"a", "b", "b", "c", "d"});

    CHECK_THROWS_AS(store->append_all({{"s2", several("x", 1), any_seq}, {"new", several("x", 1), any_seq},
                                       {"s1", several("x", 1), expect_seq(1)}}),
                    Conflict);
    CHECK_THROWS_AS(store->append_all({{"s2", several("x", 1), any_seq}, {" ", several("x", 1), any_seq}}), Invalid);
    CHECK(store->head() == 5);
    CHECK(store->stream_seq("s2") == 1);
    CHECK(store->stream("new").empty());
    CHECK(store->recent_streams(100).size() == 2);
    CHECK(store->append("s2", {message("y")}).first_position == 6);
}

TEST_CASE_TEMPLATE("Store: the log is read by position, with filters by type and stream", Kind_, STORE_KINDS) {
    Kind_ kind;
    auto store = kind.open();
    for (int i = 0; i < 4; ++i) {
        store->append("s1", {message("a"), message("b")});
        store->append("s2", {message("a")});
    }
    const auto part = [&](LogRange range) { return positions(store->log(range)); };
    CHECK(part({}) == counting(1, 12));
    CHECK(part({.from = 4, .to = 6}) == Numbers{4, 5, 6});
    CHECK(part({.from = 11, .backwards = true}) == Numbers{12, 11});
    CHECK(part({.limit = 3, .backwards = true}) == Numbers{12, 11, 10});
    CHECK(part({.types = {"b"}}) == Numbers{2, 5, 8, 11});
    CHECK(part({.types = {"b"}, .limit = 2}) == Numbers{2, 5});
    CHECK(part({.types = {"a", "b", "nobody"}, .limit = 2}) == Numbers{1, 2});
    CHECK(part({.types = {"nobody"}}).empty());
    CHECK(part({.stream = "s2"}) == Numbers{3, 6, 9, 12});
    CHECK(part({.from = 4, .stream = "s2", .backwards = true}) == Numbers{12, 9, 6});
    CHECK(part({.types = {"a"}, .stream = "s1", .limit = 2, .backwards = true}) == Numbers{10, 7});
    CHECK(part({.stream = "nobody"}).empty());
    CHECK(part({.limit = 0}).empty());
    CHECK(part({.from = 13}).empty());
    CHECK(store->log({.stream = "s2"})[1].stream == "s2");
    CHECK(store->log({.stream = "s2"})[1].seq == 2);
}

TEST_CASE_TEMPLATE("Store: a visitor ends the reading, may move the message away, and may throw", Kind_, STORE_KINDS) {
    Kind_ kind;
    auto store = kind.open();
    store->append("s1", {message("a", "1"), message("b", "2"), message("c", "3")});
    int seen = 0;
    store->read_stream("s1", {}, [&](Message&) { return ++seen < 2; });
    CHECK(seen == 2);
    Messages kept;
    store->read_log({}, [&](Message& each) {
        kept.push_back(std::move(each));
        return true;
    });
    REQUIRE(kept.size() == 3);
    CHECK(kept[0].stream == "s1");
    CHECK(kept[2].stream == "s1");
    CHECK(kept[1].type == "b");
    CHECK(kept[2].payload == "3");
    const auto thrower = [](Message&) -> bool { throw std::logic_error("enough"); };
    CHECK_THROWS_AS(store->read_stream("s1", {}, thrower), std::logic_error);
    CHECK_THROWS_AS(store->read_log({}, thrower), std::logic_error);
    CHECK(store->append("s1", {message("d")}).last_seq == 4);
}

TEST_CASE_TEMPLATE("Store: hostile names of streams, types and groups round-trip", Kind_, STORE_KINDS) {
    Kind_ kind;
    auto store = kind.open();
    const std::vector<std::string> names{"'\";--%_",
                                         "\\_%",
                                         std::string("nul\0inside", 10),
                                         std::string("nul\0other", 9),
                                         "line\nfeed\r\ttab \x1b[31m",
                                         std::string(10'240, 'x'),
                                         "\xd0\xb8\xd0\xbc\xd1\x8f \xf0\x9f\x9b\x92",
                                         "'); DROP TABLE sourced_messages; --",
                                         "{\"a\":[1,\"\\u0000\"]}",
                                         "A",
                                         "a",
                                         "?1"};
    std::vector<Message> sent;
    for (const auto& name : names) {
        sent.push_back(message(name, R"("\u0000")"));
        CHECK(store->append(name, {sent.back()}, expect_seq(0)).last_seq == 1);
    }
    CHECK(positions(store->log()) == counting(1, static_cast<std::int64_t>(names.size())));
    for (std::size_t i = 0; i < names.size(); ++i) {
        CAPTURE(i);
        const Messages found = store->stream(names[i]);
        REQUIRE(found.size() == 1);
        CHECK(found[0].stream == names[i]);
        CHECK(found[0].type == names[i]);
        CHECK(found[0].id == sent[i].id);
        CHECK(store->log({.types = {names[i]}}).size() == 1);
        CHECK(store->log({.stream = names[i]}).size() == 1);
        CHECK(store->log({.stream = names[i]})[0].stream == names[i]);
        CHECK(store->stream_seq(names[i]) == 1);

        // As a group that handles that type it gets just that message.
        const GroupInfo group = store->register_group({names[i], {names[i]}, Start::beginning()});
        CHECK(group.name == names[i]);
        const auto claims = claim(*store, group.id, 10);
        REQUIRE(claims.size() == 1);
        CHECK(claims[0].stream_name == names[i]);
        Handled done = failed(claims[0], claims[0].pending, std::nullopt);
        done.failure->text = names[i];
        done.failure->type = names[i];
        CHECK(finish(*store, done).result == Went::done);
        const Stats stats = store->stats();
        CHECK(stats.group(names[i]).types == std::vector<std::string>{names[i]});
        CHECK(stats.group(names[i]).error_text == names[i]);
        CHECK(stats.group(names[i]).error_type == names[i]);
        CHECK(stats.group(names[i]).lag == 1);

        store->schedule({due(at(5), names[i], message(names[i]))});
        CHECK(store->scheduled().at(0).message.stream == names[i]);
        CHECK(store->scheduled().at(0).message.type == names[i]);
        CHECK(store->promote(at(5)) == 1);
        CHECK(store->stream_seq(names[i]) == 2);
    }
    CHECK(store->recent_streams(100).size() == names.size());
}

// ---- Many threads ---------------------------------------------------------------------

TEST_CASE_TEMPLATE("Store: positions are contiguous under 16 threads, and each call sees its own commit", Kind_,
                   STORE_KINDS) {
    Kind_ kind;
    auto store = kind.open();
    constexpr int threads = 16;
    constexpr int rounds = 40;
    std::array<std::vector<Appended>, threads> results;
    std::atomic<int> missed{0};
    in_parallel(threads, [&](int thread) {
        auto& mine = results[static_cast<std::size_t>(thread)];
        const std::string own = "own-" + std::to_string(thread);
        for (int round = 0; round < rounds; ++round) {
            mine.push_back(store->append(own, several("own", 1 + round % 3), expect_seq(store->stream_seq(own))));
            if (store->stream_seq(own) != mine.back().last_seq || store->head() < mine.back().last_position) ++missed;
            while (true) {  // everybody counts in one stream, each by what it has seen
                const auto seen = store->stream_seq("shared");
                try {
                    mine.push_back(store->append("shared", {message("count")}, expect_seq(seen)));
                    break;
                } catch (const Conflict&) {  // somebody else was quicker
                }
            }
        }
    });
    CHECK(missed == 0);
    std::int64_t total = 0;
    std::set<std::int64_t> given;
    for (const auto& mine : results) {
        for (const auto& each : mine) {
            total += each.last_seq - each.first_seq + 1;
            for (auto at = each.first_position; at <= each.last_position; ++at) given.insert(at);
        }
    }
    CHECK(store->head() == total);
    CHECK(static_cast<std::int64_t>(given.size()) == total);
    const Messages log = store->log();
    CHECK(positions(log) == counting(1, total));
    CHECK(seqs(store->stream("shared")) == counting(1, threads * rounds));
    bool forwards = true;
    for (std::size_t i = 1; i < log.size(); ++i) forwards &= log[i - 1].recorded_at <= log[i].recorded_at;
    CHECK(forwards);
}

TEST_CASE_TEMPLATE("Store: units that wait share a transaction, and one that fails leaves the others committed", Kind_,
                   STORE_KINDS) {
    Kind_ kind;
    std::atomic<std::int64_t> ticks{0};
    StoreOptions options;
    options.clock = [&] { return Time(Duration(++ticks)); };
    auto store = kind.open(options);
    store->transaction([](Transaction& transaction) {
        transaction.execute("CREATE TABLE notes(id INTEGER PRIMARY KEY, text TEXT NOT NULL)");
        transaction.execute("INSERT INTO notes VALUES(1, 'one')");
    });
    const Message known = message("known");
    store->append("s", {known, message("todo"), message("todo")});
    store->append("t", {message("todo")});
    const auto group = store->register_group({"g", {"todo"}, {}}).id;
    const auto claims = claim(*store, group, 2);
    REQUIRE(claims.size() == 2);

    std::array<Appended, 4> done;
    std::array<std::string, 3> errors;
    Exchanged exchanged;
    std::function<void(Transaction&)> sync;
    Went expected = Went::failed;
    SUBCASE("user code throws") {
        sync = [](Transaction& transaction) {
            transaction.execute("INSERT INTO notes VALUES(2, 'two')");
            throw std::logic_error("no");
        };
    }
    SUBCASE("user SQL breaks a constraint") {
        sync = [](Transaction& transaction) {
            transaction.execute("INSERT INTO notes VALUES(2, 'two')");
            transaction.execute("INSERT INTO notes VALUES(1, 'again')");
        };
    }
    SUBCASE("user SQL ends the whole transaction: INSERT OR ROLLBACK") {
        sync = [](Transaction& transaction) {
            transaction.execute("INSERT INTO notes VALUES(2, 'two')");
            transaction.execute("INSERT OR ROLLBACK INTO notes VALUES(1, 'again')");
        };
    }
    SUBCASE("user code goes on writing after INSERT OR ROLLBACK") {
        sync = [](Transaction& transaction) {
            (void)error_of([&] { transaction.execute("INSERT OR ROLLBACK INTO notes VALUES(1, 'again')"); });
            (void)error_of([&] { transaction.execute("INSERT INTO notes VALUES(2, 'two')"); });
            (void)error_of([&] { transaction.append("sync", {message("lost")}); });
        };
    }
    SUBCASE("an append from user code is refused") {
        sync = [&](Transaction& transaction) {
            transaction.append("sync", {message("lost")});
            transaction.append("s", {message("lost")}, expect_seq(0));
        };
    }
    SUBCASE("user code is content") {
        expected = Went::done;
        sync = [](Transaction& transaction) { transaction.execute("UPDATE notes SET text = 'done'"); };
    }
    Exchange step;
    step.finished.push_back(handled(claims[0], claims[0].known));
    step.finished[0].appends.push_back({"from-exchange", several("made", 1), any_seq});
    step.finished[0].sync = [&](Transaction& transaction) { sync(transaction); };
    step.finished.push_back(handled(claims[1], claims[1].known));
    step.finished[1].appends.push_back({"beside", several("made", 1), any_seq});

    const auto before = store->head();
    in_one_group(*store, {
                             [&] { done[0] = store->append("u1", several("ok", 2)); },
                             [&] {
                                 errors[0] = error_of([&] { store->append("s", several("no", 1), expect_seq(1)); });
                             },
                             [&] { done[1] = store->append("s", several("ok", 1)); },
                             [&] { errors[1] = error_of([&] { store->append("fresh", {message("new"), known}); }); },
                             [&] { exchanged = store->exchange(step); },
                             [&] {
                                 errors[2] = error_of([&] {
                                     store->append_all({{"fresh", several("no", 3), any_seq},
                                                        {"s", several("no", 1), expect_seq(0)}});
                                 });
                             },
                             [&] { done[2] = store->append("u2", several("ok", 1)); },
                             [&] { done[3] = store->append("u1", several("ok", 1), expect_seq(2)); },
                         });
    for (const auto& each : done) {
        CHECK(each.last_position > before);
        CHECK(each.recorded_at == done[0].recorded_at);  // one transaction
    }
    CHECK(contains(errors[0], "expected seq 1, found"));
    CHECK(contains(errors[1], "is known already"));
    CHECK(contains(errors[2], "expected seq 0, found"));
    REQUIRE(exchanged.outcomes.size() == 2);
    CHECK(exchanged.outcomes[0].result == expected);
    CHECK(static_cast<bool>(exchanged.outcomes[0].error) == (expected == Went::failed));
    CHECK(exchanged.outcomes[1].result == Went::done);
    CHECK(store->stream_seq("beside") == 1);
    CHECK(store->stream_seq("from-exchange") == (expected == Went::done ? 1 : 0));
    CHECK(store->stream("fresh").empty());
    CHECK(store->stream("sync").empty());
    CHECK(seqs(store->stream("u1")) == counting(1, 3));
    CHECK(seqs(store->stream("s")) == counting(1, 4));
    CHECK(positions(store->log()) == counting(1, store->head()));
    store->read([&](Reader& reader) {
        CHECK(reader.query("SELECT * FROM notes").size() == 1);
        CHECK(reader.row("SELECT text FROM notes")->text(0) == (expected == Went::done ? "done" : "one"));
    });
    if (expected == Went::failed) {  // the claim is still held
        CHECK(claim(*store, group, 5).empty());
        CHECK(finish(*store, handled(claims[0], claims[0].known)).result == Went::done);
    }
    CHECK(claim(*store, group, 5).empty());
    CHECK(store->stats().group("g").lag == 0);
}

// ---- Time --------------------------------------------------------------------------------

TEST_CASE_TEMPLATE("Store: recorded times never go back when the clock does, and a time is found", Kind_, STORE_KINDS) {
    Kind_ kind;
    HandClock clock;
    auto store = kind.open(clock.options());
    clock.set(1000);
    store->append("s", several("a", 2));
    clock.set(2000);
    store->append("s", several("a", 2));
    clock.set(500);
    CHECK(store->append("s", several("a", 1)).recorded_at == at(2000));
    clock.set(3000);
    CHECK(store->append("s", several("a", 1)).recorded_at == at(3000));
    CHECK(store->position_at(at(0)) == 1);
    CHECK(store->position_at(at(1000)) == 1);
    CHECK(store->position_at(at(1001)) == 3);
    CHECK(store->position_at(at(2000)) == 3);
    CHECK(store->position_at(at(2001)) == 6);
    CHECK(store->position_at(at(3000)) == 6);
    CHECK(store->position_at(at(3001)) == 7);
    CHECK(store->stream("s")[4].occurred_at == at(2000));
}

TEST_CASE_TEMPLATE("Store: a time in an empty log is behind its head", Kind_, STORE_KINDS) {
    Kind_ kind;
    auto store = kind.open();
    CHECK(store->position_at(at(0)) == 1);
    CHECK(store->head() == 0);
}

TEST_CASE_TEMPLATE("Store: scheduled messages enter the log when they are due", Kind_, STORE_KINDS) {
    Kind_ kind;
    HandClock clock;
    clock.set(100);
    auto store = kind.open(clock.options());
    SUBCASE("L1: nothing early, everything in its stream's order") {
        store->append("s1", {message("m0")});
        Message rich = command("m1", R"({"n":1})");
        const Message cause = message("cause");
        rich = follow(cause, rich);
        rich.schema = 4;
        rich.metadata = Metadata::parse(R"({"user":10})");
        store->schedule({due(at(102), "s1", rich), due(at(102), "s1", message("m2"))});
        store->schedule({due(at(110), "s1", message("m3"))});
        CHECK(store->next_due() == at(102));
        CHECK(store->stats().scheduled == 3);
        const auto waiting = store->scheduled();
        REQUIRE(waiting.size() == 3);
        CHECK(waiting[0].due_at == at(102));
        CHECK(waiting[0].message.id == rich.id);
        CHECK(waiting[0].message.stream == "s1");
        CHECK(waiting[0].message.kind == Kind::command);
        CHECK(waiting[2].message.type == "m3");
        CHECK(store->scheduled(1).size() == 1);
        const auto found_waiting = store->find_scheduled(rich.id);
        REQUIRE(found_waiting);
        CHECK(found_waiting->due_at == at(102));
        CHECK(found_waiting->message.stream == "s1");
        CHECK(found_waiting->message.payload == rich.payload);
        CHECK_FALSE(store->find_scheduled(cause.id));

        CHECK(store->promote(at(100)) == 0);
        CHECK(types(store->stream("s1")) == std::vector<std::string>{"m0"});
        clock.set(103);
        CHECK(store->promote(at(103)) == 2);
        CHECK_FALSE(store->find_scheduled(rich.id));
        CHECK(types(store->stream("s1")) == std::vector<std::string>{"m0", "m1", "m2"});
        CHECK(store->next_due() == at(110));
        CHECK(store->promote(at(111)) == 1);
        const Messages found = store->stream("s1");
        CHECK(types(found) == std::vector<std::string>{"m0", "m1", "m2", "m3"});
        CHECK(seqs(found) == counting(1, 4));
        CHECK(found[1].id == rich.id);
        CHECK(found[1].causation == cause.id);
        CHECK(found[1].correlation == cause.id);
        CHECK(found[1].schema == 4);
        CHECK(found[1].kind == Kind::command);
        CHECK(found[1].metadata.json() == R"({"user":10})");
        CHECK(found[1].payload == R"({"n":1})");
        CHECK(found[1].recorded_at == at(103));
        CHECK_FALSE(store->next_due().has_value());
        CHECK(store->stats().scheduled == 0);
    }
    SUBCASE("L2: concurrent promotions move every message exactly once") {
        std::vector<Scheduled> entries;
        for (int i = 0; i < 300; ++i) entries.push_back(due(at(i % 7), "s" + std::to_string(i % 5), message("m")));
        store->schedule(entries);
        std::atomic<std::size_t> moved{0};
        in_parallel(4, [&](int) {
            while (const auto count = store->promote(at(50), 20)) moved += count;
        });
        CHECK(moved == 300);
        CHECK(positions(store->log()) == counting(1, 300));
        const auto all = ids(store->log());
        std::set<std::string> distinct;
        for (const auto& each : all) {
            const auto& bytes = each.bytes();
            distinct.emplace(bytes.begin(), bytes.end());
        }
        CHECK(distinct.size() == 300);
        CHECK(store->scheduled().empty());
    }
    SUBCASE("L3: nothing scheduled, nothing due: nothing happens") {
        store->schedule({});
        CHECK(store->promote(at(1'000'000)) == 0);
        CHECK_FALSE(store->next_due().has_value());
        CHECK(store->head() == 0);
    }
    SUBCASE("L4: due messages are promoted in order of due time, however they were scheduled") {
        store->schedule({due(at(30), "s3", message("third")), due(at(10), "s1", message("first")),
                         due(at(20), "s2", message("second")), due(at(10), "s9", message("first too"))});
        CHECK(store->promote(at(60), 3) == 3);
        CHECK(types(store->log()) == std::vector<std::string>{"first", "first too", "second"});
        CHECK(store->promote(at(60), 3) == 1);
        CHECK(types(store->log()).back() == "third");
    }
    SUBCASE("the schedule of one stream can be listed alone") {
        store->schedule({due(at(300), "b", message("b2")), due(at(200), "a", message("a1")),
                         due(at(150), "b", message("b1"))});
        const auto waiting = store->scheduled(10, "b");
        REQUIRE(waiting.size() == 2);
        CHECK(waiting[0].message.type == "b1");
        CHECK(waiting[1].message.type == "b2");
        CHECK(store->scheduled(1, "b").size() == 1);
        CHECK(store->scheduled(10, "c").empty());
    }
    SUBCASE("one message can be cancelled; too late and unknown are told apart") {
        const Message first = message("first");
        const Message second = message("second");
        store->schedule({due(at(200), "s", first), due(at(200), "s", second)});
        CHECK(store->cancel(first.id) == ScheduleChange::done);
        CHECK(store->cancel(first.id) == ScheduleChange::unknown);
        CHECK(store->promote(at(200)) == 1);
        CHECK(types(store->log()) == std::vector<std::string>{"second"});
        CHECK(store->cancel(second.id) == ScheduleChange::has_run);
        CHECK(store->head() == 1);
    }
    SUBCASE("one message can be run now, once") {
        store->append("s", {message("m0")});
        Message rich = follow(store->log().front(), command("later", R"({"n":1})"));
        store->schedule({due(at(500), "s", rich), due(at(400), "s", message("other"))});
        CHECK(store->run_now(rich.id) == ScheduleChange::done);
        const Messages found = store->stream("s");
        REQUIRE(found.size() == 2);
        CHECK(found[1].id == rich.id);
        CHECK(found[1].causation == found[0].id);
        CHECK(found[1].kind == Kind::command);
        CHECK(found[1].payload == R"({"n":1})");
        CHECK(store->run_now(rich.id) == ScheduleChange::has_run);
        CHECK(store->run_now(id(7)) == ScheduleChange::unknown);
        CHECK(store->next_due() == at(400));
        CHECK(store->promote(at(1000)) == 1);
        CHECK(store->head() == 3);
    }
    SUBCASE("a schedule is kept whole or not at all") {
        CHECK_THROWS_AS(store->schedule({due(at(200), "s", message("a")), due(at(200), "", message("a"))}), Invalid);
        CHECK(store->scheduled().empty());
    }
}

TEST_CASE_TEMPLATE("Store: what recurs comes once an interval, in its rhythm", Kind_, STORE_KINDS) {
    Kind_ kind;
    HandClock clock;
    clock.set(100);
    auto store = kind.open(clock.options());
    const auto every = [](std::string name, std::int64_t interval, const char* payload = "{}") {
        Recurring recurring;
        recurring.name = std::move(name);
        recurring.every = at(interval) - at(0);
        recurring.message = command("tick", payload).to("clockwork");
        return recurring;
    };
    const auto promote_at = [&](std::int64_t time) {
        clock.set(time);
        return store->promote(at(time));
    };
    SUBCASE("each occurrence is a message of its own, its own cause, and tells whose it is") {
        store->recur(every("often", 10));
        CHECK(store->next_due() == at(110));
        CHECK(promote_at(109) == 0);
        CHECK(promote_at(110) == 1);
        CHECK(promote_at(119) == 0);
        CHECK(promote_at(120) == 1);
        const Messages found = store->stream("clockwork");
        REQUIRE(found.size() == 2);
        CHECK(found[0].id != found[1].id);
        for (const auto& each : found) {
            CHECK(each.causation == each.id);
            CHECK(each.correlation == each.id);
            CHECK(each.kind == Kind::command);
            CHECK(each.metadata.json() == R"({"schedule":"often"})");
        }
        CHECK(store->scheduled().size() == 1);
    }
    SUBCASE("what was missed comes once, and the rhythm stays") {
        store->recur(every("often", 10));
        CHECK(promote_at(157) == 1);
        CHECK(store->next_due() == at(160));
        CHECK(promote_at(160) == 1);
        CHECK(store->next_due() == at(170));
    }
    SUBCASE("the first occurrence can be given, past or to come; all others are counted from it") {
        auto past = every("past", 10);
        past.first = at(3);
        store->recur(past);
        CHECK(store->next_due() == at(103));
        auto ahead = every("ahead", 10);
        ahead.first = at(101);
        store->recur(ahead);
        CHECK(store->next_due() == at(101));
        auto now = every("now", 10);
        now.first = at(90);
        store->recur(now);
        CHECK(store->next_due() == at(100));
        past.first = at(53);  // the same rhythm
        store->recur(past);
        CHECK(store->recurring()[2].first == at(3));
    }
    SUBCASE("the same again changes nothing; another interval or message takes its place") {
        store->recur(every("often", 10));
        const auto before = store->scheduled().at(0);
        clock.set(105);
        store->recur(every("often", 10));
        REQUIRE(store->scheduled().size() == 1);
        CHECK(store->scheduled()[0].message.id == before.message.id);
        CHECK(store->next_due() == at(110));

        store->recur(every("often", 10, R"({"n":2})"));
        REQUIRE(store->scheduled().size() == 1);
        CHECK(store->scheduled()[0].message.payload == R"({"n":2})");
        CHECK(store->next_due() == at(110));

        store->recur(every("often", 30, R"({"n":2})"));
        REQUIRE(store->scheduled().size() == 1);
        CHECK(store->next_due() == at(130));  // counted from where the last was
        clock.set(125);
        store->recur(every("often", 3, R"({"n":2})"));
        CHECK(store->next_due() == at(125));  // it would have been at 103: at once
        const auto all = store->recurring();
        REQUIRE(all.size() == 1);
        CHECK(all[0].name == "often");
        CHECK(all[0].every == at(3) - at(0));
        CHECK(all[0].message.stream == "clockwork");
        CHECK(all[0].next == at(125));
        CHECK(all[0].next_id == store->scheduled()[0].message.id);
    }
    SUBCASE("it can be ended, and begun anew") {
        store->recur(every("often", 10));
        CHECK(store->cancel_recurring("often"));
        CHECK_FALSE(store->cancel_recurring("often"));
        CHECK(store->scheduled().empty());
        CHECK(store->recurring().empty());
        CHECK(promote_at(200) == 0);
        store->recur(every("often", 10));
        CHECK(promote_at(210) == 1);
    }
    SUBCASE("one occurrence can be left out, or an extra one sent") {
        store->recur(every("often", 10));
        CHECK(store->cancel(store->scheduled().at(0).message.id) == ScheduleChange::done);
        CHECK(store->next_due() == at(120));
        CHECK(store->run_now(store->scheduled().at(0).message.id) == ScheduleChange::done);
        CHECK(store->head() == 1);
        CHECK(store->next_due() == at(120));
        CHECK(promote_at(120) == 1);
        CHECK(store->next_due() == at(130));
    }
    SUBCASE("a promotion that ends before an occurrence leaves it where it is") {
        store->recur(every("often", 10));
        store->schedule({due(at(101), "s", message("a")), due(at(102), "s", message("b"))});
        clock.set(150);
        CHECK(store->promote(at(150), 2) == 2);
        CHECK(store->next_due() == at(110));
        CHECK(store->promote(at(150), 2) == 1);
        CHECK(store->next_due() == at(160));
    }
    SUBCASE("mistakes are refused with a sentence, and change nothing") {
        CHECK_THROWS_WITH_AS(store->recur(every("", 10)), "every '': the name is blank", Invalid);
        CHECK_THROWS_WITH_AS(store->recur(every("never", 0)),
                             "every 'never': the interval is 0 microseconds, it has to be positive", Invalid);
        auto nowhere = every("nowhere", 10);
        nowhere.message.stream = " ";
        CHECK_THROWS_AS(store->recur(nowhere), Invalid);
        CHECK(store->recurring().empty());
        CHECK(store->scheduled().empty());
    }
}

// ---- SQL of users --------------------------------------------------------------------------

TEST_CASE_TEMPLATE("Store: a transaction commits SQL and messages together, once", Kind_, STORE_KINDS) {
    Kind_ kind;
    auto store = kind.open();
    int runs = 0;
    store->transaction([&](Transaction& transaction) {
        ++runs;
        transaction.execute("CREATE TABLE carts(id TEXT PRIMARY KEY, total INTEGER, rate REAL, note TEXT)");
        const char* insert = "INSERT INTO carts VALUES(?, ?, ?, ?), ('b', 2, 0.5, 'x')";
        CHECK(transaction.execute(insert, "a", 7, 1.5, nullptr) == 2);
        CHECK(transaction.append("s", several("a", 2)).last_seq == 2);
        CHECK(transaction.append("s", several("a", 1), expect_seq(2)).first_position == 3);
        CHECK(transaction.row("SELECT seq FROM sourced_streams WHERE name = 's'")->integer(0) == 3);
        CHECK(transaction.row("SELECT max(position) FROM sourced_messages")->integer(0) == 3);
        CHECK(transaction.execute("UPDATE carts SET total = total + 1") == 2);
    });
    CHECK(runs == 1);
    store->read([](Reader& reader) {
        const auto rows = reader.query("SELECT id, total, rate, note FROM carts ORDER BY id");
        REQUIRE(rows.size() == 2);
        CHECK(rows[0].text(0) == "a");
        CHECK(rows[0].integer(1) == 8);
        CHECK(rows[0].real(2) == 1.5);
        CHECK(rows[0].is_null(3));
        CHECK_FALSE(reader.row("SELECT 1 FROM carts WHERE id = ?", "nobody").has_value());
    });
    CHECK(seqs(store->stream("s")) == counting(1, 3));

    CHECK_THROWS_AS(store->transaction([&](Transaction& transaction) {
        ++runs;
        transaction.execute("DELETE FROM carts");
        transaction.append("s", {message("a")});
        transaction.append("s", {message("a")}, expect_seq(1));
    }),
                    Conflict);
    CHECK(runs == 2);
    store->read([](Reader& reader) { CHECK(reader.query("SELECT * FROM carts").size() == 2); });
    CHECK(store->stream_seq("s") == 3);
    CHECK(store->append("s", {message("a")}).first_position == 4);
}

TEST_CASE_TEMPLATE("Store: a unit reads, appends, schedules and acknowledges in one transaction", Kind_, STORE_KINDS) {
    Kind_ kind;
    HandClock clock;
    clock.set(1000);
    auto store = kind.open(clock.options());
    const auto group = store->register_group({"g", {"E"}, {}}).id;
    store->append("s", {message("other")});

    SUBCASE("what was appended inside is read, and the group finds nothing left") {
        int runs = 0;
        store->unit([&](UnitTransaction& unit) {
            ++runs;
            CHECK_FALSE(unit.open(group, "s"));
            const Appended first = unit.append("s", {message("E"), message("other")}, expect_seq(1));
            CHECK(unit.open(group, "s"));
            CHECK_FALSE(unit.open(group, "s", first.first_position));
            unit.append("fresh", {message("E")});
            Messages seen;
            unit.read_stream("s", {.from = 2}, [&](Message& each) {
                seen.push_back(each);
                // A visitor may read as well.
                unit.read_stream("fresh", {}, [&](Message& other) { return other.seq == 1; });
                return true;
            });
            CHECK(types(seen) == std::vector<std::string>{"E", "other"});
            CHECK(positions(seen) == Numbers{2, 3});
            unit.schedule(due(at(2000), "later", message("E")));
            unit.acknowledge(group, "s", first.first_position);
            CHECK_FALSE(unit.open(group, "s"));
            unit.acknowledge(group, "fresh", 4);
            unit.acknowledge(group, "fresh", 4);
        });
        CHECK(runs == 1);
        CHECK(claim(*store, group).empty());
        CHECK(store->settled(group));
        CHECK(store->stats().group("g").newest == 4);
        CHECK(store->scheduled().size() == 1);
        store->append("s", {message("E")});
        CHECK(drain(*store, group, {"E"}) == Numbers{5});
    }
    SUBCASE("when it throws, nothing of it is kept") {
        CHECK_THROWS_AS(store->unit([&](UnitTransaction& unit) {
            unit.append("s", {message("E")});
            unit.schedule(due(at(2000), "later", message("E")));
            unit.acknowledge(group, "s", 2);
            throw std::logic_error("no");
        }),
                        std::logic_error);
        CHECK(store->head() == 1);
        CHECK(store->scheduled().empty());
        CHECK(store->stats().group("g").newest == 0);
        store->append("s", {message("E")});
        CHECK(drain(*store, group, {"E"}) == Numbers{2});
    }
    SUBCASE("what came before a position is told from what comes after") {
        store->append("s", {message("E"), message("E")});
        store->unit([&](UnitTransaction& unit) {
            CHECK(unit.open(group, "s"));
            CHECK_FALSE(unit.open(group, "s", 2));
            CHECK(unit.open(group, "s", 3));
            CHECK_FALSE(unit.open(group, "nobody"));
        });
        const auto claims = claim(*store, group);
        REQUIRE(claims.size() == 1);
        store->unit([&](UnitTransaction& unit) { CHECK(unit.open(group, "s", 2)); });  // it is claimed
        finish(*store, handled(claims[0], 2));
        store->unit([&](UnitTransaction& unit) {
            CHECK_FALSE(unit.open(group, "s", 3));
            CHECK(unit.open(group, "s"));
        });
        CHECK(drain(*store, group, {"E"}) == Numbers{3});
    }
    SUBCASE("H16: acknowledging a later message passes over those before it, not over those behind it") {
        store->append("s", {message("E"), message("E"), message("E")});
        (void)store->claim_stream(group, "nobody");
        store->unit([&](UnitTransaction& unit) { unit.acknowledge(group, "s", 3); });
        CHECK(store->stats().group("g").newest == 3);
        CHECK(drain(*store, group, {"E"}) == Numbers{4});
        store->unit([&](UnitTransaction& unit) { unit.acknowledge(group, "s", 2); });  // it was handled long ago
        CHECK(claim(*store, group).empty());
        store->reset_group("g", {}, nullptr);
        store->unit([&](UnitTransaction& unit) {
            CHECK(unit.passed(group, "s").highest == 4);
            CHECK_FALSE(unit.passed(group, "s").parked);
            CHECK(unit.passed(group, "nobody").highest == 0);
        });
        store->park_stream("g", "s", "later");
        store->unit([&](UnitTransaction& unit) { CHECK(unit.passed(group, "s").parked == "later"); });
        store->retry_stream("g", "s");
        const auto again = claim(*store, group);
        REQUIRE(again.size() == 1);
        CHECK(again[0].highest == 4);
    }
    SUBCASE("H18: a stream that a worker has claimed is not acknowledged, and neither is what is not there") {
        store->append("s", {message("E")});
        store->append("t", {message("E")});
        const auto claims = claim(*store, group, 1);
        REQUIRE(claims.size() == 1);
        const auto acknowledge = [&](std::string_view stream, std::int64_t position) {
            return error_of([&] {
                store->unit([&](UnitTransaction& unit) { unit.acknowledge(group, stream, position); });
            });
        };
        CHECK(contains(acknowledge("s", 2),
                       "acknowledge 's' up to position 2 for group 'g': a worker has claimed the stream"));
        CHECK(contains(acknowledge("t", 2),
                       "acknowledge 't' up to position 2 for group 'g': that is no message of the stream"));
        CHECK(contains(acknowledge("t", 9), "that is no message of the stream"));
        CHECK(contains(acknowledge("nobody", 1), "that is no message of the stream"));
        CHECK(finish(*store, handled(claims[0], 2)).result == Went::done);
        store->stop_group("g", "x");
        CHECK(acknowledge("t", 3) == "group 'g' is stopped");
        CHECK(error_of([&] { store->unit([&](UnitTransaction& unit) { (void)unit.open(group, "t"); }); }) ==
              "group 'g' is stopped");
    }
    SUBCASE("a retry that waits is cleared when its message is acknowledged") {
        store->append("s", {message("E"), message("E")});
        const auto claims = claim(*store, group);
        REQUIRE(claims.size() == 1);
        Handled failed = handled(claims[0], 0);
        failed.failure = Failure{2, "T", "no", Resolution::retry(at(5000))};
        finish(*store, failed);
        CHECK(store->stats().group("g").retrying == 1);
        store->unit([&](UnitTransaction& unit) {
            CHECK(unit.open(group, "s", 3));
            unit.acknowledge(group, "s", 2);
        });
        CHECK(store->stats().group("g").retrying == 0);
        const auto rest = claim(*store, group);
        REQUIRE(rest.size() == 1);
        CHECK(rest[0].attempts == 0);
        CHECK(pending(*store, rest[0], {"E"}) == Numbers{3});
    }
    SUBCASE("a call into the store from inside is refused") {
        CHECK(contains(error_of([&] { store->unit([&](UnitTransaction&) { (void)store->head(); }); }),
                       "use the Transaction instead"));
    }
}

TEST_CASE_TEMPLATE("Store: an append that user code catches has left nothing of itself", Kind_, STORE_KINDS) {
    Kind_ kind;
    auto store = kind.open();
    const Message known = message("known");
    store->append("s", {known});
    std::string caught;
    store->transaction([&](Transaction& transaction) {
        transaction.append("before", {message("a")});
        caught = error_of([&] { transaction.append("s", {message("half"), known}); });
        (void)error_of([&] { transaction.append("fresh", {message("half"), known}); });
        CHECK(transaction.append("after", {message("b")}).first_position == 3);
        CHECK(transaction.append("s", {message("c")}, expect_seq(1)).last_seq == 2);
    });
    CHECK(contains(caught, "is known already"));
    CHECK(types(store->log()) == std::vector<std::string>{"known", "a", "b", "c"});
    CHECK(positions(store->log()) == counting(1, 4));
    CHECK(store->stream_seq("s") == 2);
    CHECK(seqs(store->stream("s")) == counting(1, 2));
    CHECK(store->stream("fresh").empty());
}

TEST_CASE_TEMPLATE("Store: user SQL cannot end the transaction or touch the engine's tables", Kind_, STORE_KINDS) {
    Kind_ kind;
    auto store = kind.open();
    store->append("s", several("a", 3));
    store->transaction([](Transaction& transaction) { transaction.execute("CREATE TABLE mine(x)"); });
    const std::vector<std::string> refused{
        "BEGIN",
        "COMMIT",
        "END",
        "ROLLBACK",
        "SAVEPOINT mine",
        "RELEASE unit",
        "ROLLBACK TO unit",
        "ATTACH ':memory:' AS other",
        "DETACH main",
        "PRAGMA synchronous=OFF",
        "PRAGMA journal_mode=DELETE",
        "PRAGMA wal_autocheckpoint=1000",
        "PRAGMA writable_schema=1",
        "PRAGMA foreign_keys=OFF",
        "DELETE FROM sourced_messages",
        "delete from SOURCED_MESSAGES where position = 3",
        "UPDATE sourced_messages SET payload = 'x'",
        "REPLACE INTO sourced_meta VALUES('schema_version', 9)",
        "INSERT INTO sourced_streams VALUES(9, 'x', 1, 1)",
        "UPDATE sourced_streams SET seq = 99",
        "DELETE FROM sourced_offsets",
        "DROP TABLE sourced_messages",
        "DROP VIEW sourced_log",
        "DROP TRIGGER sourced_messages_no_delete",
        "DROP INDEX sourced_messages_correlation",
        "CREATE INDEX mine_too ON sourced_messages(recorded_at)",
        "ALTER TABLE sourced_messages RENAME TO mine_now",
        "ALTER TABLE sourced_messages ADD COLUMN extra",
        "CREATE TRIGGER mine_too AFTER INSERT ON sourced_messages BEGIN SELECT raise(FAIL, 'no'); END",
        "CREATE TEMP TRIGGER mine_too AFTER INSERT ON main.sourced_messages BEGIN SELECT raise(FAIL, 'no'); END",
        "CREATE TEMP TABLE sourced_messages(position)",
        "CREATE TEMP TABLE Sourced_Streams(position)",
        "CREATE TEMP VIEW sourced_types AS SELECT 1",
    };
    for (const auto& sql : refused) {
        CAPTURE(sql);
        std::string text;
        store->transaction([&](Transaction& transaction) {
            transaction.execute("INSERT INTO mine VALUES(1)");
            text = error_of([&] { transaction.execute(sql); });
            transaction.execute("INSERT INTO mine VALUES(2)");
        });
        CHECK(contains(text, "are the engine's business here"));
        CHECK(contains(text, sql));
        CHECK_THROWS_AS(store->transaction([&](Transaction& transaction) {
            transaction.execute("INSERT INTO mine VALUES(3)");
            transaction.execute(sql);
        }),
                        StoreError);
        const std::string within = error_of([&] {
            store->read([&](Reader& reader) { (void)reader.query(sql); });
        });
        CHECK(within != "");
    }
    for (const char* odd : {"", "  ;", "SELECT 1; SELECT 2", "SELECT", "SELECT ?", "SELECT * FROM nowhere"}) {
        CAPTURE(odd);
        CHECK_THROWS_AS(store->transaction([&](Transaction& transaction) { transaction.execute(odd); }), StoreError);
    }
    store->read([&](Reader& reader) {
        CHECK(reader.row("SELECT sum(x = 1), sum(x = 2), sum(x = 3) FROM mine")->integer(0) ==
              static_cast<std::int64_t>(refused.size()));
        CHECK(reader.row("SELECT count(*) FROM mine WHERE x = 3")->integer(0) == 0);
    });
    CHECK(seqs(store->stream("s")) == counting(1, 3));
    CHECK(store->append("s", {message("a")}).last_seq == 4);
    CHECK(store->head() == 4);
}

TEST_CASE_TEMPLATE("Store: read access changes nothing", Kind_, STORE_KINDS) {
    Kind_ kind;
    auto store = kind.open();
    store->transaction([](Transaction& transaction) {
        transaction.execute("CREATE TABLE mine(x)");
        transaction.execute("INSERT INTO mine VALUES(1)");  // the same text is refused to a reader below
    });
    store->append("s", several("a", 2));
    for (const char* sql : {"INSERT INTO mine VALUES(1)", "DELETE FROM mine", "DROP TABLE mine", "COMMIT", "ROLLBACK",
                            "DELETE FROM sourced_messages", "CREATE TABLE other(x)", "PRAGMA user_version=7"}) {
        CAPTURE(sql);
        CHECK_THROWS_AS(store->read([&](Reader& reader) { (void)reader.query(sql); }), StoreError);
    }
    store->read([](Reader& reader) {
        CHECK(reader.query("SELECT * FROM mine").size() == 1);
        CHECK(reader.query("SELECT * FROM sourced_log").size() == 2);
        CHECK_THROWS_AS((void)reader.row("SELECT 1")->integer(1), StoreError);
        CHECK_THROWS_AS((void)reader.query("SELECT x FROM nowhere"), StoreError);
    });
    CHECK(store->append("s", {message("a")}).last_seq == 3);
}

TEST_CASE_TEMPLATE("Store: a deferred foreign key that is left open is refused before the commit", Kind_, STORE_KINDS) {
    Kind_ kind;
    auto store = kind.open();
    store->transaction([](Transaction& transaction) {
        transaction.execute("CREATE TABLE parents(id INTEGER PRIMARY KEY)");
        transaction.execute("CREATE TABLE children(parent REFERENCES parents DEFERRABLE INITIALLY DEFERRED)");
    });
    CHECK(contains(error_of([&] {
                       store->transaction([](Transaction& transaction) {
                           transaction.execute("INSERT INTO children VALUES(1)");
                       });
                   }),
                   "deferred foreign key"));
    store->transaction([](Transaction& transaction) {
        transaction.execute("INSERT INTO children VALUES(2)");
        transaction.execute("INSERT INTO parents VALUES(2)");
    });
    store->append("s", {message("a")});
    const auto group = store->register_group({"g", {"a"}, {}}).id;
    const auto claims = claim(*store, group);
    REQUIRE(claims.size() == 1);
    Handled open = handled(claims[0], claims[0].known);
    open.sync = [](Transaction& transaction) { transaction.execute("INSERT INTO children VALUES(3)"); };
    std::array<Went, 1> result{};
    in_one_group(*store, {[&] { store->append("u", {message("b")}); }, [&] { result[0] = finish(*store, open).result; },
                          [&] { store->append("v", {message("b")}); }});
    CHECK(result[0] == Went::failed);
    CHECK(store->head() == 3);
    store->read([](Reader& reader) { CHECK(reader.query("SELECT * FROM children").size() == 1); });
}

TEST_CASE_TEMPLATE("Store: a call from inside a transaction is an error, not a deadlock", Kind_, STORE_KINDS) {
    Kind_ kind;
    auto store = kind.open();
    store->append("s", {message("a")});
    const std::vector<std::function<void()>> calls{
        [&] { store->append("t", {message("a")}); },
        [&] { (void)store->stream("s"); },
        [&] { (void)store->head(); },
        [&] { store->transaction([](Transaction&) {}); },
        [&] { store->schedule({due(at(1), "t", message("a"))}); },
        [&] { (void)store->stats(); },
        [&] { (void)store->exchange({}); },
        [&] { store->read([](Reader&) {}); },
        [&] { (void)store->beat(std::chrono::seconds(1)); },
    };
    for (const auto& call : calls) {
        std::string text;
        store->transaction([&](Transaction& transaction) {
            transaction.append("u", {message("a")});
            text = error_of(call);
        });
        CHECK(contains(text, "from inside"));
    }
    Kind_ other_kind;
    auto other = other_kind.open();
    std::string text;
    store->transaction([&](Transaction&) {
        other->append("t", {message("a")});  // another store is nobody's business
        text = error_of([&] { store->append("t", {message("a")}); });
        CHECK(contains(text, "from inside"));
        other->transaction([&](Transaction&) { text = error_of([&] { (void)store->head(); }); });
    });
    CHECK(contains(text, "from inside"));
    CHECK(store->stream_seq("u") == static_cast<std::int64_t>(calls.size()));
    CHECK(store->stream("t").empty());
    CHECK(other->stream_seq("t") == 1);
}

TEST_CASE_TEMPLATE("Store: triggers of the application fire, the engine's own rows are not theirs", Kind_,
                   STORE_KINDS) {
    Kind_ kind;
    auto store = kind.open();
    store->transaction([](Transaction& transaction) {
        transaction.execute("CREATE TABLE mine(x)");
        transaction.execute("CREATE TABLE seen(x)");
        transaction.execute("CREATE TRIGGER noting AFTER INSERT ON mine BEGIN INSERT INTO seen VALUES(new.x); END");
        transaction.execute("CREATE TRIGGER evil AFTER DELETE ON mine BEGIN DELETE FROM sourced_messages; END");
        transaction.execute("INSERT INTO mine VALUES(1)");
    });
    store->append("s", {message("a")});
    store->transaction([](Transaction& transaction) { transaction.execute("INSERT INTO mine VALUES(2)"); });
    store->read([](Reader& reader) { CHECK(reader.query("SELECT * FROM seen").size() == 2); });
    CHECK_THROWS_AS(store->transaction([](Transaction& transaction) { transaction.execute("DELETE FROM mine"); }),
                    StoreError);
    CHECK(store->head() == 1);
    CHECK(store->log().size() == 1);
}

// ---- Groups and claims -----------------------------------------------------------------------

TEST_CASE_TEMPLATE("Store: groups get the messages they handle, each with its own progress", Kind_, STORE_KINDS) {
    Kind_ kind;
    HandClock clock;
    clock.set(1000);
    auto store = kind.open(clock.options());

    SUBCASE("H1: only handled types, in order, then nothing") {
        store->append("s1", {command("C"), message("E1"), message("E1")});
        const auto group = store->register_group({"g", {"E1"}, {}}).id;
        auto claims = claim(*store, group);
        REQUIRE(claims.size() == 1);
        CHECK(claims[0].stream_name == "s1");
        CHECK(pending(*store, claims[0], {"E1"}) == Numbers{2, 3});
        CHECK(finish(*store, handled(claims[0], 2)).result == Went::done);
        claims = claim(*store, group);
        REQUIRE(claims.size() == 1);
        CHECK(claims[0].acked == 2);
        CHECK(pending(*store, claims[0], {"E1"}) == Numbers{3});
        CHECK(finish(*store, handled(claims[0], 3)).result == Went::done);
        CHECK(claim(*store, group, 10).empty());
        CHECK(drain(*store, group, {"E1"}).empty());
    }
    SUBCASE("H2: two claims of one group never get the same stream") {
        store->append("s1", {message("E")});
        store->append("s2", {message("E")});
        store->append("s1", {message("E")});
        const auto group = store->register_group({"g", {"E"}, {}}).id;
        const auto first = claim(*store, group);
        const auto second = claim(*store, group);
        REQUIRE(first.size() == 1);
        REQUIRE(second.size() == 1);
        CHECK(first[0].stream_name == "s1");
        CHECK(second[0].stream_name == "s2");
        CHECK(claim(*store, group).empty());
        CHECK_FALSE(store->claim_stream(group, "s1").has_value());
    }
    SUBCASE("H2: many threads: each message of a stream is handled once, in order") {
        std::vector<Append> parts;
        for (int i = 0; i < 200; ++i) parts.push_back({"s" + std::to_string(i % 10), several("E", 1), any_seq});
        store->append_all(parts);
        const auto group = store->register_group({"g", {"E"}, {}}).id;
        std::array<std::vector<std::pair<std::string, std::int64_t>>, 4> seen;
        std::atomic<int> bad{0};
        std::atomic<int> done{0};
        in_parallel(4, [&](int thread) {
            Exchange step;
            step.group = group;
            step.claims = 2;
            while (done < 200) {
                Exchanged result = store->exchange(step);
                for (const auto& outcome : result.outcomes) bad += outcome.result != Went::done;
                done += static_cast<int>(step.finished.size());
                step.finished.clear();
                for (const auto& each : result.claims) {
                    const auto position = pending(*store, each, {"E"}).at(0);
                    seen[static_cast<std::size_t>(thread)].emplace_back(each.stream_name, position);
                    step.finished.push_back(handled(each, position));
                    step.finished.back().appends.push_back({"out-" + each.stream_name, several("F", 1), any_seq});
                }
                if (result.claims.empty()) std::this_thread::yield();
            }
        });
        CHECK(bad == 0);
        std::set<std::pair<std::string, std::int64_t>> all;
        std::size_t count = 0;
        for (const auto& mine : seen) {
            count += mine.size();
            all.insert(mine.begin(), mine.end());
        }
        CHECK(count == 200);
        CHECK(all.size() == 200);
        CHECK(store->head() == 400);
        CHECK(store->stats().group("g").lag == 0);
    }
    SUBCASE("H3: another group starts from its own cursor") {
        store->append("s1", several("E", 3));
        const auto one = store->register_group({"one", {"E"}, {}}).id;
        const auto two = store->register_group({"two", {"E"}, {}}).id;
        CHECK(one != two);
        CHECK(drain(*store, one, {"E"}) == Numbers{1, 2, 3});
        CHECK(drain(*store, two, {"E"}) == Numbers{1, 2, 3});
        CHECK(store->register_group({"one", {"E"}, {}}).id == one);
        CHECK(drain(*store, one, {"E"}).empty());
    }
    SUBCASE("H4: a stopped group gets nothing until it is started") {
        store->append("s1", {message("E")});
        const auto group = store->register_group({"g", {"E"}, {}}).id;
        store->stop_group("g", "maintenance");
        Exchange step;
        step.group = group;
        step.claims = 1;
        Exchanged result = store->exchange(step);
        CHECK(result.claims.empty());
        CHECK_FALSE(result.active);
        CHECK_FALSE(store->claim_stream(group, "s1").has_value());
        CHECK_FALSE(store->stats().group("g").active);
        CHECK(store->stats().group("g").reason == "maintenance");
        CHECK(store->stats().group("g").lag == 1);
        store->start_group("g");
        CHECK(store->exchange(step).claims.size() == 1);
        CHECK(store->stats().group("g").active);
        CHECK(store->stats().group("g").reason == "");
        CHECK_THROWS_AS(store->stop_group("nobody", "x"), NotRegistered);
        CHECK_THROWS_AS(store->start_group("nobody"), NotRegistered);
        CHECK_THROWS_AS(store->reset_group("nobody", {}, nullptr), NotRegistered);
        CHECK_THROWS_AS((void)store->stats().group("nobody"), NotRegistered);
    }
    SUBCASE("H6: stats tell each group's oldest and newest offset and its streams") {
        store->append("s1", several("E", 2));
        store->append("s2", several("E", 1));
        store->append("s1", several("E", 1));
        store->append("s2", several("E", 1));
        const auto one = store->register_group({"one", {"E"}, {}}).id;
        const auto two = store->register_group({"two", {"E"}, {}}).id;
        store->register_group({"three", {"E"}, {}});
        auto claims = claim(*store, one, 2);
        REQUIRE(claims.size() == 2);
        finish(*store, handled(claims[0], 2));
        finish(*store, handled(claims[1], 5));
        claims = claim(*store, two, 2);
        REQUIRE(claims.size() == 2);
        finish(*store, handled(claims[1], 3));
        store->stop_group("three", "x");
        clock.set(1500);
        store->append("late", {message("E")});
        const Stats stats = store->stats();
        CHECK(stats.messages == 6);
        CHECK(stats.streams == 3);
        CHECK(stats.group("one").oldest == 2);
        CHECK(stats.group("one").newest == 5);
        CHECK(stats.group("one").streams == 2);
        CHECK(stats.group("one").lag == 2);
        CHECK(stats.group("one").lag_time == std::chrono::seconds(500));
        CHECK(stats.group("two").oldest == 3);
        CHECK(stats.group("two").newest == 3);
        CHECK(stats.group("two").streams == 1);
        CHECK(stats.group("two").lag == 5);
        CHECK(stats.group("three").oldest == 0);
        CHECK(stats.group("three").newest == 0);
        CHECK(stats.group("three").streams == 0);
        CHECK(stats.group("three").lag == 6);
    }
    SUBCASE("H7: a type that is not in the log yet: nothing, and no offset") {
        store->append("s1", several("other", 5));
        const auto group = store->register_group({"g", {"E"}, {}}).id;
        CHECK(claim(*store, group).empty());
        CHECK(store->stats().group("g").newest == 0);
        CHECK(store->stats().group("g").streams == 0);
        store->append("s1", {message("E")});
        CHECK(drain(*store, group, {"E"}) == Numbers{6});
        CHECK(store->stats().group("g").oldest == 6);
        CHECK(store->stats().group("g").newest == 6);
        CHECK(store->stats().group("g").streams == 1);
    }
    SUBCASE("H9: a group that starts at a time gets what was recorded from then on") {
        store->append("s1", {message("E")});
        clock.set(1057);
        store->append("s1", {message("E")});
        store->append("s2", {message("E")});
        const auto timed = store->register_group({"timed", {"E"}, Start::at(at(1055))});
        CHECK(timed.begins == 1);
        CHECK(drain(*store, timed.id, {"E"}) == Numbers{2, 3});
        const auto placed = store->register_group({"placed", {"E"}, Start::at(std::int64_t{3})});
        CHECK(drain(*store, placed.id, {"E"}) == Numbers{3});
        const auto fresh = store->register_group({"fresh", {"E"}, Start::now()});
        CHECK(fresh.begins == 3);
        CHECK(drain(*store, fresh.id, {"E"}).empty());
        store->append("s1", {message("E")});
        CHECK(drain(*store, fresh.id, {"E"}) == Numbers{4});
        // Evaluated once: another start does not move a group that is stored.
        CHECK(store->register_group({"fresh", {"E"}, Start::beginning()}).begins == 3);
        CHECK(drain(*store, fresh.id, {"E"}).empty());
    }
    SUBCASE("H15: a stream that waits for its retry is claimed when the time has come, others before") {
        store->append("s1", {message("E")});
        store->append("s2", {message("E")});
        const auto group = store->register_group({"g", {"E"}, {}}).id;
        auto claims = claim(*store, group);
        REQUIRE(claims.size() == 1);
        CHECK(finish(*store, failed(claims[0], 1, at(1004))).result == Went::done);
        Exchange step;
        step.group = group;
        step.claims = 5;
        Exchanged result = store->exchange(step);
        REQUIRE(result.claims.size() == 1);
        CHECK(result.claims[0].stream_name == "s2");
        CHECK(result.next_retry == at(1004));
        CHECK_FALSE(store->claim_stream(group, "s1").has_value());
        const GroupInfo info = store->stats().group("g");
        CHECK(info.active);
        CHECK(info.retrying == 1);
        CHECK(info.next_retry == at(1004));
        CHECK(info.retry_error == "no paper");
        clock.set(1003);
        CHECK(store->exchange(step).claims.empty());
        clock.set(1004);
        result = store->exchange(step);
        REQUIRE(result.claims.size() == 1);
        CHECK(result.claims[0].stream_name == "s1");
        CHECK(result.claims[0].attempts == 1);
        CHECK(result.claims[0].attempted == 1);
        CHECK_FALSE(result.next_retry.has_value());
        CHECK(finish(*store, failed(result.claims[0], 1, at(1000))).result == Went::done);  // past already
        result = store->exchange(step);
        REQUIRE(result.claims.size() == 1);
        CHECK(result.claims[0].attempts == 2);
    }
}

TEST_CASE_TEMPLATE("Store: failures are counted for their message and cleared by success", Kind_, STORE_KINDS) {
    Kind_ kind;
    HandClock clock;
    clock.set(1000);
    auto store = kind.open(clock.options());
    store->append("s1", several("E", 3));
    store->append("s2", several("E", 1));
    const auto group = store->register_group({"g", {"E"}, {}}).id;
    const auto one = [&] {
        const auto claims = claim(*store, group);
        REQUIRE(claims.size() == 1);
        return claims[0];
    };
    const auto of_s1 = [](const Claim& each) { return each.stream_name == "s1"; };
    Claim mine = one();
    finish(*store, failed(mine, 1, at(900)));
    mine = one();
    if (mine.stream_name != "s1") mine = one();
    CHECK(mine.attempts == 1);

    SUBCASE("K10: after a success the counter starts anew") {
        CHECK(finish(*store, handled(mine, 1)).result == Went::done);
        const auto claims = claim(*store, group, 2);
        for (const auto& each : claims) {
            CHECK(each.attempts == 0);
            CHECK(each.attempted == 0);
        }
    }
    SUBCASE("a batch that fails in its middle keeps what was handled before") {
        Handled partly = failed(mine, 2, at(900));
        partly.acked = 1;
        partly.appends.push_back({"out", several("F", 1), any_seq});
        CHECK(finish(*store, partly).result == Went::done);
        CHECK(store->stream_seq("out") == 1);
        std::vector<Claim> claims = claim(*store, group, 2);
        const auto found = std::find_if(claims.begin(), claims.end(), of_s1);
        REQUIRE(found != claims.end());
        CHECK(found->acked == 1);
        CHECK(found->attempts == 1);
        CHECK(found->attempted == 2);
    }
    SUBCASE("a failure without a retry stops the group with its error; a start clears it") {
        store->start_group("g");
        const auto held = claim(*store, group, 5);
        CHECK(finish(*store, failed(mine, 1, std::nullopt)).result == Went::done);
        GroupInfo info = store->stats().group("g");
        CHECK_FALSE(info.active);
        CHECK(info.error_type == "std::runtime_error");
        CHECK(info.error_text == "no paper");
        CHECK(info.error_position == 1);
        for (const auto& each : held) CHECK(finish(*store, handled(each, each.known)).result == Went::lost);
        CHECK(claim(*store, group, 5).empty());
        store->start_group("g");
        info = store->stats().group("g");
        CHECK(info.active);
        CHECK(info.error_type == "");
        CHECK(info.error_text == "");
        CHECK(info.error_position == 0);
        const auto claims = claim(*store, group, 5);
        REQUIRE(claims.size() == 2);
        for (const auto& each : claims) CHECK(each.attempts == 0);
    }
    SUBCASE("a claim that is given back counts nothing and loses nothing") {
        Handled back = handled(mine, mine.acked);
        back.release = true;
        CHECK(finish(*store, back).result == Went::done);
        const auto claims = claim(*store, group, 2);
        const auto found = std::find_if(claims.begin(), claims.end(), of_s1);
        REQUIRE(found != claims.end());
        CHECK(found->attempts == 1);
        CHECK(found->acked == 0);
        CHECK(found->fence > mine.fence);
    }
}

TEST_CASE_TEMPLATE("Store: streams are parked, tried again, and messages passed over", Kind_, STORE_KINDS) {
    Kind_ kind;
    HandClock clock;
    clock.set(1000);
    auto store = kind.open(clock.options());
    store->append("s1", several("E", 3));
    store->append("s2", several("E", 1));
    const auto group = store->register_group({"g", {"E"}, {}}).id;
    const auto claim_s1 = [&] {
        for (auto& each : claim(*store, group, 5)) {
            if (each.stream_name == "s1") return each;
        }
        FAIL("s1 was not claimed");
        return Claim{};
    };
    Handled partly = failed(claim_s1(), 2, std::nullopt);
    partly.acked = 1;
    const auto end_with = [&](Resolution resolution) {
        partly.failure->resolution = std::move(resolution);
        CHECK(finish(*store, partly).result == Went::done);
    };

    SUBCASE("K12: a parked stream keeps its error, takes no claim and stands in nobody's way") {
        end_with(Resolution::park());
        store->append("s1", several("E", 1));
        CHECK(claim(*store, group, 5).empty());
        CHECK_FALSE(store->claim_stream(group, "s1").has_value());
        const auto offsets = store->offsets("g");
        REQUIRE(offsets.size() == 1);
        CHECK(offsets[0].state == OffsetInfo::State::parked);
        CHECK(offsets[0].acked == 1);
        CHECK(offsets[0].position == 2);
        CHECK(offsets[0].error_text == "no paper");
        CHECK(offsets[0].reason == "no paper");
        CHECK(offsets[0].group == "g");
        const auto anywhere = store->offsets({});
        REQUIRE(anywhere.size() == 1);
        CHECK(anywhere[0].group == "g");
        CHECK(anywhere[0].stream == "s1");
        CHECK(store->offsets({}, {.limit = 0}).empty());
        CHECK(store->offsets({}, {.stream = "s1"}).size() == 1);
        CHECK(store->offsets({}, {.stream = "s2"}).empty());
        CHECK(store->offsets({}, {.stream = "unknown"}).empty());
        CHECK(store->stats().group("g").active);
        CHECK(store->stats().group("g").parked == 1);
        store->start_group("g");
        CHECK(store->offsets("g").size() == 1);
        store->retry_stream("g", "s1");
        CHECK(store->offsets("g").empty());
        const Claim again = claim_s1();
        CHECK(again.attempts == 0);
        CHECK(pending(*store, again, {"E"}) == Numbers{2, 3, 5});
    }
    SUBCASE("why a stream was tried again is kept, but not over why the group is stopped") {
        end_with(Resolution::park());
        store->retry_stream("g", "s1", "the printer has paper");
        CHECK(store->stats().group("g").reason == "the printer has paper");
        CHECK(store->stats().group("g").changed_at == at(1000));
        store->park_stream("g", "s1", "again");
        store->retry_stream("g", "s1");
        CHECK(store->stats().group("g").reason == "the printer has paper");
        store->park_stream("g", "s1", "again");
        store->stop_group("g", "for the night");
        store->retry_stream("g", "s1", "never mind");
        CHECK(store->stats().group("g").reason == "for the night");
    }
    SUBCASE("a message that is skipped is acknowledged and recorded, the next is open") {
        end_with(Resolution::skip("bad paper"));
        const auto skipped = store->skipped("g");
        REQUIRE(skipped.size() == 1);
        CHECK(skipped[0].stream == "s1");
        CHECK(skipped[0].position == 2);
        CHECK(skipped[0].id == store->log().at(1).id);
        CHECK(skipped[0].at == at(1000));
        CHECK(skipped[0].reason == "bad paper");
        CHECK(skipped[0].group == "g");
        REQUIRE(store->skipped({}).size() == 1);
        CHECK(store->skipped({})[0].group == "g");
        CHECK(store->skipped({})[0].number == skipped[0].number);
        CHECK(store->skipped({}, skipped[0].number).empty());
        CHECK(store->stats().group("g").skipped == 1);
        CHECK(store->offsets("g").empty());
        CHECK(pending(*store, claim_s1(), {"E"}) == Numbers{3});
    }
    SUBCASE("a skip of a message that failed, but is not what is open, records it and leaves the rest open") {
        partly.acked = 0;
        end_with(Resolution::skip());
        REQUIRE(store->skipped("g").size() == 1);
        CHECK(store->skipped("g")[0].position == 2);
        partly = failed(claim_s1(), 2, std::nullopt);
        CHECK(partly.claim.acked == 0);
        partly.acked = 0;
        end_with(Resolution::skip());  // that was no help: it is known to be skipped
        REQUIRE(store->skipped("g").size() == 2);
        CHECK(store->skipped("g")[1].position == 1);
        CHECK(claim_s1().acked == 1);
    }
    SUBCASE("what is left over waits for its time, also where it is not discovered yet") {
        store->append("s1", several("E", 1));
        Handled later = handled(partly.claim, 3);
        later.not_before = at(5000);
        CHECK(finish(*store, later).result == Went::done);
        CHECK(claim(*store, group, 5).empty());
        clock.set(5000);
        CHECK(pending(*store, claim_s1(), {"E"}) == Numbers{5});
    }
    SUBCASE("parked or skipped by hand, work under way fails the fence") {
        SUBCASE("parked") { store->park_stream("g", "s1", "by hand"); }
        SUBCASE("skipped") { CHECK(store->skip_message("g", "s1", "by hand").position == 1); }
        SUBCASE("skipped if it is the one that was meant") {
            CHECK_THROWS_WITH_AS(store->skip_message("g", "s1", "by hand", 2),
                                 "skip a message of 's1' for group 'g': it would be the one at position 1 now, not "
                                 "that at 2",
                                 Error);
            CHECK(store->skipped("g").empty());
            CHECK(store->skip_message("g", "s1", "by hand", 1).position == 1);
        }
        CHECK(finish(*store, partly).result == Went::lost);
    }
    SUBCASE("claims are taken back from a handler that does not return, once") {
        std::vector<Claim> claims{partly.claim};
        CHECK(store->revoke(claims) == 1);
        CHECK(store->revoke(claims) == 0);
        CHECK(finish(*store, partly).result == Went::lost);
        CHECK(claim_s1().deaths == 1);
    }
    SUBCASE("how far a group stands, in the log and in one stream") {
        CHECK_FALSE(store->standing("g", 1).reached);  // claimed
        end_with(Resolution::retry(at(2000)));
        CHECK(store->standing("g", 1, "s1").reached);
        CHECK(store->standing("g", 1).reached);
        CHECK(store->standing("g", 2).stalled == "'s1' waits for its retry: no paper");
        CHECK(store->standing("g", 4, "s2").stalled == "");
        CHECK_FALSE(store->standing("g", 4, "s2").reached);
        store->append("s3", several("F", 1));
        CHECK(store->standing("g", 5, "s3").reached);
        store->stop_group("g", "lunch");
        CHECK(store->standing("g", 1).reached);
        CHECK(store->standing("g", 4, "s2").stalled == "it is stopped: lunch");
        CHECK_THROWS_AS((void)store->standing("nobody", 1), NotRegistered);
    }
}

TEST_CASE_TEMPLATE("Store: the processes that handle messages, and what they hold", Kind_, STORE_KINDS) {
    Kind_ kind;
    HandClock clock;
    clock.set(1000);
    auto store = kind.open(clock.options());
    CHECK(store->workers().empty());
    store->append_all({{"s1", several("E", 2), any_seq}, {"s2", several("E", 1), any_seq}});
    const auto group = store->register_group({"g", {"E"}, {}}).id;
    CHECK(store->workers().empty());
    const auto claims = claim(*store, group, 5);
    REQUIRE(claims.size() == 2);

    auto workers = store->workers();
    REQUIRE(workers.size() == 1);
    CHECK(workers[0].number == store->offsets("g", {.state = OffsetInfo::State::claimed}).at(0).owner);
    CHECK(workers[0].pid == ::getpid());
    CHECK(workers[0].host != "");
    CHECK(workers[0].started_at == clock.now());
    CHECK(workers[0].alive == true);
    CHECK(workers[0].claims == 2);
    CHECK(store->beat(std::chrono::hours(1)) == 0);
    CHECK(store->workers().at(0).beat == workers[0].beat + 1);

    finish(*store, handled(claims[0], 2));
    CHECK(store->workers().at(0).claims == 1);
    store->stop_group("g", "no claim survives");
    CHECK(store->workers().at(0).claims == 0);
}

TEST_CASE_TEMPLATE("Store: offsets are listed by state", Kind_, STORE_KINDS) {
    using State = OffsetInfo::State;
    Kind_ kind;
    HandClock clock;
    auto store = kind.open(clock.options());
    const auto group = store->register_group({"g", {"E"}, {}}).id;
    for (const auto* stream : {"idle", "waiting", "parked", "claimed", "claimed too", "ready"}) {
        store->append(stream, {message("E")});
    }
    store->append("of no interest", {message("F")});
    auto claims = claim(*store, group, 5);
    REQUIRE(claims.size() == 5);
    finish(*store, handled(claims[0], 1));
    finish(*store, failed(claims[1], 2, clock.now() + std::chrono::hours(1)));
    store->park_stream("g", "parked", "by hand");

    const auto listed = [&](State state, std::size_t limit = 100, const std::string& after = {}) {
        std::vector<std::string> names;
        for (const auto& offset : store->offsets("g", {.after = after, .limit = limit, .state = state})) {
            CHECK(offset.state == state);
            names.push_back(offset.stream);
        }
        return names;
    };
    using Names = std::vector<std::string>;
    CHECK(listed(State::idle) == Names{"idle"});
    CHECK(listed(State::waiting) == Names{"waiting"});
    CHECK(listed(State::parked) == Names{"parked"});
    CHECK(listed(State::claimed) == Names{"claimed", "claimed too"});
    CHECK(listed(State::claimed, 1) == Names{"claimed"});
    CHECK(listed(State::claimed, 1, "claimed") == Names{"claimed too"});
    CHECK(listed(State::ready) == Names{"ready"});
    CHECK(store->offsets("g", {.stream = "idle", .state = State::claimed}).empty());
}

TEST_CASE_TEMPLATE("Store: what a worker has made is committed whole, under its fence", Kind_, STORE_KINDS) {
    Kind_ kind;
    HandClock clock;
    clock.set(1000);
    auto store = kind.open(clock.options());
    store->append("s1", {command("C"), command("C")});
    const auto group = store->register_group({"g", {"C"}, {}}).id;
    auto claims = claim(*store, group);
    REQUIRE(claims.size() == 1);
    const Claim mine = claims[0];
    Handled done = handled(mine, 2);
    done.appends.push_back({"s1", several("E", 2), any_seq});
    done.appends.push_back({"s2", {command("D")}, any_seq});
    done.schedules.push_back(due(at(1000), "s3", message("due already")));
    done.schedules.push_back(due(at(1001), "s3", message("not yet")));

    SUBCASE("appends, schedules and the offset appear together") {
        const Outcome outcome = finish(*store, done);
        CHECK(outcome.result == Went::done);
        REQUIRE(outcome.appended.size() == 2);
        CHECK(outcome.appended[0].first_seq == 3);
        CHECK(outcome.appended[1].last_seq == 1);
        CHECK(types(store->log()) == std::vector<std::string>{"C", "C", "E", "E", "D", "due already"});
        CHECK(store->scheduled().size() == 1);
        CHECK(store->stats().group("g").newest == 2);
        CHECK(claim(*store, group).empty());

        SUBCASE("twice: the second time the claim is lost and nothing is written") {
            CHECK(finish(*store, done).result == Went::lost);
            CHECK(store->head() == 6);
        }
    }
    SUBCASE("stopped meanwhile: lost, nothing is written") {
        store->stop_group("g", "x");
        CHECK(finish(*store, done).result == Went::lost);
        store->start_group("g");
        CHECK(finish(*store, done).result == Went::lost);
        CHECK(store->head() == 2);
        CHECK(store->scheduled().empty());
        CHECK(claim(*store, group).at(0).acked == 0);
    }
    SUBCASE("reset meanwhile: lost, nothing is written") {
        store->reset_group("g", {}, nullptr);
        CHECK(finish(*store, done).result == Went::lost);
        CHECK(store->head() == 2);
        claims = claim(*store, group);
        REQUIRE(claims.size() == 1);
        CHECK(claims[0].fence > mine.fence);
        CHECK(finish(*store, done).result == Went::lost);
        done.claim = claims[0];
        CHECK(finish(*store, done).result == Went::done);
    }
    SUBCASE("a claim nobody gave: lost") {
        Handled forged = done;
        forged.claim.fence += 1;
        CHECK(finish(*store, forged).result == Went::lost);
        forged = done;
        forged.claim.stream = 4711;
        CHECK(finish(*store, forged).result == Went::lost);
        CHECK(store->head() == 2);
    }
    SUBCASE("an event the decision depends on came in between: conflict, the claim is still held") {
        const std::unordered_set<std::string> evolves{"E"};
        done.evolves = &evolves;
        done.decided_on = 2;
        store->append("s1", {message("E")});
        CHECK(finish(*store, done).result == Went::conflict);
        CHECK(store->head() == 3);
        CHECK(store->scheduled().empty());
        CHECK(claim(*store, group).empty());
        done.decided_on = 3;
        CHECK(finish(*store, done).result == Went::done);
        CHECK(store->stream_seq("s1") == 5);
    }
    SUBCASE("a message the decision does not depend on is no conflict") {
        const std::unordered_set<std::string> evolves{"E"};
        done.evolves = &evolves;
        done.decided_on = 2;
        store->append("s1", {message("something else")});
        CHECK(finish(*store, done).result == Went::done);
        CHECK(store->stream_seq("s1") == 5);
    }
    SUBCASE("sync throws: its error is kept, nothing is written, the claim is still held") {
        store->transaction([](Transaction& transaction) { transaction.execute("CREATE TABLE mine(x)"); });
        bool fails = true;
        done.sync = [&](Transaction& transaction) {
            transaction.execute("INSERT INTO mine VALUES(1)");
            CHECK(transaction.row("SELECT seq FROM sourced_streams WHERE name = 's1'")->integer(0) == 4);
            if (fails) throw std::domain_error("not now");
        };
        const Outcome outcome = finish(*store, done);
        CHECK(outcome.result == Went::failed);
        REQUIRE(outcome.error);
        CHECK_THROWS_AS(std::rethrow_exception(outcome.error), std::domain_error);
        CHECK(store->head() == 2);
        CHECK(store->scheduled().empty());
        CHECK(store->stats().group("g").newest == 0);
        CHECK(claim(*store, group).empty());
        fails = false;
        CHECK(finish(*store, done).result == Went::done);
        CHECK(store->head() == 6);
        store->read([](Reader& reader) { CHECK(reader.query("SELECT * FROM mine").size() == 1); });
    }
    SUBCASE("messages that arrive while the claim is held are not forgotten") {
        store->append("s1", {command("C")});
        CHECK(claim(*store, group).empty());  // discovered meanwhile, the stream is taken
        store->append("s1", {command("C")});  // not discovered yet
        CHECK(finish(*store, handled(mine, 2)).result == Went::done);
        CHECK(drain(*store, group, {"C"}) == Numbers{3, 4});
    }
    SUBCASE("what was left over comes again") {
        CHECK(finish(*store, handled(mine, 1)).result == Went::done);
        CHECK(drain(*store, group, {"C"}) == Numbers{2});
    }
    SUBCASE("one that fails does not take the others of the same step with it") {
        store->append("s5", {command("C")});
        const auto other = claim(*store, group);
        REQUIRE(other.size() == 1);
        Exchange step;
        step.finished.push_back(done);
        step.finished[0].appends.push_back({"s2", several("E", 1), expect_seq(0)});  // s2 has a message by then
        step.finished.push_back(handled(other[0], 3));
        step.finished[1].appends.push_back({"s6", several("E", 1), any_seq});
        step.group = group;
        step.claims = 3;
        const Exchanged result = store->exchange(step);
        REQUIRE(result.outcomes.size() == 2);
        CHECK(result.outcomes[0].result == Went::failed);
        CHECK_THROWS_AS(std::rethrow_exception(result.outcomes[0].error), Conflict);
        CHECK(result.outcomes[1].result == Went::done);
        CHECK(result.claims.empty());
        CHECK(store->stream("s2").empty());
        CHECK(seqs(store->stream("s6")) == Numbers{1});
        CHECK(positions(store->log()) == counting(1, 4));
    }
}

TEST_CASE_TEMPLATE("Store: claims come oldest pending first, and tell whether there is more", Kind_, STORE_KINDS) {
    Kind_ kind;
    auto store = kind.open();
    for (int i = 0; i < 6; ++i) store->append("s" + std::to_string(i), {message("E")});
    const auto group = store->register_group({"g", {"E"}, {}}).id;
    Exchange step;
    step.group = group;
    step.claims = 4;
    Exchanged result = store->exchange(step);
    REQUIRE(result.claims.size() == 4);
    for (std::size_t i = 0; i < 4; ++i) CHECK(result.claims[i].stream_name == "s" + std::to_string(i));
    CHECK(result.more);
    CHECK(result.active);
    for (const auto& each : result.claims) {
        step.finished.push_back(handled(each, each.acked));
        step.finished.back().release = true;
    }
    result = store->exchange(step);
    REQUIRE(result.claims.size() == 4);
    for (std::size_t i = 0; i < 4; ++i) CHECK(result.claims[i].stream_name == "s" + std::to_string(i));
    step.finished.clear();
    result = store->exchange(step);
    CHECK(result.claims.size() == 2);
    result = store->exchange(step);
    CHECK(result.claims.empty());
    CHECK_FALSE(result.more);
    CHECK(result.scanned == 6);
    step.claims = 0;
    CHECK(store->exchange(step).claims.empty());
    CHECK_THROWS_AS((void)claim(*store, 4711), NotRegistered);
}

TEST_CASE_TEMPLATE("Store: one stream can be claimed by name", Kind_, STORE_KINDS) {
    Kind_ kind;
    auto store = kind.open();
    for (int i = 0; i < 5; ++i) store->append("s" + std::to_string(i), {message("E"), message("other")});
    const auto group = store->register_group({"g", {"E"}, {}}).id;
    CHECK_FALSE(store->claim_stream(group, "nobody").has_value());
    const auto mine = store->claim_stream(group, "s3");
    REQUIRE(mine.has_value());
    CHECK(mine->stream_name == "s3");
    CHECK(pending(*store, *mine, {"E"}) == Numbers{7});
    CHECK_FALSE(store->claim_stream(group, "s3").has_value());
    CHECK(claim(*store, group, 10).size() == 4);
    CHECK(finish(*store, handled(*mine, 7)).result == Went::done);
}

TEST_CASE_TEMPLATE("Store: a generation is built beside the served one, and takes its place", Kind_, STORE_KINDS) {
    Kind_ kind;
    auto store = kind.open();
    store->append("s1", {message("E"), message("E")});
    store->append("s2", {message("E")});
    const auto group = store->register_group({"g", {"E"}, {}}).id;
    store->transaction([](Transaction& transaction) {
        transaction.execute("CREATE TABLE mine(x)");
        transaction.execute("INSERT INTO mine VALUES('old')");
    });
    const auto install = [](Transaction& transaction, std::int64_t number) {
        const std::string name = "mine_generation_" + std::to_string(number);
        transaction.execute("CREATE TABLE " + name + "(x)");
        transaction.execute("INSERT INTO " + name + " VALUES('new')");
        return std::vector<std::string>{"mine"};
    };
    const auto mine = [&] {
        std::string text;
        store->read([&](Reader& reader) { text = reader.row("SELECT x FROM mine")->text(0); });
        return text;
    };
    const auto tables = [&] {
        std::int64_t count = 0;
        store->read([&](Reader& reader) {
            count = reader.row("SELECT count(*) FROM sqlite_master WHERE name LIKE 'mine%'")->integer(0);
        });
        return count;
    };
    auto claims = claim(*store, group, 2);
    REQUIRE(claims.size() == 2);
    finish(*store, handled(claims[0], 1));  // s1 its first
    finish(*store, handled(claims[1], 3));  // s2 whole

    Generation generation = store->begin_generation("g", install);
    CHECK(generation.group != group);
    CHECK(generation.number == 2);
    CHECK(generation.begins == 0);
    CHECK(mine() == "old");
    claims = claim(*store, generation.group, 5);
    REQUIRE(claims.size() == 2);
    CHECK(claims[0].acked == 0);
    CHECK(claims[0].highest == 1);  // what the served one has handled
    CHECK(claims[1].highest == 3);
    const auto wait_for_served = [&](const Claim& one, std::int64_t acked) {
        Handled done = handled(one, acked);
        done.not_before = Time::max();
        CHECK(finish(*store, done).result == Outcome::Result::done);
    };
    SUBCASE("it waits for what the served one has not handled yet, until the next pass") {
        wait_for_served(claims[0], 1);
        CHECK(claim(*store, generation.group, 5).empty());
        CHECK(store->next_pass(generation) == 0);
        auto served = claim(*store, group, 1);
        REQUIRE(served.size() == 1);
        finish(*store, handled(served[0], 2));
        CHECK(store->next_pass(generation) == 1);
        auto more = claim(*store, generation.group, 5);
        REQUIRE(more.size() == 1);
        CHECK(more[0].acked == 1);
        CHECK(more[0].highest == 2);
    }
    SUBCASE("in its place it has the group's row id, its offsets and tables, and what was handled ever") {
        wait_for_served(claims[0], 1);
        finish(*store, handled(claims[1], 3));
        auto held = claim(*store, group, 1);  // of the old one, still under way
        REQUIRE(held.size() == 1);
        bool installed = false;
        store->serve_generation(generation, [&](Transaction& transaction) {
            installed = transaction.row("SELECT x FROM mine")->text(0) == "new";
        });
        CHECK(installed);
        CHECK(mine() == "new");
        CHECK(tables() == 1);
        CHECK(finish(*store, handled(held[0], 2)).result == Outcome::Result::lost);
        const auto info = store->stats().group("g");
        CHECK(info.id == group);
        CHECK(info.generation == 2);
        CHECK(info.lag == 1);
        CHECK(store->stats().groups.size() == 1);
        auto rest = claim(*store, group, 5);
        REQUIRE(rest.size() == 1);
        CHECK(rest[0].acked == 1);
        CHECK(rest[0].highest == 1);  // live
        CHECK_THROWS_AS((void)claim(*store, generation.group, 1), NotRegistered);
    }
    SUBCASE("what it has not come to yet is left as a replay") {
        finish(*store, handled(claims[1], 3));  // nothing of s1
        store->serve_generation(generation, nullptr);
        const auto rest = claim(*store, group, 5);
        REQUIRE(rest.size() == 1);
        CHECK(rest[0].stream_name == "s1");
        CHECK(rest[0].acked == 0);
        CHECK(rest[0].highest == 1);
    }
    SUBCASE("what it has not searched yet is found again") {
        store->append("s3", {message("E")});
        for (auto served = claim(*store, group, 5); !served.empty(); served = claim(*store, group, 5)) {
            for (const auto& one : served) finish(*store, handled(one, one.known));
        }
        finish(*store, handled(claims[0], 1));
        finish(*store, handled(claims[1], 3));
        store->serve_generation(generation, nullptr);
        const auto rest = claim(*store, group, 5);
        REQUIRE(rest.size() == 2);
        CHECK(rest[0].stream_name == "s1");
        CHECK(rest[0].highest == 2);
        CHECK(rest[1].stream_name == "s3");
        CHECK(rest[1].highest == 4);
        CHECK(rest[1].pending <= 4);
    }
    SUBCASE("another one drops it, and its number is not given again") {
        const Generation second = store->begin_generation("g", install);
        CHECK(second.number == 3);
        CHECK(second.group != generation.group);
        CHECK(tables() == 2);
        CHECK(finish(*store, handled(claims[0], 1)).result == Outcome::Result::lost);
        CHECK_THROWS_AS(store->serve_generation(generation, nullptr), NotRegistered);
        store->drop_generation(generation);
        CHECK(tables() == 2);
        store->drop_generation(second);
        CHECK(tables() == 1);
        const auto other = store->register_group({"h", {"E"}, {}}).id;
        CHECK(other != generation.group);
        CHECK(other != second.group);
        CHECK(mine() == "old");
        CHECK(claim(*store, group, 5).size() == 1);
    }
    SUBCASE("what fails leaves nothing behind") {
        CHECK_THROWS_AS(store->begin_generation("nobody", install), NotRegistered);
        CHECK_THROWS_WITH_AS(
            store->begin_generation("g", [](Transaction&, std::int64_t) { return std::vector<std::string>{"no"}; }),
            "rebuild 'g': its on_install asks for the table 'no' and creates none of the name that it is given, "
            "'no_generation_3'",
            Error);
        CHECK_THROWS_AS(store->serve_generation(generation, [](Transaction&) { throw std::logic_error("no"); }),
                        std::logic_error);
        CHECK(mine() == "old");
        CHECK(tables() == 2);
        store->serve_generation(generation, nullptr);
        CHECK(mine() == "new");
    }
}

TEST_CASE_TEMPLATE("Store: a reset lets a group pass again what it had handled, as a replay", Kind_, STORE_KINDS) {
    Kind_ kind;
    auto store = kind.open();
    store->transaction([](Transaction& transaction) {
        transaction.execute("CREATE TABLE mine(x)");
        transaction.execute("INSERT INTO mine VALUES(1)");
    });
    for (int i = 0; i < 3; ++i) {
        store->append("s1", {message("E")});
        store->append("s2", {message("E")});
    }
    const auto group = store->register_group({"g", {"E"}, {}}).id;
    auto claims = claim(*store, group, 2);
    REQUIRE(claims.size() == 2);
    finish(*store, handled(claims[0], 5));  // s1 whole
    finish(*store, handled(claims[1], 2));  // s2 its first

    SUBCASE("whole") {
        store->reset_group("g", {}, [](Transaction& transaction) { transaction.execute("DELETE FROM mine"); });
        claims = claim(*store, group, 5);
        REQUIRE(claims.size() == 2);
        CHECK(claims[0].acked == 0);
        CHECK(claims[0].highest == 5);
        CHECK(claims[1].highest == 2);
        store->read([](Reader& reader) { CHECK(reader.query("SELECT * FROM mine").empty()); });
        CHECK(store->stats().group("g").lag == 6);
    }
    SUBCASE("from a position") {
        store->reset_group("g", {.position = 4}, nullptr);
        Numbers again = drain(*store, group, {"E"});
        std::sort(again.begin(), again.end());
        CHECK(again == Numbers{4, 5, 6});
    }
    SUBCASE("one stream, and the reason is kept") {
        store->reset_group("g", {.stream = "s1", .reason = "why not"}, nullptr);
        const auto info = store->stats().group("g");
        CHECK(info.reset_reason == "why not");
        CHECK(info.reset_position == 1);
        CHECK(info.reset_stream == "s1");
        REQUIRE(info.replay);
        CHECK(info.replay->done == 0);
        CHECK(info.replay->total == 5);
        Numbers again = drain(*store, group, {"E"});
        std::sort(again.begin(), again.end());
        CHECK(again == Numbers{1, 3, 4, 5, 6});
        CHECK_FALSE(store->stats().group("g").replay);
    }
    SUBCASE("from a time: of what is recorded at or after it") {
        store->reset_group("g", {.time = store->log().front().recorded_at}, nullptr);
        CHECK(drain(*store, group, {"E"}).size() == 6);
        store->reset_group("g", {.time = store->log().back().recorded_at + std::chrono::hours(1)}, nullptr);
        CHECK(drain(*store, group, {"E"}).empty());
    }
    SUBCASE("mistakes change nothing") {
        CHECK_THROWS_WITH_AS(store->reset_group("g", {.stream = "s9"}, nullptr),
                             "reset in 's9': there is no such stream", Invalid);
        CHECK_THROWS_WITH_AS(store->reset_group("g", {.position = 2, .time = Time()}, nullptr),
                             "reset: a position and a time are given, one is enough", Invalid);
        CHECK(drain(*store, group, {"E"}) == Numbers{4, 6});
    }
    SUBCASE("on_reset throws: nothing is reset") {
        CHECK_THROWS_AS(store->reset_group("g", {},
                                           [](Transaction& transaction) {
                                               transaction.execute("DELETE FROM mine");
                                               throw std::logic_error("no");
                                           }),
                        std::logic_error);
        store->read([](Reader& reader) { CHECK(reader.query("SELECT * FROM mine").size() == 1); });
        CHECK(drain(*store, group, {"E"}) == Numbers{4, 6});
    }
    SUBCASE("a stopped group stays stopped") {
        store->stop_group("g", "x");
        store->reset_group("g", {}, nullptr);
        CHECK(claim(*store, group, 5).empty());
        store->start_group("g");
        CHECK(claim(*store, group, 5).size() == 2);
    }
}

TEST_CASE_TEMPLATE("Store: a reset can be planned, and nothing changes", Kind_, STORE_KINDS) {
    Kind_ kind;
    HandClock clock;
    auto store = kind.open(clock.options());
    for (int i = 0; i < 3; ++i) {
        clock.set(2000 + i);
        store->append("s1", {message("E"), message("F")});  // 1 2, 5 6, 9 10
        store->append("s2", {message("E"), message("F")});  // 3 4, 7 8, 11 12
    }
    store->append("s3", {message("F")});
    const auto group = store->register_group({"g", {"E"}, {}}).id;
    auto claims = claim(*store, group, 2);
    REQUIRE(claims.size() == 2);
    finish(*store, handled(claims[0], 9));
    finish(*store, handled(claims[1], 3));
    const auto plan = [&](const Reset& reset) {
        const ResetPlan planned = store->plan_reset("g", reset);
        CHECK_FALSE(planned.estimated);
        return Numbers{planned.position, planned.messages, planned.streams};
    };
    const auto before = store->stats().group("g");

    CHECK(plan({}) == Numbers{1, 4, 2});
    CHECK(plan({.position = 3}) == Numbers{3, 3, 2});
    CHECK(plan({.position = 4}) == Numbers{4, 2, 1});
    CHECK(plan({.time = at(2001)}) == Numbers{5, 2, 1});
    CHECK(plan({.position = 100}) == Numbers{100, 0, 0});
    CHECK(plan({.stream = "s1"}) == Numbers{1, 3, 1});
    CHECK(plan({.position = 5, .stream = "s1"}) == Numbers{5, 2, 1});
    CHECK(plan({.stream = "s3"}) == Numbers{1, 0, 0});
    const auto types = [&](const Reset& reset) {
        std::string text;
        for (const auto& type : store->plan_reset("g", reset).types) {
            text += type.name + " " + std::to_string(type.messages) + ";";
        }
        return text;
    };
    CHECK(types({}) == "E 4;");
    CHECK(types({.stream = "s2"}) == "E 1;");
    CHECK(types({.position = 100}) == "");
    CHECK(store->stats().group("g").newest == before.newest);
    CHECK_FALSE(store->stats().group("g").reset_at);

    CHECK_THROWS_AS((void)store->plan_reset("nobody", {}), NotRegistered);
    CHECK_THROWS_AS((void)store->plan_reset("g", {.stream = "nowhere"}), Invalid);
    CHECK_THROWS_AS((void)store->plan_reset("g", {.position = 2, .time = at(1)}), Invalid);

    // As many come as were planned.
    store->reset_group("g", {.position = 3}, nullptr);
    std::size_t again = 0;
    for (const auto position : drain(*store, group, {"E"})) again += position <= 9 && position != 7 ? 1 : 0;
    CHECK(again == 3);
}

TEST_CASE_TEMPLATE("Store: a group can leave all that is open behind", Kind_, STORE_KINDS) {
    Kind_ kind;
    HandClock clock;
    clock.set(1000);
    auto store = kind.open(clock.options());
    for (const auto* stream : {"handled", "waiting", "parked", "claimed", "ready"}) {
        store->append(stream, several("E", 2));  // 1 2, 3 4, ...
    }
    const auto group = store->register_group({"g", {"E"}, {}}).id;
    const auto other = store->register_group({"other", {"E"}, {}}).id;
    auto claims = claim(*store, group, 4);
    REQUIRE(claims.size() == 4);
    finish(*store, handled(claims[0], 2));
    finish(*store, failed(claims[1], 3, at(5000)));
    store->park_stream("g", "parked", "by hand");
    store->append("not discovered", {message("E"), message("F")});  // 11 12
    CHECK(store->stats().group("g").lag == 9);

    CHECK(store->skip_to_end("g", "all of it is old") == 13);
    auto info = store->stats().group("g");
    CHECK(info.lag == 0);
    CHECK(info.retrying == 0);
    CHECK(info.parked == 0);
    CHECK_FALSE(info.last_error);
    CHECK(info.reset_reason == "all of it is old");
    CHECK(info.reset_at == at(1000));
    CHECK(info.reset_position == 13);
    CHECK_FALSE(info.replay);
    CHECK(store->standing("g", 12).reached);
    CHECK(store->settled(group));
    CHECK(claim(*store, group, 10).empty());
    CHECK(store->stats().group("other").lag == 11);

    SUBCASE("work under way is dropped") {
        CHECK(finish(*store, handled(claims[3], 8)).result == Went::lost);
    }
    SUBCASE("what comes next is handled, in every stream") {
        for (const auto* stream : {"handled", "waiting", "parked", "claimed", "ready", "not discovered", "new"}) {
            store->append(stream, {message("E")});
        }
        CHECK(drain(*store, group, {"E"}) == counting(13, 19));
    }
    SUBCASE("what was passed over is a replay after a reset") {
        store->reset_group("g", {}, nullptr);
        claims = claim(*store, group, 10);
        REQUIRE(claims.size() == 6);
        for (const auto& each : claims) CHECK(each.highest >= each.known);
    }
    SUBCASE("again: there is nothing left") {
        CHECK(store->skip_to_end("g", "again") == 13);
        CHECK(store->stats().group("g").reset_reason == "again");
    }
    SUBCASE("a group that is stopped stays so") {
        store->stop_group("other", "for a look");
        CHECK(store->skip_to_end("other", "x") == 13);
        CHECK_FALSE(store->stats().group("other").active);
        CHECK(store->stats().group("other").lag == 0);
        store->start_group("other");
        CHECK(claim(*store, other, 10).empty());
    }
    CHECK_THROWS_AS((void)store->skip_to_end("nobody", "x"), NotRegistered);
}

TEST_CASE_TEMPLATE("Store: a type that is added later is delivered from the head on", Kind_, STORE_KINDS) {
    Kind_ kind;
    auto store = kind.open();
    store->append("s1", {message("A"), message("B")});
    const auto group = store->register_group({"g", {"A"}, {}}).id;
    CHECK(drain(*store, group, {"A"}) == Numbers{1});
    store->append("s1", {message("B"), message("A")});
    CHECK(store->register_group({"g", {"A", "B"}, {}}).id == group);
    store->append("s1", {message("B")});
    store->append("s2", {message("B")});
    auto claims = claim(*store, group, 5);
    REQUIRE(claims.size() == 2);
    CHECK(claims[0].stream_name == "s1");
    CHECK(claims[0].pending == 4);  // the A that came before
    CHECK(claims[0].known == 5);
    CHECK(claims[1].pending == 6);
    CHECK(store->stats().group("g").types == std::vector<std::string>{"A", "B"});
    CHECK(store->stats().group("g").since == std::unordered_map<std::string, std::int64_t>{{"B", 5}});
    CHECK(store->stats().group("g").lag == 3);
    // The stored set only grows, so this program still handles all of it.
    CHECK(store->register_group({"g", {"A"}, {}}).active);
    finish(*store, handled(claims[0], 5));
    CHECK(store->stats().group("g").types == std::vector<std::string>{"A", "B"});
}

TEST_CASE_TEMPLATE("Store: a command handled at once is decided on the state it was decided on", Kind_, STORE_KINDS) {
    Kind_ kind;
    auto store = kind.open();
    const auto group = store->register_group({"g", {"C", "R"}, {}}).id;
    const std::unordered_set<std::string> evolves{"E"};
    Direct direct;
    direct.group = group;
    direct.stream = "s1";
    direct.evolves = &evolves;
    const auto decide = [&](std::int64_t decided_on) {
        direct.decided_on = decided_on;
        const Message asked = command("C");
        direct.messages = {asked, follow(asked, message("E"))};
        return store->commit_direct(direct);
    };
    DirectOutcome outcome = decide(0);
    CHECK(outcome.result == DirectOutcome::Result::done);
    CHECK(outcome.appended.last_seq == 2);
    CHECK(claim(*store, group).empty());  // handled already

    SUBCASE("several commands are handled, what the group reacts to is left") {
        const Message one = command("C");
        const Message two = command("C");
        direct.decided_on = 2;
        direct.commands = 2;
        direct.messages = {one, two, follow(one, message("R")), follow(two, message("E"))};
        CHECK(store->commit_direct(direct).appended.first_seq == 3);
        const auto claims = claim(*store, group);
        REQUIRE(claims.size() == 1);
        CHECK(claims[0].acked == 4);
        CHECK(pending(*store, claims[0], {"C", "R"}) == Numbers{5});
        CHECK(decide(6).result == DirectOutcome::Result::pending);
        finish(*store, handled(claims[0], 5));
        CHECK(decide(6).result == DirectOutcome::Result::done);
    }
    SUBCASE("a command that is not stored leaves its events alone") {
        direct.commands = 0;
        direct.decided_on = 2;
        direct.messages = {message("E")};
        CHECK(store->commit_direct(direct).appended.first_seq == 3);
        CHECK(claim(*store, group).empty());
        direct.decided_on = 3;
        direct.messages = {message("E"), message("R")};
        CHECK(store->commit_direct(direct).result == DirectOutcome::Result::done);
        const auto claims = claim(*store, group);
        REQUIRE(claims.size() == 1);
        CHECK(pending(*store, claims[0], {"C", "R"}) == Numbers{5});
        finish(*store, handled(claims[0], 5));
        // Nothing came of one: nothing is written, but the state has to be right and nothing may be open.
        direct.decided_on = 3;
        direct.messages.clear();
        CHECK(store->commit_direct(direct).result == DirectOutcome::Result::conflict);
        direct.decided_on = 5;
        CHECK(store->commit_direct(direct).result == DirectOutcome::Result::done);
        store->append("s1", {command("C")});
        CHECK(store->commit_direct(direct).result == DirectOutcome::Result::pending);
        CHECK(store->head() == 6);
    }
    SUBCASE("an event came in between: conflict, nothing is written") {
        CHECK(decide(1).result == DirectOutcome::Result::conflict);
        CHECK(store->head() == 2);
        CHECK(decide(2).result == DirectOutcome::Result::done);
    }
    SUBCASE("a message it does not depend on: no conflict") {
        store->append("s1", {message("other")});
        CHECK(decide(2).result == DirectOutcome::Result::done);
        CHECK(store->stream_seq("s1") == 5);
    }
    SUBCASE("work of the group on the stream is open: pending, nothing is written") {
        store->append("s1", {command("C")});
        CHECK(decide(3).result == DirectOutcome::Result::pending);
        auto claims = claim(*store, group);
        REQUIRE(claims.size() == 1);
        CHECK(decide(3).result == DirectOutcome::Result::pending);
        finish(*store, handled(claims[0], 3));
        CHECK(decide(3).result == DirectOutcome::Result::done);
        CHECK(claim(*store, group).empty());
    }
    SUBCASE("what follows is for the group too: it is delivered, the command is not") {
        const Message asked = command("C");
        direct.decided_on = 2;
        direct.messages = {asked, follow(asked, message("R"))};
        CHECK(store->commit_direct(direct).result == DirectOutcome::Result::done);
        CHECK(drain(*store, group, {"C", "R"}) == Numbers{4});
    }
    SUBCASE("the same command again: the first result") {
        const Messages sent = direct.messages;
        CHECK(decide(2).result == DirectOutcome::Result::done);
        direct.messages = sent;
        direct.decided_on = 4;
        const DirectOutcome again = store->commit_direct(direct);
        CHECK(again.appended.repeated);
        CHECK(again.appended.last_seq == 2);
        CHECK(store->head() == 4);
    }
    SUBCASE("the group is stopped: an error") {
        store->stop_group("g", "x");
        CHECK_THROWS_AS((void)decide(2), Error);
        CHECK(store->head() == 2);
    }
}

// ---- Wake-ups ----------------------------------------------------------------------------------

TEST_CASE_TEMPLATE("Store: a commit tells what it did", Kind_, STORE_KINDS) {
    Kind_ kind;
    HandClock clock;
    clock.set(1000);
    auto store = kind.open(clock.options());
    struct Told {
        std::int64_t head;
        std::vector<std::string> types;
        std::optional<Time> due;
        bool groups;
    };
    std::vector<Told> told;
    store->on_commit([&](const Committed& facts) {
        told.push_back({facts.head, facts.types ? *facts.types : std::vector<std::string>{"any"}, facts.due,
                        facts.groups_changed});
    });
    store->append("s", {message("a"), message("b"), message("a")});
    REQUIRE(told.size() == 1);
    CHECK(told[0].head == 3);
    CHECK(told[0].types == std::vector<std::string>{"a", "b"});
    CHECK_FALSE(told[0].due.has_value());
    CHECK_FALSE(told[0].groups);
    store->schedule({due(at(1005), "s", message("a")), due(at(1003), "s", message("a"))});
    REQUIRE(told.size() == 2);
    CHECK(told[1].due == at(1003));
    const auto group = store->register_group({"g", {"a"}, {}}).id;
    REQUIRE(told.size() == 3);
    CHECK(told[2].groups);
    store->stop_group("g", "x");
    store->start_group("g");
    store->reset_group("g", {}, nullptr);
    REQUIRE(told.size() == 6);
    for (std::size_t i = 3; i < 6; ++i) CHECK(told[i].groups);
    (void)claim(*store, group);
    (void)store->head();
    CHECK_THROWS(store->append("s", {message("a")}, expect_seq(0)));
    CHECK_THROWS(store->transaction([](Transaction& transaction) {
        transaction.append("s", {message("a")});
        throw std::logic_error("no");
    }));
    CHECK(told.size() == 6);
    store->transaction([](Transaction& transaction) { transaction.append("s", {message("z")}); });
    REQUIRE(told.size() == 7);
    CHECK(told[6].types == std::vector<std::string>{"z"});
    CHECK_FALSE(told[6].groups);
}

TEST_CASE_TEMPLATE("Store: waiting for others ends by time or by interruption when nobody else writes", Kind_,
                   STORE_KINDS) {
    Kind_ kind;
    auto store = kind.open();
    store->append("s", {message("a")});
    CHECK_FALSE(store->wait_for_others(std::chrono::milliseconds(5)));
    store->interrupt_wait();
    CHECK_FALSE(store->wait_for_others(std::chrono::hours(1)));
    std::jthread interrupter;
    CHECK_FALSE([&] {
        interrupter = std::jthread([&] {
            store->append("s", {message("a")});
            store->interrupt_wait();
        });
        return store->wait_for_others(std::chrono::hours(1));
    }());
}

// ---- From file to file ----------------------------------------------------------------

/// A log of everything that is not simple, as it is read back.
inline Messages strange_log(Store& store, HandClock& clock) {
    const std::string name = "it's \"odd\";--%_\\\n\x1b[31m" + std::string("\0x", 2);
    Message first = command("cart.add_item", R"({"n":1,  "text":"caf\u00e9"})");
    Message second = follow(first, message("cart.item_added", R"({"big":1e400,"text":"é"})"));
    second.schema = 3;
    second.occurred_at = at(77);
    second.metadata = Metadata::parse(R"({ "user":10})");
    store.append(name, {first, second});
    clock.set(1'000'000'100);
    const std::string large = "\"" + std::string(100'000, 'p') + "\"";
    store.append(std::string(10'000, 'n'), {follow(second, message("type\nof its own", large))});
    Message outside = message("cart.item_added", "null");
    outside.causation = id(7);
    outside.metadata.set("outside_cause", id(7).to_string());
    store.append(name, {outside});
    return store.log();
}

TEST_CASE_TEMPLATE("Store: messages of another file are taken with everything they were recorded with", Kind_,
                   STORE_KINDS) {
    HandClock clock;
    Kind_ source_kind;
    auto source = source_kind.open(clock.options());
    Messages all = strange_log(*source, clock);
    all[2].erased_at = at(2'000'000'000);
    all[2].payload.clear();
    Kind_ kind;
    auto store = kind.open();
    std::vector<std::int64_t> told;
    store->on_commit([&](const Committed& facts) { told.push_back(facts.head); });

    const Imported done = store->import_log(all);
    CHECK(done.appended == 4);
    CHECK(done.known == 0);
    CHECK(done.moved == 0);
    CHECK(store->log() == all);
    CHECK(told == Numbers{4});
    const auto streams = store->recent_streams();
    REQUIRE(streams.size() == 2);
    for (const auto& stream : streams) CHECK(stream.updated_at == store->stream(stream.name).back().recorded_at);

    SUBCASE("again: nothing is written, and what is new comes behind") {
        Message more = follow(all.front(), message("cart.opened"));
        more.stream = all.front().stream;
        more.seq = 4;
        more.position = 5;
        more.recorded_at = more.occurred_at = all.back().recorded_at;
        all.push_back(more);
        const Imported again = store->import_log(all);
        CHECK(again.appended == 1);
        CHECK(again.known == 4);
        CHECK(again.moved == 0);
        CHECK(store->log() == all);
    }
    SUBCASE("what is appended afterwards is recorded now, and not before them") {
        const auto appended = store->append("other", {message("cart.opened")});
        CHECK(appended.first_position == 5);
        CHECK(appended.recorded_at >= all.back().recorded_at);
        CHECK(store->append(all.front().stream, {message("cart.opened")}, expect_seq(3)).first_seq == 4);
    }
    SUBCASE("another place in the log is told") {
        for (auto& each : all) ++each.position;
        CHECK(store->import_log(all).moved == 4);
    }
    SUBCASE("nothing is no error") { CHECK(store->import_log({}).appended == 0); }
}

TEST_CASE_TEMPLATE("Store: an import keeps the order of times, whatever the clock of this machine says", Kind_,
                   STORE_KINDS) {
    HandClock clock;
    Kind_ kind;
    auto store = kind.open(clock.options());
    (void)store->register_group({"g", {"a"}, {}});  // at a time later than that of the messages
    Messages messages = several("a", 3);
    for (std::size_t i = 0; i < messages.size(); ++i) {
        messages[i].stream = "s";
        messages[i].seq = static_cast<std::int64_t>(i) + 1;
        messages[i].recorded_at = at(static_cast<std::int64_t>(i) * 10);  // from 1970 on
    }
    CHECK(store->import_log({messages[0]}).appended == 1);
    CHECK(store->import_log({messages[1]}).appended == 1);
    CHECK(store->import_log({messages[2]}).appended == 1);
    CHECK(store->log().back().recorded_at == at(20));
    CHECK(store->append("s", several("a", 1)).recorded_at == clock.now());
}

TEST_CASE_TEMPLATE("Store: an import that does not fit says which message and which field, and writes nothing", Kind_,
                   STORE_KINDS) {
    HandClock clock;
    Kind_ kind;
    auto store = kind.open(clock.options());
    const Message known = command("add");
    store->append("s", {known, follow(known, message("added"))});
    const Messages before = store->log();
    Messages given = {follow(known, message("added")), follow(known, message("added"))};
    for (std::size_t i = 0; i < given.size(); ++i) {
        given[i].stream = "s";
        given[i].seq = static_cast<std::int64_t>(i) + 3;
        given[i].recorded_at = clock.now();
    }
    std::size_t wrong = 1;
    std::string field;
    std::string text;
    SUBCASE("a seq that leaves a hole") {
        given[1].seq = 6;
        field = "seq";
        text = "import seq 6 of 's': /seq: expected 4";
    }
    SUBCASE("a seq that is taken") {
        given[1].seq = 2;
        field = "id";
        text = "the stream has another message of this seq, and ends with seq 3";
    }
    SUBCASE("a seq that is none") {
        given[1].seq = 0;
        field = "seq";
        text = "it has to be 1 or more";
    }
    SUBCASE("a time before all times") {
        given[1].recorded_at = Time(Duration(-1));
        field = "recorded_at";
        text = "it lies before 1970";
    }
    SUBCASE("a time that every later message would have to carry") {
        given[1].recorded_at = clock.now() + std::chrono::hours(25);
        field = "recorded_at";
        text = "it lies more than a day ahead, and no later message could have its own time";
    }
    SUBCASE("a time before the last") {
        given[1].recorded_at = clock.now() - std::chrono::seconds(1);
        field = "recorded_at";
        text = "the log ends with a message that was recorded 1000000 microseconds later";
    }
    SUBCASE("a type of the other kind") {
        given[1].kind = Kind::command;
        field = "kind";
        text = "the type is one of events here";
    }
    SUBCASE("a cause that is not there") {
        given[1].causation = id(99);
        field = "causation";
        text = id(99).to_string() + " is not in the log before it";
    }
    SUBCASE("a cause that comes later") {
        given[0].causation = given[1].id;
        given[0].correlation = given[1].correlation = given[1].id;
        given[1].causation = given[1].id;
        wrong = 0;
        field = "causation";
        text = "is not in the log before it";
    }
    SUBCASE("a correlation that is not that of the cause") {
        given[1].correlation = given[0].id;
        field = "correlation";
        text = "that of its cause is " + known.id.to_string();
    }
    SUBCASE("an id that is known in another place") {
        given[1].id = known.id;
        given[1].causation = known.id;
        field = "id";
        text = "it is seq 1 of 's' already";
    }
    SUBCASE("an id that waits in the schedule") {
        store->schedule({due(at(2'000'000'000), "s", given[1])});
        field = "id";
        text = "it waits in the schedule here: cancel it first";
    }
    SUBCASE("an id that stands twice") {
        given[1].id = given[0].id;
        given[1].causation = given[0].causation;
        field = "id";
        text = "it is seq 3 of 's' already";
    }
    SUBCASE("a stream without a name") {
        given[1].stream = " \n";
        field = "stream";
        text = "it is blank";
    }
    SUBCASE("no type") {
        given[1].type.clear();
        field = "type";
        text = "it is empty";
    }
    SUBCASE("no id") {
        given[1].id = Id();
        field = "id";
        text = "it is nil";
    }
    SUBCASE("known already, and different") {
        given[1] = before[1];
        SUBCASE("in its type") {
            given[1].type = "removed";
            field = "type";
            text = "the message is there already with the type 'added'";
        }
        SUBCASE("in its schema") {
            given[1].schema = 2;
            field = "schema";
            text = "with schema 1";
        }
        SUBCASE("in its cause") {
            given[1].causation = given[1].id;
            field = "causation";
            text = "with the cause " + known.id.to_string();
        }
        SUBCASE("in its correlation") {
            given[1].correlation = given[1].id;
            field = "correlation";
            text = "with the correlation " + known.id.to_string();
        }
        SUBCASE("in when it was recorded") {
            given[1].recorded_at += std::chrono::seconds(1);
            given[1].occurred_at = before[1].occurred_at;
            field = "recorded_at";
            text = "recorded at 1000000000 microseconds";
        }
        SUBCASE("in when it happened") {
            given[1].occurred_at = at(5);
            field = "occurred_at";
            text = "occurred at 1000000000 microseconds";
        }
        SUBCASE("in its metadata") {
            given[1].metadata.set("user", 1);
            field = "metadata";
            text = "with the metadata {}";
        }
        SUBCASE("in its payload") {
            given[1].payload = "[]";
            field = "payload";
            text = "with another payload";
        }
        SUBCASE("by being erased") {
            given[1].erased_at = at(1);
            field = "erased_at";
            text = "with its payload";
        }
        SUBCASE("in its place") {
            given[1].seq = 1;
            field = "id";
            text = "it is seq 2 of 's' here";
        }
    }
    CAPTURE(text);
    try {
        store->import_log(given);
        FAIL("it was taken");
    } catch (const Unfit& unfit) {
        CHECK(unfit.index() == wrong);
        CHECK(unfit.field() == field);
        CHECK(contains(unfit.what(), text));
        REQUIRE(unfit.problems().size() == 1);
        CHECK(unfit.problems().front().path == "/" + field);
    }
    CHECK(store->log() == before);
    CHECK(store->append("s", {message("added")}, expect_seq(2)).first_position == 3);
}

TEST_CASE_TEMPLATE("Store: an import of a payload that is too large is refused", Kind_, STORE_KINDS) {
    Kind_ kind;
    StoreOptions options;
    options.max_payload = 10;
    auto store = kind.open(options);
    Message large = message("a", "\"1234567890\"").to("s").with_seq(1);
    CHECK(error_of<Unfit>([&] { store->import_log({large}); }) ==
          "import seq 1 of 's': /payload: 12 bytes, at most 10 are allowed");
}

TEST_CASE_TEMPLATE("Store: a snapshot shows one state, however much is written meanwhile", Kind_, STORE_KINDS) {
    Kind_ kind;
    HandClock clock;
    auto store = kind.open(clock.options());
    store->append("s", several("a", 3));
    store->schedule({due(at(2'000'000'000), "s", message("later"))});
    Recurring every;
    every.name = "daily";
    every.every = std::chrono::hours(24);
    every.message = message("tick").to("clock");
    store->recur(every);
    const auto group = store->register_group({"g", {"a"}, {}}).id;
    CHECK(drain(*store, group, {"a"}).size() == 3);

    std::int64_t head = 0;
    std::size_t read = 0;
    std::vector<std::string> due_types;
    std::vector<Recurring> recurring;
    std::vector<GroupPart> parts;
    std::jthread writing;
    store->snapshot([&](Snapshot& snapshot) {
        head = snapshot.head();
        writing = std::jthread([&] {
            store->append("s", several("a", 2));
            (void)store->cancel_recurring("daily");
        });
        snapshot.read_log({}, [&](Message&) {
            ++read;
            return true;
        });
        snapshot.scheduled([&](const Scheduled& entry) {
            due_types.push_back(entry.message.type);
            return true;
        });
        recurring = snapshot.recurring();
        snapshot.groups([&](const GroupPart& part) {
            parts.push_back(part);
            return true;
        });
    });
    writing.join();
    CHECK(head == 3);
    CHECK(read == 3);
    CHECK(due_types == std::vector<std::string>{"tick", "later"});
    REQUIRE(recurring.size() == 1);
    CHECK(recurring.front().name == "daily");
    REQUIRE(parts.size() == 2);
    CHECK(std::get<GroupRecord>(parts[0]).name == "g");
    CHECK(std::get<GroupRecord>(parts[0]).scanned == 3);
    CHECK(std::get<OffsetRecord>(parts[1]).group == "g");
    CHECK(std::get<OffsetRecord>(parts[1]).offset.acked == 3);
    CHECK(std::get<OffsetRecord>(parts[1]).highest == 3);
    CHECK(store->head() == 5);
    CHECK(store->recurring().empty());
    int visits = 0;
    store->snapshot([&](Snapshot& snapshot) {
        snapshot.groups([&](const GroupPart&) { return ++visits < 1; });
        snapshot.scheduled([&](const Scheduled&) { return ++visits < 2; });
    });
    CHECK(visits == 2);
}

TEST_CASE_TEMPLATE("Store: what recurs goes on in another file where it was", Kind_, STORE_KINDS) {
    HandClock clock;
    Kind_ source_kind;
    auto source = source_kind.open(clock.options());
    Recurring every;
    every.name = "daily";
    every.every = std::chrono::hours(24);
    every.first = at(1'000'000'500);
    every.message = message("tick", R"({"n":1})").to("clock");
    every.message.metadata.set("user", "me");
    source->recur(every);
    const auto waiting = source->scheduled();
    const auto recurring = source->recurring();

    Kind_ kind;
    auto store = kind.open(clock.options());
    CHECK(contains(error_of<Invalid>([&] { store->import_recurring(recurring); }), "is not scheduled"));
    store->schedule(waiting);
    auto otherwise = recurring;
    otherwise.front().next += Duration(1);
    CHECK(contains(error_of<Invalid>([&] { store->import_recurring(otherwise); }), "is due at another time"));
    store->import_recurring(recurring);
    store->import_recurring(recurring);
    REQUIRE(store->recurring().size() == 1);
    CHECK(store->recurring().front().next_id == recurring.front().next_id);
    CHECK(store->recurring().front().next == recurring.front().next);
    CHECK(store->recurring().front().message.metadata == recurring.front().message.metadata);
    CHECK(store->scheduled().size() == 1);
    CHECK(store->promote(at(1'000'000'500)) == 1);
    CHECK(store->log().front().id == waiting.front().message.id);
    REQUIRE(store->scheduled().size() == 1);
    CHECK(store->scheduled().front().due_at == at(1'000'000'500) + std::chrono::hours(24));
    // Under its name something else recurs by now.
    CHECK(contains(error_of<Invalid>([&] { store->import_recurring(recurring); }), "is not scheduled"));
    auto other = store->recurring();
    other.front().every = std::chrono::hours(1);
    CHECK(contains(error_of<Invalid>([&] { store->import_recurring(other); }), "something else recurs"));
    other.front().every = Duration(0);
    CHECK(contains(error_of<Invalid>([&] { store->import_recurring(other); }), "the interval is not positive"));
    other.front().name = " ";
    CHECK(contains(error_of<Invalid>([&] { store->import_recurring(other); }), "the name is blank"));
}

TEST_CASE_TEMPLATE("Store: groups go on in another file where they were", Kind_, STORE_KINDS) {
    HandClock clock;
    Kind_ source_kind;
    auto source = source_kind.open(clock.options());
    for (const char* stream : {"done", "half", "waits", "parked", "claimed"}) source->append(stream, several("E", 2));
    const auto group = source->register_group({"g", {"E", "F"}, {}}).id;
    auto claims = claim(*source, group, 4);
    REQUIRE(claims.size() == 4);
    finish(*source, handled(claims[0], 2));
    finish(*source, handled(claims[1], 3));
    finish(*source, failed(claims[2], 5, at(1'000'000'900)));
    finish(*source, handled(claims[3], 7));
    source->park_stream("g", "parked", "no good");
    (void)source->skip_message("g", "half", "not this one");
    (void)claim(*source, group);
    (void)source->register_group({"idle", {"E"}, Start::at(5)});
    source->stop_group("idle", "for now");
    std::vector<GroupPart> parts;
    const auto parts_of = [](Store& store) {
        std::vector<GroupPart> all;
        store.snapshot([&](Snapshot& snapshot) {
            snapshot.groups([&](const GroupPart& part) {
                all.push_back(part);
                return true;
            });
        });
        return all;
    };
    parts = parts_of(*source);

    Kind_ kind;
    auto store = kind.open(clock.options());
    store->import_log(source->log());
    std::size_t given = 0;
    const auto next = [&]() -> std::optional<GroupPart> {
        if (given == parts.size()) return std::nullopt;
        return parts[given++];
    };

    SUBCASE("all of it, but no claim") {
        store->import_groups(next);
        const auto copied = parts_of(*store);
        REQUIRE(copied.size() == parts.size());
        for (std::size_t i = 0; i < parts.size(); ++i) {
            REQUIRE(copied[i].index() == parts[i].index());
            if (const auto* one = std::get_if<GroupRecord>(&parts[i])) {
                CHECK(*one == std::get<GroupRecord>(copied[i]));
            } else if (const auto* offset = std::get_if<OffsetRecord>(&parts[i])) {
                const auto& other = std::get<OffsetRecord>(copied[i]);
                CAPTURE(offset->offset.stream);
                CHECK(other.offset.stream == offset->offset.stream);
                CHECK(other.offset.acked == offset->offset.acked);
                CHECK(other.offset.known == offset->offset.known);
                CHECK(other.highest == offset->highest);
                CHECK(other.offset.attempts == offset->offset.attempts);
                CHECK(other.offset.position == offset->offset.position);
                CHECK(other.offset.error_type == offset->offset.error_type);
                CHECK(other.offset.error_text == offset->offset.error_text);
                CHECK(other.offset.reason == offset->offset.reason);
                CHECK(other.offset.failed_at == offset->offset.failed_at);
                CHECK(other.offset.retry_at == offset->offset.retry_at);
                const auto claimed = OffsetInfo::State::claimed;
                if (offset->offset.state == claimed) CHECK(other.offset.state == OffsetInfo::State::ready);
                else CHECK(other.offset.state == offset->offset.state);
                CHECK(other.offset.owner == 0);
            } else {
                const auto& skipped = std::get<SkipRecord>(parts[i]).skipped;
                const auto& other = std::get<SkipRecord>(copied[i]).skipped;
                CHECK(other.id == skipped.id);
                CHECK(other.at == skipped.at);
                CHECK(other.reason == skipped.reason);
                CHECK(other.position == skipped.position);
            }
        }
        // A worker goes on with what was open, and with nothing else.
        CHECK(store->stats().group("idle").reason == "for now");
        CHECK_FALSE(store->stats().group("idle").active);
        const auto same = store->register_group({"g", {"E", "F"}, {}}).id;
        clock.set(1'000'000'900);
        Numbers open = drain(*store, same, {"E", "F"});
        std::sort(open.begin(), open.end());
        CHECK(open == Numbers{5, 6, 9, 10});
        store->retry_stream("g", "parked");
        CHECK(drain(*store, same, {"E", "F"}) == Numbers{8});
    }
    SUBCASE("a group that is there already") {
        (void)store->register_group({"idle", {"E"}, {}});
        CHECK(error_of<Invalid>([&] { store->import_groups(next); }) ==
              "import group 'idle': a group of this name is stored already");
        CHECK_THROWS_AS((void)store->offsets("g"), NotRegistered);
    }
    SUBCASE("what cannot be, and then nothing of it stays") {
        std::string text;
        SUBCASE("an offset before its group") {
            parts.erase(parts.begin());
            text = "the group did not come first";
        }
        SUBCASE("an offset in a stream that is not there") {
            std::get<OffsetRecord>(parts[1]).offset.stream = "nowhere";
            text = "import where group 'g' stands in 'nowhere': there is no such stream";
        }
        SUBCASE("an offset twice") {
            parts.insert(parts.begin() + 1, parts[1]);
            text = "that is said twice";
        }
        SUBCASE("an offset behind the log's end") {
            std::get<OffsetRecord>(parts[1]).offset.known = 11;
            text = "known is 11, and the log ends at 10";
        }
        SUBCASE("a group that has searched less far than it begins") {
            std::get<GroupRecord>(parts[0]).begins = 10;
            std::get<GroupRecord>(parts[0]).scanned = 9;
            text = "it is searched less far than it begins";
        }
        SUBCASE("a group without a name") {
            std::get<GroupRecord>(parts[0]).name.clear();
            text = "its name is blank";
        }
        SUBCASE("a skipped message that is none of the stream") {
            for (auto& part : parts) {
                if (auto* skip = std::get_if<SkipRecord>(&part)) skip->skipped.position = 1;
            }
            text = "position 1 is no message of the stream";
        }
        SUBCASE("a source that breaks off") {
            CHECK_THROWS_AS(store->import_groups([&]() -> std::optional<GroupPart> {
                if (given == 2) throw std::runtime_error("the end");
                return parts[given++];
            }),
                            std::runtime_error);
        }
        if (!text.empty()) CHECK(contains(error_of<Invalid>([&] { store->import_groups(next); }), text));
        CHECK(parts_of(*store).empty());
    }
}

}  // namespace store_test
