// Read, reshape to one slice, compile, infer.
#include <openvino/c/openvino.h>

#include <cstring>

#include "bare.h"

#define OV(name) find<decltype(::name)>(library, #name)

namespace {

void good(ov_status_e status) {
  if (status != ov_status_e::OK) stop("OpenVINO: status " + std::to_string(status));
}

struct OpenVINO final : Bare {
  OpenVINO(void* library, const char* model, const fmg_info& info)
      : run(OV(ov_infer_request_infer)) {
    ov_core_t* core = nullptr;
    good(OV(ov_core_create)(&core));
    ov_model_t* graph = nullptr;
    good(OV(ov_core_read_model)(core, model, nullptr, &graph));
    const int64_t sides[] = {1, 1, info.height, info.width};
    ov_partial_shape_t partial{};
    good(OV(ov_partial_shape_create_static)(4, sides, &partial));
    good(OV(ov_model_reshape_single_input)(graph, partial));
    ov_compiled_model_t* compiled = nullptr;
    const char* precision = std::strcmp(info.precision, "bf16") == 0 ? "bf16" : "f32";
    const std::string threads = std::to_string(info.threads);
    good(OV(ov_core_compile_model)(core, graph, "CPU", 6, &compiled, "INFERENCE_PRECISION_HINT",
                                   precision, "INFERENCE_NUM_THREADS", threads.c_str(),
                                   "NUM_STREAMS", "1"));
    good(OV(ov_compiled_model_create_infer_request)(compiled, &request));
    ov_tensor_t *in = nullptr, *out = nullptr;
    good(OV(ov_infer_request_get_input_tensor)(request, &in));
    good(OV(ov_infer_request_get_output_tensor)(request, &out));
    void* data = nullptr;
    good(OV(ov_tensor_data)(in, &data));
    input = static_cast<float*>(data);
    good(OV(ov_tensor_data)(out, &data));
    output = static_cast<const float*>(data);
  }

  void infer() override { good(run(request)); }

  decltype(::ov_infer_request_infer)* run;
  ov_infer_request_t* request = nullptr;
};

}  // namespace

std::unique_ptr<Bare> open_bare_openvino(void* library, const char* model, const fmg_info& info) {
  return std::make_unique<OpenVINO>(library, model, info);
}
