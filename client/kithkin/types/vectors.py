"""Vectors: immutable, float32, and arrays for NumPy without a Python object per number."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

from kithkin.types.answers import Answer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Vector(Sequence[float]):
    """A float32 vector of one space of one bundle; ``numpy.asarray(vector)`` gives float32 [dimension].

    Vectors of different bundles or spaces do not compare; searching with one sends both along, so the server can tell.
    """

    _values: array[float]
    space: str
    bundle_version: str

    def __init__(self, values: Iterable[float], space: str = "", bundle_version: str = "") -> None:
        object.__setattr__(self, "_values", array("f", values))
        object.__setattr__(self, "space", space)
        object.__setattr__(self, "bundle_version", bundle_version)

    @overload
    def __getitem__(self, index: int) -> float: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[float, ...]: ...
    def __getitem__(self, index: int | slice) -> float | tuple[float, ...]:
        return tuple(self._values[index]) if isinstance(index, slice) else self._values[index]

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[float]:
        return iter(self._values)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[np.float32]:
        import numpy as np

        # Always a copy: what NumPy hands out is writable, this vector is not to be.
        if copy is False:
            raise ValueError("a kithkin.Vector cannot be viewed without a copy")
        return np.array(self._values, dtype=np.float32 if dtype is None else dtype)

    def to_numpy(self) -> NDArray[np.float32]:
        """A copy as float32 [dimension]."""
        return self.__array__()

    def __hash__(self) -> int:
        return hash((self._values.tobytes(), self.space, self.bundle_version))

    def __repr__(self) -> str:
        start = ", ".join(f"{value:.4f}" for value in self._values[:4])
        more = ", ..." if len(self._values) > 4 else ""
        return f"<Vector {self.space!r} [{len(self._values)}] {start}{more}>"


@dataclass(frozen=True, slots=True, repr=False)
class Vectors(Answer[Vector]):
    """Vectors in the order asked for, all of one bundle; ``to_numpy()`` gives float32 [vectors, dimension]."""

    def to_numpy(self) -> NDArray[np.float32]:
        """All of them as a new float32 [vectors, dimension]."""
        import numpy as np

        rows = bytearray().join(vector._values.tobytes() for vector in self.items)
        return np.frombuffer(rows, dtype=np.float32).reshape(len(self.items), -1 if self.items else 0)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[np.float32]:
        if copy is False:
            raise ValueError("kithkin.Vectors cannot be viewed without a copy")
        matrix = self.to_numpy()
        return matrix if dtype is None else matrix.astype(dtype, copy=False)
