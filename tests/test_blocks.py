"""The block manager: a state machine over all its operations, then its rules one by one."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fake_engine import extend, state_of
from rvllm._native.block_driver import BlockDriver
from rvllm._native.blocks import BlockManager

DOCUMENTS = [list(range(100, 140)), [*range(100, 112), *range(200, 228)]]  # the second shares 12 tokens


class Blocks(RuleBasedStateMachine):
    """Sequences come, grow, fork, shrink and go, as a scheduler would have it, but in any order.

    `content` is what a cache would hold: (block, offset) -> state of the history up to the token stored there.
    """

    @initialize(
        n_blocks=st.sampled_from([4, 9, 30]),
        block_size=st.sampled_from([1, 3, 4, 16]),
        prefix_caching=st.sampled_from([True, True, True, False]),
        n_host_blocks=st.sampled_from([0, 1, 5, 40]),
        max_moves=st.sampled_from([1, 4, 60]),
    )
    def start(self, n_blocks, block_size, prefix_caching, n_host_blocks, max_moves):
        self.block_size, self.max_moves = block_size, max_moves
        blocks = BlockManager(
            n_blocks, block_size, prefix_caching=prefix_caching, n_host_blocks=n_host_blocks if prefix_caching else 0
        )
        self.driver = BlockDriver(blocks, max_moves=max_moves)
        self.places = range(n_blocks + blocks.n_host_blocks)  # blocks of both tiers
        self.content: dict[tuple[int, int], int] = {}
        self.tokens: dict[int, list[int]] = {}
        self.extras: dict[int, int] = {}

    def place(self, number, position):
        return self.driver.table(number)[position // self.block_size], position % self.block_size

    def copy(self):
        """Make the copies of what was done, in their order, as a step does before it computes."""
        moves = [0, 0]
        for source, target in self.driver.copies():
            assert source in self.places and target in self.places
            if max(source, target) >= self.driver.blocks.n_blocks:
                moves[source < target] += 1
                assert min(source, target) < self.driver.blocks.n_blocks
            for offset in range(self.block_size):
                self.content[target, offset] = self.content.get((source, offset))
        assert max(moves) <= self.max_moves

    def write(self, number, begin, end):
        """Compute positions begin to end."""
        state = state_of(self.extras[number], self.tokens[number][:begin])
        for position in range(begin, end):
            state = extend(state, self.tokens[number][position])
            assert self.driver.refs(self.place(number, position)[0]) == 1, "a shared block is written"
            assert not self.driver.is_cached(self.place(number, position)[0]), "a cached block is written"
            self.content[self.place(number, position)] = state

    def cached_prefix(self, number):
        """Leading full blocks of a sequence that the prefix cache holds in reach, found by their content."""
        bs = self.block_size
        cached = [b for b in self.places if self.driver.is_cached(b)]
        where = {self.content.get((b, bs - 1)): b for b in cached}
        assert len(where) == len(cached), "the same content is cached twice"
        found = []
        for n in range(bs, len(self.tokens[number]), bs):
            found.append(where.get(state_of(self.extras[number], self.tokens[number][:n])))
            if found[-1] is None or sum(b >= self.driver.blocks.n_blocks for b in found) > self.max_moves:
                return found[:-1]
        return found

    @rule(
        document=st.sampled_from(DOCUMENTS), length=st.integers(1, 40), extras=st.sampled_from([0, 0, 7]),
        chunk=st.integers(1, 40),
    )  # fmt: skip
    def add(self, document, length, extras, chunk):
        d = self.driver
        number = d.new(document[:length], extras)
        self.tokens[number], self.extras[number] = document[:length], extras
        found = d.lookup(number)
        assert found == self.cached_prefix(number)
        idle = {b for b in range(d.blocks.n_blocks) if d.refs(b) == 0}
        n_new = -(-length // self.block_size) - sum(b < d.blocks.n_blocks for b in found)
        assert d.can_admit(number) == (n_new <= len(idle - set(found)))
        if not d.can_admit(number):
            d.release(number)
            del self.tokens[number]
            return
        assert d.admit(number, take=False) == len(found)
        assert len(d.table(number)) == len(found) and d.n_free() == len(idle - set(found)) - n_new
        for block, f in zip(d.table(number), found, strict=True):
            assert block == f or (block in idle and f >= d.blocks.n_blocks)
        self.copy()
        while d.adopt(number):
            self.copy()
        self.copy()
        assert d.n_hashed(number) >= len(found)
        begin = d.n_hashed(number) * self.block_size
        for end in sorted({min(begin + chunk, length), length}):
            d.take(number, end)
            assert len(d.table(number)) == max(d.n_hashed(number), -(-end // self.block_size))
            self.copy()
            self.write(number, begin, end)
            begin = end
        d.commit(number, length)

    @precondition(lambda self: self.tokens)
    @rule(data=st.data(), tokens=st.lists(st.integers(0, 3), min_size=1, max_size=9), known=st.booleans())
    def grow(self, data, tokens, known):
        number = data.draw(st.sampled_from(sorted(self.tokens)))
        d = self.driver
        for token in tokens:
            position = len(self.tokens[number])
            if d.needs_block(number, position):
                if not d.n_free():
                    break
                d.extend(number, position)
                self.copy()
            d.append(number, token)
            self.tokens[number].append(token)
            self.write(number, position, position + 1)
        if known:
            d.commit(number, len(self.tokens[number]))

    @precondition(lambda self: self.tokens)
    @rule(data=st.data())
    def fork(self, data):
        number = data.draw(st.sampled_from(sorted(self.tokens)))
        child = self.driver.fork(number)
        self.tokens[child], self.extras[child] = list(self.tokens[number]), self.extras[number]

    @precondition(lambda self: self.tokens)
    @rule(data=st.data())
    def truncate(self, data):
        number = data.draw(st.sampled_from(sorted(self.tokens)))
        n = data.draw(st.integers(1, len(self.tokens[number])))
        self.driver.truncate(number, n)
        del self.tokens[number][n:]

    @precondition(lambda self: self.tokens)
    @rule(data=st.data())
    def release(self, data):
        number = data.draw(st.sampled_from(sorted(self.tokens)))
        self.driver.release(number)
        del self.tokens[number]

    @invariant()
    def sound(self):
        if not hasattr(self, "driver"):
            return
        self.driver.check()
        for number, tokens in self.tokens.items():
            assert len(self.driver.table(number)) == -(-len(tokens) // self.block_size)
            state = state_of(self.extras[number], [])
            for position, token in enumerate(tokens):
                state = extend(state, token)
                assert self.content[self.place(number, position)] == state

    def teardown(self):
        if hasattr(self, "driver"):
            for number in self.tokens:
                self.driver.release(number)
            self.driver.check()
            assert self.driver.n_free() == self.driver.blocks.n_blocks


TestBlocks = Blocks.TestCase
TestBlocks.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


def driver(n_blocks=8, block_size=4, **options):
    return BlockDriver(BlockManager(n_blocks, block_size, **options))


def compute(d, tokens, extras=0):
    """Make, admit and commit a sequence; return its number."""
    number = d.new(tokens, extras)
    d.admit(number)
    d.commit(number, len(tokens))
    return number


def test_a_prefix_is_found_in_full_blocks_but_never_the_whole_prompt():
    d = driver()
    first = compute(d, range(10))
    assert d.lookup(d.new(range(10))) == d.table(first)[:2]
    assert d.lookup(d.new(range(8))) == d.table(first)[:1]
    assert d.lookup(d.new([*range(7), 99, 8, 9])) == d.table(first)[:1]
    assert d.lookup(d.new(range(1, 10))) == []


def test_a_prefix_survives_its_sequence_and_is_shared():
    d = driver()
    first = compute(d, range(9))
    table = d.table(first)
    d.release(first)
    assert d.n_free() == 8
    second = compute(d, range(9))
    assert d.table(second)[:2] == table[:2]
    third = compute(d, range(9))
    assert d.table(third)[:2] == table[:2]
    assert [d.refs(b) for b in table[:2]] == [2, 2]
    assert d.n_free() == 8 - 4


def test_extras_separate_prefixes():
    d = driver()
    compute(d, range(9), extras=1)
    assert d.lookup(d.new(range(9), 2)) == []
    assert len(d.lookup(d.new(range(9), 1))) == 2


def test_what_is_not_committed_is_not_found():
    d = driver()
    number = d.new(range(9))
    d.admit(number)
    assert d.lookup(d.new(range(9))) == []
    d.commit(number, 7)
    assert len(d.lookup(d.new(range(9)))) == 1


def test_equal_content_is_cached_once():
    d = driver()
    first, second = d.new(range(9)), d.new(range(9))
    d.admit(first)
    d.admit(second)
    d.commit(first, 9)
    d.commit(second, 9)
    assert d.lookup(d.new(range(9))) == d.table(first)[:2]
    assert not any(d.is_cached(b) for b in d.table(second))
    d.check()


def test_a_child_of_equal_content_is_found_behind_the_first_copy():
    d = driver()
    first, second = d.new(range(9)), d.new([*range(8), 50, 51, 52, 53, 54])
    d.admit(first)
    d.admit(second)
    d.commit(first, 9)
    d.commit(second, 12)
    assert d.lookup(d.new([*range(8), 50, 51, 52, 53, 54])) == [*d.table(first)[:2], d.table(second)[2]]


def test_the_tail_of_a_prefix_is_evicted_before_its_head():
    d = driver(n_blocks=4)
    first = compute(d, range(13))
    head = d.table(first)
    d.release(first)
    other = compute(d, range(100, 107))  # two blocks: the empty one, then the last cached one
    assert d.table(other) == [head[3], head[2]]
    assert d.lookup(d.new(range(13))) == head[:2]


def test_the_least_recently_used_prefix_is_evicted_first():
    d = driver(n_blocks=4, block_size=4)
    numbers = [compute(d, [10 * k + i for i in range(5)]) for k in range(2)]
    for number in numbers:
        d.release(number)
    d.release(compute(d, range(5)))  # uses the first once more
    compute(d, range(100, 109))  # three blocks: two empty ones, then a cached one
    assert len(d.lookup(d.new(range(5)))) == 1
    assert d.lookup(d.new(range(10, 15))) == []


def test_a_fork_copies_when_it_writes_and_the_last_holder_does_not():
    d = driver()
    parent = compute(d, range(6))
    children = [d.fork(parent) for _ in range(2)]
    head, partial = d.table(parent)
    assert d.n_free() == 6 and d.refs(partial) == 3
    assert d.needs_block(parent, 6) and d.extend(parent, 6) == partial
    assert d.needs_block(children[0], 6) and d.extend(children[0], 6) == partial
    assert not d.needs_block(children[1], 6)
    assert {d.table(n)[0] for n in (parent, *children)} == {head}
    assert len({d.table(n)[1] for n in (parent, *children)}) == 3
    assert not d.needs_block(parent, 7) and d.needs_block(parent, 8)
    assert d.extend(parent, 8) == -1


def test_a_cut_sequence_does_not_write_into_the_cache():
    d = driver()
    number = compute(d, range(8))
    table = d.table(number)
    d.truncate(number, 6)
    assert d.needs_block(number, 6) and d.extend(number, 6) == table[1]
    assert d.lookup(d.new(range(9))) == table


def test_truncate_gives_back_whole_blocks_only():
    d = driver()
    number = compute(d, range(14))
    d.truncate(number, 9)
    assert len(d.table(number)) == 3 and d.n_free() == 5
    d.truncate(number, 8)
    assert len(d.table(number)) == 2 and d.n_free() == 6


def test_without_prefix_caching_nothing_is_kept():
    d = driver(prefix_caching=False)
    d.release(compute(d, range(9)))
    assert d.lookup(d.new(range(9))) == []


def test_usage_counts_what_sequences_hold():
    d = driver()
    number = compute(d, range(8))
    assert d.blocks.usage == 0.25
    d.release(number)
    assert d.blocks.usage == 0


# ---- the second tier ---------------------------------------------------------------------------------


def kept(d, *prompts):
    """Compute and release prompts, one after the other; forget the copies that this took."""
    for prompt in prompts:
        d.release(compute(d, prompt))
        d.copies()


def test_what_is_evicted_moves_to_the_second_tier_and_back():
    d = driver(n_blocks=4, n_host_blocks=8)
    kept(d, range(13))  # blocks 0, 1, 2 are cached, 3 is empty
    other = compute(d, range(100, 116))
    assert d.table(other) == [3, 2, 1, 0]
    assert d.copies() == [(2, 4), (1, 5), (0, 6)], "the tail goes first"
    again = d.new(range(13))
    assert d.lookup(again) == [6, 5, 4] and not d.can_admit(again)
    d.release(other)
    assert d.can_admit(again) and d.admit(again) == 3
    # Each comes back into a block of `other`, whose content goes where the one before came from.
    assert d.copies() == [(0, 7), (6, 0), (1, 6), (5, 1), (2, 5), (4, 2), (3, 4)]
    assert d.table(again) == [0, 1, 2, 3]
    assert d.lookup(d.new(range(100, 117))) == [4, 5, 6, 7]
    assert (d.blocks.n_swapped_out, d.blocks.n_swapped_in) == (7, 3)
    d.check()


def test_a_prefix_may_lie_in_both_tiers():
    d = driver(n_blocks=4, n_host_blocks=8)
    kept(d, range(13), range(100, 107))  # the second takes the empty block and the last one of the first
    again = d.new(range(13))
    assert d.lookup(again) == [0, 1, 4]
    assert d.admit(again) == 3 and d.table(again)[:2] == [0, 1]
    d.check()


def test_the_second_tier_drops_what_came_first():
    d = driver(n_blocks=2, n_host_blocks=2)
    kept(d, range(8), range(10, 18), range(20, 28))
    assert d.lookup(d.new(range(10, 19))) != [] and d.lookup(d.new(range(9))) == []
    d.check()


def test_what_comes_back_is_not_what_makes_room():
    d = driver(n_blocks=2, n_host_blocks=1)
    kept(d, range(5), range(10, 18))
    again = d.new(range(5))
    assert d.lookup(again) == [2] and d.admit(again) == 1
    # Block 0 has nowhere to go; block 1 goes where block 2 came from.
    assert d.copies() == [(2, 0), (1, 2)]
    assert d.lookup(d.new(range(10, 19))) == [2]
    d.check()


def test_content_that_is_computed_again_leaves_the_second_tier():
    d = driver(n_blocks=2, n_host_blocks=4)
    kept(d, range(5), range(10, 18))
    assert d.lookup(d.new(range(5))) == [2]
    late = compute(d, range(4))  # a lookup leaves its last token to be computed
    assert d.lookup(d.new(range(5))) == d.table(late)
    d.check()


def test_a_step_moves_no_more_than_it_may():
    d = BlockDriver(BlockManager(4, 4, n_host_blocks=8), max_moves=2)
    kept(d, range(13))
    other = compute(d, range(100, 116))
    assert d.copies() == [(2, 4), (1, 5)]
    assert d.lookup(d.new(range(13))) == [], "the head went last, and was lost"
    d.release(other)
    compute(d, range(200, 208))
    assert len(d.copies()) == 2
    compute(d, range(300, 308))
    assert len(d.copies()) == 2
    assert d.blocks.n_swapped_out == 6
    assert len(d.lookup(d.new(range(100, 117)))) == 2, "of four"
    d.check()


def test_what_a_step_cannot_bring_back_comes_with_the_next():
    d = BlockDriver(BlockManager(4, 4, n_host_blocks=8), max_moves=1)
    for first in (100, 200, 300):
        kept(d, range(first, first + 8), range(first + 10, first + 15))
    number = d.new(range(200, 209))
    assert d.lookup(number) == d.lookup(number)[:1] != []
    assert d.admit(number, take=False) == 1
    d.copies()
    while d.adopt(number):
        assert len(d.copies()) == 2, "one in, one out"
    assert d.n_hashed(number) == 2
    d.check()


def test_a_prompt_under_way_takes_what_others_computed():
    d = driver()
    number = d.new(range(13))
    d.admit(number, take=False)
    other = compute(d, range(9))
    assert not d.adopt(number) and d.n_hashed(number) == 2
    assert d.table(number)[:2] == d.table(other)[:2]
    d.check()


@pytest.mark.parametrize(("arguments", "name"), [((0, 16), "n_blocks"), ((4, 0), "block_size"), ((-1, 16), "n_blocks")])
def test_a_size_below_one_is_refused(arguments, name):
    with pytest.raises(ValueError, match=name):
        BlockManager(*arguments)


@pytest.mark.parametrize("options", [{"n_host_blocks": -1}, {"n_host_blocks": 1, "prefix_caching": False}])
def test_a_second_tier_without_use_is_refused(options):
    with pytest.raises(ValueError, match="n_host_blocks"):
        BlockManager(4, **options)
