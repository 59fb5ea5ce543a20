// The least a call from Python can cost: functions that take anything and look at nothing.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

namespace {

PyObject* nothing(PyObject*, PyObject* const*, Py_ssize_t, PyObject*) { Py_RETURN_NONE; }

// By way of void (*)(), which silences the warning about a cast between function types.
PyCFunction as_method(_PyCFunctionFastWithKeywords function) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

PyMethodDef methods[] = {
    {"forward", as_method(&nothing), METH_FASTCALL | METH_KEYWORDS, nullptr},
    {"array_sum", as_method(&nothing), METH_FASTCALL | METH_KEYWORDS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "floor", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr,
};

}  // namespace

PyMODINIT_FUNC PyInit_floor() { return PyModule_Create(&definition); }
