// Pixels of a caller's memory to the backend's dense float32 and back, graded on the way.
#pragma once

#include <cstdint>
#include <vector>

#include "include/fastmrigan.h"
#include "model_file/model_file.h"

namespace fastmrigan {

// Slices in a caller's memory, checked.
class Layout {
 public:
  // function, which: what messages begin with. height, width: of each of `count` slices.
  // scaled: false takes the values as they stand, whatever slices->scale says.
  // Throws Error FMG_ERROR_ARGUMENT.
  Layout(const char* function, const char* which, const fmg_slices* slices, int64_t height,
         int64_t width, int64_t count, bool scaled = true);

  // Slices first .. first + count - 1 to dense float32 [count, H, W]: low..high to -1..1, clipped,
  // with the bits of imaging/grading.py's grade. False where a value is not finite.
  bool read(int64_t first, int64_t count, float* to) const;

  // The way back, with the bits of ungrade. False where a value is not finite.
  bool write(int64_t first, int64_t count, const float* from) const;

 private:
  char* at(int64_t slice, int64_t row) const {
    return data_ + slice * slice_stride_ + row * row_stride_;
  }

  char* data_;
  int32_t type_;
  bool ranged_;
  double low_ = -1, high_ = 1;
  int64_t height_, width_, slice_stride_, row_stride_, pixel_stride_;  // strides in bytes
};

// low and high that a rule finds in finite values (reordered), with the bits of
// imaging/grading.py's measure under NumPy 2. Throws Error FMG_ERROR_INPUT where the range is
// empty.
void measure(std::vector<float>& values, const GradingRule& rule, double& low, double& high);

}  // namespace fastmrigan
