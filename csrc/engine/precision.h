// What a backend may compute a file in: the checks of fastmrigan/runtime/backends/__init__.py. A
// typed file runs as it is typed, or not at all.
#pragma once

#include <string>

namespace fastmrigan {

struct Precisions {
  const char* backend;
  const char* offered;  // for a file in fp32, such as "auto, fp32"
  const char* typed;    // files in these run, such as "fp16, int8"
};

// name: what messages call the file; typed: what it is typed in; asked: of fmg_options.
// Throws Error FMG_ERROR_OPTIONS.
void check_precision(const Precisions& backend, const std::string& name, const std::string& typed,
                     const std::string& asked);

}  // namespace fastmrigan
