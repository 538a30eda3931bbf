"""The scheduler when blocks run out: who is preempted, and whom a newcomer leaves alone."""

from __future__ import annotations

import pytest

from fake_engine import FakeEngine, decoding


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
