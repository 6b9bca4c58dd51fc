// A trip that takes days to book: a flight, a hotel, a payment that is waited for, a night's sleep. The program is
// stopped in the middle; what was done stays done.
#include <sourced.hpp>

#include <filesystem>
#include <iostream>
#include <stdexcept>

using namespace std::chrono_literals;

namespace {

struct Trip {
    std::string city;
    int nights = 1;

    SOURCED_VALUE(city, nights)
};

struct Booking {
    std::string flight;
    std::string hotel;
    int paid = 0;

    SOURCED_VALUE(flight, hotel, paid)
};

struct Paid {
    int amount = 0;

    SOURCED_EVENT("trip.paid", amount)
};

// The world outside: here it only talks.
struct Agency {
    std::string book_flight(const std::string& city) const {
        std::cout << "  books a flight to " << city << '\n';
        return "flight to " + city;
    }
    // The id is the same when the step is tried again: who has booked for it already does not do so twice.
    std::string book_hotel(const std::string& city, const sourced::Attempt& attempt) const {
        std::cout << "  asks for a hotel in " << city << ", attempt " << attempt.number << '\n';
        if (attempt.number == 1) throw std::runtime_error("the hotel's line is busy");
        return "hotel in " + city;
    }
    void cancel(const std::string& what) const { std::cout << "  cancels the " << what << '\n'; }
    void send_tickets(const std::string& city) const { std::cout << "  sends the tickets for " << city << '\n'; }
};

struct BookTrip : sourced::Workflow<Trip, Booking, Paid> {
    BookTrip() : Workflow("book_trip") { run(&BookTrip::book); }

    Booking book(Context& ctx, const Trip& trip) const {
        Booking booking;
        booking.flight = ctx.step("book flight", [&] { return agency.book_flight(trip.city); });
        try {
            booking.hotel = ctx.step(
                "book hotel", [&](const sourced::Attempt& attempt) { return agency.book_hotel(trip.city, attempt); },
                {.times = 3, .after = 1min});
        } catch (const sourced::StepFailed&) {
            ctx.step("cancel flight", [&] { agency.cancel(booking.flight); });
            throw;
        }
        const auto paid = ctx.wait_for<Paid>(72h);
        if (!paid) {
            ctx.step("cancel flight", [&] { agency.cancel(booking.flight); });
            ctx.step("cancel hotel", [&] { agency.cancel(booking.hotel); });
            throw std::runtime_error("not paid within three days");
        }
        booking.paid = paid->amount;
        ctx.sleep(24h);  // in case the customer thinks better of it
        ctx.step("send tickets", [&] { agency.send_tickets(trip.city); });
        return booking;
    }

    Agency agency;
};

}  // namespace

int main() {
    const auto path = (std::filesystem::temp_directory_path() / sourced::new_stream_id("trips")).string();
    sourced::testing::Clock clock;  // moved by hand, so that nobody waits for days
    {
        sourced::App app({.path = path, .clock = clock});
        app.add<BookTrip>();
        std::cout << "first run\n";
        app.start_workflow<BookTrip>("lisbon", Trip{"Lisbon", 3});
        app.start_workflow<BookTrip>("porto", Trip{"Porto", 2});
        app.run_until_idle();
        clock.advance(1min);
        app.run_until_idle();
    }
    sourced::App app({.path = path, .clock = clock});
    app.add<BookTrip>();
    std::cout << "second run, the day after\n";
    clock.advance(24h);
    const auto lisbon = app.workflow<BookTrip>("lisbon");
    app.dispatch(lisbon.stream(), Paid{350});
    app.run_until_idle();
    std::cout << "and three days later\n";
    clock.advance(72h);
    app.run_until_idle();

    const auto booking = lisbon.outcome().output();
    std::cout << "Lisbon: " << booking.flight << ", " << booking.hotel << ", paid " << booking.paid << '\n'
              << "Porto: " << app.workflow<BookTrip>("porto").outcome().error_text() << "\n\n";
    for (const auto& message : lisbon.history()) std::cout << message.seq << ' ' << message.type << '\n';

    for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::remove(path + suffix);
}
