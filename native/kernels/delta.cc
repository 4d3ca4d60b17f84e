// Spreads the gated delta rule over threads: a key head of a sequence is one item, with the value heads that share it. An item goes
// through its rows in blocks.
#include "delta.h"

#include <math.h>
#include <string.h>

#include "linear.h"
#include "pool.h"

namespace sv {
namespace {

constexpr int64_t kBlock = 32;  // rows that are convolved together

/** A range of columns of a row, and where it lies in an item's rows. */
struct Columns {
  int64_t from, to, n;
};

/** One key head of one sequence. */
class Item {
 public:
  Item(const Delta& d, int64_t sequence, int64_t key_head, float* memory) : d_(d), s_(d.sizes), head_(key_head) {
    for (int64_t i = 0; i < sequence; i++) first_ += d.sequences[i].t;
    t_ = d.sequences[sequence].t;
    state_ = d.sequences[sequence].state;
    tail_ = state_ + s_.value_heads * s_.matrix_floats();
    group_ = s_.value_heads / s_.key_heads;
    const int64_t key = s_.dk, values = group_ * s_.dv;
    columns_[0] = {key_head * key, 0, key};
    columns_[1] = {s_.key_width() + key_head * key, key, key};
    columns_[2] = {2 * s_.key_width() + key_head * values, 2 * key, values};
    ld_ = row_floats(s_);
    rows_ = memory;
    taps_ = rows_ + kBlock * ld_;
    decay_ = taps_ + s_.taps * ld_;
    beta_ = decay_ + kBlock;
  }
  static int64_t row_floats(const DeltaSizes& s) { return padded_ld(2 * s.dk + s.value_heads / s.key_heads * s.dv); }
  static int64_t memory_floats(const DeltaSizes& s) { return (kBlock + s.taps) * row_floats(s) + 2 * kBlock; }

  void run() {
    for (const Columns& c : columns_)
      for (int64_t j = 0; j < s_.taps; j++)
        for (int64_t i = 0; i < c.n; i++) taps_[j * ld_ + c.to + i] = d_.conv[(c.from + i) * s_.taps + j];
    for (int64_t begin = 0; begin < t_; begin += kBlock) run_block(begin, t_ - begin < kBlock ? t_ - begin : kBlock);
    keep_tail();
  }

 private:
  /** Row i of the sequence before the convolution; negative ones are of the state. */
  const float* row(int64_t i) const { return i < 0 ? tail_ + (s_.taps - 1 + i) * s_.width() : d_.x + (first_ + i) * d_.ldx; }

  void run_block(int64_t begin, int64_t n) {
    const Kernels& k = kernels();
    const float* x[kMostTaps];
    for (int64_t i = 0; i < n; i++) {
      float* y = rows_ + i * ld_;
      for (const Columns& c : columns_) {
        for (int64_t j = 0; j < s_.taps; j++) x[j] = row(begin + i - (s_.taps - 1) + j) + c.from;
        k.conv_silu(x, taps_ + c.to, ld_, s_.taps, c.n, y + c.to);
      }
      k.l2_norm(y, 1.f / sqrtf((float)s_.dk), s_.dk);
      k.l2_norm(y + s_.dk, 1.f, s_.dk);
    }
    for (int64_t g = 0; g < group_; g++) {
      const int64_t head = head_ * group_ + g;
      weigh(begin, n, head);
      float* out = d_.out + (first_ + begin) * d_.ldo + head * s_.dv;
      const float* v = rows_ + 2 * s_.dk + g * s_.dv;
      k.delta_rows(state_ + head * s_.matrix_floats(), {rows_, rows_ + s_.dk, v, ld_, n, s_.dk, s_.dv, decay_, beta_, out, d_.ldo});
    }
  }

  /** In double precision, as a level's vectors have no logarithm: few numbers, and then the same at every level. */
  void weigh(int64_t begin, int64_t n, int64_t head) {
    const double rate = exp((double)d_.a_log[head]);
    for (int64_t i = 0; i < n; i++) {
      const float* gates = d_.gates + (first_ + begin + i) * d_.ldg;
      const double step = (double)gates[s_.value_heads + head] + (double)d_.dt_bias[head];
      decay_[i] = (float)exp(-rate * (step > 20 ? step : log1p(exp(step))));
      beta_[i] = (float)(1 / (1 + exp(-(double)gates[head])));
    }
  }

  /** The last rows become those of the state; ascending, because rows of the state may move within it. */
  void keep_tail() {
    for (int64_t j = 0; j < s_.taps - 1; j++)
      for (const Columns& c : columns_) {
        const float* from = row(t_ - (s_.taps - 1) + j) + c.from;
        memmove(tail_ + j * s_.width() + c.from, from, (size_t)c.n * 4);
      }
  }

  const Delta& d_;
  const DeltaSizes& s_;
  const int64_t head_;
  int64_t first_ = 0, t_, group_, ld_;
  float *state_, *tail_, *rows_, *taps_, *decay_, *beta_;
  Columns columns_[3];
};

}  // namespace

void delta_rule(const Delta& d) {
  const int64_t heads = d.sizes.key_heads;
  reserve_thread_scratch(kStripSlot, Item::memory_floats(d.sizes));
  parallel(d.count * heads, 1, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t i = begin; i < end; i++) Item(d, i / heads, i % heads, thread_scratch(thread, kStripSlot)).run();
  });
}

}  // namespace sv
