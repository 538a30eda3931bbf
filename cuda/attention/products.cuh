// Warpgroup products of attention (sm_90a), written out because asm operands cannot be templates.
//
// scores: d[64, Keys] = a[64, 16] * b[Keys, 16]^T (+ d), both K-major in shared memory, 128-byte swizzle.
// values: d[64, D] += a[64, 16] * b[16, D]: a in registers, as mma's A fragment; b as it lies, D contiguous.
// Accumulators as in device/wgmma.cuh.
#pragma once
#include "device/wgmma.cuh"

namespace rvllm::cuda {

// Descriptor of rows of 64 elements, 128-byte swizzle, that are contracted along the rows (b of values).
// 64 columns further lie `chunk_bytes` further; eight rows further is +64.
__device__ __forceinline__ uint64_t wgmma_row_descriptor(uint32_t address, uint32_t chunk_bytes) {
    return (uint64_t)((address & 0x3ffff) >> 4) | (uint64_t)(chunk_bytes >> 4) << 16 | (uint64_t)64 << 32 |
           (uint64_t)1 << 62;
}

template <typename T, int Keys>
struct ScoreProduct;
template <typename T, int D>
struct ValueProduct;

// clang-format off
#define RVLLM_D8(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
                    "+f"(d[i + 6]), "+f"(d[i + 7])
#define RVLLM_D16(i) RVLLM_D8(i), RVLLM_D8(i + 8)
#define RVLLM_D32(i) RVLLM_D16(i), RVLLM_D16(i + 16)
#define RVLLM_D40(i) RVLLM_D32(i), RVLLM_D8(i + 32)
#define RVLLM_D48(i) RVLLM_D32(i), RVLLM_D16(i + 32)
#define RVLLM_D64(i) RVLLM_D32(i), RVLLM_D32(i + 32)
#define RVLLM_D128(i) RVLLM_D64(i), RVLLM_D64(i + 64)

#define RVLLM_SCORES_64(T, NAME)                                                                                     \
    template <>                                                                                                      \
    struct ScoreProduct<T, 64> {                                                                                     \
        static __device__ __forceinline__ void run(float (&d)[32], uint64_t a, uint64_t b, bool add) {               \
            asm volatile(                                                                                            \
                "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"                                                         \
                "wgmma.mma_async.sync.aligned.m64n64k16.f32." NAME "." NAME " {"                                     \
                "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, "                                       \
                "%14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, "                             \
                "%28, %29, %30, %31"                                                                                 \
                "}, %32, %33, p, 1, 1, 0, 0;\n}"                                                                     \
                : RVLLM_D32(0)                                                                                       \
                : "l"(a), "l"(b), "r"((int)add));                                                                    \
        }                                                                                                            \
    };
RVLLM_SCORES_64(__nv_bfloat16, "bf16")
RVLLM_SCORES_64(__half, "f16")
#undef RVLLM_SCORES_64

#define RVLLM_SCORES_128(T, NAME)                                                                                    \
    template <>                                                                                                      \
    struct ScoreProduct<T, 128> {                                                                                    \
        static __device__ __forceinline__ void run(float (&d)[64], uint64_t a, uint64_t b, bool add) {               \
            asm volatile(                                                                                            \
                "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"                                                         \
                "wgmma.mma_async.sync.aligned.m64n128k16.f32." NAME "." NAME " {"                                    \
                "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, "                                       \
                "%14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, "                             \
                "%28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, "                             \
                "%42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, "                             \
                "%56, %57, %58, %59, %60, %61, %62, %63"                                                             \
                "}, %64, %65, p, 1, 1, 0, 0;\n}"                                                                     \
                : RVLLM_D64(0)                                                                                       \
                : "l"(a), "l"(b), "r"((int)add));                                                                    \
        }                                                                                                            \
    };
RVLLM_SCORES_128(__nv_bfloat16, "bf16")
RVLLM_SCORES_128(__half, "f16")
#undef RVLLM_SCORES_128

#define RVLLM_VALUES_64(T, NAME)                                                                                     \
    template <>                                                                                                      \
    struct ValueProduct<T, 64> {                                                                                     \
        static __device__ __forceinline__ void run(float (&d)[32], const uint32_t (&a)[4], uint64_t b) {             \
            asm volatile(                                                                                            \
                "wgmma.mma_async.sync.aligned.m64n64k16.f32." NAME "." NAME " {"                                     \
                "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, "                                       \
                "%14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, "                             \
                "%28, %29, %30, %31"                                                                                 \
                "}, {%32, %33, %34, %35}, %36, 1, 1, 1, 1;"                                                          \
                : RVLLM_D32(0)                                                                                       \
                : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                                               \
        }                                                                                                            \
    };
RVLLM_VALUES_64(__nv_bfloat16, "bf16")
RVLLM_VALUES_64(__half, "f16")
#undef RVLLM_VALUES_64

#define RVLLM_VALUES_80(T, NAME)                                                                                     \
    template <>                                                                                                      \
    struct ValueProduct<T, 80> {                                                                                     \
        static __device__ __forceinline__ void run(float (&d)[40], const uint32_t (&a)[4], uint64_t b) {             \
            asm volatile(                                                                                            \
                "wgmma.mma_async.sync.aligned.m64n80k16.f32." NAME "." NAME " {"                                     \
                "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, "                                       \
                "%14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, "                             \
                "%28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39"                                         \
                "}, {%40, %41, %42, %43}, %44, 1, 1, 1, 1;"                                                          \
                : RVLLM_D40(0)                                                                                       \
                : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                                               \
        }                                                                                                            \
    };
RVLLM_VALUES_80(__nv_bfloat16, "bf16")
RVLLM_VALUES_80(__half, "f16")
#undef RVLLM_VALUES_80

#define RVLLM_VALUES_96(T, NAME)                                                                                     \
    template <>                                                                                                      \
    struct ValueProduct<T, 96> {                                                                                     \
        static __device__ __forceinline__ void run(float (&d)[48], const uint32_t (&a)[4], uint64_t b) {             \
            asm volatile(                                                                                            \
                "wgmma.mma_async.sync.aligned.m64n96k16.f32." NAME "." NAME " {"                                     \
                "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, "                                       \
                "%14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, "                             \
                "%28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, "                             \
                "%42, %43, %44, %45, %46, %47"                                                                       \
                "}, {%48, %49, %50, %51}, %52, 1, 1, 1, 1;"                                                          \
                : RVLLM_D48(0)                                                                                       \
                : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                                               \
        }                                                                                                            \
    };
RVLLM_VALUES_96(__nv_bfloat16, "bf16")
RVLLM_VALUES_96(__half, "f16")
#undef RVLLM_VALUES_96

#define RVLLM_VALUES_128(T, NAME)                                                                                    \
    template <>                                                                                                      \
    struct ValueProduct<T, 128> {                                                                                    \
        static __device__ __forceinline__ void run(float (&d)[64], const uint32_t (&a)[4], uint64_t b) {             \
            asm volatile(                                                                                            \
                "wgmma.mma_async.sync.aligned.m64n128k16.f32." NAME "." NAME " {"                                    \
                "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, "                                       \
                "%14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, "                             \
                "%28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, "                             \
                "%42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, "                             \
                "%56, %57, %58, %59, %60, %61, %62, %63"                                                             \
                "}, {%64, %65, %66, %67}, %68, 1, 1, 1, 1;"                                                          \
                : RVLLM_D64(0)                                                                                       \
                : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                                               \
        }                                                                                                            \
    };
RVLLM_VALUES_128(__nv_bfloat16, "bf16")
RVLLM_VALUES_128(__half, "f16")
#undef RVLLM_VALUES_128

#define RVLLM_VALUES_256(T, NAME)                                                                                    \
    template <>                                                                                                      \
    struct ValueProduct<T, 256> {                                                                                    \
        static __device__ __forceinline__ void run(float (&d)[128], const uint32_t (&a)[4], uint64_t b) {            \
            asm volatile(                                                                                            \
                "wgmma.mma_async.sync.aligned.m64n256k16.f32." NAME "." NAME " {"                                    \
                "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, "                                       \
                "%14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, "                             \
                "%28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, "                             \
                "%42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, "                             \
                "%56, %57, %58, %59, %60, %61, %62, %63, %64, %65, %66, %67, %68, %69, "                             \
                "%70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, "                             \
                "%84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, "                             \
                "%98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "                 \
                "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, "               \
                "%126, %127"                                                                                         \
                "}, {%128, %129, %130, %131}, %132, 1, 1, 1, 1;"                                                     \
                : RVLLM_D128(0)                                                                                      \
                : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                                               \
        }                                                                                                            \
    };
RVLLM_VALUES_256(__nv_bfloat16, "bf16")
RVLLM_VALUES_256(__half, "f16")
#undef RVLLM_VALUES_256

#undef RVLLM_D8
#undef RVLLM_D16
#undef RVLLM_D32
#undef RVLLM_D40
#undef RVLLM_D48
#undef RVLLM_D64
#undef RVLLM_D128
// clang-format on

}  // namespace rvllm::cuda
