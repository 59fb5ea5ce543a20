#include "model_file/private_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/error.h"
#include "include/fastmrigan.h"

namespace fastmrigan {

// O_NONBLOCK: a pipe must not be waited for.
PrivateFile::PrivateFile(const std::string& path, const char* what)
    : path_(path), what_(what), descriptor_(open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC)) {
  if (descriptor_ < 0) fail(errno);
  try {
    check_private();
  } catch (...) {
    close(descriptor_);
    throw;
  }
}

PrivateFile::~PrivateFile() { close(descriptor_); }

size_t PrivateFile::read(size_t offset, uint8_t* data, size_t size) const {
  size_t done = 0;
  while (done < size) {
    const ssize_t got =
        pread(descriptor_, data + done, size - done, static_cast<off_t>(offset + done));
    if (got == 0) break;
    if (got < 0 && errno != EINTR) fail(errno);
    if (got > 0) done += static_cast<size_t>(got);
  }
  return done;
}

void PrivateFile::fail(int reason) const {
  throw Error(FMG_ERROR_FILE, path_ + ": cannot read " + what_ + ": " + std::strerror(reason));
}

// Whoever can write to an engine can have anything executed.
void PrivateFile::check_private() {
  struct stat status{};
  if (fstat(descriptor_, &status) != 0) fail(errno);
  const auto refuse = [&](const char* why) { return Error(FMG_ERROR_MODEL, path_ + why); };
  if (!S_ISREG(status.st_mode))
    throw refuse(": is no plain file; name an engine that export has built");
  if ((status.st_mode & (S_IWGRP | S_IWOTH)) != 0)
    throw refuse(
        ": others may write to it, and an engine is executable; build it again, or chmod 600 it "
        "where you trust it");
  if (status.st_uid != 0 && status.st_uid != geteuid())
    throw refuse(": belongs to another user, and an engine is executable; build your own");
  size_ = static_cast<size_t>(status.st_size);
}

}  // namespace fastmrigan
