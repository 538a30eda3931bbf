"""The scheduler as a state machine over everything it does, and under load: requests get the tokens they get alone."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fake_engine import N_VOCAB, FakeEngine

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
