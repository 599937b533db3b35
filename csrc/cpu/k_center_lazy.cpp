#include <algorithm>
#include <cstring>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "k_center.hpp"
#include "levels.hpp"
#include "rounding.hpp"

namespace poolwright {

namespace {

// A point and its bound as one ordered number: the bits of the squared distance (never negative, so they sort like
// integers), then the complement of the index: the largest key is the farthest point, ties to the lowest index.
using Key = uint64_t;

uint32_t value_bits(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}
Key make_key(float value, int64_t index) {
    return static_cast<Key>(value_bits(value)) << 32 | (0xffffffffu - static_cast<uint32_t>(index));
}
int64_t key_index(Key key) { return 0xffffffffu - static_cast<uint32_t>(key); }
float key_value(Key key) {
    const uint32_t bits = static_cast<uint32_t>(key >> 32);
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

constexpr size_t kFirstBatch = 8;      // points brought up to date at once: the rows a kernel takes together
constexpr size_t kBoundedAtOnce = 1 << 16;
constexpr int64_t kSmallHeap = 2048;
constexpr int64_t kFewPicks = 16;      // a heap that gave fewer was too small

class LazyGreedy {
public:
    LazyGreedy(const LazyArgs& args, CpuLevel level, int threads, const std::function<void()>& poll)
        : a_(args),
          level_(level),
          scratch_(std::max(1, threads), Scratch(args.pool.d)),
          poll_(poll),
          centers_(args.centers, args.labeled + args.k, pool_middle(), tile_products(level)) {
        for (int64_t c = 0; c < a_.labeled; ++c) centers_.append(centers_.next_row());
        target_ = std::max<int64_t>(kSmallHeap, a_.pool.n / 16);
        largest_target_ = std::max<int64_t>(kSmallHeap, a_.pool.n / 4);
    }

    int64_t run() {
        int64_t picks = 0;
        if (a_.first >= 0 && a_.k > 0) pick(make_key(a_.mind[a_.first], a_.first), picks++);
        if (picks < a_.k) bound_all();
        for (size_t batch = kFirstBatch; picks < a_.k;) {
            if (heap_.empty() || heap_.front() < outside_) {
                if (picks_since_fill_ < kFewPicks) target_ = std::min(2 * target_, largest_target_);
                fill();
                if (heap_.empty()) throw std::invalid_argument("fewer than k points are eligible");
            }
            if (a_.seen[key_index(heap_.front())] == centers_.count()) {
                const Key best = heap_.front();
                std::pop_heap(heap_.begin(), heap_.end());
                heap_.pop_back();
                pick(best, picks++);
                batch = std::max(kFirstBatch, batch / 4);
                continue;
            }
            bring_up_to_date(batch);
            batch = std::min(2 * batch, static_cast<size_t>(largest_target_));
            poll_();
        }
        return evaluated_;
    }

private:
    std::vector<float> pool_middle() const {
        if (!a_.pool.gather) return middle(a_.pool.x, a_.eligible);
        // As many rows as a block holds, of those that take part.
        const int64_t most = std::min<int64_t>(a_.pool.gather_rows, 256);
        const int64_t step = std::max<int64_t>(1, a_.pool.n / most);
        std::vector<int64_t> ids;
        for (int64_t i = 0; i < a_.pool.n && static_cast<int64_t>(ids.size()) < most; i += step)
            if (a_.eligible[i]) ids.push_back(i);
        if (ids.empty()) return std::vector<float>(a_.pool.d, 0.0f);
        return middle(a_.pool.gather(ids.data(), static_cast<int64_t>(ids.size())), nullptr);
    }

    void pick(Key best, int64_t at) {
        const int64_t index = key_index(best);
        a_.indices[at] = index;
        a_.squared[at] = key_value(best);
        a_.eligible[index] = 0;
        if (at + 1 == a_.k) return;
        float* row = centers_.next_row();
        if (a_.pool.gather) {
            copy_row(a_.pool.gather(&index, 1), 0, row);
        } else {
            copy_row(a_.pool.x, index, row);
        }
        centers_.append(row);
        fresh_best_ = -1.0f;
        ++picks_since_fill_;
    }

    // Give every eligible point a finite bound, from the first centers alone.
    void bound_all() {
        const int32_t now = std::min<int32_t>(centers_.count(), kPanel);
        for (int64_t i = 0; i < a_.pool.n;) {
            for (ids_.clear(); i < a_.pool.n && ids_.size() < kBoundedAtOnce; ++i)
                if (a_.eligible[i]) ids_.push_back(i);
            advance_all(now);
            poll_();
        }
    }

    // Take the points above the best that is up to date, at most `batch`, off the heap; advance them; put them back.
    void bring_up_to_date(size_t batch) {
        ids_.clear();
        while (!heap_.empty() && ids_.size() < batch && heap_.front() > outside_) {
            const int64_t index = key_index(heap_.front());
            if (a_.seen[index] == centers_.count()) break;
            std::pop_heap(heap_.begin(), heap_.end());
            heap_.pop_back();
            ids_.push_back(index);
        }
        // In the order in which they lie in memory, among those that have seen the same centers.
        std::sort(ids_.begin(), ids_.end(), [this](int64_t p, int64_t q) {
            return a_.seen[p] != a_.seen[q] ? a_.seen[p] < a_.seen[q] : p < q;
        });
        advance_all(centers_.count());
        for (const int64_t index : ids_) {
            if (a_.seen[index] == centers_.count()) fresh_best_ = std::max(fresh_best_, a_.mind[index]);
            heap_.push_back(make_key(a_.mind[index], index));
            std::push_heap(heap_.begin(), heap_.end());
        }
    }

    void advance_all(int32_t now) {
        const int64_t count = static_cast<int64_t>(ids_.size());
        mind_.resize(count);
        seen_.resize(count);
        for (int64_t t = 0; t < count; ++t) {
            mind_[t] = a_.mind[ids_[t]];
            seen_[t] = a_.seen[ids_[t]];
        }
        if (a_.pool.gather) {
            for (int64_t begin = 0; begin < count; begin += a_.pool.gather_rows) {
                const int64_t here = std::min(a_.pool.gather_rows, count - begin);
                const Matrix block = a_.pool.gather(ids_.data() + begin, here);
                rows_.resize(here);
                std::iota(rows_.begin(), rows_.end(), int64_t{0});
                advance_shared(block, rows_.data(), begin, here, now);
            }
        } else {
            advance_shared(a_.pool.x, ids_.data(), 0, count, now);
        }
        for (int64_t t = 0; t < count; ++t) {
            a_.mind[ids_[t]] = mind_[t];
            a_.seen[ids_[t]] = seen_[t];
        }
    }

    void advance_shared(const Matrix& x, const int64_t* rows, int64_t begin, int64_t count, int32_t now) {
        evaluated_ += advance_rows({x, rows, mind_.data() + begin, seen_.data() + begin, 0, count, centers_.view(),
                                    now, fresh_best_, nullptr, nullptr},
                                   level_, scratch_);
    }

    // Fill the heap with the `target_` largest keys of eligible points, and note the largest one left outside: a radix
    // selection on the bits of the bounds, 16 at a time, then by index among equal bounds.
    void fill() {
        picks_since_fill_ = 0;
        const int64_t n = a_.pool.n;
        std::vector<int64_t> counts(1 << 16, 0);
        for (int64_t i = 0; i < n; ++i)
            if (a_.eligible[i]) ++counts[value_bits(a_.mind[i]) >> 16];
        int64_t above = 0;
        const uint32_t high = descend(counts, above);
        std::fill(counts.begin(), counts.end(), 0);
        for (int64_t i = 0; i < n; ++i)
            if (a_.eligible[i] && value_bits(a_.mind[i]) >> 16 == high) ++counts[value_bits(a_.mind[i]) & 0xffff];
        const uint32_t threshold = high << 16 | descend(counts, above);
        heap_.clear();
        outside_ = 0;
        for (int64_t i = 0; i < n; ++i) {
            if (!a_.eligible[i]) continue;
            const uint32_t bits = value_bits(a_.mind[i]);
            const Key key = make_key(a_.mind[i], i);
            if (bits > threshold || (bits == threshold && above < target_)) {
                if (bits == threshold) ++above;  // the lowest indices come first
                heap_.push_back(key);
            } else {
                outside_ = std::max(outside_, key);
            }
        }
        std::make_heap(heap_.begin(), heap_.end());
        poll_();
    }

    // The bin in which the `target_`-th largest lies (bin 0 if there are fewer); `above` grows by what lies above it.
    uint32_t descend(const std::vector<int64_t>& counts, int64_t& above) const {
        uint32_t bin = (1 << 16) - 1;
        while (bin > 0 && above + counts[bin] < target_) above += counts[bin--];
        return bin;
    }

    const LazyArgs& a_;
    const CpuLevel level_;
        std::vector<Scratch> scratch_;  // one a thread
    const std::function<void()>& poll_;
    Centers centers_;
    int64_t evaluated_ = 0;
    int64_t target_, largest_target_;
    int64_t picks_since_fill_ = kFewPicks;
    std::vector<Key> heap_;
    float fresh_best_ = -1.0f;    // the largest minimum that is up to date; what is below it is not the next pick
    Key outside_ = 0;             // the largest key that is not in the heap
    std::vector<int64_t> ids_;    // the batch, and for each point of it
    std::vector<float> mind_;     // its minimum,
    std::vector<int32_t> seen_;   // the centers it accounts for,
    std::vector<int64_t> rows_;   // and its row in a gathered block
};

}  // namespace

int64_t k_center_lazy(const LazyArgs& args, CpuLevel level, int threads, const std::function<void()>& poll) {
    const DefaultRounding rounding;
    return LazyGreedy(args, level, threads, poll).run();
}

int64_t k_center_lazy_bytes(int64_t count, int64_t d, CpuLevel level, int threads) {
    return Centers::bytes(count, d, tile_products(level)) + std::max(1, threads) * Scratch::bytes(d);
}

}  // namespace poolwright
