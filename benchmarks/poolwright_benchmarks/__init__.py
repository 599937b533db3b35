"""Benchmarks of the kernels against their peers: ``python -m poolwright_benchmarks [KERNEL] [--json PATH]``."""
