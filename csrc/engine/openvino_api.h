// The functions of OpenVINO's C API that are used, loaded from its shared library.
#pragma once

#include <openvino/c/openvino.h>

#include <memory>
#include <mutex>
#include <string>

namespace fastmrigan {

#define FASTMRIGAN_OPENVINO_FUNCTIONS(f)                                                           \
  f(ov_get_openvino_version) f(ov_version_free) f(ov_get_last_err_msg) f(ov_free)                  \
      f(ov_core_create) f(ov_core_get_property) f(ov_core_read_model_from_memory_buffer)           \
          f(ov_core_compile_model) f(ov_model_inputs_size) f(ov_model_outputs_size) f(             \
              ov_model_const_input) f(ov_model_free) f(ov_model_reshape_single_input)              \
              f(ov_port_get_partial_shape) f(ov_port_get_element_type) f(ov_const_port_get_shape)  \
                  f(ov_output_const_port_free) f(ov_partial_shape_create) f(ov_partial_shape_free) \
                      f(ov_shape_create) f(ov_shape_free) f(ov_compiled_model_output)              \
                          f(ov_compiled_model_create_infer_request) f(ov_compiled_model_free)      \
                              f(ov_tensor_create_from_host_ptr) f(ov_tensor_free) f(               \
                                  ov_infer_request_set_input_tensor)                               \
                                  f(ov_infer_request_set_output_tensor) f(ov_infer_request_infer)  \
                                      f(ov_infer_request_start_async) f(ov_infer_request_wait)     \
                                          f(ov_infer_request_cancel)                               \
                                              f(ov_infer_request_set_callback)                     \
                                                  f(ov_infer_request_get_profiling_info)           \
                                                      f(ov_profiling_info_list_free)               \
                                                          f(ov_infer_request_free)

// The loaded library, and its one core.
struct OpenVINO {
#define FASTMRIGAN_DECLARE(function) decltype(::function)* function;
  FASTMRIGAN_OPENVINO_FUNCTIONS(FASTMRIGAN_DECLARE)
#undef FASTMRIGAN_DECLARE

  std::string version;
  ov_core_t* core = nullptr;

  // Throws Error with OpenVINO's own text where a call failed. subject: what the message is about.
  void check(ov_status_e status, const std::string& subject, int code) const;
  std::string property(const char* name) const;  // of the CPU

  template <typename T>
  using Owned = std::unique_ptr<T, void (*)(T*)>;
};

// The library at `path`, or by its plain name where that is empty; loaded once and never freed.
//
// One core for the process: each core's CPU plugin puts a signal stack in place and takes it away
// when freed, restoring the one before (seen with 2026.4 on a processor with AMX). Of two cores the
// first freed first, the other restores memory that is no longer mapped.
const OpenVINO& load_openvino(const std::string& path);

}  // namespace fastmrigan
