// A to-do list that is read by people and that drives the work: a projector with a reaction.
#include <sourced.hpp>

#include <algorithm>
#include <iostream>
#include <string>
#include <vector>

struct AddTask {
    std::string name;

    SOURCED_COMMAND("todo.add_task", name)
};
struct TaskAdded {
    std::string name;

    SOURCED_EVENT("todo.task_added", name)
};
struct StartTask {
    std::string name;

    SOURCED_COMMAND("todo.start_task", name)
};
struct TaskStarted {
    std::string name;

    SOURCED_EVENT("todo.task_started", name)
};
struct FinishTask {
    std::string name;

    SOURCED_COMMAND("todo.finish_task", name)
};
struct TaskFinished {
    std::string name;

    SOURCED_EVENT("todo.task_finished", name)
};
struct CloseList {
    SOURCED_COMMAND("todo.close_list")
};
struct ListClosed {
    SOURCED_EVENT("todo.list_closed")
};

// What is decided: one task at a time.
struct Work : sourced::Actor<std::string> {  // its state: the task in hand
    Work() : Actor("work") {
        command([](const AddTask& add) { return TaskAdded{add.name}; });
        command([](const std::string& in_hand, const StartTask& start) -> sourced::Decision<TaskStarted> {
            if (!in_hand.empty()) return sourced::refuse("first finish: " + in_hand);
            return TaskStarted{start.name};
        });
        command([](const std::string& in_hand, const FinishTask& finish) -> sourced::Decision<TaskFinished> {
            if (in_hand != finish.name) return sourced::refuse("not in hand: " + finish.name);
            return TaskFinished{finish.name};
        });
        command([](const CloseList&) { return ListClosed{}; });

        event([](std::string& in_hand, const TaskStarted& started) { in_hand = started.name; });
        event([](std::string& in_hand, const TaskFinished&) { in_hand.clear(); });
    }
};

// What is shown: a row for each list. It knows what is open, so it also says what comes next.
struct List {
    std::vector<std::string> open;
    int done = 0;
    std::string status = "open";

    SOURCED_VALUE(open, done, status)
};

struct TodoList : sourced::Projection<List> {
    TodoList() : Projection("todo") {
        event([](List& list, const TaskAdded& added) { list.open.push_back(added.name); });
        event([](List& list, const TaskFinished& finished) {
            list.open.erase(std::find(list.open.begin(), list.open.end(), finished.name));
            ++list.done;
        });
        event([](List& list, const ListClosed&) { list.status = "closed"; });

        reaction([](const List& list, const TaskFinished&) -> sourced::Dispatches<StartTask, CloseList> {
            if (list.open.empty()) return sourced::dispatch(CloseList{});
            return sourced::dispatch(StartTask{list.open.front()});
        });
    }
};

int main() {
    sourced::App app;
    app.add<Work>();
    auto& todo = app.add<TodoList>();

    for (const auto* name : {"buy paint", "paint the door", "clean the brush"}) app.dispatch("house", AddTask{name});
    app.dispatch("house", StartTask{"buy paint"});
    app.run_until_idle();

    const auto show = [&](const std::string& what) {
        const List list = *todo.get(app.store(), "house");
        std::cout << what << ": " << list.done << " done, " << list.open.size() << " open, " << list.status << '\n';
    };
    show("started");
    for (const auto* name : {"buy paint", "paint the door", "clean the brush"}) {
        app.dispatch("house", FinishTask{name});
        app.run_until_idle();  // the reaction has started the next task by then
        show(name);
    }

    // The list is emptied and built anew; nothing is started a second time.
    const auto messages = app.store().head();
    app.reset_group("todo");
    app.run_until_idle();
    show("built anew");
    return todo.get(app.store(), "house")->status == "closed" && app.store().head() == messages ? 0 : 1;
}
