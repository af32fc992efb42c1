"""Vectors to the wire and back as bytes: no Python object per number where the caller gives an array."""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Iterable
from typing import Any

from google.protobuf.wrappers_pb2 import BytesValue

from kithkin.types import Vector
from kithkin.v1 import types_pb2 as wire

# On the wire the packed floats of `Vector.values` (field 1) look like the bytes of a BytesValue (field 1):
# little-endian float32 behind a length. Reading and writing them as such is seven times as fast as one by one.
_SWAP = sys.byteorder == "big"


def vector_message(values: Iterable[float]) -> wire.Vector:
    """A vector of finite floats: any flat row of numbers, or an array."""
    floats = float32(values)
    if not floats:
        raise ValueError("vector is empty")
    # The sum of float32 as double cannot overflow: it is finite just where all of them are.
    if not math.isfinite(sum(floats)):
        place = next(i for i, value in enumerate(floats) if not math.isfinite(value))
        raise ValueError(f"vector[{place}] is {floats[place]} as float32; every value must be finite")
    if _SWAP:
        floats = floats[:]
        floats.byteswap()
    message = wire.Vector.FromString(BytesValue(value=floats.tobytes()).SerializeToString())
    if isinstance(values, Vector):
        message.space, message.bundle_version = values.space, values.bundle_version
    return message


def vector(message: wire.Vector) -> Vector:
    """The vector of a message."""
    floats = array("f", BytesValue.FromString(message.SerializeToString()).value)
    if _SWAP:
        floats.byteswap()
    return Vector(floats, message.space, message.bundle_version)


def float32(values: Any) -> array[float]:
    """The numbers as float32; raises TypeError where they are none, or not one row."""
    if isinstance(values, str | bytes | bytearray):
        raise TypeError("vector must be numbers, not text or bytes")
    if isinstance(values, Vector):
        return values._values
    try:
        if hasattr(values, "__array__"):
            return _of_array(values)
        return array("f", values)
    except OverflowError:
        raise ValueError("vector holds a number too large for float32; every value must be finite") from None
    except (TypeError, ValueError) as error:
        raise TypeError(f"vector must be a flat list of numbers: {error}") from None


def _of_array(values: Any) -> array[float]:
    # Whoever has an array has NumPy: tensors and columns of frames turn into its arrays.
    import numpy as np

    found = np.asarray(values)
    if found.ndim != 1 or found.dtype.kind not in "fiu":
        raise TypeError(f"an array of {found.dtype} with shape {list(found.shape)}")
    with np.errstate(over="ignore"):
        return array("f", found.astype(np.float32, copy=False).tobytes())
