#include "where.hpp"

#include <rapidjson/reader.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

namespace sourced::inspector {
namespace {

// ---- Numbers -------------------------------------------------------------------

/// A JSON number as it is written, without rounding: 0.digits times ten to the power of `exponent`.
struct Decimal {
    std::string digits;  ///< without zeros at either end; empty: zero
    std::int64_t exponent = 0;
    bool negative = false;
};

[[nodiscard]] bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }

/// `text` is a valid JSON number.
[[nodiscard]] Decimal decimal(std::string_view text) {
    Decimal result;
    std::size_t at = 0;
    if (text[at] == '-') {
        result.negative = true;
        ++at;
    }
    bool behind_point = false;
    for (; at < text.size() && text[at] != 'e' && text[at] != 'E'; ++at) {
        if (text[at] == '.') {
            behind_point = true;
            continue;
        }
        if (text[at] == '0' && result.digits.empty()) {
            if (behind_point) --result.exponent;
            continue;
        }
        result.digits += text[at];
        if (!behind_point) ++result.exponent;
    }
    while (!result.digits.empty() && result.digits.back() == '0') result.digits.pop_back();
    if (result.digits.empty()) return Decimal{};
    if (at == text.size()) return result;
    const bool down = text[++at] == '-';
    if (!is_digit(text[at])) ++at;
    // An exponent that does not fit stands for one far beyond all that do.
    constexpr std::int64_t far = std::int64_t{1} << 60;
    std::int64_t power = far;
    const auto [end, error] = std::from_chars(text.data() + at, text.data() + text.size(), power);
    if (error != std::errc{} || power > far) power = far;
    result.exponent += down ? -power : power;
    return result;
}

[[nodiscard]] int compare(const Decimal& left, const Decimal& right) noexcept {
    const auto sign = [](const Decimal& number) { return number.digits.empty() ? 0 : number.negative ? -1 : 1; };
    if (sign(left) != sign(right)) return sign(left) < sign(right) ? -1 : 1;
    const int larger = sign(left);
    if (left.exponent != right.exponent) return left.exponent < right.exponent ? -larger : larger;
    const int order = left.digits.compare(right.digits);
    return order < 0 ? -larger : order > 0 ? larger : 0;
}

/// The number, where it is an integer of few digits.
[[nodiscard]] std::optional<std::int64_t> small_integer(std::string_view text) noexcept {
    if (text.size() > 18) return std::nullopt;
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
    return value;
}

// ---- Values and comparisons ----------------------------------------------------

enum class Operator { equal, unequal, less, at_most, greater, at_least, contains, in, exists };

enum class Shape { null, boolean, number, text, container };

/// What stands on the right of an operator.
struct Literal {
    Shape shape = Shape::null;
    bool flag = false;
    std::string text;                     ///< of a text; of a number as it was written
    std::optional<std::int64_t> integer;  ///< of a number that is a small integer, and of a time
    Decimal exact;
    std::size_t at = 0;                   ///< where it stands in the expression
};

/// What is found in a message.
struct Found {
    Shape shape = Shape::null;
    bool flag = false;
    std::string_view text{};  ///< of a text; of a number as it is written
};

[[nodiscard]] int order_of(std::int64_t left, std::int64_t right) noexcept {
    return left < right ? -1 : left > right ? 1 : 0;
}

[[nodiscard]] int compare_numbers(std::string_view found, const Literal& literal) {
    if (literal.integer) {
        if (const auto integer = small_integer(found)) return order_of(*integer, *literal.integer);
    }
    return compare(decimal(found), literal.exact);
}

/// How they are ordered; nothing when they are of different shapes.
[[nodiscard]] std::optional<int> order_of(const Found& found, const Literal& literal) {
    if (found.shape != literal.shape) return std::nullopt;
    switch (found.shape) {
        case Shape::null: return 0;
        case Shape::boolean: return order_of(found.flag, literal.flag);
        case Shape::number: return compare_numbers(found.text, literal);
        case Shape::text: return order_of(found.text.compare(literal.text), 0);
        case Shape::container: break;
    }
    return std::nullopt;
}

/// Whether the operator, which compares with one value, accepts this order.
[[nodiscard]] bool accepts(Operator how, std::optional<int> order) noexcept {
    if (how == Operator::unequal) return order != 0;
    if (!order) return false;
    switch (how) {
        case Operator::less: return *order < 0;
        case Operator::at_most: return *order <= 0;
        case Operator::greater: return *order > 0;
        case Operator::at_least: return *order >= 0;
        default: return *order == 0;
    }
}

enum class Field {
    id, stream, seq, position, type, kind, schema, causation, correlation, recorded_at, occurred_at, payload, metadata
};

struct FieldName {
    std::string_view name;
    Field field;
};
constexpr std::array<FieldName, 13> field_names{{
    {"id", Field::id}, {"stream", Field::stream}, {"seq", Field::seq}, {"position", Field::position},
    {"type", Field::type}, {"kind", Field::kind}, {"schema", Field::schema}, {"causation", Field::causation},
    {"correlation", Field::correlation}, {"recorded_at", Field::recorded_at}, {"occurred_at", Field::occurred_at},
    {"payload", Field::payload}, {"metadata", Field::metadata},
}};

[[nodiscard]] constexpr bool is_json(Field field) noexcept {
    return field == Field::payload || field == Field::metadata;
}
[[nodiscard]] constexpr bool is_time(Field field) noexcept {
    return field == Field::recorded_at || field == Field::occurred_at;
}
[[nodiscard]] constexpr bool is_number(Field field) noexcept {
    return field == Field::seq || field == Field::position || field == Field::schema;
}
[[nodiscard]] constexpr bool is_id(Field field) noexcept {
    return field == Field::id || field == Field::causation || field == Field::correlation;
}

/// One step into a JSON value.
struct Step {
    enum class What { name, element, any_element };
    What what = What::name;
    std::string name;
    std::uint64_t index = 0;
};

struct Comparison {
    Field field = Field::payload;
    std::vector<Step> path;
    Operator how = Operator::equal;
    std::vector<Literal> values;  ///< several only with `in`, none with `exists`

    [[nodiscard]] bool accepts_found(const Found& found) const {
        if (how == Operator::exists) return true;
        if (how == Operator::contains) {
            return found.shape == Shape::text && found.text.find(values.front().text) != std::string_view::npos;
        }
        return accepts_any([&](const Literal& value) { return order_of(found, value); });
    }
    template <class Order>
    [[nodiscard]] bool accepts_any(const Order& order) const {
        return std::any_of(values.begin(), values.end(),
                           [&](const Literal& value) { return accepts(how, order(value)); });
    }
};

// ---- Looking into JSON ---------------------------------------------------------

/// Passes over a JSON text once and notes which comparisons one of its values is true of.
class Search {
public:
    /// The comparison has to stay where it is.
    [[nodiscard]] std::size_t add(const Comparison& comparison) {
        targets_.push_back(Target{&comparison, 0, false});
        return targets_.size() - 1;
    }
    [[nodiscard]] bool hit(std::size_t target) const noexcept { return targets_[target].hit; }

    void run(const char* json) {
        containers_.clear();
        for (auto& target : targets_) {
            target.matched = 0;
            target.hit = false;
        }
        rapidjson::StringStream stream(json);
        constexpr unsigned flags = rapidjson::kParseIterativeFlag | rapidjson::kParseValidateEncodingFlag |
                                   rapidjson::kParseNumbersAsStringsFlag;
        if (!reader_.Parse<flags>(stream, *this).IsError()) return;
        for (auto& target : targets_) target.hit = false;
    }

    // What the reader calls.
    bool Null() { return scalar({}); }
    bool Bool(bool flag) { return scalar({Shape::boolean, flag, {}}); }
    bool RawNumber(const char* text, rapidjson::SizeType length, bool) {
        return scalar({Shape::number, false, {text, length}});
    }
    bool String(const char* text, rapidjson::SizeType length, bool) {
        return scalar({Shape::text, false, {text, length}});
    }
    bool Key(const char* text, rapidjson::SizeType length, bool) {
        enter([name = std::string_view(text, length)](const Step& step) {
            return step.what == Step::What::name && step.name == name;
        });
        return true;
    }
    bool StartObject() { return open(false); }
    bool EndObject(rapidjson::SizeType) { return close(); }
    bool StartArray() { return open(true); }
    bool EndArray(rapidjson::SizeType) { return close(); }
    // Numbers come as text.
    bool Int(int) { return false; }
    bool Uint(unsigned) { return false; }
    bool Int64(std::int64_t) { return false; }
    bool Uint64(std::uint64_t) { return false; }
    bool Double(double) { return false; }

private:
    struct Target {
        const Comparison* comparison = nullptr;
        std::size_t matched = 0;  ///< so many steps of its path lead to where the reader is
        bool hit = false;
    };
    struct Container {
        bool array = false;
        std::uint64_t next = 0;
    };

    /// Goes on to the next member or element of the innermost container.
    template <class Matches>
    void enter(const Matches& matches) {
        const std::size_t depth = containers_.size() - 1;
        for (auto& target : targets_) {
            if (target.matched < depth) continue;
            const auto& path = target.comparison->path;
            target.matched = depth + (depth < path.size() && matches(path[depth]) ? 1 : 0);
        }
    }
    void value(const Found& found) {
        if (!containers_.empty() && containers_.back().array) {
            const std::uint64_t index = containers_.back().next++;
            enter([index](const Step& step) {
                return step.what == Step::What::any_element ||
                       (step.what == Step::What::element && step.index == index);
            });
        }
        for (auto& target : targets_) {
            const auto steps = target.comparison->path.size();
            if (target.hit || steps != containers_.size() || target.matched != steps) continue;
            target.hit = target.comparison->accepts_found(found);
        }
    }
    bool scalar(const Found& found) {
        value(found);
        return true;
    }
    bool open(bool array) {
        value({Shape::container, false, {}});
        containers_.push_back({array, 0});
        return true;
    }
    bool close() {
        containers_.pop_back();
        for (auto& target : targets_) target.matched = std::min(target.matched, containers_.size());
        return true;
    }

    std::vector<Target> targets_;
    std::vector<Container> containers_;
    rapidjson::Reader reader_{nullptr, 256};
};

// ---- The expression as a tree --------------------------------------------------

struct Node {
    enum class What { all, any, negation, comparison };
    What what = What::comparison;
    std::vector<Node> parts{};
    std::unique_ptr<Comparison> comparison{};
    std::size_t target = 0;  ///< of the comparison in its Search
    bool json = false;       ///< a payload or metadata has to be read
};

[[nodiscard]] Node branch(Node::What what, std::vector<Node> parts) {
    Node node;
    node.what = what;
    node.json = std::any_of(parts.begin(), parts.end(), [](const Node& part) { return part.json; });
    // What costs little comes first: often it decides alone.
    std::stable_partition(parts.begin(), parts.end(), [](const Node& part) { return !part.json; });
    node.parts = std::move(parts);
    return node;
}

// ---- Reading an expression -----------------------------------------------------

constexpr std::string_view a_value = "a value: a string in quotes, a number, true, false or null";
constexpr std::string_view an_operator = "an operator: = != < <= > >= ~ in";

[[nodiscard]] bool is_word(char c) noexcept {
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '-' ||
           static_cast<unsigned char>(c) >= 0x80;
}

/// The same text in one line without what would move the mark under it.
[[nodiscard]] std::string one_line(std::string_view text) {
    std::string line;
    for (const char c : text) line += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? ' ' : c;
    return line;
}

[[nodiscard]] std::size_t columns(std::string_view text) noexcept {
    return static_cast<std::size_t>(
        std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

class Parser {
public:
    Parser(std::string_view text, Time now) : text_(text), now_(now) {}

    [[nodiscard]] Node parse() {
        Node node = disjunction();
        if (!done()) fail("expected 'and', 'or' or the end");
        return node;
    }

private:
    static constexpr int deepest = 200;

    [[noreturn]] void fail(const std::string& what) { fail(what, at_); }
    [[noreturn]] void fail(const std::string& what, std::size_t at) const {
        throw BadArgument("--where: " + what + "\n  " + one_line(text_) + "\n  " +
                      std::string(columns(text_.substr(0, at)), ' ') + "^");
    }

    // ---- characters and words

    void skip_spaces() noexcept {
        while (at_ < text_.size() && std::string_view(" \t\r\n").find(text_[at_]) != std::string_view::npos) ++at_;
    }
    [[nodiscard]] bool done() noexcept {
        skip_spaces();
        return at_ == text_.size();
    }
    [[nodiscard]] bool next_is(char c) const noexcept { return at_ < text_.size() && text_[at_] == c; }
    [[nodiscard]] bool take(std::string_view token) noexcept {
        skip_spaces();
        if (!text_.substr(at_).starts_with(token)) return false;
        at_ += token.size();
        return true;
    }
    [[nodiscard]] std::string_view word_here() const noexcept {
        std::size_t end = at_;
        while (end < text_.size() && is_word(text_[end])) ++end;
        return text_.substr(at_, end - at_);
    }
    /// Keywords are the same in upper and lower case.
    [[nodiscard]] bool keyword(std::string_view expected) noexcept {
        skip_spaces();
        const auto found = word_here();
        const auto same = [](char a, char b) { return a == b || (a >= 'A' && a <= 'Z' && a - 'A' + 'a' == b); };
        if (!std::equal(found.begin(), found.end(), expected.begin(), expected.end(), same)) return false;
        at_ += found.size();
        return true;
    }

    // ---- expressions

    [[nodiscard]] Node disjunction() {
        return chain(Node::What::any, "or", [&] { return conjunction(); });
    }
    [[nodiscard]] Node conjunction() {
        return chain(Node::What::all, "and", [&] { return negation(); });
    }
    template <class Part>
    [[nodiscard]] Node chain(Node::What what, std::string_view word, const Part& part) {
        std::vector<Node> parts;
        do parts.push_back(part());
        while (keyword(word));
        if (parts.size() == 1) return std::move(parts.front());
        return branch(what, std::move(parts));
    }
    [[nodiscard]] Node negation() {
        if (++depth_ > deepest) fail("nested deeper than " + std::to_string(deepest));
        Node node = keyword("not") ? negated() : primary();
        --depth_;
        return node;
    }
    [[nodiscard]] Node negated() {
        std::vector<Node> parts;
        parts.push_back(negation());
        return branch(Node::What::negation, std::move(parts));
    }
    [[nodiscard]] Node primary() {
        if (take("(")) {
            Node node = disjunction();
            if (!take(")")) fail("expected 'and', 'or' or ')'");
            return node;
        }
        auto comparison = std::make_unique<Comparison>();
        if (keyword("exists")) {
            skip_spaces();
            const auto start = at_;
            field(*comparison);
            if (!is_json(comparison->field)) fail("every message has one: expected payload or metadata", start);
            comparison->how = Operator::exists;
        } else {
            field(*comparison);
            operation(*comparison);
        }
        Node node;
        node.json = is_json(comparison->field);
        node.comparison = std::move(comparison);
        return node;
    }

    // ---- fields

    void field(Comparison& comparison) {
        skip_spaces();
        const auto start = at_;
        const auto name = word_here();
        const auto* found = std::find_if(field_names.begin(), field_names.end(),
                                         [&](const FieldName& known) { return known.name == name; });
        if (found == field_names.end()) unknown_field(name, start);
        comparison.field = found->field;
        at_ += name.size();
        if (is_json(found->field)) comparison.path = path();
    }
    [[noreturn]] void unknown_field(std::string_view name, std::size_t start) const {
        std::string list;
        for (const auto& known : field_names) {
            list += (list.empty() ? "" : ", ") + std::string(known.name) + (is_json(known.field) ? ".NAME" : "");
        }
        fail((name.empty() ? "expected a field: " : "there is no field '" + std::string(name) + "': expected ") + list,
             start);
    }
    [[nodiscard]] std::vector<Step> path() {
        std::vector<Step> steps;
        while (true) {
            if (next_is('.')) {
                ++at_;
                const auto name = word_here();
                if (name.empty()) fail("expected a name behind the point; others are written [\"a name\"]");
                steps.push_back({Step::What::name, std::string(name), 0});
                at_ += name.size();
            } else if (next_is('[')) {
                ++at_;
                steps.push_back(subscript());
            } else {
                return steps;
            }
        }
    }
    [[nodiscard]] Step subscript() {
        constexpr auto expected = "expected a number from 0, * or a name in quotes";
        Step step;
        skip_spaces();
        if (next_is('\'') || next_is('"')) {
            step.name = string();
        } else if (take("*")) {
            step.what = Step::What::any_element;
        } else {
            step.what = Step::What::element;
            const auto [end, error] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), step.index);
            if (error != std::errc{}) fail(expected);
            at_ = static_cast<std::size_t>(end - text_.data());
        }
        if (!take("]")) fail("expected ']'");
        return step;
    }

    // ---- operators and values

    void operation(Comparison& comparison) {
        skip_spaces();
        const auto start = at_;
        comparison.how = read_operator();
        if (comparison.how == Operator::in) {
            if (!take("(")) fail("expected '(' and values");
            do comparison.values.push_back(value());
            while (take(","));
            if (!take(")")) fail("expected ',' or ')'");
        } else {
            comparison.values.push_back(value());
        }
        check(comparison, start);
    }
    [[nodiscard]] Operator read_operator() {
        constexpr std::array<std::pair<std::string_view, Operator>, 8> operators{{
            {"==", Operator::equal}, {"=", Operator::equal}, {"!=", Operator::unequal}, {"<=", Operator::at_most},
            {"<", Operator::less}, {">=", Operator::at_least}, {">", Operator::greater}, {"~", Operator::contains},
        }};
        for (const auto& [token, how] : operators) {
            if (take(token)) return how;
        }
        if (keyword("in")) return Operator::in;
        fail("expected " + std::string(an_operator));
    }
    [[nodiscard]] Literal value() {
        skip_spaces();
        Literal literal;
        literal.at = at_;
        if (next_is('\'') || next_is('"')) {
            literal.shape = Shape::text;
            literal.text = string();
            return literal;
        }
        if (keyword("null")) return literal;
        if (keyword("true") || keyword("false")) {
            literal.shape = Shape::boolean;
            literal.flag = text_[literal.at] == 't' || text_[literal.at] == 'T';
            return literal;
        }
        if (at_ < text_.size() && (is_digit(text_[at_]) || text_[at_] == '-')) {
            literal.shape = Shape::number;
            literal.text = number();
            literal.integer = small_integer(literal.text);
            literal.exact = decimal(literal.text);
            return literal;
        }
        const auto word = word_here();
        fail("expected " + std::string(a_value) + (word.empty() ? "" : "; is it '" + std::string(word) + "'?"));
    }
    [[nodiscard]] std::string number() {
        const auto start = at_;
        const auto digits = [&] {
            const auto first = at_;
            while (at_ < text_.size() && is_digit(text_[at_])) ++at_;
            if (at_ == first) fail("expected a digit");
        };
        if (next_is('-')) ++at_;
        digits();
        if (next_is('.')) {
            ++at_;
            digits();
        }
        if (next_is('e') || next_is('E')) {
            ++at_;
            if (next_is('-') || next_is('+')) ++at_;
            digits();
        }
        if (at_ < text_.size() && (is_word(text_[at_]) || text_[at_] == '.')) fail("expected the end of the number");
        return std::string(text_.substr(start, at_ - start));
    }

    // ---- strings

    [[nodiscard]] std::string string() {
        const auto start = at_;
        const char quote = text_[at_++];
        std::string result;
        while (at_ < text_.size() && text_[at_] != quote) {
            if (text_[at_] == '\\') escape(result);
            else result += text_[at_++];
        }
        if (at_ == text_.size()) fail("this string does not end: expected " + std::string(1, quote), start);
        ++at_;
        return result;
    }
    void escape(std::string& result) {
        constexpr std::string_view letters = "\\'\"/nrtbf";
        constexpr std::string_view meanings = "\\'\"/\n\r\t\b\f";
        const auto start = at_++;
        const char letter = at_ < text_.size() ? text_[at_] : '\0';
        if (letter == 'u') {
            ++at_;
            append_utf8(result, code_point(start));
            return;
        }
        const auto found = letters.find(letter);
        if (found == std::string_view::npos) {
            fail("expected one of the escapes \\\\ \\' \\\" \\/ \\n \\r \\t \\b \\f \\u0041", start);
        }
        result += meanings[found];
        ++at_;
    }
    [[nodiscard]] std::uint32_t code_point(std::size_t start) {
        const std::uint32_t first = four_digits(start);
        if (first < 0xd800 || first > 0xdfff) return first;
        if (first < 0xdc00 && text_.substr(at_).starts_with("\\u")) {
            at_ += 2;
            const std::uint32_t second = four_digits(start);
            if (second >= 0xdc00 && second <= 0xdfff) return 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        }
        fail("half of a surrogate pair is no character", start);
    }
    [[nodiscard]] std::uint32_t four_digits(std::size_t start) {
        std::uint32_t value = 0;
        const auto digits = text_.substr(at_, 4);
        const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
        const bool four = error == std::errc{} && end == digits.data() + 4;
        if (!four) fail("expected four hexadecimal digits behind \\u", start);
        at_ += 4;
        return value;
    }
    static void append_utf8(std::string& result, std::uint32_t code) {
        const auto add = [&](std::uint32_t byte) { result += static_cast<char>(byte); };
        if (code < 0x80) return add(code);
        if (code < 0x800) {
            add(0xc0 | code >> 6);
        } else if (code < 0x10000) {
            add(0xe0 | code >> 12);
            add(0x80 | (code >> 6 & 0x3f));
        } else {
            add(0xf0 | code >> 18);
            add(0x80 | (code >> 12 & 0x3f));
            add(0x80 | (code >> 6 & 0x3f));
        }
        add(0x80 | (code & 0x3f));
    }

    // ---- do field, operator and values go together?

    void check(Comparison& comparison, std::size_t at) const {
        const auto field = comparison.field;
        const bool ordered = comparison.how != Operator::equal && comparison.how != Operator::unequal &&
                             comparison.how != Operator::in && comparison.how != Operator::contains;
        if (comparison.how == Operator::contains && (is_number(field) || is_time(field) || field == Field::kind)) {
            fail("~ looks for a part of a text: this is none", at);
        }
        if (field == Field::kind && ordered) fail("kinds have no order: expected = != in", at);
        for (auto& value : comparison.values) {
            if (is_json(field)) check_json(comparison.how, ordered, value);
            else if (is_number(field)) require(value.shape == Shape::number, "expected a number", value);
            else if (is_time(field)) require(value.shape == Shape::text, "expected a time in quotes", value);
            else require(value.shape == Shape::text, "expected a string in quotes", value);
            if (field == Field::kind) {
                require(value.text == "command" || value.text == "event", "expected 'command' or 'event'", value);
            }
            if (is_time(field)) value.integer = time(value);
            if (is_id(field)) normal_id(value, ordered || comparison.how == Operator::contains);
        }
    }
    void require(bool condition, const char* what, const Literal& value) const {
        if (!condition) fail(what, value.at);
    }
    void check_json(Operator how, bool ordered, const Literal& value) const {
        if (how == Operator::contains) require(value.shape == Shape::text, "expected a string in quotes", value);
        if (ordered) {
            require(value.shape == Shape::text || value.shape == Shape::number,
                    "true, false and null have no order: expected a string in quotes or a number", value);
        }
    }
    [[nodiscard]] std::int64_t time(const Literal& value) const {
        try {
            return parse_time(value.text, now_).time_since_epoch().count();
        } catch (const Invalid& error) {
            fail(error.what(), value.at);
        }
    }
    /// Ids are written in lower case; whole ones unless a part is enough.
    void normal_id(Literal& value, bool part) const {
        for (char& c : value.text) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
        if (part) return;
        try {
            value.text = Id::parse(value.text).to_string();
        } catch (const Invalid& error) {
            fail(std::string(error.what()) + "; a part of an id is found with ~", value.at);
        }
    }

    std::string_view text_;
    Time now_;
    std::size_t at_ = 0;
    int depth_ = 0;
};

constexpr std::string_view grammar_text = R"grammar(EXPR is true or false of a message:

    expr       = and-expr { "or" and-expr } ;
    and-expr   = not-expr { "and" not-expr } ;
    not-expr   = "not" not-expr | "(" expr ")" | "exists" json | comparison ;
    comparison = field operator value | field "in" "(" value { "," value } ")" ;
    operator   = "=" | "==" | "!=" | "<" | "<=" | ">" | ">=" | "~" ;
    field      = "id" | "stream" | "seq" | "position" | "type" | "kind" | "schema" | "causation"
               | "correlation" | "recorded_at" | "occurred_at" | json ;
    json       = ( "payload" | "metadata" ) { "." name | "[" index "]" | "[*]" | "[" string "]" } ;
    value      = string | number | "true" | "false" | "null" ;
    string     = "'" { character | escape } "'" | '"' { character | escape } '"' ;
    escape     = "\" ( "\" | "'" | '"' | "/" | "n" | "r" | "t" | "b" | "f" | "u" 4 * hex-digit ) ;
    number     = [ "-" ] digits [ "." digits ] [ "e" [ "+" | "-" ] digits ] ;
    name       = letters, digits, _ and - ;

  "and" binds before "or"; keywords may be in upper case. ~ means "contains", in the same case.
  [*] is any element: payload.items[*].price > 10 is true if one of them is.
  A comparison with a field that is not there is false, also with !=; "not" makes that true.
  Values of different kinds are unequal and have no order: "12" is not 12.
  Texts are ordered by their bytes, numbers exactly as they are written, without rounding.
  What was erased, or is no JSON, has no fields.
  recorded_at and occurred_at are compared with times in quotes: '2026-05-17', '-2h', 'today'.

Examples:

    payload.price > 10 and (type = 'cart.item_added' or metadata.user_id = 7)
    kind = 'command' and recorded_at >= '-2h' and stream ~ 'cart'
    payload.items[*].product_id in ('p1', 'p2') and not exists payload.discount
    payload["unit price"] != null and payload.items[0].price <= 0.5
)grammar";

}  // namespace

// ---- Where ---------------------------------------------------------------------

class Where::Program {
public:
    explicit Program(Node root) : root_(std::move(root)) { connect(root_); }

    [[nodiscard]] bool run(const Message& message) {
        payload_read_ = false;
        metadata_read_ = false;
        return holds(root_, message);
    }

private:
    void connect(Node& node) {
        for (auto& part : node.parts) connect(part);
        if (!node.comparison || !is_json(node.comparison->field)) return;
        node.target = search_of(node.comparison->field).add(*node.comparison);
    }
    [[nodiscard]] Search& search_of(Field field) noexcept { return field == Field::payload ? payload_ : metadata_; }

    [[nodiscard]] bool holds(const Node& node, const Message& message) {
        const auto part_holds = [&](const Node& part) { return holds(part, message); };
        switch (node.what) {
            case Node::What::all: return std::all_of(node.parts.begin(), node.parts.end(), part_holds);
            case Node::What::any: return std::any_of(node.parts.begin(), node.parts.end(), part_holds);
            case Node::What::negation: return !part_holds(node.parts.front());
            case Node::What::comparison: break;
        }
        return node.json ? holds_in_json(node, message) : holds_in_envelope(*node.comparison, message);
    }
    [[nodiscard]] bool holds_in_json(const Node& node, const Message& message) {
        const auto field = node.comparison->field;
        auto& search = search_of(field);
        bool& read = field == Field::payload ? payload_read_ : metadata_read_;
        if (!read) search.run((field == Field::payload ? message.payload : message.metadata.json()).c_str());
        read = true;
        return search.hit(node.target);
    }
    [[nodiscard]] static bool holds_in_envelope(const Comparison& comparison, const Message& message) {
        const auto text = [&](std::string_view found) {
            return comparison.accepts_found({Shape::text, false, found});
        };
        const auto number = [&](std::int64_t found) {
            return comparison.accepts_any([&](const Literal& value) -> std::optional<int> {
                if (value.integer) return order_of(found, *value.integer);
                return compare(decimal(std::to_string(found)), value.exact);
            });
        };
        const auto time = [&](Time found) { return number(found.time_since_epoch().count()); };
        switch (comparison.field) {
            case Field::id: return text(message.id.to_string());
            case Field::stream: return text(message.stream);
            case Field::seq: return number(message.seq);
            case Field::position: return number(message.position);
            case Field::type: return text(message.type);
            case Field::kind: return text(message.kind == Kind::command ? "command" : "event");
            case Field::schema: return number(message.schema);
            case Field::causation: return text(message.causation.to_string());
            case Field::correlation: return text(message.correlation.to_string());
            case Field::recorded_at: return time(message.recorded_at);
            case Field::occurred_at:
                return time(message.occurred_at == Time() ? message.recorded_at : message.occurred_at);
            case Field::payload:
            case Field::metadata: break;
        }
        return false;
    }

    Node root_;
    Search payload_;
    Search metadata_;
    bool payload_read_ = false;
    bool metadata_read_ = false;
};

Where Where::parse(std::string_view text) {
    return parse(text, std::chrono::floor<Duration>(std::chrono::system_clock::now()));
}
Where Where::parse(std::string_view text, Time now) {
    return Where(std::make_unique<Program>(Parser(text, now).parse()));
}
std::string_view Where::grammar() noexcept { return grammar_text; }

Where::Where(std::unique_ptr<Program> program) noexcept : program_(std::move(program)) {}
Where::Where(Where&&) noexcept = default;
Where& Where::operator=(Where&&) noexcept = default;
Where::~Where() = default;

bool Where::operator()(const Message& message) const { return program_->run(message); }

}  // namespace sourced::inspector
