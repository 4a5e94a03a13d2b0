"""The embedded generator: captions make a difference, its size stays within bounds, its conditioners are found."""

import numpy as np

from recon.generation.pipeline import find_conditioner
from recon.generation.places import mini_folder
from recon.generation.sketch import load_sketch

CAPTIONS = (
    "a large red plain disk at the middle center on grass",
    "a large blue plain disk at the middle center on stars",
)


def test_distinct_captions_give_distinct_ids_and_pictures():
    import torch
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(mini_folder(), local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    ids = [pipe.tokenizer(caption).input_ids for caption in CAPTIONS]
    pictures = [
        np.asarray(
            pipe(caption, num_inference_steps=4, generator=torch.Generator().manual_seed(0)).images[0], dtype=int
        )
        for caption in CAPTIONS
    ]
    assert ids[0] != ids[1]
    assert np.abs(pictures[0] - pictures[1]).mean() > 5  # of 255


def test_assets_stay_within_40_mb():
    assert sum(path.stat().st_size for path in mini_folder().parent.rglob("*") if path.is_file()) <= 40e6


def test_both_conditioners_ship(tmp_path):
    for backbone, layer, pooling in (("mini", "1", "grid:4"), ("torchvision/squeezenet1_1", "features.6", "grid:7")):
        path = find_conditioner(backbone, layer, pooling, tmp_path)
        assert path.parent == mini_folder() / "conditioners" and load_sketch(path) is not None
