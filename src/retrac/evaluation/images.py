"""How different two images are."""

import numpy as np
from scipy.ndimage import gaussian_filter

SIGMA = 1.5
"""Of the window, in pixels."""
STABLE = (0.01**2, 0.03**2)
"""C1 and C2 for values in [0, 1]."""


def pixel_distance(one: np.ndarray, two: np.ndarray) -> float:
    """Root mean square difference of two uint8 images, in [0, 1]."""
    return float(np.sqrt(np.square((one.astype(float) - two.astype(float)) / 255).mean()))


def structural_similarity(one: np.ndarray, two: np.ndarray) -> float:
    """SSIM of two uint8 images `[C, H, W]`, in [-1, 1]; 1 for equal ones.

    Mean over pixels and channels, with a Gaussian window (Wang et al. 2004, eq. 13).
    """
    x, y = (image.astype(float) / 255 for image in (one, two))

    def blurred(values: np.ndarray) -> np.ndarray:
        return gaussian_filter(values, (0, SIGMA, SIGMA), truncate=3.5)

    mean_x, mean_y = blurred(x), blurred(y)
    variance_x = blurred(x * x) - mean_x**2
    variance_y = blurred(y * y) - mean_y**2
    covariance = blurred(x * y) - mean_x * mean_y
    first, second = STABLE
    found = ((2 * mean_x * mean_y + first) * (2 * covariance + second)) / (
        (mean_x**2 + mean_y**2 + first) * (variance_x + variance_y + second)
    )
    return float(found.mean())
