// The assignment problem by shortest augmenting paths: R. Jonker and A. Volgenant, "A shortest augmenting path
// algorithm for dense and sparse linear assignment problems", Computing 38 (1987): column reduction, reduction
// transfer, augmenting row reduction, then Dijkstra from each row that is still free.
#include <algorithm>
#include <limits>

#include "transport_solvers.hpp"

namespace poolwright {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// In few dimensions nearly every path can run through nearly every row. By then the network simplex method, whose
// work grows more slowly, would have ended.
constexpr int64_t kSearchesPerRow = 20;

class Assignment {
public:
    Assignment(const Costs& costs, const TransportTable& table, const AssignmentSpace& space,
               const Interrupt& interrupt)
        : c_(costs), table_(table), s_(space), interrupt_(interrupt) {}

    bool solve() {
        reduce_columns();
        transfer_reduction();
        for (int pass = 0; pass < 2 && free_ > 0; ++pass) reduce_rows();
        std::copy(s_.v, s_.v + c_.ld, s_.open);
        for (int64_t f = 0; f < free_; ++f) {
            interrupt_.check();
            if (!augment(s_.free_rows[f])) return false;
        }
        return true;
    }

private:
    // Each column's cheapest row takes it, if that row has none yet.
    void reduce_columns() {
        std::fill(s_.v, s_.v + c_.ld, kInfinity);
        std::fill(s_.open, s_.open + c_.ld, 0.0);
        for (int64_t i = 0; i < c_.n; ++i) table_.relax(c_.row(i), s_.open, 0, s_.v, s_.from, i, c_.ld);
        std::fill(s_.v + c_.m, s_.v + c_.ld, 0.0);
        std::fill(s_.column_of, s_.column_of + c_.n, -1);
        for (int64_t j = 0; j < c_.m; ++j) {
            const int64_t i = s_.from[j];
            const bool taken = s_.column_of[i] >= 0;
            s_.row_of[j] = taken ? -1 : i;
            if (!taken) s_.column_of[i] = j;
        }
    }

    // An assigned row can let its column become cheaper until its second choice is as good.
    void transfer_reduction() {
        for (int64_t i = 0; i < c_.n; ++i) {
            const int64_t j = s_.column_of[i];
            if (j < 0) {
                s_.free_rows[free_++] = i;
                continue;
            }
            const TwoSmallest two = table_.two_smallest(c_.row(i), s_.v, c_.ld);
            const Smallest& other = two.first.at == j ? two.second : two.first;
            if (other.at >= 0) s_.v[j] -= other.value - (c_.row(i)[j] - s_.v[j]);
        }
    }

    // Every free row takes its best column, at the price that makes its second choice as good; who held it is free.
    void reduce_rows() {
        const int64_t count = free_;
        free_ = 0;
        // Prices may have to fall many times in tiny steps: past this, the searches below are quicker.
        int64_t budget = 4 * c_.n;
        for (int64_t k = 0; k < count;) {
            const int64_t i = s_.free_rows[k++];
            if (--budget < 0) {
                s_.free_rows[free_++] = i;
                continue;
            }
            const TwoSmallest two = table_.two_smallest(c_.row(i), s_.v, c_.ld);
            int64_t j = two.first.at;
            int64_t held_by = s_.row_of[j];
            const double before = s_.v[j];
            if (two.second.at >= 0) s_.v[j] -= two.second.value - two.first.value;
            const bool lower = s_.v[j] < before;
            if (!lower && held_by >= 0 && two.second.at >= 0) {
                j = two.second.at;
                held_by = s_.row_of[j];
            }
            s_.column_of[i] = j;
            s_.row_of[j] = i;
            if (held_by < 0) continue;
            s_.column_of[held_by] = -1;
            if (lower) s_.free_rows[--k] = held_by;
            else s_.free_rows[free_++] = held_by;
        }
    }

    // Dijkstra over the columns from row `source` to the nearest free one; then shift potentials and flip the path.
    // False once the searches have read too many rows.
    bool augment(int64_t source) {
        std::fill(s_.key, s_.key + c_.ld, kInfinity);
        int64_t row = source, settled = 0, end = -1;
        double shift = 0, distance = 0;
        for (;;) {
            if (--searches_ < 0) return false;
            const Smallest nearest = table_.relax(c_.row(row), s_.open, shift, s_.key, s_.from, row, c_.ld);
            distance = nearest.value;
            end = nearest.at;
            row = s_.row_of[end];
            if (row < 0) break;
            s_.reached[settled] = end;
            s_.length[settled++] = distance;
            s_.open[end] = -kInfinity;
            s_.key[end] = kInfinity;
            shift = (c_.row(row)[end] - s_.v[end]) - distance;
        }
        for (int64_t k = 0; k < settled; ++k) {
            const int64_t j = s_.reached[k];
            s_.v[j] += s_.length[k] - distance;
            s_.open[j] = s_.v[j];
        }
        for (int64_t j = end; j >= 0;) {
            const int64_t i = s_.from[j];
            s_.row_of[j] = i;
            std::swap(s_.column_of[i], j);
        }
        return true;
    }

    const Costs& c_;
    const TransportTable& table_;
    const AssignmentSpace& s_;
    const Interrupt& interrupt_;
    int64_t free_ = 0;
    int64_t searches_ = kSearchesPerRow * c_.n;
};

}  // namespace

AssignmentSpace::AssignmentSpace(Arena& arena, int64_t n) {
    const int64_t columns = padded_lanes(n);
    for (double** array : {&v, &open, &key, &length}) *array = arena.take<double>(columns);
    for (int64_t** array : {&from, &reached, &column_of, &row_of, &free_rows}) *array = arena.take<int64_t>(columns);
}

bool solve_assignment(const Costs& costs, const TransportTable& table, const AssignmentSpace& space,
                      const Interrupt& interrupt) {
    return Assignment(costs, table, space, interrupt).solve();
}

}  // namespace poolwright
