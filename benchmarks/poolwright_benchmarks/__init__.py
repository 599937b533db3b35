"""Benchmarks of the kernels against their peers: ``poolwright bench [KERNEL]``."""
