#include "engine/precision.h"

#include <cstring>

#include "core/error.h"
#include "include/fastmrigan.h"

namespace fastmrigan {

void check_precision(const Precisions& backend, const std::string& name, const std::string& typed,
                     const std::string& asked) {
  const auto refuse = [](const std::string& text) { return Error(FMG_ERROR_OPTIONS, text); };
  const auto among = [](const char* words, const std::string& word) {
    return std::strstr(words, word.c_str()) != nullptr;  // no precision's name is part of another's
  };
  if (typed == "fp32") {
    if (among(backend.offered, asked)) return;
    throw refuse("precision '" + asked + "': " + backend.backend + " offers " + backend.offered);
  }
  if (asked != "auto" && asked != typed)
    throw refuse("precision '" + asked + "': " + name + " is typed in " + typed +
                 " and runs in nothing else; take auto, or export it with --precision " + asked);
  if (!among(backend.typed, typed))
    throw refuse(std::string("backend ") + backend.backend + ": cannot run " + name +
                 ", which is typed in " + typed +
                 "; take another backend, or export it with --precision fp32");
}

}  // namespace fastmrigan
