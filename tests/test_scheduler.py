"""The scheduler: what a step holds, in which order requests come, and which are refused."""

from __future__ import annotations

import pytest

from fake_engine import FakeEngine, decoding


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
