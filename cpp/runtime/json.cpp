#include "cpp/runtime/json.hpp"

#include <charconv>
#include <cmath>

#include "cpp/runtime/error.hpp"

namespace gesda {

namespace {

constexpr int kMostDepth = 64;
constexpr double kMostWhole = 9007199254740992.0;  // 2^53: beyond it, neighbours look alike

const char* kind_name(Json::Kind kind) {
  constexpr const char* kNames[] = {"null", "a truth value", "a number", "text", "a list", "an object"};
  return kNames[kind];
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

void append_utf8(std::uint32_t code, std::string& out) {
  const auto add = [&out](std::uint32_t byte) { out += static_cast<char>(byte); };
  if (code < 0x80) {
    add(code);
  } else if (code < 0x800) {
    add(0xC0 | code >> 6), add(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    add(0xE0 | code >> 12), add(0x80 | (code >> 6 & 0x3F)), add(0x80 | (code & 0x3F));
  } else {
    add(0xF0 | code >> 18), add(0x80 | (code >> 12 & 0x3F)), add(0x80 | (code >> 6 & 0x3F)), add(0x80 | (code & 0x3F));
  }
}

}  // namespace

class JsonParser {
 public:
  explicit JsonParser(std::string_view text) : rest_(text) {}

  Json document() {
    Json value = parse_value(0);
    skip_space();
    if (!rest_.empty()) refuse("something after its end");
    return value;
  }

 private:
  [[noreturn]] static void refuse(const char* what) {
    throw Error(GESDA_BAD_FILE, std::string("the header is no JSON text: it has ") + what);
  }

  void skip_space() {
    while (!rest_.empty() && (rest_[0] == ' ' || rest_[0] == '\t' || rest_[0] == '\n' || rest_[0] == '\r'))
      rest_.remove_prefix(1);
  }
  char next() const { return rest_.empty() ? '\0' : rest_[0]; }
  bool take(char c) {
    if (rest_.empty() || rest_[0] != c) return false;
    rest_.remove_prefix(1);
    return true;
  }
  void take_word(std::string_view word) {
    if (rest_.substr(0, word.size()) != word) refuse("an unknown word");
    rest_.remove_prefix(word.size());
  }

  Json parse_value(int depth) {
    if (depth > kMostDepth) refuse("too many levels");
    skip_space();
    Json value;
    switch (next()) {
      case '{': parse_object(value, depth); break;
      case '[': parse_list(value, depth); break;
      case '"':
        value.kind_ = Json::kText;
        value.text_ = parse_text();
        break;
      case 't':
      case 'f':
        value.kind_ = Json::kBool;
        value.number_ = next() == 't' ? 1.0 : 0.0;
        take_word(value.number_ != 0.0 ? "true" : "false");
        break;
      case 'n': take_word("null"); break;
      case 'N': take_number("NaN", std::nan(""), value); break;
      case 'I': take_number("Infinity", HUGE_VAL, value); break;
      default: parse_number(value);
    }
    return value;
  }

  void take_number(std::string_view word, double number, Json& value) {
    take_word(word);
    value.kind_ = Json::kNumber;
    value.number_ = number;
  }

  void parse_object(Json& value, int depth) {
    value.kind_ = Json::kObject;
    take('{');
    skip_space();
    if (take('}')) return;
    do {
      skip_space();
      if (next() != '"') refuse("a member without a name");
      std::string name = parse_text();
      skip_space();
      if (!take(':')) refuse("a name without a value");
      value.members_.emplace_back(std::move(name), parse_value(depth + 1));
      skip_space();
    } while (take(','));
    if (!take('}')) refuse("an object without an end");
  }

  void parse_list(Json& value, int depth) {
    value.kind_ = Json::kList;
    take('[');
    skip_space();
    if (take(']')) return;
    do {
      value.list_.push_back(parse_value(depth + 1));
      skip_space();
    } while (take(','));
    if (!take(']')) refuse("a list without an end");
  }

  std::string parse_text() {
    std::string out;
    take('"');
    while (!take('"')) {
      if (rest_.empty()) refuse("text without an end");
      const char c = rest_[0];
      rest_.remove_prefix(1);
      if (static_cast<unsigned char>(c) < 0x20) refuse("a control character in text");
      if (c == '\\')
        parse_escape(out);
      else
        out += c;
    }
    return out;
  }

  void parse_escape(std::string& out) {
    constexpr std::string_view kCodes = "\"\\/bfnrt", kMeanings = "\"\\/\b\f\n\r\t";
    const char c = next();
    if (!rest_.empty()) rest_.remove_prefix(1);
    const std::size_t place = kCodes.find(c);
    if (place != std::string_view::npos && c != '\0') {
      out += kMeanings[place];
    } else if (c == 'u') {
      std::uint32_t code = parse_four_digits();
      if (code >= 0xD800 && code < 0xDC00) {  // the first half of a pair
        if (!take('\\') || !take('u')) refuse("half a character");
        const std::uint32_t low = parse_four_digits();
        if (low < 0xDC00 || low >= 0xE000) refuse("half a character");
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
      } else if (code >= 0xDC00 && code < 0xE000) {
        refuse("half a character");
      }
      append_utf8(code, out);
    } else {
      refuse("an unknown escape");
    }
  }

  std::uint32_t parse_four_digits() {
    if (rest_.size() < 4) refuse("an unfinished escape");
    std::uint32_t code = 0;
    // NOLINTNEXTLINE(bugprone-suspicious-stringview-data-usage): the end is told
    const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + 4, code, 16);
    if (error != std::errc() || end != rest_.data() + 4) refuse("an unfinished escape");
    rest_.remove_prefix(4);
    return code;
  }

  void parse_number(Json& value) {
    if (rest_.substr(0, 2) == "-I") return take_number("-Infinity", -HUGE_VAL, value);
    std::size_t length = 0;
    const auto digits = [&] {
      const std::size_t first = length;
      while (length < rest_.size() && is_digit(rest_[length])) ++length;
      return length - first;
    };
    const auto is_next = [&](std::string_view any) {
      return length < rest_.size() && any.find(rest_[length]) != std::string_view::npos;
    };
    if (is_next("-")) ++length;
    const bool has_zero = is_next("0");
    const std::size_t whole = digits();
    bool is_number = whole > 0 && !(has_zero && whole > 1), is_whole = true;
    if (is_number && is_next(".")) {
      ++length, is_whole = false;
      is_number = digits() > 0;
    }
    if (is_number && is_next("eE")) {
      ++length, is_whole = false;
      if (is_next("+-")) ++length;
      is_number = digits() > 0;
    }
    if (!is_number) refuse("something that is no value");
    value.kind_ = Json::kNumber;
    // NOLINTNEXTLINE(bugprone-suspicious-stringview-data-usage): the end is told
    const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + length, value.number_);
    if (error != std::errc()) refuse("a number out of range");
    value.is_whole_ = is_whole && std::fabs(value.number_) <= kMostWhole;
    if (value.is_whole_) value.whole_ = static_cast<std::int64_t>(value.number_);
    rest_.remove_prefix(length);
  }

  std::string_view rest_;
};

Json Json::parse(std::string_view text) { return JsonParser(text).document(); }

void Json::refuse(const char* wanted) const {
  throw Error(GESDA_BAD_FILE, std::string("the header has ") + kind_name(kind_) + " where " + wanted + " should stand");
}

bool Json::boolean() const {
  if (kind_ != kBool) refuse("a truth value");
  return number_ != 0.0;
}

double Json::number() const {
  if (kind_ != kNumber) refuse("a number");
  return number_;
}

std::int64_t Json::integer() const {
  if (kind_ != kNumber || !is_whole_) refuse("a whole number");
  return whole_;
}

const std::string& Json::text() const {
  if (kind_ != kText) refuse("text");
  return text_;
}

const std::vector<Json>& Json::list() const {
  if (kind_ != kList) refuse("a list");
  return list_;
}

const std::vector<std::pair<std::string, Json>>& Json::object() const {
  if (kind_ != kObject) refuse("an object");
  return members_;
}

const Json* Json::find(std::string_view name) const {
  for (const auto& [key, value] : object())
    if (key == name) return &value;
  return nullptr;
}

const Json& Json::at(std::string_view name) const {
  const Json* found = find(name);
  if (found == nullptr) throw Error(GESDA_BAD_FILE, "the header lacks '" + std::string(name.substr(0, 60)) + "'");
  return *found;
}

}  // namespace gesda
