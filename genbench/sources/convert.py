"""Arrays and tensors of any numeric type to uint8 images; what cannot be meant as pixels is refused.

uint8 and integers in 0..255 are taken as they are, booleans are black and white, floats x in [0, 1] become
round(255 x).
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from genbench.data.arrays import Layout, channels_last
from genbench.errors import DataError

_ROUNDING = 1e-3


def as_array(value: Any) -> np.ndarray | None:
    """A NumPy array, a torch tensor on any device, or whatever has ``__array__``, as an array; None for all else.

    Raises:
        DataError: a tensor that holds no plain numbers.
    """
    if isinstance(value, np.ndarray):
        return value
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return _from_tensor(value)
    if hasattr(value, "__array__") and hasattr(value, "shape") and hasattr(value, "dtype"):
        return np.asarray(value)
    return None


def _from_tensor(tensor: Any) -> np.ndarray:
    import torch

    try:
        plain = tensor.detach().cpu()
        array: np.ndarray = (plain.float() if plain.dtype == torch.bfloat16 else plain.resolve_neg()).numpy()
    except (TypeError, RuntimeError, NotImplementedError) as error:
        raise DataError(f"Tensor of {tensor.dtype} {tuple(tensor.shape)}: not plain numbers ({error}).") from None
    return array


def to_uint8(array: np.ndarray, where: str) -> np.ndarray:
    """Pixels of any shape as uint8.

    Raises:
        DataError: NaN, floats outside [0, 1], integers outside 0..255, or no numbers; says what was found.
    """
    kind = array.dtype.kind
    if array.dtype == np.uint8:
        return array
    if kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if kind not in "iuf":
        raise DataError(f"{where}: values are {array.dtype}, expected uint8, other integers in 0..255, or floats.")
    if array.size == 0:
        return array.astype(np.uint8)
    low, high = array.min(), array.max()
    if kind != "f":
        if low < 0 or high > 255:
            raise DataError(f"{where}: integers are in {low}..{high}, expected 0..255. {_integer_advice(array)}")
        return array.astype(np.uint8)
    if not (np.isfinite(low) and np.isfinite(high)):
        what = "NaN" if np.isnan(low) else "infinite values"
        raise DataError(f"{where}: pixels have {what}. Find out why before scoring them.")
    if low < 0 or high > 1:
        raise DataError(
            f"{where}: floats are in [{low:.6g}, {high:.6g}], expected [0, 1]. {_float_advice(float(low), float(high))}"
        )
    wide = array if array.dtype == np.float64 else array.astype(np.float32)
    return np.rint(wide * 255).astype(np.uint8)


def _integer_advice(array: np.ndarray) -> str:
    if array.dtype == np.uint16:
        return "Of 16-bit images give (x / 257).round()."
    return "Convert them to uint8."


def _float_advice(low: float, high: float) -> str:
    if low >= -_ROUNDING and high <= 1 + _ROUNDING:
        return "If that is rounding, clip them: x.clip(0, 1)."
    if low < 0 and low >= -1 - _ROUNDING and high <= 1 + _ROUNDING:
        return "If they are in [-1, 1], convert them with (x + 1) / 2."
    if low >= 0 and high <= 255 + _ROUNDING:
        return "If they are in [0, 255], convert them with x / 255."
    return "Undo their normalisation."


def stack_to_images(array: np.ndarray, where: str, last: bool | None) -> np.ndarray:
    """A block of a stack to (N, C, H, W) uint8. last: channels are the last axis; None for greyscale (N, H, W)."""
    pixels = to_uint8(array, where)
    if last is None:
        return pixels[:, None]
    return pixels.transpose(0, 3, 1, 2) if last else pixels


def stack_layout(shape: tuple[int, ...], where: str, layout: Layout | None) -> bool | None:
    """Where the channels of a stack of images are: in the last axis, the second, or nowhere (None: N H W).

    Raises:
        DataError: no stack of images, or a shape that can be read in two ways; says what to do.
    """
    if len(shape) == 4:
        if 0 in shape[1:]:
            raise DataError(f"{where} has shape {shape}: its images have no pixels.")
        return channels_last(shape, where, layout)
    if len(shape) == 3 and not {shape[0], shape[2]} & {1, 3} and 0 not in shape[1:]:
        return None
    if len(shape) == 3 and 0 not in shape[1:]:
        raise DataError(
            f"{where} has shape {shape}: one image, or {shape[0]} greyscale ones? Give one image as x[None], greyscale "
            "ones as x[:, None] (N, 1, H, W)."
        )
    raise DataError(f"{where} has shape {shape}, expected images (N, H, W, C), (N, C, H, W) or (N, H, W).")


def one_image(array: np.ndarray, where: str, layout: Layout | None) -> np.ndarray:
    """(H, W), (H, W, C) or (C, H, W) to (C, H, W) uint8.

    Raises:
        DataError: no image, or a shape that can be read in two ways.
    """
    if array.ndim == 2 and array.size:
        return to_uint8(array, where)[None]
    if array.ndim != 3 or not array.size:
        raise DataError(f"{where} has shape {array.shape}, expected one image: (H, W), (H, W, C) or (C, H, W).")
    last = channels_last((1, *array.shape), where, layout)
    return stack_to_images(array[None], where, last)[0]
