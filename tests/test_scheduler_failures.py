"""The scheduler: cancelled requests, deadlines, logits that are no numbers, steps that fail."""

from __future__ import annotations

import pytest

from fake_engine import FakeEngine, decoding


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


def test_a_failed_draw_behind_the_end_of_a_choice_is_none_of_its_siblings_business():
    e = FakeEngine(depth=2)
    request = e.add([62, 44, 21, 18, 0, 56], n=2, max_tokens=20)
    while e.specs[request].finish[0] is None:
        e.step()
    assert e.in_flight[0][0]["rows"][0]["seq"] == (request, 0) and e.specs[request].finish == ["stop", None]
    e.deliver(nan_row=0)
    e.run()
    assert e.specs[request].finish[1] in ("stop", "length") and len(e.specs[request].tokens[1]) > 7
