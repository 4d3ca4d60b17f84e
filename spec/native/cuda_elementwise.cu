// Broadcast arithmetic, strided copies, gathers and transfers on the GPU, against plain loops.
#include <unistd.h>

#include "cuda_testing.h"

using namespace testing;

namespace {

using Sizes = std::vector<int64_t>;

int64_t product(const Sizes& dims) {
  int64_t n = 1;
  for (int64_t d : dims) n *= d;
  return n;
}
int64_t offset(const Sizes& dims, const Sizes& strides, int64_t i) {
  int64_t at = 0;
  for (size_t d = dims.size(); d-- > 0; i /= dims[d]) at += i % dims[d] * strides[d];
  return at;
}
int64_t extent(const Sizes& dims, const Sizes& strides) {
  int64_t last = 1;
  for (size_t d = 0; d < dims.size(); d++) last += (dims[d] - 1) * strides[d];
  return product(dims) ? last : 0;
}

void binary_case(const Sizes& dims, const Sizes& a_strides, const Sizes& b_strides) {
  Random random(7);
  const std::vector<float> a = random.noises(extent(dims, a_strides)), b = random.noises(extent(dims, b_strides));
  Device<float> da(a), db(b);
  for (int32_t op = 0; op < 4; op++) {
    const int64_t n = product(dims);
    Device<float> y((size_t)n + 3);
    sv::gpu::binary(nullptr, op, (int32_t)dims.size(), dims.data(), da.data, a_strides.data(), db.data, b_strides.data(), y.data);
    std::vector<float> got = y.host(), expected((size_t)n + 3);
    for (int64_t i = 0; i < n; i++) {
      const float u = a[(size_t)offset(dims, a_strides, i)], v = b[(size_t)offset(dims, b_strides, i)];
      expected[(size_t)i] = op == 0 ? u + v : (op == 1 ? u - v : (op == 2 ? u * v : u / v));
    }
    memset(&expected[(size_t)n], 0xff, 12);
    check(same_bits(got, expected), "binary " + std::to_string(op) + ", rank " + std::to_string(dims.size()));
  }
}

void copy_case(const Sizes& dims, const Sizes& from, const Sizes& to, int32_t width) {
  Random random(9);
  std::vector<uint8_t> x((size_t)(extent(dims, from) * width)), expected((size_t)(extent(dims, to) * width), 0xff);
  for (uint8_t& byte : x) byte = (uint8_t)random.bits();
  for (int64_t i = 0; i < product(dims); i++)
    memcpy(&expected[(size_t)(offset(dims, to, i) * width)], &x[(size_t)(offset(dims, from, i) * width)], (size_t)width);
  Device<uint8_t> dx(x), y(expected.size());
  sv::gpu::copy(nullptr, (int32_t)dims.size(), dims.data(), dx.data, from.data(), y.data, to.data(), width);
  check(same_bits(y.host(), expected), "copy of rank " + std::to_string(dims.size()) + ", width " + std::to_string(width));
}

void gather_case(int64_t outer, int64_t n, const std::vector<int32_t>& ids, int64_t inner, int32_t width) {
  Random random(11);
  const int64_t row = inner * width, count = (int64_t)ids.size();
  std::vector<uint8_t> x((size_t)(outer * n * row)), expected((size_t)(outer * count * row));
  for (uint8_t& byte : x) byte = (uint8_t)random.bits();
  for (int64_t o = 0; o < outer; o++)
    for (int64_t i = 0; i < count; i++)
      if (const int64_t id = ids[(size_t)i]; id >= 0 && id < n)
        memcpy(expected.data() + (o * count + i) * row, x.data() + (o * n + id) * row, (size_t)row);
  Device<uint8_t> dx(x), y(expected.size());
  Device<int32_t> dids(ids);
  sv::gpu::gather(nullptr, dx.data, dids.data, outer, n, count, inner, width, y.data);
  check(same_bits(y.host(), expected), "gather of rows of " + std::to_string(row) + " bytes");
}

/** The source changes as soon as `upload` returns, while the device is busy with something else; copies go in order. */
void transfers() {
  Random random(13);
  cudaStream_t stream = nullptr;
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  for (int64_t bytes : {(int64_t)1, (int64_t)255, ((int64_t)1 << 20) + 5, (int64_t)3 << 20}) {
    const int64_t parts = 14;  // of the largest, more than the ring holds
    std::vector<uint8_t> host((size_t)bytes), expected((size_t)(parts * bytes));
    for (uint8_t& byte : expected) byte = (uint8_t)random.bits();
    Device<uint8_t> first((size_t)(parts * bytes)), second((size_t)(parts * bytes));
    cudaDeviceSynchronize();
    cudaLaunchHostFunc(
        stream, [](void*) { usleep(200000); }, nullptr);
    for (int64_t i = 0; i < parts; i++) {
      memcpy(host.data(), expected.data() + i * bytes, (size_t)bytes);
      sv::gpu::upload(stream, first.data + i * bytes, host.data(), bytes);
      memset(host.data(), 0, (size_t)bytes);
    }
    sv::gpu::move(stream, second.data, first.data, parts * bytes);
    cudaStreamSynchronize(stream);
    check(same_bits(first.host(), expected) && same_bits(second.host(), expected), "upload of " + std::to_string(bytes) + " bytes");
  }
  cudaStreamDestroy(stream);
}

}  // namespace

int main() {
  binary_case({}, {}, {});
  binary_case({1000}, {1}, {1});
  binary_case({0, 5}, {5, 1}, {5, 1});
  binary_case({3, 5}, {5, 1}, {0, 1});
  binary_case({3, 5}, {0, 1}, {1, 0});
  binary_case({2, 3, 1, 4, 5, 7}, {420, 140, 140, 35, 7, 1}, {0, 35, 0, 0, 7, 1});
  binary_case({2, 300, 3}, {900, 3, 1}, {0, 0, 0});
  for (int32_t width : {1, 2, 3, 4, 8, 12}) {
    copy_case({}, {}, {}, width);
    copy_case({7, 11}, {20, 1}, {11, 1}, width);          // a slice
    copy_case({5, 3, 4}, {12, 4, 1}, {4, 20, 1}, width);  // a transpose
    copy_case({2, 3, 2, 2, 3, 5}, {180, 60, 30, 15, 5, 1}, {1, 2, 6, 12, 24, 72}, width);
    copy_case({4, 0}, {1, 1}, {1, 1}, width);
    gather_case(3, 5, {4, 0, 4, -1, 5, 2}, 3, width);
  }
  gather_case(2, 9, {8, 8, 1}, 16, 4);
  gather_case(1, 300, {299}, 1, 1);
  gather_case(2, 3, {}, 4, 4);
  gather_case(2, 0, {0, 1}, 4, 4);
  transfers();
  int64_t none[7] = {};
  sv::gpu::copy(nullptr, 7, none, nullptr, none, nullptr, none, 4);
  check(sv::gpu::last_error() != nullptr, "rank 7: expected a refusal");
  return finish();
}
