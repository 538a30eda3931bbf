"""An engine whose model is a hash: what the tests of the scheduler run steps on.

The model is a pure function of a sequence's history, so that every request has one right answer, that of running alone.
The cache is a dict from slot to the hash of the history up to the token stored there; steps read, write and copy it as
their arrays say, in both tiers. A query must find exactly its own history, so a block that is shared, copied, moved or
reused wrongly shows.
Steps run in the order they are scheduled; their results come when deliver() is called.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from rvllm._native.blocks import BlockManager
from rvllm._native.scheduler import Scheduler
from rvllm._native.scheduler_driver import SchedulerDriver

N_VOCAB = 64
EOS = 0


@dataclass
class Spec:
    """A request, and what became of it."""

    prompt: list[int]
    n: int = 1
    max_tokens: int = 16
    min_tokens: int = 0
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    prompt_logprobs: int | None = None
    logprobs: int | None = None
    extras_hash: int = 0
    priority: int = 0
    deadline_us: int = 0
    started: bool = False
    tokens: list[list[int]] = field(default_factory=list)  # per choice
    finish: list[str | None] = field(default_factory=list)
    scored: list[int] = field(default_factory=list)  # positions

    def __post_init__(self):
        self.tokens = [[] for _ in range(self.n)]
        self.finish = [None] * self.n

    @property
    def ends(self) -> set[int]:
        return set(self.stop_token_ids) | (set() if self.ignore_eos else {EOS})


def extend(state: int, token: int) -> int:
    """The state behind one more token. A state stands for the whole history, and for what its keys and values hold."""
    return hash((state, token))


def state_of(extras_hash: int, tokens: list[int]) -> int:
    state = hash((0x5EED, extras_hash))
    for token in tokens:
        state = extend(state, token)
    return state


def draw(state: int, choice: int, banned: set[int]) -> int:
    """The token that the model and its sampler give for a history."""
    token = hash((state, choice)) % N_VOCAB
    while token in banned:
        token = (token + 1) % N_VOCAB
    return token


def logprob(state: int, token: int) -> float:
    return -float(hash((state, token, 1)) % 1000) / 8


def alone(spec: Spec, choice: int, max_model_len: int) -> tuple[list[int], str]:
    """The output of one choice when nothing else runs, and why it ends."""
    state = state_of(spec.extras_hash, spec.prompt)
    out: list[int] = []
    while len(out) < spec.max_tokens and len(spec.prompt) + len(out) < max_model_len:
        token = draw(state, choice, spec.ends if len(out) < spec.min_tokens else set())
        out.append(token)
        state = extend(state, token)
        if token in spec.ends:
            return out, "stop"
    return out, "length"


def slots_of(step: dict, seq: tuple[int, int]) -> list[int]:
    """Return the slots of the cache that a sequence of a step writes."""
    i = step["seqs"].index(seq)
    return step["slots"][step["query_start"][i] : step["query_start"][i + 1]]


def query_of(step: dict, row: dict) -> tuple[int, int]:
    """Return the sequence that computes a row: for a choice at the end of the prompt, another one."""
    token = step["logit_rows"][row["logit_row"]]
    return next(seq for seq, end in zip(step["seqs"], step["query_start"][1:], strict=True) if token < end)


class FakeEngine:
    """Runs the steps of a scheduler, and checks every one of them."""

    def __init__(self, *, n_blocks=64, block_size=4, depth=1, prefix_caching=True, n_host_blocks=0, **scheduler):
        options = {"max_num_seqs": 8, "max_num_batched_tokens": 32, "max_model_len": 64} | scheduler
        blocks = BlockManager(n_blocks, block_size, prefix_caching=prefix_caching, n_host_blocks=n_host_blocks)
        self.scheduler = Scheduler(blocks, depth=depth, **options)
        self.driver = SchedulerDriver(self.scheduler)
        self.n_blocks, self.block_size, self.depth = n_blocks, block_size, depth
        self.specs: dict[int, Spec] = {}
        self.now_us = 1
        self.kv: dict[int, int | None] = {}  # slot, of either tier -> state; None: garbage of a failed step
        self.last_token: dict[int, int] = {}  # by sampler slot
        self.device: dict[tuple[int, int], list[int]] = {}  # all tokens of a choice, as the device knows them
        self.slot_owner: dict[int, tuple[int, int]] = {}
        self.in_flight: deque = deque()  # (step, results, {slot written: request})
        self.late: dict[int, int | None] = {}  # slot -> state, of blocks that come back while the last step runs
        self.n_moved = [0, 0]  # blocks out of the second tier, into it

    # ---- requests ----------------------------------------------------------------------------------

    def add(self, prompt=None, **spec) -> int | str:
        """Add a request; return its id, or the reason why it was refused."""
        s = Spec(prompt=prompt, **spec)
        request_id = len(self.specs) + 1
        refused = self.driver.add(
            request_id, s.prompt, n=s.n, max_tokens=s.max_tokens, min_tokens=s.min_tokens,
            stop_token_ids=s.stop_token_ids, eos_token_ids=(EOS,), ignore_eos=s.ignore_eos, priority=s.priority,
            deadline_us=s.deadline_us, logprobs=s.logprobs, prompt_logprobs=s.prompt_logprobs,
            extras_hash=s.extras_hash,
        )  # fmt: skip
        if refused:
            return refused
        self.specs[request_id] = s
        return request_id

    def cancel(self, request_id: int, choice: int = -1, reason: str = "abort") -> bool:
        done = self.driver.cancel(request_id, choice, reason)
        self.read_events(cut=True)
        return done

    # ---- steps -------------------------------------------------------------------------------------

    def schedule(self) -> dict | None:
        """Schedule a step and run it; its results wait for deliver()."""
        step = self.driver.schedule(self.now_us)
        self.read_events()
        if step is not None:
            self.in_flight.append((step, *self.execute(step)))
        return step

    def deliver(self, nan_row: int | None = None) -> None:
        """Give the scheduler the results of the oldest step; nan_row is a row of logits that are not numbers.

        What the sequence wrote that computed the row is garbage then; its siblings wrote what is theirs.
        """
        step, results, _ = self.in_flight.popleft()
        for i, row in enumerate(step["rows"]):
            if row["logit_row"] == nan_row:
                results[i] = (-1, 0.0, 0, True, [])
                seq = query_of(step, row)
                self.spoil(dict.fromkeys(slots_of(step, seq), seq[0]), {seq[0]})
        self.driver.update(step["step_id"], results, self.now_us)
        self.read_events()

    def fail(self) -> None:
        """The oldest step could not be run: its part of the cache is garbage, and what was copied from there."""
        step, _, written = self.in_flight.popleft()
        self.spoil(written, set(written.values()))
        lost = {dst for _, dst in step["copies"]}
        for later, _, _ in self.in_flight:
            for src, dst in later["copies"]:
                (lost.add if src in lost else lost.discard)(dst)
        later_written = {slot for _, _, w in self.in_flight for slot in w}
        for block in lost:
            for slot in range(block * self.block_size, (block + 1) * self.block_size):
                if slot not in later_written:
                    self.kv[slot] = None
                    self.late.pop(slot, None)
        self.driver.fail(step["step_id"], self.now_us)
        self.read_events()

    def spoil(self, written: dict[int, int], requests: set[int]) -> None:
        later = {slot for _, _, w in self.in_flight for slot in w}
        for slot, request in written.items():
            if request in requests and slot not in later:
                self.kv[slot] = None

    def step(self) -> dict | None:
        """Schedule, and deliver the oldest step when `depth` are in flight or nothing more can run."""
        step = self.schedule()
        if self.in_flight and (step is None or len(self.in_flight) == self.depth):
            self.deliver()
        self.driver.check()
        return step

    def run(self, max_steps: int = 10_000) -> int:
        """Step until all requests are finished; return the number of steps."""
        n = 0
        while self.driver.has_work() or self.in_flight:
            before = len(self.in_flight)
            ran = self.step() is not None or before > 0
            assert ran or not self.driver.has_work(), "requests wait, but nothing can run"
            n += 1
            assert n < max_steps, "requests do not end"
        assert self.driver.n_free() == self.n_blocks, "blocks are lost"
        assert self.n_moved == [self.scheduler.blocks.n_swapped_in, self.scheduler.blocks.n_swapped_out]
        self.check_finished()
        return n

    # ---- the device --------------------------------------------------------------------------------

    def execute(self, step: dict) -> tuple[list, dict[int, int]]:
        bs = self.block_size
        self.check_shape(step)
        for seq, slot, tokens in step["admitted"]:
            self.slot_owner[slot] = seq
            self.device[seq] = list(tokens)

        written: dict[int, int] = {}
        self.kv |= self.late
        self.late = {}
        for src, dst in step["copies"]:
            self.copy(src, dst)
            if step["returns_late"] and src >= self.n_blocks:
                for slot in range(dst * bs, (dst + 1) * bs):
                    self.late[slot], self.kv[slot] = self.kv[slot], None

        token_ids = list(step["token_ids"])
        for i, seq in enumerate(step["seqs"]):
            begin, end = step["query_start"][i : i + 2]
            history = self.device[seq]
            state = state_of(self.specs[seq[0]].extras_hash, history[: step["positions"][begin]])
            for t in range(begin, end):
                position = step["positions"][t]
                assert position == step["kv_len"][i] - (end - t)
                if token_ids[t] < 0:
                    slot = -1 - token_ids[t]
                    assert self.slot_owner[slot] == seq, "a token is read from another sequence's sampler slot"
                    token_ids[t] = self.last_token[slot]
                assert token_ids[t] == history[position]
                slot = step["slots"][t]
                assert slot == step["tables"][i][position // bs] * bs + position % bs
                assert slot not in written, "two tokens of a step are written to one slot"
                state = extend(state, token_ids[t])
                assert slot not in self.late, "a block is written while it comes back"
                self.kv[slot] = state
                written[slot] = seq[0]
        in_use = self.in_use()
        for slot, request in written.items():
            assert in_use.get(slot // bs, request) == request, "a block is reused while a step in flight writes it"
        for i, seq in enumerate(step["seqs"]):
            self.check_keys(seq, step["tables"][i], step["kv_len"][i])
        return [self.sample(step, row) for row in step["rows"]], written

    def in_use(self) -> dict[int, int]:
        """The blocks that steps in flight write, each with its request."""
        return {slot // self.block_size: r for _, _, written in self.in_flight for slot, r in written.items()}

    def copy(self, src: int, dst: int) -> None:
        bs = self.block_size
        assert {src, dst} <= set(range(self.n_blocks + self.scheduler.blocks.n_host_blocks))
        assert src != dst and min(src, dst) < self.n_blocks, "a copy within the second tier"
        if max(src, dst) >= self.n_blocks:
            content = [self.kv.get(src * bs + offset) for offset in range(bs)]
            assert None not in content, "what moves is not a full block"
            assert not {src, dst} & set(self.in_use()), "a block moves while a step in flight writes it"
            self.n_moved[src < self.n_blocks] += 1
        for offset in range(bs):
            self.kv[dst * bs + offset] = self.kv.get(src * bs + offset)

    def check_keys(self, seq: tuple[int, int], table: list[int], kv_len: int) -> None:
        bs = self.block_size
        assert len(table) == -(-kv_len // bs)
        state = state_of(self.specs[seq[0]].extras_hash, [])
        for position in range(kv_len):
            state = extend(state, self.device[seq][position])
            assert self.kv[table[position // bs] * bs + position % bs] == state, (
                f"sequence {seq} finds keys at position {position} that are not its own"
            )

    def check_shape(self, step: dict) -> None:
        s = self.scheduler
        assert 0 < len(step["token_ids"]) <= s.max_num_batched_tokens
        assert len(step["rows"]) <= s.max_rows and len(step["logit_rows"]) <= len(step["rows"])
        assert len(set(step["seqs"])) == len(step["seqs"]) <= s.max_num_seqs
        lengths = [b - a for a, b in zip(step["query_start"], step["query_start"][1:], strict=False)]
        assert min(lengths) >= 1 and max(lengths) == step["max_query_len"] <= s.max_prefill_chunk
        assert sum(lengths) == len(step["token_ids"])
        assert max(step["kv_len"]) == step["max_kv_len"] <= s.max_model_len - 1
        assert len(self.in_flight) < self.depth
        assert len(step["copies"]) <= s.max_num_seqs + 2 * s.max_moves

    def sample(self, step: dict, row: dict) -> tuple:
        seq = row["seq"]
        spec = self.specs[seq[0]]
        t = step["logit_rows"][row["logit_row"]]
        i = max(k for k, start in enumerate(step["query_start"][:-1]) if start <= t)
        history = self.device[seq]
        position = step["positions"][t]
        assert self.slot_owner[row["slot"]] == seq
        state = state_of(spec.extras_hash, history[: position + 1])
        if row["score"]:
            assert step["seqs"][i] == seq and row["n_top"] == spec.prompt_logprobs
            assert row["target"] == spec.prompt[position + 1] and row["token_index"] == position + 1
            target = row["target"]
            return target, logprob(state, target), 1 + target, False, [(target, 0.5)] * row["n_top"]
        assert step["seqs"][i][0] == seq[0] and (step["seqs"][i] == seq or step["seqs"][i][1] == 0)
        assert t == step["query_start"][i + 1] - 1 and position == len(history) - 1
        assert row["token_index"] == len(history) - len(spec.prompt)
        assert row["suppress_stop"] == (row["token_index"] < spec.min_tokens)
        assert row["n_top"] == (-1 if spec.logprobs is None else spec.logprobs)
        token = draw(state, seq[1], spec.ends if row["suppress_stop"] else set())
        self.last_token[row["slot"]] = token
        history.append(token)
        return token, logprob(state, token), 1 + token, False, [(token, 0.5)] * max(row["n_top"], 0)

    # ---- what comes out ----------------------------------------------------------------------------

    def read_events(self, cut: bool = False) -> None:
        for e in self.driver.events():
            spec = self.specs[e["id"]]
            choice = e["choice"]
            assert e["t_us"] <= self.now_us
            shared = e["kind"] == "prompt_logprob" and not all(spec.finish)
            assert spec.finish[choice] is None or shared, "an event follows the end of its choice"
            if e["kind"] == "started":
                assert not spec.started
                assert e["token"] < len(spec.prompt) and e["token"] % self.block_size == 0
                assert spec.prompt_logprobs is None or e["token"] == 0
                spec.started = True
            elif e["kind"] == "prompt_logprob":
                state = state_of(spec.extras_hash, spec.prompt[: e["index"]])
                assert e["token"] == spec.prompt[e["index"]] and e["logprob"] == logprob(state, e["token"])
                assert len(e["top"]) == spec.prompt_logprobs
                spec.scored.append(e["index"])
            elif e["kind"] == "token":
                assert spec.started
                if spec.prompt_logprobs is not None:
                    assert spec.scored == list(range(1, len(spec.prompt)))
                assert (e["logprob"] is None) == (spec.logprobs is None)
                assert len(e["top"]) == (spec.logprobs or 0)
                assert e["index"] == len(spec.tokens[choice])
                spec.tokens[choice].append(e["token"])
                spec.finish[choice] = e["finish"]
            else:
                assert e["finish"] is not None
                spec.finish[choice] = e["finish"]
            if spec.finish[choice]:
                self.check_choice(spec, choice, cut or spec.finish[choice] not in ("length", "stop"))

    def check_choice(self, spec: Spec, choice: int, cut: bool) -> None:
        """The tokens of a finished choice are those of running it alone, or the beginning of them."""
        tokens, finish = alone(spec, choice, self.scheduler.max_model_len)
        if not cut:
            assert (spec.tokens[choice], spec.finish[choice]) == (tokens, finish)
        else:
            assert spec.tokens[choice] == tokens[: len(spec.tokens[choice])]

    def check_finished(self) -> None:
        for spec in self.specs.values():
            assert all(spec.finish)
            if spec.prompt_logprobs is not None and {"stop", "length"} & set(spec.finish):
                assert spec.scored == list(range(1, len(spec.prompt)))


def decoding(e: FakeEngine, n: int, length: int = 5, max_tokens: int = 40) -> list[int]:
    """Add n requests, run them until all decode, and return their ids."""
    ids = [e.add([k + 1] * length, max_tokens=max_tokens, ignore_eos=True) for k in range(n)]
    assert all(isinstance(i, int) for i in ids)
    while any(not e.specs[i].tokens[0] for i in ids):
        e.step()
    return ids
