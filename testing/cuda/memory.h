// Device memory that the host cannot access. Knows neither streams nor kernels.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace sv_standin {

/** `bytes` of 0xFF, 256-byte aligned, as a device address; a guard page on both sides. */
void* take_memory(size_t bytes);
/** False: no such allocation. Ends the process when what surrounds it was written to. */
bool give_memory(void* device);
/** Where [device, device + bytes) really lies; null unless one live allocation covers it. */
void* memory_behind(const void* device, size_t bytes);
/** Whether this is an address of device memory, live or not. */
bool is_device_address(const void* pointer);
/** Bytes of the live allocation that starts here; 0: none. */
size_t memory_size(const void* device);
/** Reports live allocations whose surroundings were written to; how many. */
int64_t count_damaged();

}  // namespace sv_standin
