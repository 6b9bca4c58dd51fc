// Messages that wait: at a time, after a delay, again and again. The clock is moved by hand, so nobody waits.
#include <sourced.hpp>

#include <chrono>
#include <iostream>
#include <string>
#include <variant>

using namespace std::chrono_literals;

struct Remind {
    std::string of;

    SOURCED_COMMAND("reminder.remind", of)
};
struct Reminded {
    std::string of;

    SOURCED_EVENT("reminder.reminded", of)
};

struct Reminders : sourced::Actor<std::monostate> {
    Reminders() : Actor("reminders") {
        command([](const Remind& remind) { return Reminded{remind.of}; });
    }
};

int main() {
    sourced::testing::Clock clock;
    sourced::App app({.clock = clock});
    app.add<Reminders>();
    const auto reminded = [&] {
        app.run_until_idle();
        std::string list;
        for (const auto& message : app.history("joe")) {
            if (message.is<Reminded>()) list += (list.empty() ? "" : ", ") + message.as<Reminded>().of;
        }
        return list;
    };

    app.schedule("joe", Remind{"the milk"}, 20min);
    app.schedule("joe", Remind{"the party"}, clock.now() + 3h);
    const auto dentist = app.schedule("joe", Remind{"the dentist"}, 1h);
    app.every("vitamins", 24h, "joe", Remind{"vitamins"}, clock.now() + 2h);  // once a day from here on

    for (const auto& waiting : app.scheduled()) std::cout << waiting.message.payload << '\n';

    app.cancel(dentist.id);
    clock.advance(4h);
    std::cout << "after 4 hours: " << reminded() << '\n';
    clock.advance(72h);  // nothing ran for three days: what recurs comes once
    std::cout << "after 3 days:  " << reminded() << '\n';
    return reminded() == "the milk, vitamins, the party, vitamins" ? 0 : 1;
}
