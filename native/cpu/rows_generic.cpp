// The row functions for portable C++.
#include "rows_impl.h"

namespace rvllm {

const RowKernels rows_generic = kRows;

}  // namespace rvllm
