#include "model_file/json.h"

#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <stdexcept>

namespace fastmrigan {
namespace {

constexpr int MAX_DEPTH = 64;

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Json document() {
    Json result = value(0);
    space();
    if (at_ != text_.size()) fail("more after its end");
    return result;
  }

 private:
  [[noreturn]] void fail(const char* what) const {
    throw std::invalid_argument(std::string(what) + " at byte " + std::to_string(at_));
  }

  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

  void space() {
    while (at_ < text_.size() &&
           (peek() == ' ' || peek() == '\t' || peek() == '\n' || peek() == '\r'))
      ++at_;
  }

  bool take(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }

  Json value(int depth) {
    if (depth > MAX_DEPTH) fail("nested too deep");
    space();
    if (take("{")) return object(depth);
    if (take("[")) return array(depth);
    if (take("\"")) return {string()};
    if (take("true")) return {true};
    if (take("false")) return {false};
    if (take("null")) return {nullptr};
    if (take("NaN")) return {Json::Number{std::numeric_limits<double>::quiet_NaN(), false}};
    if (take("Infinity")) return {Json::Number{std::numeric_limits<double>::infinity(), false}};
    if (take("-Infinity")) return {Json::Number{-std::numeric_limits<double>::infinity(), false}};
    return {number()};
  }

  Json object(int depth) {
    Json::Object members;
    space();
    if (take("}")) return {std::move(members)};
    do {
      space();
      if (!take("\"")) fail("expected a name");
      std::string name = string();
      space();
      if (!take(":")) fail("expected ':'");
      members.insert_or_assign(std::move(name), value(depth + 1));
      space();
    } while (take(","));
    if (!take("}")) fail("expected ',' or '}'");
    return {std::move(members)};
  }

  Json array(int depth) {
    Json::Array items;
    space();
    if (take("]")) return {std::move(items)};
    do {
      items.push_back(value(depth + 1));
      space();
    } while (take(","));
    if (!take("]")) fail("expected ',' or ']'");
    return {std::move(items)};
  }

  std::string string() {
    std::string out;
    while (true) {
      if (at_ >= text_.size()) fail("a string without end");
      const char c = text_[at_++];
      if (c == '"') return out;
      if (static_cast<unsigned char>(c) < 0x20) fail("a control character in a string");
      if (c == '\\')
        escape(out);
      else
        out += c;
    }
  }

  void escape(std::string& out) {
    constexpr std::string_view from = "\"\\/bfnrt", to = "\"\\/\b\f\n\r\t";
    const char c = peek();
    ++at_;
    if (const size_t i = c == '\0' ? from.npos : from.find(c); i != from.npos) {
      out += to[i];
      return;
    }
    if (c != 'u') fail("an unknown escape");
    uint32_t point = hex4();
    if (point >= 0xD800 && point < 0xDC00 && take("\\u")) {
      const uint32_t low = hex4();
      if (low < 0xDC00 || low > 0xDFFF) fail("half of a surrogate pair");
      point = 0x10000 + ((point - 0xD800) << 10) + (low - 0xDC00);
    }
    if (point >= 0xD800 && point < 0xE000) fail("half of a surrogate pair");
    utf8(point, out);
  }

  uint32_t hex4() {
    uint32_t result = 0;
    const char* begin = text_.data() + at_;
    if (text_.size() - at_ < 4 || std::from_chars(begin, begin + 4, result, 16).ptr != begin + 4)
      fail("expected four hexadecimal digits");
    at_ += 4;
    return result;
  }

  static void utf8(uint32_t point, std::string& out) {
    if (point < 0x80) {
      out += static_cast<char>(point);
      return;
    }
    const int more = point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
    constexpr uint32_t lead[4] = {0, 0xC0, 0xE0, 0xF0};
    out += static_cast<char>(lead[more] | point >> (6 * more));
    for (int k = more - 1; k >= 0; --k) out += static_cast<char>(0x80 | (point >> (6 * k) & 0x3F));
  }

  bool digits() {
    const size_t start = at_;
    while (peek() >= '0' && peek() <= '9') ++at_;
    return at_ > start;
  }

  Json::Number number() {
    const size_t start = at_;
    take("-");
    if (!take("0") && !digits()) fail("expected a value");
    bool whole = true;
    if (take(".")) {
      whole = false;
      if (!digits()) fail("expected a digit");
    }
    if (take("e") || take("E")) {
      whole = false;
      if (!take("+")) take("-");
      if (!digits()) fail("expected a digit");
    }
    // from_chars, unlike strtod, does not ask the process's locale what a decimal point is.
    double result = 0;
    const auto [end, error] = std::from_chars(text_.data() + start, text_.data() + at_, result);
    if (error == std::errc::result_out_of_range) fail("a number out of range");
    return {result, whole};
  }

  std::string_view text_;
  size_t at_ = 0;
};

}  // namespace

const Json* Json::at(const std::string& key) const {
  const Object* members = as<Object>();
  if (members == nullptr) return nullptr;
  const auto found = members->find(key);
  return found == members->end() ? nullptr : &found->second;
}

Json parse_json(std::string_view text) { return Parser(text).document(); }

}  // namespace fastmrigan
