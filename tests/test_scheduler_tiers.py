"""The scheduler and the second tier of the prefix cache: blocks that move to host memory and back."""

from __future__ import annotations

import pytest

from fake_engine import FakeEngine, decoding


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
