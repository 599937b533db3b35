"""Tests of poolwright.kernels."""
