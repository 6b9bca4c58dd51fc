// Topology: what a program consists of, found without running it, and drawn.
#include "../samples/cart/cart.hpp"
#include "../samples/retail/reactors.hpp"

#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

#include "support.hpp"

using sourced::App;
using support::error_of;
using sourced::Topology;
using sourced::TopologyNode;
using Type = sourced::TopologyNode::Type;
using Strings = std::vector<std::string>;

namespace {

struct Create {
    std::string title;
    SOURCED_COMMAND("create", title)
};
struct Created {
    std::string title;
    SOURCED_EVENT("created", title)
};
struct Notify {
    SOURCED_COMMAND("notify")
};
struct Notified {
    SOURCED_EVENT("notified")
};
struct Archive {
    SOURCED_COMMAND("archive")
};
struct Archived {
    SOURCED_EVENT("archived")
    static constexpr std::array<std::string_view, 1> sourced_aliases{"put_away"};
};
struct Ship {
    SOURCED_COMMAND("ship")
};

struct Rude {
    SOURCED_EVENT("titles-rm")
};

struct Nothing {};

/// What R1 describes.
struct Group : sourced::Actor<Nothing> {
    explicit Group(std::string_view name = "Group") : Actor(name) {
        command([](const Nothing&, const Create& create) { return Created{create.title}; });
        command([](const Nothing&, const Notify&) { return Notified{}; });
        event<Created, Notified>([](Nothing&, const auto&) {});
        reaction([](const Created&) { return sourced::dispatch(Notify{}); });
    }
};

struct Titles : sourced::Projector<int> {
    explicit Titles(std::string_view name = "titles") : Projector(name) {
        state([](std::string_view) { return 0; });
        event<Created, Archived>([](int& count, const auto&) { ++count; });
        sync([](const int&) {});
    }
};

const TopologyNode& node(const Topology& topology, std::string_view id) {
    const auto* found = topology.find(id);
    if (!found) throw std::runtime_error("there is no node '" + std::string(id) + "'");
    return *found;
}

Strings ids(const Topology& topology) {
    Strings ids;
    for (const auto& each : topology.nodes()) ids.push_back(each.id);
    return ids;
}

std::string read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
}

std::ptrdiff_t files_in(const std::string& directory) {
    const std::filesystem::directory_iterator files(directory);
    return std::distance(begin(files), end(files));
}

void write(const std::string& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

}  // namespace

TEST_CASE("R1: an actor's commands, events and reactions are nodes that name each other") {
    App app;
    app.add<Group>();
    const Topology topology(app);
    CHECK(ids(topology) == Strings{"create", "created", "notify", "notified", "created-Group-aut"});
    const auto& create = node(topology, "create");
    CHECK(create.type == Type::command);
    CHECK(create.group == "Group");
    CHECK(create.produces == Strings{"created"});
    CHECK(create.consumes.empty());
    const auto& created = node(topology, "created");
    CHECK(created.type == Type::event);
    CHECK(created.produces == Strings{});
    const auto& automation = node(topology, "created-Group-aut");
    CHECK(automation.type == Type::automation);
    CHECK(automation.name == "on created");
    CHECK(automation.group == "Group");
    CHECK(automation.consumes == Strings{"created"});
    CHECK(automation.produces == Strings{"notify"});
    CHECK(automation.schema.empty());
}

TEST_CASE("R2: a projector is a read model; its automations consume that") {
    App app;
    struct Reacting : Titles {
        Reacting() : Titles("Reacting titles") {
            reaction([](const Created&) { return sourced::dispatch(Notify{}); });
        }
    };
    app.add<Reacting>();
    const Topology topology(app);
    CHECK(ids(topology) ==
          Strings{"created", "archived", "Reacting titles-rm", "created-Reacting titles-aut", "notify"});
    const auto& model = node(topology, "Reacting titles-rm");
    CHECK(model.type == Type::readmodel);
    CHECK(model.name == "Reacting titles");
    CHECK(model.consumes == Strings{"created", "archived"});
    CHECK(model.produces == Strings{"created-Reacting titles-aut"});
    CHECK(node(topology, "created-Reacting titles-aut").consumes == Strings{"Reacting titles-rm"});
    CHECK(node(topology, "created-Reacting titles-aut").produces == Strings{"notify"});
    CHECK(node(topology, "notify").group.empty());  // nobody here handles it
}

TEST_CASE("R3: a wildcard reaction is one automation, beside the specific ones") {
    struct Wild : sourced::Actor<Nothing> {
        explicit Wild(bool specific) : Actor("wild") {
            event<Created, Notified, Archived>([](Nothing&, const auto&) {});
            if (specific) reaction([](const Created&) { return sourced::dispatch(Ship{}); });
            reaction([](const sourced::Message&) { return sourced::dispatch(Notify{}); });
        }
    };
    App app;
    SUBCASE("alone") {
        app.add<Wild>(false);
        const Topology topology(app);
        CHECK(ids(topology) == Strings{"created", "notified", "archived", "wild-aut", "notify"});
        CHECK(node(topology, "wild-aut").consumes == Strings{"created", "notified", "archived"});
        CHECK(node(topology, "wild-aut").name == "on any other event");
        CHECK(node(topology, "wild-aut").produces == Strings{"notify"});
    }
    SUBCASE("and a specific one") {
        app.add<Wild>(true);
        const Topology topology(app);
        CHECK(node(topology, "created-wild-aut").produces == Strings{"ship"});
        CHECK(node(topology, "wild-aut").consumes == Strings{"notified", "archived"});
    }
}

TEST_CASE("R4: types stand there once and belong to who was added first; commands never appear as events") {
    App app;
    app.add<Group>("first");
    app.add<Group>("second");
    app.add<Titles>();
    const Topology topology(app);
    CHECK(ids(topology) == Strings{"create", "created", "notify", "notified", "created-first-aut", "created-second-aut",
                                   "archived", "titles-rm"});
    for (const auto* type : {"create", "created", "notify", "notified"}) CHECK(node(topology, type).group == "first");
    CHECK(node(topology, "notify").type == Type::command);
    CHECK(node(topology, "archived").group == "titles");
}

TEST_CASE("R4: commands and events have a JSON Schema") {
    App app;
    app.add<Group>();
    const Topology topology(app);
    CHECK(node(topology, "create").schema == sourced::json_schema<Create>());
    CHECK(node(topology, "created").schema == sourced::json_schema<Created>());
    CHECK(node(topology, "created").schema.find("\"title\"") != std::string::npos);
}

TEST_CASE("topology: what a handler leads to comes from its return type, or from what it is said to produce") {
    struct Many : sourced::Actor<Nothing> {
        Many() : Actor("many") {
            command([](const Create&) -> sourced::Decision<Created, Archived> { return {}; });
            command([](const Notify&) { return sourced::Events(); });
            command([](const Ship&) { return sourced::Events(); }).produces<Notified>();
            command([](const Archive&) { return std::optional<Archived>(); });
            event<Created, Archived, Notified>();
            reaction([](const Created&) -> std::optional<sourced::Dispatch> { return std::nullopt; });
            reaction([](const Archived&) -> sourced::Dispatches<Ship, Notify> { return {}; });
            reaction([](const Notified&) { return std::vector<sourced::Dispatch>(); }).produces<Archive>();
        }
    };
    App app;
    app.add<Many>();
    const Topology topology(app);
    CHECK(node(topology, "create").produces == Strings{"created", "archived"});
    CHECK_FALSE(node(topology, "notify").produces);
    CHECK(node(topology, "ship").produces == Strings{"notified"});
    CHECK(node(topology, "archive").produces == Strings{"archived"});
    CHECK_FALSE(node(topology, "created-many-aut").produces);
    CHECK(node(topology, "archived-many-aut").produces == Strings{"ship", "notify"});
    CHECK(node(topology, "notified-many-aut").produces == Strings{"archive"});
    CHECK(topology.json().find("\"produces\":null") != std::string::npos);
    CHECK(topology.mermaid().find("    command_notify -.-> unknown_notify\n") != std::string::npos);
    CHECK(topology.mermaid().find("    unknown_notify[\"?\"]:::unknown\n") != std::string::npos);
    CHECK(topology.dot().find("    command_notify -> unknown_notify [style=dashed];\n") != std::string::npos);
}

TEST_CASE("topology: a reactor with its own loop is one automation for all that wakes it") {
    struct Own : sourced::BatchReactor {
        Own() : BatchReactor("own") { handles<Archive, Created>().produces<Ship, Archived>(); }
        sourced::Results handle(const sourced::Batch&) override { return {}; }
    };
    App app;
    app.add<Own>();
    const Topology topology(app);
    CHECK(ids(topology) == Strings{"archive", "created", "archived", "own-aut", "ship"});
    CHECK(node(topology, "archive").type == Type::command);
    CHECK(node(topology, "own-aut").name == "own");
    CHECK(node(topology, "own-aut").consumes == Strings{"archive", "created"});
    CHECK(node(topology, "own-aut").produces == Strings{"ship", "archived"});
    CHECK(node(topology, "archived").group == "own");
}

TEST_CASE("topology: a workflow is an automation that consumes what it waits for and produces its end") {
    struct Long : sourced::Workflow<std::string, void, Created> {
        Long() : Workflow("long") {
            run([](Context& context, const std::string&) { (void)context.wait_for<Created>(); });
        }
    };
    struct Lonely : sourced::Workflow<std::string, void> {
        Lonely() : Workflow("lonely") {
            run([](Context&, const std::string&) {});
        }
    };
    App app;
    app.add<Long>();
    app.add<Lonely>();
    const Topology topology(app);
    const Strings ends{"sourced.workflow_completed", "sourced.workflow_failed"};
    CHECK(ids(topology) == Strings{"created", ends[0], ends[1], "long-aut", "lonely-aut"});
    CHECK(node(topology, "long-aut").consumes == Strings{"created"});
    CHECK(node(topology, "long-aut").produces == ends);
    CHECK(node(topology, "lonely-aut").consumes.empty());
}

TEST_CASE("topology: a type appears under its name of today") {
    struct Keeper : sourced::Actor<Nothing> {
        Keeper() : Actor("keeper") {
            command([](const Archive&) { return Archived{}; });
            event([](Nothing&, const Archived&) {});
            reaction([](const Archived&) { return sourced::dispatch(Ship{}); });
        }
    };
    App app;
    app.add<Keeper>();
    CHECK(ids(Topology(app)) == Strings{"archive", "archived", "archived-keeper-aut", "ship"});
}

TEST_CASE("topology: ids are unique, whatever things are called") {
    struct Model : sourced::Projector<int> {
        Model() : Projector("titles") {
            state([](std::string_view) { return 0; });
            event([](int&, const Rude&) {});
            sync([](const int&) {});
        }
    };
    App app;
    app.add<Model>();
    const Topology topology(app);
    CHECK(ids(topology) == Strings{"titles-rm", "titles-rm-2"});
    CHECK(node(topology, "titles-rm-2").consumes == Strings{"titles-rm"});
    CHECK(topology.mermaid().find("event_titles_rm --> readmodel_titles_rm_2\n") != std::string::npos);
}

TEST_CASE("topology: an App without reactors is an empty picture") {
    App app;
    const Topology topology(app);
    CHECK(topology.nodes().empty());
    CHECK(topology.find("any") == nullptr);
    CHECK(topology.json() == "[\n]\n");
    CHECK(topology.mermaid().starts_with("flowchart LR\n    classDef"));
}

TEST_CASE("topology: JSON has an object for each node, one a line") {
    App app;
    app.add<Group>();
    const auto json = Topology(app).json();
    std::istringstream lines(json);
    Strings read;
    for (std::string line; std::getline(lines, line);) read.push_back(line);
    REQUIRE(read.size() == 7);
    CHECK(read.at(1) ==
          R"({"type":"command","id":"create","name":"create","group":"Group","consumes":[],"produces":["created"],)"
          R"("schema":)" + sourced::json_schema<Create>() + "},");
    CHECK(read.at(5) == R"({"type":"automation","id":"created-Group-aut","name":"on created","group":"Group",)"
                        R"("consumes":["created"],"produces":["notify"]})");
}

TEST_CASE("topology: hostile names reach no drawing program") {
    const std::string hostile = "a\"]; end --> <b>&`#1;\\N\n%%{x}%% \xFF\xC3\xA4";
    const Topology topology({
        {Type::command, "end", hostile, hostile, {}, Strings{hostile}, "{}"},
        {Type::event, hostile, hostile, hostile, {}, Strings{}, "{}"},
        {Type::readmodel, "a\"]", hostile, hostile, {hostile, "not there"}, Strings{}, {}},
    });
    const std::string label =
        "\"a#34;#93;#59; end --#62; #60;b#62;#38;#96;#35;1#59;#92;N #37;#37;#123;x#125;#37;#37; \xEF\xBF\xBD\xC3\xA4\"";
    const auto mermaid = topology.mermaid();
    const std::string slug = "a____end______b____1__N____x_______";
    CHECK(mermaid.substr(0, mermaid.find("    classDef")) ==
          "flowchart LR\n"
          "    subgraph group_" + slug + "[" + label + "]\n"
          "        command_end[" + label + "]:::command\n"
          "        event_" + slug + "(" + label + "):::event\n"
          "        readmodel_a__[(" + label + ")]:::readmodel\n"
          "    end\n"
          "    command_end --> event_" + slug + "\n"
          "    event_" + slug + " --> readmodel_a__\n");
    const std::string quoted = "\"a\\\"]; end --> <b>&amp;`#1;\\\\N %%{x}%% \xEF\xBF\xBD\xC3\xA4\"";
    CHECK(topology.dot().find("command_end [label=" + quoted + ", shape=box") != std::string::npos);
    CHECK(topology.dot().find("        label=" + quoted + ";\n") != std::string::npos);
    CHECK(topology.json().find(R"("id":"end","name":"a\"]; end --> <b>&`#1;\\N %%{x}%% )") != std::string::npos);
}

TEST_CASE("topology: what has no name has an empty label") {
    const Topology topology({{Type::event, "", "", "", {}, Strings{}, "{}"}});
    CHECK(topology.mermaid().find("    event_(\" \"):::event\n") != std::string::npos);
    CHECK(topology.dot().find("    event_ [label=\"\", ") != std::string::npos);
}

TEST_CASE("topology: names that differ only in their signs stay apart in a picture") {
    const Topology topology({{Type::event, "a.b", "a.b", "", {}, Strings{}, "{}"},
                             {Type::event, "a-b", "a-b", "", {}, Strings{}, "{}"},
                             {Type::command, "c", "c", "", {}, Strings{"a-b", "a-b"}, "{}"}});
    const auto mermaid = topology.mermaid();
    CHECK(mermaid.find("    event_a_b(\"a.b\"):::event\n    event_a_b_2(\"a-b\"):::event\n") != std::string::npos);
    CHECK(mermaid.find("    command_c --> event_a_b_2\n    classDef") != std::string::npos);
}

// ---- Markdown ----------------------------------------------------------------------------------

TEST_CASE("drawing: what it is told beyond a topology reaches both programs, and no text of it does harm") {
    using Look = sourced::detail::Drawing::Look;
    sourced::detail::Drawing drawing;
    drawing.nodes = {{Look::command, "1", "a<script>", {"2 \"x\"\n"}, {}, true, false},
                     {Look::event, "2", "b", {}, {}, true, true},
                     {Look::refused, "3", "c", {}, {}, false, true}};
    drawing.arrows = {{0, 1, "+1 \\ms]", false}, {0, 2, {}, true}};
    CHECK(drawing.mermaid().starts_with("flowchart LR\n"
                                        "    command_1[\"a#60;script#62;<br/>2 #34;x#34; \"]:::command\n"
                                        "    event_2(\"b\"):::event\n"
                                        "    refused_3(\"c\"):::refused\n"
                                        "    command_1 -->|\"#43;1 #92;ms#93;\"| event_2\n"
                                        "    command_1 -.-> refused_3\n"
                                        "    style command_1 stroke-dasharray:4\n"
                                        "    style event_2 stroke-width:4px\n"
                                        "    style event_2 stroke-dasharray:4\n"
                                        "    style refused_3 stroke-width:4px\n"));
    CHECK(drawing.mermaid().ends_with("    classDef refused fill:#ffc9c9,stroke:#c92a2a,color:#000\n"));
    CHECK(drawing.dot() ==
          "digraph sourced {\n"
          "    rankdir=LR;\n"
          "    node [fontname=\"sans-serif\", style=filled, color=\"#495057\"];\n"
          "    command_1 [label=\"a<script>\\n2 \\\"x\\\" \", shape=box, fillcolor=\"#a5d8ff\", "
          "style=\"filled,dashed\"];\n"
          "    event_2 [label=\"b\", shape=box, style=\"rounded,filled,dashed\", fillcolor=\"#ffd8a8\", penwidth=3];\n"
          "    refused_3 [label=\"c\", shape=box, style=\"rounded,filled\", fillcolor=\"#ffc9c9\", penwidth=3];\n"
          "    command_1 -> event_2 [label=\"+1 \\\\ms]\", fontname=\"sans-serif\", fontsize=10];\n"
          "    command_1 -> refused_3 [style=dashed];\n"
          "}\n");
}

TEST_CASE("update_markdown: only what stands between the markers is replaced") {
    const support::TemporaryDirectory directory;
    const auto path = directory.file("README.md");
    App app;
    app.add<Group>();
    const Topology topology(app);
    const std::string picture = "```mermaid\n" + topology.mermaid() + "```\n";
    const std::string opening = "<!-- sourced:topology -->";
    const std::string closing = "<!-- /sourced:topology -->";

    SUBCASE("and the file is not touched when it is right already") {
        const std::string head = "# Title\n\n    " + opening + "\n\n```\n" + opening + "\n```\n\ntext\r\n";
        write(path, head + opening + "\nold\n" + closing + "\ntail without an end");
        ::chmod(path.c_str(), 0640);
        CHECK(sourced::update_markdown(path, topology));
        CHECK(read(path) == head + opening + "\n" + picture + closing + "\ntail without an end");
        struct stat before {};
        ::stat(path.c_str(), &before);
        CHECK((before.st_mode & 0777) == 0640);
        CHECK_FALSE(sourced::update_markdown(path, topology));
        struct stat after {};
        ::stat(path.c_str(), &after);
        CHECK(before.st_ino == after.st_ino);
        app.add<Titles>();
        CHECK(sourced::update_markdown(path, Topology(app)));
        CHECK(read(path).find("titles") != std::string::npos);
    }
    SUBCASE("at the end of a file, with the line ends it has") {
        write(path, "x\r\n" + opening + "\r\n" + closing);
        CHECK(sourced::update_markdown(path, Topology(std::vector<TopologyNode>())));
        const auto text = read(path);
        CHECK(text.starts_with("x\r\n" + opening + "\r\n```mermaid\r\nflowchart LR\r\n"));
        CHECK(text.ends_with("```\r\n" + closing));
        CHECK_FALSE(sourced::update_markdown(path, Topology(std::vector<TopologyNode>())));
    }
    SUBCASE("through a link, which stays one") {
        write(path, opening + "\n" + closing + "\n");
        const auto link = directory.file("link.md");
        REQUIRE(::symlink("README.md", link.c_str()) == 0);
        CHECK(sourced::update_markdown(link, topology));
        CHECK(read(path) == opening + "\n" + picture + closing + "\n");
        struct stat state {};
        ::lstat(link.c_str(), &state);
        CHECK(S_ISLNK(state.st_mode));
    }
    SUBCASE("and nothing else is left behind") {
        write(path, opening + "\n" + closing + "\n");
        CHECK(sourced::update_markdown(path, topology));
        CHECK(files_in(directory.path()) == 1);
    }
}

TEST_CASE("update_markdown: a file that cannot be updated is left as it is, with a text that says why") {
    const support::TemporaryDirectory directory;
    const auto path = directory.file("README.md");
    const Topology topology(std::vector<TopologyNode>{});
    const std::string opening = "<!-- sourced:topology -->\n";
    const std::string closing = "<!-- /sourced:topology -->\n";
    const auto refusal = [&](const std::string& text) {
        write(path, text);
        const auto why = error_of([&] { (void)sourced::update_markdown(path, topology); });
        CHECK(read(path) == text);
        const std::string prefix = "update '" + path + "': ";
        return why.starts_with(prefix) ? why.substr(prefix.size()) : why;
    };
    CHECK(refusal("") == "there is no line '<!-- sourced:topology -->' in it");
    CHECK(refusal("# Title\n") == "there is no line '<!-- sourced:topology -->' in it");
    CHECK(refusal("text " + opening + closing) ==
          "there is no line '<!-- sourced:topology -->' before '<!-- /sourced:topology -->' in it");
    CHECK(refusal(opening) == "there is no line '<!-- /sourced:topology -->' in it");
    CHECK(refusal(closing + opening) ==
          "there is no line '<!-- sourced:topology -->' before '<!-- /sourced:topology -->' in it");
    CHECK(refusal(opening + opening + closing) == "there are two lines '<!-- sourced:topology -->' in it");
    CHECK(refusal(opening + closing + closing) == "there are two lines '<!-- /sourced:topology -->' in it");
    CHECK(refusal(opening + "```\n" + closing) == "there is no line '<!-- /sourced:topology -->' in it");

    const auto nowhere = directory.file("nowhere.md");
    CHECK(error_of([&] { (void)sourced::update_markdown(nowhere, topology); }) ==
          "update '" + nowhere + "': it cannot be read: No such file or directory");
    CHECK(error_of([&] { (void)sourced::update_markdown(directory.path(), topology); }) ==
          "update '" + directory.path() + "': it cannot be read: Is a directory");
    write(path, opening + closing);
    ::signal(SIGXFSZ, SIG_IGN);
    rlimit before{};
    ::getrlimit(RLIMIT_FSIZE, &before);
    const rlimit small{16, before.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &small);
    const auto why = error_of([&] { (void)sourced::update_markdown(path, topology); });
    ::setrlimit(RLIMIT_FSIZE, &before);
    CHECK(why == "update '" + path + "': it cannot be written: File too large");
    CHECK(read(path) == opening + closing);
    CHECK(files_in(directory.path()) == 1);
}

// ---- A whole program ---------------------------------------------------------------------------

TEST_CASE("topology: the pictures in the samples' pages are those of the programs") {
    App app;
    std::string page;
    SUBCASE("the shop's year") {
        retail::add_shop(app);
        page = "samples/retail/README.md";
    }
    SUBCASE("the cart") {
        app.add<shop::Cart>();
        app.add<shop::Mailer>();
        app.add<shop::CartListings>();
        page = "samples/README.md";
    }
    const Topology topology(app);
    const support::TemporaryDirectory directory;
    const auto path = directory.file("README.md");
    write(path, read(SOURCED_ROOT "/" + page));
    CHECK_MESSAGE(!sourced::update_markdown(path, topology),
                  "between the markers of " << page << " belongs\n```mermaid\n" << topology.mermaid() << "```");
}
