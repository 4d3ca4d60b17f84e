// The bytes that ops make tensors from: a checkpoint file, which is mapped, or a typed array of JavaScript.
#pragma once
#include <stdint.h>
#include <sys/stat.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

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
  /** A new file, for `reserve` and `MappedRange`; it has no bytes to read. Throws FileError. */
  static std::unique_ptr<Source> create(std::string path);
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
  /** Takes disk space for the first `bytes` bytes of a created file. Throws FileError. */
  void reserve(int64_t bytes) const;
  /** Writes to a created file, in reserved bytes. Throws FileError. */
  void write(int64_t offset, const char* data, int64_t bytes) const;

 private:
  friend class MappedRange;
  Source(std::string path, int fd) : path_(std::move(path)), fd_(fd), is_created_(true) {}
  const std::string path_;
  const char* data_ = nullptr;
  int64_t bytes_ = 0;
  int fd_ = -1;  // of a file
  const bool is_created_ = false;
  struct stat opened_ = {};
  Mapping* mapping_ = nullptr;
};

/**
 * A range of a file in memory, shared with the page cache, for a tensor that outlives the source; `release` frees it. What can no
 * longer be read is zeros, as in a source: ops call `check_ranges` after they have read their inputs.
 */
class MappedRange {
 public:
  /** Maps bytes of an opened file for reading, or of a created one for writing; `offset` a multiple of the page size. Throws FileError. */
  MappedRange(const Source&, int64_t offset, int64_t bytes);
  ~MappedRange();
  MappedRange(const MappedRange&) = delete;
  char* data() const { return data_; }
  int64_t bytes() const { return bytes_; }
  /** From now on the range can only be read. */
  void seal();

 private:
  char* data_;
  const int64_t bytes_;
  Mapping* mapping_;
};

/** Throws FileError if one of these addresses lies in a MappedRange whose file has become shorter or unreadable. */
void check_ranges(const std::vector<const void*>& addresses);
/** Whether `check_ranges` may throw. */
bool have_ranges_failed();

/** Throws when there is no such source. It stays until JavaScript releases it, which no op runs beside. Implemented by the addon. */
const Source& source(int32_t id);

}  // namespace sv
