// The bytes that ops make tensors from: a checkpoint file, which is mapped, or a typed array of JavaScript.
#pragma once
#include <stdint.h>
#include <sys/stat.h>

#include <stdexcept>
#include <string>

namespace sv {

/** A file that cannot be read, or that has changed since it was opened. The message names it. */
struct FileError : std::runtime_error {
  FileError(bool is_changed, const std::string& message) : std::runtime_error(message), changed(is_changed) {}
  const bool changed;
};

struct Mapping;

class Source {
 public:
  /** Maps a file. Throws FileError. */
  explicit Source(std::string path);
  /** Borrows memory, which has to outlive the source. */
  Source(const void* memory, int64_t bytes) : data_(static_cast<const char*>(memory)), bytes_(bytes) {}
  ~Source();
  Source(const Source&) = delete;

  /**
   * The bytes. If a file cannot be read, or has become shorter, they are zeros from then on and the process continues: whoever
   * has read them calls `check` before the result is used.
   */
  const char* data() const { return data_; }
  int64_t bytes() const { return bytes_; }
  /** Throws FileError when a read has failed, or the file has changed since it was opened. */
  void check() const;

 private:
  const std::string path_;
  const char* data_ = nullptr;
  int64_t bytes_ = 0;
  int fd_ = -1;  // of a file
  struct stat opened_ = {};
  Mapping* mapping_ = nullptr;
};

/** Throws when there is no such source. It stays until JavaScript releases it, which no op runs beside. Implemented by the addon. */
const Source& source(int32_t id);

}  // namespace sv
