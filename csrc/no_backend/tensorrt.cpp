// Linked where the library is built without TensorRT's headers.
#include "core/error.h"
#include "engine/engine.h"
#include "include/fastmrigan.h"

namespace fastmrigan {

std::unique_ptr<Engine> open_tensorrt(const ModelBytes&, const EngineOptions&) {
  throw Error(FMG_ERROR_BACKEND_MISSING,
              "backend tensorrt: this libfastmrigan was built without it; build it with "
              "-DTENSORRT_INCLUDE_DIR=, the folder of NvInfer.h");
}

}  // namespace fastmrigan
