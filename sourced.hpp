// sourced: an embedded event-sourcing and CQRS engine for C++20.
//
// Contents, each section using only those above it:
//
//   Messages     commands and events, their envelope, their JSON
//   Streams      how messages are appended, read and reached by SQL
//   Handlers     what all reactors have in common, and what becomes of their errors
//   Actors       state, commands, events, reactions
//   Projectors   read models
//   Reactors     simple handlers, and the interface under all of them
//   Workflows    functions whose steps are recorded and never run twice
//   Store        the log, the schedule, and how groups get through them
//   Verify       is the file what it promises to be?
//   App          reactors, a store and the threads that bring them together
//   Topology     what a program consists of, as data and as a picture
//   Testing      given / when / then, for one reactor and for several
//   Inspector    the command line tool, with a program's own types
//
// The smallest program (samples/smallest.cpp, shortened):
//
//   struct Deposit { int pounds = 0; SOURCED_COMMAND("account.deposit", pounds) };
//   struct Deposited { int pounds = 0; SOURCED_EVENT("account.deposited", pounds) };
//
//   struct Account : sourced::Actor<int> {  // its state: the balance
//       Account() : Actor("account") {
//           command([](int, const Deposit& deposit) { return Deposited{deposit.pounds}; });
//           event([](int& balance, const Deposited& deposited) { balance += deposited.pounds; });
//       }
//   };
//
//   int main() {
//       sourced::App app({.path = "bank.db"});
//       app.add<Account>();
//       app.dispatch("account-joe", Deposit{20});
//       app.run_until_idle();
//       return app.load<Account>("account-joe").state == 20 ? 0 : 1;
//   }
//
// First what a user needs, with its contracts; then template bodies in the same
// order; then, under SOURCED_IMPLEMENTATION (which sourced_sqlite.cpp defines),
// everything else.
#pragma once

// Only cereal's core, the description of a type by one `serialize`: its JSON archive is not used.
#include <cereal/cereal.hpp>

#include <array>
#include <atomic>
#include <chrono>
#include <compare>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <initializer_list>
#include <iosfwd>
#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <typeinfo>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <variant>
#include <vector>

#if defined(__GNUC__)
#define SOURCED_API __attribute__((visibility("default")))
#else
#define SOURCED_API
#endif

// =============================================================================
// Messages: commands and events, their envelope, their JSON
// =============================================================================

namespace sourced {

/// Points in time are microseconds UTC, everywhere.
using Time = std::chrono::sys_time<std::chrono::microseconds>;
using Duration = std::chrono::microseconds;

namespace detail {
/// A time of another precision, rounded up; one that Time cannot hold is the first or the last that it can.
template <class Precision>
[[nodiscard]] Time rounded_up(std::chrono::sys_time<Precision> time) {
    constexpr double most = 9.2e18;
    const std::chrono::duration<double, std::micro> wide(time.time_since_epoch());
    if (wide.count() >= most) return Time::max();
    if (wide.count() <= -most) return Time::min();
    return std::chrono::ceil<Duration>(time);
}
}  // namespace detail

// ---- Errors -------------------------------------------------------------------

/// The base of everything the engine throws. The text says what was tried, on
/// what, and what was found.
struct SOURCED_API Error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// A stream was no longer at the seq a writer expected. Nothing was written.
struct SOURCED_API Conflict : Error {
    using Error::Error;
};

/// One thing that is wrong with a value: where, as a JSON pointer ("" is the
/// whole value), and what.
///
///     /items/1/price: expected integer, got "x"
struct Problem {
    std::string path{};
    std::string text{};

    [[nodiscard]] bool operator==(const Problem&) const = default;
};
using Problems = std::vector<Problem>;

/// What was given does not obey its rules. The text lists every problem.
struct SOURCED_API Invalid : Error {
    explicit Invalid(const std::string& text) : Error(text), problems_{Problem{{}, text}} {}
    /// `what` names what was tried, on what.
    Invalid(std::string_view what, Problems problems);

    [[nodiscard]] const Problems& problems() const noexcept { return problems_; }

private:
    Problems problems_;
};

/// A stored payload cannot be read as the type somebody needs.
struct SOURCED_API Undecodable : Error {
    explicit Undecodable(const std::string& text) : Error(text), problems_{Problem{{}, text}} {}
    Undecodable(std::string_view what, Problems problems);

    [[nodiscard]] const Problems& problems() const noexcept { return problems_; }

private:
    Problems problems_;
};

/// A type name, or a reactor, that the App does not know.
struct SOURCED_API NotRegistered : Error {
    using Error::Error;
};

/// The file or the disk under it. What was being done can be tried again once the cause is gone.
struct SOURCED_API StoreError : Error {
    using Error::Error;
};

/// Another process, or another connection of this one, held the lock on the file for too long.
struct SOURCED_API Busy : StoreError {
    using StoreError::StoreError;
};

// ---- Ids ----------------------------------------------------------------------

class IdSource;

/// A UUID of 16 bytes; nil unless made. Fresh ones are of version 7: they sort
/// by the millisecond they were made in, and within one thread by their order.
class SOURCED_API Id {
public:
    using Bytes = std::array<std::uint8_t, 16>;

    constexpr Id() noexcept = default;
    constexpr explicit Id(const Bytes& bytes) noexcept : bytes_(bytes) {}

    /// A fresh id, from the system's clock and a random generator of this thread.
    [[nodiscard]] static Id make();
    /// A fresh id from an injected clock and source.
    [[nodiscard]] static Id make(Time time, IdSource& source);
    /// Reads `01890a5d-ac96-774b-bcce-b302099a8057`, upper or lower case. Throws Invalid.
    [[nodiscard]] static Id parse(std::string_view text);

    [[nodiscard]] std::string to_string() const;
    [[nodiscard]] constexpr const Bytes& bytes() const noexcept { return bytes_; }
    [[nodiscard]] bool is_nil() const noexcept { return *this == Id(); }
    /// The millisecond in a version 7 id.
    [[nodiscard]] Time time() const noexcept;

    [[nodiscard]] bool operator==(const Id&) const noexcept = default;
    [[nodiscard]] auto operator<=>(const Id&) const noexcept = default;

private:
    Bytes bytes_{};
};

/// Where the random part of ids comes from: the same seed gives the same ids.
///
///     IdSource source(42);
///     Id id = Id::make(clock(), source);
///
/// Ids of one source ascend, also when the clock stands or goes back. For one thread at a time.
class SOURCED_API IdSource {
public:
    /// Seeded by the system.
    IdSource();
    explicit IdSource(std::uint64_t seed) noexcept;

    /// The next random number.
    [[nodiscard]] std::uint64_t next() noexcept;

private:
    friend class Id;
    std::uint64_t state_ = 0;
    std::uint64_t millisecond_ = 0;
    std::uint64_t high_ = 0;  // 12 bits behind the time
    std::uint64_t low_ = 0;   // 62 bits
};

/// A fresh stream id: `cart-` and a UUID, or the UUID alone without a prefix.
[[nodiscard]] SOURCED_API std::string new_stream_id(std::string_view prefix = {});

// ---- Metadata -----------------------------------------------------------------

/// A JSON object of facts about a message: who, from where, by which program.
/// Kept as text; empty metadata holds no memory.
///
///     message.metadata.set("user_id", 10);
///
/// Safe to read from many threads.
class SOURCED_API Metadata {
public:
    Metadata() = default;
    /// Takes a JSON object, kept as it is once it was found valid. Throws Invalid
    /// for anything else, keys that stand twice included.
    [[nodiscard]] static Metadata parse(std::string_view json);

    Metadata& set(std::string_view key, std::string_view value);
    Metadata& set(std::string_view key, const char* value) { return set(key, std::string_view(value)); }
    template <class T>
        requires std::is_arithmetic_v<T>
    Metadata& set(std::string_view key, T value);
    /// Takes any JSON text as the value.
    Metadata& set_json(std::string_view key, std::string_view json);

    /// A string as it is, anything else as its JSON text; nothing when the key is not there.
    [[nodiscard]] std::optional<std::string> get(std::string_view key) const;
    [[nodiscard]] bool has(std::string_view key) const { return get(key).has_value(); }
    /// In order of appearance.
    [[nodiscard]] std::vector<std::string> keys() const;
    [[nodiscard]] bool empty() const noexcept { return json_.empty(); }

    /// This metadata with `own` laid over it: own keys win.
    [[nodiscard]] Metadata merged_under(const Metadata& own) const;

    /// `{}` when empty.
    [[nodiscard]] const std::string& json() const noexcept;
    /// The same keys with the same values, in any order.
    [[nodiscard]] bool operator==(const Metadata& other) const;

private:
    void put(std::string_view key, std::string_view json);
    void set_integer(std::string_view key, std::int64_t value);
    void set_unsigned(std::string_view key, std::uint64_t value);
    void set_real(std::string_view key, double value);
    void set_bool(std::string_view key, bool value);

    std::string json_;
};

// ---- The codec: JSON from and to C++ types --------------------------------------

/// How outside or stored text is read.
enum class Reading {
    tolerant,  ///< stored facts: unknown fields are ignored, absent ones keep the member's default, rules are not asked
    strict     ///< input: unknown fields and broken rules are problems
};

/// What is refused before it costs memory or stack.
struct Limits {
    std::size_t depth = 64;
    std::size_t bytes = 16u << 20;
};

/// One rule of a field, see `Rules`.
struct SOURCED_API Rule {
    enum class What { at_least, at_most, length, required, matches, lax };
    What what = What::required;
    std::int64_t least = 0;  ///< also the bound of at_least and at_most, where it is an integer
    std::int64_t most = 0;
    double real = 0;
    bool is_real = false;
    std::string pattern{};

    template <class N>
    void bound(N value) {
        real = static_cast<double>(value);
        if constexpr (std::is_integral_v<N>) is_real = !std::in_range<std::int64_t>(value);
        else is_real = true;
        if (!is_real) least = static_cast<std::int64_t>(value);
    }
};

/// Numbers: the smallest and the greatest value that is allowed.
template <class N>
    requires std::is_arithmetic_v<N>
[[nodiscard]] Rule at_least(N least) {
    Rule rule{Rule::What::at_least};
    rule.bound(least);
    return rule;
}
template <class N>
    requires std::is_arithmetic_v<N>
[[nodiscard]] Rule at_most(N most) {
    Rule rule{Rule::What::at_most};
    rule.bound(most);
    return rule;
}
/// Strings: how many characters (code points); arrays: how many elements.
[[nodiscard]] inline Rule length(std::int64_t least, std::int64_t most = std::numeric_limits<std::int64_t>::max()) {
    return Rule{Rule::What::length, least, most};
}
/// The whole string matches a pattern of literals, `.`, `[a-z]`, `[^a-z]`, `\d \w \s`, groups, `|`, `* + ? {m,n}`.
/// Takes time linear in the string, whatever the pattern. A pattern that cannot be read throws Error.
[[nodiscard]] inline Rule matches(std::string_view pattern) {
    return Rule{Rule::What::matches, 0, 0, 0, false, std::string(pattern)};
}
/// The field may not be left out, nor be an empty string or null.
inline const Rule required{Rule::What::required};
/// Takes "12" for 12, "true" for true, and 12 for "12".
inline const Rule lax{Rule::What::lax};

/// The rules of one field by its name.
struct FieldRules {
    template <std::same_as<Rule>... R>
    FieldRules(std::string_view name, R... list) : field(name), rules{std::move(list)...} {}

    std::string field;
    std::vector<Rule> rules;
};

/// Rules for the fields of a type, given by its static function `rules`:
///
///     struct AddItem {
///         std::string product_id;
///         int price = 0;
///
///         SOURCED_COMMAND("cart.add_item", product_id, price)
///         static sourced::Rules rules() {
///             using namespace sourced;
///             return {{"product_id", required, length(1, 40)}, {"price", at_least(0), lax}};
///         }
///     };
///
/// They are asked when text is read strictly and when a message is made of the type,
/// never for stored facts. A name that is no field throws Error at first use.
using Rules = std::vector<FieldRules>;

namespace detail {
class JsonReader;
class JsonWriter;
class JsonSchema;
struct RuleSet;
template <class T>
[[nodiscard]] bool has_rules();
}  // namespace detail

/// A value with rules of its own, to be used in many types under a name of your own.
///
///     struct CorporateEmailRules {
///         static void coerce(std::string& text);                              // optional: before the check
///         static std::optional<std::string> check(const std::string& text);   // optional: what is wrong
///         static std::vector<sourced::Rule> rules() { return {sourced::length(3, 200)}; }          // optional
///         static constexpr std::string_view schema = R"({"type":"string","format":"email"})";      // optional
///     };
///     using CorporateEmail = sourced::Checked<std::string, CorporateEmailRules>;
///
/// In JSON it is its value. Checked like Rules; reading stored facts neither checks nor coerces.
template <class T, class R>
class Checked {
public:
    using value_type = T;
    using rules_type = R;

    Checked() = default;
    template <class U>
        requires(std::constructible_from<T, U> && !std::same_as<std::remove_cvref_t<U>, Checked>)
    Checked(U&& value) : value_(std::forward<U>(value)) {}

    [[nodiscard]] const T& get() const noexcept { return value_; }
    [[nodiscard]] T& get() noexcept { return value_; }
    operator const T&() const noexcept { return value_; }
    const T* operator->() const noexcept { return &value_; }
    [[nodiscard]] bool operator==(const Checked&) const = default;

private:
    T value_{};
};

/// The JSON of a value.
///
/// Takes arithmetic types, strings, enums, `std::byte` vectors and arrays (base64), vectors, lists, arrays,
/// sets, maps with string keys, pairs and tuples, optionals, variants (`{"tag":...,"value":...}`, where the tag is the
/// type's declared name or else its index), time points (RFC 3339, UTC), durations (count of their own unit), Id,
/// Checked, and structs with SOURCED_COMMAND, SOURCED_EVENT, SOURCED_VALUE or cereal's `serialize`.
/// Integers are exact up to 64 bits; doubles are written as short as reads back the same.
/// Throws Invalid, with the path, for what JSON cannot hold: text that is no UTF-8, NaN, infinities, years
/// outside 0 to 9999, nesting deeper than 64.
template <class T>
[[nodiscard]] std::string encode(const T& value);

/// The value of JSON text. Throws Invalid with every problem found, up to 100; a value is given whole or not at all.
template <class T>
[[nodiscard]] T decode(std::string_view json, Reading reading = Reading::tolerant, const Limits& limits = {});

/// A JSON Schema (2020-12) of the type and its rules, as JSON text.
template <class T>
[[nodiscard]] std::string json_schema();

// ---- Declaring messages ---------------------------------------------------------

/// Commands ask for something, events state what has happened.
enum class Kind { command, event };

/// Makes a plain struct a command, or an event, under a durable name. It stands
/// last in the struct and lists every field in order; one that is left out does not compile.
/// The struct stays an aggregate.
///
///     struct AddItem {
///         std::string product_id;
///         int price = 0;
///
///         SOURCED_COMMAND("cart.add_item", product_id, price)
///         static constexpr int sourced_schema = 2;                                     // optional, else 1
///         static constexpr std::array<std::string_view, 1> sourced_aliases{"cart.add"};   // optional: old names
///     };
///
/// The long form, for types whose fields need more than a list:
///
///     static constexpr std::string_view sourced_type = "cart.add_item";
///     static constexpr sourced::Kind sourced_kind = sourced::Kind::command;
///     template <class Archive>
///     void serialize(Archive& archive) { archive(CEREAL_NVP(product_id), CEREAL_NVP(price)); }
#define SOURCED_COMMAND(...) SOURCED_PRIVATE_MESSAGE(command, __VA_ARGS__)
#define SOURCED_EVENT(...) SOURCED_PRIVATE_MESSAGE(event, __VA_ARGS__)

/// The same for structs that are part of messages or of states.
///
///     struct Price {
///         std::int64_t amount = 0;
///         std::string currency = "EUR";
///
///         SOURCED_VALUE(amount, currency)
///     };
#define SOURCED_VALUE(...) SOURCED_PRIVATE_FIELDS("", __VA_ARGS__)

/// Writes an enum by names instead of numbers. Stands at namespace scope, beside the enum.
///
///     enum class Status { open, closed };
///     SOURCED_ENUM(Status, open, closed)
#define SOURCED_ENUM(Type, ...)                                                                                      \
    [[maybe_unused]] constexpr auto sourced_enum_names(const Type*) {                                                \
        using enum Type;                                                                                             \
        constexpr Type values[] = {__VA_ARGS__};                                                                     \
        return ::sourced::detail::enum_names<std::size(values)>("\"\", " #__VA_ARGS__, values);                      \
    }

#define SOURCED_PRIVATE_FIRST_OF(first, ...) first
#define SOURCED_PRIVATE_REST_OF(first, ...) __VA_OPT__(MANY)
#define SOURCED_PRIVATE_GLUE(left, right) left##right
#define SOURCED_PRIVATE_CALL(left, right) SOURCED_PRIVATE_GLUE(left, right)
#define SOURCED_PRIVATE_BIND_(name)
#define SOURCED_PRIVATE_BIND_MANY(name, ...) [[maybe_unused]] const auto& [__VA_ARGS__] = self;
#define SOURCED_PRIVATE_MESSAGE(kind, ...)                                                                           \
    [[maybe_unused]] static constexpr ::std::string_view sourced_type = SOURCED_PRIVATE_FIRST_OF(__VA_ARGS__, );     \
    [[maybe_unused]] static constexpr ::sourced::Kind sourced_kind = ::sourced::Kind::kind;                          \
    SOURCED_PRIVATE_FIELDS(__VA_ARGS__)
#define SOURCED_PRIVATE_FIELDS(...)                                                                                  \
    [[maybe_unused]] static constexpr ::std::string_view sourced_fields = #__VA_ARGS__;                              \
    template <class SourcedSelf>                                                                                     \
    static constexpr void sourced_complete([[maybe_unused]] const SourcedSelf& self) {                               \
        SOURCED_PRIVATE_CALL(SOURCED_PRIVATE_BIND_, SOURCED_PRIVATE_REST_OF(__VA_ARGS__, ))(__VA_ARGS__)             \
    }                                                                                                                \
    template <class SourcedArchive>                                                                                  \
    void serialize(SourcedArchive& sourced_archive) {                                                                \
        sourced_complete(*this);                                                                                     \
        ::sourced::detail::serialize_fields(sourced_archive, *this, __VA_ARGS__);                                    \
    }

/// Whether T is declared as a command or an event.
template <class T>
concept is_message = requires {
    { T::sourced_type } -> std::convertible_to<std::string_view>;
    { T::sourced_kind } -> std::convertible_to<Kind>;
};

template <is_message T>
[[nodiscard]] constexpr std::string_view message_type() noexcept { return T::sourced_type; }
template <is_message T>
[[nodiscard]] constexpr Kind message_kind() noexcept { return T::sourced_kind; }
/// The version of the payload's shape, 1 unless declared.
template <is_message T>
[[nodiscard]] constexpr int message_schema() noexcept;
/// Names the type had before.
template <is_message T>
[[nodiscard]] std::vector<std::string> message_aliases();

// ---- Envelope and message ---------------------------------------------------------

/// Everything about a message but what it says.
struct Envelope {
    Id id{};
    std::string stream{};
    std::int64_t seq = 0;       ///< its number in the stream; 0: not stored yet
    std::int64_t position = 0;  ///< its number in the log; 0: not stored yet
    std::string type{};
    Kind kind = Kind::event;
    int schema = 1;
    Id causation{};    ///< the message it follows from; its own id for a first one
    Id correlation{};  ///< the first message of all that follow from each other
    Time recorded_at{};
    Time occurred_at{};  ///< when it happened in the world; zero: when it was recorded
    Metadata metadata{};

    [[nodiscard]] bool operator==(const Envelope&) const = default;
};

/// A message: its envelope, and its payload as JSON text.
///
///     Message message = Message(AddItem{"p1", 1000, 2}).to("cart-1");
///     int price = message.as<AddItem>().price;
///
/// Any command or event struct converts to it. A value: what changes it gives a changed copy.
struct SOURCED_API Message : Envelope {
    Message() = default;
    /// A fresh message, its own cause and correlation. Throws Invalid when the value breaks
    /// its own rules or cannot be written.
    template <class T>
        requires is_message<std::remove_cvref_t<T>>
    Message(const T& value);

    /// The payload as T. Throws Undecodable when the message is of another type (aliases of T count as
    /// T), was erased, or cannot be read; the text names stream, seq, type and every problem.
    template <class T>
    [[nodiscard]] T as() const;
    /// Whether the type name is T's, or one of its aliases.
    template <is_message T>
    [[nodiscard]] bool is() const;

    [[nodiscard]] Message to(std::string_view other_stream) const&;
    [[nodiscard]] Message to(std::string_view other_stream) &&;
    /// The same for anything that has a stream.
    [[nodiscard]] Message to(const Envelope& other) const { return to(std::string_view(other.stream)); }
    /// Happened at `time`. Throws Invalid when that is before the time it has already.
    [[nodiscard]] Message at(Time time) const;
    /// Happened at `time`, whatever stood there.
    [[nodiscard]] Message occurred(Time time) const;
    /// Another id; a message that was its own cause or correlation stays so.
    [[nodiscard]] Message with_id(const Id& other_id) const;
    [[nodiscard]] Message with_seq(std::int64_t other_seq) const;
    [[nodiscard]] Message with_metadata(const Metadata& other_metadata) const;

    /// What follows from `cause`: its id as causation, its correlation, its metadata under
    /// the own one, its stream unless this message has one.
    [[nodiscard]] Message caused_by(const Envelope& cause) const&;
    [[nodiscard]] Message caused_by(const Envelope& cause) &&;
    /// The message that follows from this one, in the same stream unless it has one.
    [[nodiscard]] Message follow(Message next) const { return std::move(next).caused_by(*this); }

    std::string payload{};
    std::optional<Time> erased_at{};  ///< the payload is gone since then

    /// Equal in everything, ids and times included.
    [[nodiscard]] bool operator==(const Message&) const = default;

private:
    void begin(std::string_view name, Kind message_kind, int version);
    [[noreturn]] void cannot_read(std::string_view as_type, Problems problems) const;
};

/// `{ItemAdded{"p1", 1000, 2}, CheckedOut{}}`
using Messages = std::vector<Message>;

// ---- Registry -----------------------------------------------------------------------

/// What an App knows of a message type.
struct TypeInfo {
    std::string name{};
    Kind kind = Kind::event;
    int schema = 1;
    std::vector<std::string> aliases{};
    /// The JSON Schema of the payload.
    std::string (*json_schema)() = nullptr;
    /// What is wrong with a payload; none: it can be read.
    Problems (*check)(std::string_view json, Reading reading, const Limits& limits) = nullptr;
    /// The payload as the type itself writes it, lax values and all; what is wrong with it, read strictly, goes to
    /// `problems`.
    std::string (*normal)(std::string_view json, const Limits& limits, Problems& problems) = nullptr;
    const std::type_info* cpp_type = nullptr;
};

/// The message types of an App, found by name.
///
/// Filled while the App is set up; from then on safe to read from many threads.
class SOURCED_API Registry {
public:
    /// Adds a type under its name and aliases; again is no error. Throws Error when another
    /// C++ type has one of the names.
    template <is_message T>
    const TypeInfo& add();

    /// By name or alias, of one kind when given; null when unknown.
    [[nodiscard]] const TypeInfo* find(std::string_view name, std::optional<Kind> kind = {}) const;
    /// The same; throws NotRegistered naming the type.
    [[nodiscard]] const TypeInfo& get(std::string_view name, std::optional<Kind> kind = {}) const;
    [[nodiscard]] std::vector<const TypeInfo*> types() const;

    /// A fresh message from outside data. The payload is taken as it is: ask `problems`.
    /// An empty payload is `{}`. Throws NotRegistered for an unknown type, or one not of `kind`.
    [[nodiscard]] Message revive(std::string_view name, std::string_view stream, std::string_view payload,
                                 std::optional<Kind> kind = {}) const;
    /// Everything that is wrong with a message, read strictly: "/stream" when it has none, "/payload/price: ...".
    [[nodiscard]] Problems problems(const Message& message, const Limits& limits = {}) const;
    /// Throws Invalid when there are problems, NotRegistered for an unknown type.
    void check(const Message& message, const Limits& limits = {}) const;

private:
    const TypeInfo& do_add(TypeInfo info);

    std::vector<std::unique_ptr<TypeInfo>> types_;
    std::unordered_map<std::string, const TypeInfo*> names_;  // aliases too
};

namespace detail {

template <std::size_t N, class E>
struct EnumNames {
    std::array<std::string_view, N> names{};
    std::array<E, N> values{};
};
template <std::size_t N>
constexpr std::array<std::string_view, N> split_names(std::string_view text);
template <std::size_t N, class E>
constexpr EnumNames<N, E> enum_names(std::string_view text, const E (&values)[N]);
template <class Archive, class Self, class... Members>
void serialize_fields(Archive& archive, Self& self, const char* name, Members&... members);

}  // namespace detail

}  // namespace sourced

template <>
struct std::hash<sourced::Id> {
    [[nodiscard]] std::size_t operator()(const sourced::Id& id) const noexcept {
        std::uint64_t low = 0;
        std::memcpy(&low, id.bytes().data() + 8, sizeof low);
        std::uint64_t high = 0;
        std::memcpy(&high, id.bytes().data(), sizeof high);
        return static_cast<std::size_t>(low ^ (high * 0x9E3779B97F4A7C15u));
    }
};
// =============================================================================
// Streams: how messages are appended, read and reached by SQL
// =============================================================================

namespace SQLite {
class Database;
}

namespace sourced {

/// What a writer expects of a stream before it appends: nothing, or that its
/// last seq is exactly this one (0: the stream has no message yet).
///
///     store.append("cart-1", {CheckedOut{}}, expect_seq(3));
struct Expect {
    std::int64_t seq = -1;  ///< -1: anything goes
};
inline constexpr Expect any_seq{};
[[nodiscard]] constexpr Expect expect_seq(std::int64_t seq) { return Expect{seq}; }

/// Messages for one stream, as one part of an append to several.
struct Append {
    std::string stream;
    Messages messages;
    Expect expect = any_seq;
};

/// Where an append went. With no message in it all numbers are 0.
struct Appended {
    std::int64_t first_seq = 0;
    std::int64_t last_seq = 0;
    std::int64_t first_position = 0;
    std::int64_t last_position = 0;
    Time recorded_at{};
    bool repeated = false;  ///< the same messages were there already: the first result is given again
};

/// Which part of a stream to read. Both ends are included.
struct StreamRange {
    std::int64_t from = 1;
    std::int64_t to = std::numeric_limits<std::int64_t>::max();
    std::size_t limit = std::numeric_limits<std::size_t>::max();
    bool backwards = false;
};

/// Which part of the log to read. Empty filters let everything pass.
struct LogRange {
    std::int64_t from = 1;  ///< first position, included
    std::int64_t to = std::numeric_limits<std::int64_t>::max();
    std::vector<std::string> types{};
    std::string stream{};
    std::size_t limit = std::numeric_limits<std::size_t>::max();
    bool backwards = false;
    Id correlation{};  ///< only the first message of this id and what follows from it; found without reading others
};

/// Takes one message after the other; `false` ends the reading. The message is
/// reused for the next row: move out of it or copy what shall stay.
using Visit = std::function<bool(Message&)>;

/// A stream's name, its last seq, and when that was recorded.
struct StreamInfo {
    std::string name;
    std::int64_t seq = 0;
    Time updated_at{};
};

/// Which streams to list.
///
///     store.streams({.pattern = "invoice-*", .order = StreamQuery::Order::seq, .limit = 20})
struct StreamQuery {
    enum class Order {
        updated,  ///< those changed last first
        seq,      ///< those with most messages first
        name      ///< by the bytes of their names
    };
    /// A glob that fits the whole name: `*` any bytes, `?` one character, `[a-c]` one of these, `[^a-c]` none of these;
    /// `[*]` is a star. Empty: every name.
    std::string pattern{};
    Order order = Order::updated;
    std::size_t limit = 100;
};

/// A message type of the file.
struct TypeCount {
    std::string name;
    std::optional<Kind> kind{};  ///< nothing when no message had it yet
    std::int64_t messages = 0;   ///< that have it
    bool estimated = false;      ///< `messages` is about right, from a sample; 0: too few to be in it
};

/// The file and what reads it.
struct FileInfo {
    std::string path{};           ///< empty: in memory
    std::int64_t bytes = 0;       ///< without the WAL
    std::int64_t wal_bytes = 0;   ///< of the write-ahead log beside it, which does not shrink while it is in use
    std::int64_t page_size = 0;   ///< bytes
    std::int64_t schema = 0;      ///< version of the engine's tables
    std::string sqlite{};         ///< version of the SQLite that reads it
    std::string store_id{};       ///< made with the file, and the same in its copies
};

/// A message that waits for its time.
struct Scheduled {
    Time due_at{};
    Message message;
};

/// What came of changing one scheduled message.
enum class ScheduleChange {
    done,
    has_run,  ///< too late: the message is in the log
    unknown   ///< no message of this id waits, and none is in the log
};

/// What is sent again and again under a name.
struct Recurring {
    std::string name;
    Duration every{};
    /// The time of one occurrence, past or to come, that all others are counted from. Without it the first comes
    /// one interval after it was declared.
    std::optional<Time> first{};
    Message message{};  ///< stream, type, payload and metadata of each occurrence; their ids are fresh
    Time next{};        ///< of the occurrence that waits; filled by the store, as is its id
    Id next_id{};
};

// ---- SQL on the same file -----------------------------------------------------

/// A value bound to SQL or read from it.
using Value = std::variant<std::nullptr_t, std::int64_t, double, std::string>;

/// One row of a result. Columns are counted from 0.
///
/// Getters convert as SQLite does; a null reads as 0, 0.0 or "".
/// Throws StoreError for a column that is not there.
class Row {
public:
    explicit Row(std::vector<Value> values) : values_(std::move(values)) {}

    [[nodiscard]] SOURCED_API std::int64_t integer(std::size_t column) const;
    [[nodiscard]] SOURCED_API double real(std::size_t column) const;
    [[nodiscard]] SOURCED_API std::string text(std::size_t column) const;
    [[nodiscard]] SOURCED_API bool is_null(std::size_t column) const;
    [[nodiscard]] std::size_t size() const noexcept { return values_.size(); }

private:
    std::vector<Value> values_;
};

namespace detail {
template <class T>
Value to_value(const T& argument);
class Building;
}  // namespace detail

/// Read access to the file's tables, the engine's and your own.
///
///     auto row = db.row("select total from carts where id = ?", id);
///
/// Valid only inside the call that handed it out, on that thread. Statements
/// are prepared once and kept. Throws StoreError with the SQL and SQLite's text.
class Reader {
public:
    Reader() = default;
    Reader(const Reader&) = delete;
    Reader& operator=(const Reader&) = delete;
    virtual ~Reader() = default;

    /// All rows of a query; arguments are integers, bools, doubles, text,
    /// optionals and nullptr, bound in order.
    template <class... Arguments>
    [[nodiscard]] std::vector<Row> query(std::string_view sql, const Arguments&... arguments) {
        return do_query(sql, {detail::to_value(arguments)...});
    }

    /// The first row, or nothing.
    template <class... Arguments>
    [[nodiscard]] std::optional<Row> row(std::string_view sql, const Arguments&... arguments) {
        auto rows = do_query(sql, {detail::to_value(arguments)...});
        if (rows.empty()) return std::nullopt;
        return std::move(rows.front());
    }

    /// The name to use for a table of a reactor's own: `name` itself, but while a read model is built anew beside the
    /// one that is read (App::rebuild), that of the table that is built.
    ///
    ///     db.execute("insert or replace into " + db.table("totals") + " values (?, ?)", id, sum);
    [[nodiscard]] SOURCED_API std::string table(std::string_view name);

protected:
    virtual std::vector<Row> do_query(std::string_view sql, const std::vector<Value>& arguments) = 0;

    friend class detail::Building;
    detail::Building* building_ = nullptr;
};

/// A write transaction of the engine that user code may take part in: what is
/// written through it is committed together with the engine's own rows, or not
/// at all. The write lock is held meanwhile, so be short.
///
/// BEGIN, COMMIT, ROLLBACK, SAVEPOINT, ATTACH and writing to `sourced_*` tables
/// are refused. A call into the store or the App from inside, on the same thread,
/// throws Error.
class Transaction : public Reader {
public:
    /// Runs one statement that changes something; gives the number of changed rows.
    template <class... Arguments>
    std::int64_t execute(std::string_view sql, const Arguments&... arguments) {
        if (building_) note_write();
        return do_execute(sql, {detail::to_value(arguments)...});
    }

    /// Appends inside this transaction, as Store::append does.
    virtual Appended append(std::string_view stream, const Messages& messages, Expect expect = any_seq) = 0;

protected:
    virtual std::int64_t do_execute(std::string_view sql, const std::vector<Value>& arguments) = 0;
    friend SQLite::Database& database(Transaction& transaction);
    virtual SQLite::Database& do_database() = 0;

private:
    SOURCED_API void note_write() noexcept;
};

/// The connection under a transaction, for those who include SQLiteCpp.
[[nodiscard]] SOURCED_API SQLite::Database& database(Transaction& transaction);

/// A connection of your own to a file of the engine, for reading and for tables of your own, for those who include
/// SQLiteCpp. It never checkpoints by itself: SQLite 3.7.0 to 3.51.2 can damage a file when a checkpoint
/// meets a commit that restarts the log. Throws StoreError when there is no such file.
[[nodiscard]] SOURCED_API std::unique_ptr<SQLite::Database> open_connection(const std::string& path);

}  // namespace sourced

// =============================================================================
// Handlers: what all reactors have in common, and what becomes of their errors
// =============================================================================

namespace sourced {

class Batch;
class Results;

/// Where a group begins when it is first stored; evaluated once.
struct Start {
    enum class From { beginning, now, position, time, ago };
    From from = From::beginning;
    std::int64_t position = 0;  ///< the first position to be delivered; less than 1 is the beginning
    Time time{};                ///< the first message recorded at or after it
    Duration before{};          ///< the same, for the time that lies so far back

    [[nodiscard]] static Start beginning() { return {}; }
    [[nodiscard]] static Start now() { return {From::now, 0, {}, {}}; }
    [[nodiscard]] static Start at(std::int64_t position) { return {From::position, position, {}, {}}; }
    [[nodiscard]] static Start at(Time time) { return {From::time, 0, time, {}}; }
    /// So long before the time at which it is evaluated, by the App's clock; Duration::max() is before everything.
    [[nodiscard]] static Start ago(Duration before) { return {From::ago, 0, {}, before}; }
};

// ---- What becomes of a message that cannot be handled -------------------------------

/// What an ErrorStrategy is told: a handler threw, a payload could not be read, or processes died over a message.
///
/// `error` is the very exception, so that a strategy can rethrow and catch it by its type.
struct Fault {
    std::exception_ptr error;
    std::string type;        ///< of the exception, as C++ writes it
    std::string text;        ///< what it says
    const Message& message;  ///< the message that was being handled, or folded into a state
    std::string group;
    int attempt = 1;  ///< 1 for the first failure at this message, then 2, 3, ...; a success begins anew
    int deaths = 0;   ///< not 0: nothing was thrown; so many processes died over the message, more than Options::deaths
    Time at{};        ///< when, by the App's clock
};

/// What is to be done about a fault.
///
///     return Resolution::retry(fault.at + 5s);
///
/// While a stream waits for its retry or is parked, the other streams of the group go on.
struct Resolution {
    enum class Verb {
        retry,  ///< try the message again at `at`
        stop,   ///< stop the group; started again, it goes on with this message
        park,   ///< leave the stream alone, later messages too, until App::retry_stream or App::skip_message
        skip    ///< pass the message over, and record that; see Store::skip_message for what states are folded from
    };
    Verb verb = Verb::stop;
    Time at{};
    std::string reason{};  ///< kept with a stop, a parked stream, a skipped message; empty: what the exception said
    /// Called once the resolution is committed, by the process that did it; what it throws is logged.
    std::function<void(const Fault&)> recorded{};

    [[nodiscard]] SOURCED_API static Resolution retry(Time at);
    [[nodiscard]] SOURCED_API static Resolution stop(std::string_view reason = {});
    [[nodiscard]] SOURCED_API static Resolution park(std::string_view reason = {});
    [[nodiscard]] SOURCED_API static Resolution skip(std::string_view reason = {});
    /// The same with `work` as `recorded`.
    [[nodiscard]] SOURCED_API Resolution when_recorded(std::function<void(const Fault&)> work) &&;
};

/// Thrown by a handler it parks the stream at once, whatever the strategy says.
struct SOURCED_API Park : Error {
    using Error::Error;
};

/// Tries a failing message again, `times` times, and then gives up on it.
///
///     Retries{.times = 5, .after = 1s, .then = Resolution::park()}
///
/// Without `backoff` the stream waits for `after` before the first retry, then twice as long, and so on.
/// `Retries{.times = 0}` gives up at once.
struct Retries {
    int times = 3;
    Duration after = std::chrono::milliseconds(100);
    Duration at_most = std::chrono::seconds(30);  ///< no wait is longer
    /// How long to wait before retry 1, 2, ...: `[](Duration after, int retry) { return after * retry; }`
    std::function<Duration(Duration after, int retry)> backoff{};
    /// Stop, park or skip, when the retries are used up, or too many processes died over the message.
    Resolution then = Resolution::stop();
    /// Told of each retry, 1, 2, ..., and when it will be; after the commit that records it.
    std::function<void(int retry, const Fault& fault, Time when)> on_retry{};
    /// Told once that it was given up, whatever `then` says; after the commit that records it.
    std::function<void(const Fault& fault)> on_stop{};
};

/// Decides what becomes of a message that cannot be handled: Retries, or anything callable with a Fault.
///
///     App app({.errors = [](const Fault& fault) {
///         if (fault.attempt < 3) return Resolution::retry(fault.at + 1s);
///         return Resolution::skip();
///     }});
///
/// Asked outside of locks and transactions, from many threads at once. When it throws, the group stops with what it
/// said and what the handler said. A retry is no answer to the deaths of processes: the group stops then.
class ErrorStrategy {
public:
    /// `Retries{}`
    ErrorStrategy() : ErrorStrategy(Retries{}) {}
    /// Throws Invalid for less than no retries, and where `then` is a retry.
    SOURCED_API ErrorStrategy(Retries retries);
    template <class F>
        requires(!std::same_as<std::remove_cvref_t<F>, ErrorStrategy> && !std::same_as<std::remove_cvref_t<F>, Retries>)
    ErrorStrategy(F&& strategy);

    [[nodiscard]] Resolution operator()(const Fault& fault) const { return strategy_(fault); }

private:
    std::function<Resolution(const Fault&)> strategy_;
};

/// What a reactor may decide about its own running. Unset members take the App's.
struct ReactorOptions {
    std::optional<std::size_t> batch_size{};
    std::optional<ErrorStrategy> errors{};
    Start start_from{};
};

namespace detail {

/// An owned, copyable value whose type only its makers know.
class Box {
public:
    Box() = default;
    template <class T>
    [[nodiscard]] static Box of(T value);  // defined beside the templates
    Box(const Box& other) : value_(other.value_ ? other.verbs_->copy(other.value_) : nullptr), verbs_(other.verbs_) {}
    Box(Box&& other) noexcept : value_(std::exchange(other.value_, nullptr)), verbs_(other.verbs_) {}
    Box& operator=(Box other) noexcept {
        std::swap(value_, other.value_);
        std::swap(verbs_, other.verbs_);
        return *this;
    }
    ~Box() {
        if (value_) verbs_->destroy(value_);
    }
    [[nodiscard]] void* get() noexcept { return value_; }
    [[nodiscard]] const void* get() const noexcept { return value_; }
    explicit operator bool() const noexcept { return value_ != nullptr; }

private:
    struct Verbs {
        void* (*copy)(const void*);
        void (*destroy)(void*);
    };
    void* value_ = nullptr;
    const Verbs* verbs_ = nullptr;
};

/// What a command handler decided: events, or why the command was refused.
struct Decided {
    Messages events;  // types and payloads; cause, stream and seq are the runtime's business
    std::optional<std::string> refusal;
};

/// A message that a reaction wants to be sent.
struct Sending {
    Message message;
    std::string to;                   // empty: the stream of the event
    bool fresh = false;               // to a new stream, whose name begins with `to`
    std::optional<Time> at;           // absolute, or
    std::optional<Duration> after;    // from the moment the reaction is committed
};

/// One message of the batch that a sync is told about.
struct Synced {
    const Message* message = nullptr;
    bool replay = false;

    [[nodiscard]] const Message& operator*() const noexcept { return *message; }
    [[nodiscard]] const Message* operator->() const noexcept { return message; }
};

/// Everything the runtime knows of a reactor: its handlers with their types erased.
/// Filled by the constructors of reactors, never changed after App::add.
/// Handlers are called from many threads at once, so they hold no mutable state.
struct Definition {
    enum class Role { actor, projector, reactor };

    std::string name;
    Role role = Role::actor;
    ReactorOptions options;

    /// Types it names, for the App's registry.
    std::vector<std::function<void(Registry&)>> registrations;

    using Command = std::function<Decided(const void* state, const Message&)>;
    using Evolve = std::function<void(void* state, const Message&)>;
    using React = std::function<std::vector<Sending>(const void* state, const Message&)>;

    /// Makes the blank state of a stream, or of a key (actors, event-sourced projectors),
    /// or loads the stored one (state-stored projectors). `reader` may be null unless `initial_reads`.
    std::function<Box(std::string_view id, Reader* reader)> initial;
    bool initial_reads = false;  // the handler asks for a Reader
    bool has_state_handler = false;
    std::string (*write_state)(const void* state) = nullptr;  // its JSON; null: the codec has none for the State
    const std::type_info* state_type = nullptr;               // null: there is no State
    /// What the State is called in the program; empty without one.
    [[nodiscard]] SOURCED_API std::string state_name() const;

    struct CommandHandler {
        Command call;
        std::optional<std::vector<std::string>> produces{};  // names of events; null: unknown
    };
    struct ReactionHandler {
        React call;  // empty where `serve` is written by hand
        bool wants_state = false;
        std::optional<std::vector<std::string>> produces{};  // names of commands, handlers' events too; null: unknown
        bool wildcard = false;       // the one for all events without a reaction of their own
        bool wants_replay = false;   // handlers: called in a replay too
    };
    std::unordered_map<std::string, CommandHandler> commands;
    std::unordered_map<std::string, Evolve> events;       // evolve; by type name, aliases included
    std::unordered_map<std::string, ReactionHandler> reactions;
    std::optional<ReactionHandler> any_reaction;          // stands in `reactions` for every event that has no other
    std::vector<std::string> order;                       // type names in order of declaration, without doubles
    Evolve before_evolve;                                 // optional
    bool reads_envelope = false;                          // it, or an event handler, asks for the envelope

    // ---- projectors, and `sync` actors too: their batch is each command with the events that came of it
    bool event_sourced = false;  // state is the fold of the whole stream, not loaded
    using Key = std::function<std::string(const Message&)>;
    std::unordered_map<std::string, Key> keys;            // by type name, aliases included
    Key key;                                              // optional: keyed by a value of the event; asks `keys`
    std::function<void(const void* state, std::string_view id, const std::vector<Synced>& batch, bool replay,
                       Transaction& transaction)>
        sync;                                             // optional
    std::function<void(Transaction&)> on_reset;           // optional
    std::function<void(std::string_view stream, Transaction&)> on_stream_reset;  // optional
    std::function<void(Transaction&)> on_install;         // optional: creates the reactor's own tables when it is added
    std::string table;                                    // that its states are rows of; empty: it keeps none itself
    std::function<void()> on_start;                        // optional
    std::function<void(std::string_view reason)> on_stop;  // optional

    // ---- role reactor: what is to come of a batch; `reactions` are its types
    std::function<Results(const Batch&)> serve;
    bool wants_history = false;

    // ---- workflows
    bool whole_history = false;                            // to the end of the stream, beyond the batch
    std::function<bool(std::string_view stream)> concerns; // optional: other streams are passed over unread
    std::size_t claim_count = 0;                           // streams that a worker takes at a time; 0: the App's
    std::function<Time()> clock;                           // the App's, since it was added
    std::function<Id()> new_id;

    /// Names of the types that wake it: an actor's commands and reactions, a projector's events.
    [[nodiscard]] SOURCED_API std::vector<std::string> handled() const;
    [[nodiscard]] bool handles(const std::string& type) const {
        return role == Role::projector ? events.contains(type) : commands.contains(type) || reactions.contains(type);
    }
};

struct Access;
struct Declared;

}  // namespace detail

/// What a verb has just declared, for those who have more to say of it.
///
///     command([](const Order& order, const Ship&) {
///         sourced::Events events;
///         for (const auto& box : order.boxes) events.add(BoxShipped{box});
///         return events;
///     }).produces<BoxShipped>();
class Declaration {
public:
    /// Names the messages that may come of it, where the return type does not. What is drawn of a program is taken from
    /// here; nothing else depends on it.
    template <class First, class... More>
    void produces() const;

    enum class Verb { command, reaction };
    /// Of the verbs; `names` are the types that it was declared for.
    Declaration(detail::Definition& definition, Verb verb, std::vector<std::string> names)
        : definition_(&definition), verb_(verb), names_(std::move(names)) {}

private:
    SOURCED_API void do_produces(const std::vector<detail::Declared>& types) const;

    detail::Definition* definition_;
    Verb verb_;
    std::vector<std::string> names_;  // none: the wildcard
};

/// The common base of actors, projectors, handlers and whatever else handles messages.
class Reactor {
public:
    virtual ~Reactor() = default;
    Reactor(const Reactor&) = delete;
    Reactor& operator=(const Reactor&) = delete;

    /// The group's durable name.
    [[nodiscard]] const std::string& name() const noexcept { return definition_.name; }
    [[nodiscard]] const detail::Definition& definition() const noexcept { return definition_; }

protected:
    friend struct detail::Access;
    Reactor() = default;

    /// `options({.batch_size = 10, .errors = Retries{.times = 5}})`
    void options(ReactorOptions options) { definition_.options = std::move(options); }

    /// Called with `()` when its group was started, by the process that did it, after the commit.
    template <class F>
    void on_start(F handler);
    /// Called with `(std::string_view reason)` when its group was stopped, by hand or over an error, by the process
    /// that did it, after the commit. What either of them throws is logged.
    template <class F>
    void on_stop(F handler);

    detail::Definition definition_;
};

}  // namespace sourced

// =============================================================================
// Actors: state, commands, events, reactions
// =============================================================================

namespace sourced {

// ---- What command handlers return -------------------------------------------------

/// Why a command was turned down. See refuse().
struct Refusal {
    std::string reason;
};

/// Says that a command breaks a rule of the domain. That is no error: the stream gets a
/// `sourced.refused` event, who waits for the command sees it, nothing is tried again.
///
///     if (cart.status != "open") return sourced::refuse("cart is not open");
[[nodiscard]] SOURCED_API Refusal refuse(std::string_view reason);

/// The engine's own event: a command of type `command` was refused. Actors may handle it like their own,
/// `event([](CartState&, const sourced::Refused&) {...})`, and react to it.
struct Refused {
    std::string command;
    std::string reason;

    SOURCED_EVENT("sourced.refused", command, reason)
};

/// What came of a command with all types erased: events, or a refusal.
using detail::Decided;

namespace detail {
template <class T>
inline constexpr bool is_outcome = false;  // what a handler returns that is no event itself
}

/// One of the named events, several of them, none (`{}`), or a refusal.
///
///     command([](const CartState& cart, const CheckOut&) -> sourced::Decision<CheckedOut, InvoiceAsked> {
///         if (cart.items.empty()) return sourced::refuse("cart is empty");
///         return {CheckedOut{}, InvoiceAsked{cart.id}};
///     });
///
/// Names the events in the type, so that what a command can lead to is known without running it.
template <class... E>
class Decision {
public:
    Decision() = default;
    Decision(Refusal refusal) { decided_.refusal = std::move(refusal.reason); }
    template <class First, class... More>
        requires(!detail::is_outcome<First>)
    Decision(const First& first, const More&... more);

    /// One event more. It has to be of a named type.
    template <class T>
    Decision& add(const T& event);

    [[nodiscard]] const Decided& decided() const& noexcept { return decided_; }
    [[nodiscard]] Decided decided() && noexcept { return std::move(decided_); }

private:
    Decided decided_;
};

/// Any number of events of any type; none is allowed too.
///
///     sourced::Events events;
///     for (const auto& item : order.items) events.add(ItemShipped{item.id});
///     return events;
class Events {
public:
    Events() = default;
    template <class First, class... More>
        requires(!detail::is_outcome<First>)
    Events(const First& first, const More&... more);

    template <class T>
    Events& add(const T& event);

    [[nodiscard]] const Messages& messages() const& noexcept { return messages_; }
    [[nodiscard]] Messages messages() && noexcept { return std::move(messages_); }

private:
    Messages messages_;
};

// ---- What reactions return ----------------------------------------------------------

/// A command on its way: which, to what stream, when. Made by dispatch().
///
///     return sourced::dispatch(SendEmail{address}).to("mailer").in(20s);
///
/// Goes to the event's own stream, at once, unless told otherwise. It is sent when the
/// reaction returns it, in the transaction that records the event as handled. Its metadata then says under
/// `producer` which reactor sent it.
class [[nodiscard]] Dispatch {
public:
    SOURCED_API explicit Dispatch(Message command);
    SOURCED_API explicit Dispatch(detail::Sending sending);

    SOURCED_API Dispatch& to(std::string_view stream) &;
    Dispatch&& to(std::string_view stream) && { return std::move(to(stream)); }
    /// Where another message stands.
    Dispatch& to(const Envelope& other) & { return to(std::string_view(other.stream)); }
    Dispatch&& to(const Envelope& other) && { return std::move(to(other)); }
    /// To a new stream each time, `<name>-<uuid>` with the name of the actor A, which has to have a default
    /// constructor: its name is asked of one that is made for it, once.
    template <class A>
    Dispatch& to() &;
    template <class A>
    Dispatch&& to() &&;
    /// To a new stream `<prefix>-<uuid>`.
    SOURCED_API Dispatch& to_new(std::string_view prefix) &;
    Dispatch&& to_new(std::string_view prefix) && { return std::move(to_new(prefix)); }

    /// Not before `time`. A time that has passed means at once.
    template <class Precision>
    Dispatch& at(std::chrono::sys_time<Precision> time) & {
        return at_time(detail::rounded_up(time));
    }
    template <class Precision>
    Dispatch&& at(std::chrono::sys_time<Precision> time) && {
        return std::move(at(time));
    }

    /// So long after the reaction is committed. Throws Invalid for a negative time.
    SOURCED_API Dispatch& in(Duration delay) &;
    Dispatch&& in(Duration delay) && { return std::move(in(delay)); }

    /// Keys of its own, over those the event hands on.
    SOURCED_API Dispatch& with_metadata(const Metadata& metadata) &;
    Dispatch&& with_metadata(const Metadata& metadata) && { return std::move(with_metadata(metadata)); }

    [[nodiscard]] const detail::Sending& sending() const& noexcept { return sending_; }
    [[nodiscard]] detail::Sending sending() && noexcept { return std::move(sending_); }

private:
    SOURCED_API Dispatch& at_time(Time time);

    detail::Sending sending_;
};

/// A Dispatch that says in its type which command it sends, so that this is known without running anything.
/// Becomes a Dispatch wherever one is wanted.
template <class T>
class [[nodiscard]] DispatchOf : public Dispatch {
public:
    explicit DispatchOf(Message command) : Dispatch(std::move(command)) {}

    template <class Where>
    DispatchOf& to(const Where& where) & {
        Dispatch::to(where);
        return *this;
    }
    template <class Where>
    DispatchOf&& to(const Where& where) && {
        return std::move(to(where));
    }
    template <class A>
    DispatchOf& to() &;
    template <class A>
    DispatchOf&& to() &&;
    DispatchOf& to_new(std::string_view prefix) & {
        Dispatch::to_new(prefix);
        return *this;
    }
    DispatchOf&& to_new(std::string_view prefix) && { return std::move(to_new(prefix)); }
    template <class Precision>
    DispatchOf& at(std::chrono::sys_time<Precision> time) & {
        Dispatch::at(time);
        return *this;
    }
    template <class Precision>
    DispatchOf&& at(std::chrono::sys_time<Precision> time) && {
        return std::move(at(time));
    }
    DispatchOf& in(Duration delay) & {
        Dispatch::in(delay);
        return *this;
    }
    DispatchOf&& in(Duration delay) && { return std::move(in(delay)); }
    DispatchOf& with_metadata(const Metadata& metadata) & {
        Dispatch::with_metadata(metadata);
        return *this;
    }
    DispatchOf&& with_metadata(const Metadata& metadata) && { return std::move(with_metadata(metadata)); }
};

/// Sends a command, when a reaction returns it.
template <class T>
[[nodiscard]] DispatchOf<T> dispatch(const T& command);

/// Some of the named commands, one, several or none, sent in this order.
///
///     reaction([](const Stay& stay, const Paid&) -> sourced::Dispatches<Confirm, Invite> {
///         if (stay.cancelled) return {};
///         return {sourced::dispatch(Confirm{stay.id}), sourced::dispatch(Invite{}).to("mailer").in(24h)};
///     });
///
/// What Decision is for events: the type says what an event can lead to. `Dispatches<>` takes all commands.
template <class... C>
class [[nodiscard]] Dispatches {
public:
    Dispatches() = default;
    template <class First, class... More>
        requires std::derived_from<First, Dispatch>
    Dispatches(First first, More... more);

    /// One more. It has to be of a named type.
    template <class D>
    Dispatches& add(D dispatch);

    [[nodiscard]] const std::vector<detail::Sending>& sendings() const& noexcept { return sendings_; }
    [[nodiscard]] std::vector<detail::Sending> sendings() && noexcept { return std::move(sendings_); }

private:
    std::vector<detail::Sending> sendings_;
};
template <class... C>
Dispatches(DispatchOf<C>...) -> Dispatches<C...>;

// ---- Batches ------------------------------------------------------------------------

/// Messages of one stream that are handled together, in order: what a reactor is given, or what a `sync` is called
/// for: a projector's events, or an actor's commands, each followed by the events that came of it.
///
///     for (const auto& event : batch) {
///         if (!event.replay && event->is<ItemAdded>()) ++live;
///     }
///
/// Valid during the call.
class Batch {
public:
    Batch(const std::vector<detail::Synced>& entries, bool replay, const Messages* history = nullptr)
        : entries_(&entries), history_(history), replay_(replay) {}

    /// Whether all of them had been handled before a reset.
    [[nodiscard]] bool replay() const noexcept { return replay_; }
    [[nodiscard]] std::size_t size() const noexcept { return entries_->size(); }
    [[nodiscard]] const detail::Synced& operator[](std::size_t index) const { return entries_->at(index); }
    [[nodiscard]] auto begin() const noexcept { return entries_->begin(); }
    [[nodiscard]] auto end() const noexcept { return entries_->end(); }

    /// The stream that all of them stand in; empty when there are none.
    [[nodiscard]] std::string_view stream() const noexcept {
        return entries_->empty() ? std::string_view() : std::string_view(entries_->front()->stream);
    }
    /// Everything in the stream up to the last of them, which a reactor has to ask for. Throws Error when it did not.
    [[nodiscard]] SOURCED_API const Messages& history() const;

private:
    const std::vector<detail::Synced>* entries_;
    const Messages* history_;
    bool replay_;
};

// ---- Actors ---------------------------------------------------------------------------

/// What actors and projectors have in common: a state that events change, reactions to them, and a `sync`. Not for
/// use by itself.
///
/// The constructor declares handlers. A handler is a lambda, a function or a const member function
/// (`command(&Account::deposit)`); the types of its parameters say what it handles, and a last parameter
/// `const Envelope&` is filled when it is there. Derived reactors add handlers to those of their base.
///
/// One object serves all streams, and handlers are called from many threads at once: state belongs into
/// State, which has to be copyable, never into the reactor.
template <class T>
class StatefulReactor : public Reactor {
public:
    using State = T;

protected:
    StatefulReactor(detail::Definition::Role role, std::string_view name);

    /// Changes the state by an event, and does nothing else: `(State&, const Event&)`.
    template <class F>
    void event(F handler);
    /// One handler for several events: `event<Opened, Closed>([](State& state, const auto& event) {...})`.
    template <class First, class... More, class F>
    void event(F handler);
    /// Events that are the actor's own, or that `sync` wants to see, though they leave the state alone.
    template <class First, class... More>
    void event();
    /// Called before each event that is handled: `(State&)` or `(State&, const Envelope&)`.
    template <class F>
    void before_evolve(F handler);

    /// Answers an event in one of the reactor's streams with commands: `(const Event&)` or `(const State&, const
    /// Event&)`, where the state is that as of the event. Returns a Dispatch, an optional or vector of it, or
    /// Dispatches. They are sent in the transaction that records the event as handled, so exactly once. Not called in
    /// a replay.
    ///
    /// An actor may answer events that it does not evolve, a projector only those that it does. Where a projector's
    /// state is keyed, it is not loaded before that transaction: there a reaction takes `(const Event&)` alone.
    ///
    /// With `const Message&` for the event it is the reaction to every event that the reactor evolves and
    /// that has no reaction of its own, in whatever order they are declared.
    template <class F>
    Declaration reaction(F handler);
    /// One handler for several events: `reaction<Paid, Waived>([](const State& state, const auto& event) {...})`.
    template <class First, class... More, class F>
    Declaration reaction(F handler);

    /// Called once for each batch of a stream, in the transaction that stores what an actor decided, or that records a
    /// projector's batch as handled: `(const State&)`, then any of `std::string_view id`, `const Batch&`,
    /// `Transaction&`, in this order. What is written through the Transaction is exactly once; when it throws,
    /// neither is kept. The write lock is held meanwhile.
    template <class F>
    void sync(F handler);
};

/// Decides commands on the state of one stream, and reacts to what has happened in it.
///
///     struct Account : sourced::Actor<int> {  // its state: the balance
///         Account() : Actor("account") {
///             command([](int, const Deposit& deposit) { return Deposited{deposit.pounds}; });
///             event([](int& balance, const Deposited& deposited) { balance += deposited.pounds; });
///         }
///     };
///
/// Handlers are declared and called as StatefulReactor says.
template <class T>
class Actor : public StatefulReactor<T> {
public:
    using State = T;

    /// The state that `messages` make of a blank one. Messages that were never stored count as the next of
    /// the stream; types without an event handler are passed over. Throws Error for a message of a different
    /// stream and for one whose seq does not lie behind the last.
    [[nodiscard]] State evolve(std::string_view stream, const Messages& messages) const;
    /// What the actor decides on a command. Throws what its handler throws, and NotRegistered for
    /// a command it has no handler for.
    [[nodiscard]] Decided decide(const State& state, const Message& command) const;

protected:
    /// `name` is durable: the group's progress is kept under it. Without one it is the name of the class.
    explicit Actor(std::string_view name = {});

    /// Makes the blank state of a stream: `()` or `(std::string_view id)`. Without it: `State{}`.
    template <class F>
    void state(F handler);

    /// Decides a command: `(const State&, const Command&)` or `(const Command&)`. Returns an event, a Decision, Events,
    /// or an optional or vector of an event. It may run again on a newer state before its outcome is stored, so it has
    /// no effects of its own.
    template <class F>
    Declaration command(F handler);
};

}  // namespace sourced
// =============================================================================
// Projectors: read models
// =============================================================================

namespace sourced {

class Store;

/// What all projectors have in common. Not for use by itself.
template <class T>
class ProjectorBase : public StatefulReactor<T> {
protected:
    explicit ProjectorBase(std::string_view name);

    /// Empties the read model, `(Transaction&)`, or takes one stream out of it, `(std::string_view stream,
    /// Transaction&)`, in the transaction that resets the group. There may be one of each; where there is only the
    /// second, a reset of all streams calls it for each.
    template <class F>
    void on_reset(F handler);
    /// Creates the read model's tables, `(Transaction&)`, whenever the projector is added to an App: `create table if
    /// not exists`. One that asks `Reader::table` for their names, here and wherever they are used, can be rebuilt
    /// while it is read; indexes keep their plain names, `create index if not exists`.
    template <class F>
    void on_install(F handler);
};

/// Keeps a read model up to date whose rows are its state: loaded, changed by events, stored again.
///
///     struct Totals : sourced::Projector<Total> {
///         Totals() : Projector("totals") {
///             state([](std::string_view id, sourced::Reader& db) {
///                 auto row = db.row("select total from totals where id = ?", id);
///                 return Total{row ? row->integer(0) : 0};
///             });
///             event([](Total& total, const ItemAdded& added) { total.sum += added.price; });
///             sync([](const Total& total, std::string_view id, sourced::Transaction& db) {
///                 db.execute("insert or replace into totals values (?, ?)", id, total.sum);
///             });
///         }
///     };
///
/// One load and one sync for each batch of a stream. Handlers are declared and called as those of an Actor.
template <class T>
class Projector : public ProjectorBase<T> {
protected:
    /// `name` is durable: the group's progress is kept under it. Without one it is the name of the class.
    explicit Projector(std::string_view name = {});

    /// Loads the state that is stored for a stream, or makes a blank one: `(std::string_view id)` or
    /// `(std::string_view id, Reader&)`.
    template <class F>
    void state(F handler);

    /// Keys the read model by a value of the event instead of the stream: `(const Event&)` gives text or an integer.
    ///
    ///     key([](const OrderPaid& paid) { return paid.country; });
    ///
    /// Then `id` is that value everywhere, and loading and changing the state is done in the transaction
    /// too, since streams that share a key are handled at the same time. Every event of the projector needs one.
    template <class F>
    void key(F handler);
    /// One handler for several events.
    template <class First, class... More, class F>
    void key(F handler);
};

/// A projector whose state is what all events of the stream make of a blank one; `sync` writes it where it is
/// read. It can therefore also be loaded as of any seq: `app.load<History>("cart-1", 7)`.
template <class T>
class EventSourcedProjector : public ProjectorBase<T> {
public:
    using State = T;

    /// As Actor::evolve.
    [[nodiscard]] State evolve(std::string_view stream, const Messages& messages) const;

protected:
    explicit EventSourcedProjector(std::string_view name = {});

    /// Makes the blank state: `()` or `(std::string_view id)`. Without it: `State{}`.
    template <class F>
    void state(F handler);
};

/// A read model without SQL: each state is a JSON row of a table of its own.
///
///     struct Revenue : sourced::Projection<Country> {  // struct Country { std::int64_t sum = 0; SOURCED_VALUE(sum) };
///         Revenue() : Projection("revenue") {
///             key([](const OrderPaid& paid) { return paid.country; });
///             event([](Country& country, const OrderPaid& paid) { country.sum += paid.amount; });
///         }
///     };
///     auto& revenue = app.add<Revenue>();
///     revenue.get(app.store(), "France");
///
/// The table is `projection_<name>` with the columns `id` and `state`, made when the projector is added:
///
///     select id, state ->> '$.sum' from projection_revenue order by 2 desc;
template <class T>
class Projection : public Projector<T> {
public:
    using State = T;

    /// The stored state of a stream or key; nothing when there is none.
    /// Throws Undecodable when the row holds something else.
    [[nodiscard]] std::optional<State> get(Store& store, std::string_view id) const;
    [[nodiscard]] std::optional<State> get(Reader& reader, std::string_view id) const;
    /// The table's name, unquoted.
    [[nodiscard]] std::string table() const { return "projection_" + this->name(); }

protected:
    /// Throws Invalid for a name that holds a NUL.
    explicit Projection(std::string_view name);

    /// Makes the state that a row begins with: `()` or `(std::string_view id)`. Without it: `State{}`.
    template <class F>
    void state(F handler);

private:
    template <class F>
    void load_rows(F blank);

    // Storing is its own business.
    using StatefulReactor<T>::sync;
    using ProjectorBase<T>::on_install;
    using ProjectorBase<T>::on_reset;
};

}  // namespace sourced
// =============================================================================
// Reactors: simple handlers, and the interface under all of them
// =============================================================================

namespace sourced {

// ---- Actions ------------------------------------------------------------------------

/// Appends messages that follow from the handled one, each to the stream it names, else to that of the handled one.
/// The store gives the seqs.
struct AppendNext {
    Messages messages{};

    [[nodiscard]] bool operator==(const AppendNext&) const = default;
};

/// Appends messages to `stream` (empty: that of the handled message) provided that its last seq is `seq`. If it is
/// not, Conflict is what went wrong with the handled message, and nothing that came of it is stored.
struct AppendAfter {
    std::int64_t seq = 0;
    Messages messages{};
    std::string stream{};

    [[nodiscard]] bool operator==(const AppendAfter&) const = default;
};

/// Keeps messages until `due_at`; a time that has passed means at once. Events that follow from a command say
/// in their metadata that they were `scheduled`.
struct Schedule {
    Time due_at{};
    Messages messages{};

    [[nodiscard]] bool operator==(const Schedule&) const = default;
};

/// Work in the transaction that records the message as handled, after all appends: done exactly once, or not at all.
/// The write lock is held meanwhile.
struct Sync {
    std::function<void(Transaction&)> work{};
};

/// Work after that transaction is committed, without any lock: done at most once. What it throws is logged.
struct AfterSync {
    std::function<void()> work{};
};

/// Counts everything in the stream up to the message of this id as handled, which may lie ahead. An id that is not in
/// this stream is an error; one that lies behind changes nothing.
struct Acknowledge {
    Id id{};

    [[nodiscard]] bool operator==(const Acknowledge&) const = default;
};

/// One thing that is to come of a message.
using Action = std::variant<AppendNext, AppendAfter, Schedule, Sync, AfterSync, Acknowledge>;
/// All that is to come of a message, in order; with nothing in it the message is just handled.
using Actions = std::vector<Action>;

/// What came of a batch, message by message. Messages without a result come again.
///
///     Results results;
///     for (const auto& message : batch) results.add(*message, {AppendNext{{Seen{}}}});
///     return results;
///
/// Everything is committed in one transaction together with the progress of the group.
class Results {
public:
    /// Nothing was handled: the batch comes again, a tenth of a second later.
    Results() = default;
    /// The same, said aloud.
    [[nodiscard]] static Results retry() { return {}; }
    /// The batch comes again at `time`, or what of it is not added to these results: what is added is kept. It comes
    /// with what the stream has got meanwhile. Where a message has failed the error strategy says when.
    ///
    ///     return Results::retry(opening).add(*batch[0]);
    [[nodiscard]] SOURCED_API static Results retry(Time time);

    /// `message` is handled, and `actions` come of it, beside those it had before. Messages are handled in the
    /// order of the batch, and none is left out.
    SOURCED_API Results& add(const Message& message, Actions actions = {});
    /// `message` is handled, and the dispatch is sent as if a reaction had returned it.
    SOURCED_API Results& send(const Message& message, Dispatch dispatch);
    /// `message` failed: what was added before is kept, the error strategy is told `error`, the rest comes again.
    SOURCED_API Results& fail(const Message& message, std::exception_ptr error);

    /// One message and what came of it.
    struct Entry {
        Id id{};
        Actions actions{};
        std::vector<detail::Sending> sendings{};  ///< messages on their way, as reactions return them
        std::exception_ptr error{};
    };
    [[nodiscard]] const std::vector<Entry>& entries() const& noexcept { return entries_; }
    [[nodiscard]] std::vector<Entry> entries() && noexcept { return std::move(entries_); }
    /// When what is not added is to come again, if retry() said so.
    [[nodiscard]] const std::optional<Time>& retry_at() const noexcept { return retry_at_; }

private:
    Entry& entry(const Message& message);

    std::vector<Entry> entries_;
    std::optional<Time> retry_at_;
};

// ---- Handlers -----------------------------------------------------------------------------

/// Given to a handler that asks for it: whether the message is handled again after a reset.
struct Replay {
    bool value = false;

    explicit operator bool() const noexcept { return value; }
};

/// A reactor without state, for what follows simply from a message.
///
///     struct Receipts : sourced::Handler {
///         Receipts() : Handler("receipts") {
///             on([](const OrderPaid& paid) { return ReceiptSent{paid.order}; });
///             on<OrderPaid, OrderRefunded>([](const auto& event, const sourced::Envelope& envelope) {
///                 return sourced::dispatch(Book{event.amount}).to("ledger");
///             });
///         }
///     };
///
/// One object serves all streams, and handlers are called from many threads at once. Those of a derived handler are
/// added to those of its base.
class Handler : public Reactor {
protected:
    /// `name` is durable: the group's progress is kept under it. Without one it is the name of the class.
    SOURCED_API explicit Handler(std::string_view name = {});

    /// Handles a command or an event: `(const T&)`, then any of `const Envelope&`, `const Messages&` and
    /// `Replay`, in this order. The messages are the stream's history up to the handled one, which stands last; it is
    /// read only when some handler asks for it.
    ///
    /// Returns what follows from the message: events or commands, which are appended to its stream unless
    /// they name another; or a Dispatch or Dispatches; an optional or vector of any of these; Messages; or nothing.
    ///
    /// A handler that asks for Replay is called in a replay too, and what it returns then is dropped; others are
    /// not called.
    template <class F>
    Declaration on(F handler);
    /// One handler for several types.
    template <class First, class... More, class F>
    Declaration on(F handler);
};

// ---- The interface ------------------------------------------------------------------------

/// A reactor of your own: batches in, results out.
///
///     struct Mailer : sourced::BatchReactor {
///         Mailer() : BatchReactor("mailer") { handles<OrderPaid>(); }
///         sourced::Results handle(const sourced::Batch& batch) override {
///             sourced::Results results;
///             for (const auto& message : batch) {
///                 results.add(*message, {sourced::AppendNext{{SendReceipt{message->stream}}}});
///             }
///             return results;
///         }
///     };
///
/// One object serves all streams, and is called from several threads at once, for different streams.
class BatchReactor : public Reactor {
public:
    /// Handles messages of one stream, at most as many as the batch size. Is called outside of any transaction, and
    /// again when its results could not be committed. An exception is taken for the fault of a message: smaller
    /// batches are tried until it is known which, and what comes before that one is kept.
    ///
    /// For messages that are a replay only Sync and Acknowledge are carried out.
    virtual Results handle(const Batch& batch) = 0;

protected:
    /// `name` is durable: the group's progress is kept under it. Without one it is the name of the class.
    SOURCED_API explicit BatchReactor(std::string_view name = {});

    /// The commands and events it is woken by.
    template <class First, class... More>
    Declaration handles();
    /// Asks for Batch::history(). Costs reading the stream from its start for each batch.
    void wants_history() { definition_.wants_history = true; }
};

}  // namespace sourced
// =============================================================================
// Workflows: functions whose steps are recorded and never run twice
// =============================================================================

namespace sourced {

/// How often a failing step is tried again, and how long the workflow waits before each try: `after`, then twice
/// that, and so on up to `at_most`. By default it is not.
///
///     ctx.step("charge", [&] { return charge(trip); }, {.times = 5, .after = 10s});
struct StepRetries {
    static constexpr int unlimited = std::numeric_limits<int>::max();

    int times = 0;
    Duration after = std::chrono::seconds(1);
    Duration at_most = std::chrono::hours(1);
};

/// What a step may ask for, as its one parameter.
struct Attempt {
    int number = 1;  ///< 1, 2, ...: how often the step was begun, as far as its outcome is known
    Id id{};         ///< the same for all attempts of a step: makes a call to somebody else idempotent
};

/// A step's retries are used up. Thrown by Context::step in every run of the function, so what catches it may
/// undo earlier steps; when nobody does, the workflow has failed.
struct SOURCED_API StepFailed : Error {
    StepFailed(std::string_view step_name, int attempts, std::string_view error_type, std::string_view error_text);

    [[nodiscard]] const std::string& step() const noexcept { return step_; }
    /// The type of the last attempt's exception, and what it said.
    [[nodiscard]] const std::string& type() const noexcept { return type_; }
    [[nodiscard]] const std::string& text() const noexcept { return text_; }

private:
    std::string step_;
    std::string type_;
    std::string text_;
};

/// The engine's own event: a workflow has come to its end. The payload's `output` is what its function returned.
struct WorkflowCompleted {
    std::string workflow;

    SOURCED_EVENT("sourced.workflow_completed", workflow)
};

/// The engine's own event: a workflow's function has thrown `type`, which said `text`; or `step` did, and its
/// retries are used up.
struct WorkflowFailed {
    std::string workflow;
    std::string step;  ///< empty: it was no step
    std::string type;
    std::string text;

    SOURCED_EVENT("sourced.workflow_failed", workflow, step, type, text)
};

namespace detail {

class WorkflowPass;

/// What the function of a workflow calls, with all types erased.
struct WorkflowCalls {
    using Step = std::function<std::string(const Attempt&)>;
    /// A value that outlives failures.
    struct Kept {
        std::string name;
        const std::type_info* type = nullptr;
        Box value;
        std::string (*write)(const void* value) = nullptr;
        void (*read)(void* value, const std::string& json) = nullptr;
    };

    WorkflowPass* pass = nullptr;

    // A JSON object that holds what the step returned beside other things, under "output".
    [[nodiscard]] SOURCED_API const std::string& step(std::string_view name, const std::string& key, const Step& run,
                                                      const StepRetries& retries) const;
    [[nodiscard]] SOURCED_API void* keep(Kept kept) const;
    [[nodiscard]] SOURCED_API const Message* wait_for(const std::vector<std::vector<std::string>>& types,
                                                      std::optional<Duration> timeout) const;
    /// `what` names a record that does not fit the type that reads it.
    [[noreturn]] SOURCED_API void unreadable(std::string_view what, const std::string& why) const;
};

}  // namespace detail

/// What the function of a workflow reaches the engine by.
///
/// Each call is recorded in the workflow's stream. The function runs from its start whenever there is something new;
/// calls whose outcome is recorded give it at once, the first whose outcome is not yet known ends the run. So
/// between the calls the function has to do the same every time: what depends on the world, on time or on chance
/// belongs into a step, or is asked here.
///
/// A run is ended by an exception that is no std::exception: `catch (...)` has to pass it on.
///
/// For the thread that runs the function, while it runs.
class SOURCED_API Context {
public:
    Context(const Context&) = delete;
    Context& operator=(const Context&) = delete;

    /// Runs `f`, `()` or `(const Attempt&)`, and records what it returns; from then on that is given and `f` is not
    /// run again, also after a restart. The step is known by its place among the calls, and `name` has to be the same.
    ///
    /// It runs on a worker, outside of any lock or transaction. A process that dies within it runs it again: what it
    /// does to the outside happens at least once, so hand on Attempt::id where that matters.
    /// Throws StepFailed when it failed more often than `retries` allows.
    template <class F>
    auto step(std::string_view name, F f, const StepRetries& retries = {});
    /// The same for a step that is known by its name and `key`, anything that has JSON: the first of equal ones
    /// runs, wherever in the function it stands.
    ///
    ///     for (int n : {2, 4, 2}) sum += ctx.step("double", n, [&] { return doubled(n); });  // runs twice
    template <class Key, class F>
    auto step(std::string_view name, const Key& key, F f, const StepRetries& retries = {});

    /// A value that steps may change. It is recorded with the outcome of each step that changed it, failures too:
    /// an attempt goes on where the last one stopped.
    ///
    ///     auto& done = ctx.keep<Progress>("progress");
    ///     ctx.step("send all", [&] { for (; done.index < 10; ++done.index) send(done.index); }, {.times = 5});
    ///
    /// The same name gives the same value. What the function changes between its steps it changes in every run. What
    /// a process did in a step that it died in is not kept.
    template <class T>
    T& keep(std::string_view name, T initial = {});

    /// Goes on when the time has passed. Throws Invalid for a negative one.
    void sleep(Duration time);
    void sleep_until(Time time);

    /// The time, the same in every run.
    [[nodiscard]] Time now();
    /// A random number, the same in every run.
    [[nodiscard]] std::uint64_t random();
    /// A fresh id, the same in every run.
    [[nodiscard]] Id new_id();

    /// The workflow's own stream: where it is recorded, and where messages that it waits for are sent to.
    [[nodiscard]] const std::string& stream() const noexcept;

protected:
    explicit Context(const detail::WorkflowCalls& calls) : calls_(calls) {}

    detail::WorkflowCalls calls_;
};

namespace detail {
template <class E, class... More>
using Come = std::conditional_t<sizeof...(More) == 0, E, std::variant<E, More...>>;
}

/// A Context that can wait for events.
template <class... Awaited>
class ContextOf : public Context {
public:
    explicit ContextOf(const detail::WorkflowCalls& calls) : Context(calls) {}

    /// The next event of this type in the workflow's stream that no wait has had yet, whether it has come
    /// already or not. Of several types the first that comes, as a variant. It is sent there like any message:
    ///
    ///     app.dispatch(handle.stream(), Paid{amount});
    template <class E, class... More>
    detail::Come<E, More...> wait_for();
    /// The same as an optional: nothing when none has come before `timeout` has passed.
    template <class E, class... More>
    std::optional<detail::Come<E, More...>> wait_for(Duration timeout);

private:
    template <class E, class... More>
    std::optional<detail::Come<E, More...>> wait(std::optional<Duration> timeout);
};

/// What all workflows have in common. Not for use by itself.
class SOURCED_API WorkflowBase : public Reactor {
public:
    /// Where a run takes what cannot be repeated from.
    struct Surroundings {
        std::function<Time()> clock;
        std::function<Id()> new_id;
    };

    /// What is to come of a workflow whose stream holds `history`: one run of its function, with the step that is
    /// due. Nothing when it waits, has ended, or was never started.
    ///
    /// Throws Park when the function makes other calls than its history tells, when a record cannot be read, and when
    /// the function has caught what ends a run. Nothing of the outside was done then.
    [[nodiscard]] Actions advance(std::string_view stream, const Messages& history, const Surroundings& around) const;

    /// The event that starts the workflow, from the JSON of its input. See App::start_workflow.
    [[nodiscard]] Message start_message(const std::string& input) const;
    /// The stream of the workflow with this id: `<name>-<id>`.
    [[nodiscard]] std::string stream_of(std::string_view id) const;

protected:
    friend class detail::WorkflowPass;
    /// From the payload that starts it to the JSON of its output; empty: it has none.
    using Body = std::function<std::string(const detail::WorkflowCalls&, const std::string&)>;

    explicit WorkflowBase(std::string_view name);
    void wake_by(const detail::Declared& type);
    void set_body(Body body);

    /// As Reactor::options, but without `errors` an instance that cannot go on is parked, and the others do.
    void options(ReactorOptions options);

private:
    Results serve(const Batch& batch) const;

    Body body_;
};

/// A function whose steps are recorded, each in its turn, so that it goes on where it was after any interruption.
///
///     struct BookTrip : sourced::Workflow<Trip, Booking, Paid> {  // input, output, and what it waits for
///         BookTrip() : Workflow("book_trip") {
///             run([](Context& ctx, const Trip& trip) {
///                 auto flight = ctx.step("book flight", [&] { return book_flight(trip); });
///                 auto paid = ctx.wait_for<Paid>(24h);
///                 if (!paid) ctx.step("cancel flight", [&] { cancel(flight); });
///                 return Booking{flight, paid.has_value()};
///             });
///         }
///     };
///
///     app.add<BookTrip>();
///     auto trip = app.start_workflow<BookTrip>(Trip{"Lisbon"});
///     app.dispatch(trip.stream(), Paid{350});
///     auto outcome = trip.wait(5s);
///
/// Input, Output and what steps return is anything that has JSON; Output may be void. Each instance is a stream
/// `<name>-<id>` of the engine's events `sourced.workflow_*`; the three that wake it carry the workflow's name behind
/// theirs. Any other message may stand in the stream and is left alone, also once the workflow has ended.
///
/// A function that has changed so that its calls no longer match the history parks the stream and says what was
/// expected and what was found. An exception out of the function ends the workflow as failed.
///
/// One object serves all instances, and its function runs on many threads at once: what it remembers belongs into
/// its variables, never into the workflow.
///
/// A step costs one transaction and reading the instance's stream: cut instances of thousands of calls into several. A
/// worker runs one step at a time, and what waits for the disk shares commits, so workflows like many workers.
template <class In, class Out, class... Awaited>
class Workflow : public WorkflowBase {
public:
    using Input = In;
    using Output = Out;
    using Context = ContextOf<Awaited...>;

protected:
    /// `name` is durable: progress is kept, and streams are named by it.
    explicit Workflow(std::string_view name);

    /// The function: `(Context&, const Input&)`, a lambda or a const member function. It returns the Output.
    template <class F>
    void run(F function);
};

}  // namespace sourced
// =============================================================================
// Store: the log, the schedule, and how groups get through them
// =============================================================================

namespace sourced {

/// What an acknowledged commit survives. `full`: a power cut. `normal`: the death
/// of every process; a power cut may take the newest commits, never leaving a hole.
enum class Durability { full, normal };

/// A group as it is stored.
struct GroupSpec {
    std::string name;
    std::vector<std::string> types{};  ///< handled type names; the stored set only grows
    Start start{};
};

/// What a group passes again: everything, unless told otherwise.
///
///     app.reset_group("history", {.time = noon, .reason = "the tax rate was wrong"});
struct Reset {
    std::int64_t position = 1;   ///< the first position that comes again
    std::optional<Time> time{};  ///< instead: the first message recorded at or after it
    std::string stream{};        ///< only what is in this stream; empty: in all
    std::string reason{};        ///< for those who look at stats()
};

/// What a reset has a group pass again.
struct ResetPlan {
    std::int64_t position = 0;  ///< the first that comes again
    std::int64_t messages = 0;  ///< handled before, of the group's types
    std::int64_t streams = 0;   ///< in which they stand
    bool estimated = false;     ///< there is much of it: `messages` and `streams` are about right
    std::vector<TypeCount> types{};  ///< of the messages, most first
};

/// How much of a way is behind.
struct Progress {
    std::int64_t done = 0;
    std::int64_t total = 0;
};

/// A generation of a group that is built beside the one that is served, under a row id of its own.
struct Generation {
    std::int64_t group = 0;   ///< row id, for Store::exchange
    std::int64_t number = 0;  ///< the first of a group is 1
    std::int64_t begins = 0;
    /// Where the served one came to look for a type later than from the start.
    std::unordered_map<std::string, std::int64_t> since{};
};

/// The last messages of a stream without a gap, in order; empty when they have to be read.
using Tail = std::vector<std::shared_ptr<const Message>>;

/// A worker's right to process one stream for one group.
struct Claim {
    std::int64_t group = 0;   ///< row id of the group
    std::int64_t stream = 0;  ///< row id of the stream
    std::string stream_name;
    std::int64_t acked = 0;    ///< last position handled
    std::int64_t pending = 0;  ///< lower bound of the first position not yet handled
    std::int64_t known = 0;    ///< highest position discovered
    /// Highest position ever handled: at or below it, or at or below `begins`, is a replay. Of a generation that is
    /// built: what the served one has handled.
    std::int64_t highest = 0;
    std::int64_t begins = 0;
    std::int64_t fence = 0;
    int attempts = 0;              ///< failed tries of the message at `attempted`
    std::int64_t attempted = 0;
    Tail tail{};                   ///< the end of the stream, where this process has it at hand
    int deaths = 0;                ///< times a process died over this claim: use batches of one when not 0
};

/// A failure of user code or of decoding.
struct Failure {
    std::int64_t position = 0;  ///< the message it happened at
    std::string type;           ///< the exception's type
    std::string text;
    /// What is to be done. A skip is one as by Store::skip_message.
    Resolution resolution{};
};

/// What a worker has made of a claim. Committed as one: all of it or nothing.
struct Handled {
    Claim claim;
    std::int64_t acked = 0;  ///< last position handled, claim.acked when none
    std::vector<Append> appends{};
    std::vector<Scheduled> schedules{};  ///< entries with a due time that has passed are appended at once
    /// A decision for the claimed stream holds only while no message of these types
    /// stands behind `decided_on` in it. Null: no decision was taken.
    const std::unordered_set<std::string>* evolves = nullptr;
    std::int64_t decided_on = 0;
    std::function<void(Transaction&)> sync{};  ///< user code, run in the transaction
    std::optional<Failure> failure{};
    std::optional<Time> not_before{};  ///< what is left is to come again then, though nothing failed
    bool release = false;  ///< give the claim back without counting anything (shutdown, store trouble)
};

/// How the commit of one Handled went.
struct Outcome {
    enum class Result {
        done,
        lost,      ///< the claim had passed to somebody else, or the group was stopped or reset: nothing was written
        conflict,  ///< a message that the decision depends on came in between: decide again, the claim is still held
        failed     ///< sync threw `error`: nothing was written, the claim is still held
    };
    Result result = Result::done;
    std::exception_ptr error{};
    std::vector<Appended> appended{};  ///< one for each append
};

/// The one step of a worker: commits what is finished, looks for new work of a
/// group and claims some of it, in one transaction.
struct Exchange {
    std::vector<Handled> finished{};
    std::int64_t group = 0;
    std::size_t claims = 0;  ///< at most so many new claims; 0: none are looked for
    /// Only streams in which something may be open at or before this position are claimed.
    std::int64_t until = std::numeric_limits<std::int64_t>::max();
};
struct Exchanged {
    std::vector<Outcome> outcomes{};  ///< one for each finished
    std::vector<Claim> claims{};      ///< oldest pending first
    std::int64_t scanned = 0;         ///< the log has been searched for the group up to here
    bool more = false;                ///< there was more to claim or to search than was asked for
    std::optional<Time> next_retry{}; ///< when the group's next waiting stream is due
    bool active = true;               ///< false: the group is stopped, or this program cannot handle all its types
};

/// What happened to the log in a commit of this process.
struct Committed {
    std::int64_t head = 0;                      ///< last position
    const std::vector<std::string>* types = nullptr;  ///< types that were appended; null: unknown, assume all
    std::optional<Time> due{};                  ///< the earliest time at which something scheduled here is due
    bool groups_changed = false;                ///< a group was started, stopped or reset
};

/// Handling at once, without a worker (App::handle): the command and what was decided on it.
struct Direct {
    std::int64_t group = 0;
    std::string stream;
    std::int64_t decided_on = 0;  ///< the stream's seq the state stands at; also: nothing of the group may be pending
    const std::unordered_set<std::string>* evolves = nullptr;
    Messages messages;            ///< the command first, then what follows from it
    std::size_t commands = 1;     ///< so many of them, from the first, are commands that are handled by this
    std::function<void(Transaction&)> sync{};  ///< user code, run in the transaction after the append; may run again
};
struct DirectOutcome {
    enum class Result { done, conflict, pending };  ///< pending: work of the group on this stream is open or claimed
    Result result = Result::done;
    Appended appended{};
};

/// Where a group stands in one stream.
struct OffsetInfo {
    enum class State { idle, ready, claimed, waiting, parked };  ///< waiting: for its retry

    std::string stream;
    State state = State::idle;
    std::int64_t acked = 0;     ///< last position handled
    std::int64_t known = 0;     ///< highest position discovered; beyond `acked`: something is open
    int attempts = 0;           ///< failed tries of the message at `position`
    int deaths = 0;             ///< times a process died over the stream's next message
    std::int64_t position = 0;  ///< the message that failed; 0: none
    std::string error_type;
    std::string error_text;
    std::string reason;                ///< why it is parked
    std::optional<Time> failed_at{};   ///< when the error was recorded
    std::optional<Time> retry_at{};
    std::int64_t owner = 0;            ///< number of the process that handles it; 0: nobody
    std::int64_t owner_pid = 0;
    std::string group{};
};

/// Which of a group's offsets to list, in the order in which the streams came into being.
struct OffsetRange {
    bool all = false;      ///< otherwise only those with an error, and those that are parked
    std::string after{};   ///< the last stream of the page before
    std::size_t limit = 100;
    std::string stream{};  ///< not empty: of this one only, without `after`
    /// Whatever `all` says: those in this state, and no others. Cheap but for `idle`.
    std::optional<OffsetInfo::State> state{};
};

/// A message that a group was made to pass over.
struct Skipped {
    std::int64_t number = 0;  ///< of the record, rising
    std::string stream;
    std::int64_t position = 0;
    Id id{};
    Time at{};
    std::string error_type;  ///< empty: nothing had failed
    std::string error_text;
    std::string reason;
    std::string group{};
};

/// How often messages of one type were the cause of messages of another.
struct Causation {
    std::string cause;  ///< a type; empty: nothing in the log
    Kind cause_kind = Kind::event;
    std::string effect;
    Kind effect_kind = Kind::event;
    std::int64_t here = 0;       ///< where cause and effect stand in the same stream; without a cause, all
    std::int64_t elsewhere = 0;  ///< where they do not

    [[nodiscard]] bool operator==(const Causation&) const = default;
};
/// What followed from what in a part of the log.
struct Causations {
    std::vector<Causation> pairs{};  ///< in the order in which they first came
    std::int64_t messages = 0;       ///< so many were looked at, the newest
    bool whole = true;               ///< these are all that the log has
};

/// Whether a group has come as far as somebody waits for.
struct Standing {
    bool reached = false;  ///< nothing is open up to there
    std::string stalled;   ///< why it does not get there by itself; empty: it does
};

/// How far one group is.
struct GroupInfo {
    std::int64_t id = 0;
    std::string name;
    bool active = true;
    std::string reason;           ///< why it was stopped or started last
    std::optional<Time> changed_at{};  ///< when that was
    std::string error_type;       ///< the exception that stopped it, if one did
    std::string error_text;
    std::int64_t error_position = 0;
    std::vector<std::string> types;
    /// Types that it came to look for later than from the start, with the first position at which it does.
    std::unordered_map<std::string, std::int64_t> since{};
    std::int64_t begins = 0;
    std::int64_t scanned = 0;
    std::int64_t streams = 0;     ///< streams in which it has handled something
    std::int64_t oldest = 0;      ///< lowest of its offsets that is not 0
    std::int64_t newest = 0;      ///< highest of its offsets
    std::int64_t lag = 0;         ///< messages of its types not yet handled
    Duration lag_time{};          ///< age of the oldest of them
    std::int64_t retrying = 0;    ///< streams waiting for a retry
    std::optional<Time> next_retry{};
    std::string retry_error;      ///< the newest error of a stream that waits
    /// How far it is in passing messages again after a reset, about, in positions of the log; nothing once it is done.
    std::optional<Progress> replay{};
    std::optional<Time> reset_at{};     ///< when it was last reset
    std::string reset_reason;           ///< and why
    std::int64_t reset_position = 0;    ///< from there on it came again
    std::string reset_stream;           ///< in this stream only; empty: in all
    std::int64_t generation = 1;        ///< one more with every rebuild
    /// How far a rebuild is, about, in positions of the log; also one that broke off.
    std::optional<Progress> rebuild{};
    std::int64_t parked = 0;      ///< streams that are parked
    std::int64_t skipped = 0;     ///< messages that it was made to pass over, ever; see Store::skipped
    std::optional<OffsetInfo> last_error{};  ///< the stream that failed last of those that have not recovered
    /// There is much of it, and only a part was looked at: what is said of streams (`streams`, `oldest`, `newest`,
    /// `retrying`, `parked`, `last_error`), progress and lag is about right.
    bool estimated = false;
    bool lag_estimated = false;   ///< `lag` and `lag_time` too; otherwise they are exact
};

/// A process that handles messages, or has died and nobody has noticed yet.
struct WorkerInfo {
    std::int64_t number = 0;  ///< what OffsetInfo::owner says
    std::int64_t pid = 0;
    std::string host;
    std::string boot;         ///< which start of the machine it belongs to
    Time started_at{};        ///< when it came to this file
    /// A count and no time: it moves while the process lives. Who sees it stand still for the claim time, on his own
    /// steady clock, takes the process for dead and its claims back.
    std::int64_t beat = 0;
    /// Whether there is a process of this pid, which after a death may be another one by chance. False also of one
    /// that ran before this machine was started. Nothing where it runs on another machine: it cannot be seen from here.
    std::optional<bool> alive{};
    std::int64_t claims = 0;  ///< streams that it holds claims on, of all groups together
};

/// A handler that has been running for long.
struct SlowHandler {
    std::string group;
    std::string stream;
    std::string thread;      ///< "worker 0", "foreground"
    Duration running{};
    bool given_up = false;   ///< its claim was taken back: what it does is dropped
};

/// The whole file in numbers.
struct Stats {
    std::int64_t messages = 0;  ///< the last position
    std::int64_t streams = 0;
    std::int64_t scheduled = 0;
    std::vector<GroupInfo> groups;
    std::vector<SlowHandler> slow{};  ///< of this process, only in App::stats()

    /// The group of this name. Throws NotRegistered.
    [[nodiscard]] SOURCED_API const GroupInfo& group(std::string_view name) const&;
    [[nodiscard]] GroupInfo group(std::string_view name) && { return std::as_const(*this).group(name); }
};

/// A message that Store::import_log() cannot take: which one of those that were given, and which field says so.
struct SOURCED_API Unfit : Invalid {
    Unfit(const Message& message, std::size_t index, std::string_view field, std::string_view found);

    [[nodiscard]] std::size_t index() const noexcept { return index_; }  ///< from 0
    /// As problems() names it, without the slash: "seq".
    [[nodiscard]] const std::string& field() const noexcept { return field_; }

private:
    std::size_t index_;
    std::string field_;
};

/// What came of an import.
struct Imported {
    std::int64_t appended = 0;
    std::int64_t known = 0;  ///< were there already, equal in everything
    std::int64_t moved = 0;  ///< of both: those that stand at another position than the one they were given with
};

/// A group as one file hands it to another. Its generation that is served; what is built beside it stays behind.
struct GroupRecord {
    std::string name;
    std::int64_t generation = 1;
    /// Type names, each with the first position at which it is looked for.
    std::vector<std::pair<std::string, std::int64_t>> handles{};
    std::int64_t begins = 0;
    std::int64_t scanned = 0;
    bool active = true;
    std::string reason;
    std::string error_type;
    std::string error_text;
    std::int64_t error_position = 0;
    Time created_at{};
    std::optional<Time> changed_at{};

    [[nodiscard]] bool operator==(const GroupRecord&) const = default;
};

/// Where a group stands in one stream. A claim stays behind: what was claimed is ready.
struct OffsetRecord {
    std::string group;
    OffsetInfo offset;
    std::int64_t highest = 0;  ///< position of the last message ever handled, which a reset leaves alone
};

/// A message that a group was made to pass over.
struct SkipRecord {
    std::string group;
    Skipped skipped;
};

/// One piece of what the groups of a file have come to. A group comes before what belongs to it.
using GroupPart = std::variant<GroupRecord, OffsetRecord, SkipRecord>;

/// One state of everything in the file, however much is written meanwhile; see Store::snapshot(). Visitors end
/// their reading with `false`.
class Snapshot {
public:
    Snapshot() = default;
    Snapshot(const Snapshot&) = delete;
    Snapshot& operator=(const Snapshot&) = delete;
    virtual ~Snapshot() = default;

    [[nodiscard]] virtual std::int64_t head() = 0;
    virtual void read_log(const LogRange& range, const Visit& visit) = 0;
    /// What waits, in order of due time.
    virtual void scheduled(const std::function<bool(const Scheduled&)>& visit) = 0;
    [[nodiscard]] virtual std::vector<Recurring> recurring() = 0;
    /// Every group in order of its making, followed by its offsets and by what it was made to pass over.
    virtual void groups(const std::function<bool(const GroupPart&)>& visit) = 0;
};

/// What bringing the write-ahead log into the file has done.
struct Checkpoint {
    enum class Held {
        no,
        reader,  ///< somebody reads an older state: what came after it stays in the log
        writer   ///< another process writes, or checkpoints
    };
    std::int64_t frames = 0;  ///< pages in the log before
    std::int64_t moved = 0;   ///< of these now in the file
    bool restarted = false;   ///< the log begins anew: what comes is written over it. Its file does not shrink
    Held held = Held::no;
};

struct BackupOptions {
    bool replace = false;  ///< an existing file is replaced; otherwise it is an error
    /// Called every few megabytes with pages copied and pages in all, the last time with both equal. What it throws
    /// ends the copying and passes on; nothing stays behind then.
    std::function<void(std::int64_t done, std::int64_t total)> progress{};
};

/// See UnitTransaction::passed().
struct Passed {
    std::int64_t highest = 0;             ///< what stands in the stream up to this position is a replay
    std::optional<std::string> parked{};  ///< why, if it is
};

/// A write transaction that can also do what a worker's commit does: read the log as it
/// will be, schedule, and acknowledge. See Store::unit().
class UnitTransaction : public Transaction {
public:
    /// As Store::read_stream, with what was appended inside.
    virtual void read_stream(std::string_view stream, const StreamRange& range, const Visit& visit) = 0;
    /// As Store::find, likewise.
    [[nodiscard]] virtual std::optional<Message> find(const Id& id) = 0;
    /// As Store::schedule, for one message; it names its stream.
    virtual void schedule(const Scheduled& entry) = 0;
    /// Whether something that the group handles stands open in the stream before the position `before`: not
    /// discovered yet, waiting, or claimed by a worker. Throws Error when the group is stopped.
    [[nodiscard]] virtual bool open(std::int64_t group, std::string_view stream,
                                    std::int64_t before = std::numeric_limits<std::int64_t>::max()) = 0;
    /// How far the group has ever come in the stream. Throws Error when it is stopped.
    [[nodiscard]] virtual Passed passed(std::int64_t group, std::string_view stream) = 0;
    /// Counts everything in the stream up to `position` as handled by the group, also what stands open; what
    /// was handled before stays so. Retries and errors of the stream are cleared. Throws Error when a worker has
    /// claimed the stream, when the group is stopped, and when the stream has no message up to there.
    virtual void acknowledge(std::int64_t group, std::string_view stream, std::int64_t position) = 0;
};

/// The append-only log of every message, ordered within its stream by `seq` and
/// across all streams by `position`; the messages that wait for their time; and
/// the progress of every group.
///
///     store.append("cart-1", {ItemAdded{"p1", 1000, 2}}, expect_seq(3));
///
/// Safe to share between threads; each call is one transaction. Errors are
/// StoreError unless said otherwise; its text tells what was tried, on which
/// file, and what was found. After one the store goes on when the cause is gone.
class Store {
public:
    Store() = default;
    Store(const Store&) = delete;
    Store& operator=(const Store&) = delete;
    virtual ~Store() = default;

    // ---- append

    /// Appends `messages` to `stream` in order, all or none.
    /// Throws Conflict when the stream is no longer at the expected seq; nothing
    /// is written then. Messages whose ids are all in the log already, equal in
    /// stream, type and payload, are not written again: the first result is given,
    /// whatever the expected seq. Only some known, or not equal: Invalid.
    /// An empty list is a no-op. A blank stream name is Invalid.
    virtual Appended append(std::string_view stream, const Messages& messages, Expect expect = any_seq) = 0;

    /// Appends to several streams, all or none; one result for each part.
    virtual std::vector<Appended> append_all(const std::vector<Append>& parts) = 0;

    /// Runs `body` in one write transaction; when it throws, nothing of it is kept.
    /// `body` runs once.
    virtual void transaction(const std::function<void(Transaction&)>& body) = 0;
    /// The same for who handles messages in it, as a worker does.
    virtual void unit(const std::function<void(UnitTransaction&)>& body) = 0;

    // ---- read: each call sees one consistent state

    virtual void read_stream(std::string_view stream, const StreamRange& range, const Visit& visit) = 0;
    virtual void read_log(const LogRange& range, const Visit& visit) = 0;
    [[nodiscard]] SOURCED_API Messages stream(std::string_view stream, const StreamRange& range = {});
    [[nodiscard]] SOURCED_API Messages log(const LogRange& range = {});

    /// The message with this id, if it is in the log.
    [[nodiscard]] virtual std::optional<Message> find(const Id& id) = 0;
    /// All messages with the same correlation as the message `id`, or with `id` itself as theirs, in log order; the
    /// first `limit` of them.
    [[nodiscard]] virtual Messages correlated(const Id& id,
                                              std::size_t limit = std::numeric_limits<std::size_t>::max()) = 0;
    /// The messages that the message `id` is the cause of, in log order; the first `limit` of them. Looks at those
    /// of its correlation that come after it.
    [[nodiscard]] virtual Messages effects(const Id& id,
                                           std::size_t limit = std::numeric_limits<std::size_t>::max()) = 0;
    /// The ids in the log that begin with these hexadecimal digits, ascending; hyphens count for nothing. Throws
    /// Invalid for anything else. Found without reading others.
    [[nodiscard]] virtual std::vector<Id> ids(std::string_view prefix, std::size_t limit = 10) = 0;
    /// Which types of messages followed from which, among the newest `limit` messages. About a microsecond or two for
    /// each of them; `progress` is told now and then, and ends it by `false`: then with what was found so far.
    [[nodiscard]] virtual Causations causations(
        std::size_t limit = std::numeric_limits<std::size_t>::max(),
        const std::function<bool(const Progress&)>& progress = {}) = 0;
    /// The streams changed last, newest first. A negative limit is Invalid.
    [[nodiscard]] virtual std::vector<StreamInfo> recent_streams(std::int64_t limit = 10) = 0;
    /// The streams that a query asks for.
    [[nodiscard]] virtual std::vector<StreamInfo> streams(const StreamQuery& query = {}) = 0;
    /// All message types, those with most messages first. Of a long log only a sample is counted.
    [[nodiscard]] virtual std::vector<TypeCount> types() = 0;
    [[nodiscard]] virtual FileInfo file() = 0;
    /// A stream's last seq; 0 when it has no message.
    [[nodiscard]] virtual std::int64_t stream_seq(std::string_view stream) = 0;
    /// The last position; 0 when the log is empty.
    [[nodiscard]] virtual std::int64_t head() = 0;
    /// The first position recorded at or after `time`; head() + 1 when there is none.
    [[nodiscard]] virtual std::int64_t position_at(Time time) = 0;
    /// Runs `body` with read access to all tables of the file.
    virtual void read(const std::function<void(Reader&)>& body) = 0;

    // ---- schedule

    /// Keeps messages until their time. Ids are unique across log and schedule.
    virtual void schedule(const std::vector<Scheduled>& entries) = 0;
    /// Moves messages that are due at `now` into the log, in order of due time;
    /// at most `limit`. Gives how many.
    virtual std::size_t promote(Time now, std::size_t limit = 1000) = 0;
    /// When the next message is due.
    [[nodiscard]] virtual std::optional<Time> next_due() = 0;
    /// What waits, in order of due time; for one stream, when it is given.
    [[nodiscard]] virtual std::vector<Scheduled> scheduled(std::size_t limit = 100, std::string_view stream = {}) = 0;
    /// The message with this id, if it waits.
    [[nodiscard]] virtual std::optional<Scheduled> find_scheduled(const Id& id) = 0;
    /// Takes a message out of the schedule. Of a recurring one this occurrence is left out, the next comes in its time.
    virtual ScheduleChange cancel(const Id& id) = 0;
    /// Moves a scheduled message into the log at once. Of a recurring one this is an extra occurrence: the next
    /// still comes in its time.
    virtual ScheduleChange run_now(const Id& id) = 0;
    /// Schedules a message again and again. The same again changes nothing; another interval, time or message under
    /// a known name takes its place, and the occurrence that waits follows it. What became due while nobody
    /// promoted comes once. Each occurrence is its own cause, with the name as "schedule" in its metadata.
    /// Throws Invalid for a blank name, an interval that is not positive, and times of more than 10,000 years.
    virtual void recur(const Recurring& recurring) = 0;
    /// Ends it, with the occurrence that waits; false when there is none of this name.
    virtual bool cancel_recurring(std::string_view name) = 0;
    /// All of them, by name.
    [[nodiscard]] virtual std::vector<Recurring> recurring() = 0;

    // ---- groups

    /// Stores the group or adds new types to it, and gives its row.
    /// A type that is added later is delivered from the log's head on.
    virtual GroupInfo register_group(const GroupSpec& spec) = 0;
    /// See Exchange. The claims belong to this process.
    virtual Exchanged exchange(const Exchange& step) = 0;
    /// Claims one stream for a group, whatever else is pending; nothing when
    /// another holds it, the group is stopped or the stream has no message.
    virtual std::optional<Claim> claim_stream(std::int64_t group, std::string_view stream) = 0;
    /// See Direct. Throws Error when the group is stopped or the stream parked for it, and as append() does.
    virtual DirectOutcome commit_direct(const Direct& direct) = 0;
    /// Stops a group: nothing is claimed any more, work under way is dropped.
    /// Throws NotRegistered for a name that is not stored.
    virtual void stop_group(std::string_view name, std::string_view reason) = 0;
    /// Starts it again where it stopped; errors and retries are cleared. Parked streams stay parked.
    virtual void start_group(std::string_view name, std::string_view reason = {}) = 0;
    /// Lets the group pass messages again; `on_reset` runs in the same transaction. What it had handled before is
    /// a replay. Work under way is dropped, retries begin anew, parked streams go on. Streams that have not come as
    /// far stay where they are. Throws NotRegistered for a group that is not stored, Invalid for a stream that is not
    /// there and when both a position and a time are given.
    virtual void reset_group(std::string_view name, const Reset& reset,
                             const std::function<void(Transaction&)>& on_reset) = 0;
    /// What reset_group would do now; throws what it throws. Cheap, unless a stream is given that is very long.
    [[nodiscard]] virtual ResetPlan plan_reset(std::string_view name, const Reset& reset) = 0;
    /// Counts everything that stands in the log as handled, also what waits for a retry or is parked: no message that
    /// the group has open is ever handled by it, and after a reset it comes as a replay. Work under way is dropped, and
    /// streams go on with what comes next. What stats() says of the last reset tells of this, with the log's end as
    /// its position. Gives the first position that is handled now. Throws NotRegistered for an unknown group.
    virtual std::int64_t skip_to_end(std::string_view name, std::string_view reason) = 0;
    /// Lets a stream that is parked, waits for its retry, or has stopped the group go on now, with its attempts
    /// counted anew. Throws Error for an unknown stream, for one that has no trouble and for one that is being handled;
    /// NotRegistered for an unknown group, as those below.
    /// A `reason` is kept as the group's, unless it is stopped: that has its own.
    virtual void retry_stream(std::string_view group, std::string_view stream, std::string_view reason = {}) = 0;
    /// Leaves a stream alone, later messages too; work under way is dropped. Throws Error for an unknown stream.
    virtual void park_stream(std::string_view group, std::string_view stream, std::string_view reason) = 0;
    /// Passes over the message that failed last in the stream, or without trouble the first that the group has open;
    /// records that, and lets the stream go on; work under way is dropped. A state that cannot be folded with a
    /// message that was skipped is folded without it, for ever and whatever the group handles; when that message is
    /// none the group has open, or others stand open before it, these are handled then. Throws Error for an unknown
    /// stream, where nothing is open, and when a `position` is given and the message stands at another.
    virtual Skipped skip_message(std::string_view group, std::string_view stream, std::string_view reason,
                                 std::int64_t position = 0) = 0;
    /// The messages a group has passed over, those behind record number `after`, oldest first. Without a name: of all
    /// groups.
    [[nodiscard]] virtual std::vector<Skipped> skipped(std::string_view group, std::int64_t after = 0,
                                                       std::size_t limit = 100) = 0;
    /// Where the group stands in its streams. Throws Error when `range.after` is no stream. Without a name: of all
    /// groups those with an error and those that are parked; of `range` only `stream` and `limit` count then.
    [[nodiscard]] virtual std::vector<OffsetInfo> offsets(std::string_view group, const OffsetRange& range = {}) = 0;

    // ---- generations: a read model that is built anew beside the one that is read

    /// Begins one for a group: all its types, from where the group began, nothing handled. What is left of an earlier
    /// one that did not come to its end is dropped. `install` creates its tables in the same transaction and
    /// gives their plain names; they stand in the file as `<name>_generation_<number>`. Throws NotRegistered for a
    /// group that is not stored, Error when this process does not handle all its types or a table is not there then.
    virtual Generation begin_generation(
        std::string_view group,
        const std::function<std::vector<std::string>(Transaction&, std::int64_t number)>& install) = 0;
    /// Lets streams go on that waited for the served generation. Gives how many.
    virtual std::size_t next_pass(const Generation& generation) = 0;
    /// Puts it in the place of the served one, in one transaction: offsets, with what was handled ever; tables; then
    /// `on_install`, for what could not be built beside. The group keeps its row id, work under way is dropped.
    /// Throws Error when the generation is not there any more, or its group handles more types by now.
    virtual void serve_generation(const Generation& generation,
                                  const std::function<void(Transaction&)>& on_install) = 0;
    /// Takes it out of the file with its tables; nothing happens when it is not there.
    virtual void drop_generation(const Generation& generation) = 0;

    /// Whether the group has handled everything up to `position`, in one stream when given. Cheap, unlike stats().
    [[nodiscard]] virtual Standing standing(std::string_view group, std::int64_t position,
                                            std::string_view stream = {}) = 0;
    /// Takes claims of this process back, as if it had died over the first of them. Those that are over already are
    /// left alone. Gives how many were taken back.
    virtual std::size_t revoke(const std::vector<Claim>& claims) = 0;
    /// True when nothing that the group handles is open, or the group is stopped. What is parked is not open. Cheap,
    /// unlike stats().
    [[nodiscard]] virtual bool settled(std::int64_t group) = 0;
    [[nodiscard]] virtual Stats stats() = 0;

    // ---- from file to file

    /// Runs `body` on one state of the whole file. Who writes meanwhile is not held up, but the WAL cannot shrink.
    virtual void snapshot(const std::function<void(Snapshot&)>& body) = 0;
    /// Appends messages as another file has recorded them: with their ids, seqs, times, causes, metadata, payloads, and
    /// without the payload where it was erased. All or none. Positions are given anew, in the order of `messages`. What
    /// is there already, equal in everything, is passed over: an import that broke off can be made again from its
    /// beginning. Throws Unfit for the first message that is not the next one of its stream, was recorded before the
    /// last one of the log, before 1970 or more than a day ahead of the clock, has a type of another kind here, a cause
    /// that is neither in the log before it nor marked as outside (see verify()), another correlation than its cause,
    /// or an id that stands for another message or waits in the schedule.
    virtual Imported import_log(const Messages& messages) = 0;
    /// Puts what recurs into the schedule as another file had it, `next` and `next_id` included; the occurrence that
    /// waits is scheduled like any other message. Again is no error. Throws Invalid where the name stands for something
    /// else, or nothing waits under `next_id` until `next`.
    virtual void import_recurring(const std::vector<Recurring>& recurring) = 0;
    /// Stores groups as they were in another file, all or none; `next` gives one part after the other and then nothing.
    /// Only for a log with the same messages at the same positions. Throws Invalid for a group that is stored already,
    /// a stream that is not there, a position behind the log's end, and for a part whose group did not come first.
    virtual void import_groups(const std::function<std::optional<GroupPart>()>& next) = 0;
    /// Brings the WAL into the file, waiting a moment for readers of older states. In memory there is nothing to do.
    virtual Checkpoint checkpoint() = 0;
    /// Copies one state of the file to `path`, while others go on; safe on the disk when it returns. Readable by its
    /// owner only. The copy appears under its name when it is whole. Throws StoreError when a file is there already
    /// and is not to be replaced, and when one that is to be replaced is in use.
    virtual void backup(const std::string& path, const BackupOptions& options = {}) = 0;

    // ---- processes

    /// Says that this process lives, and takes back the claims of processes whose
    /// beat was seen unchanged for `claim_time` on this process's steady clock, or that
    /// ran before the machine was started. Gives how many claims were taken back.
    virtual std::size_t beat(Duration claim_time) = 0;
    /// The processes that have come to the file to handle messages and have not left it, by number.
    [[nodiscard]] virtual std::vector<WorkerInfo> workers() = 0;
    /// Called after every commit of this process that appended, scheduled or changed a
    /// group, on the thread that committed. Must not call the store. Set once, before use.
    virtual void on_commit(std::function<void(const Committed&)> callback) = 0;
    /// Waits until another process may have written, `timeout` has passed or
    /// interrupt_wait() was called. True: another process wrote.
    virtual bool wait_for_others(Duration timeout) = 0;
    virtual void interrupt_wait() = 0;
};

/// What is done with a file that is not there, and to one that is.
enum class Open {
    create,    ///< made when it is missing, or empty; brought to this version's schema
    existing,  ///< has to be there and to be the engine's; brought to this version's schema
    read_only  ///< the same, and nothing of it is changed: every call that would write throws StoreError
};

struct StoreOptions {
    std::string path{};  ///< empty: in memory
    Open open = Open::create;
    Durability durability = Durability::full;
    std::function<Time()> clock{};  ///< default: the system's
    std::size_t max_payload = 16u << 20;  ///< bytes of one payload
    Duration busy_timeout = std::chrono::seconds(5);  ///< how long to wait for another process's write
    std::size_t checkpoint_bytes = 16u << 20;  ///< size of the WAL at which it is brought into the file
    std::function<void(std::string_view warning)> warn{};
    std::string vfs{};  ///< name of a SQLite VFS; empty: the default one
    std::uint64_t seed = 0;  ///< of the ids of recurring messages; 0: from the system
};

/// Opens or creates a file of the engine. Throws StoreError: not a database, another
/// application's file, a newer schema, no permission, a network file system; Busy when it is locked.
///
/// Read-only it never moves the WAL into the file, and may stand beside stores that write, in this process and in
/// others. SQLite makes a -wal and a -shm beside a file that nobody has open, so the directory has to allow that; both
/// go away again when the last store closes, if this user may write to the file and no process died over it.
/// A schema older than this version's is refused: only who writes can migrate it.
[[nodiscard]] SOURCED_API std::unique_ptr<Store> open_store(const StoreOptions& options = {});

namespace detail {

/// A file that is written beside the one it is to become, and gone again unless it was put in its place. For its owner
/// only. Throws StoreError.
class SOURCED_API Draft {
public:
    /// `replace`: keep() may take the place of a file that is there; otherwise that is an error.
    Draft(std::string path, bool replace);
    Draft(const Draft&) = delete;
    Draft& operator=(const Draft&) = delete;
    ~Draft();
    [[nodiscard]] const std::string& path() const noexcept { return draft_; }
    /// A descriptor to write to.
    [[nodiscard]] int file() const noexcept { return file_; }
    /// Puts it in its place, on the disk.
    void keep();

private:
    std::string path_;
    bool replace_;
    std::string draft_;
    int file_ = -1;
};

}  // namespace detail

}  // namespace sourced

// =============================================================================
// Verify: is the file what it promises to be?
// =============================================================================

namespace sourced {

/// One broken promise.
struct Violation {
    std::string invariant;      ///< "I1" to "I12", as verify() lists them
    std::string text;           ///< what was found, where, and what was expected
    std::string stream{};       ///< empty: of no single stream
    std::int64_t position = 0;  ///< 0: of no single message
};

struct VerifyOptions {
    /// SQLite's own integrity_check over every page, about half of the time. Without it
    /// a damaged page that no message lies on can go unseen.
    bool integrity = true;
    /// Ids that were acknowledged to somebody who kept them outside the file.
    std::vector<Id> acknowledged{};
    std::size_t limit = 100;  ///< stop after so many violations
    /// Called every few thousand messages, and at the end with done == total, unless `limit` ends it. What it throws
    /// ends the check and passes on.
    std::function<void(std::int64_t done, std::int64_t total)> progress{};
    /// Called a few times a second while integrity_check runs, on this thread, with how long it has been running:
    /// SQLite does not tell how far it is. What it throws ends the check and passes on.
    std::function<void(Duration running)> integrity_progress{};
    /// Told when this program's SQLite can damage a file that other connections checkpoint.
    std::function<void(std::string_view warning)> warn{};
    std::string vfs{};  ///< name of a SQLite VFS; empty: the default one
};

/// Checks what the file alone can show, and gives what is broken; nothing when all is well.
///
///     for (const auto& violation : sourced::verify("shop.db")) {
///         std::cerr << violation.invariant << ": " << violation.text << '\n';
///     }
///
///     I1   the seqs of a stream are 1..n in the order of their positions, positions are 1..n
///     I2   a stream's head is its last message's seq
///     I3   message ids are unique; a cause exists, comes earlier and has the same correlation
///     I4   no offset lies beyond the log, no message was passed over by a group that handles it, and what is built
///          beside a group has its tables
///     I5   what came of a command was written in one transaction, once
///     I7   what came of a stream's commands by one group follows the order of the commands
///     I8   a claim has an owner that is known, and nothing else has one
///     I9   a message is scheduled or in the log, not both; of what recurs the next one waits
///     I10  what was acknowledged is in the log or scheduled (VerifyOptions::acknowledged)
///     I11  row checksums, the engine's own schema, integrity_check and foreign_key_check
///     I12  a stopped group holds no claim
///
/// What a read model should hold (I6) and when something became due (I9) only the application knows.
/// A message whose cause was never in this log says so with a metadata entry "outside_cause": the cause's id, or true.
/// An event that a reactor put off when it handled a command has an entry "scheduled", and is none of I5 and I7.
///
/// Opens the file for reading only and never moves the WAL into it; sees one consistent state, so
/// processes that write at the same time do no harm, though the WAL cannot shrink meanwhile. What stands beside
/// the file because of that goes away as with a store that only reads. Memory is bounded, whatever the file's
/// size. Damage that keeps SQLite from reading is a violation of I11. Throws StoreError when there is no such
/// file, it cannot be opened, or it has nothing of the engine in it.
[[nodiscard]] SOURCED_API std::vector<Violation> verify(const std::string& path, const VerifyOptions& options = {});

/// What this program was built and linked with.
struct Versions {
    std::string sourced{};  ///< of this library
    std::string sqlite{};
    int schema = 0;  ///< of the files that are written; older ones are migrated, newer ones refused
};
[[nodiscard]] SOURCED_API Versions versions();

}  // namespace sourced
// =============================================================================
// App: reactors, a store and the threads that bring them together
// =============================================================================

namespace sourced {

/// How much a line of the log matters. `debug`: what is dropped or redone in silence. `info`: workers start and stop,
/// advice. `warning`: trouble that is tried again. `error`: a group stopped, a worker could not go on.
enum class Level { debug, info, warning, error };

/// One line for the log sink; `fields` are pairs of name and value, the group, the stream and the error among them.
struct LogRecord {
    Level level = Level::info;
    std::string text;
    std::vector<std::pair<std::string, std::string>> fields;
};

/// What an App is told when it is made. Everything has a default that suits a desktop application.
///
///     sourced::App app({.path = "shop.db", .batch_size = 100, .log = print});
struct Options {
    std::string path{};                         ///< the file; empty: in memory
    /// Read-only an App is there to look: adding reactors stores and installs nothing; load(), draft(), history() and
    /// follow() work, what would write throws StoreError.
    Open open = Open::create;
    Durability durability = Durability::full;
    std::size_t workers = 2;                    ///< threads that start() and run() take when not told otherwise
    std::size_t batch_size = 50;                ///< messages of one stream handled together
    std::size_t claim_count = 64;               ///< streams a worker takes at a time
    ErrorStrategy errors{};                     ///< what becomes of a message that cannot be handled
    Duration claim_time = std::chrono::seconds(10);  ///< silence after which a process counts as dead
    int deaths = 10;                            ///< times a message may take its process down before `errors` ends it
    Duration slow_after = std::chrono::seconds(30);  ///< a handler that runs longer is logged once, stats() show it
    /// A handler that runs longer, for one stream and batch, loses its claim: others take the stream over, with
    /// batches of one, and what it does is dropped. That counts as a death of the process. 0: never.
    Duration give_up_after{};
    std::size_t cached_states = 10'000;         ///< states kept in memory; 0: none
    Limits limits{};                            ///< of the payloads that are dispatched
    Duration busy_timeout = std::chrono::seconds(5);  ///< how long to wait for another process's write
    std::size_t checkpoint_bytes = 16u << 20;         ///< size of the WAL at which it is brought into the file
    std::function<Time()> clock{};              ///< default: the system's; called from many threads
    std::uint64_t seed = 0;                     ///< of ids and of jitter; 0: from the system
    /// Where the engine says what it does; nothing is printed without. Called from many threads at once, must
    /// not call the App; what it throws is dropped.
    std::function<void(const LogRecord&)> log{};
};

/// What App::rebuild is told.
struct RebuildOptions {
    /// Told how many messages of how many are handled, on the calling thread; what it throws ends the rebuild.
    std::function<void(const Progress&)> progress{};
};

/// What a rebuild has done.
struct Rebuilt {
    std::int64_t generation = 0;  ///< the number of the one that is served now
    std::int64_t messages = 0;    ///< so many were handled for it
    int passes = 0;               ///< how often it went after what had come meanwhile
};

/// How App::wait ended.
struct Waited {
    enum class Result {
        reached,
        stalled,   ///< `group` is stopped, or a stream of it is parked or waits for its retry, and `reason` says so
        timed_out  ///< `group` was not there yet
    };
    Result result = Result::reached;
    std::string group{};
    std::string reason{};

    explicit operator bool() const noexcept { return result == Result::reached; }
};

/// A state and the seq of the last message in it.
template <class State>
struct Loaded {
    State state;
    std::int64_t seq = 0;
};

/// What came of a command that was handled at once.
class Result {
public:
    [[nodiscard]] bool refused() const noexcept { return refusal_.has_value(); }
    explicit operator bool() const noexcept { return !refused(); }
    /// Why it was refused; empty when it was not.
    [[nodiscard]] std::string_view reason() const noexcept { return refusal_ ? *refusal_ : std::string_view(); }
    /// The command as stored; without seq and position when it was not to be stored.
    [[nodiscard]] const Message& command() const noexcept { return command_; }
    /// The events as stored, the engine's own `sourced.refused` included.
    [[nodiscard]] const Messages& events() const noexcept { return events_; }

private:
    friend class App;
    Message command_;
    Messages events_;
    std::optional<std::string> refusal_;
};

// ---- Commands from outside --------------------------------------------------------------

/// What a CommandContext may build, and what it adds.
struct ContextOptions {
    std::string stream{};     ///< of a command whose text names none
    bool own_stream = false;  ///< the text may name the stream itself, which wins then
    Metadata metadata{};      ///< of every command
    std::vector<std::string> allow{};  ///< command types that may be built; none: all that are registered
    Limits limits{};                   ///< of a whole text
};

/// Makes commands of JSON text that nobody vouches for: the body of a request, a line of a file.
///
///     CommandContext context(app.registry(), {.stream = "cart-1", .metadata = who, .allow = {"cart.add_item"}});
///     try {
///         app.dispatch(context.build(R"({"type":"cart.add_item","payload":{"product_id":"p1","price":1000}})"));
///     } catch (const sourced::Invalid& error) {
///         for (const auto& problem : error.problems()) ...   // "/payload/price": "expected integer, got \"x\""
///     }
///
/// The text is an object with `type`, `payload` (left out: `{}`) and, where options say so, `stream`. Everything else
/// about the message is made here: an id, a cause, a position, a time or metadata in the text is a problem. The payload
/// is read strictly by the rules of its type and kept as the type writes it, so "12" for a lax integer becomes 12.
///
/// Refers to the registry. Safe to share between threads once its hooks are set.
class CommandContext {
public:
    /// Throws NotRegistered when `allow` names what is no registered command.
    SOURCED_API explicit CommandContext(const Registry& registry, ContextOptions options = {});

    /// The command in the text. Throws Invalid with everything that is wrong with it, each with its path; a type that
    /// is unknown, not allowed or no command is a problem at "/type". Takes memory in proportion to the
    /// text, at most to Limits::bytes.
    [[nodiscard]] SOURCED_API Message build(std::string_view json) const;
    /// The same where the type is known, from the text of the payload alone.
    template <class T>
    [[nodiscard]] Message build(std::string_view payload) const;

    /// Completes each command of a type when it is built: `(T&)` or `(T&, Metadata&)`. The text has been found valid by
    /// then; what is left behind has to obey the type's rules too. Throws NotRegistered for a type that is not.
    ///
    ///     context.on<AddItem>([&](AddItem& command) { command.price = catalogue.price(command.product_id); });
    template <class T, class F>
    CommandContext& on(F hook);
    /// Completes every command, after the hooks of its type.
    SOURCED_API CommandContext& any(std::function<void(Message&)> hook);

private:
    SOURCED_API void add_hook(std::string_view type, std::function<void(Message&)> hook);
    [[nodiscard]] SOURCED_API Message finish(std::string_view type, std::string stream, std::string_view payload,
                                             Problems problems) const;
    [[nodiscard]] const TypeInfo* allowed(std::string_view type) const;

    const Registry* registry_;
    ContextOptions options_;
    std::unordered_map<std::string, std::vector<std::function<void(Message&)>>> hooks_;
    std::vector<std::function<void(Message&)>> any_;
};

/// How a command is handled at once.
struct HandleOptions {
    /// False: only what came of the command is stored. It says in its metadata, as "outside_cause", that the command it
    /// follows from is not in the log. The same command handled again is decided again.
    bool store_commands = true;
};

namespace detail {
class Engine;
template <class T>
class Listening;
}  // namespace detail

// ---- Decisions in memory ------------------------------------------------------------------

/// What an actor decided on a command in memory. Nothing is stored.
class Trial {
public:
    /// Whether it was decided, and not refused.
    explicit operator bool() const noexcept { return valid() && !refused(); }
    /// Whether the command obeys the rules of its type; nothing was decided otherwise.
    [[nodiscard]] bool valid() const noexcept { return problems_.empty(); }
    [[nodiscard]] const Problems& problems() const noexcept { return problems_; }
    [[nodiscard]] bool refused() const noexcept { return refusal_.has_value(); }
    [[nodiscard]] std::string_view reason() const noexcept { return refusal_ ? *refusal_ : std::string_view(); }
    [[nodiscard]] const Message& command() const noexcept { return command_; }
    /// What would be stored, the engine's own `sourced.refused` included.
    [[nodiscard]] const Messages& events() const noexcept { return events_; }

private:
    friend class detail::Engine;
    template <class A>
    friend class Draft;
    Problems problems_;
    std::optional<std::string> refusal_;
    Message command_;
    Messages events_;
};

/// What all drafts have in common. Not for use by itself.
class DraftBase {
public:
    [[nodiscard]] const std::string& stream() const noexcept { return stream_; }
    /// The last seq that is in the state; events that are not saved count, their commands do not.
    [[nodiscard]] std::int64_t seq() const noexcept { return seq_; }
    /// The events that are not saved.
    [[nodiscard]] const Messages& events() const noexcept { return events_; }
    /// The messages of the stream that the last look at it has brought: the making of the draft, or catch_up().
    [[nodiscard]] const Messages& news() const noexcept { return news_; }

    /// Reads what the stream has gained, up to a seq, and gives it. Throws Error when there are decisions that
    /// are not saved.
    SOURCED_API const Messages& catch_up(std::int64_t upto = std::numeric_limits<std::int64_t>::max());
    /// Stores the decisions, all or none, and gives what was stored: the commands, and behind them their events.
    /// Workers go on from there, so reactions are run. What is pending for the actor in this stream is handled first.
    /// Throws Conflict when the stream has gained something that the state depends on, and as App::handle does; the
    /// draft is as before then. Without decisions a no-op.
    SOURCED_API Messages save(const HandleOptions& options = {});
    /// Forgets the decisions.
    SOURCED_API void discard();

protected:
    SOURCED_API DraftBase(detail::Engine& engine, const detail::Definition& definition, std::string_view stream,
                          std::int64_t upto);
    SOURCED_API Trial try_command(Message command);
    [[nodiscard]] const void* erased_state() const noexcept { return state_.get(); }

private:
    friend class detail::Engine;
    detail::Engine* engine_;
    const detail::Definition* definition_;
    std::string stream_;
    detail::Box state_;
    std::int64_t seq_ = 0;
    detail::Box saved_;           // the state without the decisions, when there are some
    std::int64_t saved_seq_ = 0;  // of the stream
    Messages commands_;
    std::vector<std::size_t> outcomes_;  // how many events came of each command
    Messages events_;
    Messages news_;
};

/// An actor's stream in memory: commands are decided one after the other, each on the state that the one before
/// has left, and nothing is stored until it is saved. For forms, previews and scripts.
///
///     auto draft = app.draft<Cart>("cart-1");
///     if (draft.decide(AddItem{"p1", 1000, 2}) && draft.decide(CheckOut{})) draft.save();
///
/// For one thread at a time. Refers to its App.
template <class A>
class Draft : public DraftBase {
public:
    Draft(detail::Engine& engine, const detail::Definition& definition, std::string_view stream, std::int64_t upto)
        : DraftBase(engine, definition, stream, upto) {}
    /// What the actor decides on a command, and the state with it. A command that breaks its rules, a refused one,
    /// and one whose handler throws change nothing, but that a refusal is an event. Throws what the handler throws,
    /// and NotRegistered for a command that the actor has no handler for.
    template <class C>
    Trial decide(const C& command);
    /// The actor's State.
    [[nodiscard]] const auto& state() const {
        return *static_cast<const typename A::State*>(this->erased_state());
    }
};

// ---- Several reactors in one transaction ------------------------------------------------

/// How a Unit handles what it is given.
struct UnitOptions {
    std::size_t limit = 100;     ///< messages that may be handled before it counts as going round in circles
    bool store_commands = true;  ///< see HandleOptions; commands for others than the unit's actors are stored anyhow
};

/// What came of a message that a Unit handled.
class UnitResult {
public:
    /// Whether the first message was a command that was refused.
    [[nodiscard]] bool refused() const noexcept { return refusal_.has_value(); }
    explicit operator bool() const noexcept { return !refused(); }
    /// Why it was refused; empty when it was not.
    [[nodiscard]] std::string_view reason() const noexcept { return refusal_ ? *refusal_ : std::string_view(); }
    /// The message that was given, as stored.
    [[nodiscard]] const Message& first() const noexcept { return first_; }
    /// Everything that was stored, in log order; what was scheduled is not among it. Of a message that was in the
    /// log already, and so is not handled again: what has the same correlation.
    [[nodiscard]] const Messages& messages() const noexcept { return messages_; }
    /// The events that came of one of the unit's reactors, in order. Throws NotRegistered when it is none of them.
    template <class R>
    [[nodiscard]] const Messages& events() const { return events_of(typeid(R)); }
    /// The same by the group's name.
    [[nodiscard]] SOURCED_API const Messages& events(std::string_view group) const;

private:
    friend class detail::Engine;
    struct Part {
        const Reactor* reactor = nullptr;
        Messages events{};
    };
    [[nodiscard]] SOURCED_API const Messages& events_of(const std::type_info& type) const;

    Message first_;
    Messages messages_;
    std::vector<Part> parts_;
    std::optional<std::string> refusal_;
};

/// Several reactors that handle a message and all that follows from it at once: in one transaction, without
/// workers, all or nothing. Made by App::unit.
///
///     auto unit = app.unit<Orders, Stock, OrderList>();
///     auto result = unit.handle("order-1", PlaceOrder{"p1", 2});
///     result.events<Stock>();    // what Stock made of it; OrderList's rows are there as well
///
/// Breadth first: the message is appended, each of the unit's reactors that handles it does so, in the order they
/// were named, what follows is appended, and so on, in log order. Each message counts as handled for the groups
/// that handled it, so workers find nothing of it; messages that none of them handles are stored for the workers, and
/// messages for later are scheduled. All have one correlation and the first one's metadata. What is pending for a
/// reactor in a stream it comes to is handled first, outside of the transaction; then handlers may run again.
///
/// Handlers run while the write lock is held, because each has to see what the one before it has appended: so be
/// short, and call nothing that waits. A call into the App or the store from a handler throws Error.
///
/// Refers to its App; can be used again and again, from several threads at once.
class Unit {
public:
    /// Handles a command or an event. What a handler throws comes out here, and nothing is kept then. Throws Error when
    /// more than `limit` messages were handled, when a group is stopped or one of the streams parked for it, when a
    /// reactor asks for a retry, and when a worker holds one of the streams for longer than the claim time; otherwise
    /// as App::dispatch does.
    template <class T>
    UnitResult handle(std::string_view stream, const T& message) const {
        static_assert(is_message<T> || std::same_as<T, Message>,
                      "Unit::handle() takes a command or an event: this type has no SOURCED_COMMAND or SOURCED_EVENT "
                      "line");
        if constexpr (is_message<T> || std::same_as<T, Message>) return do_handle(stream, Message(message));
    }

private:
    friend class App;
    Unit(detail::Engine& engine, std::vector<const Reactor*> reactors, const UnitOptions& options)
        : engine_(&engine), reactors_(std::move(reactors)), options_(options) {}
    SOURCED_API UnitResult do_handle(std::string_view stream, Message message) const;

    detail::Engine* engine_;
    std::vector<const Reactor*> reactors_;
    UnitOptions options_;
};

// ---- Notifications --------------------------------------------------------------------

/// What a subscriber of a channel is told; its own copy.
struct Notice {
    std::string channel;
    std::string text;                   ///< as it was published; of a message, its payload
    std::optional<Message> message{};   ///< when a message was published
    std::size_t missed = 0;             ///< notices before this one that the full queue has lost
};

/// How much is kept for a subscriber.
struct SubscribeOptions {
    std::size_t limit = 1000;  ///< notices that wait at most; one more, and the oldest is lost
};

/// What is published on a channel from now on, in order. Made by App::subscribe, with or without a callback.
///
///     auto carts = app.subscribe("carts");
///     while (auto notice = carts.next()) show(notice->text);    // until carts.stop()
///
///     auto live = app.subscribe("carts", [&](const Notice& notice) { show(notice.text); });
///
/// A callback is called on a thread of the subscription's own, one notice after the other: one that is slow holds up
/// nobody else. What it throws goes to the log sink, and the next notice follows.
///
/// Unsubscribes when it is destroyed, after the callback that is under way; from inside its callback at once.
/// It also ends with its App, and may outlive it. `next` is for one thread at a time, `stop` for any.
class Subscription {
public:
    /// Of nothing: stopped from the start.
    SOURCED_API Subscription() noexcept;
    SOURCED_API Subscription(Subscription&& other) noexcept;
    SOURCED_API Subscription& operator=(Subscription&& other) noexcept;
    SOURCED_API ~Subscription();

    /// Waits for the next notice; nothing when it was stopped. Throws Error when there is a callback.
    [[nodiscard]] SOURCED_API std::optional<Notice> next();
    /// The same, and nothing when `timeout` passed: 0 gives what is there, for loops that have more to do.
    [[nodiscard]] SOURCED_API std::optional<Notice> next(Duration timeout);

    /// Ends it: `next` gives nothing any more, also where it waits, and no callback begins. What waits is lost.
    SOURCED_API void stop() noexcept;
    [[nodiscard]] SOURCED_API bool stopped() const noexcept;

private:
    friend class App;
    explicit Subscription(std::unique_ptr<detail::Listening<Notice>> listening) noexcept;
    std::unique_ptr<detail::Listening<Notice>> listening_;
};

/// Which messages to follow. Empty filters let everything pass.
struct FollowOptions {
    Start from = Start::now();         ///< evaluated when the following begins
    std::vector<std::string> types{};  ///< names as they are stored
    std::string stream{};
};

/// The log as it grows, whoever writes, this process or another: every message that passes the filters, in order of
/// position, exactly once. Made by App::follow, with or without a callback.
///
///     auto follower = app.follow({.from = Start::at(seen + 1), .types = {"cart.item_added"}});
///     while (auto message = follower.next()) show(*message);    // until follower.stop()
///
/// It keeps its place in memory, unlike a group: who goes on after a restart stores `position()`. It waits
/// for nobody and holds nobody up; messages are read from the file as they are asked for, and none is lost. Workers
/// need not run. Callbacks, ending and threads are as with a Subscription; a message whose callback threw
/// counts as given. When the file cannot be read, `next` throws StoreError and can be called again; with a callback the
/// log sink is told, once, and reading is tried again.
class Follower {
public:
    /// Of nothing: stopped from the start.
    SOURCED_API Follower() noexcept;
    SOURCED_API Follower(Follower&& other) noexcept;
    SOURCED_API Follower& operator=(Follower&& other) noexcept;
    SOURCED_API ~Follower();

    /// Waits for the next message; nothing when it was stopped. Throws Error when there is a callback.
    [[nodiscard]] SOURCED_API std::optional<Message> next();
    /// The same, and nothing when `timeout` passed: 0 gives what is there.
    [[nodiscard]] SOURCED_API std::optional<Message> next(Duration timeout);
    /// Everything up to here was given, or does not pass the filters.
    [[nodiscard]] SOURCED_API std::int64_t position() const noexcept;

    SOURCED_API void stop() noexcept;
    [[nodiscard]] SOURCED_API bool stopped() const noexcept;

private:
    friend class App;
    explicit Follower(std::unique_ptr<detail::Listening<Message>> listening) noexcept;
    std::unique_ptr<detail::Listening<Message>> listening_;
};

// ---- Workflows from outside

/// Parked: its stream is, and waits for App::retry_stream, after the program was put right.
enum class WorkflowStatus { running, completed, failed, parked };

/// Where a workflow is. See WorkflowHandle.
struct WorkflowEnd {
    WorkflowStatus status = WorkflowStatus::running;
    std::string payload{};  ///< of the record that ended it
    std::string error_type{};
    std::string error_text{};
};

/// What has become of a workflow, and its output when it is completed.
template <class T>
class WorkflowOutcome {
public:
    explicit WorkflowOutcome(WorkflowEnd end) : end_(std::move(end)) {}

    [[nodiscard]] WorkflowStatus status() const noexcept { return end_.status; }
    [[nodiscard]] bool running() const noexcept { return end_.status == WorkflowStatus::running; }
    [[nodiscard]] bool completed() const noexcept { return end_.status == WorkflowStatus::completed; }
    [[nodiscard]] bool failed() const noexcept { return end_.status == WorkflowStatus::failed; }
    [[nodiscard]] bool parked() const noexcept { return end_.status == WorkflowStatus::parked; }
    explicit operator bool() const noexcept { return completed(); }

    /// What the function returned. Throws Error when it is not completed, saying why it failed, and Undecodable when
    /// the record cannot be read as T.
    [[nodiscard]] T output() const;
    /// The type and the text of what it failed of, or is parked for; empty otherwise.
    [[nodiscard]] const std::string& error_type() const noexcept { return end_.error_type; }
    [[nodiscard]] const std::string& error_text() const noexcept { return end_.error_text; }

private:
    WorkflowEnd end_;
};

template <class W>
class WorkflowHandle;
template <class R>
class Bound;

/// An application: its reactors, its store and its workers.
///
///     sourced::App app({.path = "shop.db"});
///     app.add<Cart>();
///     app.dispatch("cart-1", AddItem{"p1", 1000, 2});
///     app.run_until_idle();
///
/// Safe to share between threads once every reactor is added.
class App {
public:
    /// Throws Invalid for options that make no sense, each with its name, and StoreError when the file cannot be
    /// opened.
    SOURCED_API explicit App(Options options = {});
    /// Stops the workers first: batches under way end, claims are given back.
    ///
    /// An App is not to be destroyed by what it calls. A handler that workers or run_until_idle() call, or the
    /// callback of a Subscription or Follower, cannot be waited for by itself: the log sink gets an error, and all of
    /// this happens on a thread of its own, after that call; what the App was given has to live until then. From
    /// anything else that it calls, and while another thread is in a call of it, the behaviour is undefined.
    SOURCED_API ~App();
    App(const App&) = delete;
    App& operator=(const App&) = delete;

    /// Adds a reactor, made from `arguments`, and registers its group and types.
    /// Throws Error for a second reactor of the same name, for a type name that another C++
    /// type has, and when workers are running; Invalid for options of it that make no sense.
    template <class R, class... Arguments>
    R& add(Arguments&&... arguments);
    /// Does not compile: the App makes its reactors itself.
    template <int = 0, class Object>
    void add(Object&& object);

    // ---- sending

    /// Appends a command (or an event) to a stream and gives it as stored: it is
    /// durable when this returns. Workers handle it later. A message whose id is in the log already
    /// is not stored again. Throws Invalid for a blank stream, for a payload that its registered type
    /// does not allow, and for an id that stands for another message; StoreError when the file cannot be written.
    Message dispatch(std::string_view stream, Message message) { return do_dispatch(stream, std::move(message)); }
    /// The same to the stream that the message names itself.
    Message dispatch(Message message) {
        const std::string stream = message.stream;
        return do_dispatch(stream, std::move(message));
    }
    /// Several messages in one transaction, each to the stream it names (Message::to).
    SOURCED_API Messages dispatch(Messages messages);

    /// Loads the actor's state, decides, and appends the command with what follows from it,
    /// in one transaction and without a worker. What is pending for the actor in this stream is handled first.
    /// Throws what the handler throws (nothing is stored then), NotRegistered when the actor was not added or has no
    /// handler for the command, Error when its group is stopped, the stream parked for it, or held by a worker for
    /// longer than the claim time; otherwise as dispatch() does.
    template <class A, class C>
    Result handle(std::string_view stream, const C& command, const HandleOptions& options = {});

    /// Reactors that handle what they are given together, in one transaction: see Unit. Throws NotRegistered for one
    /// that was not added, Error for one that is named twice and for a workflow.
    template <class... R>
    [[nodiscard]] Unit unit(const UnitOptions& options = {});
    /// The same by the names of their groups. Throws Error when there is no name, too.
    [[nodiscard]] SOURCED_API Unit unit(const std::vector<std::string>& groups, const UnitOptions& options = {});

    // ---- workflows

    /// Starts a workflow under a fresh id. It is durable when this returns; workers run it.
    template <class W>
    WorkflowHandle<W> start_workflow(const typename W::Input& input);
    /// Under an id of your own: started once, however often this is called. Throws Invalid for a blank id, and when
    /// the workflow of this id was started with another input.
    template <class W>
    WorkflowHandle<W> start_workflow(std::string_view id, const typename W::Input& input);
    /// The workflow of this id, which may not have been started yet.
    template <class W>
    [[nodiscard]] WorkflowHandle<W> workflow(std::string_view id);

    // ---- sending later

    /// Keeps a message until `time` and gives it as it waits, with its id. It enters the log when it is due and
    /// somebody works: never early, exactly once whatever processes share the file, in order of due time. One whose
    /// time has passed is due at once. Throws as dispatch() does.
    ///
    ///     const auto id = app.schedule("mailer", SendReminder{"joe"}, 20min).id;
    ///     app.cancel(id);
    template <class Precision>
    Message schedule(std::string_view stream, Message message, std::chrono::sys_time<Precision> time) {
        return do_schedule(stream, std::move(message), detail::rounded_up(time));
    }
    /// So long after now, at the latest at Time::max(). Throws Invalid for a negative time.
    SOURCED_API Message schedule(std::string_view stream, Message message, Duration delay);
    /// What waits, in order of due time; for one stream, when it is given.
    [[nodiscard]] SOURCED_API std::vector<Scheduled> scheduled(std::size_t limit = 100, std::string_view stream = {});
    /// Takes a scheduled message back. See Store::cancel.
    SOURCED_API ScheduleChange cancel(const Id& id);
    /// Does not wait for its time. See Store::run_now.
    SOURCED_API ScheduleChange run_now(const Id& id);

    /// Sends a message at an interval for as long as the file lives, restarts included: declare it at each start.
    ///
    ///     app.every("nightly", 24h, "report", WriteReport{});  // first in 24 hours
    ///     app.every("nightly", 24h, "report", WriteReport{}, at_two_o_clock);
    ///
    /// The name stands for it in the file. The same again changes nothing; another interval, time, stream or message
    /// under the name takes its place. What fell due while nothing ran comes once, not as often as it was missed.
    /// Each occurrence is a message with an id of its own, its own cause, and the metadata "schedule" is the name.
    /// `first` is the time of one occurrence, past or to come, that all others are counted from. Throws as
    /// dispatch() does, and Invalid for a blank name, an interval that is not positive, and times of more than 10,000
    /// years.
    template <class Precision>
    void every(std::string_view name, Duration interval, std::string_view stream, Message message,
               std::chrono::sys_time<Precision> first) {
        do_every(name, interval, stream, std::move(message), detail::rounded_up(first));
    }
    void every(std::string_view name, Duration interval, std::string_view stream, Message message) {
        do_every(name, interval, stream, std::move(message), std::nullopt);
    }
    /// Ends it; false when there is none of this name.
    SOURCED_API bool cancel_every(std::string_view name);
    /// All that is sent again and again, by name, with the time and id of the next occurrence.
    [[nodiscard]] SOURCED_API std::vector<Recurring> recurring();

    // ---- looking

    /// The state of an actor or event-sourced projector, as of the seq `upto` (included); of a stream that does not
    /// exist, the blank one. Throws NotRegistered when it was not added, and Undecodable for an event that cannot be
    /// read.
    template <class R>
    [[nodiscard]] Loaded<typename R::State> load(std::string_view stream,
                                                 std::int64_t upto = std::numeric_limits<std::int64_t>::max());
    /// An actor's stream in memory, to decide commands without storing them: see Draft. As of the seq `upto`. Throws as
    /// load().
    template <class A>
    [[nodiscard]] Draft<A> draft(std::string_view stream, std::int64_t upto = std::numeric_limits<std::int64_t>::max());
    /// All messages of a stream in order; none when it does not exist.
    [[nodiscard]] SOURCED_API Messages history(std::string_view stream, const StreamRange& range = {});
    /// An actor bound to one stream, for consoles and scripts.
    template <class A>
    [[nodiscard]] Bound<A> actor(std::string_view stream);

    // ---- notifying

    /// Tells all who subscribe to the channel now, in this process, and gives how many they are. Nothing is
    /// stored: who comes later does not learn of it. Never waits for a subscriber, so it may be called from anywhere,
    /// a `sync` too; what is published there is told even if that transaction fails.
    SOURCED_API std::size_t publish(std::string_view channel, std::string_view text);
    SOURCED_API std::size_t publish(std::string_view channel, const Message& message);
    template <class T>
        requires is_message<T>
    std::size_t publish(std::string_view channel, const T& message) { return publish(channel, Message(message)); }

    /// See Subscription. Throws Invalid for a channel without a name and a limit of 0.
    [[nodiscard]] SOURCED_API Subscription subscribe(std::string_view channel, const SubscribeOptions& options = {});
    [[nodiscard]] SOURCED_API Subscription subscribe(std::string_view channel,
                                                     std::function<void(const Notice&)> callback,
                                                     const SubscribeOptions& options = {});
    /// See Follower. Throws StoreError when the file cannot be read.
    [[nodiscard]] SOURCED_API Follower follow(const FollowOptions& options = {});
    [[nodiscard]] SOURCED_API Follower follow(const FollowOptions& options,
                                              std::function<void(const Message&)> callback);

    // ---- running

    /// Handles everything there is on the calling thread, scheduled messages and retries that
    /// are due included, and returns how many messages were handled. Throws Error while workers run, and from inside a
    /// handler that it has called.
    SOURCED_API std::size_t run_until_idle();
    /// Starts worker threads, Options::workers or as many as given; returns at once. None for 0.
    SOURCED_API void start();
    SOURCED_API void start(std::size_t workers);
    /// Starts workers and returns after SIGINT or SIGTERM, when they have stopped.
    SOURCED_API void run();
    SOURCED_API void run(std::size_t workers);
    /// Ends the batches under way, gives claims back, joins the threads. Idempotent.
    SOURCED_API void stop();
    /// Waits until no group that is not stopped has anything left to handle; false when `timeout` passed first,
    /// which it may while others keep on sending.
    SOURCED_API bool wait_until_idle(Duration timeout);
    /// Waits until `groups`, or all reactors of this App, have handled everything up to a position of the log; one that
    /// is not in the log yet is waited for. Gives up at once where a group cannot get there by itself.
    ///
    ///     const Message added = app.dispatch("cart-1", AddItem{"p1", 1000, 2});
    ///     if (app.wait(added, {"cart"}, 1s)) show(app.load<Cart>("cart-1").state);
    ///
    /// Somebody has to work: workers of this App, of another process, or run_until_idle() on another thread. Throws
    /// NotRegistered for a group that is not stored, and Error when called from a handler.
    SOURCED_API Waited wait(std::int64_t position, const std::vector<std::string>& groups, Duration timeout);
    /// The same for a stored message: what stands in its stream up to it. Throws Invalid when it was not stored.
    SOURCED_API Waited wait(const Message& message, const std::vector<std::string>& groups, Duration timeout);

    // ---- groups

    /// Handles one message by hand in place of the reactor of that name: `body` runs in a transaction that counts the
    /// message as handled, so exactly once; when it throws, nothing is kept and the error is yours. What the reactor
    /// has open before it in its stream is handled first, and a worker that has the stream is waited for.
    ///
    ///     app.acknowledge("mailer", message, [&](sourced::Transaction& db) {
    ///         db.execute("insert into sent values (?)", message.stream);
    ///     });
    ///
    /// False: it was handled already, if only before a reset, and `body` did not run. Throws NotRegistered when no such
    /// reactor was added or it does not handle the message's type, and Error when the message is not in the log, when
    /// one before it fails or is parked, or the stream stays busy for longer than the claim time. A stream that is
    /// parked for this very message goes on behind it.
    SOURCED_API bool acknowledge(std::string_view group, const Message& message,
                                 const std::function<void(UnitTransaction&)>& body = {});

    /// Stops a group in all processes: nothing is claimed for it any more, and what its workers are about is dropped.
    /// stats() show the reason. It stays stopped until start_group(), restarts included. Throws NotRegistered for a
    /// group that is not stored.
    SOURCED_API void stop_group(std::string_view group, std::string_view reason = "stopped by hand");
    /// Starts it again where it stopped, by hand or over an error: that message is tried anew, with its attempts
    /// counted from the first. Parked streams stay parked. Throws as stop_group().
    SOURCED_API void start_group(std::string_view group, std::string_view reason = {});
    /// Passes the log again, from the start and in all streams unless told otherwise: read models are emptied by
    /// `on_reset` and built anew; nothing is decided or sent a second time. stats() shows how far that is.
    ///
    /// From a position or a time: only what folds its streams, actors and event-sourced projectors. A Projector loads
    /// the state it has stored, and would add twice: it is reset whole, or for a whole stream if it has an on_reset for
    /// one and no key. Throws Invalid where that is not so, and as Store::reset_group does.
    SOURCED_API void reset_group(std::string_view group, const Reset& reset = {});
    template <std::derived_from<Reactor> R>
    void reset_group(const Reset& reset = {}) {
        reset_group(find(typeid(R)).name(), reset);
    }
    /// Builds a read model anew while the old one is read and kept up to date, and puts the new one in its place in one
    /// transaction: readers see the old rows or the new ones, never a mix or nothing. Works on the calling thread,
    /// whether workers run or not, and returns when the new one is served.
    ///
    ///     app.rebuild("revenue", {.progress = [&](const Progress& way) { bar.show(way.done, way.total); }});
    ///
    /// It begins where the group began, with the history of types that were added later. All it handles is a replay;
    /// what the old one has not handled yet is left for the workers, so that no effect is lost or repeated. For
    /// projectors whose on_install creates tables under the names that Reader::table gives; a Projection is one.
    ///
    /// Throws Invalid for what cannot be rebuilt, NotRegistered for what was not added, Error when another process
    /// rebuilds the same group or a message cannot be handled, no retries asked; what the old one has skipped may fail
    /// again and is skipped again. Then, and when the process dies, the old one goes on being
    /// served; the next rebuild starts over. A stopped group stays stopped, and a parked stream parked.
    SOURCED_API Rebuilt rebuild(std::string_view group, const RebuildOptions& options = {});
    template <std::derived_from<Reactor> R>
    Rebuilt rebuild(const RebuildOptions& options = {}) {
        return rebuild(find(typeid(R)).name(), options);
    }
    /// Tries a stream again that is parked or waits for its retry. See Store::retry_stream, also for the next two.
    ///
    ///     for (const auto& offset : app.store().offsets("mailer")) app.retry_stream("mailer", offset.stream);
    SOURCED_API void retry_stream(std::string_view group, std::string_view stream);
    SOURCED_API Skipped skip_message(std::string_view group, std::string_view stream,
                                     std::string_view reason = "skipped by hand");
    SOURCED_API void park_stream(std::string_view group, std::string_view stream,
                                 std::string_view reason = "parked by hand");
    [[nodiscard]] SOURCED_API Stats stats();

    [[nodiscard]] SOURCED_API Store& store();
    [[nodiscard]] SOURCED_API const Registry& registry() const;

private:
    friend struct detail::Access;
    SOURCED_API void do_add(std::unique_ptr<Reactor> reactor);
    SOURCED_API Message do_dispatch(std::string_view stream, Message message);
    SOURCED_API Message do_schedule(std::string_view stream, Message message, Time time);
    SOURCED_API void do_every(std::string_view name, Duration interval, std::string_view stream, Message message,
                              std::optional<Time> first);
    /// `same`: whether a payload holds the same input.
    SOURCED_API void do_start_workflow(const WorkflowBase& workflow, std::string_view id, const std::string& input,
                                       const std::function<bool(const std::string&)>& same);
    SOURCED_API Result do_handle(const detail::Definition& definition, std::string_view stream, Message command,
                                 const HandleOptions& options);
    SOURCED_API void check(const Message& message) const;
    [[nodiscard]] SOURCED_API Unit do_unit(std::vector<const Reactor*> reactors, const UnitOptions& options);
    SOURCED_API std::pair<detail::Box, std::int64_t> do_load(const detail::Definition& definition,
                                                             std::string_view stream, std::int64_t upto);
    [[nodiscard]] SOURCED_API Reactor& find(const std::type_info& type);
    template <class W>
    friend class WorkflowHandle;
    [[nodiscard]] SOURCED_API WorkflowEnd do_look(const WorkflowBase& workflow, std::string_view stream);
    [[nodiscard]] SOURCED_API WorkflowEnd do_wait(const WorkflowBase& workflow, std::string_view stream,
                                                  Duration timeout);

    friend class Topology;
    [[nodiscard]] SOURCED_API std::vector<const detail::Definition*> definitions() const;

    std::unique_ptr<detail::Engine> engine_;
};

/// An actor at one stream.
///
///     auto cart = app.actor<Cart>("cart-1");
///     cart.handle(AddItem{"p1", 1000, 2});
///     std::cout << cart.state().total() << " at seq " << cart.seq() << '\n';
///
/// Refers to its App and holds nothing but the stream's name: every call looks anew.
template <class A>
class Bound {
public:
    Bound(App& app, std::string_view stream) : app_(&app), stream_(stream) {}
    template <class C>
    Result handle(const C& command, const HandleOptions& options = {}) {
        return app_->template handle<A>(stream_, command, options);
    }
    [[nodiscard]] typename A::State state() const { return app_->template load<A>(stream_).state; }
    [[nodiscard]] typename A::State state(std::int64_t upto) const {
        return app_->template load<A>(stream_, upto).state;
    }
    [[nodiscard]] std::int64_t seq() const { return app_->template load<A>(stream_).seq; }
    [[nodiscard]] Messages history(const StreamRange& range = {}) const { return app_->history(stream_, range); }

private:
    App* app_;
    std::string stream_;
};

/// One workflow of an App.
///
///     auto trip = app.workflow<BookTrip>("4711");
///     app.dispatch(trip.stream(), Paid{350});
///     if (auto outcome = trip.wait(5s)) show(outcome.output());
///     else if (outcome.failed()) std::cerr << outcome.error_text() << '\n';
///
/// Refers to its App and holds nothing but names: every call looks anew.
template <class W>
class WorkflowHandle {
public:
    using Outcome = WorkflowOutcome<typename W::Output>;

    WorkflowHandle(App& app, const W& workflow, std::string_view id)
        : app_(&app), workflow_(&workflow), id_(id), stream_(workflow.stream_of(id)) {}

    [[nodiscard]] const std::string& id() const noexcept { return id_; }
    [[nodiscard]] const std::string& stream() const noexcept { return stream_; }
    /// As it stands; running, also when it has not been started.
    [[nodiscard]] Outcome outcome() const { return Outcome(app_->do_look(*workflow_, stream_)); }
    /// Waits until it has ended or is parked, whichever process runs it; running when `timeout` passed first.
    [[nodiscard]] Outcome wait(Duration timeout) const { return Outcome(app_->do_wait(*workflow_, stream_, timeout)); }
    [[nodiscard]] Messages history() const { return app_->history(stream_); }

private:
    App* app_;
    const WorkflowBase* workflow_;
    std::string id_;
    std::string stream_;
};

}  // namespace sourced

// =============================================================================
// Topology: what a program consists of, as data and as a picture
// =============================================================================

namespace sourced {

/// One part of a program: a command, an event, a read model, or an automation, which is what answers an event.
struct TopologyNode {
    enum class Type { command, event, automation, readmodel };

    Type type = Type::command;
    /// Of a command or event its type name. Of others `<event>-<group>-aut`, `<group>-aut` for what answers several,
    /// `<group>-rm`; should a type have that name, `-2` and so on behind it.
    std::string id{};
    std::string name{};
    /// The reactor that it belongs to, the first that was added if there are several. Empty: of none, like a command
    /// that is sent and that nobody here handles.
    std::string group{};
    /// Ids: the events that wake an automation or change a read model; of a projector's automation the read model.
    std::vector<std::string> consumes{};
    /// Ids: of a command its events, of an automation what it sends, of a read model its automations. Null: unknown,
    /// since the handler's return type does not say it and no `produces<...>()` does.
    std::optional<std::vector<std::string>> produces{std::in_place};
    std::string schema{};  ///< JSON Schema of a command's or event's payload

    [[nodiscard]] bool operator==(const TopologyNode&) const = default;
};

namespace detail {

/// Nodes and arrows as drawing programs are told them. Texts may hold anything: what would mean something to the
/// program is taken from them, control characters become spaces.
struct Drawing {
    enum class Look { command, event, automation, readmodel, unknown, refused };
    struct Node {
        Look look = Look::command;
        std::string id{};                  ///< what its name in the text is made of
        std::string label{};
        std::vector<std::string> notes{};  ///< lines below the label
        std::string group{};               ///< the frame it stands in; empty: none
        bool dashed = false;
        bool marked = false;               ///< with a thick border
    };
    struct Arrow {
        std::size_t from = 0;  ///< a node's place in `nodes`
        std::size_t to = 0;
        std::string label{};
        bool dashed = false;
    };

    [[nodiscard]] SOURCED_API std::string mermaid() const;
    [[nodiscard]] SOURCED_API std::string dot() const;

    std::vector<Node> nodes{};
    std::vector<Arrow> arrows{};
};

}  // namespace detail

/// The graph of commands, events, automations and read models of an App, from what its reactors declare. Nothing is
/// run, and an App in memory will do:
///
///     sourced::App app;
///     app.add<Cart>();
///     app.add<Totals>();
///     std::cout << sourced::Topology(app).mermaid();
///
/// A value; it does not refer to the App.
class Topology {
public:
    SOURCED_API explicit Topology(const App& app);
    explicit Topology(std::vector<TopologyNode> nodes) : nodes_(std::move(nodes)) {}

    /// Reactor by reactor in the order they were added, each with its commands and events, then its read model, then
    /// its automations; at the end what belongs to none. A type stands there once.
    [[nodiscard]] const std::vector<TopologyNode>& nodes() const noexcept { return nodes_; }
    /// The node with this id, or null.
    [[nodiscard]] SOURCED_API const TopologyNode* find(std::string_view id) const;

    /// An array with an object for each node, one a line; members as in TopologyNode, `schema` as JSON.
    [[nodiscard]] SOURCED_API std::string json() const;
    /// A Mermaid flowchart. What is unknown is drawn as a question mark.
    [[nodiscard]] SOURCED_API std::string mermaid() const;
    /// The same for Graphviz.
    [[nodiscard]] SOURCED_API std::string dot() const;
    /// What both of them draw.
    [[nodiscard]] SOURCED_API detail::Drawing drawing() const;

private:
    std::vector<TopologyNode> nodes_;
};

/// Replaces what stands between these two lines of a Markdown file by the picture as Mermaid, and leaves the rest as it
/// is, line ends too. Meant for commit hooks.
///
///     <!-- sourced:topology -->
///     <!-- /sourced:topology -->
///
/// True when the file was changed; one that is right already is not touched. Lines inside of code fences are no
/// markers. Throws Error when the file cannot be read or written, or does not have each marker once, the first one
/// first; it is as it was then.
SOURCED_API bool update_markdown(const std::string& path, const Topology& topology);

}  // namespace sourced

// =============================================================================
// Testing: given / when / then, for one reactor and for several
// =============================================================================

namespace sourced::testing {

// ---- Verdicts -----------------------------------------------------------------------

/// Whether what happened is what was expected; if not, its text says what happened instead. For any test framework:
///
///     CHECK(given<Cart>().when(AddItem{"p1", 1000, 2}).then(ItemAdded{"p1", 1000, 2}));     // doctest, Catch2
///     EXPECT_TRUE(verdict) << verdict;                                                     // GoogleTest
///     if (!verdict) std::cerr << verdict << '\n';                                          // none
///
/// A text, for example:
///
///     expected cart.item_added {"product_id":"p1","price":1000,"quantity":2}
///     but got  refusal "cart is not open"
class [[nodiscard]] Verdict {
public:
    Verdict(bool right, std::string text) : right_(right), text_(std::move(text)) {}

    explicit operator bool() const noexcept { return right_; }
    [[nodiscard]] const std::string& text() const noexcept { return text_; }
    SOURCED_API friend std::ostream& operator<<(std::ostream& out, const Verdict& verdict);

private:
    bool right_;
    std::string text_;
};

// ---- One reactor --------------------------------------------------------------------

template <class State>
class StepOf;
template <class S>
class Chain;

namespace detail {

/// The state of actors and projectors; void for reactors that have none.
template <class R>
struct StateOf {
    using Type = void;
};
template <class R>
    requires requires { typename R::State; }
struct StateOf<R> {
    using Type = typename R::State;
};

/// A block of a test: takes the step, its actions, or the state.
template <class Block, class State>
concept looks_at = std::is_invocable_v<const Block&, const StepOf<State>&> ||
                   std::is_invocable_v<const Block&, const Actions&> ||
                   std::is_invocable_v<const Block&, std::add_lvalue_reference_t<const State>>;

/// A reactor at a stream with a past.
struct Setting {
    std::shared_ptr<const Reactor> reactor;
    std::string stream;  // empty: named after the reactor
    Messages past;
    bool replay = false;
};
/// Where a reactor stands after its past.
struct Past {
    std::shared_ptr<Store> store;  // for reactors that read or write tables
    sourced::detail::Box state;
    std::string stream;
    std::string id;  // of the state: the stream, or the key
    Messages messages;
    std::int64_t seq = 0;
};
[[nodiscard]] SOURCED_API Past past_of(const Setting& setting, const Message* next = nullptr);
[[nodiscard]] SOURCED_API Verdict same_json(std::string_view what, const std::string& expected,
                                            const std::string& found);
/// Runs a block of a test: what it throws for the test's framework passes through.
[[nodiscard]] SOURCED_API Verdict judge_block(const std::function<Verdict()>& block);

}  // namespace detail

/// Something that a step may lead to: a message that is appended, a refusal, a dispatch, or an exception.
class Expected {
public:
    template <is_message T>
    Expected(const T& message) : Expected(Message(message)) {}
    /// In the stream it names, else in that of the step.
    SOURCED_API Expected(Message message);
    SOURCED_API Expected(Refusal refusal);
    SOURCED_API Expected(Dispatch dispatch);
    /// An exception of exactly this type with exactly this text. To compare less: then_throws().
    template <std::derived_from<std::exception> E>
    Expected(const E& error) : Expected(typeid(error), error.what()) {}

private:
    friend class Step;
    SOURCED_API Expected(const std::type_info& type, std::string_view text);
    std::variant<Message, Refusal, Dispatch, std::string> what_;
};

/// What came of a step, with the type of the state left open. See StepOf.
class Step {
public:
    /// The events that an actor decided, with stream and seq as if they had been stored.
    [[nodiscard]] const Messages& events() const noexcept { return events_; }
    /// All that is to be done. What a reactor of your own returned, as it is; of others: decisions and what is sent at
    /// once as AppendNext, what is sent later as Schedule (a delay counts from where a Clock begins), the sync last.
    [[nodiscard]] const Actions& actions() const noexcept { return actions_; }
    /// The seq of the stream's last message.
    [[nodiscard]] std::int64_t seq() const noexcept { return past_.seq; }
    [[nodiscard]] const std::string& stream() const noexcept { return past_.stream; }
    /// In memory, with the tables of `on_install`: where run_syncs() writes. Copies of a step share it. Throws Error
    /// when there is none, since nothing was run and the reactor has no tables.
    [[nodiscard]] SOURCED_API Store& store() const;

protected:
    SOURCED_API Step(const detail::Setting& setting, Messages messages);
    [[nodiscard]] const void* erased_state() const noexcept { return past_.state.get(); }
    SOURCED_API void do_run_syncs(const std::function<void(Transaction&)>& before);
    [[nodiscard]] SOURCED_API Verdict judge(const std::vector<Expected>& expected) const;
    [[nodiscard]] SOURCED_API Verdict judge_error(bool right_type, const std::type_info& type,
                                                  std::string_view text) const;
    [[nodiscard]] SOURCED_API Verdict judge_retry(const std::optional<Time>& time) const;
    [[nodiscard]] const std::exception_ptr& error() const noexcept { return error_; }

private:
    void take(const sourced::detail::Definition& definition, Message message);
    void serve(const sourced::detail::Definition& definition);
    void send(const Message& cause, std::vector<sourced::detail::Sending> sendings);
    void note(const Message& cause, Actions actions);
    void add_sync(const sourced::detail::Definition& definition);

    std::shared_ptr<const Reactor> reactor_;
    detail::Past past_;
    bool replay_ = false;
    Messages messages_;
    Messages events_;
    Messages synced_;
    Actions actions_;
    std::vector<std::string> outcomes_;
    std::exception_ptr error_;
};

/// What came of the messages that a reactor has handled: asked by `then`.
///
///     const auto step = given<Cart>().when(AddItem{"p1", 1000, 2});
///     CHECK(step.then(ItemAdded{"p1", 1000, 2}));
///
/// A value: asking changes nothing, and the past is closed. Every `then` may be followed by more, see Chain.
template <class State>
class StepOf : public Step {
public:
    StepOf(const detail::Setting& setting, Messages messages) : Step(setting, std::move(messages)) {}

    /// Exactly these came of it, in this order: values of messages, `refuse(...)`, `dispatch(...)`, exceptions.
    /// Payloads and streams are compared, ids and times are not; a dispatch at once is its message in that stream.
    /// None: nothing came of it.
    template <class... Outcome>
    Chain<StepOf> then(const Outcome&... expected) const;
    /// What a block finds: `(const Actions&)`, `(const State&)` or `(const auto& step)`. It returns something
    /// that is true when all is well, or a Verdict, or nothing where it checks for itself. A std::exception fails it.
    template <class Block>
        requires detail::looks_at<Block, State>
    Chain<StepOf> then(const Block& block) const;
    /// Nothing came of it.
    Chain<StepOf> then_nothing() const;
    /// The handler threw an E whose text contains `text`.
    template <class E = std::exception>
    Chain<StepOf> then_throws(std::string_view text = {}) const;
    /// A reactor wants the batch once more, at `time` when that is given.
    Chain<StepOf> then_retry(std::optional<Time> time = {}) const;
    /// The state after the step. Compared by JSON; the text says only what differs.
    template <class S = State>
        requires(!std::is_void_v<S>)
    Chain<StepOf> then_state(const S& expected) const;

    /// The same after all syncs were run, in one transaction of store(), and then what is to be done after it. `before`
    /// runs first in the transaction, for tables that the reactor does not create itself. What a sync throws is
    /// what came of the step, and nothing is written.
    [[nodiscard]] StepOf run_syncs(const std::function<void(Transaction&)>& before = {}) const;

    /// The state after the step.
    template <class S = State>
        requires(!std::is_void_v<S>)
    [[nodiscard]] const S& state() const {
        return *static_cast<const S*>(this->erased_state());
    }

private:
    friend class Chain<StepOf>;
    template <class Block>
        requires detail::looks_at<Block, State>
    Verdict look(const Block& block) const;
};

/// A Verdict that more can be asked after. It is right when all links are; its text names the first that is not.
///
///     CHECK(given<Cart>()
///               .when(AddItem{"p1", 1000, 2})
///               .then(ItemAdded{"p1", 1000, 2})
///               .and_then([](const CartState& cart) { return cart.total() == 2000; })
///               .and_then_state(expected));
template <class S>
class Chain : public Verdict {
public:
    Chain(S step, Verdict verdict) : Verdict(std::move(verdict)), step_(std::move(step)) {}

    template <class... Outcome>
    Chain and_then(const Outcome&... expected) const;
    template <class T>
    Chain and_then_state(const T& expected) const;
    /// After run_syncs(), which has to succeed: what follows in the chain sees what was written.
    Chain run_syncs(const std::function<void(Transaction&)>& before = {}) const;
    [[nodiscard]] const S& step() const noexcept { return step_; }

private:
    Chain(S step, Verdict verdict, int links) : Verdict(std::move(verdict)), step_(std::move(step)), links_(links) {}
    [[nodiscard]] Chain with(const Verdict& next) const;

    S step_;
    int links_ = 1;
};

/// A reactor at a stream with a past, without threads. See given().
template <class R>
class Given {
public:
    using State = typename detail::StateOf<R>::Type;

    Given(std::shared_ptr<const Reactor> reactor, Messages past) : setting_{std::move(reactor), {}, std::move(past)} {}

    /// The stream's name; `<reactor>-1` when it is not said.
    Given& stream(std::string_view name) & {
        setting_.stream = name;
        return *this;
    }
    Given&& stream(std::string_view name) && { return std::move(stream(name)); }
    /// What comes is handled once more after a reset.
    Given& replayed() & {
        setting_.replay = true;
        return *this;
    }
    Given&& replayed() && { return std::move(replayed()); }
    /// More of the past.
    template <class... M>
    Given& and_given(const M&... past) & {
        (setting_.past.push_back(Message(past)), ...);
        return *this;
    }
    template <class... M>
    Given&& and_given(const M&... past) && {
        return std::move(and_given(past...));
    }

    /// Lets the reactor handle commands and events of its stream, several as one batch. Throws Error for a message
    /// that names another stream, and for messages of different keys.
    template <class... M>
    [[nodiscard]] StepOf<State> when(const M&... messages) const;
    /// The state that the past has led to. A state-stored projector loads it first, from empty tables.
    template <class S = State>
        requires(!std::is_void_v<S>)
    [[nodiscard]] S state() const;
    /// Compares states by their JSON; the text says only what differs.
    template <class S = State>
        requires(!std::is_void_v<S>)
    Verdict then_state(const S& expected) const;

private:
    detail::Setting setting_;
};

/// Begins a test of one reactor: an actor, a projector, a handler, a reactor of your own. What is expected is any of
/// the things that StepOf::then takes. The verdict prints itself in any framework that streams:
///
///     CHECK(given<Cart>(ItemAdded{"p1", 1000, 2}, CheckedOut{})
///               .when(AddItem{"p2", 500, 1})
///               .then(sourced::refuse("cart is not open")));
///
/// The state of a keyed projector is that of one key, the last that is told; the past of others is passed over.
template <class R, class... M>
[[nodiscard]] Given<R> given(const M&... past);
/// The same for a reactor whose constructor wants arguments: `given(CartListings(table), ItemAdded{...})`. It has to
/// outlive the test's steps.
template <class R, class... M>
    requires std::derived_from<R, Reactor>
[[nodiscard]] Given<R> given(const R& reactor, const M&... past);

// ---- Time ---------------------------------------------------------------------------

/// A clock that is set by hand. Copies show the same time.
///
///     sourced::testing::Clock clock;
///     sourced::App app({.clock = clock});
///     clock.advance(20s);
///
/// Begins at 2025-01-01T00:00:00Z. Safe to share between threads. Workers that sleep do not notice:
/// use run_until_idle().
class Clock {
public:
    SOURCED_API explicit Clock(Time start = Time(std::chrono::seconds(1'735'689'600)));

    [[nodiscard]] Time now() const noexcept { return Time(Duration(time_->load())); }
    [[nodiscard]] Time operator()() const noexcept { return now(); }
    SOURCED_API void advance(Duration duration);
    void set(Time time) { time_->store(time.time_since_epoch().count()); }

private:
    std::shared_ptr<std::atomic<std::int64_t>> time_;
};

namespace detail {

/// What a Rehearsal does, whatever the types of its workflow.
class SOURCED_API Rehearsing {
public:
    Rehearsing(const WorkflowBase& workflow, const std::string& input);

    void send(Message message);
    void advance(Duration time);
    [[nodiscard]] WorkflowEnd end() const;

    Clock clock;
    IdSource ids{1};
    std::string stream;
    Messages history;
    std::vector<Scheduled> scheduled;

private:
    void append(Message message);
    void run();

    const WorkflowBase* workflow_;
};

}  // namespace detail

/// A workflow without a store or threads, by a clock that is moved by hand. What its steps do to the outside they do:
/// give it another outside.
///
///     const BookTrip workflow;
///     sourced::testing::Rehearsal trip(workflow, Trip{"Lisbon"});
///     trip.send(Paid{350});
///     trip.advance(24h);
///     CHECK(trip.outcome().output().paid == 350);
///
/// Each call runs the function until it waits. Throws what parks a workflow.
template <class W>
class Rehearsal {
public:
    /// Started with `input`. Refers to `workflow`, which has to outlive it.
    Rehearsal(const W& workflow, const typename W::Input& input) : rehearsing_(workflow, encode(input)) {}
    Rehearsal(const W&& workflow, const typename W::Input& input) = delete;

    /// A message comes into its stream.
    Rehearsal& send(Message message) {
        rehearsing_.send(std::move(message));
        return *this;
    }
    /// Time passes; what falls due meanwhile happens at its own time.
    Rehearsal& advance(Duration time) {
        rehearsing_.advance(time);
        return *this;
    }

    [[nodiscard]] WorkflowOutcome<typename W::Output> outcome() const {
        return WorkflowOutcome<typename W::Output>(rehearsing_.end());
    }
    /// Its stream, with seqs and times as if it had been stored.
    [[nodiscard]] const Messages& history() const noexcept { return rehearsing_.history; }
    /// What it waits for the time of: ends of sleeps, retries.
    [[nodiscard]] const std::vector<Scheduled>& scheduled() const noexcept { return rehearsing_.scheduled; }
    [[nodiscard]] Time now() const noexcept { return rehearsing_.clock.now(); }

private:
    detail::Rehearsing rehearsing_;
};

// ---- Several reactors ---------------------------------------------------------------

/// One message of a trail: in which stream, and who made it.
class Line {
public:
    /// In the stream it names, else in that of the stage.
    template <is_message T>
    Line(const T& message) : Line(Message(message)) {}
    SOURCED_API Line(Message message);

    [[nodiscard]] SOURCED_API Line in(std::string_view stream) const;
    /// In a stream begun by Dispatch::to_new or to<Actor>, whose name nobody knows: any with this prefix and an id.
    [[nodiscard]] SOURCED_API Line in_new(std::string_view prefix) const;
    /// Appended by this reactor; compared only when it is said. See Stage::producer().
    [[nodiscard]] SOURCED_API Line by(std::string_view reactor) const;

private:
    friend class Stage;
    [[nodiscard]] bool stands_in(std::string_view stream) const;

    Message message_;
    bool new_stream_ = false;
    std::string producer_;
};
/// `line(Processed{}).in("payment-1").by("payment")`
template <class T>
[[nodiscard]] Line line(const T& message);

/// Several reactors with a store in memory and a clock set by hand: what they make of a message together. See stage().
///
/// They take turns: each handles one message, in the order in which they were named, until nothing is left, so that a
/// trail is always the same. An exception stops its reactor at once, and fails every `then` that follows. A reactor
/// with options of its own keeps them: its batches, its error strategy. What waits for a retry, is parked or was
/// skipped then is told where a verdict is not as expected.
///
/// For one thread.
class Stage {
public:
    SOURCED_API Stage();
    SOURCED_API ~Stage();
    SOURCED_API Stage(Stage&& other) noexcept;
    SOURCED_API Stage& operator=(Stage&& other) noexcept;

    // ---- before: these throw Error once something has happened

    /// One more reactor, made from `arguments`.
    template <class R, class... Arguments>
    Stage& add(Arguments&&... arguments) &;
    template <class R, class... Arguments>
    Stage&& add(Arguments&&... arguments) && {
        return std::move(add<R>(std::forward<Arguments>(arguments)...));
    }
    /// The stream of messages that name none; `<first reactor>-1` when it is not said.
    SOURCED_API Stage& stream(std::string_view name) &;
    Stage&& stream(std::string_view name) && { return std::move(stream(name)); }
    /// What happened before, each in the stream it names (Message::to). It makes states and read models; nobody
    /// decides on it or reacts to it.
    template <class... M>
    Stage& given(const M&... past) &;
    template <class... M>
    Stage&& given(const M&... past) && {
        return std::move(given(past...));
    }

    // ---- what happens

    /// Sends messages and lets the reactors work until nothing is left. What is scheduled waits.
    template <class... M>
    Stage& when(const M&... messages) &;
    template <class... M>
    Stage&& when(const M&... messages) && {
        return std::move(when(messages...));
    }
    /// Lets time pass, then the reactors work until nothing is left.
    SOURCED_API Stage& after(Duration duration) &;
    Stage&& after(Duration duration) && { return std::move(after(duration)); }

    // ---- what came of it

    /// The whole log consists of exactly these, in this order: the past, what was sent, what came of it. Types,
    /// payloads and streams are compared, and producers where they are said. The text marks what differs:
    ///
    ///     the trail is not as expected (- missing, + unexpected):
    ///        1   order-1  order.started {}
    ///        2   order-1  order.start_payment {"amount":10}
    ///          - order-1  order.payment_started {"amount":20}
    ///        3 + order-1  order.payment_started {"amount":10}  by order
    template <class... M>
    Verdict then_trail(const M&... lines) const;
    /// The same for what came of the last `when` or `after` alone.
    template <class... M>
    Verdict then(const M&... lines) const;
    /// The reactor of this name was stopped by an exception whose text contains `text`.
    SOURCED_API Verdict then_stopped(std::string_view reactor, std::string_view text = {}) const;
    /// The state of an actor or event-sourced projector. Compared by JSON; the text says only what differs.
    template <class R>
    Verdict then_state(const typename R::State& expected, std::string_view stream = {}) const;

    /// All messages in the order of the log.
    [[nodiscard]] SOURCED_API Messages trail() const;
    /// Who made a message of the trail. Empty for what was sent to the stage, and where several may have made it and
    /// none has recorded itself as its producer.
    [[nodiscard]] SOURCED_API std::string producer(const Message& message) const;
    /// For looking at states and read models.
    [[nodiscard]] SOURCED_API App& app() const;
    [[nodiscard]] SOURCED_API Clock clock() const;

private:
    struct Members;
    SOURCED_API void do_add(std::unique_ptr<Reactor> reactor);
    SOURCED_API void do_given(Messages past);
    SOURCED_API void do_when(Messages messages);
    [[nodiscard]] SOURCED_API Verdict judge(const std::vector<Line>& expected, bool whole) const;
    [[nodiscard]] SOURCED_API std::string stream_or_default(std::string_view stream) const;

    std::unique_ptr<Members> members_;
};

/// A stage for these reactors, made by their default constructors; Stage::add takes others.
///
///     CHECK(stage<Order, Payment, Telemetry>()
///               .given(Started{})
///               .when(StartPayment{})
///               .then_trail(Started{}, StartPayment{}, PaymentStarted{},
///                           line(Process{}).in("payment-1").by("order")));
template <class... R>
[[nodiscard]] Stage stage();

}  // namespace sourced::testing

// =============================================================================
// Inspector: the command line tool, with a program's own types
// =============================================================================

namespace sourced {

/// What the program `sourced` does, for a program that brings its types: `main` of a tool of your own. Needs the
/// library sourced_inspector.
///
///     int main(int argc, char** argv) {
///         sourced::App app;
///         add_shop(app);
///         return sourced::inspect(app, argc, argv);
///     }
///
/// Gives the exit status. The file is named on the command line; an App with a path needs none there. To stdout and
/// stderr goes what the command has to say; nothing is thrown.
[[nodiscard]] SOURCED_API int inspect(App& app, int argc, char** argv);
/// The same without types.
[[nodiscard]] SOURCED_API int inspect(int argc, char** argv);

/// What an App, its reactors and their definitions look like in memory. Raised when that changes: who was compiled with
/// another number cannot share them.
inline constexpr int abi = 1;

/// Makes a shared library one that the program `sourced` can load, `sourced --app libshop.so shop.db flow`. Stands
/// once, at global scope; `add_all` is a function `(sourced::App&)` that adds the reactors.
///
///     SOURCED_APP(add_shop)
///
/// It defines the one function that the program looks for:
///
///     extern "C" int sourced_app(sourced::App* app);
///
/// which gives `sourced::abi`, and before that calls `add_all` unless `app` is null: the number is asked first. The
/// library has to be linked with the shared libsourced, which is then one and the same for both.
#define SOURCED_APP(add_all)                                                                                         \
    extern "C" SOURCED_API int sourced_app(::sourced::App* sourced_to);                                              \
    extern "C" int sourced_app(::sourced::App* sourced_to) {                                                         \
        if (sourced_to) add_all(*sourced_to);                                                                        \
        return ::sourced::abi;                                                                                       \
    }

}  // namespace sourced

// =============================================================================
// Messages: template bodies
// =============================================================================

namespace sourced {
namespace detail {

// ---- Names out of the text of a macro's arguments

// `text` is what stands between the parentheses: a string literal, then the fields.
template <std::size_t N>
constexpr std::array<std::string_view, N> split_names(std::string_view text) {
    std::array<std::string_view, N> names{};
    std::size_t at = text.empty() ? 0 : 1;
    while (at < text.size() && text[at] != '"') at += text[at] == '\\' ? 2 : 1;
    ++at;
    for (auto& name : names) {
        while (at < text.size() && (text[at] == ',' || text[at] == ' ')) ++at;
        const std::size_t begin = at;
        while (at < text.size() && text[at] != ',' && text[at] != ' ') ++at;
        name = text.substr(begin, at - begin);
    }
    return names;
}

template <std::size_t N, class E>
constexpr EnumNames<N, E> enum_names(std::string_view text, const E (&values)[N]) {
    EnumNames<N, E> result;
    result.names = split_names<N>(text);
    for (std::size_t i = 0; i < N; ++i) result.values[i] = values[i];
    return result;
}

template <class Archive, class Self, class... Members>
void serialize_fields(Archive& archive, Self&, const char*, Members&... members) {
    if constexpr (sizeof...(Members) > 0) {
        static constexpr auto names = split_names<sizeof...(Members)>(Self::sourced_fields);
        std::size_t index = 0;
        (archive.field(names[index++], members), ...);
    }
}

// ---- The archives

// Where in a value we are; a chain on the stack, made into text only for a problem.
struct Place {
    const Place* outer = nullptr;
    std::string_view key{};
    std::size_t index = 0;
    bool is_index = false;
};

template <class T>
struct NamedValue : std::false_type {};
template <class T>
struct NamedValue<cereal::NameValuePair<T>> : std::true_type {};

inline constexpr std::array<std::string_view, 10> unnamed{"value0", "value1", "value2", "value3", "value4",
                                                          "value5", "value6", "value7", "value8", "value9"};

// What cereal's `serialize` functions call: archive(CEREAL_NVP(a), CEREAL_NVP(b)).
template <class Archive, class... T>
void take_values(Archive& archive, std::size_t& count, T&&... values) {
    const auto one = [&](auto&& value) {
        if constexpr (NamedValue<std::remove_cvref_t<decltype(value)>>::value) archive.field(value.name, value.value);
        else archive.field(unnamed.at(count++), value);
    };
    (one(values), ...);
}

struct Buffer;

// Writes JSON without blanks into a buffer of this thread.
class SOURCED_API JsonWriter {
public:
    using is_saving = std::true_type;
    using is_loading = std::false_type;
    static constexpr std::size_t most_depth = 64;

    JsonWriter();
    ~JsonWriter();
    JsonWriter(const JsonWriter&) = delete;
    JsonWriter& operator=(const JsonWriter&) = delete;

    template <class... T>
    JsonWriter& operator()(T&&... values) {
        take_values(*this, unnamed_, values...);
        return *this;
    }
    template <class T>
    void field(std::string_view name, const T& value);

    void null();
    void boolean(bool value);
    void integer(std::int64_t value);
    void natural(std::uint64_t value);
    void real(double value);
    void real(float value);
    void text(std::string_view value);
    void base64(const void* bytes, std::size_t size);
    void time(std::int64_t seconds, std::int64_t nanoseconds);
    void id(const Id& value);
    void raw(std::string_view json);

    // `place` is where the members of the container keep their name or index.
    void begin(char bracket, Place& place);
    void end(char bracket, const Place& place);
    void key(Place& place, std::string_view name);   // any text
    void name(std::string_view name);                // an identifier, of the innermost place
    void element(Place& place) {
        comma();
        ++place.index;
    }

    [[nodiscard]] std::string take() const;
    [[noreturn]] void refuse(std::string_view what) const;

    std::size_t unnamed_ = 0;

private:
    void comma() {
        if (comma_) put(',');
        comma_ = true;
    }
    void put(char c) {
        if (at_ == end_) grow(1);
        *at_++ = c;
    }
    void room(std::size_t size) {
        if (static_cast<std::size_t>(end_ - at_) < size) grow(size);
    }
    void grow(std::size_t size);

    char* at_ = nullptr;
    char* end_ = nullptr;
    char* begin_ = nullptr;
    Place* place_ = nullptr;
    Buffer* buffer_ = nullptr;
    std::size_t depth_ = 0;
    bool comma_ = false;
};

// Rules with their patterns compiled.
struct Pattern;
struct SOURCED_API RuleSet {
    explicit RuleSet(Rules fields);
    RuleSet(const RuleSet&) = delete;
    RuleSet& operator=(const RuleSet&) = delete;
    ~RuleSet();
    [[nodiscard]] const FieldRules* find(std::string_view name) const noexcept;
    [[nodiscard]] const Pattern& pattern(const Rule& rule) const;
    Rules fields;
    std::vector<std::pair<const Rule*, std::unique_ptr<Pattern>>> patterns;
};

struct Parser;
inline constexpr std::size_t any_size = std::size_t(1) << 30;  // offsets in a tape are 32 bits

// Reads values from the tape that parsing has left. Every problem is kept; reading goes on behind it.
class SOURCED_API JsonReader {
public:
    using is_saving = std::false_type;
    using is_loading = std::true_type;

    // Parses; a text that is no JSON is a problem too.
    JsonReader(std::string_view json, Reading reading, const Limits& limits);
    ~JsonReader();
    JsonReader(const JsonReader&) = delete;
    JsonReader& operator=(const JsonReader&) = delete;

    // The object that is being read.
    struct Object {
        Object(JsonReader& reader, const RuleSet* rules);  // a problem when there is none
        ~Object();
        Object(const Object&) = delete;
        Object& operator=(const Object&) = delete;
        explicit operator bool() const noexcept { return begin != nullptr; }
        void finish();

        JsonReader& reader;
        const RuleSet* rules;
        const FieldRules* field_rules = nullptr;
        Object* outer;
        const Place* outer_place;
        const char* begin = nullptr;
        const char* end = nullptr;
        const char* cursor = nullptr;
        const char* value = nullptr;
        std::size_t first_name;
        std::size_t problems_before = 0;
        std::size_t unnamed_before;
        Place place{};
        bool irregular = false;  // the fields do not simply follow each other in the order of the members
    };

    // Members of an array, or of an object used as a map, one after the other.
    struct Items {
        Items(JsonReader& reader, bool is_map);
        ~Items();
        Items(const Items&) = delete;
        Items& operator=(const Items&) = delete;
        explicit operator bool() const noexcept { return begin != nullptr; }
        [[nodiscard]] bool next();
        void expect_size(std::size_t size);

        JsonReader& reader;
        const Place* outer_place;
        const char* begin = nullptr;
        const char* cursor = nullptr;
        const char* end = nullptr;
        std::string_view key{};
        std::size_t count = 0;
        Place place{};
        bool is_map;
        bool at_end = false;  // one more was asked for than there are
    };

    template <class... T>
    JsonReader& operator()(T&&... values) {
        take_values(*this, unnamed_, values...);
        return *this;
    }
    template <class T>
    void field(std::string_view name, T& value);

    [[nodiscard]] bool is_null() const noexcept;
    [[nodiscard]] bool boolean(bool& value);
    [[nodiscard]] bool integer(std::int64_t& value, std::int64_t least, std::int64_t most);
    [[nodiscard]] bool natural(std::uint64_t& value, std::uint64_t most);
    [[nodiscard]] bool real(double& value);
    [[nodiscard]] bool real(float& value);
    [[nodiscard]] bool text(std::string_view& value, std::string_view expected = "string");
    void text(std::string& value);
    [[nodiscard]] bool base64(std::string& bytes);
    // Seconds and nanoseconds since 1970.
    [[nodiscard]] bool time(std::int64_t& seconds, std::int64_t& nanoseconds, std::int64_t least, std::int64_t most);
    void id(Id& value);
    void metadata(Metadata& value);
    [[nodiscard]] std::size_t one_of(const std::string_view* names, std::size_t count);
    [[nodiscard]] bool is_text() const noexcept;

    void problem(std::string text);
    void problem_at(std::string_view key, std::string text);
    void expected(std::string_view what);
    void check(const FieldRules& rules, const RuleSet& set, const char* value);
    [[nodiscard]] bool strict() const noexcept { return strict_; }
    [[nodiscard]] bool parsed() const noexcept { return root_ != nullptr; }
    [[nodiscard]] std::size_t problem_count() const noexcept { return problem_count_; }
    [[nodiscard]] Problems take_problems() { return std::move(problems_); }
    [[nodiscard]] const char* here() const noexcept { return at_; }
    void set_lax(bool value) noexcept { lax_ = value; }
    void take_lax(const RuleSet& rules) noexcept;

    std::size_t unnamed_ = 0;

private:
    friend struct Object;
    friend struct Items;
    [[nodiscard]] bool find(std::string_view name);
    void leave_field();

    const char* at_ = nullptr;  // the value to be read
    const char* root_ = nullptr;
    Parser* parser_ = nullptr;
    Object* object_ = nullptr;
    const Place* place_ = nullptr;
    std::size_t problem_count_ = 0;
    Problems problems_;
    bool strict_;
    bool lax_ = false;
};

// Collects a JSON Schema. Each `schema_of` leaves its object open, so that the rules of a field can follow.
class SOURCED_API JsonSchema {
public:
    using is_saving = std::true_type;
    using is_loading = std::false_type;

    template <class... T>
    JsonSchema& operator()(T&&... values) {
        take_values(*this, unnamed_, values...);
        return *this;
    }
    template <class T>
    void field(std::string_view name, const T&);

    // False when the type is being described already: then a reference was written.
    [[nodiscard]] bool enter(const void* type);
    void leave() { types_.pop_back(); }
    void begin_struct(const RuleSet* rules);
    void end_struct();
    void add(std::string_view json) { out_ += json; }
    void add_text(std::string_view text);
    void add_rules(const FieldRules& rules);
    template <class T>
    void nested(std::string_view path);
    [[nodiscard]] const std::string& text() const noexcept { return out_; }
    [[nodiscard]] bool has_rules() const noexcept { return has_rules_; }
    void mark_rules() noexcept { has_rules_ = true; }
    std::size_t unnamed_ = 0;

private:
    struct Struct {
        const RuleSet* rules = nullptr;
        bool first = true;
        std::size_t unnamed_before = 0;
    };
    const FieldRules* begin_field(std::string_view name);

    std::string out_;
    std::string path_ = "#";
    std::vector<std::pair<const void*, std::string>> types_;
    std::vector<Struct> structs_;
    bool has_rules_ = false;
};

// ---- Which kind of type is it?

template <class T, template <class...> class Template>
inline constexpr bool is_a = false;
template <template <class...> class Template, class... A>
inline constexpr bool is_a<Template<A...>, Template> = true;

template <class T>
inline constexpr bool is_std_array = false;
template <class T, std::size_t N>
inline constexpr bool is_std_array<std::array<T, N>> = true;

template <class T>
concept ByteContainer = (is_a<T, std::vector> || is_std_array<T>) && std::same_as<typename T::value_type, std::byte>;
template <class T>
concept Nullable = is_a<T, std::optional> || is_a<T, std::unique_ptr>;
template <class T>
concept TupleLike = is_a<T, std::pair> || is_a<T, std::tuple>;
template <class T>
concept MapLike = requires(T& t) {
    typename T::mapped_type;
    t.begin();
} && std::same_as<typename T::key_type, std::string>;
template <class T>
concept SetLike = requires(T& t, typename T::value_type v) { t.insert(std::move(v)); } &&
                  requires { typename T::key_type; } && !requires { typename T::mapped_type; };
template <class T>
concept ListLike = requires(T& t, typename T::value_type v) {
    t.push_back(std::move(v));
    t.begin();
} && !std::same_as<T, std::string>;
template <class T>
concept NamedEnum = std::is_enum_v<T> && requires { sourced_enum_names(static_cast<const T*>(nullptr)); };
template <class T, class Archive>
concept MemberSerialize = requires(Archive& archive, T& value) { cereal::access::member_serialize(archive, value); };
template <class T, class Archive>
concept FreeSerialize = requires(Archive& archive, T& value) { serialize(archive, value); };
template <class T>
concept MemberSave = requires(JsonWriter& archive, const T& value) { cereal::access::member_save(archive, value); };
template <class T>
concept FreeSave = requires(JsonWriter& archive, const T& value) { save(archive, value); };

template <class T>
concept HasRules = requires {
    { T::rules() } -> std::same_as<Rules>;
};

template <class T>
[[nodiscard]] const RuleSet* rules_of() {
    if constexpr (HasRules<T>) {
        static const RuleSet rules(T::rules());
        return &rules;
    } else {
        return nullptr;
    }
}

// The rules of a Checked type; null when it has none.
template <class R>
[[nodiscard]] const RuleSet* own_rules_of() {
    if constexpr (requires {
                      { R::rules() } -> std::same_as<std::vector<Rule>>;
                  }) {
        static const RuleSet rules([] {
            FieldRules field("");
            field.rules = R::rules();
            return Rules{field};
        }());
        return &rules;
    } else {
        return nullptr;
    }
}

template <class T>
inline constexpr bool never = false;

/// The parameters of one template, given to another.
template <template <class...> class Template, class T>
struct As;
template <template <class...> class Template, template <class...> class Other, class... A>
struct As<Template, Other<A...>> {
    using Type = Template<A...>;
};

template <class Archive, class T>
void call_serialize(Archive& archive, T& value) {
    if constexpr (MemberSerialize<T, Archive>) cereal::access::member_serialize(archive, value);
    else if constexpr (FreeSerialize<T, Archive>) serialize(archive, value);
    else if constexpr (Archive::is_saving::value && MemberSave<T>) cereal::access::member_save(archive, value);
    else if constexpr (Archive::is_saving::value && FreeSave<T>) save(archive, value);
    else if constexpr (MemberSave<T>) cereal::access::member_load(archive, value);
    else if constexpr (FreeSave<T>) load(archive, value);
    else
        static_assert(never<T>,
                      "sourced: this type has no JSON: give it SOURCED_VALUE(fields...) or a serialize function");
}

// The tag of a variant's alternative: a declared name, or else its index.
template <class T>
concept Tagged = requires {
    { T::sourced_type } -> std::convertible_to<std::string_view>;
};

// ---- Writing

/// Whether T is known to have a JSON: write_value says by a static_assert that it has none, too late for those who
/// only ask. A `serialize` that is not of our making may be for another archive, so it is no answer.
template <class T>
consteval bool is_written() {
    const auto parts = []<class... P>(std::type_identity<std::tuple<P...>>) { return (is_written<P>() && ...); };
    if constexpr (std::is_arithmetic_v<T>) return !std::same_as<T, long double>;
    else if constexpr (std::is_enum_v<T> || ByteContainer<T>) return true;
    else if constexpr (is_a<T, std::chrono::duration>) return is_written<typename T::rep>();
    else if constexpr (is_a<T, std::chrono::time_point>) return true;
    else if constexpr (is_a<T, Checked>) return is_written<typename T::value_type>();
    else if constexpr (is_a<T, std::optional>) return is_written<typename T::value_type>();
    else if constexpr (is_a<T, std::unique_ptr>) return is_written<typename T::element_type>();
    else if constexpr (is_a<T, std::variant>) return parts(std::type_identity<typename As<std::tuple, T>::Type>());
    else if constexpr (TupleLike<T>) return parts(std::type_identity<typename As<std::tuple, T>::Type>());
    else if constexpr (MapLike<T>) return is_written<typename T::mapped_type>();
    else if constexpr (std::same_as<T, std::string>) return true;
    else if constexpr (is_std_array<T> || SetLike<T> || ListLike<T>) return is_written<typename T::value_type>();
    else if constexpr (requires { T::sourced_fields; }) return true;
    else return is_message<T> || std::same_as<T, std::monostate> || std::same_as<T, Id> || std::same_as<T, Metadata>;
}

template <class T>
void write_value(JsonWriter& writer, const T& value) {
    if constexpr (std::same_as<T, bool>) writer.boolean(value);
    else if constexpr (std::is_integral_v<T> && std::is_signed_v<T>) writer.integer(value);
    else if constexpr (std::is_integral_v<T>) writer.natural(value);
    else if constexpr (std::same_as<T, float>) writer.real(value);
    else if constexpr (std::same_as<T, double>) writer.real(value);
    else if constexpr (std::same_as<T, std::string>) writer.text(value);
    else if constexpr (std::same_as<T, std::monostate> || std::same_as<T, std::nullptr_t>) writer.null();
    else if constexpr (std::same_as<T, Id>) writer.id(value);
    else if constexpr (std::same_as<T, Metadata>) writer.raw(value.json());
    else if constexpr (is_a<T, Checked>) write_value(writer, value.get());
    else if constexpr (NamedEnum<T>) {
        constexpr auto known = sourced_enum_names(static_cast<const T*>(nullptr));
        for (std::size_t i = 0; i < known.values.size(); ++i) {
            if (known.values[i] == value) return writer.text(known.names[i]);
        }
        writer.refuse("an enum value without a name");
    } else if constexpr (std::is_enum_v<T>) {
        write_value(writer, static_cast<std::underlying_type_t<T>>(value));
    } else if constexpr (is_a<T, std::chrono::duration>) {
        write_value(writer, value.count());
    } else if constexpr (is_a<T, std::chrono::time_point>) {
        const auto seconds = std::chrono::floor<std::chrono::seconds>(value);
        const auto rest = std::chrono::duration_cast<std::chrono::nanoseconds>(value - seconds);
        writer.time(seconds.time_since_epoch().count(), rest.count());
    } else if constexpr (ByteContainer<T>) {
        writer.base64(value.data(), value.size());
    } else if constexpr (Nullable<T>) {
        if (value) write_value(writer, *value);
        else writer.null();
    } else if constexpr (is_a<T, std::variant>) {
        if (value.valueless_by_exception()) writer.refuse("a variant without a value");
        Place place;
        writer.begin('{', place);
        writer.key(place, "tag");
        std::visit(
            [&]<class A>(const A& alternative) {
                if constexpr (Tagged<A>) writer.text(A::sourced_type);
                else writer.natural(value.index());
                writer.key(place, "value");
                write_value(writer, alternative);
            },
            value);
        writer.end('}', place);
    } else if constexpr (TupleLike<T>) {
        Place place{.index = static_cast<std::size_t>(-1), .is_index = true};
        writer.begin('[', place);
        std::apply([&](const auto&... element) { ((writer.element(place), write_value(writer, element)), ...); },
                   value);
        writer.end(']', place);
    } else if constexpr (MapLike<T>) {
        Place place;
        writer.begin('{', place);
        for (const auto& entry : value) {
            writer.key(place, entry.first);
            write_value(writer, entry.second);
        }
        writer.end('}', place);
    } else if constexpr (is_std_array<T> || SetLike<T> || ListLike<T>) {
        Place place{.index = static_cast<std::size_t>(-1), .is_index = true};
        writer.begin('[', place);
        for (const auto& element : value) {
            writer.element(place);
            // vector<bool> gives proxies
            write_value<typename T::value_type>(writer, element);
        }
        writer.end(']', place);
    } else {
        Place place;
        const auto before = std::exchange(writer.unnamed_, 0);
        writer.begin('{', place);
        call_serialize(writer, const_cast<T&>(value));
        writer.end('}', place);
        writer.unnamed_ = before;
    }
}

template <class T>
void JsonWriter::field(std::string_view field_name, const T& value) {
    name(field_name);
    write_value(*this, value);
}

// ---- Reading

template <class T>
void read_value(JsonReader& reader, T& value);

template <class T>
void read_variant(JsonReader& reader, T& value) {
    std::string_view name;
    std::int64_t number = -1;
    bool known = false;
    bool seen = false;
    bool seen_value = false;
    {
        // First pass: only the tag. Objects have no order, so it may stand behind the value.
        JsonReader::Items items(reader, true);
        if (!items) return;
        while (items.next()) {
            if (items.key == "tag") {
                if (std::exchange(seen, true)) reader.problem("stands twice");
                reader.set_lax(false);
                std::string_view text;
                if (!reader.is_text()) {
                    known = reader.integer(number, 0, std::numeric_limits<std::int64_t>::max());
                } else if (reader.text(text)) {
                    name = text;
                    known = true;
                }
            } else if (items.key == "value") {
                if (std::exchange(seen_value, true)) reader.problem("stands twice");
            } else if (reader.strict()) {
                reader.problem("unknown field");
            }
        }
    }
    if (!seen) reader.problem_at("tag", "is missing");
    if (!seen_value) reader.problem_at("value", "is missing");
    if (!known || !seen_value) return;
    bool found = false;
    const auto try_one = [&]<std::size_t I>(std::integral_constant<std::size_t, I>) {
        using A = std::variant_alternative_t<I, T>;
        if constexpr (Tagged<A>) {
            if (name.data() == nullptr || name != std::string_view(A::sourced_type)) return;
        } else {
            if (name.data() != nullptr || number != static_cast<std::int64_t>(I)) return;
        }
        if (std::exchange(found, true)) return;
        JsonReader::Items items(reader, true);
        while (items.next()) {
            if (items.key == "value") read_value(reader, value.template emplace<I>());
        }
    };
    [&]<std::size_t... I>(std::index_sequence<I...>) {
        (try_one(std::integral_constant<std::size_t, I>()), ...);
    }(std::make_index_sequence<std::variant_size_v<T>>());
    if (!found) reader.problem_at("tag", "names none of the alternatives");
}

template <class T>
void read_tuple(JsonReader& reader, T& value) {
    constexpr std::size_t size = std::tuple_size_v<T>;
    JsonReader::Items items(reader, false);
    if (!items) return;
    std::apply(
        [&](auto&... element) {
            const auto one = [&](auto& target) {
                if (items.next()) read_value(reader, target);
            };
            (one(element), ...);
        },
        value);
    items.expect_size(size);
}

template <class T>
void read_value(JsonReader& reader, T& value) {
    if constexpr (std::same_as<T, bool>) {
        (void)reader.boolean(value);
    } else if constexpr (std::is_integral_v<T> && std::is_signed_v<T>) {
        std::int64_t number = 0;
        if (reader.integer(number, std::numeric_limits<T>::min(), std::numeric_limits<T>::max()))
            value = static_cast<T>(number);
    } else if constexpr (std::is_integral_v<T>) {
        std::uint64_t number = 0;
        if (reader.natural(number, std::numeric_limits<T>::max())) value = static_cast<T>(number);
    } else if constexpr (std::is_floating_point_v<T>) {
        (void)reader.real(value);
    } else if constexpr (std::same_as<T, std::string>) {
        reader.text(value);
    } else if constexpr (std::same_as<T, std::monostate> || std::same_as<T, std::nullptr_t>) {
        if (!reader.is_null()) reader.expected("null");
    } else if constexpr (std::same_as<T, Id>) {
        reader.id(value);
    } else if constexpr (std::same_as<T, Metadata>) {
        reader.metadata(value);
    } else if constexpr (is_a<T, Checked>) {
        using R = typename T::rules_type;
        const RuleSet* rules = reader.strict() ? own_rules_of<R>() : nullptr;
        const char* const at = reader.here();
        const std::size_t before = reader.problem_count();
        if (rules) reader.take_lax(*rules);
        read_value(reader, value.get());
        if (reader.strict() && reader.problem_count() == before) {
            if constexpr (requires { R::coerce(value.get()); }) R::coerce(value.get());
            if (rules) reader.check(rules->fields.front(), *rules, at);
            if constexpr (requires { R::check(value.get()); }) {
                if (std::optional<std::string> wrong = R::check(value.get())) reader.problem(std::move(*wrong));
            }
        }
    } else if constexpr (NamedEnum<T>) {
        constexpr auto known = sourced_enum_names(static_cast<const T*>(nullptr));
        const std::size_t index = reader.one_of(known.names.data(), known.names.size());
        if (index < known.values.size()) value = known.values[index];
    } else if constexpr (std::is_enum_v<T>) {
        auto number = static_cast<std::underlying_type_t<T>>(value);
        read_value(reader, number);
        value = static_cast<T>(number);
    } else if constexpr (is_a<T, std::chrono::duration>) {
        auto count = value.count();
        read_value(reader, count);
        value = T(count);
    } else if constexpr (is_a<T, std::chrono::time_point>) {
        std::int64_t seconds = 0;
        std::int64_t nanoseconds = 0;
        using D = typename T::duration;
        // The type's own range, in whole seconds: nanoseconds reach from 1677 to 2262.
        constexpr auto least = std::chrono::ceil<std::chrono::seconds>(
            std::chrono::duration<long double, typename D::period>(static_cast<long double>(D::min().count())));
        constexpr auto most = std::chrono::floor<std::chrono::seconds>(
            std::chrono::duration<long double, typename D::period>(static_cast<long double>(D::max().count())));
        if (reader.time(seconds, nanoseconds, least.count(), most.count() - 1)) {
            value = T(std::chrono::floor<D>(std::chrono::seconds(seconds)) +
                      std::chrono::floor<D>(std::chrono::nanoseconds(nanoseconds)));
        }
    } else if constexpr (ByteContainer<T>) {
        std::string bytes;
        if (!reader.base64(bytes)) return;
        if constexpr (is_std_array<T>) {
            if (bytes.size() != value.size()) {
                return reader.expected("base64 of " + std::to_string(value.size()) + " bytes");
            }
        } else {
            value.resize(bytes.size());
        }
        if (!bytes.empty()) std::memcpy(value.data(), bytes.data(), bytes.size());
    } else if constexpr (is_a<T, std::optional>) {
        if (reader.is_null()) value.reset();
        else read_value(reader, value ? *value : value.emplace());
    } else if constexpr (is_a<T, std::unique_ptr>) {
        if (reader.is_null()) return value.reset();
        if (!value) value = std::make_unique<typename T::element_type>();
        read_value(reader, *value);
    } else if constexpr (is_a<T, std::variant>) {
        read_variant(reader, value);
    } else if constexpr (TupleLike<T>) {
        read_tuple(reader, value);
    } else if constexpr (is_std_array<T>) {
        JsonReader::Items items(reader, false);
        if (!items) return;
        for (auto& element : value) {
            if (!items.next()) break;
            read_value(reader, element);
        }
        items.expect_size(value.size());
    } else if constexpr (MapLike<T>) {
        JsonReader::Items items(reader, true);
        if (!items) return;
        value.clear();
        while (items.next()) {
            const auto [entry, fresh] = value.try_emplace(std::string(items.key));
            if (fresh) read_value(reader, entry->second);
            else reader.problem("stands twice");
        }
    } else if constexpr (SetLike<T> || ListLike<T>) {
        JsonReader::Items items(reader, false);
        if (!items) return;
        value.clear();
        while (items.next()) {
            typename T::value_type element{};
            const std::size_t before = reader.problem_count();
            read_value(reader, element);
            if constexpr (ListLike<T>) {
                value.push_back(std::move(element));
            } else if (reader.problem_count() == before) {
                const std::size_t size = value.size();
                value.insert(std::move(element));
                if (value.size() == size) reader.problem("stands twice in a set");
            }
        }
    } else {
        JsonReader::Object object(reader, reader.strict() ? rules_of<T>() : nullptr);
        if (!object) return;
        call_serialize(reader, value);
        object.finish();
    }
}

template <class T>
void JsonReader::field(std::string_view name, T& value) {
    if (!find(name)) return;
    read_value(*this, value);
    leave_field();
}

// ---- Describing

template <class T>
inline constexpr char type_mark = 0;

template <class T>
void schema_of(JsonSchema& schema) {
    if constexpr (std::same_as<T, bool>) schema.add(R"({"type":"boolean")");
    else if constexpr (std::is_integral_v<T>) {
        schema.add(R"({"type":"integer")");
        if constexpr (sizeof(T) < 8 || std::is_unsigned_v<T>) {
            schema.add(R"(,"minimum":)");
            schema.add(std::to_string(std::numeric_limits<T>::min()));
        }
        if constexpr (sizeof(T) < 8) {
            schema.add(R"(,"maximum":)");
            schema.add(std::to_string(std::numeric_limits<T>::max()));
        }
    } else if constexpr (std::is_floating_point_v<T>) schema.add(R"({"type":"number")");
    else if constexpr (std::same_as<T, std::string>) schema.add(R"({"type":"string")");
    else if constexpr (std::same_as<T, std::monostate> || std::same_as<T, std::nullptr_t>)
        schema.add(R"({"type":"null")");
    else if constexpr (std::same_as<T, Id>) schema.add(R"({"type":"string","format":"uuid")");
    else if constexpr (std::same_as<T, Metadata>) schema.add(R"({"type":"object")");
    else if constexpr (is_a<T, Checked>) {
        using R = typename T::rules_type;
        schema.mark_rules();
        if constexpr (requires { std::string_view(R::schema); }) {
            const std::string_view own = R::schema;
            schema.add(own.substr(0, own.rfind('}')));
        } else {
            schema_of<typename T::value_type>(schema);
        }
        if (const RuleSet* rules = own_rules_of<R>()) schema.add_rules(rules->fields.front());
    } else if constexpr (NamedEnum<T>) {
        constexpr auto known = sourced_enum_names(static_cast<const T*>(nullptr));
        schema.add(R"({"enum":[)");
        for (std::size_t i = 0; i < known.names.size(); ++i) {
            if (i) schema.add(",");
            schema.add_text(known.names[i]);
        }
        schema.add("]");
    } else if constexpr (std::is_enum_v<T>) schema_of<std::underlying_type_t<T>>(schema);
    else if constexpr (is_a<T, std::chrono::duration>) schema_of<typename T::rep>(schema);
    else if constexpr (is_a<T, std::chrono::time_point>) schema.add(R"({"type":"string","format":"date-time")");
    else if constexpr (ByteContainer<T>) schema.add(R"({"type":"string","contentEncoding":"base64")");
    else if constexpr (Nullable<T>) {
        schema.add(R"({"anyOf":[)");
        schema.nested<std::remove_cvref_t<decltype(*std::declval<T&>())>>("/anyOf/0");
        schema.add(R"(,{"type":"null"}])");
    } else if constexpr (is_a<T, std::variant>) {
        schema.add(R"({"oneOf":[)");
        [&]<std::size_t... I>(std::index_sequence<I...>) {
            const auto one = [&]<std::size_t J>(std::integral_constant<std::size_t, J>) {
                using A = std::variant_alternative_t<J, T>;
                if (J) schema.add(",");
                schema.add(R"({"type":"object","properties":{"tag":{"const":)");
                if constexpr (Tagged<A>) schema.add_text(A::sourced_type);
                else schema.add(std::to_string(J));
                schema.add(R"(},"value":)");
                schema.nested<A>("/oneOf/" + std::to_string(J) + "/properties/value");
                schema.add(R"(},"required":["tag","value"]})");
            };
            (one(std::integral_constant<std::size_t, I>()), ...);
        }(std::make_index_sequence<std::variant_size_v<T>>());
        schema.add("]");
    } else if constexpr (TupleLike<T>) {
        schema.add(R"({"type":"array","prefixItems":[)");
        [&]<std::size_t... I>(std::index_sequence<I...>) {
            ((schema.add(I ? "," : ""), schema.nested<std::tuple_element_t<I, T>>("/prefixItems/" + std::to_string(I))),
             ...);
        }(std::make_index_sequence<std::tuple_size_v<T>>());
        const std::string size = std::to_string(std::tuple_size_v<T>);
        schema.add(R"(],"items":false,"minItems":)" + size);
    } else if constexpr (MapLike<T>) {
        schema.add(R"({"type":"object","additionalProperties":)");
        schema.nested<typename T::mapped_type>("/additionalProperties");
    } else if constexpr (is_std_array<T> || SetLike<T> || ListLike<T>) {
        schema.add(R"({"type":"array","items":)");
        schema.nested<typename T::value_type>("/items");
        if constexpr (is_std_array<T>) {
            const std::string size = std::to_string(std::tuple_size_v<T>);
            schema.add(R"(,"minItems":)" + size + R"(,"maxItems":)" + size);
        } else if constexpr (!ListLike<T>) {
            schema.add(R"(,"uniqueItems":true)");
        }
    } else {
        if (!schema.enter(&type_mark<T>)) return;
        schema.begin_struct(rules_of<T>());
        T value{};
        call_serialize(schema, value);
        schema.end_struct();
        schema.leave();
    }
}

template <class T>
void JsonSchema::nested(std::string_view path) {
    const std::size_t before = path_.size();
    path_ += path;
    schema_of<T>(*this);
    out_ += '}';
    path_.resize(before);
}

template <class T>
void JsonSchema::field(std::string_view name, const T&) {
    const std::size_t before = path_.size();
    const FieldRules* rules = begin_field(name);
    schema_of<T>(*this);
    if (rules) add_rules(*rules);
    out_ += '}';
    path_.resize(before);
}

template <class T>
bool has_rules() {
    static const bool found = [] {
        JsonSchema schema;
        schema_of<T>(schema);
        return schema.has_rules();
    }();
    return found;
}

template <class T>
Problems check_json(std::string_view json, Reading reading, const Limits& limits) {
    T value{};
    JsonReader reader(json, reading, limits);
    if (reader.parsed()) read_value(reader, value);
    return reader.take_problems();
}

template <class T>
std::string normal_json(std::string_view json, const Limits& limits, Problems& problems) {
    T value{};
    JsonReader reader(json, Reading::strict, limits);
    if (reader.parsed()) read_value(reader, value);
    problems = reader.take_problems();
    return problems.empty() ? encode(value) : std::string();
}

}  // namespace detail

template <class T>
std::string encode(const T& value) {
    detail::JsonWriter writer;
    detail::write_value(writer, value);
    return writer.take();
}

template <class T>
T decode(std::string_view json, Reading reading, const Limits& limits) {
    T value{};
    detail::JsonReader reader(json, reading, limits);
    if (reader.parsed()) detail::read_value(reader, value);
    if (reader.problem_count() != 0) throw Invalid("read JSON", reader.take_problems());
    return value;
}

template <class T>
std::string json_schema() {
    detail::JsonSchema schema;
    detail::schema_of<T>(schema);
    return schema.text() + '}';
}

template <is_message T>
constexpr int message_schema() noexcept {
    if constexpr (requires { T::sourced_schema; }) return T::sourced_schema;
    else return 1;
}

template <is_message T>
std::vector<std::string> message_aliases() {
    std::vector<std::string> names;
    if constexpr (requires { T::sourced_aliases; }) {
        for (const auto& alias : T::sourced_aliases) names.emplace_back(alias);
    }
    return names;
}

template <class T>
    requires std::is_arithmetic_v<T>
Metadata& Metadata::set(std::string_view key, T value) {
    if constexpr (std::same_as<T, bool>) set_bool(key, value);
    else if constexpr (std::is_floating_point_v<T>) set_real(key, static_cast<double>(value));
    else if constexpr (std::is_signed_v<T>) set_integer(key, value);
    else set_unsigned(key, value);
    return *this;
}

template <class T>
    requires is_message<std::remove_cvref_t<T>>
Message::Message(const T& value) : payload(encode(value)) {
    static_assert(!std::string_view(T::sourced_type).empty(), "sourced: a message needs a name");
    if (detail::has_rules<T>()) {
        Problems problems = detail::check_json<T>(payload, Reading::strict, Limits{});
        if (!problems.empty())
            throw Invalid("make a message '" + std::string(T::sourced_type) + "'", std::move(problems));
    }
    begin(T::sourced_type, T::sourced_kind, message_schema<T>());
}

template <is_message T>
bool Message::is() const {
    if (type == std::string_view(T::sourced_type)) return true;
    if constexpr (requires { T::sourced_aliases; }) {
        for (const auto& alias : T::sourced_aliases) {
            if (type == std::string_view(alias)) return true;
        }
    }
    return false;
}

template <class T>
T Message::as() const {
    static_assert(is_message<T>, "sourced: as<T>() needs a type with SOURCED_COMMAND or SOURCED_EVENT");
    T value{};
    if (!is<T>() || erased_at) cannot_read(T::sourced_type, {});
    detail::JsonReader reader(payload, Reading::tolerant, Limits{.depth = 64, .bytes = detail::any_size});
    if (reader.parsed()) detail::read_value(reader, value);
    if (reader.problem_count() != 0) cannot_read(T::sourced_type, reader.take_problems());
    return value;
}

template <is_message T>
const TypeInfo& Registry::add() {
    return do_add(TypeInfo{std::string(T::sourced_type), T::sourced_kind, message_schema<T>(), message_aliases<T>(),
                           &sourced::json_schema<T>, &detail::check_json<T>, &detail::normal_json<T>, &typeid(T)});
}

}  // namespace sourced
// ==== Handlers =================================================================

namespace sourced {

template <class F>
    requires(!std::same_as<std::remove_cvref_t<F>, ErrorStrategy> && !std::same_as<std::remove_cvref_t<F>, Retries>)
ErrorStrategy::ErrorStrategy(F&& strategy) {
    constexpr bool fits = std::is_invocable_r_v<Resolution, const std::remove_cvref_t<F>&, const Fault&>;
    static_assert(fits, "an error strategy is a Retries, or is called with a const Fault& and returns a Resolution");
    if constexpr (fits) strategy_ = std::forward<F>(strategy);
}

}  // namespace sourced

namespace sourced::detail {

template <class T>
Box Box::of(T value) {
    static constexpr Verbs verbs{
        [](const void* from) -> void* { return new T(*static_cast<const T*>(from)); },
        [](void* gone) { delete static_cast<T*>(gone); },
    };
    Box box;
    box.value_ = new T(std::move(value));
    box.verbs_ = &verbs;
    return box;
}

template <class T>
inline constexpr bool is_optional = false;
template <class T>
inline constexpr bool is_optional<std::optional<T>> = true;
template <class T>
inline constexpr bool is_vector = false;
template <class T>
inline constexpr bool is_vector<std::vector<T>> = true;

[[nodiscard]] SOURCED_API Value unsigned_value(std::uint64_t number);

template <class T>
Value to_value(const T& argument) {
    if constexpr (std::is_same_v<T, Value>) {
        return argument;
    } else if constexpr (std::is_same_v<T, std::nullptr_t>) {
        return nullptr;
    } else if constexpr (is_optional<T>) {
        if (!argument) return nullptr;
        return to_value(*argument);
    } else if constexpr (std::is_integral_v<T>) {
        if constexpr (std::is_unsigned_v<T> && sizeof(T) == sizeof(std::int64_t)) {
            return unsigned_value(argument);
        } else {
            return static_cast<std::int64_t>(argument);
        }
    } else if constexpr (std::is_floating_point_v<T>) {
        return static_cast<double>(argument);
    } else if constexpr (std::is_convertible_v<const T&, std::string_view>) {
        return std::string(std::string_view(argument));
    } else {
        static_assert(never<T>,
                      "an argument of SQL is an integer, a bool, a double, text, an optional of these, or nullptr");
        return nullptr;
    }
}

// ---- What the declaring verbs call --------------------------------------------

/// What a message type says of itself.
struct Declared {
    std::string name;
    std::vector<std::string> aliases;
    void (*add)(Registry&) = nullptr;
};

template <class T>
Declared declared() {
    return {std::string(message_type<T>()), message_aliases<T>(), [](Registry& registry) { registry.add<T>(); }};
}

// Each throws Error when the reactor has such a handler already, or when a type would be both a command and a reaction.
SOURCED_API void name_reactor(Definition& definition, Definition::Role role, std::string_view name);
SOURCED_API void add_type(Definition& definition, const Declared& type);
SOURCED_API void add_command(Definition& definition, const Declared& type, Definition::CommandHandler handler);
SOURCED_API void add_event(Definition& definition, const Declared& type, Definition::Evolve call);
SOURCED_API void add_reaction(Definition& definition, const Declared& type, Definition::ReactionHandler handler);
SOURCED_API void add_any_reaction(Definition& definition, Definition::ReactionHandler handler);
SOURCED_API void add_key(Definition& definition, const Declared& type, Definition::Key call);
SOURCED_API void only_once(const Definition& definition, bool there_already, std::string_view verb);

template <class... T>
std::vector<std::string> names_of() {
    return {std::string(message_type<T>())...};
}

/// Ends the declaring: gives a nameless reactor the name of its class and refuses what is incomplete.
SOURCED_API void complete(Definition& definition, const std::type_info& type);

/// Folds messages into a state, with the guards of Actor::evolve. Gives the last seq.
SOURCED_API std::int64_t evolve(const Definition& definition, void* state, std::string_view stream, std::int64_t seq,
                                const Messages& messages);
[[nodiscard]] SOURCED_API Decided decide(const Definition& definition, const void* state, const Message& command);

/// How one group is run by itself; see Access::run_group.
struct RunOptions {
    std::int64_t until = std::numeric_limits<std::int64_t>::max();  ///< nothing behind this position is handled
    double rate = 0;  ///< at most so many messages a second, at an even pace; 0: as many as can be
    std::function<void(std::int64_t messages)> progress{};  ///< told after each commit how many were handled
    std::function<bool()> stopped{};  ///< asked between batches: true ends it
};

/// How that ended.
struct Ran {
    enum class Result {
        reached,      ///< nothing of the group is open up to there
        interrupted,  ///< by RunOptions::stopped
        stalled       ///< it does not get there by itself, and `reason` says why
    };
    Result result = Result::reached;
    std::string reason{};
    std::int64_t messages = 0;  ///< so many were handled
};

/// Reaches what only a reactor may change.
struct Access {
    [[nodiscard]] static Definition& definition(Reactor& reactor) noexcept { return reactor.definition_; }
    [[nodiscard]] static Engine& engine(App& app) noexcept { return *app.engine_; }
    static void add(App& app, std::unique_ptr<Reactor> reactor) { app.do_add(std::move(reactor)); }
    [[nodiscard]] SOURCED_API static const Options& options(const App& app) noexcept;
    [[nodiscard]] static std::vector<const Definition*> definitions(const App& app) { return app.definitions(); }

    /// Puts an App in memory, to which nothing was sent, on the file that `options` name: its reactors, the very
    /// objects, are added to an engine with these options in the order in which they were added before, and what it
    /// sends again and again is declared there. `only`: the others stay alive and their types known, but have no part
    /// in it; none named: all. References to the App and its reactors stay good; what else was made of it (its store,
    /// drafts, units, subscriptions, followers) must not be used any more. Throws Error when the App is on a file
    /// already, has sent something, works, or is what calls; NotRegistered for a name that was not added; and what
    /// opening the file and adding throw. The App is as before then, though groups may have been stored in the file.
    SOURCED_API static void move_to(App& app, Options options, const std::vector<std::string>& only = {});

    /// Handles what one group has open, and nothing else, on the calling thread; what other processes hold of it is
    /// waited for. Claims that are held when it ends early are given back. Throws as App::run_until_idle, and
    /// NotRegistered for a name that was not added.
    SOURCED_API static Ran run_group(App& app, std::string_view group, const RunOptions& options);
    /// How many messages its workers have handled since it was made. Cheap.
    [[nodiscard]] SOURCED_API static std::int64_t handled(App& app);
    /// Throws Invalid when App::reset_group would not reset the reactor so.
    SOURCED_API static void check_reset(const Definition& definition, const Reset& reset);
    /// The positions that a group was made to pass over.
    [[nodiscard]] SOURCED_API static std::unordered_set<std::int64_t> skipped_by(Store& store, std::string_view group);
};

template <class R, class... Arguments>
std::unique_ptr<R> make_reactor(Arguments&&... arguments) {
    auto reactor = std::make_unique<R>(std::forward<Arguments>(arguments)...);
    complete(Access::definition(*reactor), typeid(R));
    return reactor;
}

// ---- Reading a handler's signature ------------------------------------------------

template <class... T>
struct Types {
    static constexpr std::size_t size = sizeof...(T);
};

/// What can be known of a callable; nothing of generic lambdas and overloaded objects.
template <class F>
struct Signature {
    static constexpr bool readable = false;
};
template <class Class, class R, bool keeps, class... P>
struct Read {
    static constexpr bool readable = true;
    static constexpr bool constant = keeps;  // calling it changes nothing of its own
    using Object = Class;                    // of a member function
    using Return = R;
    using Parameters = Types<P...>;
};
template <class R, class... P>
struct Signature<R (*)(P...)> : Read<void, R, true, P...> {};
template <class R, class... P>
struct Signature<R (*)(P...) noexcept> : Read<void, R, true, P...> {};
template <class C, class R, class... P>
struct Signature<R (C::*)(P...)> : Read<C, R, false, P...> {};
template <class C, class R, class... P>
struct Signature<R (C::*)(P...) noexcept> : Read<C, R, false, P...> {};
template <class C, class R, class... P>
struct Signature<R (C::*)(P...) const> : Read<C, R, true, P...> {};
template <class C, class R, class... P>
struct Signature<R (C::*)(P...) const noexcept> : Read<C, R, true, P...> {};
template <class F>
requires requires { &F::operator(); }
struct Signature<F> : Signature<decltype(&F::operator())> {
    using Object = void;
};

/// The parameters of a handler that looks like `([state,] message [, const Envelope&])`.
/// A parameter that is missing reads as void.
template <class List>
struct Split {
    using First = void;
    using Message = void;
    static constexpr std::size_t size = 0;
    static constexpr bool envelope = false;
};
template <class M>
struct Split<Types<M>> {
    using First = void;
    using Message = M;
    static constexpr std::size_t size = 1;
    static constexpr bool envelope = false;
};
template <class S, class M>
struct Split<Types<S, M>> {
    using First = S;
    using Message = M;
    static constexpr std::size_t size = 2;
    static constexpr bool envelope = false;
};
template <class S, class M, class... More>
struct Split<Types<S, M, More...>> {
    using First = S;
    using Message = M;
    static constexpr std::size_t size = 2 + sizeof...(More);
    static constexpr bool envelope = false;
};
template <class P>
inline constexpr bool is_envelope = std::is_same_v<std::remove_cvref_t<P>, Envelope>;
template <class M, class E>
requires is_envelope<E>
struct Split<Types<M, E>> : Split<Types<M>> {
    static constexpr bool envelope = true;
};
template <class S, class M, class E>
requires is_envelope<E>
struct Split<Types<S, M, E>> : Split<Types<S, M>> {
    static constexpr bool envelope = true;
};

/// Handlers that take the message itself instead of what it says.
template <class P>
inline constexpr bool is_any_message = std::is_same_v<std::remove_cvref_t<P>, Message>;

template <class P>
inline constexpr bool may_change = std::is_lvalue_reference_v<P> && !std::is_const_v<std::remove_reference_t<P>>;

/// Everything that can be wrong with a handler. Each verb has a ladder that says it in a sentence.
enum class Mistake {
    none,
    unreadable,
    changes_itself,
    foreign,
    no_message,
    too_many,
    wrong_state,
    changes_state,
    keeps_state,
    no_state,
    changes_message,
    no_macro,
    wrong_kind,
    returns_nothing,
    returns_something,
    returns_command,
    returns_wrong,
    wrong_parameter
};

/// What is wrong with a handler before anybody looks at its parameters.
template <class Self, class F>
consteval Mistake callable_mistake() {
    using S = Signature<F>;
    if constexpr (!S::readable) {
        return Mistake::unreadable;
    } else if constexpr (!S::constant) {
        return Mistake::changes_itself;
    } else if constexpr (!std::is_void_v<typename S::Object> && !std::is_base_of_v<Self, typename S::Object>) {
        return Mistake::foreign;
    } else {
        return Mistake::none;
    }
}

/// What is wrong with the parameters of `([const State&,] const Message& [, const Envelope&])`. `any`: the message
/// may be taken as it is.
template <class Self, class State, class F, bool any = false>
consteval Mistake parameter_mistake(Kind kind, bool changes_state, bool needs_state) {
    if constexpr (callable_mistake<Self, F>() != Mistake::none) {
        return callable_mistake<Self, F>();
    } else {
        using P = Split<typename Signature<F>::Parameters>;
        using First = std::remove_cvref_t<typename P::First>;
        using M = std::remove_cvref_t<typename P::Message>;
        if constexpr (P::size == 0) {
            return Mistake::no_message;
        } else if constexpr (P::size > 2) {
            return Mistake::too_many;
        } else if constexpr (P::size == 1 && !is_message<M> && (std::is_same_v<M, State> || is_envelope<M>)) {
            return Mistake::no_message;
        } else if constexpr (P::size == 2 && !std::is_same_v<First, State>) {
            return Mistake::wrong_state;
        } else if constexpr (!is_message<M> && !(any && is_any_message<M>)) {
            return Mistake::no_macro;
        } else {
            if constexpr (is_message<M>) {
                if (message_kind<M>() != kind) return Mistake::wrong_kind;
            }
            if (P::size == 1 && needs_state) return Mistake::no_state;
            if (P::size == 2 && !changes_state && may_change<typename P::First>) return Mistake::changes_state;
            if (P::size == 2 && changes_state && !may_change<typename P::First>) return Mistake::keeps_state;
            if (may_change<typename P::Message>) return Mistake::changes_message;
            return Mistake::none;
        }
    }
}

/// A handler that can be called like a function: a member function is bound to its object.
template <class Self, class F>
auto bind(Self* self, F handler) {
    if constexpr (std::is_member_function_pointer_v<F>) {
        using Object = typename Signature<F>::Object;
        return [object = static_cast<const Object*>(self), handler](auto&&... arguments) -> decltype(auto) {
            return (object->*handler)(std::forward<decltype(arguments)>(arguments)...);
        };
    } else {
        return handler;
    }
}

/// A message as a handler wants it.
template <class M>
decltype(auto) payload_of(const Message& message) {
    if constexpr (std::is_same_v<M, Message>) {
        return (message);
    } else {
        return message.as<M>();
    }
}

/// Calls `handler([state,] message [, envelope])`. The state may be null when the handler does not ask for it.
template <class P, class F, class State>
decltype(auto) call(const F& handler, [[maybe_unused]] State* state, const Message& message) {
    using M = std::remove_cvref_t<typename P::Message>;
    if constexpr (P::size == 2 && P::envelope) {
        return handler(*state, payload_of<M>(message), static_cast<const Envelope&>(message));
    } else if constexpr (P::size == 2) {
        return handler(*state, payload_of<M>(message));
    } else if constexpr (P::envelope) {
        return handler(payload_of<M>(message), static_cast<const Envelope&>(message));
    } else {
        return handler(payload_of<M>(message));
    }
}

}  // namespace sourced::detail

namespace sourced {

template <class F>
void Reactor::on_start(F handler) {
    constexpr bool fits = std::is_invocable_v<const F&>;
    static_assert(fits, "on_start() takes a const handler without parameters");
    if constexpr (fits) {
        detail::only_once(definition_, static_cast<bool>(definition_.on_start), "on_start");
        definition_.on_start = std::move(handler);
    }
}

template <class F>
void Reactor::on_stop(F handler) {
    constexpr bool fits = std::is_invocable_v<const F&, std::string_view>;
    static_assert(fits, "on_stop() takes a const handler with the parameter (std::string_view reason)");
    if constexpr (fits) {
        detail::only_once(definition_, static_cast<bool>(definition_.on_stop), "on_stop");
        definition_.on_stop = std::move(handler);
    }
}

}  // namespace sourced
// ==== Actors ===================================================================

namespace sourced {

namespace detail {

template <>
inline constexpr bool is_outcome<Refusal> = true;
template <>
inline constexpr bool is_outcome<Events> = true;
template <class... E>
inline constexpr bool is_outcome<Decision<E...>> = true;

/// Of several handlers' or types' mistakes the first.
template <Mistake... mistakes>
consteval Mistake first_mistake() {
    Mistake first = Mistake::none;
    static_cast<void>(((first = mistakes, first == Mistake::none) && ...));
    return first;
}

template <class T>
consteval Mistake decided_mistake() {
    if constexpr (!is_message<T>) {
        return Mistake::no_macro;
    } else {
        return message_kind<T>() == Kind::event ? Mistake::none : Mistake::wrong_kind;
    }
}

// One error, then silence: what follows a failed ladder is not compiled.
template <Mistake mistake>
consteval bool decides() {
    static_assert(mistake != Mistake::no_macro, "a decision is made of events: this type has no SOURCED_EVENT line");
    static_assert(mistake != Mistake::wrong_kind,
                  "a decision is made of events: this type is a command, which reactions dispatch");
    static_assert(mistake != Mistake::returns_wrong, "this event is not among those that the Decision names");
    return mistake == Mistake::none;
}

template <class T, class... Named>
consteval Mistake named_mistake() {
    if constexpr (decided_mistake<T>() != Mistake::none) {
        return decided_mistake<T>();
    } else {
        return (std::is_same_v<T, Named> || ...) ? Mistake::none : Mistake::returns_wrong;
    }
}

}  // namespace detail

template <class... E>
template <class First, class... More>
requires(!detail::is_outcome<First>) Decision<E...>::Decision(const First& first, const More&... more) {
    if constexpr (detail::decides<detail::first_mistake<detail::named_mistake<First, E...>(),
                                                        detail::named_mistake<More, E...>()...>()>()) {
        decided_.events.reserve(1 + sizeof...(More));
        decided_.events.emplace_back(first);
        (decided_.events.emplace_back(more), ...);
    }
}

template <class First, class... More>
requires(!detail::is_outcome<First>) Events::Events(const First& first, const More&... more) {
    if constexpr (detail::decides<detail::first_mistake<detail::decided_mistake<First>(),
                                                        detail::decided_mistake<More>()...>()>()) {
        messages_.reserve(1 + sizeof...(More));
        messages_.emplace_back(first);
        (messages_.emplace_back(more), ...);
    }
}

template <class... E>
template <class T>
Decision<E...>& Decision<E...>::add(const T& event) {
    if constexpr (detail::decides<detail::named_mistake<T, E...>()>()) decided_.events.emplace_back(event);
    return *this;
}

template <class T>
Events& Events::add(const T& event) {
    if constexpr (detail::decides<detail::decided_mistake<T>()>()) messages_.emplace_back(event);
    return *this;
}

namespace detail {

template <Mistake mistake>
consteval bool dispatches() {
    static_assert(mistake != Mistake::no_macro, "dispatch() sends commands: this type has no SOURCED_COMMAND line");
    static_assert(mistake != Mistake::wrong_kind,
                  "dispatch() sends commands: this type is an event, which only an actor's decision makes");
    return mistake == Mistake::none;
}

template <class T>
consteval Mistake dispatched_mistake() {
    if constexpr (!is_message<T>) {
        return Mistake::no_macro;
    } else {
        return message_kind<T>() == Kind::command ? Mistake::none : Mistake::wrong_kind;
    }
}

}  // namespace detail

template <class T>
DispatchOf<T> dispatch(const T& command) {
    if constexpr (detail::dispatches<detail::dispatched_mistake<T>()>()) {
        return DispatchOf<T>(Message(command));
    } else {
        return DispatchOf<T>(Message());
    }
}

namespace detail {

template <class A>
consteval bool names_a_stream() {
    static_assert(std::is_base_of_v<Reactor, A>, "dispatch(): to<A>() begins a stream of an actor, which A is not");
    static_assert(!std::is_base_of_v<Reactor, A> || std::is_default_constructible_v<A>,
                  "dispatch(): to<A>() asks an A for its name, and A has no default constructor; write "
                  "to_new(\"name\")");
    return std::is_base_of_v<Reactor, A> && std::is_default_constructible_v<A>;
}

template <class D>
struct SentType {
    using Type = void;
};
template <class T>
struct SentType<DispatchOf<T>> {
    using Type = T;
};

template <class D, class... Named>
consteval Mistake named_dispatch_mistake() {
    if constexpr (!std::is_base_of_v<Dispatch, D>) {
        return Mistake::no_message;
    } else if constexpr (sizeof...(Named) == 0) {
        return Mistake::none;
    } else if constexpr (std::is_void_v<typename SentType<D>::Type>) {
        return Mistake::unreadable;
    } else {
        return (std::is_same_v<typename SentType<D>::Type, Named> || ...) ? Mistake::none : Mistake::returns_wrong;
    }
}

template <Mistake mistake>
consteval bool sends() {
    static_assert(mistake != Mistake::no_message, "Dispatches are made of what dispatch() gives");
    static_assert(mistake != Mistake::unreadable,
                  "this Dispatch no longer says which command it sends, as Dispatches of named commands want it; keep "
                  "what dispatch() gives, or use Dispatches<>");
    static_assert(mistake != Mistake::returns_wrong, "this command is not among those that the Dispatches name");
    return mistake == Mistake::none;
}

}  // namespace detail

namespace detail {
template <class A>
const std::string& stream_name() {
    static const std::string name = make_reactor<A>()->name();  // a constant of the type
    return name;
}
}  // namespace detail

template <class A>
Dispatch& Dispatch::to() & {
    if constexpr (detail::names_a_stream<A>()) to_new(detail::stream_name<A>());
    return *this;
}
template <class A>
Dispatch&& Dispatch::to() && {
    if constexpr (detail::names_a_stream<A>()) to_new(detail::stream_name<A>());
    return std::move(*this);
}
template <class T>
template <class A>
DispatchOf<T>& DispatchOf<T>::to() & {
    if constexpr (detail::names_a_stream<A>()) this->to_new(detail::stream_name<A>());
    return *this;
}
template <class T>
template <class A>
DispatchOf<T>&& DispatchOf<T>::to() && {
    if constexpr (detail::names_a_stream<A>()) this->to_new(detail::stream_name<A>());
    return std::move(*this);
}

template <class... C>
template <class First, class... More>
    requires std::derived_from<First, Dispatch>
Dispatches<C...>::Dispatches(First first, More... more) {
    if constexpr (detail::sends<detail::first_mistake<detail::named_dispatch_mistake<First, C...>(),
                                                      detail::named_dispatch_mistake<More, C...>()...>()>()) {
        sendings_.reserve(1 + sizeof...(More));
        sendings_.push_back(std::move(first).sending());
        (sendings_.push_back(std::move(more).sending()), ...);
    }
}

template <class... C>
template <class D>
Dispatches<C...>& Dispatches<C...>::add(D dispatch) {
    if constexpr (detail::sends<detail::named_dispatch_mistake<D, C...>()>()) {
        sendings_.push_back(std::move(dispatch).sending());
    }
    return *this;
}

namespace detail {

// ---- What is wrong with a handler, in a sentence -----------------------------------

// The ladders are asked by the verbs themselves: each function in between would be three more lines for the reader.

template <Mistake mistake>
consteval bool command_is_right() {
    using enum Mistake;
    static_assert(mistake != unreadable,
                  "command(): the handler's parameters cannot be read; name the command's type instead of auto");
    static_assert(mistake != changes_itself,
                  "command(): the handler may change itself (mutable, or a member function without const); it is "
                  "called from many threads");
    static_assert(mistake != foreign, "command(): the handler is a member function of another class");
    static_assert(mistake != no_message,
                  "command(): the handler has no command among its parameters; write (const State&, const Command&)");
    static_assert(mistake != too_many,
                  "command(): the handler has too many parameters; write (const State&, const Command&) and, if "
                  "wanted, const Envelope&");
    static_assert(
        mistake != wrong_state,
        "command(): the handler's first parameter is not the actor's State; write (const State&, const Command&)");
    static_assert(mistake != changes_state,
                  "command(): the handler takes the state as State&, but only events change it; write const State&");
    static_assert(mistake != changes_message,
                  "command(): the handler takes the command by a reference that could change it; write const Command&");
    static_assert(mistake != no_macro, "command(): the type of the handler's command has no SOURCED_COMMAND line");
    static_assert(mistake != wrong_kind,
                  "command(): the handler takes an event, which is a matter of event() or reaction()");
    static_assert(mistake != returns_nothing,
                  "command(): the handler returns nothing; return an event, a Decision or Events");
    static_assert(mistake != returns_command,
                  "command(): the handler returns a command; return events, and dispatch commands from a reaction");
    static_assert(mistake != returns_wrong,
                  "command(): the handler returns something that is no event; return an event, a Decision or Events, "
                  "or an optional or vector of an event");
    return mistake == none;
}

template <Mistake mistake>
consteval bool event_is_right() {
    using enum Mistake;
    static_assert(mistake != unreadable,
                  "event(): the handler's parameters cannot be read; name the event's type instead of auto, or list "
                  "the types: event<A, B>(...)");
    static_assert(mistake != changes_itself,
                  "event(): the handler may change itself (mutable, or a member function without const); it is called "
                  "from many threads");
    static_assert(mistake != foreign, "event(): the handler is a member function of another class");
    static_assert(mistake != no_message,
                  "event(): the handler has no event among its parameters; write (State&, const Event&)");
    static_assert(
        mistake != too_many,
        "event(): the handler has too many parameters; write (State&, const Event&) and, if wanted, const Envelope&");
    static_assert(mistake != no_state, "event(): the handler has no state to change; write (State&, const Event&)");
    static_assert(mistake != wrong_state,
                  "event(): the handler's first parameter is not the State; write (State&, const Event&)");
    static_assert(mistake != keeps_state, "event(): the handler cannot change the state it takes; write State&");
    static_assert(mistake != changes_message,
                  "event(): the handler takes the event by a reference that could change it; write const Event&");
    static_assert(mistake != no_macro, "event(): the type of the handler's event has no SOURCED_EVENT line");
    static_assert(mistake != wrong_kind, "event(): the handler takes a command, which is a matter of command()");
    static_assert(mistake != returns_something,
                  "event(): the handler returns something; it changes the state and does nothing else");
    static_assert(mistake != wrong_parameter,
                  "event(): the handler cannot be called with (State&, const Event&) for one of the listed types");
    return mistake == none;
}

template <Mistake mistake>
consteval bool reaction_is_right() {
    using enum Mistake;
    static_assert(mistake != unreadable,
                  "reaction(): the handler's parameters cannot be read; name the event's type instead of auto, or list "
                  "the types: reaction<A, B>(...)");
    static_assert(mistake != changes_itself,
                  "reaction(): the handler may change itself (mutable, or a member function without const); it is "
                  "called from many threads");
    static_assert(mistake != foreign, "reaction(): the handler is a member function of another class");
    static_assert(mistake != no_message,
                  "reaction(): the handler has no event among its parameters; write (const State&, const Event&) or "
                  "(const Event&)");
    static_assert(mistake != too_many,
                  "reaction(): the handler has too many parameters; write (const State&, const Event&) and, if wanted, "
                  "const Envelope&");
    static_assert(mistake != wrong_state,
                  "reaction(): the handler's first parameter is not the State; write (const State&, const Event&) or "
                  "(const Event&)");
    static_assert(mistake != changes_state,
                  "reaction(): the handler takes the state as State&, but only events change it; write const State&");
    static_assert(mistake != changes_message,
                  "reaction(): the handler takes the event by a reference that could change it; write const Event&");
    static_assert(mistake != no_macro, "reaction(): the type of the handler's event has no SOURCED_EVENT line");
    static_assert(mistake != wrong_kind, "reaction(): the handler takes a command, which is a matter of command()");
    static_assert(mistake != returns_nothing,
                  "reaction(): the handler returns nothing; return a Dispatch, an optional or vector of it, or "
                  "Dispatches");
    static_assert(mistake != returns_wrong,
                  "reaction(): the handler returns something else than a Dispatch, an optional or vector of it, or "
                  "Dispatches");
    static_assert(mistake != wrong_parameter,
                  "reaction(): the handler cannot be called with (const State&, const Event&) or (const Event&) for "
                  "one of the listed types");
    return mistake == none;
}

template <Mistake mistake>
consteval bool state_is_right() {
    using enum Mistake;
    static_assert(mistake != unreadable,
                  "state(): the handler's parameters cannot be read; write (std::string_view id) instead of auto");
    static_assert(mistake != changes_itself,
                  "state(): the handler may change itself (mutable, or a member function without const); it is called "
                  "from many threads");
    static_assert(mistake != foreign, "state(): the handler is a member function of another class");
    static_assert(mistake != wrong_parameter,
                  "state(): the handler takes something else than () or (std::string_view id); state-stored projectors "
                  "may add Reader&");
    static_assert(mistake != returns_wrong, "state(): the handler returns another type than State");
    return mistake == none;
}

template <Mistake mistake>
consteval bool before_evolve_is_right() {
    using enum Mistake;
    static_assert(mistake != unreadable,
                  "before_evolve(): the handler's parameters cannot be read; write (State&, const Envelope&)");
    static_assert(mistake != changes_itself,
                  "before_evolve(): the handler may change itself (mutable, or a member function without const); it is "
                  "called from many threads");
    static_assert(mistake != foreign, "before_evolve(): the handler is a member function of another class");
    static_assert(mistake != wrong_parameter,
                  "before_evolve(): the handler takes something else than (State&) or (State&, const Envelope&)");
    static_assert(mistake != returns_something,
                  "before_evolve(): the handler returns something; it changes the state and does nothing else");
    return mistake == none;
}

template <Mistake mistake>
consteval bool sync_is_right() {
    using enum Mistake;
    static_assert(mistake != unreadable,
                  "sync(): the handler's parameters cannot be read; write (const State&) and what else is wanted");
    static_assert(mistake != changes_itself,
                  "sync(): the handler may change itself (mutable, or a member function without const); it is called "
                  "from many threads");
    static_assert(mistake != foreign, "sync(): the handler is a member function of another class");
    static_assert(mistake != no_state, "sync(): the handler's first parameter is not const State&");
    static_assert(mistake != changes_state,
                  "sync(): the handler takes the state as State&, but only events change it; write const State&");
    static_assert(mistake != wrong_parameter,
                  "sync(): the handler takes something else than const State&, std::string_view, const Batch& and "
                  "Transaction&, in this order");
    static_assert(mistake != returns_something,
                  "sync(): the handler returns something; it stores the state and throws when it cannot");
    return mistake == none;
}

// ---- What is wrong with a handler: finding it ------------------------------------------

/// What may come out of a command handler, made Decided.
template <class R>
struct DecidedFrom {
    static consteval Mistake mistake() {
        if constexpr (!is_message<R>) {
            return Mistake::returns_wrong;
        } else {
            return message_kind<R>() == Kind::event ? Mistake::none : Mistake::returns_command;
        }
    }
    static void types(Definition& definition) { add_type(definition, declared<R>()); }
    static std::optional<std::vector<std::string>> produces() { return names_of<R>(); }
    static Decided decided(const R& event) {
        Decided decided;
        decided.events.emplace_back(event);
        return decided;
    }
};
template <>
struct DecidedFrom<void> {
    static consteval Mistake mistake() { return Mistake::returns_nothing; }
};
template <class R>
struct DecidedFrom<std::optional<R>> : DecidedFrom<R> {
    static Decided decided(const std::optional<R>& event) {
        return event ? DecidedFrom<R>::decided(*event) : Decided();
    }
};
template <class R>
struct DecidedFrom<std::vector<R>> : DecidedFrom<R> {
    static Decided decided(const std::vector<R>& events) {
        Decided decided;
        for (const auto& event : events) decided.events.emplace_back(event);
        return decided;
    }
};
template <>
struct DecidedFrom<Events> {
    static consteval Mistake mistake() { return Mistake::none; }
    static void types(Definition&) {}
    static std::optional<std::vector<std::string>> produces() { return std::nullopt; }
    static Decided decided(Events events) { return {std::move(events).messages(), std::nullopt}; }
};
template <class... E>
struct DecidedFrom<Decision<E...>> {
    static consteval Mistake mistake() { return Mistake::none; }
    static void types(Definition& definition) { (add_type(definition, declared<E>()), ...); }
    static std::optional<std::vector<std::string>> produces() { return names_of<E...>(); }
    static Decided decided(Decision<E...> decision) { return std::move(decision).decided(); }
};

template <class Self, class State, class F>
consteval Mistake command_mistake() {
    constexpr auto mistake = parameter_mistake<Self, State, F>(Kind::command, false, false);
    if constexpr (mistake != Mistake::none) {
        return mistake;
    } else {
        return DecidedFrom<std::remove_cvref_t<typename Signature<F>::Return>>::mistake();
    }
}

template <class Self, class State, class F>
consteval Mistake event_mistake() {
    constexpr auto mistake = parameter_mistake<Self, State, F>(Kind::event, true, true);
    if constexpr (mistake != Mistake::none) {
        return mistake;
    } else {
        return std::is_void_v<typename Signature<F>::Return> ? Mistake::none : Mistake::returns_something;
    }
}

/// What may come out of a reaction, made sendings.
template <class R>
struct SentFrom {
    static consteval Mistake mistake() { return std::is_void_v<R> ? Mistake::returns_nothing : Mistake::returns_wrong; }
};
template <>
struct SentFrom<Dispatch> {
    static consteval Mistake mistake() { return Mistake::none; }
    static void types(Definition&) {}
    static std::optional<std::vector<std::string>> produces() { return std::nullopt; }
    static void send(std::vector<Sending>& list, Dispatch dispatch) { list.push_back(std::move(dispatch).sending()); }
};
template <class T>
struct SentFrom<DispatchOf<T>> : SentFrom<Dispatch> {};  // dispatch() has said what is wrong with T
template <is_message T>
struct SentFrom<DispatchOf<T>> : SentFrom<Dispatch> {
    static void types(Definition& definition) { add_type(definition, declared<T>()); }
    static std::optional<std::vector<std::string>> produces() { return names_of<T>(); }
};
template <class... C>
struct SentFrom<Dispatches<C...>> {
    static consteval Mistake mistake() { return Mistake::none; }
    static void types(Definition& definition) { (add_type(definition, declared<C>()), ...); }
    static std::optional<std::vector<std::string>> produces() {
        if constexpr (sizeof...(C) == 0) return std::nullopt;
        else return names_of<C...>();
    }
    static void send(std::vector<Sending>& list, Dispatches<C...> dispatches) {
        auto sendings = std::move(dispatches).sendings();
        list.insert(list.end(), std::make_move_iterator(sendings.begin()), std::make_move_iterator(sendings.end()));
    }
};
template <class R>
struct SentFrom<std::optional<R>> : SentFrom<R> {
    static void send(std::vector<Sending>& list, std::optional<R> sent) {
        if (sent) SentFrom<R>::send(list, *std::move(sent));
    }
};
template <class R>
struct SentFrom<std::vector<R>> : SentFrom<R> {
    static void send(std::vector<Sending>& list, std::vector<R> sent) {
        for (auto& each : sent) SentFrom<R>::send(list, std::move(each));
    }
};

template <class From, class R>
std::vector<Sending> sendings(R returned) {
    std::vector<Sending> list;
    From::send(list, std::move(returned));
    return list;
}

template <class Self, class State, class F>
consteval Mistake reaction_mistake() {
    constexpr auto mistake = parameter_mistake<Self, State, F, true>(Kind::event, false, false);
    if constexpr (mistake != Mistake::none) {
        return mistake;
    } else {
        return SentFrom<std::remove_cvref_t<typename Signature<F>::Return>>::mistake();
    }
}

/// For handlers of listed types, which may be generic: whatever can be called is right.
template <class State, class E, class F>
consteval Mistake listed_event_mistake() {
    if constexpr (!is_message<E>) {
        return Mistake::no_macro;
    } else if constexpr (message_kind<E>() != Kind::event) {
        return Mistake::wrong_kind;
    } else if constexpr (std::is_invocable_v<const F&, State&, const E&, const Envelope&>) {
        return std::is_void_v<std::invoke_result_t<const F&, State&, const E&, const Envelope&>>
                   ? Mistake::none
                   : Mistake::returns_something;
    } else if constexpr (std::is_invocable_v<const F&, State&, const E&>) {
        return std::is_void_v<std::invoke_result_t<const F&, State&, const E&>> ? Mistake::none
                                                                                : Mistake::returns_something;
    } else {
        return Mistake::wrong_parameter;
    }
}

/// What a handler of listed types is given for T: what it says, or the message as it is.
template <class F, class T>
struct ListedPayload {
    using Type = T;
};
template <class F, class T>
requires(Signature<F>::readable&& is_any_message<typename Split<typename Signature<F>::Parameters>::Message>)
struct ListedPayload<F, T> {
    using Type = Message;
};

/// How a reaction to listed types is called for one of them.
template <class State, class T, class F>
struct ListedReaction {
    using E = typename ListedPayload<F, T>::Type;
    static constexpr bool state_and_envelope = std::is_invocable_v<const F&, const State&, const E&, const Envelope&>;
    static constexpr bool state_only = std::is_invocable_v<const F&, const State&, const E&>;
    static constexpr bool envelope_only = std::is_invocable_v<const F&, const E&, const Envelope&>;
    static constexpr bool callable =
        state_and_envelope || state_only || envelope_only || std::is_invocable_v<const F&, const E&>;
    static constexpr bool wants_state = state_and_envelope || state_only;

    static decltype(auto) call(const F& handler, [[maybe_unused]] const State* state, const Message& message) {
        if constexpr (state_and_envelope) {
            return handler(*state, payload_of<E>(message), static_cast<const Envelope&>(message));
        } else if constexpr (state_only) {
            return handler(*state, payload_of<E>(message));
        } else if constexpr (envelope_only) {
            return handler(payload_of<E>(message), static_cast<const Envelope&>(message));
        } else {
            return handler(payload_of<E>(message));
        }
    }
};

template <class State, class E, class F>
consteval Mistake listed_reaction_mistake() {
    if constexpr (!is_message<E>) {
        return Mistake::no_macro;
    } else if constexpr (message_kind<E>() != Kind::event) {
        return Mistake::wrong_kind;
    } else if constexpr (!ListedReaction<State, E, F>::callable) {
        return Mistake::wrong_parameter;
    } else {
        using R = decltype(ListedReaction<State, E, F>::call(std::declval<const F&>(), nullptr,
                                                             std::declval<const Message&>()));
        return SentFrom<std::remove_cvref_t<R>>::mistake();
    }
}

/// Finds the first parameter that a `sync` or `state` handler cannot be given.
template <class State, class... P>
consteval Mistake sync_parameters_mistake(Types<P...>) {
    if constexpr (sizeof...(P) == 0) {
        return Mistake::no_state;
    } else {
        // Each parameter's place in the one order they may come in; 0: none of them.
        constexpr auto place = []<class Q>(Types<Q>) {
            using Plain = std::remove_cvref_t<Q>;
            if (std::is_same_v<Plain, State>) return may_change<Q> ? -1 : 1;
            if (std::is_same_v<Plain, std::string_view>) return may_change<Q> ? 0 : 2;
            if (std::is_same_v<Plain, Batch>) return may_change<Q> ? 0 : 3;
            if (std::is_same_v<Q, Transaction&>) return 4;
            return 0;
        };
        int last = 0;
        for (const int each : {place(Types<P>{})...}) {
            if (each < 0) return Mistake::changes_state;
            if (last == 0 && each != 1) return Mistake::no_state;
            if (each <= last) return Mistake::wrong_parameter;
            last = each;
        }
        return Mistake::none;
    }
}

template <class Self, class State, class F>
consteval Mistake sync_mistake() {
    if constexpr (callable_mistake<Self, F>() != Mistake::none) {
        return callable_mistake<Self, F>();
    } else {
        constexpr auto mistake = sync_parameters_mistake<State>(typename Signature<F>::Parameters{});
        if (mistake != Mistake::none) return mistake;
        return std::is_void_v<typename Signature<F>::Return> ? Mistake::none : Mistake::returns_something;
    }
}

template <class Self, class State, class F>
consteval Mistake state_mistake(bool may_read) {
    if constexpr (callable_mistake<Self, F>() != Mistake::none) {
        return callable_mistake<Self, F>();
    } else {
        using P = typename Signature<F>::Parameters;
        const bool id = std::is_same_v<P, Types<std::string_view>> ||
                        std::is_same_v<P, Types<const std::string_view&>> ||
                        std::is_same_v<P, Types<const std::string&>> || std::is_same_v<P, Types<std::string>>;
        const bool reads = std::is_same_v<P, Types<std::string_view, Reader&>> ||
                           std::is_same_v<P, Types<const std::string_view&, Reader&>>;
        if (!(std::is_same_v<P, Types<>> || id || (may_read && reads))) return Mistake::wrong_parameter;
        return std::is_convertible_v<typename Signature<F>::Return, State> ? Mistake::none : Mistake::returns_wrong;
    }
}

template <class Self, class State, class F>
consteval Mistake before_evolve_mistake() {
    if constexpr (callable_mistake<Self, F>() != Mistake::none) {
        return callable_mistake<Self, F>();
    } else {
        using P = typename Signature<F>::Parameters;
        if (!std::is_same_v<P, Types<State&>> && !std::is_same_v<P, Types<State&, const Envelope&>>)
            return Mistake::wrong_parameter;
        return std::is_void_v<typename Signature<F>::Return> ? Mistake::none : Mistake::returns_something;
    }
}

// ---- Erasing: what actors and projectors share -------------------------------------------

template <class State, class Self, class F>
void declare_state(Self* self, Definition& definition, F handler) {
    only_once(definition, std::exchange(definition.has_state_handler, true), "state");
    using P = typename Signature<F>::Parameters;
    definition.initial_reads = P::size == 2;
    definition.initial = [call = bind(self, std::move(handler))](std::string_view id, [[maybe_unused]] Reader* reader) {
        if constexpr (P::size == 0) {
            return Box::of<State>(call());
        } else if constexpr (P::size == 1) {
            if constexpr (std::is_invocable_v<decltype(call), std::string_view>) {
                return Box::of<State>(call(id));
            } else {
                return Box::of<State>(call(std::string(id)));
            }
        } else {
            return Box::of<State>(call(id, *reader));
        }
    };
}

template <class State, class Self, class F>
void declare_event(Self* self, Definition& definition, F handler) {
    using P = Split<typename Signature<F>::Parameters>;
    using E = std::remove_cvref_t<typename P::Message>;
    definition.reads_envelope |= P::envelope;
    add_event(definition, declared<E>(),
              [handler = bind(self, std::move(handler))](void* state, const Message& message) {
                  call<P>(handler, static_cast<State*>(state), message);
              });
}

template <class State, class T, class F>
void declare_listed_event(Definition& definition, const F& handler) {
    using E = typename ListedPayload<F, T>::Type;
    definition.reads_envelope |= std::is_invocable_v<const F&, State&, const E&, const Envelope&>;
    add_event(definition, declared<T>(), [handler](void* state, const Message& message) {
        if constexpr (std::is_invocable_v<const F&, State&, const E&, const Envelope&>) {
            handler(*static_cast<State*>(state), payload_of<E>(message), static_cast<const Envelope&>(message));
        } else {
            handler(*static_cast<State*>(state), payload_of<E>(message));
        }
    });
}

template <class E>
consteval Mistake noted_event_mistake() {
    if constexpr (!is_message<E>) {
        return Mistake::no_macro;
    } else {
        return message_kind<E>() == Kind::event ? Mistake::none : Mistake::wrong_kind;
    }
}

template <class E>
void declare_noted_event(Definition& definition) {
    add_event(definition, declared<E>(), {});
}

template <class State, class Self, class F>
void declare_before_evolve(Self* self, Definition& definition, F handler) {
    only_once(definition, static_cast<bool>(definition.before_evolve), "before_evolve");
    definition.reads_envelope |= Signature<F>::Parameters::size == 2;
    definition.before_evolve = [call = bind(self, std::move(handler))](void* state,
                                                                       [[maybe_unused]] const Message& message) {
        if constexpr (Signature<F>::Parameters::size == 2) {
            call(*static_cast<State*>(state), static_cast<const Envelope&>(message));
        } else {
            call(*static_cast<State*>(state));
        }
    };
}

/// The one of what a sync has to give that a parameter of type P asks for.
template <class P, class State>
decltype(auto) pick([[maybe_unused]] const State& state, [[maybe_unused]] const std::string_view& id,
                    [[maybe_unused]] const Batch& batch, [[maybe_unused]] Transaction& transaction) {
    using Plain = std::remove_cvref_t<P>;
    if constexpr (std::is_same_v<Plain, State>) {
        return (state);
    } else if constexpr (std::is_same_v<Plain, std::string_view>) {
        return (id);
    } else if constexpr (std::is_same_v<Plain, Batch>) {
        return (batch);
    } else {
        return (transaction);
    }
}

template <class State, class F, class... P>
void call_sync(const F& handler, Types<P...>, const State& state, std::string_view id, const Batch& batch,
               Transaction& transaction) {
    handler(pick<P, State>(state, id, batch, transaction)...);
}

template <class State, class Self, class F>
void declare_sync(Self* self, Definition& definition, F handler) {
    only_once(definition, static_cast<bool>(definition.sync), "sync");
    definition.sync = [call = bind(self, std::move(handler))](const void* state, std::string_view id,
                                                              const std::vector<Synced>& batch, bool replay,
                                                              Transaction& transaction) {
        call_sync<State>(call, typename Signature<F>::Parameters{}, *static_cast<const State*>(state), id,
                         Batch(batch, replay), transaction);
    };
}

template <class State, class Self, class F>
Declaration declare_reaction(Self* self, Definition& definition, F handler) {
    using P = Split<typename Signature<F>::Parameters>;
    using E = std::remove_cvref_t<typename P::Message>;
    using From = SentFrom<std::remove_cvref_t<typename Signature<F>::Return>>;
    Definition::ReactionHandler reaction;
    reaction.call = [handler = bind(self, std::move(handler))](const void* state, const Message& message) {
        return sendings<From>(call<P>(handler, static_cast<const State*>(state), message));
    };
    reaction.wants_state = P::size == 2;
    reaction.produces = From::produces();
    From::types(definition);
    if constexpr (is_any_message<E>) {
        add_any_reaction(definition, std::move(reaction));
        return {definition, Declaration::Verb::reaction, {}};
    } else {
        add_reaction(definition, declared<E>(), std::move(reaction));
        return {definition, Declaration::Verb::reaction, names_of<E>()};
    }
}

template <class State, class E, class F>
void declare_listed_reaction(Definition& definition, const F& handler) {
    using Listed = ListedReaction<State, E, F>;
    using R = decltype(Listed::call(handler, nullptr, std::declval<const Message&>()));
    using From = SentFrom<std::remove_cvref_t<R>>;
    Definition::ReactionHandler reaction;
    reaction.call = [handler](const void* state, const Message& message) {
        return sendings<From>(Listed::call(handler, static_cast<const State*>(state), message));
    };
    reaction.wants_state = Listed::wants_state;
    reaction.produces = From::produces();
    From::types(definition);
    add_reaction(definition, declared<E>(), std::move(reaction));
}

template <class State, class F, class... E>
Declaration declare_listed_reactions(Definition& definition, const F& handler) {
    (declare_listed_reaction<State, E>(definition, handler), ...);
    return {definition, Declaration::Verb::reaction, names_of<E...>()};
}

template <class T>
consteval bool is_produced() {
    constexpr bool right = is_message<T>;
    static_assert(right, "produces(): a type has no SOURCED_COMMAND or SOURCED_EVENT line");
    return right;
}

}  // namespace detail

// ---- The verbs ----------------------------------------------------------------------------

template <class First, class... More>
void Declaration::produces() const {
    if constexpr (detail::is_produced<First>() && (detail::is_produced<More>() && ...)) {
        do_produces({detail::declared<First>(), detail::declared<More>()...});
    }
}

template <class T>
StatefulReactor<T>::StatefulReactor(detail::Definition::Role role, std::string_view name) {
    static_assert(std::is_copy_constructible_v<T>, "the State of an actor or projector has to be copyable");
    detail::name_reactor(definition_, role, name);
    if constexpr (std::is_copy_constructible_v<T> && std::is_default_constructible_v<T>) {
        // Blank, where no handler makes it.
        definition_.initial = [](std::string_view, Reader*) { return detail::Box::of<T>(T{}); };
    }
    definition_.state_type = &typeid(T);
    if constexpr (detail::is_written<T>()) {
        definition_.write_state = [](const void* state) { return encode(*static_cast<const T*>(state)); };
    }
}

template <class T>
template <class F>
void StatefulReactor<T>::event(F handler) {
    if constexpr (detail::event_is_right<detail::event_mistake<StatefulReactor, T, F>()>()) {
        detail::declare_event<T>(this, definition_, std::move(handler));
    }
}

template <class T>
template <class First, class... More, class F>
void StatefulReactor<T>::event(F handler) {
    if constexpr (detail::event_is_right<detail::first_mistake<detail::listed_event_mistake<T, First, F>(),
                                                               detail::listed_event_mistake<T, More, F>()...>()>()) {
        detail::declare_listed_event<T, First>(definition_, handler);
        (detail::declare_listed_event<T, More>(definition_, handler), ...);
    }
}

template <class T>
template <class First, class... More>
void StatefulReactor<T>::event() {
    if constexpr (detail::event_is_right<detail::first_mistake<detail::noted_event_mistake<First>(),
                                                               detail::noted_event_mistake<More>()...>()>()) {
        detail::declare_noted_event<First>(definition_);
        (detail::declare_noted_event<More>(definition_), ...);
    }
}

template <class T>
template <class F>
void StatefulReactor<T>::before_evolve(F handler) {
    if constexpr (detail::before_evolve_is_right<detail::before_evolve_mistake<StatefulReactor, T, F>()>()) {
        detail::declare_before_evolve<T>(this, definition_, std::move(handler));
    }
}

template <class T>
template <class F>
Declaration StatefulReactor<T>::reaction(F handler) {
    if constexpr (detail::reaction_is_right<detail::reaction_mistake<StatefulReactor, T, F>()>()) {
        return detail::declare_reaction<T>(this, definition_, std::move(handler));
    } else {
        return {definition_, Declaration::Verb::reaction, {}};
    }
}

template <class T>
template <class First, class... More, class F>
Declaration StatefulReactor<T>::reaction(F handler) {
    if constexpr (detail::reaction_is_right<
                      detail::first_mistake<detail::listed_reaction_mistake<T, First, F>(),
                                            detail::listed_reaction_mistake<T, More, F>()...>()>()) {
        return detail::declare_listed_reactions<T, F, First, More...>(definition_, handler);
    } else {
        return {definition_, Declaration::Verb::reaction, {}};
    }
}

template <class T>
template <class F>
void StatefulReactor<T>::sync(F handler) {
    if constexpr (detail::sync_is_right<detail::sync_mistake<StatefulReactor, T, F>()>()) {
        detail::declare_sync<T>(this, definition_, std::move(handler));
    }
}

template <class T>
Actor<T>::Actor(std::string_view name) : StatefulReactor<T>(detail::Definition::Role::actor, name) {}

template <class T>
T Actor<T>::evolve(std::string_view stream, const Messages& messages) const {
    auto state = this->definition_.initial(stream, nullptr);
    detail::evolve(this->definition_, state.get(), stream, 0, messages);
    return std::move(*static_cast<T*>(state.get()));
}

template <class T>
Decided Actor<T>::decide(const State& state, const Message& command) const {
    return detail::decide(this->definition_, &state, command);
}

template <class T>
template <class F>
void Actor<T>::state(F handler) {
    if constexpr (detail::state_is_right<detail::state_mistake<Actor, T, F>(false)>()) {
        detail::declare_state<T>(this, this->definition_, std::move(handler));
    }
}

template <class T>
template <class F>
Declaration Actor<T>::command(F handler) {
    if constexpr (detail::command_is_right<detail::command_mistake<Actor, T, F>()>()) {
        using P = detail::Split<typename detail::Signature<F>::Parameters>;
        using C = std::remove_cvref_t<typename P::Message>;
        using From = detail::DecidedFrom<std::remove_cvref_t<typename detail::Signature<F>::Return>>;
        detail::add_command(
            this->definition_, detail::declared<C>(),
            {[handler = detail::bind(this, std::move(handler))](const void* state, const Message& message) {
                 return From::decided(detail::call<P>(handler, static_cast<const T*>(state), message));
             },
             From::produces()});
        From::types(this->definition_);
        return {this->definition_, Declaration::Verb::command, detail::names_of<C>()};
    } else {
        return {this->definition_, Declaration::Verb::command, {}};
    }
}

}  // namespace sourced
// ==== Projectors ===============================================================

namespace sourced {

namespace detail {

template <Mistake mistake>
consteval bool key_is_right() {
    using enum Mistake;
    static_assert(mistake != unreadable,
                  "key(): the handler's parameters cannot be read; name the event's type instead of auto, or list the "
                  "types: key<A, B>(...)");
    static_assert(mistake != changes_itself,
                  "key(): the handler may change itself (mutable, or a member function without const); it is called "
                  "from many threads");
    static_assert(mistake != foreign, "key(): the handler is a member function of another class");
    static_assert(mistake != no_message, "key(): the handler has no event among its parameters; write (const Event&)");
    static_assert(mistake != wrong_parameter && mistake != too_many && mistake != wrong_state,
                  "key(): the handler takes something else than (const Event&) or (const Event&, const Envelope&)");
    static_assert(mistake != changes_message,
                  "key(): the handler takes the event by a reference that could change it; write const Event&");
    static_assert(mistake != no_macro, "key(): the type of the handler's event has no SOURCED_EVENT line");
    static_assert(mistake != wrong_kind, "key(): the handler takes a command; projectors see events only");
    static_assert(mistake != returns_wrong, "key(): the handler returns neither text nor an integer");
    return mistake == none;
}

template <Mistake mistake>
consteval bool install_is_right() {
    static_assert(mistake == Mistake::none || mistake != Mistake::wrong_parameter,
                  "on_install() takes a handler with the one parameter Transaction&");
    static_assert(mistake == Mistake::none || mistake == Mistake::wrong_parameter,
                  "on_install() takes a const handler with the one parameter Transaction&");
    return mistake == Mistake::none;
}

template <Mistake mistake>
consteval bool reset_is_right() {
    static_assert(mistake == Mistake::none || mistake != Mistake::wrong_parameter,
                  "on_reset() takes a handler with the parameters (Transaction&) or (std::string_view stream, "
                  "Transaction&)");
    static_assert(mistake == Mistake::none || mistake == Mistake::wrong_parameter,
                  "on_reset() takes a const handler with the parameters (Transaction&) or (std::string_view stream, "
                  "Transaction&)");
    return mistake == Mistake::none;
}

template <class R>
inline constexpr bool is_key = std::is_convertible_v<R, std::string_view> || std::is_integral_v<std::remove_cvref_t<R>>;

template <class Self, class State, class F>
consteval Mistake key_mistake() {
    constexpr auto mistake = parameter_mistake<Self, State, F>(Kind::event, false, false);
    if constexpr (mistake != Mistake::none) {
        return mistake;
    } else if constexpr (Split<typename Signature<F>::Parameters>::size != 1) {
        return Mistake::wrong_parameter;
    } else {
        return is_key<typename Signature<F>::Return> ? Mistake::none : Mistake::returns_wrong;
    }
}

template <class E, class F>
consteval Mistake listed_key_mistake() {
    if constexpr (!is_message<E>) {
        return Mistake::no_macro;
    } else if constexpr (message_kind<E>() != Kind::event) {
        return Mistake::wrong_kind;
    } else if constexpr (!std::is_invocable_v<const F&, const E&>) {
        return Mistake::wrong_parameter;
    } else {
        return is_key<std::invoke_result_t<const F&, const E&>> ? Mistake::none : Mistake::returns_wrong;
    }
}

template <class K>
std::string key_text(K&& key) {
    if constexpr (std::is_integral_v<std::remove_cvref_t<K>>) {
        return std::to_string(key);
    } else {
        return std::string(std::forward<K>(key));
    }
}

template <class E, class F>
void declare_listed_key(Definition& definition, const F& handler) {
    add_key(definition, declared<E>(),
            [handler](const Message& message) { return key_text(handler(message.as<E>())); });
}

template <class F>
inline constexpr bool takes_stream = std::is_same_v<typename Signature<F>::Parameters,
                                                    Types<std::string_view, Transaction&>>;

template <class Self, class F>
consteval Mistake install_mistake() {
    if constexpr (callable_mistake<Self, F>() != Mistake::none) {
        return callable_mistake<Self, F>();
    } else {
        return std::is_same_v<typename Signature<F>::Parameters, Types<Transaction&>> ? Mistake::none
                                                                                      : Mistake::wrong_parameter;
    }
}

template <class Self, class F>
consteval Mistake reset_mistake() {
    constexpr auto mistake = install_mistake<Self, F>();
    if constexpr (mistake == Mistake::wrong_parameter) {
        return takes_stream<F> ? Mistake::none : mistake;
    } else {
        return mistake;
    }
}

// A Projection's table: nothing of it depends on the state's type.
SOURCED_API void store_as_rows(Definition& definition, const std::string& table);
[[nodiscard]] SOURCED_API std::optional<std::string> stored_row(Reader& reader, const std::string& table,
                                                                std::string_view id);
[[nodiscard]] SOURCED_API std::optional<std::string> stored_row(Store& store, const std::string& table,
                                                                std::string_view id);
SOURCED_API void store_row(Transaction& transaction, const std::string& table, std::string_view id,
                           const std::string& state);
[[noreturn]] SOURCED_API void cannot_read_row(const std::string& table, std::string_view id, const Problems& problems);

template <class State>
State read_row(const std::string& json, const std::string& table, std::string_view id) {
    try {
        return decode<State>(json);
    } catch (const Invalid& invalid) {
        cannot_read_row(table, id, invalid.problems());
    }
}

}  // namespace detail

template <class T>
ProjectorBase<T>::ProjectorBase(std::string_view name)
    : StatefulReactor<T>(detail::Definition::Role::projector, name) {}

template <class T>
template <class F>
void ProjectorBase<T>::on_reset(F handler) {
    if constexpr (detail::reset_is_right<detail::reset_mistake<ProjectorBase, F>()>()) {
        auto& definition = this->definition_;
        if constexpr (detail::takes_stream<F>) {
            detail::only_once(definition, static_cast<bool>(definition.on_stream_reset), "on_reset(stream)");
            definition.on_stream_reset = detail::bind(this, std::move(handler));
        } else {
            detail::only_once(definition, static_cast<bool>(definition.on_reset), "on_reset");
            definition.on_reset = detail::bind(this, std::move(handler));
        }
    }
}

template <class T>
template <class F>
void ProjectorBase<T>::on_install(F handler) {
    if constexpr (detail::install_is_right<detail::install_mistake<ProjectorBase, F>()>()) {
        detail::only_once(this->definition_, static_cast<bool>(this->definition_.on_install), "on_install");
        this->definition_.on_install = detail::bind(this, std::move(handler));
    }
}

template <class T>
Projector<T>::Projector(std::string_view name) : ProjectorBase<T>(name) {}

template <class T>
template <class F>
void Projector<T>::state(F handler) {
    if constexpr (detail::state_is_right<detail::state_mistake<Projector, T, F>(true)>()) {
        detail::declare_state<T>(this, this->definition_, std::move(handler));
    }
}

template <class T>
template <class F>
void Projector<T>::key(F handler) {
    if constexpr (detail::key_is_right<detail::key_mistake<Projector, T, F>()>()) {
        using P = detail::Split<typename detail::Signature<F>::Parameters>;
        detail::add_key(this->definition_, detail::declared<std::remove_cvref_t<typename P::Message>>(),
                        [handler = detail::bind(this, std::move(handler))](const Message& message) {
                            std::monostate* const none = nullptr;
                            return detail::key_text(detail::call<P>(handler, none, message));
                        });
    }
}

template <class T>
template <class First, class... More, class F>
void Projector<T>::key(F handler) {
    if constexpr (detail::key_is_right<detail::first_mistake<detail::listed_key_mistake<First, F>(),
                                                             detail::listed_key_mistake<More, F>()...>()>()) {
        detail::declare_listed_key<First>(this->definition_, handler);
        (detail::declare_listed_key<More>(this->definition_, handler), ...);
    }
}

template <class T>
EventSourcedProjector<T>::EventSourcedProjector(std::string_view name) : ProjectorBase<T>(name) {
    this->definition_.event_sourced = true;
}

template <class T>
T EventSourcedProjector<T>::evolve(std::string_view stream, const Messages& messages) const {
    auto state = this->definition_.initial(stream, nullptr);
    detail::evolve(this->definition_, state.get(), stream, 0, messages);
    return std::move(*static_cast<T*>(state.get()));
}

template <class T>
template <class F>
void EventSourcedProjector<T>::state(F handler) {
    if constexpr (detail::state_is_right<detail::state_mistake<EventSourcedProjector, T, F>(false)>()) {
        detail::declare_state<T>(this, this->definition_, std::move(handler));
    }
}

template <class T>
Projection<T>::Projection(std::string_view name) : Projector<T>(name) {
    detail::store_as_rows(this->definition_, table());
    if constexpr (std::is_default_constructible_v<T>) load_rows([](std::string_view) { return T{}; });
    sync([table = table()](const T& state, std::string_view id, Transaction& transaction) {
        detail::store_row(transaction, table, id, encode(state));
    });
}

template <class T>
template <class F>
void Projection<T>::load_rows(F blank) {
    this->definition_.initial_reads = true;
    this->definition_.initial = [blank = std::move(blank), table = table()](std::string_view id, Reader* reader) {
        // In a test there may be no file, so no row either.
        if (const auto json = reader ? detail::stored_row(*reader, table, id) : std::nullopt) {
            return detail::Box::of<T>(detail::read_row<T>(*json, table, id));
        }
        return detail::Box::of<T>(blank(id));
    };
}

template <class T>
template <class F>
void Projection<T>::state(F handler) {
    if constexpr (detail::state_is_right<detail::state_mistake<Projection, T, F>(false)>()) {
        detail::only_once(this->definition_, std::exchange(this->definition_.has_state_handler, true), "state");
        load_rows([blank = detail::bind(this, std::move(handler))](std::string_view id) -> T {
            if constexpr (std::is_invocable_v<decltype(blank)>) {
                return blank();
            } else if constexpr (std::is_invocable_v<decltype(blank), std::string_view>) {
                return blank(id);
            } else {
                return blank(std::string(id));
            }
        });
    }
}

template <class T>
std::optional<T> Projection<T>::get(Store& store, std::string_view id) const {
    const auto json = detail::stored_row(store, table(), id);
    if (!json) return std::nullopt;
    return detail::read_row<T>(*json, table(), id);
}

template <class T>
std::optional<T> Projection<T>::get(Reader& reader, std::string_view id) const {
    const auto json = detail::stored_row(reader, table(), id);
    if (!json) return std::nullopt;
    return detail::read_row<T>(*json, table(), id);
}

}  // namespace sourced
// ==== Reactors =================================================================

namespace sourced {

namespace detail {

/// What a handler is given beside the message.
struct Beside {
    const Messages* history = nullptr;
    bool replay = false;
};

/// What may come out of a handler: more than out of a reaction.
template <class R>
struct AnswerFrom : SentFrom<R> {};
template <>
struct AnswerFrom<void> {
    static consteval Mistake mistake() { return Mistake::none; }
    static void types(Definition&) {}
    static std::optional<std::vector<std::string>> produces() { return std::vector<std::string>(); }
};
template <>
struct AnswerFrom<Message> {
    static consteval Mistake mistake() { return Mistake::none; }
    static void types(Definition&) {}
    static std::optional<std::vector<std::string>> produces() { return std::nullopt; }
    static void send(std::vector<Sending>& list, Message message) {
        auto& sending = list.emplace_back();
        sending.to = message.stream;
        sending.message = std::move(message);
    }
};
template <is_message T>
struct AnswerFrom<T> : AnswerFrom<Message> {
    static void types(Definition& definition) { add_type(definition, declared<T>()); }
    static std::optional<std::vector<std::string>> produces() { return names_of<T>(); }
};
template <class R>
struct AnswerFrom<std::optional<R>> : AnswerFrom<R> {
    static void send(std::vector<Sending>& list, std::optional<R> answer) {
        if (answer) AnswerFrom<R>::send(list, *std::move(answer));
    }
};
template <class R>
struct AnswerFrom<std::vector<R>> : AnswerFrom<R> {
    static void send(std::vector<Sending>& list, std::vector<R> answers) {
        for (auto& each : answers) AnswerFrom<R>::send(list, std::move(each));
    }
};

/// One of the ways in which a handler may be called.
template <class... P>
struct Way {
    static constexpr bool wants_history = (std::is_same_v<P, const Messages&> || ...);
    static constexpr bool wants_replay = (std::is_same_v<P, Replay> || ...);

    template <class F, class M>
    static constexpr bool fits = std::is_invocable_v<const F&, const M&, P...>;
    template <class F, class M>
    static decltype(auto) call(const F& handler, const M& payload, const Message& message, const Beside& beside) {
        return handler(payload, give<P>(message, beside)...);
    }

private:
    template <class Q>
    static Q give([[maybe_unused]] const Message& message, [[maybe_unused]] const Beside& beside) {
        if constexpr (std::is_same_v<Q, Replay>) {
            return Replay{beside.replay};
        } else if constexpr (std::is_same_v<Q, const Messages&>) {
            return *beside.history;
        } else {
            return message;
        }
    }
};

/// The way that a handler's parameters behind the message spell; void when they spell none.
template <class P>
inline constexpr int beside_place = may_change<P>                                     ? 0
                                    : std::is_same_v<std::remove_cvref_t<P>, Envelope> ? 1
                                    : std::is_same_v<std::remove_cvref_t<P>, Messages> ? 2
                                    : std::is_same_v<std::remove_cvref_t<P>, Replay>   ? 3
                                                                                       : 0;
template <class P>
using BesideGiven = std::tuple_element_t<beside_place<P>, std::tuple<void*, const Envelope&, const Messages&, Replay>>;
template <class... P>
consteval bool spells_way() {
    [[maybe_unused]] int last = 0;
    return ((beside_place<P> > std::exchange(last, beside_place<P>)) && ...);
}
template <class List>
struct SpelledWay {
    using type = void;
};
template <class M, class... P>
requires(spells_way<P...>()) struct SpelledWay<Types<M, P...>> {
    using type = Way<BesideGiven<P>...>;
};

/// The first of the ways in which a generic handler can be called; void when there is none.
template <class F, class M, class... Ways>
struct FirstWay {
    using type = void;
};
template <class F, class M, class W, class... More>
struct FirstWay<F, M, W, More...>
    : std::conditional_t<W::template fits<F, M>, std::type_identity<W>, FirstWay<F, M, More...>> {};

template <class F, class M>
struct WayOf : FirstWay<F, M, Way<>, Way<const Envelope&>, Way<const Messages&>, Way<Replay>,
                        Way<const Envelope&, const Messages&>, Way<const Envelope&, Replay>,
                        Way<const Messages&, Replay>, Way<const Envelope&, const Messages&, Replay>> {};
template <class F, class M>
requires(Signature<F>::readable) struct WayOf<F, M> : SpelledWay<typename Signature<F>::Parameters> {};

template <Mistake mistake>
consteval bool on_is_right() {
    using enum Mistake;
    static_assert(mistake != unreadable,
                  "on(): the handler's parameters cannot be read; name the message's type instead of auto, or list the "
                  "types: on<A, B>(...)");
    static_assert(mistake != changes_itself,
                  "on(): the handler may change itself (mutable, or a member function without const); it is called "
                  "from many threads");
    static_assert(mistake != foreign, "on(): the handler is a member function of another class");
    static_assert(mistake != no_message, "on(): the handler has no message among its parameters; write (const Event&)");
    static_assert(mistake != changes_message,
                  "on(): the handler takes the message by a reference that could change it; write const Event&");
    static_assert(mistake != no_macro,
                  "on(): the type of the handler's message has no SOURCED_EVENT or SOURCED_COMMAND line");
    static_assert(mistake != wrong_parameter,
                  "on(): after the message the handler takes something else than const Envelope&, const Messages& and "
                  "Replay, in this order");
    static_assert(mistake != returns_wrong,
                  "on(): the handler returns something that is neither a message nor a Dispatch, nor an optional or "
                  "vector of these");
    return mistake == none;
}

template <class List>
struct FirstOf {
    using Type = void;
};
template <class First, class... More>
struct FirstOf<Types<First, More...>> {
    using Type = First;
};

template <class Self, class F>
consteval Mistake on_mistake() {
    if constexpr (callable_mistake<Self, F>() != Mistake::none) {
        return callable_mistake<Self, F>();
    } else {
        using First = typename FirstOf<typename Signature<F>::Parameters>::Type;
        using M = std::remove_cvref_t<First>;
        if constexpr (std::is_void_v<First> || beside_place<First> != 0) {
            return Mistake::no_message;
        } else if constexpr (!is_message<M>) {
            return Mistake::no_macro;
        } else if constexpr (may_change<First>) {
            return Mistake::changes_message;
        } else if constexpr (std::is_void_v<typename WayOf<F, M>::type>) {
            return Mistake::wrong_parameter;
        } else {
            return AnswerFrom<std::remove_cvref_t<typename Signature<F>::Return>>::mistake();
        }
    }
}

template <class W, class F, class M>
using AnswerOf =
    std::remove_cvref_t<decltype(W::call(std::declval<const F&>(), std::declval<const M&>(),
                                         std::declval<const Message&>(), std::declval<const Beside&>()))>;

template <class F, class T>
consteval Mistake listed_on_mistake() {
    if constexpr (!is_message<T>) {
        return Mistake::no_macro;
    } else {
        using M = typename ListedPayload<F, T>::Type;
        if constexpr (std::is_void_v<typename WayOf<F, M>::type>) {
            return Mistake::wrong_parameter;
        } else if constexpr (!WayOf<F, M>::type::template fits<F, M>) {
            return Mistake::wrong_parameter;
        } else {
            return AnswerFrom<AnswerOf<typename WayOf<F, M>::type, F, M>>::mistake();
        }
    }
}

/// `handler` is bound; F is what it was before.
template <class F, class T, class M, class Bound>
void declare_on(Definition& definition, const Bound& handler) {
    using W = typename WayOf<F, M>::type;
    using R = AnswerOf<W, Bound, M>;
    Definition::ReactionHandler reaction;
    reaction.call = [handler](const void* beside, const Message& message) {
        const auto call = [&]() -> decltype(auto) {
            return W::call(handler, payload_of<M>(message), message, *static_cast<const Beside*>(beside));
        };
        if constexpr (std::is_void_v<R>) {
            call();
            return std::vector<Sending>();
        } else {
            return sendings<AnswerFrom<R>>(R(call()));
        }
    };
    reaction.wants_replay = W::wants_replay;
    reaction.produces = AnswerFrom<R>::produces();
    definition.wants_history |= W::wants_history;
    AnswerFrom<R>::types(definition);
    add_reaction(definition, declared<T>(), std::move(reaction));
}

template <class T>
consteval bool is_handled() {
    constexpr bool right = is_message<T>;
    static_assert(right, "handles(): a type has no SOURCED_COMMAND or SOURCED_EVENT line");
    return right;
}

}  // namespace detail

template <class F>
Declaration Handler::on(F handler) {
    if constexpr (detail::on_is_right<detail::on_mistake<Handler, F>()>()) {
        using M = std::remove_cvref_t<typename detail::FirstOf<typename detail::Signature<F>::Parameters>::Type>;
        detail::declare_on<F, M, M>(definition_, detail::bind(this, std::move(handler)));
        return {definition_, Declaration::Verb::reaction, detail::names_of<M>()};
    } else {
        return {definition_, Declaration::Verb::reaction, {}};
    }
}

template <class First, class... More, class F>
Declaration Handler::on(F handler) {
    if constexpr (detail::on_is_right<detail::first_mistake<detail::listed_on_mistake<F, First>(),
                                                            detail::listed_on_mistake<F, More>()...>()>()) {
        detail::declare_on<F, First, typename detail::ListedPayload<F, First>::Type>(definition_, handler);
        (detail::declare_on<F, More, typename detail::ListedPayload<F, More>::Type>(definition_, handler), ...);
        return {definition_, Declaration::Verb::reaction, detail::names_of<First, More...>()};
    } else {
        return {definition_, Declaration::Verb::reaction, {}};
    }
}

template <class First, class... More>
Declaration BatchReactor::handles() {
    if constexpr (detail::is_handled<First>() && (detail::is_handled<More>() && ...)) {
        detail::add_reaction(definition_, detail::declared<First>(), {});
        (detail::add_reaction(definition_, detail::declared<More>(), {}), ...);
        return {definition_, Declaration::Verb::reaction, detail::names_of<First, More...>()};
    } else {
        return {definition_, Declaration::Verb::reaction, {}};
    }
}

}  // namespace sourced
// ==== Workflows ================================================================

namespace sourced {

namespace detail {

/// How a value stands in the payload of a record, beside other things.
template <class T>
struct Output {
    T output{};

    SOURCED_VALUE(output)
};
template <class T>
struct Input {
    T input{};

    SOURCED_VALUE(input)
};

template <template <class> class Holder, class T>
Holder<T> held(const WorkflowCalls& calls, std::string_view what, const std::string& json) {
    try {
        return decode<Holder<T>>(json);
    } catch (const Invalid& invalid) {
        calls.unreadable(what, invalid.what());
    }
}

template <class F, bool takes_attempt = std::is_invocable_v<F&, const Attempt&>>
struct StepReturn {
    using Type = void;
};
template <class F>
struct StepReturn<F, true> {
    using Type = std::invoke_result_t<F&, const Attempt&>;
};
template <class F>
requires std::is_invocable_v<F&>
struct StepReturn<F, false> {
    using Type = std::invoke_result_t<F&>;
};

template <class F>
consteval Mistake step_mistake() {
    using R = std::remove_cvref_t<typename StepReturn<F>::Type>;
    if constexpr (!std::is_invocable_v<F&> && !std::is_invocable_v<F&, const Attempt&>) return Mistake::wrong_parameter;
    else if constexpr (std::is_pointer_v<R> || std::is_same_v<R, std::string_view>) return Mistake::returns_wrong;
    else return Mistake::none;
}

template <Mistake mistake>
consteval bool step_is_right() {
    static_assert(mistake != Mistake::wrong_parameter,
                  "ctx.step(): the step is no function that takes () or (const Attempt&)");
    static_assert(mistake != Mistake::returns_wrong,
                  "ctx.step(): the step returns a pointer or a view, which cannot be recorded; return a std::string or "
                  "a value");
    return mistake == Mistake::none;
}

template <class F>
auto call_step(const WorkflowCalls& calls, std::string_view name, const std::string& key, F& f,
               const StepRetries& retries) {
    using R = std::remove_cvref_t<typename StepReturn<F>::Type>;
    const std::string& record = calls.step(
        name, key,
        [&f](const Attempt& attempt) -> std::string {
            const auto call = [&]() -> decltype(auto) {
                if constexpr (std::is_invocable_v<F&, const Attempt&>) return f(attempt);
                else return f();
            };
            if constexpr (std::is_void_v<R>) {
                call();
                return {};
            } else {
                return encode<R>(call());
            }
        },
        retries);
    // What is given is always read from the record, so that every run is given the same.
    if constexpr (!std::is_void_v<R>) {
        const std::string what = "what step '" + std::string(name) + "' returned";
        if (record.find(",\"output\":") == std::string::npos) calls.unreadable(what, "it returned nothing");
        return held<Output, R>(calls, what, record).output;
    }
}

template <class E, class... Awaited>
consteval Mistake waited_mistake() {
    return (std::is_same_v<E, Awaited> || ...) ? Mistake::none : Mistake::foreign;
}

template <Mistake mistake>
consteval bool wait_is_right() {
    static_assert(mistake != Mistake::foreign,
                  "ctx.wait_for(): the workflow does not say that it waits for this event; write "
                  "Workflow<Input, Output, Event>");
    return mistake == Mistake::none;
}

template <class T>
consteval Mistake awaited_mistake() {
    if constexpr (!is_message<T>) return Mistake::no_macro;
    else return message_kind<T>() == Kind::event ? Mistake::none : Mistake::wrong_kind;
}

template <Mistake mistake>
consteval bool awaits() {
    static_assert(mistake != Mistake::no_macro,
                  "Workflow: what it waits for are events: a type behind the output has no SOURCED_EVENT line");
    static_assert(mistake != Mistake::wrong_kind,
                  "Workflow: what it waits for are events: a type behind the output is a command");
    return mistake == Mistake::none;
}

template <class W, class F>
consteval Mistake run_mistake() {
    if constexpr (callable_mistake<W, F>() != Mistake::none) {
        return callable_mistake<W, F>();
    } else {
        using Bound = decltype(bind(static_cast<W*>(nullptr), std::declval<F>()));
        using C = typename W::Context;
        using I = typename W::Input;
        using O = typename W::Output;
        if constexpr (!std::is_invocable_v<const Bound&, C&, const I&>) {
            return Mistake::wrong_parameter;
        } else {
            using R = std::invoke_result_t<const Bound&, C&, const I&>;
            if constexpr (std::is_void_v<O>) return Mistake::none;
            else return std::is_convertible_v<R, O> ? Mistake::none : Mistake::returns_wrong;
        }
    }
}

template <Mistake mistake>
consteval bool run_is_right() {
    using enum Mistake;
    static_assert(mistake != unreadable,
                  "run(): the function's parameters cannot be read; write (Context&, const Input&) instead of auto");
    static_assert(mistake != changes_itself,
                  "run(): the function may change itself (mutable, or a member function without const); it runs on "
                  "many threads");
    static_assert(mistake != foreign, "run(): the function is a member function of another class");
    static_assert(mistake != wrong_parameter, "run(): the function takes something else than (Context&, const Input&)");
    static_assert(mistake != returns_wrong, "run(): the function returns something else than the workflow's output");
    return mistake == none;
}

}  // namespace detail

template <class F>
auto Context::step(std::string_view name, F f, const StepRetries& retries) {
    if constexpr (detail::step_is_right<detail::step_mistake<F>()>()) {
        return detail::call_step(calls_, name, {}, f, retries);
    }
}

template <class Key, class F>
auto Context::step(std::string_view name, const Key& key, F f, const StepRetries& retries) {
    if constexpr (detail::step_is_right<detail::step_mistake<F>()>()) {
        return detail::call_step(calls_, name, encode(key), f, retries);
    }
}

template <class T>
T& Context::keep(std::string_view name, T initial) {
    detail::WorkflowCalls::Kept kept;
    kept.name = name;
    kept.type = &typeid(T);
    kept.value = detail::Box::of(std::move(initial));
    kept.write = [](const void* value) { return encode(*static_cast<const T*>(value)); };
    kept.read = [](void* value, const std::string& json) {
        *static_cast<T*>(value) = decode<detail::Output<T>>(json).output;
    };
    return *static_cast<T*>(calls_.keep(std::move(kept)));
}

template <class... Awaited>
template <class E, class... More>
detail::Come<E, More...> ContextOf<Awaited...>::wait_for() {
    if constexpr (detail::wait_is_right<detail::first_mistake<detail::waited_mistake<E, Awaited...>(),
                                                              detail::waited_mistake<More, Awaited...>()...>()>()) {
        return *wait<E, More...>(std::nullopt);
    } else {
        return {};
    }
}

template <class... Awaited>
template <class E, class... More>
std::optional<detail::Come<E, More...>> ContextOf<Awaited...>::wait_for(Duration timeout) {
    if constexpr (detail::wait_is_right<detail::first_mistake<detail::waited_mistake<E, Awaited...>(),
                                                              detail::waited_mistake<More, Awaited...>()...>()>()) {
        return wait<E, More...>(timeout);
    } else {
        return {};
    }
}

template <class... Awaited>
template <class E, class... More>
std::optional<detail::Come<E, More...>> ContextOf<Awaited...>::wait(std::optional<Duration> timeout) {
    const auto names = [](const detail::Declared& declared) {
        auto all = declared.aliases;
        all.insert(all.begin(), declared.name);
        return all;
    };
    const Message* message =
        calls_.wait_for({names(detail::declared<E>()), names(detail::declared<More>())...}, timeout);
    std::optional<detail::Come<E, More...>> value;
    if (!message) return value;
    try {
        if (message->is<E>()) value = message->as<E>();
        ((message->is<More>() ? static_cast<void>(value = message->as<More>()) : static_cast<void>(0)), ...);
    } catch (const Undecodable& undecodable) {
        calls_.unreadable("what was waited for", undecodable.what());
    }
    return value;
}

template <class In, class Out, class... Awaited>
Workflow<In, Out, Awaited...>::Workflow(std::string_view name) : WorkflowBase(name) {
    using detail::Mistake;
    if constexpr (detail::awaits<
                      detail::first_mistake<Mistake::none, detail::awaited_mistake<Awaited>()...>()>()) {
        (wake_by(detail::declared<Awaited>()), ...);
    }
}

template <class In, class Out, class... Awaited>
template <class F>
void Workflow<In, Out, Awaited...>::run(F function) {
    if constexpr (detail::run_is_right<detail::run_mistake<Workflow, F>()>()) {
        set_body([function = detail::bind(this, std::move(function))](const detail::WorkflowCalls& calls,
                                                                      const std::string& payload) -> std::string {
            const auto holder = detail::held<detail::Input, In>(calls, "its input", payload);
            Context context(calls);
            if constexpr (std::is_void_v<Out>) {
                function(context, holder.input);
                return {};
            } else {
                return encode<Out>(function(context, holder.input));
            }
        });
    }
}

}  // namespace sourced
// ==== App ======================================================================

namespace sourced {

template <int, class Object>
void App::add(Object&&) {
    constexpr bool is_type = sizeof(Object) == 0;
    static_assert(is_type, "App::add() takes the type of a reactor, and what to make it from: app.add<Cart>(price)");
}

template <class R, class... Arguments>
R& App::add(Arguments&&... arguments) {
    static_assert(std::is_base_of_v<Reactor, R>, "App::add() takes an actor, a projector, a handler or a reactor");
    if constexpr (std::is_base_of_v<Reactor, R>) {
        auto reactor = detail::make_reactor<R>(std::forward<Arguments>(arguments)...);
        R& added = *reactor;
        do_add(std::move(reactor));
        return added;
    }
}

namespace detail {

template <class T>
consteval bool check_context_type() {
    constexpr bool message = is_message<T>;
    static_assert(message, "a CommandContext builds commands: this type has no SOURCED_COMMAND line");
    if constexpr (message) {
        constexpr bool command = message_kind<T>() == Kind::command;
        static_assert(command, "a CommandContext builds commands: this type is an event");
        return command;
    }
    return false;
}

}  // namespace detail

template <class T>
Message CommandContext::build(std::string_view payload) const {
    if constexpr (detail::check_context_type<T>()) return finish(message_type<T>(), options_.stream, payload, {});
    else return {};
}

template <class T, class F>
CommandContext& CommandContext::on(F hook) {
    if constexpr (detail::check_context_type<T>()) {
        constexpr bool plain = std::is_invocable_v<const F&, T&>;
        constexpr bool with_metadata = std::is_invocable_v<const F&, T&, Metadata&>;
        static_assert(plain || with_metadata, "a hook of a CommandContext is called with (T&) or (T&, Metadata&)");
        add_hook(message_type<T>(), [hook = std::move(hook)](Message& message) {
            T value = message.as<T>();
            if constexpr (plain) hook(value);
            else if constexpr (with_metadata) hook(value, message.metadata);
            message.payload = encode(value);
        });
    }
    return *this;
}

template <class A, class C>
Result App::handle(std::string_view stream, const C& command, const HandleOptions& options) {
    static_assert(is_message<C> || std::same_as<C, Message>,
                  "App::handle() takes a command: this type has no SOURCED_COMMAND line");
    if constexpr (is_message<C>) {
        static_assert(message_kind<C>() == Kind::command, "App::handle() takes a command: this type is an event");
        return do_handle(find(typeid(A)).definition(), stream, Message(command), options);
    } else if constexpr (std::same_as<C, Message>) {
        check(command.to(stream));
        return do_handle(find(typeid(A)).definition(), stream, command, options);
    }
}

template <class A>
template <class C>
Trial Draft<A>::decide(const C& command) {
    static_assert(is_message<C> || std::same_as<C, Message>,
                  "Draft::decide() takes a command: this type has no SOURCED_COMMAND line");
    if constexpr (std::same_as<C, Message>) {
        return this->try_command(command);
    } else if constexpr (is_message<C>) {
        static_assert(message_kind<C>() == Kind::command, "Draft::decide() takes a command: this type is an event");
        try {
            return this->try_command(Message(command));
        } catch (const Invalid& invalid) {
            Trial trial;
            for (const auto& problem : invalid.problems()) {
                trial.problems_.push_back({"/payload" + problem.path, problem.text});
            }
            return trial;
        }
    }
}

template <class A>
Draft<A> App::draft(std::string_view stream, std::int64_t upto) {
    constexpr bool is_actor = [] {
        if constexpr (requires { typename A::State; }) return std::is_base_of_v<Actor<typename A::State>, A>;
        else return false;
    }();
    static_assert(is_actor, "App::draft() takes an actor");
    if constexpr (is_actor) return Draft<A>(*engine_, find(typeid(A)).definition(), stream, upto);
}

template <class... R>
Unit App::unit(const UnitOptions& options) {
    static_assert(sizeof...(R) > 0, "App::unit() names the reactors that work together");
    static_assert((std::is_base_of_v<Reactor, R> && ...),
                  "App::unit() takes actors, projectors, handlers and reactors");
    if constexpr (sizeof...(R) > 0 && (std::is_base_of_v<Reactor, R> && ...)) {
        return do_unit({&find(typeid(R))...}, options);
    }
}

template <class R>
Loaded<typename R::State> App::load(std::string_view stream, std::int64_t upto) {
    using State = typename R::State;
    auto [box, seq] = do_load(find(typeid(R)).definition(), stream, upto);
    return {std::move(*static_cast<State*>(box.get())), seq};
}

template <class T>
T WorkflowOutcome<T>::output() const {
    if (!completed()) {
        throw Error(failed()   ? "the workflow has failed: " + end_.error_text
                    : parked() ? "the workflow is parked: " + end_.error_text
                               : "the workflow has not ended yet");
    }
    if constexpr (!std::is_void_v<T>) {
        try {
            return decode<detail::Output<T>>(end_.payload).output;
        } catch (const Invalid& invalid) {
            throw Undecodable(std::string("read the output of a workflow: ") + invalid.what());
        }
    }
}

template <class W>
WorkflowHandle<W> App::start_workflow(const typename W::Input& input) {
    return start_workflow<W>(new_stream_id(), input);
}

template <class W>
WorkflowHandle<W> App::start_workflow(std::string_view id, const typename W::Input& input) {
    // The type may have got another field since.
    const std::string json = encode(input);
    const auto same = [&json](const std::string& payload) {
        return encode(decode<detail::Input<typename W::Input>>(payload).input) == json;
    };
    do_start_workflow(static_cast<const W&>(find(typeid(W))), id, json, same);
    return workflow<W>(id);
}

template <class W>
WorkflowHandle<W> App::workflow(std::string_view id) {
    return WorkflowHandle<W>(*this, static_cast<const W&>(find(typeid(W))), id);
}

template <class A>
Bound<A> App::actor(std::string_view stream) {
    static_cast<void>(find(typeid(A)));  // a mistake shows here, not at the first use
    return Bound<A>(*this, stream);
}

}  // namespace sourced
// ==== Testing ==================================================================

namespace sourced::testing {

namespace detail {

template <class R>
consteval bool is_reactor() {
    static_assert(std::is_base_of_v<Reactor, R>,
                  "given() and stage() take an actor, a projector, a handler or a reactor");
    return std::is_base_of_v<Reactor, R>;
}

/// Commands and events, as structs or as messages.
template <class M>
consteval bool is_told() {
    constexpr bool told = is_message<M> || std::is_base_of_v<Message, M>;
    static_assert(told, "given() and when() are told commands and events: a type has no SOURCED_COMMAND or "
                        "SOURCED_EVENT line");
    return told;
}

template <class... M>
Messages messages_of(const M&... messages) {
    if constexpr ((is_told<M>() && ...)) {
        return Messages{Message(messages)...};
    } else {
        return {};
    }
}

template <class Outcome>
consteval bool is_expected() {
    constexpr bool expected = std::is_constructible_v<Expected, const Outcome&>;
    static_assert(expected, "then() takes messages, refuse(), dispatch(), exceptions, or one block that looks at the "
                            "actions, the state or the step");
    return expected;
}

template <class M>
consteval bool is_line() {
    constexpr bool line = std::is_constructible_v<Line, const M&>;
    static_assert(line, "a trail is made of commands and events: a type has no SOURCED_COMMAND or SOURCED_EVENT line");
    return line;
}

template <class... M>
std::vector<Line> lines_of(const M&... lines) {
    if constexpr ((is_line<M>() && ...)) {
        return {Line(lines)...};
    } else {
        return {};
    }
}

/// What a block of a test returns, as a verdict.
template <class F>
Verdict verdict_of(const F& look) {
    using Result = std::remove_cvref_t<decltype(look())>;
    constexpr bool readable = std::is_void_v<Result> || std::is_base_of_v<Verdict, Result> ||
                              std::is_constructible_v<bool, Result>;
    static_assert(readable, "then(): a block returns a bool, a Verdict, or nothing");
    if constexpr (std::is_void_v<Result>) {
        look();
        return Verdict(true, "as expected: a block");
    } else if constexpr (std::is_base_of_v<Verdict, Result>) {
        return look();
    } else if constexpr (readable) {
        const bool right = static_cast<bool>(look());
        return Verdict(right, right ? "as expected: a block" : "a block says that it is not as expected");
    } else {
        return Verdict(false, {});
    }
}

}  // namespace detail

template <class State>
template <class... Outcome>
Chain<StepOf<State>> StepOf<State>::then(const Outcome&... expected) const {
    if constexpr ((detail::is_expected<Outcome>() && ...)) {
        return {*this, judge(std::vector<Expected>{Expected(expected)...})};
    } else {
        return {*this, judge({})};
    }
}

template <class State>
template <class Block>
    requires detail::looks_at<Block, State>
Chain<StepOf<State>> StepOf<State>::then(const Block& block) const {
    return {*this, error() ? judge({}) : look(block)};  // nobody asked for an exception
}

template <class State>
template <class Block>
    requires detail::looks_at<Block, State>
Verdict StepOf<State>::look(const Block& block) const {
    return detail::judge_block([&]() -> Verdict {
        if constexpr (std::is_invocable_v<const Block&, const StepOf&>) {
            return detail::verdict_of([&] { return block(*this); });
        } else if constexpr (std::is_invocable_v<const Block&, const Actions&>) {
            return detail::verdict_of([&] { return block(actions()); });
        } else {
            return detail::verdict_of([&] { return block(state()); });
        }
    });
}

template <class State>
Chain<StepOf<State>> StepOf<State>::then_nothing() const {
    return {*this, judge({})};
}

template <class State>
template <class E>
Chain<StepOf<State>> StepOf<State>::then_throws(std::string_view text) const {
    bool right_type = false;
    if (error()) {
        try {
            std::rethrow_exception(error());
        } catch (const E&) {
            right_type = true;
        } catch (...) {  // of another type: the verdict says which
        }
    }
    return {*this, judge_error(right_type, typeid(E), text)};
}

template <class State>
Chain<StepOf<State>> StepOf<State>::then_retry(std::optional<Time> time) const {
    return {*this, judge_retry(time)};
}

template <class State>
template <class S>
    requires(!std::is_void_v<S>)
Chain<StepOf<State>> StepOf<State>::then_state(const S& expected) const {
    if (error()) return {*this, judge({})};
    return {*this, detail::same_json("state", encode(expected), encode(state()))};
}

template <class State>
StepOf<State> StepOf<State>::run_syncs(const std::function<void(Transaction&)>& before) const {
    StepOf step = *this;
    step.do_run_syncs(before);
    return step;
}

// Whether an exception was to be expected, the first link has said.
template <class S>
template <class... Outcome>
Chain<S> Chain<S>::and_then(const Outcome&... expected) const {
    if constexpr (requires { step_.look(expected...); }) {
        return with(step_.look(expected...));
    } else {
        return with(step_.then(expected...));
    }
}

template <class S>
template <class T>
Chain<S> Chain<S>::and_then_state(const T& expected) const {
    return with(detail::same_json("state", encode(expected), encode(step_.state())));
}

template <class S>
Chain<S> Chain<S>::run_syncs(const std::function<void(Transaction&)>& before) const {
    Chain next(step_.run_syncs(before), *this, links_);
    if (step_.error() || !next.step_.error()) return next;
    return next.with(next.step_.judge({}));
}

template <class S>
Chain<S> Chain<S>::with(const Verdict& next) const {
    const int links = links_ + 1;
    if (!*this) return Chain(step_, *this, links);  // the first that fails is told
    if (next) return Chain(step_, Verdict(true, text() + '\n' + next.text()), links);
    return Chain(step_, Verdict(false, "link " + std::to_string(links) + " of the chain: " + next.text()), links);
}

template <class R>
template <class... M>
StepOf<typename Given<R>::State> Given<R>::when(const M&... messages) const {
    return StepOf<State>(setting_, detail::messages_of(messages...));
}

template <class R>
template <class S>
    requires(!std::is_void_v<S>)
S Given<R>::state() const {
    auto past = detail::past_of(setting_);
    return std::move(*static_cast<S*>(past.state.get()));
}

template <class R>
template <class S>
    requires(!std::is_void_v<S>)
Verdict Given<R>::then_state(const S& expected) const {
    return detail::same_json("state", encode(expected), encode(state()));
}

template <class R, class... M>
Given<R> given(const M&... past) {
    if constexpr (detail::is_reactor<R>()) {
        return Given<R>(sourced::detail::make_reactor<R>(), detail::messages_of(past...));
    } else {
        return Given<R>(nullptr, {});
    }
}

template <class R, class... M>
    requires std::derived_from<R, Reactor>
Given<R> given(const R& reactor, const M&... past) {
    return Given<R>(std::shared_ptr<const R>(std::shared_ptr<void>(), &reactor), detail::messages_of(past...));
}

template <class T>
Line line(const T& message) {
    return detail::lines_of(message).front();
}

template <class R, class... Arguments>
Stage& Stage::add(Arguments&&... arguments) & {
    if constexpr (detail::is_reactor<R>()) {
        do_add(sourced::detail::make_reactor<R>(std::forward<Arguments>(arguments)...));
    }
    return *this;
}

template <class... M>
Stage& Stage::given(const M&... past) & {
    do_given(detail::messages_of(past...));
    return *this;
}

template <class... M>
Stage& Stage::when(const M&... messages) & {
    do_when(detail::messages_of(messages...));
    return *this;
}

template <class... M>
Verdict Stage::then_trail(const M&... lines) const {
    return judge(detail::lines_of(lines...), true);
}

template <class... M>
Verdict Stage::then(const M&... lines) const {
    return judge(detail::lines_of(lines...), false);
}

template <class R>
Verdict Stage::then_state(const typename R::State& expected, std::string_view stream) const {
    return detail::same_json("state", encode(expected),
                             encode(app().template load<R>(stream_or_default(stream)).state));
}

template <class... R>
Stage stage() {
    Stage made;
    (made.add<R>(), ...);
    return made;
}

}  // namespace sourced::testing

#ifdef SOURCED_IMPLEMENTATION

#include <cxxabi.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include <rapidjson/error/en.h>
#include <rapidjson/reader.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <condition_variable>
#include <csignal>
#include <cstdlib>
#include <deque>
#include <iterator>
#include <map>
#include <mutex>
#include <new>
#include <ostream>
#include <random>
#include <thread>

// =============================================================================
// Messages: bodies
// =============================================================================

namespace sourced {
namespace detail {

// ---- Errors

namespace {

std::string list_problems(std::string_view what, const Problems& problems) {
    std::string text(what);
    text += ": ";
    for (std::size_t i = 0; i < problems.size(); ++i) {
        if (i) text += "; ";
        if (!problems[i].path.empty()) text += problems[i].path + ": ";
        text += problems[i].text;
    }
    return text;
}

// What goes into an error text: no control characters, not too long.
std::string shown(std::string_view text, std::size_t most = 60) {
    constexpr char digits[] = "0123456789abcdef";
    std::string result;
    bool cut = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const auto c = static_cast<unsigned char>(text[i]);
        if (result.size() >= most && (c & 0xC0) != 0x80) {
            cut = true;
            break;
        }
        if (c < 0x20 || c == 0x7F) {
            result += "\\x";
            result += digits[c >> 4];
            result += digits[c & 15];
        } else {
            result += text[i];
        }
    }
    if (cut) result += "...";
    return result;
}

// JSON pointer (RFC 6901), with control characters made visible.
std::string path_of(const Place* place) {
    std::string path;
    std::vector<const Place*> places;
    for (; place != nullptr; place = place->outer) places.push_back(place);
    for (std::size_t i = places.size(); i-- > 0;) {
        path += '/';
        if (places[i]->is_index) {
            path += std::to_string(places[i]->index);
            continue;
        }
        for (const char c : shown(places[i]->key, 200)) {
            if (c == '~') path += "~0";
            else if (c == '/') path += "~1";
            else path += c;
        }
    }
    return path;
}

}  // namespace
}  // namespace detail

Invalid::Invalid(std::string_view what, Problems problems)
    : Error(detail::list_problems(what, problems)), problems_(std::move(problems)) {}
Undecodable::Undecodable(std::string_view what, Problems problems)
    : Error(detail::list_problems(what, problems)), problems_(std::move(problems)) {}

// ---- Ids

namespace detail {
namespace {

std::uint64_t system_seed() {
    std::random_device device;
    return (static_cast<std::uint64_t>(device()) << 32) ^ device();
}

Time system_now() {
    return std::chrono::time_point_cast<std::chrono::microseconds>(std::chrono::system_clock::now());
}

// A child of fork() has its parent's generators and would make its ids: it must seed anew.
std::atomic<unsigned> forks{0};
IdSource& thread_source() {
    static const bool watching = [] {
        (void)pthread_atfork(nullptr, nullptr, [] { forks.fetch_add(1, std::memory_order_relaxed); });
        return true;
    }();
    (void)watching;
    thread_local IdSource source;
    thread_local unsigned seeded = forks.load(std::memory_order_relaxed);
    if (const unsigned now = forks.load(std::memory_order_relaxed); seeded != now) {
        source = IdSource();
        seeded = now;
    }
    return source;
}

int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

// A problem, or nothing.
std::optional<std::string> parse_id(std::string_view text, Id& id) {
    Id::Bytes bytes{};
    bool good = text.size() == 36;
    std::size_t digit = 0;
    for (std::size_t i = 0; good && i < text.size(); ++i) {
        if (i == 8 || i == 13 || i == 18 || i == 23) {
            good = text[i] == '-';
            continue;
        }
        const int value = hex_digit(text[i]);
        good = value >= 0;
        if (good) bytes[digit / 2] = static_cast<std::uint8_t>((bytes[digit / 2] << 4) | value);
        ++digit;
    }
    if (!good) return "expected UUID, got \"" + shown(text) + '"';
    id = Id(bytes);
    return std::nullopt;
}

void format_id(const Id& id, char* out) {
    constexpr char digits[] = "0123456789abcdef";
    for (std::size_t i = 0; i < 16; ++i) {
        if (i == 4 || i == 6 || i == 8 || i == 10) *out++ = '-';
        *out++ = digits[id.bytes()[i] >> 4];
        *out++ = digits[id.bytes()[i] & 15];
    }
}

}  // namespace
}  // namespace detail

IdSource::IdSource() : IdSource(detail::system_seed()) {}
IdSource::IdSource(std::uint64_t seed) noexcept : state_(seed) {}

std::uint64_t IdSource::next() noexcept {
    // splitmix64
    std::uint64_t z = (state_ += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

Id Id::make() { return make(detail::system_now(), detail::thread_source()); }

Id Id::make(Time time, IdSource& source) {
    constexpr std::uint64_t most_low = (std::uint64_t(1) << 62) - 1;
    const auto since = std::chrono::floor<std::chrono::milliseconds>(time).time_since_epoch().count();
    const auto millisecond = static_cast<std::uint64_t>(std::max<std::int64_t>(since, 0)) & 0xFFFF'FFFF'FFFFu;
    if (millisecond > source.millisecond_) {
        source.millisecond_ = millisecond;
        source.high_ = source.next() & 0x7FF;  // the upper half is left for counting
        source.low_ = source.next() & most_low;
    } else {
        // The same millisecond, or the clock went back: a random step up from the last one.
        source.low_ += 1 + (source.next() >> 30);
        if (source.low_ > most_low) {
            source.low_ &= most_low;
            if (++source.high_ > 0xFFF) {
                source.high_ = 0;
                ++source.millisecond_;
            }
        }
    }
    const std::uint64_t high = (source.millisecond_ << 16) | 0x7000u | source.high_;
    const std::uint64_t low = (std::uint64_t(2) << 62) | source.low_;
    Bytes bytes{};
    for (std::size_t i = 0; i < 8; ++i) {
        bytes[i] = static_cast<std::uint8_t>(high >> (56 - 8 * i));
        bytes[8 + i] = static_cast<std::uint8_t>(low >> (56 - 8 * i));
    }
    return Id(bytes);
}

Id Id::parse(std::string_view text) {
    Id id;
    if (auto wrong = detail::parse_id(text, id)) throw Invalid("read an id", {Problem{{}, std::move(*wrong)}});
    return id;
}

std::string Id::to_string() const {
    std::string text(36, '-');
    detail::format_id(*this, text.data());
    return text;
}

Time Id::time() const noexcept {
    std::int64_t millisecond = 0;
    for (std::size_t i = 0; i < 6; ++i) millisecond = (millisecond << 8) | bytes_[i];
    return Time(std::chrono::milliseconds(millisecond));
}

std::string new_stream_id(std::string_view prefix) {
    std::string id(prefix);
    if (!id.empty()) id += '-';
    return id + Id::make().to_string();
}

// ---- Writing

namespace detail {

// Memory of a thread that encoding and decoding use again and again.
struct Buffer {
    Buffer() = default;
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() { std::free(data); }

    void reserve(std::size_t wanted) {
        if (wanted <= size) return;
        void* larger = std::realloc(data, wanted);
        if (larger == nullptr) throw std::bad_alloc();
        data = static_cast<char*>(larger);
        size = wanted;
    }
    void shrink() noexcept {
        if (size <= kept) return;
        std::free(std::exchange(data, nullptr));
        size = 0;
    }
    static constexpr std::size_t kept = 256u << 10;

    char* data = nullptr;
    std::size_t size = 0;
    bool busy = false;
};

namespace {

// Returns the length of the UTF-8 sequence at `at`, 0 when it is none.
std::size_t utf8_length(const char* at, const char* end) {
    const auto byte = [&](std::ptrdiff_t i) { return static_cast<unsigned char>(at[i]); };
    const auto tail = [&](std::ptrdiff_t i) { return at + i < end && (byte(i) & 0xC0) == 0x80; };
    const unsigned char first = byte(0);
    if (first < 0x80) return 1;
    if (first < 0xC2) return 0;
    if (first < 0xE0) return tail(1) ? 2 : 0;
    if (first < 0xF0) {
        if (!tail(1) || !tail(2)) return 0;
        if (first == 0xE0 && byte(1) < 0xA0) return 0;
        if (first == 0xED && byte(1) >= 0xA0) return 0;  // surrogates
        return 3;
    }
    if (first > 0xF4 || !tail(1) || !tail(2) || !tail(3)) return 0;
    if (first == 0xF0 && byte(1) < 0x90) return 0;
    if (first == 0xF4 && byte(1) >= 0x90) return 0;
    return 4;
}

const char* find_bad_utf8(std::string_view text) {
    const char* at = text.data();
    const char* const end = at + text.size();
    while (at != end) {
        if (end - at >= 8) {
            std::uint64_t word = 0;
            std::memcpy(&word, at, 8);
            if ((word & 0x8080808080808080u) == 0) {
                at += 8;
                continue;
            }
        }
        const std::size_t length = utf8_length(at, end);
        if (length == 0) return at;
        at += length;
    }
    return nullptr;
}

// Whether one of eight bytes is a control character, a quote, a backslash or above ASCII.
bool needs_care(std::uint64_t word) {
    constexpr std::uint64_t ones = 0x0101010101010101u;
    constexpr std::uint64_t tops = 0x8080808080808080u;
    const auto zero = [](std::uint64_t x) { return (x - ones) & ~x; };
    return ((word | (word - ones * 0x20) | zero(word ^ (ones * '"')) | zero(word ^ (ones * '\\'))) & tops) != 0;
}

Buffer& thread_buffer() {
    thread_local Buffer buffer;
    return buffer;
}

constexpr char base64_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

}  // namespace

JsonWriter::JsonWriter() : buffer_(&thread_buffer()) {
    if (buffer_->busy) buffer_ = new Buffer;  // a writer inside a user's serialize function
    try {
        buffer_->reserve(512);
    } catch (...) {
        if (!buffer_->busy && buffer_ != &thread_buffer()) delete buffer_;
        throw;
    }
    buffer_->busy = true;
    begin_ = at_ = buffer_->data;
    end_ = begin_ + buffer_->size;
}

JsonWriter::~JsonWriter() {
    if (buffer_ != &thread_buffer()) {
        delete buffer_;
        return;
    }
    buffer_->busy = false;
    buffer_->shrink();
}

void JsonWriter::grow(std::size_t size) {
    const auto used = static_cast<std::size_t>(at_ - begin_);
    buffer_->reserve(std::max(used + size, buffer_->size + buffer_->size / 2));
    begin_ = buffer_->data;
    at_ = begin_ + used;
    end_ = begin_ + buffer_->size;
}

std::string JsonWriter::take() const { return std::string(begin_, static_cast<std::size_t>(at_ - begin_)); }

void JsonWriter::refuse(std::string_view what) const {
    throw Invalid("write JSON", {Problem{path_of(place_), "cannot write " + std::string(what)}});
}

void JsonWriter::raw(std::string_view json) {
    room(json.size());
    std::memcpy(at_, json.data(), json.size());
    at_ += json.size();
}

void JsonWriter::null() { raw("null"); }
void JsonWriter::boolean(bool value) { raw(value ? std::string_view("true") : std::string_view("false")); }

void JsonWriter::integer(std::int64_t value) {
    room(24);
    at_ = std::to_chars(at_, end_, value).ptr;
}
void JsonWriter::natural(std::uint64_t value) {
    room(24);
    at_ = std::to_chars(at_, end_, value).ptr;
}

namespace {
template <class Real>
char* write_real(char* at, char* end, Real value) {
    char* const begin = at;
    at = std::to_chars(at, end, value).ptr;
    // "-0" would come back as the integer 0.
    if (value == 0 && std::signbit(value)) {
        std::memcpy(begin, "-0.0", 4);
        at = begin + 4;
    }
    return at;
}
}  // namespace

void JsonWriter::real(double value) {
    if (!std::isfinite(value)) refuse(std::isnan(value) ? "NaN" : "an infinite number");
    room(32);
    at_ = write_real(at_, end_, value);
}
void JsonWriter::real(float value) {
    if (!std::isfinite(value)) refuse(std::isnan(value) ? "NaN" : "an infinite number");
    room(32);
    at_ = write_real(at_, end_, value);
}

void JsonWriter::text(std::string_view value) {
    constexpr char digits[] = "0123456789abcdef";
    room(value.size() + 2);
    *at_++ = '"';
    const char* from = value.data();
    const char* const end = from + value.size();
    while (from != end) {
        if (end - from >= 8) {
            std::uint64_t word = 0;
            std::memcpy(&word, from, 8);
            if (!needs_care(word)) {
                std::memcpy(at_, from, 8);
                from += 8;
                at_ += 8;
                continue;
            }
        }
        const auto c = static_cast<unsigned char>(*from);
        if (c >= 0x80) {
            const std::size_t length = utf8_length(from, end);
            if (length == 0) {
                refuse("a string that is no UTF-8: byte " + std::to_string(from - value.data()) + " of \"" +
                       shown(value.substr(0, static_cast<std::size_t>(from - value.data()))) + "\"...");
            }
            std::memcpy(at_, from, length);
            at_ += length;
            from += length;
            continue;
        }
        ++from;
        if (c >= 0x20 && c != '"' && c != '\\') {
            *at_++ = static_cast<char>(c);
            continue;
        }
        // An escape is up to five characters longer than what was reserved for it.
        room(static_cast<std::size_t>(end - from) + 8);
        *at_++ = '\\';
        switch (c) {
            case '"': *at_++ = '"'; break;
            case '\\': *at_++ = '\\'; break;
            case '\b': *at_++ = 'b'; break;
            case '\f': *at_++ = 'f'; break;
            case '\n': *at_++ = 'n'; break;
            case '\r': *at_++ = 'r'; break;
            case '\t': *at_++ = 't'; break;
            default:
                std::memcpy(at_, "u00", 3);
                at_[3] = digits[c >> 4];
                at_[4] = digits[c & 15];
                at_ += 5;
        }
    }
    put('"');
}

void JsonWriter::base64(const void* bytes, std::size_t size) {
    const auto* data = static_cast<const unsigned char*>(bytes);
    room((size + 2) / 3 * 4 + 2);
    *at_++ = '"';
    for (std::size_t i = 0; i < size; i += 3) {
        const std::size_t count = std::min<std::size_t>(3, size - i);
        std::uint32_t group = static_cast<std::uint32_t>(data[i]) << 16;
        if (count > 1) group |= static_cast<std::uint32_t>(data[i + 1]) << 8;
        if (count > 2) group |= data[i + 2];
        *at_++ = base64_digits[group >> 18];
        *at_++ = base64_digits[(group >> 12) & 63];
        *at_++ = count > 1 ? base64_digits[(group >> 6) & 63] : '=';
        *at_++ = count > 2 ? base64_digits[group & 63] : '=';
    }
    *at_++ = '"';
}

void JsonWriter::time(std::int64_t seconds, std::int64_t nanoseconds) {
    using namespace std::chrono;
    // 0000-01-01 to 9999-12-31: what RFC 3339 can say.
    if (seconds < -62167219200 || seconds > 253402300799) refuse("a time outside the years 0 to 9999");
    const sys_seconds time{std::chrono::seconds(seconds)};
    const auto day = floor<days>(time);
    const year_month_day date(day);
    const hh_mm_ss clock(time - day);
    room(40);
    const auto digits = [&](std::int64_t value, int count) {
        for (int i = count - 1; i >= 0; --i) {
            at_[i] = static_cast<char>('0' + value % 10);
            value /= 10;
        }
        at_ += count;
    };
    *at_++ = '"';
    digits(static_cast<int>(date.year()), 4);
    *at_++ = '-';
    digits(static_cast<unsigned>(date.month()), 2);
    *at_++ = '-';
    digits(static_cast<unsigned>(date.day()), 2);
    *at_++ = 'T';
    digits(clock.hours().count(), 2);
    *at_++ = ':';
    digits(clock.minutes().count(), 2);
    *at_++ = ':';
    digits(clock.seconds().count(), 2);
    if (nanoseconds != 0) {
        *at_++ = '.';
        if (nanoseconds % 1'000'000 == 0) digits(nanoseconds / 1'000'000, 3);
        else if (nanoseconds % 1'000 == 0) digits(nanoseconds / 1'000, 6);
        else digits(nanoseconds, 9);
    }
    *at_++ = 'Z';
    *at_++ = '"';
}

void JsonWriter::id(const Id& value) {
    room(38);
    *at_ = '"';
    format_id(value, at_ + 1);
    at_[37] = '"';
    at_ += 38;
}

void JsonWriter::begin(char bracket, Place& place) {
    if (++depth_ > most_depth) refuse("a value nested deeper than " + std::to_string(most_depth));
    put(bracket);
    place.outer = place_;
    place_ = &place;
    comma_ = false;
}

void JsonWriter::end(char bracket, const Place& place) {
    put(bracket);
    place_ = const_cast<Place*>(place.outer);
    comma_ = true;
    --depth_;
}

void JsonWriter::key(Place& place, std::string_view key_name) {
    comma();
    place.key = key_name;
    text(key_name);
    put(':');
}

void JsonWriter::name(std::string_view field_name) {
    comma();
    place_->key = field_name;
    room(field_name.size() + 3);
    *at_++ = '"';
    std::memcpy(at_, field_name.data(), field_name.size());
    at_ += field_name.size();
    *at_++ = '"';
    *at_++ = ':';
}

// ---- Parsing into a tape

// A value on the tape is a tag and what follows it. Containers know their size, so they can be passed in
// one step. The forms are narrow so that the tape is never larger than 2.4 times the text.
namespace {

enum Tag : char {
    tag_null,
    tag_false,
    tag_true,
    tag_int8,
    tag_int16,
    tag_int32,
    tag_int64,
    tag_uint64,
    tag_double,
    tag_short_text,  // 8 bits of length
    tag_text,        // 32 bits of length
    tag_object,      // 32 bits of size, then keys (texts) and values in turn
    tag_array        // 32 bits of size
};

template <class T>
T load_as(const char* at) {
    T value;
    std::memcpy(&value, at, sizeof value);
    return value;
}

inline const char* skip(const char* at) {
    switch (static_cast<Tag>(*at)) {
        case tag_null:
        case tag_false:
        case tag_true: return at + 1;
        case tag_int8: return at + 2;
        case tag_int16: return at + 3;
        case tag_int32: return at + 5;
        case tag_int64:
        case tag_uint64:
        case tag_double: return at + 9;
        case tag_short_text: return at + 2 + static_cast<unsigned char>(at[1]);
        case tag_text:
        case tag_object:
        case tag_array: return at + 5 + load_as<std::uint32_t>(at + 1);
    }
    return at + 1;
}

inline std::string_view text_at(const char* at) {
    if (*at == tag_short_text) return {at + 2, static_cast<unsigned char>(at[1])};
    return {at + 5, load_as<std::uint32_t>(at + 1)};
}
inline bool is_text_at(const char* at) { return *at == tag_short_text || *at == tag_text; }

inline bool integer_at(const char* at, std::int64_t& value) {
    switch (static_cast<Tag>(*at)) {
        case tag_int8: value = load_as<std::int8_t>(at + 1); return true;
        case tag_int16: value = load_as<std::int16_t>(at + 1); return true;
        case tag_int32: value = load_as<std::int32_t>(at + 1); return true;
        case tag_int64: value = load_as<std::int64_t>(at + 1); return true;
        default: return false;
    }
}

bool real_at(const char* at, double& value) {
    std::int64_t integer = 0;
    if (integer_at(at, integer)) value = static_cast<double>(integer);
    else if (*at == tag_uint64) value = static_cast<double>(load_as<std::uint64_t>(at + 1));
    else if (*at == tag_double) value = load_as<double>(at + 1);
    else return false;
    return true;
}

struct Source {
    using Ch = char;
    const char* at;
    const char* end;
    const char* begin;

    char Peek() const { return at == end ? '\0' : *at; }
    char Take() { return at == end ? '\0' : *at++; }
    std::size_t Tell() const { return static_cast<std::size_t>(at - begin); }
    char* PutBegin() { return nullptr; }
    void Put(char) {}
    void Flush() {}
    std::size_t PutEnd(char*) { return 0; }
};

// The same over a copy of the text with a NUL behind it: strings are decoded where they stand. Reads a
// third faster; long texts are not worth the memory.
struct CopiedSource {
    using Ch = char;
    char* at;
    char* begin;
    char* to = nullptr;

    char Peek() const { return *at; }
    char Take() { return *at++; }
    std::size_t Tell() const { return static_cast<std::size_t>(at - begin); }
    char* PutBegin() { return to = at; }
    void Put(char c) { *to++ = c; }
    void Flush() {}
    std::size_t PutEnd(const char* head) const { return static_cast<std::size_t>(to - head); }
};

struct TapeWriter {
    Buffer& tape;
    std::size_t size = 0;
    std::size_t depth = 0;
    std::size_t most_depth;
    std::vector<std::uint32_t>& open;
    bool escapes = true;  // the text has a backslash somewhere
    const char* wrong = nullptr;

    char* room(std::size_t wanted) {
        if (tape.size - size < wanted) tape.reserve(std::max(size + wanted, tape.size + tape.size / 2));
        return tape.data + size;
    }
    bool put(Tag tag) {
        *room(1) = static_cast<char>(tag);
        ++size;
        return true;
    }
    template <class T>
    bool put(Tag tag, T value) {
        char* at = room(1 + sizeof value);
        *at = static_cast<char>(tag);
        std::memcpy(at + 1, &value, sizeof value);
        size += 1 + sizeof value;
        return true;
    }
    bool Null() { return put(tag_null); }
    bool Bool(bool value) { return put(value ? tag_true : tag_false); }
    bool Int(int value) { return Int64(value); }
    bool Uint(unsigned value) { return Int64(value); }
    bool Int64(std::int64_t value) {
        if (value == static_cast<std::int8_t>(value)) return put(tag_int8, static_cast<std::int8_t>(value));
        if (value == static_cast<std::int16_t>(value)) return put(tag_int16, static_cast<std::int16_t>(value));
        if (value == static_cast<std::int32_t>(value)) return put(tag_int32, static_cast<std::int32_t>(value));
        return put(tag_int64, value);
    }
    bool Uint64(std::uint64_t value) {
        if (value <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
            return Int64(static_cast<std::int64_t>(value));
        }
        return put(tag_uint64, value);
    }
    bool Double(double value) {
        if (!std::isfinite(value)) {
            wrong = "a number is too large";
            return false;
        }
        return put(tag_double, value);
    }
    bool RawNumber(const char*, rapidjson::SizeType, bool) { return false; }
    bool String(const char* text, rapidjson::SizeType length, bool) {
        // RapidJSON 1.1 lets a lone low surrogate pass; as UTF-8 it begins with this byte.
        for (const char* at = text; escapes && (at = static_cast<const char*>(std::memchr(
                                         at, 0xED, static_cast<std::size_t>(text + length - at)))) != nullptr;
             ++at) {
            if (at + 1 < text + length && static_cast<unsigned char>(at[1]) >= 0xA0) {
                wrong = "a string has a lone surrogate";
                return false;
            }
        }
        char* at = room(5 + std::size_t(length));
        if (length < 256) {
            at[0] = tag_short_text;
            at[1] = static_cast<char>(static_cast<unsigned char>(length));
            at += 2;
            size += 2;
        } else {
            at[0] = tag_text;
            const auto bytes = static_cast<std::uint32_t>(length);
            std::memcpy(at + 1, &bytes, sizeof bytes);
            at += 5;
            size += 5;
        }
        std::memcpy(at, text, length);
        size += length;
        return true;
    }
    bool Key(const char* text, rapidjson::SizeType length, bool copy) { return String(text, length, copy); }
    bool begin(Tag tag) {
        if (++depth > most_depth) {
            wrong = "it is nested too deeply";
            return false;
        }
        open.push_back(static_cast<std::uint32_t>(size));
        return put(tag, std::uint32_t(0));
    }
    bool close() {
        const std::size_t at = open.back();
        open.pop_back();
        const auto bytes = static_cast<std::uint32_t>(size - at - 5);
        std::memcpy(tape.data + at + 1, &bytes, sizeof bytes);
        --depth;
        return true;
    }
    bool StartObject() { return begin(tag_object); }
    bool EndObject(rapidjson::SizeType) { return close(); }
    bool StartArray() { return begin(tag_array); }
    bool EndArray(rapidjson::SizeType) { return close(); }
};

// The kind of a value, and the value itself where it is short.
std::string describe(const char* at) {
    std::int64_t integer = 0;
    if (integer_at(at, integer)) return std::to_string(integer);
    switch (static_cast<Tag>(*at)) {
        case tag_null: return "null";
        case tag_false: return "false";
        case tag_true: return "true";
        case tag_uint64: return std::to_string(load_as<std::uint64_t>(at + 1));
        case tag_double: {
            char digits[40];
            std::string text(digits, write_real(digits, digits + sizeof digits, load_as<double>(at + 1)));
            if (text.find_first_of(".e") == std::string::npos) text += ".0";
            return text;
        }
        case tag_short_text:
        case tag_text: return '"' + shown(text_at(at), 40) + '"';
        case tag_object: return "an object";
        default: return "an array";
    }
}

}  // namespace

// What a thread keeps for parsing.
struct Parser {
    rapidjson::Reader reader{nullptr, 256};
    Buffer tape;
    Buffer copy;
    std::vector<std::uint32_t> open;
    std::vector<std::string_view> names;  // fields asked for, of all open objects
    bool busy = false;
    bool owned = false;
};

namespace {
std::unique_ptr<Parser>& thread_parser() {
    thread_local std::unique_ptr<Parser> parser;
    return parser;
}
}  // namespace

JsonReader::JsonReader(std::string_view json, Reading reading, const Limits& limits)
    : strict_(reading == Reading::strict) {
    if (json.size() > std::min(limits.bytes, any_size)) {
        problem("it has " + std::to_string(json.size()) + " bytes, " +
                std::to_string(std::min(limits.bytes, any_size)) + " are allowed");
        return;
    }
    if (const void* nul = json.empty() ? nullptr : std::memchr(json.data(), 0, json.size())) {
        problem("no JSON: a NUL character at byte " + std::to_string(static_cast<const char*>(nul) - json.data()));
        return;
    }
    // A field's own check may decode something: it then gets a parser of its own.
    auto& kept = thread_parser();
    std::unique_ptr<Parser> fresh;
    if (!kept) kept = std::make_unique<Parser>();
    if (kept->busy) {
        fresh = std::make_unique<Parser>();
        fresh->owned = true;
    }
    Parser& parser = fresh ? *fresh : *kept;
    parser.tape.reserve(512);
    parser.open.clear();
    parser.names.clear();
    const bool escapes = !json.empty() && std::memchr(json.data(), '\\', json.size()) != nullptr;
    TapeWriter handler{parser.tape, 0, 0, limits.depth, parser.open, escapes};
    constexpr unsigned flags =
        rapidjson::kParseIterativeFlag | rapidjson::kParseValidateEncodingFlag | rapidjson::kParseFullPrecisionFlag;
    rapidjson::ParseResult result;
    if (constexpr std::size_t short_text = 64u << 10; json.size() < short_text) {
        parser.copy.reserve(std::max<std::size_t>(json.size() + 1, 512));
        if (!json.empty()) std::memcpy(parser.copy.data, json.data(), json.size());
        parser.copy.data[json.size()] = '\0';
        CopiedSource source{parser.copy.data, parser.copy.data};
        result = parser.reader.Parse<flags | rapidjson::kParseInsituFlag>(source, handler);
    } else {
        Source source{json.data(), json.data() + json.size(), json.data()};
        result = parser.reader.Parse<flags>(source, handler);
    }
    if (result.IsError()) {
        std::string cause = handler.wrong ? handler.wrong : rapidjson::GetParseError_En(result.Code());
        if (handler.wrong && handler.depth > limits.depth) {
            cause += ", " + std::to_string(limits.depth) + " levels are allowed";
        }
        problem("no JSON: " + cause + " at byte " + std::to_string(result.Offset()));
        if (!fresh && json.size() > Buffer::kept) kept.reset();
        return;
    }
    parser.busy = true;
    parser_ = fresh ? fresh.release() : &parser;
    root_ = at_ = parser_->tape.data;
}

JsonReader::~JsonReader() {
    if (parser_ == nullptr) return;
    if (parser_->owned) {
        delete parser_;
    } else if (parser_->tape.size > Buffer::kept) {
        thread_parser().reset();
    } else {
        parser_->busy = false;
    }
}

// ---- Reading

void JsonReader::problem(std::string text) {
    constexpr std::size_t most = 100;
    if (++problem_count_ < most) problems_.push_back({path_of(place_), std::move(text)});
    else if (problem_count_ == most) problems_.push_back({"", "there are more problems"});
}

void JsonReader::problem_at(std::string_view key, std::string text) {
    const Place* before = place_;
    const Place place{.outer = before, .key = key};
    place_ = &place;
    problem(std::move(text));
    place_ = before;
}

void JsonReader::expected(std::string_view what) {
    problem("expected " + std::string(what) + ", got " + describe(at_));
}

bool JsonReader::is_null() const noexcept { return *at_ == tag_null; }
bool JsonReader::is_text() const noexcept { return is_text_at(at_); }

bool JsonReader::boolean(bool& value) {
    if (*at_ == tag_true || *at_ == tag_false) {
        value = *at_ == tag_true;
        return true;
    }
    if (lax_ && is_text()) {
        const auto given = text_at(at_);
        if (given == "true" || given == "false") {
            value = given == "true";
            return true;
        }
    }
    expected("boolean");
    return false;
}

namespace {
template <class N>
bool number_in(std::string_view text, N& value) {
    const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
    return result.ec == std::errc() && result.ptr == text.data() + text.size();
}
}  // namespace

bool JsonReader::integer(std::int64_t& value, std::int64_t least, std::int64_t most) {
    std::int64_t number = 0;
    if (!integer_at(at_, number)) {
        if (*at_ == tag_uint64) {
            expected("integer from " + std::to_string(least) + " to " + std::to_string(most));
            return false;
        }
        if (!(lax_ && is_text_at(at_) && number_in(text_at(at_), number))) {
            expected("integer");
            return false;
        }
    }
    if (number < least || number > most) {
        expected("integer from " + std::to_string(least) + " to " + std::to_string(most));
        return false;
    }
    value = number;
    return true;
}

bool JsonReader::natural(std::uint64_t& value, std::uint64_t most) {
    std::int64_t number = 0;
    std::uint64_t found = 0;
    bool negative = false;
    if (integer_at(at_, number)) {
        negative = number < 0;
        found = static_cast<std::uint64_t>(number);
    } else if (*at_ == tag_uint64) {
        found = load_as<std::uint64_t>(at_ + 1);
    } else if (!(lax_ && is_text_at(at_) && number_in(text_at(at_), found))) {
        expected("integer");
        return false;
    }
    if (negative || found > most) {
        expected("integer from 0 to " + std::to_string(most));
        return false;
    }
    value = found;
    return true;
}

bool JsonReader::real(double& value) {
    if (real_at(at_, value)) return true;
    double number = 0;
    if (lax_ && is_text_at(at_) && number_in(text_at(at_), number) && std::isfinite(number)) {
        value = number;
        return true;
    }
    expected("number");
    return false;
}

bool JsonReader::real(float& value) {
    double number = 0;
    if (!real(number)) return false;
    if (std::abs(number) > static_cast<double>(std::numeric_limits<float>::max())) {
        expected("number of single precision");
        return false;
    }
    value = static_cast<float>(number);
    return true;
}

bool JsonReader::text(std::string_view& value, std::string_view what) {
    if (!is_text_at(at_)) {
        expected(what);
        return false;
    }
    value = text_at(at_);
    return true;
}

void JsonReader::text(std::string& value) {
    if (is_text_at(at_)) value = text_at(at_);
    else if (lax_ && *at_ >= tag_false && *at_ <= tag_double) value = describe(at_);
    else expected("string");
}

bool JsonReader::base64(std::string& bytes) {
    std::string_view given;
    if (!text(given, "base64 text")) return false;
    static constexpr auto values = [] {
        std::array<signed char, 256> table{};
        for (auto& value : table) value = -1;
        for (int i = 0; i < 64; ++i) table[static_cast<unsigned char>(base64_digits[i])] = static_cast<signed char>(i);
        return table;
    }();
    bytes.clear();
    bytes.reserve(given.size() / 4 * 3);
    bool good = given.size() % 4 == 0;
    for (std::size_t i = 0; good && i < given.size(); i += 4) {
        const bool last = i + 4 == given.size();
        const std::size_t padding = !last ? 0 : given[i + 3] != '=' ? 0 : given[i + 2] != '=' ? 1 : 2;
        std::uint32_t group = 0;
        for (std::size_t j = 0; j < 4; ++j) {
            const int value = j >= 4 - padding ? 0 : values[static_cast<unsigned char>(given[i + j])];
            good = good && value >= 0;
            group = (group << 6) | static_cast<std::uint32_t>(value & 63);
        }
        // Bits that belong to no byte must be zero, or two texts would mean the same bytes.
        if (padding == 1) good = good && (group & 0xFF) == 0;
        if (padding == 2) good = good && (group & 0xFFFF) == 0;
        bytes += static_cast<char>(static_cast<unsigned char>(group >> 16));
        if (padding < 2) bytes += static_cast<char>(static_cast<unsigned char>((group >> 8) & 255));
        if (padding < 1) bytes += static_cast<char>(static_cast<unsigned char>(group & 255));
    }
    if (!good) expected("base64 text");
    return good;
}

namespace {

// RFC 3339, with Z or an offset.
bool parse_time(std::string_view text, std::int64_t& seconds, std::int64_t& nanoseconds) {
    using namespace std::chrono;
    std::size_t at = 0;
    bool good = true;
    const auto number = [&](int digits) {
        int value = 0;
        for (int i = 0; i < digits; ++i, ++at) {
            if (at >= text.size() || text[at] < '0' || text[at] > '9') {
                good = false;
                return 0;
            }
            value = value * 10 + (text[at] - '0');
        }
        return value;
    };
    const auto sign = [&](std::string_view any) {
        if (at < text.size() && any.find(text[at]) != std::string_view::npos) return text[at++];
        good = false;
        return '\0';
    };
    const int y = number(4);
    sign("-");
    const int m = number(2);
    sign("-");
    const int d = number(2);
    sign("Tt ");
    const int h = number(2);
    sign(":");
    const int minute = number(2);
    sign(":");
    const int s = number(2);
    nanoseconds = 0;
    if (good && at < text.size() && text[at] == '.') {
        ++at;
        std::int64_t scale = 100'000'000;
        const std::size_t begin = at;
        for (; at < text.size() && text[at] >= '0' && text[at] <= '9'; ++at, scale /= 10) {
            nanoseconds += (text[at] - '0') * scale;
        }
        good = at > begin && at - begin <= 9;
    }
    if (!good || at >= text.size()) return false;
    int offset = 0;
    if (const char zone = sign("Zz+-"); zone == '+' || zone == '-') {
        const int hours = number(2);
        sign(":");
        const int minutes = number(2);
        if (hours > 23 || minutes > 59) return false;
        offset = (hours * 60 + minutes) * (zone == '-' ? -60 : 60);
    }
    const year_month_day date{year(y), month(static_cast<unsigned>(m)), day(static_cast<unsigned>(d))};
    if (!good || at != text.size() || !date.ok() || h > 23 || minute > 59 || s > 59) return false;
    seconds = sys_seconds(sys_days(date)).time_since_epoch().count() + h * 3600 + minute * 60 + s - offset;
    return true;
}

}  // namespace

bool JsonReader::time(std::int64_t& seconds, std::int64_t& nanoseconds, std::int64_t least, std::int64_t most) {
    std::string_view given;
    if (!text(given, "time like 2026-01-31T12:00:00Z")) return false;
    if (!parse_time(given, seconds, nanoseconds)) {
        expected("time like 2026-01-31T12:00:00Z");
        return false;
    }
    if (seconds < least || seconds > most) {
        expected("time within the range of its type");
        return false;
    }
    return true;
}

void JsonReader::id(Id& value) {
    std::string_view given;
    if (!text(given, "UUID")) return;
    if (auto wrong = parse_id(given, value)) problem(std::move(*wrong));
}

std::size_t JsonReader::one_of(const std::string_view* names, std::size_t count) {
    if (is_text_at(at_)) {
        for (std::size_t i = 0; i < count; ++i) {
            if (names[i] == text_at(at_)) return i;
        }
    }
    std::string all = "one of";
    for (std::size_t i = 0; i < count; ++i) {
        all += i ? ", " : " ";
        all += names[i];
    }
    expected(all);
    return count;
}

// ---- Objects and arrays

JsonReader::Object::Object(JsonReader& from, const RuleSet* rule_set)
    : reader(from),
      rules(rule_set),
      outer(from.object_),
      outer_place(from.place_),
      first_name(from.parser_->names.size()),
      unnamed_before(std::exchange(from.unnamed_, 0)) {
    if (*reader.at_ != tag_object) {
        reader.expected("object");
        return;
    }
    begin = cursor = reader.at_ + 5;
    end = begin + load_as<std::uint32_t>(reader.at_ + 1);
    place.outer = outer_place;
    reader.object_ = this;
    reader.place_ = &place;
}

JsonReader::Object::~Object() {
    reader.object_ = outer;
    reader.place_ = outer_place;
    reader.unnamed_ = unnamed_before;
    reader.parser_->names.resize(first_name);
}

bool JsonReader::find(std::string_view name) {
    Object& object = *object_;
    parser_->names.push_back(name);
    object.place.key = name;
    lax_ = false;
    object.field_rules = nullptr;
    if (object.rules != nullptr) {
        object.field_rules = object.rules->find(name);
        if (object.field_rules != nullptr) {
            for (const Rule& rule : object.field_rules->rules) lax_ = lax_ || rule.what == Rule::What::lax;
        }
    }
    const char* found = nullptr;
    if (object.cursor != object.end && text_at(object.cursor) == name) {
        found = object.cursor;
    } else if (object.cursor != object.end || object.irregular) {
        // From here to the end, then from the start: fields in another order are still found in few steps.
        object.irregular = true;
        for (const char* at = object.cursor; found == nullptr && at != object.end; at = skip(skip(at))) {
            if (text_at(at) == name) found = at;
        }
        for (const char* at = object.begin; found == nullptr && at != object.cursor; at = skip(skip(at))) {
            if (text_at(at) == name) found = at;
        }
    }
    if (found == nullptr) {
        if (object.field_rules != nullptr) {
            for (const Rule& rule : object.field_rules->rules) {
                if (rule.what == Rule::What::required) problem("is missing");
            }
        }
        return false;
    }
    at_ = object.value = skip(found);
    object.problems_before = problem_count_;
    return true;
}

void JsonReader::leave_field() {
    Object& object = *object_;
    object.cursor = skip(object.value);
    if (object.field_rules != nullptr && problem_count_ == object.problems_before) {
        check(*object.field_rules, *object.rules, object.value);
    }
}

void JsonReader::Object::finish() {
    auto& names = reader.parser_->names;
    const auto known = names.begin() + static_cast<std::ptrdiff_t>(first_name);
    if (rules != nullptr) {
        for (const FieldRules& field : rules->fields) {
            if (std::find(known, names.end(), field.field) == names.end()) {
                throw Error("rules: there is no field '" + field.field + "'");
            }
        }
    }
    // Every key was the next field, and none is left: nothing is unknown and nothing stands twice.
    if (!irregular && cursor == end) return;
    std::vector<bool> seen(static_cast<std::size_t>(names.end() - known));
    for (const char* at = begin; at != end; at = skip(skip(at))) {
        const std::string_view key = text_at(at);
        const auto found = std::find(known, names.end(), key);
        if (found == names.end()) {
            if (reader.strict_) {
                place.key = key;
                reader.problem("unknown field");
            }
            continue;
        }
        const auto index = static_cast<std::size_t>(found - known);
        if (seen[index]) {
            place.key = key;
            reader.problem("stands twice");
        }
        seen[index] = true;
    }
}

JsonReader::Items::Items(JsonReader& from, bool map) : reader(from), outer_place(from.place_), is_map(map) {
    if (*reader.at_ != (is_map ? tag_object : tag_array)) {
        reader.expected(is_map ? "object" : "array");
        return;
    }
    begin = cursor = reader.at_ + 5;
    end = begin + load_as<std::uint32_t>(reader.at_ + 1);
    place.outer = outer_place;
    place.is_index = !is_map;
    reader.place_ = &place;
}

JsonReader::Items::~Items() {
    reader.place_ = outer_place;
    if (begin != nullptr) reader.at_ = begin - 5;
}

bool JsonReader::Items::next() {
    if (cursor == end) {
        at_end = true;
        return false;
    }
    place.index = count++;
    if (is_map) {
        place.key = key = text_at(cursor);
        cursor = skip(cursor);
    }
    reader.at_ = cursor;
    cursor = skip(cursor);
    return true;
}

void JsonReader::Items::expect_size(std::size_t size) {
    for (; cursor != end; cursor = skip(cursor)) ++count;
    if (count == size && !at_end) return;
    reader.place_ = outer_place;
    reader.problem("expected " + std::to_string(size) + " elements, got " + std::to_string(count));
}

// ---- Rules

void JsonReader::take_lax(const RuleSet& rules) noexcept {
    for (const FieldRules& field : rules.fields) {
        for (const Rule& rule : field.rules) lax_ = lax_ || rule.what == Rule::What::lax;
    }
}

// A pattern as the program of a machine that is in many places at once: each character is looked at
// once per instruction, so no text can make it slow or use up the stack.
struct Pattern {
    struct Step {
        enum class Do { set, split, jump, done } what = Do::done;
        std::size_t first = 0;   // of split and jump
        std::size_t second = 0;  // of split
        std::vector<std::pair<char32_t, char32_t>> ranges{};
        bool negated = false;
    };

    explicit Pattern(std::string_view text) : text_(text) {
        if (find_bad_utf8(text) != nullptr) fail("it is no UTF-8");
        alternatives(0);
        if (at_ != text_.size()) fail("unexpected ')'");
        emit(Step{});
    }

    [[nodiscard]] bool matches(std::string_view given) const {
        std::vector<std::size_t> now;
        std::vector<std::size_t> next;
        std::vector<std::size_t> marks(steps_.size(), 0);
        std::vector<std::size_t> open;
        std::size_t round = 1;
        const auto add = [&](std::vector<std::size_t>& list, std::size_t first) {
            open.assign(1, first);
            while (!open.empty()) {
                const std::size_t i = open.back();
                open.pop_back();
                if (marks[i] == round) continue;
                marks[i] = round;
                const Step& step = steps_[i];
                if (step.what == Step::Do::jump) {
                    open.push_back(step.first);
                } else if (step.what == Step::Do::split) {
                    open.push_back(step.second);
                    open.push_back(step.first);
                } else {
                    list.push_back(i);
                }
            }
        };
        add(now, 0);
        for (std::size_t at = 0; at < given.size();) {
            const char32_t c = decode(given, at);
            ++round;
            next.clear();
            for (const std::size_t i : now) {
                if (steps_[i].what == Step::Do::set && takes(steps_[i], c)) add(next, i + 1);
            }
            std::swap(now, next);
            if (now.empty()) return false;
        }
        return std::any_of(now.begin(), now.end(), [&](std::size_t i) { return steps_[i].what == Step::Do::done; });
    }

private:
    static bool takes(const Step& step, char32_t c) {
        bool within = false;
        for (const auto& range : step.ranges) within = within || (c >= range.first && c <= range.second);
        return within != step.negated;
    }
    // Text is known to be UTF-8.
    static char32_t decode(std::string_view text, std::size_t& at) {
        const auto first = static_cast<unsigned char>(text[at++]);
        if (first < 0x80) return first;
        const int more = first < 0xE0 ? 1 : first < 0xF0 ? 2 : 3;
        char32_t c = first & (0x3Fu >> more);
        for (int i = 0; i < more && at < text.size(); ++i)
            c = (c << 6) | (static_cast<unsigned char>(text[at++]) & 0x3Fu);
        return c;
    }
    [[noreturn]] void fail(std::string_view why) const {
        throw Error("read the pattern '" + std::string(text_) + "': " + std::string(why) + " at byte " +
                    std::to_string(at_));
    }
    void emit(Step step) {
        if (steps_.size() >= 10'000) fail("it is too large");
        steps_.push_back(std::move(step));
    }
    [[nodiscard]] bool more(char c) const { return at_ < text_.size() && text_[at_] == c; }

    void alternatives(std::size_t depth) {
        if (depth > 50) fail("it is nested too deeply");
        std::vector<std::size_t> jumps;
        while (true) {
            const std::size_t begin = steps_.size();
            while (at_ < text_.size() && text_[at_] != '|' && text_[at_] != ')') repeated(depth);
            if (!more('|')) break;
            ++at_;
            insert(begin, Step{Step::Do::split, begin + 1, steps_.size() + 2});
            jumps.push_back(steps_.size());
            emit(Step{Step::Do::jump});
        }
        for (const std::size_t jump : jumps) steps_[jump].first = steps_.size();
    }

    // Everything that points behind `where` moves with it.
    void insert(std::size_t where, Step step) {
        if (steps_.size() >= 10'000) fail("it is too large");
        for (std::size_t i = where; i < steps_.size(); ++i) {
            if (steps_[i].what == Step::Do::set || steps_[i].what == Step::Do::done) continue;
            ++steps_[i].first;
            ++steps_[i].second;
        }
        steps_.insert(steps_.begin() + static_cast<std::ptrdiff_t>(where), std::move(step));
    }

    void repeated(std::size_t depth) {
        const std::size_t begin = steps_.size();
        atom(depth);
        while (at_ < text_.size() &&
               (text_[at_] == '*' || text_[at_] == '+' || text_[at_] == '?' || text_[at_] == '{')) {
            std::size_t least = 0;
            std::size_t most = any;
            const char sign = text_[at_++];
            if (sign == '+') least = 1;
            if (sign == '?') most = 1;
            if (sign == '{') {
                least = number();
                most = least;
                if (more(',')) {
                    ++at_;
                    most = more('}') ? any : number();
                }
                if (!more('}') || most < least) fail("a repetition is {n}, {n,} or {n,m}");
                ++at_;
            }
            repeat(begin, least, most);
        }
    }

    static constexpr std::size_t any = static_cast<std::size_t>(-1);
    [[nodiscard]] std::size_t number() {
        std::size_t value = 0;
        const std::size_t begin = at_;
        for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
            value = value * 10 + static_cast<std::size_t>(text_[at_] - '0');
            if (value > 1000) fail("more than 1000 repetitions");
        }
        if (at_ == begin) fail("expected a number");
        return value;
    }

    void repeat(std::size_t begin, std::size_t least, std::size_t most) {
        const std::vector<Step> piece(steps_.begin() + static_cast<std::ptrdiff_t>(begin), steps_.end());
        steps_.resize(begin);
        const auto copy = [&] {
            const std::size_t moved = steps_.size() - begin;
            for (Step step : piece) {
                step.first += moved;
                step.second += moved;
                emit(std::move(step));
            }
        };
        for (std::size_t i = 0; i < least; ++i) copy();
        if (most == any) {
            const std::size_t loop = steps_.size();
            emit(Step{Step::Do::split, loop + 1, 0});
            copy();
            emit(Step{Step::Do::jump, loop});
            steps_[loop].second = steps_.size();
            return;
        }
        std::vector<std::size_t> exits;
        for (std::size_t i = least; i < most; ++i) {
            exits.push_back(steps_.size());
            emit(Step{Step::Do::split, steps_.size() + 1, 0});
            copy();
        }
        for (const std::size_t exit : exits) steps_[exit].second = steps_.size();
    }

    void atom(std::size_t depth) {
        Step step{Step::Do::set};
        const char32_t c = decode(text_, at_);
        switch (c) {
            case '(':
                if (text_.substr(at_, 2) == "?:") at_ += 2;
                alternatives(depth + 1);
                if (!more(')')) fail("a group is not closed");
                ++at_;
                return;
            case '.': step.negated = true; break;
            case '[': set(step); break;
            case '\\': escape(step); break;
            case '*':
            case '+':
            case '?':
            case '{': fail("nothing to repeat");
            case '^':
            case '$': fail("the whole text is matched, anchors are not needed");
            default: step.ranges.emplace_back(c, c);
        }
        emit(std::move(step));
    }

    void escape(Step& step) {
        if (at_ == text_.size()) fail("a lone backslash");
        const char32_t c = decode(text_, at_);
        switch (c) {
            case 'd': step.ranges.emplace_back('0', '9'); break;
            case 'w':
                step.ranges.insert(step.ranges.end(), {{'0', '9'}, {'a', 'z'}, {'A', 'Z'}, {'_', '_'}});
                break;
            case 's': step.ranges.insert(step.ranges.end(), {{' ', ' '}, {'\t', '\r'}}); break;
            case 'n': step.ranges.emplace_back('\n', '\n'); break;
            case 't': step.ranges.emplace_back('\t', '\t'); break;
            default:
                if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')) fail("unknown escape");
                step.ranges.emplace_back(c, c);
        }
    }

    void set(Step& step) {
        if (more('^')) {
            step.negated = true;
            ++at_;
        }
        while (!more(']')) {
            if (at_ == text_.size()) fail("a set is not closed");
            const char32_t c = decode(text_, at_);
            if (c == '\\') {
                escape(step);
                continue;
            }
            char32_t last = c;
            if (more('-') && at_ + 1 < text_.size() && text_[at_ + 1] != ']') {
                ++at_;
                last = decode(text_, at_);
                if (last < c) fail("a range goes backwards");
            }
            step.ranges.emplace_back(c, last);
        }
        ++at_;
    }

    std::string_view text_;
    std::size_t at_ = 0;
    std::vector<Step> steps_;
};

RuleSet::RuleSet(Rules given) : fields(std::move(given)) {
    for (const FieldRules& field : fields) {
        for (const Rule& rule : field.rules) {
            if (rule.what == Rule::What::matches) patterns.emplace_back(&rule, std::make_unique<Pattern>(rule.pattern));
        }
    }
}
RuleSet::~RuleSet() = default;

const FieldRules* RuleSet::find(std::string_view name) const noexcept {
    for (const FieldRules& field : fields) {
        if (field.field == name) return &field;
    }
    return nullptr;
}

const Pattern& RuleSet::pattern(const Rule& rule) const {
    for (const auto& entry : patterns) {
        if (entry.first == &rule) return *entry.second;
    }
    throw Error("rules: a pattern is missing");
}

namespace {

std::string bound_text(const Rule& rule) {
    if (!rule.is_real) return std::to_string(rule.least);
    char digits[40];
    return std::string(digits, write_real(digits, digits + sizeof digits, rule.real));
}

std::string length_text(const Rule& rule) {
    if (rule.most == std::numeric_limits<std::int64_t>::max()) return "at least " + std::to_string(rule.least);
    return std::to_string(rule.least) + " to " + std::to_string(rule.most);
}

// Negative, zero or positive: how the number at `at` compares with the bound; nothing when it is no number.
std::optional<int> compare(const char* at, const Rule& rule, bool lax) {
    std::int64_t integer = 0;
    double real = 0;
    if (!rule.is_real) {
        if (integer_at(at, integer) || (lax && is_text_at(at) && number_in(text_at(at), integer))) {
            return integer < rule.least ? -1 : integer > rule.least ? 1 : 0;
        }
        if (*at == tag_uint64) return 1;
    }
    if (real_at(at, real) || (lax && is_text_at(at) && number_in(text_at(at), real))) {
        return real < rule.real ? -1 : real > rule.real ? 1 : 0;
    }
    return std::nullopt;
}

}  // namespace

void JsonReader::check(const FieldRules& rules, const RuleSet& set, const char* value) {
    at_ = value;
    const bool null = *value == tag_null;
    const bool lax_here = std::any_of(rules.rules.begin(), rules.rules.end(),
                                      [](const Rule& rule) { return rule.what == Rule::What::lax; });
    for (const Rule& rule : rules.rules) {
        switch (rule.what) {
            case Rule::What::lax: break;
            case Rule::What::required:
                if (null || (is_text_at(value) && text_at(value).empty())) problem("is empty");
                break;
            case Rule::What::at_least:
                if (const auto order = compare(value, rule, lax_here); order && *order < 0) {
                    expected("at least " + bound_text(rule));
                }
                break;
            case Rule::What::at_most:
                if (const auto order = compare(value, rule, lax_here); order && *order > 0) {
                    expected("at most " + bound_text(rule));
                }
                break;
            case Rule::What::length: {
                std::int64_t count = 0;
                std::string_view unit = " characters";
                if (is_text_at(value)) {
                    for (const char c : text_at(value)) count += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
                } else if (*value == tag_array || *value == tag_object) {
                    unit = " elements";
                    const char* const end = skip(value);
                    for (const char* at = value + 5; at != end; at = skip(at)) ++count;
                    if (*value == tag_object) count /= 2;
                } else {
                    break;
                }
                if (count < rule.least || count > rule.most) {
                    problem("expected " + length_text(rule) + std::string(unit) + ", got " + std::to_string(count));
                }
                break;
            }
            case Rule::What::matches:
                if (!is_text_at(value)) break;
                if (!set.pattern(rule).matches(text_at(value))) expected("text like " + rule.pattern);
                break;
        }
    }
}

// ---- JSON Schema

void JsonSchema::add_text(std::string_view text) {
    JsonWriter writer;
    writer.text(text);
    out_ += writer.take();
}

bool JsonSchema::enter(const void* type) {
    for (const auto& entry : types_) {
        if (entry.first != type) continue;
        out_ += R"({"$ref":)";
        add_text(entry.second);
        return false;
    }
    types_.emplace_back(type, path_);
    return true;
}

void JsonSchema::begin_struct(const RuleSet* rules) {
    structs_.push_back({rules, true, std::exchange(unnamed_, 0)});
    has_rules_ = has_rules_ || rules != nullptr;
    out_ += R"({"type":"object","properties":{)";
}

const FieldRules* JsonSchema::begin_field(std::string_view name) {
    Struct& current = structs_.back();
    if (!current.first) out_ += ',';
    current.first = false;
    add_text(name);
    out_ += ':';
    path_ += "/properties/";
    for (const char c : name) {
        if (c == '~') path_ += "~0";
        else if (c == '/') path_ += "~1";
        else path_ += c;
    }
    return current.rules ? current.rules->find(name) : nullptr;
}

void JsonSchema::end_struct() {
    const Struct current = structs_.back();
    structs_.pop_back();
    unnamed_ = current.unnamed_before;
    out_ += '}';
    if (current.rules == nullptr) return;
    bool first = true;
    for (const FieldRules& field : current.rules->fields) {
        for (const Rule& rule : field.rules) {
            if (rule.what != Rule::What::required) continue;
            out_ += first ? R"(,"required":[)" : ",";
            first = false;
            add_text(field.field);
            break;
        }
    }
    if (!first) out_ += ']';
}

void JsonSchema::add_rules(const FieldRules& rules) {
    has_rules_ = true;
    // A list of its own, since a type may have written a minimum or a pattern already.
    bool first = true;
    const auto one = [&](const std::string& json) {
        out_ += first ? R"(,"allOf":[{)" : ",{";
        first = false;
        out_ += json + '}';
    };
    for (const Rule& rule : rules.rules) {
        switch (rule.what) {
            case Rule::What::lax:
            case Rule::What::required: break;
            case Rule::What::at_least: one(R"("minimum":)" + bound_text(rule)); break;
            case Rule::What::at_most: one(R"("maximum":)" + bound_text(rule)); break;
            case Rule::What::length: {
                const std::string least = std::to_string(rule.least);
                one(R"("minLength":)" + least + R"(,"minItems":)" + least);
                if (rule.most == std::numeric_limits<std::int64_t>::max()) break;
                const std::string most = std::to_string(rule.most);
                one(R"("maxLength":)" + most + R"(,"maxItems":)" + most);
                break;
            }
            case Rule::What::matches: {
                JsonWriter writer;
                writer.text("^(?:" + rule.pattern + ")$");
                one(R"("pattern":)" + writer.take());
                break;
            }
        }
    }
    if (!first) out_ += ']';
}

}  // namespace detail

// ---- Metadata

namespace detail {
namespace {

struct Entry {
    std::string key;
    std::string json;
};

void write_tape(JsonWriter& writer, const char* at) {
    std::int64_t integer = 0;
    if (integer_at(at, integer)) return writer.integer(integer);
    switch (static_cast<Tag>(*at)) {
        case tag_null: return writer.null();
        case tag_false: return writer.boolean(false);
        case tag_true: return writer.boolean(true);
        case tag_uint64: return writer.natural(load_as<std::uint64_t>(at + 1));
        case tag_double: return writer.real(load_as<double>(at + 1));
        case tag_short_text:
        case tag_text: return writer.text(text_at(at));
        default: break;
    }
    const bool object = *at == tag_object;
    Place place;
    writer.begin(object ? '{' : '[', place);
    const char* const end = skip(at);
    for (at += 5; at != end; at = skip(at)) {
        if (object) {
            writer.key(place, text_at(at));
            at = skip(at);
        } else {
            writer.element(place);
        }
        write_tape(writer, at);
    }
    writer.end(object ? '}' : ']', place);
}

std::string json_of(const char* at) {
    JsonWriter writer;
    write_tape(writer, at);
    return writer.take();
}

void no_problems(JsonReader& reader, std::string_view what) {
    if (reader.problem_count() != 0) throw Invalid(what, reader.take_problems());
}

std::vector<Entry> entries_of(std::string_view json) {
    std::vector<Entry> entries;
    if (json.empty()) return entries;
    std::unordered_set<std::string> keys;
    JsonReader reader(json, Reading::tolerant, Limits{});
    if (reader.parsed()) {
        JsonReader::Items items(reader, true);
        while (items && items.next()) {
            if (!keys.emplace(items.key).second) reader.problem("stands twice");
            entries.push_back({std::string(items.key), json_of(reader.here())});
        }
    }
    no_problems(reader, "read metadata");
    return entries;
}

std::string join(const std::vector<Entry>& entries) {
    if (entries.empty()) return {};
    JsonWriter writer;
    Place place;
    writer.begin('{', place);
    for (const Entry& entry : entries) {
        writer.key(place, entry.key);
        writer.raw(entry.json);
    }
    writer.end('}', place);
    return writer.take();
}

}  // namespace

void JsonReader::metadata(Metadata& value) {
    if (*at_ != tag_object) return expected("object");
    value = Metadata::parse(json_of(at_));
}

}  // namespace detail

Metadata Metadata::parse(std::string_view json) {
    // Asked for each stored message that has some: look, but build nothing.
    Metadata metadata;
    detail::JsonReader reader(json, Reading::tolerant, Limits{});
    bool empty = true;
    if (reader.parsed()) {
        std::vector<std::string_view> keys;
        detail::JsonReader::Items items(reader, true);
        while (items && items.next()) keys.push_back(items.key);
        empty = keys.empty();
        std::sort(keys.begin(), keys.end());
        for (std::size_t i = 1; i < keys.size(); ++i) {
            if (keys[i] == keys[i - 1]) reader.problem("'" + detail::shown(keys[i]) + "' stands twice");
        }
    }
    detail::no_problems(reader, "read metadata");
    if (!empty) metadata.json_ = json;
    return metadata;
}

void Metadata::put(std::string_view key, std::string_view json) {
    auto entries = detail::entries_of(json_);
    const auto found =
        std::find_if(entries.begin(), entries.end(), [&](const auto& entry) { return entry.key == key; });
    if (found != entries.end()) found->json = json;
    else entries.push_back({std::string(key), std::string(json)});
    json_ = detail::join(entries);
}

Metadata& Metadata::set(std::string_view key, std::string_view value) {
    detail::JsonWriter writer;
    writer.text(value);
    put(key, writer.take());
    return *this;
}
void Metadata::set_integer(std::string_view key, std::int64_t value) { put(key, std::to_string(value)); }
void Metadata::set_unsigned(std::string_view key, std::uint64_t value) { put(key, std::to_string(value)); }
void Metadata::set_real(std::string_view key, double value) { put(key, encode(value)); }
void Metadata::set_bool(std::string_view key, bool value) { put(key, value ? "true" : "false"); }

Metadata& Metadata::set_json(std::string_view key, std::string_view json) {
    std::string normal;
    {
        detail::JsonReader reader(json, Reading::tolerant, Limits{});
        detail::no_problems(reader, "set metadata '" + detail::shown(key) + "'");
        normal = detail::json_of(reader.here());
    }
    put(key, normal);
    return *this;
}

std::optional<std::string> Metadata::get(std::string_view key) const {
    if (json_.empty()) return std::nullopt;
    detail::JsonReader reader(json_, Reading::tolerant, Limits{});
    detail::no_problems(reader, "read metadata");
    detail::JsonReader::Items items(reader, true);
    while (items.next()) {
        if (items.key != key) continue;
        std::string_view text;
        if (reader.is_text() && reader.text(text)) return std::string(text);
        return detail::json_of(reader.here());
    }
    return std::nullopt;
}

std::vector<std::string> Metadata::keys() const {
    std::vector<std::string> keys;
    for (auto& entry : detail::entries_of(json_)) keys.push_back(std::move(entry.key));
    return keys;
}

Metadata Metadata::merged_under(const Metadata& own) const {
    if (own.empty()) return *this;
    if (empty()) return own;
    auto entries = detail::entries_of(json_);
    std::unordered_map<std::string, std::size_t> where;
    for (std::size_t i = 0; i < entries.size(); ++i) where.emplace(entries[i].key, i);
    for (auto& entry : detail::entries_of(own.json_)) {
        if (const auto found = where.find(entry.key); found != where.end()) entries[found->second] = std::move(entry);
        else entries.push_back(std::move(entry));
    }
    Metadata merged;
    merged.json_ = detail::join(entries);
    return merged;
}

const std::string& Metadata::json() const noexcept {
    static const std::string none = "{}";
    return json_.empty() ? none : json_;
}

bool Metadata::operator==(const Metadata& other) const {
    if (json_ == other.json_) return true;
    auto mine = detail::entries_of(json_);
    auto theirs = detail::entries_of(other.json_);
    const auto by_key = [](const auto& a, const auto& b) { return a.key < b.key; };
    std::sort(mine.begin(), mine.end(), by_key);
    std::sort(theirs.begin(), theirs.end(), by_key);
    return std::equal(mine.begin(), mine.end(), theirs.begin(), theirs.end(),
                      [](const auto& a, const auto& b) { return a.key == b.key && a.json == b.json; });
}

// ---- Messages

void Message::begin(std::string_view name, Kind message_kind, int version) {
    type = name;
    kind = message_kind;
    schema = version;
    id = causation = correlation = Id::make();
}

void Message::cannot_read(std::string_view as_type, Problems problems) const {
    std::string what = "read '" + detail::shown(type) + "' in stream '" + detail::shown(stream) + "'";
    if (seq > 0) what += " at seq " + std::to_string(seq);
    if (position > 0) what += " (position " + std::to_string(position) + ")";
    what += " as '" + std::string(as_type) + "'";
    if (erased_at) throw Undecodable(what + ": its payload was erased");
    if (problems.empty()) throw Undecodable(what + ": it is of another type");
    throw Undecodable(what, std::move(problems));
}

Message Message::to(std::string_view other_stream) const& { return Message(*this).to(other_stream); }
Message Message::to(std::string_view other_stream) && {
    stream = other_stream;
    return std::move(*this);
}

Message Message::at(Time time) const {
    const Time now = occurred_at != Time{} ? occurred_at : recorded_at;
    if (time < now) {
        throw Invalid("move message '" + detail::shown(type) + "' back in time: it happened " +
                      std::to_string(static_cast<std::uint64_t>(now.time_since_epoch().count()) -
                                     static_cast<std::uint64_t>(time.time_since_epoch().count())) +
                      " us later");
    }
    return occurred(time);
}
Message Message::occurred(Time time) const {
    Message copy(*this);
    copy.occurred_at = time;
    return copy;
}
Message Message::with_id(const Id& other_id) const {
    Message copy(*this);
    if (copy.causation == id) copy.causation = other_id;
    if (copy.correlation == id) copy.correlation = other_id;
    copy.id = other_id;
    return copy;
}
Message Message::with_seq(std::int64_t other_seq) const {
    Message copy(*this);
    copy.seq = other_seq;
    return copy;
}
Message Message::with_metadata(const Metadata& other_metadata) const {
    Message copy(*this);
    copy.metadata = other_metadata;
    return copy;
}
Message Message::caused_by(const Envelope& cause) const& { return Message(*this).caused_by(cause); }
Message Message::caused_by(const Envelope& cause) && {
    causation = cause.id;
    correlation = cause.correlation;
    if (stream.empty()) stream = cause.stream;
    if (!cause.metadata.empty()) metadata = cause.metadata.merged_under(metadata);
    return std::move(*this);
}

// ---- Registry

const TypeInfo& Registry::do_add(TypeInfo info) {
    const auto taken = [&](const std::string& name) -> const TypeInfo* {
        const auto found = names_.find(name);
        return found == names_.end() ? nullptr : found->second;
    };
    const TypeInfo* known = taken(info.name);
    if (known != nullptr && known->name == info.name && *known->cpp_type == *info.cpp_type) return *known;
    std::vector<std::string> names{info.name};
    names.insert(names.end(), info.aliases.begin(), info.aliases.end());
    for (const std::string& name : names) {
        if (const TypeInfo* other = taken(name)) {
            throw Error("register message type '" + detail::shown(name) + "': another C++ type has that name already" +
                        (other->name == name ? "" : " as an alias of '" + detail::shown(other->name) + "'"));
        }
    }
    types_.push_back(std::make_unique<TypeInfo>(std::move(info)));
    for (const std::string& name : names) names_.emplace(name, types_.back().get());
    return *types_.back();
}

const TypeInfo* Registry::find(std::string_view name, std::optional<Kind> kind) const {
    const auto found = names_.find(std::string(name));
    if (found == names_.end() || (kind && found->second->kind != *kind)) return nullptr;
    return found->second;
}

const TypeInfo& Registry::get(std::string_view name, std::optional<Kind> kind) const {
    if (const TypeInfo* info = find(name, kind)) return *info;
    const std::string_view what = !kind ? "message" : *kind == Kind::command ? "command" : "event";
    throw NotRegistered("find " + std::string(what) + " type '" + detail::shown(name) + "': it is not registered");
}

std::vector<const TypeInfo*> Registry::types() const {
    std::vector<const TypeInfo*> all;
    for (const auto& type : types_) all.push_back(type.get());
    return all;
}

Message Registry::revive(std::string_view name, std::string_view stream, std::string_view payload,
                         std::optional<Kind> kind) const {
    const TypeInfo& info = get(name, kind);
    Message message;
    message.type = info.name;
    message.kind = info.kind;
    message.schema = info.schema;
    message.id = message.causation = message.correlation = Id::make();
    message.stream = stream;
    message.payload = payload.empty() ? std::string_view("{}") : payload;
    return message;
}

Problems Registry::problems(const Message& message, const Limits& limits) const {
    Problems all;
    const bool blank = message.stream.find_first_not_of(" \t\r\n") == std::string::npos;
    if (blank) all.push_back({"/stream", "is blank"});
    for (Problem& problem : get(message.type).check(message.payload, Reading::strict, limits)) {
        all.push_back({"/payload" + problem.path, std::move(problem.text)});
    }
    return all;
}

void Registry::check(const Message& message, const Limits& limits) const {
    Problems all = problems(message, limits);
    if (!all.empty()) throw Invalid("check message '" + detail::shown(message.type) + "'", std::move(all));
}

}  // namespace sourced
// ==== Handlers =================================================================

namespace sourced::detail {

/// `by` after `time`; what Time cannot hold is the first or the last that it can.
inline Time later(Time time, Duration by) {
    if (by >= Duration(0)) return time > Time::max() - by ? Time::max() : time + by;
    return time < Time::min() - by ? Time::min() : time + by;
}
/// `by` before `time`.
inline Time earlier(Time time, Duration by) {
    return later(time, by == Duration::min() ? Duration::max() : -by);
}
/// When `timeout` is over; one that is not over in the clock's lifetime never is.
inline std::chrono::steady_clock::time_point end_of(Duration timeout) {
    using Moment = std::chrono::steady_clock::time_point;
    const auto now = std::chrono::steady_clock::now();
    if (timeout >= std::chrono::floor<Duration>(Moment::max() - now)) return Moment::max();
    return now + std::max(timeout, Duration(0));
}

}  // namespace sourced::detail

namespace sourced {

Resolution Resolution::retry(Time at) { return {Verb::retry, at, {}, {}}; }
Resolution Resolution::stop(std::string_view reason) { return {Verb::stop, {}, std::string(reason), {}}; }
Resolution Resolution::park(std::string_view reason) { return {Verb::park, {}, std::string(reason), {}}; }
Resolution Resolution::skip(std::string_view reason) { return {Verb::skip, {}, std::string(reason), {}}; }
Resolution Resolution::when_recorded(std::function<void(const Fault&)> work) && {
    recorded = std::move(work);
    return std::move(*this);
}

ErrorStrategy::ErrorStrategy(Retries retries) {
    if (retries.times < 0) throw Invalid("Retries: times is " + std::to_string(retries.times));
    if (retries.then.verb == Resolution::Verb::retry) {
        throw Invalid("Retries: what comes after the last retry is to stop, to park or to skip");
    }
    strategy_ = [retries = std::move(retries)](const Fault& fault) {
        if (fault.deaths > 0 || fault.attempt > retries.times) {
            Resolution last = retries.then;
            if (retries.on_stop) last.recorded = retries.on_stop;
            return last;
        }
        Duration wait = retries.after;
        if (retries.backoff) {
            wait = retries.backoff(retries.after, fault.attempt);
        } else {
            for (int i = 1; i < fault.attempt && wait < retries.at_most; ++i) {
                wait = wait > retries.at_most / 2 ? retries.at_most : wait * 2;
            }
        }
        Resolution again = Resolution::retry(detail::later(fault.at, std::min(wait, retries.at_most)));
        if (retries.on_retry) {
            again.recorded = [told = retries.on_retry, when = again.at](const Fault& recorded) {
                told(recorded.attempt, recorded, when);
            };
        }
        return again;
    };
}

}  // namespace sourced

namespace sourced::detail {

// ---- what an exception says

struct Described {
    std::string type;
    std::string text;
};

inline std::string readable(const char* mangled) {
    int status = 0;
    char* text = abi::__cxa_demangle(mangled, nullptr, nullptr, &status);
    std::string name = status == 0 && text ? text : mangled;
    std::free(text);
    return name;
}

inline Described describe(const std::exception_ptr& error) {
    try {
        std::rethrow_exception(error);
    } catch (const std::exception& exception) {
        return {readable(typeid(exception).name()), exception.what()};
    } catch (...) {
        const auto* type = abi::__cxa_current_exception_type();
        return {type ? readable(type->name()) : "unknown", "an exception that is no std::exception was thrown"};
    }
}

namespace {

// A reactor without a name gets one only when it is complete.
std::string called(const Definition& definition) {
    using enum Definition::Role;
    const std::string role =
        definition.role == actor ? "actor" : definition.role == projector ? "projector" : "reactor";
    return definition.name.empty() ? "the " + role : role + " '" + definition.name + "'";
}

template <class Handlers>
void refuse_second(const Definition& definition, const Handlers& handlers, const std::string& name,
                   std::string_view verb) {
    if (handlers.contains(name))
        throw Error(called(definition) + " has two " + std::string(verb) + " handlers for '" + name + "'");
}

/// A command and an event are two C++ types, but both may have been given the same name.
template <class Handlers>
void refuse_both(const Definition& definition, const Handlers& others, const Declared& type) {
    auto names = type.aliases;
    names.push_back(type.name);
    for (const auto& name : names) {
        if (others.contains(name)) {
            throw Error(called(definition) + " has '" + name + "' both as a command and as a reaction");
        }
    }
}

template <class Handlers, class Handler>
void add_handler(Definition& definition, Handlers& handlers, const Declared& type, std::string_view verb,
                 const Handler& handler) {
    auto names = type.aliases;
    names.insert(names.begin(), type.name);
    for (const auto& name : names) refuse_second(definition, handlers, name, verb);
    for (const auto& name : names) {
        handlers.emplace(name, handler);
        auto& order = definition.order;
        if (std::find(order.begin(), order.end(), name) == order.end()) order.push_back(name);
    }
    add_type(definition, type);
}

/// Has the wildcard stand for every event that has no reaction of its own.
void spread_any_reaction(Definition& definition) {
    if (!definition.any_reaction) return;
    for (const auto& [name, evolve] : definition.events) {
        if (definition.commands.contains(name)) continue;
        const auto [place, fresh] = definition.reactions.emplace(name, *definition.any_reaction);
        if (!fresh && place->second.wildcard) place->second = *definition.any_reaction;
    }
}

}  // namespace

Value unsigned_value(std::uint64_t number) {
    if (number > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
        throw Invalid("an argument of SQL: " + std::to_string(number) + " is more than SQLite's integers hold");
    }
    return static_cast<std::int64_t>(number);
}

std::vector<std::string> Definition::handled() const {
    std::vector<std::string> names;
    std::copy_if(order.begin(), order.end(), std::back_inserter(names),
                 [&](const auto& each) { return handles(each); });
    return names;
}

void name_reactor(Definition& definition, Definition::Role role, std::string_view name) {
    definition.role = role;
    definition.name = name;
}

void add_type(Definition& definition, const Declared& type) { definition.registrations.emplace_back(type.add); }

void add_command(Definition& definition, const Declared& type, Definition::CommandHandler handler) {
    refuse_both(definition, definition.reactions, type);
    add_handler(definition, definition.commands, type, "command", handler);
}

void add_event(Definition& definition, const Declared& type, Definition::Evolve call) {
    add_handler(definition, definition.events, type, "event", std::move(call));
    spread_any_reaction(definition);
}

void add_reaction(Definition& definition, const Declared& type, Definition::ReactionHandler handler) {
    refuse_both(definition, definition.commands, type);
    std::erase_if(definition.reactions, [&](const auto& entry) {
        return entry.second.wildcard && (entry.first == type.name || std::find(type.aliases.begin(), type.aliases.end(),
                                                                               entry.first) != type.aliases.end());
    });
    const bool reacts = definition.role != Definition::Role::reactor;
    add_handler(definition, definition.reactions, type, reacts ? "reaction" : "message", handler);
}

void add_any_reaction(Definition& definition, Definition::ReactionHandler handler) {
    only_once(definition, definition.any_reaction.has_value(), "reaction(const Message&)");
    handler.wildcard = true;
    definition.any_reaction = std::move(handler);
    spread_any_reaction(definition);
}

void add_key(Definition& definition, const Declared& type, Definition::Key call) {
    add_handler(definition, definition.keys, type, "key", std::move(call));
    definition.key = [keys = definition.keys](const Message& message) { return keys.at(message.type)(message); };
}

void only_once(const Definition& definition, bool there_already, std::string_view verb) {
    if (there_already) throw Error(called(definition) + " has two " + std::string(verb) + " handlers");
}

std::string Definition::state_name() const { return state_type ? readable(state_type->name()) : std::string(); }

void complete(Definition& definition, const std::type_info& type) {
    if (definition.name.empty()) definition.name = readable(type.name());
    if (definition.name.find_first_not_of(" \t\r\n") == std::string::npos) {
        throw Invalid("a reactor's name is blank: it is what its progress is kept under");
    }
    if (!definition.initial && definition.role != Definition::Role::reactor)
        throw Error(called(definition) + " has no state handler, and its State no default constructor");
    if (!definition.serve && definition.role == Definition::Role::reactor)
        throw Error(called(definition) + " has no run() handler");
    if (!definition.commands.empty()) {
        definition.registrations.emplace_back([](Registry& registry) { registry.add<Refused>(); });
    }
    if (definition.role == Definition::Role::projector) {
        for (const auto& [name, reaction] : definition.reactions) {
            if (!definition.events.contains(name)) {
                throw Error(called(definition) + " reacts to '" + name + "', but has no event handler for it");
            }
            if (!definition.keys.empty() && reaction.wants_state) {
                throw Error(called(definition) + " is keyed, so its state is not at hand where it reacts to '" + name +
                            "': write (const Event&)");
            }
        }
    }
    if (!definition.keys.empty()) {
        for (const auto& [name, call] : definition.events) {
            if (!definition.keys.contains(name))
                throw Error(called(definition) + " is keyed, but has no key handler for '" + name + "'");
        }
        for (const auto& [name, call] : definition.keys) {
            if (!definition.events.contains(name))
                throw Error(called(definition) + " has a key handler for '" + name + "', but no event handler");
        }
    }
}

std::int64_t evolve(const Definition& definition, void* state, std::string_view stream, std::int64_t seq,
                    const Messages& messages) {
    const auto failed = [&](const Message& message, const std::string& why) {
        return Error("evolve " + called(definition) + " at '" + std::string(stream) + "' with '" + message.type +
                     "': " + why);
    };
    for (const auto& message : messages) {
        if (!message.stream.empty() && message.stream != stream)
            throw failed(message, "it is of a different stream, '" + message.stream + "'");
        if (message.seq != 0 && message.seq <= seq) {
            throw failed(message,
                         "its seq " + std::to_string(message.seq) + " is not behind the last, " + std::to_string(seq));
        }
        seq = message.seq != 0 ? message.seq : seq + 1;
        const auto found = definition.events.find(message.type);
        if (found == definition.events.end()) continue;
        if (definition.before_evolve) definition.before_evolve(state, message);
        if (found->second) found->second(state, message);
    }
    return seq;
}

Decided decide(const Definition& definition, const void* state, const Message& command) {
    const auto found = definition.commands.find(command.type);
    if (found == definition.commands.end()) {
        throw NotRegistered(called(definition) + " has no handler for the command '" + command.type + "'");
    }
    return found->second.call(state, command);
}

}  // namespace sourced::detail
// ==== Actors ===================================================================

namespace sourced {

void Declaration::do_produces(const std::vector<detail::Declared>& types) const {
    const auto add = [&](std::optional<std::vector<std::string>>& produces) {
        if (!produces) produces.emplace();
        for (const auto& type : types) {
            if (std::find(produces->begin(), produces->end(), type.name) == produces->end()) {
                produces->push_back(type.name);
            }
        }
    };
    for (const auto& type : types) detail::add_type(*definition_, type);
    if (names_.empty()) {
        add(definition_->any_reaction->produces);
        detail::spread_any_reaction(*definition_);
    }
    for (const auto& name : names_) {
        if (verb_ == Verb::command) add(definition_->commands.at(name).produces);
        else add(definition_->reactions.at(name).produces);
    }
}

Refusal refuse(std::string_view reason) { return Refusal{std::string(reason)}; }

Dispatch::Dispatch(Message command) { sending_.message = std::move(command); }
Dispatch::Dispatch(detail::Sending sending) : sending_(std::move(sending)) {}

Dispatch& Dispatch::to(std::string_view stream) & {
    if (stream.empty()) throw Invalid("dispatch '" + sending_.message.type + "': the stream it goes to has no name");
    sending_.to = stream;
    sending_.fresh = false;
    return *this;
}

Dispatch& Dispatch::to_new(std::string_view prefix) & {
    to(prefix);
    sending_.fresh = true;
    return *this;
}

Dispatch& Dispatch::at_time(Time time) {
    sending_.at = time;
    sending_.after.reset();
    return *this;
}

Dispatch& Dispatch::in(Duration delay) & {
    if (delay < Duration::zero()) throw Invalid("dispatch '" + sending_.message.type + "': its delay is negative");
    sending_.after = delay;
    sending_.at.reset();
    return *this;
}

Dispatch& Dispatch::with_metadata(const Metadata& metadata) & {
    sending_.message.metadata = sending_.message.metadata.merged_under(metadata);
    return *this;
}

}  // namespace sourced
// ==== Projectors ===============================================================

namespace sourced::detail {

namespace {

std::string quoted(std::string_view name) {
    std::string text = "\"";
    for (const char c : name) {
        text += c;
        if (c == '"') text += c;
    }
    return text + '"';
}

}  // namespace

void store_as_rows(Definition& definition, const std::string& table) {
    if (table.find('\0') != std::string::npos) {
        throw Invalid("a projection's name is part of a table's name, so it holds no NUL");
    }
    definition.table = table;
    definition.on_install = [table](Transaction& transaction) {
        // SQLite takes upper and lower case of a table's name for the same.
        const auto other =
            transaction.row("select name from sqlite_master where name = ? collate nocase and name <> ?", table, table);
        if (other) {
            throw Error("install the table '" + table + "': there is '" + other->text(0) +
                        "', and SQLite does not tell them apart");
        }
        transaction.execute("create table if not exists " + quoted(transaction.table(table)) +
                            " (id text primary key, state text not null) strict, without rowid");
    };
    definition.on_reset = [table](Transaction& transaction) { transaction.execute("delete from " + quoted(table)); };
    definition.on_stream_reset = [table](std::string_view stream, Transaction& transaction) {
        transaction.execute("delete from " + quoted(table) + " where id = ?", stream);
    };
}

std::optional<std::string> stored_row(Reader& reader, const std::string& table, std::string_view id) {
    const auto row = reader.row("select state from " + quoted(reader.table(table)) + " where id = ?", id);
    if (!row) return std::nullopt;
    return row->text(0);
}

std::optional<std::string> stored_row(Store& store, const std::string& table, std::string_view id) {
    std::optional<std::string> json;
    store.read([&](Reader& reader) { json = stored_row(reader, table, id); });
    return json;
}

void store_row(Transaction& transaction, const std::string& table, std::string_view id, const std::string& state) {
    transaction.execute("insert into " + quoted(transaction.table(table)) +
                            " (id, state) values (?, ?) on conflict (id) do update set state = excluded.state",
                        id, state);
}

void cannot_read_row(const std::string& table, std::string_view id, const Problems& problems) {
    throw Undecodable("read the row '" + std::string(id) + "' of " + table, problems);
}

}  // namespace sourced::detail
// ==== Reactors =================================================================

namespace sourced {

const Messages& Batch::history() const {
    if (!history_) throw Error("the history of '" + std::string(stream()) + "' was not asked for: wants_history()");
    return *history_;
}

Results Results::retry(Time time) {
    Results results;
    results.retry_at_ = time;
    return results;
}

Results::Entry& Results::entry(const Message& message) {
    if (entries_.empty() || entries_.back().id != message.id) entries_.emplace_back().id = message.id;
    return entries_.back();
}

Results& Results::add(const Message& message, Actions actions) {
    auto& all = entry(message).actions;
    if (all.empty()) all = std::move(actions);
    else std::move(actions.begin(), actions.end(), std::back_inserter(all));
    return *this;
}

Results& Results::fail(const Message& message, std::exception_ptr error) {
    entry(message).error = std::move(error);
    return *this;
}

Results& Results::send(const Message& message, Dispatch dispatch) {
    entry(message).sendings.push_back(std::move(dispatch).sending());
    return *this;
}

namespace {

/// What handlers make of a batch, one message after the other.
Results answers(const detail::Definition& definition, const Batch& batch) {
    Results results;
    Messages grown;  // the history as each message sees it
    for (const auto& each : batch) {
        const auto& handler = definition.reactions.at(each->type);
        results.add(*each);
        if (each.replay && !handler.wants_replay) continue;
        try {
            detail::Beside beside{nullptr, each.replay};
            if (definition.wants_history) {
                const Messages& history = batch.history();
                while (batch.size() > 1 && grown.size() < history.size() && history[grown.size()].seq <= each->seq) {
                    grown.push_back(history[grown.size()]);
                }
                beside.history = batch.size() > 1 ? &grown : &history;
            }
            for (auto& sending : handler.call(&beside, *each)) results.send(*each, Dispatch(std::move(sending)));
        } catch (...) {
            results.fail(*each, std::current_exception());
            break;
        }
    }
    return results;
}

}  // namespace

Handler::Handler(std::string_view name) {
    detail::name_reactor(definition_, detail::Definition::Role::reactor, name);
    definition_.serve = [this](const Batch& batch) { return answers(definition_, batch); };
}

BatchReactor::BatchReactor(std::string_view name) {
    detail::name_reactor(definition_, detail::Definition::Role::reactor, name);
    definition_.serve = [this](const Batch& batch) { return handle(batch); };
}

}  // namespace sourced
// ==== Workflows ================================================================

namespace sourced {

namespace detail {

// ---- Records: what stands in a workflow's stream. Those that wake it carry its name behind their type.

namespace record {

struct Started {
    SOURCED_EVENT("sourced.workflow_started")  // and `input`
};
/// `call` is the step's place among the calls; 0 when it goes by its key.
struct StepStarted {
    std::int64_t call = 0;
    std::string step;
    std::string key;
    int attempt = 1;

    SOURCED_EVENT("sourced.workflow_step_started", call, step, key, attempt)
};
struct StepCompleted {
    std::int64_t call = 0;
    std::string step;
    std::string key;
    int attempt = 1;

    SOURCED_EVENT("sourced.workflow_step_completed", call, step, key, attempt)  // and `output`, unless void
};
struct StepFailed {
    std::int64_t call = 0;
    std::string step;
    std::string key;
    int attempt = 1;
    std::string type;
    std::string text;
    std::optional<Time> retry_at;  // null: its retries are used up

    SOURCED_EVENT("sourced.workflow_step_failed", call, step, key, attempt, type, text, retry_at)
};
/// Stands right before the outcome of the step that changed it.
struct Kept {
    std::string name;

    SOURCED_EVENT("sourced.workflow_kept", name)  // and `output`
};
struct SleepStarted {
    std::int64_t call = 0;
    Time until{};

    SOURCED_EVENT("sourced.workflow_sleep_started", call, until)
};
struct WaitStarted {
    std::int64_t call = 0;
    std::vector<std::string> types;
    std::optional<Time> until;

    SOURCED_EVENT("sourced.workflow_wait_started", call, types, until)
};
struct WaitEnded {
    std::int64_t call = 0;
    std::vector<std::string> types;
    std::int64_t seq = 0;  // of what has come; 0: nothing in time

    SOURCED_EVENT("sourced.workflow_wait_ended", call, types, seq)
};
/// The end of a sleep or of the time that a wait has; call 0 only wakes.
struct Woken {
    std::int64_t call = 0;

    SOURCED_EVENT("sourced.workflow_woken", call)
};
struct ValueRecorded {
    std::int64_t call = 0;
    std::string what;

    SOURCED_EVENT("sourced.workflow_value_recorded", call, what)  // and `output`
};

template <class T>
std::string waking(const std::string& workflow) {
    return std::string(T::sourced_type) + '.' + workflow;
}

/// A JSON object with one member more.
inline std::string with_member(std::string object, std::string_view name, std::string_view json) {
    object.pop_back();
    if (object.size() > 1) object += ',';
    return object.append(1, '"').append(name).append("\":").append(json).append(1, '}');
}

}  // namespace record

/// Ends a run; nobody but the engine catches it.
struct WorkflowSuspended {};

/// One run of a workflow's function over its history.
class WorkflowPass {
public:
    WorkflowPass(const std::string& workflow, std::string_view stream, const Messages& history,
                 const WorkflowBase::Surroundings& around)
        : workflow_(workflow), stream_(stream), history_(history), around_(around) {
        read_history();
    }

    [[nodiscard]] bool runs() const noexcept { return started_ && !ended_; }
    [[nodiscard]] const std::string& stream() const noexcept { return stream_; }

    Actions run(const WorkflowBase::Body& body) {
        try {
            finish(body);
        } catch (const Error&) {
            // What is wrong is found again by the next run, which has no outcome of a step to lose.
            if (!ran_) throw;
            wake_again();
        }
        Actions actions;
        if (!messages_.empty()) actions.push_back(AppendNext{std::move(messages_)});
        for (auto& schedule : schedules_) actions.push_back(std::move(schedule));
        return actions;
    }

    // ---- what the function calls

    const std::string& step(std::string_view name, const std::string& key, const WorkflowCalls::Step& call,
                            const StepRetries& retries) {
        begin_call("step '" + std::string(name) + "'");
        Step* known = nullptr;
        std::int64_t place = 0;
        if (key.empty()) {
            place = next_call("step '" + std::string(name) + "'");
            known = &steps_by_call_[place];
        } else {
            known = &steps_by_key_[{std::string(name), key}];
        }
        Step& step = *known;
        for (const auto& [kept, payload] : step.kept) apply_kept(kept, *payload);
        step.kept.clear();
        if (step.output) return *step.output;
        if (step.failure && !step.failure->retry_at) throw failed(*step.failure);
        if (step.failure && step.attempt == step.failure->attempt) suspend();  // its retry is on its way
        if (step.attempt == 0) {
            append_waking(record::StepStarted{place, std::string(name), key, 1});
            suspend();
        }
        return run_step(step, {place, std::string(name), key, step.attempt}, call, retries);
    }

    void* keep(WorkflowCalls::Kept fresh) {
        begin_call("keep '" + fresh.name + "'");
        for (auto& [kept, json] : kept_) {
            if (kept.name != fresh.name) continue;
            if (*kept.type != *fresh.type) park("it keeps '" + kept.name + "' as two different types");
            return kept.value.get();
        }
        kept_.emplace_back(std::move(fresh), std::string());
        auto& [kept, json] = kept_.back();
        if (const auto found = unclaimed_.find(kept.name); found != unclaimed_.end()) read_kept(kept, *found->second);
        json = kept.write(kept.value.get());
        return kept.value.get();
    }

    void sleep(Duration time) {
        if (time < Duration::zero()) throw Invalid("sleep: the time is negative");
        sleep_until_([&] { return later(around_.clock(), time); });
    }
    void sleep_until(Time time) {
        sleep_until_([&] { return time; });
    }

    const Message* wait_for(const std::vector<std::vector<std::string>>& types, std::optional<Duration> timeout) {
        std::vector<std::string> names;
        for (const auto& aliases : types) names.push_back(aliases.front());
        const auto has = [](const auto& aliases, const std::string& type) {
            return std::find(aliases.begin(), aliases.end(), type) != aliases.end();
        };
        // A type may have had another name when the wait was recorded.
        const auto known = calls_.find(last_call_ + 1);
        if (known != calls_.end() && std::equal(types.begin(), types.end(), known->second.types.begin(),
                                                known->second.types.end(), has)) {
            names = known->second.types;
        }
        begin_call(wait_text(names));
        const std::int64_t place = next_call(wait_text(names));
        Wait& wait = waits_[place];
        if (!wait.ended) {
            const Message* come = nullptr;
            for (const auto& message : history_) {
                if (taken_.contains(message.seq) || (wait.woken > 0 && message.seq > wait.woken)) continue;
                const bool wanted = std::any_of(types.begin(), types.end(),
                                                [&](const auto& aliases) { return has(aliases, message.type); });
                if (!wanted) continue;
                come = &message;
                break;
            }
            if (!come && wait.woken == 0) {
                if (!wait.started) {
                    std::optional<Time> until;
                    if (timeout) until = later(around_.clock(), *timeout);
                    append(record::WaitStarted{place, names, until});
                    if (until) schedule(*until, record::Woken{place});
                }
                suspend();
            }
            wait.ended = come ? come->seq : 0;
            append(record::WaitEnded{place, names, *wait.ended});
        }
        if (*wait.ended == 0) return nullptr;
        taken_.insert(*wait.ended);
        const auto found = std::find_if(history_.begin(), history_.end(),
                                        [&](const auto& message) { return message.seq == *wait.ended; });
        if (found == history_.end()) park("seq " + std::to_string(*wait.ended) + ", which it waited for, is gone");
        return &*found;
    }

    template <class T, class Make>
    T value(const std::string& what, const Make& make) {
        begin_call(what);
        const std::int64_t place = next_call(what);
        auto& known = values_[place];
        if (!known) {
            Message message(record::ValueRecorded{place, what});
            message.payload = record::with_member(std::move(message.payload), "output", encode<T>(make()));
            known = &fresh_.emplace_back(message.payload);
            messages_.push_back(std::move(message));
        }
        return held<Output, T>({this}, what, *known).output;
    }

    const WorkflowBase::Surroundings& around() const noexcept { return around_; }

    [[noreturn]] void park(const std::string& why) {
        parked_ = "workflow '" + workflow_ + "' at '" + stream_ + "': " + why;
        throw Park(*parked_);
    }

private:
    /// What is known of a step.
    struct Step {
        int attempt = 0;  // the last that was begun
        Id id{};          // of the record that began the first
        std::optional<record::StepFailed> failure;  // the last
        const std::string* output = nullptr;        // the record of its success
        std::vector<std::pair<std::string, const std::string*>> kept;
    };
    struct Wait {
        bool started = false;
        std::int64_t woken = 0;  // seq
        std::optional<std::int64_t> ended;  // seq of what has come
    };
    /// What the history has at a place among the calls.
    struct Call {
        std::string text;
        std::int64_t seq = 0;
        std::vector<std::string> types{};  // of a wait
    };

    static std::string wait_text(const std::vector<std::string>& types) {
        std::string text = "wait for ";
        for (std::size_t i = 0; i < types.size(); ++i) text += (i > 0 ? " or '" : "'") + types[i] + "'";
        return text;
    }

    // ---- reading

    template <class T>
    T read(const Message& message) {
        if (message.erased_at) park("the record at seq " + std::to_string(message.seq) + " was erased");
        try {
            return decode<T>(message.payload);
        } catch (const Invalid& invalid) {
            park("the record at seq " + std::to_string(message.seq) + " cannot be read: " + invalid.what());
        }
    }

    void note(std::int64_t place, std::string text, const Message& message, std::vector<std::string> types = {}) {
        if (place == 0) return;
        calls_.emplace(place, Call{std::move(text), message.seq, std::move(types)});
    }

    template <class Record>
    Step& step_of(const Record& record, const Message& message) {
        note(record.call, "step '" + record.step + "'", message);
        return record.call > 0 ? steps_by_call_[record.call] : steps_by_key_[{record.step, record.key}];
    }

    void read_history() {
        using namespace record;
        const std::string started = waking<Started>(workflow_);
        const std::string step_started = waking<StepStarted>(workflow_);
        const std::string woken = waking<Woken>(workflow_);
        std::vector<std::pair<std::string, const std::string*>> kept;
        for (const auto& message : history_) {
            if (message.type.rfind("sourced.workflow_", 0) != 0) continue;
            if (message.type == started) {
                if (!started_) started_ = &message;
            } else if (message.type == step_started) {
                const auto begun = read<StepStarted>(message);
                Step& step = step_of(begun, message);
                step.attempt = std::max(step.attempt, begun.attempt);
                if (step.id.is_nil()) step.id = message.id;
            } else if (message.is<StepCompleted>()) {
                const auto completed = read<StepCompleted>(message);
                Step& step = step_of(completed, message);
                step.output = &message.payload;
                take_kept(step, kept);
            } else if (message.is<record::StepFailed>()) {
                auto failure = read<record::StepFailed>(message);
                Step& step = step_of(failure, message);
                step.failure = std::move(failure);
                take_kept(step, kept);
            } else if (message.is<Kept>()) {
                kept.emplace_back(read<Kept>(message).name, &message.payload);
            } else if (message.is<SleepStarted>()) {
                const auto sleep = read<SleepStarted>(message);
                note(sleep.call, "sleep", message);
                waits_[sleep.call].started = true;
            } else if (message.type == woken) {
                Wait& wait = waits_[read<Woken>(message).call];
                if (wait.woken == 0) wait.woken = message.seq;
            } else if (message.is<WaitStarted>()) {
                const auto wait = read<WaitStarted>(message);
                note(wait.call, wait_text(wait.types), message, wait.types);
                waits_[wait.call].started = true;
            } else if (message.is<WaitEnded>()) {
                const auto wait = read<WaitEnded>(message);
                note(wait.call, wait_text(wait.types), message, wait.types);
                waits_[wait.call].ended = wait.seq;
            } else if (message.is<ValueRecorded>()) {
                const auto value = read<ValueRecorded>(message);
                note(value.call, value.what, message);
                values_[value.call] = &message.payload;
            } else if (message.is<WorkflowCompleted>() || message.is<WorkflowFailed>()) {
                ended_ = true;
            }
        }
    }

    static void take_kept(Step& step, std::vector<std::pair<std::string, const std::string*>>& kept) {
        std::move(kept.begin(), kept.end(), std::back_inserter(step.kept));
        kept.clear();
    }

    // ---- calls

    void begin_call(const std::string& what) {
        if (!inside_.empty()) throw Error(inside_ + " asks for " + what + " from inside: steps do not nest");
        if (suspended_) swallowed();
    }

    /// The place of the next call, which has to be what the history has there.
    std::int64_t next_call(const std::string& text) {
        const std::int64_t place = ++last_call_;
        const auto found = calls_.find(place);
        if (found != calls_.end() && found->second.text != text) {
            park("its call " + std::to_string(place) + " is " + text + ", but its history has " + found->second.text +
                 " there (seq " + std::to_string(found->second.seq) + "): the function has changed");
        }
        return place;
    }

    template <class At>
    void sleep_until_(const At& at) {
        begin_call("sleep");
        const std::int64_t place = next_call("sleep");
        const Wait& wait = waits_[place];
        if (wait.woken > 0) return;
        if (!wait.started) {
            const Time until = at();
            append(record::SleepStarted{place, until});
            schedule(until, record::Woken{place});
        }
        suspend();
    }

    const std::string& run_step(Step& step, const record::StepStarted& begun, const WorkflowCalls::Step& call,
                                const StepRetries& retries) {
        ran_ = true;
        try {
            inside_ = "step '" + begun.step + "'";
            const std::string output = call(Attempt{begun.attempt, step.id});
            inside_.clear();
            record_kept();
            std::string payload = encode(record::StepCompleted{begun.call, begun.step, begun.key, begun.attempt});
            if (!output.empty()) payload = record::with_member(std::move(payload), "output", output);
            Message message(record::StepCompleted{});
            message.payload = payload;
            messages_.push_back(std::move(message));
            step.output = &fresh_.emplace_back(std::move(payload));
            return *step.output;
        } catch (const Park& error) {
            ran_ = false;  // there is no outcome
            parked_ = error.what();
            throw;
        } catch (...) {
            inside_.clear();
            step_failed(step, begun, describe(std::current_exception()), retries);
        }
        if (step.failure->retry_at) suspend();
        throw failed(*step.failure);
    }

    void step_failed(Step& step, const record::StepStarted& begun, const Described& error,
                     const StepRetries& retries) {
        try {
            record_kept();
        } catch (const Invalid&) {
            // What it changed cannot be written; that it failed is worth more.
        }
        record::StepFailed failure{begun.call, begun.step, begun.key, begun.attempt, error.type, error.text, {}};
        if (begun.attempt <= retries.times) {
            Duration pause = std::min(retries.after, retries.at_most);
            for (int i = 1; i < begun.attempt && pause < retries.at_most; ++i) {
                pause = pause > retries.at_most / 2 ? retries.at_most : pause * 2;
            }
            failure.retry_at = later(around_.clock(), pause);
        }
        append(failure);
        if (failure.retry_at) {
            record::StepStarted next = begun;
            ++next.attempt;
            schedule(*failure.retry_at, next);
        }
        step.failure = std::move(failure);
    }

    static StepFailed failed(const record::StepFailed& failure) {
        return StepFailed(failure.step, failure.attempt, failure.type, failure.text);
    }

    // ---- values that outlive failures

    void read_kept(WorkflowCalls::Kept& kept, const std::string& payload) {
        try {
            kept.read(kept.value.get(), payload);
        } catch (const Invalid& invalid) {
            park("what it keeps as '" + kept.name + "' cannot be read: " + invalid.what());
        }
    }
    void apply_kept(const std::string& name, const std::string& payload) {
        unclaimed_[name] = &payload;
        for (auto& [kept, json] : kept_) {
            if (kept.name != name) continue;
            read_kept(kept, payload);
            json = kept.write(kept.value.get());
        }
    }
    void record_kept() {
        for (auto& [kept, json] : kept_) {
            std::string now = kept.write(kept.value.get());
            if (now == json) continue;
            Message message(record::Kept{kept.name});
            message.payload = record::with_member(std::move(message.payload), "output", now);
            messages_.push_back(std::move(message));
            json = std::move(now);
        }
    }

    // ---- what comes of it

    template <class Record>
    void append(const Record& record) {
        messages_.emplace_back(record);
    }
    template <class Record>
    [[nodiscard]] Message waking_message(const Record& record) const {
        Message message(record);
        message.type = record::waking<Record>(workflow_);
        return message;
    }
    template <class Record>
    void append_waking(const Record& record) {
        messages_.push_back(waking_message(record));
    }
    template <class Record>
    void schedule(Time at, const Record& record) {
        schedules_.push_back(Schedule{at, {waking_message(record)}});
    }
    void wake_again() { append_waking(record::Woken{0}); }

    [[noreturn]] void suspend() {
        suspended_ = true;
        throw WorkflowSuspended();
    }
    [[noreturn]] void swallowed() {
        park("its function has caught the exception that ends a run: catch (...) has to pass it on with throw;");
    }

    /// Runs the function and records its end, if it comes to that.
    void finish(const WorkflowBase::Body& body) {
        std::string output;
        std::optional<WorkflowFailed> failure;
        try {
            output = body({this}, started_->erased_at ? std::string() : started_->payload);
        } catch (const WorkflowSuspended&) {
            return;
        } catch (const Park&) {
            throw;
        } catch (const StepFailed& error) {
            failure = WorkflowFailed{workflow_, error.step(), error.type(), error.text()};
        } catch (...) {
            auto error = describe(std::current_exception());
            failure = WorkflowFailed{workflow_, {}, std::move(error.type), std::move(error.text)};
        }
        if (parked_) throw Park(*parked_);  // whatever the function made of it
        if (suspended_) swallowed();
        if (const auto left = calls_.upper_bound(last_call_); left != calls_.end()) {
            park("it ends after " + std::to_string(last_call_) + " calls, but its history has " + left->second.text +
                 " as call " + std::to_string(left->first) + " (seq " + std::to_string(left->second.seq) +
                 "): the function has changed");
        }
        if (failure) {
            append(*failure);
            return;
        }
        Message message(WorkflowCompleted{workflow_});
        if (!output.empty()) message.payload = record::with_member(std::move(message.payload), "output", output);
        messages_.push_back(std::move(message));
    }

    const std::string workflow_;
    const std::string stream_;
    const Messages& history_;
    const WorkflowBase::Surroundings& around_;

    const Message* started_ = nullptr;
    bool ended_ = false;
    std::map<std::int64_t, Call> calls_;
    std::map<std::int64_t, Step> steps_by_call_;
    std::map<std::pair<std::string, std::string>, Step> steps_by_key_;
    std::map<std::int64_t, Wait> waits_;  // sleeps too
    std::map<std::int64_t, const std::string*> values_;

    std::int64_t last_call_ = 0;
    std::unordered_set<std::int64_t> taken_;  // seqs that waits have had
    std::deque<std::pair<WorkflowCalls::Kept, std::string>> kept_;  // with what was recorded last
    std::unordered_map<std::string, const std::string*> unclaimed_;
    std::string inside_;  // the step that is running
    bool suspended_ = false;
    bool ran_ = false;
    std::optional<std::string> parked_;

    std::deque<std::string> fresh_;  // records of this run
    Messages messages_;
    std::vector<Schedule> schedules_;
};

const std::string& WorkflowCalls::step(std::string_view name, const std::string& key, const Step& run,
                                       const StepRetries& retries) const {
    return pass->step(name, key, run, retries);
}
void* WorkflowCalls::keep(Kept kept) const { return pass->keep(std::move(kept)); }
const Message* WorkflowCalls::wait_for(const std::vector<std::vector<std::string>>& types,
                                       std::optional<Duration> timeout) const {
    return pass->wait_for(types, timeout);
}
void WorkflowCalls::unreadable(std::string_view what, const std::string& why) const {
    pass->park(std::string(what) + " cannot be read: " + why);
}

}  // namespace detail

StepFailed::StepFailed(std::string_view step_name, int attempts, std::string_view error_type,
                       std::string_view error_text)
    : Error("step '" + std::string(step_name) + "' failed" +
            (attempts > 1 ? " " + std::to_string(attempts) + " times" : std::string()) + ": " +
            std::string(error_text)),
      step_(step_name),
      type_(error_type),
      text_(error_text) {}

void Context::sleep(Duration time) { calls_.pass->sleep(time); }
void Context::sleep_until(Time time) { calls_.pass->sleep_until(time); }
const std::string& Context::stream() const noexcept { return calls_.pass->stream(); }
Time Context::now() {
    auto& pass = *calls_.pass;
    return pass.value<Time>("now()", [&] { return pass.around().clock(); });
}
std::uint64_t Context::random() {
    auto& pass = *calls_.pass;
    return pass.value<std::uint64_t>("random()", [&] {
        return IdSource(std::hash<Id>{}(pass.around().new_id())).next();
    });
}
Id Context::new_id() {
    auto& pass = *calls_.pass;
    return pass.value<Id>("new_id()", [&] { return pass.around().new_id(); });
}

WorkflowBase::WorkflowBase(std::string_view name) {
    if (name.find_first_not_of(" \t\r\n") == std::string_view::npos) {
        throw Invalid("a workflow's name is blank: it is what its progress is kept under");
    }
    detail::name_reactor(definition_, detail::Definition::Role::reactor, name);
    options({});
    definition_.clock = [] { return std::chrono::floor<Duration>(std::chrono::system_clock::now()); };
    definition_.new_id = [] { return Id::make(); };
    // Every run sees all that is recorded, and steps may take long: no other stream shall wait behind them.
    definition_.wants_history = definition_.whole_history = true;
    definition_.claim_count = 1;
    definition_.concerns = [prefix = stream_of({})](std::string_view stream) { return stream.starts_with(prefix); };
    const auto wake_by_record = [this](std::string type) { wake_by({std::move(type), {}, [](Registry&) {}}); };
    wake_by_record(detail::record::waking<detail::record::Started>(definition_.name));
    wake_by_record(detail::record::waking<detail::record::StepStarted>(definition_.name));
    wake_by_record(detail::record::waking<detail::record::Woken>(definition_.name));
    detail::add_type(definition_, detail::declared<WorkflowCompleted>());
    detail::add_type(definition_, detail::declared<WorkflowFailed>());
}

void WorkflowBase::options(ReactorOptions options) {
    definition_.options = std::move(options);
    if (!definition_.options.errors) definition_.options.errors = Retries{.then = Resolution::park()};
}

void WorkflowBase::wake_by(const detail::Declared& type) {
    detail::Definition::ReactionHandler handler;
    handler.produces = {std::string(WorkflowCompleted::sourced_type), std::string(WorkflowFailed::sourced_type)};
    detail::add_reaction(definition_, type, std::move(handler));
}

void WorkflowBase::set_body(Body body) {
    detail::only_once(definition_, static_cast<bool>(body_), "run");
    body_ = std::move(body);
    definition_.serve = [this](const Batch& batch) { return serve(batch); };
}

Actions WorkflowBase::advance(std::string_view stream, const Messages& history, const Surroundings& around) const {
    detail::WorkflowPass pass(name(), stream, history, around);
    return pass.runs() ? pass.run(body_) : Actions();
}

Message WorkflowBase::start_message(const std::string& input) const {
    Message message(detail::record::Started{});
    message.type = detail::record::waking<detail::record::Started>(name());
    message.payload = detail::record::with_member(std::move(message.payload), "input", input);
    return message;
}

std::string WorkflowBase::stream_of(std::string_view id) const { return name() + '-' + std::string(id); }

Results WorkflowBase::serve(const Batch& batch) const {
    Results results;
    const Message* last = nullptr;  // what has been handled before a reset is history, and nothing to answer
    for (const auto& message : batch) {
        if (!message.replay) last = message.message;
    }
    Actions actions;
    if (last) {
        try {
            actions = advance(batch.stream(), batch.history(), {definition_.clock, definition_.new_id});
        } catch (...) {
            for (const auto& message : batch) {
                if (!message.replay) return results.fail(*message, std::current_exception());
                results.add(*message);
            }
        }
    }
    for (const auto& message : batch) {
        if (message.message == last) results.add(*message, std::move(actions));
        else results.add(*message);
    }
    return results;
}

}  // namespace sourced
// ==== Store ====================================================================

namespace sourced {

std::int64_t Row::integer(std::size_t column) const {
    if (column >= values_.size()) throw StoreError("a row has no column " + std::to_string(column));
    const Value& value = values_[column];
    if (const auto* integer = std::get_if<std::int64_t>(&value)) return *integer;
    if (const auto* real = std::get_if<double>(&value)) {
        // As SQLite casts: towards zero, and what is too large becomes the largest.
        if (*real >= 9223372036854775807.0) return std::numeric_limits<std::int64_t>::max();
        if (*real <= -9223372036854775808.0) return std::numeric_limits<std::int64_t>::min();
        return *real == *real ? static_cast<std::int64_t>(*real) : 0;
    }
    if (const auto* text = std::get_if<std::string>(&value)) {
        std::int64_t number = 0;
        const auto begin = std::min(text->find_first_not_of(" \t\n\r"), text->size());
        const bool plus = begin < text->size() && (*text)[begin] == '+';
        std::from_chars(text->data() + begin + (plus ? 1 : 0), text->data() + text->size(), number);
        return number;
    }
    return 0;
}

double Row::real(std::size_t column) const {
    if (column >= values_.size()) throw StoreError("a row has no column " + std::to_string(column));
    const Value& value = values_[column];
    if (const auto* integer = std::get_if<std::int64_t>(&value)) return static_cast<double>(*integer);
    if (const auto* real = std::get_if<double>(&value)) return *real;
    if (const auto* text = std::get_if<std::string>(&value)) {
        double number = 0.0;
        const auto begin = std::min(text->find_first_not_of(" \t\n\r"), text->size());
        const bool plus = begin < text->size() && (*text)[begin] == '+';
        std::from_chars(text->data() + begin + (plus ? 1 : 0), text->data() + text->size(), number);
        return number;
    }
    return 0.0;
}

std::string Row::text(std::size_t column) const {
    if (column >= values_.size()) throw StoreError("a row has no column " + std::to_string(column));
    const Value& value = values_[column];
    if (const auto* text = std::get_if<std::string>(&value)) return *text;
    if (const auto* integer = std::get_if<std::int64_t>(&value)) return std::to_string(*integer);
    if (const auto* real = std::get_if<double>(&value)) {
        std::array<char, 32> digits{};
        const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), *real).ptr;
        std::string text(digits.data(), end);
        // A real that happens to be whole keeps its point, as in SQLite.
        if (text.find_first_not_of("-0123456789") == std::string::npos) text += ".0";
        return text;
    }
    return {};
}

bool Row::is_null(std::size_t column) const {
    if (column >= values_.size()) throw StoreError("a row has no column " + std::to_string(column));
    return std::holds_alternative<std::nullptr_t>(values_[column]);
}

}  // namespace sourced

namespace sourced::detail {

std::string generation_table(std::string_view name, std::int64_t number) {
    return std::string(name) + "_generation_" + std::to_string(number);
}

std::string parked_text(std::string_view stream, std::string_view group, std::string_view reason) {
    return "'" + std::string(stream) + "' is parked for group '" + std::string(group) + "': " + std::string(reason);
}

/// While it lives, a reader gives the names of tables that are built instead of those that are read. Only its own:
/// handlers may look into the read models of others.
class Building {
public:
    /// Every table that is asked for belongs to the generation.
    Building(Reader& reader, std::int64_t number) : reader_(reader), number_(number), collects_(true) {
        reader.building_ = this;
    }
    Building(Reader& reader, std::int64_t number, const std::vector<std::string>& tables)
        : reader_(reader), number_(number), tables_(tables) {
        reader.building_ = this;
    }
    Building(const Building&) = delete;
    Building& operator=(const Building&) = delete;
    ~Building() { reader_.building_ = nullptr; }

    std::string table(std::string_view name) {
        if (std::find(tables_.begin(), tables_.end(), name) == tables_.end()) {
            if (!collects_) return std::string(name);
            tables_.emplace_back(name);
        }
        asked_ = true;
        return generation_table(name, number_);
    }
    void note_write() noexcept { wrote_ = true; }

    [[nodiscard]] const std::vector<std::string>& tables() const noexcept { return tables_; }
    /// What was written without asking went into the tables that are read.
    [[nodiscard]] bool missed() const noexcept { return wrote_ && !asked_; }

private:
    Reader& reader_;
    std::int64_t number_;
    std::vector<std::string> tables_;
    bool collects_ = false;
    bool asked_ = false;
    bool wrote_ = false;
};

}  // namespace sourced::detail

namespace sourced {

std::string Reader::table(std::string_view name) { return building_ ? building_->table(name) : std::string(name); }
void Transaction::note_write() noexcept { building_->note_write(); }

Messages Store::stream(std::string_view stream, const StreamRange& range) {
    Messages messages;
    read_stream(stream, range, [&](Message& message) {
        messages.push_back(std::move(message));
        return true;
    });
    return messages;
}

Messages Store::log(const LogRange& range) {
    Messages messages;
    read_log(range, [&](Message& message) {
        messages.push_back(std::move(message));
        return true;
    });
    return messages;
}

Unfit::Unfit(const Message& message, std::size_t index, std::string_view field, std::string_view found)
    : Invalid("import seq " + std::to_string(message.seq) + " of '" + detail::shown(message.stream) + "'",
              {{'/' + std::string(field), std::string(found)}}),
      index_(index),
      field_(field) {}

const GroupInfo& Stats::group(std::string_view name) const& {
    for (const auto& group : groups) {
        if (group.name == name) return group;
    }
    throw NotRegistered("there is no group '" + std::string(name) + "' in this file");
}

}  // namespace sourced
// ==== App ======================================================================

namespace sourced::detail {

// ---- random numbers and ids

/// SplitMix64: small, fast, and the same numbers for the same seed everywhere.
class Random {
public:
    explicit Random(std::uint64_t seed) : state_(seed) {}
    std::uint64_t next() noexcept {
        std::uint64_t z = state_ += 0x9E3779B97F4A7C15ull;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
        return z ^ (z >> 31);
    }

private:
    std::uint64_t state_;
};

/// One source of ids for many threads.
class Ids {
public:
    explicit Ids(std::uint64_t seed) noexcept : source_(seed) {}
    Id next(Time now) {
        const std::lock_guard lock(mutex_);
        return Id::make(now, source_);
    }

private:
    std::mutex mutex_;
    IdSource source_;
};

// ---- states in memory

/// What is remembered of a stream for a group. The log is append-only, so a state at a seq is
/// right for ever; only what was appended since is read. Whoever works with one takes it out,
/// and puts it back only when what was made of it is committed.
struct Remembered {
    std::string stream;
    Box state;
    std::int64_t seq = 0;  // all messages up to here are in `state`
    Box trail;             // for reactions that ask for the state as of their event
    std::int64_t trail_seq = 0;
    // Once everything up to `handled_position` is acked, nothing up to `handled_seq` is pending.
    std::int64_t handled_seq = 0;
    std::int64_t handled_position = 0;
    std::uint64_t foreign = 0;  // see Engine::foreign_
    bool open = false;          // own events were stored that the group has yet to react to
    std::vector<std::int64_t> skipped;  // positions, known once a fold has failed at one: folds pass over them

    [[nodiscard]] bool passes(std::int64_t position) const noexcept {
        return !skipped.empty() && std::find(skipped.begin(), skipped.end(), position) != skipped.end();
    }

    std::int64_t group = 0;
    Remembered* newer = nullptr;
    Remembered* older = nullptr;
};

/// A bounded store of states, the least recently used leave first. Safe to share.
class Memory {
public:
    explicit Memory(std::size_t capacity) : capacity_(capacity) {}

    std::unique_ptr<Remembered> take(std::int64_t group, std::string_view stream) {
        const std::lock_guard lock(mutex_);
        const auto found = states_.find(Key{group, stream});
        if (found == states_.end()) return nullptr;
        auto taken = std::move(found->second);
        states_.erase(found);
        unlink(*taken);
        return taken;
    }

    void put(std::int64_t group, std::unique_ptr<Remembered> state) {
        std::unique_ptr<Remembered> leaves;  // user destructors run outside the lock
        std::unique_ptr<Remembered> oldest;
        if (capacity_ == 0) return;
        const std::lock_guard lock(mutex_);
        state->group = group;
        auto& place = states_[Key{group, state->stream}];
        if (place) {
            // Two worked on the same stream: both states are right, the newer one is worth more.
            if (place->seq > state->seq) {
                leaves = std::move(state);
                return;
            }
            unlink(*place);
            leaves = std::move(place);
            states_.erase(Key{group, state->stream});  // its key lies in the state that leaves
            auto& fresh = states_[Key{group, state->stream}];
            link(*state);
            fresh = std::move(state);
        } else {
            link(*state);
            place = std::move(state);
        }
        if (states_.size() <= capacity_) return;
        Remembered* last = oldest_;
        unlink(*last);
        const auto found = states_.find(Key{last->group, last->stream});
        oldest = std::move(found->second);
        states_.erase(found);
    }

private:
    struct Key {
        Key(std::int64_t a_group, std::string_view a_stream) noexcept
            : hash(std::hash<std::string_view>{}(a_stream) ^ static_cast<std::size_t>(a_group) * 0x9E3779B97F4A7C15ull),
              group(a_group),
              stream(a_stream) {}
        std::size_t hash;  // kept: a table asks for it at every step through a bucket
        std::int64_t group;
        std::string_view stream;  // of the state itself
        bool operator==(const Key&) const = default;
    };
    struct KeyHash {
        std::size_t operator()(const Key& key) const noexcept { return key.hash; }
    };

    void link(Remembered& state) noexcept {
        state.older = newest_;
        state.newer = nullptr;
        if (newest_) newest_->newer = &state;
        newest_ = &state;
        if (!oldest_) oldest_ = &state;
    }
    void unlink(Remembered& state) noexcept {
        (state.newer ? state.newer->older : newest_) = state.older;
        (state.older ? state.older->newer : oldest_) = state.newer;
        state.newer = state.older = nullptr;
    }

    const std::size_t capacity_;
    std::mutex mutex_;
    std::unordered_map<Key, std::unique_ptr<Remembered>, KeyHash> states_;
    Remembered* newest_ = nullptr;
    Remembered* oldest_ = nullptr;
};

// ---- groups and units of work

inline constexpr std::int64_t unbounded = std::numeric_limits<std::int64_t>::max();
inline constexpr std::size_t unlimited = std::numeric_limits<std::size_t>::max();

struct Member;

/// What a member needs that builds a generation beside the one that is served.
struct Rebuilding {
    Rebuilding(Generation begun, std::size_t cached_states) : generation(std::move(begun)), memory(cached_states) {}

    /// Whether the served generation has handled it, or never will: what is left is for the workers.
    [[nodiscard]] bool may_have(const Claim& claim, const Message& message) const {
        if (message.position <= claim.highest) return true;
        const auto since = generation.since.find(message.type);
        return since != generation.since.end() && message.position < since->second;
    }

    Generation generation;
    std::vector<std::string> tables{};
    Memory memory;             // of its own: its row id may be another group's one day
    std::int64_t scanned = 0;
};

/// A reactor, its group, and what is known of its work.
struct Member {
    /// What the reactor does with a type; null members: nothing.
    struct Route {
        const Definition::Evolve* evolve = nullptr;
        const Definition::Command* command = nullptr;
        const Definition::ReactionHandler* reaction = nullptr;
    };

    std::unique_ptr<Reactor> reactor;
    const Definition* definition = nullptr;
    std::int64_t id = 0;
    std::size_t batch_size = 1;
    ErrorStrategy errors;
    std::unordered_map<std::string, Route> routes;
    std::unordered_set<std::string> evolves;
    bool folds = false;     // a state that is the fold of the stream
    bool trailing = false;  // some reaction asks for the state
    bool guesses = false;   // its state may hold what is only known of an event once that is stored
    std::unique_ptr<Rebuilding> rebuilding{};  // null: it is the one that is served

    std::atomic<bool> work{true};  // there may be something to claim
    std::atomic<std::int64_t> next_retry{unbounded};

    [[nodiscard]] const Route* route(const std::string& type) const {
        const auto found = routes.find(type);
        return found == routes.end() ? nullptr : &found->second;
    }
    void evolve(const Route& route, void* state, const Message& message) const {
        if (definition->before_evolve) definition->before_evolve(state, message);
        if (*route.evolve) (*route.evolve)(state, message);
    }
};

/// Finds routes for rows that come in runs of the same type.
class Router {
public:
    explicit Router(const Member& member) : member_(member) {}
    const Member::Route* operator()(const std::string& type) {
        if (type != type_ || !known_) {
            type_ = type;
            route_ = member_.route(type);
            known_ = true;
        }
        return route_;
    }

private:
    const Member& member_;
    std::string type_;
    const Member::Route* route_ = nullptr;
    bool known_ = false;
};

/// A fault with the message it tells of.
struct Faulted {
    Faulted(Message of, const std::exception_ptr& error, Described said, const Member& member, int attempt, int deaths,
            Time at)
        : message(std::move(of)),
          fault{error, std::move(said.type), std::move(said.text), message, member.definition->name, attempt, deaths,
                at} {}
    Faulted(const Faulted&) = delete;
    Faulted& operator=(const Faulted&) = delete;

    Message message;
    Fault fault;
};

/// One claimed stream on its way through a worker.
struct Work {
    struct Item {
        Message message;
        const Member::Route* route = nullptr;
        bool pending = false;  // otherwise it is only evolved
        bool replay = false;
        bool skipped = false;  // counts as handled, and that is all
    };

    Member* member = nullptr;
    UnitTransaction* unit = nullptr;  // what it is part of, instead of a worker's turn
    std::int64_t unit_acked = 0;      // in it
    std::unique_ptr<Remembered> memory;
    std::size_t limit = unlimited;   // of messages: halved when a commit failed
    std::int64_t until = unbounded;  // only what stands before this position
    int conflicts = 0;

    // What handling left to be done when it is committed.
    std::vector<Item> items;
    std::vector<std::string> keys;
    std::vector<Synced> synced;
    bool all_replay = false;
    std::vector<std::function<void(Transaction&)>> syncs;  // a reactor's, in order
    std::vector<std::function<void()>> after;              // to be done once it is committed
    Box before;                 // the state without what was decided, where that could differ from what is stored
    Messages decisions;         // an actor with `sync`: its commands, each with its events
    std::size_t own = 0;        // messages for the claimed stream
    std::size_t handled = 0;       // messages
    std::int64_t handled_seq = 0;  // the last of them, or the end of the stream
    std::int64_t first_position = 0;
    std::size_t decided = 0;       // events in the claimed stream that are in the state already
    bool keep = true;              // the state is good once the commit is
    std::unique_ptr<Faulted> faulted;  // what the error strategy was told

    void begin() {
        faulted.reset();
        items.clear();
        keys.clear();
        synced.clear();
        all_replay = false;
        syncs.clear();
        after.clear();
        before = Box();
        decisions.clear();
        own = 0;
        handled = 0;
        handled_seq = 0;
        first_position = 0;
        decided = 0;
        keep = true;
    }
};

// ---- who listens

/// What subscribers and followers have in common: something to be given, a thread for the callback, an end.
/// Shared between its handle, its thread and the engine's Listeners. No lock is held while user code or the store runs.
template <class T>
class Feed {
public:
    using Callback = std::function<void(const T&)>;
    /// Told of a callback that threw, or of trouble; valid until `close`.
    using Report = std::function<void(Level, std::string text, std::string error, const T*)>;

    explicit Feed(Report report) : report_(std::move(report)) {}
    Feed(const Feed&) = delete;
    Feed& operator=(const Feed&) = delete;
    virtual ~Feed() = default;

    std::optional<T> next(std::optional<Duration> timeout) {
        std::unique_lock lock(mutex_);
        if (called_back_) throw Error("next: what comes here is given to the callback");
        const Inside inside(*this, lock);
        std::optional<std::chrono::steady_clock::time_point> deadline;
        if (timeout) deadline = end_of(*timeout);
        return take(lock, deadline);
    }

    /// The body of the callback's thread.
    void run(const Callback& callback) {
        std::unique_lock lock(mutex_);
        const Inside inside(*this, lock);
        while (!stopped_) {
            std::optional<T> given;
            try {
                given = take(lock, std::nullopt);
            } catch (...) {
                const auto error = std::current_exception();
                lock.unlock();
                if (!std::exchange(troubled_, true)) {
                    report_(Level::warning, "a follower cannot read, going on trying", describe(error).text, nullptr);
                }
                lock.lock();
                changed_.wait_for(lock, std::chrono::milliseconds(100), [this] { return stopped_; });
            }
            if (!given) continue;
            lock.unlock();
            try {
                callback(*given);
            } catch (...) {
                report_(Level::error, "a callback threw, going on with what follows",
                        describe(std::current_exception()).text, &*given);
            }
            given.reset();
            lock.lock();
        }
    }
    void will_call_back() noexcept { called_back_ = true; }

    void stop() noexcept {
        const std::lock_guard lock(mutex_);
        stopped_ = true;
        changed_.notify_all();
    }
    [[nodiscard]] bool stopped() const noexcept {
        const std::lock_guard lock(mutex_);
        return stopped_;
    }
    /// Stops and waits until nobody is inside: from then on the engine is not touched.
    void close() {
        std::unique_lock lock(mutex_);
        stopped_ = true;
        changed_.notify_all();
        changed_.wait(lock, [this] { return inside_ == 0; });
    }
    /// Whether a callback, or `next`, is under way.
    [[nodiscard]] bool busy() const noexcept {
        const std::lock_guard lock(mutex_);
        return inside_ != 0;
    }
    /// There is more to be picked.
    void wake() {
        const std::lock_guard lock(mutex_);
        ready_ = true;
        changed_.notify_all();
    }

protected:
    /// The next one if it is there. May give up the lock meanwhile.
    virtual std::optional<T> pick(std::unique_lock<std::mutex>& lock) = 0;

    mutable std::mutex mutex_;
    bool ready_ = true;
    bool troubled_ = false;  // the log sink was told; until it works again

private:
    /// Whoever may still touch the engine. The lock is held at its begin and end.
    class Inside {
    public:
        Inside(Feed& feed, std::unique_lock<std::mutex>& lock) : feed_(feed), lock_(lock) { ++feed_.inside_; }
        Inside(const Inside&) = delete;
        Inside& operator=(const Inside&) = delete;
        ~Inside() {
            if (!lock_.owns_lock()) lock_.lock();
            --feed_.inside_;
            feed_.changed_.notify_all();
        }

    private:
        Feed& feed_;
        std::unique_lock<std::mutex>& lock_;
    };

    std::optional<T> take(std::unique_lock<std::mutex>& lock,
                          const std::optional<std::chrono::steady_clock::time_point>& deadline) {
        while (!stopped_) {
            if (auto picked = pick(lock)) {
                if (stopped_) return std::nullopt;
                return picked;
            }
            const auto is_over = [this] { return stopped_ || ready_; };
            if (!deadline) {
                changed_.wait(lock, is_over);
            } else if (!changed_.wait_until(lock, *deadline, is_over)) {
                return std::nullopt;
            }
        }
        return std::nullopt;
    }

    const Report report_;
    bool called_back_ = false;
    std::condition_variable changed_;
    bool stopped_ = false;
    int inside_ = 0;
};

/// The queue of one subscriber of a channel.
class ChannelFeed : public Feed<Notice> {
public:
    ChannelFeed(std::size_t limit, Report report) : Feed(std::move(report)), limit_(limit) {}

    void put(const Notice& notice) {
        {
            const std::lock_guard lock(mutex_);
            queue_.push_back(notice);
            if (queue_.size() > limit_) {
                queue_.pop_front();
                ++missed_;
            }
        }
        wake();
    }

protected:
    std::optional<Notice> pick(std::unique_lock<std::mutex>&) override {
        ready_ = false;
        if (queue_.empty()) return std::nullopt;
        std::optional<Notice> notice(std::move(queue_.front()));
        queue_.pop_front();
        notice->missed = std::exchange(missed_, 0);
        return notice;
    }

private:
    const std::size_t limit_;
    std::deque<Notice> queue_;
    std::size_t missed_ = 0;
};

/// One follower's place in the log.
class LogFeed : public Feed<Message> {
public:
    LogFeed(Store& store, const FollowOptions& options, std::int64_t from, Report report)
        : Feed(std::move(report)), store_(store), passed_(from - 1) {
        range_.types = options.types;
        range_.stream = options.stream;
    }

    [[nodiscard]] std::int64_t position() const noexcept {
        const std::lock_guard lock(mutex_);
        return page_.empty() ? passed_ : page_.front().position - 1;
    }

protected:
    std::optional<Message> pick(std::unique_lock<std::mutex>& lock) override {
        if (page_.empty() && std::exchange(ready_, false)) {
            lock.unlock();
            std::deque<Message> page;
            std::int64_t passed = passed_;  // changed by nobody else
            bool more = false;
            try {
                more = read(page, passed);
            } catch (...) {
                lock.lock();
                ready_ = true;
                throw;
            }
            lock.lock();
            troubled_ = false;
            page_ = std::move(page);
            passed_ = passed;
            ready_ |= more;
        }
        if (page_.empty()) return std::nullopt;
        std::optional<Message> message(std::move(page_.front()));
        page_.pop_front();
        return message;
    }

private:
    /// Gives whether there was more than a page holds.
    bool read(std::deque<Message>& page, std::int64_t& passed) {
        constexpr std::size_t most = 256;
        constexpr std::size_t most_bytes = 1u << 20;
        LogRange range = range_;
        range.from = passed + 1;
        range.to = store_.head();  // what stands before is there for good
        if (range.to < range.from) return false;
        std::size_t bytes = 0;
        bool full = false;
        store_.read_log(range, [&](Message& message) {
            bytes += message.payload.size();
            page.push_back(std::move(message));
            full = page.size() == most || bytes >= most_bytes;
            return !full;
        });
        passed = full ? page.back().position : range.to;
        return full;
    }

    Store& store_;
    LogRange range_;
    std::deque<Message> page_;
    std::int64_t passed_;  // the last position that was looked at
};

/// All feeds of one kind, by channel. Shared between the engine and the handles, which may outlive it.
template <class F>
class Listeners {
public:
    /// Whether anybody listens: all that a commit, or publishing, costs when nobody does.
    [[nodiscard]] bool any() const noexcept { return count_.load(std::memory_order_relaxed) != 0; }

    /// False when the engine has gone.
    bool add(const std::string& channel, std::shared_ptr<F> feed) {
        const std::lock_guard lock(mutex_);
        if (closed_) return false;
        feeds_[channel].push_back(std::move(feed));
        ++count_;
        return true;
    }
    void remove(const std::string& channel, const F* feed) {
        const std::lock_guard lock(mutex_);
        const auto found = feeds_.find(channel);
        if (found == feeds_.end()) return;
        auto& list = found->second;
        const auto place = std::find_if(list.begin(), list.end(), [&](const auto& each) { return each.get() == feed; });
        if (place == list.end()) return;
        // Its callback may have more to do with the App, which has to wait for it.
        std::erase_if(leaving_, [](const auto& each) { return !each->busy(); });
        if ((*place)->busy()) leaving_.push_back(*place);
        list.erase(place);
        if (list.empty()) feeds_.erase(found);
        if (--count_ == 0 && on_empty_) on_empty_();
    }
    template <class Call>
    std::size_t each(const std::string& channel, const Call& call) {
        const std::lock_guard lock(mutex_);
        const auto found = feeds_.find(channel);
        if (found == feeds_.end()) return 0;
        for (const auto& feed : found->second) call(*feed);
        return found->second.size();
    }
    /// Called, until `close`, when the last has left.
    void on_empty(std::function<void()> call) { on_empty_ = std::move(call); }
    /// Ends all, and waits for those that are under way.
    void close() {
        std::vector<std::shared_ptr<F>> all;
        {
            const std::lock_guard lock(mutex_);
            closed_ = true;
            on_empty_ = nullptr;
            for (const auto& [channel, list] : feeds_) all.insert(all.end(), list.begin(), list.end());
            all.insert(all.end(), leaving_.begin(), leaving_.end());
            feeds_.clear();
            leaving_.clear();
            count_ = 0;
        }
        for (const auto& feed : all) feed->stop();  // all at once, however long one takes
        for (const auto& feed : all) feed->close();
    }

private:
    std::mutex mutex_;
    std::unordered_map<std::string, std::vector<std::shared_ptr<F>>> feeds_;
    std::vector<std::shared_ptr<F>> leaving_;  // stopped, but not over when that was last looked at
    std::atomic<std::size_t> count_{0};
    std::function<void()> on_empty_;
    bool closed_ = false;
};

template <class T>
struct FeedOf;
template <>
struct FeedOf<Notice> {
    using Type = ChannelFeed;
};
template <>
struct FeedOf<Message> {
    using Type = LogFeed;
};

/// What a Subscription or Follower holds.
template <class T>
class Listening {
public:
    using F = typename FeedOf<T>::Type;

    Listening(std::shared_ptr<Listeners<F>> listeners, std::string channel, std::shared_ptr<F> feed)
        : listeners_(std::move(listeners)), channel_(std::move(channel)), feed_(std::move(feed)) {}
    Listening(const Listening&) = delete;
    Listening& operator=(const Listening&) = delete;
    ~Listening() {
        stop();
        if (!thread_.joinable()) return;
        if (thread_.get_id() == std::this_thread::get_id()) {
            thread_.detach();
        } else {
            thread_.join();
        }
    }

    /// Begins to listen; from here on nothing is missed.
    void begin(typename F::Callback callback) {
        if (callback) feed_->will_call_back();
        if (!listeners_->add(channel_, feed_)) feed_->stop();
        if (!callback) return;
        thread_ = std::thread([feed = feed_, callback = std::move(callback)] { feed->run(callback); });
    }
    std::optional<T> next(std::optional<Duration> timeout) {
        if (forked()) {
            throw Error("next: this belongs to process " + std::to_string(pid_) + " and cannot be used after a fork");
        }
        return feed_->next(timeout);
    }
    void stop() noexcept {
        if (forked()) return;
        feed_->stop();
        listeners_->remove(channel_, feed_.get());
    }
    [[nodiscard]] bool stopped() const noexcept { return forked() || feed_->stopped(); }
    [[nodiscard]] const F& feed() const noexcept { return *feed_; }
    /// In a child process neither the thread nor whoever holds the locks exists: nothing may be touched.
    [[nodiscard]] bool forked() const noexcept { return ::getpid() != pid_; }

private:
    const ::pid_t pid_ = ::getpid();
    const std::shared_ptr<Listeners<F>> listeners_;
    const std::string channel_;
    const std::shared_ptr<F> feed_;
    std::thread thread_;
};

template <class T>
void leave(std::unique_ptr<Listening<T>>& listening) noexcept {
    if (listening && listening->forked()) (void)listening.release();
    listening.reset();
}

// ---- options

/// Collects what is wrong with options: numbers that no program can mean.
class OptionsCheck {
public:
    template <class N>
    void within(std::string_view name, N value, N least, N most) {
        if (value < least) wrong(name, "at least " + std::to_string(least), std::to_string(value));
        if (value > most) wrong(name, "at most " + std::to_string(most), std::to_string(value));
    }
    void within(std::string_view name, Duration value, Duration least, Duration most) {
        if (value < least) wrong(name, "at least " + text_of(least), text_of(value));
        if (value > most) wrong(name, "at most " + text_of(most), text_of(value));
    }
    void refuse(std::string_view what) const {
        if (!problems_.empty()) throw Invalid(what, problems_);
    }

private:
    static std::string text_of(Duration time) {
        const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(time);
        return seconds == time ? std::to_string(seconds.count()) + " s" : std::to_string(time.count()) + " us";
    }
    void wrong(std::string_view name, const std::string& expected, const std::string& got) {
        problems_.push_back({"/" + std::string(name), "expected " + expected + ", got " + got});
    }

    Problems problems_;
};

/// Throws Invalid.
inline Options checked(Options options) {
    constexpr auto most = std::numeric_limits<std::size_t>::max();
    constexpr Duration year = std::chrono::hours(24 * 365);
    OptionsCheck check;
    check.within<std::size_t>("workers", options.workers, 0, 1024);
    check.within<std::size_t>("batch_size", options.batch_size, 1, most);
    check.within<std::size_t>("checkpoint_bytes", options.checkpoint_bytes, 1, std::size_t{1} << 40);
    check.within<std::size_t>("claim_count", options.claim_count, 1, most);
    check.within("claim_time", options.claim_time, Duration(1), year);
    check.within("slow_after", options.slow_after, Duration(0), year);
    check.within("give_up_after", options.give_up_after, Duration(0), year);
    check.within("deaths", options.deaths, 0, std::numeric_limits<int>::max());
    check.within<std::size_t>("limits/depth", options.limits.depth, 1, most);
    check.within<std::size_t>("limits/bytes", options.limits.bytes, 2, most);  // {}
    check.within("busy_timeout", options.busy_timeout, Duration(0), std::chrono::hours(24));  // SQLite's is an int
    check.refuse("options of the App");
    return options;
}

// ---- the engine

/// The runtime behind App: its groups, their states, and the threads that work.
///
/// No lock is held while user code or the store runs.
class Engine {
public:
    explicit Engine(Options options)
        : options_(checked(std::move(options))),
          pid_(::getpid()),
          seed_(options_.seed != 0 ? options_.seed : random_seed()),
          ids_(seed_),
          memory_(options_.cached_states) {
        if (!options_.clock) {
            options_.clock = [] { return std::chrono::floor<Duration>(std::chrono::system_clock::now()); };
        }
        StoreOptions store;
        store.path = options_.path;
        store.open = options_.open;
        store.durability = options_.durability;
        store.clock = options_.clock;
        store.busy_timeout = options_.busy_timeout;
        store.checkpoint_bytes = options_.checkpoint_bytes;
        store.max_payload = options_.limits.bytes;
        store.seed = seed_ + 1;  // ids of its own
        // What the store says while it is being opened is advice, later it is trouble.
        store.warn = [this](std::string_view text) { log(store_ ? Level::warning : Level::info, std::string(text)); };
        store_ = open_store(store);
        store_->on_commit([this](const Committed& commit) { note(commit); });
        followers_->on_empty([this] { store_->interrupt_wait(); });  // perhaps nobody has to watch any more
    }

    ~Engine() {
        try {
            subscribers_->close();
            followers_->close();
            stop();
            end_watch(true);
            const std::lock_guard lock(foreground_);  // a handler that was called there may have ended the App
        } catch (const std::exception& error) {
            log(Level::error, std::string("stopping failed: ") + error.what());
        }
    }
    Engine(const Engine&) = delete;
    Engine& operator=(const Engine&) = delete;

    [[nodiscard]] const Options& options() const noexcept { return options_; }
    [[nodiscard]] bool forked() const noexcept { return ::getpid() != pid_; }
    /// Whether this thread is in a call that the end of the engine has to wait for.
    [[nodiscard]] bool is_inside() const noexcept {
        return working_for == this || idling_for == this || calling_for == this;
    }
    /// Ends what cannot be waited for here.
    static void end_elsewhere(std::unique_ptr<Engine> engine) {
        engine->log(Level::error, "the App was destroyed from inside a handler or callback of it, it ends afterwards");
        try {
            std::thread([gone = engine.get()] { delete gone; }).detach();
            (void)engine.release();
        } catch (const std::system_error& error) {
            const Engine* left = engine.release();
            left->log(Level::error, std::string("there is no thread to end the App on: ") + error.what());
        }
    }

    // ---- groups

    void add(std::unique_ptr<Reactor> reactor) { add(*reactor).reactor = std::move(reactor); }

    /// Throws Error when its reactors cannot go to another engine; see Access::move_to.
    void check_movable(const std::string& path) const {
        const std::string tried = "move the App to '" + path + "': ";
        if (!options_.path.empty()) throw Error(tried + "it is on '" + options_.path + "' already");
        if (is_inside()) throw Error(tried + "called from a handler or callback of it");
        if (running_) throw Error(tried + "workers are running; stop() first");
        const std::size_t recurring = store_->recurring().size();
        if (store_->head() > 0 || store_->scheduled(recurring + 1).size() > recurring) {
            throw Error(tried + "something was sent to it in memory, and would be lost");
        }
    }

    /// Takes the reactors of another engine over, all or none of them.
    void take_over(Engine& other, const std::vector<std::string>& only) {
        aside_.reserve(other.members_.size());
        try {
            for (const auto& member : other.members_) {
                const auto& name = member->definition->name;
                const bool wanted = only.empty() || std::find(only.begin(), only.end(), name) != only.end();
                if (wanted) (void)add(*member->reactor);
                else equip(*member->reactor);
            }
            for (auto& each : other.store_->recurring()) {
                if (options_.open == Open::read_only) break;
                complete(each.message, std::string(each.message.stream));
                store_->recur(each);
            }
        } catch (...) {
            for (const auto& member : other.members_) other.equip(*member->reactor);
            throw;
        }
        for (auto& member : other.members_) {
            Member* mine = find_member(member->definition->name);
            if (mine) mine->reactor = std::move(member->reactor);
            else aside_.push_back(std::move(member->reactor));
        }
    }

    std::unique_ptr<Member> make_member(const Definition& definition, std::int64_t id) const {
        auto member = std::make_unique<Member>();
        member->id = id;
        member->definition = &definition;
        member->batch_size = definition.options.batch_size.value_or(options_.batch_size);
        member->errors = definition.options.errors.value_or(options_.errors);
        for (const auto& [type, evolve] : definition.events) {
            member->routes[type].evolve = &evolve;
            member->evolves.insert(type);
        }
        for (const auto& [type, command] : definition.commands) member->routes[type].command = &command.call;
        for (const auto& [type, reaction] : definition.reactions) {
            member->routes[type].reaction = &reaction;
            member->trailing |= reaction.wants_state;
        }
        const bool has_fold = definition.role == Definition::Role::actor || definition.event_sourced;
        member->folds = has_fold && !member->evolves.empty();
        member->trailing &= member->folds && definition.role == Definition::Role::actor;
        member->guesses = member->folds && definition.reads_envelope;
        return member;
    }

    Reactor& find(std::string_view group) {
        for (const auto& member : members_) {
            if (member->definition->name == group) return *member->reactor;
        }
        throw NotRegistered("no reactor '" + std::string(group) + "' was added to this App");
    }

    Reactor& find(const std::type_info& type) {
        for (const auto& member : members_) {
            const Reactor& reactor = *member->reactor;
            if (typeid(reactor) == type) return *member->reactor;
        }
        throw NotRegistered("no " + readable(type.name()) + " was added to this App");
    }

    void reset(std::string_view name, const Reset& reset) {
        const Member* member = find_member(name);
        if (!member) {  // somebody else's: nothing is known of its read model
            store_->reset_group(name, reset, nullptr);
            return;
        }
        const Definition& definition = *member->definition;
        Access::check_reset(definition, reset);
        std::function<void(Transaction&)> on_reset = definition.on_reset;
        if (!reset.stream.empty()) {
            on_reset = nullptr;
            if (definition.on_stream_reset) {
                on_reset = [&](Transaction& transaction) { definition.on_stream_reset(reset.stream, transaction); };
            }
        } else if (!on_reset && definition.on_stream_reset) {
            on_reset = [&](Transaction& transaction) {
                const auto streams = transaction.query(
                    "select s.name from sourced_offsets o join sourced_streams s on s.id = o.stream where o.grp = ?",
                    member->id);
                for (const auto& stream : streams) definition.on_stream_reset(stream.text(0), transaction);
            };
        }
        store_->reset_group(name, reset, on_reset);
    }

    // ---- read models that are built anew

    Rebuilt rebuild(std::string_view name, const RebuildOptions& options) {
        const Member* served = find_member(name);
        if (!served) throw NotRegistered("rebuild '" + std::string(name) + "': no reactor of this name was added");
        const Definition& definition = *served->definition;
        check_rebuild(definition);
        check_process();
        const OneRebuild one(*this, definition.name);
        std::vector<std::string> tables;
        Generation begun = store_->begin_generation(name, [&](Transaction& transaction, std::int64_t number) {
            Building building(transaction, number);
            definition.on_install(transaction);
            tables = building.tables();
            if (tables.empty()) cannot_rebuild(definition, "its on_install asks for no table");
            return tables;
        });
        auto member = make_member(definition, begun.group);
        member->rebuilding = std::make_unique<Rebuilding>(std::move(begun), options_.cached_states);
        member->rebuilding->tables = std::move(tables);
        member->errors = [skipped = Access::skipped_by(*store_, name)](const Fault& fault) {
            if (skipped.contains(fault.message.position)) return Resolution::skip("skipped before it was built anew");
            return Resolution::stop();
        };
        try {
            return build(*member, options);
        } catch (const NotRegistered&) {
            throw Error("rebuild '" + definition.name + "': another process has begun to rebuild it");
        } catch (...) {
            drop(*member);
            throw;
        }
    }

    // ---- sending

    Message dispatch(std::string_view stream, Message message) {
        complete(message, stream);
        check(message);
        Messages one;
        one.push_back(std::move(message));
        const Appended appended = store_->append(stream, one);
        place(one.front(), appended, 0);
        return std::move(one.front());
    }

    Messages dispatch(Messages messages) {
        std::vector<Append> parts;
        for (auto& message : messages) {
            const std::string stream = message.stream;
            complete(message, stream);
            check(message);
            if (parts.empty() || parts.back().stream != stream) parts.push_back({stream, {}, any_seq});
            parts.back().messages.push_back(message);
        }
        const auto appended = store_->append_all(parts);
        std::size_t next = 0;
        for (std::size_t part = 0; part < parts.size(); ++part) {
            for (std::size_t i = 0; i < parts[part].messages.size(); ++i) {
                place(messages[next++], appended[part], static_cast<std::int64_t>(i));
            }
        }
        return messages;
    }

    Message schedule(std::string_view stream, Message message, Time time) {
        complete(message, stream);
        check(message);
        std::vector<Scheduled> one(1);
        one.front().due_at = time;
        one.front().message = std::move(message);
        store_->schedule(one);
        return std::move(one.front().message);
    }

    void every(std::string_view name, Duration interval, std::string_view stream, Message message,
               std::optional<Time> first) {
        complete(message, stream);
        check(message);
        Recurring recurring;
        recurring.name = name;
        recurring.every = interval;
        recurring.first = first;
        recurring.message = std::move(message);
        store_->recur(recurring);
    }

    /// Appends the start of a workflow, unless it is there already.
    void start_workflow(const std::string& stream, Message start, const std::function<bool(const std::string&)>& same) {
        complete(start, stream);
        for (;;) {
            std::optional<std::string> known;
            std::int64_t seq = 0;
            store_->read_stream(stream, {}, [&](Message& message) {
                seq = message.seq;
                if (message.type == start.type) known = std::move(message.payload);
                return !known;
            });
            if (known) {
                bool equal = false;
                try {
                    equal = same(*known);
                } catch (const Invalid&) {
                    // What cannot be read is another input too.
                }
                if (equal) return;
                throw Invalid("start workflow '" + stream + "': it was started with another input");
            }
            try {
                (void)store_->append(stream, {start}, expect_seq(seq));
                return;
            } catch (const Conflict&) {
                // Somebody was faster with a message for it, or with the very start.
            }
        }
    }

    struct Handling {
        Message command;
        Messages events;
        std::optional<std::string> refusal;
    };

    /// What was not made from a C++ value may not be what its type says. A type nobody registered is kept as it is.
    void check(const Message& message) const {
        if (registry_.find(message.type)) registry_.check(message, options_.limits);
    }

    // ---- several reactors at once

    UnitResult handle_together(const std::vector<const Reactor*>& reactors, std::string_view stream, Message first,
                               const UnitOptions& options) {
        complete(first, stream);
        check(first);
        return when_clear(unbounded, [&] {
            Together together;
            together.options = options;
            together.result.first_ = first;
            for (const auto* reactor : reactors) {
                together.members.push_back(&member_of(reactor->definition()));
                together.result.parts_.push_back({reactor, {}});
            }
            store_->unit([&](UnitTransaction& unit) { run_together(together, unit); });
            return finish_together(together);
        });
    }

    /// Makes an attempt that throws StandsOpen while there is something to be handled first: what can be
    /// handled is, before the position `until`, and what another worker holds is waited for.
    template <class Attempt>
    std::invoke_result_t<const Attempt&> when_clear(std::int64_t until, const Attempt& attempt) {
        for (Patience patience;;) {
            try {
                return attempt();
            } catch (const StandsOpen& open) {
                make_way(open, patience, until);
            }
        }
    }

    bool acknowledge(std::string_view group, const Message& message,
                     const std::function<void(UnitTransaction&)>& body) {
        Member& member = member_of(find(group).definition());
        if (!member.definition->handles(message.type)) {
            throw NotRegistered("'" + member.definition->name + "' does not handle '" + message.type + "'");
        }
        const auto stored = store_->find(message.id);
        if (!stored) throw Error("acknowledge " + message.id.to_string() + ": it is not in the log");
        return when_clear(stored->position, [&] {
            bool done = false;
            store_->unit([&](UnitTransaction& unit) {
                const Passed passed = unit.passed(member.id, stored->stream);
                if (stored->position <= passed.highest) return;
                if (unit.open(member.id, stored->stream, stored->position)) {
                    check_parked(member, stored->stream, passed);
                    throw StandsOpen(member, stored->stream);
                }
                if (!unit.open(member.id, stored->stream, stored->position + 1)) return;
                if (body) body(unit);
                unit.acknowledge(member.id, stored->stream, stored->position);
                done = true;
            });
            return done;
        });
    }

    // ---- decisions in memory

    void load(DraftBase& draft, std::int64_t upto) {
        const Member& member = member_of(*draft.definition_);
        if (!draft.events_.empty() || !draft.commands_.empty()) {
            throw Error("the draft of '" + draft.stream_ + "' has decisions that are not saved: save or discard them");
        }
        Remembered memory;
        memory.stream = draft.stream_;
        memory.state = draft.state_ ? draft.state_ : blank(member, draft.stream_);
        memory.seq = draft.saved_seq_;
        Messages news;
        catch_up(member, memory, upto, nullptr, &news);
        draft.state_ = std::move(memory.state);
        draft.seq_ = draft.saved_seq_ = memory.seq;
        draft.news_ = std::move(news);
    }

    Trial decide(DraftBase& draft, Message command) {
        const Member& member = member_of(*draft.definition_);
        Trial trial;
        const Member::Route& route = command_route(member, command.type);
        complete(command, draft.stream_);
        if (registry_.find(command.type)) trial.problems_ = registry_.problems(command, options_.limits);
        if (trial.valid()) {
            Remembered memory;
            memory.state = draft.state_;
            Decided decided = (*route.command)(memory.state.get(), command);
            apply(member, memory, command, decided, draft.seq_);
            if (!draft.saved_) draft.saved_ = draft.state_;
            draft.state_ = std::move(memory.state);
            draft.seq_ += static_cast<std::int64_t>(decided.events.size());
            draft.commands_.push_back(command);
            draft.outcomes_.push_back(decided.events.size());
            draft.events_.insert(draft.events_.end(), decided.events.begin(), decided.events.end());
            trial.refusal_ = std::move(decided.refusal);
            trial.events_ = std::move(decided.events);
        }
        trial.command_ = std::move(command);
        return trial;
    }

    Messages save(DraftBase& draft, const HandleOptions& options) {
        if (draft.commands_.empty()) return {};
        Member& member = member_of(*draft.definition_);
        Messages commands = draft.commands_;
        Direct direct;
        direct.group = member.id;
        direct.stream = draft.stream_;
        direct.decided_on = draft.saved_seq_;
        direct.evolves = member.folds ? &member.evolves : &no_types_;
        direct.commands = options.store_commands ? commands.size() : 0;
        if (options.store_commands) direct.messages = commands;
        direct.messages.insert(direct.messages.end(), draft.events_.begin(), draft.events_.end());
        std::size_t next = direct.commands;
        std::vector<Message*> order;  // each command before what came of it
        for (std::size_t i = 0; i < commands.size(); ++i) {
            order.push_back(options.store_commands ? &direct.messages[i] : &commands[i]);
            for (std::size_t count = draft.outcomes_[i]; count > 0; --count) {
                order.push_back(&direct.messages[next++]);
                if (!options.store_commands) mark_outside(*order.back(), commands[i]);
            }
        }
        if (member.definition->sync) {
            direct.sync = [&](Transaction& transaction) {
                sync_direct(*member.definition, direct, draft.state_.get(), order, transaction);
            };
        }
        return when_clear(unbounded, [&] {
            const DirectOutcome outcome = store_->commit_direct(direct);
            if (outcome.result == DirectOutcome::Result::pending) throw StandsOpen(member, draft.stream_);
            if (outcome.result == DirectOutcome::Result::conflict) {
                throw Conflict("save the draft of '" + draft.stream_ + "': it was made on seq " +
                               std::to_string(draft.saved_seq_) + ", and the stream has moved on");
            }
            for (std::size_t i = 0; i < direct.messages.size(); ++i) {
                place(direct.messages[i], outcome.appended, static_cast<std::int64_t>(i));
            }
            forget_decisions(draft);
            if (member.guesses) {  // the seqs and times that the state was told are not those
                draft.state_ = Box();
                draft.saved_seq_ = 0;
                load(draft, unbounded);
            } else if (!direct.messages.empty()) {
                draft.seq_ = draft.saved_seq_ = outcome.appended.last_seq;
            }
            return std::move(direct.messages);
        });
    }

    void discard(DraftBase& draft) {
        if (draft.saved_) draft.state_ = std::move(draft.saved_);
        draft.seq_ = draft.saved_seq_;
        forget_decisions(draft);
    }

    /// Decides on the remembered state without reading anything: the commit tells when the stream has moved on.
    Handling handle(const Definition& definition, std::string_view stream, Message command,
                    const HandleOptions& options) {
        Member& member = member_of(definition);
        const Member::Route& route = command_route(member, command.type);
        complete(command, stream);
        Direct direct;
        direct.group = member.id;
        direct.stream = stream;
        direct.evolves = member.folds ? &member.evolves : &no_types_;
        const std::size_t stored = direct.commands = options.store_commands ? 1 : 0;
        if (options.store_commands) direct.messages.push_back(std::move(command));
        Patience patience;
        for (bool looked = false, asked_twice = false;;) {
            direct.messages.resize(stored);
            const Message& asked = options.store_commands ? direct.messages.front() : command;
            auto memory = recall(member, stream);
            if (memory->open) {
                // Our own reactions: sooner handled before than refused by the commit, which costs the state.
                memory->open = false;
                memory_.put(member.id, std::move(memory));
                (void)drain(member, stream);
                continue;
            }
            if (!member.folds && memory->seq == 0) memory->seq = store_->stream_seq(stream);
            if (member.folds && (looked || memory->seq == 0 || memory->foreign != foreign_)) {
                catch_up(member, *memory, unbounded);
                looked = true;
            }
            direct.decided_on = memory->seq;
            Decided decided;
            Box before;
            bool intact = true;
            try {
                decided = (*route.command)(memory->state.get(), asked);
                if (member.guesses) before = memory->state;
                intact = false;
                apply(member, *memory, asked, decided, memory->seq + static_cast<std::int64_t>(stored));
            } catch (...) {
                if (intact) memory_.put(member.id, std::move(memory));
                // Perhaps the state was old, or what is pending would have changed it: once more with all there is.
                if (std::exchange(asked_twice, true)) throw;
                looked = true;
                (void)drain(member, stream);
                continue;
            }
            if (!options.store_commands) {
                for (auto& event : decided.events) mark_outside(event, asked);
            }
            std::move(decided.events.begin(), decided.events.end(), std::back_inserter(direct.messages));
            if (definition.sync) {
                direct.sync = [&](Transaction& transaction) {
                    std::vector<Message*> order;
                    if (!options.store_commands) order.push_back(&command);
                    for (auto& message : direct.messages) order.push_back(&message);
                    sync_direct(definition, direct, memory->state.get(), order, transaction);
                };
            }
            const DirectOutcome outcome = store_->commit_direct(direct);
            if (outcome.result == DirectOutcome::Result::done) {
                Handling result;
                result.refusal = std::move(decided.refusal);
                for (std::size_t i = 0; i < direct.messages.size(); ++i) {
                    place(direct.messages[i], outcome.appended, static_cast<std::int64_t>(i));
                }
                if (!outcome.appended.repeated) {
                    remember_direct(member, std::move(memory), direct.messages, stored, std::move(before));
                }
                result.command = std::move(options.store_commands ? direct.messages.front() : command);
                result.events.assign(
                    std::make_move_iterator(direct.messages.begin() + static_cast<std::ptrdiff_t>(stored)),
                    std::make_move_iterator(direct.messages.end()));
                return result;
            }
            looked = true;
            if (outcome.result == DirectOutcome::Result::pending) make_way({member, stream}, patience);
        }
    }

    // ---- looking

    std::pair<Box, std::int64_t> load(const Definition& definition, std::string_view stream, std::int64_t upto) {
        Member& member = member_of(definition);
        if (definition.role == Definition::Role::projector && !definition.event_sourced) {
            throw Error("load: '" + definition.name + "' stores its state by itself: read it from there");
        }
        Remembered copy;
        copy.stream = stream;
        if (auto memory = memory_.take(member.id, stream)) {
            if (memory->state && memory->seq <= upto) {
                copy.state = memory->state;
                copy.seq = memory->seq;
            }
            memory_.put(member.id, std::move(memory));
        }
        if (!copy.state) copy.state = blank(member, stream);
        catch_up(member, copy, upto);
        return {std::move(copy.state), copy.seq};
    }

    // ---- running

    /// `in_turns`: each reactor claims once, then the next has its turn.
    std::size_t run_until_idle(bool in_turns = false) {
        if (running_) throw Error("run_until_idle: workers are running; stop() first, or wait_until_idle()");
        if (idling_for == this) throw Error("run_until_idle: called from a handler; it is what calls the handler");
        const std::lock_guard lock(foreground_);
        const Shown shown(*this, foreground_doing_);
        const Within idling(idling_for, this);
        Worker& worker = foreground_worker_;
        worker.doing = &foreground_doing_;
        const std::size_t before = worker.handled;
        look_due_ = true;
        for (const auto& member : members_) member->work = true;
        for (bool again = true; again;) {
            again = promote() > 0;
            beat_when_due();
            for (const auto& member : members_) {
                for (bool claimed = false;;) {
                    const auto advanced = advance(worker, *member, !(in_turns && claimed));
                    if (advanced == Advanced::idle) break;
                    claimed |= advanced == Advanced::claimed;
                    again = true;
                    beat_when_due();
                }
            }
            // A retry that is due counts as work; one that is not ends the loop.
            const auto now = options_.clock().time_since_epoch().count();
            for (const auto& member : members_) again |= wake_retry(*member, now);
        }
        return worker.handled - before;
    }

    /// See Access::run_group.
    Ran run_group(std::string_view name, const RunOptions& options) {
        Member* member = find_member(name);
        if (!member) throw NotRegistered("run '" + std::string(name) + "': no reactor of this name was added");
        if (running_) throw Error("run '" + std::string(name) + "': workers are running; stop() first");
        if (idling_for == this) throw Error("run '" + std::string(name) + "': called from a handler");
        const std::lock_guard lock(foreground_);
        const Shown shown(*this, foreground_doing_);
        const Within idling(idling_for, this);
        Worker worker;
        worker.doing = &foreground_doing_;
        if (options.until != unbounded) worker.until = options.until + 1;
        Ran ran = run_group(worker, *member, options);
        ran.messages = static_cast<std::int64_t>(worker.handled);
        member->work = true;  // there may be more behind `until`
        return ran;
    }

    void start(std::size_t workers) {
        const std::lock_guard lock(lifecycle_);
        check_process();
        if (running_) throw Error("start: workers are running already");
        if (workers == 0) return;
        stopping_ = false;
        look_due_ = true;
        for (const auto& member : members_) member->work = true;
        next_beat_ = std::chrono::steady_clock::duration::zero();
        try {
            beat_when_due();
        } catch (const StoreError& error) {
            trouble(error.what());  // the timer tries again
        }
        running_ = true;
        worker_count_ = workers;
        try {
            for (std::size_t i = 0; i < workers; ++i) {
                threads_.emplace_back([this, i] { supervise("worker", [&] { run_worker(i); }); });
            }
            threads_.emplace_back([this] { supervise("timer", [&] { run_timer(); }); });
            watch();
        } catch (...) {
            join();
            throw;
        }
        log(Level::info, "workers started", {{"workers", std::to_string(workers)}});
    }

    void stop() {
        if (working_for == this) throw Error("stop: called from a handler; a worker cannot wait for itself");
        const std::lock_guard lock(lifecycle_);
        if (!running_) return;
        join();
        log(Level::info, "workers stopped");
    }

    void run(std::size_t workers) {
        if (workers == 0) return;
        SignalPipe signals;
        start(workers);
        const int signal = signals.wait([this] { return running_.load(); });
        if (signal != 0) log(Level::info, "stopping", {{"signal", std::to_string(signal)}});
        stop();
    }

    bool wait_until_idle(Duration timeout) {
        return await(timeout, true, [this] { return all_handled(); });
    }

    Waited wait(std::int64_t position, std::string_view stream, std::vector<std::string> groups, Duration timeout) {
        if (working_for == this || idling_for == this) {
            throw Error("wait: called from a handler; a worker cannot wait for itself");
        }
        if (groups.empty()) {
            for (const auto& member : members_) groups.push_back(member->definition->name);
        }
        Waited waited;
        const auto done = [&] {
            waited = {Waited::Result::timed_out, {}, {}};
            if (store_->head() < position) return false;
            for (const auto& group : groups) {
                auto standing = store_->standing(group, position, stream);
                if (standing.reached) continue;
                if (waited.group.empty()) waited.group = group;
                if (standing.stalled.empty()) continue;
                waited = {Waited::Result::stalled, group, std::move(standing.stalled)};
                return true;
            }
            if (!waited.group.empty()) return false;
            waited.result = Waited::Result::reached;
            return true;
        };
        (void)await(timeout, false, done);
        return waited;
    }

    // ---- groups by hand

    void stop_group(std::string_view group, std::string_view reason) {
        store_->stop_group(group, reason);
        if (const Member* member = member_named(group)) stopped(*member, reason);
    }
    void start_group(std::string_view group, std::string_view reason) {
        store_->start_group(group, reason);
        const Member* member = member_named(group);
        if (member && member->definition->on_start) {
            call_back(*member, "on_start", [&] { member->definition->on_start(); });
        }
    }

    Stats stats() {
        Stats stats = store_->stats();
        const std::int64_t now = steady_now();
        const std::lock_guard lock(doings_mutex_);
        for (const Doing* doing : doings_) {
            if (auto slow = slow_handler(*doing, now)) stats.slow.push_back(std::move(*slow));
        }
        return stats;
    }

    /// See Access::handled.
    [[nodiscard]] std::int64_t handled() {
        const std::lock_guard lock(doings_mutex_);
        std::size_t count = handled_before_;
        for (const Doing* doing : doings_) count += doing->handled.load(std::memory_order_relaxed);
        return static_cast<std::int64_t>(count);
    }

    [[nodiscard]] Store& store() noexcept { return *store_; }
    [[nodiscard]] const Registry& registry() const noexcept { return registry_; }
    [[nodiscard]] std::vector<const Definition*> definitions() const {
        std::vector<const Definition*> definitions;
        for (const auto& member : members_) definitions.push_back(member->definition);
        return definitions;
    }

    // ---- notifying

    std::size_t publish(std::string_view channel, std::string_view text, const Message* message) {
        if (!subscribers_->any()) return 0;
        check_process();
        Notice notice{std::string(channel), std::string(text), {}, 0};
        if (message) notice.message = *message;
        return subscribers_->each(notice.channel, [&](ChannelFeed& feed) { feed.put(notice); });
    }

    std::unique_ptr<Listening<Notice>> subscribe(std::string_view channel, std::function<void(const Notice&)> callback,
                                                 const SubscribeOptions& options) {
        check_process();
        if (channel.empty()) throw Invalid("subscribe: the channel has no name");
        if (options.limit == 0) {
            throw Invalid("subscribe to '" + std::string(channel) + "': limit is 0, expected at least 1");
        }
        auto feed = std::make_shared<ChannelFeed>(
            options.limit, [this](Level level, std::string text, std::string error, const Notice* notice) {
                log(level, std::move(text),
                    {{"error", std::move(error)}, {"channel", notice ? notice->channel : std::string()}});
            });
        auto listening = std::make_unique<Listening<Notice>>(subscribers_, std::string(channel), std::move(feed));
        listening->begin(marked(std::move(callback)));
        return listening;
    }

    std::unique_ptr<Listening<Message>> follow(const FollowOptions& options,
                                               std::function<void(const Message&)> callback) {
        check_process();
        std::int64_t from = 1;
        switch (options.from.from) {
            case Start::From::beginning: break;
            case Start::From::now: from = store_->head() + 1; break;
            case Start::From::position: from = std::max<std::int64_t>(options.from.position, 1); break;
            case Start::From::time: from = store_->position_at(options.from.time); break;
            case Start::From::ago: from = store_->position_at(earlier(options_.clock(), options.from.before)); break;
        }
        auto feed = std::make_shared<LogFeed>(
            *store_, options, from, [this](Level level, std::string text, std::string error, const Message* message) {
                log(level, std::move(text),
                    {{"error", std::move(error)}, {"position", message ? std::to_string(message->position) : ""}});
            });
        auto listening = std::make_unique<Listening<Message>>(followers_, std::string(), std::move(feed));
        listening->begin(marked(std::move(callback)));
        watch();
        return listening;
    }

private:
    // ---- groups

    /// Gives a reactor what its handlers may need of the App, and learns its types.
    void equip(Reactor& reactor) {
        auto& definition = Access::definition(reactor);
        definition.clock = options_.clock;
        definition.new_id = [this] { return ids_.next(options_.clock()); };
        for (const auto& register_type : definition.registrations) register_type(registry_);
    }

    Member& add(Reactor& reactor) {
        const Definition& definition = reactor.definition();
        if (running_) throw Error("add '" + definition.name + "': workers are running; stop() first");
        if (definition.name.empty()) throw Invalid("add: the reactor has no name");
        for (const auto& other : members_) {
            if (other->definition->name == definition.name) {
                throw Error("add '" + definition.name + "': there is a reactor of this name already");
            }
        }
        OptionsCheck check;
        const std::size_t batch_size = definition.options.batch_size.value_or(options_.batch_size);
        check.within<std::size_t>("batch_size", batch_size, 1, std::numeric_limits<std::size_t>::max());
        check.refuse("add '" + definition.name + "'");
        equip(reactor);
        const auto types = definition.handled();
        auto member = make_member(definition, group_of(definition, types));
        for (const auto& type : types) by_type_[type].push_back(member.get());
        return *members_.emplace_back(std::move(member));
    }

    /// The row id of its group; nothing is stored where the file is only read.
    std::int64_t group_of(const Definition& definition, const std::vector<std::string>& types) {
        if (options_.open != Open::read_only) {
            if (definition.on_install) store_->transaction(definition.on_install);
            return store_->register_group({definition.name, types, definition.options.start_from}).id;
        }
        std::int64_t id = -static_cast<std::int64_t>(members_.size()) - 1;  // one that no group has
        store_->read([&](Reader& reader) {
            const auto row = reader.row("select id from sourced_groups where name = ?", definition.name);
            if (row) id = row->integer(0);
        });
        return id;
    }

    // ---- what stands in the way

    /// Something older has to be handled first.
    struct StandsOpen : std::exception {
        StandsOpen(Member& a_member, std::string_view a_stream) : member(&a_member), stream(a_stream) {}
        Member* member;
        std::string stream;
    };

    /// How long somebody has waited already.
    struct Patience {
        std::chrono::steady_clock::time_point started = std::chrono::steady_clock::now();
        Duration pause = std::chrono::microseconds(100);
    };

    /// Has what stands open before a position handled, here or by who holds it. Throws Error when that takes too long.
    void make_way(const StandsOpen& open, Patience& patience, std::int64_t until = unbounded) {
        if (drain(*open.member, open.stream, until)) return;
        if (std::chrono::steady_clock::now() - patience.started >= options_.claim_time) {
            throw Error(open.stream + " is busy: another worker of '" + open.member->definition->name +
                        "' has held it for longer than the claim time, or a message in it waits for its retry");
        }
        std::this_thread::sleep_for(patience.pause);
        patience.pause = std::min<Duration>(patience.pause * 2, std::chrono::milliseconds(10));
    }

    [[nodiscard]] static const Member::Route& command_route(const Member& member, const std::string& type) {
        const Member::Route* route = member.route(type);
        if (route && route->command) return *route;
        throw NotRegistered("'" + member.definition->name + "' has no handler for the command '" + type + "'");
    }

    static void forget_decisions(DraftBase& draft) {
        draft.saved_ = Box();
        draft.commands_.clear();
        draft.outcomes_.clear();
        draft.events_.clear();
    }

    /// The sync of an actor whose messages have just been appended.
    static void sync_direct(const Definition& definition, Direct& direct, const void* state,
                            const std::vector<Message*>& order, Transaction& transaction) {
        std::int64_t seq = last_seq(transaction, direct.stream) - static_cast<std::int64_t>(direct.messages.size());
        for (auto& message : direct.messages) message.seq = ++seq;
        std::vector<Synced> batch;
        for (const auto* message : order) batch.push_back({message, false});
        definition.sync(state, direct.stream, batch, false, transaction);
    }

    /// A unit on its way: what is to be handled yet, and what was made of it so far.
    struct Together {
        struct Next {
            Message message;
            bool stored = true;
        };
        UnitOptions options;
        std::vector<Member*> members;
        std::deque<Next> queue;
        std::map<std::pair<const Member*, std::string>, std::unique_ptr<Work>> works;
        std::vector<std::unique_ptr<Work>> done;  // whose `after` is to be run
        std::int64_t before = 0;                  // what stands behind this position is the unit's own
        std::size_t handled = 0;
        bool repeated = false;
        UnitResult result;
    };

    /// A claim that is still held after a commit did not take its work.
    struct Again {
        std::unique_ptr<Work> work;
        Claim claim;
        std::optional<Failure> failure{};  // to be recorded
        bool release = false;              // to be given back; otherwise it is handled anew
    };

    /// What one thread is at, for others to see: costs it a look at the clock a claim.
    struct Doing {
        explicit Doing(std::string name) : thread(std::move(name)) {}

        const std::string thread;
        std::atomic<std::int64_t> since{0};  // 0: it is in no handler
        std::atomic<const Member*> member{nullptr};
        std::atomic<std::int64_t> stream{0};
        std::atomic<std::int64_t> given_up{0};  // the `since` of a claim that was taken back
        std::atomic<std::size_t> handled{0};    // messages
        std::int64_t told = 0;                  // of one that was logged; the timer's
        std::mutex mutex{};
        std::vector<Claim> held{};  // all it has claimed, without what makes them large; guarded

        void begin(const Member& of, const Claim& claim) noexcept {
            member.store(&of, std::memory_order_relaxed);
            stream.store(claim.stream, std::memory_order_relaxed);
            since.store(steady_now());
        }
        void end() noexcept { since.store(0); }
        /// Only its own thread writes it.
        void count(std::size_t messages) noexcept {
            handled.store(handled.load(std::memory_order_relaxed) + messages, std::memory_order_relaxed);
        }
    };

    /// What one thread has in hands.
    struct Worker {
        Doing* doing = nullptr;  // null: nobody looks
        Exchange step;                             // what is finished
        std::vector<std::unique_ptr<Work>> works;  // what belongs to step.finished
        std::vector<Again> again;
        std::vector<std::pair<Member*, Claim>> claims;  // to be handled
        std::vector<std::unique_ptr<Work>> spare;
        std::size_t handled = 0;
        std::int64_t until = unbounded;  // only what stands before this position is handled
        std::size_t streams = unlimited;   // at most so many are claimed at a time
        std::size_t messages = unlimited;  // and so many handled of each
        std::string failed;              // what the last failure said
        std::exception_ptr trouble;  // the store could not be read
        Duration rest = std::chrono::milliseconds(10);
        bool alone = false;  // takes over nothing that others left
        bool active = true;  // what it asked for last can be claimed at all

        [[nodiscard]] bool has_claims() const noexcept { return !claims.empty() || !again.empty(); }
        [[nodiscard]] bool busy() const noexcept { return has_claims() || !step.finished.empty(); }
        std::unique_ptr<Work> work(Member& member) {
            std::unique_ptr<Work> work;
            if (spare.empty()) {
                work = std::make_unique<Work>();
            } else {
                work = std::move(spare.back());
                spare.pop_back();
            }
            work->member = &member;
            work->limit = messages;
            work->until = until;
            work->conflicts = 0;
            return work;
        }
    };

    /// SIGINT and SIGTERM while it lives; then the handlers are what they were before.
    class SignalPipe {
    public:
        SignalPipe() {
            if (::pipe2(ends_, O_CLOEXEC | O_NONBLOCK) != 0) {
                throw Error(std::string("run: pipe: ") + std::strerror(errno));
            }
            int nobody = -1;
            if (!writer().compare_exchange_strong(nobody, ends_[1])) {
                close();
                throw Error("run: another App of this process waits for signals already");
            }
            struct sigaction action {};
            action.sa_handler = [](int number) {
                const int before = errno;
                const auto byte = static_cast<unsigned char>(number);
                (void)!::write(writer().load(), &byte, 1);
                errno = before;
            };
            action.sa_flags = SA_RESTART;
            sigemptyset(&action.sa_mask);
            ::sigaction(SIGINT, &action, &interrupt_);
            ::sigaction(SIGTERM, &action, &terminate_);
        }
        ~SignalPipe() {
            ::sigaction(SIGINT, &interrupt_, nullptr);
            ::sigaction(SIGTERM, &terminate_, nullptr);
            writer() = -1;
            close();
        }
        SignalPipe(const SignalPipe&) = delete;
        SignalPipe& operator=(const SignalPipe&) = delete;

        /// The signal that came, or 0 when `running` turned false first.
        template <class Running>
        int wait(const Running& running) {
            while (running()) {
                pollfd end{ends_[0], POLLIN, 0};
                if (::poll(&end, 1, 1000) <= 0) continue;
                unsigned char byte = 0;
                if (::read(ends_[0], &byte, 1) == 1) return byte;
            }
            return 0;
        }

    private:
        // A signal handler is told nothing but a number: the one place where something global cannot be avoided.
        static std::atomic<int>& writer() noexcept {
            static std::atomic<int> file{-1};
            return file;
        }
        void close() const noexcept {
            ::close(ends_[0]);
            ::close(ends_[1]);
        }

        int ends_[2] = {-1, -1};
        struct sigaction interrupt_ {};
        struct sigaction terminate_ {};
    };

    // ---- read models that are built anew

    /// Two threads of this App would throw away each other's work.
    class OneRebuild {
    public:
        OneRebuild(Engine& engine, const std::string& name) : engine_(engine), name_(name) {
            const std::lock_guard lock(engine.mutex_);
            if (!engine.rebuilt_.insert(name).second) throw Error("rebuild '" + name + "': that is under way already");
        }
        OneRebuild(const OneRebuild&) = delete;
        OneRebuild& operator=(const OneRebuild&) = delete;
        ~OneRebuild() {
            const std::lock_guard lock(engine_.mutex_);
            engine_.rebuilt_.erase(name_);
        }

    private:
        Engine& engine_;
        const std::string& name_;
    };

    [[noreturn]] static void cannot_rebuild(const Definition& definition, const std::string& why) {
        throw Invalid("rebuild '" + definition.name + "': " + why +
                      "; create its tables in on_install, under the names that db.table(\"name\") gives, and ask for "
                      "them wherever they are used");
    }
    static void check_rebuild(const Definition& definition) {
        if (definition.role != Definition::Role::projector) {
            throw Invalid("rebuild '" + definition.name +
                          "': only projectors keep a read model that can be built anew");
        }
        if (!definition.sync) cannot_rebuild(definition, "it has no sync, so nothing is kept of it");
        if (!definition.on_install) cannot_rebuild(definition, "it has no on_install");
    }

    /// Passes the log, then what the served generation has handled meanwhile, for as long as that gets less.
    Rebuilt build(Member& member, const RebuildOptions& options) {
        const Generation& generation = member.rebuilding->generation;
        Worker worker;
        worker.alone = true;
        Progress progress;
        progress.total = count_messages(member);
        Rebuilt rebuilt;
        rebuilt.generation = generation.number;
        std::size_t before = std::numeric_limits<std::size_t>::max();
        for (bool more = true; more;) {
            const std::int64_t target = store_->head();
            for (member.work = true; worker.busy() || (member.work && member.rebuilding->scanned < target);) {
                beat_when_due();
                (void)advance(worker, member);
                for (const auto& handled : worker.step.finished) stop_at(member, handled.failure, handled.claim);
                for (const auto& again : worker.again) stop_at(member, again.failure, again.claim);
                progress.done = static_cast<std::int64_t>(worker.handled);
                progress.total = std::max(progress.total, progress.done);
                if (options.progress) options.progress(progress);
            }
            ++rebuilt.passes;
            const std::size_t woken = store_->next_pass(generation);
            more = woken > 0 && woken <= before / 2 && rebuilt.passes < 10;
            before = woken;
            member.rebuilding->scanned = 0;
        }
        rebuilt.messages = progress.done;
        progress.done = progress.total;
        if (options.progress) options.progress(progress);
        store_->serve_generation(generation, member.definition->on_install);
        return rebuilt;
    }

    static void stop_at(const Member& member, const std::optional<Failure>& failure, const Claim& claim) {
        if (!failure || failure->resolution.verb == Resolution::Verb::skip) return;
        throw Error("rebuild '" + member.definition->name + "': '" + claim.stream_name + "' failed at position " +
                    std::to_string(failure->position) + ": " + failure->text);
    }

    void drop(const Member& member) noexcept {
        try {
            store_->drop_generation(member.rebuilding->generation);
        } catch (const std::exception& error) {
            // The next rebuild drops it.
            log(Level::warning, "a rebuild that broke off could not be cleared away",
                {{"group", member.definition->name}, {"error", error.what()}});
        }
    }

    /// How many messages of its types there are, about: what comes meanwhile is not among them.
    std::int64_t count_messages(const Member& member) {
        std::int64_t count = 0;
        store_->read([&](Reader& reader) {
            count = reader
                        .row("select count(*) from sourced_messages where position > ? and type in (select t.id from "
                             "json_each(?) j join sourced_types t on t.name = j.value)",
                             member.rebuilding->generation.begins, encode(member.definition->handled()))
                        ->integer(0);
        });
        return count;
    }

    /// Sends what a handler writes to the tables that are built.
    static std::function<void(Transaction&)> beside(const Member& member, std::function<void(Transaction&)> sync) {
        return [&member, sync = std::move(sync)](Transaction& transaction) {
            Building building(transaction, member.rebuilding->generation.number, member.rebuilding->tables);
            sync(transaction);
            if (building.missed()) cannot_rebuild(*member.definition, "its sync wrote and asked for no table");
        };
    }

    // ---- starting and ending

    static std::uint64_t random_seed() {
        std::random_device device;
        return static_cast<std::uint64_t>(device()) << 32 | device();
    }

    void check_process() const {
        if (forked()) {
            throw Error("this App belongs to process " + std::to_string(pid_) + " and cannot be used after a fork");
        }
    }

    void join() {
        {
            const std::lock_guard lock(mutex_);
            stopping_ = true;
        }
        wake_.notify_all();
        timer_.notify_all();
        paused_.notify_all();
        for (auto& thread : threads_) thread.join();
        threads_.clear();
        running_ = false;
        end_watch(false);
        worker_count_ = 0;
    }

    void log(Level level, std::string text, std::vector<std::pair<std::string, std::string>> fields = {}) const {
        if (!options_.log) return;
        try {
            options_.log({level, std::move(text), std::move(fields)});
        } catch (...) {
            // A log that fails has nobody to tell, and must not end a worker.
        }
    }

    /// Trouble of the store: said once, until it works again.
    void trouble(const std::string& text) {
        if (!troubled_.exchange(true)) log(Level::warning, "the store has trouble, going on trying", {{"error", text}});
    }
    void works() {
        if (troubled_.load(std::memory_order_relaxed) && troubled_.exchange(false)) {
            log(Level::info, "the store works again");
        }
    }

    // ---- messages

    void complete(Message& message, std::string_view stream) {
        if (stream.find_first_not_of(" \t\r\n") == std::string_view::npos) {
            throw Invalid("dispatch '" + message.type + "': the stream's name is blank");
        }
        message.stream = stream;
        if (message.id.is_nil()) message.id = ids_.next(options_.clock());
        if (message.causation.is_nil()) message.causation = message.id;
        if (message.correlation.is_nil()) message.correlation = message.id;
    }

    static void place(Message& message, const Appended& appended, std::int64_t index) {
        message.seq = appended.first_seq + index;
        message.position = appended.first_position + index;
        message.recorded_at = appended.recorded_at;
        if (message.occurred_at == Time{}) message.occurred_at = appended.recorded_at;
    }

    void follow(Message& message, const Message& cause, Time now) {
        message.id = ids_.next(now);
        message.causation = cause.id;
        message.correlation = cause.correlation;
        if (!cause.metadata.empty()) message.metadata = cause.metadata.merged_under(message.metadata);
    }

    // ---- states

    [[nodiscard]] Member* find_member(std::string_view name) const {
        for (const auto& member : members_) {
            if (member->definition->name == name) return member.get();
        }
        return nullptr;
    }
    [[nodiscard]] Member& member_of(const Definition& definition) {
        for (const auto& member : members_) {
            if (member->definition == &definition) return *member;
        }
        throw NotRegistered("'" + definition.name + "' was not added to this App");
    }

    Box blank(const Member& member, std::string_view stream, UnitTransaction* unit = nullptr) {
        const Definition& definition = *member.definition;
        if (!definition.initial_reads || unit) return definition.initial(stream, unit);
        Box state;
        store_->read([&](Reader& reader) {
            std::optional<Building> building;
            if (const auto* beside = member.rebuilding.get()) {
                building.emplace(reader, beside->generation.number, beside->tables);
            }
            state = definition.initial(stream, &reader);
        });
        return state;
    }

    [[nodiscard]] Memory& memory_of(const Member& member) noexcept {
        return member.rebuilding ? member.rebuilding->memory : memory_;
    }

    std::unique_ptr<Remembered> recall(const Member& member, std::string_view stream) {
        auto memory = memory_.take(member.id, stream);
        if (!memory) {
            memory = std::make_unique<Remembered>();
            memory->stream = stream;
        }
        if (!memory->state) {
            memory->state = blank(member, stream);
            memory->seq = 0;
        }
        return memory;
    }

    /// Reads a stream of the file, or as the unit that is under way has made it.
    void read_stream(UnitTransaction* unit, std::string_view stream, const StreamRange& range, const Visit& visit) {
        if (unit) unit->read_stream(stream, range, visit);
        else store_->read_stream(stream, range, visit);
    }

    /// Brings a state up to the end of its stream, or to `upto`.
    void catch_up(const Member& member, Remembered& memory, std::int64_t upto, UnitTransaction* unit = nullptr,
                  Messages* seen = nullptr) {
        Router route(member);
        const auto foreign = foreign_.load();
        const std::int64_t known = memory.seq;
        StreamRange range;
        range.to = upto;
        for (;;) {
            range.from = memory.seq + 1;
            if (range.from > range.to) return;
            std::int64_t folding = 0;
            try {
                read_stream(unit, memory.stream, range, [&](Message& message) {
                    const auto* found = route(message.type);
                    folding = message.position;
                    if (found && found->evolve && !memory.passes(folding)) {
                        member.evolve(*found, memory.state.get(), message);
                    }
                    folding = 0;
                    memory.seq = message.seq;
                    if (seen && message.seq > known) seen->push_back(message);
                    return true;
                });
                break;
            } catch (...) {
                if (folding == 0 || !was_skipped(member, memory, folding, unit)) throw;
            }
            // The handler may have left the state half changed.
            memory.state = blank(member, memory.stream, unit);
            memory.seq = 0;
            if (seen) seen->clear();
        }
        memory.foreign = foreign;
    }

    /// Asked when a state cannot be folded with a message: has the group skipped it? Then the state knows that, and is
    /// to be folded anew.
    bool was_skipped(const Member& member, Remembered& memory, std::int64_t position, UnitTransaction* unit) {
        if (memory.passes(position)) return false;
        const auto ask = [&](Reader& reader) {
            memory.skipped.clear();
            for (const auto& row : reader.query("select k.position from sourced_skipped k join sourced_streams s "
                                                "on s.id = k.stream where k.grp = ? and s.name = ?",
                                                member.id, memory.stream)) {
                memory.skipped.push_back(row.integer(0));
            }
        };
        if (unit) ask(*unit);
        else store_->read(ask);
        return memory.passes(position);
    }

    /// Turns what a command handler decided into messages that follow the command, and evolves the state with
    /// them, as they will be read back. The command stands at `seq`, or the events of others before it do.
    void apply(const Member& member, Remembered& memory, const Message& command, Decided& decided, std::int64_t seq) {
        if (decided.refusal) decided.events.push_back(Message(Refused{command.type, *decided.refusal}));
        if (decided.events.empty()) return;
        const Time now = options_.clock();
        for (auto& event : decided.events) {
            follow(event, command, now);
            event.stream = command.stream;
            event.seq = ++seq;
            if (!member.folds) continue;
            const auto* route = member.route(event.type);
            if (!route || !route->evolve) continue;
            const Time occurred = event.occurred_at;
            event.recorded_at = now;  // nearly: the store has the last word
            if (occurred == Time{}) event.occurred_at = now;
            member.evolve(*route, memory.state.get(), event);
            event.occurred_at = occurred;
        }
    }

    /// The cause is known, but not to the log.
    static void mark_outside(Message& message, const Message& cause) {
        message.metadata.set("outside_cause", cause.id.to_string());
    }

    /// The first `handled` of the messages were, the others followed from them.
    void remember_direct(const Member& member, std::unique_ptr<Remembered> memory, const Messages& messages,
                         std::size_t handled, Box before) {
        bool reacts = false;
        for (std::size_t i = handled; i < messages.size() && !reacts; ++i) {
            const auto* route = member.route(messages[i].type);
            reacts = route && (route->reaction || route->command);
        }
        memory->open = reacts;
        if (before) {
            memory->state = std::move(before);
            memory->foreign = 0;  // to be read on from the file
        } else if (messages.size() > handled || (handled > 0 && memory->seq + 1 == messages.front().seq)) {
            memory->seq = messages.back().seq;
        }
        const Message* last = nullptr;
        if (!reacts && !messages.empty()) last = &messages.back();
        if (reacts && handled > 0) last = &messages[handled - 1];
        if (last) {
            memory->handled_seq = last->seq;
            memory->handled_position = last->position;
        }
        memory_.put(member.id, std::move(memory));
    }

    /// The seq up to which nothing is pending: where reading may begin behind. 0 when it is not known cheaply.
    std::int64_t handled_seq(const Claim& claim, const Remembered& memory) {
        if (memory.handled_seq > 0 && memory.handled_position <= claim.acked) return memory.handled_seq;
        if (claim.acked == 0 || (claim.highest == 0 && claim.begins == 0)) return 0;
        // Discovery leaves the very position behind; the seq stands in that row.
        std::int64_t seq = 0;
        LogRange exact;
        exact.from = exact.to = claim.pending;
        exact.limit = 1;
        store_->read_log(exact, [&](Message& message) {
            if (message.stream == claim.stream_name) seq = message.seq - 1;
            return false;
        });
        if (seq > 0) return seq;
        StreamRange newest;
        newest.backwards = true;
        newest.limit = 256;
        store_->read_stream(claim.stream_name, newest, [&](Message& message) {
            if (message.position > claim.acked) return true;
            seq = message.seq;
            return false;
        });
        return seq;
    }

    /// Reads a claimed stream from `from` on: from the claim, if it holds that much, otherwise from the file.
    void read_on(const Work& work, const Claim& claim, std::int64_t from, const Visit& visit) {
        if (claim.tail.empty() || claim.tail.front()->seq > from) {
            StreamRange range;
            range.from = from;
            read_stream(work.unit, claim.stream_name, range, visit);
            return;
        }
        Message message;
        for (const auto& kept : claim.tail) {
            if (kept->seq < from) continue;
            message = *kept;
            if (!visit(message)) return;
        }
    }

    // ---- handling a claim

    /// Makes of a claim what is to be committed. Never throws: faults of user code are recorded, and when the
    /// store fails the claim is given back.
    void handle(Worker& worker, std::unique_ptr<Work> work, Claim claim) {
        auto& handled = worker.step.finished.emplace_back();
        handled.claim = std::move(claim);
        handled.acked = handled.claim.acked;
        try {
            work->begin();
            work->memory = memory_of(*work->member).take(work->member->id, handled.claim.stream_name);
            if (!work->memory) {
                work->memory = std::make_unique<Remembered>();
                work->memory->stream = handled.claim.stream_name;
            }
            if (handled.claim.deaths > options_.deaths) {
                give_up(*work, handled);
            } else {
                if (worker.doing) worker.doing->begin(*work->member, handled.claim);
                handle_claim(*work, handled);
            }
        } catch (...) {
            const auto fault = describe(std::current_exception());
            trouble(fault.text);
            worker.trouble = std::current_exception();
            Claim kept = std::move(handled.claim);
            handled = Handled{};
            handled.claim = std::move(kept);
            handled.acked = handled.claim.acked;
            handled.release = true;
            work->begin();
            work->keep = false;
        }
        if (worker.doing) worker.doing->end();
        worker.works.push_back(std::move(work));
    }

    void handle_claim(Work& work, Handled& handled) {
        switch (work.member->definition->role) {
        case Definition::Role::actor: act(work, handled); break;
        case Definition::Role::projector: project(work, handled); break;
        case Definition::Role::reactor: serve(work, handled); break;
        }
    }

    [[nodiscard]] static bool is_replay(const Claim& claim, std::int64_t position) noexcept {
        return position <= claim.highest || position <= claim.begins;
    }

    [[nodiscard]] std::size_t batch_limit(const Work& work, const Claim& claim) const noexcept {
        // One at a time while something in it fails or kills: what is sound is kept then.
        if (claim.deaths > 0 || claim.attempts > 0) return 1;
        return std::min(work.member->batch_size, work.limit);
    }

    void give_up(Work& work, Handled& handled) {
        const Claim& claim = handled.claim;
        const std::string text = "the process died " + std::to_string(claim.deaths) +
                                 " times, or its handler did not return, while handling '" + claim.stream_name +
                                 "' from position " + std::to_string(claim.pending);
        ask(work, handled, first_open(*work.member, claim), std::make_exception_ptr(Error(text)),
            {"process death", text}, claim.deaths);
    }

    /// Lets the error strategy decide about an exception of user code at one message, or (0) at the first that is open;
    /// what comes before it stays handled. In a unit it is the caller's.
    void fail(Work& work, Handled& handled, std::int64_t position, const std::exception_ptr& error) {
        if (work.unit) std::rethrow_exception(error);
        Message message =
            position > 0 ? first_message(handled.claim, position, {}) : first_open(*work.member, handled.claim);
        ask(work, handled, std::move(message), error, describe(error), 0);
    }

    /// The first message at or behind a position of the claimed stream; there should be one.
    Message first_message(const Claim& claim, std::int64_t position, std::vector<std::string> types) {
        Message found;
        found.stream = claim.stream_name;
        found.position = position;
        LogRange range;
        range.from = position;
        range.stream = claim.stream_name;
        range.types = std::move(types);
        range.limit = 1;
        store_->read_log(range, [&](Message& message) {
            found = std::move(message);
            return false;
        });
        return found;
    }
    Message first_open(const Member& member, const Claim& claim) {
        return first_message(claim, std::max(claim.pending, claim.acked + 1), member.definition->handled());
    }

    void ask(Work& work, Handled& handled, Message message, const std::exception_ptr& error, Described said,
             int deaths) {
        const Member& member = *work.member;
        const Claim& claim = handled.claim;
        const int before = claim.attempted == message.position ? claim.attempts : 0;
        work.faulted =
            std::make_unique<Faulted>(std::move(message), error, std::move(said), member, before + 1, deaths,
                                      options_.clock());
        const Fault& fault = work.faulted->fault;
        handled.failure = Failure{fault.message.position, fault.type, fault.text, resolve(member, fault)};
    }

    [[nodiscard]] static bool is_park(const std::exception_ptr& error) {
        try {
            std::rethrow_exception(error);
        } catch (const Park&) {
            return true;
        } catch (...) {
            return false;
        }
    }

    static Resolution resolve(const Member& member, const Fault& fault) {
        if (is_park(fault.error)) return Resolution::park(fault.text);
        try {
            Resolution resolution = member.errors(fault);
            if (fault.deaths > 0 && resolution.verb == Resolution::Verb::retry) {
                return Resolution::stop("trying again is no answer: " + fault.text);
            }
            return resolution;
        } catch (...) {
            const auto said = describe(std::current_exception());
            return Resolution::stop("the error strategy failed with " + said.type + ": " + said.text +
                                    "; it was told of " + fault.type + ": " + fault.text);
        }
    }

    /// An actor: one pass over the batch in the order of the stream. Commands are decided on the state at the end
    /// of the stream, which was read before; reactions see the trail, which follows the pass.
    void act(Work& work, Handled& handled) {
        Member& member = *work.member;
        Remembered& memory = *work.memory;
        const Claim& claim = handled.claim;
        const std::size_t limit = batch_limit(work, claim);
        if (!memory.state) {
            memory.seq = 0;
            if (!start_state(member, work, handled, memory.state)) return;
        }
        if (member.trailing && !memory.trail) {
            memory.trail_seq = 0;
            if (!start_state(member, work, handled, memory.trail)) return;
        }
        std::int64_t from = unbounded;
        if (member.folds) from = std::min(from, memory.seq);
        if (member.trailing) from = std::min(from, memory.trail_seq);
        if (from > 0) from = std::min(from, handled_seq(claim, memory));
        if (member.trailing && memory.trail_seq > from && !(memory.handled_position <= claim.acked)) {
            // The group was reset: the trail has to follow anew.
            memory.trail_seq = from = 0;
            if (!start_state(member, work, handled, memory.trail)) return;
        }

        memory.foreign = foreign_;
        Router route(member);
        std::exception_ptr fold_error;
        std::int64_t fold_seq = unbounded;  // where the fold failed
        std::int64_t fold_position = 0;
        std::int64_t end = from;  // the last seq that was looked at
        std::size_t pending = 0;
        bool commands = false;
        bool full = false;
        bool cut = false;  // by `until`: nothing is left before it
        bool ended = true;
        const auto visit = [&](Message& message) {
            const auto* found = route(message.type);
            end = message.seq;
            const bool skipped = memory.passes(message.position);
            if (member.folds && message.seq > memory.seq) {
                if (found && found->evolve && !skipped) {
                    try {
                        member.evolve(*found, memory.state.get(), message);
                    } catch (...) {
                        fold_error = std::current_exception();
                        fold_seq = message.seq;
                        fold_position = message.position;
                        work.keep = false;
                        return false;
                    }
                }
                memory.seq = message.seq;
            }
            if (message.position >= work.until && !full) {
                full = cut = true;
                ended = false;
            }
            if (full || !found) return true;
            const bool waits = message.position > claim.acked && (found->command || found->reaction);
            const bool replay = waits && (skipped || is_replay(claim, message.position));
            const bool trails = member.trailing && found->evolve && !skipped && message.seq > memory.trail_seq;
            if (!waits && !trails) return true;
            if (!waits && work.items.empty()) {
                try {
                    member.evolve(*found, memory.trail.get(), message);
                    memory.trail_seq = message.seq;
                } catch (...) {
                    fold_error = std::current_exception();
                    fold_seq = message.seq;
                    fold_position = message.position;
                    return false;
                }
                return true;
            }
            pending += waits ? 1 : 0;
            commands |= waits && !replay && found->command;
            work.items.push_back({std::move(message), found, waits, replay, skipped});
            if (pending < limit) return true;
            full = true;
            ended = false;
            // The commands want the whole stream; what stands behind the batch is only evolved.
            return commands && member.folds && memory.seq <= end;
        };
        StreamRange range;
        range.from = from == unbounded ? 1 : from + 1;
        read_on(work, claim, range.from, visit);
        if (full && commands && member.folds && !fold_error && memory.seq > work.items.back().message.seq) {
            range.from = memory.seq + 1;
            read_on(work, claim, range.from, visit);
        }
        if (fold_error && was_skipped(member, memory, fold_position, work.unit)) {
            fold_anew(work);
            return act(work, handled);
        }

        const bool decides = commands && member.folds && !fold_error;
        bool whole = true;
        bool touched = false;  // a reaction has sent something to this very stream that changes the state
        for (auto& item : work.items) {
            Message& message = item.message;
            const auto& path = *item.route;
            if (fold_error && (message.seq > fold_seq || (item.pending && path.command && !item.replay))) {
                whole = false;
                break;
            }
            if (item.pending && path.command && touched && !item.replay) {
                whole = false;
                break;
            }
            try {
                if (member.trailing && path.evolve && !item.skipped && message.seq > memory.trail_seq) {
                    member.evolve(path, memory.trail.get(), message);
                }
                if (item.pending && !item.replay) {
                    if (path.command) {
                        command(work, handled, path, message);
                    } else {
                        touched |= react(work, handled, path, message);
                    }
                }
            } catch (...) {
                fail(work, handled, message.position, std::current_exception());
                work.keep = false;
                whole = false;
                fold_error = nullptr;
                break;
            }
            if (member.trailing) memory.trail_seq = std::max(memory.trail_seq, message.seq);
            if (!item.pending) continue;
            if (work.handled++ == 0) work.first_position = message.position;
            work.handled_seq = message.seq;
            handled.acked = message.position;
        }
        if (fold_error) {
            fail(work, handled, fold_position, fold_error);
            work.keep = false;
            whole = false;
        }
        if (whole && ended) {
            // Nothing else of the group stands in the stream: whatever discovery thought is settled.
            handled.acked = std::max(handled.acked, claim.known);
            work.handled_seq = std::max(work.handled_seq, end);
            if (member.trailing) memory.trail_seq = std::max(memory.trail_seq, end);
        } else if (whole && cut) {
            handled.acked = std::max(handled.acked, work.until - 1);
        }
        if (!work.decisions.empty()) {
            handled.sync = [&work](Transaction& transaction) { sync_decisions(work, transaction); };
        }
        if (!member.folds) memory.seq = std::max(memory.seq, end);
        if (decides) {
            handled.evolves = &member.evolves;
            handled.decided_on = memory.seq;
        }
    }

    /// Nothing was made of the claim yet, and the states are of no use.
    static void fold_anew(Work& work) {
        work.items.clear();
        work.keep = true;
        work.memory->state = Box();
        work.memory->trail = Box();
    }

    /// False: user code failed, which is recorded.
    bool start_state(const Member& member, Work& work, Handled& handled, Box& state) {
        try {
            state = blank(member, handled.claim.stream_name, work.unit);
            return true;
        } catch (...) {
            fail(work, handled, 0, std::current_exception());
            work.keep = false;
            return false;
        }
    }

    static Messages& append_to(Handled& handled, const std::string& stream) {
        const auto& parts = handled.appends;
        if (parts.empty() || parts.back().stream != stream || parts.back().expect.seq != any_seq.seq) {
            handled.appends.push_back({stream, {}, any_seq});
        }
        return handled.appends.back().messages;
    }

    void command(Work& work, Handled& handled, const Member::Route& route, const Message& message) {
        Decided decided = (*route.command)(work.memory->state.get(), message);
        if (work.member->guesses && !work.before) work.before = work.memory->state;
        apply(*work.member, *work.memory, message, decided, work.memory->seq + static_cast<std::int64_t>(work.decided));
        Messages& events = decided.events;
        if (work.member->definition->sync) {
            // Their seqs are known once they are appended: until then, minus their number among the stream's own.
            work.decisions.push_back(message);
            for (std::size_t i = 0; i < events.size(); ++i) {
                work.decisions.push_back(events[i]);
                work.decisions.back().seq = -static_cast<std::int64_t>(work.own + i + 1);
            }
        }
        if (events.empty()) return;
        work.decided += events.size();
        work.own += events.size();
        auto& own = append_to(handled, handled.claim.stream_name);
        if (own.empty()) own = std::move(events);
        else std::move(events.begin(), events.end(), std::back_inserter(own));
    }

    /// True: the reaction sent something to its own stream that the state depends on.
    bool react(Work& work, Handled& handled, const Member::Route& route, const Message& message) {
        return send(work, handled, message,
                    route.reaction->call(route.reaction->wants_state ? state_for_reaction(work) : nullptr, message));
    }

    /// Sends what a reaction to `cause` returned. True: to its own stream, and the state depends on it.
    bool send(Work& work, Handled& handled, const Message& cause, std::vector<Sending> sendings) {
        if (sendings.empty()) return false;
        const Time now = options_.clock();
        for (auto& sending : sendings) {  // all of them are made before one is kept
            follow(sending.message, cause, now);
            sending.message.metadata.set("producer", work.member->definition->name);
            if (sending.fresh) sending.to += '-' + ids_.next(now).to_string();
            sending.message.stream = sending.to.empty() ? cause.stream : std::move(sending.to);
        }
        bool touched = false;
        for (auto& sending : sendings) {
            const Time due = sending.at ? *sending.at : later(now, sending.after.value_or(Duration(0)));
            if (due > now) {
                put_off(handled, cause, due, std::move(sending.message));
                continue;
            }
            touched |= post(work, handled, std::move(sending.message));
        }
        return touched;
    }

    /// Keeps a finished message for later. An event is not expected apart from the others that come of a command, so it
    /// says that it is; see verify().
    static void put_off(Handled& handled, const Message& cause, Time due, Message message) {
        if (message.kind == Kind::event && cause.kind == Kind::command) message.metadata.set("scheduled", true);
        handled.schedules.push_back({due, std::move(message)});
    }

    /// Has a finished message appended to the stream it names. True: the state depends on it.
    bool post(Work& work, Handled& handled, Message message) {
        const bool own = message.stream == handled.claim.stream_name;
        const bool touches = own && work.member->evolves.contains(message.type);
        if (touches) work.keep = false;  // the state does not have it yet
        work.own += own ? 1 : 0;
        auto& messages = append_to(handled, message.stream);
        messages.push_back(std::move(message));
        return touches;
    }

    static const void* state_for_reaction(const Work& work) {
        // Without event handlers every state is the blank one.
        const Remembered& memory = *work.memory;
        return work.member->trailing ? memory.trail.get() : memory.state.get();
    }

    /// The stream's last seq as the transaction sees it, with what it has appended itself.
    static std::int64_t last_seq(Transaction& transaction, std::string_view stream) {
        const auto row = transaction.row("select seq from sourced_streams where name = ?", stream);
        return row ? row->integer(0) : 0;
    }

    static void sync_decisions(Work& work, Transaction& transaction) {
        const Remembered& memory = *work.memory;
        const std::int64_t before = last_seq(transaction, memory.stream) - static_cast<std::int64_t>(work.own);
        Messages batch = work.decisions;  // the transaction may have to run again
        work.synced.clear();
        for (auto& message : batch) {
            if (message.seq < 0) message.seq = before - message.seq;
            work.synced.push_back({&message, false});
        }
        work.member->definition->sync(memory.state.get(), memory.stream, work.synced, false, transaction);
    }

    /// How far a batch was read.
    struct Reading {
        std::int64_t seq = 0;  // the last that was looked at
        bool ended = true;     // nothing of the stream is left
        bool cut = false;      // nothing of it is left before `until`
    };

    /// Reads what is to be handled, at most `limit` messages, from behind seq `from`. `see` is shown every message
    /// before, with its route and whether it is to be handled; false ends the reading.
    template <class See>
    Reading read_batch(Work& work, const Claim& claim, std::int64_t from, std::size_t limit, const See& see) {
        Reading reading{from, true};
        Router route(*work.member);
        work.items.clear();
        read_on(work, claim, from + 1, [&](Message& message) {
            if (message.position >= work.until) {
                reading.cut = true;
                reading.ended = false;
                return false;
            }
            reading.seq = message.seq;
            const auto* found = route(message.type);
            const bool waits = found && message.position > claim.acked;
            if (!see(message, found, waits)) return false;
            if (!waits) return true;
            const bool replay = work.member->rebuilding || is_replay(claim, message.position);
            work.items.push_back({std::move(message), found, true, replay, false});
            reading.ended = work.items.size() < limit;
            return reading.ended;
        });
        return reading;
    }

    /// A reactor of the other kind: the batch is handed over, and what is to come of it carried out.
    void serve(Work& work, Handled& handled) {
        const Definition& definition = *work.member->definition;
        const Claim& claim = handled.claim;
        if (definition.concerns && !definition.concerns(claim.stream_name)) {
            handled.acked = std::max(handled.acked, claim.known);
            return;
        }
        const std::int64_t known = definition.wants_history ? 0 : handled_seq(claim, *work.memory);
        Messages history;
        const auto note_history = [&](const Message& message, const Member::Route*, bool) {
            if (definition.wants_history) history.push_back(message);
            return true;
        };
        const Reading end = read_batch(work, claim, known, batch_limit(work, claim), note_history);
        if (definition.whole_history && !end.ended) {
            read_on(work, claim, end.seq + 1, [&](Message& message) { return note_history(message, nullptr, false); });
        }
        for (const auto& item : work.items) work.synced.push_back({&item.message, item.replay});
        std::size_t count = work.items.size();
        Results results;
        while (count > 0) {
            const std::int64_t last = definition.whole_history ? unbounded : work.items[count - 1].message.seq;
            while (!history.empty() && history.back().seq > last) history.pop_back();
            work.synced.resize(count);
            try {
                results = definition.serve(Batch(work.synced, all_replayed(work.synced),
                                                 definition.wants_history ? &history : nullptr));
                break;
            } catch (...) {
                if (count == 1) {
                    fail(work, handled, work.items.front().message.position, std::current_exception());
                    return;
                }
            }
            count /= 2;  // somewhere in the batch: halves lead to the culprit
        }
        const bool unhandled = results.entries().empty();
        const auto again_at = results.retry_at();
        const bool whole = carry_out(work, handled, std::move(results)) && count == work.items.size();
        const bool left = count > 0 && handled.acked < work.items[count - 1].message.position;
        if (left && (unhandled || again_at)) {
            handled.not_before = again_at.value_or(options_.clock() + std::chrono::milliseconds(100));
        }
        if (whole && (end.ended || end.cut)) {
            handled.acked = std::max(handled.acked, end.cut ? work.until - 1 : claim.known);
            work.handled_seq = std::max(work.handled_seq, end.seq);
        }
        if (!work.syncs.empty()) {
            handled.sync = [&work](Transaction& transaction) {
                for (const auto& sync : work.syncs) sync(transaction);
            };
        }
    }

    /// False: something of the batch is left.
    bool carry_out(Work& work, Handled& handled, Results results) {
        std::size_t next = 0;
        for (auto& entry : std::move(results).entries()) {
            const auto known = std::find_if(work.items.begin(), work.items.end(),
                                            [&](const auto& item) { return item.message.id == entry.id; });
            const auto index = static_cast<std::size_t>(known - work.items.begin());
            const Message& culprit = work.items[std::min(next, work.items.size() - 1)].message;
            try {
                if (known == work.items.end()) {
                    throw Error("results for a message that is not in the batch: " + entry.id.to_string());
                }
                if (index > next) {
                    throw Error("results for seq " + std::to_string(known->message.seq) + " of '" + culprit.stream +
                                "', but none for seq " + std::to_string(culprit.seq) + " before it");
                }
                if (entry.error) std::rethrow_exception(entry.error);
                carry_out(work, handled, *known, entry);
            } catch (...) {
                const Message& failed = known == work.items.end() || index > next ? culprit : known->message;
                fail(work, handled, failed.position, std::current_exception());
                return false;
            }
            while (next < work.items.size() && work.items[next].message.position <= handled.acked) ++next;
        }
        return next == work.items.size();
    }

    void carry_out(Work& work, Handled& handled, const Work::Item& item, Results::Entry& entry) {
        const Message& message = item.message;
        std::int64_t position = message.position;
        std::int64_t seq = message.seq;
        for (const auto& action : entry.actions) {
            const auto* acknowledge = std::get_if<Acknowledge>(&action);
            if (!acknowledge) continue;
            const auto ahead = work.unit ? work.unit->find(acknowledge->id) : store_->find(acknowledge->id);
            if (!ahead || ahead->stream != message.stream) {
                throw Error("acknowledge " + acknowledge->id.to_string() + ": it is not in '" + message.stream + "'");
            }
            position = std::max(position, ahead->position);
            seq = std::max(seq, ahead->seq);
        }
        const Time now = options_.clock();
        const auto made = [&](Message next) {
            follow(next, message, now);
            if (next.stream.empty()) next.stream = message.stream;
            return next;
        };
        const auto append = [&](AppendNext& action) {
            for (auto& next : action.messages) (void)post(work, handled, made(std::move(next)));
        };
        for (auto& action : entry.actions) {
            if (auto* sync = std::get_if<Sync>(&action)) {
                if (sync->work) work.syncs.push_back(std::move(sync->work));
            }
            if (item.replay) continue;
            if (auto* next = std::get_if<AppendNext>(&action)) append(*next);
            if (auto* after = std::get_if<AppendAfter>(&action)) {
                Append part{after->stream.empty() ? message.stream : after->stream, {}, expect_seq(after->seq)};
                for (auto& each : after->messages) {
                    part.messages.push_back(made(std::move(each)));
                    part.messages.back().stream = part.stream;
                }
                if (!part.messages.empty()) handled.appends.push_back(std::move(part));
            }
            if (auto* schedule = std::get_if<Schedule>(&action)) {
                for (auto& each : schedule->messages) {
                    put_off(handled, message, schedule->due_at, made(std::move(each)));
                }
            }
            if (auto* last = std::get_if<AfterSync>(&action)) {
                if (last->work) work.after.push_back(std::move(last->work));
            }
        }
        if (!item.replay) (void)send(work, handled, message, std::move(entry.sendings));
        if (work.handled++ == 0) work.first_position = message.position;
        handled.acked = std::max(handled.acked, position);
        work.handled_seq = std::max(work.handled_seq, seq);
    }

    // ---- several reactors at once

    static void check_parked(const Member& member, std::string_view stream, const Passed& passed) {
        if (passed.parked) throw Error(parked_text(stream, member.definition->name, *passed.parked));
    }

    void run_together(Together& together, UnitTransaction& unit) {
        const auto head = unit.row("select max(position) from sourced_messages");
        together.before = head ? head->integer(0) : 0;
        const Message& first = together.result.first_;
        together.repeated = store_next(together, unit, first.stream, {first}, any_seq, nullptr).repeated;
        if (together.repeated) return;
        together.result.first_ = together.queue.front().message;
        while (!together.queue.empty()) {
            const Together::Next next = std::move(together.queue.front());
            together.queue.pop_front();
            bool counted = false;
            for (std::size_t i = 0; i < together.members.size(); ++i) {
                if (!together.members[i]->definition->handles(next.message.type)) continue;
                if (!std::exchange(counted, true) && ++together.handled > together.options.limit) {
                    throw Error("unit: exceeded " + std::to_string(together.options.limit) +
                                " iterations, the last message is '" + next.message.type + "' for '" +
                                next.message.stream + "'");
                }
                handle_next(together, unit, i, next);
            }
        }
    }

    /// Appends messages of one stream, and puts them behind those that are to be handled. Commands that a member is
    /// to handle are not stored when the unit does not store commands.
    Appended store_next(Together& together, UnitTransaction& unit, const std::string& stream, Messages messages,
                        Expect expect, const Together::Next* cause) {
        std::vector<bool> stored;
        Messages storing;
        for (auto& message : messages) {
            stored.push_back(together.options.store_commands || !is_ours(together, message));
            if (!stored.back()) continue;
            if (cause && !cause->stored) mark_outside(message, cause->message);
            storing.push_back(message);
        }
        Appended appended;
        if (!storing.empty()) appended = unit.append(stream, storing, expect);
        if (appended.repeated) return appended;
        std::int64_t index = 0;
        for (std::size_t i = 0; i < messages.size(); ++i) {
            messages[i].stream = stream;
            if (stored[i]) {
                place(messages[i], appended, index++);
                together.result.messages_.push_back(messages[i]);
            }
            together.queue.push_back({std::move(messages[i]), stored[i]});
        }
        return appended;
    }

    /// Is it a command that nobody but actors of the unit is to see?
    [[nodiscard]] bool is_ours(const Together& together, const Message& message) const {
        const auto found = by_type_.find(message.type);
        if (message.kind != Kind::command || found == by_type_.end()) return false;
        return std::all_of(found->second.begin(), found->second.end(), [&](const Member* member) {
            const auto* route = member->route(message.type);
            return route && route->command &&
                   std::find(together.members.begin(), together.members.end(), member) != together.members.end();
        });
    }

    /// Has one member handle one message, and carries out what comes of it.
    void handle_next(Together& together, UnitTransaction& unit, std::size_t index, const Together::Next& next) {
        Member& member = *together.members[index];
        const Message& message = next.message;
        auto& work = together.works[{&member, message.stream}];
        if (!work) {
            check_parked(member, message.stream, unit.passed(member.id, message.stream));
            if (unit.open(member.id, message.stream, together.before + 1)) throw StandsOpen(member, message.stream);
            work = std::make_unique<Work>();
            work->member = &member;
            work->unit = &unit;
            work->memory = memory_.take(member.id, message.stream);
        } else if (next.stored && message.position <= work->unit_acked) {
            return;  // acknowledged ahead
        }
        if (!work->memory) {
            work->memory = std::make_unique<Remembered>();
            work->memory->stream = message.stream;
        }
        Handled handled;
        handled.claim.group = member.id;
        handled.claim.stream_name = message.stream;
        work->begin();
        if (next.stored) {
            handled.claim.acked = handled.acked = message.position - 1;
            handled.claim.pending = handled.claim.known = message.position;
            work->memory->handled_seq = message.seq - 1;  // nothing before it is pending
            work->memory->handled_position = 0;
            work->limit = 1;
            handle_claim(*work, handled);
            if (handled.acked < message.position) {
                throw Error("unit: '" + member.definition->name + "' has not handled '" + message.type + "' (seq " +
                            std::to_string(message.seq) + " of '" + message.stream +
                            "'); it may ask workers to be called again, not a unit");
            }
        } else {
            decide_unstored(*work, handled, message);
        }
        const auto known = static_cast<std::ptrdiff_t>(together.result.messages_.size());
        Outcome outcome;
        for (const auto& part : handled.appends) {
            outcome.appended.push_back(store_next(together, unit, part.stream, part.messages, part.expect, &next));
        }
        for (auto& entry : handled.schedules) {
            if (entry.due_at <= options_.clock()) {
                const std::string stream = entry.message.stream;
                (void)store_next(together, unit, stream, {std::move(entry.message)}, any_seq, &next);
                continue;
            }
            if (!next.stored) mark_outside(entry.message, message);
            unit.schedule(entry);
        }
        auto& events = together.result.parts_[index].events;
        std::copy_if(together.result.messages_.begin() + known, together.result.messages_.end(),
                     std::back_inserter(events), [](const Message& each) { return each.kind == Kind::event; });
        if (handled.sync) handled.sync(unit);
        if (next.stored) {
            unit.acknowledge(member.id, message.stream, handled.acked);
            work->unit_acked = handled.acked;
        }
        if (!work->after.empty()) {
            auto& done = *together.done.emplace_back(std::make_unique<Work>());
            done.member = &member;
            done.after = std::move(work->after);
        }
        if (!learn(*work, handled, outcome)) work->memory.reset();
    }

    /// A command that is not in its stream.
    void decide_unstored(Work& work, Handled& handled, const Message& message) {
        const Member& member = *work.member;
        Remembered& memory = *work.memory;
        if (!memory.state) {
            memory.seq = 0;
            memory.state = blank(member, memory.stream, work.unit);
        }
        if (member.folds) catch_up(member, memory, unbounded, work.unit);
        else memory.seq = last_seq(*work.unit, memory.stream);
        command(work, handled, *member.route(message.type), message);
        if (!work.decisions.empty()) {
            handled.sync = [&work](Transaction& transaction) { sync_decisions(work, transaction); };
        }
    }

    /// The unit is committed.
    UnitResult finish_together(Together& together) {
        for (auto& [key, work] : together.works) {
            if (work->memory) memory_.put(work->member->id, std::move(work->memory));
        }
        for (const auto& work : together.done) do_after(*work);
        UnitResult& result = together.result;
        if (together.repeated) result.messages_ = store_->correlated(result.first_.id);
        for (const auto& message : result.messages_) {
            if (message.id == result.first_.id) result.first_ = message;
            if (message.causation == result.first_.id && message.is<Refused>()) {
                result.refusal_ = message.as<Refused>().reason;
            }
        }
        return std::move(result);
    }

    /// A projector: the batch is evolved at once, `sync` follows in the transaction.
    void project(Work& work, Handled& handled) {
        Member& member = *work.member;
        const Definition& definition = *member.definition;
        const Claim& claim = handled.claim;
        const std::size_t limit = batch_limit(work, claim);
        const std::int64_t known = member.folds && !work.memory->state ? 0 : handled_seq(claim, *work.memory);

        Reading end{known, true};
        std::int64_t fold_position = 0;
        std::exception_ptr error;
        bool held = false;  // what is next is not for this generation yet
        const auto read = [&](std::int64_t from) {
            bool stale = false;
            held = false;
            const auto see = [&](const Message& message, const Member::Route* found, bool waits) {
                if (member.rebuilding && waits && !member.rebuilding->may_have(claim, message)) {
                    held = true;
                    return false;
                }
                if (!member.folds) return true;
                Remembered& memory = *work.memory;
                if (waits && message.seq <= memory.seq) {
                    stale = true;  // the group was reset: the state has what is to come
                    return false;
                }
                if (waits || message.seq <= memory.seq || !work.items.empty()) return true;
                if (found && !memory.passes(message.position)) {
                    try {
                        member.evolve(*found, memory.state.get(), message);
                    } catch (...) {
                        error = std::current_exception();
                        fold_position = message.position;
                        return false;
                    }
                }
                memory.seq = message.seq;
                return true;
            };
            end = read_batch(work, claim, from, limit, see);
            return !stale;
        };
        if (member.folds) {
            Remembered& memory = *work.memory;
            if (memory.state && !read(std::min(memory.seq, known))) memory.state = Box();
            if (!memory.state) {
                memory.seq = 0;
                if (!start_state(member, work, handled, memory.state)) return;
                (void)read(0);
            }
        } else {
            (void)read(known);
        }
        if (error) {
            if (was_skipped(member, *work.memory, fold_position, work.unit)) {
                fold_anew(work);
                return project(work, handled);
            }
            fail(work, handled, fold_position, error);
            work.keep = false;
            return;
        }
        std::size_t count = work.items.size();
        if (definition.key) {
            count = find_keys(work, handled, count);
        } else if (count > 0) {
            count = fold_batch(work, handled, count);
        }
        if (work.items.size() != count) {
            work.items.resize(count);
            end.ended = end.cut = false;
        }
        for (const auto& item : work.items) {
            if (!item.skipped) work.synced.push_back({&item.message, item.replay});
        }
        if (count > 0) {
            const auto& last = work.items.back().message;
            work.handled = count;
            work.handled_seq = last.seq;
            work.first_position = work.items.front().message.position;
            work.all_replay = all_replayed(work.synced);
            handled.acked = last.position;
            if (definition.key) {
                handled.sync = [&work](Transaction& transaction) { sync_by_key(work, transaction); };
            } else if (definition.sync && !work.synced.empty()) {
                handled.sync = [&work](Transaction& transaction) {
                    work.member->definition->sync(work.memory->state.get(), work.memory->stream, work.synced,
                                                  work.all_replay, transaction);
                };
            }
            if (member.rebuilding && handled.sync) handled.sync = beside(member, std::move(handled.sync));
        }
        if (held) {
            handled.not_before = Time::max();
            return;
        }
        if ((end.ended || end.cut) && !handled.failure) {
            handled.acked = std::max(handled.acked, end.cut ? work.until - 1 : claim.known);
            work.handled_seq = std::max(work.handled_seq, end.seq);
        }
    }

    /// Evolves the state with the batch, reacting on the way; when that fails, with what comes before the culprit.
    /// Gives the number of messages that are in the state then.
    std::size_t fold_batch(Work& work, Handled& handled, std::size_t count) {
        const Member& member = *work.member;
        Remembered& memory = *work.memory;
        std::exception_ptr error;
        std::size_t reacted = 0;  // folding once more does not react once more
        for (;;) {
            if (!member.folds && !start_state(member, work, handled, memory.state)) return 0;
            std::size_t done = 0;
            try {
                for (; done < count; ++done) {
                    auto& item = work.items[done];
                    item.skipped = member.folds && memory.passes(item.message.position);
                    if (!item.skipped) member.evolve(*item.route, memory.state.get(), item.message);
                    if (member.folds) memory.seq = item.message.seq;
                    if (item.skipped || !item.route->reaction || item.replay || done < reacted) continue;
                    (void)react(work, handled, *item.route, item.message);
                    reacted = done + 1;
                }
                return count;
            } catch (...) {
                error = std::current_exception();
            }
            const std::int64_t culprit = work.items[done].message.position;
            if (!member.folds || !was_skipped(member, memory, culprit, work.unit)) {
                fail(work, handled, culprit, error);
                work.keep = false;
                if (done == 0) return 0;
                count = done;
            }
            if (member.folds) {
                // The handler may have left the state half changed: fold it once more, up to the culprit.
                memory.state = blank(member, memory.stream, work.unit);
                memory.seq = 0;
                catch_up(member, memory, work.items.front().message.seq - 1, work.unit);
            }
        }
    }

    /// Asks each message for its key, and reacts to it. Gives the number of messages before the first failure.
    std::size_t find_keys(Work& work, Handled& handled, std::size_t count) {
        for (std::size_t i = 0; i < count; ++i) {
            const auto& item = work.items[i];
            try {
                auto key = work.member->definition->key(item.message);
                if (item.route->reaction && !item.replay) (void)react(work, handled, *item.route, item.message);
                work.keys.push_back(std::move(key));
            } catch (...) {
                fail(work, handled, work.items[i].message.position, std::current_exception());
                return i;
            }
        }
        return count;
    }

    static bool all_replayed(const std::vector<Synced>& batch) {
        return std::all_of(batch.begin(), batch.end(), [](const Synced& event) { return event.replay; });
    }

    static void sync_by_key(Work& work, Transaction& transaction) {
        const Definition& definition = *work.member->definition;
        std::unordered_map<std::string_view, std::size_t> known;
        std::vector<std::pair<std::string_view, std::vector<std::size_t>>> groups;
        for (std::size_t i = 0; i < work.keys.size(); ++i) {
            const auto [place, fresh] = known.emplace(work.keys[i], groups.size());
            if (fresh) groups.push_back({work.keys[i], {}});
            groups[place->second].second.push_back(i);
        }
        std::vector<Synced> batch;
        for (const auto& [key, indices] : groups) {
            Box state = definition.initial(key, &transaction);
            batch.clear();
            for (const std::size_t i : indices) {
                work.member->evolve(*work.items[i].route, state.get(), work.items[i].message);
                batch.push_back(work.synced[i]);
            }
            if (definition.sync) definition.sync(state.get(), key, batch, all_replayed(batch), transaction);
        }
    }

    // ---- a worker's turn

    /// Commits what is finished, claims more for `member` (null: nothing), and handles what is in hands.
    void turn(Worker& worker, Member* member, bool background) {
        adopt(worker);
        if (worker.has_claims() && member) {  // first what was claimed before
            member->work = true;
            member = nullptr;
        }
        worker.step.group = member ? member->id : 0;
        const auto own_count = member ? member->definition->claim_count : 0;
        worker.step.claims = !member ? 0 : std::min(own_count > 0 ? own_count : options_.claim_count, worker.streams);
        worker.step.until = worker.until == unbounded ? unbounded : worker.until - 1;
        if (member || !worker.step.finished.empty()) {
            Exchanged exchanged = exchange(worker, background);
            for (std::size_t i = 0; i < worker.works.size(); ++i) {
                // What came for a stream while it was claimed is found by looking once more.
                Member& owner = *worker.works[i]->member;
                if (&owner != member && !owner.work.exchange(true) && !background) wake(1);
                settle(worker, std::move(worker.works[i]), worker.step.finished[i], exchanged.outcomes[i]);
            }
            if (!worker.works.empty()) poke();
            worker.works.clear();
            worker.step.finished.clear();
            if (member) {
                if (exchanged.next_retry) wait_for_retry(*member, *exchanged.next_retry);
                for (auto& claim : exchanged.claims) worker.claims.emplace_back(member, std::move(claim));
                if (exchanged.more && exchanged.active) mark(*member);
                worker.active = exchanged.active;
                if (member->rebuilding) member->rebuilding->scanned = exchanged.scanned;
            }
        }
        if (worker.doing && options_.give_up_after > Duration(0)) hold(worker);
        const auto started = std::chrono::steady_clock::now();
        for (auto& again : worker.again) {
            if (again.failure || again.release || (background && stopping_)) give_back(worker, std::move(again));
            else handle(worker, std::move(again.work), std::move(again.claim));
        }
        worker.again.clear();
        // What is finished must not wait long for slow neighbours.
        constexpr auto longest = std::chrono::milliseconds(20);
        std::size_t next = 0;
        while (next < worker.claims.size()) {
            auto& [owner, claim] = worker.claims[next++];
            auto work = worker.work(*owner);
            if (background && stopping_) {
                give_back(worker, {std::move(work), std::move(claim), {}, true});
                continue;
            }
            handle(worker, std::move(work), std::move(claim));
            if (std::chrono::steady_clock::now() - started > longest) break;
        }
        worker.claims.erase(worker.claims.begin(), worker.claims.begin() + static_cast<std::ptrdiff_t>(next));
    }

    /// Shows what a thread is at for as long as it is at something.
    class Shown {
    public:
        Shown(Engine& engine, Doing& doing) : engine_(engine), doing_(doing) {
            const std::lock_guard lock(engine_.doings_mutex_);
            engine_.doings_.push_back(&doing_);
        }
        Shown(const Shown&) = delete;
        Shown& operator=(const Shown&) = delete;
        ~Shown() {
            doing_.end();
            const std::lock_guard lock(engine_.doings_mutex_);
            std::erase(engine_.doings_, &doing_);
            engine_.handled_before_ += doing_.handled.exchange(0);
        }

    private:
        Engine& engine_;
        Doing& doing_;
    };

    /// Leaves word of all claims that are about to be handled, so that a handler that does not return cannot keep them.
    static void hold(Worker& worker) {
        const auto small = [](const Claim& claim) {
            Claim copy;
            copy.group = claim.group;
            copy.stream = claim.stream;
            copy.fence = claim.fence;
            return copy;
        };
        const std::lock_guard lock(worker.doing->mutex);
        auto& held = worker.doing->held;
        held.clear();
        for (const auto& again : worker.again) held.push_back(small(again.claim));
        for (const auto& [member, claim] : worker.claims) held.push_back(small(claim));
    }

    static std::int64_t steady_now() noexcept {
        const auto now = std::chrono::steady_clock::now().time_since_epoch();
        return std::chrono::duration_cast<Duration>(now).count();
    }

    [[nodiscard]] std::optional<SlowHandler> slow_handler(const Doing& doing, std::int64_t now) {
        const std::int64_t since = doing.since.load();
        if (since == 0 || now - since < options_.slow_after.count()) return std::nullopt;
        const Member* member = doing.member.load();
        const std::int64_t stream = doing.stream.load();
        if (doing.since.load() != since) return std::nullopt;  // it has gone on meanwhile
        SlowHandler slow{member->definition->name, {}, doing.thread, Duration(now - since), doing.given_up == since};
        store_->read([&](Reader& reader) {
            if (const auto row = reader.row("select name from sourced_streams where id = ?", stream)) {
                slow.stream = row->text(0);
            }
        });
        return slow;
    }

    /// Says once of a handler that it is slow, and takes its claims back when it does not return at all.
    void look_after_slow() {
        std::vector<LogRecord> lines;  // a sink may ask for stats()
        look_after_slow(lines);
        for (auto& line : lines) log(line.level, std::move(line.text), std::move(line.fields));
    }
    void look_after_slow(std::vector<LogRecord>& lines) {
        const std::int64_t now = steady_now();
        const std::lock_guard lock(doings_mutex_);
        for (Doing* doing : doings_) {
            const std::int64_t since = doing->since.load();
            if (since == 0) continue;
            if (now - since >= options_.slow_after.count() && std::exchange(doing->told, since) != since) {
                if (const auto slow = slow_handler(*doing, now)) {
                    lines.push_back({Level::warning,
                                     "a handler has not returned yet",
                                     {{"group", slow->group},
                                      {"stream", slow->stream},
                                      {"thread", slow->thread},
                                      {"seconds", std::to_string(slow->running.count() / 1'000'000)}}});
                }
            }
            const bool over = options_.give_up_after > Duration(0) && now - since >= options_.give_up_after.count();
            if (over && doing->given_up != since) give_up(*doing, since, lines);
        }
    }

    void give_up(Doing& doing, std::int64_t since, std::vector<LogRecord>& lines) {
        std::vector<Claim> claims;
        {
            const std::lock_guard lock(doing.mutex);
            claims = doing.held;
        }
        const Member* member = doing.member.load();
        const std::int64_t stream = doing.stream.load();
        if (doing.since.load() != since) return;
        const auto culprit = std::find_if(claims.begin(), claims.end(), [&](const Claim& claim) {
            return claim.group == member->id && claim.stream == stream;
        });
        if (culprit == claims.end()) return;
        std::iter_swap(claims.begin(), culprit);
        const std::size_t taken = store_->revoke(claims);
        doing.given_up = since;
        lines.push_back(
            {Level::error,
             "a handler does not return, its claims are taken back",
             {{"group", member->definition->name}, {"thread", doing.thread}, {"claims", std::to_string(taken)}}});
    }

    /// Ends a claim without handling it: with a failure, or as if it had not been taken.
    void give_back(Worker& worker, Again again) {
        auto& handled = worker.step.finished.emplace_back();
        handled.claim = std::move(again.claim);
        handled.acked = handled.claim.acked;
        handled.release = again.release;
        handled.failure = std::move(again.failure);
        auto faulted = std::move(again.work->faulted);
        again.work->begin();
        again.work->faulted = std::move(faulted);
        again.work->keep = false;
        worker.works.push_back(std::move(again.work));
    }

    Exchanged exchange(Worker& worker, bool background) {
        Duration wait = std::chrono::milliseconds(10);
        for (int tries = 1;; ++tries) {
            try {
                return store_->exchange(worker.step);
            } catch (const std::exception& error) {
                if (!background) throw;
                trouble(error.what());
                if (stopping_ && tries >= 3) throw;
            }
            pause(wait / 2 + jitter(wait / 2));
            wait = std::min<Duration>(wait * 2, std::chrono::seconds(1));
        }
    }

    void settle(Worker& worker, std::unique_ptr<Work> work, Handled& handled, const Outcome& outcome) {
        Member& member = *work->member;
        switch (outcome.result) {
        case Outcome::Result::done:
            worker.handled += work->handled;
            if (worker.doing) worker.doing->count(work->handled);
            if (work->handled > 0) works();
            if (handled.failure) report(worker, *work, handled);
            if (handled.not_before) wait_for_retry(member, *handled.not_before);
            remember(*work, handled, outcome);
            do_after(*work);
            break;
        case Outcome::Result::lost:
            log(Level::debug, "a claim was lost, its work is dropped",
                {{"group", member.definition->name}, {"stream", handled.claim.stream_name}});
            break;
        case Outcome::Result::conflict: {
            const bool release = ++work->conflicts > 10;
            if (release) {
                log(Level::debug, "a stream grows faster than it is decided on, its claim is given back",
                    {{"group", member.definition->name}, {"stream", handled.claim.stream_name}});
            }
            work->memory.reset();
            handled.claim.tail.clear();  // the stream has moved on
            worker.again.push_back({std::move(work), std::move(handled.claim), {}, release});
            return;
        }
        case Outcome::Result::failed: {
            if (work->handled == 0) {
                log(Level::error, "the end of a claim could not be stored",
                    {{"group", member.definition->name},
                     {"stream", handled.claim.stream_name},
                     {"error", describe(outcome.error).text}});
                break;
            }
            std::optional<Failure> failure;
            if (work->handled > 1) {
                // Somewhere in the batch: halves lead to the culprit, and what comes before it is kept.
                work->limit = work->handled / 2;
            } else {
                try {
                    fail(*work, handled, work->first_position, outcome.error);
                    failure = std::move(handled.failure);
                } catch (const StoreError& error) {
                    trouble(error.what());  // the message cannot be read now: somebody else shall come upon it
                }
            }
            const bool release = work->handled == 1 && !failure;
            work->memory.reset();
            worker.again.push_back({std::move(work), std::move(handled.claim), std::move(failure), release});
            return;
        }
        }
        work->memory.reset();
        work->begin();  // lets go of what the handler has left in it
        worker.spare.push_back(std::move(work));
    }

    /// What a reactor wanted done after the commit: once, whatever comes of it.
    void do_after(Work& work) {
        for (const auto& step : work.after) call_back(*work.member, "what was to be done after a commit", step);
    }

    /// Keeps the state that a commit has made true.
    void remember(Work& work, const Handled& handled, const Outcome& outcome) {
        if (!learn(work, handled, outcome)) return;
        memory_of(*work.member).put(work.member->id, std::move(work.memory));
    }

    /// Brings the state behind what was appended. False: it is not to be kept.
    bool learn(Work& work, const Handled& handled, const Outcome& outcome) {
        // Own events that the group has nothing to do with are as good as handled.
        const Appended* own = nullptr;
        for (std::size_t i = 0; i < handled.appends.size(); ++i) {
            const auto& part = handled.appends[i];
            if (part.stream != handled.claim.stream_name) continue;
            own = &outcome.appended[i];
            const bool ours = std::any_of(part.messages.begin(), part.messages.end(), [&](const Message& message) {
                const auto* route = work.member->route(message.type);
                return route && (route->command || route->reaction);
            });
            if (!ours && work.handled_seq + 1 == own->first_seq) work.handled_seq = own->last_seq;
        }
        if (!work.keep || !work.memory) return false;
        Remembered& memory = *work.memory;
        const Member& member = *work.member;
        memory.open = false;
        if (work.before) {
            memory.state = std::move(work.before);
        } else if (work.decided > 0 && own) {
            memory.seq = own->last_seq;
        }
        if (member.definition->role == Definition::Role::projector && !member.folds) memory.state = Box();
        if (work.handled_seq > 0) {
            memory.handled_seq = work.handled_seq;
            memory.handled_position = handled.acked;
        }
        return true;
    }

    /// Says what became of a failure, now that it is committed.
    void report(Worker& worker, const Work& work, const Handled& handled) {
        using enum Resolution::Verb;
        Member& member = *work.member;
        const Failure& failure = *handled.failure;
        const Resolution& resolution = failure.resolution;
        worker.failed = failure.text;
        if (resolution.verb == retry) wait_for_retry(member, resolution.at);
        if (options_.log) {
            static constexpr const char* texts[] = {
                "a message failed and will be tried again", "a message failed, its group is stopped",
                "a message failed, its stream is parked", "a message failed and is skipped"};
            log(resolution.verb == retry || resolution.verb == skip ? Level::warning : Level::error,
                texts[static_cast<std::size_t>(resolution.verb)],
                {{"group", member.definition->name},
                 {"stream", handled.claim.stream_name},
                 {"position", std::to_string(failure.position)},
                 {"type", failure.type},
                 {"error", failure.text},
                 {"reason", resolution.reason}});
        }
        if (resolution.verb == stop) stopped(member, resolution.reason.empty() ? failure.text : resolution.reason);
        if (resolution.recorded && work.faulted) {
            call_back(member, "what was to be told of a failure", [&] { resolution.recorded(work.faulted->fault); });
        }
    }

    [[nodiscard]] const Member* member_named(std::string_view name) const noexcept {
        for (const auto& member : members_) {
            if (member->definition->name == name) return member.get();
        }
        return nullptr;
    }

    void stopped(const Member& member, std::string_view reason) const {
        if (!member.definition->on_stop) return;
        call_back(member, "on_stop", [&] { member.definition->on_stop(reason); });
    }

    /// Runs user code that nothing depends on: what it throws is logged.
    template <class Call>
    void call_back(const Member& member, const char* what, const Call& call) const {
        try {
            call();
        } catch (...) {
            log(Level::warning, std::string(what) + " failed",
                {{"group", member.definition->name}, {"error", describe(std::current_exception()).text}});
        }
    }

    /// Handles what is pending in one stream on this thread. False: there was nothing, or another has it.
    bool drain(Member& member, std::string_view stream, std::int64_t until = unbounded) {
        beat_when_due();
        auto claim = store_->claim_stream(member.id, stream);
        if (!claim) return false;
        Worker worker;
        worker.until = until;
        worker.claims.emplace_back(&member, std::move(*claim));
        work_off(worker);
        if (!worker.failed.empty()) {
            throw Error("'" + std::string(stream) + "': a message before this one failed: " + worker.failed);
        }
        return true;
    }

    /// In the foreground trouble of the store is the caller's; claims are not lost over it.
    void work_off(Worker& worker) {
        while (worker.busy()) take_turn(worker, nullptr);
    }
    void take_turn(Worker& worker, Member* member) {
        try {
            turn(worker, member, false);
            if (worker.trouble) std::rethrow_exception(std::exchange(worker.trouble, nullptr));
        } catch (...) {
            if (!worker.alone) abandon(worker);
            throw;
        }
    }

    enum class Advanced { idle, worked, claimed };
    /// A turn in the foreground for one group, if there is anything to be done: what is finished is committed together
    /// with looking for more.
    Advanced advance(Worker& worker, Member& member, bool may_claim = true) {
        const bool wanted = may_claim && !worker.has_claims() && (member.work.exchange(false) || worker.busy());
        if (!wanted && !worker.busy()) return Advanced::idle;
        take_turn(worker, wanted ? &member : nullptr);
        return wanted ? Advanced::claimed : Advanced::worked;
    }

    /// Gives back what is claimed and not handled yet, and commits what is.
    void lay_down(Worker& worker) {
        auto claims = std::exchange(worker.claims, {});
        auto again = std::exchange(worker.again, {});
        for (auto& [owner, claim] : claims) give_back(worker, {worker.work(*owner), std::move(claim), {}, true});
        for (auto& each : again) give_back(worker, std::move(each));
        work_off(worker);
    }

    /// Keeps messages to an even rate: what a turn handled is paid for with time before the next may claim.
    class Pace {
    public:
        explicit Pace(double rate) : rate_(rate) {}
        /// How long to wait yet.
        [[nodiscard]] Duration left() const {
            if (rate_ <= 0) return {};
            const auto left = free_at_ - std::chrono::steady_clock::now();
            return std::max(std::chrono::ceil<Duration>(left), Duration(0));
        }
        /// What the next turn may take: as many streams as it can, a few messages of each.
        void allow(Worker& worker) const {
            if (rate_ <= 0) return;
            constexpr double turns = 20;  // a second
            const auto most = static_cast<std::size_t>(std::clamp(rate_ / turns, 1.0, 1e9));
            worker.streams = std::min<std::size_t>(most, 64);
            worker.messages = most / worker.streams;
        }
        void pay(std::size_t messages) {
            if (rate_ <= 0) return;
            const std::chrono::duration<double> price(static_cast<double>(messages) / rate_);
            const auto now = std::chrono::steady_clock::now();
            free_at_ = std::max(free_at_, now) + std::chrono::duration_cast<std::chrono::steady_clock::duration>(price);
        }

    private:
        double rate_;
        std::chrono::steady_clock::time_point free_at_ = std::chrono::steady_clock::now();
    };

    Ran run_group(Worker& worker, Member& member, const RunOptions& options) {
        const std::string& name = member.definition->name;
        Pace pace(options.rate);
        constexpr Duration longest = std::chrono::milliseconds(20);
        member.work = true;
        for (;;) {
            beat_when_due();
            if (options.stopped && options.stopped()) {
                lay_down(worker);
                return {Ran::Result::interrupted, {}, 0};
            }
            const Duration rest = pace.left();
            pace.allow(worker);
            const std::size_t before = worker.handled;
            const bool at_once = options.rate <= 0 || !worker.busy();  // else what is finished is paid for first
            const auto advanced = advance(worker, member, rest == Duration(0) && at_once);
            if (worker.handled > before) {
                pace.pay(worker.handled - before);
                if (options.progress) options.progress(static_cast<std::int64_t>(worker.handled));
            }
            if (advanced != Advanced::idle) continue;
            if (rest > Duration(0)) {
                std::this_thread::sleep_for(std::min(rest, longest));
                continue;
            }
            const Standing standing = store_->standing(name, options.until);
            if (standing.reached) return {};
            if (!standing.stalled.empty()) return {Ran::Result::stalled, standing.stalled, 0};
            if (!worker.active) return {Ran::Result::stalled, "this program does not handle all of its types", 0};
            std::this_thread::sleep_for(longest);  // another process holds what is left
            member.work = true;
        }
    }

    /// Leaves the claims of a worker that cannot go on to the next one that can.
    void abandon(Worker& worker) {
        std::unique_lock lock(mutex_);
        for (std::size_t i = 0; i < worker.works.size(); ++i) {
            if (!worker.works[i]) continue;
            orphans_.emplace_back(worker.works[i]->member, std::move(worker.step.finished[i].claim));
        }
        for (auto& again : worker.again) orphans_.emplace_back(again.work->member, std::move(again.claim));
        for (auto& claim : worker.claims) orphans_.push_back(std::move(claim));
        has_orphans_ = !orphans_.empty();
        worker.works.clear();
        worker.step.finished.clear();
        worker.again.clear();
        worker.claims.clear();
        lock.unlock();
        if (has_orphans_) wake(1);
    }
    void adopt(Worker& worker) {
        if (!has_orphans_ || worker.alone) return;
        std::vector<std::pair<Member*, Claim>> orphans;
        {
            const std::lock_guard lock(mutex_);
            orphans.swap(orphans_);
            has_orphans_ = false;
        }
        for (auto& [owner, claim] : orphans) give_back(worker, {worker.work(*owner), std::move(claim), {}, true});
    }

    // ---- what there is to do

    /// Called by the store after each commit, on the thread that committed.
    void note(const Committed& commit) {
        std::size_t more = 0;
        const auto mark_one = [&](Member& member) { more += member.work.exchange(true) ? 0 : 1; };
        if (!commit.types || commit.groups_changed) {
            for (const auto& member : members_) mark_one(*member);
        } else {
            for (const auto& type : *commit.types) {
                const auto found = by_type_.find(type);
                if (found == by_type_.end()) continue;
                for (auto* member : found->second) mark_one(*member);
            }
        }
        if (commit.due) {
            const std::lock_guard lock(mutex_);
            if (!due_ || *commit.due < *due_) {
                due_ = commit.due;
                timer_moved_ = true;
                timer_.notify_one();
            }
        }
        wake(more);
        poke();
        if (followers_->any() && (!commit.types || !commit.types->empty())) wake_followers();
    }
    /// Lets those look again who wait for a position.
    void poke() {
        if (watchers_ == 0) return;
        const std::lock_guard lock(mutex_);
        ++progress_;
        settled_.notify_all();
    }
    /// Waits until `done`, which is asked again whenever something was committed, or (`at_rest`) when nothing is left
    /// to be done here. False: the time is over.
    template <class Done>
    bool await(Duration timeout, bool at_rest, const Done& done) {
        const auto deadline = end_of(timeout);
        struct Count {
            std::atomic<std::size_t>& count;
            explicit Count(std::atomic<std::size_t>& one) : count(one) { ++count; }
            Count(const Count&) = delete;
            Count& operator=(const Count&) = delete;
            ~Count() { --count; }
        };
        const Count count(at_rest ? waiters_ : watchers_);
        for (;;) {
            std::uint64_t before = 0;
            {
                const std::lock_guard lock(mutex_);
                before = progress_;
            }
            if (done()) return true;
            const auto now = std::chrono::steady_clock::now();
            if (now >= deadline) return false;
            std::unique_lock lock(mutex_);
            // At rest and yet not done: a retry, a take-over, or somebody else who works is awaited.
            const bool others = at_rest ? quiet() : !running_;
            const std::chrono::steady_clock::duration pause = std::chrono::milliseconds(others ? 5 : 100);
            const auto longest = std::min(deadline, now + pause);
            settled_.wait_until(lock, longest,
                                [&] { return progress_ != before || (at_rest && !others && quiet()); });
        }
    }
    void wake_followers() {
        followers_->each({}, [](LogFeed& feed) { feed.wake(); });
    }

    void mark(Member& member) {
        if (!member.work.exchange(true)) wake(1);
    }
    void mark_all() {
        std::size_t more = 0;
        for (const auto& member : members_) more += member->work.exchange(true) ? 0 : 1;
        wake(more);
    }

    /// One worker for each piece of work. A worker that goes to sleep first counts itself idle, then looks at the
    /// groups for the last time, so either it sees the mark or it is seen here.
    void wake(std::size_t count) {
        count = std::min(count, idle_.load());
        if (count == 0) return;
        { const std::lock_guard lock(mutex_); }
        for (; count > 0; --count) wake_.notify_one();
    }

    [[nodiscard]] bool any_work() const {
        return has_orphans_ ||
               std::any_of(members_.begin(), members_.end(), [](const auto& member) { return member->work.load(); });
    }
    [[nodiscard]] bool quiet() const { return idle_ == worker_count_ && !any_work(); }

    /// The next group in turn that may have work; its mark is taken away.
    Member* next_member(std::size_t& cursor) {
        for (std::size_t i = 0; i < members_.size(); ++i) {
            Member& member = *members_[cursor++ % members_.size()];
            if (member.work.load() && member.work.exchange(false)) return &member;
        }
        return nullptr;
    }

    /// The group that what is finished will wake, or else its own, so that one transaction does for both.
    [[nodiscard]] Member* follower(const Worker& worker) const {
        for (const auto& handled : worker.step.finished) {
            for (const auto& part : handled.appends) {
                const auto found = by_type_.find(part.messages.front().type);
                if (found != by_type_.end()) return found->second.front();
            }
        }
        return worker.works.empty() ? nullptr : worker.works.front()->member;
    }

    [[nodiscard]] bool all_handled() {
        return std::all_of(members_.begin(), members_.end(),
                           [this](const auto& member) { return store_->settled(member->id); });
    }

    // ---- time

    void wait_for_retry(Member& member, Time time) {
        const std::int64_t at = time.time_since_epoch().count();
        std::int64_t before = member.next_retry.load();
        while (at < before && !member.next_retry.compare_exchange_weak(before, at)) {}
        if (at >= before) return;
        const std::lock_guard lock(mutex_);
        timer_moved_ = true;
        timer_.notify_one();
    }
    bool wake_retry(Member& member, std::int64_t now) {
        std::int64_t at = member.next_retry.load();
        if (at > now || !member.next_retry.compare_exchange_strong(at, unbounded)) return false;
        mark(member);
        return true;
    }

    /// Brings what is due into the log.
    std::size_t promote() {
        constexpr std::size_t at_once = 1000;
        std::size_t total = 0;
        if (look_due_.exchange(false)) look_for_due();
        for (;;) {
            const Time now = options_.clock();
            {
                const std::lock_guard lock(mutex_);
                if (!due_ || *due_ > now) return total;
            }
            const std::size_t promoted = store_->promote(now, at_once);
            total += promoted;
            if (promoted < at_once) look_for_due();
            if (promoted == 0) return total;
        }
    }
    void look_for_due() {
        {
            // Whatever is scheduled from now on lowers it again.
            const std::lock_guard lock(mutex_);
            due_.reset();
        }
        std::optional<Time> next;
        try {
            next = store_->next_due();
        } catch (...) {
            look_due_ = true;
            throw;
        }
        const std::lock_guard lock(mutex_);
        if (next && (!due_ || *next < *due_)) due_ = next;
    }

    void beat_when_due() {
        const auto now = std::chrono::steady_clock::now().time_since_epoch();
        if (now < next_beat_.load()) return;
        next_beat_ = now + options_.claim_time / 4;
        const std::size_t taken = store_->beat(options_.claim_time);
        works();
        if (taken > 0) {
            log(Level::warning, "claims of a process that died were taken back", {{"claims", std::to_string(taken)}});
        }
    }

    // ---- threads

    void run_worker(std::size_t number) {
        working_for = this;
        Doing doing("worker " + std::to_string(number));
        const Shown shown(*this, doing);
        Worker worker;
        worker.doing = &doing;
        std::size_t cursor = number;
        for (;;) {
            Member* member = stopping_ || worker.has_claims() ? nullptr : next_member(cursor);
            if (!member && !worker.busy() && !has_orphans_) {
                if (stopping_) return;
                sleep();
                continue;
            }
            if (member && idle_ > 0 && any_work()) wake(1);
            if (!member && !stopping_ && !worker.has_claims()) member = follower(worker);
            try {
                turn(worker, member, true);
            } catch (...) {
                abandon(worker);
                log(Level::error, "a worker could not go on, its claims are given back",
                    {{"error", describe(std::current_exception()).text}});
                if (member) member->work = true;
                if (stopping_) return;
                pause(std::chrono::seconds(1));
            }
            if (std::exchange(worker.trouble, nullptr)) {
                pause(worker.rest / 2 + jitter(worker.rest / 2));
                worker.rest = std::min<Duration>(worker.rest * 2, std::chrono::seconds(1));
            } else {
                worker.rest = std::chrono::milliseconds(10);
            }
        }
    }

    /// Runs a thread of the engine; it goes on again whatever was thrown.
    template <class Body>
    void supervise(const char* name, const Body& body) {
        while (true) {
            try {
                body();
                return;
            } catch (...) {
                log(Level::error, "a thread of the engine failed and is started again",
                    {{"thread", name}, {"error", describe(std::current_exception()).text}});
            }
            if (stopping_) return;
            pause(std::chrono::milliseconds(100));
        }
    }

    void sleep() {
        std::unique_lock lock(mutex_);
        ++idle_;
        if (waiters_ > 0 && quiet()) settled_.notify_all();
        wake_.wait(lock, [this] { return stopping_ || any_work(); });
        --idle_;
    }

    /// What is to happen at a time: messages become due, streams are tried again, the process says that it lives.
    void run_timer() {
        working_for = this;
        while (!stopping_) {
            // With a clock that is not the system's, or one that is set, waiting for long could be too long.
            Duration wait = std::chrono::seconds(1);
            try {
                (void)promote();
                const std::int64_t now = options_.clock().time_since_epoch().count();
                for (const auto& member : members_) {
                    (void)wake_retry(*member, now);
                    const std::int64_t at = member->next_retry;
                    if (at != unbounded) wait = std::min(wait, Duration(std::max(at, now) - now));
                }
                beat_when_due();
                look_after_slow();
            } catch (const std::exception& error) {
                trouble(error.what());
                next_beat_ = std::chrono::steady_clock::duration::zero();
                pause(std::chrono::milliseconds(100));
                continue;
            }
            const Time now = options_.clock();
            std::unique_lock lock(mutex_);
            if (due_) wait = std::min(wait, std::max(*due_, now) - now);
            const auto beat = next_beat_.load() - std::chrono::steady_clock::now().time_since_epoch();
            wait = std::min(wait, std::chrono::ceil<Duration>(beat));
            if (wait > Duration(0)) timer_.wait_for(lock, wait, [this] { return stopping_ || timer_moved_; });
            timer_moved_ = false;
        }
    }

    /// Lets a thread look at what other processes write, for as long as workers run or somebody follows the log.
    void watch() {
        if (options_.path.empty()) return;
        const std::lock_guard lock(watch_mutex_);
        if (watching_) return;
        if (watcher_.joinable()) watcher_.join();
        watcher_ = std::thread([this, turn = ++watch_turn_] { supervise("watcher", [&] { run_watcher(turn); }); });
        watching_ = true;
    }
    void end_watch(bool although_followed) {
        std::thread watcher;
        {
            const std::lock_guard lock(watch_mutex_);
            if (!although_followed && followers_->any()) return;
            ++watch_turn_;
            watching_ = false;
            watcher = std::move(watcher_);
        }
        watch_over_.notify_all();
        store_->interrupt_wait();
        if (watcher.joinable()) watcher.join();
    }
    /// Under watch_mutex_.
    [[nodiscard]] bool to_watch(std::uint64_t turn) const {
        return turn == watch_turn_ && (running_ || followers_->any());
    }

    /// What other processes write may be work for every group.
    void run_watcher(std::uint64_t turn) {
        working_for = this;
        for (;;) {
            {
                const std::lock_guard lock(watch_mutex_);
                if (!to_watch(turn)) {
                    if (turn == watch_turn_) watching_ = false;
                    return;
                }
            }
            try {
                if (!store_->wait_for_others(std::chrono::hours(1))) continue;
            } catch (const std::exception& error) {
                trouble(error.what());
                std::unique_lock lock(watch_mutex_);
                watch_over_.wait_for(lock, std::chrono::milliseconds(100), [&] { return !to_watch(turn); });
            }
            ++foreign_;
            look_due_ = true;
            mark_all();
            if (followers_->any()) wake_followers();
            const std::lock_guard lock(mutex_);
            timer_moved_ = true;
            timer_.notify_one();
        }
    }

    /// Waits, but not past a stop.
    void pause(Duration time) {
        std::unique_lock lock(mutex_);
        paused_.wait_for(lock, time, [this] { return stopping_.load(); });
    }

    Duration jitter(Duration most) const {
        static thread_local Random random(seed_ ^ std::hash<std::thread::id>{}(std::this_thread::get_id()));
        return Duration(static_cast<Duration::rep>(random.next() % static_cast<std::uint64_t>(most.count() + 1)));
    }

    /// Marks a thread for the length of a call.
    struct Within {
        Within(const Engine*& which, const Engine* engine) : mark(which), before(std::exchange(which, engine)) {}
        Within(const Within&) = delete;
        Within& operator=(const Within&) = delete;
        ~Within() { mark = before; }
        const Engine*& mark;
        const Engine* before;
    };
    template <class T>
    [[nodiscard]] std::function<void(const T&)> marked(std::function<void(const T&)> callback) const {
        if (!callback) return callback;
        return [this, callback = std::move(callback)](const T& given) {
            const Within calling(calling_for, this);
            callback(given);
        };
    }

    static inline thread_local const Engine* working_for = nullptr;
    static inline thread_local const Engine* calling_for = nullptr;  // a subscription's or follower's callback
    static inline thread_local const Engine* idling_for = nullptr;  // run_until_idle

    Options options_;
    const ::pid_t pid_;
    const std::uint64_t seed_;
    const std::unordered_set<std::string> no_types_;
    Ids ids_;
    Memory memory_;
    Registry registry_;
    std::vector<std::unique_ptr<Member>> members_;
    std::vector<std::unique_ptr<Reactor>> aside_;  // whose types are known, and no more
    std::unordered_map<std::string, std::vector<Member*>> by_type_;
    std::unordered_set<std::string> rebuilt_;  // groups that are being built anew; guarded by mutex_
    std::atomic<std::uint64_t> foreign_{1};  // commits of other processes that were seen
    std::atomic<bool> troubled_{false};

    std::mutex foreground_;  // run_until_idle
    Worker foreground_worker_;

    const std::shared_ptr<Listeners<ChannelFeed>> subscribers_ = std::make_shared<Listeners<ChannelFeed>>();
    const std::shared_ptr<Listeners<LogFeed>> followers_ = std::make_shared<Listeners<LogFeed>>();
    std::mutex watch_mutex_;  // guards what follows; held while the watcher is started
    std::condition_variable watch_over_;
    std::thread watcher_;
    bool watching_ = false;
    std::uint64_t watch_turn_ = 0;  // counts watchers: an ended one does not go on beside the next

    std::mutex lifecycle_;  // start and stop
    std::vector<std::thread> threads_;
    std::atomic<std::size_t> worker_count_{0};
    std::atomic<bool> running_{false};
    std::atomic<bool> stopping_{false};

    // Guards what follows, and every going to sleep. Never held while anything else is called.
    std::mutex mutex_;
    std::condition_variable wake_;     // workers
    std::condition_variable timer_;    // the timer
    std::condition_variable settled_;  // wait, wait_until_idle
    std::condition_variable paused_;   // whoever waits for the store
    std::atomic<std::size_t> idle_{0};
    std::atomic<std::size_t> waiters_{0};   // for rest
    std::atomic<std::size_t> watchers_{0};  // for a position
    std::uint64_t progress_ = 0;
    std::optional<Time> due_;  // of the next scheduled message
    bool timer_moved_ = false;
    std::vector<std::pair<Member*, Claim>> orphans_;
    std::atomic<bool> has_orphans_{false};
    std::atomic<bool> look_due_{true};
    std::atomic<std::chrono::steady_clock::duration> next_beat_{};

    std::mutex doings_mutex_;
    std::vector<Doing*> doings_;  // of the threads that handle, now
    std::size_t handled_before_ = 0;  // by those that have ended
    Doing foreground_doing_{"foreground"};

    std::unique_ptr<Store> store_;  // leaves first: it calls back
};

}  // namespace sourced::detail

namespace sourced {

Subscription::Subscription() noexcept = default;
Subscription::Subscription(std::unique_ptr<detail::Listening<Notice>> listening) noexcept
    : listening_(std::move(listening)) {}
Subscription::Subscription(Subscription&& other) noexcept = default;
Subscription& Subscription::operator=(Subscription&& other) noexcept {
    if (this == &other) return *this;
    detail::leave(listening_);
    listening_ = std::move(other.listening_);
    return *this;
}
Subscription::~Subscription() { detail::leave(listening_); }
std::optional<Notice> Subscription::next() {
    return listening_ ? listening_->next(std::nullopt) : std::nullopt;
}
std::optional<Notice> Subscription::next(Duration timeout) {
    return listening_ ? listening_->next(timeout) : std::nullopt;
}
void Subscription::stop() noexcept {
    if (listening_) listening_->stop();
}
bool Subscription::stopped() const noexcept { return !listening_ || listening_->stopped(); }

Follower::Follower() noexcept = default;
Follower::Follower(std::unique_ptr<detail::Listening<Message>> listening) noexcept : listening_(std::move(listening)) {}
Follower::Follower(Follower&& other) noexcept = default;
Follower& Follower::operator=(Follower&& other) noexcept {
    if (this == &other) return *this;
    detail::leave(listening_);
    listening_ = std::move(other.listening_);
    return *this;
}
Follower::~Follower() { detail::leave(listening_); }
std::optional<Message> Follower::next() {
    return listening_ ? listening_->next(std::nullopt) : std::nullopt;
}
std::optional<Message> Follower::next(Duration timeout) {
    return listening_ ? listening_->next(timeout) : std::nullopt;
}
void Follower::stop() noexcept {
    if (listening_) listening_->stop();
}
bool Follower::stopped() const noexcept { return !listening_ || listening_->stopped(); }
std::int64_t Follower::position() const noexcept {
    return listening_ && !listening_->forked() ? listening_->feed().position() : 0;
}

App::App(Options options) : engine_(std::make_unique<detail::Engine>(std::move(options))) {}

App::~App() {
    // In a child process the threads, and whoever holds the locks, do not exist: nothing here may be touched.
    if (engine_->forked()) (void)engine_.release();
    else if (engine_->is_inside()) detail::Engine::end_elsewhere(std::move(engine_));
}

// ---- Commands from outside

CommandContext::CommandContext(const Registry& registry, ContextOptions options)
    : registry_(&registry), options_(std::move(options)) {
    for (const auto& type : options_.allow) (void)registry.get(type, Kind::command);
}

namespace {

bool is_envelope_field(std::string_view name) {
    static constexpr std::array<std::string_view, 14> fields{
        "id",        "stream",       "seq",         "position",       "kind",        "schema",      "cause",
        "causation", "causation_id", "correlation", "correlation_id", "recorded_at", "occurred_at", "metadata"};
    return std::find(fields.begin(), fields.end(), name) != fields.end();
}

}  // namespace

CommandContext& CommandContext::any(std::function<void(Message&)> hook) {
    any_.push_back(std::move(hook));
    return *this;
}
void CommandContext::add_hook(std::string_view type, std::function<void(Message&)> hook) {
    hooks_[registry_->get(type, Kind::command).name].push_back(std::move(hook));
}

const TypeInfo* CommandContext::allowed(std::string_view type) const {
    const TypeInfo* info = registry_->find(type, Kind::command);
    if (!info || options_.allow.empty()) return info;
    const bool listed = std::any_of(options_.allow.begin(), options_.allow.end(),
                                    [&](const auto& name) { return registry_->find(name, Kind::command) == info; });
    return listed ? info : nullptr;
}

Message CommandContext::build(std::string_view json) const {
    std::optional<std::string> type;
    std::optional<std::string> stream;
    std::string payload = "{}";
    Problems problems;
    {
        detail::JsonReader reader(json, Reading::strict, options_.limits);
        std::unordered_set<std::string_view> keys;
        bool is_object = false;
        if (reader.parsed()) {
            detail::JsonReader::Items items(reader, true);
            while (items && items.next()) {
                if (!keys.insert(items.key).second) {
                    reader.problem("stands twice");
                } else if (items.key == "type") {
                    std::string_view name;
                    if (reader.text(name)) type = name;
                } else if (items.key == "stream" && options_.own_stream) {
                    std::string_view name;
                    if (reader.text(name)) stream = name;
                } else if (items.key == "payload") {
                    payload = detail::json_of(reader.here());
                } else {
                    reader.problem(is_envelope_field(items.key) ? "may not be given from outside" : "unknown field");
                }
            }
            is_object = static_cast<bool>(items);
        }
        if (is_object && !keys.contains("type")) reader.problem_at("type", "is missing");
        problems = reader.take_problems();
    }
    return finish(type.value_or(""), stream.value_or(options_.stream), payload, std::move(problems));
}

Message CommandContext::finish(std::string_view type, std::string stream, std::string_view payload,
                               Problems problems) const {
    const auto is = [&problems](std::string_view path) {
        return std::any_of(problems.begin(), problems.end(), [&](const auto& each) { return each.path == path; });
    };
    Message message;
    const TypeInfo* info = allowed(type);
    if (info) {
        message = registry_->revive(info->name, stream, {}, Kind::command);
        Problems inside;
        message.payload = info->normal(payload, options_.limits, inside);
        for (auto& problem : inside) problems.push_back({"/payload" + problem.path, std::move(problem.text)});
    } else if (!is("") && !is("/type")) {
        problems.push_back({"/type", "no command '" + detail::shown(type) + "' can be sent here"});
    }
    const bool blank = stream.find_first_not_of(" \t\r\n") == std::string::npos;
    if (any_.empty() && blank && !is("") && !is("/stream")) problems.push_back({"/stream", "is blank"});
    const std::string what = "build a command" + (info ? " '" + info->name + "'" : std::string());
    if (!problems.empty()) throw Invalid(what, std::move(problems));
    message.metadata = options_.metadata;
    if (const auto found = hooks_.find(message.type); found != hooks_.end()) {
        for (const auto& hook : found->second) hook(message);
    }
    for (const auto& hook : any_) hook(message);
    if (any_.empty() && hooks_.empty()) return message;
    if (problems = registry_->problems(message, options_.limits); !problems.empty()) throw Invalid(what, problems);
    return message;
}

Messages App::dispatch(Messages messages) { return engine_->dispatch(std::move(messages)); }
Messages App::history(std::string_view stream, const StreamRange& range) {
    return engine_->store().stream(stream, range);
}

Message App::do_schedule(std::string_view stream, Message message, Time time) {
    return engine_->schedule(stream, std::move(message), time);
}
Message App::schedule(std::string_view stream, Message message, Duration delay) {
    if (delay < Duration(0)) throw Invalid("schedule '" + message.type + "': the delay is negative");
    return engine_->schedule(stream, std::move(message), detail::later(engine_->options().clock(), delay));
}
std::vector<Scheduled> App::scheduled(std::size_t limit, std::string_view stream) {
    return engine_->store().scheduled(limit, stream);
}
ScheduleChange App::cancel(const Id& id) { return engine_->store().cancel(id); }
ScheduleChange App::run_now(const Id& id) { return engine_->store().run_now(id); }
void App::do_every(std::string_view name, Duration interval, std::string_view stream, Message message,
                   std::optional<Time> first) {
    engine_->every(name, interval, stream, std::move(message), first);
}
std::vector<Recurring> App::recurring() { return engine_->store().recurring(); }
bool App::cancel_every(std::string_view name) { return engine_->store().cancel_recurring(name); }

std::size_t App::publish(std::string_view channel, std::string_view text) {
    return engine_->publish(channel, text, nullptr);
}
std::size_t App::publish(std::string_view channel, const Message& message) {
    return engine_->publish(channel, message.payload, &message);
}
Subscription App::subscribe(std::string_view channel, const SubscribeOptions& options) {
    return Subscription(engine_->subscribe(channel, nullptr, options));
}
Subscription App::subscribe(std::string_view channel, std::function<void(const Notice&)> callback,
                            const SubscribeOptions& options) {
    if (!callback) throw Invalid("subscribe to '" + std::string(channel) + "': the callback is empty");
    return Subscription(engine_->subscribe(channel, std::move(callback), options));
}
Follower App::follow(const FollowOptions& options) { return Follower(engine_->follow(options, nullptr)); }
Follower App::follow(const FollowOptions& options, std::function<void(const Message&)> callback) {
    if (!callback) throw Invalid("follow: the callback is empty");
    return Follower(engine_->follow(options, std::move(callback)));
}

std::size_t App::run_until_idle() { return engine_->run_until_idle(); }
void App::start() { engine_->start(engine_->options().workers); }
void App::start(std::size_t workers) { engine_->start(workers); }
void App::run() { engine_->run(engine_->options().workers); }
void App::run(std::size_t workers) { engine_->run(workers); }
void App::stop() { engine_->stop(); }
bool App::wait_until_idle(Duration timeout) { return engine_->wait_until_idle(timeout); }
Waited App::wait(std::int64_t position, const std::vector<std::string>& groups, Duration timeout) {
    return engine_->wait(position, {}, groups, timeout);
}
Waited App::wait(const Message& message, const std::vector<std::string>& groups, Duration timeout) {
    if (message.position == 0) throw Invalid("wait for '" + message.type + "': the message was not stored");
    return engine_->wait(message.position, message.stream, groups, timeout);
}

void App::stop_group(std::string_view group, std::string_view reason) { engine_->stop_group(group, reason); }
void App::start_group(std::string_view group, std::string_view reason) {
    engine_->start_group(group, reason);
}
void App::retry_stream(std::string_view group, std::string_view stream) {
    engine_->store().retry_stream(group, stream);
}
Skipped App::skip_message(std::string_view group, std::string_view stream, std::string_view reason) {
    return engine_->store().skip_message(group, stream, reason);
}
void App::park_stream(std::string_view group, std::string_view stream, std::string_view reason) {
    engine_->store().park_stream(group, stream, reason);
}
bool App::acknowledge(std::string_view group, const Message& message,
                      const std::function<void(UnitTransaction&)>& body) {
    return engine_->acknowledge(group, message, body);
}
void App::reset_group(std::string_view group, const Reset& reset) { engine_->reset(group, reset); }
Rebuilt App::rebuild(std::string_view group, const RebuildOptions& options) {
    return engine_->rebuild(group, options);
}
Stats App::stats() { return engine_->stats(); }
Store& App::store() { return engine_->store(); }
const Registry& App::registry() const { return engine_->registry(); }

void App::do_add(std::unique_ptr<Reactor> reactor) { engine_->add(std::move(reactor)); }
const Options& detail::Access::options(const App& app) noexcept { return app.engine_->options(); }
void detail::Access::move_to(App& app, Options options, const std::vector<std::string>& only) {
    if (options.path.empty()) throw Invalid("move the App to a file: the options name none");
    app.engine_->check_movable(options.path);
    for (const auto& name : only) (void)app.engine_->find(name);
    auto engine = std::make_unique<Engine>(std::move(options));
    engine->take_over(*app.engine_, only);
    app.engine_ = std::move(engine);
}
// What loads the state it has stored must not see again what is in that state.
std::unordered_set<std::int64_t> detail::Access::skipped_by(Store& store, std::string_view group) {
    std::unordered_set<std::int64_t> positions;
    std::int64_t last = 0;
    for (auto page = store.skipped(group); !page.empty(); page = store.skipped(group, last)) {
        for (const auto& each : page) positions.insert(each.position);
        last = page.back().number;
    }
    return positions;
}
void detail::Access::check_reset(const Definition& definition, const Reset& reset) {
    if (definition.role != Definition::Role::projector || definition.event_sourced) return;
    const std::string tried = "reset '" + definition.name + "'";
    if (reset.position > 1 || reset.time) {
        throw Invalid(tried + " from a position or a time: a projector that stores its state would add twice; "
                              "reset it whole, or for one whole stream");
    }
    if (reset.stream.empty()) return;
    if (definition.key) {
        throw Invalid(tried + " in '" + reset.stream + "': its rows are kept by key, and streams share them; "
                              "reset it whole");
    }
    if (!definition.on_stream_reset) {
        throw Invalid(tried + " in '" + reset.stream + "': it has no on_reset for one stream; give it a handler "
                              "(std::string_view stream, Transaction&)");
    }
}
std::int64_t detail::Access::handled(App& app) { return app.engine_->handled(); }
detail::Ran detail::Access::run_group(App& app, std::string_view group, const RunOptions& options) {
    return app.engine_->run_group(group, options);
}
Message App::do_dispatch(std::string_view stream, Message message) {
    return engine_->dispatch(stream, std::move(message));
}
Result App::do_handle(const detail::Definition& definition, std::string_view stream, Message command,
                      const HandleOptions& options) {
    auto handling = engine_->handle(definition, stream, std::move(command), options);
    Result result;
    result.command_ = std::move(handling.command);
    result.events_ = std::move(handling.events);
    result.refusal_ = std::move(handling.refusal);
    return result;
}
void App::check(const Message& message) const { engine_->check(message); }

DraftBase::DraftBase(detail::Engine& engine, const detail::Definition& definition, std::string_view stream,
                     std::int64_t upto)
    : engine_(&engine), definition_(&definition), stream_(stream) {
    engine_->load(*this, upto);
}
const Messages& DraftBase::catch_up(std::int64_t upto) {
    engine_->load(*this, upto);
    return news_;
}
Trial DraftBase::try_command(Message command) { return engine_->decide(*this, std::move(command)); }
Messages DraftBase::save(const HandleOptions& options) { return engine_->save(*this, options); }
void DraftBase::discard() { engine_->discard(*this); }

Unit App::do_unit(std::vector<const Reactor*> reactors, const UnitOptions& options) {
    for (std::size_t i = 0; i < reactors.size(); ++i) {
        if (dynamic_cast<const WorkflowBase*>(reactors[i])) {
            throw Error("unit: '" + reactors[i]->name() + "' is a workflow: its steps are run by workers");
        }
        if (std::find(reactors.begin(), reactors.begin() + static_cast<std::ptrdiff_t>(i), reactors[i]) !=
            reactors.begin() + static_cast<std::ptrdiff_t>(i)) {
            throw Error("unit: '" + reactors[i]->name() + "' is named twice");
        }
    }
    return Unit(*engine_, std::move(reactors), options);
}
Unit App::unit(const std::vector<std::string>& groups, const UnitOptions& options) {
    if (groups.empty()) throw Error("unit: it names no reactor");
    std::vector<const Reactor*> reactors;
    for (const auto& group : groups) reactors.push_back(&engine_->find(group));
    return do_unit(std::move(reactors), options);
}
UnitResult Unit::do_handle(std::string_view stream, Message message) const {
    return engine_->handle_together(reactors_, stream, std::move(message), options_);
}

const Messages& UnitResult::events(std::string_view group) const {
    for (const auto& part : parts_) {
        if (part.reactor->name() == group) return part.events;
    }
    throw NotRegistered("'" + std::string(group) + "' is no reactor of this unit");
}
const Messages& UnitResult::events_of(const std::type_info& type) const {
    for (const auto& part : parts_) {
        const Reactor& reactor = *part.reactor;
        if (typeid(reactor) == type) return part.events;
    }
    throw NotRegistered("no " + detail::readable(type.name()) + " is part of this unit");
}

std::pair<detail::Box, std::int64_t> App::do_load(const detail::Definition& definition, std::string_view stream,
                                                  std::int64_t upto) {
    return engine_->load(definition, stream, upto);
}
Reactor& App::find(const std::type_info& type) { return engine_->find(type); }
std::vector<const detail::Definition*> App::definitions() const { return engine_->definitions(); }

}  // namespace sourced
// ==== Topology =================================================================

namespace sourced {

namespace detail {

namespace {

/// Collects the nodes of an App.
class Surveyor {
public:
    explicit Surveyor(const Registry& registry) : registry_(registry) {
        for (const auto* type : registry.types()) taken_.insert(type->name);
    }

    void survey(const Definition& definition) {
        using Role = Definition::Role;
        const auto types = types_of(definition);
        for (const auto& type : types) {
            if (is_internal(type)) continue;
            const auto command = definition.commands.find(type);
            if (command != definition.commands.end()) {
                add_command(type, definition.name, named(command->second.produces));
            } else {
                add_type(type, is_command(type) ? Type::command : Type::event, definition.name);
            }
        }
        TopologyNode model;
        if (definition.role == Role::projector) {
            model = {Type::readmodel, own_id(definition.name + "-rm"), definition.name, definition.name, {}, {}, {}};
            model.produces.emplace();
            std::copy_if(types.begin(), types.end(), std::back_inserter(model.consumes),
                         [&](const auto& type) { return definition.events.contains(type); });
        }
        std::vector<TopologyNode> automations;
        std::optional<TopologyNode> rest;  // what answers several types as one
        for (const auto& type : types) {
            const auto found = definition.reactions.find(type);
            if (found == definition.reactions.end()) continue;
            const auto* reaction = &found->second;
            const auto consumed = model.id.empty() ? type : model.id;
            const auto produced = named(reaction->produces);
            if (!reaction->wildcard && reaction->call) {
                automations.push_back({Type::automation, own_id(type + "-" + definition.name + "-aut"), "on " + type,
                                       definition.name, {consumed}, produced, {}});
                continue;
            }
            if (!rest) {
                const auto name = reaction->wildcard ? "on any other event" : definition.name;
                rest = {Type::automation, own_id(definition.name + "-aut"), name, definition.name, {}, produced, {}};
            }
            if (!is_internal(type)) insert(rest->consumes, consumed);
            if (!produced || !rest->produces) rest->produces.reset();
            else for (const auto& each : *produced) insert(*rest->produces, each);
        }
        if (rest) automations.push_back(std::move(*rest));
        for (const auto& automation : automations) {
            if (!model.id.empty()) model.produces->push_back(automation.id);
            for (const auto& produced : automation.produces.value_or(std::vector<std::string>())) {
                if (registry_.find(produced, Kind::event)) add_type(produced, Type::event, definition.name);
            }
        }
        if (!model.id.empty()) nodes_.push_back(std::move(model));
        std::move(automations.begin(), automations.end(), std::back_inserter(nodes_));
    }

    /// What is produced, but handled nowhere, comes last.
    std::vector<TopologyNode> finish() && {
        const std::size_t end = nodes_.size();
        for (std::size_t i = 0; i < end; ++i) {
            if (nodes_[i].type == Type::readmodel || !nodes_[i].produces) continue;
            const bool from_command = nodes_[i].type == Type::command;
            const auto produced = *nodes_[i].produces;
            for (const auto& type : produced) {
                const bool command = registry_.find(type) ? is_command(type) : !from_command;
                add_type(type, command ? Type::command : Type::event, {});
            }
        }
        return std::move(nodes_);
    }

private:
    using Type = TopologyNode::Type;

    static void insert(std::vector<std::string>& list, const std::string& text) {
        if (std::find(list.begin(), list.end(), text) == list.end()) list.push_back(text);
    }

    /// The name of today: handlers stand under the old ones too.
    [[nodiscard]] std::string named(const std::string& type) const {
        const auto* info = registry_.find(type);
        return info ? info->name : type;
    }
    [[nodiscard]] std::optional<std::vector<std::string>> named(
        const std::optional<std::vector<std::string>>& types) const {
        if (!types) return std::nullopt;
        std::vector<std::string> names;
        for (const auto& type : *types) insert(names, named(type));
        return names;
    }
    [[nodiscard]] bool is_command(const std::string& type) const {
        return registry_.find(type, Kind::command) != nullptr;
    }
    /// How a workflow wakes itself is nobody's business.
    [[nodiscard]] bool is_internal(const std::string& type) const {
        return type.starts_with("sourced.") && !registry_.find(type);
    }
    [[nodiscard]] std::vector<std::string> types_of(const Definition& definition) const {
        std::vector<std::string> types;
        for (const auto& type : definition.order) insert(types, named(type));
        return types;
    }
    std::string own_id(const std::string& wanted) {
        std::string id = wanted;
        for (int number = 2; !taken_.insert(id).second; ++number) id = wanted + "-" + std::to_string(number);
        return id;
    }

    void add_type(const std::string& type, Type as, const std::string& group) {
        if (!types_.insert(type).second) return;
        const auto* info = registry_.find(type);
        TopologyNode node{as, type, type, group, {}, {}, info && info->json_schema ? info->json_schema() : "{}"};
        node.produces.emplace();
        nodes_.push_back(std::move(node));
    }
    void add_command(const std::string& type, const std::string& group,
                     std::optional<std::vector<std::string>> produces) {
        const auto events = produces.value_or(std::vector<std::string>());
        if (!types_.contains(type)) {
            add_type(type, Type::command, group);
            nodes_.back().produces = std::move(produces);
        }
        for (const auto& event : events) add_type(event, Type::event, group);
    }

    const Registry& registry_;
    std::vector<TopologyNode> nodes_;
    std::unordered_set<std::string> types_;  // that have a node
    std::unordered_set<std::string> taken_;  // ids
};

/// What `write` makes of each character: what is no UTF-8 becomes U+FFFD, control characters become spaces.
template <class Write>
std::string each_character(std::string_view text, const Write& write) {
    std::string result;
    const char* const end = text.data() + text.size();
    for (const char* at = text.data(); at != end;) {
        const std::size_t length = utf8_length(at, end);
        if (length == 0) {
            result += "\xEF\xBF\xBD";
            ++at;
        } else if (length == 1) {
            const char c = *at++;
            if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) result += ' ';
            else write(result, c);
        } else {
            result.append(at, length);
            at += length;
        }
    }
    return result;
}

bool is_plain(char c) noexcept {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/// Letters and digits as they are, and what means nothing to Mermaid or Markdown.
std::string mermaid_text(std::string_view text) {
    return each_character(text, [](std::string& out, char c) {
        if (is_plain(c) || c == ' ' || c == '.' || c == '_' || c == '-' || c == '/' || c == ':' || c == '?') {
            out += c;
        } else {
            out += '#' + std::to_string(static_cast<int>(c)) + ';';
        }
    });
}

/// A label between quotes, with its lines.
std::string mermaid_label(std::string_view text, const std::vector<std::string>& notes = {}) {
    if (text.empty() && notes.empty()) return "\" \"";  // it takes no label for a mistake
    std::string label = '"' + mermaid_text(text);
    for (const auto& note : notes) label += "<br/>" + mermaid_text(note);
    return label + '"';
}

std::string dot_text(std::string_view text) {
    return each_character(text, [](std::string& out, char c) {
        if (c == '&') out += "&amp;";
        else if (c == '"' || c == '\\') (out += '\\') += c;
        else out += c;
    });
}

std::string dot_label(std::string_view text, const std::vector<std::string>& notes = {}) {
    std::string label = '"' + dot_text(text);
    for (const auto& note : notes) label += "\\n" + dot_text(note);
    return label + '"';
}

/// What both drawing programs are told of a Drawing: names that any of them takes, and frames.
class Names {
public:
    struct Cluster {
        std::string name;   // of the cluster itself
        std::string group;  // empty: these stand alone
        std::vector<std::size_t> nodes;
    };

    explicit Names(const std::vector<Drawing::Node>& nodes) {
        for (const auto& node : nodes) of.push_back(name(std::string(look_name(node.look)) + "_", node.id));
        std::unordered_map<std::string, std::size_t> places;
        for (std::size_t i = 0; i < nodes.size(); ++i) {
            const auto& group = nodes[i].group;
            const auto [place, fresh] = places.emplace(group, clusters.size());
            if (fresh) clusters.push_back({group.empty() ? group : name("group_", group), group, {}});
            clusters[place->second].nodes.push_back(i);
        }
        for (auto& cluster : clusters) {
            // A frame around one node that is called the same says nothing.
            if (cluster.nodes.size() == 1 && nodes[cluster.nodes.front()].label == cluster.group) cluster.name.clear();
        }
    }

    static std::string_view look_name(Drawing::Look look) {
        constexpr std::string_view names[] = {"command", "event", "automation", "readmodel", "unknown", "refused"};
        return names[static_cast<std::size_t>(look)];
    }

    std::vector<std::string> of;  // the nodes
    std::vector<Cluster> clusters;

private:
    std::string name(std::string_view prefix, std::string_view id) {
        std::string wanted(prefix);
        for (const char c : id) wanted += is_plain(c) ? c : '_';
        std::string result = wanted;
        for (int number = 2; !used_.insert(result).second; ++number) result = wanted + "_" + std::to_string(number);
        return result;
    }

    std::unordered_set<std::string> used_;
};

std::string json_text(std::string_view text) {
    return encode(each_character(text, [](std::string& out, char c) { out += c; }));
}

std::string json_list(const std::vector<std::string>& texts) {
    std::string list = "[";
    for (const auto& text : texts) list += (list.size() > 1 ? "," : "") + json_text(text);
    return list + "]";
}

std::string_view type_name(TopologyNode::Type type) {
    constexpr std::string_view names[] = {"command", "event", "automation", "readmodel"};
    return names[static_cast<std::size_t>(type)];
}

std::string whole_file(const std::string& path) {
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    std::string text;
    char buffer[4096];
    ::ssize_t size = -1;
    while (file >= 0 && (size = ::read(file, buffer, sizeof buffer)) > 0) {
        text.append(buffer, static_cast<std::size_t>(size));
    }
    const int error = errno;
    if (file >= 0) ::close(file);
    if (size < 0) throw Error("update '" + path + "': it cannot be read: " + std::strerror(error));
    return text;
}

/// Whole or not at all: written beside it, then renamed.
void replace_file(const std::string& path, const std::string& text) {
    // A link stays a link.
    const std::unique_ptr<char, void (*)(void*)> target(::realpath(path.c_str(), nullptr), std::free);
    struct stat before {};
    std::string fresh = (target ? target.get() : path) + std::string(".XXXXXX");
    int file = -1;
    bool done = target && ::stat(target.get(), &before) == 0 && (file = ::mkostemp(fresh.data(), O_CLOEXEC)) >= 0;
    for (std::size_t at = 0; done && at < text.size();) {
        const auto written = ::write(file, text.data() + at, text.size() - at);
        done = written > 0;
        at += done ? static_cast<std::size_t>(written) : 0;
    }
    done = done && ::fchmod(file, before.st_mode & 07777) == 0 && ::rename(fresh.c_str(), target.get()) == 0;
    const int error = errno;
    if (file >= 0) ::close(file);
    if (file >= 0 && !done) ::unlink(fresh.c_str());
    if (!done) throw Error("update '" + path + "': it cannot be written: " + std::strerror(error));
}

}  // namespace

}  // namespace detail

Topology::Topology(const App& app) {
    detail::Surveyor surveyor(app.registry());
    for (const auto* definition : app.definitions()) surveyor.survey(*definition);
    nodes_ = std::move(surveyor).finish();
}

const TopologyNode* Topology::find(std::string_view id) const {
    const auto found = std::find_if(nodes_.begin(), nodes_.end(), [&](const auto& node) { return node.id == id; });
    return found == nodes_.end() ? nullptr : &*found;
}

std::string Topology::json() const {
    std::string json = "[";
    for (const auto& node : nodes_) {
        json += json.size() > 1 ? ",\n" : "\n";
        json += "{\"type\":" + detail::json_text(detail::type_name(node.type)) +
                ",\"id\":" + detail::json_text(node.id) +
                ",\"name\":" + detail::json_text(node.name) + ",\"group\":" + detail::json_text(node.group) +
                ",\"consumes\":" + detail::json_list(node.consumes) +
                ",\"produces\":" + (node.produces ? detail::json_list(*node.produces) : "null");
        if (!node.schema.empty()) json += ",\"schema\":" + node.schema;
        json += '}';
    }
    return json + "\n]\n";
}

std::string Topology::mermaid() const { return drawing().mermaid(); }
std::string Topology::dot() const { return drawing().dot(); }

detail::Drawing Topology::drawing() const {
    using Look = detail::Drawing::Look;
    detail::Drawing drawing;
    std::unordered_map<std::string_view, std::size_t> places;
    for (const auto& node : nodes_) {
        places.emplace(node.id, drawing.nodes.size());
        drawing.nodes.push_back({static_cast<Look>(node.type), node.id, node.name, {}, node.group});
    }
    std::unordered_set<std::string> drawn;
    const auto arrow = [&](std::string_view from, std::string_view to) {
        const auto start = places.find(from);
        const auto end = places.find(to);
        if (start == places.end() || end == places.end()) return;
        const auto name = std::to_string(start->second) + " " + std::to_string(end->second);
        if (drawn.insert(name).second) drawing.arrows.push_back({start->second, end->second, {}, false});
    };
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
        const auto& node = nodes_[i];
        for (const auto& id : node.consumes) arrow(id, node.id);
        for (const auto& id : node.produces.value_or(std::vector<std::string>())) arrow(node.id, id);
        if (node.produces) continue;
        drawing.arrows.push_back({i, drawing.nodes.size(), {}, true});
        drawing.nodes.push_back({Look::unknown, node.id, "?", {}, {}, true});
    }
    return drawing;
}

std::string detail::Drawing::mermaid() const {
    const Names names(nodes);
    std::string text = "flowchart LR\n";
    const auto draw = [&](std::size_t i, std::string_view indent) {
        const auto& node = nodes[i];
        const auto label = mermaid_label(node.label, node.notes);
        text += std::string(indent) + names.of[i];
        switch (node.look) {
            case Look::command:
            case Look::unknown: text += "[" + label + "]"; break;
            case Look::event:
            case Look::refused: text += "(" + label + ")"; break;
            case Look::automation: text += "{{" + label + "}}"; break;
            case Look::readmodel: text += "[(" + label + ")]"; break;
        }
        text += ":::" + std::string(Names::look_name(node.look)) + "\n";
    };
    for (const auto& cluster : names.clusters) {
        const bool framed = !cluster.name.empty();
        if (framed) text += "    subgraph " + cluster.name + "[" + mermaid_label(cluster.group) + "]\n";
        for (const auto i : cluster.nodes) draw(i, framed ? "        " : "    ");
        if (framed) text += "    end\n";
    }
    for (const auto& [from, to, label, dashed] : arrows) {
        text += "    " + names.of[from] + (dashed ? " -.->" : " -->");
        text += (label.empty() ? " " : "|" + mermaid_label(label) + "| ") + names.of[to] + "\n";
    }
    for (std::size_t i = 0; i < nodes.size(); ++i) {
        if (nodes[i].marked) text += "    style " + names.of[i] + " stroke-width:4px\n";
        if (nodes[i].dashed && nodes[i].look != Look::unknown) {
            text += "    style " + names.of[i] + " stroke-dasharray:4\n";
        }
    }
    return text +
           "    classDef command fill:#a5d8ff,stroke:#1971c2,color:#000\n"
           "    classDef event fill:#ffd8a8,stroke:#e8590c,color:#000\n"
           "    classDef automation fill:#e5dbff,stroke:#7048e8,color:#000\n"
           "    classDef readmodel fill:#b2f2bb,stroke:#2f9e44,color:#000\n"
           "    classDef unknown fill:#fff,stroke:#868e96,color:#000,stroke-dasharray:4\n" +
           (std::any_of(nodes.begin(), nodes.end(), [](const auto& node) { return node.look == Look::refused; })
                ? "    classDef refused fill:#ffc9c9,stroke:#c92a2a,color:#000\n"
                : "");
}

std::string detail::Drawing::dot() const {
    const Names names(nodes);
    std::string text =
        "digraph sourced {\n"
        "    rankdir=LR;\n"
        "    node [fontname=\"sans-serif\", style=filled, color=\"#495057\"];\n";
    const auto draw = [&](std::size_t i, std::string_view indent) {
        const auto& node = nodes[i];
        const bool dashed = node.dashed && node.look != Look::unknown;
        text += std::string(indent) + names.of[i] + " [label=" + dot_label(node.label, node.notes);
        const std::string rounded = std::string(", shape=box, style=\"rounded,filled") + (dashed ? ",dashed\"" : "\"");
        switch (node.look) {
            case Look::command: text += ", shape=box, fillcolor=\"#a5d8ff\""; break;
            case Look::event: text += rounded + ", fillcolor=\"#ffd8a8\""; break;
            case Look::refused: text += rounded + ", fillcolor=\"#ffc9c9\""; break;
            case Look::automation: text += ", shape=hexagon, fillcolor=\"#e5dbff\""; break;
            case Look::readmodel: text += ", shape=cylinder, fillcolor=\"#b2f2bb\""; break;
            case Look::unknown: text += ", shape=box, style=dashed"; break;
        }
        if (dashed && node.look == Look::command) text += ", style=\"filled,dashed\"";
        if (node.marked) text += ", penwidth=3";
        text += "];\n";
    };
    for (const auto& cluster : names.clusters) {
        const bool framed = !cluster.name.empty();
        if (framed) {
            text += "    subgraph cluster_" + cluster.name + " {\n        label=" + dot_label(cluster.group) +
                    ";\n        fontname=\"sans-serif\";\n";
        }
        for (const auto i : cluster.nodes) draw(i, framed ? "        " : "    ");
        if (framed) text += "    }\n";
    }
    for (const auto& [from, to, label, dashed] : arrows) {
        text += "    " + names.of[from] + " -> " + names.of[to];
        std::string attributes;
        if (!label.empty()) attributes = "label=" + dot_label(label) + ", fontname=\"sans-serif\", fontsize=10";
        if (dashed) attributes += attributes.empty() ? "style=dashed" : ", style=dashed";
        text += attributes.empty() ? ";\n" : " [" + attributes + "];\n";
    }
    return text + "}\n";
}

bool update_markdown(const std::string& path, const Topology& topology) {
    constexpr std::string_view opening = "<!-- sourced:topology -->";
    constexpr std::string_view closing = "<!-- /sourced:topology -->";
    const std::string before = detail::whole_file(path);
    const auto refuse = [&](std::string_view what, std::string_view marker) {
        throw Error("update '" + path + "': " + std::string(what) + " '" + std::string(marker) + "' in it");
    };
    // Where what is between the markers begins and ends.
    std::optional<std::size_t> begin;
    std::optional<std::size_t> end;
    std::string line_end = "\n";
    std::string_view fence;
    for (std::size_t at = 0; at < before.size();) {
        const std::size_t next = std::min(before.find('\n', at), before.size() - 1) + 1;
        std::string_view line = std::string_view(before).substr(at, next - at);
        line = line.substr(0, line.find_last_not_of(" \r\n") + 1);
        const auto inside = line.substr(std::min(line.find_first_not_of(' '), line.size()));
        if (!fence.empty()) {
            if (inside.starts_with(fence)) fence = {};
        } else if (inside.starts_with("```")) {
            fence = "```";
        } else if (inside.starts_with("~~~")) {
            fence = "~~~";
        } else if (line == opening) {
            if (begin) refuse("there are two lines", opening);
            begin = next;
            if (next >= 2 && before[next - 2] == '\r') line_end = "\r\n";
        } else if (line == closing) {
            if (!begin) refuse("there is no line", std::string(opening) + "' before '" + std::string(closing));
            if (end) refuse("there are two lines", closing);
            end = at;
        }
        at = next;
    }
    if (!begin) refuse("there is no line", opening);
    if (!end) refuse("there is no line", closing);
    std::string picture = "```mermaid\n" + topology.mermaid() + "```\n";
    if (line_end != "\n") {
        std::string lines;
        for (const char c : picture) {
            if (c == '\n') lines += line_end;
            else lines += c;
        }
        picture = std::move(lines);
    }
    const std::string after = before.substr(0, *begin) + picture + before.substr(*end);
    if (after == before) return false;
    detail::replace_file(path, after);
    return true;
}

void App::do_start_workflow(const WorkflowBase& workflow, std::string_view id, const std::string& input,
                            const std::function<bool(const std::string&)>& same) {
    if (id.find_first_not_of(" \t\r\n") == std::string_view::npos) {
        throw Invalid("start workflow '" + workflow.name() + "': its id is blank");
    }
    engine_->start_workflow(workflow.stream_of(id), workflow.start_message(input), same);
}

/// Looks for the end of a workflow from the last message of its stream on. True: it may stand further before.
static bool look_for_end(const Message& message, WorkflowEnd& end) {
    if (message.is<WorkflowCompleted>()) {
        end.status = WorkflowStatus::completed;
    } else if (message.is<WorkflowFailed>()) {
        const auto failure = message.as<WorkflowFailed>();
        end.status = WorkflowStatus::failed;
        end.error_type = failure.type;
        end.error_text = failure.text;
    } else {
        // Behind its end there may still stand what others have sent, and the time of a wait that is over.
        return !message.type.starts_with("sourced.workflow_") || message.type.starts_with("sourced.workflow_woken");
    }
    end.payload = message.payload;
    return false;
}

WorkflowEnd App::do_look(const WorkflowBase& workflow, std::string_view stream) {
    WorkflowEnd end;
    StreamRange newest;
    newest.backwards = true;
    store().read_stream(stream, newest, [&end](Message& message) { return look_for_end(message, end); });
    if (end.status != WorkflowStatus::running) return end;
    OffsetRange own;
    own.stream = stream;
    for (const auto& offset : store().offsets(workflow.name(), own)) {
        if (offset.state != OffsetInfo::State::parked) continue;
        end.status = WorkflowStatus::parked;
        end.error_type = offset.error_type;
        end.error_text = offset.error_text.empty() ? offset.reason : offset.error_text;
    }
    return end;
}

WorkflowEnd App::do_wait(const WorkflowBase& workflow, std::string_view stream, Duration timeout) {
    FollowOptions options;
    options.stream = stream;
    options.types = {std::string(WorkflowCompleted::sourced_type), std::string(WorkflowFailed::sourced_type)};
    auto follower = follow(options);  // before looking, so that nothing falls in between
    const auto deadline = detail::end_of(timeout);
    for (;;) {
        auto end = do_look(workflow, stream);
        const auto left = std::chrono::floor<Duration>(deadline - std::chrono::steady_clock::now());
        if (end.status != WorkflowStatus::running || left <= Duration::zero()) return end;
        // That a stream is parked is no message: it is looked for now and then.
        (void)follower.next(std::min<Duration>(left, std::chrono::milliseconds(200)));
    }
}

}  // namespace sourced
// ==== Testing ==================================================================

namespace sourced::testing {

namespace {

using sourced::detail::Definition;
using sourced::detail::Sending;

std::string shown(const Message& message) { return message.type + ' ' + message.payload; }
/// The stream is told when it is another than that of the step.
std::string shown(const Message& message, std::string_view stream) {
    if (message.stream.empty() || message.stream == stream) return shown(message);
    return shown(message) + " to '" + message.stream + '\'';
}
std::string shown(const Refusal& refusal) { return "refusal \"" + refusal.reason + '"'; }
std::string shown(const Sending& sending, std::string_view stream) {
    const bool at_once = !sending.fresh && !sending.at && !sending.after;
    std::string text;
    if (at_once) {  // however it was returned, it is a message in that stream
        text = shown(sending.to.empty() ? sending.message : sending.message.to(sending.to), stream);
    } else {
        text = "dispatch of " + shown(sending.message) + (sending.fresh ? " to a new '" : " to '") +
               (sending.to.empty() ? std::string(stream) : sending.to) + '\'';
    }
    if (sending.after) text += " in " + std::to_string(sending.after->count()) + " us";
    if (sending.at) text += " at " + std::to_string(sending.at->time_since_epoch().count()) + " us";
    if (!sending.message.metadata.empty()) text += " with " + sending.message.metadata.json();
    return text;
}
std::string shown_retry(const std::optional<Time>& time) {
    return time ? "the batch again at " + std::to_string(time->time_since_epoch().count()) + " us" : "the batch again";
}

std::string lines(const std::vector<std::string>& list) {
    if (list.empty()) return "nothing";
    std::string text;
    for (const auto& each : list) text += (text.empty() ? "" : "\n         ") + each;
    return text;
}

std::string exception_text(const std::type_info& type, std::string_view text) {
    return "exception " + sourced::detail::readable(type.name()) + " \"" + std::string(text) + '"';
}
std::string exception_text(const std::exception_ptr& error) {
    try {
        std::rethrow_exception(error);
    } catch (const std::exception& exception) {
        return exception_text(typeid(exception), exception.what());
    } catch (...) {
        return "something that is no std::exception";
    }
}

Verdict compared(bool same, const std::string& expected, const std::string& found) {
    return {same, same ? "as expected: " + expected : "expected " + expected + "\nbut got  " + found};
}

/// The plain values of JSON text by their paths, as they are written.
class Leaves : public rapidjson::BaseReaderHandler<rapidjson::UTF8<>, Leaves> {
public:
    using Found = std::map<std::string, std::string>;

    static Found of(const std::string& json) {
        Leaves leaves;
        rapidjson::Reader reader;
        rapidjson::StringStream stream(json.c_str());
        reader.Parse<rapidjson::kParseNumbersAsStringsFlag>(stream, leaves);
        return std::move(leaves.found_);
    }

    bool Null() { return leaf("null"); }
    bool Bool(bool value) { return leaf(value ? "true" : "false"); }
    bool RawNumber(const char* text, rapidjson::SizeType length, bool) { return leaf(std::string(text, length)); }
    bool String(const char* text, rapidjson::SizeType length, bool) {
        return leaf('"' + std::string(text, length) + '"');
    }
    bool StartObject() { return begin({false, 0, {}}); }
    bool Key(const char* text, rapidjson::SizeType length, bool) {
        open_.back().key.assign(text, length);
        return true;
    }
    bool EndObject(rapidjson::SizeType members) { return end(members == 0 ? "{}" : ""); }
    bool StartArray() { return begin({true, 0, {}}); }
    bool EndArray(rapidjson::SizeType items) { return end(items == 0 ? "[]" : ""); }

private:
    struct Open {
        bool list = false;
        std::size_t index = 0;
        std::string key{};
    };
    bool begin(Open open) {
        open_.push_back(std::move(open));
        return true;
    }
    bool end(const std::string& empty) {
        open_.pop_back();
        if (!empty.empty()) return leaf(empty);
        step();
        return true;
    }
    bool leaf(const std::string& text) {
        std::string path;
        for (const auto& open : open_) path += '/' + (open.list ? std::to_string(open.index) : open.key);
        found_[path] = text;
        step();
        return true;
    }
    void step() {
        if (!open_.empty()) ++open_.back().index;
    }

    std::vector<Open> open_;
    Found found_;
};

/// What differs between two values, one line each: `/items/1/price: expected 3, found 4`.
std::vector<std::string> differences(const std::string& expected, const std::string& found) {
    const auto wanted = Leaves::of(expected);
    const auto present = Leaves::of(found);
    std::vector<std::string> list;
    const auto name = [](const std::string& path) { return path.empty() ? std::string("the value") : path; };
    for (const auto& [path, value] : wanted) {
        const auto other = present.find(path);
        const std::string other_value = other == present.end() ? "nothing" : other->second;
        if (other_value != value) list.push_back(name(path) + ": expected " + value + ", found " + other_value);
    }
    for (const auto& [path, value] : present) {
        if (!wanted.contains(path)) list.push_back(name(path) + ": expected nothing, found " + value);
    }
    return list;
}

/// A line of a trail, and whether it is as expected.
enum class Mark { same, missing, unexpected };
struct Marked {
    Mark mark = Mark::same;
    std::size_t index = 0;  // among the expected where it is missing, else among the found
};

/// The least number of missing and unexpected lines that leads from one list to the other.
template <class Same>
std::vector<Marked> marked(std::size_t expected, std::size_t found, const Same& same) {
    // length[i][j]: how many lines the rests behind i and j have in common.
    std::vector<std::vector<std::size_t>> length(expected + 1, std::vector<std::size_t>(found + 1));
    for (std::size_t i = expected; i-- > 0;) {
        for (std::size_t j = found; j-- > 0;) {
            length[i][j] = same(i, j) ? length[i + 1][j + 1] + 1 : std::max(length[i + 1][j], length[i][j + 1]);
        }
    }
    std::vector<Marked> list;
    std::size_t i = 0;
    std::size_t j = 0;
    while (i < expected || j < found) {
        if (i < expected && j < found && same(i, j)) {
            list.push_back({Mark::same, j});
            ++i;
            ++j;
        } else if (j == found || (i < expected && length[i + 1][j] >= length[i][j + 1])) {
            list.push_back({Mark::missing, i++});
        } else {
            list.push_back({Mark::unexpected, j++});
        }
    }
    return list;
}

bool only_for_the_past(const Action& action) {
    return std::holds_alternative<Sync>(action) || std::holds_alternative<Acknowledge>(action);
}

}  // namespace

std::ostream& operator<<(std::ostream& out, const Verdict& verdict) { return out << verdict.text(); }

namespace detail {

Past past_of(const Setting& setting, const Message* next) {
    const auto& definition = setting.reactor->definition();
    Past result;
    result.stream = setting.stream.empty() ? definition.name + "-1" : setting.stream;
    result.id = result.stream;
    if (definition.on_install || definition.initial_reads) {
        result.store = open_store();
        if (definition.on_install) result.store->transaction(definition.on_install);
    }
    const auto key_of = [&](const Message& message) -> std::optional<std::string> {
        if (!definition.key || !definition.keys.contains(message.type)) return std::nullopt;
        return definition.key(message);
    };
    for (const auto& message : setting.past) {
        if (const auto key = key_of(message)) result.id = *key;
    }
    if (next) {
        if (const auto key = key_of(*next)) result.id = *key;
    }
    if (definition.initial) {
        if (definition.initial_reads) {
            result.store->read([&](Reader& reader) { result.state = definition.initial(result.id, &reader); });
        } else {
            result.state = definition.initial(result.id, nullptr);
        }
    }
    for (auto message : setting.past) {
        if (message.stream.empty()) message.stream = result.stream;
        if (message.seq == 0) message.seq = result.seq + 1;
        const auto key = key_of(message);
        if (key && *key != result.id) result.seq = message.seq;
        else result.seq = sourced::detail::evolve(definition, result.state.get(), result.stream, result.seq, {message});
        result.messages.push_back(std::move(message));
    }
    return result;
}

Verdict same_json(std::string_view what, const std::string& expected, const std::string& found) {
    if (expected == found) return {true, "as expected: " + std::string(what) + ' ' + expected};
    std::string text = "the " + std::string(what) + " differs";
    for (const auto& line : differences(expected, found)) text += "\n  " + line;
    return {false, text};
}

Verdict judge_block(const std::function<Verdict()>& block) {
    try {
        return block();
    } catch (const std::exception& error) {
        return {false, "a block threw: " + exception_text(typeid(error), error.what())};
    }
}

}  // namespace detail

Expected::Expected(Message message) : what_(std::move(message)) {}
Expected::Expected(Refusal refusal) : what_(std::move(refusal)) {}
Expected::Expected(Dispatch dispatch) : what_(std::move(dispatch)) {}
Expected::Expected(const std::type_info& type, std::string_view text) : what_(exception_text(type, text)) {}

Step::Step(const detail::Setting& setting, Messages messages) : reactor_(setting.reactor), replay_(setting.replay) {
    const auto& definition = reactor_->definition();
    past_ = detail::past_of(setting, messages.empty() ? nullptr : &messages.back());
    std::int64_t seq = past_.seq;
    for (auto& message : messages) {
        if (message.stream.empty()) message.stream = past_.stream;
        if (message.stream != past_.stream) {
            throw Error("when: '" + message.type + "' is for the stream '" + message.stream +
                        "', and the test is of '" + past_.stream + '\'');
        }
        if (definition.key && definition.keys.contains(message.type) && definition.key(message) != past_.id) {
            throw Error("when: '" + message.type + "' is for the key '" + definition.key(message) +
                        "', and the test is of '" + past_.id + '\'');
        }
        message.seq = ++seq;
    }
    messages_ = std::move(messages);
    try {
        for (const auto& message : messages_) {
            if (!definition.handles(message.type) && !definition.events.contains(message.type)) {
                throw NotRegistered("'" + definition.name + "' handles no '" + message.type + "'");
            }
        }
        if (definition.role == Definition::Role::reactor) {
            serve(definition);
        } else {
            past_.seq = seq;  // what is decided stands behind all that was sent
            for (const auto& message : messages_) take(definition, message);
            add_sync(definition);
        }
    } catch (...) {  // a verdict says it: then_throws() may expect it
        error_ = std::current_exception();
    }
    if (error_) outcomes_.push_back(exception_text(error_));
}

void Step::take(const Definition& definition, Message message) {
    const auto evolve = [&](const Message& event) {
        (void)sourced::detail::evolve(definition, past_.state.get(), past_.stream, event.seq - 1, {event});
    };
    const auto reaction = definition.reactions.find(message.type);
    const bool decides = definition.commands.contains(message.type);
    evolve(message);
    if (definition.role == Definition::Role::projector || (decides && !replay_)) synced_.push_back(message);
    if (replay_) return;
    if (decides) {
        auto decided = sourced::detail::decide(definition, past_.state.get(), message);
        Messages made;
        for (auto& event : decided.events) {
            event = std::move(event).caused_by(message).with_seq(++past_.seq);
            evolve(event);
            outcomes_.push_back(shown(event));
            events_.push_back(event);
            made.push_back(std::move(event));
        }
        if (decided.refusal) {
            outcomes_.push_back(shown(Refusal{*decided.refusal}));
            made.push_back(Message(Refused{message.type, *decided.refusal}).caused_by(message).with_seq(++past_.seq));
            evolve(made.back());
        }
        synced_.insert(synced_.end(), made.begin(), made.end());
        if (!made.empty()) actions_.push_back(AppendNext{std::move(made)});
    }
    if (reaction != definition.reactions.end()) send(message, reaction->second.call(past_.state.get(), message));
}

void Step::serve(const Definition& definition) {
    std::vector<sourced::detail::Synced> batch;
    for (const auto& message : messages_) batch.push_back({&message, replay_});
    Messages history = past_.messages;
    history.insert(history.end(), messages_.begin(), messages_.end());
    if (!messages_.empty()) past_.seq = messages_.back().seq;
    Results results = definition.serve(Batch(batch, replay_, definition.wants_history ? &history : nullptr));
    if (results.entries().empty()) outcomes_.push_back(shown_retry(results.retry_at()));
    for (auto& entry : std::move(results).entries()) {
        const auto cause = std::find_if(messages_.begin(), messages_.end(),
                                        [&](const auto& message) { return message.id == entry.id; });
        if (cause == messages_.end()) {
            throw Error("results for a message that is not in the batch: " + entry.id.to_string());
        }
        if (entry.error) std::rethrow_exception(entry.error);
        note(*cause, std::move(entry.actions));
        if (!replay_) send(*cause, std::move(entry.sendings));
    }
}

void Step::note(const Message& cause, Actions actions) {
    const auto name = [&](Messages& messages, const std::string& stream) {
        for (auto& message : messages) {
            if (message.stream.empty() || !stream.empty()) message.stream = stream.empty() ? cause.stream : stream;
            message = std::move(message).caused_by(cause);
        }
    };
    for (auto& action : actions) {
        if (replay_ && !only_for_the_past(action)) continue;
        if (auto* next = std::get_if<AppendNext>(&action)) {
            name(next->messages, {});
            for (const auto& message : next->messages) outcomes_.push_back(shown(message, past_.stream));
        } else if (auto* after = std::get_if<AppendAfter>(&action)) {
            name(after->messages, after->stream.empty() ? cause.stream : after->stream);
            for (const auto& message : after->messages) outcomes_.push_back(shown(message, past_.stream));
        } else if (auto* later = std::get_if<Schedule>(&action)) {
            name(later->messages, {});
            for (const auto& message : later->messages) {
                Sending sending;
                sending.message = message;
                sending.to = message.stream;
                sending.at = later->due_at;
                outcomes_.push_back(shown(sending, past_.stream));
            }
        }
        actions_.push_back(std::move(action));
    }
}

void Step::send(const Message& cause, std::vector<Sending> sendings) {
    for (auto& sending : sendings) {
        outcomes_.push_back(shown(sending, past_.stream));
        const Time now = Clock().now();
        if (sending.fresh) sending.to += '-' + Id::make().to_string();
        auto message = std::move(sending.message).to(sending.to.empty() ? cause.stream : sending.to).caused_by(cause);
        using sourced::detail::later;
        const Time due = sending.at ? *sending.at : later(now, sending.after.value_or(Duration(0)));
        if (due > now) actions_.push_back(Schedule{due, {std::move(message)}});
        else actions_.push_back(AppendNext{{std::move(message)}});
    }
}

void Step::add_sync(const Definition& definition) {
    if (!definition.sync || synced_.empty()) return;
    actions_.push_back(Sync{[sync = definition.sync, reactor = reactor_, state = past_.state, id = past_.id,
                             messages = synced_, replay = replay_](Transaction& transaction) {
        std::vector<sourced::detail::Synced> batch;
        for (const auto& message : messages) batch.push_back({&message, replay});
        sync(state.get(), id, batch, replay, transaction);
    }});
}

Store& Step::store() const {
    if (!past_.store) throw Error("there is no store before run_syncs(): '" + reactor_->name() + "' has no tables");
    return *past_.store;
}

void Step::do_run_syncs(const std::function<void(Transaction&)>& before) {
    if (error_) return;
    if (!past_.store) past_.store = open_store();
    try {
        past_.store->transaction([&](Transaction& transaction) {
            if (before) before(transaction);
            for (const auto& action : actions_) {
                const auto* sync = std::get_if<Sync>(&action);
                if (sync && sync->work) sync->work(transaction);
            }
        });
        for (const auto& action : actions_) {
            const auto* after = std::get_if<AfterSync>(&action);
            if (after && after->work) after->work();
        }
    } catch (...) {
        error_ = std::current_exception();
        outcomes_.push_back(exception_text(error_));
    }
}

Verdict Step::judge(const std::vector<Expected>& expected) const {
    std::vector<std::string> wanted;
    for (const auto& each : expected) {
        if (const auto* message = std::get_if<Message>(&each.what_)) wanted.push_back(shown(*message, past_.stream));
        if (const auto* refusal = std::get_if<Refusal>(&each.what_)) wanted.push_back(shown(*refusal));
        if (const auto* dispatch = std::get_if<Dispatch>(&each.what_)) {
            wanted.push_back(shown(dispatch->sending(), past_.stream));
        }
        if (const auto* error = std::get_if<std::string>(&each.what_)) wanted.push_back(*error);
    }
    return compared(wanted == outcomes_, lines(wanted), lines(outcomes_));
}

Verdict Step::judge_error(bool right_type, const std::type_info& type, std::string_view text) const {
    bool right_text = false;
    if (right_type) {
        try {
            std::rethrow_exception(error_);
        } catch (const std::exception& exception) {
            right_text = std::string_view(exception.what()).find(text) != std::string_view::npos;
        } catch (...) {
            right_text = text.empty();
        }
    }
    std::string wanted = "exception " + sourced::detail::readable(type.name());
    if (!text.empty()) wanted += " \"" + std::string(text) + '"';
    return compared(right_type && right_text, wanted, lines(outcomes_));
}

Verdict Step::judge_retry(const std::optional<Time>& time) const {
    const std::string wanted = shown_retry(time);
    const bool right = outcomes_.size() == 1 && (time ? outcomes_[0] == wanted : outcomes_[0].rfind(wanted, 0) == 0);
    return compared(right, wanted, lines(outcomes_));
}

Clock::Clock(Time start) : time_(std::make_shared<std::atomic<std::int64_t>>(start.time_since_epoch().count())) {}

void Clock::advance(Duration duration) { time_->fetch_add(duration.count()); }

Line::Line(Message message) : message_(std::move(message)) {}

Line Line::in(std::string_view stream) const {
    Line other = *this;
    other.message_.stream = stream;
    other.new_stream_ = false;
    return other;
}

Line Line::in_new(std::string_view prefix) const {
    Line other = in(std::string(prefix) + "-*");
    other.new_stream_ = true;
    return other;
}

bool Line::stands_in(std::string_view stream) const {
    const std::string& own = message_.stream;
    if (!new_stream_) return stream == own;
    const std::size_t prefix = own.size() - 1;  // without the asterisk
    return stream.size() == prefix + Id().to_string().size() && stream.substr(0, prefix) == own.substr(0, prefix);
}

Line Line::by(std::string_view reactor) const {
    Line other = *this;
    other.producer_ = reactor;
    return other;
}

struct Stage::Members {
    Clock clock;
    App app{{.batch_size = 1, .claim_count = 1, .errors = Retries{.times = 0}, .clock = clock, .seed = 1}};
    std::vector<const Definition*> definitions;
    std::string stream;
    Messages past;
    bool live = false;  // false: what is handled happened before
    std::size_t before = 0;  // length of the log before the last `when` or `after`

    void begin() {
        if (live) return;
        send(std::exchange(past, {}));
        work();
        live = true;
        before = static_cast<std::size_t>(app.store().head());
    }
    void send(Messages messages) {
        for (auto& message : messages) {
            if (message.stream.empty()) message.stream = default_stream();
        }
        if (!messages.empty()) app.dispatch(std::move(messages));
    }
    void work() { sourced::detail::Access::engine(app).run_until_idle(true); }
    [[nodiscard]] std::string default_stream() const {
        return stream.empty() && !definitions.empty() ? definitions.front()->name + "-1" : stream;
    }
    void only_before(std::string_view verb) const {
        if (live) throw Error(std::string(verb) + ": the past is over, something has happened on the stage already");
    }
    /// Reactors that were stopped, and why.
    [[nodiscard]] std::vector<std::string> stopped();
    /// What reactors with an error strategy of their own have made of failures.
    [[nodiscard]] std::vector<std::string> left_over();
};

namespace {

template <class Failed>
std::string error_text(const Failed& failed) {
    return failed.error_type + " \"" + failed.error_text + '"';
}

/// Lets a reactor pass over the past as it does in a replay: nothing is decided, sent or appended.
void pass_over_past(Definition& definition, const bool& live) {
    for (auto& [name, handler] : definition.commands) {
        handler.call = [call = std::move(handler.call), &live](const void* state, const Message& message) {
            return live ? call(state, message) : Decided{};
        };
    }
    for (auto& [name, handler] : definition.reactions) {
        if (!handler.call) continue;
        handler.call = [call = std::move(handler.call), &live](const void* state, const Message& message) {
            return live ? call(state, message) : std::vector<Sending>();
        };
    }
    if (definition.sync) {
        const bool decides = definition.role == Definition::Role::actor;
        definition.sync = [sync = std::move(definition.sync), decides, &live](
                              const void* state, std::string_view id,
                              const std::vector<sourced::detail::Synced>& batch, bool replay,
                              Transaction& transaction) {
            if (live) return sync(state, id, batch, replay, transaction);
            if (decides) return;
            auto past = batch;
            for (auto& each : past) each.replay = true;
            sync(state, id, past, true, transaction);
        };
    }
    if (definition.serve) {
        const bool wants_history = definition.wants_history;
        definition.serve = [serve = std::move(definition.serve), wants_history, &live](const Batch& batch) {
            if (live) return serve(batch);
            std::vector<sourced::detail::Synced> past(batch.begin(), batch.end());
            for (auto& each : past) each.replay = true;
            Results served = serve(Batch(past, true, wants_history ? &batch.history() : nullptr));
            Results results;
            for (const auto& entry : served.entries()) {
                const auto message = std::find_if(past.begin(), past.end(),
                                                  [&](const auto& each) { return each->id == entry.id; });
                if (message == past.end()) continue;
                if (entry.error) {
                    results.fail(**message, entry.error);
                    continue;
                }
                Actions kept;
                std::copy_if(entry.actions.begin(), entry.actions.end(), std::back_inserter(kept), only_for_the_past);
                results.add(**message, std::move(kept));
            }
            return results;
        };
    }
}

}  // namespace

std::vector<std::string> Stage::Members::stopped() {
    std::vector<std::string> list;
    for (const auto& group : app.stats().groups) {
        if (group.active) continue;
        list.push_back('\'' + group.name + "' stopped at position " + std::to_string(group.error_position) + ": " +
                       (group.error_type.empty() ? group.reason : error_text(group)));
    }
    return list;
}

std::vector<std::string> Stage::Members::left_over() {
    std::vector<std::string> list;
    for (const auto* definition : definitions) {
        const std::string name = '\'' + definition->name + '\'';
        for (const auto& offset : app.store().offsets(definition->name)) {
            const bool parked = offset.state == OffsetInfo::State::parked;
            if (!parked && offset.state != OffsetInfo::State::waiting) continue;
            list.push_back(name + (parked ? " parked '" : " waits to retry '") + offset.stream + "' at position " +
                           std::to_string(offset.position) + ": " +
                           (offset.error_type.empty() ? offset.reason : error_text(offset)));
        }
        for (const auto& skipped : app.store().skipped(definition->name)) {
            list.push_back(name + " skipped position " + std::to_string(skipped.position) + ": " +
                           (skipped.error_type.empty() ? skipped.reason : error_text(skipped)));
        }
    }
    return list;
}

Stage::Stage() : members_(std::make_unique<Members>()) {}
Stage::~Stage() = default;
Stage::Stage(Stage&& other) noexcept = default;
Stage& Stage::operator=(Stage&& other) noexcept = default;

void Stage::do_add(std::unique_ptr<Reactor> reactor) {
    members_->only_before("add");
    members_->definitions.push_back(&reactor->definition());
    pass_over_past(sourced::detail::Access::definition(*reactor), members_->live);
    sourced::detail::Access::add(members_->app, std::move(reactor));
}

Stage& Stage::stream(std::string_view name) & {
    members_->only_before("stream");
    members_->stream = name;
    return *this;
}

void Stage::do_given(Messages past) {
    members_->only_before("given");
    std::move(past.begin(), past.end(), std::back_inserter(members_->past));
}

void Stage::do_when(Messages messages) {
    auto& stage = *members_;
    stage.begin();
    stage.before = static_cast<std::size_t>(stage.app.store().head()) + messages.size();
    stage.send(std::move(messages));
    stage.work();
}

Stage& Stage::after(Duration duration) & {
    auto& stage = *members_;
    stage.begin();
    stage.before = static_cast<std::size_t>(stage.app.store().head());
    stage.clock.advance(duration);
    stage.work();
    return *this;
}

Messages Stage::trail() const {
    members_->begin();
    return members_->app.store().log();
}

std::string Stage::producer(const Message& message) const {
    if (message.causation == message.id) return {};
    const auto cause = members_->app.store().find(message.causation);
    if (!cause) return {};
    std::vector<std::string> handlers;
    for (const auto* definition : members_->definitions) {
        if (message.kind == Kind::event && definition->commands.contains(cause->type)) return definition->name;
        // What actors and projectors answer with are commands.
        const bool answers = message.kind == Kind::command || definition->role == Definition::Role::reactor;
        if (answers && definition->handles(cause->type)) handlers.push_back(definition->name);
    }
    if (handlers.size() == 1) return handlers.front();
    const auto recorded = message.metadata.get("producer");
    if (recorded && std::find(handlers.begin(), handlers.end(), *recorded) != handlers.end()) return *recorded;
    return {};
}

Verdict Stage::judge(const std::vector<Line>& expected, bool whole) const {
    Messages found = trail();
    if (!whole) found.erase(found.begin(), found.begin() + static_cast<std::ptrdiff_t>(members_->before));
    std::vector<Line> wanted = expected;
    for (auto& line : wanted) {
        if (line.message_.stream.empty()) line.message_.stream = members_->default_stream();
    }
    std::vector<std::string> producers;
    for (const auto& message : found) producers.push_back(producer(message));
    const auto same = [&](std::size_t i, std::size_t j) {
        return wanted[i].stands_in(found[j].stream) && shown(wanted[i].message_) == shown(found[j]) &&
               (wanted[i].producer_.empty() || wanted[i].producer_ == producers[j]);
    };
    std::size_t width = 0;
    for (const auto& line : wanted) width = std::max(width, line.message_.stream.size());
    for (const auto& message : found) width = std::max(width, message.stream.size());
    const auto text_of = [&](const Message& message, const std::string& by) {
        return message.stream + std::string(width - message.stream.size() + 2, ' ') + shown(message) +
               (by.empty() ? "" : "  by " + by);
    };
    bool right = true;
    std::string text;
    for (const auto& line : marked(wanted.size(), found.size(), same)) {
        right = right && line.mark == Mark::same;
        const bool missing = line.mark == Mark::missing;
        const std::string number = missing ? "" : std::to_string(found[line.index].position);
        text += '\n' + std::string(4 - std::min<std::size_t>(number.size(), 4), ' ') + number +
                (missing ? " - " : line.mark == Mark::same ? "   " : " + ") +
                (missing ? text_of(wanted[line.index].message_, wanted[line.index].producer_)
                         : text_of(found[line.index], producers[line.index]));
    }
    if (found.empty() && wanted.empty()) text = " nothing";
    const auto stopped = members_->stopped();
    if (right && stopped.empty()) return {true, "as expected:" + text};
    for (const auto& each : stopped) text += "\n  ! " + each;
    for (const auto& each : members_->left_over()) text += "\n  ! " + each;
    for (const auto& waiting : members_->app.store().scheduled()) {
        const auto wait = waiting.due_at - members_->clock.now();
        text += "\n  waits for " + std::to_string(wait.count()) + " us: " + text_of(waiting.message, {});
    }
    return {false, right ? "a reactor was stopped:" + text
                         : "the trail is not as expected (- missing, + unexpected):" + text};
}

Verdict Stage::then_stopped(std::string_view reactor, std::string_view text) const {
    members_->begin();
    const auto group = members_->app.stats().group(reactor);
    const std::string wanted = '\'' + std::string(reactor) + "' stopped by \"" + std::string(text) + '"';
    const bool right = !group.active && group.error_text.find(text) != std::string::npos;
    return compared(right, wanted, lines(members_->stopped()));
}

App& Stage::app() const {
    members_->begin();
    return members_->app;
}

Clock Stage::clock() const { return members_->clock; }

std::string Stage::stream_or_default(std::string_view stream) const {
    return stream.empty() ? members_->default_stream() : std::string(stream);
}

// ---- Workflows

namespace detail {

Rehearsing::Rehearsing(const WorkflowBase& workflow, const std::string& input)
    : stream(workflow.stream_of("1")), workflow_(&workflow) {
    send(workflow.start_message(input));
}

void Rehearsing::append(Message message) {
    message.stream = stream;
    message.seq = static_cast<std::int64_t>(history.size()) + 1;
    message.position = message.seq;
    message.recorded_at = clock.now();
    if (message.occurred_at == Time{}) message.occurred_at = message.recorded_at;
    history.push_back(std::move(message));
}

void Rehearsing::send(Message message) {
    append(std::move(message));
    run();
}

void Rehearsing::advance(Duration time) {
    const Time until = clock.now() + time;
    const auto sooner = [](const Scheduled& left, const Scheduled& right) { return left.due_at < right.due_at; };
    for (;;) {
        const auto next = std::min_element(scheduled.begin(), scheduled.end(), sooner);
        if (next == scheduled.end() || next->due_at > until) break;
        clock.set(std::max(clock.now(), next->due_at));
        Message message = std::move(next->message);
        scheduled.erase(next);
        send(std::move(message));
    }
    clock.set(until);
}

void Rehearsing::run() {
    const WorkflowBase::Surroundings around{clock, [this] { return Id::make(clock.now(), ids); }};
    for (;;) {
        auto actions = workflow_->advance(stream, history, around);
        if (actions.empty()) return;
        for (auto& action : actions) {
            if (auto* next = std::get_if<AppendNext>(&action)) {
                for (auto& message : next->messages) append(std::move(message));
            }
            if (auto* later = std::get_if<Schedule>(&action)) {
                for (auto& message : later->messages) scheduled.push_back({later->due_at, std::move(message)});
            }
        }
        if (scheduled.empty()) continue;
        const Time now = clock.now();
        for (auto each = scheduled.begin(); each != scheduled.end();) {
            if (each->due_at > now) {
                ++each;
                continue;
            }
            append(std::move(each->message));
            each = scheduled.erase(each);
        }
    }
}

WorkflowEnd Rehearsing::end() const {
    WorkflowEnd end;
    for (auto message = history.rbegin(); message != history.rend() && look_for_end(*message, end); ++message) {}
    return end;
}

}  // namespace detail

}  // namespace sourced::testing
#endif  // SOURCED_IMPLEMENTATION
