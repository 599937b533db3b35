// The two solvers of transport.cpp, and what they share.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

#include "transport_levels.hpp"

namespace poolwright {

// Memory handed out from the front of one block. Without a block it only counts.
class Arena {
public:
    explicit Arena(char* block = nullptr) : block_(block) {}
    template <class T>
    T* take(int64_t count) {
        char* start = block_ == nullptr ? nullptr : block_ + used_;
        used_ += (count * static_cast<int64_t>(sizeof(T)) + kAlignment - 1) / kAlignment * kAlignment;
        return reinterpret_cast<T*>(start);
    }
    int64_t used() const { return used_; }
    static constexpr int64_t kAlignment = 64;

private:
    char* block_;
    int64_t used_ = 0;
};

// Thrown by threads that are to stop because another one failed or the caller was interrupted.
struct Stopped {};

// Asked once per path or pivot.
class Interrupt {
public:
    Interrupt(const std::function<void()>& poll, const std::atomic<bool>& stop, bool may_poll)
        : poll_(poll), stop_(stop), may_poll_(may_poll) {}
    void check() const {
        if (stop_.load(std::memory_order_relaxed)) throw Stopped{};
        if (may_poll_) poll_();
    }

private:
    const std::function<void()>& poll_;
    const std::atomic<bool>& stop_;
    bool may_poll_;
};

// Costs n x m, rows padded to ld with +inf, rounded as transport.hpp says.
struct Costs {
    const float* data;
    int64_t n;
    int64_t m;
    int64_t ld;
    const float* row(int64_t i) const { return data + i * ld; }
};

struct Flow {
    int64_t row;
    int64_t column;
    int64_t amount;
};

// What the assignment solver works on; the constructor takes it from an arena.
struct AssignmentSpace {
    AssignmentSpace(Arena& arena, int64_t n);
    double* v;          // column potentials
    double* open;       // v where a column can still be reached, -inf where it was
    double* key;        // length of the shortest path to a column
    double* length;     // of the columns reached, in the order of `reached`
    int64_t* from;      // the row a shortest path comes from
    int64_t* reached;   // columns in the order the search settled them
    int64_t* column_of;
    int64_t* row_of;
    int64_t* free_rows;
};

// An optimal assignment of an n x n matrix, in space.column_of; false where solve_transportation will be quicker.
bool solve_assignment(const Costs& costs, const TransportTable& table, const AssignmentSpace& space,
                      const Interrupt& interrupt);

struct SimplexSpace {
    SimplexSpace(Arena& arena, int64_t n, int64_t m);
    double* potential;  // rows, then columns padded
    int64_t* supply;    // rows; then columns: demand. Filled by the caller, consumed
    int64_t* flow;      // on the arc to the parent
    int64_t* parent;    // nodes: rows, then columns
    int64_t* depth;
    int64_t* child;     // first child
    int64_t* next;      // siblings
    int64_t* previous;
    double* open;
    int64_t* from;
    double* low;        // what double precision leaves of the potentials, for `refine_transportation`
    Flow* flows;        // n + m - 1: the result
};

// An optimal plan of the transportation problem, in space.flows. The sums of supply and demand are equal, and no
// proper subset of the rows supplies what a subset of the columns demands (so that no basis is degenerate and every
// pivot lowers the cost).
void solve_transportation(const Costs& costs, const TransportTable& table, const SimplexSpace& space,
                          const Interrupt& interrupt);

// Go on from the basis in space.flows with cost(i, j) in place of rounded costs, until no reduced cost is below
// -tolerance. Potentials are sums of two doubles: costs may span 2^100. O(n m) costs are computed for each few pivots.
void refine_transportation(const Costs& costs, const TransportTable& table, const SimplexSpace& space,
                           const Interrupt& interrupt, const std::function<double(int64_t, int64_t)>& cost,
                           double tolerance);

}  // namespace poolwright
