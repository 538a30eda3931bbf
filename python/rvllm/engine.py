"""The engine as Python sees it: prompts in, updates out.

Engine.load() builds everything and starts the engine thread. submit() hands a request over; its updates arrive as
calls of `on_update`, either in an asyncio event loop (attach) or from poll() in a plain program. Text is made here: the
engine thread knows token ids only.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import select
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial

from rvllm._native.blocks import BlockManager
from rvllm._native.engine import (
    EVENT_FINISHED,
    EVENT_PROMPT_LOGPROB,
    EVENT_STARTED,
    EVENT_TOKEN,
    FINISH_REASONS,
    SAMPLER_CAPACITY,
    EngineCore,
)
from rvllm._native.scheduler import Scheduler
from rvllm.config import GenerationDefaults
from rvllm.engine_config import EngineConfig
from rvllm.errors import InvalidRequestError, QueueFullError, RvllmError
from rvllm.handle import OnUpdate, RequestHandle, RunningChoice
from rvllm.loader import LoadedModel, load
from rvllm.models import read_model_config
from rvllm.request import SamplingParams, TokenLogprob
from rvllm.validation import check_capacity, check_prompt, check_sampling_params

_FAILED_STEPS_TO_DIE = 3  # one behind the other: a device that has failed does not come back

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class EngineStats:
    """A reading of the engine's counters. Tokens and requests are totals since the start unless the name says n_."""

    state: str  # starting | running | draining | dead
    idle: bool
    heartbeat_age_s: float
    n_running: int
    n_waiting: int
    n_blocks: int
    block_size: int
    kv_usage: float  # 0..1
    preemptions: int
    prefix_queries: int
    prefix_hits: int
    cpu_prefix_hits: int  # of these, in the second tier
    blocks_swapped_out: int  # to the second tier
    blocks_swapped_in: int
    prompt_tokens: int
    generation_tokens: int
    steps: int
    failed_steps: int
    thread_cpu_s: float


class Engine:
    """A loaded model and the native thread that runs it."""

    def __init__(self, loaded: LoadedModel, config: EngineConfig, tokenizer=None, chat_template=None):
        plan, sizes = loaded.plan, loaded.sizes
        self.config = config
        self.loaded = loaded
        self.model_name = config.served_model_name or config.model
        self.tokenizer = tokenizer
        self.chat_template = chat_template
        self.max_model_len: int = plan.max_model_len
        self.vocab_size: int = plan.vocab_size
        self.generation_defaults = _defaults(loaded.generation)
        self._eos_token_ids = tuple(loaded.eos_token_ids)
        self._n_blocks = plan.n_blocks
        self._block_size = plan.block_size
        self._max_num_seqs = sizes.max_num_seqs
        blocks = BlockManager(
            plan.n_blocks,
            plan.block_size,
            prefix_caching=config.enable_prefix_caching,
            n_host_blocks=plan.n_host_blocks,
        )
        scheduler = Scheduler(
            blocks,
            max_num_seqs=sizes.max_num_seqs,
            max_num_batched_tokens=sizes.max_num_batched_tokens,
            max_prefill_chunk=sizes.max_prefill_chunk,
            max_mixed_tokens=sizes.max_mixed_tokens,
            max_model_len=sizes.max_model_len,
            max_rows=sizes.max_rows,
            policy=config.scheduling_policy,
            depth=config.depth(config.device),
            max_queued=config.max_num_queued_reqs,
        )
        self._core = EngineCore(plan, scheduler, max_top=config.max_logprobs)
        self._handles: dict[int, RequestHandle] = {}
        self._n_unstarted = 0  # requests
        self._n_running = 0  # choices of started requests
        self._next_id = 1
        self._seeds = random.Random(config.seed)
        self._draining = False
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._idle: asyncio.Event | None = None
        self._core.start()

    @classmethod
    def load(cls, config: EngineConfig, progress: Progress | None = None, *, skip_tokenizer: bool = False) -> Engine:
        """Load the model of `config` and start its engine.

        `progress(what, done, total)` is called while weights load, in bytes. Raises ModelError, ConfigError or
        CapacityError with a sentence for the user. `skip_tokenizer` serves token ids only.
        """
        model = read_model_config(config.model)
        tokenizer = chat_template = None
        if not skip_tokenizer:
            from rvllm.chat_template import ChatTemplate
            from rvllm.tokenizer import Tokenizer

            directory = config.tokenizer or config.model
            tokenizer = Tokenizer.from_dir(directory)
            chat_template = ChatTemplate.from_dir(directory, override=config.chat_template)
        loaded = load(config, None if progress is None else partial(progress, "loading weights"), model)
        return cls(loaded, config, tokenizer, chat_template)

    # ---- requests ------------------------------------------------------------------------------------

    @contextmanager
    def together(self) -> Iterator[None]:
        """Hand over what is submitted inside at the end, as one: the prompts share steps from the first one on."""
        self._core.hold()
        try:
            yield
        finally:
            self._core.release()

    def submit(
        self,
        prompt: list[int],
        params: SamplingParams,
        *,
        on_update: OnUpdate,
        priority: int = 0,
        cache_salt: str | None = None,
        deadline_s: float | None = None,
    ) -> RequestHandle:
        """Start a request and return its handle; `on_update(handle, chunks)` is called with everything new.

        Raises QueueFullError when as many requests wait as the queue may hold, InvalidRequestError naming the field
        when the request can never be served.
        """
        if self._closed:
            raise RvllmError("the engine is closed")
        if self._draining:
            raise QueueFullError("the server is shutting down")
        could_start = max(self._max_num_seqs - self._n_running, 0)
        if self._n_unstarted >= self.config.max_num_queued_reqs + could_start:
            raise QueueFullError(f"the queue is full: {self._n_unstarted} requests are waiting")
        check_prompt(prompt, self.vocab_size, self.max_model_len)
        check_sampling_params(params, self.vocab_size, self.config.max_logprobs, self._max_num_seqs)
        room = self.max_model_len - len(prompt)
        max_tokens = room if params.max_tokens is None else min(params.max_tokens, room)
        if (params.stop or params.bad_words) and self.tokenizer is None:
            raise InvalidRequestError("stop and bad_words need a tokenizer, and this engine has none", "stop")
        bad_words = self.tokenizer.encode_bad_words(params.bad_words) if params.bad_words else []
        if self.config.device != "cpu":
            check_capacity(params, bad_words, len(self._eos_token_ids), SAMPLER_CAPACITY)
        needed = -(-(len(prompt) + max_tokens) // self._block_size)
        if needed > self._n_blocks:
            raise InvalidRequestError(
                f"prompt and max_tokens are {len(prompt) + max_tokens} tokens together, but the KV cache holds "
                f"{self._n_blocks * self._block_size}; raise --num-gpu-blocks or lower max_tokens",
                "max_tokens",
            )

        handle = RequestHandle(self._next_id, len(prompt), params, on_update)
        include_stop = params.include_stop_str_in_output
        handle.choices = [
            RunningChoice(i, self._detokenizer(params, prompt), params.logprobs is not None, include_stop)
            for i in range(params.n)
        ]
        self._core.add(
            handle.id,
            array("i", prompt),
            params,
            params.n,
            seed=self._seeds.getrandbits(64) if params.seed is None else params.seed & 0xFFFFFFFFFFFFFFFF,
            max_tokens=max_tokens,
            eos_token_ids=self._eos_token_ids,
            bad_words=bad_words,
            priority=priority,
            deadline_us=0 if deadline_s is None else int((time.monotonic() + deadline_s) * 1e6),
            extras_hash=_salt_hash(cache_salt),
        )
        self._next_id += 1
        self._n_unstarted += 1
        self._handles[handle.id] = handle
        return handle

    def cancel(self, handle: RequestHandle) -> None:
        """End a request now; it gets no further update, and its blocks are free within one step."""
        if handle.id in self._handles:
            self._forget(handle)
            self._wake_if_idle()

    def _detokenizer(self, params: SamplingParams, prompt: list[int]):
        if self.tokenizer is None:
            return None
        return self.tokenizer.detokenizer(
            skip_special_tokens=params.skip_special_tokens,
            spaces_between_special_tokens=params.spaces_between_special_tokens,
            stop=params.stop,
            include_stop=params.include_stop_str_in_output,
            min_tokens=params.min_tokens,
            prompt_tail=prompt,
        )

    # ---- updates -------------------------------------------------------------------------------------

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Deliver updates on `loop`, whenever the engine has something."""
        self._loop = loop
        loop.add_reader(self._core.fileno(), self._deliver)

    def poll(self, timeout_s: float | None = None) -> None:
        """Wait for the engine and deliver its updates; for programs without an event loop."""
        if select.select([self._core.fileno()], [], [], timeout_s)[0]:
            self._deliver()

    def _deliver(self) -> None:
        touched: dict[int, RequestHandle] = {}
        handles = self._handles
        for request_id, kind, index, token, finish, t_us, logprob in self._core.drain():
            handle = handles.get(request_id)
            if handle is None:  # cancelled
                continue
            if kind == EVENT_TOKEN:
                choice = handle.choices[index]
                if choice.done:  # behind a stop string
                    continue
                choice.tokens.append(token)
                if logprob is not None and choice.logprobs is not None:
                    choice.logprobs.append(TokenLogprob(token, logprob[1], logprob[2], logprob[3]))
                handle.last_token = t_us * 1e-6
                if handle.first_token is None:
                    handle.first_token = handle.last_token
                if finish:
                    choice.finish_reason = FINISH_REASONS[finish]
                    if choice.finish_reason == "stop" and token in handle.params.stop_token_ids:
                        choice.stop_reason = token
                choice.touched = True
                touched[request_id] = handle
            elif kind == EVENT_STARTED:
                handle.scheduled = t_us * 1e-6
                handle.n_cached = token
                self._n_unstarted -= 1
                self._n_running += handle.params.n
            elif kind == EVENT_PROMPT_LOGPROB:
                if handle.prompt_logprobs is not None:
                    handle.prompt_logprobs.append(TokenLogprob(token, logprob[1], logprob[2], logprob[3]))
            elif kind == EVENT_FINISHED:
                choice = handle.choices[index]
                if not choice.done:
                    choice.finish_reason = FINISH_REASONS[finish]
                    choice.touched = True
                    touched[request_id] = handle
        for handle in touched.values():
            self._update(handle)
        if touched:
            self._wake_if_idle()

    def _update(self, handle: RequestHandle) -> None:
        chunks = []
        for choice in handle.choices:
            if not choice.touched:
                continue
            ended_by_engine = choice.finish_reason is not None
            chunk = choice.take()
            handle.n_generated += choice.count(len(chunk.token_ids))
            chunks.append(chunk)
            if choice.done:
                handle.n_choices_left -= 1
                if not ended_by_engine and handle.n_choices_left:
                    self._core.cancel(handle.id, choice.index)
        if handle.n_choices_left == 0:
            self._forget(handle)
        handle.on_update(handle, chunks)

    def _forget(self, handle: RequestHandle) -> None:
        """Take a request out of the books; the engine ends what still runs of it."""
        del self._handles[handle.id]
        handle.finished = True
        if handle.scheduled is None:
            self._n_unstarted -= 1
        else:
            self._n_running -= handle.params.n
        self._core.cancel(handle.id)

    # ---- life ----------------------------------------------------------------------------------------

    def stats(self) -> EngineStats:
        """Read the engine's counters."""
        s = self._core.stats()
        broken = not s["alive"] or s["failed_in_row"] >= _FAILED_STEPS_TO_DIE
        state = "dead" if broken else "draining" if self._draining else "running"
        return EngineStats(
            state=state,
            idle=s["idle"],
            heartbeat_age_s=0.0 if s["idle"] else s["heartbeat_age_s"],
            n_running=s["n_running"],
            n_waiting=s["n_waiting"],
            n_blocks=self._n_blocks,
            block_size=self._block_size,
            kv_usage=1.0 - s["n_free_blocks"] / self._n_blocks,
            preemptions=s["preemptions"],
            prefix_queries=s["prefix_queries"],
            prefix_hits=s["prefix_hits"],
            cpu_prefix_hits=s["host_hits"],
            blocks_swapped_out=s["swapped_out"],
            blocks_swapped_in=s["swapped_in"],
            prompt_tokens=s["prompt_tokens"],
            generation_tokens=s["generation_tokens"],
            steps=s["steps"],
            failed_steps=s["failed_steps"],
            thread_cpu_s=s["thread_cpu_s"],
        )

    def histograms(self) -> dict[str, tuple[list[tuple[int, int]], int]]:
        """Return {name: ([(smallest value of the bucket, count), ...], sum)} of step_us, host_us and step_tokens."""
        return self._core.histograms()

    @property
    def n_unfinished(self) -> int:
        """Requests that have not ended."""
        return len(self._handles)

    def _wake_if_idle(self) -> None:
        if self._idle is not None and not self._handles:
            self._idle.set()

    async def shutdown(self, timeout_s: float) -> None:
        """Admit nothing more, let running requests finish for `timeout_s`, end the rest, stop the thread."""
        self._draining = True
        if self._handles:
            self._idle = asyncio.Event()
            try:
                await asyncio.wait_for(self._idle.wait(), timeout_s)
            except TimeoutError:
                for handle in list(self._handles.values()):
                    self._abort(handle)
        self.close()

    def _abort(self, handle: RequestHandle) -> None:
        self.cancel(handle)
        for choice in handle.choices:
            if not choice.done:
                choice.finish_reason = "abort"
                choice.touched = True
        handle.on_update(handle, [choice.take() for choice in handle.choices if choice.touched])

    def close(self) -> None:
        """Stop the engine thread."""
        if self._loop is not None:
            self._loop.remove_reader(self._core.fileno())
            self._loop = None
        self._closed = True
        self._core.stop()


def _defaults(generation: GenerationDefaults) -> dict[str, object]:
    """Return what generation_config.json sets, by the names of SamplingParams."""
    defaults = {k: v for k, v in asdict(generation).items() if v is not None}
    if "max_new_tokens" in defaults:
        defaults["max_tokens"] = defaults.pop("max_new_tokens")
    return defaults


def _salt_hash(salt: str | None) -> int:
    if salt is None:
        return 0
    return int.from_bytes(hashlib.blake2b(salt.encode(), digest_size=8).digest(), "little")
