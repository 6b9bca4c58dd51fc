// The inspector with the types of a sample, for its picture: SAMPLE in the environment says which.
#include <cstdlib>
#include <string>

#include "cart/cart.hpp"
#include "order/order.hpp"
#include "retail/reactors.hpp"
#define main run_the_sample
#include "hotel_orchestrated.cpp"
#undef main

int main(int argc, char** argv) {
    const char* const given = std::getenv("SAMPLE");
    const std::string sample = given ? given : "";
    sourced::App app;
    if (sample == "cart") app.add<shop::Cart>(), app.add<shop::Mailer>(), app.add<shop::CartListings>();
    if (sample == "order") app.add<shop::Order>(), app.add<shop::Payment>(), app.add<shop::Telemetry>();
    if (sample == "hotel") app.add<Booking>(), app.add<Rooms>(), app.add<Payments>();
    if (sample == "retail") retail::add_shop(app);
    return sourced::inspect(app, argc, argv);
}
