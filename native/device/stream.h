// The type behind TF_GetStream on our device, which TensorFlow leaves to the device. Needs no CUDA header.
#pragma once
#include <stdint.h>

struct SP_Stream_st {
  void* stream;    // a cudaStream_t
  int32_t device;  // CUDA's number of the device: cudaSetDevice it before any launch
};
