/* The real backend, from opening to closing, and its own words where it refuses.
 *
 *   backend_tests BACKEND MODELS LIBRARY */
#include "check.h"

enum { PIXELS = 64, N = 5 };

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  backend = argv[1];
  fmg_options options = options_with(argv[3]);
  options.batch = 2;
  char refusal[64];
  snprintf(refusal, sizeof refusal, "%s refuses the graph", backend);
  fmg_engine* engine = NULL;
  for (int round = 0; round < 3; ++round) {
    CHECK(fmg_open(in_folder(argv[2], "good.onnx"), &options, &engine) == FMG_OK);
    float in[N * PIXELS], out[N * PIXELS];
    int16_t pixels[N * PIXELS], translated[N * PIXELS];
    for (int i = 0; i < N * PIXELS; ++i) {
      pixels[i] = (int16_t)(i * 3 - 500);
      in[i] = (float)i / (N * PIXELS);
    }
    CHECK(fmg_run(engine, in, N, out) == FMG_OK);
    for (int i = 0; i < N * PIXELS; ++i) CHECK(out[i] == -in[i]);
    const fmg_slices from = {sizeof from, pixels, FMG_INT16, FMG_SCALE_RANGE, -1000, 1000, 0, 0, 0};
    const fmg_slices to = {sizeof to, translated, FMG_INT16, FMG_SCALE_RANGE, -1000, 1000, 0, 0, 0};
    volatile int cancel = 0;
    const fmg_call call = {sizeof call, 60 * 1000000, &cancel};
    CHECK(fmg_run_slices(engine, &from, N, &to, &call) == FMG_OK);
    for (int i = 0; i < N * PIXELS; ++i) CHECK(translated[i] == -pixels[i]);
    cancel = 1;
    EXPECT(fmg_run_slices(engine, &from, N, &to, &call), FMG_ERROR_CANCELLED, "cancelled");
    fmg_close(engine);
    /* A whole file by our checks, with an operator nobody knows. */
    EXPECT(fmg_open(in_folder(argv[2], "unknown.onnx"), &options, &engine), FMG_ERROR_BACKEND,
           refusal);
    EXPECT(fmg_open(in_folder(argv[2], "othersize.onnx"), &options, &engine), FMG_ERROR_MODEL,
           "does not take float32 [2, 1, 9, 8]");
  }
  puts("backend_tests: passed");
  return 0;
}
