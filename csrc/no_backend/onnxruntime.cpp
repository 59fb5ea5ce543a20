// Linked where the library is built without ONNX Runtime's header.
#include "core/error.h"
#include "engine/engine.h"
#include "include/fastmrigan.h"

namespace fastmrigan {

std::unique_ptr<Engine> open_onnxruntime(const ModelBytes&, const EngineOptions&) {
  throw Error(FMG_ERROR_BACKEND_MISSING,
              "backend onnxruntime: this libfastmrigan was built without it; build it with "
              "-DONNXRUNTIME_INCLUDE_DIR=, the folder of onnxruntime_c_api.h");
}

}  // namespace fastmrigan
