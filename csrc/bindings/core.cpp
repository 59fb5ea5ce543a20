// The Python module fastmrigan._core: bindings only, no arithmetic.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/string.h>

#include <array>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "core/isa.h"
#include "philox/philox.h"
#include "quantise/quantise.h"

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
  m.def("quantise_uint8", &quantise<uint8_t>, "x"_a);
  m.def("quantise_uint16", &quantise<uint16_t>, "x"_a);
}
