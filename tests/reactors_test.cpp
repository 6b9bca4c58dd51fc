// The reactor interface: batches in, results out, and what is carried out of them.
#include <doctest/doctest.h>

#include <sourced.hpp>

#include <functional>
#include <string>
#include <vector>

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

using Seqs = std::vector<std::int64_t>;
using Names = std::vector<std::string>;

}  // namespace

TEST_CASE("H5: what has results is handled, also without actions") {
    App app;
    std::vector<Seqs> batches;
    app.add<Free>([&](const Batch& batch) {
        batches.push_back(seqs(batch));
        return all(batch);
    });
    app.dispatch(Messages{Message(First{1}).to("s"), Message(Other{}).to("s"), Message(Second{2}).to("s")});
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
