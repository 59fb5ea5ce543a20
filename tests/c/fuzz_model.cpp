// libFuzzer target: the checks that a model file passes before a backend sees it. Any bytes end in
// facts or in FMG_ERROR_MODEL; anything else is a finding.
#include <cstdlib>

#include "core/error.h"
#include "fastmrigan.h"
#include "model_file/model_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const fastmrigan::ModelFacts facts = fastmrigan::check_model("fuzzed", data, size);
    if (facts.height < 1 || facts.width < 1) std::abort();
  } catch (const fastmrigan::Error& error) {
    if (error.code != FMG_ERROR_MODEL) std::abort();
  }
  return 0;
}
