// The ops' kernels on a GPU: registered when a device library is loaded. See shell.cc and gpu_stock.cc.
#pragma once
#include "../cuda/kernels.h"

namespace sv {

/** Registers the GPU kernels of all our ops, and our kernels for TensorFlow's own ops. Once per process. */
void register_gpu_ops(const GpuKernels*);
void register_stock_ops();

/** Makes TensorFlow load the device library at `path`, and registers the ops on it. Before tfjs-node-gpu is loaded; a second
 *  call with the same path does nothing. Throws std::runtime_error. */
void load_device(const char* path);
/** The address of a function of the loaded device library, or null. */
void* device_function(const char* name);

}  // namespace sv
