// As much of JSON (RFC 8259) as the metadata of a model file needs: strict, bounded in depth, and
// with NaN, Infinity and -Infinity, which Python's json writes.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace fastmrigan {

struct Json {
  using Array = std::vector<Json>;
  using Object = std::map<std::string, Json>;  // of two equal keys the last counts, as in Python
  struct Number {
    double value;
    bool whole;  // written without fraction and exponent
  };

  std::variant<std::nullptr_t, bool, Number, std::string, Array, Object> value;

  // nullptr where it is of another type.
  template <typename T>
  const T* as() const {
    return std::get_if<T>(&value);
  }
  // The value under a key; nullptr where this is no object or lacks it.
  const Json* at(const std::string& key) const;
};

// Throws std::invalid_argument with the reason.
Json parse_json(std::string_view text);

}  // namespace fastmrigan
