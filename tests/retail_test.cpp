// The retail sample: its parts, and the built program on small inputs.
#include "../samples/retail/csv.hpp"
#include "../samples/retail/orders.hpp"
#include "../samples/retail/progress.hpp"
#include "../samples/retail/reactors.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <lzma.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "support.hpp"

namespace fs = std::filesystem;
using sourced::testing::given;

namespace {

const std::string header = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n";

class Folder : public support::TemporaryDirectory {
public:
    [[nodiscard]] std::string operator/(const std::string& name) const { return file(name); }
    std::string write(const std::string& name, const std::string& text) const {
        std::ofstream(*this / name, std::ios::binary) << text;
        return *this / name;
    }
};

std::string text_of(const std::string& path) {
    std::ostringstream text;
    text << std::ifstream(path, std::ios::binary).rdbuf();
    return text.str();
}

std::string compressed(const std::string& text) {
    std::string result(lzma_stream_buffer_bound(text.size()), '\0');
    std::size_t size = 0;
    REQUIRE(lzma_easy_buffer_encode(6, LZMA_CHECK_CRC64, nullptr, reinterpret_cast<const std::uint8_t*>(text.data()),
                                    text.size(), reinterpret_cast<std::uint8_t*>(result.data()), &size,
                                    result.size()) == LZMA_OK);
    result.resize(size);
    return result;
}

// The built program, running. What it prints goes to files in `folder`.
class Run {
public:
    Run(const Folder& folder, std::vector<std::string> arguments) : out_(folder / "out"), err_(folder / "err") {
        const auto program = (fs::canonical("/proc/self/exe").parent_path() / "retail").string();
        REQUIRE_MESSAGE(fs::exists(program), "not built: ", program);
        arguments.insert(arguments.begin(), program);
        std::vector<char*> pointers;
        for (auto& argument : arguments) pointers.push_back(argument.data());
        pointers.push_back(nullptr);
        pid_ = fork();
        REQUIRE(pid_ >= 0);
        if (pid_ == 0) {
            unsetenv("SOURCED_SAMPLE_LINES");
            dup2(open(out_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), STDOUT_FILENO);
            dup2(open(err_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), STDERR_FILENO);
            execv(program.c_str(), pointers.data());
            _exit(127);
        }
        pidfd_ = static_cast<int>(syscall(SYS_pidfd_open, pid_, 0));  // glibc 2.36 declares its own only for C
        REQUIRE(pidfd_ >= 0);
    }
    ~Run() {
        if (!ended_) {
            signal(SIGKILL);
            status();
        }
        close(pidfd_);
    }
    Run(const Run&) = delete;
    Run& operator=(const Run&) = delete;

    // True when it has ended within this time.
    bool ended_within(int milliseconds) const {
        pollfd waiting{.fd = pidfd_, .events = POLLIN, .revents = 0};
        return poll(&waiting, 1, milliseconds) == 1;
    }
    void signal(int number) const { kill(pid_, number); }
    // Waits for the end. The exit status, or minus the signal that ended it.
    int status() {
        if (!ended_) {
            int status = 0;
            REQUIRE(waitpid(pid_, &status, 0) == pid_);
            status_ = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
            ended_ = true;
        }
        return status_;
    }
    [[nodiscard]] std::string out() const { return text_of(out_); }
    [[nodiscard]] std::string err() const { return text_of(err_); }

private:
    std::string out_;
    std::string err_;
    pid_t pid_ = -1;
    int pidfd_ = -1;
    int status_ = 0;
    bool ended_ = false;
};

// Everything in a replay's file that may not depend on when its workers ran.
std::string contents(const std::string& db) {
    std::ostringstream text;
    const auto store = sourced::open_store({.path = db});
    store->read([&](sourced::Reader& reader) {
        for (const char* query :
             {"select s.name, t.name, m.payload, 1 from sourced_messages m join sourced_streams s on s.id = m.stream "
              "join sourced_types t on t.id = m.type order by 1, 2, 3",
              "select s.name, m.payload, 1, 1 from sourced_messages m join sourced_streams s on s.id = m.stream "
              "join sourced_types t on t.id = m.type where t.name = 'invoice.line_recorded' order by s.name, "
              "m.position",
              "select id, lines, total, cancelled from invoices order by 1",
              "select id, state, 1, 1 from projection_revenue_by_country order by 1",
              "select id, state, 1, 1 from projection_revenue_by_month order by 1",
              "select id, state ->> 'invoices', 1, 1 from projection_customers order by 1"}) {
            for (const auto& row : reader.query(query)) {
                for (std::size_t column = 0; column < row.size(); ++column) text << row.text(column) << '|';
                text << '\n';
            }
        }
    });
    return text.str();
}

// The invoices of a made-up shop.
struct Shop {
    std::string csv = header;
    std::int64_t lines = 0;
    std::int64_t invoices = 0;
    std::int64_t known_customers = 0;  // invoices that have one
    std::int64_t total = 0;

    explicit Shop(int most_lines) {
        std::mt19937 random(7);
        const auto upto = [&](unsigned n) { return static_cast<int>(random() % n); };
        while (lines < most_lines) {
            const bool cancels = upto(10) == 0;
            const auto invoice = (cancels ? "C" : "") + std::to_string(536000 + invoices++);
            const auto customer = upto(4) == 0 ? "" : std::to_string(12000 + upto(40)) + ".0";
            const auto* const country = upto(3) == 0 ? "France" : "United Kingdom";
            const auto month = std::to_string(10 + upto(3));
            known_customers += customer.empty() ? 0 : 1;
            for (int line = 1 + upto(40); line > 0; --line, ++lines) {
                const int quantity = cancels ? -1 - upto(9) : 1 + upto(99);
                const int pence = upto(10000);
                csv += invoice + ",P" + std::to_string(upto(100)) + ",\"SOMETHING, \"\"NICE\"\"\"," +
                       std::to_string(quantity) + ",2010-" + month + "-01 08:26:00," + std::to_string(pence / 100) +
                       "." + std::to_string(100 + pence % 100).substr(1) + "," + customer + "," + country + "\n";
                total += std::int64_t{quantity} * pence * 10;
            }
        }
    }
};

sourced::Value number(const std::string& db, const std::string& query) {
    sourced::Value value;
    sourced::open_store({.path = db})->read([&](sourced::Reader& reader) { value = reader.row(query)->integer(0); });
    return value;
}

// What the finished replay of a shop has to hold.
void check_books(const std::string& db, const Shop& shop) {
    CHECK(number(db, "select count(*) from invoices") == sourced::Value(shop.invoices));
    CHECK(number(db, "select sum(lines) from invoices") == sourced::Value(shop.lines));
    CHECK(number(db, "select sum(total) from invoices") == sourced::Value(shop.total));
    CHECK(number(db, "select sum(state ->> 'total') from projection_revenue_by_country") == sourced::Value(shop.total));
    CHECK(number(db, "select sum(state ->> 'total') from projection_revenue_by_month") == sourced::Value(shop.total));
    CHECK(number(db, "select sum(state ->> 'invoices') from projection_customers") ==
          sourced::Value(shop.known_customers));
    CHECK(number(db, "select max(position) from sourced_messages") ==
          sourced::Value(2 * (shop.lines + shop.known_customers)));
    for (const auto& violation : sourced::verify(db)) FAIL_CHECK(violation.invariant, ": ", violation.text);
}

std::vector<std::string> records(const std::string& path) {
    std::vector<std::string> result;
    retail::CsvReader reader(path);
    for (retail::Record record; reader.next(record);) {
        auto text = std::to_string(record.number) + "@" + std::to_string(record.line) + ":";
        if (record.problem.empty()) {
            for (const auto& field : record.fields) text += "[" + field + "]";
        } else {
            text += record.problem;
        }
        result.push_back(text);
    }
    return result;
}

using Strings = std::vector<std::string>;

}  // namespace

// ---- CSV -----------------------------------------------------------------------

TEST_CASE(
    "CsvReader: quotes, commas, line breaks, CRLF, blank lines and a byte order mark are read as RFC 4180 has them") {
    const Folder folder;
    const auto path = folder.write("a.csv",
                                   "\xEF\xBB\xBF"
                                   "a,b\r\n1,\"x \"\"y\"\", \nz\"\r\n\r\n,\n\"\",\"\"\n5,end");
    CHECK(records(path) == Strings{"1@2:[1][x \"y\", \nz]", "2@5:[][]", "3@6:[][]", "4@7:[5][end]"});
    CHECK(retail::CsvReader(path).header() == Strings{"a", "b"});
}

TEST_CASE("CsvReader: a malformed record costs its own line and none of the next") {
    const Folder folder;
    const auto path = folder.write("a.csv", "a,b\n\"bad,2\n3,4\n5,6,7\n\"a\"b,1\nx\"y,2\n7\n8,9\n\"");
    CHECK(records(path) == Strings{"1@2:text after a closing quote", "2@3:[3][4]", "3@4:expected 2 fields, found 3",
                                   "4@5:text after a closing quote",
                                   "5@6:a quote inside a field that does not begin with one",
                                   "6@7:expected 2 fields, found 1", "7@8:[8][9]", "8@9:a quote is not closed"});
}

TEST_CASE("CsvReader: an endless record is given up after 64 KB, and the next line is read") {
    const Folder folder;
    const auto path =
        folder.write("a.csv", "a,b\n1,\"" + std::string(300'000, 'x') + "\n2," + std::string(100'000, 'y') + "\n3,\"" +
                                  std::string(60'000, 'z') + "\"\n4,5\n");
    const auto found = records(path);
    REQUIRE(found.size() == 4);
    CHECK(found[0] == "1@2:longer than 65536 bytes");
    CHECK(found[1] == "2@3:longer than 65536 bytes");
    CHECK(found[2].size() == std::string("3@4:[3][]").size() + 60'000);
    CHECK(found[3] == "4@5:[4][5]");
}

TEST_CASE("CsvReader: a compressed file reads as the plain one does, in several streams too") {
    const Folder folder;
    const Shop shop(3000);
    const auto plain = records(folder.write("a.csv", shop.csv));
    CHECK(records(folder.write("a.csv.xz", compressed(shop.csv))) == plain);
    const auto half = shop.csv.size() / 2;
    CHECK(records(folder.write("b", compressed(shop.csv.substr(0, half)) + compressed(shop.csv.substr(half)))) ==
          plain);
}

TEST_CASE("CsvReader: a file that cannot be read says which and why") {
    const Folder folder;
    const auto text = compressed(Shop(3000).csv);
    auto damaged = text;
    damaged[text.size() / 2] ^= 1;
    const auto says = [](const std::string& path) -> std::string {
        try {
            records(path);
        } catch (const std::runtime_error& error) {
            return error.what();
        }
        return {};
    };
    CHECK(says(folder / "none.csv") == "read '" + folder / "none.csv" + "': No such file or directory");
    CHECK(says(folder / "") == "read '" + folder / "" + "': Is a directory");
    CHECK(says(folder.write("e", "")) == "read '" + folder / "e" + "': the file is empty");
    CHECK(says(folder.write("c", text.substr(0, text.size() - 40))) ==
          "read '" + folder / "c" + "': the compressed data is cut off");
    CHECK(says(folder.write("d", damaged)) == "read '" + folder / "d" + "': the compressed data is damaged");
}

// ---- Order lines -----------------------------------------------------------------

TEST_CASE("Prices: are counted in thousandths, without floating point") {
    CHECK(retail::parse_price("2.55") == 2550);
    CHECK(retail::parse_price("0.001") == 1);
    CHECK(retail::parse_price("1.255") == 1255);
    CHECK(retail::parse_price("7") == 7000);
    CHECK(retail::parse_price("-11062.06") == -11'062'060);
    CHECK(retail::parse_price("-0.5") == -500);
    for (const char* wrong : {"", "-", ".", "1.", ".5", "1.2345", "1e3", "1,5", "+1", "1000000", "--1", " 1", "0x1"}) {
        CAPTURE(wrong);
        CHECK_THROWS_AS((void)retail::parse_price(wrong), std::invalid_argument);
    }
}

TEST_CASE("Order lines: what a field should hold and what it does hold is said") {
    const Strings good{"536365", "85123A", "LANTERN", "6", "2010-12-01 08:26:00", "2.55", "17850.0", "France"};
    const auto with = [&](std::size_t column, const std::string& text) -> std::string {
        auto fields = good;
        fields[column] = text;
        try {
            (void)retail::parse_line(fields);
        } catch (const std::invalid_argument& problem) {
            return problem.what();
        }
        return {};
    };
    CHECK(retail::parse_line(good).total() == 15'300);
    CHECK(retail::parse_line(good).customer == "17850");
    CHECK(with(6, "").empty());
    CHECK(with(0, "C536365").empty());
    CHECK(with(0, "") == "InvoiceNo: expected a number, after C for a cancellation or A for an adjustment, found ''");
    CHECK(with(3, "six") == "Quantity: expected an integer below a million, found 'six'");
    CHECK(with(4, "2010-02-30 08:26:00") ==
          "InvoiceDate: expected a time like 2010-12-01 08:26:00, found '2010-02-30 08:26:00'");
    CHECK(with(6, "17850.5") == "CustomerID: expected a number or nothing, found '17850.5'");
    CHECK(with(7, "") == "Country: expected a country, found ''");
}

TEST_CASE("Ids: are derived from the line's number, in its order, and give it back") {
    sourced::Id last = retail::id_of(0);
    for (const std::int64_t number : {1, 2, 255, 256, 541'909, 5'419'090}) {
        const auto id = retail::id_of(number);
        CHECK(retail::number_of(id) == number);
        CHECK(last.to_string() < id.to_string());
        CHECK(id.to_string().substr(14, 1) == "7");
        last = id;
    }
}

TEST_CASE("Numbers: are shown in groups of three digits") {
    CHECK(retail::grouped(0) == "0");
    CHECK(retail::grouped(-1234567) == "-1,234,567");
    CHECK(retail::grouped(999) == "999");
    CHECK(retail::money(9'747'747'934) == "9,747,747.934");
    CHECK(retail::money(-500) == "-0.500");
}

// ---- The shop ----------------------------------------------------------------------

TEST_CASE("Invoice: records a line as it came") {
    const retail::Line line{.invoice = "536365", .product = "71053", .quantity = 2, .price = 3395};
    CHECK(given<retail::Invoice>().when(retail::RecordLine{line}).then(retail::LineRecorded{line}));
}

TEST_CASE("Invoice: its first line tells the customer, if there is one, and the second does not") {
    const retail::LineRecorded known{{.invoice = "536365", .customer = "17850", .country = "France"}};
    const retail::LineRecorded unknown{{.invoice = "536366", .country = "France"}};
    CHECK(given<retail::Invoice>().when(known).then(
        sourced::dispatch(retail::AddInvoice{"536365", "France"}).to("customer-17850")));
    CHECK(given<retail::Invoice>(known).when(known).then_nothing());
    CHECK(given<retail::Invoice>().when(unknown).then_nothing());
}

TEST_CASE("Customer: remembers an invoice") {
    CHECK(given<retail::Customer>()
              .when(retail::AddInvoice{"536365", "France"})
              .then(retail::InvoiceAdded{"536365", "France"}));
}

// ---- The program -------------------------------------------------------------------

TEST_CASE("Retail: a small file ends in the numbers that a person would count") {
    const Folder folder;
    const auto input =
        folder.write("in.csv", header +
                                   "536365,85123A,\"HOLDER, WHITE\",6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom\n"
                                   "536365,71053,LANTERN,2,2010-12-01 08:26:00,3.395,17850.0,United Kingdom\n"
                                   "536366,71053,LANTERN,1,2011-01-01 08:28:00,3.395,,France\n"
                                   "C536367,71053,LANTERN,-1,2011-01-02 08:28:00,3.395,17850.0,United Kingdom\n");
    Run run(folder, {"--input", input, "--db", folder / "db"});
    CHECK_MESSAGE(run.status() == 0, run.out(), run.err());
    CHECK(run.out().find("3 invoices, 1 of them cancellations; 1 customers") != std::string::npos);
    CHECK(run.out().find("\nLook into it: ") != std::string::npos);
    CHECK(run.out().ends_with("sourced " + (folder / "db") + "\n"));
    CHECK(contents(folder / "db")
              .ends_with("invoice-536365|2|22090|0|\ninvoice-536366|1|3395|0|\ninvoice-C536367|1|-3395|1|\n"
                         "France|{\"lines\":1,\"total\":3395}|1|1|\nUnited Kingdom|{\"lines\":3,\"total\":18695}|1|1|\n"
                         "2010-12|{\"lines\":2,\"total\":22090}|1|1|\n2011-01|{\"lines\":2,\"total\":0}|1|1|\n"
                         "customer-17850|2|1|1|\n"));
    CHECK(number(folder / "db", "select max(position) from sourced_messages") == sourced::Value(std::int64_t{12}));
}

TEST_CASE("Retail: lines that are exact duplicates are all counted") {
    const Folder folder;
    const std::string line = "536365,71053,LANTERN,2,2010-12-01 08:26:00,3.395,17850.0,United Kingdom\n";
    Run run(folder, {"--input", folder.write("in.csv", header + line + line + line), "--db", folder / "db"});
    CHECK_MESSAGE(run.status() == 0, run.out(), run.err());
    CHECK(number(folder / "db", "select lines from invoices") == sourced::Value(std::int64_t{3}));
    CHECK(number(folder / "db", "select total from invoices") == sourced::Value(std::int64_t{20'370}));
}

TEST_CASE("Retail: malformed lines are reported by number and skipped, and the exit status says so") {
    const Folder folder;
    const auto input =
        folder.write("in.csv", header +
                                   "536365,71053,LANTERN,2,2010-12-01 08:26:00,3.395,17850.0,United Kingdom\n"
                                   "536365,71053,LANTERN,two,2010-12-01 08:26:00,3.395,17850.0,United Kingdom\n"
                                   "536365,71053,\"LANTERN,2,2010-12-01 08:26:00,3.395,17850.0,United Kingdom\n"
                                   "536365,71053,LANT\xFF"
                                   "ERN,2,2010-12-01 08:26:00,3.395,17850.0,United Kingdom\n"
                                   "536366,71053,LANTERN,1,2010-12-01 08:28:00,3.395,,\x1b[31mFrance\n");
    Run run(folder, {"--input", input, "--db", folder / "db"});
    CHECK_MESSAGE(run.status() == 3, run.out(), run.err());
    CHECK(run.err().find("line 3: Quantity: expected an integer below a million, found 'two'") != std::string::npos);
    CHECK(run.err().find("line 4: ") != std::string::npos);
    CHECK(run.err().find("line 5: ") != std::string::npos);
    CHECK(run.err().find("malformed lines that were skipped: 3") != std::string::npos);
    CHECK((run.out() + run.err()).find('\x1b') == std::string::npos);
    CHECK(number(folder / "db", "select count(*) from invoices") == sourced::Value(std::int64_t{2}));
}

TEST_CASE("Retail: input that cannot be read is a clear error, and the earlier replay stays") {
    const Folder folder;
    const Shop shop(100);
    CHECK(Run(folder, {"--input", folder.write("in.csv", shop.csv), "--db", folder / "db"}).status() == 0);

    const auto fails = [&](const std::string& input) {
        Run run(folder, {"--input", input, "--db", folder / "db"});
        CHECK(run.status() == 1);
        return run.err();
    };
    CHECK(fails(folder / "none.csv") == "retail: read '" + folder / "none.csv" + "': No such file or directory\n");
    CHECK(fails(folder.write("other.csv", "a,b\n1,2\n")).find("does not name the columns InvoiceNo,") !=
          std::string::npos);
    check_books(folder / "db", shop);
}

TEST_CASE("Retail: compressed data that is cut off is an error, and --resume goes on with the whole file") {
    const Folder folder;
    const Shop shop(8'000);
    const auto text = compressed(shop.csv);
    Run cut(folder, {"--input", folder.write("in.xz", text.substr(0, text.size() / 2)), "--db", folder / "db"});
    CHECK(cut.status() == 1);
    CHECK(cut.err().find("the compressed data is cut off") != std::string::npos);
    Run whole(folder, {"--input", folder.write("in.xz", text), "--db", folder / "db", "--resume"});
    CHECK_MESSAGE(whole.status() == 0, whole.out(), whole.err());
    check_books(folder / "db", shop);
}

TEST_CASE("Retail: wrong arguments end with status 2 and a sentence") {
    const Folder folder;
    for (const Strings& arguments : {Strings{"--nonsense"}, Strings{"--workers", "0"}, Strings{"--input"}}) {
        Run run(folder, arguments);
        CHECK(run.status() == 2);
        CHECK(!run.err().empty());
    }
}

TEST_CASE("Retail: without --resume a replay begins anew, but a file of somebody else is left alone") {
    const Folder folder;
    const Shop shop(100);
    const auto input = folder.write("in.csv", shop.csv);
    CHECK(Run(folder, {"--input", input, "--db", folder / "db"}).status() == 0);
    CHECK(Run(folder, {"--input", input, "--db", folder / "db"}).status() == 0);
    check_books(folder / "db", shop);

    sourced::open_store({.path = folder / "other"})->register_group({.name = "carts"});
    Run other(folder, {"--input", input, "--db", folder / "other"});
    CHECK(other.status() == 1);
    CHECK(other.err().find("holds something else than a replay; it was left alone") != std::string::npos);
    const auto letter = folder.write("letter", "Dear customer,");
    CHECK(Run(folder, {"--input", input, "--db", letter}).status() == 1);
    CHECK(text_of(letter) == "Dear customer,");
}

TEST_CASE("Retail: --resume refuses to go on with another input") {
    const Folder folder;
    CHECK(Run(folder, {"--input", folder.write("in.csv", Shop(100).csv), "--db", folder / "db"}).status() == 0);
    auto csv = Shop(200).csv;
    for (auto at = csv.find("NICE"); at != std::string::npos; at = csv.find("NICE")) csv.replace(at, 4, "UGLY");
    Run run(folder, {"--input", folder.write("other.csv", csv), "--db", folder / "db", "--resume"});
    CHECK(run.status() == 1);
    CHECK(run.err().find("holds a replay of another input") != std::string::npos);
}

TEST_CASE("Retail: a group that was stopped ends the replay with a sentence, and it goes on once that is started") {
    const Folder folder;
    const Shop shop(2000);
    const auto input = folder.write("in.csv", shop.csv);
    CHECK(Run(folder, {"--input", input, "--db", folder / "db", "--lines", "1000"}).status() == 0);
    sourced::open_store({.path = folder / "db"})->stop_group("revenue_by_month", "maintenance");
    Run stopped(folder, {"--input", input, "--db", folder / "db", "--resume"});
    CHECK(stopped.status() == 1);
    CHECK(stopped.err().find("'revenue_by_month' has stopped: maintenance") != std::string::npos);

    sourced::open_store({.path = folder / "db"})->start_group("revenue_by_month");
    Run started(folder, {"--input", input, "--db", folder / "db", "--resume"});
    CHECK_MESSAGE(started.status() == 0, started.out(), started.err());
    check_books(folder / "db", shop);
}

TEST_CASE("Retail: killed at random moments and resumed, nothing is doubled or lost") {
    const Folder folder;
    const Shop shop(8'000);
    const auto input = folder.write("in.csv", shop.csv);
    REQUIRE(Run(folder, {"--input", input, "--db", folder / "reference"}).status() == 0);

    std::mt19937 random(std::random_device{}());
    int kills = 0;
    for (int run = 0; run < 12; ++run) {
        Run killed(folder, {"--input", input, "--db", folder / "db", "--resume"});
        killed.ended_within(static_cast<int>(random() % 200));
        killed.signal(SIGKILL);
        kills += killed.status() == -SIGKILL ? 1 : 0;
    }
    Run last(folder, {"--input", input, "--db", folder / "db", "--resume"});
    REQUIRE_MESSAGE(last.status() == 0, last.out(), last.err());
    CHECK(kills > 0);
    check_books(folder / "db", shop);
    const bool same = contents(folder / "db") == contents(folder / "reference");  // many lines, better not shown
    CHECK(same);
}

TEST_CASE("Retail: Ctrl-C ends it in good order and says how to go on") {
    const Folder folder;
    const Shop shop(12'000);
    const auto input = folder.write("in.csv", shop.csv);
    {
        Run run(folder, {"--input", input, "--db", folder / "db"});
        const auto begun = [&] { return fs::exists(folder / "db-wal") && fs::file_size(folder / "db-wal") > 200'000; };
        while (!begun() && !run.ended_within(1)) {}
        run.signal(SIGINT);
        CHECK_MESSAGE(run.status() == 130, run.out(), run.err());
        CHECK(run.err().find("--resume") != std::string::npos);
        CHECK(sourced::verify(folder / "db").empty());
    }
    Run resumed(folder, {"--input", input, "--db", folder / "db", "--resume"});
    CHECK_MESSAGE(resumed.status() == 0, resumed.out(), resumed.err());
    check_books(folder / "db", shop);
}
