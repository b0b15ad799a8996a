"""The array types of calibration and metrics."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Counts = NDArray[np.int64]
Labels = NDArray[np.bool_]
