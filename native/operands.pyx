"""What single ops run on, made of NumPy arrays: weights, the KV cache, a step. For tests and benches.

Types are float32, float16, int32, and uint16 for the bits of bf16, which NumPy does not have.
"""
import numpy as np

cimport cython
from libc.stdint cimport int32_t, int64_t, uint64_t

from rvllm._native.core cimport Backend, BlockCopy, DType, RowOrder, WeightFormat, kMaxCacheGroups
from rvllm._native.device cimport Device
from rvllm._native.ops cimport dtype_of

cdef dict NUMPY_DTYPES = {"float32": "f32", "float16": "f16", "uint16": "bf16", "int32": "i32"}


cdef DType array_dtype(array) except *:
    name = NUMPY_DTYPES.get(array.dtype.name)
    if name is None:
        raise TypeError(f"an array of {array.dtype}: use float32, float16, uint16 (bf16 bits) or int32")
    return dtype_of(name)


cdef void* data_of(array, bint write=False) except? NULL:
    address, read_only = array.__array_interface__["data"]
    if write and read_only:
        raise ValueError("an output array is read-only")
    return <void*><size_t>address


@cython.no_gc_clear  # __dealloc__ needs the device
cdef class WeightArray:
    """A weight in the backend's layout, freed with the object."""
    def __dealloc__(self):
        if self.w.data != NULL:
            self.device.ptr.free(self.device.ptr, self.w.data, self.w.bytes)

    @property
    def nbytes(self):
        return self.w.bytes

    def unpack(self, int64_t row=0, n_rows=None):
        """Return rows [row, row + n_rows) as float32 [n_rows, k]."""
        cdef int64_t n = self.w.n - row if n_rows is None else n_rows
        out = np.empty((n, self.w.k), np.float32)
        if self.device.ptr.unpack(self.device.ptr, &self.w, <float*>data_of(out), row, n) != 0:
            raise ValueError(self.device.ptr.error.decode())
        return out


cdef WeightArray pack(Device device, array, dtype, str order):
    """Pack an array [n] (a vector, kept as float32) or [n, k] (dense, kept as `dtype`, by default its own).

    order: "plain" or "gate_up", of the rows.
    """
    cdef WeightArray w = WeightArray()
    cdef Backend* b = device.ptr
    array = np.ascontiguousarray(array)
    w.device = device
    w.w.n = array.shape[0]
    w.w.k = 1 if array.ndim == 1 else array.shape[1]
    w.w.format = WeightFormat.vector if array.ndim == 1 else WeightFormat.dense
    w.w.order = RowOrder.gate_up if order == "gate_up" else RowOrder.plain
    if array.ndim == 2:
        w.w.dtype = dtype_of(dtype) if dtype else array_dtype(array)
    w.w.bytes = b.weight_bytes(b, &w.w)
    w.w.data = b.alloc(b, w.w.bytes)
    if w.w.data == NULL:
        raise MemoryError(b.error.decode())
    if b.pack(b, &w.w, data_of(array), array_dtype(array), 0, w.w.n) != 0:
        raise ValueError(b.error.decode())
    return w


cdef class KvCache:
    """Views of two arrays [layer, block, kv_head, block_size, head_dim]: float32, float16 or uint16 (bf16).

    `host`, if given, is the second tier: [block, 2, layer, kv_head, block_size, head_dim].
    """
    def __init__(self, k, v, host=None):
        if k.shape != v.shape or k.ndim != 5 or k.dtype != v.dtype:
            raise ValueError("k and v are not arrays [layer, block, kv_head, block_size, head_dim] of one type")
        if not (k.flags.c_contiguous and v.flags.c_contiguous):
            raise ValueError("the cache arrays are not contiguous")
        if host is not None and (host.shape[1:] != (2, k.shape[0], *k.shape[2:]) or host.dtype != k.dtype):
            raise ValueError("the second tier is no array [block, 2, layer, kv_head, block_size, head_dim] like k")
        self.k, self.v, self.host = k, v, host
        if host is not None:
            self.view.host, self.view.n_host_blocks = data_of(host, True), host.shape[0]
        self.view.k, self.view.v = data_of(k, True), data_of(v, True)
        self.view.n_layers, self.view.n_blocks = k.shape[0], k.shape[1]
        self.view.n_kv_heads, self.view.block_size, self.view.head_dim = k.shape[2], k.shape[3], k.shape[4]
        self.view.dtype = <int32_t>array_dtype(k)


cdef int32_t* ints(dict keep, str name, value) except? NULL:
    array = np.ascontiguousarray(value, dtype=np.int32)
    keep[name] = array
    return <int32_t*>data_of(array)


cdef class Step:
    """A StepInput over arrays.

    tables: block ids per sequence (of every cache group alike); slots: cache slots of the tokens;
    copies: (group, source block, target block) triples; the others as in step.h.
    """
    def __init__(self, int n_tokens=0, int n_rows=0, *, query_start=None, positions=None, tables=None, slots=None,
                 token_ids=None, last_token=None, logit_rows=None, copies=None, uint64_t step_id=0):
        cdef int g
        self.arrays = keep = {}
        self.s.step_id = step_id
        if query_start is not None:
            self.s.query_start = ints(keep, "query_start", query_start)
            self.s.n_seqs = len(query_start) - 1
            lengths = np.diff(query_start)
            self.s.max_query_len = lengths.max(initial=0)
            n_tokens = n_tokens or query_start[-1]
        if positions is not None:
            self.s.positions = ints(keep, "positions", positions)
            n_tokens = n_tokens or len(positions)
            if query_start is not None:
                kv_len = np.asarray(positions)[np.asarray(query_start)[1:] - 1] + 1
                self.s.kv_len = ints(keep, "kv_len", kv_len)
                self.s.max_kv_len = kv_len.max(initial=0)
        if logit_rows is not None:
            self.s.logit_rows = ints(keep, "logit_rows", logit_rows)
            n_rows = n_rows or len(logit_rows)
        self.s.n_tokens, self.s.n_rows = n_tokens, n_rows
        self.s.token_ids = ints(keep, "token_ids", np.zeros(n_tokens) if token_ids is None else token_ids)
        if last_token is not None:
            self.s.last_token = ints(keep, "last_token", last_token)
        if tables is not None:
            starts = ints(keep, "table_start", np.cumsum([0, *map(len, tables)]))
            blocks = ints(keep, "table_blocks", [b for table in tables for b in table])
            for g in range(kMaxCacheGroups):
                self.s.tables[g].start, self.s.tables[g].blocks = starts, blocks
        if slots is not None:
            for g in range(kMaxCacheGroups):
                self.s.slots[g] = ints(keep, "slots", slots)
        if copies is not None:
            self.s.copies = <BlockCopy*>ints(keep, "copies", copies)  # three int32 each
            self.s.n_copies = len(copies)
