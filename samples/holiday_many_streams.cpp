// The same holiday in three streams: flight and hotel are booked at the same time, and the holiday goes on when
// both are there.
#include <sourced.hpp>

#include <iostream>
#include <string>
#include <variant>
#include <vector>

// ---- The holiday ------------------------------------------------------------------

struct StartBooking {
    std::string traveller;

    SOURCED_COMMAND("holiday.start_booking", traveller)
};
struct BookingStarted {
    std::string traveller;

    SOURCED_EVENT("holiday.booking_started", traveller)
};
struct NoteFlight {
    std::string flight;

    SOURCED_COMMAND("holiday.note_flight", flight)
};
struct FlightNoted {
    std::string flight;

    SOURCED_EVENT("holiday.flight_noted", flight)
};
struct NoteHotel {
    std::string hotel;

    SOURCED_COMMAND("holiday.note_hotel", hotel)
};
struct HotelNoted {
    std::string hotel;

    SOURCED_EVENT("holiday.hotel_noted", hotel)
};
struct Complete {
    SOURCED_COMMAND("holiday.complete")
};
struct Completed {
    SOURCED_EVENT("holiday.completed")
};

// ---- Flights and hotels: each booking is a stream of its own, named after the holiday it is for ---------------

struct BookFlight {
    std::string holiday;

    SOURCED_COMMAND("flight.book", holiday)
};
struct FlightBooked {
    std::string holiday;
    std::string flight;

    SOURCED_EVENT("flight.booked", holiday, flight)
};
struct BookHotel {
    std::string holiday;

    SOURCED_COMMAND("hotel.book", holiday)
};
struct HotelBooked {
    std::string holiday;
    std::string hotel;

    SOURCED_EVENT("hotel.booked", holiday, hotel)
};

struct Flights : sourced::Actor<std::monostate> {
    Flights() : Actor("flights") {
        command([](const BookFlight& book) { return FlightBooked{book.holiday, "LA 801"}; });
        reaction([](const FlightBooked& booked) {
            return sourced::dispatch(NoteFlight{booked.flight}).to(booked.holiday);
        });
    }
};

struct Hotels : sourced::Actor<std::monostate> {
    Hotels() : Actor("hotels") {
        command([](const BookHotel& book) { return HotelBooked{book.holiday, "Hotel Cabo de Hornos"}; });
        reaction([](const HotelBooked& booked) {
            return sourced::dispatch(NoteHotel{booked.hotel}).to(booked.holiday);
        });
    }
};

struct Holiday {
    std::string flight;
    std::string hotel;

    [[nodiscard]] bool whole() const { return !flight.empty() && !hotel.empty(); }
};

struct HolidayBooking : sourced::Actor<Holiday> {
    HolidayBooking() : Actor("holiday") {
        command([](const StartBooking& start) { return BookingStarted{start.traveller}; });

        // Two streams from here on, which workers handle at the same time.
        reaction([](const BookingStarted&, const sourced::Envelope& envelope) {
            return std::vector<sourced::Dispatch>{
                sourced::dispatch(BookFlight{envelope.stream}).to("flight-for-" + envelope.stream),
                sourced::dispatch(BookHotel{envelope.stream}).to("hotel-for-" + envelope.stream),
            };
        });

        // And one again: whichever comes last finds the other there.
        command([](const NoteFlight& note) { return FlightNoted{note.flight}; });
        command([](const NoteHotel& note) { return HotelNoted{note.hotel}; });
        event([](Holiday& holiday, const FlightNoted& noted) { holiday.flight = noted.flight; });
        event([](Holiday& holiday, const HotelNoted& noted) { holiday.hotel = noted.hotel; });
        reaction<FlightNoted, HotelNoted>([](const Holiday& holiday, const auto&) -> std::optional<sourced::Dispatch> {
            if (!holiday.whole()) return std::nullopt;
            return sourced::dispatch(Complete{});
        });
        command([](const Complete&) { return Completed{}; });
        event<BookingStarted, Completed>();
    }
};

int main() {
    sourced::App app;
    app.add<HolidayBooking>();
    app.add<Flights>();
    app.add<Hotels>();

    app.start(2);
    app.dispatch("holiday-1", StartBooking{"Joe"});
    app.dispatch("holiday-2", StartBooking{"Ann"});
    if (!app.wait_until_idle(std::chrono::seconds(30))) return 1;
    app.stop();

    int completed = 0;
    for (const auto& message : app.store().log()) {
        std::cout << message.position << ' ' << message.stream << ' ' << message.seq << ' ' << message.type << '\n';
        completed += message.is<Completed>() ? 1 : 0;
    }
    std::cout << completed << " holidays are complete\n";
    return completed == 2 ? 0 : 1;
}
