// Lets Ctrl-C stop a long loop that runs without the GIL.
#pragma once

#include <pybind11/pybind11.h>

#include <chrono>
#include <functional>

namespace poolwright {

// Call the result once a step: about ten times a second it takes the GIL and raises what Python's signal handlers
// raise.
inline std::function<void()> make_poll() {
    using clock = std::chrono::steady_clock;
    auto last = clock::now();
    return [last]() mutable {
        const auto now = clock::now();
        if (now - last < std::chrono::milliseconds(100)) return;
        last = now;
        const pybind11::gil_scoped_acquire gil;
        if (PyErr_CheckSignals() != 0) throw pybind11::error_already_set();
    };
}

}  // namespace poolwright
