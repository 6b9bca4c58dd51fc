// expect: an argument of SQL is an integer, a bool, a double, text, an optional of these, or nullptr
#include <sourced.hpp>

struct Money {
    int pence = 0;
};

void use(sourced::Transaction& db) { db.execute("insert into prices values (?)", Money{3}); }
