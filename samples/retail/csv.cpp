#include "csv.hpp"

#include <lzma.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <new>
#include <stdexcept>

namespace retail {

// The bytes of the file, decompressed on the way.
class CsvReader::Source {
public:
    explicit Source(const std::filesystem::path& path)
        : name_(path.string()), file_(std::fopen(path.c_str(), "rb"), &std::fclose) {
        if (!file_) fail(std::strerror(errno));
        std::error_code unknown;
        if (const auto size = std::filesystem::file_size(path, unknown); !unknown) size_ = static_cast<double>(size);
        read_chunk();
        constexpr unsigned char magic[] = {0xFD, '7', 'z', 'X', 'Z', 0x00};
        compressed_ = stream_.avail_in >= sizeof magic && std::memcmp(chunk_.data(), magic, sizeof magic) == 0;
        constexpr std::uint64_t most_memory = 128u << 20;  // what xz -9 makes needs 65 MB
        if (compressed_ && lzma_stream_decoder(&stream_, most_memory, LZMA_CONCATENATED) != LZMA_OK) {
            throw std::bad_alloc();
        }
    }
    ~Source() { lzma_end(&stream_); }
    Source(const Source&) = delete;
    Source& operator=(const Source&) = delete;

    // Puts up to `size` bytes at `to` and tells how many; 0 only at the end.
    std::size_t read(char* to, std::size_t size) {
        stream_.next_out = reinterpret_cast<std::uint8_t*>(to);
        stream_.avail_out = size;
        while (stream_.avail_out == size && !ended_) {
            if (stream_.avail_in == 0 && !at_end_) read_chunk();
            if (compressed_) {
                decompress();
            } else {
                copy();
            }
        }
        return size - stream_.avail_out;
    }

    [[nodiscard]] double share() const noexcept { return size_ > 0 ? std::min(1.0, taken_ / size_) : 0; }
    [[noreturn]] void fail(const std::string& found) const {
        throw std::runtime_error("read '" + name_ + "': " + found);
    }

private:
    void read_chunk() {
        const auto count = std::fread(chunk_.data(), 1, chunk_.size(), file_.get());
        if (std::ferror(file_.get())) fail(std::strerror(errno));
        at_end_ = std::feof(file_.get()) != 0;
        stream_.next_in = chunk_.data();
        stream_.avail_in = count;
        taken_ += static_cast<double>(count);
    }

    void copy() {
        const auto count = std::min(stream_.avail_in, stream_.avail_out);
        std::memcpy(stream_.next_out, stream_.next_in, count);
        stream_.next_in += count;
        stream_.avail_in -= count;
        stream_.avail_out -= count;
        ended_ = at_end_ && stream_.avail_in == 0;
    }

    void decompress() {
        switch (lzma_code(&stream_, at_end_ ? LZMA_FINISH : LZMA_RUN)) {
        case LZMA_OK: return;
        case LZMA_STREAM_END: ended_ = true; return;
        case LZMA_BUF_ERROR: fail("the compressed data is cut off");
        case LZMA_MEM_ERROR:
        case LZMA_MEMLIMIT_ERROR: fail("not enough memory to decompress it");
        default: fail("the compressed data is damaged");
        }
    }

    std::string name_;
    std::unique_ptr<std::FILE, int (*)(std::FILE*)> file_;
    double size_ = 0;
    double taken_ = 0;
    bool compressed_ = false;
    bool at_end_ = false;  // of the file
    bool ended_ = false;   // nothing more will come out
    std::array<std::uint8_t, 16 * 1024> chunk_{};
    lzma_stream stream_ = LZMA_STREAM_INIT;
};

CsvReader::CsvReader(const std::filesystem::path& path) : source_(std::make_unique<Source>(path)) {
    fill();
    if (window_.starts_with("\xEF\xBB\xBF")) begin_ = 3;
    Record header;
    if (!next(header)) source_->fail("the file is empty");
    if (!header.problem.empty()) source_->fail("no header: " + header.problem);
    header_ = std::move(header.fields);
    number_ = 0;
}

CsvReader::~CsvReader() = default;

double CsvReader::share() const noexcept { return source_->share(); }

// Reads on; false when there is nothing more.
bool CsvReader::fill() {
    window_.erase(0, begin_);
    begin_ = 0;
    const auto had = window_.size();
    window_.resize(had + 32 * 1024);
    const auto got = source_->read(window_.data() + had, window_.size() - had);
    window_.resize(had + got);
    return got > 0;
}

bool CsvReader::next(Record& record) {
    for (;;) {
        if (begin_ == window_.size() && !fill()) return false;
        if (window_[begin_] == '\r' && begin_ + 1 == window_.size()) fill();
        if (window_[begin_] != '\n' && window_.compare(begin_, 2, "\r\n") != 0) break;
        drop_line();
    }
    record.number = ++number_;
    record.line = line_;
    record.problem.clear();
    if (!parse(record)) drop_line();
    return true;
}

// Parses the record at begin_ and passes it; false when it is malformed, and then
// nothing is passed.
bool CsvReader::parse(Record& record) {
    std::size_t at = begin_;
    std::size_t count = 0;
    std::int64_t breaks = 0;
    // The character at `at`, or -1 at the end of the file. Reading on moves the window.
    const auto look = [&]() -> int {
        if (at == window_.size()) {
            const auto offset = at - begin_;
            if (offset > longest_record) return -1;
            fill();
            at = begin_ + offset;
        }
        return at < window_.size() ? static_cast<unsigned char>(window_[at]) : -1;
    };
    const auto malformed = [&](std::string problem) {
        const bool long_one = at - begin_ > longest_record;
        record.problem = long_one ? "longer than " + std::to_string(longest_record) + " bytes" : std::move(problem);
        return false;
    };

    for (;;) {
        if (record.fields.size() == count) record.fields.emplace_back();
        auto& field = record.fields[count++];
        field.clear();
        int c = look();
        if (c == '"') {
            for (++at; (c = look()) != -1; ++at) {
                if (c == '"') {
                    ++at;
                    if (look() != '"') break;
                }
                if (c == '\n') ++breaks;
                field.push_back(static_cast<char>(c));
            }
            if (c == -1) return malformed("a quote is not closed");
            c = look();
            if (c != ',' && c != '\n' && c != '\r' && c != -1) return malformed("text after a closing quote");
        } else {
            for (; c != -1 && c != ',' && c != '\n' && c != '\r'; c = look()) {
                if (c == '"') return malformed("a quote inside a field that does not begin with one");
                const auto from = at;
                at = std::min(window_.find_first_of(",\"\r\n", at), window_.size());
                field.append(window_, from, at - from);
            }
        }
        if (c == ',') {
            ++at;
            continue;
        }
        if (c == '\r') {
            ++at;
            c = look();
            if (c != '\n' && c != -1) return malformed("a carriage return inside a field without quotes");
        }
        if (c == '\n') ++at;
        if (at - begin_ > longest_record) return malformed({});
        record.fields.resize(count);
        if (!header_.empty() && count != header_.size()) {
            return malformed("expected " + std::to_string(header_.size()) + " fields, found " + std::to_string(count));
        }
        begin_ = at;
        line_ += breaks + 1;
        return true;
    }
}

// Passes everything up to the next end of a line.
void CsvReader::drop_line() {
    for (;;) {
        const auto end = window_.find('\n', begin_);
        if (end != std::string::npos) {
            begin_ = end + 1;
            break;
        }
        begin_ = window_.size();
        if (!fill()) break;
    }
    ++line_;
}

}  // namespace retail
