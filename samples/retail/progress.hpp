// Numbers for people, and how far a long job is.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace retail {

/// 541909 as "541,909".
[[nodiscard]] inline std::string grouped(std::int64_t number) {
    auto digits = std::to_string(number);
    const std::size_t sign = number < 0 ? 1 : 0;
    for (auto at = digits.size(); at > sign + 3;) digits.insert(at -= 3, ",");
    return digits;
}

/// Thousandths as money: 9747747934 as "9,747,747.934".
[[nodiscard]] inline std::string money(std::int64_t thousandths) {
    const auto fraction = std::to_string(1000 + std::abs(thousandths % 1000)).substr(1);
    return (thousandths < 0 && thousandths > -1000 ? "-" : "") + grouped(thousandths / 1000) + "." + fraction;
}

/// Seconds as "1:05".
[[nodiscard]] inline std::string clock_text(double seconds) {
    const auto whole = static_cast<std::int64_t>(std::max(0.0, seconds) + 0.5);
    return std::to_string(whole / 60) + ":" + std::to_string(100 + whole % 60).substr(1);
}

/// Shows on stderr how far a job is: on a terminal a bar that renews itself,
/// elsewhere a plain line every five seconds.
///
///     Progress progress("lines", already_done);
///     while (work()) progress.show(done, total);
///
/// For one thread. The bar is gone when the object is.
class Progress {
public:
    explicit Progress(std::string unit, std::int64_t done = 0) : unit_(std::move(unit)), began_with_(done) {
        const char* const kind = std::getenv("TERM");
        terminal_ = isatty(STDERR_FILENO) == 1 && kind && std::string(kind) != "dumb";
        shown_ = terminal_ ? Clock::time_point{} : began_;
    }
    ~Progress() { clear(); }
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;

    /// Whether enough time has passed for `show` to say something new.
    [[nodiscard]] bool due() const {
        using namespace std::chrono_literals;
        return Clock::now() - shown_ >= (terminal_ ? Clock::duration(100ms) : Clock::duration(5s));
    }

    /// `total` may be an estimate that changes; 0 when nobody knows.
    void show(std::int64_t done, double total) {
        if (!due()) return;
        shown_ = Clock::now();
        const double share = total > 0 ? std::min(1.0, static_cast<double>(done) / total) : 0;
        const double rate = static_cast<double>(done - began_with_) / std::max(0.001, seconds());
        auto text = grouped(done) + " " + unit_ + "  " + grouped(static_cast<std::int64_t>(rate)) + "/s";
        if (share > 0) {
            text = std::to_string(static_cast<int>(share * 100)) + " %  " + text;
            if (rate > 0) text += "  " + clock_text((total - static_cast<double>(done)) / rate) + " left";
        }
        if (terminal_) {
            const auto full = static_cast<std::size_t>(share * width);
            text = "\r[" + std::string(full, '#') + std::string(width - full, '.') + "] " + text + "\x1b[K";
        } else {
            text += "\n";
        }
        std::fputs(text.c_str(), stderr);
    }

    /// Takes the bar away, so that something else can be said.
    void clear() {
        if (terminal_ && shown_ != Clock::time_point{}) std::fputs("\r\x1b[K", stderr);
        if (terminal_) shown_ = {};
    }

    [[nodiscard]] double seconds() const { return std::chrono::duration<double>(Clock::now() - began_).count(); }

private:
    using Clock = std::chrono::steady_clock;
    static constexpr std::size_t width = 30;

    std::string unit_;
    std::int64_t began_with_ = 0;
    Clock::time_point began_ = Clock::now();
    Clock::time_point shown_{};
    bool terminal_ = false;
};

}  // namespace retail
