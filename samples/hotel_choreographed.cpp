// Choreography: the same booking without anybody in charge. Each takes part by answering what others have done.
#include "hotel/rooms.hpp"

#include <iostream>
#include <string>

using namespace hotel;
using sourced::dispatch;

// Rooms answer payments: a declined one sets the room free.
struct RoomService : Rooms {
    RoomService() : Rooms("room_service") {
        reaction([](const PaymentDeclined& declined) {
            return dispatch(ReleaseRoom{declined.booking}).to(room_of(declined.booking));
        });
    }
    static std::string room_of(const std::string& booking) { return "room" + booking.substr(booking.find('-')); }
};

// Payments answer reservations: who has a room pays for it.
struct Cashier : Payments {
    Cashier() : Payments("cashier") {
        reaction([](const RoomReserved& reserved, const sourced::Envelope& envelope) {
            const int price = envelope.stream == "room-8" ? 900 : 300;
            return dispatch(TakePayment{reserved.booking, price}).to("payment-for-" + reserved.booking);
        });
    }
};

struct SendConfirmation {
    std::string booking;

    SOURCED_COMMAND("mail.send_confirmation", booking)
};
struct ConfirmationSent {
    std::string booking;

    SOURCED_EVENT("mail.confirmation_sent", booking)
};

// The mailer answers payments too. Rooms and payments do not know that it exists.
struct Mailer : sourced::Actor<std::monostate> {
    Mailer() : Actor("mailer") {
        reaction([](const PaymentTaken& taken) { return dispatch(SendConfirmation{taken.booking}).to("mailer"); });
        command([](const SendConfirmation& send) { return ConfirmationSent{send.booking}; });
    }
};

int main() {
    sourced::App app;
    app.add<RoomService>();
    app.add<Cashier>();
    app.add<Mailer>();

    app.dispatch("room-7", ReserveRoom{"booking-7"});
    app.dispatch("room-8", ReserveRoom{"booking-8"});
    app.run_until_idle();

    for (const auto& message : app.store().log()) std::cout << message.stream << ' ' << message.type << '\n';
    const bool taken = app.load<RoomService>("room-7").state.reserved_for == "booking-7";
    const bool released = app.load<RoomService>("room-8").state.reserved_for.empty();
    return taken && released && app.history("mailer").size() == 2 ? 0 : 1;
}
