// CHECK(condition) for the C++ tests: says what failed and where, and goes on.
#pragma once

#include <cstdio>

inline int failures = 0;

inline void check(bool holds, const char* what, const char* file, int line) {
  if (holds) return;
  std::fprintf(stderr, "%s:%d: %s\n", file, line, what);
  ++failures;
}

#define CHECK(condition) check((condition), #condition, __FILE__, __LINE__)
