// SvPacked: a packed matrix of a file, mapped. SvPackedSum: the checksum of a packed matrix. SvChecksum: those of ranges of sources.
// See packed_file.h.
#include "packed_file.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <memory>
#include <new>

#include "../kernels/checksum.h"
#include "checks.h"
#include "source.h"

namespace sv {
namespace {

/** Matrices up to this size are packed in memory and written: a page fault in a file costs more than the copy. */
constexpr int64_t kMostScratch = (int64_t)1 << 28, kHugePage = (int64_t)1 << 21;

/** Memory for a matrix, in huge pages where the kernel gives them. */
std::unique_ptr<char, void (*)(void*)> scratch(int64_t bytes) {
  const size_t size = (size_t)((bytes + kHugePage - 1) / kHugePage * kHugePage);
  std::unique_ptr<char, void (*)(void*)> memory(static_cast<char*>(aligned_alloc((size_t)kHugePage, size)), free);
  if (!memory) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
  madvise(memory.get(), size, MADV_HUGEPAGE);
#endif
  return memory;
}

void release(void*, size_t, void* owner) { delete static_cast<MappedRange*>(owner); }

/** A range becomes output 0. */
void output_range(Op& op, std::unique_ptr<MappedRange> range) {
  const int64_t bytes = range->bytes();
  if (op.device().is_host()) {
    MappedRange* const owner = range.release();
    op.own_output(0, owner->data(), bytes, release, owner);
  } else {
    op.device().fill_matrix(op.output(0, TF_UINT8, {bytes}).data, bytes, [&](void* out) { memcpy(out, range->data(), (size_t)bytes); });
  }
}

/** recipe: [source, offset (2 words), bytes (2 words), checksum (2 words)], the offset a multiple of the page size -> packed matrix.
 *  Refuses one that has another checksum. */
void packed_op(Op& op) {
  const View recipe = op.input(0, 1);
  require(recipe.count() == 7, "recipe: expected 7 words");
  const int32_t* r = recipe.i32();
  auto range = std::make_unique<MappedRange>(source(r[0]), wide(r + 1), wide(r + 3));
  require(checksum(range->data(), range->bytes()) == (uint64_t)wide(r + 5), "the matrix has another checksum than it was written with");
  if (const char* why = check_packed(range->data(), range->bytes())) fail(why);
  source(r[0]).check();
  output_range(op, std::move(range));
}

/** packed -> int32 [2], the words of its checksum. */
void packed_sum_op(Op& op) {
  const View w = op.input(0, 1);
  const uint64_t sum = checksum(w.data, w.bytes);
  memcpy(op.output(0, TF_INT32, {2}).data, &sum, 8);
}

/** recipe: per range of a source [source, offset (2 words), bytes (2 words)] -> int32 [ranges, 2], the words of each checksum. */
void checksum_op(Op& op) {
  constexpr int kWords = 5;
  const View recipe = op.input(0, 1);
  require(recipe.count() % kWords == 0, "recipe: wrong length");
  const int64_t count = recipe.count() / kWords;
  const View sums = op.output(0, TF_INT32, {count, 2});
  for (int64_t i = 0; i < count; i++) {
    const int32_t* r = recipe.i32() + kWords * i;
    const Source& s = source(r[0]);
    const int64_t offset = wide(r + 1), bytes = wide(r + 3);
    if (offset < 0 || bytes < 0 || bytes > s.bytes() || offset > s.bytes() - bytes) fail("the range lies outside its source");
    const uint64_t sum = checksum(s.data() + offset, bytes);
    memcpy(static_cast<char*>(sums.data) + 8 * i, &sum, 8);
    s.check();
  }
}

}  // namespace

void packed_output(Op& op, const View& place, int64_t bytes, const Fill& body) {
  if (place.count() == 0) return op.device().fill_matrix(op.output(0, TF_UINT8, {bytes}).data, bytes, body);
  require(place.count() == 3, "place: expected no words, or 3");
  const Source& file = source(place.i32()[0]);
  const int64_t offset = wide(place.i32() + 1);
  auto range = std::make_unique<MappedRange>(file, offset, bytes);
  if (bytes > kMostScratch) {
    body(range->data());
  } else {
    const auto memory = scratch(bytes);
    body(memory.get());
    file.write(offset, memory.get(), bytes);
  }
  range->seal();
  output_range(op, std::move(range));
}

void register_packed_file() {
  register_op<packed_op>("SvPacked", {"recipe: int32"}, {"packed: uint8"}, true);
  register_op<packed_sum_op>("SvPackedSum", {on_host("packed: uint8")}, {"sum: int32"});
  register_op<checksum_op>("SvChecksum", {"recipe: int32"}, {"sums: int32"}, true);
}

}  // namespace sv
