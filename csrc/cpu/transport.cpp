#include "transport.hpp"

#include <algorithm>
#include <cmath>
#include <exception>
#include <limits>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <type_traits>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include "half.hpp"
#include "rounding.hpp"
#include "transport_solvers.hpp"

namespace poolwright {

namespace {

// The largest coordinate (in powers of two) whose squared differences are summed as they are; other sets are scaled.
constexpr int kPlainExponent = 20;
constexpr int kCostBits = 48;
// Where the largest squared distance is below this, others may have vanished in float32.
constexpr float kVanishing = 0x1p-60f;

// Costs come from products instead of differences from this many dimensions on, as long as at most one in
// kCancelledShare has to be computed again.
constexpr int64_t kProductsFrom = 48;
constexpr int64_t kCancelledShare = 16;

constexpr LevelTables<TransportTable> kTables = POOLWRIGHT_LEVEL_TABLES(kTransport);

template <class T>
struct Ops;
template <>
struct Ops<float> {
    static constexpr DType kDType = DType::f32;
    static constexpr auto kSquares = &TransportTable::squares_f32;
    static constexpr auto kPack = &TransportTable::pack_f32;
    static constexpr auto kLargest = &TransportTable::largest_f32;
    static constexpr auto kSquare = &TransportTable::square_f32;
};
template <>
struct Ops<double> {
    static constexpr DType kDType = DType::f64;
    static constexpr auto kSquares = &TransportTable::squares_f64;
    static constexpr auto kPack = &TransportTable::pack_f64;
    static constexpr auto kLargest = &TransportTable::largest_f64;
    static constexpr auto kSquare = &TransportTable::square_f64;
};

template <class T>
T element(const Matrix& x, int64_t at) {
    switch (x.dtype) {
        case DType::f16: return half_to_float(static_cast<const uint16_t*>(x.data)[at]);
        case DType::bf16: return bfloat_to_float(static_cast<const uint16_t*>(x.data)[at]);
        case DType::f64: return static_cast<T>(static_cast<const double*>(x.data)[at]);
        default: return static_cast<const float*>(x.data)[at];
    }
}

// The points of a set that weigh something, as rows of T.
template <class T>
struct Rows {
    const T* data;
    int64_t stride;
    int64_t count;
    const T* row(int64_t i) const { return data + i * stride; }
};

int64_t count_positive(const PointSet& set) {
    if (set.weights == nullptr) return set.points.n;
    return std::count_if(set.weights, set.weights + set.points.n, [](double w) { return w > 0; });
}

template <class T>
Rows<T> read_rows(const PointSet& set, int64_t count, Arena& arena) {
    const Matrix& x = set.points;
    T* copy = arena.take<T>(count * x.d);
    if (x.dtype == Ops<T>::kDType && x.col_stride == 1 && count == x.n)
        return {static_cast<const T*>(x.data), x.row_stride, count};
    T* out = copy;
    for (int64_t i = 0; i < x.n; ++i) {
        if (set.weights != nullptr && !(set.weights[i] > 0)) continue;
        for (int64_t k = 0; k < x.d; ++k) *out++ = element<T>(x, i * x.row_stride + k * x.col_stride);
    }
    return {copy, x.d, count};
}

template <class T>
void scale_rows(Rows<T>& rows, int64_t d, T factor, T* copy) {
    for (int64_t i = 0; i < rows.count; ++i)
        for (int64_t k = 0; k < d; ++k) copy[i * d + k] = rows.row(i)[k] * factor;
    rows.data = copy;
    rows.stride = d;
}

bool is_uniform(const PointSet& set) {
    if (set.weights == nullptr) return true;
    double one = 0;
    for (int64_t i = 0; i < set.points.n; ++i) {
        if (!(set.weights[i] > 0)) continue;
        if (one == 0) one = set.weights[i];
        if (set.weights[i] != one) return false;
    }
    return true;
}

double total_weight(const PointSet& set) {
    if (set.weights == nullptr) return static_cast<double>(set.points.n);
    return std::accumulate(set.weights, set.weights + set.points.n, 0.0);
}

// The weights of `count` points as integers that sum to `total` (at least `count`) exactly: one unit each, and what
// is left in proportion. The running sum is rounded, not each weight, so that no error adds up anywhere.
void integer_weights(const PointSet& set, int64_t count, int64_t total, int64_t* out) {
    if (total % count == 0 && is_uniform(set)) {
        std::fill(out, out + count, total / count);
        return;
    }
    const double all = total_weight(set);
    const int64_t shared = total - count;
    double running = 0;
    int64_t given = 0;
    for (int64_t i = 0, at = 0; i < set.points.n; ++i) {
        const double weight = set.weights == nullptr ? 1.0 : set.weights[i];
        if (!(weight > 0)) continue;
        running += weight;
        const int64_t upto = at + 1 < count ? std::llround(running / all * static_cast<double>(shared)) : shared;
        out[at++] = 1 + upto - given;
        given = upto;
    }
}

// Supply and demand of the transportation problem, perturbed so that no basis is degenerate (A. Orden, "The
// transhipment problem", Management Science 2 (1956)): each row supplies one unit more, the last column demands them
// all. Weights are multiples of a unit above 2 n, so that rounding a flow to such a multiple takes the perturbation off
// again. Uniform weights are exact; others are off by about 2 (n + m) n 2^-60 of their sum.
struct Perturbed {
    int64_t unit;
    int64_t total;  // in units, unperturbed
    double amount(int64_t flow) const { return static_cast<double>((flow + unit / 2) / unit); }
};

Perturbed perturbed_weights(const PointSets& pair, int64_t n, int64_t m, int64_t* supply) {
    int64_t unit = 1;
    while (unit <= 2 * n) unit *= 2;
    int64_t total = (int64_t{1} << 60) / unit;
    if (total / n >= m) total -= total % (n * m);
    integer_weights(pair.x, n, total, supply);
    integer_weights(pair.y, m, total, supply + n);
    for (int64_t i = 0; i < n; ++i) supply[i] = supply[i] * unit + 1;
    for (int64_t j = n; j < n + m; ++j) supply[j] *= unit;
    supply[n + m - 1] += n;
    return {unit, total};
}

// W_p on the line: the quantiles of the two sets, coupled in order.
double line_distance(const PointSets& pair, double p) {
    struct Point {
        double at;
        double weight;
    };
    std::vector<Point> sorted[2];
    for (int side = 0; side < 2; ++side) {
        const PointSet& set = side == 0 ? pair.x : pair.y;
        const double total = total_weight(set);
        sorted[side].reserve(static_cast<size_t>(set.points.n));
        for (int64_t i = 0; i < set.points.n; ++i) {
            const double weight = set.weights == nullptr ? 1.0 : set.weights[i];
            if (!(weight > 0)) continue;
            const double at = element<double>(set.points, i * set.points.row_stride);
            if (!std::isfinite(at)) throw std::invalid_argument(side == 0 ? "x" : "y");
            sorted[side].push_back({at, weight / total});
        }
        std::sort(sorted[side].begin(), sorted[side].end(), [](const Point& a, const Point& b) { return a.at < b.at; });
    }
    std::vector<Point>&x = sorted[0], &y = sorted[1];
    const bool matched = x.size() == y.size() && is_uniform(pair.x) && is_uniform(pair.y);
    struct Coupled {
        double apart;
        double amount;
    };
    std::vector<Coupled> plan;
    plan.reserve(x.size() + y.size());
    double unit = 0;  // of powers: the farthest that anything moves
    for (size_t i = 0, j = 0; i < x.size() && j < y.size();) {
        // Equal shares of equal sizes pair up one to one, whatever their fractions round to.
        const double amount = matched ? x[i].weight : std::min(x[i].weight, y[j].weight);
        plan.push_back({std::abs(x[i].at - y[j].at), amount});
        if (amount > 0) unit = std::max(unit, plan.back().apart);
        x[i].weight -= amount;
        y[j].weight -= amount;
        const bool x_done = matched || x[i].weight <= 0, y_done = matched || y[j].weight <= 0;
        i += x_done;
        j += y_done;
    }
    if (unit == 0) return 0;
    double cost = 0;
    for (const Coupled& part : plan)
        if (part.amount > 0) cost += part.amount * std::pow(part.apart / unit, p);
    return unit * std::pow(cost, 1 / p);
}

// One pair in T. `team` threads share the cost matrix.
template <class T>
class PairSolver {
public:
    PairSolver(const PointSets& pair, double p, const TransportTable& table, int team, char* block,
               const Interrupt& interrupt)
        : pair_(pair), p_(p), table_(table), team_(team), arena_(block), interrupt_(interrupt) {}

    double solve() {
        d_ = pair_.x.points.d;
        x_ = read(pair_.x, "x");
        y_ = read(pair_.y, "y");
        if (!scale_to_plain()) return 0;
        const int64_t n = x_.count, m = y_.count;
        Costs costs{nullptr, n, m, padded_lanes(m)};
        if (n > 1 && m > 1) {
            costs.data = make_costs(costs.ld);
            if (unit_ == 0) return 0;
        }
        if (n == m && is_uniform(pair_.x) && is_uniform(pair_.y)) return match(costs);
        return transport(costs);
    }

private:
    struct Side {
        Rows<T> rows;
        T* copy;
    };

    Rows<T> read(const PointSet& set, const char* name) {
        Arena before = arena_;
        const int64_t count = count_positive(set);
        const Rows<T> rows = read_rows<T>(set, count, arena_);
        copies_[name[0] == 'y'] = before.take<T>(count * d_);
        const double largest = (table_.*Ops<T>::kLargest)(rows.data, rows.stride, rows.count, d_);
        if (!std::isfinite(largest)) throw std::invalid_argument(name);
        largest_ = std::max(largest_, largest);
        return rows;
    }

    // Bring coordinates whose squares could overflow or vanish near 1, by a power of two; false where all are 0.
    bool scale_to_plain() {
        if (largest_ == 0) return false;
        const int exponent = std::ilogb(largest_);
        if (std::abs(exponent) <= kPlainExponent) return true;
        scale_points(-exponent);
        return true;
    }

    void scale_points(int exponent) {
        // In two steps, since 2^exponent itself may not be a number.
        for (const int step : {exponent / 2, exponent - exponent / 2}) {
            const T factor = static_cast<T>(std::ldexp(1.0, step));
            scale_rows(x_, d_, factor, copies_[0]);
            scale_rows(y_, d_, factor, copies_[1]);
        }
        exponent_ += exponent;
    }

    // Where points lie so close together, beside their coordinates, that squares may have vanished: scale them so
    // that they spread over about 1, as far as their coordinates allow. False where all are equal.
    bool scale_to_spread() {
        double spread = 0, size = 0;
        for (int64_t k = 0; k < d_; ++k) {
            double low = x_.row(0)[k], high = low;
            for (const Rows<T>& rows : {x_, y_})
                for (int64_t i = 0; i < rows.count; ++i) {
                    low = std::min(low, static_cast<double>(rows.row(i)[k]));
                    high = std::max(high, static_cast<double>(rows.row(i)[k]));
                }
            spread = std::max(spread, high - low);
            size = std::max({size, std::abs(low), std::abs(high)});
        }
        if (spread == 0) return false;
        const int room = std::numeric_limits<T>::max_exponent - 8 - std::ilogb(size);
        scale_points(std::min(-std::ilogb(spread), room));
        return true;
    }

    const float* make_costs(int64_t ld) {
        const int64_t n = x_.count, m = y_.count;
        T* packed = arena_.take<T>(ld * d_);
        float* costs = arena_.take<float>(n * ld);
        float* norms = arena_.take<float>(n + ld);
        float largest = fill_costs(packed, costs, ld, norms, true);
        if (largest < kVanishing) {
            if (!scale_to_spread()) return costs;
            largest = fill_costs(packed, costs, ld, norms, false);
        }
        unit_ = std::sqrt(static_cast<double>(largest));
        if (unit_ == 0) return costs;
        if (p_ == 1) {
            table_.roots(costs, n * ld);
            largest = std::sqrt(largest);
        } else if (p_ != 2) {
            for (int64_t at = 0; at < n * ld; ++at)
                costs[at] = static_cast<float>(std::pow(static_cast<double>(costs[at]) / largest, p_ / 2));
            largest = 1;
        }
        // Multiples of 2^-48 of the power of two above the largest: see round() for the limit.
        table_.round(costs, n * ld, std::ldexp(1.0f, std::ilogb(largest) + 1 - kCostBits + 23));
        for (int64_t i = 0; i < n; ++i)
            std::fill(costs + i * ld + m, costs + (i + 1) * ld, std::numeric_limits<float>::infinity());
        return costs;
    }

    // Squared distances into `costs`; returns the largest.
    float fill_costs(T* packed, float* costs, int64_t ld, float* norms, bool products) const {
        const int64_t n = x_.count, m = y_.count;
        (table_.*Ops<T>::kPack)(y_.data, y_.stride, m, d_, packed);
        SquaresArgs<T> all{x_.data, x_.stride, 0, n, packed, d_, costs, ld, norms, norms + n};
        constexpr int64_t kShare = 24;  // rows, a multiple of every level's tile
        const int64_t shares = (n + kShare - 1) / kShare;
        const auto share = [&all, n](int64_t s) {
            SquaresArgs<T> part = all;
            part.begin = s * kShare;
            part.end = std::min(n, (s + 1) * kShare);
            return part;
        };
        // The first rows show whether the points are far enough apart, beside their norms, for products.
        const bool by_products = products && prepare_products(norms, ld) && fill_by_products(share(0), m);
#if defined(_OPENMP)
#pragma omp parallel for schedule(dynamic, 1) num_threads(team_) if (team_ > 1)
#endif
        for (int64_t s = 0; s < shares; ++s) {
            const DefaultRounding rounding;
            if (!by_products || (s > 0 && !fill_by_products(share(s), m))) (table_.*Ops<T>::kSquares)(share(s));
        }
        return static_cast<float>(table_.largest_f32(costs, ld, n, m));
    }

    // Norms for `products`, where d is large enough for it to pay.
    bool prepare_products([[maybe_unused]] float* norms, [[maybe_unused]] int64_t ld) const {
        if constexpr (std::is_same_v<T, float>) {
            if (d_ < kProductsFrom) return false;
            const int64_t n = x_.count, m = y_.count;
            table_.norms_f32(x_.data, x_.stride, n, d_, norms);
            table_.norms_f32(y_.data, y_.stride, m, d_, norms + n);
            std::fill(norms + n + m, norms + n + ld, 0.0f);
            return true;
        }
        return false;
    }

    // Costs of some rows by products, those that cancel by differences; false if too many do, and nothing is filled.
    bool fill_by_products([[maybe_unused]] const SquaresArgs<T>& part, [[maybe_unused]] int64_t m) const {
        if constexpr (std::is_same_v<T, float>) {
            table_.products_f32(part);
            int64_t cancelled = 0;
            for (int64_t i = part.begin; i < part.end; ++i)
                for (int64_t j = 0; j < m; ++j) cancelled += part.out[i * part.ld + j] < 0;
            if (cancelled * kCancelledShare > (part.end - part.begin) * m) return false;
            for (int64_t i = part.begin; i < part.end && cancelled > 0; ++i)
                for (int64_t j = 0; j < m; ++j) {
                    float& cost = part.out[i * part.ld + j];
                    if (cost < 0) cost = static_cast<float>(table_.square_f32(x_.row(i), y_.row(j), d_));
                }
            return true;
        }
        return false;
    }

    double match(const Costs& costs) {
        Arena arena = arena_;
        AssignmentSpace space(arena, costs.n);
        if (costs.n == 1) space.column_of[0] = 0;
        else if (!solve_assignment(costs, table_, space, interrupt_)) return transport(costs);
        const auto plan = [&](const auto& use) {
            for (int64_t i = 0; i < costs.n; ++i) use(i, space.column_of[i], 1.0);
        };
        if (costs.n > 1 && is_coarse(costs, plan)) return transport(costs);
        return distance(plan, static_cast<double>(costs.n));
    }

    double transport(const Costs& costs) {
        const int64_t n = costs.n, m = costs.m;
        SimplexSpace space(arena_, n, m);
        const Perturbed weights = perturbed_weights(pair_, n, m, space.supply);
        if (n == 1 || m == 1) {
            if (largest_square() < kVanishing) scale_to_spread();
            const auto plan = [&](const auto& use) {
                for (int64_t k = 0; k < std::max(n, m); ++k)
                    use(n == 1 ? 0 : k, n == 1 ? k : 0, weights.amount(space.supply[n == 1 ? 1 + k : k]));
            };
            return distance(plan, static_cast<double>(weights.total));
        }
        const auto plan = [&](const auto& use) {
            for (int64_t a = 0; a < n + m - 1; ++a)
                use(space.flows[a].row, space.flows[a].column, weights.amount(space.flows[a].amount));
        };
        solve_transportation(costs, table_, space, interrupt_);
        if (is_coarse(costs, plan)) {
            const double unit = unit_;
            const auto cost = [this, unit](int64_t i, int64_t j) { return power(i, j, unit); };
            const double largest = p_ == 2 ? unit * unit : p_ == 1 ? unit : 1;
            const double tolerance = std::ldexp(largest * static_cast<double>(n + m), -100);
            refine_transportation(costs, table_, space, interrupt_, cost, tolerance);
        }
        return distance(plan, static_cast<double>(weights.total));
    }

    // Whether rounding to 2^-48 of the largest cost matters: a plan that is not free, and not 2^20 times dearer than
    // the rounding of all its parts.
    template <class Plan>
    bool is_coarse(const Costs& costs, const Plan& plan) const {
        double amounts = 0, rounded = 0, cost = 0;
        plan([&](int64_t i, int64_t j, double amount) {
            amounts += amount;
            rounded += amount * costs.row(i)[j];
        });
        const double largest = p_ == 2 ? unit_ * unit_ : p_ == 1 ? unit_ : 1;
        if (rounded > amounts * std::ldexp(largest, 20 - kCostBits)) return false;
        plan([&](int64_t i, int64_t j, double amount) { cost += amount * power(i, j, unit_); });
        return cost > 0;
    }

    double largest_square() const {
        double largest = 0;
        for (int64_t i = 0; i < x_.count; ++i)
            for (int64_t j = 0; j < y_.count; ++j)
                largest = std::max(largest, square(i, j));
        return largest;
    }

    double square(int64_t i, int64_t j) const { return (table_.*Ops<T>::kSquare)(x_.row(i), y_.row(j), d_); }

    // The cost from the points themselves; powers other than 1 and 2 as a multiple of that of `unit`.
    double power(int64_t i, int64_t j, double unit) const {
        const double squared = square(i, j);
        if (p_ == 2) return squared;
        return p_ == 1 ? std::sqrt(squared) : std::pow(std::sqrt(squared) / unit, p_);
    }

    template <class Plan>
    double distance(const Plan& plan, double total) const {
        // Powers are taken relative to the farthest that anything moves: they neither overflow nor all vanish.
        double unit = 0, cost = 0;
        if (p_ != 1 && p_ != 2) {
            plan([&](int64_t i, int64_t j, double amount) {
                if (amount > 0) unit = std::max(unit, std::sqrt(square(i, j)));
            });
            if (unit == 0) return 0;
        }
        plan([&](int64_t i, int64_t j, double amount) { cost += amount * power(i, j, unit); });
        const double mean = cost / total;
        double root = mean;
        if (p_ == 2) root = std::sqrt(mean);
        else if (p_ != 1) root = unit * std::pow(mean, 1 / p_);
        return std::ldexp(root, -exponent_);
    }

    const PointSets& pair_;
    const double p_;
    const TransportTable& table_;
    const int team_;
    Arena arena_;
    const Interrupt& interrupt_;
    int64_t d_ = 0;
    Rows<T> x_{}, y_{};
    T* copies_[2] = {};
    double largest_ = 0;  // coordinate
    int exponent_ = 0;    // of the power of two that coordinates were multiplied by
    double unit_ = 0;  // largest distance
};

template <class T>
int64_t solver_bytes(int64_t n, int64_t m, int64_t d) {
    Arena arena;
    arena.take<T>(n * d);
    arena.take<T>(m * d);
    arena.take<T>(padded_lanes(m) * d);
    arena.take<float>(n * padded_lanes(m));
    arena.take<float>(n + padded_lanes(m));
    Arena other = arena;
    SimplexSpace(arena, n, m);
    AssignmentSpace(other, std::min(n, m));
    return std::max(arena.used(), other.used());
}

bool is_wide(const PointSets& pair) {
    return pair.x.points.dtype == DType::f64 || pair.y.points.dtype == DType::f64;
}

int64_t pair_bytes(const PointSets& pair) {
    return transport_bytes(pair.x.points.n, pair.y.points.n, pair.x.points.d, is_wide(pair));
}

struct AlignedDelete {
    void operator()(char* block) const { ::operator delete(block, std::align_val_t(Arena::kAlignment)); }
};

// One thread's workspace, which grows to the largest of its pairs.
class Block {
public:
    char* at_least(int64_t bytes) {
        if (bytes > size_) {
            memory_.reset();
            memory_.reset(static_cast<char*>(
                ::operator new(static_cast<size_t>(bytes), std::align_val_t(Arena::kAlignment))));
            size_ = bytes;
        }
        return memory_.get();
    }

private:
    std::unique_ptr<char, AlignedDelete> memory_;
    int64_t size_ = 0;
};

// The first exception of any thread; the others stop at their next check.
class Failure {
public:
    void set(std::exception_ptr error) {
#if defined(_OPENMP)
#pragma omp critical(poolwright_transport_failure)
#endif
        if (!error_) error_ = error;
        stop.store(true, std::memory_order_relaxed);
    }
    void rethrow() const {
        if (error_) std::rethrow_exception(error_);
    }
    std::atomic<bool> stop{false};

private:
    std::exception_ptr error_;
};

double solve_pair(const PointSets& pair, double p, const TransportTable& table, int team, Block& block,
                  const Interrupt& interrupt) {
    const DefaultRounding rounding;
    interrupt.check();
    try {
        if (pair.x.points.d == 1) return line_distance(pair, p);
        char* memory = block.at_least(pair_bytes(pair));
        if (is_wide(pair)) return PairSolver<double>(pair, p, table, team, memory, interrupt).solve();
        return PairSolver<float>(pair, p, table, team, memory, interrupt).solve();
    } catch (const std::invalid_argument& side) {
        throw std::invalid_argument("pair " + std::to_string(pair.number) + ": " + side.what() +
                                    " holds NaN or infinity: drop or fill those points, or give them weight 0");
    }
}

// solve(k, threads within the pair, block, interrupt) for k in [begin, end), on a team; one thread alone lets others
// help within the pairs.
template <class Solve>
void run_team(int64_t begin, int64_t end, int team, int threads, const std::function<void()>& poll,
              const Solve& solve) {
    Failure failure;
#if defined(_OPENMP)
    if (team > 1) {
#pragma omp parallel num_threads(team)
        {
            const Interrupt interrupt(poll, failure.stop, omp_get_thread_num() == 0);
            Block block;
#pragma omp for schedule(dynamic, 1)
            for (int64_t k = begin; k < end; ++k) {
                if (failure.stop.load(std::memory_order_relaxed)) continue;
                try {
                    solve(k, 1, block, interrupt);
                } catch (const Stopped&) {
                    continue;
                } catch (...) {
                    failure.set(std::current_exception());
                }
            }
        }
        failure.rethrow();
        return;
    }
#else
    static_cast<void>(team);
#endif
    const Interrupt interrupt(poll, failure.stop, true);
    Block block;
    for (int64_t k = begin; k < end; ++k) solve(k, threads, block, interrupt);
}

}  // namespace

int64_t transport_bytes(int64_t n, int64_t m, int64_t d, bool wide) {
    if (d == 1) return (n + m) * 4 * static_cast<int64_t>(sizeof(double));
    return wide ? solver_bytes<double>(n, m, d) : solver_bytes<float>(n, m, d);
}

void transport(const std::vector<PointSets>& pairs, double p, CpuLevel level, int threads, int64_t limit,
               double* distances, const std::function<void()>& poll) {
    const TransportTable& table = kTables[level];
    const int64_t count = static_cast<int64_t>(pairs.size());
    std::vector<int64_t> order(pairs.size());
    std::iota(order.begin(), order.end(), 0);
    std::vector<double> work(pairs.size());
    std::vector<int64_t> bytes(pairs.size());
    for (int64_t i = 0; i < count; ++i) {
        const Matrix &x = pairs[i].x.points, &y = pairs[i].y.points;
        work[i] = static_cast<double>(x.n) * static_cast<double>(y.n) * static_cast<double>(x.d + x.n + y.n);
        bytes[i] = pair_bytes(pairs[i]);
        if (bytes[i] > limit)
            throw std::invalid_argument("memory_limit = " + std::to_string(limit) + " bytes is too little for pair " +
                                        std::to_string(pairs[i].number) + " (" + std::to_string(x.n) + " and " +
                                        std::to_string(y.n) + " points): exact needs " + std::to_string(bytes[i]) +
                                        "; raise it or use method=\"sinkhorn\"");
    }
    // The longest first; but where one pair leaves room for few threads, it and those like it go before the rest.
    const int most = static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(threads, count)));
    const auto fitting = [&bytes, limit, most](int64_t i) {
        return static_cast<int>(std::min<int64_t>(most, limit / std::max<int64_t>(1, bytes[i])));
    };
    std::stable_sort(order.begin(), order.end(), [&work, &fitting](int64_t a, int64_t b) {
        const int first = fitting(a), second = fitting(b);
        return first != second ? first < second : work[a] > work[b];
    });
    for (int64_t begin = 0, end = 0; begin < count; begin = end) {
        const int fits = fitting(order[begin]);
        while (end < count && fitting(order[end]) == fits) ++end;
        const int team = static_cast<int>(std::min<int64_t>(fits, end - begin));
        const auto solve = [&](int64_t k, int inner, Block& block, const Interrupt& interrupt) {
            const int64_t i = order[k];
            distances[i] = solve_pair(pairs[i], p, table, inner, block, interrupt);
        };
        run_team(begin, end, team, threads, poll, solve);
    }
}

CpuLevel transport_level(CpuLevel level) { return kTables.chosen(level); }

}  // namespace poolwright
