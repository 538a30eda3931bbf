// isa(): the best instruction set of this machine, capped by RVLLM_ISA.
//
// __builtin_cpu_supports() reads cpuid and, for the wide registers, xgetbv: a set counts only when
// the operating system saves its registers.
#include "isa.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace rvllm {

namespace {

constexpr const char* kNames[] = {"generic", "avx2", "avx512", "avx512_bf16"};

Isa of_machine() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    unsigned eax, ebx, ecx = 0, edx;
    const bool f16c =
        __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C);  // no name for it in clang 14
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !f16c ||
        !__builtin_cpu_supports("bmi2")) {
        return Isa::generic;
    }
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl")) {
        return Isa::avx2;
    }
    return __builtin_cpu_supports("avx512bf16") ? Isa::avx512_bf16 : Isa::avx512;
#else
    return Isa::generic;
#endif
}

Isa capped() {
    const Isa machine = of_machine();
    const char* cap = std::getenv("RVLLM_ISA");
    if (cap == nullptr || *cap == '\0') return machine;
    for (int i = 0; i < 4; ++i) {
        if (std::strcmp(cap, kNames[i]) == 0)
            return i < static_cast<int>(machine) ? static_cast<Isa>(i) : machine;
    }
    std::fprintf(stderr, "RVLLM_ISA is '%s': use generic, avx2, avx512 or avx512_bf16\n", cap);
    std::_Exit(2);
}

}  // namespace

Isa isa() {
    static const Isa found = capped();
    return found;
}

const char* isa_name(Isa set) {
    return kNames[static_cast<int>(set)];
}

}  // namespace rvllm
