// Everything an App can be told, with the reasons for saying it.
#include "cart/cart.hpp"

#include <filesystem>
#include <iostream>

using namespace shop;

int main() {
    const auto path = (std::filesystem::temp_directory_path() / sourced::new_stream_id("configured")).string();
    {
        sourced::App app({
            .path = path,                               // empty: in memory
            .durability = sourced::Durability::normal,  // a power cut may take the newest commits, but they are faster
            .workers = 4,
            .batch_size = 100,  // messages of one stream in one go; a reactor may want another
            .errors = sourced::Retries{.times = 5, .after = 1s, .then = sourced::Resolution::park()},
            .claim_time = 30s,  // silence after which a process counts as dead
            .cached_states = 50'000,
            .limits = {.depth = 16, .bytes = 1 << 20},  // of one payload
            .log = [](const sourced::LogRecord& record) {
                if (record.level < sourced::Level::warning) return;
                std::cerr << record.text;
                for (const auto& [name, value] : record.fields) std::cerr << ' ' << name << '=' << value;
                std::cerr << '\n';
            },
        });
        app.add<Cart>();
        app.add<Mailer>();
        app.start();  // four workers; app.run() does the same until Ctrl-C
        const auto tea = app.dispatch("cart-1", AddItem{"tea", 450, 2});
        const auto waited = app.wait(tea, {"cart"}, 30s);
        if (!waited) std::cout << "stalled: " << waited.reason << '\n';
        std::cout << "in the cart: " << app.load<Cart>("cart-1").state.total() << " pence\n";
        app.stop();
        const auto stats = app.stats();
        std::cout << stats.messages << " messages, lag of the cart: " << stats.group("cart").lag << '\n';
    }
    for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::remove(path + suffix);
}
