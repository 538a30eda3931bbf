// The row functions for AVX512.
#include "rows_impl.h"

namespace rvllm {

const RowKernels rows_avx512 = kRows;

}  // namespace rvllm
