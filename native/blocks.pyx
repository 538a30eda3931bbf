# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""KV blocks: which are free, which are shared, and which hold a prefix worth keeping.

A block is *referenced* (in `n_refs` tables), *cached* (unreferenced, but its content may be asked for again) or
*empty*. Empty blocks are handed out first, then cached ones, least recently used first. A sequence gives its blocks
back last one first, so that the tail of a prefix goes before its head: a prefix without its head cannot be found.

Nothing here allocates after construction, except that a table grows when a sequence reserved too little. Who may write
into a block: its only holder, while the block is not in the prefix cache; everyone else copies first (extend()).

A second tier (blocks in host memory) attaches at two places: allocate(), where content is dropped, and lookup(), which
would bring it back.
"""
cimport cython
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport calloc, free, malloc

from rvllm._native.core cimport Sequence


@cython.final
cdef class BlockManager:
    """The blocks of one cache group: `n_blocks` of `block_size` tokens each.

    With `prefix_caching`, full blocks are found again by content. Raises ValueError for a size below 1.
    """

    def __cinit__(self, int32_t n_blocks, int32_t block_size=16, *, bint prefix_caching=True):
        cdef int32_t i
        if n_blocks < 1:
            raise ValueError(f"n_blocks is {n_blocks}: at least 1")
        if block_size < 1:
            raise ValueError(f"block_size is {block_size}: at least 1")
        self.n_blocks, self.block_size, self.prefix_caching = n_blocks, block_size, prefix_caching
        self.blocks = <Block*> calloc(<size_t> n_blocks + 1, sizeof(Block))
        self.stack = <int32_t*> malloc(n_blocks * sizeof(int32_t))
        if self.blocks is NULL or self.stack is NULL:
            raise MemoryError("no memory for the block tables")
        if prefix_caching:
            self.cache = new PrefixCache(n_blocks, block_size)
        self.n_stack = n_blocks
        for i in range(n_blocks):
            self.stack[i] = n_blocks - 1 - i
        self.blocks[n_blocks].prev = self.blocks[n_blocks].next = n_blocks

    def __dealloc__(self):
        free(self.blocks)
        free(self.stack)
        del self.cache

    @property
    def usage(self) -> float:
        """Return the share of blocks that sequences hold, 0 to 1."""
        return 1 - self.n_free() / <double> self.n_blocks

    # ---- counting ----------------------------------------------------------------------------------

    cdef int32_t n_free(self) noexcept nogil:
        """Blocks that allocate() can hand out: empty and cached ones."""
        return self.n_stack + self.n_lru

    cdef int32_t n_for(self, int64_t n_tokens) noexcept nogil:
        """Blocks that n_tokens tokens need."""
        return <int32_t> ((n_tokens + self.block_size - 1) / self.block_size)

    # ---- sequences ---------------------------------------------------------------------------------

    cdef int32_t lookup(self, const Sequence* s, int32_t max_tokens, int32_t* found) noexcept nogil:
        """Find the longest cached prefix of at most max_tokens tokens, in full blocks. Returns their number."""
        if self.cache is NULL or max_tokens < self.block_size:
            return 0
        return self.cache.lookup(s.request.extras_hash, s.tokens.data(), max_tokens / self.block_size, found)

    cdef int32_t n_needed(self, const int32_t* found, int32_t n_found, int32_t n_total) noexcept nogil:
        """Free blocks that a table of n_total takes, which begins with the found ones."""
        cdef int32_t i
        cdef int32_t n = n_total - n_found
        for i in range(n_found):
            n += self.blocks[found[i]].n_refs == 0
        return n

    cdef void admit(self, Sequence* s, const int32_t* found, int32_t n_found, int32_t n_total) noexcept nogil:
        """Give a sequence without blocks a table of n_total that begins with the found ones; n_needed() are free."""
        cdef int32_t i, _i
        for i in range(n_found):
            self.share(found[i])
            s.blocks.push_back(found[i])
        for _i in range(n_found, n_total):
            s.blocks.push_back(self.allocate())
        s.n_hashed = n_found
        s.n_writable = n_total * self.block_size

    cdef bint needs_block(self, const Sequence* s, int32_t position) noexcept nogil:
        """Whether writing at `position` (at most one block past the table) takes a new block: one more, or a copy."""
        cdef size_t i
        if position < s.n_writable:
            return False
        i = position / self.block_size
        if i == s.blocks.size():
            return True
        return self.blocks[s.blocks[i]].n_refs > 1 or self.blocks[s.blocks[i]].cached

    cdef int32_t extend(self, Sequence* s, int32_t position) noexcept nogil:
        """Take the block that needs_block() asked for. Returns the block to copy into it first, -1 for none.

        That one keeps its content at least until the next allocate().
        """
        cdef size_t i = position / self.block_size
        cdef int32_t old
        s.n_writable = (<int32_t> i + 1) * self.block_size
        if i == s.blocks.size():
            s.blocks.push_back(self.allocate())
            return -1
        old = s.blocks[i]
        s.blocks[i] = self.allocate()
        self.drop(old)
        return old

    cdef void commit(self, Sequence* s, int32_t n_tokens) noexcept nogil:
        """Enter the full blocks among the first n_tokens tokens, which are known and computed, in the prefix cache.

        Content that another block already holds is not entered a second time.
        """
        cdef int32_t i
        cdef Block* block
        if self.cache is NULL:
            return
        for i in range(s.n_hashed, n_tokens / self.block_size):
            block = &self.blocks[s.blocks[i]]
            if not block.cached:
                block.cached = self.cache.enter(s.blocks[i], s.blocks[i - 1] if i else -1, s.request.extras_hash,
                                                s.tokens.data() + i * self.block_size)
            s.n_hashed = i + 1

    cdef void fork(self, Sequence* parent, Sequence* child) noexcept nogil:
        """Give `child`, without blocks, the same table as `parent`."""
        cdef size_t i
        for i in range(parent.blocks.size()):
            self.share(parent.blocks[i])
        child.blocks.assign(parent.blocks.begin(), parent.blocks.end())
        child.n_hashed = parent.n_hashed
        child.n_writable = parent.n_writable = 0

    cdef void truncate(self, Sequence* s, int32_t n_tokens) noexcept nogil:
        """Give back the blocks behind the first n_tokens tokens."""
        while s.blocks.size() > <size_t> self.n_for(n_tokens):
            self.drop(s.blocks.back())
            s.blocks.pop_back()
        s.n_hashed = min(s.n_hashed, n_tokens / self.block_size)
        s.n_writable = 0

    cdef void release(self, Sequence* s) noexcept nogil:
        """Give back all blocks of a sequence."""
        self.truncate(s, 0)

    # ---- blocks ------------------------------------------------------------------------------------

    cdef int32_t allocate(self) noexcept nogil:
        """Take a block; there must be a free one."""
        cdef int32_t block
        if self.n_stack:
            self.n_stack -= 1
            block = self.stack[self.n_stack]
        else:
            block = self.blocks[self.n_blocks].next
            self.unlink(block)
            self.cache.remove(block)
            self.blocks[block].cached = 0
        self.blocks[block].n_refs = 1
        return block

    cdef void share(self, int32_t block) noexcept nogil:
        """Hold a referenced or cached block once more."""
        if self.blocks[block].n_refs == 0:
            self.unlink(block)
        self.blocks[block].n_refs += 1

    cdef void drop(self, int32_t block) noexcept nogil:
        """Let go of a block: its last holder makes it cached, if its content is in the prefix cache, or empty."""
        cdef Block* b = &self.blocks[block]
        cdef Block* head = &self.blocks[self.n_blocks]
        b.n_refs -= 1
        if b.n_refs:
            return
        if b.cached:
            b.prev = head.prev
            b.next = self.n_blocks
            self.blocks[head.prev].next = block
            head.prev = block
            self.n_lru += 1
        else:
            self.stack[self.n_stack] = block
            self.n_stack += 1

    cdef void unlink(self, int32_t block) noexcept nogil:
        cdef Block* b = &self.blocks[block]
        self.blocks[b.prev].next = b.next
        self.blocks[b.next].prev = b.prev
        self.n_lru -= 1

    # ---- invariants --------------------------------------------------------------------------------

    cdef const char* check(self, const int32_t* n_holders) noexcept nogil:
        """Check every invariant, given how many tables hold each block. NULL, or what is wrong."""
        cdef int32_t i, _i, n_referenced = 0, n_cached = 0
        cdef int32_t block = self.blocks[self.n_blocks].next
        cdef Block* b
        for i in range(self.n_blocks):
            b = &self.blocks[i]
            if b.n_refs != n_holders[i]:
                return "the reference count of a block is not the number of tables that hold it"
            if b.cached and not self.cache.holds(i):
                return "the prefix cache does not find a block under its own content"
            n_referenced += b.n_refs > 0
            n_cached += b.cached
        if n_referenced + self.n_stack + self.n_lru != self.n_blocks:
            return "referenced, cached and empty blocks are not all blocks"
        if self.cache is not NULL and self.cache.size() != n_cached:
            return "the prefix cache holds more than the cached blocks"
        for i in range(self.n_stack):
            b = &self.blocks[self.stack[i]]
            if b.n_refs or b.cached:
                return "an empty block is referenced or cached"
        for _i in range(self.n_lru):
            b = &self.blocks[block]
            if block == self.n_blocks:
                return "the list of cached blocks is shorter than its count"
            if b.n_refs or not b.cached:
                return "a block in the list of cached blocks is referenced or empty"
            if self.blocks[b.next].prev != block:
                return "the list of cached blocks is not linked both ways"
            block = b.next
        if block != self.n_blocks:
            return "the list of cached blocks is longer than its count"
        return NULL
