#include "core/isa.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace fastmrigan {

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::avx512:
      return "avx512";
    case Isa::avx2:
      return "avx2";
    case Isa::baseline:
      return "baseline";
  }
  return "unknown";
}

bool isa_supported(Isa isa) {
#ifdef FASTMRIGAN_X86
  switch (isa) {
    case Isa::avx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    case Isa::avx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case Isa::baseline:
      return true;
  }
#endif
  return isa == Isa::baseline;
}

static Isa choose() {
  const Isa best_first[] = {Isa::avx512, Isa::avx2, Isa::baseline};
  const char* forced = std::getenv("FASTMRIGAN_ISA");
  for (Isa isa : best_first) {
    if (forced == nullptr || *forced == '\0') {
      if (isa_supported(isa)) return isa;
    } else if (std::string(forced) == isa_name(isa)) {
      if (isa_supported(isa)) return isa;
      throw std::invalid_argument(std::string("FASTMRIGAN_ISA=") + forced +
                                  ": this processor lacks it; unset it or take baseline");
    }
  }
  throw std::invalid_argument(std::string("FASTMRIGAN_ISA=") + forced +
                              ": expected baseline, avx2 or avx512");
}

Isa active_isa() {
  static const Isa isa = choose();
  return isa;
}

}  // namespace fastmrigan
