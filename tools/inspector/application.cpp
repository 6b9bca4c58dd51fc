// An application's types: linked in, or loaded from a shared library.
#include "application.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <filesystem>

namespace sourced::inspector {
namespace {

namespace fs = std::filesystem;

/// A function of the engine, open_store(const StoreOptions&), by which libraries tell whose engine they use.
constexpr const char* engine_symbol = "_ZN7sourced10open_storeERKNS_12StoreOptionsE";

using Add = int (*)(App*);

/// The program or library that an address lies in.
Dl_info home_of(const void* address) {
    Dl_info info{};
    if (::dladdr(address, &info) == 0 || !info.dli_fname) info.dli_fname = "an unknown file";
    return info;
}

std::string last_error() {
    const char* text = ::dlerror();
    return text ? text : "no reason was given";
}

/// What dlopen is to open: it looks for a name without a slash everywhere but where people look.
std::string place_of(const std::string& library) {
    if (library.find('/') != std::string::npos) {
        if (!fs::exists(library)) throw Failed(Exit::failure, "load '" + library + "': there is no such file");
        return library;
    }
    return fs::exists(library) ? "./" + library : library;
}

// Two engines in one process would each have the half of everything.

const void* own_engine(const std::string& tried) {
    const void* own = ::dlsym(RTLD_DEFAULT, engine_symbol);
    // Its neighbour is this very code only where all of it was linked into one.
    if (own && home_of(own).dli_fbase != home_of(engine_symbol).dli_fbase) return own;
    throw Failed(Exit::failure,
                 tried + ": this program has the engine inside itself, and the library would bring another one; "
                         "build the program with the shared libsourced (meson: -Ddefault_library=shared or both)");
}

void check_engine(void* handle, const void* own, const std::string& tried) {
    const void* theirs = ::dlsym(handle, engine_symbol);
    if (theirs == own) return;
    const std::string where = theirs ? std::string(" in ") + home_of(theirs).dli_fname : std::string();
    throw Failed(Exit::failure, tried + ": it links its own copy of the engine" + where +
                                    "; link it with the shared libsourced that this program uses, " +
                                    home_of(own).dli_fname);
}

Add load(const std::string& library) {
    const std::string tried = "load '" + library + "'";
    const void* const own = own_engine(tried);
    void* const handle = ::dlopen(place_of(library).c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!handle) throw Failed(Exit::failure, tried + ": " + last_error());
    const auto add = reinterpret_cast<Add>(::dlsym(handle, "sourced_app"));
    if (!add) {
        throw Failed(Exit::failure, tried + ": it has no function sourced_app; write SOURCED_APP(add_all) in one of "
                                            "its source files, where add_all(sourced::App&) adds the reactors");
    }
    if (const int number = add(nullptr); number != abi) {
        throw Failed(Exit::failure, tried + ": it was built for ABI " + std::to_string(number) + " of the engine, "
                                            "this program for " + std::to_string(abi) +
                                            "; build it with the headers of this version");
    }
    check_engine(handle, own, tried);
    return add;
}

std::unique_ptr<App> load_app(const std::string& library) {
    const Add add = load(library);
    auto app = std::make_unique<App>();
    try {
        (void)add(app.get());
    } catch (const std::exception& error) {
        throw Failed(Exit::failure, "load '" + library + "': adding its reactors failed: " + error.what());
    } catch (...) {
        throw Failed(Exit::failure, "load '" + library + "': adding its reactors failed with no std::exception");
    }
    return app;
}

std::string listed(const std::vector<std::string>& names) {
    std::string text;
    for (const auto& name : names) text += (text.empty() ? "'" : ", '") + name + "'";
    return text;
}

}  // namespace

Application::Application(Context& context) : context_(context) {
    if (context.linked() && !context.library.empty()) {
        throw Failed(Exit::usage, "this program brings its own types: leave --app out");
    }
    if (!context.linked() && context.library.empty()) {
        throw Failed(Exit::usage, "this needs the types of an application. Load them: sourced --app libshop.so " +
                                      (context.path.empty() ? "FILE" : context.path) +
                                      " ..., or link the inspector into the application: return "
                                      "sourced::inspect(app, argc, argv);");
    }
    if (!context.linked()) loaded_ = load_app(context.library);
    app_ = loaded_ ? loaded_.get() : context.linked();
}

std::vector<const detail::Definition*> Application::definitions() const { return detail::Access::definitions(*app_); }

App& Application::look() { return move_to_file(Open::read_only, {}, {}); }
App& Application::change(const std::vector<std::string>& only, std::function<void(const LogRecord&)> log) const {
    return move_to_file(Open::existing, only, std::move(log));
}

App& Application::move_to_file(Open open, const std::vector<std::string>& only,
                               std::function<void(const LogRecord&)> log) const {
    Options options = detail::Access::options(*app_);
    if (!options.path.empty()) {
        std::error_code ignored;
        if (std::filesystem::equivalent(context_.file(), options.path, ignored)) return *app_;
        throw Failed(Exit::usage, "this program works on '" + options.path + "'; leave '" + context_.path + "' out");
    }
    options.path = context_.file();
    options.open = open;
    options.busy_timeout = std::chrono::duration_cast<Duration>(std::chrono::duration<double>(context_.wait));
    if (!options.log) options.log = std::move(log);
    detail::Access::move_to(*app_, std::move(options), only);
    return *app_;
}

const detail::Definition& Application::reactor(std::string_view name) const {
    std::vector<std::string> names;
    for (const auto* definition : definitions()) {
        if (definition->name == name) return *definition;
        names.push_back(definition->name);
    }
    throw Failed(Exit::not_found, "there is no reactor '" + std::string(name) + "' in this application, but " +
                                      listed(names) + did_you_mean(name, names));
}

const TypeInfo& Application::type(std::string_view name) const {
    if (const auto* info = registry().find(name)) return *info;
    std::vector<std::string> names;
    for (const auto* info : registry().types()) names.push_back(info->name);
    throw Failed(Exit::not_found, "there is no type '" + std::string(name) +
                                      "' in this application; `schema` lists its types" + did_you_mean(name, names));
}

}  // namespace sourced::inspector
