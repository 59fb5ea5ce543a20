// The Python module fastmrigan._core: bindings only, no arithmetic.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>

#include <array>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/isa.h"
#include "finite/finite.h"
#include "frechet/moments.h"
#include "instance_norm/instance_norm.h"
#include "philox/philox.h"
#include "quantise/quantise.h"
#include "ssim/ssim.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

template <typename T>
using Array = nb::ndarray<nb::numpy, T, nb::c_contig>;

template <typename T>
Array<T> own(std::unique_ptr<T[]> data, const std::vector<size_t>& shape) {
  nb::capsule owner(data.get(), [](void* p) noexcept { delete[] static_cast<T*>(p); });
  return Array<T>(data.release(), shape.size(), shape.data(), owner);
}

template <typename T>
Array<T> quantise(nb::ndarray<const float, nb::c_contig, nb::device::cpu> x) {
  std::vector<size_t> shape;
  for (size_t axis = 0; axis < x.ndim(); ++axis) shape.push_back(x.shape(axis));
  std::unique_ptr<T[]> out(new T[x.size()]);
  {
    nb::gil_scoped_release release;
    fastmrigan::quantise(x.data(), static_cast<int64_t>(x.size()), out.get());
  }
  return own(std::move(out), shape);
}

bool all_finite(nb::ndarray<const float, nb::c_contig, nb::device::cpu> x) {
  nb::gil_scoped_release release;
  return fastmrigan::all_finite(x.data(), static_cast<int64_t>(x.size()));
}

Array<float> philox_normal(uint64_t seed, uint64_t first, int64_t count, int64_t dim, int threads) {
  if (count < 0 || dim < 0)
    throw nb::value_error("philox_normal: count and dim must not be negative");
  if (dim != 0 && count > std::numeric_limits<int64_t>::max() / 8 / dim)
    throw nb::value_error("philox_normal: count * dim is more than memory can hold");
  std::unique_ptr<float[]> out(new float[static_cast<size_t>(count * dim)]);
  {
    nb::gil_scoped_release release;
    fastmrigan::philox_normal(seed, first, count, dim, threads, out.get());
  }
  return own(std::move(out), {static_cast<size_t>(count), static_cast<size_t>(dim)});
}

// Pointers are integers, as torch gives them; 0 is null. fastmrigan.ops checks and fills these in.
using Pointer = uintptr_t;
using Pair = std::pair<int64_t, int64_t>;

fastmrigan::Strides strides(const Pair& pair) { return {pair.first, pair.second}; }

template <typename T>
T* pointer(Pointer address) {
  return reinterpret_cast<T*>(address);
}

template <typename Call>
Call instance_norm_call(std::array<int64_t, 3> shape, bool channels_last, int dtype, int activation,
                        float slope, double eps, Pointer weight, Pointer bias, Pointer x,
                        const Pair& x_strides) {
  Call call{};
  call.batch = shape[0];
  call.channels = shape[1];
  call.plane = shape[2];
  call.channels_last = channels_last;
  call.dtype = static_cast<fastmrigan::Dtype>(dtype);
  call.activation = static_cast<fastmrigan::Activation>(activation);
  call.slope = slope;
  call.eps = eps;
  call.weight = pointer<const float>(weight);
  call.bias = pointer<const float>(bias);
  call.x = pointer<const void>(x);
  call.x_strides = strides(x_strides);
  return call;
}

void instance_norm_forward(std::array<int64_t, 3> shape, bool channels_last, int dtype,
                           int activation, float slope, double eps, Pointer weight, Pointer bias,
                           Pointer x, Pair x_strides, Pointer residual, Pair residual_strides,
                           Pointer y, Pair y_strides, Pointer statistics, int threads, bool cuda,
                           Pointer stream) {
  auto call = instance_norm_call<fastmrigan::InstanceNormForward>(
      shape, channels_last, dtype, activation, slope, eps, weight, bias, x, x_strides);
  call.residual = pointer<const void>(residual);
  call.residual_strides = strides(residual_strides);
  call.y = pointer<void>(y);
  call.y_strides = strides(y_strides);
  call.statistics = pointer<float>(statistics);
  nb::gil_scoped_release release;
  if (cuda)
    fastmrigan::instance_norm_forward_cuda(call, pointer<void>(stream));
  else
    fastmrigan::instance_norm_forward(call, threads);
}

void instance_norm_backward(std::array<int64_t, 3> shape, bool channels_last, int dtype,
                            int activation, float slope, double eps, Pointer weight, Pointer bias,
                            Pointer x, Pair x_strides, Pointer statistics, Pointer grad_y,
                            Pair grad_y_strides, Pointer grad_x, Pair grad_x_strides, Pointer sums,
                            Pointer grad_weight, Pointer grad_bias, int threads, bool cuda,
                            Pointer stream) {
  auto call = instance_norm_call<fastmrigan::InstanceNormBackward>(
      shape, channels_last, dtype, activation, slope, eps, weight, bias, x, x_strides);
  call.statistics = pointer<const float>(statistics);
  call.grad_y = pointer<const void>(grad_y);
  call.grad_y_strides = strides(grad_y_strides);
  call.grad_x = pointer<void>(grad_x);
  call.grad_x_strides = strides(grad_x_strides);
  call.sums = pointer<float>(sums);
  call.grad_weight = pointer<float>(grad_weight);
  call.grad_bias = pointer<float>(grad_bias);
  nb::gil_scoped_release release;
  if (cuda)
    fastmrigan::instance_norm_backward_cuda(call, pointer<void>(stream));
  else
    fastmrigan::instance_norm_backward(call, threads);
}

using Vector = nb::ndarray<double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Matrix = nb::ndarray<double, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

void require_square(const Vector& sums, const Matrix& products) {
  if (products.shape(0) != sums.size() || products.shape(1) != sums.size())
    throw nb::value_error("moments: products must be [d, d] for sums [d]");
}

template <typename T>
void moments_update(nb::ndarray<const T, nb::ndim<2>, nb::device::cpu> x, Vector shift, Vector sums,
                    Matrix products, int threads) {
  require_square(sums, products);
  if (x.shape(1) != sums.size() || shift.size() != sums.size() ||
      (x.size() > 0 && x.shape(1) > 1 && x.stride(1) != 1))
    throw nb::value_error(
        "moments_update: x must be [n, d] for sums and shift [d], its rows dense");
  const fastmrigan::MomentsUpdate<T> call{x.data(),
                                          x.stride(0),
                                          static_cast<int64_t>(x.shape(0)),
                                          static_cast<int64_t>(x.shape(1)),
                                          shift.data(),
                                          sums.data(),
                                          products.data()};
  nb::gil_scoped_release release;
  fastmrigan::moments_update(call, threads);
}

Array<double> moments_covariance(Vector sums, Matrix products, int64_t count, int threads) {
  require_square(sums, products);
  if (count < 2) throw nb::value_error("moments_covariance: count must be at least 2");
  const int64_t d = static_cast<int64_t>(sums.size());
  std::unique_ptr<double[]> out(new double[sums.size() * sums.size()]);
  {
    nb::gil_scoped_release release;
    fastmrigan::moments_covariance(sums.data(), products.data(), count, d, threads, out.get());
  }
  return own(std::move(out), {sums.size(), sums.size()});
}

template <typename T>
void update_on_cuda(Pointer x, int64_t rows, int64_t d, Pointer shift, Pointer sums,
                    Pointer products, Pointer stream) {
  const fastmrigan::MomentsUpdate<T> call{
      pointer<const T>(x),      d, rows, d, pointer<const double>(shift), pointer<double>(sums),
      pointer<double>(products)};
  nb::gil_scoped_release release;
  fastmrigan::moments_update_cuda(call, pointer<void>(stream));
}

void moments_update_cuda(Pointer x, bool wide, int64_t rows, int64_t d, Pointer shift, Pointer sums,
                         Pointer products, Pointer stream) {
  if (wide)
    update_on_cuda<double>(x, rows, d, shift, sums, products, stream);
  else
    update_on_cuda<float>(x, rows, d, shift, sums, products, stream);
}

fastmrigan::Similarity similarity_call(std::array<int64_t, 3> shape, bool with_windows) {
  fastmrigan::Similarity call{};
  call.batch = shape[0];
  call.height = shape[1];
  call.width = shape[2];
  call.with_windows = with_windows;
  return call;
}

fastmrigan::Similarity similarity_call(std::array<int64_t, 3> shape, Pointer a, Pointer b,
                                       Pointer mask, int64_t mask_stride, float c1, float c2,
                                       bool with_windows, Pointer sums) {
  auto call = similarity_call(shape, with_windows);
  call.a = pointer<const float>(a);
  call.b = pointer<const float>(b);
  call.mask = pointer<const uint8_t>(mask);
  call.mask_stride = mask_stride;
  call.c1 = c1;
  call.c2 = c2;
  call.sums = pointer<double>(sums);
  return call;
}

void similarity(std::array<int64_t, 3> shape, Pointer a, Pointer b, Pointer mask,
                int64_t mask_stride, float c1, float c2, bool with_windows, Pointer sums,
                int threads) {
  const auto call = similarity_call(shape, a, b, mask, mask_stride, c1, c2, with_windows, sums);
  nb::gil_scoped_release release;
  fastmrigan::similarity(call, threads);
}

void similarity_cuda(std::array<int64_t, 3> shape, Pointer a, Pointer b, Pointer mask,
                     int64_t mask_stride, float c1, float c2, bool with_windows, Pointer sums,
                     Pointer workspace, Pointer stream) {
  const auto call = similarity_call(shape, a, b, mask, mask_stride, c1, c2, with_windows, sums);
  nb::gil_scoped_release release;
  fastmrigan::similarity_cuda(call, pointer<double>(workspace), pointer<void>(stream));
}

}  // namespace

NB_MODULE(_core, m) {
  m.doc() = "The native core of fastmrigan; its Python faces state shapes, units and errors.";
  m.attr("cuda_compiled") = fastmrigan::cuda_compiled;
  m.def(
      "isa", [] { return fastmrigan::isa_name(fastmrigan::active_isa()); },
      "The instruction set in use: baseline, avx2 or avx512.");
  m.def(
      "isa_supported",
      [](const std::string& name) {
        for (auto isa : {fastmrigan::Isa::baseline, fastmrigan::Isa::avx2, fastmrigan::Isa::avx512})
          if (name == fastmrigan::isa_name(isa)) return fastmrigan::isa_supported(isa);
        return false;
      },
      "name"_a);
  m.def("philox_normal", &philox_normal, "seed"_a, "first"_a, "count"_a, "dim"_a, "threads"_a = 0);
  m.def(
      "philox_words",
      [](std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
        std::array<uint32_t, 4> out;
        fastmrigan::philox_words(counter.data(), key.data(), out.data());
        return out;
      },
      "counter"_a, "key"_a);
  m.def(
      "philox_normal_cuda",
      [](uint64_t seed, uint64_t first, int64_t count, int64_t dim, uintptr_t stream,
         uintptr_t device_out) {
        fastmrigan::philox_normal_cuda(seed, first, count, dim, reinterpret_cast<void*>(stream),
                                       reinterpret_cast<float*>(device_out));
      },
      "seed"_a, "first"_a, "count"_a, "dim"_a, "stream"_a, "device_out"_a);
  m.def("instance_norm_forward", &instance_norm_forward, "shape"_a, "channels_last"_a, "dtype"_a,
        "activation"_a, "slope"_a, "eps"_a, "weight"_a, "bias"_a, "x"_a, "x_strides"_a,
        "residual"_a, "residual_strides"_a, "y"_a, "y_strides"_a, "statistics"_a, "threads"_a,
        "cuda"_a, "stream"_a);
  m.def("instance_norm_backward", &instance_norm_backward, "shape"_a, "channels_last"_a, "dtype"_a,
        "activation"_a, "slope"_a, "eps"_a, "weight"_a, "bias"_a, "x"_a, "x_strides"_a,
        "statistics"_a, "grad_y"_a, "grad_y_strides"_a, "grad_x"_a, "grad_x_strides"_a, "sums"_a,
        "grad_weight"_a, "grad_bias"_a, "threads"_a, "cuda"_a, "stream"_a);
  m.def("moments_update", &moments_update<float>, "x"_a.noconvert(), "shift"_a.noconvert(),
        "sums"_a.noconvert(), "products"_a.noconvert(), "threads"_a);
  m.def("moments_update", &moments_update<double>, "x"_a.noconvert(), "shift"_a.noconvert(),
        "sums"_a.noconvert(), "products"_a.noconvert(), "threads"_a);
  m.def("moments_covariance", &moments_covariance, "sums"_a.noconvert(), "products"_a.noconvert(),
        "count"_a, "threads"_a);
  m.def("moments_update_cuda", &moments_update_cuda, "x"_a, "wide"_a, "rows"_a, "d"_a, "shift"_a,
        "sums"_a, "products"_a, "stream"_a);
  m.def("all_finite", &all_finite, "x"_a);
  m.def("quantise_uint8", &quantise<uint8_t>, "x"_a);
  m.def("quantise_uint16", &quantise<uint16_t>, "x"_a);
  m.def("similarity", &similarity, "shape"_a, "a"_a, "b"_a, "mask"_a, "mask_stride"_a, "c1"_a,
        "c2"_a, "with_windows"_a, "sums"_a, "threads"_a);
  m.def("similarity_cuda", &similarity_cuda, "shape"_a, "a"_a, "b"_a, "mask"_a, "mask_stride"_a,
        "c1"_a, "c2"_a, "with_windows"_a, "sums"_a, "workspace"_a, "stream"_a);
  m.def(
      "similarity_cuda_workspace",
      [](std::array<int64_t, 3> shape, bool with_windows) {
        return fastmrigan::similarity_cuda_workspace(similarity_call(shape, with_windows));
      },
      "shape"_a, "with_windows"_a);
}
