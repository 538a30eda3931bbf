"""Tokens per second of the engine without HTTP, beside transformers in bfloat16 on the same machine and threads.

    python bench/engine.py                         # Qwen2.5-0.5B shape, batches 1, 4, 8, 16 and a 512-token prefill
    python bench/engine.py --shape 32m --batches 1,4,16,64

Both sides have random weights of the same shapes, 32-token prompts of random ids, greedy tokens, the same number of
threads; the sides alternate within one run; figures are medians. Weights of a real model would not change them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time

from random_models import SHAPES, write_model


class Ours:
    """rvllm through its offline class, random weights, prefix cache off."""

    def __init__(self, directory: str, threads: int, max_seqs: int):
        from rvllm import LLM, SamplingParams

        self.params = SamplingParams
        self.llm = LLM(
            directory,
            load_format="dummy",
            skip_tokenizer=True,
            threads=threads,
            enable_prefix_caching=False,
            max_model_len=2048,
            max_num_seqs=max(max_seqs, 8),
        )

    def generate(self, prompts: list[list[int]], n_tokens: int) -> None:
        outputs = self.llm.generate(prompts, self.params(temperature=0, max_tokens=n_tokens, ignore_eos=True))
        assert all(len(o.choices[0].token_ids) == n_tokens for o in outputs)


class Transformers:
    """transformers in bfloat16, static batch, its own key-value cache."""

    def __init__(self, directory: str, threads: int):
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        torch.set_num_threads(threads)
        self.torch = torch
        self.model = AutoModelForCausalLM.from_config(
            AutoConfig.from_pretrained(directory), dtype=torch.bfloat16
        ).eval()

    def generate(self, prompts: list[list[int]], n_tokens: int) -> None:
        torch = self.torch
        with torch.inference_mode():
            out = self.model(torch.tensor(prompts), use_cache=True, logits_to_keep=1)
            token = out.logits[:, -1].argmax(-1, keepdim=True)
            for _ in range(n_tokens - 1):
                out = self.model(token, past_key_values=out.past_key_values, use_cache=True)
                token = out.logits[:, -1].argmax(-1, keepdim=True)


def seconds_per_round(side, n: int, prompt_len: int, n_tokens: int, vocab: int, rng: random.Random) -> float:
    """Return the seconds that generate() takes on `n` fresh prompts."""
    prompts = [[rng.randrange(vocab) for _ in range(prompt_len)] for _ in range(n)]
    return _time(lambda: side.generate(prompts, n_tokens))


def read_bandwidth_gb_s() -> float:
    """Return how fast one thread of this process reads memory right now, GB/s."""
    import numpy as np

    data = np.ones(64 * 2**20, dtype=np.float32)
    return data.nbytes / min(_time(data.max) for _ in range(3)) / 1e9


def _time(f) -> float:
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="0.5b")
    parser.add_argument("--batches", default="1,4,8,16")
    parser.add_argument("--tokens", type=int, default=48, help="output tokens per prompt")
    parser.add_argument("--prefill", type=int, default=512, help="tokens of the prefill row, 0: none")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--no-peer", action="store_true", help="only rvllm")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    vocab = SHAPES[args.shape]["vocab_size"]
    batches = [int(b) for b in args.batches.split(",")]
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as directory:
        write_model(directory, args.shape)
        sides = {"rvllm": Ours(directory, args.threads, max(batches))}
        if not args.no_peer:
            sides["transformers"] = Transformers(directory, args.threads)
        cases = [(f"prefill {args.prefill}", 1, args.prefill, 1)] if args.prefill else []
        cases += [(f"decode b{b}", b, 32, args.tokens) for b in batches]
        if not args.json:
            print(f"{args.shape}, {args.threads} threads, one-thread read {read_bandwidth_gb_s():.0f} GB/s")
            print(f"{'tokens/s':<14}" + "".join(f"{s:>14}" for s in sides) + f"{'ratio':>8}")
        for name, n, prompt_len, n_tokens in cases:
            seconds: dict[str, list[float]] = {s: [] for s in sides}
            for i in range(args.repeat + 1):
                for s, side in sides.items():
                    t = seconds_per_round(side, n, prompt_len, n_tokens, vocab, rng)
                    if i:
                        seconds[s].append(t)
            count = n * (prompt_len if n_tokens == 1 else n_tokens)
            report(name, {s: count / statistics.median(t) for s, t in seconds.items()}, args.json)
    return 0


def report(name: str, rates: dict[str, float], as_json: bool) -> None:
    """Print one row."""
    peer = rates.get("transformers")
    ratio = rates["rvllm"] / peer if peer else None
    if as_json:
        row = {
            "name": name,
            "unit": "tokens/s",
            "ours": rates["rvllm"],
            "peer": "transformers bf16",
            "peer_value": peer,
        }
        print(json.dumps(row | {"ratio": ratio, "machine": os.uname().machine, "command": " ".join(sys.argv)}))
    else:
        print(f"{name:<14}" + "".join(f"{r:>14.1f}" for r in rates.values()) + (f"{ratio:>8.2f}" if ratio else ""))


if __name__ == "__main__":
    sys.exit(main())
