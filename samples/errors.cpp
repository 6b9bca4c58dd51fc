// When a handler fails: retries with back-off, then its stream is parked while the others go on.
#include <sourced.hpp>

#include <chrono>
#include <iostream>
#include <set>
#include <stdexcept>
#include <string>
#include <variant>

using namespace std::chrono_literals;

struct Ship {
    std::string address;

    SOURCED_COMMAND("parcel.ship", address)
};
struct Shipped {
    SOURCED_EVENT("parcel.shipped")
};

struct Parcels : sourced::Actor<std::monostate> {
    explicit Parcels(const std::set<std::string>& known) : Actor("parcels") {
        command([&known](const Ship& ship) {
            if (!known.contains(ship.address)) throw std::runtime_error("no such address: " + ship.address);
            return Shipped{};
        });
        options({.errors = sourced::Retries{
            .times = 2,
            .after = 5s,
            .backoff = [](sourced::Duration after, int retry) { return after * retry; },
            .then = sourced::Resolution::park(),
            .on_retry = [](int retry, const sourced::Fault& fault, sourced::Time) {
                std::cout << fault.message.stream << ": " << fault.text << "; retry " << retry << '\n';
            },
            .on_stop = [](const sourced::Fault& fault) { std::cout << fault.message.stream << ": given up\n"; },
        }});
    }
};

int main() {
    std::set<std::string> known{"1 High Street", "2 High Street"};
    sourced::testing::Clock clock;
    sourced::App app({.clock = clock});
    app.add<Parcels>(known);

    app.dispatch("parcel-1", Ship{"1 High Street"});
    app.dispatch("parcel-2", Ship{"3 High Street"});
    app.dispatch("parcel-3", Ship{"2 High Street"});
    app.run_until_idle();  // parcel-3 does not wait for parcel-2
    clock.advance(5s);
    app.run_until_idle();
    clock.advance(10s);
    app.run_until_idle();

    for (const auto& offset : app.store().offsets("parcels")) {
        std::cout << offset.stream << " is parked, " << offset.attempts << " attempts: " << offset.error_text << '\n';
    }

    known.insert("3 High Street");  // mended
    app.retry_stream("parcels", "parcel-2");
    app.run_until_idle();
    const bool shipped = app.history("parcel-2").back().is<Shipped>();
    std::cout << "parcel-2 is " << (shipped ? "shipped" : "stuck") << '\n';
    return shipped && app.history("parcel-3").size() == 2 ? 0 : 1;
}
