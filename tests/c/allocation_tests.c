/* A call that succeeds allocates nothing; an allocation or a thread that fails is FMG_ERROR_MEMORY:
 * seen through malloc and pthread_create themselves, which this program replaces (glibc).
 *
 *   allocation_tests BACKEND MODELS FAKE */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stddef.h>

#include "check.h"

extern void* __libc_malloc(size_t size);
extern void* __libc_memalign(size_t alignment, size_t size);

static volatile long allocations;
static volatile size_t refuse_above = (size_t)-1;

void* malloc(size_t size) {
  __atomic_add_fetch(&allocations, 1, __ATOMIC_RELAXED);
  return size > refuse_above ? NULL : __libc_malloc(size);
}

void* aligned_alloc(size_t alignment, size_t size) {
  __atomic_add_fetch(&allocations, 1, __ATOMIC_RELAXED);
  return size > refuse_above ? NULL : __libc_memalign(alignment, size);
}

static volatile int refuse_threads;

int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*body)(void*),
                   void* argument) {
  int (*real)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
  *(void**)&real = dlsym(RTLD_NEXT, "pthread_create");
  return refuse_threads ? EAGAIN : real(thread, attributes, body, argument);
}

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  backend = argv[1];
  enum { PIXELS = 64, N = 5 };
  fmg_options options = options_with(argv[3]);
  options.batch = 2;
  fmg_engine* engine = NULL;
  const long before_open = allocations;
  CHECK(fmg_open(in_folder(argv[2], "good.onnx"), &options, &engine) == FMG_OK);
  CHECK(allocations > before_open + 10); /* the counter counts */

  static int16_t in[N * PIXELS], out[N * PIXELS];
  static float floats_in[N * PIXELS], floats_out[N * PIXELS];
  const fmg_slices from = {sizeof from, in, FMG_INT16, FMG_SCALE_RANGE, -1000, 1000, 0, 0, 0};
  const fmg_slices to = {sizeof to, out, FMG_INT16, FMG_SCALE_RANGE, -1000, 1000, 0, 0, 0};
  volatile int cancel = 0;
  const fmg_call call = {sizeof call, 60 * 1000000, &cancel};
  const long before = allocations;
  for (int i = 0; i < 50; ++i) {
    CHECK(fmg_run(engine, floats_in, N, floats_out) == FMG_OK);
    CHECK(fmg_run_slices(engine, &from, N, &to, &call) == FMG_OK);
  }
  CHECK(allocations == before);
  fmg_close(engine);

  options.batch = 4096; /* [4096, 1, 8, 8] float32 are 1 MiB */
  refuse_above = (1 << 20) - 1;
  EXPECT(fmg_open(in_folder(argv[2], "good.onnx"), &options, &engine), FMG_ERROR_MEMORY,
         "out of memory");
  CHECK(engine == NULL);
  refuse_above = (size_t)-1;
  CHECK(fmg_open(in_folder(argv[2], "good.onnx"), &options, &engine) == FMG_OK);
  fmg_close(engine);

  if (strcmp(backend, "onnxruntime") == 0) { /* whose engines have a thread of ours */
    options.batch = 1;
    refuse_threads = 1;
    EXPECT(fmg_open(in_folder(argv[2], "good.onnx"), &options, &engine), FMG_ERROR_MEMORY,
           "no thread");
    refuse_threads = 0;
  }
  puts("allocation_tests: passed");
  return 0;
}
