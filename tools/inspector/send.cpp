// The types of messages, and sending one of them.
#include "application.hpp"
#include "times.hpp"

#include <rapidjson/document.h>

#include <iostream>
#include <iterator>

namespace sourced::inspector {
namespace {

std::string_view kind_name(Kind kind) { return kind == Kind::command ? "command" : "event"; }

// ---- schema -----------------------------------------------------------------------

struct Field {
    std::string name;
    std::string type;
    bool required = false;
};

std::string text_of(const rapidjson::Value& value) { return {value.GetString(), value.GetStringLength()}; }

/// What a field holds, in a word.
std::string type_of(const rapidjson::Value& schema) {
    if (!schema.IsObject()) return "any";
    if (schema.HasMember("enum")) return "enum";
    if (schema.HasMember("oneOf")) return "variant";
    if (const auto any = schema.FindMember("anyOf"); any != schema.MemberEnd() && any->value.IsArray()) {
        std::string all;
        for (const auto& each : any->value.GetArray()) all += (all.empty() ? "" : " or ") + type_of(each);
        return all;
    }
    const auto type = schema.FindMember("type");
    if (type == schema.MemberEnd() || !type->value.IsString()) return "any";
    const auto format = schema.FindMember("format");
    if (format != schema.MemberEnd() && format->value.IsString()) return text_of(format->value);
    if (text_of(type->value) != "array") return text_of(type->value);
    const auto items = schema.FindMember("items");
    return items == schema.MemberEnd() ? "array" : "array of " + type_of(items->value);
}

std::vector<Field> fields_of(const TypeInfo& info) {
    rapidjson::Document document;
    document.Parse(info.json_schema().c_str());
    const rapidjson::Value& schema = document;
    std::vector<Field> fields;
    if (!schema.IsObject() || !schema.HasMember("properties")) return fields;
    for (const auto& member : schema["properties"].GetObject()) {
        fields.push_back({text_of(member.name), type_of(member.value), false});
    }
    if (!schema.HasMember("required")) return fields;
    for (const auto& name : schema["required"].GetArray()) {
        for (auto& field : fields) field.required |= field.name == text_of(name);
    }
    return fields;
}

struct SchemaOptions {
    std::string type;
};

void write_type(Json& json, const TypeInfo& info) {
    json.begin().field("type", info.name).field("kind", kind_name(info.kind)).field("schema", info.schema);
    json.key("aliases").begin_array();
    for (const auto& alias : info.aliases) json.value(alias);
    json.end_array().key("fields").begin_array();
    for (const auto& field : fields_of(info)) {
        json.begin().field("name", field.name).field("type", field.type).field("required", field.required).end();
    }
    json.end_array().end();
}

Exit list_types(Output& out, const Application& application) {
    Table table({{"type"}, {"kind"}, {"schema", Table::right}, {"fields"}});
    for (const auto* info : application.registry().types()) {
        if (!out.text()) {
            Json json;
            write_type(json, *info);
            out.record(json.text());
            continue;
        }
        std::string fields;
        for (const auto& field : fields_of(*info)) fields += (fields.empty() ? "" : ", ") + field.name;
        table.row({printable(info->name), std::string(kind_name(info->kind)), std::to_string(info->schema),
                   printable(fields)});
    }
    if (out.text()) table.print(out);
    else out.end_records();
    return Exit::ok;
}

Exit show_schema(Context& context, const SchemaOptions& options) {
    const Application application(context);
    Output& out = context.out();
    if (options.type.empty()) return list_types(out, application);
    const std::string schema = application.type(options.type).json_schema();
    if (!out.text()) out.object(schema);
    else for (const auto& line : pretty(schema)) out.line(printable(line));
    return Exit::ok;
}

// ---- send -------------------------------------------------------------------------

struct SendOptions {
    std::string type;
    std::string stream;
    std::string json;
    std::string metadata;
    std::string at;
    std::string in;
    bool dry_run = false;
};

std::string payload_of(const SendOptions& options) {
    if (options.json != "-") return options.json;
    std::cin >> std::noskipws;
    return {std::istream_iterator<char>(std::cin), std::istream_iterator<char>()};
}

/// The message that was asked for. Throws Failed with everything that is wrong with it.
Message message_of(const Application& application, const SendOptions& options) {
    const TypeInfo& info = application.type(options.type);
    if (info.kind != Kind::command) {
        throw Failed(Exit::usage, "'" + info.name + "' is an event: it says what has happened, and comes of a command");
    }
    Problems problems;
    Message message = application.registry().revive(info.name, options.stream, {}, Kind::command);
    message.payload = info.normal(payload_of(options), {}, problems);
    for (auto& problem : problems) problem.path = "/payload" + problem.path;
    if (options.stream.find_first_not_of(" \t\r\n") == std::string::npos) problems.push_back({"/stream", "is blank"});
    try {
        if (!options.metadata.empty()) message.metadata = Metadata::parse(options.metadata);
    } catch (const Invalid& invalid) {
        problems.push_back({"/metadata", invalid.what()});
    }
    if (problems.empty()) return message;
    for (const auto& problem : problems) {
        std::cerr << "sourced: " << printable(problem.path) << ": " << printable(problem.text) << '\n';
    }
    throw Failed(Exit::usage, "'" + info.name + "' was not sent; `schema " + info.name + "` shows what it consists of");
}

std::optional<Time> due_of(const SendOptions& options, Time now) {
    if (!options.at.empty() && !options.in.empty()) throw Failed(Exit::usage, "--at and --in exclude each other");
    if (!options.at.empty()) return parse_time(options.at, now);
    if (!options.in.empty()) return now + parse_duration(options.in);
    return std::nullopt;
}

void show_sent(Output& out, const Message& message, const std::optional<Time>& due, bool dry_run) {
    if (!out.text()) {
        Json json;
        json.begin().field("id", message.id).field("stream", message.stream).field("type", message.type);
        if (message.seq > 0) json.field("seq", message.seq).field("position", message.position);
        if (due) json.field("due_at", *due);
        json.field("sent", !dry_run).key("payload").raw(message.payload).end();
        out.object(json.text());
        return;
    }
    if (!dry_run) out.line("id        " + message.id.to_string());
    out.line("stream    " + printable(message.stream));
    if (message.seq > 0) out.line("seq       " + std::to_string(message.seq));
    if (message.position > 0) out.line("position  " + std::to_string(message.position));
    if (due) out.line("due       " + out.time(*due));
    if (!dry_run) return;
    out.line("type      " + printable(message.type));
    for (const auto& line : pretty(message.payload)) out.line(printable(line));
    std::cerr << "sourced: all is well with it; it was not sent\n";
}

Exit send(Context& context, const SendOptions& options) {
    const Application application(context);
    const std::optional<Time> due = due_of(options, context.out().now);
    Message message = message_of(application, options);
    if (!options.dry_run) {
        Store& store = context.change();
        if (due) {
            store.schedule({{*due, message}});
        } else {
            const Appended appended = store.append(options.stream, {message});
            message.seq = appended.first_seq;
            message.position = appended.first_position;
        }
    }
    show_sent(context.out(), message, due, options.dry_run);
    return Exit::ok;
}

}  // namespace

void add_send(Commands& commands) {
    auto [schema, schema_options] = commands.add<SchemaOptions>(
        {"schema", "Shows the types of messages, or one as JSON Schema",
         "  sourced --app libshop.so schema                       # all types\n"
         "  sourced --app libshop.so schema customer.add_invoice  # one as JSON Schema",
         "Needs the application's types, and no file.", false},
        show_schema);
    schema.add_option("TYPE", schema_options.type, "A type's name");

    auto [command, options] = commands.add<SendOptions>(
        {"send", "Sends a command, checked against its type",
         "  sourced --app libshop.so shop.db send customer.add_invoice --stream customer-1 --json '{}' --dry-run\n"
         "  sourced --app libshop.so shop.db send customer.add_invoice --stream customer-1 --json '{}' --in 5m",
         "Needs the application's types. The payload is read strictly: unknown fields\n"
         "and broken rules are refused, all of them at once. The command is durable when\n"
         "this returns; whoever works on the file handles it."},
        send);
    command.add_option("TYPE", options.type, "The command's type")->required();
    command.add_option("--stream", options.stream, "The stream that it goes to")->required()->type_name("STREAM");
    command.add_option("--json", options.json, "The payload; - reads it from stdin")->required()->type_name("JSON");
    command.add_option("--metadata", options.metadata, "A JSON object of facts about it: who, from where")
        ->type_name("JSON");
    command.add_option("--at", options.at, "Enters the log at this time, not now")->type_name("TIME");
    command.add_option("--in", options.in, "Enters the log so long after now")->type_name("DURATION");
    command.add_flag("--dry-run", options.dry_run, "Only checks it");
}

}  // namespace sourced::inspector
