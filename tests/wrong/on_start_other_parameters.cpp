// expect: on_start() takes a const handler without parameters
#include <sourced.hpp>

struct Mailer : sourced::Projector<int> {
    Mailer() : Projector("mailer") {
        on_start([](sourced::Transaction&) {});
    }
};
