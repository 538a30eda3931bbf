// LinearTable: strict parsing, lookup by binary search; the list of ways that are worth measuring.
#include "gemm/table.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <tuple>

#include "gemm/layout.h"

namespace rvllm::cuda {
namespace {

auto place(const LinearEntry& e) {
    return std::make_tuple(e.dtype, e.n, e.k, e.rows.first);
}

bool is_range(RowRange rows) {
    return std::any_of(std::begin(kRowRanges), std::end(kRowRanges),
                       [&](const RowRange& r) { return r.first == rows.first && r.last == rows.last; });
}

LinearShape shape_of(const LinearEntry& e, int32_t m, GemmStrategy strategy) {
    return {m, e.n, e.k, e.dtype, false, strategy};
}

// What is wrong with a line; nullptr: nothing.
const char* read_entry(const char* line, const Device& device, GemmStrategy strategy, LinearEntry* e) {
    char dtype[8], kernel[16];
    int tokens, split, n_stages, used = 0;
    const int n =
        std::sscanf(line, "%7s %d %d %d %d %15s %d %d %d %lf %lf %n", dtype, &e->n, &e->k, &e->rows.first,
                    &e->rows.last, kernel, &tokens, &split, &n_stages, &e->us, &e->built_in_us, &used);
    if (n != 11 || line[used] != 0) return "is not an entry";
    if (std::strcmp(dtype, "bf16") != 0 && std::strcmp(dtype, "f16") != 0) return "has an unknown type";
    e->dtype = dtype[0] == 'b' ? DType::bf16 : DType::f16;
    if (!is_range(e->rows)) return "has rows that are no range of this version";
    for (LinearKernel k : kLinearKernels)
        if (std::strcmp(kernel, kernel_name(k)) == 0) e->way.kernel = k;
    if (e->way.kernel == LinearKernel::none) return "has an unknown kernel";
    const auto small = [](int v) { return v >= 0 && v <= 1024; };
    if (!small(tokens) || !small(split) || !small(n_stages)) return "has a number out of range";
    e->way.tokens = static_cast<int16_t>(tokens);
    e->way.split = static_cast<int16_t>(split);
    e->way.n_stages = static_cast<int16_t>(n_stages);
    for (int32_t m : {e->rows.first, e->rows.last})
        if (linear_in_way(device, shape_of(*e, m, strategy), e->way).kernel == LinearKernel::none)
            return "is not possible on this device";
    return nullptr;
}

}  // namespace

const LinearWay* LinearTable::find(const LinearShape& s) const {
    LinearEntry key{s.dtype, s.n, s.k, {s.m, s.m}, {}};
    const auto after = std::upper_bound(entries_.begin(), entries_.end(), key,
                                        [](const auto& a, const auto& b) { return place(a) < place(b); });
    if (after == entries_.begin()) return nullptr;
    const LinearEntry& e = *(after - 1);
    const bool same = e.dtype == s.dtype && e.n == s.n && e.k == s.k && s.m <= e.rows.last;
    return same ? &e.way : nullptr;
}

bool LinearTable::parse(const char* text, const Device& device, GemmStrategy strategy, std::string* error) {
    std::vector<LinearEntry> entries;
    int number = 0, n_expected = -1;
    for (const char* at = text; *at; ++number) {
        const char* end = std::strchr(at, '\n');
        const std::string line(at, end ? end : at + std::strlen(at));
        at += line.size() + (end != nullptr);
        const std::string where = "line " + std::to_string(number + 1) + " (" + line.substr(0, 60) + ") ";
        int used = 0;
        if (n_expected >= 0) return *error = where + "comes after the end", false;
        if (line.empty() || line[0] == '#') continue;
        if (std::sscanf(line.c_str(), "end %d%n", &n_expected, &used) == 1 && line[used] == 0) continue;
        LinearEntry e{};
        if (const char* wrong = read_entry(line.c_str(), device, strategy, &e))
            return *error = where + wrong, false;
        entries.push_back(e);
    }
    if (n_expected != static_cast<int>(entries.size()))
        return *error = n_expected < 0 ? "its end is missing" : "entries are missing", false;
    std::sort(entries.begin(), entries.end(),
              [](const auto& a, const auto& b) { return place(a) < place(b); });
    for (size_t i = 1; i < entries.size(); ++i)
        if (place(entries[i - 1]) == place(entries[i])) return *error = "an entry is there twice", false;
    entries_ = std::move(entries);
    return true;
}

std::string entry_line(const LinearEntry& e) {
    char line[160];
    std::snprintf(line, sizeof line, "%s %d %d %d %d %s %d %d %d %.2f %.2f\n",
                  e.dtype == DType::bf16 ? "bf16" : "f16", e.n, e.k, e.rows.first, e.rows.last,
                  kernel_name(e.way.kernel), e.way.tokens, e.way.split, e.way.n_stages, e.us, e.built_in_us);
    return line;
}

std::vector<LinearWay> linear_ways(const Device& device, const LinearShape& shape, RowRange rows) {
    std::vector<LinearWay> all;
    for (LinearKernel kernel : kLinearKernels) {
        if (rows.first > kDecodeTokens) {
            all.push_back({kernel, 0, 1, 0});
            for (int16_t tokens = 64; tokens <= 256; tokens += 64)
                for (int16_t split : {1, 2}) all.push_back({kernel, tokens, split, 0});
        }
        // Few tokens; up to two CTAs per multiprocessor.
        for (int16_t n_stages : {12, 6, 0}) {
            all.push_back({kernel, 0, 1, n_stages});
            for (int16_t split = 2; split <= 8 && row_blocks(shape.n) * split <= 2 * device.n_sms; ++split)
                all.push_back({kernel, 0, split, n_stages});
        }
    }

    LinearShape first = shape, last = shape;
    first.m = rows.first;
    last.m = rows.last;
    const auto same = [](const LinearDesc& a, const LinearDesc& b) {
        return a.kernel == b.kernel && a.tokens == b.tokens && a.split == b.split && a.n_ctas == b.n_ctas &&
               a.n_stages == b.n_stages;
    };
    std::vector<LinearWay> ways;
    std::vector<std::pair<LinearDesc, LinearDesc>> known = {
        {choose_linear(device, first), choose_linear(device, last)}};
    for (const LinearWay& way : all) {
        const LinearDesc a = linear_in_way(device, first, way), b = linear_in_way(device, last, way);
        if (a.kernel == LinearKernel::none || b.kernel == LinearKernel::none) continue;
        if (std::any_of(known.begin(), known.end(),
                        [&](const auto& k) { return same(a, k.first) && same(b, k.second); }))
            continue;
        known.push_back({a, b});
        ways.push_back(way);
    }
    return ways;
}

}  // namespace rvllm::cuda
