// See machine_peak.h. Each measurement is the best of several short runs, because a peak is the best that the machine can do.
#include "machine_peak.h"

#include <string.h>

#include <algorithm>
#include <chrono>
#include <vector>

#include "int8.h"
#include "pool.h"

namespace sv {
namespace {

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

template <class F>
double best_rate(int runs, double work, F&& run) {
  double best = 0;
  for (int i = 0; i < runs; i++) {
    const double start = seconds();
    run();
    best = std::max(best, work / (seconds() - start));
  }
  return best;
}

double peak(double (*loop)(int64_t)) {
  if (!loop) return 0;
  const int64_t iterations = 2000000;
  std::vector<double> sink((size_t)thread_count() * 16);
  const double work = loop(1) * (double)iterations * thread_count();
  return best_rate(5, work, [&] {
    parallel_region(
        thread_count(), 1, [](void* c, int64_t b, int64_t e, int) {
          for (int64_t i = b; i < e; i++) (*static_cast<double (**)(int64_t)>(c))(iterations);
        },
        &loop);
  });
}

}  // namespace

double measure_read_bandwidth() {
  const int64_t bytes = 1ll << 29, piece = 1ll << 21, pieces = bytes / piece;
  std::vector<char> memory((size_t)bytes, 1);
  std::vector<float> sums((size_t)pieces);
  return best_rate(5, (double)bytes, [&] {
    parallel(pieces, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; i++) sums[(size_t)i] = kernels().read_all((const float*)(memory.data() + i * piece), piece / 4);
    });
  });
}

double measure_f32_peak() { return peak(kernels().f32_loop); }
double measure_bf16_peak() { return peak(kernels().bf16_loop); }
double measure_int8_peak() { return peak(int8_kernels().int8_loop); }

}  // namespace sv
