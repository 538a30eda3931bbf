"""Read safetensors checkpoints by mmap and pack them, weight by weight, into a bound plan.

A file is 8 bytes of header length, a JSON header, then the data. Source pages are given back as soon as they are
packed, so that a weight is never resident twice.
"""

from __future__ import annotations

import json
import logging
import math
import mmap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rvllm.config import read_json
from rvllm.errors import ModelError
from rvllm.plan.graph import Plan, Weight

if TYPE_CHECKING:
    from rvllm._native.bound_plan import BoundPlan

log = logging.getLogger("rvllm")

Progress = Callable[[int, int], None]  # (bytes done, bytes in all)

_ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2,
    "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
}  # fmt: skip
_PACKABLE = {"F32": "f32", "F16": "f16", "BF16": "bf16"}
_CHUNK_BYTES = 16 << 20
_MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor of a checkpoint: bytes [start, end) of a mapped file."""

    path: Path
    mapped: mmap.mmap
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    def willneed(self, start: int, end: int) -> None:
        self._advise(mmap.MADV_WILLNEED, start, end)

    def dontneed(self, start: int, end: int) -> None:
        self._advise(mmap.MADV_DONTNEED, start, end)

    def _advise(self, option: int, start: int, end: int) -> None:
        start = start // mmap.PAGESIZE * mmap.PAGESIZE
        end = min(end, len(self.mapped))
        if end > start:
            self.mapped.madvise(option, start, end - start)


def read_header(path: Path) -> dict[str, StoredTensor]:
    """Map one safetensors file and check its header against the file. Raises ModelError naming file and tensor."""
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as e:
        raise ModelError(f"{path}: cannot be read: {e.strerror}") from None
    except ValueError:
        raise ModelError(f"{path}: is empty") from None
    n_header = int.from_bytes(mapped[:8], "little")
    data = 8 + n_header
    if len(mapped) < 8 or n_header > _MAX_HEADER_BYTES or data > len(mapped):
        raise ModelError(f"{path}: is not a safetensors file, or is truncated within its header")
    try:
        header = json.loads(mapped[8:data])
    except ValueError:
        header = None
    if not isinstance(header, dict):
        raise ModelError(f"{path}: has a corrupt header")
    header.pop("__metadata__", None)
    tensors = {name: _read_entry(path, mapped, data, name, entry) for name, entry in header.items()}
    last_end, last_name = 0, ""
    for name, t in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if t.start < last_end:
            raise ModelError(f"{path}: tensors {last_name} and {name} overlap")
        last_end, last_name = t.end, name
    return tensors


def _read_entry(path: Path, mapped: mmap.mmap, data: int, name: str, entry: Any) -> StoredTensor:
    try:
        dtype, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        sizes = (*shape, start, end)
        well_formed = all(type(i) is int and i >= 0 for i in sizes) and dtype in _ITEM_BYTES
    except (TypeError, KeyError, ValueError):
        well_formed = False
    if not well_formed or end - start != math.prod(shape) * _ITEM_BYTES[dtype]:
        raise ModelError(f"{path}: has a corrupt header entry for tensor {name}")
    if data + end > len(mapped):
        raise ModelError(
            f"{path}: is truncated: tensor {name} ends at byte {data + end}, but the file has {len(mapped)} bytes"
        )
    return StoredTensor(path, mapped, dtype, shape, data + start, data + end)


def open_checkpoint(model: str) -> dict[str, StoredTensor]:
    """Map the safetensors files of a model directory: by its index, else model.safetensors, else all of them."""
    root = Path(model)
    index = root / "model.safetensors.index.json"
    if index.exists():
        return _open_indexed(index)
    paths = [root / "model.safetensors"]
    if not paths[0].exists():
        paths = sorted(root.glob("*.safetensors"))
    if not paths:
        others = sorted(p.name for p in root.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".gguf"))
        hint = f" (only {others[0]}, whose format is not supported)" if others else ""
        raise ModelError(f"{model}: holds no *.safetensors file{hint}")
    tensors: dict[str, StoredTensor] = {}
    for path in paths:
        for name, t in read_header(path).items():
            if name in tensors:
                raise ModelError(f"{path}: tensor {name} is also in {tensors[name].path.name}")
            tensors[name] = t
    return tensors


def _open_indexed(index: Path) -> dict[str, StoredTensor]:
    where = read_json(index).get("weight_map")
    if not isinstance(where, dict) or not all(isinstance(v, str) for v in where.values()):
        raise ModelError(f"{index}: weight_map must be an object of file names")
    files: dict[str, dict[str, StoredTensor]] = {}
    for name in sorted(set(where.values())):
        path = index.parent / name
        if Path(name).name != name:
            raise ModelError(f"{index}: weight_map names {name}, which is not a plain file name")
        if not path.exists():
            raise ModelError(f"{index}: names {name}, which does not exist")
        files[name] = read_header(path)
    for name, file in where.items():
        if name not in files[file]:
            raise ModelError(f"{index}: says that tensor {name} is in {file}, but it is not")
    return {name: files[file][name] for name, file in where.items()}


def check_checkpoint(plan: Plan, tensors: dict[str, StoredTensor], model: str) -> None:
    """Check that the checkpoint holds every weight of the plan in the right shape; log what it holds besides.

    What belongs to a module of the plan but is not used by it (a bias, say) would change the results: it is refused.
    """
    used = set()
    missing = []
    for w in plan.weights():
        for name, n_rows in w.sources:
            used.add(name)
            t = tensors.get(name)
            if t is None:
                missing.append(name)
                continue
            shape = (n_rows,) if w.format == "vector" else (n_rows, w.k)
            if t.shape != shape:
                raise ModelError(
                    f"{t.path}: weight {name} has shape {list(t.shape)}, but config.json asks for {list(shape)}"
                )
            if t.dtype not in _PACKABLE:
                raise ModelError(f"{t.path}: weight {name} is {t.dtype}; supported are {', '.join(_PACKABLE)}")
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise ModelError(f"{model}: weight {missing[0]}{more} is in none of its safetensors files")
    surplus = sorted(n for n in set(tensors) - used if not n.endswith("rotary_emb.inv_freq") and n != "lm_head.weight")
    modules = {name.rpartition(".")[0] for name in used}
    for name in surplus:
        if name.rpartition(".")[0] in modules:
            raise ModelError(
                f"{tensors[name].path}: weight {name} has no place in the model that config.json describes"
            )
    if surplus:
        more = ", ..." if len(surplus) > 8 else ""
        log.warning("%s: %d weights are not used: %s%s", model, len(surplus), ", ".join(surplus[:8]), more)


def pack_checkpoint(
    plan: Plan, bound: BoundPlan, tensors: dict[str, StoredTensor], progress: Progress | None = None
) -> None:
    """Pack every weight, in chunks of rows; a checked checkpoint cannot fail here but for the disk."""
    total = sum(tensors[name].end - tensors[name].start for w in plan.weights() for name, _ in w.sources)
    done = 0
    for index, w in enumerate(plan.weights()):
        if w.constant is not None:
            bound.pack(index, w.constant.view(np.uint8), "f32", 0, w.n)
        row = 0
        for name, n_rows in w.sources:
            t = tensors[name]
            row_bytes = (t.end - t.start) // n_rows
            step = max(1, _CHUNK_BYTES // row_bytes)
            data = np.frombuffer(t.mapped, np.uint8)
            for first in range(0, n_rows, step):
                n = min(step, n_rows - first)
                start = t.start + first * row_bytes
                end = start + n * row_bytes
                t.willneed(end, min(end + _CHUNK_BYTES, t.end))
                bound.pack(index, data[start:end], _PACKABLE[t.dtype], row + first, n)
                t.dontneed(start, end)
                done += end - start
                if progress:
                    progress(done, total)
            row += n_rows


def pack_dummy(plan: Plan, bound: BoundPlan, progress: Progress | None = None, seed: int = 0) -> None:
    """Fill every weight: random matrices of standard deviation 1/sqrt(k), norms of one, biases of zero."""
    weights = plan.weights()
    for index, w in enumerate(weights):
        values = _dummy_vector(w)
        if values is not None:
            bound.pack(index, values.view(np.uint8), "f32", 0, w.n)
        else:
            bound.fill_random(index, (seed + index) % 2**32, w.k**-0.5)
        if progress:
            progress(index + 1, len(weights))


def _dummy_vector(w: Weight) -> np.ndarray | None:
    if w.constant is not None:
        return w.constant
    if w.format == "vector":
        return np.full(w.n, 0.0 if w.name.endswith(".bias") else 1.0, np.float32)
    return None
