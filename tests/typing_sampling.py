"""What a type checker must say about rvllm.sampling; checked by test_sampling_calls.py."""

from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

from rvllm import sampling

logits: NDArray[np.float32] = np.zeros((2, 10), np.float32)
half: NDArray[np.float16] = np.zeros(10, np.float16)

assert_type(sampling.softmax(logits), NDArray[np.float32])
assert_type(sampling.softmax(half, out=half), NDArray[np.float16])
assert_type(sampling.argmax(logits), int | NDArray[np.int64])
assert_type(sampling.top_logprobs(logits, 3), tuple[NDArray[np.int32], NDArray[np.float32]])
sampling.apply_penalties(logits, [[1, 2], [3]], repetition_penalty=[1.1, 1.2])
sampling.apply_penalties(half, np.array([1, 2]), counts=np.zeros(10, np.int32), presence_penalty=0.5)
sampling.sample_batch(logits, temperature=np.array([0.5, 1.0]), top_k=5, seed=[1, 2], num_threads=None)
sampling.apply_top_k(logits.view(np.uint16), 3, dtype="bfloat16")
sampling.argmax(logits, dtype="float64")  # type: ignore[arg-type]
sampling.argmax([1.0])  # type: ignore[arg-type]
sampling.apply_top_p(logits)  # type: ignore[call-arg]

anything: Any = sampling.__all__
