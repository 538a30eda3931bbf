"""What does the second tier of the prefix cache save? Prompts that come again after their blocks were evicted.

Milliseconds from a prompt to its first token, one prompt at a time, random bf16 weights: computed for the first time,
then the same prompts in turn, four times as many as the cache holds: computed again, brought back from host memory
(--num-cpu-blocks), and found in a cache that holds them all. Medians over all prompts of all rounds; the prefix hits of
each row are printed, and every row draws the same tokens.

Then, what decodes notice of it: milliseconds of the steps of 32 sequences that decode while such prompts are computed,
with and without a second tier for what they evict, and while they come back.

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
from itertools import pairwise

from random_models import SHAPES, write_model
from rvllm import LLM, SamplingParams

N_DECODES, DECODE_TOKENS = 32, 300
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


def decode_steps(llm: LLM, prompts: list[list[int]]) -> list[float]:
    """Return the ms of each step of N_DECODES sequences, while `prompts` run one behind the other; [] : 100 steps."""
    engine = llm.engine
    todo = list(prompts)
    ends: list[float] = []
    decodes = []

    def on_prompt(handle, chunks) -> None:
        if handle.finished and todo:
            engine.submit(todo.pop(0), ONE, on_update=on_prompt)
        elif handle.finished:
            stop()

    def on_decode(handle, chunks) -> None:
        if handle is not decodes[0]:
            return
        ends.append(handle.last_token)
        if len(ends) == 10 and todo:
            engine.submit(todo.pop(0), ONE, on_update=on_prompt)
        if len(ends) == 110 and not prompts:
            stop()

    def stop() -> None:
        for handle in decodes:
            engine.cancel(handle)

    params = SamplingParams(temperature=0, max_tokens=DECODE_TOKENS, ignore_eos=True)
    decodes += [engine.submit([k + 3] * 20, params, on_update=on_decode) for k in range(N_DECODES)]
    while engine.n_unfinished:
        engine.poll()
    if todo:
        sys.exit("the decodes ended before the prompts")
    return [(b - a) * 1e3 for a, b in pairwise(ends[10:])]


def beside_decodes(model: str, args: argparse.Namespace, prompts: list[list[int]]) -> dict[str, tuple]:
    """Return {what runs beside the decodes: (step times, blocks moved)}."""
    each = -(-args.prompt_tokens // 16) + 1
    n_blocks = N_DECODES * (DECODE_TOKENS // 16 + 3) + each * 3 // 2
    others = [[(t + k + 1) % 1000 + 3 for t in prompts[0]] for k in range(n_blocks // each + 1 + len(prompts))]
    fresh = [others.pop() for _ in prompts]
    rows = {}
    for n_cpu_blocks in (0, each * (2 * len(prompts) + len(others)) + n_blocks):
        with LLM(
            model,
            device=args.device,
            load_format="dummy",
            skip_tokenizer=True,
            max_model_len=max(args.prompt_tokens, DECODE_TOKENS) + 32,
            num_blocks=n_blocks,
            num_cpu_blocks=n_cpu_blocks,
        ) as llm:
            for prompt in prompts + others:  # the others fill the cache
                llm.generate([prompt], ONE)
            rounds = {"nothing": [], "prompts computed again": prompts}
            if n_cpu_blocks:
                rounds = {"prompts brought back, others evicted": prompts, "prompts computed, others evicted": fresh}
            for name, those in rounds.items():
                before = llm.engine.stats()
                times = decode_steps(llm, those)
                now = llm.engine.stats()
                moves = (now.blocks_swapped_in - before.blocks_swapped_in,
                         now.blocks_swapped_out - before.blocks_swapped_out)  # fmt: skip
                rows[name] = (times, *moves)
    return rows


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
    with tempfile.TemporaryDirectory() as directory:
        beside = beside_decodes(write_model(directory, args.shape), args, prompts[:4])
    if not args.json:
        head = f"ms of a step of {N_DECODES} decodes beside"
        print(f"\n{head:36}{'p50':>10}{'p90':>10}{'longest':>10}{'in':>8}{'out':>8}")
    for name, (values, n_in, n_out) in beside.items():
        p50, p90, longest = (sorted(values)[int((len(values) - 1) * share)] for share in (0.5, 0.9, 1))
        if args.json:
            row = {"name": f"steps beside {name}", "unit": "ms", "p50": p50, "p90": p90, "longest": longest}
            print(json.dumps(row | {"blocks_in": n_in, "blocks_out": n_out}), flush=True)
        else:
            print(f"{name:36}{p50:10.2f}{p90:10.2f}{longest:10.2f}{n_in:8}{n_out:8}", flush=True)


if __name__ == "__main__":
    main()
