// Numbers from a file or from standard input, a row at a time: CSV text, or raw little-endian float32.
#pragma once

#include <cstdio>
#include <string>
#include <vector>

namespace gesda_cli {

class RowReader {
 public:
  enum Format { kCsv, kRaw };

  // width: numbers of a row. Throws std::runtime_error where the file cannot be opened.
  RowReader(const std::string& path, Format format, std::size_t width);
  ~RowReader();
  RowReader(const RowReader&) = delete;
  RowReader& operator=(const RowReader&) = delete;

  // Reads the next row into `row`; false at the end. Throws std::runtime_error, with the line, for what is no row. Of
  // CSV, empty lines and a first line of names are skipped; empty fields are NaN.
  bool next(std::vector<double>& row);

 private:
  bool next_raw(std::vector<double>& row);
  bool next_line(std::string& line);
  [[noreturn]] void refuse(const std::string& reason) const;

  std::string name_;
  std::FILE* file_;
  Format format_;
  std::size_t width_, n_lines_ = 0;
};

}  // namespace gesda_cli
