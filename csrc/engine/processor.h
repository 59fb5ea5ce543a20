#pragma once

#include <string>

namespace fastmrigan {

// The processor's name as fastmrigan/runtime/machine.py gives it.
std::string processor();

}  // namespace fastmrigan
