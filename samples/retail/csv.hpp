// Reads CSV, plain or compressed by xz, in constant memory.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace retail {

/// One record of a CSV file.
struct Record {
    std::int64_t number = 0;  ///< 1 for the first record after the header, malformed ones counted
    std::int64_t line = 0;    ///< the line of the file on which it begins, counted from 1
    std::vector<std::string> fields{};
    std::string problem{};  ///< what is wrong with its CSV; then `fields` mean nothing
};

/// A CSV file as RFC 4180 has it: quoted fields may hold commas, quotes and line
/// breaks. Lines end in LF or CRLF; blank lines and a byte order mark are passed over.
///
///     CsvReader reader("orders.csv.xz");
///     for (Record record; reader.next(record);) std::cout << record.fields[0] << '\n';
///
/// A malformed record costs one line and no more: the next begins on the line after
/// it, so a stray quote does not swallow what follows. For one thread.
class CsvReader {
public:
    /// Longest record, in bytes.
    static constexpr std::size_t longest_record = 64 * 1024;

    /// Opens the file and reads its header. Whether it is compressed is seen from its
    /// first bytes, not from its name. Throws std::runtime_error with the file's name.
    explicit CsvReader(const std::filesystem::path& path);
    ~CsvReader();
    CsvReader(const CsvReader&) = delete;
    CsvReader& operator=(const CsvReader&) = delete;

    /// The next record; false at the end. `record` is filled anew, its memory kept.
    /// Throws std::runtime_error when the file cannot be read on, or its compressed data
    /// is damaged or cut off.
    bool next(Record& record);

    [[nodiscard]] const std::vector<std::string>& header() const noexcept { return header_; }
    /// How much of the file has been read, 0 to 1; 0 when its size is not known (a pipe).
    [[nodiscard]] double share() const noexcept;

private:
    class Source;

    bool fill();
    bool parse(Record& record);
    void drop_line();

    std::unique_ptr<Source> source_;
    std::vector<std::string> header_;
    std::string window_;     // text that was read and is not yet passed
    std::size_t begin_ = 0;  // where in it the next record begins
    std::int64_t number_ = 0;
    std::int64_t line_ = 1;
};

}  // namespace retail
