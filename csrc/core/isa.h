// The instruction sets a kernel is compiled for, and the choice among them at run time.
#pragma once

namespace fastmrigan {

enum class Isa { baseline, avx2, avx512 };

// The best set this processor has, or the one the environment variable FASTMRIGAN_ISA names.
// Throws std::invalid_argument where that name is unknown or the processor lacks the set.
Isa active_isa();

const char* isa_name(Isa isa);

// True where the processor and the build have the set.
bool isa_supported(Isa isa);

}  // namespace fastmrigan

// Declares the same function once per instruction set, each in a namespace of its own.
#define FASTMRIGAN_DECLARE_PER_ISA(declaration) \
  namespace baseline {                          \
  declaration;                                  \
  }                                             \
  namespace avx2 {                              \
  declaration;                                  \
  }                                             \
  namespace avx512 {                            \
  declaration;                                  \
  }

// Calls that function for the set in use.
#ifdef FASTMRIGAN_X86
#define FASTMRIGAN_CALL_PER_ISA(call)   \
  switch (::fastmrigan::active_isa()) { \
    case ::fastmrigan::Isa::avx512:     \
      return avx512::call;              \
    case ::fastmrigan::Isa::avx2:       \
      return avx2::call;                \
    case ::fastmrigan::Isa::baseline:   \
      return baseline::call;            \
  }
#else
#define FASTMRIGAN_CALL_PER_ISA(call) return baseline::call;
#endif
