// The reactor interface: batches in, results out, and what is carried out of them.
#include <doctest/doctest.h>

#include <sourced.hpp>

#include <atomic>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include "support.hpp"

using namespace std::chrono_literals;
using sourced::Acknowledge;
using sourced::Actions;
using sourced::AfterSync;
using sourced::App;
using sourced::AppendAfter;
using sourced::AppendNext;
using sourced::Batch;
using sourced::Message;
using sourced::Messages;
using sourced::Results;
using sourced::Schedule;
using sourced::Sync;
using sourced::testing::Clock;

namespace {

struct First {
    int number = 0;
    SOURCED_EVENT("first", number)
};
struct Second {
    int number = 0;
    SOURCED_EVENT("second", number)
};
struct Other {
    SOURCED_EVENT("other")
};
struct Ask {
    SOURCED_COMMAND("ask")
};
struct Note {
    int count = 0;
    SOURCED_COMMAND("note", count)
};

struct Remind {
    int number = 0;
    SOURCED_COMMAND("remind", number)
};

/// What it makes of a command comes in part at once and in part later.
struct Clerk : sourced::BatchReactor {
    Clerk() : BatchReactor("clerk") { handles<Remind>(); }
    Results handle(const Batch& batch) override {
        Results results;
        for (const auto& message : batch) {
            results.add(*message, {AppendNext{{Other{}}}, Schedule{message->recorded_at + 3s, {Other{}}}});
        }
        return results;
    }
};

/// A reactor to First and Second whose handle is given by the test.
struct Free : sourced::BatchReactor {
    using Handle = std::function<Results(const Batch&)>;
    explicit Free(Handle handle, sourced::ReactorOptions wanted = {}, bool with_history = false)
        : BatchReactor("free"), handle_(std::move(handle)) {
        handles<First, Second>();
        options(wanted);
        if (with_history) wants_history();
    }
    Results handle(const Batch& batch) override { return handle_(batch); }

private:
    Handle handle_;
};

/// Each message with the same actions.
Results all(const Batch& batch, const Actions& actions = {}) {
    Results results;
    for (const auto& message : batch) results.add(*message, actions);
    return results;
}

std::vector<std::int64_t> seqs(const Batch& batch) {
    std::vector<std::int64_t> list;
    for (const auto& message : batch) list.push_back(message->seq);
    return list;
}
std::vector<std::string> types(const Messages& messages) {
    std::vector<std::string> list;
    for (const auto& message : messages) list.push_back(message.type);
    return list;
}

Messages in(const std::string& stream, Messages messages) {
    for (auto& message : messages) message = message.to(stream);
    return messages;
}

using Seqs = std::vector<std::int64_t>;
using Names = std::vector<std::string>;

}  // namespace

TEST_CASE("F4: what lacks the interface of a reactor is refused, when it is compiled") {
    struct Lacking : sourced::BatchReactor {
        Lacking() { handles<First>(); }
    };
    static_assert(std::is_abstract_v<Lacking>);  // without handle() none can be made
    // What is no reactor at all: wrong/add_no_reactor.cpp
}

TEST_CASE("H5: what has results is handled, also without actions") {
    App app;
    std::vector<Seqs> batches;
    app.add<Free>([&](const Batch& batch) {
        batches.push_back(seqs(batch));
        return all(batch);
    });
    app.dispatch(in("s", {First{1}, Other{}, Second{2}}));
    CHECK(app.run_until_idle() == 2);
    CHECK(batches == std::vector<Seqs>{{1, 3}});
    CHECK(app.run_until_idle() == 0);
    CHECK(app.stats().group("free").newest == 3);
}

TEST_CASE("I1: what is appended next follows from the handled message, in its stream") {
    App app;
    app.add<Free>([](const Batch& batch) { return all(batch, {AppendNext{{Other{}}}}); });
    const auto cause = app.dispatch("s", Message(First{1}).with_metadata(sourced::Metadata().set("tid", 7)));
    app.run_until_idle();
    const auto log = app.history("s");
    REQUIRE(types(log) == Names{"first", "other"});
    CHECK(log[1].seq == 2);
    CHECK(log[1].causation == cause.id);
    CHECK(log[1].correlation == cause.correlation);
    CHECK(log[1].metadata.get("tid") == "7");
    CHECK(app.stats().group("free").newest == 1);
}

TEST_CASE("I2: what is appended next goes to the streams it names, one message each") {
    App app;
    app.add<Free>([](const Batch& batch) {
        return all(batch, {AppendNext{{Message(Other{}).to("a"), Message(Ask{}).to("b")}}});
    });
    app.dispatch("s", First{});
    app.run_until_idle();
    CHECK(types(app.history("a")) == Names{"other"});
    CHECK(types(app.history("b")) == Names{"ask"});
    CHECK(app.history("s").size() == 1);
}

TEST_CASE("I3: what is appended after a seq follows from its message, if the stream is there") {
    App app;
    app.add<Free>([](const Batch& batch) { return all(batch, {AppendAfter{1, {Other{}}}}); });
    const auto cause = app.dispatch("s", First{});
    app.run_until_idle();
    const auto log = app.history("s");
    REQUIRE(types(log) == Names{"first", "other"});
    CHECK(log[1].causation == cause.id);
    CHECK(log[1].correlation == cause.correlation);
}

TEST_CASE("I3: when the stream is elsewhere, the conflict is that message's fault and nothing of it is stored") {
    App app({.errors = sourced::Retries{.times = 0}});
    app.add<Free>([](const Batch& batch) {
        Results results;
        for (const auto& message : batch) {
            if (message->is<First>()) results.add(*message, {AppendNext{{Message(Other{}).to("before")}}});
            else results.add(*message, {AppendNext{in("x", {Other{}})}, AppendAfter{7, {Other{}}, "elsewhere"}});
        }
        return results;
    });
    const auto sent = app.dispatch(in("s", {First{1}, First{2}, Second{3}, First{4}}));
    app.run_until_idle();
    CHECK(app.history("before").size() == 2);
    CHECK(app.history("x").empty());
    CHECK(app.history("elsewhere").empty());
    const auto group = app.stats().group("free");
    CHECK(group.newest == sent[1].position);
    CHECK(group.error_position == sent[2].position);
    CHECK(group.error_type == "sourced::Conflict");
    CHECK(group.error_text == "append to 'elsewhere': expected seq 7, found 0");
}

TEST_CASE("I4: what is scheduled follows from its message, comes at its time, and the message is not handled again") {
    Clock clock;
    App app({.clock = clock});
    std::vector<Seqs> batches;
    app.add<Free>([&](const Batch& batch) {
        batches.push_back(seqs(batch));
        Results results;
        for (const auto& message : batch) {
            if (message->is<First>()) results.add(*message, {Schedule{clock.now() + 10s, {Second{}}}});
            else results.add(*message);
        }
        return results;
    });
    const auto cause = app.dispatch("s", First{});
    app.run_until_idle();
    CHECK(types(app.history("s")) == Names{"first"});
    clock.advance(11s);
    app.run_until_idle();
    const auto log = app.history("s");
    REQUIRE(types(log) == Names{"first", "second"});
    CHECK(log[1].causation == cause.id);
    CHECK(log[1].correlation == cause.correlation);
    CHECK(batches == std::vector<Seqs>{{1}, {2}});
}

TEST_CASE("I5: one message may have several actions, and a time that has passed means at once") {
    Clock clock;
    App app({.clock = clock});
    app.add<Free>([&](const Batch& batch) {
        return all(batch, {AppendNext{{Other{}}}, Schedule{clock.now() + 1s, {Ask{}}},
                           Schedule{clock.now() - 1s, {Message(Ask{}).to("past")}}});
    });
    app.dispatch("s", First{});
    app.run_until_idle();
    CHECK(types(app.history("s")) == Names{"first", "other"});
    CHECK(types(app.history("past")) == Names{"ask"});
    CHECK(app.store().scheduled().size() == 1);
}

TEST_CASE("I6: a sync runs once, in the transaction, in the order of the messages and after what they append") {
    App app;
    app.store().transaction([](sourced::Transaction& db) { db.execute("create table notes (text text)"); });
    std::vector<int> order;
    app.add<Free>([&](const Batch& batch) {
        Results results;
        for (const auto& message : batch) {
            const int number = static_cast<int>(message->seq);
            results.add(*message, {Sync{[&order, number](sourced::Transaction& db) {
                            order.push_back(number);
                            const auto seq = db.row("select max(seq) from sourced_streams")->integer(0);
                            db.execute("insert into notes values (?)", seq);
                        }}});
            results.add(*message, {AppendNext{{Other{}}}});
        }
        return results;
    });
    app.dispatch(in("s", {First{1}, First{2}}));
    app.run_until_idle();
    CHECK(order == std::vector{1, 2});
    app.store().read([](sourced::Reader& db) {
        CHECK(db.row("select count(*), min(text), max(text) from notes")->integer(0) == 2);
        CHECK(db.row("select min(text) from notes")->text(0) == "4");
    });
    CHECK(app.stats().group("free").newest == 2);
}

TEST_CASE("I7: what is appended within a batch is there, and the whole batch is handled") {
    App app;
    app.add<Free>([](const Batch& batch) {
        Results results;
        results.add(*batch[0], {AppendNext{{Other{}}}});
        results.add(*batch[1]);
        return results;
    });
    app.dispatch(in("s", {First{1}, First{2}}));
    CHECK(app.run_until_idle() == 2);
    CHECK(types(app.history("s")) == Names{"first", "first", "other"});
    CHECK(app.stats().group("free").newest == 2);
}

TEST_CASE("I8: actions with equal messages are equal") {
    const Message message = First{1};
    CHECK(AppendNext{{message}} == AppendNext{{message}});
    CHECK_FALSE(AppendNext{{message}} == AppendNext{{message, message}});
    CHECK_FALSE(AppendNext{{message}} == AppendNext{{message.to("s")}});
    CHECK(AppendAfter{1, {message}, "s"} == AppendAfter{1, {message}, "s"});
    CHECK_FALSE(AppendAfter{1, {message}, "s"} == AppendAfter{2, {message}, "s"});
    CHECK(Acknowledge{message.id} == Acknowledge{message.id});
}

TEST_CASE("I9: when something in the transaction fails, nothing is stored, it is tried again, the worker lives on") {
    App app({.errors = sourced::Retries{.times = 1, .after = 1us}});
    struct Calm : sourced::Handler {
        Calm() : Handler("calm") {
            on([](const First&) {});
        }
    };
    std::atomic<int> tries = 0;
    app.add<Free>([&](const Batch& batch) {
        return all(batch, {AppendNext{{Message(Other{}).to("other")}}, Schedule{sourced::Time::max(), {Ask{}}},
                           Sync{[&](sourced::Transaction&) {
                               ++tries;
                               throw std::domain_error("not today");
                           }}});
    });
    app.add<Calm>();
    app.start(1);
    app.dispatch("s", First{});
    REQUIRE(app.wait_until_idle(1min));
    CHECK(tries == 2);
    CHECK(app.history("other").empty());
    CHECK(app.store().scheduled().empty());
    const auto group = app.stats().group("free");
    CHECK_FALSE(group.active);
    CHECK(group.newest == 0);
    CHECK(group.error_type == "std::domain_error");
    app.dispatch("t", First{});
    REQUIRE(app.wait_until_idle(1min));
    CHECK(app.stats().group("calm").streams == 2);
}

TEST_CASE("AfterSync: runs after the commit, once, and its exceptions are logged only") {
    std::vector<std::string> log;
    App app({.log = [&](const sourced::LogRecord& record) {
        if (record.level == sourced::Level::warning) log.push_back(record.text);
    }});
    std::vector<std::size_t> stored;
    app.add<Free>([&](const Batch& batch) {
        return all(batch, {AppendNext{{Message(Other{}).to("other")}},
                           AfterSync{[&] { stored.push_back(app.history("other").size()); }},
                           AfterSync{[] { throw std::runtime_error("too late"); }}});
    });
    app.dispatch(in("s", {First{1}, First{2}}));
    app.run_until_idle();
    CHECK(stored == std::vector<std::size_t>{2, 2});
    CHECK(log == Names(2, "what was to be done after a commit failed"));
    CHECK(app.run_until_idle() == 0);
    SUBCASE("not at all when the commit failed") {
        App other({.errors = sourced::Retries{.times = 0}});
        bool ran = false;
        other.add<Free>([&](const Batch& batch) {
            return all(batch, {AfterSync{[&] { ran = true; }}, AppendAfter{5, {Other{}}}});
        });
        other.dispatch("s", First{});
        other.run_until_idle();
        CHECK_FALSE(ran);
    }
    SUBCASE("nor when the claim was taken away") {
        App other;
        int runs = 0;
        int after = 0;
        other.add<Free>([&](const Batch& batch) {
            if (runs++ == 0) {
                other.park_stream("free", "s");
                other.retry_stream("free", "s");
            }
            return all(batch, {AfterSync{[&] { ++after; }}});
        });
        other.dispatch("s", First{});
        other.run_until_idle();
        CHECK(runs == 2);
        CHECK(after == 1);
    }
}

TEST_CASE("AfterSync: what it holds is let go once it has run") {
    App app;
    auto held = std::make_shared<int>(1);
    const std::weak_ptr<int> seen = held;
    app.add<Free>([&](const Batch& batch) {
        return Results().add(*batch[0], {AfterSync{[kept = std::move(held)] {}}});
    });
    app.dispatch("s", First{1});
    app.run_until_idle();
    CHECK(seen.expired());
}

TEST_CASE("H12: a batch that is to be retried comes again as it was, a little later") {
    Clock clock;
    App app({.clock = clock});
    std::vector<Seqs> batches;
    app.add<Free>([&](const Batch& batch) {
        batches.push_back(seqs(batch));
        return batches.size() < 3 ? Results::retry() : all(batch);
    });
    app.dispatch(in("s", {First{1}, First{2}, First{3}}));
    CHECK(app.run_until_idle() == 0);
    CHECK(batches == std::vector<Seqs>{{1, 2, 3}});
    CHECK(app.stats().group("free").retrying == 1);
    clock.advance(100ms);
    app.run_until_idle();
    clock.advance(100ms);
    CHECK(app.run_until_idle() == 3);
    CHECK(batches == std::vector<Seqs>{{1, 2, 3}, {1, 2, 3}, {1, 2, 3}});
    const auto group = app.stats().group("free");
    CHECK(group.newest == 3);
    CHECK(group.retrying == 0);
    CHECK(group.retry_error.empty());
}

TEST_CASE("H12: a retry at a time counts no attempt and waits until then") {
    Clock clock;
    App app({.errors = sourced::Retries{.times = 0}, .clock = clock});
    int calls = 0;
    const auto noon = clock.now() + 1h;
    app.add<Free>([&](const Batch& batch) {
        ++calls;
        return clock.now() < noon ? Results::retry(noon) : all(batch);
    });
    app.dispatch("s", First{});
    app.run_until_idle();
    clock.advance(59min);
    CHECK(app.run_until_idle() == 0);
    CHECK(calls == 1);
    CHECK(app.stats().group("free").next_retry == noon);
    clock.advance(1min);
    CHECK(app.run_until_idle() == 1);
    CHECK(calls == 2);
}

TEST_CASE("H12: with a retry at a time what was added is kept, and the rest comes again then") {
    Clock clock;
    App app({.clock = clock});
    std::vector<Seqs> batches;
    const auto noon = clock.now() + 1h;
    std::size_t kept = 2;
    app.add<Free>([&](const Batch& batch) {
        batches.push_back(seqs(batch));
        auto results = clock.now() < noon ? Results::retry(noon) : Results();
        for (std::size_t i = 0; i < std::min(kept, batch.size()); ++i) {
            results.add(*batch[i], {AppendNext{{Message(Other{}).to("made")}}});
        }
        kept = 100;
        return results;
    });
    app.dispatch(in("s", {First{1}, First{2}, First{3}}));
    SUBCASE("a part of the batch") {
        CHECK(app.run_until_idle() == 2);
        CHECK(app.history("made").size() == 2);
        CHECK(app.stats().group("free").next_retry == noon);
        CHECK(app.stats().group("free").newest == 2);
        app.dispatch("s", First{4});
        clock.advance(59min);
        CHECK(app.run_until_idle() == 0);
        clock.advance(1min);
        CHECK(app.run_until_idle() == 2);
        CHECK(batches == std::vector<Seqs>{{1, 2, 3}, {3, 4}});
        CHECK(app.history("made").size() == 4);
    }
    SUBCASE("the whole batch: nothing is left to come again, and what follows is not kept waiting") {
        kept = 3;
        CHECK(app.run_until_idle() == 3);
        CHECK(app.stats().group("free").retrying == 0);
        app.dispatch("s", First{4});
        CHECK(app.run_until_idle() == 1);
        CHECK(batches == std::vector<Seqs>{{1, 2, 3}, {4}});
    }
    CHECK(app.stats().group("free").retrying == 0);
    CHECK(app.stats().group("free").lag == 0);
}

TEST_CASE("H12: where a message failed the error strategy says when the rest comes again, not the retry") {
    Clock clock;
    const auto noon = clock.now() + 1h;
    App app({.errors = [&](const sourced::Fault& fault) { return sourced::Resolution::retry(fault.at + 1min); },
             .clock = clock});
    int calls = 0;
    app.add<Free>([&](const Batch& batch) {
        if (++calls > 1) return all(batch);
        auto results = Results::retry(noon);
        results.add(*batch[0]).fail(*batch[1], std::make_exception_ptr(std::runtime_error("half done")));
        return results;
    });
    app.dispatch(in("s", {First{1}, First{2}}));
    CHECK(app.run_until_idle() == 1);
    CHECK(app.stats().group("free").next_retry == clock.now() + 1min);
    clock.advance(1min);
    CHECK(app.run_until_idle() == 1);
}

TEST_CASE("H13: a batch without results is released and comes again") {
    Clock clock;
    App app({.clock = clock});
    std::vector<Seqs> batches;
    app.add<Free>([&](const Batch& batch) {
        batches.push_back(seqs(batch));
        return batches.size() == 1 ? Results() : all(batch);
    });
    app.dispatch("s", First{});
    CHECK(app.run_until_idle() == 0);
    CHECK(app.stats().group("free").newest == 0);
    clock.advance(1s);
    CHECK(app.run_until_idle() == 1);
    CHECK(batches == std::vector<Seqs>{{1}, {1}});
}

TEST_CASE("H13: messages at the end without a result come again at once") {
    App app;
    std::vector<Seqs> batches;
    app.add<Free>([&](const Batch& batch) {
        batches.push_back(seqs(batch));
        Results results;
        results.add(*batch[0]);
        return results;
    });
    app.dispatch(in("s", {First{1}, First{2}, First{3}}));
    CHECK(app.run_until_idle() == 3);
    CHECK(batches == std::vector<Seqs>{{1, 2, 3}, {2, 3}, {3}});
}

TEST_CASE("H14: the history is the stream up to the batch's last message, and no other stream's") {
    App app;
    std::vector<Names> histories;
    app.add<Free>(
        [&](const Batch& batch) {
            CHECK(batch.stream() == batch[0]->stream);
            histories.push_back(types(batch.history()));
            return all(batch);
        },
        sourced::ReactorOptions{}, true);
    app.dispatch(Messages{Message(Ask{}).to("s"), Message(First{1}).to("s"), Message(Other{}).to("t"),
                          Message(Second{2}).to("s"), Message(Other{}).to("s")});
    app.run_until_idle();
    CHECK(histories == std::vector<Names>{{"ask", "first", "second"}});
}

TEST_CASE("H14: who did not ask for the history has none") {
    App app({.errors = sourced::Retries{.times = 0}});
    app.add<Free>([&](const Batch& batch) {
        (void)batch.history();
        return all(batch);
    });
    app.dispatch("s", First{});
    app.run_until_idle();
    CHECK(app.stats().group("free").error_text == "the history of 's' was not asked for: wants_history()");
}

TEST_CASE("H16: acknowledging a later message jumps ahead to it") {
    App app;
    std::vector<Seqs> batches;
    std::optional<sourced::Id> later;
    app.add<Free>(
        [&](const Batch& batch) {
            batches.push_back(seqs(batch));
            return all(batch, {Acknowledge{*later}});
        },
        sourced::ReactorOptions{.batch_size = 1});
    const auto sent = app.dispatch(in("s", {First{1}, Second{2}}));
    later = sent[1].id;
    app.run_until_idle();
    CHECK(batches == std::vector<Seqs>{{1}});
    CHECK(app.stats().group("free").newest == 2);
    CHECK(app.stats().group("free").lag == 0);
    app.dispatch("s", First{3});
    app.run_until_idle();
    CHECK(batches == std::vector<Seqs>{{1}, {3}});
}

TEST_CASE("H16: within a batch the messages that were jumped over need no result") {
    App app;
    app.add<Free>([](const Batch& batch) {
        Results results;
        results.add(*batch[0], {Acknowledge{batch[1]->id}});
        results.add(*batch[2], {AppendNext{{Other{}}}});
        return results;
    });
    app.dispatch(in("s", {First{1}, First{2}, First{3}}));
    app.run_until_idle();
    CHECK(app.stats().group("free").newest == 3);
    CHECK(types(app.history("s")).back() == "other");
}

TEST_CASE("H16: a message of another stream cannot be acknowledged, one that lies behind changes nothing") {
    App app({.errors = sourced::Retries{.times = 0}});
    std::optional<sourced::Id> id;
    app.add<Free>([&](const Batch& batch) { return all(batch, {Acknowledge{*id}}); });
    SUBCASE("another stream") {
        id = app.dispatch("t", Other{}).id;
        app.dispatch("s", First{});
        app.run_until_idle();
        CHECK(app.stats().group("free").error_text == "acknowledge " + id->to_string() + ": it is not in 's'");
    }
    SUBCASE("behind") {
        id = app.dispatch("s", Other{}).id;
        app.dispatch("s", First{});
        app.run_until_idle();
        CHECK(app.stats().group("free").newest == 2);
    }
}

TEST_CASE("F8: a reactor's own batch size wins over the App's") {
    App app({.batch_size = 1});
    std::vector<Seqs> batches;
    app.add<Free>(
        [&](const Batch& batch) {
            batches.push_back(seqs(batch));
            return all(batch);
        },
        sourced::ReactorOptions{.batch_size = 10});
    app.dispatch(in("s", {First{1}, First{2}, First{3}}));
    app.run_until_idle();
    CHECK(batches == std::vector<Seqs>{{1, 2, 3}});
}

TEST_CASE("K5: when the third of three fails the first two are handled, and it alone comes again") {
    Clock clock;
    App app({.clock = clock});
    std::vector<Seqs> batches;
    app.add<Free>([&](const Batch& batch) {
        batches.push_back(seqs(batch));
        Results results;
        for (const auto& message : batch) {
            if (batches.size() == 1 && message->is<Second>()) {
                results.fail(*message, std::make_exception_ptr(std::domain_error("no second")));
                break;
            }
            results.add(*message, {AppendNext{{Message(Other{}).to("other")}}});
        }
        return results;
    });
    app.dispatch(in("s", {First{1}, First{2}, Second{3}}));
    app.run_until_idle();
    CHECK(app.stats().group("free").newest == 2);
    CHECK(app.stats().group("free").retry_error == "no second");
    CHECK(app.history("other").size() == 2);
    clock.advance(1min);
    app.run_until_idle();
    CHECK(batches == std::vector<Seqs>{{1, 2, 3}, {3}});
    CHECK(app.history("other").size() == 3);
}

TEST_CASE("K5: a simple handler that fails at the third of three keeps the first two") {
    struct Odd : sourced::Handler {
        explicit Odd(std::vector<int>& seen, const bool& broken) : Handler("odd") {
            on([&](const First& first) {
                if (broken && first.number == 3) throw std::domain_error("no three");
                seen.push_back(first.number);
                return Message(Other{}).to("other");
            });
        }
    };
    Clock clock;
    App app({.clock = clock});
    std::vector<int> seen;
    bool broken = true;
    app.add<Odd>(seen, broken);
    app.dispatch(in("s", {First{1}, First{2}, First{3}}));
    app.run_until_idle();
    CHECK(app.history("other").size() == 2);
    broken = false;
    clock.advance(1min);
    app.run_until_idle();
    CHECK(seen == std::vector{1, 2, 3});
    CHECK(app.history("other").size() == 3);
}

TEST_CASE("K6: when the first of three fails nothing is handled and all come again") {
    Clock clock;
    App app({.clock = clock});
    std::vector<Seqs> batches;
    app.add<Free>([&](const Batch& batch) {
        batches.push_back(seqs(batch));
        if (batches.size() > 1) return all(batch, {AppendNext{{Message(Other{}).to("other")}}});
        Results results;
        results.fail(*batch[0], std::make_exception_ptr(std::domain_error("no first")));
        results.add(*batch[1], {AppendNext{{Message(Other{}).to("other")}}});
        return results;
    });
    app.dispatch(in("s", {First{1}, First{2}, First{3}}));
    app.run_until_idle();
    CHECK(app.stats().group("free").newest == 0);
    CHECK(app.history("other").empty());
    clock.advance(1min);
    app.run_until_idle();
    // What failed is tried alone.
    CHECK(batches == std::vector<Seqs>{{1, 2, 3}, {1}, {2, 3}});
    CHECK(app.history("other").size() == 3);
}

TEST_CASE("K11: the strategy is told the original exception, also in the midst of a batch") {
    struct Odd : std::domain_error {
        using std::domain_error::domain_error;
    };
    App app({.errors = sourced::Retries{.times = 0}});
    const auto sent =
        app.dispatch(in("s", {First{1}, First{2}, First{3}, First{4}, First{5}}));
    std::vector<Seqs> batches;
    SUBCASE("K11: by result") {
        app.add<Free>([&](const Batch& batch) {
            Results results;
            for (const auto& message : batch) {
                if (message->seq == 4) results.fail(*message, std::make_exception_ptr(Odd("four")));
                else results.add(*message);
            }
            return results;
        });
    }
    SUBCASE("K11: thrown for the whole batch, which is halved until the culprit is found") {
        app.add<Free>([&](const Batch& batch) {
            batches.push_back(seqs(batch));
            for (const auto& message : batch) {
                if (message->seq == 4) throw Odd("four");
            }
            return all(batch);
        });
    }
    app.run_until_idle();
    const auto group = app.stats().group("free");
    CHECK(group.newest == sent[2].position);
    CHECK(group.error_position == sent[3].position);
    CHECK(group.error_type.find("Odd") != std::string::npos);
    CHECK(group.error_text == "four");
    if (!batches.empty()) CHECK(batches == std::vector<Seqs>{{1, 2, 3, 4, 5}, {1, 2}, {3, 4, 5}, {3}, {4, 5}, {4}});
}

TEST_CASE("Results: a gap, and a message that is not in the batch, are faults that say so") {
    App app({.errors = sourced::Retries{.times = 0}});
    SUBCASE("a gap") {
        app.add<Free>([](const Batch& batch) {
            Results results;
            results.add(*batch[0]);
            results.add(*batch[2]);
            return results;
        });
        app.dispatch(in("s", {First{1}, First{2}, First{3}}));
        app.run_until_idle();
        CHECK(app.stats().group("free").error_text == "results for seq 3 of 's', but none for seq 2 before it");
        CHECK(app.stats().group("free").newest == 1);
    }
    SUBCASE("a stranger") {
        const Message stranger = First{7};
        app.add<Free>([&](const Batch& batch) {
            Results results;
            results.add(*batch[0]);
            results.add(stranger);
            return results;
        });
        app.dispatch("s", First{1});
        app.run_until_idle();
        CHECK(app.stats().group("free").error_text ==
              "results for a message that is not in the batch: " + stranger.id.to_string());
    }
}

TEST_CASE("Results: a dispatch is sent as if a reaction had returned it") {
    App app;
    app.add<Free>([](const Batch& batch) {
        Results results;
        for (const auto& message : batch) results.send(*message, sourced::dispatch(Ask{}).to_new("ask"));
        return results;
    });
    app.dispatch("s", First{1});
    app.run_until_idle();
    const auto sent = app.store().log({.types = {"ask"}});
    REQUIRE(sent.size() == 1);
    CHECK(sent[0].stream.starts_with("ask-"));
    CHECK(sent[0].metadata.get("producer") == "free");
}

TEST_CASE("BatchReactor: in a replay it is told so, syncs run and nothing is sent") {
    App app;
    std::vector<bool> replays;
    int synced = 0;
    int after = 0;
    app.add<Free>([&](const Batch& batch) {
        replays.push_back(batch.replay());
        auto results = all(batch, {AppendNext{{Message(Other{}).to("other")}}, AppendAfter{9, {Other{}}, "other"},
                                   Schedule{sourced::Time::max(), {Ask{}}}, AfterSync{[&] { ++after; }},
                                   Sync{[&](sourced::Transaction&) { ++synced; }}});
        if (!batch.replay()) results = all(batch, {AppendNext{{Message(Other{}).to("other")}}});
        else results.send(*batch[0], sourced::dispatch(Ask{}));
        return results;
    });
    app.dispatch("s", First{1});
    app.run_until_idle();
    app.reset_group("free");
    app.run_until_idle();
    CHECK(replays == std::vector{false, true});
    CHECK(synced == 1);
    CHECK(after == 0);
    CHECK(app.history("other").size() == 1);
    CHECK(app.store().scheduled().empty());
    CHECK(app.history("s").size() == 1);
}

TEST_CASE("BatchReactor: its group is called like its class unless it has a name") {
    struct Plain : sourced::BatchReactor {
        Plain() { handles<First>(); }
        Results handle(const Batch& batch) override { return all(batch); }
    };
    App app;
    CHECK(app.add<Plain>().name().ends_with("Plain"));
}

TEST_CASE("F8: workers hand streams to a reactor at once, each in its order") {
    App app({.batch_size = 3});
    std::mutex mutex;
    std::map<std::string, Seqs> seen;
    app.add<Free>([&](const Batch& batch) {
        const std::lock_guard lock(mutex);
        for (const auto& message : batch) seen[message->stream].push_back(message->seq);
        return all(batch);
    });
    app.start(3);
    for (int i = 0; i < 20; ++i) {
        for (int stream = 0; stream < 10; ++stream) app.dispatch("s" + std::to_string(stream), First{i});
    }
    REQUIRE(app.wait_until_idle(1min));
    app.stop();
    REQUIRE(seen.size() == 10);
    for (const auto& [stream, list] : seen) {
        Seqs expected(20);
        std::iota(expected.begin(), expected.end(), 1);
        CHECK(list == expected);
    }
}

// ---- by hand -------------------------------------------------------------------------------

TEST_CASE("H17: a message that is acknowledged by hand is handled, and what was done with it is stored") {
    App app;
    std::vector<Seqs> batches;
    app.add<Free>([&](const Batch& batch) {
        batches.push_back(seqs(batch));
        return all(batch);
    });
    const auto sent = app.dispatch(in("s", {First{1}, First{2}}));
    CHECK(app.acknowledge("free", sent[0], [&](sourced::Transaction& db) { db.append("other", {Other{}}); }));
    CHECK(app.history("other").size() == 1);
    CHECK(app.stats().group("free").newest == 1);
    app.run_until_idle();
    CHECK(batches == std::vector<Seqs>{{2}});
    CHECK(app.stats().group("free").oldest == 2);
    SUBCASE("and not once more") {
        bool ran = false;
        CHECK_FALSE(app.acknowledge("free", sent[0], [&](sourced::Transaction&) { ran = true; }));
        CHECK_FALSE(app.acknowledge("free", sent[1]));
        CHECK_FALSE(ran);
    }
    SUBCASE("and after a reset it is left to the replay") {
        bool ran = false;
        batches.clear();
        app.reset_group("free");
        CHECK_FALSE(app.acknowledge("free", sent[0], [&](sourced::Transaction&) { ran = true; }));
        CHECK_FALSE(ran);
        app.run_until_idle();
        CHECK(batches == std::vector<Seqs>{{1, 2}});
    }
}

TEST_CASE("H17: a stream that is parked goes on behind the message that is acknowledged, which has to be the first") {
    App app({.errors = sourced::Retries{.times = 0, .then = sourced::Resolution::park("no good")}});
    app.add<Free>([](const Batch& batch) -> Results {
        if (batch[0]->seq == 1) throw std::domain_error("no first");
        return all(batch);
    });
    const auto sent = app.dispatch(in("s", {First{1}, First{2}}));
    app.run_until_idle();
    CHECK_THROWS_WITH_AS(app.acknowledge("free", sent[1]), "'s' is parked for group 'free': no good", sourced::Error);
    CHECK(app.acknowledge("free", sent[0]));
    CHECK(app.run_until_idle() == 1);
    CHECK(app.stats().group("free").parked == 0);
}

TEST_CASE("H17: an exception in between leaves everything as it was") {
    App app;
    app.add<Free>([&](const Batch& batch) { return all(batch); });
    const auto message = app.dispatch("s", First{1});
    CHECK_THROWS_AS(app.acknowledge("free", message,
                                    [&](sourced::Transaction& db) {
                                        db.append("other", {Other{}});
                                        throw std::domain_error("no");
                                    }),
                    std::domain_error);
    CHECK(app.history("other").empty());
    CHECK(app.stats().group("free").newest == 0);
    CHECK_THROWS_WITH_AS(app.acknowledge("nobody", message), "no reactor 'nobody' was added to this App",
                         sourced::NotRegistered);
    CHECK(app.stats().groups.size() == 1);
    CHECK(app.run_until_idle() == 1);
}

TEST_CASE("H17: what stands open before the message is handled first, by its reactor") {
    App app;
    std::vector<Seqs> batches;
    app.add<Free>([&](const Batch& batch) {
        batches.push_back(seqs(batch));
        return all(batch);
    });
    const auto sent = app.dispatch(in("s", {First{1}, First{2}, Second{3}, First{4}}));
    std::vector<Seqs> before;
    CHECK(app.acknowledge("free", sent[2], [&](sourced::Transaction&) { before = batches; }));
    CHECK(before == std::vector<Seqs>{{1, 2}});
    app.run_until_idle();
    CHECK(batches == std::vector<Seqs>{{1, 2}, {4}});
}

TEST_CASE("H17: an actor's messages can be acknowledged too, after those before them") {
    struct Counter : sourced::Actor<int> {
        Counter() : Actor("counter") {
            command([](int, const Ask&) { return First{1}; });
            event([](int& count, const First& first) { count += first.number; });
            reaction([](int count, const First&) { return sourced::dispatch(Note{count}).to("notes"); });
        }
    };
    App app;
    app.add<Counter>();
    const auto sent = app.dispatch(in("s", {Ask{}, Ask{}, Ask{}}));
    CHECK(app.acknowledge("counter", sent[1]));
    CHECK(types(app.history("s")) == Names{"ask", "ask", "ask", "first"});
    app.run_until_idle();
    CHECK(types(app.history("s")) == Names{"ask", "ask", "ask", "first", "first"});
    const auto notes = app.history("notes");
    REQUIRE(notes.size() == 2);
    CHECK(notes[0].as<Note>().count == 1);
    CHECK(notes[1].as<Note>().count == 2);
}

TEST_CASE("H17: a message that fails before it keeps it from being acknowledged") {
    App app;
    app.add<Free>([](const Batch& batch) -> Results {
        for (const auto& message : batch) {
            if (message->seq == 1) throw std::domain_error("no first");
        }
        return all(batch);
    });
    const auto sent = app.dispatch(in("s", {First{1}, First{2}}));
    CHECK_THROWS_WITH_AS(app.acknowledge("free", sent[1]), "'s': a message before this one failed: no first",
                         sourced::Error);
    CHECK(app.stats().group("free").newest == 0);
}

TEST_CASE("H17: what is not in the log, or no matter of the reactor, cannot be acknowledged") {
    App app;
    app.add<Free>([](const Batch& batch) { return all(batch); });
    const Message unknown = First{1};
    CHECK_THROWS_WITH_AS(app.acknowledge("free", unknown),
                         ("acknowledge " + unknown.id.to_string() + ": it is not in the log").c_str(), sourced::Error);
    CHECK_THROWS_WITH_AS(app.acknowledge("free", app.dispatch("s", Other{})), "'free' does not handle 'other'",
                         sourced::NotRegistered);
}

TEST_CASE("H18: of two who acknowledge the same message at once one does it, the other learns so") {
    App app;
    app.add<Free>([](const Batch& batch) { return all(batch); });
    for (int round = 0; round < 20; ++round) {
        const auto message = app.dispatch("s", First{round});
        std::atomic<int> done = 0;
        std::atomic<int> ran = 0;
        const auto acknowledge = [&] {
            if (app.acknowledge("free", message, [&](sourced::Transaction&) { ++ran; })) ++done;
        };
        std::thread other(acknowledge);
        acknowledge();
        other.join();
        CHECK(done == 1);
        CHECK(ran == 1);
    }
}

TEST_CASE("H18: a worker that has the stream is waited for, and then it was handled already") {
    App app;
    std::promise<void> entered;
    std::promise<void> leave;
    app.add<Free>([&](const Batch& batch) {
        entered.set_value();
        leave.get_future().wait();
        return all(batch);
    });
    const auto message = app.dispatch("s", First{1});
    app.start(1);
    entered.get_future().wait();
    auto waiting = std::async(std::launch::async, [&] { return app.acknowledge("free", message); });
    leave.set_value();
    CHECK_FALSE(waiting.get());
}

TEST_CASE("Reactors: a file in which they did all they can has nothing broken in it") {
    struct Steps : sourced::Handler {
        Steps() : Handler("steps") {
            on([](const Ask&) { return Messages{First{1}, Message(Other{}).to("o")}; });
            on([](const Note&) {
                return std::vector{sourced::dispatch(Ask{}), sourced::dispatch(Ask{}).to_new("n").in(1s)};
            });
        }
    };
    const support::TemporaryDirectory directory;
    Clock clock;
    {
        App app({.path = directory.file(), .batch_size = 3, .clock = clock});
        app.add<Free>([&](const Batch& batch) {
            Results results;
            for (std::size_t i = 0; i < batch.size(); ++i) {
                results.add(*batch[i], {AppendNext{{Other{}, Message(Other{}).to("o")}}});
                if (i == 0 && batch.size() > 1) results.add(*batch[0], {Acknowledge{batch[1]->id}});
            }
            return results;
        });
        app.add<Steps>();
        app.add<Clerk>();
        for (int i = 0; i < 5; ++i) {
            for (const auto* stream : {"a", "b"}) {
                app.dispatch(in(stream, {First{i}, Ask{}, Second{i}, Note{i}, Ask{}, Remind{i}}));
            }
            (void)app.acknowledge("free", app.dispatch("a", First{i}));
            app.run_until_idle();
            clock.advance(5s);
            app.run_until_idle();
        }
        CHECK(app.stats().scheduled == 0);
        CHECK(app.store().log({.types = {"first"}}).size() > 30);
    }
    for (const auto& each : sourced::verify(directory.file())) FAIL_CHECK(each.invariant, ": ", each.text);
}
