#include "capi/layout.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "core/error.h"

namespace fastmrigan {
namespace {

int64_t pixel_bytes(int32_t type) { return type == FMG_FLOAT32 ? 4 : 2; }

// All bits where x is NaN or infinite, else 0: in integers, which every compiler vectorises.
uint32_t not_finite(float x) {
  constexpr uint32_t EXPONENT = 0x7F800000;
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return (bits & EXPONENT) == EXPONENT ? ~uint32_t{0} : 0;
}

// scaled: low..high to -1..1; only then are values looked at in double.
template <typename T>
bool read_row(const T* __restrict from, int64_t step, int64_t width, bool scaled, double low,
              double scale, float* __restrict to) {
  uint32_t bad = 0;
  for (int64_t x = 0; x < width; ++x) {
    const T value = from[x * step];
    if constexpr (std::is_same_v<T, float>) bad |= not_finite(value);
    if (scaled) {
      const double graded = (static_cast<double>(value) - low) * scale - 1.0;
      to[x] = static_cast<float>(std::min(std::max(graded, -1.0), 1.0));
    } else {
      to[x] = static_cast<float>(value);
    }
  }
  return bad == 0;
}

template <typename T>
bool write_row(const float* __restrict from, int64_t width, bool scaled, double low, double half,
               T* __restrict to, int64_t step) {
  uint32_t bad = 0;
  for (int64_t x = 0; x < width; ++x) {
    bad |= not_finite(from[x]);
    float value = from[x];
    if (scaled) value = static_cast<float>((static_cast<double>(value) + 1.0) * half + low);
    if constexpr (std::is_same_v<T, float>) {
      to[x * step] = value;
    } else {
      constexpr float bottom = std::numeric_limits<T>::min(), top = std::numeric_limits<T>::max();
      // NaN fails the comparison and becomes the bottom: it must not reach the cast.
      value = value > bottom ? std::min(value, top) : bottom;
      to[x * step] = static_cast<T>(std::lrint(value));  // half to even
    }
  }
  return bad == 0;
}

// With a constant step of 1 the compiler uses vector instructions.
template <typename T>
bool read_row_any(const void* from, int64_t stride, int64_t width, bool scaled, double low,
                  double scale, float* to) {
  const T* typed = static_cast<const T*>(from);
  const int64_t step = stride / static_cast<int64_t>(sizeof(T));
  if (step == 1 && scaled) return read_row(typed, 1, width, true, low, scale, to);
  if (step == 1) return read_row(typed, 1, width, false, low, scale, to);
  return read_row(typed, step, width, scaled, low, scale, to);
}

template <typename T>
bool write_row_any(const float* from, int64_t width, bool scaled, double low, double half, void* to,
                   int64_t stride) {
  T* typed = static_cast<T*>(to);
  const int64_t step = stride / static_cast<int64_t>(sizeof(T));
  if (step == 1 && scaled) return write_row(from, width, true, low, half, typed, 1);
  if (step == 1) return write_row(from, width, false, low, half, typed, 1);
  return write_row(from, width, scaled, low, half, typed, step);
}

// NumPy's linear percentile of values that it may reorder.
struct Neighbours {
  float previous, next;
  double between;
};

Neighbours neighbours(std::vector<float>& values, double percent) {
  const double place = static_cast<double>(values.size() - 1) * (percent / 100.0);
  const auto index = static_cast<size_t>(std::floor(place));
  if (index + 1 >= values.size()) {
    const float top = *std::max_element(values.begin(), values.end());
    return {top, top, 0.0};
  }
  const auto at = values.begin() + static_cast<ptrdiff_t>(index);
  std::nth_element(values.begin(), at, values.end());
  return {*at, *std::min_element(at + 1, values.end()), place - static_cast<double>(index)};
}

double lerp_double(const Neighbours& n) {
  const double step = n.next - n.previous;  // the difference in float32, as NumPy takes it
  if (n.between >= 0.5) return n.next - step * (1.0 - n.between);
  return n.previous + step * n.between;
}

float lerp_float(const Neighbours& n) {
  const float step = n.next - n.previous;
  if (n.between >= 0.5) return n.next - step * static_cast<float>(1.0 - n.between);
  return n.previous + step * static_cast<float>(n.between);
}

}  // namespace

Layout::Layout(const char* function, const char* which, const fmg_slices* slices, int64_t height,
               int64_t width, int64_t count, bool scaled)
    : height_(height), width_(width) {
  const auto refuse = [&](const std::string& what) {
    return Error(FMG_ERROR_ARGUMENT, std::string(function) + ": " + which + what);
  };
  if (slices == nullptr) throw refuse(" is NULL");
  if (slices->size != sizeof(fmg_slices))
    throw refuse("->size is " + std::to_string(slices->size) + ", expected " +
                 std::to_string(sizeof(fmg_slices)) +
                 ": set it, and compile against this version's header");
  if (slices->data == nullptr) throw refuse("->data is NULL");
  type_ = slices->type;
  if (type_ != FMG_FLOAT32 && type_ != FMG_INT16 && type_ != FMG_UINT16)
    throw refuse("->type is " + std::to_string(type_) +
                 ", expected FMG_FLOAT32, FMG_INT16 or FMG_UINT16");
  ranged_ = scaled && slices->scale == FMG_SCALE_RANGE;
  if (scaled && !ranged_ && slices->scale != FMG_SCALE_MODEL)
    throw refuse("->scale is " + std::to_string(slices->scale) +
                 ", expected FMG_SCALE_MODEL or FMG_SCALE_RANGE");
  if (scaled && !ranged_ && type_ != FMG_FLOAT32)
    throw refuse("->scale is FMG_SCALE_MODEL, which integers cannot hold; give a range");
  if (ranged_) {
    low_ = slices->low, high_ = slices->high;
    if (!(low_ < high_) || !std::isfinite(high_ - low_))
      throw refuse("->low and ->high must be finite, low < high");
  }
  data_ = static_cast<char*>(slices->data);
  const int64_t bytes = pixel_bytes(type_);
  slice_stride_ = slices->slice_stride;
  row_stride_ = slices->row_stride;
  pixel_stride_ = slices->pixel_stride;
  if (slice_stride_ == 0 && row_stride_ == 0 && pixel_stride_ == 0) {
    pixel_stride_ = bytes;
    row_stride_ = bytes * width;
    slice_stride_ = row_stride_ * height;
  }
  const int64_t strides[3] = {slice_stride_, row_stride_, pixel_stride_};
  const int64_t sides[3] = {count, height, width};
  int64_t extent = 0;
  for (int i = 0; i < 3; ++i) {
    int64_t reach = 0;
    if (sides[i] > 1 && strides[i] == 0) throw refuse(" has a stride of 0 beside others");
    if (strides[i] % bytes != 0) throw refuse(" has a stride that is no multiple of its pixel");
    // The furthest pixel either way; so large a stride can only be a mistake.
    if (strides[i] == std::numeric_limits<int64_t>::min() ||
        __builtin_mul_overflow(std::max<int64_t>(sides[i] - 1, 0), std::abs(strides[i]), &reach) ||
        __builtin_add_overflow(extent, reach, &extent))
      throw refuse(" has strides beyond any memory");
  }
  if (reinterpret_cast<uintptr_t>(data_) % static_cast<uintptr_t>(bytes) != 0)
    throw refuse("->data is not aligned to its pixel");
  if (pixel_stride_ == bytes && row_stride_ == bytes * width) {  // a slice is one long row
    width_ *= height_;
    height_ = 1;
  }
}

bool Layout::read(int64_t first, int64_t count, float* to) const {
  const double scale = 2.0 / (high_ - low_);
  const auto row = type_ == FMG_FLOAT32 ? read_row_any<float>
                   : type_ == FMG_INT16 ? read_row_any<int16_t>
                                        : read_row_any<uint16_t>;
  bool good = true;
  for (int64_t z = first; z < first + count; ++z)
    for (int64_t y = 0; y < height_; ++y, to += width_)
      good &= row(at(z, y), pixel_stride_, width_, ranged_, low_, scale, to);
  return good;
}

bool Layout::write(int64_t first, int64_t count, const float* from) const {
  const double half = (high_ - low_) / 2;
  const auto row = type_ == FMG_FLOAT32 ? write_row_any<float>
                   : type_ == FMG_INT16 ? write_row_any<int16_t>
                                        : write_row_any<uint16_t>;
  bool good = true;
  for (int64_t z = first; z < first + count; ++z)
    for (int64_t y = 0; y < height_; ++y, from += width_)
      good &= row(from, width_, ranged_, low_, half, at(z, y), pixel_stride_);
  return good;
}

void measure(std::vector<float>& values, const GradingRule& rule, double& low, double& high) {
  const auto [least, most] = std::minmax_element(values.begin(), values.end());
  if (rule.method == GradingRule::Method::window) {
    low = rule.low, high = rule.high;
    if (*most <= low || *least >= high)
      throw Error(FMG_ERROR_INPUT, "fmg_measure: all values lie outside the model's window " +
                                       std::to_string(low) + " to " + std::to_string(high) +
                                       "; check the unit of the input");
  } else if (rule.method == GradingRule::Method::minmax) {
    low = *least, high = *most;
  } else {
    // Low from the whole frame, high from the foreground: imaging/grading.py says why.
    constexpr double FOREGROUND_SHARE = 0.1;
    low = lerp_double(neighbours(values, rule.low));
    const double bright = lerp_double(neighbours(values, 99.0));
    const auto threshold = static_cast<float>(low + FOREGROUND_SHARE * (bright - low));
    values.erase(std::remove_if(values.begin(), values.end(),
                                [&](float value) { return !(value > threshold); }),
                 values.end());
    high = values.empty() ? low : lerp_float(neighbours(values, rule.high));
  }
  if (!(low < high))
    throw Error(FMG_ERROR_INPUT, "fmg_measure: nearly all pixels have one value (" +
                                     std::to_string(low) + "); give slices with an image on them");
}

}  // namespace fastmrigan
