// park(): waits on a condition variable until it is notified, or for no reason at all, as those may.
//
// Not std::condition_variable::wait(): since gcc 12 that is a function of its own version of libstdc++
// (GLIBCXX_3.4.30), and a wheel that needs it cannot be installed on systems of 2022 such as RHEL 9.
#pragma once
#include <chrono>
#include <condition_variable>
#include <mutex>

namespace rvllm {

inline void park(std::condition_variable& c, std::unique_lock<std::mutex>& lock) {
    c.wait_for(lock, std::chrono::hours(24));
}

}  // namespace rvllm
