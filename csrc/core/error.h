// What goes wrong in the C library, with the code of fastmrigan.h that it becomes.
#pragma once

#include <stdexcept>
#include <string>

namespace fastmrigan {

struct Error : std::runtime_error {
  Error(int code, const std::string& text) : std::runtime_error(text), code(code) {}
  int code;
};

}  // namespace fastmrigan
