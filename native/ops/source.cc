// See source.h. A read of a mapped file that fails (it became shorter, or its disk fails) raises SIGBUS, which ends a process.
// Copying with pread instead costs a fifth of the time that packing takes. So a handler puts zeros in the place of what is not
// there and notes it for `check`; any other SIGBUS goes to the handler before ours.
#include "source.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <mutex>

namespace sv {

/** An address range of a file, for the handler: nodes are never freed, so it walks the list without a lock. */
struct Mapping {
  std::atomic<uintptr_t> begin{0}, end{0};  // equal when the node is free
  std::atomic<bool> broken{false};
  std::atomic<bool> is_range{false};  // of a tensor: `check_ranges` looks at it
  Mapping* next = nullptr;
};

namespace {

std::mutex mutex;  // for additions and removals
std::atomic<Mapping*> mappings{nullptr};
std::atomic<bool> have_failed{false};  // a range of a tensor
struct sigaction previous;

void on_bus_error(int signal, siginfo_t* info, void* context) {
  const int saved = errno;
  const auto at = (uintptr_t)info->si_addr;
  const bool is_fault = info->si_code > 0;  // others come from kill()
  for (Mapping* m = is_fault ? mappings.load() : nullptr; m; m = m->next) {
    const uintptr_t begin = m->begin, end = m->end;
    if (at < begin || at >= end) continue;
    const uintptr_t page = at & ~((uintptr_t)sysconf(_SC_PAGESIZE) - 1);
    m->broken = true;
    if (m->is_range) have_failed = true;
    const int access = m->is_range ? PROT_READ | PROT_WRITE : PROT_READ;  // a matrix may be on its way into the range
    if (mmap((void*)page, end - page, access, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED) {
      errno = saved;
      return;
    }
  }
  errno = saved;
  if (previous.sa_flags & SA_SIGINFO) return previous.sa_sigaction(signal, info, context);
  if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) return previous.sa_handler(signal);
  if (!is_fault && previous.sa_handler == SIG_IGN) return;
  sigaction(signal, &previous, nullptr);  // a fault is raised again when this returns
  if (!is_fault) raise(signal);
}

void install_handler() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action = {};
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &previous);
  });
}

Mapping* add_mapping(const void* data, size_t bytes, bool is_range) {
  std::lock_guard<std::mutex> lock(mutex);
  Mapping* m = mappings.load();
  while (m && m->begin != m->end) m = m->next;
  if (!m) {
    m = new Mapping;
    m->next = mappings.load();
    mappings = m;
  }
  m->broken = false;
  m->is_range = is_range;
  m->end = (uintptr_t)data + bytes;
  m->begin = (uintptr_t)data;
  return m;
}

void remove_mapping(Mapping* m) {
  std::lock_guard<std::mutex> lock(mutex);
  m->begin = m->end.load();
}

const struct timespec& changed_at(const struct stat& s) {
#if defined(__APPLE__)
  return s.st_mtimespec;
#else
  return s.st_mtim;
#endif
}

/** Makes a file `bytes` long, with disk space for all of them. */
bool allocate(int fd, int64_t bytes) {
#if defined(__APPLE__)
  struct stat now;
  if (fstat(fd, &now) != 0) return false;
  fstore_t store = {F_ALLOCATEALL, F_PEOFPOSMODE, 0, bytes - now.st_size, 0};
  return bytes <= now.st_size || (fcntl(fd, F_PREALLOCATE, &store) != -1 && ftruncate(fd, bytes) == 0);
#else
  return fallocate(fd, 0, 0, bytes) == 0;
#endif
}

bool is_same(const struct stat& a, const struct stat& b) {
  return a.st_size == b.st_size && changed_at(a).tv_sec == changed_at(b).tv_sec && changed_at(a).tv_nsec == changed_at(b).tv_nsec;
}

}  // namespace

Source::Source(std::string path) : path_(std::move(path)) {
  const auto refuse = [this](const std::string& why) {
    if (fd_ >= 0) close(fd_);
    throw FileError(false, path_ + ": cannot be read: " + why);
  };
  // O_NONBLOCK: opening a FIFO that nobody writes to would wait for ever.
  fd_ = open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd_ < 0 || fstat(fd_, &opened_) != 0) refuse(strerror(errno));
  if (!S_ISREG(opened_.st_mode)) refuse("it is not a regular file");
  if (opened_.st_size == 0) refuse("it is empty");
  void* const mapped = mmap(nullptr, (size_t)opened_.st_size, PROT_READ, MAP_PRIVATE, fd_, 0);
  if (mapped == MAP_FAILED) refuse(strerror(errno));
  install_handler();
  bytes_ = opened_.st_size;
  data_ = static_cast<const char*>(mapped);
  mapping_ = add_mapping(mapped, (size_t)bytes_, false);
  madvise(mapped, (size_t)bytes_, MADV_SEQUENTIAL);
}

Source::~Source() {
  if (fd_ < 0) return;
  if (mapping_) {
    remove_mapping(mapping_);
    munmap(const_cast<char*>(data_), (size_t)bytes_);
  }
  close(fd_);
}

std::unique_ptr<Source> Source::create(std::string path) {
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd < 0) throw FileError(false, path + ": cannot be written: " + strerror(errno));
  return std::unique_ptr<Source>(new Source(std::move(path), fd));
}

void Source::reserve(int64_t bytes) const {
  if (!is_created_ || !allocate(fd_, bytes))
    throw FileError(false, path_ + ": cannot be written: " + (is_created_ ? strerror(errno) : "it was opened for reading"));
}

void Source::write(int64_t offset, const char* data, int64_t bytes) const {
  while (bytes > 0) {
    const ssize_t n = pwrite(fd_, data, (size_t)bytes, offset);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) throw FileError(false, path_ + ": cannot be written: " + strerror(errno));
    offset += n, data += n, bytes -= n;
  }
}

void Source::check() const {
  if (!mapping_) return;
  struct stat now;
  if (fstat(fd_, &now) != 0) throw FileError(false, path_ + ": cannot be read: " + strerror(errno));
  if (!is_same(now, opened_))
    throw FileError(true, path_ + ": the file was changed while it was being read: it had " + std::to_string(opened_.st_size) +
                              " bytes when it was opened and has " + std::to_string(now.st_size) + " now");
  if (mapping_->broken) throw FileError(false, path_ + ": cannot be read: the disk reports an error");
}

MappedRange::MappedRange(const Source& s, int64_t offset, int64_t bytes) : bytes_(bytes) {
  struct stat now;
  if (s.fd_ < 0 || fstat(s.fd_, &now) != 0 || offset < 0 || bytes <= 0 || bytes > now.st_size || offset > now.st_size - bytes)
    throw FileError(true, s.path_ + ": has no bytes " + std::to_string(offset) + " to " + std::to_string((uint64_t)offset + (uint64_t)bytes));
  void* const mapped = mmap(nullptr, (size_t)bytes, s.is_created_ ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, s.fd_, offset);
  if (mapped == MAP_FAILED) throw FileError(false, s.path_ + ": cannot be mapped: " + strerror(errno));
#if defined(MADV_HUGEPAGE)
  madvise(mapped, (size_t)bytes, MADV_HUGEPAGE);  // advice: the page cache then uses large pages where it can
#endif
  install_handler();
  data_ = static_cast<char*>(mapped);
  mapping_ = add_mapping(mapped, (size_t)bytes, true);
}

MappedRange::~MappedRange() {
  remove_mapping(mapping_);
  munmap(data_, (size_t)bytes_);
}

void MappedRange::seal() { mprotect(data_, (size_t)bytes_, PROT_READ); }

bool have_ranges_failed() { return have_failed; }

void check_ranges(const std::vector<const void*>& addresses) {
  std::lock_guard<std::mutex> lock(mutex);
  for (Mapping* m = mappings.load(); m; m = m->next)
    for (const void* address : addresses)
      if (m->is_range && m->broken && (uintptr_t)address >= m->begin && (uintptr_t)address < m->end)
        throw FileError(true, "weights: their file in the cache was cut short, or its disk fails. Load the model again");
}

}  // namespace sv
