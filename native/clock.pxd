"""The clock of the engine and of what measures it (clock.h)."""
from libc.stdint cimport int64_t


cdef extern from "clock.h" namespace "rvllm" nogil:
    int64_t monotonic_ns()
    int64_t monotonic_us()
