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
  Mapping* next = nullptr;
};

namespace {

std::mutex mutex;  // for additions and removals
std::atomic<Mapping*> mappings{nullptr};
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
    if (mmap((void*)page, end - page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED) {
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

Mapping* add_mapping(const void* data, size_t bytes) {
  std::lock_guard<std::mutex> lock(mutex);
  Mapping* m = mappings.load();
  while (m && m->begin != m->end) m = m->next;
  if (!m) {
    m = new Mapping;
    m->next = mappings.load();
    mappings = m;
  }
  m->broken = false;
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
  mapping_ = add_mapping(mapped, (size_t)bytes_);
  madvise(mapped, (size_t)bytes_, MADV_SEQUENTIAL);
}

Source::~Source() {
  if (fd_ < 0) return;
  remove_mapping(mapping_);
  munmap(const_cast<char*>(data_), (size_t)bytes_);
  close(fd_);
}

void Source::check() const {
  if (fd_ < 0) return;
  struct stat now;
  if (fstat(fd_, &now) != 0) throw FileError(false, path_ + ": cannot be read: " + strerror(errno));
  if (!is_same(now, opened_))
    throw FileError(true, path_ + ": the file was changed while it was being read: it had " + std::to_string(opened_.st_size) +
                              " bytes when it was opened and has " + std::to_string(now.st_size) + " now");
  if (mapping_->broken) throw FileError(false, path_ + ": cannot be read: the disk reports an error");
}

}  // namespace sv
