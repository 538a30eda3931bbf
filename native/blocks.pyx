# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""KV blocks: which are free, which are shared, and which hold a prefix worth keeping.

A block is *referenced* (in `n_refs` tables), *cached* (unreferenced, but its content may be asked for again) or
*empty*. Empty blocks are handed out first, then cached ones, least recently used first. A sequence gives its blocks
back last one first, so that the tail of a prefix goes before its head: a prefix without its head cannot be found.

An admitted prompt is *promised* all its blocks, and takes them as its chunks are scheduled: what they held is kept
until then, and its moving to the second tier is spread over the steps that compute the prompt.

The second tier is blocks in host memory, numbered behind the others. Content that would be lost when its block is
handed out again moves there, and moves back when a lookup finds it: it is in one tier at a time. Each move is a copy in
the step that is being scheduled. The copies of a step run in order, before its ops and behind the steps before it; what
comes back may come later, if no sequence of the step holds it (returns_late). Moving at eviction, not when a block is
let go, costs a copy only for content that would be lost, and nothing for a cached block that is used again.

Nothing here allocates after construction, except that a table grows when a sequence reserved too little. Who may write
into a block: its only holder, while the block is not in the prefix cache; everyone else copies first (extend()).
"""
cimport cython
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport calloc, free

from rvllm._native.core cimport Sequence, StepInput


cdef extern from "step_writer.h" namespace "rvllm" nogil:
    void add_copy(StepInput* step, int32_t src, int32_t dst)


@cython.final
cdef class BlockManager:
    """The blocks of one cache group: `n_blocks` of `block_size` tokens each, and `n_host_blocks` in the second tier.

    With `prefix_caching`, full blocks are found again by content. Raises ValueError naming the argument.
    """

    def __cinit__(self, int32_t n_blocks, int32_t block_size=16, *, bint prefix_caching=True,
                  int32_t n_host_blocks=0):
        cdef int32_t n
        if n_blocks < 1:
            raise ValueError(f"n_blocks is {n_blocks}: at least 1")
        if block_size < 1:
            raise ValueError(f"block_size is {block_size}: at least 1")
        if n_host_blocks < 0:
            raise ValueError(f"n_host_blocks is {n_host_blocks}: at least 0")
        if n_host_blocks and not prefix_caching:
            raise ValueError(f"n_host_blocks is {n_host_blocks}: nothing is found there without the prefix cache")
        self.n_blocks, self.n_host_blocks, self.block_size = n_blocks, n_host_blocks, block_size
        self.prefix_caching = prefix_caching
        n = n_blocks + n_host_blocks
        self.blocks = <Block*> calloc(<size_t> n + 2, sizeof(Block))
        self.came = <uint64_t*> calloc(n_blocks, sizeof(uint64_t))
        if self.blocks is NULL or self.came is NULL:
            raise MemoryError("no memory for the block tables")
        self.device.init(self.blocks, 0, n_blocks, n)
        self.host.init(self.blocks, n_blocks, n_host_blocks, n + 1)
        if prefix_caching:
            self.cache = new PrefixCache(n, block_size)

    def __dealloc__(self):
        free(self.blocks)
        free(self.came)
        del self.cache

    @property
    def usage(self) -> float:
        """Return the share of blocks that sequences hold, 0 to 1."""
        return 1 - self.n_free() / <double> self.n_blocks

    # ---- counting ----------------------------------------------------------------------------------

    cdef int32_t n_free(self) noexcept nogil:
        """Blocks that are nobody's: empty and cached ones, without the promised."""
        return self.device.n_free() - self.n_promised

    cdef int32_t n_for(self, int64_t n_tokens) noexcept nogil:
        """Blocks that n_tokens tokens need."""
        return <int32_t> ((n_tokens + self.block_size - 1) / self.block_size)

    cdef void begin(self, StepInput* step, int32_t max_moves) noexcept nogil:
        """Write copies to `step` from now on: at most max_moves blocks move to the second tier, and as many back."""
        self.step = step
        self.max_out = self.max_in = max_moves
        self.n_out = self.n_in = 0

    # ---- sequences ---------------------------------------------------------------------------------

    cdef int32_t lookup(self, const Sequence* s, int32_t max_tokens, int32_t* found) noexcept nogil:
        """Find the longest cached prefix of at most max_tokens tokens, in full blocks. Returns their number."""
        if self.cache is NULL or max_tokens < self.block_size:
            return 0
        return self.cache.lookup(s.request.extras_hash, s.tokens.data(), max_tokens / self.block_size, found)

    cdef int32_t n_in_reach(self, const int32_t* found, int32_t n_found) noexcept nogil:
        """How many of the found blocks, from the first on, this step can use: it moves so many and no more."""
        cdef int32_t i
        cdef int32_t n_left = self.max_in - self.n_in
        for i in range(n_found):
            n_left -= found[i] >= self.n_blocks
            if n_left < 0:
                return i
        return n_found

    cdef int32_t n_needed(self, const int32_t* found, int32_t n_found, int32_t n_total) noexcept nogil:
        """Free blocks that a table of n_total takes, which begins with the found ones."""
        cdef int32_t i
        cdef int32_t n = n_total - n_found
        for i in range(n_found):
            n += self.blocks[found[i]].n_refs == 0  # never referenced in the second tier
        return n

    cdef int32_t admit(self, Sequence* s, const int32_t* found, int32_t n_found, int32_t n_total) noexcept nogil:
        """Give a sequence without blocks the found ones, and promise it n_total in all; n_needed() are free.

        Returns how many of the found ones came from the second tier.
        """
        cdef int32_t i, n_moved = 0
        for i in range(n_found):
            self.share(found[i])  # all, before allocate() looks for a block to reuse in either tier
        for i in range(n_found):
            if found[i] < self.n_blocks:
                s.blocks.push_back(found[i])
            else:
                s.blocks.push_back(self.allocate())
                self.swap_in(found[i], s.blocks.back())
                n_moved += 1
        s.n_promised = n_total - n_found
        self.n_promised += s.n_promised
        s.n_hashed = n_found
        s.n_writable = n_total * self.block_size
        return n_moved

    cdef void take(self, Sequence* s, int32_t n_tokens) noexcept nogil:
        """Give a sequence the blocks, of those it was promised, that its first n_tokens tokens need."""
        while s.n_promised and <int32_t> s.blocks.size() < self.n_for(n_tokens):
            s.blocks.push_back(self.allocate())
            self.redeem(s)

    cdef void redeem(self, Sequence* s) noexcept nogil:
        s.n_promised -= 1
        self.n_promised -= 1

    cdef bint adopt(self, Sequence* s, int32_t max_tokens) noexcept nogil:
        """Give s, which has computed no further than `n_hashed`, cached blocks that continue its tokens.

        At most max_tokens tokens, and what the step can move. True: there is more in the second tier.
        """
        cdef int32_t i, block
        if self.cache is NULL:
            return False
        for i in range(s.n_hashed, max_tokens / self.block_size):
            block = self.cache.follow(s.blocks[i - 1] if i else -1, s.request.extras_hash,
                                      s.tokens.data() + i * self.block_size)
            if block < 0:
                return False
            if block >= self.n_blocks and self.n_in >= self.max_in:
                return True
            self.share(block)
            if block < self.n_blocks:
                s.blocks.push_back(block)
            else:
                s.blocks.push_back(self.allocate())
                self.swap_in(block, s.blocks.back())
            self.redeem(s)
            s.n_hashed = i + 1
        return False

    cdef bint needs_block(self, const Sequence* s, int32_t position) noexcept nogil:
        """Whether writing at `position` (at most one block past the table) takes a new block: one more, or a copy."""
        cdef size_t i
        if position < s.n_writable:
            return False
        i = position / self.block_size
        if i == s.blocks.size():
            return True
        return self.blocks[s.blocks[i]].n_refs > 1 or self.blocks[s.blocks[i]].cached

    cdef void extend(self, Sequence* s, int32_t position) noexcept nogil:
        """Take the block that needs_block() asked for; the step copies to it what was in its place."""
        cdef size_t i = position / self.block_size
        cdef int32_t old
        s.n_writable = (<int32_t> i + 1) * self.block_size
        if i == s.blocks.size():
            s.blocks.push_back(self.allocate())
            return
        old = s.blocks[i]
        s.blocks[i] = self.allocate()
        add_copy(self.step, old, s.blocks[i])
        self.drop(old)

    cdef void commit(self, Sequence* s, int32_t n_tokens) noexcept nogil:
        """Enter the full blocks among the first n_tokens tokens, which are known and computed, in the prefix cache.

        Content that another block already holds is not entered a second time; one of the second tier gives it up.
        """
        cdef int32_t i, holder
        cdef int32_t n_full = n_tokens / self.block_size
        if self.cache is NULL:
            return
        for i in range(s.n_hashed, n_full):
            if not self.blocks[s.blocks[i]].cached:
                self.cache.hash(s.blocks[i], s.blocks[i - 1] if i else -1, s.request.extras_hash,
                                s.tokens.data() + i * self.block_size)
        for i in range(s.n_hashed, n_full):
            if not self.blocks[s.blocks[i]].cached:
                holder = self.cache.enter(s.blocks[i], s.tokens.data() + i * self.block_size)
                if holder >= self.n_blocks:
                    self.host.take(holder)
                    self.cache.move(holder, s.blocks[i])
                    self.blocks[holder].cached = 0
                    self.host.put(holder)
                    holder = s.blocks[i]
                self.blocks[s.blocks[i]].cached = holder == s.blocks[i]
        s.n_hashed = max(s.n_hashed, n_full)

    cdef void fork(self, Sequence* parent, Sequence* child) noexcept nogil:
        """Give `child`, without blocks, the same table as `parent`."""
        cdef size_t i
        for i in range(parent.blocks.size()):
            self.share(parent.blocks[i])
        child.blocks.assign(parent.blocks.begin(), parent.blocks.end())
        child.n_hashed = parent.n_hashed
        child.n_writable = parent.n_writable = 0

    cdef void truncate(self, Sequence* s, int32_t n_tokens) noexcept nogil:
        """Give back the blocks behind the first n_tokens tokens, and those that were promised."""
        while s.blocks.size() > <size_t> self.n_for(n_tokens):
            self.drop(s.blocks.back())
            s.blocks.pop_back()
        self.n_promised -= s.n_promised
        s.n_promised = 0
        s.n_hashed = min(s.n_hashed, n_tokens / self.block_size)
        s.n_writable = 0

    cdef void release(self, Sequence* s) noexcept nogil:
        """Give back all blocks of a sequence."""
        self.truncate(s, 0)

    # ---- blocks ------------------------------------------------------------------------------------

    cdef int32_t allocate(self) noexcept nogil:
        """Take a block: a free one, or a promised one; there must be one."""
        cdef int32_t block
        if self.device.n_empty():
            block = self.device.take_empty()
        else:
            block = self.device.take_oldest()
            self.blocks[block].cached = 0
            if self.n_out < self.max_out and self.host.n_free():
                self.swap_out(block)
            else:
                self.cache.remove(block)
        self.blocks[block].n_refs = 1
        return block

    cdef void share(self, int32_t block) noexcept nogil:
        """Hold a referenced or cached block once more."""
        if self.blocks[block].n_refs == 0:
            if block < self.n_blocks:
                self.device.take(block)
            else:
                self.host.take(block)
        self.blocks[block].n_refs += 1

    cdef void drop(self, int32_t block) noexcept nogil:
        """Let go of a block: its last holder makes it cached, if its content is in the prefix cache, or empty."""
        cdef Block* b = &self.blocks[block]
        b.n_refs -= 1
        if b.n_refs == 0:
            self.device.put(block)

    cdef void forget(self, int32_t block) noexcept nogil:
        """Take the content of a block, of either tier, out of the prefix cache."""
        cdef BlockPool* pool = &self.device if block < self.n_blocks else &self.host
        if not self.blocks[block].cached:
            return
        self.cache.remove(block)
        if self.blocks[block].n_refs == 0:
            pool.take(block)
        self.blocks[block].cached = 0
        if self.blocks[block].n_refs == 0:
            pool.put(block)

    # ---- the second tier ---------------------------------------------------------------------------

    cdef void refresh(self, const int32_t* blocks, int32_t n) noexcept nogil:
        """Count cached blocks as used just now, the last one first."""
        cdef int32_t i
        cdef BlockPool* pool
        for i in range(n - 1, -1, -1):
            if self.blocks[blocks[i]].n_refs == 0:
                pool = &self.device if blocks[i] < self.n_blocks else &self.host
                pool.take(blocks[i])
                pool.put(blocks[i])

    cdef void swap_out(self, int32_t block) noexcept nogil:
        """Move the content of a block to the second tier, which has blocks that are not just being moved back."""
        cdef int32_t target
        if self.host.n_empty():
            target = self.host.take_empty()
        else:
            target = self.host.take_oldest()
            self.cache.remove(target)
        self.cache.move(block, target)
        self.blocks[target].cached = 1
        self.host.put(target)
        add_copy(self.step, block, target)
        self.n_out += 1
        self.n_swapped_out += 1

    cdef void swap_in(self, int32_t host_block, int32_t block) noexcept nogil:
        """Move the content of a block of the second tier, which is held, to a block that has none."""
        self.cache.move(host_block, block)
        self.blocks[block].cached = 1
        self.blocks[host_block].cached = self.blocks[host_block].n_refs = 0
        self.host.put(host_block)
        add_copy(self.step, host_block, block)
        self.came[block] = self.step.step_id
        self.n_in += 1
        self.n_swapped_in += 1

    cdef bint arrives(self, const Sequence* s) noexcept nogil:
        """Whether a block of s comes back from the second tier in the step that is being scheduled."""
        cdef size_t i
        if not self.n_in:
            return False
        for i in range(s.blocks.size()):
            if self.came[s.blocks[i]] == self.step.step_id:
                return True
        return False

    # ---- invariants --------------------------------------------------------------------------------

    cdef const char* check(self, const int32_t* n_holders) noexcept nogil:
        """Check every invariant, given how many tables hold each block. NULL, or what is wrong.

        The prefix cache finds one block for one content: no content is cached twice if it finds every cached block.
        """
        cdef int32_t i, n_referenced = 0, n_cached = 0
        cdef const char* wrong
        cdef Block* b
        for i in range(self.n_blocks + self.n_host_blocks):
            b = &self.blocks[i]
            if b.n_refs != (n_holders[i] if i < self.n_blocks else 0):
                return "the reference count of a block is not the number of tables that hold it"
            if b.cached and not self.cache.holds(i):
                return "the prefix cache does not find a block under its own content"
            n_referenced += b.n_refs > 0
            n_cached += b.cached
        if not 0 <= self.n_promised <= self.device.n_free():
            return "more blocks are promised than free"
        if n_referenced + self.device.n_free() != self.n_blocks:
            return "referenced, cached and empty blocks are not all blocks"
        if self.host.n_free() != self.n_host_blocks:
            return "cached and empty blocks of the second tier are not all of them"
        if self.cache is not NULL and self.cache.size() != n_cached:
            return "the prefix cache holds more than the cached blocks"
        wrong = self.device.check()
        return wrong if wrong is not NULL else self.host.check()
