// Shared libraries opened while running. They are never closed: an inference library leaves threads
// and signal stacks behind that outlive any handle.
#pragma once

#include <string>
#include <vector>

namespace fastmrigan {

class Library {
 public:
  // Opens the first of `names` that can be loaded. purpose, remedy: what for, in messages ("backend
  // openvino"). Throws Error FMG_ERROR_BACKEND_MISSING.
  Library(const std::string& purpose, const std::vector<std::string>& names,
          const char* remedy = "install it, or name its path in fmg_options.library");

  // Throws Error FMG_ERROR_BACKEND_VERSION where the library lacks the function.
  template <typename Function>
  void load(Function*& function, const char* name) const {
    function = reinterpret_cast<Function*>(symbol(name));
  }

 private:
  void* symbol(const char* name) const;

  void* handle_ = nullptr;
  std::string purpose_, name_;
};

}  // namespace fastmrigan
