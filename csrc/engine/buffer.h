// An engine's input and output: float32 memory of its own.
#pragma once

#include <cstdint>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "model_file/model_file.h"

namespace fastmrigan {

using Shape = std::vector<int64_t>;

constexpr size_t ALIGNMENT = 64;  // backends then use the memory as it is

struct FreeAligned {
  void operator()(float* memory) const { ::operator delete(memory, std::align_val_t{ALIGNMENT}); }
};
using Buffer = std::unique_ptr<float, FreeAligned>;

Buffer zeros(const Shape& shape);
size_t bytes_of(const Shape& shape);

Shape input_shape(const ModelFacts& model, int64_t batch);   // [batch, latent] or [batch, 1, H, W]
Shape output_shape(const ModelFacts& model, int64_t batch);  // [batch, 1, H, W]

// "[1, 1, 256, 256]", for messages.
std::string brackets(const Shape& shape);

}  // namespace fastmrigan
