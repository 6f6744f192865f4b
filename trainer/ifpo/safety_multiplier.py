"""Multiplier of the advantages on harmful prompts, by dual ascent on a floor for a rate on these prompts.

Maximizing the reward subject to `rate >= floor` has the Lagrangian `reward + lambda * (rate - floor)`. Here
the multiplier starts at 1, weights what the policy learns on harmful prompts, and changes by
`lambda += step * (floor - rate)`: it rises while the rate is below the floor, and falls while it is above.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def updated_multiplier(
    value: Any, rate: Any, *, floor: float, step: float = 0.5, largest: float = 10.0
) -> Any:
    """Returns the multiplier after a measurement, from 1 to `largest`.

    Args:
        value: multiplier before the measurement; a number or an array.
        rate: measured rate, from 0 to 1; of the same shape.
        floor: rate to hold.
        step: change of the multiplier per unit of the difference.
        largest: upper bound.
    """
    return np.clip(value + step * (floor - rate), 1.0, largest)
