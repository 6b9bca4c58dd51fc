#include "naming.hpp"

#include <charconv>

namespace sourced::inspector {
namespace {

std::optional<std::int64_t> number_in(std::string_view text) {
    std::int64_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || end != text.data() + text.size() || number < 1) return std::nullopt;
    return number;
}

std::optional<Message> only(Messages messages) {
    if (messages.empty()) return std::nullopt;
    return std::move(messages.front());
}

[[noreturn]] void refuse_several(const std::string& name, const std::vector<Id>& ids, std::size_t shown) {
    std::string text = "'" + name + "' is the beginning of several ids:";
    for (std::size_t i = 0; i < ids.size() && i < shown; ++i) text += (i > 0 ? ", " : " ") + ids[i].to_string();
    throw Failed(Exit::usage, text + (ids.size() > shown ? ", and more" : ""));
}

std::optional<Message> by_id(Store& store, const std::string& name) {
    constexpr std::size_t shown = 5;
    const auto ids = store.ids(name, shown + 1);
    if (ids.size() > 1) refuse_several(name, ids, shown);
    return ids.empty() ? std::nullopt : store.find(ids.front());
}

/// What is said of an id that is not in the log, when it waits in the schedule.
std::string waits_text(Store& store, const std::string& name) {
    const auto id = id_of(name);
    const auto entry = id ? store.find_scheduled(*id) : std::nullopt;
    return entry ? ": it waits in the schedule until " + iso_text(entry->due_at) : "";
}

/// The pattern that fits what begins so.
std::string beginning(std::string_view text) {
    std::string pattern;
    for (const char c : text) {
        if (c == '*' || c == '?' || c == '[') pattern += {'[', c, ']'};
        else pattern += c;
    }
    return pattern + "*";
}

bool begins_id(const std::string& name) {
    std::size_t digits = 0;
    for (const char c : name) {
        const bool digit = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
        if (!digit && c != '-') return false;
        digits += digit ? 1 : 0;
    }
    return digits >= 8 && digits <= 32;
}

}  // namespace

std::optional<Id> id_of(std::string_view text) {
    try {
        return Id::parse(text);
    } catch (const Invalid&) {
        return std::nullopt;
    }
}

void no_such_stream(Context& context, std::string_view stream) {
    constexpr std::int64_t looked_at = 1000;  // the others are not worth the time
    constexpr std::size_t longest = 200;
    const std::string text = "there is no stream '" + std::string(stream) + "' in '" + context.file() + "'";
    if (stream.size() > longest) throw Failed(Exit::not_found, text);
    Store& store = context.look();
    std::vector<std::string> others;
    for (const auto& other : store.recent_streams(looked_at)) others.push_back(other.name);
    for (std::size_t cut = 0; cut <= 2 && cut < stream.size(); ++cut) {  // a slip is most often near the end
        const StreamQuery alike{.pattern = beginning(stream.substr(0, stream.size() - cut)),
                                .order = StreamQuery::Order::name,
                                .limit = 100};
        for (const auto& other : store.streams(alike)) others.push_back(other.name);
    }
    throw Failed(Exit::not_found, text + did_you_mean(stream, others));
}

std::int64_t last_seq(Context& context, std::string_view stream) {
    const auto last = context.look().stream_seq(stream);
    if (last == 0) no_such_stream(context, stream);
    return last;
}

Message message_named(Context& context, const std::string& name) {
    const auto at = name.rfind('@');
    const auto number = at == std::string::npos ? std::nullopt : number_in(std::string_view(name).substr(at + 1));
    if (!number && !begins_id(name)) {
        throw Failed(Exit::usage, "'" + name + "' names no message: give its id or 8 digits or more of its beginning, "
                                               "STREAM@SEQ, or @POSITION");
    }
    Store& store = context.look();
    std::optional<Message> message;
    std::string end;
    if (!number) {
        message = by_id(store, name);
        if (!message) end = waits_text(store, name);
    } else if (at == 0) {
        message = only(store.log({.from = *number, .to = *number}));
        end = ": its positions end at " + std::to_string(store.head());
    } else {
        const auto stream = name.substr(0, at);
        end = ": the seqs of that stream end at " + std::to_string(last_seq(context, stream));
        message = only(store.stream(stream, {.from = *number, .to = *number}));
    }
    if (!message) throw Failed(Exit::not_found, "there is no message '" + name + "' in '" + context.file() + "'" + end);
    return *std::move(message);
}

}  // namespace sourced::inspector
