// The loops of SamplingKernels over sixteen virtual lanes. Each kernels_*.cpp includes a lanes header and
// then this; everything is in an unnamed namespace, so no code of one instruction set can be linked into
// another.
#include "edit.inl"
#include "penalties.inl"
#include "scan.inl"
#include "weights.inl"

namespace rvllm {
namespace {

constexpr SamplingKernels table(const char* name) {
    return {name,           scan_max,   argmax,       count_above,  collect,     kth_bound,
            sort_few,       mass,       rough_mass,   mass_bound,   weights,     histogram,
            pick_bins,      exact_mass, exact_weight, softmax,      divide,      subtract,
            mask,           mask_bits,  prob_mass,    prob_weights, penalize,    penalize_tally,
            penalize_dense, ids_below,  from_half,    to_half,      from_bfloat, to_bfloat};
}

}  // namespace
}  // namespace rvllm
