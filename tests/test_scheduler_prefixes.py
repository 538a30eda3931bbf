"""The scheduler and the prefix cache: what is found again, and what never is."""

from __future__ import annotations

from fake_engine import FakeEngine


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
