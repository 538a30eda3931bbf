// row_kernels(): the table of the instruction set in use.
#include "rows.h"

namespace rvllm {

const RowKernels& row_kernels() {
#if defined(__x86_64__)
    if (isa() >= Isa::avx512) return rows_avx512;
    if (isa() == Isa::avx2) return rows_avx2;
#endif
    return rows_generic;
}

}  // namespace rvllm
