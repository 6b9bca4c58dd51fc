// A shopping cart at the console: type what it shall do, look at what became of it.
//
//   cart_console [FILE]    keeps the cart in FILE; in memory without
#include "cart/cart.hpp"

#include <unistd.h>

#include <iostream>
#include <sstream>
#include <string>

using namespace shop;

namespace {

constexpr const char* help =
    "  add PRODUCT PRICE [QUANTITY]   puts something in, at so many pence\n"
    "  checkout                       closes the cart\n"
    "  show [SEQ]                     what is in it, now or as of a seq\n"
    "  history                        everything that was asked and has happened\n"
    "  listing                        its row in the read model\n"
    "  help, quit\n";

class Console {
public:
    explicit Console(sourced::App& app, const CartListings& listings)
        : app_(app), listings_(listings), cart_(app.actor<Cart>("cart-1")) {}

    /// False: enough.
    bool obey(const std::string& line) {
        std::istringstream words(line);
        std::string verb;
        words >> verb;
        if (verb.empty()) return true;
        if (verb == "quit") return false;
        if (verb == "add") add(words);
        else if (verb == "checkout") say(cart_.handle(CheckOut{}));
        else if (verb == "show") show(words);
        else if (verb == "history") history();
        else if (verb == "listing") listing();
        else if (verb == "help") std::cout << help;
        else std::cout << "there is no '" << verb << "'; try help\n";
        return true;
    }

private:
    void add(std::istream& words) {
        AddItem item;
        if (!(words >> item.product_id >> item.price)) {
            std::cout << "add what, at what price? add tea 450 2\n";
            return;
        }
        if (!(words >> item.quantity)) item.quantity = 1;
        say(cart_.handle(item));
    }

    static void say(const sourced::Result& result) {
        if (result.refused()) std::cout << "refused: " << result.reason() << '\n';
        for (const auto& event : result.events()) std::cout << event.seq << ' ' << event.type << '\n';
    }

    void show(std::istream& words) {
        std::int64_t seq = 0;
        const CartState state = words >> seq ? cart_.state(seq) : cart_.state();
        for (const auto& item : state.items) {
            std::cout << "  " << item.quantity << " x " << item.product_id << " at " << item.price << '\n';
        }
        std::cout << state.total() << " pence, " << state.status << '\n';
    }

    void history() {
        for (const auto& message : cart_.history()) {
            std::cout << message.seq << ' ' << message.type << ' ' << message.payload << '\n';
        }
    }

    void listing() {
        app_.run_until_idle();
        const auto row = listings_.get(app_.store(), "cart-1");
        if (row) std::cout << row->items << " items, " << row->total << " pence\n";
        else std::cout << "no such row\n";
    }

    sourced::App& app_;
    const CartListings& listings_;
    sourced::Bound<Cart> cart_;
};

}  // namespace

int main(int count, char** arguments) {
    sourced::App app({.path = count > 1 ? arguments[1] : ""});
    app.add<Cart>();
    app.add<Mailer>();
    Console console(app, app.add<CartListings>());

    const bool typed = ::isatty(STDIN_FILENO) == 1;
    std::string line;
    do {
        std::cout << "cart> " << std::flush;
        if (!std::getline(std::cin, line)) break;
        if (!typed) std::cout << line << '\n';  // a script reads like a session
    } while (console.obey(line));
}
