"""vLLM's own scheduler under the load of bench/scheduler.py, which runs this with an interpreter that has vLLM.

Reads a line "RUNNING WAITING PROMPT OUTPUT" and builds a scheduler with RUNNING decoding requests and WAITING behind
them, fresh prompts, prefix cache on; then, for each line "STEPS CANCELLED", runs so many steps and prints the
nanoseconds of schedule() + update_from_output() of each as a JSON list. On average CANCELLED requests a step are
ended and replaced before it, timed too. What the model runner would do, and building requests, is not timed.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from pathlib import Path

import torch
from vllm.config import CacheConfig, ModelConfig, SchedulerConfig, VllmConfig
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import get_hash_fn_by_name
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus
from vllm.v1.structured_output import StructuredOutputManager

BLOCK = 16
MODEL = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1, "vocab_size": 200_000,
    "max_position_embeddings": 1 << 20, "torch_dtype": "bfloat16",
}  # fmt: skip


class Load:
    def __init__(self, n_running: int, n_waiting: int, n_prompt: int, n_output: int):
        self.n_prompt, self.n_output, self.n_made = n_prompt, n_output, 0
        n_blocks = n_running * (n_prompt + n_output) // BLOCK + 1024
        with tempfile.TemporaryDirectory() as directory:
            (Path(directory) / "config.json").write_text(json.dumps(MODEL))
            model = ModelConfig(model=directory, skip_tokenizer_init=True, max_model_len=n_prompt + n_output + 1)
        cache = CacheConfig(block_size=BLOCK, enable_prefix_caching=True)
        cache.num_gpu_blocks = n_blocks
        config = VllmConfig(
            model_config=model,
            cache_config=cache,
            scheduler_config=SchedulerConfig(
                max_num_seqs=n_running,
                max_num_batched_tokens=n_running * n_prompt,
                max_model_len=model.max_model_len,
                is_encoder_decoder=False,
            ),
        )
        spec = FullAttentionSpec(block_size=BLOCK, num_kv_heads=1, head_size=64, dtype=torch.bfloat16)
        self.scheduler = Scheduler(
            vllm_config=config,
            kv_cache_config=KVCacheConfig(n_blocks, [], [KVCacheGroupSpec(["layer"], spec)]),
            structured_output_manager=StructuredOutputManager(config),
            block_size=BLOCK,
        )
        hash_fn = get_hash_fn_by_name(cache.prefix_caching_hash_algo)
        init_none_hash(hash_fn)
        self.hasher = get_request_block_hasher(BLOCK, hash_fn)
        for _ in range(n_running + n_waiting):
            self.scheduler.add_request(self.request())

    def request(self) -> Request:
        self.n_made += 1
        tokens = [(self.n_made * 1000003 + k * 7919 & 0x7FFF) + 0x8000 for k in range(self.n_prompt)]
        params = SamplingParams(max_tokens=self.n_output, ignore_eos=True)
        params.update_from_generation_config({}, 2)
        return Request(str(self.n_made), tokens, params, None, block_hasher=self.hasher)

    def step(self, n_cancelled: int) -> int:
        fresh = [self.request() for _ in range(n_cancelled)]
        victims = random.sample([r.request_id for r in self.scheduler.running], n_cancelled)
        start = time.perf_counter_ns()
        for victim, request in zip(victims, fresh, strict=True):
            self.scheduler.finish_requests(victim, RequestStatus.FINISHED_ABORTED)
            self.scheduler.add_request(request)
        scheduled = self.scheduler.schedule()
        spent = time.perf_counter_ns() - start
        ids = list(scheduled.num_scheduled_tokens)
        results = ModelRunnerOutput(
            req_ids=ids,
            req_id_to_index={name: i for i, name in enumerate(ids)},
            sampled_token_ids=[[self.n_made & 0x7FFF] for _ in ids],
        )
        start = time.perf_counter_ns()
        self.scheduler.update_from_output(scheduled, results)
        return spent + time.perf_counter_ns() - start


def main() -> None:
    load = Load(*map(int, sys.stdin.readline().split()))
    n_running = load.scheduler.max_num_running_reqs
    for line in sys.stdin:
        n_steps, per_step = line.split()
        due, times = 0.0, []
        for _ in range(int(n_steps)):
            due += float(per_step)
            times.append(load.step(int(due)))
            due -= int(due)
        if len(load.scheduler.running) != n_running:
            sys.exit(f"{len(load.scheduler.running)} requests run, not {n_running}")
        print(json.dumps(times), flush=True)


if __name__ == "__main__":
    main()
