// The one seam between the engine thread and Python: two vectors under a mutex, and an eventfd.
//
// Commands go in and wake the engine; outboxes go out and wake whoever polls fileno(). Both sides
// swap whole vectors, so the lock is held for a few pointer moves. Nobody waits for the GIL while
// holding it. The eventfd is written once per batch, not per event: only the push that finds the
// outgoing side empty writes it.
#pragma once
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <vector>

#include "park.h"
#include "request.h"

namespace rvllm {

struct Command {
    enum Kind : uint8_t { add, cancel, stop } kind = stop;
    Request* request = nullptr;  // add: ownership moves
    uint64_t id = 0;             // cancel
    int32_t choice = -1;         // cancel: this choice only; -1: all
};

class Mailbox {
public:
    Mailbox() : fd_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}
    ~Mailbox() {
        if (fd_ >= 0) ::close(fd_);
    }
    Mailbox(const Mailbox&) = delete;
    Mailbox& operator=(const Mailbox&) = delete;

    int fileno() const { return fd_; }

    // Any thread: hand commands to the engine, which takes them all at once; `commands` is left empty.
    void send(std::vector<Command>* commands) {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            commands_.insert(commands_.end(), commands->begin(), commands->end());
        }
        commands->clear();
        wake_.notify_one();
    }

    // Engine: take all commands. With `block`, sleeps until there is at least one.
    void receive(std::vector<Command>* into, bool block) {
        into->clear();
        std::unique_lock<std::mutex> lock(mutex_);
        while (block && commands_.empty()) park(wake_, lock);
        commands_.swap(*into);
    }

    // Engine: publish `box` and leave it empty.
    void publish(Outbox* box) {
        if (box->events.empty()) return;
        bool was_empty;
        {
            std::lock_guard<std::mutex> lock(mutex_);
            was_empty = out_.events.empty();
            if (was_empty) {
                out_.events.swap(box->events);
                out_.tops.swap(box->tops);
            } else {
                const uint32_t shift = static_cast<uint32_t>(out_.tops.size());
                for (Event& e : box->events) e.top_start += shift;
                out_.events.insert(out_.events.end(), box->events.begin(), box->events.end());
                out_.tops.insert(out_.tops.end(), box->tops.begin(), box->tops.end());
            }
        }
        box->events.clear();
        box->tops.clear();
        if (was_empty) notify();
    }

    // Reader: take everything published so far, and clear the eventfd.
    void drain(Outbox* into) {
        into->events.clear();
        into->tops.clear();
        uint64_t count;
        [[maybe_unused]] ssize_t n = ::read(fd_, &count, sizeof count);
        std::lock_guard<std::mutex> lock(mutex_);
        out_.events.swap(into->events);
        out_.tops.swap(into->tops);
    }

    // Wake the reader without an event (the engine ended).
    void notify() {
        const uint64_t one = 1;
        [[maybe_unused]] ssize_t n = ::write(fd_, &one, sizeof one);
    }

private:
    int fd_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::vector<Command> commands_;
    Outbox out_;
};

}  // namespace rvllm
