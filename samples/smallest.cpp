// The smallest whole program: one command, one event, one actor.
#include <sourced.hpp>

#include <iostream>

struct Deposit {
    int pounds = 0;
    SOURCED_COMMAND("account.deposit", pounds)
};

struct Deposited {
    int pounds = 0;
    SOURCED_EVENT("account.deposited", pounds)
};

struct Account : sourced::Actor<int> {  // its state: the balance
    Account() : Actor("account") {
        command([](int, const Deposit& deposit) -> sourced::Decision<Deposited> {
            if (deposit.pounds <= 0) return sourced::refuse("nothing to deposit");
            return Deposited{deposit.pounds};
        });
        event([](int& balance, const Deposited& deposited) { balance += deposited.pounds; });
    }
};

int main() {
    sourced::App app;  // in memory; sourced::App app({.path = "bank.db"}) keeps a file
    app.add<Account>();

    app.dispatch("account-joe", Deposit{20});
    app.dispatch("account-joe", Deposit{-5});
    app.dispatch("account-joe", Deposit{22});
    app.run_until_idle();

    for (const auto& message : app.history("account-joe")) {
        std::cout << message.seq << ' ' << message.type << ' ' << message.payload << '\n';
    }
    std::cout << "balance: " << app.load<Account>("account-joe").state << '\n';
}
