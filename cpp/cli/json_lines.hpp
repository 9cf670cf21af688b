// JSON lines on standard output, a value at a time.
#pragma once

#include <cmath>
#include <cstdio>
#include <string>

namespace gesda_cli {

// Writes one object; ends its line and flushes, so that a reader sees it at once.
class JsonLine {
 public:
  JsonLine() { std::putchar('{'); }
  ~JsonLine() {
    std::fputs("}\n", stdout);
    std::fflush(stdout);
  }
  JsonLine(const JsonLine&) = delete;
  JsonLine& operator=(const JsonLine&) = delete;

  void add(const char* name, double value) { key(name), number(value, 17); }
  void add(const char* name, float value) { key(name), number(static_cast<double>(value), 9); }
  void add(const char* name, long long value) { key(name), std::printf("%lld", value); }
  void add(const char* name, const char* text) {  // null: null
    key(name);
    if (text == nullptr)
      std::fputs("null", stdout);
    else
      write(text);
  }
  void add(const char* name, const float* values, std::size_t n) {
    key(name), std::putchar('[');
    for (std::size_t i = 0; i < n; ++i) {
      if (i > 0) std::putchar(',');
      number(static_cast<double>(values[i]), 9);
    }
    std::putchar(']');
  }

 private:
  void key(const char* name) {
    if (!is_first_) std::putchar(',');
    is_first_ = false;
    write(name), std::putchar(':');
  }
  static void number(double value, int digits) {
    if (std::isfinite(value))
      std::printf("%.*g", digits, value);
    else
      std::fputs("null", stdout);  // JSON has no word for it
  }
  static void write(const char* text) {
    std::putchar('"');
    for (; *text != '\0'; ++text) {
      const auto c = static_cast<unsigned char>(*text);
      if (c == '"' || c == '\\')
        std::printf("\\%c", c);
      else if (c < 0x20)
        std::printf("\\u%04x", c);
      else
        std::putchar(c);
    }
    std::putchar('"');
  }

  bool is_first_ = true;
};

}  // namespace gesda_cli
