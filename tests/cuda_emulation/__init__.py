"""CUDA kernels on the CPU, for tests: the sources of csrc/cuda compiled as plain C++, their threads run as fibers.

``build.build(folder)`` compiles every ``csrc/cuda/*.cu`` and ``csrc/bindings/*_cuda.cpp`` with the headers of
``include/`` in place of CUDA's into one module, whose functions take CPU arrays where the extension's take
CUDA ones (`stream` is ignored). A new family of kernels adds its ``register_..._cuda`` to module.cpp. Tests take
the module from the fixture ``emulated_cuda`` (tests/kernels/conftest.py), and set the device and the order of
its threads with ``configure``.

This proves logic: indices, barriers, reductions, who waits for whom. It says nothing of speed, nor of races that
only the memory model of a real device shows.
"""
