// usable_cpus(): the affinity mask of the process, cut down to the CPU quota of its control group.
//
// A quota may sit on the group itself or on any ancestor. Inside a container the path in
// /proc/self/cgroup can be the host's and the container's own group is the mount itself, so every
// ancestor is read, down to the mount.
#include <sched.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>

#include "pool.h"

namespace rvllm {

namespace {

const std::string kMount = "/sys/fs/cgroup";

int affinity_cpus() {
#if defined(__linux__)
    for (int n_bits = 1024; n_bits <= 1 << 20; n_bits *= 2) {
        cpu_set_t* set = CPU_ALLOC(n_bits);
        const size_t bytes = CPU_ALLOC_SIZE(n_bits);
        const bool ok = sched_getaffinity(0, bytes, set) == 0;
        const int n = ok ? CPU_COUNT_S(bytes, set) : 0;
        CPU_FREE(set);
        if (n > 0) return n;
    }
#endif
    return std::max(1u, std::thread::hardware_concurrency());
}

// CPUs that one group may use, from cgroup v2's cpu.max or v1's quota and period; infinity: no limit.
double group_quota(const std::string& dir) {
    std::string quota;
    double period = 0;
    std::ifstream v2(dir + "/cpu.max");
    if (!(v2 >> quota >> period)) {
        std::ifstream(dir + "/cpu.cfs_quota_us") >> quota;
        std::ifstream(dir + "/cpu.cfs_period_us") >> period;
    }
    const double us = quota.empty() || quota == "max" ? -1 : std::atof(quota.c_str());
    return us > 0 && period > 0 ? us / period : INFINITY;
}

double cgroup_quota() {
    double quota = INFINITY;
    std::ifstream groups("/proc/self/cgroup");
    for (std::string line; std::getline(groups, line);) {
        // "0::/path" is version 2; "4:cpu,cpuacct:/path" is version 1.
        std::istringstream fields(line);
        std::string id, controllers, path;
        std::getline(fields, id, ':');
        std::getline(fields, controllers, ':');
        std::getline(fields, path);
        if (!controllers.empty() && ("," + controllers + ",").find(",cpu,") == std::string::npos) continue;
        const std::string root = controllers.empty() ? kMount : kMount + "/" + controllers;
        while (true) {
            quota = std::min(quota, group_quota(root + path));
            const size_t slash = path.rfind('/');
            if (slash == std::string::npos) break;
            path.resize(slash);
        }
    }
    return quota;
}

}  // namespace

int usable_cpus() {
    const double quota = std::max(1.0, std::floor(cgroup_quota()));
    return static_cast<int>(std::min<double>(affinity_cpus(), quota));
}

}  // namespace rvllm
