// The transportation problem by the network simplex method on a rooted spanning tree (for the method and its names:
// R. Ahuja, T. Magnanti and J. Orlin, "Network Flows", 1993, chapter 11).
//
// Whole rows are priced at once, which vector instructions make cheap beside a pivot.
#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>

#include "transport_solvers.hpp"

namespace poolwright {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int64_t kNone = -1;

// Far above what is ever seen (a few pivots per point): only a defect gets here, and it must not loop or lie.
constexpr int64_t kPivotsPerNode = 2000;

class Simplex {
public:
    Simplex(const Costs& costs, const TransportTable& table, const SimplexSpace& space, const Interrupt& interrupt)
        : c_(costs), table_(table), s_(space), interrupt_(interrupt), nodes_(costs.n + costs.m) {}

    void solve() {
        start();
        int64_t row = 0, optimal = 0;
        for (int64_t pivots = 0; optimal < c_.n;) {
            const Smallest entering = table_.smallest(c_.row(row), v(), c_.ld);
            const double reduced = entering.value - s_.potential[row];
            if (reduced < 0 && !in_tree(row, c_.n + entering.at)) {
                interrupt_.check();
                count(++pivots);
                const int64_t top = pivot(row, entering.at);
                shift(top, is_row(top) ? reduced : -reduced);
                optimal = 0;
            } else {
                ++optimal;
            }
            row = row + 1 < c_.n ? row + 1 : 0;
        }
        collect();
    }

    void refine(const std::function<double(int64_t, int64_t)>& cost, double tolerance) {
        hang_tree();
        s_.low[0] = 0;
        for (int64_t node = s_.child[0]; node != kNone; node = s_.next[node]) price(node, cost);
        int64_t row = 0, optimal = 0;
        for (int64_t pivots = 0; optimal < c_.n;) {
            interrupt_.check();
            double least = -tolerance;
            int64_t entering = kNone;
            for (int64_t j = 0; j < c_.m; ++j) {
                const int64_t column = c_.n + j;
                const Twice reduced =
                    minus(minus({cost(row, j), 0}, {s_.potential[row], s_.low[row]}),
                          {s_.potential[column], s_.low[column]});
                if (reduced.high < least && !in_tree(row, column)) {
                    least = reduced.high;
                    entering = j;
                }
            }
            if (entering != kNone) {
                count(++pivots);
                price(pivot(row, entering), cost);
                optimal = 0;
            } else {
                ++optimal;
            }
            row = row + 1 < c_.n ? row + 1 : 0;
        }
        collect();
    }

private:
    // The sum of two doubles that do not overlap (T. Dekker, "A floating-point technique for extending the available
    // precision", Numerische Mathematik 18 (1971)).
    struct Twice {
        double high;
        double low;
    };

    static Twice minus(Twice a, Twice b) {
        const double sum = a.high - b.high, part = sum - a.high;
        const double rest = (a.high - (sum - part)) - (b.high + part) + (a.low - b.low);
        const double high = sum + rest;
        return {high, rest - (high - sum)};
    }

    void count(int64_t pivots) const {
        if (pivots > kPivotsPerNode * nodes_)
            throw std::runtime_error("the network simplex method did not end after " + std::to_string(pivots) +
                                     " pivots; please report the points");
    }

    double* v() const { return s_.potential + c_.n; }
    bool is_row(int64_t node) const { return node < c_.n; }

    // Arcs of the tree have reduced cost 0; were rounding ever to say otherwise, they must not enter it again.
    bool in_tree(int64_t row, int64_t column) const {
        return s_.parent[row] == column || s_.parent[column] == row;
    }

    // A feasible tree: each row ships to its best columns that still demand something, rows with the most to lose
    // from their second choice first (W. Vogel's rule, evaluated once), at prices which are the cost of
    // each column's cheapest row.
    void start() {
        std::fill(s_.open, s_.open + c_.ld, 0.0);
        std::fill(v(), v() + c_.ld, kInfinity);
        for (int64_t i = 0; i < c_.n; ++i) table_.relax(c_.row(i), s_.open, 0, v(), s_.from, i, c_.ld);
        std::copy(v(), v() + c_.m, s_.open);
        int64_t* demand = s_.supply + c_.n;
        int64_t count = 0;
        for (int64_t i = 0; i < c_.n; ++i) {
            const TwoSmallest two = table_.two_smallest(c_.row(i), s_.open, c_.ld);
            s_.potential[i] = two.second.at >= 0 ? two.second.value - two.first.value : 0;
            s_.depth[i] = i;
        }
        std::stable_sort(s_.depth, s_.depth + c_.n,
                         [this](int64_t a, int64_t b) { return s_.potential[a] > s_.potential[b]; });
        for (int64_t k = 0; k < c_.n; ++k) {
            const int64_t i = s_.depth[k];
            for (;;) {
                const int64_t j = table_.smallest(c_.row(i), s_.open, c_.ld).at;
                const int64_t amount = std::min(s_.supply[i], demand[j]);
                s_.flows[count++] = Flow{i, j, amount};
                s_.supply[i] -= amount;
                demand[j] -= amount;
                if (demand[j] == 0) s_.open[j] = -kInfinity;
                if (s_.supply[i] == 0) break;
            }
        }
        if (count != nodes_ - 1) throw std::logic_error("a degenerate transportation problem");
        hang_tree();
    }

    // The arcs in s_.flows as a tree below row 0, with its potentials.
    void hang_tree() {
        // Until a node has a parent, `child` is its list of arcs, linked by `next` (as seen from the row) and
        // `previous` (as seen from the column).
        std::fill(s_.child, s_.child + nodes_, kNone);
        std::fill(s_.parent, s_.parent + nodes_, kNone);
        for (int64_t a = 0; a < nodes_ - 1; ++a) {
            int64_t& of_row = s_.child[s_.flows[a].row];
            int64_t& of_column = s_.child[c_.n + s_.flows[a].column];
            s_.next[a] = of_row;
            s_.previous[a] = of_column;
            of_row = of_column = a;
        }
        int64_t* order = s_.from;
        int64_t found = 1;
        order[0] = 0;
        s_.potential[0] = 0;
        s_.depth[0] = 0;
        std::fill(v(), v() + c_.ld, 0.0);
        for (int64_t k = 0; k < found; ++k) {
            const int64_t node = order[k];
            for (int64_t a = s_.child[node]; a != kNone; a = is_row(node) ? s_.next[a] : s_.previous[a]) {
                const Flow& arc = s_.flows[a];
                const int64_t other = is_row(node) ? c_.n + arc.column : arc.row;
                if (other == s_.parent[node]) continue;
                s_.parent[other] = node;
                s_.flow[other] = arc.amount;
                s_.depth[other] = s_.depth[node] + 1;
                s_.potential[other] = static_cast<double>(c_.row(arc.row)[arc.column]) - s_.potential[node];
                order[found++] = other;
            }
        }
        std::fill(s_.child, s_.child + nodes_, kNone);
        for (int64_t k = 1; k < nodes_; ++k) attach(order[k], s_.parent[order[k]]);
    }

    void attach(int64_t node, int64_t parent) {
        const int64_t first = s_.child[parent];
        s_.parent[node] = parent;
        s_.previous[node] = kNone;
        s_.next[node] = first;
        if (first != kNone) s_.previous[first] = node;
        s_.child[parent] = node;
    }

    void detach(int64_t node) {
        const int64_t before = s_.previous[node], after = s_.next[node];
        if (before == kNone) s_.child[s_.parent[node]] = after;
        else s_.next[before] = after;
        if (after != kNone) s_.previous[after] = before;
    }

    // The arc (row, column) enters. Returns the top of what hangs elsewhere now, whose prices are to be moved.
    int64_t pivot(int64_t row, int64_t column) {
        const int64_t tail = row, head = c_.n + column;
        // Flow pushed through the new arc lowers, on the tail's side, the arcs from a row up to a column, and on the
        // head's side those from a column up to a row. The first that is empty leaves.
        int64_t amount = std::numeric_limits<int64_t>::max(), leaving = kNone, join = kNone;
        bool on_tail_side = true;
        for (int64_t a = tail, b = head;;) {
            if (a == b) {
                join = a;
                break;
            }
            if (s_.depth[a] >= s_.depth[b]) {
                if (is_row(a) && s_.flow[a] < amount) {
                    amount = s_.flow[a];
                    leaving = a;
                    on_tail_side = true;
                }
                a = s_.parent[a];
            } else {
                if (!is_row(b) && s_.flow[b] < amount) {
                    amount = s_.flow[b];
                    leaving = b;
                    on_tail_side = false;
                }
                b = s_.parent[b];
            }
        }
        for (int64_t a = tail; a != join; a = s_.parent[a]) s_.flow[a] += is_row(a) ? -amount : amount;
        for (int64_t b = head; b != join; b = s_.parent[b]) s_.flow[b] += is_row(b) ? amount : -amount;
        if (on_tail_side) hang(tail, head, leaving, amount);
        else hang(head, tail, leaving, amount);
        return on_tail_side ? tail : head;
    }

    // Cut the arc above `leaving`, turn the path from there down to `top` around, and hang `top` below `parent`.
    void hang(int64_t top, int64_t parent, int64_t leaving, int64_t flow) {
        for (int64_t node = top;;) {
            const int64_t old_parent = s_.parent[node], old_flow = s_.flow[node];
            detach(node);
            attach(node, parent);
            s_.flow[node] = flow;
            if (node == leaving) return;
            parent = node;
            flow = old_flow;
            node = old_parent;
        }
    }

    // Depths and potentials below and at `top`, afresh from the costs of the arcs.
    void price(int64_t top, const std::function<double(int64_t, int64_t)>& cost) {
        for (int64_t node = top;;) {
            const int64_t above = s_.parent[node];
            s_.depth[node] = s_.depth[above] + 1;
            const double arc = is_row(node) ? cost(node, above - c_.n) : cost(above, node - c_.n);
            const Twice potential = minus({arc, 0}, {s_.potential[above], s_.low[above]});
            s_.potential[node] = potential.high;
            s_.low[node] = potential.low;
            if (s_.child[node] != kNone) {
                node = s_.child[node];
                continue;
            }
            while (node != top && s_.next[node] == kNone) node = s_.parent[node];
            if (node == top) return;
            node = s_.next[node];
        }
    }

    // Depths and potentials below and at `top`: rows change by +change, columns by -change.
    void shift(int64_t top, double change) {
        for (int64_t node = top;;) {
            s_.depth[node] = s_.depth[s_.parent[node]] + 1;
            s_.potential[node] += is_row(node) ? change : -change;
            if (s_.child[node] != kNone) {
                node = s_.child[node];
                continue;
            }
            while (node != top && s_.next[node] == kNone) node = s_.parent[node];
            if (node == top) return;
            node = s_.next[node];
        }
    }

    void collect() {
        for (int64_t node = 1; node < nodes_; ++node) {
            const int64_t above = s_.parent[node];
            s_.flows[node - 1] = is_row(node) ? Flow{node, above - c_.n, s_.flow[node]}
                                              : Flow{above, node - c_.n, s_.flow[node]};
        }
    }

    const Costs& c_;
    const TransportTable& table_;
    const SimplexSpace& s_;
    const Interrupt& interrupt_;
    const int64_t nodes_;
};

}  // namespace

SimplexSpace::SimplexSpace(Arena& arena, int64_t n, int64_t m) {
    const int64_t columns = padded_lanes(m);
    potential = arena.take<double>(n + columns);
    open = arena.take<double>(columns);
    for (int64_t** array : {&supply, &flow, &parent, &depth, &child, &next, &previous})
        *array = arena.take<int64_t>(n + m);
    from = arena.take<int64_t>(n + columns);
    low = arena.take<double>(n + m);
    flows = arena.take<Flow>(n + m - 1);
}

void solve_transportation(const Costs& costs, const TransportTable& table, const SimplexSpace& space,
                          const Interrupt& interrupt) {
    Simplex(costs, table, space, interrupt).solve();
}

void refine_transportation(const Costs& costs, const TransportTable& table, const SimplexSpace& space,
                           const Interrupt& interrupt, const std::function<double(int64_t, int64_t)>& cost,
                           double tolerance) {
    Simplex(costs, table, space, interrupt).refine(cost, tolerance);
}

}  // namespace poolwright
