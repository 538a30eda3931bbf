// The attention kernels of attention.h for the instruction set of the including file.
//
// Rows are taken kRows at a time: scores = q k^T in registers from the transposed tile, softmax of
// the tile, then accumulator = accumulator * alpha + p v in registers from the rows of the values.
// Every score and every output element is one chain of multiply-adds in a fixed order.
#pragma once
#include <cfloat>
#include <cmath>
#include <cstring>

#include "attention_tiles.h"

namespace rvllm {
namespace {

// A block of sums in registers: up to kRows rows, each of vectors_of(rows) vectors.
#if defined(__AVX512F__)
constexpr int kRows = 8, kManyRows = 6;  // six rows of four vectors load least; eight take a decode at once
constexpr int vectors_of(int rows) {
    return rows <= 6 ? 4 : 2;
}
#elif defined(__AVX2__)
constexpr int kRows = 6, kManyRows = 6;
constexpr int vectors_of(int) {
    return 2;
}
#else
constexpr int kRows = 4, kManyRows = 4;
constexpr int vectors_of(int) {
    return 2;
}
#endif

// Loops over registers: unrolled before the compiler decides what may live in one.
#define UNROLL _Pragma("GCC unroll 8")

// Where the values of a tile are: widened in a buffer, or rows of the cache itself.
struct ValueTile {
    const float* data;
    int64_t stride;
    V at(int key, int column) const { return load(data + key * stride + column); }
};
template <class T>
struct ValueRows {
    const T* const* rows;
    const T* const* next;  // of the tile to come
    V at(int key, int column) const {
        prefetch(next[key] + column);
        return load(rows[key] + column);
    }
};

// The keys and values of a tile, in the cache.
template <class T>
struct TileRows {
    const T* keys[kTileKeys];
    const T* values[kTileKeys];

    // n keys of the sequence from `first`. Rows behind them are `filler`: another sequence's leftovers
    // may be there.
    void find(const AttentionTask& task, const AttentionItem& item, int first, int n, const T* filler) {
        const int64_t head_dim = task.head_dim;
        const int32_t* block = item.table + first / task.block_size;
        int offset = first % task.block_size;
        for (int j = 0; j < n; ++block, offset = 0) {
            int64_t at =
                ((int64_t{*block} * task.n_kv_heads + item.kv_head) * task.block_size + offset) * head_dim;
            for (; offset < task.block_size && j < n; ++offset, ++j, at += head_dim) {
                keys[j] = static_cast<const T*>(task.k) + at;
                values[j] = static_cast<const T*>(task.v) + at;
            }
        }
        for (int j = n; j < kTileKeys; ++j) keys[j] = values[j] = filler;
    }
    // Into the cache: keys and values [begin, end).
    void fetch(int begin, int end, int head_dim) const {
        for (int j = begin; j < end; ++j) {
            for (int d = 0; d < head_dim; d += 64 / static_cast<int>(sizeof(T))) {
                prefetch(keys[j] + d);
                prefetch(values[j] + d);
            }
        }
    }
};

// s[r][j] = q[r] . k[j] for R rows and N vectors of keys
template <int R, int N>
void score_block(const float* q, int64_t head_dim, const float* keys, float* s) {
    V sum[R][N];
    UNROLL
    for (int r = 0; r < R; ++r) {
        UNROLL
        for (int c = 0; c < N; ++c) sum[r][c] = zero();
    }
    for (int64_t d = 0; d < head_dim; ++d) {
        V k[N];
        UNROLL
        for (int c = 0; c < N; ++c) k[c] = load(keys + d * kTileKeys + c * W);
        UNROLL
        for (int r = 0; r < R; ++r) {
            const V x = set1(q[r * head_dim + d]);
            UNROLL
            for (int c = 0; c < N; ++c) sum[r][c] = fma(x, k[c], sum[r][c]);
        }
    }
    UNROLL
    for (int r = 0; r < R; ++r) {
        UNROLL
        for (int c = 0; c < N; ++c) store(s + r * kTileKeys + c * W, sum[r][c]);
    }
}

// sum[r] = sum[r] * alpha[r] + p[r] . v for R rows and N vectors of columns
template <int R, int N, class Values>
void value_block(const float* p, int n_keys, const Values& values, int column, const float* alpha,
                 float* sums, int64_t stride) {
    V sum[R][N];
    UNROLL
    for (int r = 0; r < R; ++r) {
        const V a = set1(alpha[r]);
        UNROLL
        for (int c = 0; c < N; ++c) sum[r][c] = mul(load(sums + r * stride + column + c * W), a);
    }
    for (int j = 0; j < n_keys; ++j) {
        V v[N];
        UNROLL
        for (int c = 0; c < N; ++c) v[c] = values.at(j, column + c * W);
        UNROLL
        for (int r = 0; r < R; ++r) {
            const V x = set1(p[r * kTileKeys + j]);
            UNROLL
            for (int c = 0; c < N; ++c) sum[r][c] = fma(x, v[c], sum[r][c]);
        }
    }
    UNROLL
    for (int r = 0; r < R; ++r) {
        UNROLL
        for (int c = 0; c < N; ++c) store(sums + r * stride + column + c * W, sum[r][c]);
    }
}

template <int R, int N = vectors_of(R)>
void score_columns(const float* q, int64_t head_dim, const float* keys, int n_vectors, float* s) {
    for (; n_vectors >= N; n_vectors -= N, keys += N * W, s += N * W) score_block<R, N>(q, head_dim, keys, s);
    if constexpr (N > 1) {
        if (n_vectors > 0) score_columns<R, N - 1>(q, head_dim, keys, n_vectors, s);
    }
}

template <int R, int N = vectors_of(R), class Values>
void value_columns(const float* p, int n_keys, const Values& values, int column, int n_vectors,
                   const float* alpha, float* sums, int64_t stride) {
    for (; n_vectors >= N; n_vectors -= N, column += N * W) {
        value_block<R, N>(p, n_keys, values, column, alpha, sums, stride);
    }
    if constexpr (N > 1) {
        if (n_vectors > 0) value_columns<R, N - 1>(p, n_keys, values, column, n_vectors, alpha, sums, stride);
    }
}

// Calls f(Rows<n>{}) for 1 <= n <= kRows.
template <int R>
struct Rows {
    static constexpr int value = R;
};
template <class F, int R = kRows>
void with_rows(int n, const F& f, Rows<R> rows = {}) {
    if (n == R) {
        f(rows);
    } else if constexpr (R > 1) {
        with_rows(n, f, Rows<R - 1>{});
    }
}

inline float exp_of(float x) {
    float lanes[W];
    store(lanes, exp(set1(x)));
    return lanes[0];
}

// The running softmax of some rows: sum of weighted values, largest score, sum of weights.
struct State {
    float* values;  // [rows][padded]
    float* max;
    float* sum;
    State(float* memory, int64_t rows, int64_t padded)
        : values(memory), max(memory + rows * padded), sum(max + rows) {}
};

// One item: its rows, and the memory they need.
struct Item {
    const AttentionTask& task;
    const AttentionItem& item;
    int rows, head_dim, padded;

    Item(const AttentionTask& t, const AttentionItem& i)
        : task(t),
          item(i),
          rows(i.n_queries * t.group),
          head_dim(t.head_dim),
          padded((t.head_dim + 15) / 16 * 16) {}

    // Keys that a row sees.
    int n_keys(int row) const { return task.positions[item.first + row / task.group] + 1; }
    // Where a row's head starts in a row of q or y.
    int64_t at(int row, int64_t stride) const {
        const int64_t head = int64_t{item.kv_head} * task.group + row % task.group;
        return (item.first + row / task.group) * stride + head * head_dim;
    }

    void gather_queries(float* q) const {
        for (int r = 0; r < rows; ++r) {
            const float* from = task.q + at(r, task.q_stride);
            for (int d = 0; d < head_dim; d += W) {
                const int n = least(W, head_dim - d);
                store_n(q + r * head_dim + d, mul(load_n(from + d, n), set1(task.scale)), n);
            }
        }
    }

    // Adds the state of the split that starts at `first_key` to `total`.
    void merge(const State& total, const State& part, int first_key) const {
        for (int r = 0; r < rows; ++r) {
            if (n_keys(r) <= first_key) continue;
            const float top = total.max[r] > part.max[r] ? total.max[r] : part.max[r];
            const float a = exp_of(total.max[r] - top), b = exp_of(part.max[r] - top);
            total.max[r] = top;
            total.sum[r] = total.sum[r] * a + part.sum[r] * b;
            for (int d = 0; d < padded; d += W) {
                float* t = total.values + r * padded + d;
                store(t, fma(load(part.values + r * padded + d), set1(b), mul(load(t), set1(a))));
            }
        }
    }

    void write(const State& total) const {
        for (int r = 0; r < rows; ++r) {
            const V inverse = set1(1.0f / total.sum[r]);
            float* to = task.y + at(r, task.y_stride);
            for (int d = 0; d < head_dim; d += W) {
                store_n(to + d, mul(load(total.values + r * padded + d), inverse), least(W, head_dim - d));
            }
        }
    }
};

// Softmax of one row's scores of a tile, of which it sees the first n > 0; [n, n_vectors * W) become 0.
// Returns the new maximum; `sums` are the row's W partial sums of weights.
inline float softmax_row(float* s, int n, int n_vectors, float max_before) {
    V top = set1(max_before);
    for (int c = 0; c * W < n; ++c) {
        V x = load(s + c * W);
        if (n < (c + 1) * W) {
            x = keep_n(x, n - c * W, -INFINITY);
            store(s + c * W, x);
        }
        top = max(top, x);
    }
    for (int c = (n + W - 1) / W; c < n_vectors; ++c) store(s + c * W, set1(-INFINITY));
    return reduce_max(top);
}

// Rows [row, row + R) of an item on one tile of n_tile keys that starts at first_key.
template <int R, class Values>
void tile_rows(const Item& it, int row, int first_key, int n_tile, const float* q, const float* keys,
               const Values& values, const State& state, float* lane_sums) {
    alignas(64) float s[R * kTileKeys];
    float alpha[W], top[R];
    const int n_block = least(n_tile, it.n_keys(row + R - 1) - first_key);  // the last row sees most
    if (n_block <= 0) return;
    const int n_vectors = (n_block + W - 1) / W;
    score_columns<R>(q + row * it.head_dim, it.head_dim, keys, n_vectors, s);
    for (int r = 0; r < R; ++r) {
        const int n_seen = it.n_keys(row + r) - first_key;
        const int n = n_seen < 0 ? 0 : least(n_block, n_seen);
        top[r] = softmax_row(s + r * kTileKeys, n, n_vectors, state.max[row + r]);
    }
    static_assert(R <= W, "one vector holds the factors of a block");
    store(alpha, exp(sub(load_n(state.max + row, R), load_n(top, R))));
    for (int r = 0; r < R; ++r) {
        const V m = set1(top[r]);
        V sum = zero();
        for (int c = 0; c < n_vectors; ++c) {
            float* x = s + r * kTileKeys + c * W;
            const V p = exp(sub(load(x), m));
            store(x, p);
            sum = add(sum, p);
        }
        float* lanes = lane_sums + (row + r) * W;
        store(lanes, fma(load(lanes), set1(alpha[r]), sum));
        state.max[row + r] = top[r];
    }
    value_columns<R>(s, n_block, values, 0, (it.head_dim + W - 1) / W, alpha, state.values + row * it.padded,
                     it.padded);
}

template <class T>
void attend(const AttentionTask& task, const AttentionItem& item, const AttentionItem* next_item,
            float* scratch) {
    const Item it(task, item);
    float* key_tile = scratch;
    float* value_tile = key_tile + kTileKeys * it.padded;
    float* zeros = value_tile + kTileKeys * it.padded;
    float* q = zeros + it.padded;
    float* lane_sums = q + it.rows * it.head_dim;
    const int64_t state_floats = attention_state_floats(it.rows, it.head_dim);
    const State total(lane_sums + it.rows * 16, it.rows, it.padded);
    const State spare(lane_sums + it.rows * 16 + state_floats, it.rows, it.padded);
    std::memset(zeros, 0, it.padded * sizeof(float));
    it.gather_queries(q);

    const int n_blocks =
        it.rows <= kRows ? 1 : (it.rows + kManyRows - 1) / kManyRows;  // as equal as possible
    const bool in_place = n_blocks == 1 && it.head_dim % W == 0;
    const int n_all = it.n_keys(it.rows - 1);
    const int stop = least(item.split_end * int64_t{kSplitKeys}, n_all);
    TileRows<T> tiles[2];  // this tile and the next; the first of the next item after the last
    const auto find = [&](TileRows<T>& tile, int first) {
        const T* const filler = reinterpret_cast<const T*>(zeros);
        if (first < stop) {
            tile.find(task, item, first, least(kTileKeys, stop - first), filler);
        } else if (next_item) {
            const Item next(task, *next_item);
            const int begin = next_item->split_begin * kSplitKeys;
            const int n = least(kTileKeys, next.n_keys(next.rows - 1) - begin);
            tile.find(task, *next_item, begin, n, filler);
            tile.fetch(stop - (first - kTileKeys), n, task.head_dim);  // the rest comes along with this tile
        } else {
            tile.find(task, item, first, 0, filler);
        }
    };
    find(tiles[0], item.split_begin * kSplitKeys);
    int now = 0;
    for (int split = item.split_begin; split < item.split_end; ++split) {
        const State state =
            item.partial != nullptr
                ? State(item.partial + (split - item.split_begin) * state_floats, it.rows, it.padded)
            : split == 0 ? total
                         : spare;
        std::memset(state.values, 0, it.rows * it.padded * sizeof(float));
        std::memset(lane_sums, 0, it.rows * W * sizeof(float));
        for (int r = 0; r < it.rows; ++r) state.max[r] = -FLT_MAX;
        const int end = least((split + 1) * int64_t{kSplitKeys}, n_all);
        for (int first = split * kSplitKeys; first < end; first += kTileKeys) {
            const int n_tile = least(kTileKeys, end - first);
            const TileRows<T>&tile = tiles[now], &next = tiles[1 - now];
            find(tiles[1 - now], first + kTileKeys);
            transpose_keys(tile.keys, next.keys, n_tile, it.head_dim, key_tile);
            if (!in_place) widen_values(tile.values, next.values, n_tile, it.head_dim, it.padded, value_tile);
            for (int b = 0, row = 0; b < n_blocks; ++b) {
                const int n = (it.rows - row) / (n_blocks - b);
                with_rows(n, [&](auto r) {
                    constexpr int R = decltype(r)::value;
                    if (in_place) {
                        tile_rows<R>(it, row, first, n_tile, q, key_tile,
                                     ValueRows<T>{tile.values, next.values}, state, lane_sums);
                    } else {
                        tile_rows<R>(it, row, first, n_tile, q, key_tile, ValueTile{value_tile, it.padded},
                                     state, lane_sums);
                    }
                });
                row += n;
            }
            now = 1 - now;
        }
        for (int r = 0; r < it.rows; ++r) state.sum[r] = reduce_add(load(lane_sums + r * W));
        if (item.partial == nullptr && split > 0) it.merge(total, spare, split * kSplitKeys);
    }
    if (item.partial == nullptr) it.write(total);
}

void merge(const AttentionTask& task, const AttentionItem& item, float* partial, int n_splits) {
    const Item it(task, item);
    const int64_t state_floats = attention_state_floats(it.rows, it.head_dim);
    const State total(partial, it.rows, it.padded);
    for (int split = 1; split < n_splits; ++split) {
        it.merge(total, State(partial + split * state_floats, it.rows, it.padded), split * kSplitKeys);
    }
    it.write(total);
}

constexpr AttentionKernels kAttention = {{attend<float>, attend<F16>, attend<Bf16>}, merge};

}  // namespace
}  // namespace rvllm
