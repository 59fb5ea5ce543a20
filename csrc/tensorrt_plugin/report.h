// Where errors go: TensorRT's functions are noexcept and return no text.
#pragma once

#include <exception>
#include <string>

namespace fastmrigan::plugin {

// To the logger of the engine or builder that called, where TensorRT has handed over a way to find
// it; else a line on stderr.
void report(const std::string& text) noexcept;

// Runs `body`; 0, or -1 after reporting what it threw.
template <typename Body>
int guarded(Body body) noexcept {
  try {
    body();
    return 0;
  } catch (const std::exception& error) {
    report(error.what());
    return -1;
  }
}

}  // namespace fastmrigan::plugin
