"""Reader of the IDX format (http://yann.lecun.com/exdb/mnist/), plain or gzipped."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from genbench.errors import DataError

_UINT8 = 0x08


def read_idx(path: Path) -> np.ndarray:
    """Read an IDX file of unsigned bytes; a name that ends in ``.gz`` is unpacked on the way.

    Format: two zero bytes, the type (8 is uint8), the number of dimensions, each size as big-endian uint32, the values.

    Raises:
        DataError: not IDX, another type than uint8, truncated or with bytes left over; the message names the file.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}. Fetch the file again.") from None
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _UINT8 or not content[3]:
        raise DataError(f"{path}: not an IDX file of unsigned bytes (it starts with {content[:4].hex() or 'nothing'}).")
    header = 4 + 4 * content[3]
    if len(content) < header:
        raise DataError(f"{path}: truncated within its header ({len(content)} bytes). Fetch the file again.")
    shape = struct.unpack(f">{content[3]}I", content[4:header])
    expected = header + int(np.prod(shape, dtype=np.int64))
    if len(content) != expected:
        raise DataError(
            f"{path}: {len(content)} bytes, expected {expected} for shape {shape}. It is truncated or corrupted; "
            "fetch the file again."
        )
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)
