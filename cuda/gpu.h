// Which GPU this is: whether it can be used, its numbers, and which kernels are for it.
#pragma once
#include "context.h"

namespace rvllm::cuda {

// What is wrong with the driver or the device; false: nothing.
bool unusable(int device, cudaDeviceProp* properties, char* error, int error_size);

// Multiprocessors and shared memory of a block for the common GPU of an architecture: enough to plan for it.
// False: there is no kernel for it.
bool planned_gpu(int arch, Context* context);

// Kernels are chosen by the architecture that they were compiled for: an older one's also where the driver
// compiles its PTX for this device.
cudaError_t find_kernels(Context* c, const cudaDeviceProp& properties);

// The hardware and the software below us, in words: measured choices of kernels are valid for it alone.
void describe_gpu(const Context& c, const cudaDeviceProp& properties, char* text, size_t size);

}  // namespace rvllm::cuda
