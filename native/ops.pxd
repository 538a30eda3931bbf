"""ops.def and the enums of the native side, by the names that Python uses."""
from rvllm._native.core cimport Attrs, DType, Weight


cdef DType dtype_of(str name) except *
cdef Weight weight_of(weight) except *
cdef Attrs attrs_of(dict values) except *
