// Queues of the scheduler: binary heaps whose elements know their position, so that any of them can
// be removed in O(log n), with the keys beside the pointers: thousands of waiting elements are in no
// cache. And the map from request id to request (open addressing, no allocation
// while it stays within the reserved size).
#pragma once
#include <vector>

#include "request.h"

namespace rvllm {

// Order: first by priority (0 for all under first-come-first-served), then arrival, then choice.
struct RunKey {
    explicit RunKey(const Sequence& s) : order(s.order), priority(s.priority) {}
    bool operator<(const RunKey& o) const {
        return priority != o.priority ? priority < o.priority : order < o.order;
    }
    uint64_t order;
    int32_t priority;
};
struct RunsBefore {
    bool operator()(const Sequence* a, const Sequence* b) const { return RunKey(*a) < RunKey(*b); }
};
struct DeadlineKey {
    explicit DeadlineKey(const Request& r) : us(r.deadline_us) {}
    bool operator<(const DeadlineKey& o) const { return us < o.us; }
    int64_t us;
};

template <class T, int32_t T::* Pos, class Key>
class IndexedHeap {
public:
    void reserve(size_t n) { items_.reserve(n); }
    int32_t size() const { return static_cast<int32_t>(items_.size()); }
    T* at(int32_t i) const { return items_[i].x; }
    T* top() const { return items_.front().x; }

    void push(T* x) {
        items_.push_back({Key(*x), x});
        up(size() - 1, items_.back());
    }
    void remove(T* x) {
        const int32_t i = x->*Pos;
        const Item last = items_.back();
        items_.pop_back();
        x->*Pos = -1;
        if (last.x == x) return;
        if (i > 0 && last.key < items_[(i - 1) / 2].key) {
            up(i, last);
        } else {
            down(i, last);
        }
    }
    bool sound() const {
        for (int32_t i = 0; i < size(); ++i) {
            if (items_[i].x->*Pos != i || (i > 0 && items_[i].key < items_[(i - 1) / 2].key)) return false;
        }
        return true;
    }

private:
    struct Item {
        Key key;
        T* x;
    };

    void put(int32_t i, const Item& item) {
        items_[i] = item;
        item.x->*Pos = i;
    }
    void up(int32_t i, const Item item) {
        while (i > 0 && item.key < items_[(i - 1) / 2].key) {
            put(i, items_[(i - 1) / 2]);
            i = (i - 1) / 2;
        }
        put(i, item);
    }
    void down(int32_t i, const Item item) {
        while (2 * i + 1 < size()) {
            int32_t child = 2 * i + 1;
            if (child + 1 < size() && items_[child + 1].key < items_[child].key) ++child;
            if (!(items_[child].key < item.key)) break;
            put(i, items_[child]);
            i = child;
        }
        put(i, item);
    }

    std::vector<Item> items_;
};

using WaitingQueue = IndexedHeap<Sequence, &Sequence::queue_pos, RunKey>;
using DeadlineQueue = IndexedHeap<Request, &Request::deadline_pos, DeadlineKey>;

class RequestMap {
public:
    RequestMap() { reserve(8); }

    // Room for n requests without an allocation.
    void reserve(size_t n) {
        size_t capacity = slots_.empty() ? 8 : slots_.size();
        while (capacity < 2 * n) capacity *= 2;
        if (capacity == slots_.size()) return;
        std::vector<Request*> old(capacity, nullptr);
        old.swap(slots_);
        for (Request* r : old) {
            if (r) slots_[find_slot(r->id)] = r;
        }
    }
    int32_t size() const { return size_; }
    Request* find(uint64_t id) const { return slots_[find_slot(id)]; }
    void insert(Request* r) {
        reserve(static_cast<size_t>(++size_));
        slots_[find_slot(r->id)] = r;
    }
    void erase(uint64_t id) {
        const size_t mask = slots_.size() - 1;
        size_t hole = find_slot(id);
        for (size_t i = (hole + 1) & mask; slots_[i]; i = (i + 1) & mask) {
            if (((i - home(slots_[i]->id)) & mask) >= ((i - hole) & mask)) {
                slots_[hole] = slots_[i];
                hole = i;
            }
        }
        slots_[hole] = nullptr;
        --size_;
    }

private:
    size_t home(uint64_t id) const { return (id * 0x9e3779b97f4a7c15u >> 20) & (slots_.size() - 1); }
    size_t find_slot(uint64_t id) const {
        size_t i = home(id);
        while (slots_[i] && slots_[i]->id != id) i = (i + 1) & (slots_.size() - 1);
        return i;
    }

    std::vector<Request*> slots_;
    int32_t size_ = 0;
};

}  // namespace rvllm
