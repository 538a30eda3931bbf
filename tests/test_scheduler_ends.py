"""The scheduler: how a sequence ends, and what becomes of what was computed behind its end."""

from __future__ import annotations

import pytest

from fake_engine import EOS, N_VOCAB, FakeEngine, Spec, alone, draw, state_of
from rvllm._native.block_driver import BlockDriver


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
