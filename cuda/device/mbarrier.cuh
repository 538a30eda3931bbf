// mbarriers in shared memory: phases that count arrivals and bytes of asynchronous copies (sm_90).
#pragma once
#include <cstdint>

#include "device/shared.cuh"

namespace rvllm::cuda {

__device__ __forceinline__ void mbarrier_init(uint32_t bar, int n_arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(n_arrivals));
}

// Makes initialised barriers visible to the copy engine and to the other CTAs of the cluster; every
// thread that uses them must then meet the initialising thread at a barrier.
__device__ __forceinline__ void mbarrier_init_fence() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

// Arrives once and adds `bytes` to what the phase waits for.
__device__ __forceinline__ void mbarrier_expect(uint32_t bar, uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
}

// Arrives once.
__device__ __forceinline__ void mbarrier_arrive(uint32_t bar) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}

// Orders this thread's earlier writes to shared memory before accesses by tensor cores and the copy engine.
__device__ __forceinline__ void async_proxy_fence() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// The same of global memory, on both sides of a flag.
__device__ __forceinline__ void async_proxy_fence_global() {
    asm volatile("fence.proxy.async.global;" ::: "memory");
}

// Address of `address` (own shared memory) in CTA `rank` of the cluster.
__device__ __forceinline__ uint32_t cluster_address(uint32_t address, uint32_t rank) {
    uint32_t r;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(r) : "r"(address), "r"(rank));
    return r;
}

// Arrives at a barrier given by its cluster address. Orders nothing but what the arriving thread has
// waited for (reads by wgmma): releasing to the cluster costs 0.9 us.
__device__ __forceinline__ void mbarrier_arrive_cluster(uint32_t bar) {
    asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(bar) : "memory");
}

// Waits until the phase of the given parity has completed.
__device__ __forceinline__ void mbarrier_wait(uint32_t bar, uint32_t parity) {
    uint32_t done = 0;
    while (!done) {
        asm volatile(
            "{\n.reg .pred p;\n"
            "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
            "selp.u32 %0, 1, 0, p;\n}"
            : "=r"(done)
            : "r"(bar), "r"(parity)
            : "memory");
    }
}

// Position in a ring of stages: the slot, and the parity of the pass through the ring.
struct RingPosition {
    int slot = 0;
    uint32_t parity = 0;

    __device__ __forceinline__ void advance(int n_stages) {
        if (++slot == n_stages) {
            slot = 0;
            parity ^= 1;
        }
    }

    // n <= n_stages
    __device__ __forceinline__ void advance_by(int n, int n_stages) {
        slot += n;
        if (slot >= n_stages) {
            slot -= n_stages;
            parity ^= 1;
        }
    }
};

}  // namespace rvllm::cuda
