// Runs the inspector as a user does, and compares what it says.
#pragma once

#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>

#include "support.hpp"

namespace support {

/// What a program has said, and how it ended.
struct Ran {
    int status = 0;  ///< the exit status; 128 and the number of the signal that ended it
    std::string out;
    std::string err;
};

/// A program of the build, running. Its stdin is what we tell it; stdout and stderr are kept.
class Program {
public:
    /// `arguments` without the program's name; `environment` is added to ours, which has no terminal and no locale.
    explicit Program(const std::vector<std::string>& arguments, const std::vector<std::string>& environment = {},
                     const std::string& name = "sourced") {
        ::signal(SIGPIPE, SIG_IGN);
        int in[2];
        int out[2];
        int err[2];
        if (::pipe2(in, O_CLOEXEC) != 0 || ::pipe2(out, O_CLOEXEC) != 0 || ::pipe2(err, O_CLOEXEC) != 0) {
            throw std::runtime_error(std::string("pipe: ") + std::strerror(errno));
        }
        in_ = in[1];
        files_[0] = {out[0], POLLIN, 0};
        files_[1] = {err[0], POLLIN, 0};
        posix_spawn_file_actions_t actions;
        ::posix_spawn_file_actions_init(&actions);
        ::posix_spawn_file_actions_adddup2(&actions, in[0], STDIN_FILENO);
        ::posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
        ::posix_spawn_file_actions_adddup2(&actions, err[1], STDERR_FILENO);
        std::string program = folder() + "/" + name;
        std::vector<std::string> words{program};
        words.insert(words.end(), arguments.begin(), arguments.end());
        std::vector<std::string> settings = environment;  // of two with one name the first counts
        for (char** entry = environ; *entry; ++entry) {
            const std::string setting = *entry;
            if (!setting.starts_with("LC_") && !setting.starts_with("LANG=") && !setting.starts_with("TERM=")) {
                settings.push_back(setting);
            }
        }
        const int error = ::posix_spawn(&pid_, program.c_str(), &actions, nullptr, pointers(words).data(),
                                        pointers(settings).data());
        ::posix_spawn_file_actions_destroy(&actions);
        for (const int ours : {in[0], out[1], err[1]}) ::close(ours);
        if (error != 0) throw std::runtime_error("start " + program + ": " + std::strerror(error));
    }
    Program(const Program&) = delete;
    Program& operator=(const Program&) = delete;
    ~Program() {
        if (pid_ > 0) {
            ::kill(pid_, SIGKILL);
            reap();
        }
        close_in();
        for (const auto& file : files_) {
            if (file.fd != -1) ::close(file.fd < 0 ? ~file.fd : file.fd);
        }
    }

    void signal(int number) const { ::kill(pid_, number); }
    /// Throws when it has ended: for who waits for something that it is to do.
    void check_running() const {
        siginfo_t end{};
        if (::waitid(P_PID, static_cast<id_t>(pid_), &end, WEXITED | WNOHANG | WNOWAIT) != 0 || end.si_pid != 0) {
            throw std::runtime_error("a program has ended before it did what was waited for");
        }
    }
    /// Whether it has a handler for the signal by now.
    [[nodiscard]] bool catches(int number) const {
        check_running();
        std::ifstream status("/proc/" + std::to_string(pid_) + "/status");
        for (std::string line; std::getline(status, line);) {
            if (!line.starts_with("SigCgt:")) continue;
            return (std::stoull(line.substr(7), nullptr, 16) >> (number - 1) & 1) != 0;
        }
        throw std::runtime_error("a program has ended before it took signal " + std::to_string(number));
    }
    /// Writes to its stdin.
    void tell(const std::string& text) const {
        if (::write(in_, text.data(), text.size()) < 0 && errno != EPIPE) {
            throw std::runtime_error(std::string("write to a program: ") + std::strerror(errno));
        }
    }
    void close_in() {
        if (in_ >= 0) ::close(in_);
        in_ = -1;
    }
    /// Nobody reads its stdout any more.
    void close_out() {
        ::close(files_[0].fd);
        files_[0].fd = -1;
    }
    /// Waits until stdout, or stderr, holds this text. False when the program ended, or said nothing for a minute.
    bool wait_for_out(const std::string& text) { return wait_for(ran_.out, text); }
    bool wait_for_err(const std::string& text) { return wait_for(ran_.err, text); }

    /// Ends its stdin, waits for its end, and gives all it said. Called once.
    Ran end() {
        close_in();
        while (read_some()) {}
        const int status = reap();
        ran_.status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
        return std::move(ran_);
    }

    /// Where this test program stands, and the others beside it.
    static std::string folder() { return std::filesystem::canonical("/proc/self/exe").parent_path(); }
    /// As exec takes them.
    static std::vector<char*> pointers(std::vector<std::string>& words) {
        std::vector<char*> all;
        for (auto& word : words) all.push_back(word.data());
        all.push_back(nullptr);
        return all;
    }

private:
    bool wait_for(const std::string& said, const std::string& text) {
        while (said.find(text) == std::string::npos) {
            if (!read_some()) return false;
        }
        return true;
    }
    /// False when both ends are closed, or nothing came for a minute.
    bool read_some() {
        if (files_[0].fd < 0 && files_[1].fd < 0) return false;
        if (::poll(files_, 2, 60'000) <= 0) return false;
        for (int i = 0; i < 2; ++i) {
            if (files_[i].fd < 0 || files_[i].revents == 0) continue;
            char buffer[65536];
            const auto size = ::read(files_[i].fd, buffer, sizeof buffer);
            if (size > 0) (i == 0 ? ran_.out : ran_.err).append(buffer, static_cast<std::size_t>(size));
            else files_[i].fd = ~files_[i].fd;  // poll passes over it
        }
        return true;
    }
    int reap() {
        int status = 0;
        while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {}
        pid_ = -1;
        return status;
    }

    pid_t pid_ = -1;
    int in_ = -1;
    pollfd files_[2] = {};
    Ran ran_;
};

/// Runs `sourced` to its end.
///
///     const auto ran = inspect({file, "streams", "--limit", "3"});
///     CHECK(ran.status == 0);
inline Ran inspect(const std::vector<std::string>& arguments, const std::string& in = {},
                   const std::vector<std::string>& environment = {}) {
    Program program(arguments, environment);
    program.tell(in);
    return program.end();
}

/// Whether this machine has pseudo terminals: a container, or a folder one has changed the root to, may be without.
/// Tests that need one are skipped there, by `* doctest::skip(!support::has_terminals())` behind their name.
inline bool has_terminals() {
    const int master = ::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (master >= 0) ::close(master);
    return master >= 0;
}

/// A program of the build that believes to be at a terminal: what it says comes out of there, errors too.
class Terminal {
public:
    explicit Terminal(std::vector<std::string> arguments, const std::vector<std::string>& environment = {},
                      unsigned short columns = 80, unsigned short rows = 24) {
        master_ = ::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
        char name[64];
        if (master_ < 0 || ::grantpt(master_) != 0 || ::unlockpt(master_) != 0 ||
            ::ptsname_r(master_, name, sizeof name) != 0) {
            throw std::runtime_error(std::string("open a terminal: ") + std::strerror(errno));
        }
        arguments.insert(arguments.begin(), Program::folder() + "/sourced");
        std::vector<std::string> settings = environment;  // of two with one name the first counts
        for (const char* more : {"TERM=xterm", "LANG=C.UTF-8"}) settings.emplace_back(more);
        settings.push_back("PATH=" + std::string(std::getenv("PATH")));
        const auto words = Program::pointers(arguments);
        const auto variables = Program::pointers(settings);
        pid_ = ::fork();
        if (pid_ == 0) {
            ::setsid();
            const int slave = ::open(name, O_RDWR);  // and it is ours
            termios mode{};
            ::tcgetattr(slave, &mode);
            mode.c_oflag &= ~static_cast<tcflag_t>(OPOST);
            mode.c_lflag &= ~static_cast<tcflag_t>(ECHO);
            ::tcsetattr(slave, TCSANOW, &mode);
            winsize size{};
            size.ws_col = columns;
            size.ws_row = rows;
            ::ioctl(slave, TIOCSWINSZ, &size);
            for (const int file : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) ::dup2(slave, file);
            ::signal(SIGPIPE, SIG_DFL);
            ::execve(words[0], words.data(), variables.data());
            ::_exit(127);
        }
    }
    Terminal(const Terminal&) = delete;
    Terminal& operator=(const Terminal&) = delete;
    ~Terminal() {
        ::close(master_);
        if (pid_ <= 0) return;
        ::kill(pid_, SIGKILL);
        ::waitpid(pid_, nullptr, 0);
    }

    /// Types.
    void tell(const std::string& text) const {
        if (::write(master_, text.data(), text.size()) < 0) throw std::runtime_error("type at a terminal");
    }
    /// Waits until it shows this text. False when the program ended, or said nothing for a minute.
    bool wait_for(const std::string& text) {
        while (ran_.out.find(text) == std::string::npos) {
            if (!read_some()) return false;
        }
        return true;
    }
    /// Waits for its end, and gives all it said, as `out`. Called once.
    Ran end() {
        while (read_some()) {}
        int status = 0;
        while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {}
        pid_ = -1;
        ran_.status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
        return std::move(ran_);
    }

private:
    bool read_some() {
        pollfd file{master_, POLLIN, 0};
        if (::poll(&file, 1, 60'000) <= 0) return false;
        char buffer[4096];
        const auto size = ::read(master_, buffer, sizeof buffer);
        if (size <= 0) return false;  // nobody has it open any more
        ran_.out.append(buffer, static_cast<std::size_t>(size));
        return true;
    }

    int master_ = -1;
    pid_t pid_ = -1;
    Ran ran_;
};

/// What a golden file holds: tests/inspector/<name>. With SOURCED_GOLDEN=write in the environment it is written anew
/// from `text` first: look at the difference before it is committed.
inline std::string golden(const std::string& name, const std::string& text) {
    const std::string path = std::string(SOURCED_ROOT) + "/tests/inspector/" + name;
    const char* const write = std::getenv("SOURCED_GOLDEN");
    if (write && std::string(write) == "write") {
        std::filesystem::create_directories(std::filesystem::path(path).parent_path());
        std::ofstream(path) << text;
    }
    std::ifstream file(path);
    if (!file) return "(there is no file tests/inspector/" + name + ")";
    std::ostringstream read;
    read << file.rdbuf();
    return std::move(read).str();
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

inline std::string bytes_of(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

inline std::set<std::string> files_in(const TemporaryDirectory& directory) {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(directory.path())) {
        names.insert(entry.path().filename());
    }
    return names;
}

/// A text with every `from` as `to`: for what differs from run to run.
inline std::string replaced(std::string text, const std::string& from, const std::string& to) {
    for (auto at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) {
        text.replace(at, from.size(), to);
    }
    return text;
}

/// That a command does nothing but say why; the file's path is FILE in `text`.
inline void check_refused(const std::string& path, std::vector<std::string> words, int status,
                          const std::string& text) {
    CAPTURE(text);
    words.insert(words.begin(), path);
    const auto ran = inspect(words);
    CHECK(ran.status == status);
    CHECK(ran.out == "");
    CHECK(replaced(ran.err, path, "FILE") == "sourced: " + text + "\n");
}

/// That a command shows its plan and does nothing without --yes, and does it with it. Gives plan and what was done,
/// with the file's path as FILE.
inline std::string planned_and_done(const std::string& path, std::vector<std::string> words) {
    const std::string before = bytes_of(path);
    words.insert(words.begin(), path);
    const auto refused = inspect(words);
    CHECK(refused.status == 1);
    CHECK(refused.out == "");
    CHECK(contains(refused.err, "nothing was done"));
    CHECK(bytes_of(path) == before);
    words.emplace_back("--yes");
    const auto done = inspect(words);
    CHECK(done.status == 0);
    CHECK(std::count(done.out.begin(), done.out.end(), '\n') == 1);
    CHECK(problems_of(path) == "");
    return replaced(done.err + done.out, path, "FILE");
}

}  // namespace support
