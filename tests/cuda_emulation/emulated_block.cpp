#include "emulated_block.hpp"

#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <thread>

thread_local cuda_emulation::Index3 threadIdx, blockIdx, blockDim, gridDim;

namespace cuda_emulation {

namespace {

constexpr size_t kStack = 128 << 10;
constexpr size_t kCanary = 64;
constexpr unsigned char kPoison = 0xff;  // floats and halves of these bytes are NaN

std::string place(const char* file, int line) {
    const char* slash = std::strrchr(file, '/');
    return std::string(slash ? slash + 1 : file) + ":" + std::to_string(line);
}

std::vector<int> order_of(int count, int round) {
    std::vector<int> order(count);
    std::iota(order.begin(), order.end(), 0);
    if (options().order == 1) std::reverse(order.begin(), order.end());
    if (options().order > 1) std::shuffle(order.begin(), order.end(), std::mt19937(options().order + 7919 * round));
    return order;
}

// Stacks are used again: making one costs more than most kernels' threads do on it.
class Stacks {
public:
    void* take() {
        {
            const std::lock_guard lock(mutex_);
            if (!free_.empty()) {
                void* stack = free_.back();
                free_.pop_back();
                return stack;
            }
        }
        void* stack = mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (stack == MAP_FAILED) return nullptr;
        mprotect(stack, sysconf(_SC_PAGESIZE), PROT_NONE);  // an overflow is a fault, not another thread's stack
        return stack;
    }
    void give_back(void* stack) {
        const std::lock_guard lock(mutex_);
        free_.push_back(stack);
    }

private:
    std::mutex mutex_;
    std::vector<void*> free_;
};
Stacks stacks;

enum class State { ready, at_barrier, at_grid_barrier, at_warp, done };

struct Copy {
    void* to;
    const void* from;
    int bytes, zeros;
};

struct Fiber {
    State state = State::ready;
    Index3 thread;
    int number = 0;
    const char* file = "";
    int line = 0;
    unsigned mask = 0;
    void* payload = nullptr;
    Finish finish = nullptr;
    std::vector<Copy> copies;
    std::deque<std::vector<Copy>> groups;
    void* stack = nullptr;
    jmp_buf at;
};

// The blocks of a cooperative grid take turns: the one with the baton runs until it waits for the others.
struct Turns {
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<int> order;
    std::vector<bool> waits, ended;
    size_t running = 0;  // a position in `order`
    std::string error;

    bool mine(int block) { return order[running] == block || !error.empty(); }
    // With the mutex held: hand the baton to the next block that can run.
    void pass_on() {
        const size_t count = order.size();
        for (size_t step = 1; step <= count; ++step) {
            const size_t next = (running + step) % count;
            if (!waits[order[next]] && !ended[order[next]]) {
                running = next;
                changed.notify_all();
                return;
            }
        }
        // All wait or have ended.
        if (std::none_of(ended.begin(), ended.end(), [](bool b) { return b; })) {
            waits.assign(count, false);
            running = 0;
        } else if (std::any_of(waits.begin(), waits.end(), [](bool b) { return b; })) {
            error = "blocks wait at a grid barrier that other blocks left out";
        }
        changed.notify_all();
    }
};

class Block {
public:
    Block(Index3 grid, Index3 block, Index3 index, size_t shared_bytes, Turns* turns, int number,
          const std::function<void()>& kernel)
        : grid_(grid), block_(block), index_(index), turns_(turns), number_(number), kernel_(kernel) {
        fibers_.resize(block.x * block.y * block.z);
        shared_.assign(shared_bytes + kCanary + 128, kPoison);
        auto address = reinterpret_cast<uintptr_t>(shared_.data());
        dynamic_ = shared_.data() + (128 - address % 128) % 128;
        canary_ = dynamic_ + shared_bytes;
    }
    ~Block() {
        for (Fiber& fiber : fibers_)
            if (fiber.stack != nullptr) stacks.give_back(fiber.stack);
    }

    std::string run();
    void leave(State state, const char* file, int line) {
        Fiber& self = *running_;
        self.state = state, self.file = file, self.line = line;
        // Back to the scheduler; it returns here once the fiber may go on.
        if (_setjmp(self.at) == 0) _longjmp(scheduler_, 1);
    }
    [[noreturn]] void stop(const std::string& what) {
        if (error_.empty())
            error_ = what + " (block " + std::to_string(number_) + ", thread " + std::to_string(running_->number) + ")";
        _longjmp(scheduler_, 1);
    }

    Fiber& running() { return *running_; }
    void* dynamic() { return dynamic_; }
    void arrive_at_warp(unsigned mask, void* payload, Finish finish, const char* file, int line);
    static thread_local Block* current;

private:
    static void entry() {
        Block& block = *current;
        block.kernel_();
        Fiber& self = *block.running_;
        if (!self.copies.empty() || !self.groups.empty()) block.stop("a thread ended before its asynchronous copies");
        self.state = State::done;
        _longjmp(block.scheduler_, 1);
    }
    void start_or_resume(Fiber& fiber);
    void release_barrier();

    Index3 grid_, block_, index_;
    Turns* turns_;
    int number_;
    const std::function<void()>& kernel_;
    std::vector<Fiber> fibers_;
    std::vector<unsigned char> shared_;
    unsigned char *dynamic_, *canary_;
    Fiber* running_ = nullptr;
    jmp_buf scheduler_;
    ucontext_t context_;
    std::string error_;
};

thread_local Block* Block::current = nullptr;

// Not inlined: nothing of the caller lives in registers across the jumps.
__attribute__((noinline)) void Block::start_or_resume(Fiber& fiber) {
    running_ = &fiber;
    threadIdx = fiber.thread;
    if (_setjmp(scheduler_) != 0) return;
    if (fiber.stack != nullptr) _longjmp(fiber.at, 1);
    fiber.stack = stacks.take();
    if (fiber.stack == nullptr) stop("no memory for the stacks of the threads");
    getcontext(&context_);
    context_.uc_stack.ss_sp = fiber.stack;
    context_.uc_stack.ss_size = kStack;
    context_.uc_link = nullptr;
    makecontext(&context_, &Block::entry, 0);
    setcontext(&context_);
}

void Block::arrive_at_warp(unsigned mask, void* payload, Finish finish, const char* file, int line) {
    Fiber& self = *running_;
    const int first = self.number / 32 * 32, own = self.number % 32;
    if ((mask >> own & 1) == 0) stop("a lane outside the mask of a warp operation at " + place(file, line));
    self.mask = mask, self.payload = payload, self.finish = finish;
    self.state = State::at_warp, self.file = file, self.line = line;
    void* payloads[32] = {};
    for (int lane = 0; lane < 32; ++lane) {
        if ((mask >> lane & 1) == 0) continue;
        if (first + lane >= static_cast<int>(fibers_.size()))
            stop("the mask of a warp operation names a lane that the block does not have, at " + place(file, line));
        const Fiber& other = fibers_[first + lane];
        if (other.state == State::done)
            stop("a warp operation waits for a thread that has ended, at " + place(file, line));
        // A lane in an operation of others, whose mask leaves this one out, will come later.
        if (other.state != State::at_warp || (other.mask >> own & 1) == 0) {
            leave(State::at_warp, file, line);
            return;
        }
        if (other.mask != mask || other.finish != finish || other.line != line)
            stop("divergent warp operations at " + place(file, line) + " and " + place(other.file, other.line));
        payloads[lane] = other.payload;
    }
    finish(payloads, mask);
    for (int lane = 0; lane < 32; ++lane)
        if (mask >> lane & 1) fibers_[first + lane].state = State::ready;
}

// Called when no fiber can run.
void Block::release_barrier() {
    const Fiber* first = &fibers_[0];
    const auto name = [](const Fiber& fiber) {
        const std::string at = place(fiber.file, fiber.line);
        switch (fiber.state) {
            case State::at_barrier: return "at the block barrier " + at;
            case State::at_grid_barrier: return "at the grid barrier " + at;
            case State::at_warp: return "in the warp operation " + at;
            default: return std::string("ended");
        }
    };
    for (const Fiber& fiber : fibers_) {
        const bool same = fiber.state == first->state && fiber.line == first->line && fiber.file == first->file;
        if (!same || fiber.state == State::at_warp) {
            error_ = "deadlock in block " + std::to_string(number_) + ": thread " + std::to_string(first->number) +
                     " is " + name(*first) + ", thread " + std::to_string(fiber.number) + " is " + name(fiber);
            return;
        }
    }
    if (first->state == State::at_grid_barrier) {
        if (turns_ == nullptr) {
            error_ = "grid barrier in a grid that was not launched as cooperative, " + name(*first);
            return;
        }
        std::unique_lock lock(turns_->mutex);
        turns_->waits[number_] = true;
        turns_->pass_on();
        turns_->changed.wait(lock, [&] {
            return !turns_->error.empty() || (turns_->mine(number_) && !turns_->waits[number_]);
        });
        error_ = turns_->error;
    }
    for (Fiber& fiber : fibers_) fiber.state = State::ready;
}

std::string Block::run() {
    current = this;
    blockIdx = index_, blockDim = block_, gridDim = grid_;
    int number = 0;
    for (unsigned z = 0; z < block_.z; ++z)
        for (unsigned y = 0; y < block_.y; ++y)
            for (unsigned x = 0; x < block_.x; ++x, ++number) {
                fibers_[number].thread = {x, y, z};
                fibers_[number].number = number;
            }
    for (int round = 0;; ++round) {
        bool ran = false, left = false;
        for (const int i : order_of(static_cast<int>(fibers_.size()), round)) {
            if (fibers_[i].state == State::ready) {
                ran = true;
                start_or_resume(fibers_[i]);
                if (!error_.empty()) return error_;
            }
            left = left || fibers_[i].state != State::done;
        }
        if (!left) break;
        if (!ran) release_barrier();
        if (!error_.empty()) return error_;
    }
    for (size_t i = 0; i < kCanary; ++i)
        if (canary_[i] != kPoison)
            return "block " + std::to_string(number_) + " wrote past its dynamic shared memory, at byte +" +
                   std::to_string(i);
    return "";
}

}  // namespace

Options& options() {
    static Options instance;
    return instance;
}

void sync_block(const char* file, int line) { Block::current->leave(State::at_barrier, file, line); }
void sync_grid(const char* file, int line) { Block::current->leave(State::at_grid_barrier, file, line); }
void sync_warp(unsigned mask, void* payload, Finish finish, const char* file, int line) {
    Block::current->arrive_at_warp(mask, payload, finish, file, line);
}
int lane() { return Block::current->running().number % 32; }
void* dynamic_shared_memory() { return Block::current->dynamic(); }
void fail(const std::string& what) { Block::current->stop(what); }

void queue_copy(void* to, const void* from, int bytes, int zeros) {
    const auto unaligned = [&](const void* at) { return reinterpret_cast<uintptr_t>(at) % (bytes + zeros) != 0; };
    if (unaligned(to) || (bytes > 0 && unaligned(from)))
        fail("an asynchronous copy of unaligned memory");
    Block::current->running().copies.push_back({to, from, bytes, zeros});
}
void commit_copies() {
    Fiber& self = Block::current->running();
    self.groups.push_back(std::move(self.copies));
    self.copies.clear();
}
void wait_copies(int groups_left) {
    Fiber& self = Block::current->running();
    while (static_cast<int>(self.groups.size()) > groups_left) {
        for (const Copy& copy : self.groups.front()) {
            if (copy.bytes) std::memcpy(copy.to, copy.from, copy.bytes);
            std::memset(static_cast<char*>(copy.to) + copy.bytes, 0, copy.zeros);
        }
        self.groups.pop_front();
    }
}

std::string run_grid(Index3 grid, Index3 block, size_t shared_bytes, bool cooperative,
                     const std::function<void()>& kernel) {
    const int count = static_cast<int>(grid.x * grid.y * grid.z);
    const auto index = [&](int i) { return Index3{i % grid.x, i / grid.x % grid.y, i / (grid.x * grid.y)}; };
    if (!cooperative) {
        for (const int i : order_of(count, 0)) {
            const auto one = std::make_unique<Block>(grid, block, index(i), shared_bytes, nullptr, i, kernel);
            std::string error = one->run();
            if (!error.empty()) return error;
        }
        return "";
    }
    Turns turns;
    turns.order = order_of(count, 0);
    turns.waits.assign(count, false);
    turns.ended.assign(count, false);
    std::vector<std::thread> threads;
    for (int i = 0; i < count; ++i)
        threads.emplace_back([&, i] {
            {
                std::unique_lock lock(turns.mutex);
                turns.changed.wait(lock, [&] { return turns.mine(i); });
                if (!turns.error.empty()) return;
            }
            const auto one = std::make_unique<Block>(grid, block, index(i), shared_bytes, &turns, i, kernel);
            const std::string error = one->run();
            const std::lock_guard lock(turns.mutex);
            if (!error.empty() && turns.error.empty()) turns.error = error;
            turns.ended[i] = true;
            turns.pass_on();
        });
    for (std::thread& thread : threads) thread.join();
    return turns.error;
}

}  // namespace cuda_emulation
