"""ops.def and the enums of the native side, by the names that Python uses."""
from rvllm._native.core cimport Attrs, DType, Op, OpInfo, RowOrder, Weight, WeightFormat, op_info

DTYPES = ("f32", "f16", "bf16", "i32")
FORMATS = ("vector", "dense")
ROW_ORDERS = ("plain", "gate_up")
ATTRS = (
    "layer", "group", "n_heads", "n_kv_heads", "head_dim", "rotary_dim", "eps", "softmax_scale", "rope_scale",
)


class OpSpec:
    """One line of ops.def: operand names in order (a trailing '?' marks an optional one) and attribute names."""

    __slots__ = ("attrs", "code", "inputs", "outputs", "weights")

    def __init__(self, code: int, inputs: str, weights: str, outputs: str, attrs: str):
        self.code = code
        self.inputs = tuple(inputs.split())
        self.weights = tuple(weights.split())
        self.outputs = tuple(outputs.split())
        self.attrs = tuple(attrs.split())


def op_table() -> dict[str, OpSpec]:
    """Return ops.def by name."""
    cdef int i
    cdef const OpInfo* info
    table = {}
    for i in range(<int>Op.count):
        info = &op_info(<Op>i)
        table[info.name.decode()] = OpSpec(
            i, info.inputs.decode(), info.weights.decode(), info.outputs.decode(), info.attrs.decode()
        )
    return table


cdef DType dtype_of(str name) except *:
    return <DType><int>DTYPES.index(name)


cdef Weight weight_of(weight) except *:
    """The native form of a rvllm.plan.graph.Weight, without memory."""
    cdef Weight w
    w.format = <WeightFormat><int>FORMATS.index(weight.format)
    w.order = <RowOrder><int>ROW_ORDERS.index(weight.order)
    w.dtype = dtype_of(weight.dtype)
    w.n = weight.n
    w.k = weight.k
    return w


cdef Attrs attrs_of(dict values) except *:
    cdef Attrs attrs
    unknown = set(values).difference(ATTRS)
    if unknown:
        raise ValueError(f"unknown attributes {sorted(unknown)}")
    attrs.layer = values.get("layer", attrs.layer)
    attrs.group = values.get("group", attrs.group)
    attrs.n_heads = values.get("n_heads", attrs.n_heads)
    attrs.n_kv_heads = values.get("n_kv_heads", attrs.n_kv_heads)
    attrs.head_dim = values.get("head_dim", attrs.head_dim)
    attrs.rotary_dim = values.get("rotary_dim", attrs.rotary_dim)
    attrs.eps = values.get("eps", attrs.eps)
    attrs.softmax_scale = values.get("softmax_scale", attrs.softmax_scale)
    attrs.rope_scale = values.get("rope_scale", attrs.rope_scale)
    return attrs
