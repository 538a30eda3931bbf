// Clusters of CTAs (sm_90): rank, barrier, and reads of another CTA's shared memory.
#pragma once
#include <cstdint>

namespace rvllm::cuda {

__device__ __forceinline__ uint32_t cluster_rank() {
    uint32_t r;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
    return r;
}

__device__ __forceinline__ uint32_t cluster_size() {
    uint32_t r;
    asm volatile("mov.u32 %0, %%cluster_nctarank;" : "=r"(r));
    return r;
}

// All threads of all CTAs meet; shared memory written before is visible to the cluster after.
__device__ __forceinline__ void cluster_sync() {
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::
                     : "memory");
}

// The same without ordering memory, which otherwise waits for every store to have reached L2.
__device__ __forceinline__ void cluster_sync_relaxed() {
    asm volatile("barrier.cluster.arrive.relaxed.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
}

// The generic address of the shared variable of CTA `rank` that is `p` in this one.
template <typename T>
__device__ __forceinline__ T* cluster_map(T* p, uint32_t rank) {
    uint64_t at;
    asm("mapa.u64 %0, %1, %2;" : "=l"(at) : "l"(p), "r"(rank));
    return reinterpret_cast<T*>(at);
}

// Four floats at `address` (an own shared-memory address) of CTA `rank`; zeros unless `valid`. No
// branch: many of these overlap.
__device__ __forceinline__ float4 cluster_load(uint32_t address, uint32_t rank, bool valid) {
    float4 v = make_float4(0, 0, 0, 0);
    asm volatile(
        "{\n.reg .b32 a;\n.reg .pred p;\n"
        "setp.ne.b32 p, %6, 0;\n"
        "@p mapa.shared::cluster.u32 a, %4, %5;\n"
        "@p ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [a];\n}"
        : "+f"(v.x), "+f"(v.y), "+f"(v.z), "+f"(v.w)
        : "r"(address), "r"(rank), "r"((int)valid)
        : "memory");
    return v;
}

}  // namespace rvllm::cuda
