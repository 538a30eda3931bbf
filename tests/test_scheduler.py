"""The scheduler: a state machine over everything it does, then each behaviour by itself."""

from __future__ import annotations

from fake_engine import N_VOCAB, FakeEngine
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

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
        max_queued=st.sampled_from([2, 100]),
    )
    def start(self, depth, policy, n_blocks, max_num_seqs, n_tokens, n_rows, chunk, prefix_caching, max_queued):
        self.engine = FakeEngine(
            n_blocks=n_blocks, depth=depth, policy=policy, max_num_seqs=max_num_seqs, max_num_batched_tokens=n_tokens,
            max_rows=n_rows, max_prefill_chunk=chunk, prefix_caching=prefix_caching, max_queued=max_queued,
            max_model_len=52,
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

    @precondition(lambda self: self.engine.in_flight)
    @rule()
    def fail(self):
        self.engine.fail()

    @precondition(lambda self: self.engine.in_flight and self.engine.in_flight[0][0]["rows"])
    @rule(data=st.data())
    def not_a_number(self, data):
        step, _, _ = self.engine.in_flight[0]
        self.engine.deliver(nan_row=data.draw(st.integers(0, len(step["logit_rows"]) - 1)))

    @precondition(lambda self: self.engine.specs)
    @rule(data=st.data())
    def cancel(self, data):
        request = data.draw(st.sampled_from(sorted(self.engine.specs)))
        unfinished = not all(self.engine.specs[request].finish)
        assert self.engine.cancel(request) == unfinished
        assert all(self.engine.specs[request].finish)

    @precondition(lambda self: self.engine.specs)
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


TestSchedules = Schedules.TestCase
TestSchedules.settings = settings(
    max_examples=120, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
