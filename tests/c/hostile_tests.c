/* Damaged model files: cut at every byte, and with bytes changed at random. None may be opened,
 * and under the sanitizers none may make us read past its end.
 *
 *   hostile_tests BACKEND MODELS FAKE */
#include <stdint.h>

#include "check.h"

static uint32_t next(uint32_t* state) { return *state = *state * 1664525u + 1013904223u; }

/* From a block of exactly `size` bytes, so that a sanitizer sees one byte too many. */
static int open_block(const uint8_t* data, size_t size, const fmg_options* options) {
  uint8_t* block = malloc(size + (size == 0));
  memcpy(block, data, size);
  fmg_engine* engine;
  const int code = fmg_open_memory(block, size, options, &engine);
  fmg_close(engine);
  free(block);
  return code;
}

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  backend = argv[1];
  const fmg_options options = options_with(argv[3]);
  static uint8_t data[1 << 20], damaged[1 << 20];
  FILE* file = fopen(in_folder(argv[2], "good.onnx"), "rb");
  CHECK(file != NULL);
  const size_t size = fread(data, 1, sizeof data, file);
  fclose(file);
  CHECK(open_block(data, size, &options) == FMG_OK);
  for (size_t cut = 0; cut < size; ++cut) CHECK(open_block(data, cut, &options) == FMG_ERROR_MODEL);
  uint32_t state = 7;
  int opened = 0;
  for (int round = 0; round < 20000; ++round) {
    memcpy(damaged, data, size);
    const int changes = 1 + (int)(next(&state) >> 16) % 4;
    for (int i = 0; i < changes; ++i)
      damaged[(next(&state) >> 8) % size] = (uint8_t)(next(&state) >> 16);
    const int code = open_block(damaged, size, &options);
    CHECK(code == FMG_ERROR_MODEL || code == FMG_OK);
    opened += code == FMG_OK; /* text of the metadata that nothing hangs on may change */
  }
  CHECK(opened < 20000 * 9 / 10);
  puts("hostile_tests: passed");
  return 0;
}
