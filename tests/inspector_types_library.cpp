// The libraries that `sourced --app` is given in tests: one that is right, and some that are not.
#include <stdexcept>

#include "inspector_types.hpp"

#if defined(OTHER_ABI)
extern "C" SOURCED_API int sourced_app(sourced::App*) { return sourced::abi + 1; }
#elif defined(NO_FUNCTION)
SOURCED_API int what_nobody_asks_for() { return sourced::abi; }
#elif defined(THROWING)
SOURCED_APP([](sourced::App& app) {
    app.add<inspected::Carts>();
    throw std::runtime_error("the shop is closed");
})
#elif defined(UNDEFINED)
void nobody_defines_it(sourced::App& app);
SOURCED_APP(nobody_defines_it)
#else
SOURCED_APP(inspected::add_all)
#endif
