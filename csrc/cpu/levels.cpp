#include "levels.hpp"

#include <cstdlib>
#include <stdexcept>

namespace poolwright {

namespace {

// __builtin_cpu_supports also asks the operating system whether it saves the wide registers.
bool runs_here(CpuLevel level) {
#if defined(POOLWRIGHT_X86_LEVELS)
    switch (level) {
        case CpuLevel::base: return true;
        case CpuLevel::avx2:
            return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
        case CpuLevel::avx512: return __builtin_cpu_supports("avx512f");
    }
    return false;
#else
    return level == CpuLevel::base;
#endif
}

}  // namespace

const char* level_name(CpuLevel level) {
    switch (level) {
        case CpuLevel::avx2: return "avx2";
        case CpuLevel::avx512: return "avx512";
        default: return "base";
    }
}

std::vector<CpuLevel> available_levels() {
    std::vector<CpuLevel> levels;
    for (const CpuLevel level : {CpuLevel::base, CpuLevel::avx2, CpuLevel::avx512})
        if (runs_here(level)) levels.push_back(level);
    return levels;
}

CpuLevel resolve_level(const std::string& requested) {
    std::string wanted = requested, asked_by = "level=" + requested;
    if (wanted.empty()) {
        if (const char* variable = std::getenv("POOLWRIGHT_CPU_LEVEL")) wanted = variable;
        asked_by = "POOLWRIGHT_CPU_LEVEL=" + wanted;
    }
    const auto levels = available_levels();
    if (wanted.empty()) return levels.back();
    std::string names;
    for (const CpuLevel level : levels) {
        if (wanted == level_name(level)) return level;
        names += (names.empty() ? "" : ", ") + std::string(level_name(level));
    }
    throw std::invalid_argument(asked_by + " is no CPU level of this build and machine; there are: " + names);
}

}  // namespace poolwright
