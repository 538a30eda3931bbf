"""vLLM's sampler for bench/sampling.py. Run by the interpreter that has vLLM; commands come as JSON lines.

    {}                                        answers {"version"}
    {"rows": a .npy [items, rows, vocab], "temperature", "top_k", "top_p", "repetition_penalty", "prompts"}
    {"clock": a function of time}             one pass over the items: {"us"} per item

The call is what vLLM's model runner makes, Sampler.forward with a SamplingMetadata prepared before the timed region;
no per-request generators, which is its fastest way.
"""

import json
import os
import sys
import time

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # vLLM logs to the standard output

import numpy as np  # noqa: E402
import torch  # noqa: E402
import vllm  # noqa: E402
from vllm.v1.sample.logits_processor import LogitsProcessors  # noqa: E402
from vllm.v1.sample.metadata import SamplingMetadata  # noqa: E402
from vllm.v1.sample.sampler import Sampler  # noqa: E402


def metadata(request: dict, n_rows: int, vocab: int) -> SamplingMetadata:
    prompts, top_k = request.get("prompts"), request.get("top_k")
    padded = None
    if prompts:
        padded = torch.full((n_rows, max(map(len, prompts))), vocab, dtype=torch.int64)
        for row, ids in zip(padded, prompts, strict=True):
            row[: len(ids)] = torch.tensor(ids)
    return SamplingMetadata(
        temperature=torch.full((n_rows,), request["temperature"]),
        all_greedy=False,
        all_random=True,
        top_p=torch.full((n_rows,), request["top_p"]),
        top_k=None if top_k is None else torch.full((n_rows,), top_k, dtype=torch.int32),
        generators={},
        max_num_logprobs=None,
        no_penalties=prompts is None,
        prompt_token_ids=padded,
        frequency_penalties=torch.zeros(n_rows),
        presence_penalties=torch.zeros(n_rows),
        repetition_penalties=torch.full((n_rows,), request.get("repetition_penalty", 1.0)),
        output_token_ids=[[] for _ in range(n_rows)],
        allowed_token_ids_mask=None,
        bad_words_token_ids={},
        logitsprocs=LogitsProcessors(),
    )


def main() -> None:
    torch.set_num_threads(1)
    sampler = Sampler()
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict = {}
        if "rows" in request:
            source = torch.from_numpy(np.load(request["rows"]))
            items = torch.empty_like(source)
            params = metadata(request, *source.shape[1:])
        elif "clock" in request:
            clock = getattr(time, request["clock"])
            items.copy_(source)
            start = clock()
            for item in items:
                sampler(item, params)
            answer["us"] = (clock() - start) / len(items) * 1e6
        else:
            answer["version"] = vllm.__version__
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    with torch.inference_mode():
        main()
