// What several tests need: files that go away again, and processes that can be stopped and killed.
#pragma once

#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "sourced.hpp"

extern char** environ;

namespace support {

/// A directory of its own for the time of a test.
class TemporaryDirectory {
public:
    explicit TemporaryDirectory(const std::string& parent = std::filesystem::temp_directory_path()) {
        std::string pattern = parent + "/sourced-test-XXXXXX";
        if (!::mkdtemp(pattern.data())) throw std::runtime_error("no temporary directory: " + pattern);
        path_ = pattern;
    }
    TemporaryDirectory(const TemporaryDirectory&) = delete;
    TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
    ~TemporaryDirectory() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    [[nodiscard]] std::string file(const std::string& name = "store.db") const { return path_ + "/" + name; }
    [[nodiscard]] const std::string& path() const noexcept { return path_; }

private:
    std::string path_;
};

/// What a call throws, as text; empty when it throws nothing. Other errors than E go on.
template <class E = std::exception, class F>
std::string error_of(F&& call) {
    try {
        std::forward<F>(call)();
    } catch (const E& error) {
        return error.what();
    }
    return {};
}

/// What verify() finds in a file, a line each.
inline std::string problems_of(const std::string& path) {
    std::string text;
    for (const auto& violation : sourced::verify(path)) text += violation.invariant + ": " + violation.text + '\n';
    return text;
}

/// Holds threads until it is open.
class Gate {
public:
    void open() {
        {
            const std::lock_guard lock(mutex_);
            open_ = true;
        }
        changed_.notify_all();
    }
    void pass() {
        std::unique_lock lock(mutex_);
        ++waiting_;
        changed_.notify_all();
        changed_.wait(lock, [&] { return open_; });
        --waiting_;
    }
    [[nodiscard]] bool wait_for_waiting(int count) {
        std::unique_lock lock(mutex_);
        return changed_.wait_for(lock, std::chrono::seconds(60), [&] { return waiting_ >= count; });
    }

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    bool open_ = false;
    int waiting_ = 0;
};

/// A message as it is before it is appended, its own cause unless one is given.
inline sourced::Message message(sourced::Kind kind, std::string type, std::string payload = "{}",
                                const sourced::Message* cause = nullptr) {
    sourced::Message message;
    message.id = sourced::Id::make();
    message.causation = cause ? cause->id : message.id;
    message.correlation = cause ? cause->correlation : message.id;
    message.type = std::move(type);
    message.kind = kind;
    message.payload = std::move(payload);
    return message;
}

/// Another process that runs a test case of this program: one named "child: <role>" and decorated with doctest::skip(),
/// so that nobody else runs it. It is told its arguments, reads lines from us and writes lines to us. It starts from
/// scratch: a fork alone would carry SQLite's locks over.
class Child {
public:
    Child(const std::string& role, const std::vector<std::string>& arguments) {
        ::signal(SIGPIPE, SIG_IGN);  // a child that has died is no reason for us to
        int to_child[2];
        int from_child[2];
        if (::pipe2(to_child, O_CLOEXEC) != 0 || ::pipe2(from_child, O_CLOEXEC) != 0) fail("pipe");
        to_child_ = to_child[1];
        from_child_ = from_child[0];

        posix_spawn_file_actions_t actions;
        ::posix_spawn_file_actions_init(&actions);
        ::posix_spawn_file_actions_adddup2(&actions, to_child[0], STDIN_FILENO);
        ::posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);  // its results are not ours
        ::posix_spawn_file_actions_adddup2(&actions, from_child[1], report_file);

        std::string joined = "SOURCED_CHILD=";
        for (const auto& argument : arguments) joined += argument + '\n';
        std::vector<char*> environment;
        for (char** entry = environ; *entry; ++entry) {
            if (std::strncmp(*entry, "SOURCED_CHILD=", 14) != 0) environment.push_back(*entry);
        }
        environment.push_back(joined.data());
        environment.push_back(nullptr);
        std::string program = "/proc/self/exe";
        std::string what = "--test-case=child: " + role;
        std::string no_skip = "--no-skip";
        std::string minimal = "--minimal";
        char* command[] = {program.data(), what.data(), no_skip.data(), minimal.data(), nullptr};
        const int error = ::posix_spawn(&pid_, program.c_str(), &actions, nullptr, command, environment.data());
        ::posix_spawn_file_actions_destroy(&actions);
        ::close(to_child[0]);
        ::close(from_child[1]);
        if (error != 0) {
            pid_ = -1;
            errno = error;
            fail("start a child");
        }
    }
    Child(const Child&) = delete;
    Child& operator=(const Child&) = delete;
    ~Child() {
        if (pid_ > 0) {
            ::kill(pid_, SIGKILL);
            wait();
        }
        if (to_child_ >= 0) ::close(to_child_);
        ::close(from_child_);
    }

    [[nodiscard]] pid_t pid() const noexcept { return pid_; }
    void signal(int number) const { ::kill(pid_, number); }

    /// Waits until the child has stopped itself.
    void wait_until_stopped() const {
        int status = 0;
        while (::waitpid(pid_, &status, WUNTRACED) < 0 && errno == EINTR) {}
        if (!WIFSTOPPED(status)) throw std::runtime_error("the child ended instead of stopping");
    }
    /// Waits for the end; gives the exit code, or 128 and the number of the signal that ended it.
    int wait() {
        int status = 0;
        while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {}
        pid_ = -1;
        return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    }

    void tell(const std::string& line) {
        const std::string text = line + '\n';
        if (::write(to_child_, text.data(), text.size()) < 0 && errno != EPIPE) fail("write to a child");
    }
    /// The child's next line; nothing when it has ended, or said nothing for a minute.
    std::optional<std::string> line() {
        while (true) {
            if (const auto end = read_.find('\n'); end != std::string::npos) {
                std::string line = read_.substr(0, end);
                read_.erase(0, end + 1);
                return line;
            }
            pollfd file{from_child_, POLLIN, 0};
            if (::poll(&file, 1, 60'000) <= 0) return std::nullopt;
            char buffer[4096];
            const auto size = ::read(from_child_, buffer, sizeof buffer);
            if (size <= 0) return std::nullopt;
            read_.append(buffer, static_cast<std::size_t>(size));
        }
    }

    // ---- what the child itself uses

    static std::vector<std::string> arguments() {
        std::vector<std::string> arguments;
        const char* joined = std::getenv("SOURCED_CHILD");
        for (std::string rest = joined ? joined : ""; !rest.empty();) {
            const auto end = rest.find('\n');
            arguments.push_back(rest.substr(0, end));
            rest.erase(0, end == std::string::npos ? end : end + 1);
        }
        return arguments;
    }
    static void report(const std::string& line) {
        const std::string text = line + '\n';
        if (::write(report_file, text.data(), text.size()) < 0) fail("report");
    }
    /// Waits for a line of the parent's. False when the parent has gone.
    static bool told() {
        char byte = 0;
        while (::read(STDIN_FILENO, &byte, 1) == 1) {
            if (byte == '\n') return true;
        }
        return false;
    }

private:
    static constexpr int report_file = 30;

    [[noreturn]] static void fail(const std::string& doing) {
        throw std::runtime_error(doing + ": " + std::strerror(errno));
    }

    pid_t pid_ = -1;
    int to_child_ = -1;
    int from_child_ = -1;
    std::string read_;
};

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool sanitized = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
inline constexpr bool sanitized = true;
#else
inline constexpr bool sanitized = false;
#endif
#else
inline constexpr bool sanitized = false;
#endif

}  // namespace support
