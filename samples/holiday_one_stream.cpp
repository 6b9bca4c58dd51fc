// A holiday booked in one stream: a flight, then a hotel, one after the other.
#include <sourced.hpp>

#include <iostream>
#include <string>

struct StartBooking {
    std::string traveller;

    SOURCED_COMMAND("holiday.start_booking", traveller)
};
struct BookingStarted {
    std::string traveller;

    SOURCED_EVENT("holiday.booking_started", traveller)
};
struct BookFlight {
    SOURCED_COMMAND("holiday.book_flight")
};
struct FlightBooked {
    std::string flight;

    SOURCED_EVENT("holiday.flight_booked", flight)
};
struct BookHotel {
    SOURCED_COMMAND("holiday.book_hotel")
};
struct HotelBooked {
    std::string hotel;

    SOURCED_EVENT("holiday.hotel_booked", hotel)
};

struct Holiday {
    std::string traveller;
    std::string flight;
    std::string hotel;
};

// Every step is an event, and a reaction to it asks for the next. All of it happens in the
// holiday's own stream, so nothing of one holiday runs at the same time as anything else of it.
struct HolidayBooking : sourced::Actor<Holiday> {
    HolidayBooking() : Actor("holiday") {
        command([](const StartBooking& start) { return BookingStarted{start.traveller}; });
        reaction([](const BookingStarted&) { return sourced::dispatch(BookFlight{}); });

        command([](const BookFlight&) { return FlightBooked{"LA 801"}; });
        reaction([](const FlightBooked&) { return sourced::dispatch(BookHotel{}); });

        command([](const BookHotel&) { return HotelBooked{"Hotel Cabo de Hornos"}; });

        event([](Holiday& holiday, const BookingStarted& started) { holiday.traveller = started.traveller; });
        event([](Holiday& holiday, const FlightBooked& booked) { holiday.flight = booked.flight; });
        event([](Holiday& holiday, const HotelBooked& booked) { holiday.hotel = booked.hotel; });
    }
};

int main() {
    sourced::App app;
    app.add<HolidayBooking>();

    app.dispatch("holiday-1", StartBooking{"Joe"});
    app.run_until_idle();

    for (const auto& message : app.history("holiday-1")) std::cout << message.seq << ' ' << message.type << '\n';
    const Holiday holiday = app.load<HolidayBooking>("holiday-1").state;
    std::cout << holiday.traveller << " flies with " << holiday.flight << " and sleeps at " << holiday.hotel << '\n';
    return app.history("holiday-1").size() == 6 && !holiday.hotel.empty() ? 0 : 1;
}
