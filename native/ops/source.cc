// See source.h.
#include "source.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "../kernels/pool.h"

namespace sv {

Source::Source(std::string path) : path_(std::move(path)) {
  const auto refuse = [this](const std::string& why) {
    if (fd_ >= 0) close(fd_);
    throw FileError(false, path_ + ": cannot be read: " + why);
  };
  // O_NONBLOCK: opening a FIFO that nobody writes to would wait for ever.
  fd_ = open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd_ < 0 || fstat(fd_, &opened_) != 0) refuse(strerror(errno));
  if (!S_ISREG(opened_.st_mode)) refuse("it is not a regular file");
  bytes_ = opened_.st_size;
  posix_fadvise(fd_, 0, 0, POSIX_FADV_SEQUENTIAL);
}

Source::~Source() { if (fd_ >= 0) close(fd_); }

void Source::fail(bool changed, const std::string& why) const {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!error_.empty()) return;
  error_ = path_ + ": " + why;
  changed_ = changed;
}

void Source::read_some(const void* self, int64_t offset, int64_t bytes, void* to) {
  const auto& source = *static_cast<const Source*>(self);
  char* p = static_cast<char*>(to);
  while (bytes > 0) {
    const ssize_t n = pread(source.fd_, p, (size_t)bytes, offset);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      memset(p, 0, (size_t)bytes);  // nothing undefined is computed with before `check` throws
      source.fail(n == 0, n < 0 ? "cannot be read at byte " + std::to_string(offset) + ": " + strerror(errno)
                        : "the file ends at byte " + std::to_string(offset) + " but had " + std::to_string(source.bytes_) +
                              " bytes when it was opened: it was changed while it was being read");
      return;
    }
    p += n;
    offset += n;
    bytes -= n;
  }
}

Stored Source::stored(int64_t offset) const {
  if (!is_file()) return memory_ + offset;
  Stored file;
  file.read = read_some;
  file.state = this;
  file.begin = offset;
  return file;
}

void Source::read(int64_t offset, int64_t bytes, void* to) const {
  if (!is_file()) {
    if (bytes > 0) memcpy(to, memory_ + offset, (size_t)bytes);
    return;
  }
  parallel(bytes, 1 << 18, [&](int64_t begin, int64_t end, int) {
    read_some(this, offset + begin, end - begin, static_cast<char*>(to) + begin);
  });
  check();
}

void Source::check() const {
  if (!is_file()) return;
  std::lock_guard<std::mutex> lock(mutex_);
  if (!error_.empty()) throw FileError(changed_, error_);
  struct stat now;
  if (fstat(fd_, &now) != 0) throw FileError(false, path_ + ": cannot be read: " + strerror(errno));
  if (now.st_size != opened_.st_size || now.st_mtim.tv_sec != opened_.st_mtim.tv_sec || now.st_mtim.tv_nsec != opened_.st_mtim.tv_nsec)
    throw FileError(true, path_ + ": the file was changed while it was being read");
}

}  // namespace sv
