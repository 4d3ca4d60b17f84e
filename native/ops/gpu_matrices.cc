// See gpu_matrices.h.
#include "gpu_matrices.h"

#include <mutex>
#include <unordered_map>

namespace sv {
namespace {

struct Entry {
  PackedHeader header;
  int64_t bytes;
};
std::mutex mutex;
std::unordered_map<const void*, Entry>& entries() {
  static auto* map = new std::unordered_map<const void*, Entry>();  // outlives threads that still run at exit
  return *map;
}

}  // namespace

void remember_header(const void* packed, int64_t bytes, const PackedHeader& header) {
  std::lock_guard<std::mutex> lock(mutex);
  entries()[packed] = {header, bytes};
}

void forget_header(const void* packed) {
  std::lock_guard<std::mutex> lock(mutex);
  entries().erase(packed);
}

bool find_header(const void* packed, int64_t bytes, PackedHeader* found) {
  std::lock_guard<std::mutex> lock(mutex);
  const auto it = entries().find(packed);
  if (it == entries().end() || it->second.bytes != bytes) return false;
  *found = it->second.header;
  return true;
}

}  // namespace sv
