// Orchestration: one actor knows the whole process, tells the others what to do and is told how it went.
#include "hotel/rooms.hpp"

#include <iostream>
#include <string>
#include <vector>

using namespace hotel;
using sourced::dispatch;

struct BookStay {
    std::string room;
    int amount = 0;

    SOURCED_COMMAND("booking.book_stay", room, amount)
};
struct StayRequested {
    std::string room;
    int amount = 0;

    SOURCED_EVENT("booking.stay_requested", room, amount)
};
struct GoOn {
    std::string after;

    SOURCED_COMMAND("booking.go_on", after)
};
struct RoomSecured {
    SOURCED_EVENT("booking.room_secured")
};
struct Booked {
    SOURCED_EVENT("booking.booked")
};
struct Abandoned {
    std::string reason;

    SOURCED_EVENT("booking.abandoned", reason)
};

struct Stay {
    std::string id{};
    std::string room{};
    int amount = 0;
    std::string status = "new";
};

struct Booking : sourced::Actor<Stay> {
    Booking() : Actor("booking") {
        state([](std::string_view id) { return Stay{.id = std::string(id)}; });

        // The process, step by step, in one place.
        command([](const BookStay& book) { return StayRequested{book.room, book.amount}; });
        reaction([](const Stay& stay, const StayRequested& requested) {
            return dispatch(ReserveRoom{stay.id}).to(requested.room);
        });
        command([](const GoOn& go_on) -> sourced::Decision<RoomSecured, Booked, Abandoned> {
            if (go_on.after == "reserved") return RoomSecured{};
            if (go_on.after == "paid") return Booked{};
            return Abandoned{go_on.after};
        });
        reaction([](const Stay& stay, const RoomSecured&) {
            return dispatch(TakePayment{stay.id, stay.amount}).to("payment-for-" + stay.id);
        });
        reaction([](const Stay& stay, const Abandoned&) {
            return dispatch(ReleaseRoom{stay.id}).to(stay.room);
        });

        // What happens elsewhere becomes a command to the booking it concerns.
        reaction([](const RoomReserved& reserved) { return dispatch(GoOn{"reserved"}).to(reserved.booking); });
        reaction([](const PaymentTaken& taken) { return dispatch(GoOn{"paid"}).to(taken.booking); });
        reaction([](const PaymentDeclined& declined) { return dispatch(GoOn{declined.reason}).to(declined.booking); });

        event([](Stay& stay, const StayRequested& requested) {
            stay.room = requested.room;
            stay.amount = requested.amount;
            stay.status = "requested";
        });
        event([](Stay& stay, const RoomSecured&) { stay.status = "has a room"; });
        event([](Stay& stay, const Booked&) { stay.status = "booked"; });
        event([](Stay& stay, const Abandoned& abandoned) { stay.status = "abandoned: " + abandoned.reason; });
    }
};

int main() {
    sourced::App app;
    app.add<Booking>();
    app.add<Rooms>();
    app.add<Payments>();

    app.dispatch("booking-1", BookStay{"room-7", 300});
    app.dispatch("booking-2", BookStay{"room-8", 900});
    app.run_until_idle();

    const auto first = app.load<Booking>("booking-1").state;
    const auto second = app.load<Booking>("booking-2").state;
    std::cout << first.id << ": " << first.status << '\n' << second.id << ": " << second.status << '\n';
    const bool released = app.load<Rooms>("room-8").state.reserved_for.empty();
    std::cout << "room-8 is " << (released ? "free again" : "still taken") << '\n';
    return first.status == "booked" && second.status == "abandoned: the card's limit is 500" && released ? 0 : 1;
}
