#include "engine/library.h"

#include <dlfcn.h>

#include "core/error.h"
#include "include/fastmrigan.h"

namespace fastmrigan {

Library::Library(const std::string& purpose, const std::vector<std::string>& names,
                 const char* remedy)
    : purpose_(purpose) {
  std::string reason;
  for (const std::string& name : names) {
    handle_ = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle_ != nullptr) {
      name_ = name;
      return;
    }
    const char* text = dlerror();
    reason = text != nullptr ? text : "no reason given";
  }
  throw Error(FMG_ERROR_BACKEND_MISSING,
              purpose + ": cannot load its library (" + reason + "); " + remedy);
}

void* Library::symbol(const char* name) const {
  void* found = dlsym(handle_, name);
  if (found == nullptr)
    throw Error(FMG_ERROR_BACKEND_VERSION, purpose_ + ": " + name_ + " lacks " + name +
                                               "; take a version that this library was built for");
  return found;
}

}  // namespace fastmrigan
