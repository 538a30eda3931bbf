// Host memory limits, from /proc/meminfo and the control groups (v1 and v2), and aligned mappings.
//
// The system promises more memory than it has and kills the process that touches it, so what may be
// used is asked for before mapping. The page cache counts as available.
#include "memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>

namespace rvllm {
namespace {

constexpr size_t kPage = size_t{64} << 10;  // a multiple of the page size of any system
constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kNoLimit = SIZE_MAX;

size_t round_up(size_t n, size_t to) {
    return (n + to - 1) / to * to;
}

// Bytes after "name" in a file of "name value [kB]" lines; kNoLimit: not there.
size_t field(const std::string& file, const std::string& name) {
    std::ifstream in(file);
    for (std::string line; std::getline(in, line);) {
        std::istringstream words(line);
        std::string key, unit;
        size_t value;
        if (words >> key >> value && key == name) return words >> unit && unit == "kB" ? value * 1024 : value;
    }
    return kNoLimit;
}

// The number a file holds; kNoLimit: no file, or the word "max".
size_t number(const std::string& file) {
    std::ifstream in(file);
    size_t value;
    return in >> value ? value : kNoLimit;
}

struct Limits {
    size_t total = kNoLimit, available = kNoLimit;
};

void apply_group(const std::string& dir, const char* limit_file, const char* usage_file,
                 const char* cache_name, Limits* limits) {
    const size_t limit = number(dir + limit_file), usage = number(dir + usage_file);
    if (limit == kNoLimit || usage == kNoLimit) return;
    const size_t cache = field(dir + "/memory.stat", cache_name);
    const size_t used = usage - std::min(usage, cache == kNoLimit ? 0 : cache);
    limits->total = std::min(limits->total, limit);
    limits->available = std::min(limits->available, limit - std::min(limit, used));
}

// A limit may sit on the group or on any ancestor; inside a container the path can be the host's.
void apply_groups(Limits* limits) {
    std::ifstream groups("/proc/self/cgroup");
    for (std::string line; std::getline(groups, line);) {
        const size_t first = line.find(':'), second = line.find(':', first + 1);
        if (second == std::string::npos) continue;
        const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
        const bool v2 = controllers == ",,";
        if (!v2 && controllers.find(",memory,") == std::string::npos) continue;
        std::string path = line.substr(second + 1);
        while (true) {
            if (v2) {
                apply_group("/sys/fs/cgroup" + path, "/memory.max", "/memory.current", "inactive_file",
                            limits);
            } else {
                apply_group("/sys/fs/cgroup/memory" + path, "/memory.limit_in_bytes",
                            "/memory.usage_in_bytes", "total_inactive_file", limits);
            }
            const size_t slash = path.rfind('/');
            if (slash == std::string::npos) break;
            path.resize(slash);
        }
    }
}

Limits limits_now() {
    Limits limits;
    limits.total = field("/proc/meminfo", "MemTotal:");
    limits.available = field("/proc/meminfo", "MemAvailable:");
    apply_groups(&limits);
    limits.available = std::min(limits.available, limits.total);
    return limits;
}

}  // namespace

size_t host_memory_total() {
    return limits_now().total;
}

size_t host_memory_available() {
    return limits_now().available;
}

void* host_alloc(size_t bytes) {
    const size_t size = round_up(std::max<size_t>(bytes, 1), kPage);
    const size_t align = size >= kHugePage ? kHugePage : kPage;
    const size_t mapped = size + align;
    if (mapped < bytes) return nullptr;
    void* p =
        mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return nullptr;
    // Cut the mapping down to the aligned part.
    const uintptr_t start = reinterpret_cast<uintptr_t>(p), aligned = round_up(start, align);
    const size_t before = aligned - start, after = mapped - before - size;
    if (before > 0) munmap(p, before);
    if (after > 0) munmap(reinterpret_cast<void*>(aligned + size), after);
    p = reinterpret_cast<void*>(aligned);
#if defined(MADV_HUGEPAGE)
    if (size >= kHugePage) madvise(p, size, MADV_HUGEPAGE);
#endif
    return p;
}

void host_free(void* p, size_t bytes) {
    if (p != nullptr) munmap(p, round_up(std::max<size_t>(bytes, 1), kPage));
}

}  // namespace rvllm
