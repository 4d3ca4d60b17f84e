// Attention of t queries over keys and values that may be gathered through a row index, on all threads.
// Does not know where keys come from (a KV cache, or the projections of a vision block).
#pragma once
#include "kernels.h"

namespace sv {

struct Attention {
  const float* q;  // [t][q_ld], head i at i * c
  int64_t q_ld, t, heads, kv_heads, c;
  AttentionRows rows;   // of kv head 0
  int64_t head_stride;  // bytes from one kv head's rows to the next
  int64_t visible;      // rows (listed, then tail) that query 0 sees; the others see one more each when causal
  bool causal;
  const int32_t* spans = nullptr;  // [t][2], or null: query i sees rows [spans[i][0], spans[i][1]) of the `visible` ones; not causal
  float scale;
  bool tiles = false;    // f32 rows alone: products on matrix tiles where the processor has them, an error of 2^-16
  float softcap = 0;     // scores s become softcap tanh(s / softcap); 0: they stay
  float* out = nullptr;  // [t][out_ld]; null: columns only
  int64_t out_ld = 0;
  float* columns = nullptr;  // [visible + (causal ? t - 1 : 0)]: mean over heads and queries of the softmax, or null
};

/** out = softmax(scale q k^T) v; query i sees the first visible (+ i when causal) rows of the list-then-tail sequence, or its span
 *  of them. Chunks of rows that no query of a strip sees are skipped. */
void attend(const Attention&);
/** Several of them, to the same bits. Those of many sequences need no split into chunks, and share one region of the pool. */
void attend_all(const Attention* calls, int64_t count);

/** Writes t rows of keys and values [t][ld], head i at i * c, to cache rows at, at + 1, ... of every kv head. */
void kv_write(char* k, char* v, bool bf16, int64_t head_stride, int64_t row_stride, int64_t at, const float* keys,
              const float* values, int64_t ld, int64_t t, int64_t kv_heads, int64_t c);

}  // namespace sv
