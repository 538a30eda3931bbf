// RVLLM_HOST_DEVICE marks functions that kernels of an accelerator share with the host.
#pragma once
#ifdef __CUDACC__
#define RVLLM_HOST_DEVICE __host__ __device__
#else
#define RVLLM_HOST_DEVICE
#endif
