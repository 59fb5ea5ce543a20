#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include "function.h"

namespace nb = nanobind;
using namespace nb::literals;

NB_MODULE(BINDING_NAME, m) {
  m.def("forward", &comparison::forward, FORWARD_ARGUMENTS, comparison::forward_doc,
        nb::call_guard<nb::gil_scoped_release>());
  m.def(
      "array_sum",
      [](nb::ndarray<const float, nb::c_contig, nb::device::cpu> x) {
        return comparison::array_sum(x.data(), static_cast<int64_t>(x.size()));
      },
      "x"_a.noconvert(), comparison::array_sum_doc);
}
