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

// What a kernel family compiled per level. A level without a table of its own uses that of the next lower one.
template <class Table>
struct LevelTables {
    const Table* tables[4];  // by CpuLevel; the first is not null

    CpuLevel chosen(CpuLevel level) const {
        int at = static_cast<int>(level);
        while (tables[at] == nullptr) --at;
        return static_cast<CpuLevel>(at);
    }
    const Table& operator[](CpuLevel level) const { return *tables[static_cast<int>(chosen(level))]; }
};

#if defined(POOLWRIGHT_X86_LEVELS)
#define POOLWRIGHT_LEVEL_TABLES(name) {{&name##Base, &name##Avx2, &name##Avx512, nullptr}}
#else
#define POOLWRIGHT_LEVEL_TABLES(name) {{&name##Base, nullptr, nullptr, nullptr}}
#endif

}  // namespace poolwright
