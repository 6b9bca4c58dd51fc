// A picture of the shop, drawn from what its reactors declare: on the console, or between the markers of a page.
//
//     picture                picture samples/README.md
#include "cart/cart.hpp"

#include <iostream>

using namespace shop;

int main(int count, char** arguments) {
    sourced::App app;  // in memory: nothing is run
    app.add<Cart>();
    app.add<Mailer>();
    app.add<CartListings>();
    const sourced::Topology topology(app);

    if (count < 2) {
        std::cout << topology.mermaid();
    } else if (sourced::update_markdown(arguments[1], topology)) {
        std::cout << arguments[1] << " shows the shop of today now\n";
        return 1;  // a commit hook stops here: the page goes into the commit too
    }
}
