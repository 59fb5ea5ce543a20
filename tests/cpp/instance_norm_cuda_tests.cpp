// The CUDA kernels of instance normalisation, emulated on the host (cuda_on_host.h), against a
// float64 reference; and their plans. Every size of block and cluster is reached by limits that no
// device has, so that small tensors go through all of them.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "instance_norm/launch.cuh"

namespace {

using namespace fastmrigan;

int failures = 0;
int cases = 0;

void check(bool holds, const std::string& what, int line) {
  if (holds) return;
  std::fprintf(stderr, "instance_norm_cuda_tests.cpp:%d: %s\n", line, what.c_str());
  ++failures;
}

#define CHECK(condition) check((condition), #condition, __LINE__)

struct Case {
  int64_t batch, channels, plane;
  bool channels_last = false;
  Dtype dtype = Dtype::float32;
  norm::Limits limits{1024, 8};
  Activation activation = Activation::none;
  bool affine = false, residual = false;
  bool in_place = false;    // y is x, or the residual where there is one
  int offset = 0, gap = 0;  // elements before the first, and left free between rows and samples
  double mean = 0.5;
};

std::string words(const Case& c) {
  char text[200];
  std::snprintf(
      text, sizeof text,
      "[%d, %d, %d] last=%d dtype=%d limits=%d,%d act=%d affine=%d residual=%d in_place=%d "
      "offset=%d gap=%d mean=%g",
      int(c.batch), int(c.channels), int(c.plane), c.channels_last, int(c.dtype), c.limits.threads,
      c.limits.cluster, int(c.activation), c.affine, c.residual, c.in_place, c.offset, c.gap,
      c.mean);
  return text;
}

// A tensor [N, C, plane] in storage of its exact size, each element once as double.
struct Stored {
  Case shape;
  Strides strides;
  std::vector<unsigned char> bytes;

  explicit Stored(const Case& c) : shape(c) {
    const int64_t step = (c.channels_last ? c.channels : c.plane) + c.gap;
    strides = {step * (c.channels_last ? c.plane : c.channels) + c.gap, step};
    const int64_t last = at(c.batch - 1, c.channels - 1, c.plane - 1);
    bytes.assign(static_cast<size_t>((last + 1) * norm::element_bytes(c.dtype)), 0x55);
  }
  int64_t at(int64_t n, int64_t c, int64_t i) const {
    return shape.offset + n * strides.batch_stride +
           (shape.channels_last ? i * strides.step + c : c * strides.step + i);
  }
  double get(int64_t n, int64_t c, int64_t i) const {
    const unsigned char* p = bytes.data() + at(n, c, i) * norm::element_bytes(shape.dtype);
    if (shape.dtype == Dtype::float32) return device::load<float>(p);
    const uint16_t bits = device::load<uint16_t>(p);
    if (shape.dtype == Dtype::float16) return device::float_of_half(bits);
    return device::float_of_bits(static_cast<uint32_t>(bits) << 16);
  }
  void set(int64_t n, int64_t c, int64_t i, double value) {
    unsigned char* p = bytes.data() + at(n, c, i) * norm::element_bytes(shape.dtype);
    const float rounded = static_cast<float>(value);
    if (shape.dtype == Dtype::float32) return device::store(p, rounded);
    device::store(p, static_cast<uint16_t>(shape.dtype == Dtype::float16
                                               ? device::bits_of_halves(rounded, 0.0f)
                                               : device::bits_of_bfloat(rounded)));
  }
  void fill(std::mt19937& random, double mean) {
    std::normal_distribution<double> normal;
    for (int64_t n = 0; n < shape.batch; ++n)
      for (int64_t c = 0; c < shape.channels; ++c)
        for (int64_t i = 0; i < shape.plane; ++i)
          set(n, c, i, mean + (1.0 + 0.1 * static_cast<double>(c % 5)) * normal(random));
  }
  const void* data() const {
    return bytes.data() + shape.offset * norm::element_bytes(shape.dtype);
  }
  void* data() { return bytes.data() + shape.offset * norm::element_bytes(shape.dtype); }
};

struct Reference {  // of one plane, in double
  std::vector<double> y, grad_x;
  double dz = 0, dz_xhat = 0;
};

Reference reference(const Case& c, const Stored& x, const Stored& residual, const Stored& grad_y,
                    int64_t n, int64_t ch, double weight, double bias, double slope, double eps) {
  const double plane = static_cast<double>(c.plane);
  double mean = 0, var = 0;
  for (int64_t i = 0; i < c.plane; ++i) mean += x.get(n, ch, i) / plane;
  for (int64_t i = 0; i < c.plane; ++i) var += std::pow(x.get(n, ch, i) - mean, 2) / plane;
  const double rstd = 1 / std::sqrt(var + eps);
  const double below = c.activation == Activation::none   ? 1
                       : c.activation == Activation::relu ? 0
                                                          : slope;
  Reference out;
  std::vector<double> xhat, dz;
  for (int64_t i = 0; i < c.plane; ++i) {
    xhat.push_back((x.get(n, ch, i) - mean) * rstd);
    const double z = xhat[i] * weight + bias;
    out.y.push_back((z > 0 ? z : z * below) + (c.residual ? residual.get(n, ch, i) : 0));
    dz.push_back(grad_y.get(n, ch, i) * (z > 0 ? 1 : below));
    out.dz += dz[i];
    out.dz_xhat += dz[i] * xhat[i];
  }
  for (int64_t i = 0; i < c.plane; ++i)
    out.grad_x.push_back(rstd * weight * (dz[i] - out.dz / plane - xhat[i] * out.dz_xhat / plane));
  return out;
}

struct Seen {  // which paths the table went through
  bool warp[2] = {}, block[2] = {}, cluster[2] = {}, chunks[2] = {}, wide[2] = {}, narrow[2] = {};
} seen;

void note(const Case& c, const norm::Plan& plan) {
  (plan.wide ? seen.wide : seen.narrow)[c.channels_last] = true;
  if (plan.chunks > 1) seen.chunks[c.channels_last] = true;
  if (plan.cluster > 1)
    seen.cluster[c.channels_last] = true;
  else
    (plan.table_columns == 0 ? seen.warp : seen.block)[c.channels_last] = true;
}

struct Outcome {
  std::vector<unsigned char> y, grad_x;
  std::vector<float> statistics, sums, grad_weight, grad_bias;
  bool operator==(const Outcome& o) const {
    const auto same = [](const std::vector<float>& a, const std::vector<float>& b) {
      return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
    };
    return y == o.y && grad_x == o.grad_x && same(statistics, o.statistics) && same(sums, o.sums) &&
           same(grad_weight, o.grad_weight) && same(grad_bias, o.grad_bias);
  }
};

// Runs forward and backward with the threads in one order or the other.
Outcome run(const Case& c, const Stored& x_given, const Stored& residual_given,
            const Stored& grad_y, const std::vector<float>& weight, const std::vector<float>& bias,
            float slope, double eps, bool backwards, Stored& y, Stored& grad_x) {
  cuda_on_host::machine.backwards = backwards;
  const size_t planes = static_cast<size_t>(c.batch * c.channels);
  const size_t channels = static_cast<size_t>(c.channels);
  Outcome out;
  out.statistics.assign(3 * planes, 0);
  out.sums.assign(2 * planes, 0);
  out.grad_weight.assign(channels, -1);
  out.grad_bias.assign(channels, -1);

  InstanceNormForward forward{};
  static_cast<InstanceNorm&>(forward) = {c.batch,
                                         c.channels,
                                         c.plane,
                                         c.channels_last,
                                         c.dtype,
                                         c.activation,
                                         slope,
                                         eps,
                                         c.affine ? weight.data() : nullptr,
                                         c.affine ? bias.data() : nullptr,
                                         x_given.data(),
                                         x_given.strides};
  InstanceNormBackward backward{};
  static_cast<InstanceNorm&>(backward) = forward;
  if (c.residual) forward.residual = residual_given.data();
  forward.residual_strides = residual_given.strides;
  if (c.in_place) {
    y.bytes = (c.residual ? residual_given : x_given).bytes;
    (c.residual ? forward.residual : forward.x) = y.data();
  }
  forward.y = y.data();
  forward.y_strides = y.strides;
  forward.statistics = out.statistics.data();
  const norm::Plan plan = norm::plan_of(forward, c.limits);
  note(c, plan);
  norm::launch_forward(forward, plan, nullptr);

  backward.statistics = out.statistics.data();
  backward.grad_y = grad_y.data();
  backward.grad_y_strides = grad_y.strides;
  backward.grad_x = grad_x.data();
  backward.grad_x_strides = grad_x.strides;
  backward.sums = out.sums.data();
  backward.grad_weight = out.grad_weight.data();
  backward.grad_bias = out.grad_bias.data();
  const norm::Plan plan_back = norm::plan_of(backward, c.limits);
  note(c, plan_back);
  norm::launch_backward(backward, plan_back, nullptr);
  norm::launch_parameters(backward, nullptr);
  out.y = y.bytes;
  out.grad_x = grad_x.bytes;

  // With no grad_x asked for, the sums have the same bits.
  std::vector<float> sums(2 * planes, 0);
  backward.grad_x = nullptr;
  backward.sums = sums.data();
  norm::launch_backward(backward, norm::plan_of(backward, c.limits), nullptr);
  CHECK(std::memcmp(sums.data(), out.sums.data(), sums.size() * sizeof(float)) == 0);
  return out;
}

void one_case(const Case& c) {
  ++cases;
  std::mt19937 random(static_cast<unsigned>(cases));
  Stored x(c), residual(c), grad_y(c), y(c), grad_x(c);
  x.fill(random, c.mean);
  residual.fill(random, -0.25);
  grad_y.fill(random, 0.1);
  std::vector<float> weight, bias;
  for (int64_t ch = 0; ch < c.channels; ++ch) {
    weight.push_back(0.5f + 0.25f * static_cast<float>(ch % 4));
    bias.push_back(0.1f * static_cast<float>(ch % 7) - 0.3f);
  }
  const float slope = 0.2f;
  const double eps = 1e-5;
  const Outcome out = run(c, x, residual, grad_y, weight, bias, slope, eps, false, y, grad_x);
  {
    Stored other_y(c), other_grad_x(c);
    CHECK(out ==
          run(c, x, residual, grad_y, weight, bias, slope, eps, true, other_y, other_grad_x));
  }

  // Half a unit in the last place of the storage, and what float arithmetic adds.
  const double unit = c.dtype == Dtype::float32 ? 0 : c.dtype == Dtype::float16 ? 0x1p-11 : 0x1p-8;
  const auto near = [&](double got, double expected, double magnitude) {
    return std::fabs(got - expected) <= 1.01 * unit * std::fabs(expected) + 1e-5 * magnitude;
  };
  double worst_y = 0, worst_grad = 0;
  bool good_y = true, good_grad = true, good_sums = true;
  Stored touched_y(c), touched_grad(c);  // gaps keep what stood there
  if (c.in_place) touched_y.bytes = (c.residual ? residual : x).bytes;
  std::vector<double> grad_weight(weight.size()), grad_bias(weight.size());
  for (int64_t n = 0; n < c.batch; ++n)
    for (int64_t ch = 0; ch < c.channels; ++ch) {
      const size_t at = static_cast<size_t>(n * c.channels + ch);
      const size_t planes = static_cast<size_t>(c.batch * c.channels);
      const Reference r = reference(c, x, residual, grad_y, n, ch, c.affine ? weight[ch] : 1,
                                    c.affine ? bias[ch] : 0, static_cast<double>(slope), eps);
      const double rstd = out.statistics[2 * planes + at];
      for (int64_t i = 0; i < c.plane; ++i) {
        good_y &= near(y.get(n, ch, i), r.y[i], 2);
        good_grad &= near(grad_x.get(n, ch, i), r.grad_x[i], 4 * std::fmax(rstd, 1));
        worst_y = std::fmax(worst_y, std::fabs(y.get(n, ch, i) - r.y[i]));
        worst_grad = std::fmax(worst_grad, std::fabs(grad_x.get(n, ch, i) - r.grad_x[i]));
        touched_y.set(n, ch, i, y.get(n, ch, i));
        touched_grad.set(n, ch, i, grad_x.get(n, ch, i));
      }
      const double sized = 4 + static_cast<double>(c.plane);
      good_sums &= std::fabs(out.sums[at] - r.dz) <= 1e-6 * sized;
      good_sums &= std::fabs(out.sums[planes + at] - r.dz_xhat) <= 1e-6 * sized;
      grad_bias[ch] += r.dz;
      grad_weight[ch] += r.dz_xhat;
    }
  for (int64_t ch = 0; ch < c.channels; ++ch) {
    const double sized = 4 + static_cast<double>(c.plane * c.batch);
    good_sums &= std::fabs(out.grad_bias[ch] - grad_bias[ch]) <= 1e-6 * sized;
    good_sums &= std::fabs(out.grad_weight[ch] - grad_weight[ch]) <= 1e-6 * sized;
  }
  const std::string text = words(c);
  check(good_y, text + ": y off by " + std::to_string(worst_y), __LINE__);
  check(good_grad, text + ": grad_x off by " + std::to_string(worst_grad), __LINE__);
  check(good_sums, text + ": sums", __LINE__);
  check(touched_y.bytes == y.bytes && touched_grad.bytes == grad_x.bytes,
        text + ": wrote between the rows", __LINE__);
}

const Dtype dtypes[] = {Dtype::float32, Dtype::bfloat16, Dtype::float16};

void kernels_table() {
  // The smallest limits send most shapes to several chunks, alone or in a cluster.
  const norm::Limits limits[] = {{1024, 8}, {64, 1}, {32, 4}};
  const struct {
    int64_t batch, channels, plane;
  } shapes[] = {{1, 1, 1},  {2, 3, 1},   {3, 5, 49},   {2, 8, 64},     {1, 1, 7},
                {2, 19, 9}, {1, 3, 367}, {1, 16, 256}, {1, 2, 40 * 52}};
  int turn = 0;
  for (const auto& shape : shapes)
    for (bool channels_last : {false, true})
      for (Dtype dtype : dtypes)
        for (const norm::Limits& limit : limits)
          for (int offset : {0, 1}) {
            // The options take turns: each meets each of the others within the table.
            ++turn;
            Case c{shape.batch, shape.channels, shape.plane};
            c.channels_last = channels_last;
            c.dtype = dtype;
            c.limits = limit;
            c.offset = offset;
            c.gap = turn % 5 == 0 ? 3 : turn % 5 == 1 ? 16 : 0;
            c.activation = static_cast<Activation>(turn % 3);
            c.affine = turn / 2 % 2 != 0;
            c.residual = turn / 3 % 2 != 0;
            c.in_place = turn / 7 % 2 != 0;
            one_case(c);
          }
  // Sizes that real limits send to a block, to a cluster and to chunks.
  for (bool channels_last : {false, true})
    for (Dtype dtype : dtypes) {
      Case c{1, channels_last ? 8 : 1, channels_last ? 48 * 64 : 64 * 192};
      c.channels_last = channels_last;
      c.dtype = dtype;
      c.activation = Activation::relu;
      c.residual = true;
      one_case(c);
      c.limits.cluster = 1;
      one_case(c);
    }
}

// A mean four orders above the deviation must not cost accuracy.
void large_mean() {
  for (bool channels_last : {false, true})
    for (const norm::Limits& limits : {norm::Limits{1024, 8}, norm::Limits{64, 1}}) {
      Case c{1, 4, 2048};
      c.channels_last = channels_last;
      c.limits = limits;
      c.mean = 1e4;
      c.activation = Activation::leaky_relu;
      one_case(c);
    }
}

// NaN and infinity make their own plane NaN and no other.
void not_finite() {
  const double values[] = {std::nan(""), std::numeric_limits<double>::infinity()};
  for (bool channels_last : {false, true})
    for (double value : values)
      for (int64_t place : {0, 37}) {
        Case c{1, 8, 64};
        c.channels_last = channels_last;
        c.activation = Activation::relu;
        std::mt19937 random(1);
        Stored x(c), y(c), grad(c);
        x.fill(random, 0);
        x.set(0, 3, place, value);
        run(c, x, x, x, {}, {}, 0.2f, 1e-5, false, y, grad);
        for (int64_t ch = 0; ch < c.channels; ++ch)
          for (int64_t i = 0; i < c.plane; ++i) {
            CHECK(std::isnan(y.get(0, ch, i)) == (ch == 3));
            CHECK(std::isnan(grad.get(0, ch, i)) == (ch == 3));
          }
      }
}

void activations() {
  using norm::activate;
  using norm::activate_backward;
  const norm::Slope relu = norm::slope_of(Activation::relu, 0.2f);
  const norm::Slope leaky = norm::slope_of(Activation::leaky_relu, 0.2f);
  const norm::Slope none = norm::slope_of(Activation::none, 0.2f);
  const float nan = std::nanf(""), infinity = std::numeric_limits<float>::infinity();
  CHECK(activate(-infinity, relu) == 0 && activate(2, relu) == 2 &&
        std::isnan(activate(nan, relu)));
  CHECK(activate(-1, leaky) == -0.2f && activate(2, leaky) == 2 && activate(-3, none) == -3);
  CHECK(activate_backward(0, infinity, relu) == 0 && activate_backward(1, 5, relu) == 5);
  CHECK(activate_backward(nan, 5, relu) == 5 && activate_backward(nan, 5, leaky) == 1);
  CHECK(activate_backward(0, 5, leaky) == 1 && activate_backward(-1, 5, none) == 5);
}

// What every plan must hold, whatever the shape; and which shapes an H200 reads once.
void plans() {
  const norm::Limits h200{1024, 8};
  for (bool backward : {false, true})
    for (bool channels_last : {false, true})
      for (Dtype dtype : dtypes)
        for (bool wide : {false, true})
          for (const norm::Limits& limits : {h200, norm::Limits{1024, 1}, norm::Limits{32, 2}})
            for (int64_t channels : {1, 3, 8, 64, 200, 512})
              for (int64_t plane : {1, 49, 64, 1000, 4096, 39277, 65536, 884736}) {
                InstanceNorm call{};
                call.batch = 8;
                call.channels = channels;
                call.plane = plane;
                call.channels_last = channels_last;
                call.dtype = dtype;
                const int width = norm::packet_width(dtype, wide);
                if ((channels_last ? channels : plane) % width != 0) continue;
                const norm::Plan plan = norm::plan_of(call, wide, backward, limits);
                const int64_t rows = channels_last ? plane : plane / width;
                const int stride = channels_last ? plan.threads / plan.lanes : plan.lanes;
                const bool once = plan.chunks == 1 && norm::has_once(wide, channels_last);
                const int held = norm::held_packets(wide, channels_last, backward, once);
                CHECK(plan.threads % 32 == 0 && plan.threads % plan.lanes == 0);
                CHECK(plan.threads <= std::min(channels_last ? 512 : 1024, limits.threads));
                CHECK(plan.cluster <= limits.cluster && plan.blocks % plan.cluster == 0);
                CHECK(int64_t{plan.part} * plan.cluster >= rows);
                CHECK(int64_t{plan.chunks} * held * stride >= plan.part);
                CHECK(plan.table_columns == 0 || plan.table_columns == plan.threads / 32);
                CHECK(norm::table_bytes<norm::Moments>(plan) <= 48 << 10);
                CHECK(norm::is_countable(call, plan));
                if (!channels_last && wide && limits.cluster == 8 && plane <= 65536)
                  CHECK(plan.chunks == 1);
              }
}

}  // namespace

int main() {
  activations();
  plans();
  kernels_table();
  large_mean();
  not_finite();
  for (int channels_last : {0, 1}) {
    CHECK(seen.block[channels_last] && seen.cluster[channels_last] && seen.chunks[channels_last]);
    CHECK(seen.wide[channels_last] && seen.narrow[channels_last]);
  }
  CHECK(seen.warp[0]);
  std::printf("instance_norm_cuda_tests: %d cases of the kernels emulated on the host, %d failed\n",
              cases, failures);
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
