#include "engine/processor.h"

#include <sys/utsname.h>

#include <fstream>

namespace fastmrigan {

std::string processor() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(':'), from = line.find_first_not_of(" \t", colon + 1);
    if (colon == line.npos || from == line.npos || line.rfind("model name", 0) != 0) continue;
    return line.substr(from, line.find_last_not_of(" \t") + 1 - from);
  }
  utsname system{};
  return uname(&system) == 0 ? system.machine : "";
}

}  // namespace fastmrigan
