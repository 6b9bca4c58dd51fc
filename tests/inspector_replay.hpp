// An application whose groups are played again: compiled into the test and into a program that has the inspector.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "sourced.hpp"

namespace replayed {

struct Add {
    int amount = 0;

    SOURCED_COMMAND("till.add", amount)
};
struct Added {
    int amount = 0;

    SOURCED_EVENT("till.added", amount)
};
struct Note {
    int amount = 0;

    SOURCED_COMMAND("notes.note", amount)
};

/// Decides, and sends a note of each event; cannot take 13.
struct Till : sourced::Actor<int> {
    Till() : Actor("till") {
        command([](int, const Add& add) { return Added{add.amount}; });
        event([](int& sum, const Added& added) {
            if (added.amount == 13) throw std::runtime_error("13 is \x1b[31mnot\x1b[0m counted");
            sum += added.amount;
        });
        reaction([](int sum, const Added&) { return sourced::dispatch(Note{sum}).to("notes"); });
    }
};

/// Keeps the fold of each stream in a table.
struct History : sourced::EventSourcedProjector<std::vector<int>> {
    History() : EventSourcedProjector("history") {
        on_install([](sourced::Transaction& db) {
            db.execute("create table if not exists history (id text primary key, sum integer not null)");
        });
        event([](std::vector<int>& all, const Added& added) { all.push_back(added.amount); });
        sync([](const std::vector<int>& all, std::string_view id, sourced::Transaction& db) {
            std::int64_t sum = 0;
            for (const int each : all) sum += each;
            db.execute("insert or replace into history values (?, ?)", id, sum);
        });
    }
};

/// Loads and stores the sum of each stream; cannot take 14.
struct Totals : sourced::Projector<std::int64_t> {
    Totals() : Projector("totals") {
        on_install([](sourced::Transaction& db) {
            db.execute("create table if not exists totals (id text primary key, sum integer not null)");
        });
        state([](std::string_view id, sourced::Reader& db) {
            const auto row = db.row("select sum from totals where id = ?", id);
            return row ? row->integer(0) : 0;
        });
        event([](std::int64_t& sum, const Added& added) {
            if (added.amount == 14) throw std::runtime_error("14 is too much");
            sum += added.amount;
        });
        sync([](const std::int64_t& sum, std::string_view id, sourced::Transaction& db) {
            db.execute("insert or replace into totals values (?, ?)", id, sum);
        });
        on_reset([](sourced::Transaction& db) { db.execute("delete from totals"); });
        on_reset([](std::string_view id, sourced::Transaction& db) {
            db.execute("delete from totals where id = ?", id);
        });
    }
};

struct BySize : sourced::Projection<std::int64_t> {
    BySize() : Projection("by_size") {
        key([](const Added& added) -> std::string { return added.amount < 3 ? "small" : "large"; });
        event([](std::int64_t& count, const Added&) { ++count; });
    }
};

struct Mailer : sourced::Handler {
    Mailer() : Handler("mailer") {
        on([](const Added&) { return sourced::dispatch(Note{-1}).to("mails"); });
    }
};

inline void add_all(sourced::App& app) {
    app.add<Till>();
    app.add<History>();
    app.add<Totals>();
    app.add<BySize>();
    app.add<Mailer>();
}

}  // namespace replayed
