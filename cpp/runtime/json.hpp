// JSON texts as trees, for the headers of model files: strict (RFC 8259) and bounded in depth, but that NaN, Infinity
// and -Infinity are numbers, as Python writes them. Of two members of one name the first counts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace gesda {

// All accessors throw Error(GESDA_BAD_FILE) where the value is of another kind, naming what was asked for.
class Json {
 public:
  enum Kind : std::uint8_t { kNull, kBool, kNumber, kText, kList, kObject };

  // Throws Error(GESDA_BAD_FILE) for what is no JSON text, or nested deeper than 64 levels.
  static Json parse(std::string_view text);

  Kind kind() const { return kind_; }
  bool is_null() const { return kind_ == kNull; }
  bool boolean() const;
  double number() const;
  std::int64_t integer() const;  // a number without a fraction, of magnitude up to 2^53
  const std::string& text() const;
  const std::vector<Json>& list() const;
  const std::vector<std::pair<std::string, Json>>& object() const;  // in the order of the text
  const Json& at(std::string_view name) const;                      // of an object; throws where it is missing
  const Json* find(std::string_view name) const;                    // of an object; null where it is missing

 private:
  friend class JsonParser;
  [[noreturn]] void refuse(const char* wanted) const;

  Kind kind_ = kNull;
  double number_ = 0.0;
  bool is_whole_ = false;
  std::int64_t whole_ = 0;
  std::string text_;
  std::vector<Json> list_;
  std::vector<std::pair<std::string, Json>> members_;
};

}  // namespace gesda
