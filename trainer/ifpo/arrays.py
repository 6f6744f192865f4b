"""Conversion of rewards and labels from numpy, torch or lists to numpy arrays, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]


def to_floats(values: Any, name: str) -> Floats:
    """Converts an array, tensor or list to (N,) float64.

    Raises:
        ValueError: the values are not one-dimensional, not numbers, or not finite.
    """
    try:
        # Uses the tensor's own methods, so that arrays do not need torch.
        host = values.detach().cpu().double() if hasattr(values, "detach") else values
        array = np.asarray(host, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be numbers") from None
    if array.ndim != 1:
        raise ValueError(f"{name} has the shape {array.shape}, but must have one dimension")
    if not np.isfinite(array).all():
        first = int(np.flatnonzero(~np.isfinite(array))[0])
        raise ValueError(
            f"{name}[{first}] is {array[first]}, but must be finite: leave out episodes without a number"
        )
    return array


def to_labels(values: Any, name: str) -> Indices:
    """Converts (N,) labels to indices from 0."""
    array = np.asarray(values.cpu() if hasattr(values, "cpu") else values)
    if array.ndim != 1:
        raise ValueError(f"{name} has the shape {array.shape}, but must have one dimension")
    return np.unique(array, return_inverse=True)[1]


def same_length(**arrays: npt.NDArray[Any]) -> None:
    """Raises a ValueError that states all lengths, unless they are equal."""
    if len({len(array) for array in arrays.values()}) > 1:
        lengths = ", ".join(f"{len(array)} {name}" for name, array in arrays.items())
        raise ValueError(f"there are {lengths}, but each episode needs one of each")


def like_input(original: Any, result: Floats) -> Any:
    """Converts (N,) `result` to the kind of `original`: its floating type if it has one, and a tensor on its
    device if it is a tensor."""
    if hasattr(original, "new_tensor"):
        import torch

        dtype = original.dtype if original.is_floating_point() else torch.float64
        return torch.from_numpy(result).to(device=original.device, dtype=dtype)
    kind = np.asarray(original).dtype
    return result.astype(kind) if np.issubdtype(kind, np.floating) else result
