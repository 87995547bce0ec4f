"""Tables of a Resize along one axis: which inputs an output is made of, and with which weights.

Formulas: https://onnx.ai/onnx/operators/onnx__Resize.html (coordinate_transformation_mode, nearest_mode,
cubic_coeff_a). With antialias the kernel is widened by the scale; what reaches past an edge counts for the
edge, as in ONNX Runtime, unless exclude_outside cuts it off, as PIL and torch do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Resampling:
    """What a Resize says of every axis.

    Attributes:
        mode: nearest, linear or cubic.
        coordinates: coordinate_transformation_mode.
        nearest: nearest_mode.
        cubic: cubic_coeff_a.
        antialias: whether the kernel grows where the output is smaller.
        exclude_outside: whether weights beyond the edge are dropped and the others scaled up.
    """

    mode: str
    coordinates: str
    nearest: str = "round_prefer_floor"
    cubic: float = -0.75
    antialias: bool = False
    exclude_outside: bool = False

    def positions(self, size: int, out: int, scale: float) -> NDArray[np.int64]:
        """The input that each output copies (mode nearest).

        Args:
            size: of the input along the axis.
            out: of the output.
            scale: out over size, as the node has it (it may differ by rounding).
        """
        # In float32, as ONNX Runtime does: where a place falls on an edge between two, the last bit decides.
        places = self._places(size, out, scale, np.float32)
        half = np.float32(0.5)
        if self.nearest == "round_prefer_floor":
            rounded = np.ceil(places - half)
        elif self.nearest == "round_prefer_ceil":
            rounded = np.floor(places + half)
        else:
            rounded = np.floor(places) if self.nearest == "floor" else np.ceil(places)
        found: NDArray[np.int64] = np.clip(rounded, 0, size - 1).astype(np.int64)
        return found

    def weights(self, size: int, out: int, scale: float) -> NDArray[np.float64]:
        """A matrix [out, size]: its product with the input is the output (modes linear and cubic)."""
        places = self._places(size, out, scale)
        made = np.zeros((out, size))
        widened = self.antialias and scale < 1
        shrink = scale if widened else 1.0
        reach = (2 if self.mode == "cubic" else 1) / shrink
        for row, place in enumerate(places):
            centre = min(max(place, 0.0), size - 1.0) if self.mode == "linear" and not widened else place
            first, last = int(np.floor(centre - reach)), int(np.ceil(centre + reach))
            taps = np.arange(first, last + 1)
            strength = self._kernel((taps - centre) * shrink)
            if self.exclude_outside:
                inside = (taps >= 0) & (taps < size)
                taps, strength = taps[inside], strength[inside]
            strength = strength / strength.sum()
            np.add.at(made[row], np.clip(taps, 0, size - 1), strength)
        return made

    def _kernel(self, distance: NDArray[np.float64]) -> NDArray[np.float64]:
        x = np.abs(distance)
        if self.mode == "linear":
            near: NDArray[np.float64] = np.clip(1 - x, 0, 1)
            return near
        # The filter of antialiased cubic scaling has -0.5 in PIL and torch; the node says which.
        a = self.cubic
        near = (a + 2) * x**3 - (a + 3) * x**2 + 1
        far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
        return np.where(x <= 1, near, np.where(x < 2, far, 0.0))

    def _places(
        self, size: int, out: int, scale: float, kind: type[np.floating[Any]] = np.float64
    ) -> NDArray[Any]:
        x: NDArray[Any] = np.arange(out).astype(kind)
        places: NDArray[Any] = np.zeros(out, kind)
        by, half = kind(scale), kind(0.5)
        if self.coordinates == "asymmetric":
            places = x / by
        elif self.coordinates == "align_corners":
            places = x * kind(size - 1) / kind(max(out - 1, 1))
        elif self.coordinates == "tf_half_pixel_for_nn":
            places = (x + half) / by
        elif self.coordinates != "pytorch_half_pixel" or out > 1:
            places = (x + half) / by - half
        if self.coordinates == "half_pixel_symmetric":
            places += kind(size / 2 * (1 - out / (scale * size)))
        return places
