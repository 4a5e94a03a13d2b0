"""Reading arrays and pictures of strangers without running their code; every fault is one `UserError` line.

Nothing here unpickles: object arrays are refused by their type, whatever file they come in. The parsers of other
libraries raise whatever they like on broken bytes (even TokenError), so each is wrapped in ``except Exception``.
"""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from align.errors import UserError

ARRAY_SUFFIXES = (".npy", ".npz", ".h5", ".hdf5", ".mat")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def load_array(path: str | Path, key: str | None = None) -> np.ndarray:
    """The numbers in a ``.npy``, ``.npz``, ``.h5`` or ``.mat`` file (any MATLAB version, MATLAB's own axis order).

    ``key`` names the array in a file that holds several; without it the only one, or the one called ``signals``.

    Raises
    ------
    UserError
        Missing, truncated or foreign file, unknown key, pickled objects, text instead of numbers.
    """
    path = Path(path)
    readers = {".npy": _npy, ".npz": _npz, ".h5": _hdf5, ".hdf5": _hdf5, ".mat": _mat}
    if path.suffix.lower() not in readers:
        raise UserError(f"{str(path)!r} is not an array file; known endings: {', '.join(ARRAY_SUFFIXES)}")
    if not path.is_file():
        raise UserError(f"array file {str(path)!r} does not exist")
    array = readers[path.suffix.lower()](path, key)
    if array.dtype.kind not in "biuf":
        raise UserError(f"{str(path)!r} holds {_kind(array)}; store plain numbers (float32 for example)")
    return array


def require_finite(x: np.ndarray, what: str) -> None:
    """Raise `UserError` with the count and the first place of NaN or infinity in ``x`` (any shape)."""
    bad = ~np.isfinite(x)
    if bad.any():
        first = tuple(int(i) for i in np.unravel_index(int(bad.argmax()), bad.shape))
        raise UserError(f"{what}: {int(bad.sum())} values are NaN or infinite, the first at index {first}; mend them")


def require_rows(n_signals: int, n_images: int, what: str = "recording") -> None:
    """Raise `UserError` when there is not one response per listed image."""
    if n_signals != n_images:
        raise UserError(f"{what}: {n_signals} responses but {n_images} images; there must be one response per image")


def decode_image(source: str | Path | bytes, name: str | None = None) -> np.ndarray:
    """A picture file (path or bytes) as uint8 (H, W, 3), pixels as stored (EXIF orientation is not applied).

    Transparency is dropped. Raises `UserError` for a missing, corrupt or more than 8-bit picture.
    """
    label = name or (str(source) if not isinstance(source, bytes) else "image")
    if not isinstance(source, bytes) and not Path(source).is_file():
        raise UserError(f"image {label!r} does not exist")
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as picture:
            if picture.mode.startswith(("I", "F")):
                raise UserError(f"image {label!r} has more than 8 bits per channel; store it as 8-bit RGB")
            rgba = picture.convert("RGBA") if "transparency" in picture.info else picture
            return np.asarray(rgba.convert("RGB"), dtype=np.uint8)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"image {label!r} is corrupt or no picture ({_line(error)}); replace the file") from error


def read_image_zip(path: str | Path) -> list[tuple[str, np.ndarray]]:
    """The pictures of a zip as (base file name, uint8 (H, W, 3)), sorted by base name; folders inside are ignored.

    Raises `UserError` for a missing or truncated zip, a corrupt picture, and two pictures of one base name.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"image archive {str(path)!r} does not exist")
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if _is_picture(name)]
            entries = sorted((name.rsplit("/", 1)[-1], archive.read(name)) for name in names)
    except Exception as error:
        raise UserError(
            f"image archive {str(path)!r} is truncated or corrupt ({_line(error)}); fetch it again"
        ) from error
    twice = [name for name, count in Counter(name for name, _ in entries).items() if count > 1]
    if twice:
        raise UserError(f"archive {str(path)!r} holds two pictures called {twice[0]!r}; their order is unknown")
    return [(name, decode_image(data, f"{path.name}/{name}")) for name, data in entries]


def _is_picture(name: str) -> bool:
    base = name.rsplit("/", 1)[-1]
    hidden = base.startswith(".") or name.startswith("__MACOSX/")
    return not hidden and base.lower().endswith(IMAGE_SUFFIXES)


def _npy(path: Path, _key: str | None) -> np.ndarray:
    try:
        with path.open("rb") as file:
            return np.lib.format.read_array(file)
    except Exception as error:
        raise _unreadable(path, error) from error


def _npz(path: Path, key: str | None) -> np.ndarray:
    try:
        with path.open("rb") as file:
            loaded = np.load(file)
            return loaded if isinstance(loaded, np.ndarray) else loaded[_choose(path, loaded.files, key)]
    except UserError:
        raise
    except Exception as error:
        raise _unreadable(path, error) from error


def _hdf5(path: Path, key: str | None, matlab: bool = False) -> np.ndarray:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            names = [str(name) for name in file if isinstance(file.get(name), h5py.Dataset)]
            if key is not None and isinstance(file.get(key), h5py.Dataset):
                names = [key]
            array = np.asarray(file[_choose(path, names, key)])
            return array.T if matlab else array  # MATLAB writes its columns first
    except UserError:
        raise
    except Exception as error:
        raise _unreadable(path, error) from error


def _mat(path: Path, key: str | None) -> np.ndarray:
    import h5py
    from scipy.io import loadmat

    if h5py.is_hdf5(path):  # MATLAB 7.3
        return _hdf5(path, key, matlab=True)
    try:
        content: Mapping[str, Any] = loadmat(path, variable_names=None if key is None else [key])
    except Exception as error:
        raise _unreadable(path, error) from error
    arrays = {name: value for name, value in content.items() if not name.startswith("__")}
    value = arrays[_choose(path, arrays, key)]
    if not isinstance(value, np.ndarray):
        raise UserError(f"{str(path)!r} holds a {type(value).__name__}; store a full numeric array")
    return value


def _choose(path: Path, names: Iterable[str], key: str | None) -> str:
    found = list(names)
    if key is None and len(found) == 1:
        return found[0]
    wanted = "signals" if key is None else key
    if wanted not in found:
        raise UserError(f"{str(path)!r} has no array {wanted!r}; it holds: {', '.join(found) or 'no array'}")
    return wanted


def _unreadable(path: Path, error: BaseException) -> UserError:
    text = _line(error)
    with path.open("rb") as file:
        is_pickle = file.read(1) == b"\x80"  # the first byte of pickle protocols 2 and up
    if is_pickle or "Object arrays" in text:
        return UserError(f"{str(path)!r} needs pickle, which can run code, and is refused; store plain numbers")
    return UserError(f"{str(path)!r} is truncated or not a {path.suffix} file ({text}); write or fetch it again")


def _kind(array: np.ndarray) -> str:
    names = {"O": "objects", "U": "text", "S": "text", "c": "complex numbers", "V": "records"}
    return names.get(array.dtype.kind, str(array.dtype))


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
