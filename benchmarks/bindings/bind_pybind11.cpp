#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "function.h"

namespace py = pybind11;
using namespace py::literals;

PYBIND11_MODULE(BINDING_NAME, m) {
  m.def("forward", &comparison::forward, FORWARD_ARGUMENTS, comparison::forward_doc,
        py::call_guard<py::gil_scoped_release>());
  m.def(
      "array_sum",
      [](const py::array_t<float, py::array::c_style>& x) {
        return comparison::array_sum(x.data(), static_cast<int64_t>(x.size()));
      },
      "x"_a.noconvert(), comparison::array_sum_doc);
}
