// The inspector's commands that need an application's types, and how it comes to them.
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "inspector.hpp"
#include "inspector_types.hpp"

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using inspected::Broken;
using inspected::ItemPut;
using inspected::Note;
using inspected::Put;
using support::bytes_of;
using support::golden;
using support::inspect;
using support::Program;
using support::Ran;

namespace {

using Arguments = std::vector<std::string>;

std::string library(const std::string& name) { return Program::folder() + "/libinspected" + name + ".so"; }

/// Where the engine is inside of the programs, there is nothing to load.
bool loads() { return fs::exists(library("")); }

Ran linked(const Arguments& arguments, const std::string& path = {}, const std::string& in = {}) {
    Program program(arguments, {"INSPECTED_PATH=" + path}, "inspected");
    program.tell(in);
    return program.end();
}
/// `sourced --app LIBRARY arguments...`
Ran with_types(Arguments arguments, const std::string& in = {}) {
    if (!loads()) return linked(arguments, {}, in);
    arguments.insert(arguments.begin(), {"--app", library("")});
    return inspect(arguments, in);
}

/// A file in which a second passes between one thing that happens and the next.
class Shop {
public:
    Shop() : app_({.path = file(), .clock = [this] { return now_; }, .seed = 7}) {}

    [[nodiscard]] sourced::App& app() { return app_; }
    [[nodiscard]] std::string file() const { return directory_.file("shop.db"); }
    void append(const std::string& stream, const sourced::Messages& messages) {
        for (const auto& message : messages) {
            app_.store().append(stream, {message});
            now_ += 1s;
        }
    }
    /// Five commands, four of them with an event and one refused.
    void fill_cart() {
        inspected::add_all(app_);
        for (const char* item : {"tea", "salt", "tea", "jam", "oil"}) {
            app_.handle<inspected::Carts>("cart-1", Put{item, 2});
            now_ += 1s;
        }
    }

private:
    support::TemporaryDirectory directory_;
    sourced::Time now_{sourced::Duration(1'779'000'000'000'000)};
    sourced::App app_;
};

bool says(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

// ---- state ------------------------------------------------------------------------

TEST_CASE("state: it is what the App itself loads, at any seq, and nothing is written") {
    Shop shop;
    shop.append("cart-1", {ItemPut{"tea", 2}, ItemPut{"salt", 1}, ItemPut{"tea", 1}});
    const std::string before = bytes_of(shop.file());
    const std::string log = bytes_of(shop.file() + "-wal");
    for (const std::int64_t seq : {0, 1, 2, 3}) {
        const auto ran = with_types({shop.file(), "state", "cart-1", "--actor", "cart", "--at", std::to_string(seq),
                                     "-o", "json"});
        CHECK(ran.status == 0);
        CHECK(ran.err.empty());
        sourced::App app;
        app.add<inspected::Carts>();
        app.store().append("cart-1", shop.app().history("cart-1", {.to = seq}));
        CHECK(says(ran.out, "\"state\":" + sourced::encode(app.load<inspected::Carts>("cart-1").state) + "}"));
    }
    // The file has never met the application's groups, and does not meet them now.
    CHECK(bytes_of(shop.file()) == before);
    CHECK(bytes_of(shop.file() + "-wal") == log);
    CHECK(shop.app().stats().groups.empty());
}

TEST_CASE("state: for people it is JSON over several lines, with where and when") {
    Shop shop;
    shop.fill_cart();
    const auto now = with_types({shop.file(), "state", "cart-1", "--actor", "cart"});
    CHECK(now.status == 0);
    CHECK(now.out == golden("state.txt", now.out));
    const auto history = with_types({shop.file(), "state", "cart-1", "--actor", "pieces"});
    CHECK(says(history.out, "\n8\n"));
}

TEST_CASE("state: as of a time it holds what was recorded up to then") {
    Shop shop;
    shop.append("cart-1", {ItemPut{"tea", 2}, ItemPut{"salt", 1}, ItemPut{"tea", 1}});
    const auto second = shop.app().history("cart-1")[1].recorded_at;
    const auto at = [&](sourced::Time time) {
        const auto micros = std::to_string(time.time_since_epoch().count());
        const std::string point = "@" + micros.substr(0, micros.size() - 6) + "." + micros.substr(micros.size() - 6);
        return with_types({shop.file(), "state", "cart-1", "--actor", "pieces", "-o", "json", "--at", point}).out;
    };
    CHECK(says(at(second), "\"seq\":2"));
    CHECK(says(at(second), "\"state\":3"));
    CHECK(says(at(second - 1us), "\"state\":2"));
    CHECK(says(at(second - 1h), R"("seq":0,"state":0)"));
}

TEST_CASE("state: two points are compared path by path") {
    Shop shop;
    shop.append("cart-1", {ItemPut{"tea", 2}, ItemPut{"a/b~", 1}, ItemPut{"tea", 1}});
    const auto text = with_types({shop.file(), "state", "cart-1", "--actor", "cart", "--diff", "1", "3"});
    CHECK(text.out == golden("state_diff.txt", text.out));
    const auto json = with_types({shop.file(), "state", "cart-1", "--actor", "cart", "--diff", "1", "3", "-o", "json"});
    CHECK(says(json.out, R"("changes":[{"path":"/items/tea/pieces","old":2,"new":3},)"
                         R"({"path":"/items/a~1b~0","new":{"pieces":1}},{"path":"/order/1","new":"a/b~"},)"
                         R"({"path":"/changes","old":1,"new":3}]})"));
    const auto back = with_types({shop.file(), "state", "cart-1", "--actor", "pieces", "--diff", "3", "1"});
    CHECK(says(back.out, "(all of it)  4 -> 2\n"));
    const auto same = with_types({shop.file(), "state", "cart-1", "--actor", "pieces", "--diff", "3", "3"});
    CHECK(says(same.out, "nothing changed"));
}

TEST_CASE("state: step by step every message stands with what it changed") {
    Shop shop;
    shop.fill_cart();
    const auto text = with_types({shop.file(), "state", "cart-1", "--actor", "cart", "--steps"});
    CHECK(text.status == 0);
    CHECK(text.out == golden("state_steps.txt", text.out));
    const auto json =
        with_types({shop.file(), "state", "cart-1", "--actor", "pieces", "--steps", "--at", "2", "-o", "jsonl"});
    CHECK(says(json.out, "{\"seq\":0,\"state\":0}\n"));
    CHECK(says(json.out, R"("changes":[{"path":"","old":0,"new":2}]})"));
    CHECK(std::count(json.out.begin(), json.out.end(), '\n') == 3);
}

TEST_CASE("state: what the group has skipped is passed over, as the engine does") {
    Shop shop;
    inspected::add_all(shop.app());
    shop.append("cart-1", {ItemPut{"tea", 2}, Broken{}, ItemPut{"salt", 1}});
    const auto broken = with_types({shop.file(), "state", "cart-1", "--actor", "cart"});
    CHECK(broken.status == 1);
    CHECK(broken.err == "sourced: 'cart' cannot be folded with the message at seq 2 of 'cart-1': it is broken "
                        "(--at 1 shows the state before it)\n");
    const auto half = with_types({shop.file(), "state", "cart-1", "--actor", "cart", "--steps", "-o", "json"});
    CHECK(half.status == 1);
    CHECK(says(half.out, "\"seq\":1,"));
    CHECK(half.out.ends_with("\n]\n"));
    shop.append("cart-1", {Put{"oil", 1}});
    shop.app().run_until_idle();
    CHECK(shop.app().skip_message("cart", "cart-1", "known to be bad").position == 2);
    const auto passed = with_types({shop.file(), "state", "cart-1", "--actor", "cart", "--at", "3", "-o", "json"});
    CHECK(says(passed.out, R"("order":["tea","salt"])"));
    const auto steps = with_types({shop.file(), "state", "cart-1", "--actor", "cart", "--steps", "--at", "3"});
    CHECK(says(steps.out, "the group skipped it: known to be bad"));
}

TEST_CASE("state: an event that cannot be read is told with its position") {
    Shop shop;
    shop.append("other", {ItemPut{"tea", 1}});
    auto bad = sourced::Message(ItemPut{"tea", 2});
    bad.payload = R"({"item":7})";
    shop.append("cart-1", {ItemPut{"tea", 2}, bad});
    const auto ran = with_types({shop.file(), "state", "cart-1", "--actor", "cart"});
    CHECK(ran.status == 1);
    CHECK(says(ran.err, "seq 2 (position 3)"));
    CHECK(says(ran.err, "/item"));
}

TEST_CASE("state: the actor need not be named where only one folds what stands in the stream") {
    Shop shop;
    shop.append("cart-1", {ItemPut{"tea", 2}});
    shop.append("notes-1", {Note{}});
    const auto several = with_types({shop.file(), "state", "cart-1"});
    CHECK(several.status == 2);
    CHECK(several.err == "sourced: several fold streams like 'cart-1': say --actor, one of 'cart', 'pieces'\n");
    CHECK(says(with_types({shop.file(), "state", "notes-1"}).err, "the state of 'notes' has no JSON"));
    shop.append("strange", {support::message(sourced::Kind::event, "nobody.knows")});
    const auto none = with_types({shop.file(), "state", "strange"});
    CHECK(none.status == 4);
    CHECK(says(none.err, "no actor of this application knows a type that stands in 'strange'"));
    // One that knows none of them has its blank state, as with App::load, and that is said.
    const auto blank = with_types({shop.file(), "state", "notes-1", "--actor", "pieces", "-o", "json"});
    CHECK(blank.status == 0);
    CHECK(says(blank.out, "\"state\":0"));
    CHECK(blank.err == "sourced: 'pieces' handles none of the types that stand in 'notes-1': its state there is "
                       "blank\n");
}

TEST_CASE("state: what cannot be shown says what to do") {
    Shop shop;
    shop.append("cart-1", {ItemPut{"tea", 2}});
    const auto state = [&](const Arguments& more) {
        Arguments all{shop.file(), "state"};
        all.insert(all.end(), more.begin(), more.end());
        return with_types(all);
    };
    const auto opaque = state({"cart-1", "--actor", "notes"});
    CHECK(opaque.status == 1);
    CHECK(opaque.err == "sourced: the state of 'notes' has no JSON: give inspected::Opaque a line "
                        "SOURCED_VALUE(fields...) that names all its fields\n");
    const auto totals = state({"cart-1", "--actor", "totals"});
    CHECK(totals.status == 2);
    CHECK(says(totals.err, "select state from \\\"projection_totals\\\" where id = '...'"));
    CHECK(says(state({"cart-1", "--actor", "rows"}).err, "its rows stand in tables of its own"));
    CHECK(says(state({"cart-1", "--actor", "mailer"}).err, "'mailer' is a handler or a workflow"));
    const auto unknown = state({"cart-1", "--actor", "carts"});
    CHECK(unknown.status == 4);
    CHECK(says(unknown.err, "there is no reactor 'carts' in this application"));
    CHECK(says(unknown.err, "Did you mean 'cart'?"));
    const auto missing = state({"cart-2"});
    CHECK(missing.status == 4);
    CHECK(missing.err == "sourced: there is no stream 'cart-2' in '" + shop.file() + "'. Did you mean 'cart-1'?\n");
    const auto beyond = state({"cart-1", "--actor", "cart", "--at", "2"});
    CHECK(beyond.status == 4);
    CHECK(beyond.err == "sourced: there is no seq 2 in 'cart-1': its last is 1\n");
    CHECK(says(state({"cart-1", "--actor", "cart", "--at", "soon"}).err, "'soon'"));
    CHECK(state({"cart-1", "--actor", "cart", "--at", "1", "--diff", "0", "1"}).status == 2);
    CHECK(state({"cart-1", "--actor", "cart", "--steps", "--diff", "0", "1"}).status == 2);
    const support::TemporaryDirectory empty;
    CHECK(with_types({empty.file("missing.db"), "state", "cart-1"}).status == 1);
    CHECK(fs::is_empty(empty.path()));
}

TEST_CASE("state: nothing of a hostile stream or payload reaches the terminal raw") {
    Shop shop;
    const std::string stream = "cart\x1b[2J\n";
    shop.append(stream, {ItemPut{"\x1b]0;x\x07\xe2\x80\xae", 2}, ItemPut{"b", 1}});
    for (const Arguments& more : {Arguments{}, Arguments{"--diff", "0", "1"}, Arguments{"--steps"}}) {
        Arguments all{shop.file(), "state", stream, "--actor", "cart"};
        all.insert(all.end(), more.begin(), more.end());
        const auto ran = with_types(all);
        CHECK(ran.status == 0);
        CHECK_FALSE(says(ran.out, "\x1b"));
        CHECK_FALSE(says(ran.out, "\x07"));
        CHECK_FALSE(says(ran.out, "\xe2\x80\xae"));
    }
}

// ---- schema -------------------------------------------------------------------------

TEST_CASE("schema: it lists the types with their fields, and shows one as JSON Schema; no file is needed") {
    const auto list = with_types({"schema"});
    CHECK(list.status == 0);
    CHECK(list.out == golden("schema.txt", list.out));
    const auto json = with_types({"schema", "-o", "jsonl"});
    CHECK(says(json.out, R"({"type":"cart.put","kind":"command","schema":1,"aliases":[],"fields":[)"
                         R"({"name":"item","type":"string","required":true},)"
                         R"({"name":"count","type":"integer","required":false}]})") );
    const auto one = with_types({"schema", "cart.put"});
    CHECK(one.out == golden("schema_put.txt", one.out));
    CHECK(with_types({"schema", "cart.put", "-o", "json"}).out == sourced::json_schema<Put>() + "\n");
    const auto unknown = with_types({"schema", "cart.putt"});
    CHECK(unknown.status == 4);
    CHECK(unknown.err == "sourced: there is no type 'cart.putt' in this application; `schema` lists its types. Did you "
                         "mean 'cart.put'?\n");
}

// ---- send -----------------------------------------------------------------------------

TEST_CASE("send: the command is in the log as the type writes it, and nothing else is changed") {
    Shop shop;
    const auto ran = with_types({shop.file(), "send", "cart.put", "--stream", "cart-1", "--json",
                                 R"({"item":"tea","count":"2"})", "--metadata", R"({"user":"joe"})", "-o", "json"});
    CHECK(ran.status == 0);
    const auto stored = shop.app().history("cart-1");
    REQUIRE(stored.size() == 1);
    CHECK(stored[0].payload == R"({"item":"tea","count":2})");
    CHECK(stored[0].metadata.get("user") == "joe");
    CHECK(stored[0].causation == stored[0].id);
    CHECK(ran.out == R"({"id":")" + stored[0].id.to_string() +
                         R"(","stream":"cart-1","type":"cart.put","seq":1,"position":1,"sent":true,)"
                         R"("payload":{"item":"tea","count":2}})" + "\n");
    CHECK(shop.app().stats().groups.empty());
    const auto text = with_types({shop.file(), "send", "cart.put", "--stream", "cart-1", "--json", "-"},
                                 "{\"item\": \"a b\"}\n");
    CHECK(text.status == 0);
    CHECK(says(text.out, "stream    cart-1\nseq       2\nposition  2\n"));
    CHECK(shop.app().history("cart-1").back().as<Put>().item == "a b");
}

TEST_CASE("send: for later it waits in the schedule") {
    Shop shop;
    const auto at = with_types({shop.file(), "send", "cart.put", "--stream", "cart-1", "--json", R"({"item":"tea"})",
                                "--at", "2100-01-01T00:00:00Z", "-o", "json"});
    CHECK(at.status == 0);
    CHECK(says(at.out, R"("due_at":"2100-01-01T00:00:00Z")"));
    const auto in = with_types({shop.file(), "send", "cart.put", "--stream", "cart-1", "--json", R"({"item":"oil"})",
                                "--in", "5m"});
    CHECK(in.status == 0);
    const auto waiting = shop.app().scheduled();
    REQUIRE(waiting.size() == 2);
    CHECK(waiting[0].message.as<Put>().item == "oil");
    CHECK(says(at.out, waiting[1].message.id.to_string()));
    CHECK(shop.app().history("cart-1").empty());
    CHECK(with_types({shop.file(), "send", "cart.put", "--stream", "a", "--json", R"({"item":"oil"})", "--in", "5m",
                      "--at", "now"})
              .status == 2);
}

TEST_CASE("send: everything that is wrong is told at once, and nothing is sent") {
    Shop shop;
    const auto ran = with_types({shop.file(), "send", "cart.put", "--stream", " ", "--json",
                                 R"({"item":"","count":0,"colour":"red"})", "--metadata", "[1]"});
    CHECK(ran.status == 2);
    CHECK(ran.out.empty());
    for (const char* part : {"/payload/item: ", "/payload/count: ", "/payload/colour: ", "/stream: is blank",
                             "/metadata: "}) {
        CHECK(says(ran.err, part));
    }
    CHECK(says(ran.err, "'cart.put' was not sent; `schema cart.put` shows what it consists of"));
    const auto no_json = with_types({shop.file(), "send", "cart.put", "--stream", "cart-1", "--json", "{"});
    CHECK(no_json.status == 2);
    CHECK(says(no_json.err, "/payload: "));
    const auto unknown = with_types({shop.file(), "send", "cart.pu", "--stream", "cart-1", "--json", "{}"});
    CHECK(unknown.status == 4);
    CHECK(says(unknown.err, "Did you mean 'cart.put'?"));
    const auto event = with_types({shop.file(), "send", "cart.item_put", "--stream", "cart-1", "--json", "{}"});
    CHECK(event.status == 2);
    CHECK(says(event.err, "'cart.item_put' is an event"));
    const auto dry = with_types({shop.file(), "send", "cart.put", "--stream", "cart-1", "--json",
                                 R"({"item":"tea"})", "--dry-run", "-o", "json"});
    CHECK(dry.status == 0);
    CHECK(says(dry.out, R"("sent":false)"));
    CHECK(shop.app().stats().messages == 0);
    CHECK(shop.app().stats().scheduled == 0);
    const support::TemporaryDirectory empty;
    CHECK(with_types({empty.file("missing.db"), "send", "cart.put", "--stream", "a", "--json", R"({"item":"tea"})"})
              .status == 1);
    CHECK(fs::is_empty(empty.path()));
}

// ---- Where the types come from ----------------------------------------------------------

TEST_CASE("--app: a command that needs types names both ways to them") {
    const auto ran = inspect({"shop.db", "state", "cart-1"});
    CHECK(ran.status == 2);
    CHECK(ran.err == "sourced: this needs the types of an application. Load them: sourced --app libshop.so shop.db "
                     "..., or link the inspector into the application: return sourced::inspect(app, argc, argv);\n");
}

TEST_CASE("--app: a program that has the engine inside does not load another one") {
    if (loads()) return;
    const auto ran = inspect({"--app", "libany.so", "schema"});
    CHECK(ran.status == 1);
    CHECK(ran.err == "sourced: load 'libany.so': this program has the engine inside itself, and the library would "
                     "bring another one; build the program with the shared libsourced (meson: "
                     "-Ddefault_library=shared or both)\n");
}

TEST_CASE("--app: a library that cannot be used says why, and what to do") {
    if (!loads()) return;
    const auto load = [](const std::string& path) {
        const auto ran = inspect({"--app", path, "schema"});
        CHECK(ran.status == 1);
        CHECK(ran.out.empty());
        return ran.err;
    };
    CHECK(load("/nowhere/libshop.so") == "sourced: load '/nowhere/libshop.so': there is no such file\n");
    CHECK(says(load("libnowhere.so"), "load 'libnowhere.so': libnowhere.so: cannot open shared object file"));
    const support::TemporaryDirectory directory;
    std::ofstream(directory.file("libtext.so")) << "this is text" << std::string(100, '.');
    CHECK(says(load(directory.file("libtext.so")), "invalid ELF header"));
    CHECK(says(load(library("_undefined")), "undefined symbol"));
    CHECK(says(load(library("_no_function")), "it has no function sourced_app; write SOURCED_APP(add_all)"));
    CHECK(says(load(library("_other_abi")), "it was built for ABI " + std::to_string(sourced::abi + 1) +
                                                " of the engine, this program for " + std::to_string(sourced::abi)));
    CHECK(says(load(library("_throwing")), "adding its reactors failed: the shop is closed"));
    if (!fs::exists(library("_own_engine"))) return;  // this build has no static library
    CHECK(says(load(library("_own_engine")), "it links its own copy of the engine"));
}

TEST_CASE("--app: a name without a slash is looked for in the current folder first") {
    if (!loads()) return;
    const support::TemporaryDirectory directory;
    fs::create_symlink(library(""), directory.file("libhere.so"));
    const auto before = fs::current_path();
    fs::current_path(directory.path());
    const auto ran = inspect({"--app", "libhere.so", "schema"});
    fs::current_path(before);
    CHECK(ran.status == 0);
    CHECK(says(ran.out, "cart.put"));
}

TEST_CASE("inspect: a program that links it has its own types, for any file that is named") {
    Shop shop;
    shop.append("cart-1", {ItemPut{"tea", 2}});
    const auto ran = linked({shop.file(), "state", "cart-1", "--actor", "pieces", "-o", "json"});
    CHECK(ran.status == 0);
    CHECK(says(ran.out, "\"state\":2"));
    CHECK(shop.app().stats().groups.empty());
    CHECK(says(linked({"schema"}).out, "cart.put"));
    const auto both = linked({"--app", library(""), "schema"});
    CHECK(both.status == 2);
    CHECK(both.err == "sourced: this program brings its own types: leave --app out\n");
}

TEST_CASE("inspect: an App that is on a file needs none to be named") {
    Shop shop;
    shop.append("cart-1", {ItemPut{"tea", 2}});
    const auto ran = linked({"state", "cart-1", "--actor", "pieces", "-o", "json"}, shop.file());
    CHECK(ran.status == 0);
    CHECK(says(ran.out, "\"state\":2"));
    const auto sent = linked({"send", "cart.put", "--stream", "cart-1", "--json", R"({"item":"oil"})"}, shop.file());
    CHECK(sent.status == 0);
    CHECK(shop.app().history("cart-1").size() == 2);
    CHECK(says(linked({"stats"}, shop.file()).out, "messages"));
    const auto other = linked({"elsewhere.db", "state", "cart-1"}, shop.file());
    CHECK(other.status == 2);
    CHECK(says(other.err, "this program works on '" + shop.file() + "'; leave 'elsewhere.db' out"));
}

TEST_CASE("retail: an invoice is shown as of any seq, with the shop loaded and with the shop inside") {
    const support::TemporaryDirectory directory;
    const std::string db = directory.file("retail.db");
    CHECK(Program({"--db", db, "--lines", "10"}, {}, "retail").end().status == 0);
    const auto shown = [&](const std::string& seq, bool loaded) {
        const Arguments arguments{db, "state", "invoice-536365", "--at", seq, "-o", "json"};
        if (!loaded) return Program(arguments, {}, "retail_inspect").end().out;
        Arguments all{"--app", Program::folder() + "/libshop.so"};
        all.insert(all.end(), arguments.begin(), arguments.end());
        return inspect(all).out;
    };
    CHECK(says(shown("9", false), R"("state":{"lines":2,"total":35640}})"));
    CHECK(says(shown("14", false), R"("state":{"lines":7,"total":139120}})"));
    if (loads()) CHECK(shown("9", true) == shown("9", false));
}
