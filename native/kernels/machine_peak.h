// Measures the machine's peak rates: read bandwidth of memory, and multiply-add rates of the level in use.
#pragma once

namespace sv {

/** Bytes per second when all threads read memory that does not fit in cache. */
double measure_read_bandwidth();
/** Floating-point operations per second of all threads on registers: f32 multiply-add, the bf16 dot product
 *  (0 where the level has none), or products of bytes summed in 32 bits (0 where they are plain loops). */
double measure_f32_peak();
double measure_bf16_peak();
double measure_int8_peak();

}  // namespace sv
