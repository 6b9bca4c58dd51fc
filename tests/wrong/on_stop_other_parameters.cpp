// expect: on_stop() takes a const handler with the parameter (std::string_view reason)
#include <sourced.hpp>

struct Mailer : sourced::Projector<int> {
    Mailer() : Projector("mailer") {
        on_stop([](sourced::Transaction&) {});
    }
};
