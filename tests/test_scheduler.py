"""The scheduler: a state machine over everything it does, then each behaviour by itself."""

from __future__ import annotations

import os
import platform
import random
import shutil
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fake_engine import EOS, N_VOCAB, FakeEngine, Spec, alone, draw, state_of
from rvllm._native.driver import BlockDriver

DOCUMENTS = [[(7 * d + 3 * i) % N_VOCAB for i in range(48)] for d in range(2)]


@st.composite
def prompts(draw):
    """Prompts that share prefixes, in whole blocks and in parts of them."""
    document = draw(st.sampled_from(DOCUMENTS))
    tail = draw(st.lists(st.integers(0, N_VOCAB - 1), max_size=6))
    return (document[: draw(st.integers(0, 40))] + tail) or [1]


class Schedules(RuleBasedStateMachine):
    @initialize(
        depth=st.sampled_from([1, 2]),
        policy=st.sampled_from(["fcfs", "priority"]),
        n_blocks=st.sampled_from([13, 16, 24, 64]),
        max_num_seqs=st.sampled_from([1, 3, 6]),
        n_tokens=st.sampled_from([6, 11, 32]),
        n_rows=st.sampled_from([6, 32]),
        chunk=st.sampled_from([0, 5]),
        prefix_caching=st.sampled_from([True, True, False]),
        n_host_blocks=st.sampled_from([0, 2, 7, 40]),
        max_queued=st.sampled_from([2, 100]),
        faults=st.booleans(),
    )
    def start(
        self, depth, policy, n_blocks, max_num_seqs, n_tokens, n_rows, chunk, prefix_caching, n_host_blocks, max_queued,
        faults,
    ):  # fmt: skip
        self.faults = faults
        self.engine = FakeEngine(
            n_blocks=n_blocks, depth=depth, policy=policy, max_num_seqs=max_num_seqs, max_num_batched_tokens=n_tokens,
            max_rows=n_rows, max_prefill_chunk=chunk, prefix_caching=prefix_caching, max_queued=max_queued,
            max_model_len=52, n_host_blocks=n_host_blocks if prefix_caching else 0,
        )  # fmt: skip

    @rule(
        prompt=prompts(),
        n=st.sampled_from([1, 1, 1, 2, 4]),
        max_tokens=st.sampled_from([0, 1, 2, 7, 20, 1000]),
        min_tokens=st.sampled_from([0, 0, 3]),
        stop=st.lists(st.integers(0, N_VOCAB - 1), max_size=3),
        ignore_eos=st.booleans(),
        prompt_logprobs=st.sampled_from([None, None, None, 0, 2]),
        logprobs=st.sampled_from([None, 0, 2]),
        extras=st.sampled_from([0, 0, 1]),
        priority=st.integers(-2, 2),
        patience=st.sampled_from([None, None, None, 3, 30]),
    )
    def add(
        self, prompt, n, max_tokens, min_tokens, stop, ignore_eos, prompt_logprobs, logprobs, extras, priority, patience
    ):
        e = self.engine
        added = e.add(
            prompt, n=n, max_tokens=max_tokens, min_tokens=min_tokens, stop_token_ids=tuple(stop),
            ignore_eos=ignore_eos, prompt_logprobs=prompt_logprobs, logprobs=logprobs, extras_hash=extras,
            priority=priority, deadline_us=e.now_us + patience if patience else 0,
        )  # fmt: skip
        if n > e.scheduler.max_num_seqs:
            assert added == "too many"
        elif isinstance(added, str):
            assert added == "queue full" and e.scheduler.n_waiting >= e.scheduler.max_queued

    @rule(n=st.integers(1, 12))
    def steps(self, n):
        for _ in range(n):
            self.engine.step()
            self.engine.now_us += 1

    @rule()
    def schedule(self):
        if len(self.engine.in_flight) < self.engine.depth:
            self.engine.schedule()

    @precondition(lambda self: self.engine.in_flight)
    @rule()
    def deliver(self):
        self.engine.deliver()

    @precondition(lambda self: self.faults and self.engine.in_flight)
    @rule()
    def fail(self):
        self.engine.fail()

    @precondition(lambda self: self.faults and self.engine.in_flight and self.engine.in_flight[0][0]["rows"])
    @rule(data=st.data())
    def not_a_number(self, data):
        step, _, _ = self.engine.in_flight[0]
        self.engine.deliver(nan_row=data.draw(st.integers(0, len(step["logit_rows"]) - 1)))

    @precondition(lambda self: self.faults and self.engine.specs)
    @rule(data=st.data())
    def cancel(self, data):
        request = data.draw(st.sampled_from(sorted(self.engine.specs)))
        unfinished = not all(self.engine.specs[request].finish)
        assert self.engine.cancel(request) == unfinished
        assert all(self.engine.specs[request].finish)

    @precondition(lambda self: self.faults and self.engine.specs)
    @rule(data=st.data(), choice=st.integers(0, 3))
    def cancel_choice(self, data, choice):
        request = data.draw(st.sampled_from(sorted(self.engine.specs)))
        self.engine.cancel(request, choice)

    @rule(us=st.integers(1, 40))
    def wait(self, us):
        self.engine.now_us += us

    @invariant()
    def sound(self):
        if hasattr(self, "engine"):
            self.engine.driver.check()

    def teardown(self):
        if hasattr(self, "engine"):
            self.engine.run()


class MovingSchedules(Schedules):
    """The same where few blocks are there for prompts that come again and again, so that most of them move."""

    @initialize(
        depth=st.sampled_from([1, 2]),
        n_blocks=st.sampled_from([13, 16]),
        max_num_seqs=st.sampled_from([3, 6]),
        n_tokens=st.sampled_from([11, 32, 48]),
        n_host_blocks=st.sampled_from([3, 12, 40]),
        mixed=st.sampled_from([0, 6, 8, 32]),
        faults=st.booleans(),
    )
    def start(self, depth, n_blocks, max_num_seqs, n_tokens, n_host_blocks, mixed, faults):
        self.faults = faults
        self.engine = FakeEngine(
            n_blocks=n_blocks, n_host_blocks=n_host_blocks, depth=depth, max_num_seqs=max_num_seqs,
            max_num_batched_tokens=n_tokens, max_mixed_tokens=mixed, max_model_len=52, max_queued=100,
        )  # fmt: skip

    @rule(first=st.integers(0, 3), length=st.integers(16, 44), n=st.integers(1, 3), n_steps=st.integers(0, 20))
    def come_again(self, first, length, n, n_steps):
        for k in range(n):
            self.engine.add([(first + k) % 4, *DOCUMENTS[0][1:length]], max_tokens=5)
        self.steps(n_steps)

    @precondition(lambda self: self.faults)
    @rule(first=st.integers(0, 3), length=st.integers(16, 44), again=st.booleans(), cancel=st.booleans())
    def come_again_and_fail(self, first, length, again, cancel):
        """The step that starts a prompt fails, perhaps behind one that shares the blocks that it moves."""
        e = self.engine
        while e.in_flight:
            e.deliver()
        request = e.add([first, *DOCUMENTS[0][1:length]], max_tokens=5)
        e.schedule()
        if again and e.depth == 2:
            e.add([first, *DOCUMENTS[0][1 : length - 1], 1], max_tokens=5)
            e.schedule()
        if cancel and isinstance(request, int):
            e.cancel(request)
        if e.in_flight:
            e.fail()


TestSchedules = Schedules.TestCase
TestSchedules.settings = settings(
    max_examples=120, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestMovingSchedules = MovingSchedules.TestCase
TestMovingSchedules.settings = settings(TestSchedules.settings, max_examples=80)


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize(("policy", "n_host_blocks"), [("fcfs", 0), ("priority", 0), ("fcfs", 12), ("fcfs", 200)])
def test_under_load_every_request_gets_the_tokens_it_gets_alone(depth, policy, n_host_blocks):
    rng = random.Random(depth)
    e = FakeEngine(
        n_blocks=40, depth=depth, policy=policy, n_host_blocks=n_host_blocks, max_num_seqs=8, max_num_batched_tokens=24,
        max_queued=500,
    )  # fmt: skip
    copies = 0
    for _ in range(400):
        if rng.random() < 0.5:
            e.add(
                rng.choice(DOCUMENTS)[: rng.randrange(30)] + rng.choices(range(N_VOCAB), k=rng.randrange(1, 7)),
                n=rng.choice([1, 1, 1, 1, 3]), max_tokens=rng.randrange(1, 30), priority=rng.randrange(3),
                extras_hash=rng.randrange(2), prompt_logprobs=rng.choice([None] * 6 + [1]),
            )  # fmt: skip
        if rng.random() < 0.05:
            e.cancel(rng.randrange(1, len(e.specs) + 2))
        copies += len((e.step() or {"copies": ()})["copies"])
        e.now_us += 1
    e.run()
    s = e.scheduler
    assert copies > 10 and s.n_preemptions > 10 and s.n_prefix_hits > 100, "the test does not test what it should"
    if n_host_blocks:
        assert min(e.n_moved) > 50 and s.n_host_hits > 100, "the test does not test the second tier"


# ---- the batch ---------------------------------------------------------------------------------------


def decoding(e, n, length=5, max_tokens=40):
    """Add n requests and run them until all decode."""
    ids = [e.add([k + 1] * length, max_tokens=max_tokens, ignore_eos=True) for k in range(n)]
    assert all(isinstance(i, int) for i in ids)
    while any(not e.specs[i].tokens[0] for i in ids):
        e.step()
    return ids


def test_decodes_come_first_and_a_prompt_fills_the_rest():
    e = FakeEngine(max_num_batched_tokens=12)
    decoding(e, 3)
    long = e.add(list(range(30)), max_tokens=1)
    sizes = []
    while not all(e.specs[long].finish):
        step = e.step()
        assert step["seqs"][:3] == [(1, 0), (2, 0), (3, 0)]
        sizes.append(step["query_start"][4] - 3)
        assert step["query_start"][:4] == [0, 1, 2, 3]
    assert sizes == [9, 9, 9, 3]


def test_a_prompt_gets_no_more_than_its_chunk():
    e = FakeEngine(max_num_batched_tokens=32, max_prefill_chunk=8)
    e.add(list(range(20)))
    e.add(list(range(30, 50)))
    assert [e.step()["query_start"] for _ in range(3)] == [[0, 8, 16], [0, 8, 16], [0, 4, 8]]


def test_prompts_beside_decodes_keep_to_their_budget():
    e = FakeEngine(max_num_batched_tokens=64, max_mixed_tokens=12)
    e.add([1], max_tokens=30, ignore_eos=True)
    e.add(list(range(2, 50)), max_tokens=10, ignore_eos=True)
    assert e.step()["query_start"] == [0, 1, 49]  # nothing decodes yet
    e.add(list(range(100, 130)), max_tokens=10, ignore_eos=True)
    assert [e.step()["query_start"] for _ in range(4)] == [[0, 1, 2, 12], [0, 1, 2, 12], [0, 1, 2, 12], [0, 1, 2, 3]]
    e.run()


def test_short_prompts_beside_decodes_may_fill_a_step():
    e = FakeEngine(n_blocks=128, max_num_seqs=40, max_num_batched_tokens=64, max_mixed_tokens=48)
    decoding(e, 3)
    for k in range(25):
        e.add([k, 7, k], max_tokens=9, ignore_eos=True)
    assert e.step()["query_start"] == [0, 1, 2, 3, *range(6, 64, 3)]  # the 21st would be in two steps
    e.add(list(range(60)), max_tokens=9, ignore_eos=True)
    e.add([1, 2, 3, 4], max_tokens=9, ignore_eos=True)  # not so short, and behind a longer one
    e.add([1, 2, 3], max_tokens=9, ignore_eos=True)
    assert e.step()["query_start"] == [*range(24), *range(26, 39, 3), 48]
    assert [e.step()["query_start"] for _ in range(2)] == [[*range(29), 48]] * 2
    assert e.step()["query_start"] == [*range(29), 38, 42, 45]
    e.run()


def test_scores_of_a_prompt_outlive_the_choice_that_computed_them():
    e = FakeEngine(max_num_batched_tokens=8)
    request = e.add(list(range(20)), n=2, prompt_logprobs=0, max_tokens=3, ignore_eos=True)
    e.step()
    e.step()
    e.schedule()  # the end of the prompt, where choice 1 starts
    e.cancel(request, 0)
    e.run()
    assert e.specs[request].scored == list(range(1, 20))


def test_only_the_last_chunk_has_logits():
    e = FakeEngine(max_num_batched_tokens=8)
    e.add(list(range(20)))
    steps = [e.step() for _ in range(4)]
    assert [s["logit_rows"] for s in steps] == [[], [], [3], [0]]
    assert [s["kv_len"] for s in steps] == [[8], [16], [20], [21]]


def test_a_waiting_request_runs_as_soon_as_there_is_room():
    e = FakeEngine(max_num_seqs=2)
    ids = [e.add([k], max_tokens=3, ignore_eos=True) for k in range(1, 5)]
    assert e.step()["seqs"] == [(ids[0], 0), (ids[1], 0)]
    assert (e.scheduler.n_running, e.scheduler.n_waiting) == (2, 2)
    e.step()
    e.step()
    assert e.step()["seqs"] == [(ids[2], 0), (ids[3], 0)]


def test_first_come_first_served():
    e = FakeEngine(max_num_seqs=1)
    ids = [e.add([k], max_tokens=1, priority=-k) for k in range(1, 5)]
    assert [e.step()["seqs"][0][0] for _ in ids] == ids


def test_priority_goes_before_arrival():
    e = FakeEngine(max_num_seqs=1, policy="priority")
    ids = {p: e.add([k], max_tokens=1, priority=p) for k, p in enumerate([5, -1, 3, -1 << 31])}
    late = e.add([9], max_tokens=1, priority=3)
    order = [e.step()["seqs"][0][0] for _ in range(5)]
    assert order == [ids[-1 << 31], ids[-1], ids[3], late, ids[5]]


# ---- refusal -----------------------------------------------------------------------------------------


def test_what_can_never_run_is_refused():
    e = FakeEngine(n_blocks=8, block_size=4, max_num_seqs=4, max_model_len=64)
    assert e.add([]) == "empty"
    assert e.add([1] * 64) == "too long"
    assert e.add([1] * 20, max_tokens=14) == "too large"
    assert e.add([1] * 20, max_tokens=13, ignore_eos=True) == 1
    assert e.add([1], n=5) == "too many"
    assert e.add([1], n=0) == "too many"
    assert e.driver.add(1, [1]) == "duplicate"
    e.run()
    assert len(e.specs[1].tokens[0]) == 13
    assert e.driver.add(1, [1]) is None, "an id is free again when its request has ended"


def test_the_queue_is_bounded_by_what_cannot_start_at_once():
    e = FakeEngine(max_num_seqs=2, max_queued=3)
    ids = [e.add([k + 1], max_tokens=5, ignore_eos=True) for k in range(6)]
    assert ids[:5] == [1, 2, 3, 4, 5] and ids[5] == "queue full"
    e.step()
    assert e.add([9]) == "queue full"
    e.cancel(5)
    assert isinstance(e.add([9]), int)
    e.run()


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("max_num_seqs", 0), ("max_num_batched_tokens", 7), ("max_rows", 7), ("max_model_len", 1),
        ("max_prefill_chunk", -1), ("max_mixed_tokens", 7), ("policy", "lifo"), ("depth", 3), ("max_queued", -1),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named(argument, value):
    with pytest.raises(ValueError, match=argument):
        FakeEngine(**{argument: value})


# ---- the end of a sequence ---------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2])
def test_max_tokens_and_the_context_end_a_sequence_without_a_surplus_token(depth):
    e = FakeEngine(depth=depth, max_model_len=20)
    a = e.add([1, 2, 3], max_tokens=4, ignore_eos=True)
    b = e.add([1] * 15, max_tokens=100, ignore_eos=True)
    rows = 0
    while e.driver.has_work():
        rows += len((e.step() or {"rows": ()})["rows"])
    assert rows == e.scheduler.n_generated == 4 + 5
    assert (e.specs[a].finish, e.specs[b].finish) == (["length"], ["length"])


def stop_after(e, prompt, n):
    """A stop token that ends `prompt` after n tokens."""
    tokens, _ = alone(Spec(prompt, max_tokens=n, ignore_eos=True), 0, 64)
    assert tokens[-1] not in tokens[:-1]
    return e.add(prompt, stop_token_ids=(tokens[-1],), ignore_eos=True)


def test_what_is_computed_behind_a_stop_is_dropped():
    e = FakeEngine(depth=2)
    request = stop_after(e, [1, 2, 3], 5)
    rows = 0
    while e.driver.has_work() or e.in_flight:
        rows += len((e.step() or {"rows": ()})["rows"])
    assert e.specs[request].finish == ["stop"] and len(e.specs[request].tokens[0]) == 5
    assert rows == 6, "one row ran beyond the stop"
    assert e.scheduler.n_generated == 5
    # 3 + 5 tokens are two full blocks; the surplus token would have begun a third.
    again = e.add([1, 2, 3, *e.specs[request].tokens[0], 0], max_tokens=1)
    e.run()
    assert e.scheduler.n_prefix_hits == 8
    assert e.specs[again].finish == ["length"]


def test_a_token_that_the_host_never_learned_is_not_hashed():
    e = FakeEngine(depth=2)
    request = e.add([1, 2, 3])
    e.schedule()
    assert e.schedule()["token_ids"] == [-1 - e.driver.sequence(request)["slot"]]
    e.cancel(request)
    e.deliver()
    e.deliver()  # the first block is full, but nobody knows of what
    cached = BlockDriver(e.scheduler.blocks).is_cached
    assert not any(cached(block) for block in range(e.n_blocks))


def test_blocks_of_a_stopped_sequence_wait_for_the_step_in_flight():
    e = FakeEngine(depth=2)
    stop_after(e, [1, 2, 3], 2)
    while e.driver.has_work():
        e.step()
    assert len(e.in_flight) == 1, "the surplus row"
    assert e.driver.n_free() < e.n_blocks
    e.deliver()
    assert e.driver.n_free() == e.n_blocks


def test_a_stop_token_ends_only_when_asked_for():
    e = FakeEngine()
    prompt = next([k] for k in range(N_VOCAB) if draw(state_of(0, [k]), 0, set()) == EOS)
    a = e.add(prompt, max_tokens=3)
    b = e.add(prompt, max_tokens=3, ignore_eos=True)
    c = e.add(prompt, max_tokens=3, ignore_eos=True, stop_token_ids=(EOS,))
    d = e.add(prompt, max_tokens=3, min_tokens=2)
    e.run()
    assert [e.specs[i].finish[0] for i in (a, b, c)] == ["stop", "length", "stop"]
    assert [len(e.specs[i].tokens[0]) for i in (a, b, c)] == [1, 3, 1]
    assert len(e.specs[d].tokens[0]) >= 2


def test_no_tokens_wanted():
    e = FakeEngine()
    request = e.add([1, 2, 3], max_tokens=0, prompt_logprobs=0)
    e.run()
    assert e.specs[request].tokens == [[]] and e.specs[request].finish == ["length"]
    assert e.specs[request].scored == [1, 2] and e.scheduler.n_generated == 0


# ---- prefix cache ------------------------------------------------------------------------------------


def test_a_common_prefix_is_computed_once():
    e = FakeEngine(max_num_batched_tokens=64)
    prompt = list(range(21))
    e.add(prompt, max_tokens=1)
    e.step()
    second = e.add([*prompt[:18], 50, 51], max_tokens=1)
    step = e.step()
    assert step["positions"] == [16, 17, 18, 19]
    assert e.specs[second].started and e.scheduler.n_prefix_hits == 16 and e.scheduler.n_prefix_queries == 41
    assert e.scheduler.n_prompt_tokens == 41


def test_outputs_are_found_too():
    e = FakeEngine()
    first = e.add([1, 2, 3], max_tokens=10, ignore_eos=True)
    e.run()
    e.add([1, 2, 3, *e.specs[first].tokens[0]], max_tokens=1)
    assert e.step()["positions"] == [12]
    e.run()


def test_what_a_failed_step_computed_of_a_cancelled_request_is_not_cached():
    e = FakeEngine(depth=2)
    request = e.add([1] * 6, ignore_eos=True)
    e.schedule()
    e.schedule()
    e.cancel(request)
    e.fail()
    e.deliver()
    e.add([1] * 6)
    assert e.step()["positions"] == list(range(6))
    e.run()


def test_a_step_that_failed_leaves_nothing_in_the_cache():
    e = FakeEngine()
    a = e.add(list(range(12)))
    e.schedule()
    e.fail()
    assert e.specs[a].finish == ["error"] and e.driver.n_free() == e.n_blocks
    e.add(list(range(12)))
    assert e.step()["positions"] == list(range(12))


# ---- preemption --------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2])
def test_the_last_admitted_is_preempted_and_comes_back_with_its_tokens(depth):
    e = FakeEngine(n_blocks=10, depth=depth, max_num_seqs=3, max_model_len=40)
    ids = [e.add([k] * 4, max_tokens=20, ignore_eos=True) for k in range(1, 4)]
    while not e.scheduler.n_preemptions:
        e.step()
    assert e.driver.sequence(ids[2])["state"] == "preempted"
    assert [e.driver.sequence(i)["state"] for i in ids[:2]] == ["running", "running"]
    late = e.add([9] * 4, max_tokens=1)
    while e.driver.sequence(ids[2])["state"] == "preempted":
        assert not e.specs[late].started, "the preempted one goes first"
        e.step()
    e.run()
    assert [e.specs[i].finish for i in ids] == [["length"]] * 3
    assert e.scheduler.n_generated == 61


def test_the_lowest_priority_is_preempted():
    e = FakeEngine(n_blocks=10, policy="priority", max_num_seqs=3, max_model_len=40)
    ids = [e.add([k] * 4, max_tokens=20, ignore_eos=True, priority=p) for k, p in ((1, 9), (2, 1), (3, 5))]
    while not e.scheduler.n_preemptions:
        e.step()
    assert [e.driver.sequence(i)["state"] for i in ids] == ["preempted", "running", "running"]
    e.run()


def test_a_preempted_sequence_finds_its_blocks_again():
    e = FakeEngine(n_blocks=10, max_num_seqs=3, max_model_len=40)
    for k in range(1, 4):
        e.add([k] * 4, max_tokens=12, ignore_eos=True)
    computed = 0
    while e.driver.has_work():
        computed += len((e.step() or {"token_ids": ()})["token_ids"])
    alone_tokens = 3 * (4 + 11)
    assert e.scheduler.n_preemptions and computed < alone_tokens + 4 * e.scheduler.n_preemptions + 8


# ---- the second tier ---------------------------------------------------------------------------------


def n_computed(e):
    """Run until all is done; return the number of tokens that were computed."""
    n = 0
    while e.driver.has_work() or e.in_flight:
        n += len((e.step() or {"token_ids": ()})["token_ids"])
    e.run()
    return n


@pytest.mark.parametrize("depth", [1, 2])
def test_a_preempted_sequence_comes_back_by_copies(depth):
    computed = {}
    for n_host_blocks in (0, 30):
        e = FakeEngine(n_blocks=12, n_host_blocks=n_host_blocks, depth=depth, max_num_seqs=3, max_model_len=48)
        for k in range(1, 4):
            e.add([k] * 4, max_tokens=36, ignore_eos=True)
        computed[n_host_blocks] = n_computed(e)
        assert e.scheduler.n_preemptions
    tails = e.scheduler.n_preemptions * (4 + depth)  # what is in no full block yet, or not known yet
    assert computed[30] <= 3 * (4 + 35) + tails < computed[0]
    assert min(e.n_moved) > 5 and e.scheduler.n_host_hits == 0, "hits are of prompts"


def swapped_out(e, *prompts):
    """Run prompts, then others until none of their blocks is left in the first tier."""
    for prompt in prompts:
        e.add(list(prompt), max_tokens=1)
        e.run()
    for k in range(e.n_blocks // 8 + 1):
        e.add([1 + k] * 33, max_tokens=1)
        e.run()


@pytest.mark.parametrize("depth", [1, 2])
def test_an_evicted_prompt_is_found_in_the_second_tier(depth):
    e = FakeEngine(n_blocks=12, n_host_blocks=40, depth=depth, max_num_batched_tokens=64)
    swapped_out(e, range(41))
    again = e.add(list(range(41)), max_tokens=1)
    step = e.step()
    assert step["positions"] == [40] and e.scheduler.n_host_hits == e.scheduler.n_prefix_hits == 40
    assert sum(src >= 12 for src, _ in step["copies"]) == 10
    e.run()
    assert e.specs[again].finish == ["length"]


def test_what_comes_back_is_shared_at_once():
    e = FakeEngine(n_blocks=12, n_host_blocks=40, max_num_batched_tokens=64)
    swapped_out(e, range(41))
    for last in (1, 2, 3):
        e.add([*range(16), last], max_tokens=1)
    step = e.step()
    assert step["positions"] == [16, 16, 16]
    assert sum(src >= 12 for src, _ in step["copies"]) == 4
    e.run()


def test_a_step_without_decodes_brings_back_a_whole_prompt():
    e = FakeEngine(n_blocks=26, n_host_blocks=99, max_num_batched_tokens=12, max_num_seqs=4)
    swapped_out(e, range(58), range(20, 61), range(23, 64))
    e.add(list(range(58)), max_tokens=1)
    assert e.step()["positions"] == [56, 57]
    e.run()
    for first in (20, 23):
        e.add(list(range(first, first + 41)), max_tokens=9, ignore_eos=True)
    assert e.step()["positions"] == [40], "the second needs more than is left of 16"
    assert e.step()["positions"] == [41], "beside a decode it comes back before it runs"
    assert e.step()["positions"] == [42, 40]
    e.run()


@pytest.mark.parametrize("depth", [1, 2])
def test_beside_decodes_few_blocks_at_a_time_come_back_and_a_step_early(depth):
    e = FakeEngine(
        n_blocks=100, n_host_blocks=300, depth=depth, max_num_seqs=4, max_num_batched_tokens=320, max_model_len=320
    )
    prompt = [k * k % 61 for k in range(301)]
    swapped_out(e, prompt)
    (decode,) = decoding(e, 1)
    again = e.add(prompt, max_tokens=2, ignore_eos=True)
    steps = [e.step() for _ in range(5)]
    came = [sum(src >= 100 for src, _ in step["copies"]) for step in steps]
    computed = [300 in step["positions"] for step in steps]
    first = came.index(64)
    assert came[first : first + 3] == [64, 11, 0] and sum(came) == 75
    assert computed.index(True) == first + 2 and sum(computed) == 1
    assert all(step["returns_late"] and decode in dict(step["seqs"]) for step in steps)
    assert e.scheduler.n_host_hits == 300
    e.run()
    assert e.specs[again].finish == e.specs[decode].finish == ["length"]


def test_who_shares_what_comes_back_waits_for_it_too():
    e = FakeEngine(n_blocks=26, n_host_blocks=99, max_num_seqs=4)
    swapped_out(e, range(41))
    (decode,) = decoding(e, 1)
    both = [e.add([*range(40), last], max_tokens=2, ignore_eos=True) for last in (1, 2)]
    step = e.step()
    assert step["seqs"] == [(decode, 0)] and sum(src >= 26 for src, _ in step["copies"]) == 10
    assert e.step()["seqs"] == [(decode, 0), (both[0], 0), (both[1], 0)]
    e.run()


@pytest.mark.parametrize("depth", [1, 2])
def test_cancelled_while_its_blocks_come(depth):
    e = FakeEngine(n_blocks=26, n_host_blocks=99, depth=depth, max_num_seqs=4, max_mixed_tokens=6)
    swapped_out(e, range(41))
    decoding(e, 1)
    again = e.add(list(range(41)), max_tokens=2, ignore_eos=True)
    while not e.n_moved[0]:
        e.step()
    assert not e.specs[again].started and e.cancel(again)
    again = e.add(list(range(41)), max_tokens=2, ignore_eos=True)
    e.run()
    assert e.n_moved[0] == 10, "what had come stayed"


@pytest.mark.parametrize("depth", [1, 2])
def test_a_step_that_failed_moved_nothing(depth):
    """What it should have brought back, or put away, is not found; who shares it meanwhile ends with an error."""
    e = FakeEngine(n_blocks=16, n_host_blocks=99, depth=depth, max_num_batched_tokens=64)
    prompts = [list(range(41)), [1] * 33]
    swapped_out(e, prompts[0])
    first = e.add(prompts[0], max_tokens=3, ignore_eos=True)
    assert {src < 16 for src, _ in e.schedule()["copies"]} == {True, False}
    if depth == 2:
        second = e.add([*prompts[0][:16], 1], max_tokens=3, ignore_eos=True)
        assert e.schedule()["positions"] == [41, 16]
    e.fail()
    e.driver.check()
    assert e.specs[first].finish == ["error"]
    if depth == 2:
        assert e.specs[second].finish == ["error"]
    e.run()
    for prompt in prompts:
        e.add(prompt, max_tokens=3, ignore_eos=True)
    e.run()  # checks what is read


def test_what_a_failed_step_should_have_put_away_was_not_brought_back_either():
    e = FakeEngine(n_blocks=24, n_host_blocks=99, depth=2, max_num_batched_tokens=64)
    swapped_out(e, range(41))
    e.add(list(range(41)), max_tokens=3, ignore_eos=True)
    put_away = {dst for _, dst in e.schedule()["copies"] if dst >= 24}
    second = e.add([2] * 33, max_tokens=3, ignore_eos=True)
    assert put_away & {src for src, _ in e.schedule()["copies"]}
    e.fail()
    assert e.specs[second].finish == ["error"]
    e.add([2] * 33, max_tokens=3, ignore_eos=True)
    e.run()


def test_a_newcomer_leaves_the_blocks_that_decodes_need_next():
    e = FakeEngine(n_blocks=11, max_num_seqs=4)
    decoding(e, 3, length=5, max_tokens=12)  # two blocks each, four at the end
    late = e.add([9] * 12, max_tokens=1)  # three blocks, and five are free
    e.step()
    assert not e.specs[late].started
    e.run()
    assert e.scheduler.n_preemptions == 1  # three times four is more than there are


def test_newcomers_leave_blocks_to_each_other():
    e = FakeEngine(n_blocks=4)
    ids = [e.add([k] * 4, max_tokens=8, ignore_eos=True) for k in range(1, 5)]
    assert e.step()["seqs"] == [(ids[0], 0), (ids[1], 0)]
    e.run()


def test_a_newcomer_gets_blocks_that_nobody_will_need():
    e = FakeEngine(n_blocks=9, max_num_seqs=4)
    decoding(e, 3, length=5, max_tokens=4)  # two blocks each, to the end
    late = e.add([9] * 12, max_tokens=1)
    e.step()
    assert e.specs[late].started


# ---- n choices ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize(("length", "copies"), [(6, 3), (8, 0)])
def test_choices_share_the_prompt_and_copy_its_last_block_on_write(depth, length, copies):
    e = FakeEngine(depth=depth)
    request = e.add(list(range(length)), n=4, max_tokens=6, ignore_eos=True)
    first = e.step()
    assert [r["seq"] for r in first["rows"]] == [(request, k) for k in range(4)]
    assert {r["logit_row"] for r in first["rows"]} == {0} and len(first["logit_rows"]) == 1
    assert [seq for seq, _, _ in first["admitted"]] == [(request, k) for k in range(4)]
    second = e.step()
    assert second["seqs"] == [(request, k) for k in range(4)]
    assert len(second["copies"]) == copies
    assert len({table[0] for table in second["tables"]}) == 1
    assert len({table[1 if copies else 2] for table in second["tables"]}) == 4
    used = e.n_blocks - e.driver.n_free()
    assert used == (1 + 4 if copies else 2 + 4)
    e.run()
    assert len({tuple(t) for t in e.specs[request].tokens}) > 1, "choices differ"


def test_a_request_waits_for_the_slots_of_all_its_choices():
    e = FakeEngine(max_num_seqs=4, max_num_batched_tokens=6)
    decoding(e, 2, max_tokens=6)
    many = e.add([9] * 9, n=3, max_tokens=3, ignore_eos=True)
    after = e.add([8], max_tokens=3, ignore_eos=True)
    while not e.specs[many].started:
        assert not e.specs[after].started
        e.step()
    e.step()
    assert e.specs[after].started
    e.run()


def test_one_choice_can_be_ended_alone():
    e = FakeEngine()
    request = e.add([1] * 6, n=3, max_tokens=9, ignore_eos=True)
    assert not e.cancel(request, 1), "the choices do not run yet"
    e.step()
    e.step()
    assert e.cancel(request, 1, "stop") and not e.cancel(request, 1) and not e.cancel(request, 3)
    assert e.scheduler.n_running == 2
    assert e.specs[request].finish == [None, "stop", None]
    e.run()
    assert e.specs[request].finish == ["length", "stop", "length"]


# ---- prompt log-probabilities ------------------------------------------------------------------------


def test_prompt_logprobs_cut_the_chunk_to_the_rows_and_skip_the_cache():
    e = FakeEngine(max_num_seqs=4, max_rows=6, max_num_batched_tokens=32)
    e.add(list(range(16)), max_tokens=1)
    e.run()
    request = e.add(list(range(16)), max_tokens=2, prompt_logprobs=1, ignore_eos=True)
    steps = [e.step() for _ in range(4)]
    assert [len(s["token_ids"]) for s in steps] == [6, 6, 4, 1]
    assert [len(s["rows"]) for s in steps] == [6, 6, 4, 1]
    assert e.specs[request].scored == list(range(1, 16))


def test_prompt_logprobs_are_reported_once_though_the_prompt_is_computed_twice():
    e = FakeEngine(n_blocks=10, max_num_seqs=3, max_model_len=40, max_num_batched_tokens=6)
    ids = [e.add([k] * 4, max_tokens=20, ignore_eos=True) for k in range(1, 3)]
    scored = e.add(list(range(14)), max_tokens=20, prompt_logprobs=0, ignore_eos=True)
    while not e.scheduler.n_preemptions:
        e.step()
    assert e.driver.sequence(scored)["state"] == "preempted"
    e.run()  # checks the positions
    assert e.specs[ids[0]].finish == ["length"]


# ---- cancellation, deadlines, failures ---------------------------------------------------------------


def test_cancelling_frees_blocks_at_once_when_nothing_is_in_flight():
    e = FakeEngine()
    ids = decoding(e, 3)
    waiting = e.add([1] * 9)
    for request in (*ids, waiting):
        assert e.cancel(request) and not e.cancel(request)
        assert e.specs[request].finish == ["abort"]
    assert e.driver.n_free() == e.n_blocks and not e.driver.has_work()
    assert e.schedule() is None


def test_cancelling_frees_blocks_within_one_step():
    e = FakeEngine(depth=2)
    request = e.add([1] * 9, ignore_eos=True)
    e.schedule()
    e.schedule()
    e.cancel(request)
    e.deliver()
    assert e.driver.n_free() < e.n_blocks
    e.deliver()
    assert e.driver.n_free() == e.n_blocks


def test_a_deadline_ends_running_and_waiting_requests():
    e = FakeEngine(max_num_seqs=1)
    a = e.add([1], deadline_us=10, ignore_eos=True)
    b = e.add([2], deadline_us=10)
    c = e.add([3], deadline_us=5000, max_tokens=2, ignore_eos=True)
    e.step()
    e.now_us = 10
    assert e.step()["seqs"] == [(c, 0)]
    assert (e.specs[a].finish, e.specs[b].finish) == (["deadline"], ["deadline"])
    assert len(e.specs[a].tokens[0]) == 1
    e.run()
    assert e.specs[c].finish == ["length"]


def test_logits_that_are_not_numbers_end_that_request_alone():
    e = FakeEngine()
    bad = e.add([1] * 6, n=2, max_tokens=9, ignore_eos=True)
    good = e.add([2] * 6, max_tokens=9, ignore_eos=True)
    e.step()
    e.schedule()
    e.deliver(nan_row=1)
    e.run()
    assert e.specs[bad].finish == ["error", "error"] and e.specs[good].finish == ["length"]


@pytest.mark.parametrize("cancelled", [False, True])
def test_what_led_to_such_logits_is_not_cached(cancelled):
    e = FakeEngine()
    bad = e.add([1] * 6)
    e.schedule()
    if cancelled:
        e.cancel(bad)
    e.deliver(nan_row=0)
    e.add([1] * 6)
    assert e.step()["positions"] == list(range(6))
    e.run()


def test_a_failed_step_ends_its_requests_and_no_others():
    e = FakeEngine(max_num_seqs=2)
    ids = [e.add([k], max_tokens=4, ignore_eos=True) for k in range(1, 4)]
    e.schedule()
    e.fail()
    e.run()
    assert [e.specs[i].finish[0] for i in ids] == ["error", "error", "length"]


# ---- cost --------------------------------------------------------------------------------------------

COUNTING_MALLOC = """
#include <stddef.h>
void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
static long n_calls;
long count_calls(void) { return n_calls; }
void *malloc(size_t n) { ++n_calls; return __libc_malloc(n); }
void *calloc(size_t k, size_t n) { ++n_calls; return __libc_calloc(k, n); }
void *realloc(void *p, size_t n) { ++n_calls; return __libc_realloc(p, n); }
"""

DECODE = """
import ctypes
import sys
from rvllm._native.blocks import BlockManager
from rvllm._native.driver import SchedulerDriver
from rvllm._native.scheduler import Scheduler

count_calls = ctypes.CDLL(None).count_calls
blocks = BlockManager(4096, n_host_blocks=int(sys.argv[1]))
scheduler = Scheduler(blocks, max_num_seqs=32, max_num_batched_tokens=2048, max_model_len=4096)
driver = SchedulerDriver(scheduler)
driver.fill(32, 2040, 1)  # fills the prefix cache, so that what follows evicts
driver.time_steps(40)
driver.fill(32, 40, 1500)
driver.time_steps(100)
for n_steps in (10, 1010):
    before = count_calls()
    driver.time_steps(n_steps)
    print(count_calls() - before)
assert scheduler.n_running == 32
assert (blocks.n_swapped_out > 1000) == (blocks.n_host_blocks > 0)
"""


@pytest.mark.parametrize("n_host_blocks", [0, 3000])
def test_nothing_is_allocated_while_sequences_decode(tmp_path, n_host_blocks):
    source, library = tmp_path / "malloc.c", tmp_path / "malloc.so"
    source.write_text(COUNTING_MALLOC)
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None or platform.libc_ver()[0] != "glibc":
        pytest.skip("needs a C compiler and glibc")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", source, "-o", library], check=True)
    env = os.environ | {"LD_PRELOAD": str(library)}
    run = subprocess.run(
        [sys.executable, "-c", DECODE, str(n_host_blocks)],
        env=env,
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
    )
    few, many = (int(n) for n in run.stdout.split())
    assert few > 0, "nothing was counted"
    assert many - few < 10, f"{many - few} more allocations in 1,000 more steps of 32 sequences"
