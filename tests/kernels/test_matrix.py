"""What the kernels read."""

from __future__ import annotations

import numpy as np
import pytest

from poolwright.kernels._matrix import open_matrix


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_rows_of_any_length_are_scaled_to_1(scale):
    x = np.array([[3.0, 4.0], [0.0, 0.0], [-1.0, 0.0]]) * scale
    matrix, _ = open_matrix(x, unit_rows=True, memory_limit=None, workspace=0)
    np.testing.assert_allclose(matrix.dense, [[0.6, 0.8], [0, 0], [-1, 0]], rtol=1e-7)
