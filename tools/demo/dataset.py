"""Turn the corpus into flat arrays of tokens, one pair of arrays per source for what is held out.

Only what the assistant says, and plain text, counts fully in the loss; the rest of a chat is context.
"""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import chatml
import corpus
import numpy as np
from tokenizers import Tokenizer

BATCH = 2000  # documents per call of the tokenizer


@dataclass
class Tokens:
    """Documents laid end to end, each ending in END_OF_TEXT."""

    ids: np.ndarray  # uint16 (n_tokens,)
    learnt: np.ndarray  # bool (n_tokens,): whether the loss counts this token fully
    starts: np.ndarray  # int64 (n_docs,)


def learnt_mask(ids: np.ndarray, start_id: int, end_id: int, assistant_id: int) -> np.ndarray:
    """Return which tokens of one document are answers, their END_OF_TEXT included; all of them if it is no chat."""
    opened = np.flatnonzero(ids == start_id)
    if len(opened) == 0:
        return np.ones(len(ids), bool)
    closed = np.flatnonzero(ids == end_id)
    mask = np.zeros(len(ids), bool)
    for begin, end in zip(opened, closed, strict=True):
        if ids[begin + 1] == assistant_id:
            mask[begin + 3 : end + 1] = True  # after <|im_start|>, "assistant" and the newline
    return mask


def _join(documents: list[tuple[np.ndarray, np.ndarray]]) -> Tokens:
    lengths = [len(ids) for ids, _ in documents]
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
    return Tokens(
        np.concatenate([ids for ids, _ in documents]), np.concatenate([mask for _, mask in documents]), starts
    )


def _encode_shard(job: tuple[Path, int, int, float]) -> dict[str, Tokens]:
    """Return {"train": ..., source: held-out documents of that source, ...} for one shard."""
    path, seed, index, scale = job
    tokenizer = Tokenizer.from_file(str(path))
    end_of_text, start_id, end_id = (tokenizer.token_to_id(token) for token in chatml.SPECIAL)
    assistant_id = tokenizer.token_to_id("assistant")
    if assistant_id is None:
        raise ValueError('the vocabulary has no token "assistant": learnt_mask relies on it')
    parts: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {"train": []}
    documents = list(corpus.shard(seed, index, scale=scale))
    for at in range(0, len(documents), BATCH):
        batch = documents[at : at + BATCH]
        for (source, _, held_out), encoding in zip(
            batch, tokenizer.encode_batch([text for _, text, _ in batch]), strict=True
        ):
            ids = np.array([*encoding.ids, end_of_text], np.uint16)
            part = parts.setdefault(source if held_out else "train", [])
            part.append((ids, learnt_mask(ids, start_id, end_id, assistant_id)))
    return {name: _join(part) for name, part in parts.items() if part}


def build(tokenizer_path: Path, seed: int, *, n_workers: int, n_shards: int, scale: float = 1.0) -> dict[str, Tokens]:
    """Encode all shards in `n_workers` processes; the result does not depend on their number."""
    jobs = [(tokenizer_path, seed, index, scale) for index in range(n_shards)]
    with ProcessPoolExecutor(n_workers) as pool:
        shards = list(pool.map(_encode_shard, jobs))
    result = {}
    for name in sorted({name for shard in shards for name in shard}):
        tokens = [shard[name] for shard in shards if name in shard]
        offsets = np.cumsum([0] + [len(part.ids) for part in tokens])
        result[name] = Tokens(
            np.concatenate([part.ids for part in tokens]),
            np.concatenate([part.learnt for part in tokens]),
            np.concatenate([part.starts + offset for part, offset in zip(tokens, offsets, strict=False)]),
        )
    return result
