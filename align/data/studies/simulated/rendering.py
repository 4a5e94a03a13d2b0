"""Procedural pictures of the simulated study: one patterned object on a natural texture, 64 x 64 RGB.

A picture is a pure function of its id ``shape-pattern-texture-number``; concept = shape x pattern x texture, 660 in
all, of which `TEST_CONCEPTS` (200) belong to the test split and are kept out of everything that is ever trained.
The textures are crops of the photographs that ship inside scikit-image.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np

from align.errors import UserError
from align.seeding import derive

SIZE = 64  # px
SHAPES = ("disk", "square", "triangle", "ring", "cross", "star", "diamond", "crescent", "heart", "bar")
PATTERNS = ("plain", "striped", "dotted", "checkered", "ringed", "graded")
TEXTURES = ("brick", "grass", "gravel", "fur", "coffee", "coins", "stars", "tissue", "moon", "print", "portrait")
COLOURS = {"red": 0, "orange": 28, "yellow": 55, "green": 120, "cyan": 180, "blue": 225, "purple": 275, "pink": 325}
SIZES = ("small", "medium", "large")
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "center", "right")
_RADIUS = (0.15, 0.29)  # of the picture's width
_CENTRE = (0.27, 0.73)
_PHOTOGRAPH = {"fur": "chelsea", "stars": "hubble_deep_field", "tissue": "immunohistochemistry", "print": "page"}
_PHOTOGRAPH |= {"portrait": "astronaut"}
_TINT = {"brick": (1.0, 0.72, 0.6), "grass": (0.7, 1.0, 0.6), "print": (1.0, 0.95, 0.8), "moon": (0.85, 0.92, 1.0)}


@dataclass(frozen=True)
class Scene:
    """What one picture shows. ``size`` = radius, ``x``, ``y`` = centre, as fractions of the width; hue in degrees."""

    shape: str
    pattern: str
    texture: str
    colour: str
    hue: float
    size: float
    x: float
    y: float
    angle: float
    crop: tuple[float, float, float]

    @property
    def concept(self) -> str:
        return f"{self.shape}-{self.pattern}-{self.texture}"

    @property
    def size_name(self) -> str:
        low, high = _RADIUS
        return SIZES[min(2, int(3 * (self.size - low) / (high - low)))]

    @property
    def position(self) -> str:
        """One of nine cells, "top left" to "bottom right"."""
        return f"{ROWS[_third(self.y)]} {COLUMNS[_third(self.x)]}"

    @property
    def caption(self) -> str:
        return f"a {self.size_name} {self.colour} {self.pattern} {self.shape} at the {self.position} on {self.texture}"


def _third(value: float) -> int:
    low, high = _CENTRE
    return min(2, int(3 * (value - low) / (high - low)))


CONCEPTS = tuple("-".join(parts) for parts in product(SHAPES, PATTERNS, TEXTURES))
N_TEST_CONCEPTS = 200
_order = np.random.default_rng(20260121).permutation(len(CONCEPTS))
TEST_CONCEPTS = tuple(sorted(CONCEPTS[i] for i in _order[:N_TEST_CONCEPTS]))
TRAIN_CONCEPTS = tuple(sorted(CONCEPTS[i] for i in _order[N_TEST_CONCEPTS:]))


@cache
def scene_of(stimulus_id: str) -> Scene:
    """The scene an id stands for; raises `UserError` for an id that is not ``shape-pattern-texture-number``."""
    parts = stimulus_id.split("-")
    if len(parts) != 4 or parts[0] not in SHAPES or parts[1] not in PATTERNS or parts[2] not in TEXTURES:
        raise UserError(f"{stimulus_id!r} is not an id of the simulated study; expected e.g. 'disk-plain-brick-0'")
    rng = np.random.default_rng(derive(0, stimulus_id))
    colour = str(rng.choice(tuple(COLOURS)))
    hue = (COLOURS[colour] + rng.uniform(-8, 8)) % 360
    x, y = rng.uniform(*_CENTRE, size=2)
    crop = (float(rng.uniform()), float(rng.uniform()), float(rng.uniform(1.4, 2.4)))
    size, angle = float(rng.uniform(*_RADIUS)), float(rng.uniform(-0.25, 0.25))
    return Scene(parts[0], parts[1], parts[2], colour, hue, size, float(x), float(y), angle, crop)


def render(scene: Scene) -> np.ndarray:
    """The picture as uint8 (64, 64, 3); drawn at twice the size and averaged, so edges are smooth."""
    n = 2 * SIZE
    axis = (np.arange(n, dtype=np.float32) + 0.5) / n
    dx, dy = np.meshgrid(axis - scene.x, axis - scene.y)
    cos, sin = np.cos(scene.angle), np.sin(scene.angle)
    u, v = (cos * dx + sin * dy) / scene.size, (-sin * dx + cos * dy) / scene.size
    inside = _MASKS[scene.shape](u, v)
    rim = inside & ~_MASKS[scene.shape](u * 1.14, v * 1.14)
    mix = _FILLS[scene.pattern](u, v)[..., None]
    bright = np.array(colorsys.hsv_to_rgb(scene.hue / 360, 0.9, 0.95), dtype=np.float32)
    dark = bright * 0.28
    picture = np.repeat(np.repeat(_background(scene), 2, axis=0), 2, axis=1)
    picture = np.where(inside[..., None], mix * dark + (1 - mix) * bright, picture)
    picture = np.where(rim[..., None], 0.06, picture)
    small = picture.reshape(SIZE, 2, SIZE, 2, 3).mean(axis=(1, 3))
    return (small * 255).round().clip(0, 255).astype(np.uint8)


def picture(stimulus_id: str) -> np.ndarray:
    """`render` of `scene_of`: uint8 (64, 64, 3)."""
    return render(scene_of(stimulus_id))


def _background(scene: Scene) -> np.ndarray:
    pyramid = _texture(scene.texture)
    zoom = scene.crop[2]
    level = pyramid[int(np.abs(np.array(_ZOOMS) - zoom).argmin())]
    top = int(scene.crop[0] * (level.shape[0] - SIZE))
    left = int(scene.crop[1] * (level.shape[1] - SIZE))
    return level[top : top + SIZE, left : left + SIZE]


_ZOOMS = (1.4, 1.7, 2.0, 2.4)


@cache
def _texture(name: str) -> tuple[np.ndarray, ...]:
    """The photograph at four scales, float32 [0, 1] (H, W, 3), so that a crop of 64 px covers more or less of it."""
    from PIL import Image
    from skimage import data

    image = np.asarray(getattr(data, _PHOTOGRAPH.get(name, name))())
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    levels = []
    for zoom in _ZOOMS:
        side = (max(SIZE + 1, round(image.shape[1] / zoom)), max(SIZE + 1, round(image.shape[0] / zoom)))
        level = np.asarray(Image.fromarray(image).resize(side, Image.Resampling.LANCZOS), dtype=np.float32) / 255
        levels.append(level * np.array(_TINT.get(name, (1, 1, 1)), dtype=np.float32))
    return tuple(levels)


def _star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    angle = np.arctan2(u, -v)
    fold = np.abs((angle / (2 * np.pi / 5) + 0.5) % 1 - 0.5) * 2
    return np.hypot(u, v) < 1.1 - 0.65 * fold


def _heart(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    x, y = 1.15 * u, -1.15 * v + 0.1
    return (x**2 + y**2 - 0.75) ** 3 - x**2 * y**3 < 0


_MASKS = {
    "disk": lambda u, v: np.hypot(u, v) < 0.95,
    "square": lambda u, v: np.maximum(np.abs(u), np.abs(v)) < 0.82,
    "triangle": lambda u, v: (v < 0.75) & (v > 2 * np.abs(u) - 1.05),
    "ring": lambda u, v: (np.hypot(u, v) < 1.0) & (np.hypot(u, v) > 0.5),
    "cross": lambda u, v: (np.minimum(np.abs(u), np.abs(v)) < 0.32) & (np.maximum(np.abs(u), np.abs(v)) < 1),
    "star": _star,
    "diamond": lambda u, v: np.abs(u) * 1.25 + np.abs(v) < 1.1,
    "crescent": lambda u, v: (np.hypot(u, v) < 1) & (np.hypot(u - 0.5, v) > 0.78),
    "heart": _heart,
    "bar": lambda u, v: (np.abs(u) < 1.05) & (np.abs(v) < 0.42),
}
_FILLS = {  # 1 = dark, 0 = bright
    "plain": lambda u, v: np.zeros_like(u),
    "striped": lambda u, v: (np.sin(u * 9.0) > 0).astype(np.float32),
    "dotted": lambda u, v: ((((u * 2.2) % 1 - 0.5) ** 2 + ((v * 2.2) % 1 - 0.5) ** 2) < 0.085).astype(np.float32),
    "checkered": lambda u, v: ((np.floor(u * 2.4) + np.floor(v * 2.4)) % 2).astype(np.float32),
    "ringed": lambda u, v: (np.sin(np.hypot(u, v) * 11.0) > 0).astype(np.float32),
    "graded": lambda u, v: np.clip(0.5 + 0.75 * v, 0, 1).astype(np.float32),
}
