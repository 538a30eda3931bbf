"""Short prompts that come one behind the other do not make those that decode wait for a chain of long steps."""

from __future__ import annotations

import pytest

from fake_engine import FakeEngine

DECODE_US, PROMPT_US = 8000, 200  # of a step of decodes alone; of each prompt token more


def timed_step(e: FakeEngine) -> tuple[int, int]:
    """Schedule a step, and deliver the oldest where that makes depth, which took as long as its tokens say.

    Return how many sequences decode in the new step, and how many prompts start.
    """
    lengths = lengths_of(e.schedule())
    if len(e.in_flight) == e.depth:
        oldest = lengths_of(e.in_flight[0][0])
        e.now_us += DECODE_US * (1 in oldest) + PROMPT_US * sum(n for n in oldest if n > 1)
        e.deliver()
    return lengths.count(1), sum(n > 1 for n in lengths)


def lengths_of(step: dict) -> list[int]:
    return [b - a for a, b in zip(step["query_start"], step["query_start"][1:], strict=False)]


def decoding(n: int, depth: int = 1) -> FakeEngine:
    """Return an engine in which n sequences decode, whose pace is known."""
    e = FakeEngine(
        depth=depth, n_blocks=512, max_num_seqs=60, max_num_batched_tokens=256, max_mixed_tokens=128, max_model_len=200
    )
    add(e, n)
    for _ in range(4):
        timed_step(e)
    assert timed_step(e) == (n, 0)
    return e


def add(e: FakeEngine, n: int, length: int = 5) -> None:
    for _ in range(n):
        e.add([len(e.specs) % 90 + 1] * length, max_tokens=60, ignore_eos=True)


def test_decodes_run_for_as_long_as_prompts_made_them_wait():
    e = decoding(20)
    add(e, 20)  # 20,000 us that the others wait: a quarter of a step of theirs has room for two prompts
    assert timed_step(e) == (20, 20)
    add(e, 9)
    assert [timed_step(e) for _ in range(4)] == [(40, 2), (42, 2), (44, 5), (49, 0)]
    e.run()


def test_with_two_steps_in_flight_the_long_one_counts_before_it_is_done():
    e = decoding(20, depth=2)
    add(e, 20)
    assert timed_step(e) == (20, 20)  # how long a prompt token takes is known from the first steps
    add(e, 12)
    assert [timed_step(e) for _ in range(5)] == [(40, 2), (42, 2), (44, 2), (46, 6), (52, 0)]
    e.run()


def test_what_is_soon_over_makes_nobody_wait():
    e = decoding(20)
    for k in range(10):
        add(e, 1)  # 1,000 us each
        assert timed_step(e) == (20 + k, 1)
    e.run()


def test_more_that_wait_than_decode_start_at_once():
    e = decoding(4)
    add(e, 10)
    assert timed_step(e) == (4, 10)
    add(e, 13)
    assert timed_step(e) == (14, 2)
    add(e, 5)
    assert timed_step(e) == (16, 16)
    e.run()


@pytest.mark.parametrize("length", [9, 100])
def test_prompts_that_are_not_short_start_at_once(length):
    e = decoding(20)
    add(e, 10)
    assert timed_step(e) == (20, 10)
    add(e, 1, length)
    assert timed_step(e) == (30, 1)
    e.run()


def test_short_prompts_start_beside_a_long_one_under_way():
    e = decoding(20)
    e.add(list(range(90)) + list(range(90)), max_tokens=4, ignore_eos=True)
    assert timed_step(e) == (20, 1)  # 108 of its 180 tokens: decodes wait for them
    add(e, 3)
    assert timed_step(e) == (20, 4)
    e.run()
