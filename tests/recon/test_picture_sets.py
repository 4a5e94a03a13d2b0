"""Pictures in every form people have them: which pixels come out, in which order, and what is refused."""

from __future__ import annotations

import csv
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from align.errors import UserError
from recon.scoring import picture_folders
from recon.scoring.opening import open_pair, open_pictures
from recon.scoring.picture_sets import OpenedPictures
from tests.recon.tiny_pictures import smooth, write_folder

TRUTH = smooth(3)
NAMES = ("ant", "bee", "cat_0")  # the last one looks like a sample of "cat"


def targets(folder: Path) -> Path:
    return write_folder(folder / "targets", {f"{name}.png": pixels for name, pixels in zip(NAMES, TRUTH, strict=True)})


def shade(pixels: np.ndarray, sample: int) -> np.ndarray:
    """Another picture for each sample, from which the sample can be told."""
    return (pixels // 2 + 10 * sample).astype(np.uint8)


def require_samples(told: OpenedPictures, k: int = 2, rows: tuple[int, ...] = (0, 1, 2)) -> None:
    """Row i, sample s of ``told`` is the shaded i-th target, and nothing else."""
    assert (told.n, told.samples, told.size) == (3, k, 32)
    for sample in range(k):
        assert np.array_equal(told.read(list(rows), sample), shade(TRUTH[list(rows)], sample))


def two_samples(folder: Path, pattern: str) -> Path:
    """``pattern`` with {name} and {sample}; written in an order that is not the one of the targets."""
    pictures = {
        pattern.format(name=name, sample=sample): shade(pixels, sample)
        for name, pixels in reversed(list(zip(NAMES, TRUTH, strict=True)))
        for sample in (1, 0)
    }
    return write_folder(folder / "told", pictures)


def test_folders_are_paired_by_stem_never_by_order(tmp_path: Path) -> None:
    names = dict(zip(("cat_0.bmp", "ant.tiff", "bee.PNG"), TRUTH[[2, 0, 1]], strict=True))
    told, truth = open_pair(write_folder(tmp_path / "told", names), targets(tmp_path))
    assert truth.ids == told.ids == NAMES
    assert np.array_equal(told.read([0, 1, 2], 0), TRUTH)
    assert np.array_equal(told.read([2, 0], 0), TRUTH[[2, 0]])


def test_files_and_subfolders_that_sort_differently_are_paired_by_id(tmp_path: Path) -> None:
    truth = write_folder(tmp_path / "t", {"ant.png": TRUTH[0], "ant2.png": TRUTH[1], "bee.png": TRUTH[2]})
    nested = write_folder(tmp_path / "r", {f"{n}/0.png": p for n, p in zip(("ant", "ant2", "bee"), TRUTH, strict=True)})
    assert open_pictures(truth).ids == ("ant2", "ant", "bee") != open_pictures(nested).ids
    told, truth_set = open_pair(nested, truth)
    assert np.array_equal(told.read([0, 1, 2], 0), truth_set.read([0, 1, 2], 0))


@pytest.mark.parametrize("pattern", ["{name}_{sample}.png", "{name}_seed-{sample}.png", "{name}/{sample}.png"])
def test_samples_are_told_by_name(pattern: str, tmp_path: Path) -> None:
    told, truth = open_pair(two_samples(tmp_path, pattern), targets(tmp_path))
    assert told.ids == truth.ids == NAMES
    require_samples(told)
    require_samples(told, rows=(2, 0))


def test_ten_samples_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    pictures = {f"{name}/{s}.png": shade(p, s) for name, p in zip(NAMES, TRUTH, strict=True) for s in range(11)}
    told, _ = open_pair(write_folder(tmp_path / "told", pictures), targets(tmp_path))
    require_samples(told, k=11)


def test_the_index_of_recon_generate_is_believed_over_file_names(tmp_path: Path) -> None:
    folder = write_folder(
        tmp_path / "told",
        {f"file{i}{s}.png": shade(p, s) for i, p in enumerate(TRUTH) for s in (0, 1)} | {"stray.png": TRUTH[0]},
    )
    with (folder / "index.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["stimulus_id", "file", "seed", "run"])
        writer.writerows([NAMES[i], f"file{i}{s}.png", str(9 + s), "x"] for i in (2, 0, 1) for s in (1, 0))
    told, _ = open_pair(folder, targets(tmp_path))
    require_samples(told)  # seed 9 before seed 10
    (folder / "file00.png").unlink()
    with pytest.raises(UserError, match=r"file00\.png' of index\.csv does not exist"):
        open_pictures(folder)
    (folder / "index.csv").write_bytes(b"stimulus_id,file,seed\nant\xff,a,0\n")
    with pytest.raises(UserError, match="no CSV in UTF-8"):
        open_pictures(folder)
    (folder / "index.csv").write_text("stimulus_id,file,seed\nant\n")
    with pytest.raises(UserError):
        open_pictures(folder)


def test_targets_are_never_taken_apart(tmp_path: Path) -> None:
    names = ("1_1", "1_2", "2_1")
    truth = write_folder(tmp_path / "t", {f"{name}.png": p for name, p in zip(names, TRUTH, strict=True)})
    told = write_folder(
        tmp_path / "r", {f"{name}_{s}.png": shade(p, s) for name, p in zip(names, TRUTH, strict=True) for s in (0, 1)}
    )
    told_set, truth_set = open_pair(told, truth)
    assert truth_set.ids == names
    require_samples(told_set)


def test_hidden_files_and_folders_are_no_pictures(tmp_path: Path) -> None:
    folder = targets(tmp_path)
    write_folder(folder, {".ipynb_checkpoints/ant.png": TRUTH[0], "__MACOSX/ant.png": TRUTH[0], ".ant.png": TRUTH[0]})
    (folder / "notes.txt").write_text("not a picture")
    assert open_pictures(folder).ids == NAMES


def test_pictures_beyond_the_held_ones_are_decoded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for held, again in ((2**30, False), (100, True)):
        monkeypatch.setattr(picture_folders, "HELD", held)
        folder = targets(tmp_path / str(held))
        pictures = open_pictures(folder)
        first = pictures.read([0, 1, 2], 0)
        write_folder(folder, {"ant.png": TRUTH[1]})
        assert np.array_equal(first, TRUTH)
        assert np.array_equal(pictures.read([0], 0)[0], TRUTH[1] if again else TRUTH[0])


@pytest.mark.parametrize("digits", ["{}.png", "{:03d}.png"])
def test_a_folder_of_row_numbers_meets_a_stack(digits: str, tmp_path: Path) -> None:
    stack = smooth(11)
    folder = write_folder(tmp_path / "f", {digits.format(i): p for i, p in enumerate(stack)})
    told, truth = open_pair(folder, stack)
    assert np.array_equal(told.read(range(11), 0), stack)
    told, truth = open_pair(stack, folder)
    assert np.array_equal(told.read(range(11), 0), truth.read(range(11), 0))
    assert truth.ids is not None and told.ids == truth.ids
    sampled = write_folder(tmp_path / "s", {f"{i}_{s}.png": shade(p, s) for i, p in enumerate(TRUTH) for s in (0, 1)})
    require_samples(open_pair(sampled, TRUTH)[0])


def stacks(folder: Path, stack: torch.Tensor) -> list[object]:
    """The same pictures (n, ..., 3, H, W) in [0, 1] in every form of stack."""
    folder.mkdir(exist_ok=True)
    last = stack.movedim(-3, -1)
    np.save(folder / "first.npy", stack.numpy())
    np.save(folder / "last.npy", last.numpy())
    np.save(folder / "bytes.npy", (last * 255).round().to(torch.uint8).numpy())
    torch.save(stack, folder / "subj01_all_recons.pt")
    torch.save(stack, folder / "old.pth", _use_new_zipfile_serialization=False)
    torch.save(list(stack), folder / "list.pt")
    torch.save({"epoch": 3, "recons": stack, "features": torch.zeros(3, 7)}, folder / "dict.pt")
    torch.save({1: stack}, folder / "numbered.pt")
    save_file({"images": stack.contiguous(), "clip": torch.zeros(3, 2)}, folder / "a.safetensors")
    return [*sorted(folder.iterdir()), stack, stack.numpy(), last.numpy(), list(stack), stack.double()]


@pytest.mark.parametrize("k", [1, 2])
def test_stacks_of_every_form_are_the_same_pictures(k: int, tmp_path: Path) -> None:
    shaded = np.stack([shade(TRUTH, s) for s in range(k)], axis=1)
    stack = torch.from_numpy(shaded).movedim(-1, -3).float() / 255
    forms = stacks(tmp_path / "stacks", stack if k > 1 else stack[:, 0])
    assert len(forms) == 14
    for form in forms:
        pictures = open_pictures(form)
        assert (pictures.n, pictures.samples, pictures.size, pictures.ids) == (3, k, 32, None), form
        for sample in range(k):
            batch = pictures.batch([2, 0, 2], sample)
            assert batch.dtype == torch.float32
            assert torch.allclose(batch, stack[[2, 0, 2], sample], atol=1e-6), form
            assert np.array_equal(pictures.bytes8([2, 0, 2], sample), shade(TRUTH[[2, 0, 2]], sample)), form


def test_half_precision_is_read(tmp_path: Path) -> None:
    stack = torch.from_numpy(TRUTH).movedim(-1, -3).float() / 255
    for dtype in (torch.float16, torch.bfloat16):
        torch.save(stack.to(dtype), tmp_path / "half.pt")
        assert torch.equal(open_pictures(tmp_path / "half.pt").batch([0, 1, 2]), stack.to(dtype).float())


def test_reading_does_not_change_what_was_handed_over() -> None:
    stack = torch.full((2, 3, 16, 16), 1.0005)
    stack[0] = 0.3
    assert open_pictures(stack).batch([0, 1]).max() == 1  # rounding of a resize, clipped
    assert stack.max() == pytest.approx(1.0005)


def test_ids_of_a_safetensors_pair_it_with_a_folder(tmp_path: Path) -> None:
    stack = torch.from_numpy(TRUTH[[1, 2, 0]])
    ids = [NAMES[i] for i in (1, 2, 0)]
    save_file({"images": stack}, tmp_path / "a.safetensors", {"ids": json.dumps(ids)})
    told, truth = open_pair(tmp_path / "a.safetensors", targets(tmp_path))
    assert told.ids == truth.ids == NAMES
    assert np.array_equal(told.read([0, 1, 2], 0), TRUTH)
    for wrong, match in (('["a", "a", "b"]', "2 different ids"), ("ant", "no JSON list"), ("3", "no JSON list")):
        save_file({"images": stack}, tmp_path / "a.safetensors", {"ids": wrong})
        with pytest.raises(UserError, match=match):
            open_pictures(tmp_path / "a.safetensors")


class Bomb:
    """Something that leaves a mark when it is unpickled by a reader that runs code."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("form", ["torch", "old torch", "pickle", "npy"])
def test_nothing_in_a_file_is_run(form: str, tmp_path: Path) -> None:
    mark, path = tmp_path / "ran", tmp_path / ("bomb.npy" if form == "npy" else "bomb.pt")
    content = {"images": torch.zeros(2, 3, 16, 16), "extra": Bomb(mark)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content))
    elif form == "npy":
        np.save(path, np.array([Bomb(mark)], dtype=object))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "torch")
    with pytest.raises(UserError, match="run code, and is refused") as caught:
        open_pictures(path)
    assert "\n" not in str(caught.value)
    assert not mark.exists()
    assert b"mkdir" in path.read_bytes()  # the order to run is there
    run, arguments = Bomb(mark).__reduce__()
    run(*arguments)  # type: ignore[operator]
    assert mark.exists()  # and would have left its mark


def broken_stacks() -> dict[str, tuple[object, str]]:
    base = np.full((2, 16, 16, 3), 0.5, np.float32)
    base[0, 0, 0] = 0.25
    nan = base.copy()
    nan[1, 3, 3, 0] = np.nan
    return {
        "bytes as floats": (base * 255, "divide 0 to 255 by 255"),
        "minus one to one": (base * 8 - 3, r"\[-1, 1\] become so"),
        "divided twice": (base / 255 / 2, "divided by 255 twice"),
        "floats cast to bytes": ((base > 0.3).astype(np.uint8), "multiply by 255 before the cast"),
        "integers": ((base * 255).astype(np.int64), "holds int64; store uint8"),
        "NaN": (nan, "NaN or infinity in 1 of 2 rows .1."),
        "infinity": (np.where(np.isnan(nan), np.inf, nan), "NaN or infinity"),
        "alpha": (np.full((2, 16, 16, 4), 0.5, np.float32), "4 channels: lay the alpha channel"),
        "one picture": (base[0], "a stack of RGB pictures is"),
        "gray": (base[..., :1], "the channel axis should have 3 entries"),
        "not square": (base[:, :, :12], "crop them square"),
        "too small": (base[:, :8, :8], "16 px is the least"),
        "empty": (base[:0], "a stack of RGB pictures is"),
        "sizes differ": ([torch.zeros(3, 16, 16), torch.zeros(3, 20, 20)], "picture 1 has shape"),
        "types differ": ([torch.zeros(3, 16, 16), torch.zeros(3, 16, 16).half()], "picture 1 has type"),
        "no pictures": ({"a": 1}, "are a dict; pass a path"),
    }


@pytest.mark.parametrize("what", broken_stacks())
def test_a_stack_that_cannot_be_meant_is_one_line(what: str) -> None:
    stack, match = broken_stacks()[what]
    with pytest.raises(UserError, match=match) as caught:
        open_pictures(stack, name="told")
    assert "\n" not in str(caught.value)


def test_a_fault_late_in_a_large_stack_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recon.scoring.picture_stacks._CHECKED", 2 * 16 * 16 * 3)
    stack = np.full((7, 16, 16, 3), 0.5, np.float32)
    stack[6, 15, 15, 2] = np.nan
    for form in (stack, tmp_path / "a.npy", tmp_path / "a.safetensors"):
        np.save(tmp_path / "a.npy", stack)
        save_file({"x": torch.from_numpy(stack)}, tmp_path / "a.safetensors")
        with pytest.raises(UserError, match=r"in 1 of 7 rows \(6\)|between rows 6 and 6"):
            open_pictures(form)


def test_broken_files_are_one_line(tmp_path: Path) -> None:
    stack = torch.rand(2, 3, 16, 16)
    torch.save(stack, tmp_path / "a.pt")
    np.save(tmp_path / "a.npy", stack.numpy())
    save_file({"a": stack}, tmp_path / "a.safetensors")
    for name, match in (("a.pt", "truncated or not a torch"), ("a.npy", "a.npy'"), ("a.safetensors", "not a whole")):
        whole = (tmp_path / name).read_bytes()
        for part in (whole[: len(whole) // 2], b"", b"no such format"):
            (tmp_path / name).write_bytes(part)
            with pytest.raises(UserError, match=match) as caught:
                open_pictures(tmp_path / name)
            assert "\n" not in str(caught.value)
    torch.save({"a": stack, "b": stack}, tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"holds 2 stacks of pictures \(a, b\)"):
        open_pictures(tmp_path / "a.pt")
    torch.save({"a": torch.zeros(3)}, tmp_path / "a.pt")
    with pytest.raises(UserError, match="holds 0 stacks"):
        open_pictures(tmp_path / "a.pt")
    (tmp_path / "a.mat").write_bytes(b"x")
    for path, match in ((tmp_path / "a.mat", r"neither a folder nor one of \.npy"), (tmp_path / "no", "do not exist")):
        with pytest.raises(UserError, match=match):
            open_pictures(path)


def folder_of(tmp_path: Path, **changed: Image.Image) -> Path:
    folder = write_folder(tmp_path / "f", {"ant.png": TRUTH[0], "bee.png": TRUTH[1]})
    for name, picture in changed.items():
        picture.save(folder / f"{name}.png")
    return folder


def test_pictures_that_cannot_be_meant_are_one_line(tmp_path: Path) -> None:
    plain = Image.fromarray(TRUTH[0])
    glass, veil = plain.convert("P"), plain.convert("RGBA")
    glass.info["transparency"] = glass.getpixel((0, 0))
    veil.putpixel((3, 4), (0, 0, 0, 254))
    for wrong, match in (
        (veil, "has an alpha channel"),
        (veil.convert("LA"), "has an alpha channel"),
        (glass, "has an alpha channel"),
        (Image.fromarray(np.zeros((32, 32), np.uint16)), "more than 8 bits"),
        (plain.resize((40, 40)), r"'bee.png' is 40 x 40 px, 'ant.png' is 32 x 32 px"),
    ):
        with pytest.raises(UserError, match=match) as caught:
            open_pictures(folder_of(tmp_path, bee=wrong))
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="pictures are 32 x 20 px; crop them square"):
        open_pictures(folder_of(tmp_path, ant=plain.crop((0, 0, 32, 20)), bee=plain.crop((0, 0, 32, 20))))
    opaque = open_pictures(folder_of(tmp_path, ant=plain, bee=plain.convert("RGBA")))
    np.testing.assert_array_equal(opaque.read([1], 0)[0], np.asarray(plain))
    gray = open_pictures(folder_of(tmp_path, bee=plain.convert("L"), ant=plain))
    assert gray.read([1], 0).shape == (1, 32, 32, 3)


def test_corrupt_missing_and_doubled_pictures_are_one_line(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    whole = (folder / "bee.png").read_bytes()
    (folder / "bee.png").write_bytes(b"GIF")
    with pytest.raises(UserError, match=r"bee\.png' is corrupt or no picture"):
        open_pictures(folder)
    (folder / "bee.png").write_bytes(whole[: len(whole) // 2])  # its header is whole
    cut = open_pictures(folder)
    with pytest.raises(UserError, match=r"bee\.png' is corrupt"):
        cut.read([0, 1], 0)
    write_folder(folder, {"ant.jpg": TRUTH[0], "bee.png": TRUTH[1]})
    with pytest.raises(UserError, match="one id, two pictures"):
        open_pictures(folder)
    (folder / "ant.jpg").unlink()
    write_folder(folder, {"cat/0.png": TRUTH[0]})
    with pytest.raises(UserError, match="holds pictures and folders of pictures"):
        open_pictures(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no pictures"):
        open_pictures(tmp_path / "empty")


def test_sets_that_do_not_match_name_who_is_missing(tmp_path: Path) -> None:
    truth = targets(tmp_path)
    for names, match in (
        ((*NAMES, "dog"), "targets' holds no picture of 'dog', which .*told' holds"),
        (("ant", "bee", "cat_1"), "no picture of 'cat_0'"),
    ):
        folder = tmp_path / str(len(names)) / names[-1] / "told"
        write_folder(folder, {f"{name}.png": TRUTH[0] for name in names})
        with pytest.raises(UserError, match=match):
            open_pair(folder, truth)
    renamed = two_samples(tmp_path / "renamed", "{name}_seed-{sample}.png")
    for sample in (0, 1):
        (renamed / f"bee_seed-{sample}.png").rename(renamed / f"wasp_seed-{sample}.png")
    with pytest.raises(UserError, match="told' holds no picture of 'bee'"):
        open_pair(renamed, truth)
    uneven = two_samples(tmp_path / "uneven", "{name}_{sample}.png")
    (uneven / "bee_1.png").unlink()
    with pytest.raises(UserError, match="holds 1 pictures of 'bee' but 2 of others"):
        open_pair(uneven, truth)
    with pytest.raises(UserError, match=r"holds 4 stimuli, .* 3; stacks are paired row by row"):
        open_pair(smooth(4), TRUTH)
    with pytest.raises(UserError, match=r"stack without ids and .* holds 'ant'"):
        open_pair(TRUTH, truth)
    with pytest.raises(UserError, match="no picture of '2'"):
        open_pair(write_folder(tmp_path / "two", {"0.png": TRUTH[0], "1.png": TRUTH[1]}), TRUTH)
    with pytest.raises(UserError, match="numbers a picture twice"):
        open_pair(write_folder(tmp_path / "twice", {f"{i}.png": TRUTH[0] for i in ("0", "1", "01", "2")}), TRUTH)
    with pytest.raises(UserError, match="there can be only one"):
        open_pair(TRUTH, np.stack([TRUTH, TRUTH], axis=1))
    with pytest.raises(UserError, match="at least 2 are needed"):
        open_pair(TRUTH[:1], TRUTH[:1])
