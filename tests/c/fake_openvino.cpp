// A stand-in for libopenvino_c: it takes any bytes for a graph and computes -x. What it does
// wrong is set through fake_control(), so that tests meet every failure, and sanitizers see
// threads of nobody but ourselves and it.
//
//   FAKE_VERSION   the version it gives
//   FAKE_LACKS     leaves one function out
#include <openvino/c/openvino.h>
#include <pthread.h>
#include <time.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "fake_backend.h"

#ifndef FAKE_VERSION
#define FAKE_VERSION "2026.4.1-fake"
#endif

static fake_controls controls = {0, 0, 0, 0, 8, 8};

extern "C" fake_controls* fake_control(void) { return &controls; }

struct ov_core {};
struct ov_model {
  std::vector<int64_t> shape;
};
struct ov_compiled_model {
  std::vector<int64_t> shape;
};
struct ov_output_const_port {
  std::vector<int64_t> shape;
};
struct ov_tensor {
  float* data;
  int64_t count;
};

struct ov_infer_request {
  ov_tensor in, out;
  const ov_callback_t* callback = nullptr;  // the address is kept, as OpenVINO does
  pthread_t worker;
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
  bool asked = false, running = false, cancel = false, quit = false;
  ov_status_e status = ov_status_e::OK;
};

static ov_status_e compute(ov_infer_request* r) {
  for (int ms = 0; ms < controls.sleep_ms; ++ms) {
    const timespec tick = {0, 1000000};
    nanosleep(&tick, nullptr);
    pthread_mutex_lock(&r->mutex);
    const bool cancel = r->cancel;
    pthread_mutex_unlock(&r->mutex);
    if (cancel) return ov_status_e::INFER_CANCELLED;
  }
  if (controls.fail_run) return ov_status_e::GENERAL_ERROR;
  for (int64_t i = 0; i < r->out.count; ++i) r->out.data[i] = -r->in.data[i];
  if (controls.make_nan) r->out.data[0] = std::nanf("");
  return ov_status_e::OK;
}

static void* work(void* argument) {
  auto* r = static_cast<ov_infer_request*>(argument);
  pthread_mutex_lock(&r->mutex);
  while (true) {
    while (!r->asked && !r->quit) pthread_cond_wait(&r->changed, &r->mutex);
    if (r->quit) break;
    r->asked = false;
    pthread_mutex_unlock(&r->mutex);
    const ov_status_e status = compute(r);
    if (r->callback) r->callback->callback_func(r->callback->args);
    pthread_mutex_lock(&r->mutex);
    r->status = status;
    r->running = false;
    pthread_cond_broadcast(&r->changed);
  }
  pthread_mutex_unlock(&r->mutex);
  return nullptr;
}

static char* copy(const char* text) {
  char* made = new char[std::strlen(text) + 1];
  return std::strcpy(made, text);
}

extern "C" {

ov_status_e ov_get_openvino_version(ov_version_t* version) {
  version->buildNumber = copy(FAKE_VERSION);
  version->description = copy("fake");
  return ov_status_e::OK;
}
void ov_version_free(ov_version_t* version) {
  delete[] version->buildNumber;
  delete[] version->description;
}
const char* ov_get_last_err_msg() {
  return copy("Exception from fake.cpp:1:\n  the fake was told to fail\n\n");
}
void ov_free(const char* text) { delete[] text; }

ov_status_e ov_core_create(ov_core_t** core) {
  *core = new ov_core;
  return ov_status_e::OK;
}
ov_status_e ov_core_get_property(const ov_core_t*, const char*, const char* name, char** value) {
  *value = copy(std::strcmp(name, "OPTIMIZATION_CAPABILITIES") == 0 ? "FP32 INT8" : "a fake");
  return ov_status_e::OK;
}
ov_status_e ov_core_read_model_from_memory_buffer(const ov_core_t*, const char*, size_t,
                                                  const ov_tensor_t*, ov_model_t** model) {
  if (controls.refuse_graph) return ov_status_e::GENERAL_ERROR;
  *model = new ov_model{{-1, 1, controls.height, controls.width}};
  return ov_status_e::OK;
}
ov_status_e ov_core_compile_model(const ov_core_t*, const ov_model_t* model, const char*, size_t,
                                  ov_compiled_model_t** compiled, ...) {
  *compiled = new ov_compiled_model{model->shape};
  return ov_status_e::OK;
}
ov_status_e ov_model_inputs_size(const ov_model_t*, size_t* size) {
  *size = 1;
  return ov_status_e::OK;
}
ov_status_e ov_model_outputs_size(const ov_model_t*, size_t* size) {
  *size = 1;
  return ov_status_e::OK;
}
ov_status_e ov_model_const_input(const ov_model_t* model, ov_output_const_port_t** port) {
  *port = new ov_output_const_port{model->shape};
  return ov_status_e::OK;
}
void ov_model_free(ov_model_t* model) { delete model; }
ov_status_e ov_model_reshape_single_input(const ov_model_t* model, const ov_partial_shape_t to) {
  auto& shape = const_cast<ov_model*>(model)->shape;
  for (size_t i = 0; i < shape.size(); ++i) shape[i] = to.dims[i].min;
  return ov_status_e::OK;
}
ov_status_e ov_port_get_partial_shape(const ov_output_const_port_t* port, ov_partial_shape_t* to) {
  const auto rank = static_cast<int64_t>(port->shape.size());
  to->rank = {rank, rank};
  to->dims = new ov_dimension_t[port->shape.size()];
  for (size_t i = 0; i < port->shape.size(); ++i) to->dims[i] = {port->shape[i], port->shape[i]};
  return ov_status_e::OK;
}
ov_status_e ov_port_get_element_type(const ov_output_const_port_t*, ov_element_type_e* type) {
  *type = ov_element_type_e::F32;
  return ov_status_e::OK;
}
ov_status_e ov_const_port_get_shape(const ov_output_const_port_t* port, ov_shape_t* shape) {
  return ov_shape_create(static_cast<int64_t>(port->shape.size()), port->shape.data(), shape);
}
void ov_output_const_port_free(ov_output_const_port_t* port) { delete port; }
ov_status_e ov_partial_shape_create(const int64_t rank, const ov_dimension_t* dims,
                                    ov_partial_shape_t* shape) {
  shape->rank = {rank, rank};
  shape->dims = new ov_dimension_t[static_cast<size_t>(rank)];
  for (int64_t i = 0; i < rank; ++i) shape->dims[i] = dims[i];
  return ov_status_e::OK;
}
void ov_partial_shape_free(ov_partial_shape_t* shape) { delete[] shape->dims; }
ov_status_e ov_shape_create(const int64_t rank, const int64_t* dims, ov_shape_t* shape) {
  shape->rank = rank;
  shape->dims = new int64_t[static_cast<size_t>(rank)];
  for (int64_t i = 0; i < rank; ++i) shape->dims[i] = dims[i];
  return ov_status_e::OK;
}
ov_status_e ov_shape_free(ov_shape_t* shape) {
  delete[] shape->dims;
  return ov_status_e::OK;
}
ov_status_e ov_compiled_model_output(const ov_compiled_model_t* compiled,
                                     ov_output_const_port_t** port) {
  *port = new ov_output_const_port{compiled->shape};
  return ov_status_e::OK;
}
ov_status_e ov_compiled_model_create_infer_request(const ov_compiled_model_t*,
                                                   ov_infer_request_t** request) {
  *request = new ov_infer_request;
  pthread_create(&(*request)->worker, nullptr, work, *request);
  return ov_status_e::OK;
}
void ov_compiled_model_free(ov_compiled_model_t* compiled) { delete compiled; }
ov_status_e ov_tensor_create_from_host_ptr(const ov_element_type_e, const ov_shape_t shape,
                                           void* memory, ov_tensor_t** tensor) {
  int64_t count = 1;
  for (int64_t i = 0; i < shape.rank; ++i) count *= shape.dims[i];
  *tensor = new ov_tensor{static_cast<float*>(memory), count};
  return ov_status_e::OK;
}
void ov_tensor_free(ov_tensor_t* tensor) { delete tensor; }
ov_status_e ov_infer_request_set_input_tensor(ov_infer_request_t* r, const ov_tensor_t* tensor) {
  r->in = *tensor;
  return ov_status_e::OK;
}
ov_status_e ov_infer_request_set_output_tensor(ov_infer_request_t* r, const ov_tensor_t* tensor) {
  r->out = *tensor;
  return ov_status_e::OK;
}
ov_status_e ov_infer_request_infer(ov_infer_request_t* r) { return compute(r); }
ov_status_e ov_infer_request_start_async(ov_infer_request_t* r) {
  pthread_mutex_lock(&r->mutex);
  r->asked = r->running = true;
  r->cancel = false;
  pthread_cond_broadcast(&r->changed);
  pthread_mutex_unlock(&r->mutex);
  return ov_status_e::OK;
}
ov_status_e ov_infer_request_wait(ov_infer_request_t* r) {
  pthread_mutex_lock(&r->mutex);
  while (r->running) pthread_cond_wait(&r->changed, &r->mutex);
  const ov_status_e status = r->status;
  pthread_mutex_unlock(&r->mutex);
  return status;
}
#ifndef FAKE_LACKS
ov_status_e ov_infer_request_cancel(ov_infer_request_t* r) {
  pthread_mutex_lock(&r->mutex);
  r->cancel = true;
  pthread_mutex_unlock(&r->mutex);
  return ov_status_e::OK;
}
#endif
ov_status_e ov_infer_request_set_callback(ov_infer_request_t* r, const ov_callback_t* callback) {
  r->callback = callback;
  return ov_status_e::OK;
}
ov_status_e ov_infer_request_get_profiling_info(const ov_infer_request_t*,
                                                ov_profiling_info_list_t*) {
  return ov_status_e::NOT_IMPLEMENTED;
}
void ov_profiling_info_list_free(ov_profiling_info_list_t*) {}
void ov_infer_request_free(ov_infer_request_t* r) {
  pthread_mutex_lock(&r->mutex);
  r->quit = true;
  pthread_cond_broadcast(&r->changed);
  pthread_mutex_unlock(&r->mutex);
  pthread_join(r->worker, nullptr);
  delete r;
}

}  // extern "C"
