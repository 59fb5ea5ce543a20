// A file whose content is trusted for who can have written it: an engine or its sidecar.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace fastmrigan {

// Open for reading, and of such a kind that only this user, or root, can have written it.
class PrivateFile {
 public:
  // what: that it is, in messages. Throws Error FMG_ERROR_FILE where it cannot be opened,
  // FMG_ERROR_MODEL where others may write to it or it is no plain file.
  PrivateFile(const std::string& path, const char* what);
  ~PrivateFile();
  PrivateFile(const PrivateFile&) = delete;
  PrivateFile& operator=(const PrivateFile&) = delete;

  size_t size() const { return size_; }  // bytes, when it was opened

  // `size` bytes from `offset` to `data`; how many there were, fewer only at the file's end.
  // Throws Error FMG_ERROR_FILE.
  size_t read(size_t offset, uint8_t* data, size_t size) const;

 private:
  [[noreturn]] void fail(int reason) const;
  void check_private();

  const std::string path_;
  const char* const what_;
  const int descriptor_;
  size_t size_ = 0;
};

}  // namespace fastmrigan
