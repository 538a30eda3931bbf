"""The scheduler: requests of several choices, and prompts whose tokens are scored."""

from __future__ import annotations

import pytest

from fake_engine import FakeEngine, decoding


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


def test_scores_of_a_prompt_outlive_the_choice_that_computed_them():
    e = FakeEngine(max_num_batched_tokens=8)
    request = e.add(list(range(20)), n=2, prompt_logprobs=0, max_tokens=3, ignore_eos=True)
    e.step()
    e.step()
    e.schedule()  # the end of the prompt, where choice 1 starts
    e.cancel(request, 0)
    e.run()
    assert e.specs[request].scored == list(range(1, 20))
