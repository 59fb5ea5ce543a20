/* One engine a thread, one engine shared, and calls that end early from another thread.
 *
 *   threads_tests BACKEND MODELS FAKE */
#include <pthread.h>
#include <time.h>

#include "check.h"

enum { THREADS = 4, CALLS = 200, PIXELS = 64 };

static const char *models, *fake;

static fmg_engine* open_good(void) {
  const fmg_options options = options_with(fake);
  char path[4096];
  snprintf(path, sizeof path, "%s/good.onnx", models);
  fmg_engine* engine = NULL;
  CHECK(fmg_open(path, &options, &engine) == FMG_OK);
  return engine;
}

static fmg_slices floats(float* data) {
  const fmg_slices slices = {sizeof slices, data, FMG_FLOAT32, FMG_SCALE_MODEL, 0, 0, 0, 0, 0};
  return slices;
}

/* argument NULL: an engine of its own. */
static void* many_calls(void* argument) {
  fmg_engine* engine = argument != NULL ? argument : open_good();
  const fmg_call call = {sizeof call, 60 * 1000000, NULL};
  float in[PIXELS], out[PIXELS];
  for (int k = 0; k < CALLS; ++k) {
    for (int i = 0; i < PIXELS; ++i) in[i] = (float)(k * PIXELS + i) + (float)(size_t)&in / 1e20f;
    const fmg_slices from = floats(in), to = floats(out);
    if (k % 2 == 0)
      CHECK(fmg_run(engine, in, 1, out) == FMG_OK);
    else
      CHECK(fmg_run_slices(engine, &from, 1, &to, &call) == FMG_OK);
    for (int i = 0; i < PIXELS; ++i) CHECK(out[i] == -in[i]);
    EXPECT(fmg_run(engine, NULL, 1, out), FMG_ERROR_ARGUMENT, "in is NULL");
  }
  if (argument == NULL) fmg_close(engine);
  return NULL;
}

static void in_threads(void* (*body)(void*), void* argument) {
  pthread_t threads[THREADS];
  for (int i = 0; i < THREADS; ++i) CHECK(pthread_create(&threads[i], NULL, body, argument) == 0);
  for (int i = 0; i < THREADS; ++i) CHECK(pthread_join(threads[i], NULL) == 0);
}

struct early {
  fmg_engine* engine;
  volatile int cancel;
  int64_t deadline_us;
  int code;
};

static void* one_call(void* argument) {
  struct early* early = argument;
  float in[PIXELS] = {0}, out[PIXELS];
  const fmg_slices from = floats(in), to = floats(out);
  const fmg_call call = {sizeof call, early->deadline_us, &early->cancel};
  early->code = fmg_run_slices(early->engine, &from, 1, &to, &call);
  return NULL;
}

static void pause_ms(long ms) {
  const struct timespec time = {ms / 1000, ms % 1000 * 1000000};
  nanosleep(&time, NULL);
}

/* The first call runs and is cancelled; the second queues behind it until its deadline. */
static void early_ends(void) {
  fmg_engine* engine = open_good();
  controls_of(fake)->sleep_ms = 60000;
  struct early running = {engine, 0, 0, -1}, queued = {engine, 0, 20000, -1};
  pthread_t first, second;
  CHECK(pthread_create(&first, NULL, one_call, &running) == 0);
  pause_ms(20);
  CHECK(pthread_create(&second, NULL, one_call, &queued) == 0);
  CHECK(pthread_join(second, NULL) == 0);
  CHECK(queued.code == FMG_ERROR_DEADLINE);
  __atomic_store_n(&running.cancel, 1, __ATOMIC_RELEASE);
  CHECK(pthread_join(first, NULL) == 0);
  CHECK(running.code == FMG_ERROR_CANCELLED);
  controls_of(fake)->sleep_ms = 0;
  many_calls(engine);
  fmg_close(engine);
}

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  backend = argv[1], models = argv[2], fake = argv[3];
  in_threads(many_calls, NULL);
  fmg_engine* shared = open_good();
  in_threads(many_calls, shared);
  fmg_close(shared);
  early_ends();
  CHECK(strstr(fmg_last_error(), "in is NULL") != NULL); /* this thread's own last one */
  puts("threads_tests: passed");
  return 0;
}
