/* Checks of the C tests: a failed one names its line and ends the process. */
#ifndef CHECK_H
#define CHECK_H

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake_backend.h"
#include "fastmrigan.h"

#define CHECK(condition)                                                                    \
  do {                                                                                      \
    if (!(condition)) {                                                                     \
      fprintf(stderr, "%s:%d: %s failed; last error: %s\n", __FILE__, __LINE__, #condition, \
              fmg_last_error());                                                            \
      exit(1);                                                                              \
    }                                                                                       \
  } while (0)

/* The code, and a part of the text that comes with it. */
#define EXPECT(call, expected, part)                                                             \
  do {                                                                                           \
    const int code = (call);                                                                     \
    if (code != (expected) || strstr(fmg_last_error(), part) == NULL ||                          \
        strchr(fmg_last_error(), '\n') != NULL) {                                                \
      fprintf(stderr, "%s:%d: %s gave %s (%s), expected %s (…%s…)\n", __FILE__, __LINE__, #call, \
              fmg_code_name(code), fmg_last_error(), fmg_code_name(expected), part);             \
      exit(1);                                                                                   \
    }                                                                                            \
  } while (0)

static inline const char* in_folder(const char* folder, const char* name) {
  static char path[4096];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  return path;
}

/* Of every engine that is opened: each program is run for one backend. */
static const char* backend;

/* The stand-in's controls: the same library that the engine opens. */
static inline fake_controls* controls_of(const char* library) {
  void* handle = dlopen(library, RTLD_NOW);
  if (handle == NULL) {
    fprintf(stderr, "%s\n", dlerror());
    exit(1);
  }
  fake_control_function* control;
  *(void**)&control = dlsym(handle, "fake_control");
  return control();
}

static inline fmg_options options_with(const char* library) {
  fmg_options options;
  fmg_options_init(&options);
  options.backend = backend;
  options.library = library;
  options.threads = 1;
  return options;
}

#endif
