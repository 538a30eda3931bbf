"""What does the second tier of the prefix cache save? Prompts that come again after their blocks were evicted.

Milliseconds from a prompt to its first token, one prompt at a time, random bf16 weights: computed for the first time,
then the same prompts in turn, four times as many as the cache holds: computed again, brought back from host memory
(--num-cpu-blocks), and found in a cache that holds them all. Medians over all prompts of all rounds; the prefix hits of
each row are printed, and every row draws the same tokens.

    PYTHONPATH=python python bench/swap.py --device cuda --shape 7b --prompt-tokens 4096
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time

from random_models import SHAPES, write_model
from rvllm import LLM, SamplingParams

ONE = SamplingParams(temperature=0, max_tokens=1, ignore_eos=True)


def rounds(model: str, args: argparse.Namespace, prompts: list[list[int]], **blocks: int):
    """Return milliseconds per prompt of each round, the tokens drawn in the last one, and the engine's counters."""
    times, tokens = [], []
    with LLM(
        model,
        device=args.device,
        load_format="dummy",
        skip_tokenizer=True,
        max_model_len=args.prompt_tokens + 16,
        batch_invariant=True,  # so that every row draws the same tokens
        **blocks,
    ) as llm:
        llm.generate([[9] * 40], ONE)
        for _ in range(args.rounds + 1):
            times.append([])
            tokens = []
            for prompt in prompts:
                start = time.perf_counter()
                tokens += llm.generate([prompt], ONE)[0].choices[0].token_ids
                times[-1].append((time.perf_counter() - start) * 1e3)
        return times, tokens, llm.engine.stats()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=sorted(SHAPES), default="32m")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--prompt-tokens", type=int, default=1024)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON object per row")
    args = parser.parse_args()

    vocab = SHAPES[args.shape]["vocab_size"]
    prompts = [
        [(7919 * i + 31 * k * k + k) % (vocab - 10) + 3 for i in range(args.prompt_tokens)] for k in range(args.prompts)
    ]
    each = -(-args.prompt_tokens // 16) + 1
    few, all_of_them = each * args.prompts // 4, each * (args.prompts + 1)
    drawn = {}
    rows = {}
    with tempfile.TemporaryDirectory() as directory:
        model = write_model(directory, args.shape)
        for name, blocks in {
            "computed again": {"num_blocks": few},
            "brought back from the second tier": {"num_blocks": few, "num_cpu_blocks": all_of_them},
            "found in the first tier": {"num_blocks": all_of_them},
        }.items():
            times, drawn[name], stats = rounds(model, args, prompts, **blocks)
            rows.setdefault("computed", (times[0], 0))
            rows[name] = ([ms for again in times[1:] for ms in again], stats.prefix_hits / (args.rounds * args.prompts))
            if stats.blocks_swapped_in:
                moved = stats.blocks_swapped_in / (args.rounds * args.prompts)
    if len(set(map(tuple, drawn.values()))) > 1:
        sys.exit("the rows draw different tokens")
    base = statistics.median(rows["computed again"][0])
    if not args.json:
        print(
            f"{args.shape} on {args.device}, prompts of {args.prompt_tokens} tokens, of which {moved:.0f} blocks move"
        )
        print(f"{'':36}{'ms':>10}{'min':>10}{'against again':>16}{'tokens found':>14}")
    for name, (values, found) in rows.items():
        ms = statistics.median(values)
        if args.json:
            row = {
                "name": f"prompt of {args.prompt_tokens} tokens, {name}", "unit": "ms", "ours": ms,
                "peer": "computed again", "peer_value": base, "ratio": base / ms, "machine": platform.machine(),
                "command": " ".join(["python", *sys.argv]),
            }  # fmt: skip
            print(json.dumps(row), flush=True)
        else:
            print(f"{name:36}{ms:10.2f}{min(values):10.2f}{base / ms:15.1f}x{found:14.0f}", flush=True)


if __name__ == "__main__":
    main()
