/* Translates a stream of frames, each within a deadline, in one thread.
 *
 *   translate_stream MODEL LIBRARY LOW HIGH DEADLINE_MS < frames > results
 *
 * LIBRARY: path of libopenvino_c.so, or - for the one the system finds. LOW, HIGH: the range of the
 * scanner's pixel values that goes to the model's -1 to 1, and back on the way out. A frame that is
 * late has a result without pixels: the source's pixels never stand in for it.
 * Streams: result.h. For research, not for diagnosis. */
#include <fastmrigan.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "result.h"

static uint32_t microseconds_since(const struct timespec* start) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint32_t)((now.tv_sec - start->tv_sec) * 1000000 + (now.tv_nsec - start->tv_nsec) / 1000);
}

static fmg_slices frame_at(int16_t* pixels, double low, double high) {
  fmg_slices slices;
  memset(&slices, 0, sizeof slices); /* strides of 0: dense */
  slices.size = sizeof slices;
  slices.data = pixels;
  slices.type = FMG_INT16;
  slices.scale = FMG_SCALE_RANGE;
  slices.low = low;
  slices.high = high;
  return slices;
}

/* Every frame of the standard input. The two buffers hold one frame each. */
static int translate_all(fmg_engine* engine, size_t pixels, int16_t* in, int16_t* out, double low,
                         double high, int64_t deadline_us) {
  const fmg_slices from = frame_at(in, low, high), to = frame_at(out, low, high);
  const fmg_call call = {sizeof call, deadline_us, NULL};
  int status = DONE;
  size_t got;
  for (uint32_t frame = 0; (got = fread(in, sizeof *in, pixels, stdin)) == pixels; ++frame) {
    struct timespec start;
    clock_gettime(CLOCK_MONOTONIC, &start);
    struct result_header header = {frame, FMG_OK, 0, (uint32_t)pixels};
    header.code = fmg_run_slices(engine, &from, 1, &to, &call);
    header.microseconds = microseconds_since(&start);
    if (header.code != FMG_OK) {
      fprintf(stderr, "frame %u: %s\n", (unsigned)frame, fmg_last_error());
      header.pixels = 0;
      status = SOME_FRAMES_FAILED;
    }
    if (fwrite(&header, sizeof header, 1, stdout) != 1 ||
        fwrite(out, sizeof *out, header.pixels, stdout) != header.pixels || fflush(stdout) != 0) {
      perror("translate_stream: cannot write results");
      return DISK_FULL;
    }
  }
  if (got != 0) {
    fprintf(stderr, "translate_stream: the last frame is cut off after %zu pixels\n", got);
    status = SOME_FRAMES_FAILED;
  }
  return status;
}

static int number(const char* text, double* value) {
  char* end;
  *value = strtod(text, &end);
  return end != text && *end == '\0';
}

int main(int argc, char** argv) {
  double low, high, deadline_ms;
  if (argc != 6 || !number(argv[3], &low) || !number(argv[4], &high) ||
      !number(argv[5], &deadline_ms) || !(deadline_ms >= 0 && deadline_ms < 1e9)) {
    fputs("usage: translate_stream MODEL LIBRARY LOW HIGH DEADLINE_MS < frames > results\n",
          stderr);
    return USAGE;
  }
  fmg_options options;
  fmg_options_init(&options);
  if (strcmp(argv[2], "-") != 0) options.library = argv[2];
  fmg_engine* engine;
  fmg_info info;
  info.size = sizeof info;
  if (fmg_open(argv[1], &options, &engine) != FMG_OK || fmg_get_info(engine, &info) != FMG_OK) {
    fprintf(stderr, "%s\n", fmg_last_error());
    return MODEL_REFUSED;
  }
  fprintf(stderr, "%s %s on %s, %d threads, slices of %d x %d\n", info.backend, info.precision,
          info.device, (int)info.threads, (int)info.height, (int)info.width);
  const size_t pixels = (size_t)info.height * (size_t)info.width;
  int16_t* buffers = malloc(2 * pixels * sizeof *buffers);
  int status = MODEL_REFUSED;
  if (info.task != FMG_TRANSLATE)
    fprintf(stderr, "%s: samples slices and cannot translate them\n", argv[1]);
  else if (buffers == NULL)
    fputs("translate_stream: out of memory\n", stderr);
  else
    status = translate_all(engine, pixels, buffers, buffers + pixels, low, high,
                           (int64_t)(deadline_ms * 1000));
  free(buffers);
  fmg_close(engine);
  return status;
}
