// Sampling on the GPU against the processor's.
#include "../../native/kernels/sample.h"
#include "cuda_testing.h"

using namespace testing;

namespace {

int32_t sample(const std::vector<float>& logits, const sv::Sampling& s) {
  Device<float> x(logits);
  Device<int32_t> id(1);
  Scratch scratch;
  const sv::GpuSampling g = {s.temperature, s.top_k, s.top_p, s.uniform};
  sv::gpu::sample(nullptr, scratch.gpu(), x.data, (int64_t)logits.size(), &g, id.data);
  return id.host()[0];
}

void sample_case(const std::vector<float>& logits, const sv::Sampling& s, const char* what) {
  char text[160];
  snprintf(text, sizeof text, "%s of %d: temperature %g, top-k %d, top-p %g, uniform %.9g", what, (int)logits.size(), s.temperature, s.top_k, s.top_p, s.uniform);
  const int32_t expected = sv::sample(logits.data(), (int64_t)logits.size(), s), got = sample(logits, s);
  check(got == expected, std::string(text) + ": id " + std::to_string(got) + ", the processor says " + std::to_string(expected));
}

void sample_cases() {
  Random random(8);
  const float almost = 1 - 1 / 16777216.f;
  for (int64_t n : {2, 33, 1025}) {
    std::vector<float> noise = random.noises(n), steps, flat((size_t)n, -3.5f);
    for (float& x : noise) x *= 4;
    steps = noise;
    for (float& x : steps) x = roundf(x / 2);
    std::vector<float> masked = steps;
    for (size_t i = 1; i < masked.size(); i += 2) masked[i] = i % 4 == 1 ? -INFINITY : -0.f;
    for (float temperature : {0.f, 0.3f, 1.f, 17.f})
      for (int32_t top_k : {0, 1, 7, 1024})
        for (float top_p : {1.f, 0.9f, 0.5f, 1e-6f})
          for (const auto* x : {&noise, &steps, &flat, &masked}) {
            if (temperature == 0 && (top_k || top_p < 1)) continue;
            const float u = random.uniform();
            sample_case(*x, {temperature, top_k, top_p, u < 0.1f ? 0 : (u > 0.9f ? almost : u)}, "sample");
          }
  }
  // Different logits of equal weight: half of the lower ones, which come first, make up top-p exactly.
  const std::vector<float> close = {1, 1, 1, 1, 1.0000001f, 1.0000001f, 1.0000001f, 1.0000001f};
  for (float u = 0; u < 1; u += 0.0625f) sample_case(close, {17, 0, 0.75f, u}, "sample");
  sample_case(std::vector<float>(200000, 1.f), {1, 0, 0.999999f, almost}, "sample");
  in_every_order("sample", [&] {
    std::vector<int32_t> ids;
    Random again(5);
    const std::vector<float> x = again.noises(4000);
    for (int i = 0; i < 3; i++) ids.push_back(sample(x, {0.8f, 500, 0.95f, again.uniform()}));
    return ids;
  });
}

void broken_logits() {
  Random random(4);
  const std::vector<float> good = random.noises(2000);
  for (float temperature : {0.f, 1.f}) {
    for (float bad : {NAN, INFINITY}) {
      std::vector<float> x = good;
      x[1500] = bad;
      check(sample(x, {temperature, 0, 1, 0.5f}) == -1, "NaN or infinity among logits: expected -1");
      check(sv::sample(x.data(), 2000, {temperature, 0, 1, 0.5f}) == -1, "the processor: expected -1");
    }
    check(sample(std::vector<float>(70, -INFINITY), {temperature, 5, 0.5f, 0.5f}) == -1, "nothing above -infinity: expected -1");
    check(sample({}, {temperature, 0, 1, 0}) == -1, "no logits: expected -1");
  }
}

}  // namespace

int main() {
  sample_cases();
  broken_logits();
  return finish();
}
