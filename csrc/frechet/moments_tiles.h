// Which tile of the products a CUDA block makes: plain arithmetic, so that the host can test it.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/host_device.h"

namespace fastmrigan::moments {

constexpr int side = 64;      // rows and columns of a tile
constexpr int step = 16;      // feature rows in shared memory at a time
constexpr int threads = 256;  // 16 x 16, each with 4 x 4 products
constexpr int each = 4;

struct Tile {
  int64_t row, column;  // in tiles, row <= column
};

inline int64_t tiles_of(int64_t d) {
  const int64_t across = (d + side - 1) / side;
  return across * (across + 1) / 2;
}

// The tiles on and above the diagonal, column by column: 0 is (0, 0), 1 (0, 1), 2 (1, 1), 3 (0, 2)…
FASTMRIGAN_HD Tile tile_of(int64_t number) {
  int64_t column =
      static_cast<int64_t>((sqrt(8.0 * static_cast<double>(number) + 1.0) - 1.0) * 0.5);
  while (column * (column + 1) / 2 > number) --column;  // where the root was rounded
  while ((column + 1) * (column + 2) / 2 <= number) ++column;
  return {number - column * (column + 1) / 2, column};
}

}  // namespace fastmrigan::moments
