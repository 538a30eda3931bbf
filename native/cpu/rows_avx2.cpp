// The row functions for AVX2, FMA and F16C.
#include "rows_impl.h"

namespace rvllm {

const RowKernels rows_avx2 = kRows;

}  // namespace rvllm
