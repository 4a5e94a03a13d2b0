"""The embedded generator: captions make a difference, its size stays within bounds, its conditioners are found."""

from recon.generation.pipeline import find_conditioner
from recon.generation.places import mini_folder
from recon.generation.sketch import load_sketch

CAPTIONS = (
    "a large red plain disk at the middle center on grass",
    "a large blue plain disk at the middle center on stars",
)


def test_captions_make_a_difference(tmp_path):
    """Without an adapter, and without a coarse picture."""
    import torch

    from recon.generation.pipeline import Generator

    model = Generator.load("mini", find_conditioner("mini", "1", "grid:8", tmp_path))
    tokens = torch.zeros(2, *model.bridge.takes)
    gray = torch.full((2, 3, model.size, model.size), 0.5)
    drawn = model.generate(tokens, [0, 0], 4, scale=0.0, prompts=CAPTIONS, sketch=gray)
    assert (drawn[0] - drawn[1]).abs().mean() > 0.02


def test_assets_stay_within_80_mb():
    assert sum(path.stat().st_size for path in mini_folder().parent.rglob("*") if path.is_file()) <= 80e6


def test_both_conditioners_ship(tmp_path):
    for backbone, layer, pooling in (("mini", "1", "grid:8"), ("torchvision/squeezenet1_1", "features.6", "grid:7")):
        path = find_conditioner(backbone, layer, pooling, tmp_path)
        assert path.parent == mini_folder() / "conditioners" and load_sketch(path) is not None
