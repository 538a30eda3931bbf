"""What single ops run on, made of NumPy arrays."""
from rvllm._native.core cimport DType, KvCacheView, StepInput, Weight
from rvllm._native.device cimport Device


cdef DType array_dtype(array) except *
cdef void* data_of(array, bint write=*) except? NULL
cdef WeightArray pack(Device device, array, dtype, str order)


cdef class WeightArray:
    cdef Weight w
    cdef Device device


cdef class KvCache:
    cdef KvCacheView view
    cdef readonly object k
    cdef readonly object v
    cdef readonly object host


cdef class Step:
    cdef StepInput s
    cdef readonly dict arrays
