/* Every code and every kind of bad input, on a stand-in for the backend.
 *
 *   codes_tests BACKEND MODELS FAKE OLD LACKING
 *
 * MODELS: the folder of model files that test_c_library.py writes; the rest: stand-ins. */
#include <math.h>

#include "check.h"

enum { SIDE = 8, PIXELS = SIDE * SIDE };

static const char* models;
static const char* fake;

static int open_named(const char* name, const fmg_options* options) {
  fmg_engine* engine = (fmg_engine*)&engine;
  const int code = fmg_open(in_folder(models, name), options, &engine);
  CHECK((code == FMG_OK) == (engine != NULL));
  fmg_close(engine);
  return code;
}

/* What is said differs between the backends. */
static const char* said(const char* openvino, const char* onnxruntime) {
  return strcmp(backend, "openvino") == 0 ? openvino : onnxruntime;
}

static fmg_engine* open_good(int batch) {
  fmg_options options = options_with(fake);
  options.batch = batch;
  fmg_engine* engine = NULL;
  CHECK(fmg_open(in_folder(models, "good.onnx"), &options, &engine) == FMG_OK);
  return engine;
}

static fmg_slices floats(float* data) {
  fmg_slices slices;
  memset(&slices, 0, sizeof slices);
  slices.size = sizeof slices;
  slices.data = data;
  slices.type = FMG_FLOAT32;
  slices.scale = FMG_SCALE_MODEL;
  return slices;
}

static void names(void) {
  CHECK(strcmp(fmg_last_error(), "") == 0); /* nothing has gone wrong yet */
  CHECK(strcmp(fmg_code_name(FMG_OK), "FMG_OK") == 0);
  CHECK(strcmp(fmg_code_name(FMG_ERROR_BUG), "FMG_ERROR_BUG") == 0);
  CHECK(strcmp(fmg_code_name(-1), "unknown code") == 0);
  CHECK(strcmp(fmg_code_name(FMG_ERROR_BUG + 1), "unknown code") == 0);
  /* Numbers in the field are kept for ever. */
  CHECK(FMG_ERROR_ARGUMENT == 1 && FMG_ERROR_OPTIONS == 2 && FMG_ERROR_FILE == 3);
  CHECK(FMG_ERROR_MODEL == 4 && FMG_ERROR_BACKEND_MISSING == 5 && FMG_ERROR_BACKEND_VERSION == 6);
  CHECK(FMG_ERROR_BACKEND == 7 && FMG_ERROR_INPUT == 8 && FMG_ERROR_OUTPUT == 9);
  CHECK(FMG_ERROR_DEADLINE == 10 && FMG_ERROR_CANCELLED == 11 && FMG_ERROR_MEMORY == 12);
  CHECK(FMG_ERROR_BUG == 13);
  CHECK(strlen(fmg_version()) >= 5);
}

static void model_files(void) {
  static const struct {
    const char* name;
    int code;
    const char* part;
  } table[] = {
      {"good.onnx", FMG_OK, ""},
      {"absent.onnx", FMG_ERROR_FILE, "No such file"},
      {".", FMG_ERROR_FILE, "cannot read the model file"},
      {"empty.onnx", FMG_ERROR_MODEL, "it holds no graph"},
      {"truncated.onnx", FMG_ERROR_MODEL, "not a whole ONNX file"},
      {"text.onnx", FMG_ERROR_MODEL, "not a whole ONNX file"},
      {"plain.onnx", FMG_ERROR_MODEL, "has no fastmrigan metadata"},
      {"newer.onnx", FMG_ERROR_MODEL, "schema version 2, this fastmrigan knows up to 1"},
      {"altered.onnx", FMG_ERROR_MODEL, "its graph is not the one that was exported"},
      {"external.onnx", FMG_ERROR_MODEL, "ONNX external data"},
      {"notjson.onnx", FMG_ERROR_MODEL, "is not JSON"},
      {"deepjson.onnx", FMG_ERROR_MODEL, "is not JSON"},
      {"notask.onnx", FMG_ERROR_MODEL, "wrong at task"},
      {"negative.onnx", FMG_ERROR_MODEL, "wrong at slice_size"},
      {"fraction.onnx", FMG_ERROR_MODEL, "wrong at slice_size"},
      {"nolatent.onnx", FMG_ERROR_MODEL, "wrong at latent_size"},
      {"othersize.onnx", FMG_ERROR_MODEL, "its graph does not take float32 [1, 1, 9, 8]"},
  };
  const fmg_options options = options_with(fake);
  for (size_t i = 0; i < sizeof table / sizeof table[0]; ++i)
    EXPECT(open_named(table[i].name, &options), table[i].code,
           table[i].code == FMG_OK ? "" : table[i].part);
}

static void option_values(void) {
  fmg_options options = options_with(fake);
  options.size -= 4;
  EXPECT(open_named("good.onnx", &options), FMG_ERROR_OPTIONS, "fmg_options.size");
  options = options_with(fake);
  options.backend = "abacus";
  EXPECT(open_named("good.onnx", &options), FMG_ERROR_OPTIONS, "backend 'abacus'");
  options = options_with(fake);
  options.precision = "fp64";
  EXPECT(open_named("good.onnx", &options), FMG_ERROR_OPTIONS, "precision 'fp64'");
  options.precision = "bf16"; /* which the openvino stand-in's processor does not have */
  EXPECT(open_named("good.onnx", &options), FMG_ERROR_OPTIONS,
         said("no bf16", "onnxruntime offers auto, fp32"));
  options = options_with(fake);
  options.threads = -1;
  EXPECT(open_named("good.onnx", &options), FMG_ERROR_OPTIONS, "threads -1");
  options = options_with(fake);
  options.batch = 0;
  EXPECT(open_named("good.onnx", &options), FMG_ERROR_OPTIONS, "batch 0");
  options.batch = 4097;
  EXPECT(open_named("good.onnx", &options), FMG_ERROR_OPTIONS, "batch 4097");
}

static void libraries(const char* old, const char* lacking) {
  fmg_options options = options_with("/nowhere/lib.so");
  EXPECT(open_named("good.onnx", &options), FMG_ERROR_BACKEND_MISSING, "/nowhere/lib.so");
  options = options_with(old);
  EXPECT(open_named("good.onnx", &options), FMG_ERROR_BACKEND_VERSION,
         said("version 2023.1.0", "version 1.2.0"));
  options = options_with(lacking);
  EXPECT(open_named("good.onnx", &options), FMG_ERROR_BACKEND_VERSION,
         said("lacks ov_infer_request_cancel", "lacks OrtGetApiBase"));
  controls_of(fake)->refuse_graph = 1;
  options = options_with(fake);
  EXPECT(open_named("good.onnx", &options), FMG_ERROR_BACKEND, "the fake was told to fail");
  controls_of(fake)->refuse_graph = 0;
}

static void null_and_sizes(void) {
  fmg_engine* engine = (fmg_engine*)&engine;
  float in[PIXELS] = {0}, out[PIXELS];
  EXPECT(fmg_open(NULL, NULL, &engine), FMG_ERROR_ARGUMENT, "path is NULL");
  CHECK(engine == NULL);
  EXPECT(fmg_open("x", NULL, NULL), FMG_ERROR_ARGUMENT, "engine is NULL");
  EXPECT(fmg_open_memory(NULL, 1, NULL, &engine), FMG_ERROR_ARGUMENT, "data is NULL");
  EXPECT(fmg_open_memory(in, 0, NULL, &engine), FMG_ERROR_MODEL, "no graph");
  fmg_options_init(NULL);
  fmg_close(NULL);
  engine = open_good(1);
  EXPECT(fmg_run(NULL, in, 1, out), FMG_ERROR_ARGUMENT, "engine is NULL");
  EXPECT(fmg_run(engine, NULL, 1, out), FMG_ERROR_ARGUMENT, "in is NULL");
  EXPECT(fmg_run(engine, in, 1, NULL), FMG_ERROR_ARGUMENT, "out is NULL");
  EXPECT(fmg_run(engine, in, -1, out), FMG_ERROR_ARGUMENT, "n is negative");
  EXPECT(fmg_run(engine, in, INT64_MAX, out), FMG_ERROR_ARGUMENT, "beyond any memory");
  CHECK(fmg_run(engine, in, 0, out) == FMG_OK);
  EXPECT(fmg_get_info(NULL, NULL), FMG_ERROR_ARGUMENT, "engine is NULL");
  fmg_info info;
  memset(&info, 0, sizeof info);
  EXPECT(fmg_get_info(engine, &info), FMG_ERROR_ARGUMENT, "fmg_info.size");
  info.size = sizeof info;
  CHECK(fmg_get_info(engine, &info) == FMG_OK);
  CHECK(info.task == FMG_TRANSLATE && info.height == SIDE && info.width == SIDE);
  CHECK(info.batch == 1 && info.threads == 1 && strcmp(info.precision, "fp32") == 0);
  CHECK(strcmp(info.backend_version, said("2026.4.1", "1.31.1")) == 0 &&
        strcmp(info.recipe, "tiny") == 0);
  fmg_close(engine);
}

static void layouts(void) {
  fmg_engine* engine = open_good(1);
  float in[PIXELS + 1] = {0}, out[PIXELS];
  const fmg_slices good = floats(in), to = floats(out);
  const struct {
    const char* part;
    fmg_slices in;
  } table[] = {
      {"in->size", {1, in, FMG_FLOAT32, FMG_SCALE_MODEL, 0, 0, 0, 0, 0}},
      {"in->data is NULL", {sizeof good, NULL, FMG_FLOAT32, FMG_SCALE_MODEL, 0, 0, 0, 0, 0}},
      {"in->type is 9", {sizeof good, in, 9, FMG_SCALE_MODEL, 0, 0, 0, 0, 0}},
      {"in->scale is 7", {sizeof good, in, FMG_FLOAT32, 7, 0, 0, 0, 0, 0}},
      {"integers cannot hold", {sizeof good, in, FMG_INT16, FMG_SCALE_MODEL, 0, 0, 0, 0, 0}},
      {"low < high", {sizeof good, in, FMG_INT16, FMG_SCALE_RANGE, 5, 5, 0, 0, 0}},
      {"low < high", {sizeof good, in, FMG_INT16, FMG_SCALE_RANGE, NAN, 5, 0, 0, 0}},
      {"low < high", {sizeof good, in, FMG_INT16, FMG_SCALE_RANGE, 0, INFINITY, 0, 0, 0}},
      {"no multiple", {sizeof good, in, FMG_FLOAT32, FMG_SCALE_MODEL, 0, 0, 256, 32, 3}},
      {"stride of 0", {sizeof good, in, FMG_FLOAT32, FMG_SCALE_MODEL, 0, 0, 256, 0, 4}},
      {"beyond any memory",
       {sizeof good, in, FMG_FLOAT32, FMG_SCALE_MODEL, 0, 0, 256, INT64_MIN, 4}},
      {"beyond any memory",
       {sizeof good, in, FMG_FLOAT32, FMG_SCALE_MODEL, 0, 0, 256, INT64_MAX - 3, 4}},
      {"not aligned", {sizeof good, (char*)in + 1, FMG_FLOAT32, FMG_SCALE_MODEL, 0, 0, 0, 0, 0}},
  };
  for (size_t i = 0; i < sizeof table / sizeof table[0]; ++i)
    EXPECT(fmg_run_slices(engine, &table[i].in, 1, &to, NULL), FMG_ERROR_ARGUMENT, table[i].part);
  EXPECT(fmg_run_slices(engine, NULL, 1, &to, NULL), FMG_ERROR_ARGUMENT, "in is NULL");
  EXPECT(fmg_run_slices(engine, &good, 1, NULL, NULL), FMG_ERROR_ARGUMENT, "out is NULL");
  fmg_call call = {1, 0, NULL};
  EXPECT(fmg_run_slices(engine, &good, 1, &to, &call), FMG_ERROR_ARGUMENT, "fmg_call.size");
  call.size = sizeof call;
  call.deadline_us = -1;
  EXPECT(fmg_run_slices(engine, &good, 1, &to, &call), FMG_ERROR_ARGUMENT, "deadline_us");
  fmg_close(engine);
}

static void values(void) {
  fmg_engine* engine = open_good(2);
  float in[3 * PIXELS], out[3 * PIXELS];
  for (int i = 0; i < 3 * PIXELS; ++i) in[i] = (float)i / PIXELS - 1;
  CHECK(fmg_run(engine, in, 3, out) == FMG_OK); /* a whole batch and half of one */
  for (int i = 0; i < 3 * PIXELS; ++i) CHECK(out[i] == -in[i]);
  const float bad[] = {NAN, INFINITY, -INFINITY};
  for (int i = 0; i < 3; ++i) {
    in[2 * PIXELS + 5] = bad[i];
    EXPECT(fmg_run(engine, in, 3, out), FMG_ERROR_INPUT, "NaN or infinite");
  }
  in[2 * PIXELS + 5] = 0;
  controls_of(fake)->make_nan = 1;
  EXPECT(fmg_run(engine, in, 1, out), FMG_ERROR_OUTPUT, "the model makes NaN");
  controls_of(fake)->make_nan = 0;
  controls_of(fake)->fail_run = 1;
  EXPECT(fmg_run(engine, in, 1, out), FMG_ERROR_BACKEND, "the fake was told to fail");
  controls_of(fake)->fail_run = 0;
  CHECK(fmg_run(engine, in, 3, out) == FMG_OK); /* a failure does not spoil the engine */
  fmg_close(engine);
}

static void measuring(void) {
  fmg_engine* engine = open_good(1);
  float in[PIXELS] = {0};
  fmg_slices slices = floats(in);
  double low = 0, high = 0;
  EXPECT(fmg_measure(engine, &slices, 1, &low, &high), FMG_ERROR_INPUT, "one value");
  in[3] = NAN;
  EXPECT(fmg_measure(engine, &slices, 1, &low, &high), FMG_ERROR_INPUT, "NaN");
  in[3] = -5, in[4] = 7;
  CHECK(fmg_measure(engine, &slices, 1, &low, &high) == FMG_OK && low == -5 && high == 7);
  EXPECT(fmg_measure(engine, &slices, 0, &low, &high), FMG_ERROR_ARGUMENT, "at least 1");
  slices.slice_stride = slices.pixel_stride = 4, slices.row_stride = 4 * SIDE; /* overlapping */
  EXPECT(fmg_measure(engine, &slices, INT64_MAX / 8, &low, &high), FMG_ERROR_ARGUMENT,
         "n is beyond any memory");
  EXPECT(fmg_measure(engine, &slices, 1, NULL, &high), FMG_ERROR_ARGUMENT, "NULL");
  fmg_close(engine);
  const fmg_options options = options_with(fake);
  CHECK(fmg_open(in_folder(models, "norule.onnx"), &options, &engine) == FMG_OK);
  EXPECT(fmg_measure(engine, &slices, 1, &low, &high), FMG_ERROR_MODEL, "no grading rule");
  fmg_close(engine);
}

static void limits(void) {
  fmg_engine* engine = open_good(1);
  float in[2 * PIXELS] = {0}, out[2 * PIXELS];
  const fmg_slices from = floats(in), to = floats(out);
  volatile int cancel = 0;
  fmg_call call = {sizeof call, 10 * 1000000, &cancel};
  CHECK(fmg_run_slices(engine, &from, 2, &to, &call) == FMG_OK);
  cancel = 1;
  EXPECT(fmg_run_slices(engine, &from, 2, &to, &call), FMG_ERROR_CANCELLED, "cancelled");
  call.cancel = NULL;
  controls_of(fake)->sleep_ms = 10000;
  call.deadline_us = 5000;
  EXPECT(fmg_run_slices(engine, &from, 2, &to, &call), FMG_ERROR_DEADLINE, "deadline");
  controls_of(fake)->sleep_ms = 0;
  call.deadline_us = INT64_MAX;
  CHECK(fmg_run_slices(engine, &from, 2, &to, &call) == FMG_OK);
  fmg_close(engine);
}

int main(int argc, char** argv) {
  if (argc != 6) return 2;
  backend = argv[1], models = argv[2], fake = argv[3];
  names();
  model_files();
  option_values();
  libraries(argv[4], argv[5]);
  null_and_sizes();
  layouts();
  values();
  measuring();
  limits();
  puts("codes_tests: passed");
  return 0;
}
