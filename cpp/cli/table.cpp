#include "cpp/cli/table.hpp"

#include <cerrno>
#include <charconv>
#include <cmath>
#include <stdexcept>
#include <string_view>
#include <system_error>

namespace gesda_cli {

namespace {

std::string_view trimmed(std::string_view text) {
  const auto is_space = [](char c) { return c == ' ' || c == '\t' || c == '\r'; };
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

bool parse(std::string_view text, double& value) {
  text = trimmed(text);
  if (text.empty()) {
    value = std::nan("");
    return true;
  }
  if (text.front() == '+') text.remove_prefix(1);
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

RowReader::RowReader(const std::string& path, Format format, std::size_t width)
    : name_(path == "-" ? "standard input" : path),
      file_(path == "-" ? stdin : std::fopen(path.c_str(), "rb")),
      format_(format),
      width_(width) {
  if (file_ == nullptr)
    throw std::runtime_error(path + ": cannot be opened (" + std::generic_category().message(errno) + ")");
}

RowReader::~RowReader() {
  if (file_ != stdin) std::fclose(file_);
}

void RowReader::refuse(const std::string& reason) const {
  throw std::runtime_error(name_ + (format_ == kCsv ? ", line " : ", row ") + std::to_string(n_lines_) + ": " + reason);
}

bool RowReader::next(std::vector<double>& row) {
  if (format_ == kRaw) return next_raw(row);
  std::string line;
  while (next_line(line)) {
    if (trimmed(line).empty()) continue;
    row.clear();
    bool is_numbers = true;
    for (std::size_t begin = 0; begin <= line.size();) {
      const std::size_t end = std::min(line.find_first_of(",;", begin), line.size());
      double value;
      if (!parse(std::string_view(line).substr(begin, end - begin), value)) {
        if (n_lines_ > 1) refuse("'" + line.substr(begin, std::min<std::size_t>(end - begin, 40)) + "' is no number");
        is_numbers = false;
        break;
      }
      row.push_back(value);
      begin = end + 1;
    }
    if (!is_numbers) continue;  // the names of the columns
    if (row.size() != width_)
      refuse(std::to_string(row.size()) + " numbers where the model takes " + std::to_string(width_));
    return true;
  }
  return false;
}

bool RowReader::next_raw(std::vector<double>& row) {
  std::vector<float> values(width_);
  const std::size_t got = std::fread(values.data(), 1, width_ * sizeof(float), file_);
  ++n_lines_;
  if (std::ferror(file_) != 0) refuse(std::string("cannot be read (") + std::generic_category().message(errno) + ")");
  if (got == 0) return false;
  if (got < width_ * sizeof(float)) refuse("the last row is cut off");
  row.assign(values.begin(), values.end());
  return true;
}

bool RowReader::next_line(std::string& line) {
  line.clear();
  ++n_lines_;
  int c;
  while ((c = std::fgetc(file_)) != EOF) {
    if (c == '\n') return true;
    line += static_cast<char>(c);
    if (line.size() > (std::size_t{1} << 26)) refuse("the line is longer than 64 MB");
  }
  if (std::ferror(file_) != 0) refuse(std::string("cannot be read (") + std::generic_category().message(errno) + ")");
  return !line.empty();
}

}  // namespace gesda_cli
