// Commands out of text that nobody vouches for: what a form or a request may ask, and what is wrong with it.
#include "cart/cart.hpp"

#include <iostream>
#include <string>

using namespace shop;

int main() {
    sourced::App app;
    app.add<Cart>();
    app.add<Mailer>();

    sourced::Metadata who;
    who.set("user", "joe");
    const sourced::CommandContext context(app.registry(), {
        .stream = "cart-1",
        .metadata = who,
        .allow = {"cart.add_item", "cart.check_out"},
    });

    for (const std::string text : {
             R"({"type":"cart.add_item","payload":{"product_id":"tea","price":450}})",
             R"({"type":"cart.add_item","payload":{"product_id":"pot","price":"dear","colour":"red"}})",
             R"({"type":"mail.send_admin_email","payload":{"product_id":"tea"}})",
             R"({"type":"cart.check_out","id":"01890a5d-ac96-774b-bcce-b302099a8057"})",
         }) {
        try {
            const auto command = app.dispatch(context.build(text));
            std::cout << command.type << " from " << *command.metadata.get("user") << '\n';
        } catch (const sourced::Invalid& error) {
            for (const auto& problem : error.problems()) std::cout << problem.path << ": " << problem.text << '\n';
        }
    }
    app.run_until_idle();
    return app.history("cart-1").size() == 2 ? 0 : 1;
}
