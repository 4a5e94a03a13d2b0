"""The training loop resumes exactly; the pool keeps test pictures out; the towers' loss and tokenizer are right."""

import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from align.config import load_config
from align.data.studies.simulated.rendering import SHAPES, TEST_CONCEPTS, scene_of
from align.errors import UserError
from align.files import locked, read_json, save_tensors
from align.training.state import load_finished_step
from recon.config import PicturesConfig, PretrainConfig, StageConfig
from recon.generation.loop import Stage, learning_rate, run_stage
from recon.generation.pipeline import Generator
from recon.metrics.reader import ATTRIBUTES, AttributeReader, labels_of, load_reader, reader_loss, save_reader
from recon.pretraining import pictures, pretrain
from recon.pretraining.miniature import build_tokenizer, make_tokenizer, tables_of
from recon.pretraining.parts import finish, load_vae, start_from
from recon.pretraining.pretrain import clip_loss
from recon.pretraining.tokens import Tokens, corrupted, dropped, noised
from recon.pretraining.virtual_brains import VirtualBrains
from tests.recon.tiny_pictures import smooth, write_folder

SCRIPT = """
import sys, time, torch
from pathlib import Path
from tests.recon.test_pretrain import toy_stage
from recon.generation.loop import run_stage
torch.set_num_threads(1)
run_stage(toy_stage(Path(sys.argv[1]), pause=0.01, stop=int(sys.argv[2])))
"""


def toy_stage(folder, steps=60, pause=0.0, stop=60):
    """``stop``: the step that never ends, so that a busy machine cannot let the training end before it is killed."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.3), nn.Linear(16, 1))

    def loss(step, generator):
        time.sleep(pause if step < stop else 3600)
        x = torch.randn(32, 4, generator=generator)
        return (net(x) - x.sum(1, keepdim=True)).square().mean(), {}

    return Stage("toy", {"net": net}, loss, StageConfig(steps, 32, 1e-2), folder, checkpoint_every=7, ema_decay=0.9)


def parameters(modules):
    return torch.cat([p.flatten() for p in modules["net"].state_dict().values()])


@pytest.mark.parametrize("moments", [(21,), pytest.param((7, 21, 42), marks=pytest.mark.long)])
def test_killed_training_ends_like_an_uninterrupted_one(tmp_path, moments):
    """SIGKILL, checkpoints in the making included; same weights, bit for bit."""
    torch.set_num_threads(1)
    whole = parameters(run_stage(toy_stage(tmp_path / "whole")))
    folder = tmp_path / "killed"
    for least in moments:
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(folder), str(least + 9)], stderr=subprocess.DEVNULL
        )
        while load_finished_step(folder) < least and process.poll() is None:
            time.sleep(0.02)
        process.kill()
        process.wait()
        assert least <= load_finished_step(folder) < 60
    (folder / ".state.tmp-1.safetensors").write_bytes(b"half a checkpoint")
    assert torch.equal(parameters(run_stage(toy_stage(folder))), whole)


def test_a_killed_training_writes_no_step_twice_into_its_metrics(tmp_path):
    """Stopped behind a line of metrics and before the next state, with a line cut in half."""
    run_stage(toy_stage(tmp_path / "whole"))
    stage = toy_stage(tmp_path / "killed")
    loss = stage.loss
    stage.loss = lambda step, generator: loss(step, generator) if step < 41 else 1 / 0
    with pytest.raises(ZeroDivisionError):
        run_stage(stage)
    with (tmp_path / "killed" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 60, "lo')
    run_stage(toy_stage(tmp_path / "killed"))
    found, wanted = ((tmp_path / name / "metrics.jsonl").read_text() for name in ("killed", "whole"))
    assert found == wanted and wanted.count("\n") == 3


def test_state_of_another_model_is_refused(tmp_path):
    run_stage(toy_stage(tmp_path, steps=7))
    stage = toy_stage(tmp_path)
    stage.modules = {"net": nn.Sequential(nn.Linear(4, 1))}
    with pytest.raises(UserError, match="of another model"):
        run_stage(stage)


def test_a_loss_that_is_no_number_ends_the_training(tmp_path):
    stage = toy_stage(tmp_path)
    own = stage.loss
    stage.loss = lambda step, generator: (own(step, generator)[0] * (float("nan") if step >= 30 else 1.0), {})
    with pytest.raises(UserError, match=r"toy: the loss of step 40 is nan; take another folder and a lower lr"):
        run_stage(stage)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2, "steps 0 and 20"


@pytest.mark.parametrize("name", ["mini", "mini_gpu"])
def test_recipes_load_and_bad_ones_are_refused(name, tmp_path):
    path = Path(__file__).parents[2] / "configs" / "recon" / f"{name}.yaml"
    config = load_config(PretrainConfig, path, [f"out={tmp_path}", "device=cuda:9", "stages=[clip]"])
    assert config.mini_layer == "1"
    with pytest.raises(UserError, match="device='cuda:9' is not available"):
        pretrain.run(config)
    with pytest.raises(UserError, match="stages='clips' is not known"):
        pretrain.run(load_config(PretrainConfig, path, ["stages=[clips]"]))


def test_learning_rate_warms_up_and_decays():
    rates = [learning_rate(step, 1000, 1.0) for step in range(1000)]
    assert rates[0] == pytest.approx(0.01)
    assert max(rates) == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.02, abs=1e-3)


def test_pool_renders_no_test_concept_and_drops_twins(tmp_path, monkeypatch):
    ids = pictures.rendered_ids(2000)
    assert len(set(ids)) == 2000
    assert not {scene_of(name).concept for name in ids} & set(TEST_CONCEPTS)
    rng = np.random.default_rng(0)
    shown = [np.kron(rng.integers(0, 255, (8, 8, 3)), np.ones((10, 10, 1))).astype(np.uint8) for _ in range(3)]
    for i, image in enumerate(shown):
        Image.fromarray(image).save(tmp_path / f"n0{i}_red_thing.png")
    monkeypatch.setattr("align.data.studies.cowley2023.test_images", lambda root: [shown[1] // 2 + 60])
    monkeypatch.setattr("align.data.studies.cowley2023.pretraining_images", lambda root: [("v4", shown[0])])
    config = PicturesConfig(rendered=4, photographs=[str(tmp_path)], v4_root="somewhere")
    pool = pictures.load_pool(config, tmp_path / "cache")
    assert pool.ids[4:] == ("n00_red_thing.png", "n02_red_thing.png", "v4")
    assert pool.captions[4:] == ("a photo of a red thing", "a photo of a red thing", "")
    assert pool.images.shape == (7, 64, 64, 3)
    assert pool.original(5).shape == (80, 80, 3)
    rows = pool.sample(np.random.default_rng(0), 10, 0.3)
    assert (rows < 4).sum() == 7


def test_missing_photographs_are_refused_before_pictures_are_rendered(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "picture", lambda name: pytest.fail("too late"))
    with pytest.raises(UserError, match="neither a folder nor a zip"):
        pictures.load_pool(PicturesConfig(rendered=3, photographs=[str(tmp_path / "nowhere.zip")]), tmp_path)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("squeezenet_layer=features.99", "has no layer"),
        ("mini_layer=99", "has no layer"),
        ("mini_pooling=grid:40", "finer"),
    ],
)
def test_layers_are_asked_for_before_the_first_stage(tmp_path, monkeypatch, words, told):
    from torchvision.models import squeezenet1_1

    save_tensors(tmp_path / "squeeze.safetensors", squeezenet1_1(weights=None).state_dict())
    monkeypatch.setattr(pretrain, "load_pool", lambda *given: pytest.fail("too late"))
    places = [f"squeezenet_weights={tmp_path / 'squeeze.safetensors'}", f"pictures.photographs=[{tmp_path}]"]
    with pytest.raises(UserError, match=told):
        pretrain.run(load_config(PretrainConfig, None, [*places, f"out={tmp_path / 'out'}", words]))


def test_two_pretrainings_do_not_mix_in_the_folder_of_the_finished_model(tmp_path, monkeypatch):
    """Their checkpoints lie apart."""
    monkeypatch.setattr(pretrain, "load_pool", lambda *given: pytest.fail("too late"))
    monkeypatch.setattr(pretrain, "_require_layers", lambda config: None)
    words = [f"pictures.photographs=[{tmp_path}]", f"out={tmp_path / 'out'}", f"assets={tmp_path / 'model'}"]
    with ThreadPoolExecutor(1) as other, locked(tmp_path / "model" / ".pretrain.lock", "pretraining"):
        second = other.submit(pretrain.run, load_config(PretrainConfig, None, words))
        with pytest.raises(UserError, match=r"another process is pretraining into .*model"):
            second.result()


def test_unreadable_photographs_are_refused(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(UserError, match="not a readable picture"):
        pictures.load_pool(PicturesConfig(rendered=1, photographs=[str(tmp_path)]), tmp_path / "cache")
    with pytest.raises(UserError, match="neither a folder nor a zip"):
        pictures.load_pool(PicturesConfig(rendered=1, photographs=[str(tmp_path / "a.jpg")]), tmp_path / "cache")


def test_the_same_captions_give_the_same_tokenizer():
    captions = [scene_of(name).caption for name in pictures.rendered_ids(460)]
    tables = [tables_of(build_tokenizer(captions)) for _ in range(4)]
    assert all(other == tables[0] for other in tables[1:])
    assert len(set(tables[0][0].values())) == len(tables[0][0])
    words = make_tokenizer(*[f(x) for f, x in zip((dict, lambda m: [tuple(p) for p in m]), tables[0], strict=True)])
    assert words.tokenize("a large disk") == ["a</w>", "large</w>", "disk</w>"]


def test_distinct_captions_have_distinct_ids():
    captions = [scene_of(f"{shape}-plain-fur-{i}").caption for i, shape in enumerate(SHAPES)]
    tokenizer = build_tokenizer(captions)
    again = make_tokenizer(
        *[f(x) for f, x in zip((dict, lambda m: [tuple(p) for p in m]), tables_of(tokenizer), strict=True)]
    )
    for instance in (tokenizer, again):
        ids = instance([*captions, "zebra quagga"], padding="max_length", truncation=True).input_ids
        assert len({tuple(row) for row in ids}) == len(captions) + 1
        assert instance.decode(ids[0], skip_special_tokens=True).strip() == captions[0]


def test_contrastive_loss_is_open_clips_when_captions_differ():
    from open_clip.loss import ClipLoss

    image, text = torch.randn(2, 12, 8).unbind()
    scale = torch.tensor(2.0)
    unit = [nn.functional.normalize(x, dim=-1) for x in (image, text)]
    assert clip_loss(image, text, scale, torch.eye(12).bool()) == pytest.approx(
        float(ClipLoss()(*unit, scale.exp())), rel=1e-5
    )


def test_reader_learns_labels_and_survives_saving(tmp_path):
    torch.manual_seed(0)
    reader = AttributeReader()
    images, labels = (
        torch.rand(4, 3, 64, 64),
        torch.tensor([labels_of(scene_of(f"disk-plain-fur-{i}")) for i in range(4)]),
    )
    probabilities = reader.attributes(images)
    expected = -torch.stack(
        [probabilities[name][range(4), labels[:, i]].log().mean() for i, name in enumerate(ATTRIBUTES)]
    ).mean()
    assert float(reader_loss(reader, images, labels).detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    save_reader(reader, tmp_path)
    assert torch.allclose(load_reader(tmp_path).features(images), reader.features(images), atol=0.02)


def test_start_from_copies_what_fits_and_refuses_the_rest(tmp_path):
    first, second = nn.Linear(3, 2), nn.ModuleDict({"a": nn.Linear(3, 2), "b": nn.Linear(2, 5)})
    finish(tmp_path / "old", {"net": nn.ModuleDict({"a": first, "b": nn.Linear(2, 4)})})
    before = second["b"].weight.clone()
    start_from(tmp_path / "old", {"net": second})
    assert torch.equal(second["a"].weight, first.weight) and torch.equal(second["b"].weight, before)
    with pytest.raises(UserError, match="nothing in"):
        start_from(tmp_path / "old", {"other": nn.Linear(7, 7)})
    with pytest.raises(UserError, match="is missing"):
        start_from(tmp_path / "nowhere", {"net": second})


def test_a_batch_of_captions_names_one_thing():
    ids = tuple(f"{concept}-0" for concept in ("disk-plain-brick", "star-dotted-grass", "ring-striped-fur"))
    pool = pictures.Pool(np.zeros((3, 1, 1, 3), np.uint8), ids, ("", "", ""), 3)
    lengths = [
        {len(text.split()) for text in pretrain.captions_for_clip(pool, np.arange(3), np.random.default_rng(seed))}
        for seed in range(60)
    ]
    assert {2} in lengths and {3} in lengths  # "a disk", "a plain disk"
    assert all(found in ({2}, {3}) or found <= {5, 6} for found in lengths)


class Plain(nn.Linear):
    def standardised(self, tokens):
        return tokens


def test_tokens_are_left_mixed_or_told_by_a_brain():
    values = np.random.default_rng(0).normal(size=(2000, 4, 8)).astype(np.float32)
    given = corrupted(Tokens(values, 0, Plain(1, 1)), np.arange(2000), torch.Generator().manual_seed(0))
    flat, truth = given.flatten(1), torch.tensor(values).flatten(1)
    same = (flat == truth).all(1)
    assert 0.37 < same.float().mean() < 0.43
    alike = torch.nn.functional.cosine_similarity(flat, truth)[~same]
    assert 0.5 < alike.mean() < 0.95


def test_tokens_and_sketch_are_dropped_together_and_each_alone():
    given, hint = dropped(torch.ones(4000, 2, 3), torch.ones(4000, 1, 2, 2), torch.Generator().manual_seed(0))
    silent, blank = given.flatten(1).sum(1) == 0, hint.flatten(1).sum(1) == 0
    assert 0.08 < (silent & blank).float().mean() < 0.12
    for alone in (silent & ~blank, blank & ~silent):
        assert 0.035 < alone.float().mean() < 0.065


def test_a_virtual_brain_gives_the_best_linear_estimate():
    """Against regression of the true tokens on the estimate: what is left over is independent of the estimate, so that
    the slope is 1 where the spread is not restored; with it, the estimates vary as the true tokens do."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(6, 36, generator=generator)
    tokens = (torch.randn(4000, 6, generator=generator) @ basis).view(4000, 9, 4)
    brains = VirtualBrains.draw(tokens, 0, n=3)
    components = (tokens.flatten(1) - brains.mean) @ brains.basis.T
    for keep, noise, restore in zip(brains.keep, brains.noise, brains.restore, strict=True):
        told = components @ keep.T + torch.randn(4000, noise.shape[1], generator=generator) @ noise.T
        slope = (told * components)[:, :6].sum() / told[:, :6].square().sum()
        assert float(slope) == pytest.approx(1, abs=0.05)
        assert (told * restore)[:, :6].var(0) == pytest.approx(components[:, :6].var(0), rel=0.15)
    again = VirtualBrains.draw(tokens, 0, n=3)
    assert torch.equal(again.keep, brains.keep)
    assert brains.estimate(tokens[:5], torch.Generator().manual_seed(1)).shape == (5, 9, 4)


def test_a_table_names_the_classes_of_folders(tmp_path):
    (tmp_path / "classes.csv").write_text("wnid,name\nn02124075,Egyptian cat\n", encoding="utf-8")
    (tmp_path / "photos" / "n02124075").mkdir(parents=True)
    Image.new("RGB", (8, 8), (9, 9, 9)).save(tmp_path / "photos" / "n02124075" / "n02124075_1.png")
    Image.new("RGB", (8, 8), (99, 9, 9)).save(tmp_path / "photos" / "beach.png")
    config = PicturesConfig(1, [str(tmp_path / "photos")], classes=str(tmp_path / "classes.csv"))
    assert pictures.load_pool(config, tmp_path / "cache").captions[1:] == ("", "a photo of a egyptian cat")
    (tmp_path / "other.csv").write_text("id,name\n1,cat\n", encoding="utf-8")
    with pytest.raises(UserError, match="no columns wnid and name"):
        pictures.load_pool(PicturesConfig(1, [], classes=str(tmp_path / "other.csv")), tmp_path / "cache")


def test_a_finished_pretraining_is_a_folder_that_the_stock_pipeline_draws_from(tmp_path):
    """One step of each stage; the stored example is what the stock pipeline and the project's own loop both draw."""
    from torchvision.models import squeezenet1_1

    weights = tmp_path / "squeeze.safetensors"
    save_tensors(weights, squeezenet1_1(weights=None).state_dict())
    write_folder(tmp_path / "photos", {f"n0{i}_red_thing.png": picture for i, picture in enumerate(smooth(4, 64))})
    stages = [f"{name}.steps=1" for name in pretrain.STAGES]
    stages += [f"{name}.batch_size=4" for name in pretrain.STAGES]
    words = ["pictures.rendered=8", f"pictures.photographs=[{tmp_path / 'photos'}]", f"squeezenet_weights={weights}"]
    words += ["mini_pooling=grid:8", "precision=fp32", f"out={tmp_path / 'out'}", *stages]
    words += [f"assets={tmp_path / 'model'}"]  # apart from the checkpoints
    assets = pretrain.run(load_config(PretrainConfig, None, words))

    before, after = (load_file(tmp_path / "out" / name / "done.safetensors") for name in ("vae", "decoder"))
    assert all(key.startswith(("decoder/", "post_quant_conv/")) for key in after)
    assert any(not torch.equal(before[f"vae/{key.replace('/', '.', 1)}"], value) for key, value in after.items())
    written, vae = load_file(assets / "vae" / "diffusion_pytorch_model.safetensors"), load_vae(tmp_path / "out")[0]
    assert all(torch.equal(value.half(), written[key]) for key, value in vae.state_dict().items())
    stored, drawn = load_file(assets / "example.safetensors"), np.asarray(Image.open(assets / "example.png"))
    conditioner = assets / "conditioners" / "mini_1.safetensors"
    model = Generator.load(str(assets), conditioner)
    assert model.reads_sketch and len(list((assets / "conditioners").iterdir())) == 2
    tokens = stored["ip_adapter_image_embeds"][0][..., : model.conditioner_info.width]
    own = model.generate(tokens, [0], sketch=stored["image"])
    assert np.abs(own[0].permute(1, 2, 0).numpy() * 255 - drawn).max() < 1.5
    without = model.generate(tokens, [0], sketch=torch.zeros_like(stored["image"]))
    assert np.abs((own - without).numpy()).max() > 0.01

    again = load_config(PretrainConfig, None, [*words, "sketch.steps=2", "checkpoint_every=1"])
    with pytest.raises(UserError, match=r"sketch' was begun with sketch\.steps=1, not 2; delete it"):
        pretrain.run(again)
    shutil.rmtree(tmp_path / "out" / "sketch")
    again.stages = ["sketch"]
    pretrain.run(again)
    assert read_json(tmp_path / "out" / "sketch" / "begun_with.json")["asked"]["sketch.steps"] == 2


@pytest.fixture(autouse=True)
def no_noise_of_samplers(monkeypatch):
    """Training never asks a sampler for noise: before its steps are set, that of a multistep solver is reversed."""
    from diffusers import DPMSolverMultistepScheduler

    monkeypatch.delattr(DPMSolverMultistepScheduler, "add_noise")


@pytest.mark.parametrize("kind", ["DDIM", "DPMSolverMultistep", "EulerDiscrete", "LCM", "PNDM", "UniPCMultistep"])
def test_the_noise_of_a_step_is_that_of_its_schedule(kind):
    import diffusers

    settings = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    scheduler = getattr(diffusers, f"{kind}Scheduler")(**settings)
    clean, noise = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0, 500, 999])
    wanted = diffusers.DDPMScheduler(**settings).add_noise(clean, noise, t)
    assert torch.allclose(noised(scheduler, clean, noise, t), wanted, atol=1e-5)
    assert (wanted[0] - clean[0]).abs().mean() < 0.05 < 0.9 < (wanted[2] - clean[2]).abs().mean()
