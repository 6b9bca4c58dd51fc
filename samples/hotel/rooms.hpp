// What both ways of booking a hotel share: rooms and payments, each of which knows nothing but its own business.
#pragma once

#include <sourced.hpp>

#include <string>
#include <variant>

namespace hotel {

struct ReserveRoom {
    std::string booking;

    SOURCED_COMMAND("room.reserve", booking)
};
struct RoomReserved {
    std::string booking;

    SOURCED_EVENT("room.reserved", booking)
};
struct ReleaseRoom {
    std::string booking;

    SOURCED_COMMAND("room.release", booking)
};
struct RoomReleased {
    std::string booking;

    SOURCED_EVENT("room.released", booking)
};

struct TakePayment {
    std::string booking;
    int amount = 0;

    SOURCED_COMMAND("payment.take", booking, amount)
};
struct PaymentTaken {
    std::string booking;
    int amount = 0;

    SOURCED_EVENT("payment.taken", booking, amount)
};
struct PaymentDeclined {
    std::string booking;
    std::string reason;

    SOURCED_EVENT("payment.declined", booking, reason)
};

struct Room {
    std::string reserved_for;
};

/// One stream for each room.
struct Rooms : sourced::Actor<Room> {
    explicit Rooms(std::string_view name = "rooms") : Actor(name) {
        command([](const Room& room, const ReserveRoom& reserve) -> sourced::Decision<RoomReserved> {
            if (!room.reserved_for.empty()) return sourced::refuse("the room is taken");
            return RoomReserved{reserve.booking};
        });
        command([](const Room& room, const ReleaseRoom& release) -> sourced::Decision<RoomReleased> {
            if (room.reserved_for != release.booking) return {};  // somebody else's by now: nothing to do
            return RoomReleased{release.booking};
        });
        event([](Room& room, const RoomReserved& reserved) { room.reserved_for = reserved.booking; });
        event([](Room& room, const RoomReleased&) { room.reserved_for.clear(); });
    }
};

/// One stream for each payment. Cards have a limit of 500.
struct Payments : sourced::Actor<std::monostate> {
    explicit Payments(std::string_view name = "payments") : Actor(name) {
        command([](const TakePayment& take) -> sourced::Decision<PaymentTaken, PaymentDeclined> {
            if (take.amount > 500) return PaymentDeclined{take.booking, "the card's limit is 500"};
            return PaymentTaken{take.booking, take.amount};
        });
        event<PaymentTaken, PaymentDeclined>();
    }
};

}  // namespace hotel
