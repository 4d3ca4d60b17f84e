// The bytes that ops make tensors from: a checkpoint file, or a typed array of JavaScript.
// A file is read, never mapped: when a mapped file becomes shorter, the kernel ends the process with SIGBUS.
#pragma once
#include <stdint.h>
#include <sys/stat.h>

#include <mutex>
#include <stdexcept>
#include <string>

#include "../kernels/stored.h"

namespace sv {

/** A file that cannot be read, or that is not what it was when it was opened. The message names it. */
struct FileError : std::runtime_error {
  FileError(bool is_changed, const std::string& message) : std::runtime_error(message), changed(is_changed) {}
  const bool changed;
};

class Source {
 public:
  /** Opens a file. Throws FileError. */
  explicit Source(std::string path);
  /** Borrows memory, which has to outlive the source. */
  Source(const void* memory, int64_t bytes) : memory_(static_cast<const char*>(memory)), bytes_(bytes) {}
  ~Source();
  Source(const Source&) = delete;

  int64_t bytes() const { return bytes_; }
  bool is_file() const { return fd_ >= 0; }
  /** The bytes from `offset` on. Whoever has read them calls `check` before the result is used. */
  Stored stored(int64_t offset) const;
  /** Fills `to` on all threads of the pool. Throws FileError. */
  void read(int64_t offset, int64_t bytes, void* to) const;
  /** Throws FileError when a read has failed, or the file has changed since it was opened. */
  void check() const;

 private:
  static void read_some(const void* self, int64_t offset, int64_t bytes, void* to);
  void fail(bool changed, const std::string& why) const;

  const std::string path_;
  const char* memory_ = nullptr;
  int64_t bytes_ = 0;
  int fd_ = -1;
  struct stat opened_ = {};
  mutable std::mutex mutex_;  // pool threads read
  mutable std::string error_;
  mutable bool changed_ = false;
};

/** Throws when there is no such source. It stays until JavaScript releases it, which no op runs beside. Implemented by the addon. */
const Source& source(int32_t id);

}  // namespace sv
