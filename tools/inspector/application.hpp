// An application's types: how the inspector comes to them.
#pragma once

#include "inspector.hpp"

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace sourced::inspector {

/// The application whose types a command needs, the one that was linked in (sourced::inspect) or the one that --app
/// has loaded: an App with its reactors, in memory unless the program that linked it has put it on a file.
///
///     const Application application(context);
///     for (const auto* definition : application.definitions()) ...
///
/// A library stays loaded until the program ends.
class Application {
public:
    /// Throws Failed(usage) when there is neither, naming both ways, and when there are both; Failed when the library
    /// cannot be loaded, saying what to do.
    explicit Application(Context& context);

    [[nodiscard]] App& app() const noexcept { return *app_; }
    [[nodiscard]] const Registry& registry() const { return app_->registry(); }
    /// Of all reactors, in the order they were added.
    [[nodiscard]] std::vector<const detail::Definition*> definitions() const;
    /// The reactor of this name. Throws Failed(not_found), with the names there are.
    [[nodiscard]] const detail::Definition& reactor(std::string_view name) const;
    /// A type by name or alias. Throws Failed(not_found), with the name that may be meant.
    [[nodiscard]] const TypeInfo& type(std::string_view name) const;

    /// The App on the file, for looking: nothing is registered, installed or written. The Context's own Store stays
    /// as it is. An App that is on a file already is given as it is.
    [[nodiscard]] App& look();
    /// The App on the file, for changing: its reactors, or only these, are added as when the application starts, with
    /// what they register and install. An App that is on a file already is given as it is. What it has to say goes to
    /// `log`, unless the application has a place for that.
    [[nodiscard]] App& change(const std::vector<std::string>& only = {},
                              std::function<void(const LogRecord&)> log = {}) const;

private:
    App& move_to_file(Open open, const std::vector<std::string>& only,
                      std::function<void(const LogRecord&)> log) const;

    Context& context_;
    std::unique_ptr<App> loaded_;
    App* app_ = nullptr;
};

}  // namespace sourced::inspector
