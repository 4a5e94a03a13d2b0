"""`recon.Decoder`: the numbers of the commands, from Python; own encoders and metrics; kept and opened again."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from align import retrieval
from align.checkpoint import MODEL, load_run, weights_hash
from align.errors import UserError
from recon import Decoder, Pictures, Study, cli
from recon.api.fitting import as_the_command
from recon.drawing.folders import read_pictures, read_seed
from recon.evaluation.report import retrieval_report
from tests.one_line import fails
from tests.recon.api_study import CHANNELS, N_PICTURES, N_TEST, SFREQ, Net, decoder, pictures, signals, stimulus, study

QUICK: dict[str, Any] = {"n_boot": 50, "n_perm": 50}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Training from Python and by the command both take all cores; here both keep the thread that a test has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("align.train.use_all_cores", lambda: None)
        yield


def test_training_has_the_threads_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr("align.train.use_all_cores", lambda: torch.set_num_threads(before + 3))
    with as_the_command():
        assert torch.get_num_threads() == before + 3
    assert torch.get_num_threads() == before


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("decoder")


@pytest.fixture(scope="module")
def made(place: Path) -> Study:
    return study(place / "study")


@pytest.fixture(scope="module")
def fitted(place: Path, made: Study) -> Decoder:
    return decoder(place, run_dir=place / "run").fit(made)


@pytest.fixture(scope="module")
def drawn(fitted: Decoder) -> Pictures:
    return fitted.reconstruct(seeds=(0, 3), steps=2)


def test_another_seed_gives_other_weights(place: Path, fitted: Decoder) -> None:
    other = decoder(place, seed=1).fit(fitted._study)
    assert other.run_.meta["weights_hash"] != fitted.run_.meta["weights_hash"] == weights_hash(place / "run")


def test_scores_are_those_of_the_command(place: Path, fitted: Decoder, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["retrieve", "--subject", "01", "--run", str(place / "run"), "evaluate.n_boot=50", "evaluate.n_perm=50"]
    assert cli.main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["retrieval"]
    table = fitted.score(**QUICK)
    assert list(table.index) == ["brain_to_image", "image_to_brain"]
    for direction, row in table.iterrows():
        entry = told[direction]
        assert entry["ci95_top1"] == [row["ci95_low"], row["ci95_high"]]
        for name in ("top1", "top5", "median_rank", "n", "candidates", "chance_top1", "p_permutation"):
            assert entry[name] == row[name], name
    assert table.loc["brain_to_image", "n"] == N_TEST


def test_pictures_are_those_of_the_command(place: Path, drawn: Pictures, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["generate", "--subject", "01", "--run", str(place / "run"), "--seeds", "0", "3", "--steps", "2"]
    assert cli.main([*words, "--out", str(place / "drawn"), "--json"]) == 0
    folder = place / "drawn" / "reconstructions" / "mini" / "sub-01"
    for column, seed in enumerate((0, 3)):
        files = read_pictures(folder, read_seed(folder, seed), drawn.ids)
        np.testing.assert_array_equal(files.numpy(), drawn.images[:, column])
    assert drawn.images.shape == (N_TEST, 2, 3, 64, 64)
    assert 0 <= drawn.images.min() < drawn.images.max() <= 1
    assert drawn.targets is not None
    for name, target in zip(drawn.ids, drawn.targets, strict=True):
        expected = pictures()[int(name.removesuffix(".png"))].transpose(2, 0, 1) / np.float32(255)
        np.testing.assert_allclose(target, expected, atol=1e-6)


def test_predictions_of_raw_trials_are_those_of_prepared_ones(fitted: Decoder) -> None:
    raw, run = signals()[:5], fitted.run_
    tokens, embeds = fitted.predict(raw)
    from align.data.studies import open_study

    recording = open_study(run.config).recording("01")
    rows = [list(recording.train.x[:, 0, 0]).index(x) for x in fitted.preparation(raw)[:, 0, 0]]
    expected = run.aligner.predict(recording.train.x[rows])
    np.testing.assert_array_equal(embeds, expected["embeds"])
    np.testing.assert_array_equal(tokens, expected["tokens"])
    np.testing.assert_array_equal(fitted.predict(torch.from_numpy(raw).requires_grad_())[1], embeds)
    assert not np.allclose(run.aligner.predict(raw)["embeds"], embeds, atol=1e-3)  # scaling is not the identity here


def test_another_unit_is_warned_of_with_the_factor(fitted: Decoder) -> None:
    with pytest.warns(UserWarning, match="e-06 times as large as those of training"):
        fitted.predict(signals() * 1e-6)


@pytest.mark.parametrize(("factor", "words"), [(1e6, "1 of 72 trials"), (1e-6, "first: row 3"), (0, None)])
def test_one_trial_in_another_unit_is_warned_of(fitted: Decoder, factor: float, words: str | None) -> None:
    x = signals()
    x[3] *= factor
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        fitted.predict(x)
    assert [words in str(warning.message) for warning in said] == ([] if words is None else [True])
    with pytest.warns(UserWarning, match="every value of the signals is 0"):
        fitted.predict(x * 0)


def channel_in_volts(x: np.ndarray) -> None:
    x[:, 2] *= 1e-6


def channel_too_large(x: np.ndarray) -> None:
    x[:, 5] *= 1e6


def silent_channel(x: np.ndarray) -> None:
    x[:, 6] = 0


CHANGED: dict[str, tuple[Callable[[np.ndarray], Any], str]] = {
    "small": (channel_in_volts, "1 of 8 channels are of another size than in training: Oz (about 1e-06 times)"),
    "large": (channel_too_large, "1 of 8 channels are of another size than in training: Pz (about 1e+06 times)"),
    "silent": (silent_channel, "Fz (0 throughout)"),
    "as in training": (lambda x: None, ""),
    "somebody else's": (lambda x: np.multiply(x, np.linspace(1, 9, 8)[:, None], out=x), ""),
}


@pytest.mark.parametrize("change", CHANGED)
def test_a_channel_in_another_unit_is_warned_of_by_name(fitted: Decoder, change: str) -> None:
    x = signals()
    CHANGED[change][0](x)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        fitted.predict(x)
    assert [CHANGED[change][1] in str(warning.message) for warning in said] == ([True] if CHANGED[change][1] else [])


@pytest.mark.parametrize(
    "steps",
    [
        {"scale": "none"},
        {"scale": "robust", "preprocess__clamp": 1.5},
        {"preprocess__mvnn": True, "preprocess__channels": ["O.*", "P.*"]},
        {"preprocess__tmin": 0.02, "preprocess__tmax": 0.12, "preprocess__sfreq": 50},
    ],
    ids=["none", "robust", "mvnn", "window"],
)
def test_every_step_is_done_again_and_kept(steps: dict[str, Any], tmp_path: Path, place: Path, made: Study) -> None:
    one = decoder(place, **steps).fit(made)
    from align.data.studies import open_study

    prepared = open_study(one.run_.config).recording("01").train.x
    stored = made.recording().train.x
    np.testing.assert_allclose(one.preparation(stored), prepared, rtol=0, atol=1e-6)
    one.save(tmp_path / "kept")
    again = Decoder.load(tmp_path / "kept")
    np.testing.assert_array_equal(again.predict(stored)[1], one.predict(stored)[1])
    assert (
        again.get_params()["settings"].items()
        >= {k.replace("__", "."): v for k, v in steps.items() if "__" in k}.items()
    )


def test_retrieval_ranks_candidates_by_cosine(fitted: Decoder) -> None:
    x = signals()[:4]
    table = fitted.retrieve(x, pictures()[:9], top=3)
    cosines = retrieval.scores(fitted.predict(x)[1], fitted.embed_images(pictures()[:9]))
    assert list(table.columns) == ["trial", "rank", "candidate", "cosine"] and len(table) == 12
    for trial, rows in table.groupby("trial"):
        assert list(rows["candidate"]) == list(np.argsort(-cosines[trial])[:3])
        np.testing.assert_allclose(rows["cosine"], np.sort(cosines[trial])[::-1][:3])
    assert len(fitted.retrieve(x, list(pictures()[:9]), top=None)) == 36


def test_signals_alone_teach_and_their_study_scores(place: Path) -> None:
    x, images = signals(), pictures()[stimulus()]
    train = stimulus() < N_PICTURES - N_TEST
    one = decoder(place, train__epochs=40).fit(x[train], images[train], sfreq=SFREQ, ch_names=CHANNELS)
    assert one.run_.study == "arrays" and one.run_.meta["ch_names"] == list(CHANNELS)
    fails("hold no test; pass a Study", one.score)
    table = one.score(study(), **QUICK)
    averaged = one.predict((x[~train][:N_TEST] + x[~train][N_TEST:]) / 2)[1]
    cosines = retrieval.scores(averaged, one.embed_images(pictures()[-N_TEST:]))
    expected = retrieval.report(cosines, **QUICK)["brain_to_image"]
    for name in ("top1", "top5", "median_rank", "n"):
        assert table.loc["brain_to_image", name] == expected[name], name
    assert one.reconstruct(x[:2], steps=1).images.shape == (2, 1, 3, 64, 64)
    seen = study(test=list(range(N_TEST)))
    fails(r"12 test pictures were training pictures, first '00000.png'", lambda: one.score(seen, **QUICK))
    fails("72 trials but 3 images", lambda: decoder(place).fit(x, images[:3]))
    fails("3 groups for 72 trials", lambda: decoder(place).fit(x, images, groups=[1, 2, 3]))


def test_equal_rows_teach_the_same_with_a_study_or_without(place: Path, made: Study, fitted: Decoder) -> None:
    recording = made.recording()
    train = recording.train
    images = [recording.stimuli.load(int(i)) for i in train.stimulus]
    one = decoder(place).fit(train.x, images, sfreq=SFREQ, ch_names=CHANNELS)
    np.testing.assert_allclose(one.predict(train.x)[1], fitted.predict(train.x)[1], atol=1e-4)


@pytest.mark.parametrize("own", [Net, Net(len(CHANNELS), None, 12)], ids=["factory", "module"])
def test_an_encoder_of_ones_own(own: Any, place: Path, tmp_path: Path, made: Study) -> None:
    encoder = own if isinstance(own, nn.Module) else (lambda n_chans, n_times, width: Net(n_chans, n_times, width))
    before = {name: value.clone() for name, value in own.state_dict().items()} if isinstance(own, nn.Module) else {}
    one = decoder(place, encoder=encoder).fit(made)
    tokens, embeds = one.predict(signals()[:3])
    assert tokens is not None and embeds.shape == (3, 12 if isinstance(own, nn.Module) else 16)
    assert isinstance(one.run_.aligner.network.encoder, Net)
    for name, value in before.items():
        assert torch.equal(value, own.state_dict()[name])  # the module given stays as it is
        assert not torch.equal(value, one.run_.aligner.network.encoder.state_dict()[name])
    assert (
        one.fit(made).run_.meta["weights_hash"] == decoder(place, encoder=encoder).fit(made).run_.meta["weights_hash"]
    )
    one.save(tmp_path / "own")
    text = fails("a module of its maker's own", lambda: Decoder.load(tmp_path / "own"))
    assert "encoder=MODULE" in text
    fails("a module of its maker's own", lambda: load_run(tmp_path / "own"))
    again = Decoder.load(tmp_path / "own", encoder=encoder)
    np.testing.assert_array_equal(again.predict(signals()[:3])[1], embeds)
    fails("gives embeds of width 128", lambda: Decoder.load(tmp_path / "own", encoder=nn.Flatten()))


class Bad(nn.Module):
    """Gives more axes than it should."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.parametrize(
    ("encoder", "told"),
    [
        (Bad(), r"own encoder Bad makes \(2, 8, 16\) of 2 trials; it should give \(2, width\)"),
        (nn.Linear(3, 4), r"own encoder Linear cannot read trials \(2, 8, 16\)"),
        (lambda n_chans, n_times, width: 3, "returns int, no torch module"),
        (lambda n_chans, n_times, width: 1 / 0, "ZeroDivisionError"),
        (lambda n_chans, n_times, width: Net(n_chans, n_times, 5), "gives embeds of width 5, encoder.width is 16"),
    ],
)
def test_an_own_encoder_that_does_not_fit_is_one_line(encoder: Any, told: str, place: Path, made: Study) -> None:
    fails(told, lambda: decoder(place, encoder=encoder).fit(made))


def brightness(own: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """How far the mean brightness is off."""
    return np.abs(own.mean((1, 2, 3)) - truth.mean((1, 2, 3)))


brightness.better = "lower"  # type: ignore[attr-defined]


def test_a_metric_of_ones_own_stands_beside_the_others(drawn: Pictures) -> None:
    table = drawn.evaluate(metrics=["PixCorr", brightness], **QUICK)
    assert list(table.index) == ["PixCorr", "brightness"] and list(table["better"]) == ["higher", "lower"]
    truth = np.stack(drawn.targets or [])
    each = [brightness(drawn.images[:, seed], truth) for seed in range(2)]
    row = table.loc["brightness"]
    assert row["value"] == pytest.approx(np.mean(each), abs=2e-3) and row["n"] == N_TEST and row["samples"] == 2
    assert row["grey"] == pytest.approx(np.abs(0.5 - truth.mean((1, 2, 3))).mean(), abs=2e-3)
    assert row["shuffled"] != row["value"] and 0 < row["p_shuffled"] <= 1
    fails("gives", lambda: drawn.evaluate(metrics=[lambda own, truth: 1.0]))
    fails("failed: ZeroDivisionError", lambda: drawn.evaluate(metrics=[lambda own, truth: 1 / 0]))
    fails("neither a name nor a function", lambda: drawn.evaluate(metrics=[3]))
    fails("'PixCor' is not known", lambda: drawn.evaluate(metrics=["PixCor"]))


def test_pictures_are_shown_and_stored(drawn: Pictures, tmp_path: Path) -> None:
    page = drawn.gallery(tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("<img") == N_TEST * 3 and 'src="http' not in page
    assert drawn.gallery(tmp_path / "sheet.png").stat().st_size > 1000
    fails("should end in .html or .png", lambda: drawn.gallery(tmp_path / "page.pdf"))
    folder = drawn.save(tmp_path / "pictures")
    np.testing.assert_allclose(read_pictures(folder, read_seed(folder, 3), drawn.ids).numpy(), drawn.images[:, 1])
    fails("holds pictures already", lambda: drawn.save(folder))
    assert drawn._repr_html_().count("<img") == 6 * 3
    assert repr(drawn) == "<Pictures: 12 x 2 seeds, 64 x 64 px, by mini>" and len(drawn) == N_TEST


def test_everything_shows_itself_shortly(fitted: Decoder) -> None:
    report = retrieval_report(fitted.run_)
    for one in (fitted, fitted.run_, fitted._study, fitted._study.recording("01"), report):  # type: ignore[union-attr]
        assert len(repr(one)) < 150 and "\n" not in repr(one)
        assert one._repr_html_().startswith("<div>") and "<table>" in one._repr_html_()
    assert Decoder()._repr_html_().startswith("<div>")


def test_where_it_reads_is_where_the_code_is(place: Path, made: Study) -> None:
    one = decoder(place, train__epochs=40).fit(made)
    drops = one.channel_importance(folds=2, n_boot=50)
    assert list(drops.index) == list(CHANNELS) and (drops["n"] == N_PICTURES - N_TEST).all()
    assert drops["whole"].iloc[0] > 0.2
    assert drops["drop"].iloc[:6].mean() > drops["drop"].iloc[6:].mean()
    figure = one.plot_topomap(importance=drops)
    assert "channels this decoder reads" in figure.axes[0].get_title() and len(figure.axes) == 2
    nameless = drops.rename(index=lambda name: f"x{name}")
    fails("the place of 0 of 8 channels is known", lambda: one.plot_topomap(importance=nameless))
    fails("folds=1 should be 2 or more", lambda: one.channel_importance(folds=1))


def test_time_course_is_a_figure(fitted: Decoder) -> None:
    figure = fitted.plot_timecourse(width=0.08, step=0.04, n_perm=20)
    assert "windows of 80 ms" in figure.get_suptitle()


def test_scikit_learn_clones_it(place: Path) -> None:
    from sklearn.base import clone

    one = decoder(place, settings={"loss": {"temperature": 0.5}}, encoder=Net(8, 16, 4))
    copy = clone(one)
    assert copy.get_params().keys() == one.get_params().keys() and copy.encoder is not one.encoder
    assert copy._configured({}).loss.temperature == 0.5
    assert copy.set_params(train__epochs=7, seed=3) is copy
    assert copy._configured({}).train.epochs == 7 and one._configured({}).train.epochs == 3
    fails("did you mean 'train.epochs'", lambda: copy.set_params(train__epoch=2, seed=9))
    assert copy.seed == 3


@pytest.mark.parametrize(
    ("action", "told"),
    [
        (lambda: Decoder(train__epoch=2), "unknown key 'train.epoch'; did you mean 'train.epochs'"),
        (lambda: Decoder(settings={"train.epochs": 0}), "train.epochs=0 should be 1 or more"),
        (lambda: Decoder(encoder="mpl"), "did you mean 'mlp'"),
        (lambda: Decoder(encoder=Net), "no name, torch module or function"),
        (lambda: Decoder(scale="zcore"), "did you mean 'zscore'"),
        (lambda: Decoder(backbone="torchvison/alexnet"), "did you mean 'torchvision/MODEL'"),
        (lambda: Decoder(settings={"target": {"layer": "2"}}), "'target.layer' is set by layer"),
        (lambda: Decoder(study__root="x"), "'study.root' is set by Study.open"),
        (lambda: Decoder(protocol="pooled"), "a Decoder reads one person"),
        (lambda: Decoder(settings={"train.epochs": 2}, train__epochs=3), "'train.epochs' is given twice"),
        (lambda: Decoder(settings=3), "settings=3 is no mapping"),
        (lambda: Decoder().predict(np.zeros((2, 3))), "is not fitted"),
        (lambda: Decoder().fit(np.zeros((2, 3))), "signals need pictures to learn from"),
        (lambda: Decoder.load("nowhere"), "nowhere"),
    ],
)
def test_what_cannot_be_is_one_line(action: Callable[[], object], told: str) -> None:
    fails(told, action)


def test_what_a_fitted_decoder_cannot_do_is_one_line(fitted: Decoder, tmp_path: Path) -> None:
    fails(r"signals have shape \(2, 3\), training trials were \(n, 8, 16\)", lambda: fitted.predict(np.zeros((2, 3))))
    fails("NaN", lambda: fitted.predict(np.full((2, 8, 16), np.nan)))
    fails("no Study", lambda: fitted.score(signals()))
    fails("reconstruct knows no option 'lowlevel'", lambda: fitted.reconstruct(lowlevel="none"))
    fails("give different whole numbers", lambda: fitted.reconstruct(seeds=(1, 1)))
    fails("exists already", lambda: fitted.save(tmp_path))


def test_a_study_and_a_decoder_do_not_contradict_each_other(made: Study, place: Path) -> None:
    cut = Study.open("folder", made.root, preprocess__tmax=0.1)
    one = decoder(place, preprocess__tmax=0.12)
    fails("preprocess.tmax is 0.1 in the study and 0.12 in the decoder; set it once", lambda: one.fit(cut))


def test_saved_weights_are_the_run(fitted: Decoder, tmp_path: Path) -> None:
    kept = fitted.save(tmp_path / "kept")
    assert weights_hash(kept) == fitted.run_.meta["weights_hash"] and (kept / MODEL).is_file()
    again = Decoder.load(kept)
    pd.testing.assert_frame_equal(again.score(**QUICK), fitted.score(**QUICK))
    with pytest.raises(UserError, match="not '07'"):
        Decoder.load(kept, subject="07")
