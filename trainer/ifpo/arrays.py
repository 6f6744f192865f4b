"""Numbers and labels of episodes as numpy arrays, from numpy, torch or lists, and back again."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]


def to_floats(values: Any, name: str) -> Floats:
    """(N,) float64 of an array or a tensor.

    Raises:
        ValueError: another shape, or a number that is not finite.
    """
    try:
        # A tensor by its own methods, so that torch is not imported for arrays.
        host = values.detach().cpu().double() if hasattr(values, "detach") else values
        array = np.asarray(host, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be numbers") from None
    if array.ndim != 1:
        raise ValueError(f"{name} have the shape {array.shape}, but one dimension is needed")
    if not np.isfinite(array).all():
        first = int(np.flatnonzero(~np.isfinite(array))[0])
        raise ValueError(
            f"{name}[{first}] is {array[first]}: leave out episodes without a number, then weigh the others"
        )
    return array


def to_labels(values: Any, name: str) -> Indices:
    """(N,) labels as indices from 0."""
    array = np.asarray(values.cpu() if hasattr(values, "cpu") else values)
    if array.ndim != 1:
        raise ValueError(f"{name} have the shape {array.shape}, but one dimension is needed")
    return np.unique(array, return_inverse=True)[1]


def same_length(**arrays: npt.NDArray[Any]) -> None:
    """Raises ValueError, with the lengths by name, unless all are equal."""
    if len({len(array) for array in arrays.values()}) > 1:
        lengths = ", ".join(f"{len(array)} {name}" for name, array in arrays.items())
        raise ValueError(f"there are {lengths}, but each episode needs one of each")


def like_input(given: Any, result: Floats) -> Any:
    """(N,) `result` as `given` is: a tensor on its device for a tensor, of its float type if it has one."""
    if hasattr(given, "new_tensor"):
        import torch

        floating = given.dtype if given.is_floating_point() else torch.float64
        return torch.from_numpy(result).to(device=given.device, dtype=floating)
    kind = np.asarray(given).dtype
    return result.astype(kind) if np.issubdtype(kind, np.floating) else result
