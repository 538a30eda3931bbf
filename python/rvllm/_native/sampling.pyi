"""Types of the sampling primitives. Docstrings are in native/sampling.pyx."""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

_Rows: TypeAlias = NDArray[np.float32] | NDArray[np.float16] | NDArray[np.uint16]
_Int32: TypeAlias = NDArray[np.int32]
_Dtype: TypeAlias = Literal["bfloat16"] | None
_Number: TypeAlias = float | ArrayLike  # one, or one per row
_Integer: TypeAlias = int | ArrayLike
_Ids: TypeAlias = Sequence[int] | Sequence[Sequence[int]] | Sequence[NDArray[Any]] | NDArray[Any] | None
_PerRow: TypeAlias = int | NDArray[np.int64]  # int for one row, an array for a batch
_Float: TypeAlias = NDArray[np.float32]
_Out = TypeVar("_Out", bound=_Rows)

def apply_penalties(
    logits: _Rows,
    token_ids: _Ids = None,
    prompt_ids: _Ids = None,
    counts: _Int32 | None = None,
    repetition_penalty: _Number = 1.0,
    frequency_penalty: _Number = 0.0,
    presence_penalty: _Number = 0.0,
    *,
    num_threads: int | None = 1,
    dtype: _Dtype = None,
) -> None: ...
def apply_temperature(
    logits: _Rows, temperature: _Number, *, num_threads: int | None = 1, dtype: _Dtype = None
) -> None: ...
def apply_top_k(logits: _Rows, top_k: _Integer, *, num_threads: int | None = 1, dtype: _Dtype = None) -> _PerRow: ...
def apply_top_p(logits: _Rows, top_p: _Number, *, num_threads: int | None = 1, dtype: _Dtype = None) -> _PerRow: ...
def apply_min_p(logits: _Rows, min_p: _Number, *, num_threads: int | None = 1, dtype: _Dtype = None) -> _PerRow: ...
def apply_bitmask(logits: _Rows, bitmask: _Int32, *, num_threads: int | None = 1, dtype: _Dtype = None) -> None: ...
@overload
def softmax(logits: _Rows, *, out: None = None, num_threads: int | None = 1, dtype: _Dtype = None) -> _Float: ...
@overload
def softmax(logits: _Rows, *, out: _Out, num_threads: int | None = 1, dtype: _Dtype = None) -> _Out: ...
@overload
def log_softmax(logits: _Rows, *, out: None = None, num_threads: int | None = 1, dtype: _Dtype = None) -> _Float: ...
@overload
def log_softmax(logits: _Rows, *, out: _Out, num_threads: int | None = 1, dtype: _Dtype = None) -> _Out: ...
def argmax(logits: _Rows, *, num_threads: int | None = 1, dtype: _Dtype = None) -> _PerRow: ...
def top_logprobs(
    logits: _Rows, n: int, *, num_threads: int | None = 1, dtype: _Dtype = None
) -> tuple[_Int32, _Float]: ...
def multinomial(
    probs: _Rows,
    seed: _Integer | None = None,
    choice: _Integer | None = None,
    token_index: _Integer = 0,
    *,
    num_threads: int | None = 1,
    dtype: _Dtype = None,
) -> _PerRow: ...
def sample_batch(
    logits: _Rows,
    *,
    temperature: _Number = 1.0,
    top_k: _Integer = 0,
    top_p: _Number = 1.0,
    min_p: _Number = 0.0,
    repetition_penalty: _Number = 1.0,
    frequency_penalty: _Number = 0.0,
    presence_penalty: _Number = 0.0,
    token_ids: _Ids = None,
    prompt_ids: _Ids = None,
    counts: _Int32 | None = None,
    bitmask: _Int32 | None = None,
    seed: _Integer | None = None,
    choice: _Integer | None = None,
    token_index: _Integer = 0,
    num_threads: int | None = 1,
    dtype: _Dtype = None,
) -> _PerRow: ...
