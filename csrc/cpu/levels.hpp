// The CPU instruction-set levels of this build, and which of them this machine can run.
#pragma once

#include <string>
#include <vector>

namespace poolwright {

enum class CpuLevel : int { base = 0, avx2 = 1, avx512 = 2, amx = 3 };

// Whether the level multiplies matrices in tiles of bfloat16.
constexpr bool tile_products(CpuLevel level) { return level == CpuLevel::amx; }

const char* level_name(CpuLevel level);

// Levels that are both in the build and on this machine, lowest first; `base` is always there.
std::vector<CpuLevel> available_levels();

// The level to use: `requested` if not empty, else the variable POOLWRIGHT_CPU_LEVEL, else the highest available.
// Throws std::invalid_argument, naming what is available, for a level that is unknown or cannot run here.
CpuLevel resolve_level(const std::string& requested);

}  // namespace poolwright
