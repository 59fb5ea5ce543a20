// The other side of c_api: a backend's own C API, as its users call it.
#pragma once

#include <dlfcn.h>
#include <fastmrigan.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

[[noreturn]] inline void stop(const std::string& what) {
  std::fprintf(stderr, "c_api: %s\n", what.c_str());
  std::exit(6);
}

// A function of a library, by its declaration in the backend's header.
template <typename Function>
Function* find(void* library, const char* name) {
  void* found = dlsym(library, name);
  if (found == nullptr) stop(std::string("no ") + name);
  return reinterpret_cast<Function*>(found);
}

// One slice's input and output, and the call between them.
struct Bare {
  virtual ~Bare() = default;
  virtual void infer() = 0;

  float* input = nullptr;
  const float* output = nullptr;
};

// library: the backend's, opened. info: of the engine that it is compared with.
std::unique_ptr<Bare> open_bare_openvino(void* library, const char* model, const fmg_info& info);
std::unique_ptr<Bare> open_bare_onnxruntime(void* library, const char* model, const fmg_info& info);
