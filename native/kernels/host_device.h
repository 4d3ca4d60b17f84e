// Marks functions that run on a processor and, where the CUDA compiler reads them, on a GPU as well.
#pragma once

#ifdef __CUDACC__
#define SV_HOST_DEVICE __host__ __device__
#else
#define SV_HOST_DEVICE
#endif
