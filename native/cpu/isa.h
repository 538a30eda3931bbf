// Which instruction sets this machine has, found once. Kernels are compiled one file per set and
// chosen at run time; RVLLM_ISA (generic, avx2, avx512, avx512_bf16) caps the choice for tests.
#pragma once
#include <cstdint>

namespace rvllm {

enum class Isa : uint8_t {
    generic = 0,      // portable C++
    avx2 = 1,         // AVX2 + FMA + F16C
    avx512 = 2,       // AVX512 F, BW, DQ, VL
    avx512_bf16 = 3,  // the same with vdpbf16ps
};

Isa isa();  // best set that the machine, the operating system and RVLLM_ISA allow
const char* isa_name(Isa);

}  // namespace rvllm
