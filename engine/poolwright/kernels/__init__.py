"""Fast, exact building blocks of active learning, usable alone.

Each function takes numpy arrays, memory maps, torch tensors (CPU and CUDA) or ``Rows``, gives its result in
kind, and has one reference in plain float64 torch (`poolwright.kernels.reference`) that the tests hold every
backend to. Importing this package imports neither torch nor numpy, and never compiles.
"""

from poolwright.kernels._native_build import build_info
from poolwright.kernels.k_center import KCenterResult, k_center
from poolwright.kernels.kmeans import KMeansResult, kmeans
from poolwright.kernels.kmeans_plus_plus import KMeansPlusPlusResult, Outer, kmeans_plus_plus
from poolwright.kernels.wasserstein import WassersteinResult, wasserstein

__all__ = [
    "KCenterResult",
    "KMeansPlusPlusResult",
    "KMeansResult",
    "Outer",
    "WassersteinResult",
    "build_info",
    "k_center",
    "kmeans",
    "kmeans_plus_plus",
    "wasserstein",
]
