#include "engine/buffer.h"

#include <cstring>

namespace fastmrigan {

size_t bytes_of(const Shape& shape) {
  int64_t total = sizeof(float);
  for (const int64_t side : shape) total *= side;
  return static_cast<size_t>(total);
}

Buffer zeros(const Shape& shape) {
  const size_t bytes = bytes_of(shape);
  auto* memory = static_cast<float*>(::operator new(bytes, std::align_val_t{ALIGNMENT}));
  std::memset(memory, 0, bytes);
  return Buffer(memory);
}

Shape input_shape(const ModelFacts& model, int64_t batch) {
  if (model.task == Task::sample) return {batch, model.latent_size};
  return {batch, 1, model.height, model.width};
}

Shape output_shape(const ModelFacts& model, int64_t batch) {
  return {batch, 1, model.height, model.width};
}

std::string brackets(const Shape& shape) {
  std::string text;
  for (const int64_t side : shape) text += (text.empty() ? "[" : ", ") + std::to_string(side);
  return text + "]";
}

}  // namespace fastmrigan
