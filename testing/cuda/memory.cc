// Two ranges of addresses of the same size: the one that is handed out is never readable; the other, at a fixed distance, holds
// the bytes. Each allocation has its own pages, fresh from a file of 0xFF bytes (NaN as float and bfloat16), its end as near to a
// guard page as 256-byte alignment allows; what is left over on its pages must stay 0xFF.

#include "memory.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <map>
#include <mutex>

#include "blocks.h"
#include "cuda_runtime.h"

namespace sv_standin {
namespace {

constexpr size_t kRange = size_t(1) << 36;  // addresses, far more than memory: freed ones come back late
constexpr size_t kPage = 4096;
constexpr size_t kFresh = size_t(16) << 20;
constexpr size_t kAlign = 256;

/** Offsets in the range. */
struct Allocation {
  size_t first, pages, begin, bytes;
};

struct Memory {
  std::mutex mutex;
  char* device;
  char* real;
  int fresh;
  size_t next = kPage;
  std::map<size_t, Allocation> live;  // by first page
};

void die(const char* what) {
  fprintf(stderr, "stand-in: %s\n", what);
  abort();
}

struct sigaction before;

// Says what was touched, then lets the fault happen again as it would have without us.
void on_fault(int, siginfo_t* info, void*);

Memory& memory() {
  static Memory* const all = [] {
    auto* m = new Memory;
    // Not near anything else, so that no number in a kernel's arguments looks like an address of it by chance.
    void* hint = reinterpret_cast<void*>(uintptr_t(0x2b5d) << 32);
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void* device = mmap(hint, kRange, PROT_NONE, flags, -1, 0);
    void* real = mmap(nullptr, kRange, PROT_NONE, flags, -1, 0);
    if (device == MAP_FAILED || real == MAP_FAILED) die("no room for two 64 GiB ranges of addresses; is `ulimit -v` set?");
    m->device = static_cast<char*>(device);
    m->real = static_cast<char*>(real);
    m->fresh = memfd_create("standin-fresh", MFD_CLOEXEC);
    if (m->fresh < 0 || ftruncate(m->fresh, kFresh) != 0) die("no memory file");
    void* bytes = mmap(nullptr, kFresh, PROT_READ | PROT_WRITE, MAP_SHARED, m->fresh, 0);
    if (bytes == MAP_FAILED) die("no memory for fresh pages");
    memset(bytes, 0xff, kFresh);
    munmap(bytes, kFresh);
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, &before);
    return m;
  }();
  return *all;
}

/** The live allocation whose pages hold this offset, or null. */
const Allocation* around(const Memory& m, size_t offset) {
  auto after = m.live.upper_bound(offset);
  if (after == m.live.begin()) return nullptr;
  const Allocation& a = std::prev(after)->second;
  return offset < a.first + a.pages ? &a : nullptr;
}

/** A stretch of pages that no allocation uses, with a guard page behind it; 0: none. Searches on from the last one. */
size_t find_pages(Memory& m, size_t pages) {
  for (int round = 0; round < 2; round++) {
    size_t at = round == 0 ? m.next : kPage;
    for (auto it = m.live.lower_bound(at); at + pages + kPage <= kRange; ++it) {
      if (it == m.live.end() || it->first >= at + pages + kPage) return m.next = at + pages + kPage, at;
      at = it->first + it->second.pages + kPage;
    }
  }
  return 0;
}

bool damaged(const Memory& m, const Allocation& a) {
  const auto other = [&](size_t from, size_t to) {
    for (; from < to; from++)
      if (m.real[from] != char(0xff)) return true;
    return false;
  };
  const bool front = other(a.first, a.begin), back = other(a.begin + a.bytes, a.first + a.pages);
  if (front || back)
    fprintf(stderr, "stand-in: something wrote %s the %zu bytes of device memory at %p. Look for a kernel that writes out of bounds.\n",
            front ? "before" : "past", a.bytes, static_cast<void*>(m.device + a.begin));
  return front || back;
}

void on_fault(int signal, siginfo_t* info, void*) {
  Memory& m = memory();
  char* at = static_cast<char*>(info->si_addr);
  const bool device = at >= m.device && at < m.device + kRange, real = at >= m.real && at < m.real + kRange;
  char who[300], where[120] = "before every live allocation";
  const bool kernel = running(who, sizeof who);
  if (device || real) {
    const size_t offset = size_t(at - (device ? m.device : m.real));
    if (m.mutex.try_lock()) {
      auto after = m.live.upper_bound(offset);  // the allocation it lies in, or is past
      if (after != m.live.begin()) {
        const Allocation& a = std::prev(after)->second;
        snprintf(where, sizeof where, "byte %lld of an allocation of %zu", (long long)(offset) - (long long)(a.begin), a.bytes);
      }
    }
    dprintf(2, "stand-in: %s touched %s at %p: %s.\n", who, device ? "device memory as if it were the host's" : "device memory out of bounds",
            static_cast<void*>(m.device + offset), where);
  } else if (kernel) {
    dprintf(2, "stand-in: %s touched %p, which is no device memory: a host pointer, dynamic shared memory out of bounds, or a full stack.\n",
            who, static_cast<void*>(at));
  }
  sigaction(signal, &before, nullptr);
}

}  // namespace

bool is_device_address(const void* pointer) {
  Memory& m = memory();
  return static_cast<const char*>(pointer) >= m.device && static_cast<const char*>(pointer) < m.device + kRange;
}

void translate(void* argument, size_t bytes) {
  Memory& m = memory();
  for (size_t at = 0; at + sizeof(char*) <= bytes; at += sizeof(char*)) {
    char* word;
    memcpy(&word, static_cast<char*>(argument) + at, sizeof word);
    if (!is_device_address(word)) continue;
    word = m.real + (word - m.device);
    memcpy(static_cast<char*>(argument) + at, &word, sizeof word);
  }
}

void* take_memory(size_t bytes) {
  Memory& m = memory();
  std::lock_guard<std::mutex> lock(m.mutex);
  const size_t room = (bytes + kAlign - 1) / kAlign * kAlign, pages = (room + kPage - 1) / kPage * kPage;
  const size_t first = find_pages(m, pages);
  if (first == 0) return nullptr;
  for (size_t done = 0; done < pages; done += kFresh) {
    const size_t part = pages - done < kFresh ? pages - done : kFresh;
    void* at = mmap(m.real + first + done, part, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, m.fresh, 0);
    if (at == MAP_FAILED) return nullptr;
  }
  m.live[first] = {first, pages, first + pages - room, bytes};
  return m.device + first + pages - room;
}

bool give_memory(void* device) {
  Memory& m = memory();
  std::lock_guard<std::mutex> lock(m.mutex);
  const Allocation* a = around(m, size_t(static_cast<char*>(device) - m.device));
  if (!a || m.device + a->begin != device) return false;
  if (damaged(m, *a)) abort();
  mmap(m.real + a->first, a->pages, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
  m.live.erase(a->first);
  return true;
}

void* memory_behind(const void* device, size_t bytes) {
  Memory& m = memory();
  if (!is_device_address(device)) return nullptr;
  std::lock_guard<std::mutex> lock(m.mutex);
  const size_t offset = size_t(static_cast<const char*>(device) - m.device);
  const Allocation* a = around(m, offset);
  if (!a || offset < a->begin || offset > a->begin + a->bytes || bytes > a->begin + a->bytes - offset) return nullptr;
  return m.real + offset;
}

size_t memory_size(const void* device) {
  Memory& m = memory();
  std::lock_guard<std::mutex> lock(m.mutex);
  const Allocation* a = around(m, size_t(static_cast<const char*>(device) - m.device));
  return a && m.device + a->begin == device ? a->bytes : 0;
}

int64_t count_damaged() {
  Memory& m = memory();
  std::lock_guard<std::mutex> lock(m.mutex);
  int64_t count = 0;
  for (const auto& entry : m.live) count += damaged(m, entry.second);
  return count;
}

}  // namespace sv_standin
