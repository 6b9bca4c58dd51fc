// A read model that counted wrong is built anew while the old one is still read, and mails are not sent twice.
#include <sourced.hpp>

#include <filesystem>
#include <iostream>
#include <optional>
#include <string>

struct OrderPaid {
    std::string country;
    int amount = 0;

    SOURCED_EVENT("order.paid", country, amount)
};
struct Congratulate {
    int revenue = 0;

    SOURCED_COMMAND("mail.congratulate", revenue)
};

struct Country {
    int revenue = 0;

    SOURCED_VALUE(revenue)
};

// One row for each country. `percent` is what the shop thinks it keeps.
struct Revenue : sourced::Projection<Country> {
    explicit Revenue(int percent) : Projection("revenue") {
        key([](const OrderPaid& paid) { return paid.country; });
        event([percent](Country& country, const OrderPaid& paid) { country.revenue += paid.amount * percent / 100; });
    }
};

// A reaction with an effect: it does not happen again in a replay.
struct Marketing : sourced::EventSourcedProjector<Country> {
    Marketing() : EventSourcedProjector("marketing") {
        event([](Country& country, const OrderPaid& paid) { country.revenue += paid.amount; });
        sync([](const Country&) {});
        reaction([](const Country& country, const OrderPaid&) -> std::optional<sourced::Dispatch> {
            if (country.revenue < 100) return std::nullopt;
            return sourced::dispatch(Congratulate{country.revenue}).to("mail");
        });
    }
};

int main() {
    const auto path = (std::filesystem::temp_directory_path() / sourced::new_stream_id("replay")).string();
    std::int64_t before = 0;
    {
        sourced::App app({.path = path});
        auto& revenue = app.add<Revenue>(80);
        app.add<Marketing>();
        app.dispatch("order-1", OrderPaid{"France", 100});
        app.dispatch("order-2", OrderPaid{"France", 50});
        app.dispatch("order-3", OrderPaid{"Peru", 200});
        app.run_until_idle();
        before = revenue.get(app.store(), "France")->revenue;
    }

    // The next version of the program knows better.
    sourced::App app({.path = path});
    auto& revenue = app.add<Revenue>(90);
    app.add<Marketing>();
    const auto rebuilt = app.rebuild("revenue");
    std::cout << "France had " << before << ", has " << revenue.get(app.store(), "France")->revenue << " after "
              << rebuilt.messages << " messages\n";

    app.reset_group("marketing", {.reason = "to see that nobody is congratulated twice"});
    app.run_until_idle();
    std::cout << app.history("mail").size() << " congratulations\n";

    for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::remove(path + suffix);
    const bool right = before == 120 && revenue.get(app.store(), "France")->revenue == 135;
    return right && app.history("mail").size() == 2 ? 0 : 1;
}
