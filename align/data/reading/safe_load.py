"""Reading arrays and pictures of strangers without running their code; every fault is one `UserError` line.

Nothing here unpickles: object arrays are refused by their type, whatever file they come in. The parsers of other
libraries raise whatever they like on broken bytes (even TokenError), so each is wrapped in ``except Exception``.
"""

from __future__ import annotations

import io
import logging
import math
import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

from align.data.reading.archives import GRACE, Limits, checked_zip, members, names_in
from align.data.reading.containers import npy_header, stored_npy
from align.data.signals import mapped_file
from align.errors import UserError
from align.files import no_file

if TYPE_CHECKING:
    import h5py

logger = logging.getLogger(__name__)

ARRAY_SUFFIXES = (".npy", ".npz", ".h5", ".hdf5", ".mat")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")  # pillow would hand EPS to an outside program
MOST_PIXELS = 1 << 26  # of one picture
_WITH_ALPHA = ("RGBA", "LA", "PA", "La", "RGBa")  # modes of pillow
_ORIENTATION, _SIDEWAYS = 0x0112, 5  # the EXIF tag; its values from here on swap width and height
_TURNED: set[str] = set()  # folders of which a turned picture was told
RATIO = Limits().ratio  # numbers may take this many times the bytes of their file, beyond `GRACE`


def load_array(path: str | Path, key: str | None = None, mapped: bool = False) -> np.ndarray:
    """The numbers in a ``.npy``, ``.npz``, ``.h5`` or ``.mat`` file (any MATLAB version, MATLAB's own axis order).

    ``key`` names the array in a file that holds several; without it the only one, or the one called ``signals``.
    ``mapped``: those of a ``.npy`` file stay there and are mapped, read-only.

    Raises
    ------
    UserError
        Missing, truncated or foreign file, unknown key, pickled objects, text instead of numbers.
    """
    path = Path(path)
    readers = {".npy": _npy, ".npz": _npz, ".h5": _hdf5, ".hdf5": _hdf5, ".mat": _mat}
    if path.exists() and not path.is_file():
        raise UserError(f"array file {str(path)!r} {no_file(path)}")
    if path.suffix.lower() not in readers:
        raise UserError(f"{str(path)!r} is not an array file; known endings: {', '.join(ARRAY_SUFFIXES)}")
    if not path.is_file():
        raise UserError(f"array file {str(path)!r} {no_file(path)}")
    array = readers[path.suffix.lower()](path, key)
    if not mapped and mapped_file(array) is not None:
        array = np.array(array)
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
    """A picture file (path or bytes) as uint8 (H, W, 3), as a viewer shows it: see `as_seen`.

    Raises `UserError` for a missing, corrupt, transparent or more than 8-bit picture.
    """
    label = name or (str(source) if not isinstance(source, bytes) else "image")
    if not isinstance(source, bytes) and not Path(source).is_file():
        raise UserError(f"image {label!r} {no_file(source)}")
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=IMAGE_FORMATS) as picture:
            return as_seen(picture, label)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"image {label!r} is corrupt or no picture ({_line(error)}); replace the file") from error


def as_seen(picture: Image.Image, label: str) -> np.ndarray:
    """An opened picture as uint8 (H, W, 3), the one rule of all readers: turned upright as its EXIF orientation says,
    refused where a pixel is transparent.

    What lies behind a transparent pixel was decided by the screen, not by the file; colours that are hidden there
    would be seen by the backbone alone. An alpha channel that is opaque throughout is dropped.
    Raises `UserError` for transparency, more than 8 bits a channel, too many pixels.
    """
    if math.prod(picture.size) > MOST_PIXELS:
        raise UserError(f"image {label!r} has {picture.size[0]} x {picture.size[1]} pixels; make it smaller")
    if picture.mode.startswith(("I", "F")):
        raise UserError(f"image {label!r} has more than 8 bits per channel; store it as 8-bit RGB")
    upright = _upright(picture, label)
    if "transparency" in upright.info or upright.mode in _WITH_ALPHA:
        upright = upright.convert("RGBA")
        if np.asarray(upright)[..., 3].min() < 255:
            raise UserError(
                f"image {label!r} has an alpha channel with transparent pixels; lay it over the background that was on "
                "the screen and save it as RGB"
            )
    return np.asarray(upright.convert("RGB"), dtype=np.uint8)


def has_alpha(picture: Image.Image) -> bool:
    """Whether pixels of an opened picture can be transparent; its header alone is read."""
    return "transparency" in picture.info or picture.mode in _WITH_ALPHA


def seen_size(picture: Image.Image) -> tuple[int, int]:
    """Width and height of an opened picture as it is seen; its header alone is read."""
    width, height = picture.size
    turned = picture.format != "TIFF" and _orientation(picture) >= _SIDEWAYS  # pillow turns TIFF itself
    return (height, width) if turned else (width, height)


def _upright(picture: Image.Image, label: str) -> Image.Image:
    orientation = _orientation(picture)
    if orientation == 1:
        return picture
    _tell_turned(str(Path(label).parent), label)
    return ImageOps.exif_transpose(picture)


def _orientation(picture: Image.Image) -> int:
    """1 = upright, 2 to 8 = mirrored or turned; 1 also for EXIF data that cannot be read."""
    try:
        found = picture.getexif().get(_ORIENTATION, 1)
    except Exception:  # pillow raises whatever it likes on broken bytes
        return 1
    return found if found in range(1, 9) else 1


def _tell_turned(folder: str, label: str) -> None:
    """Once per folder."""
    if folder not in _TURNED:
        _TURNED.add(folder)
        logger.info("%s is stored turned: such pictures are turned upright, as their EXIF orientation says", label)


def read_image_zip(path: str | Path) -> list[tuple[str, np.ndarray]]:
    """The pictures of a zip as (base file name, uint8 (H, W, 3)), sorted by base name; folders inside are ignored.

    Raises `UserError` for a missing or truncated zip, a corrupt picture, and two pictures of one base name.
    """
    path = Path(path)
    entries = sorted((name.rsplit("/", 1)[-1], data) for name, data in members(path, _is_picture))
    twice = [name for name, count in Counter(name for name, _ in entries).items() if count > 1]
    if twice:
        raise UserError(f"archive {str(path)!r} holds two pictures called {twice[0]!r}; their order is unknown")
    return [(name, decode_image(data, f"{path.name}/{name}")) for name, data in entries]


def count_pictures(path: str | Path) -> int:
    """How many pictures `read_image_zip` would read, by the archive's list alone. Raises `UserError` as it does."""
    return sum(1 for _ in names_in(path, _is_picture))


def _is_picture(name: str) -> bool:
    base = name.rsplit("/", 1)[-1]
    hidden = base.startswith(".") or name.startswith("__MACOSX/")
    return not hidden and base.lower().endswith(IMAGE_SUFFIXES)


def _npy(path: Path, _key: str | None) -> np.ndarray:
    try:
        stored = stored_npy(path)
    except UserError:
        _refuse_pickle(path)
        raise
    if stored is None:
        raise _needs_pickle(path)
    return stored.open()


def _npz(path: Path, key: str | None) -> np.ndarray:
    try:
        with zipfile.ZipFile(path) as archive:
            infos = {name.removesuffix(".npy"): info for name, info in checked_zip(archive, path).items()}
            info = infos[_choose(path, infos, key)]
            with archive.open(info) as file:
                shape, _, dtype = npy_header(file)  # type: ignore[arg-type]
                if dtype.hasobject:
                    raise _needs_pickle(path)
                wanted, found = math.prod(shape) * dtype.itemsize, info.file_size - file.tell()
                if min(shape, default=0) < 0 or wanted != found:
                    raise UserError(f"{str(path)!r} is truncated or damaged: {wanted} bytes announced, {found} found")
                file.seek(0)
                return np.lib.format.read_array(file)
    except UserError:
        raise
    except Exception as error:
        _refuse_pickle(path)
        raise _unreadable(path, error) from error


def inside_hdf5(file: h5py.File, name: str) -> h5py.Dataset:
    """The dataset ``name`` of an open HDF5 file, whose numbers lie in that file.

    Raises
    ------
    UserError
        No such dataset; a link to another file on the way; numbers kept in other files (external or virtual
        storage).
    """
    import h5py

    path = str(file.filename)
    group: Any = file
    for part in [part for part in name.split("/") if part]:
        link = group.get(part, getlink=True) if isinstance(group, h5py.Group) else None
        if isinstance(link, h5py.ExternalLink | h5py.SoftLink):
            raise UserError(f"{path!r}: {name!r} is a link to {link.path!r}, which is not followed; copy the numbers")
        group = group.get(part) if link is not None else None
    if not isinstance(group, h5py.Dataset):
        raise UserError(f"{path!r} has no array {name!r}")
    if group.external or group.is_virtual:
        raise UserError(f"{path!r}: {name!r} takes its numbers from other files, which is refused; copy them into it")
    return group


def _hdf5(path: Path, key: str | None, matlab: bool = False) -> np.ndarray:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            names = [name for name in map(str, file) if not _is_group(file, name)]
            if key is not None and "/" in key.strip("/"):
                names.append(key)
            dataset = inside_hdf5(file, _choose(path, names, key))
            if dataset.nbytes > GRACE + RATIO * path.stat().st_size:
                raise UserError(f"{str(path)!r} announces {dataset.nbytes} bytes of numbers, far more than it holds")
            array = np.asarray(dataset)
            return array.T if matlab else array  # MATLAB writes its columns first
    except UserError:
        raise
    except Exception as error:
        raise _unreadable(path, error) from error


def _is_group(file: h5py.File, name: str) -> bool:
    import h5py

    hard = isinstance(file.get(name, getlink=True), h5py.HardLink)
    return hard and isinstance(file.get(name), h5py.Group)


def _mat(path: Path, key: str | None) -> np.ndarray:
    import h5py
    from scipy.io import loadmat, whosmat

    if h5py.is_hdf5(path):  # MATLAB 7.3
        return _hdf5(path, key, matlab=True)
    try:
        _require_whole(path)
        found = whosmat(path)
        shapes = {name: shape for name, shape, _ in found}
        name = _choose(path, shapes, key)
        if len(shapes) < len(found):
            raise UserError(f"{str(path)!r} holds two arrays of one name; save it again")
        if 8 * math.prod(shapes[name]) > GRACE + RATIO * path.stat().st_size:
            raise UserError(f"{str(path)!r}: {name!r} announces the shape {shapes[name]}, far more than the file holds")
        value = loadmat(path, variable_names=[name])[name]
    except UserError:
        raise
    except Exception as error:
        raise _unreadable(path, error) from error
    if not isinstance(value, np.ndarray):
        raise UserError(f"{str(path)!r} holds a {type(value).__name__}; store a full numeric array")
    return value


def _require_whole(path: Path) -> None:
    """Raise ValueError when the variables of a MATLAB 5 file do not end where the file ends."""
    with path.open("rb") as file:
        orders = {b"IM": "little", b"MI": "big"}
        order: Any = orders.get(file.read(128)[126:])
        at, size = 128, path.stat().st_size
        while order and at < size:  # MATLAB 4 has no such mark
            file.seek(at + 4)
            at += 8 + int.from_bytes(file.read(4), order)
    if order and at != size:
        raise ValueError("a variable does not end in it")


def _choose(path: Path, names: Iterable[str], key: str | None) -> str:
    found = list(names)
    if key is None and len(found) == 1:
        return found[0]
    wanted = "signals" if key is None else key
    if wanted not in found:
        raise UserError(f"{str(path)!r} has no array {wanted!r}; it holds: {', '.join(found) or 'no array'}")
    return wanted


def _unreadable(path: Path, error: BaseException) -> UserError:
    return UserError(
        f"{str(path)!r} is truncated or not a {path.suffix} file ({_line(error)}); write or fetch it again"
    )


def _refuse_pickle(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(1) == b"\x80":  # the first byte of pickle protocols 2 and up
            raise _needs_pickle(path)


def _needs_pickle(path: Path) -> UserError:
    return UserError(f"{str(path)!r} needs pickle, which can run code, and is refused; store plain numbers")


def _kind(array: np.ndarray) -> str:
    names = {"O": "objects", "U": "text", "S": "text", "c": "complex numbers", "V": "records"}
    return names.get(array.dtype.kind, str(array.dtype))


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
