"""What of each published study lies where, per variant and subject. No address here has been tried by its developers.

Addresses follow five public schemes: Hugging Face ``/datasets/REPOSITORY/resolve/main/PATH`` (the host, or the mirror
in ``HF_ENDPOINT``), OpenNeuro's public bucket ``s3.amazonaws.com/openneuro.org/DATASET/PATH``, the file ids of
``osf.io/download/ID/``, OSF's storage ``files.osf.io/v1/resources/PROJECT/providers/PROVIDER/PATH`` (``?zip=``: all of
it), and GitHub ``raw.githubusercontent.com/REPOSITORY/HEAD/PATH``. What lies on a page without such an address (repacks
whose file names are not known) is a `Page`: its address and what must be put where by hand. Sizes are those the hosts
show, rounded, or follow from the shape of the arrays. All pictures of THINGS are one archive with a password, which
stands where its terms do.

A checksum is given where it is known (`align.data.download.checksums`). Every other file has none until its first
complete download, whose SHA-256 later ones are compared with.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import quote

from align.data.download.checksums import PUBLISHED
from align.errors import UserError


@dataclass(frozen=True)
class File:
    """One file: ``target`` is its place below the study's root, ``size`` in bytes is approximate (None: not known).

    ``unpack``: the folder below root that the archive holds or is unpacked into; None: no archive. ``key``: environment
    variable that holds the password of a locked archive (asked for on a terminal), None = not locked; ``terms``: the
    page that has it.
    """

    url: str
    target: str
    size: int | None
    sha256: str | None = None
    unpack: str | None = None
    key: str | None = None
    terms: str = ""


@dataclass(frozen=True)
class Page:
    """What has to be fetched by hand: ``expects`` is a pattern below root that is there when it was."""

    url: str
    what: str
    expects: str


@dataclass(frozen=True)
class Plan:
    """What one call has to get. ``own``: the files of each subject among ``files``. ``use``: what using them takes."""

    study: str
    variant: str | None
    subjects: tuple[str, ...]
    licence: str
    files: tuple[File, ...]
    pages: tuple[Page, ...] = ()
    own: Mapping[str, tuple[File, ...]] = field(default_factory=dict)
    use: tuple[str, ...] = ()


@dataclass(frozen=True)
class Variant:
    """One way in which a study is published. ``shared``: files of no one subject, ``own``: those of a subject.

    ``use``: what a subject's signals take in memory or on disk when they are used, where declared facts say it.
    ``further``: pattern of labels of subjects that are published too and whose sizes are not known here.
    """

    subjects: tuple[str, ...]
    licence: str
    shared: tuple[File, ...] = ()
    own: Callable[[str], Sequence[File]] = lambda subject: ()
    pages: tuple[Page, ...] = ()
    own_pages: Callable[[str], Sequence[Page]] = lambda subject: ()
    use: Callable[[str], str] = lambda subject: ""
    further: str | None = None


def plan(study: str, variant: str | None = None, subjects: Sequence[str] | None = None) -> Plan:
    """What to get of a study, of its first variant and of all subjects by default.

    Raises `UserError` with the nearest name for an unknown study, variant or subject.
    """
    variants = catalogue()
    known = _known("study", study, tuple(variants))
    name = _known(f"{study} variant", variant or next(iter(variants[known])), tuple(variants[known]))
    chosen = variants[known][name]
    asked = subjects or chosen.subjects
    wanted = tuple(
        dict.fromkeys(
            s if chosen.further and re.fullmatch(chosen.further, s) else _known(f"{study} subject", s, chosen.subjects)
            for s in asked
        )
    )
    own = {subject: tuple(chosen.own(subject)) for subject in wanted}
    return Plan(
        study=study,
        variant=name if len(variants[known]) > 1 else None,
        subjects=wanted,
        licence=chosen.licence,
        files=(*chosen.shared, *(file for files in own.values() for file in files)),
        pages=(*chosen.pages, *(page for subject in wanted for page in chosen.own_pages(subject))),
        own=own,
        use=tuple(text for text in map(chosen.use, wanted) if text),
    )


def catalogue() -> dict[str, dict[str, Variant]]:
    """Every variant of every study; the first one of a study is its default."""
    return {
        "things_eeg2": _things_eeg2(),
        "things_meg": _things_meg(),
        "nsd": {
            "40-hour": _nsd(one_hour=False),
            "1-hour": _nsd(one_hour=True),
            "averaged": _nsd_averaged(),
            "algonauts": _nsd_algonauts(),
        },
        "cowley2023_v4": {"published": _cowley()},
    }


def _things_eeg2() -> dict[str, Variant]:
    subjects = tuple(f"{i:02d}" for i in range(1, 11))
    terms = (
        "THINGS-EEG2 (Gifford, Dwivedi, Roig & Cichy 2022): recordings CC BY 4.0, cite the paper. The pictures are "
        "those of THINGS: for research only, not to be passed on."
    )
    repack = " The Hugging Face repository with the preprocessed copy declares Apache-2.0 for itself."
    pictures = (
        File("https://osf.io/download/qkgtf/", "image_metadata.npy", None),
        File("https://osf.io/download/3v527/", "training_images.zip", None, unpack="training_images"),
        File("https://osf.io/download/znu7b/", "test_images.zip", None, unpack="test_images"),
    )

    def by_hand(url: str, what: str, place: str) -> Variant:
        return Variant(
            subjects,
            terms,
            shared=pictures,
            own_pages=lambda subject: [Page(url, what.format(s=subject), f"**/{place.format(s=subject)}")],
        )

    def nice(subject: str) -> list[File]:
        folder = f"Preprocessed_data_250Hz/sub-{subject}"
        return [
            _hugging_face("LidongYang/EEG_Image_decode", f"{folder}/preprocessed_eeg_training.npy", 8_340_000_000),
            _hugging_face("LidongYang/EEG_Image_decode", f"{folder}/preprocessed_eeg_test.npy", 2_020_000_000),
        ]

    def raw(subject: str) -> list[File]:
        base = "https://files.osf.io/v1/resources/crxs4/providers/googledrive"
        return [File(f"{base}/sub-{subject}.zip", f"sub-{subject}.zip", None, unpack=f"sub-{subject}")]

    def ubp(subject: str) -> list[File]:
        folder = f"Preprocessed_data_250Hz_whiten/sub-{subject}"
        return [
            _hugging_face("Haitao999/things-eeg", f"{folder}/train.pt", 2_090_000_000),
            _hugging_face("Haitao999/things-eeg", f"{folder}/test.pt", 505_000_000),
        ]

    everybody = File(  # one archive that holds sub-01.zip to sub-10.zip
        "https://files.de-1.osf.io/v1/resources/anp5v/providers/osfstorage/?zip=",
        "preprocessed_eeg.zip",
        None,
        unpack="preprocessed_eeg",
    )
    return {
        "nice": Variant(subjects, terms + repack, shared=pictures, own=nice),
        "official": Variant(subjects, terms, shared=(*pictures, everybody)),
        "raw": Variant(subjects, terms, shared=pictures, own=raw),
        "ubp": Variant(subjects, terms, shared=pictures, own=ubp),
        "neurobridge": by_hand(
            "https://huggingface.co/datasets/Feronl/NeuroBridge",
            "sub-{s}/ with train.npy and test.npy",
            "sub-{s}/train.npy",
        ),
    }


def _things_meg() -> dict[str, Variant]:
    subjects = tuple(f"{i:02d}" for i in range(1, 5))
    terms = (
        "THINGS-MEG (Hebart et al. 2023): recordings CC0, cite the paper. The pictures are those of THINGS: for "
        "research only, not to be passed on."
    )
    things = "https://osf.io/jum2f"
    all_pictures = File(
        "https://osf.io/download/rdxy2/",
        "images_THINGS.zip",
        None,
        unpack="object_images",
        key="RECON_THINGS_PASSWORD",
        terms="https://osf.io/j6a3m",
    )
    sorted_pictures = (
        Page(things, "the THINGS pictures in training_images/00001_aardvark/...", "**/training_images"),
        Page(things, "the 200 test pictures in test_images/00001_.../...", "**/test_images"),
    )

    def openneuro(subject: str) -> list[File]:
        names = [f"preprocessed_P{int(subject)}-epo{part}.fif" for part in ("", "-1", "-2", "-3")]
        base = "https://s3.amazonaws.com/openneuro.org/ds004212/derivatives/preprocessed"
        return [File(f"{base}/{name}", name, 2_060_000_000) for name in names]

    def atm(subject: str) -> list[File]:
        folder = f"preprocessed_MEG/sub-{subject}"
        return [
            _hugging_face("LidongYang/EEG_Image_decode", path, size)
            for path, size in (
                (f"{folder}/preprocessed_meg_training.pkl", 8_649_128_640),
                (f"{folder}/preprocessed_meg_zs_test.pkl", 1_045_848_571),
            )
        ]

    def by_hand(url: str, what: str, place: str) -> Variant:
        return Variant(
            subjects,
            terms,
            pages=sorted_pictures,
            own_pages=lambda subject: [Page(url, what.format(s=subject), f"**/{place.format(s=subject)}")],
        )

    return {
        "openneuro": Variant(subjects, terms, shared=(all_pictures,), own=openneuro),
        "atm": Variant(subjects, terms, own=atm, pages=sorted_pictures),
        "ubp": Variant(  # train.pt and test.pt list their pictures, which are found in object_images/
            subjects,
            terms,
            shared=(
                replace(_hugging_face("Haitao999/things-eeg-meg", "things-meg.zip", None), unpack="things-meg"),
                all_pictures,
            ),
        ),
        "neurobridge": by_hand(
            "https://huggingface.co/datasets/Feronl/NeuroBridge",
            "sub-{s}/ with train.npy and test.npy",
            "sub-{s}/train.npy",
        ),
    }


_NSD_TERMS = (
    "Natural Scenes Dataset (Allen et al. 2022), in the copy of {}: only for those who have signed its Data "
    "Access Agreement (naturalscenesdataset.org) and keep to its Terms and Conditions; not to be passed on."
)
_NSD_CAPTIONS = ("pscotti/naturalscenesdataset", "COCO_73k_annots_curated.npy", None)


def _nsd(one_hour: bool) -> Variant:
    from align.data.studies.nsd import PICTURES_FILE, SESSION_TRIALS, SUBJECTS, VARIANTS, in_use

    repository = "pscotti/mindeyev2"

    def own(subject: str) -> list[File]:
        person, folder = SUBJECTS[subject], f"wds/subj{subject}"
        betas = 4 * person.sessions * SESSION_TRIALS * person.voxels
        sessions = 1 if one_hour else person.sessions
        return [
            _hugging_face(repository, f"betas_all_subj{subject}_fp32_renorm.hdf5", betas),
            *(_hugging_face(repository, f"{folder}/train/{i}.tar", 9_500_000) for i in range(sessions)),
            _hugging_face(repository, f"{folder}/new_test/0.tar", 38_400_000),
        ]

    return Variant(
        tuple(SUBJECTS),
        _NSD_TERMS.format("MindEye2"),
        shared=(
            _hugging_face(repository, PICTURES_FILE, 22_000_000_000),
            _hugging_face(repository, "shared1000.npy", 73_128),
            _hugging_face(repository, "COCO_73k_semantic_cluster.npy", 9_344_128),
            _hugging_face(repository, "semantic_cluster_names.npy", None),
            _hugging_face(*_NSD_CAPTIONS),
        ),
        own=own,
        use=lambda subject: in_use(subject, VARIANTS[one_hour]),
    )


def _nsd_averaged() -> Variant:
    """MindEye1's tars, as its own scripts and those of MindBridge and UMBRAE fetch them."""
    from align.data.studies.nsd_averaged import FOLDER

    tars = {"train": 18, "val": 1, "test": 2}
    return Variant(
        ("01", "02", "05", "07"),
        _NSD_TERMS.format("MindEye1"),
        shared=(_hugging_face(*_NSD_CAPTIONS),),
        own=lambda subject: [
            _hugging_face("pscotti/naturalscenesdataset", f"{FOLDER}/{part}/{part}_subj{subject}_{i}.tar", None)
            for part, count in tars.items()
            for i in range(count)
        ],
    )


def _nsd_algonauts() -> Variant:
    page = "https://algonautsproject.com/2023/index.html"  # the data are behind a form
    return Variant(
        tuple(f"{i:02d}" for i in range(1, 9)),
        _NSD_TERMS.format("the Algonauts Project 2023 (Gifford et al. 2023)"),
        own_pages=lambda subject: [
            Page(page, f"subj{subject}/ with training_split/, test_split/ and roi_masks/", f"**/subj{subject}")
        ],
    )


_V4_BYTES = {  # of the pictures and of the averaged responses, by session
    "190925": (3967665, 345728),
    "190927": (4080631, 297728),
    "190928": (4186920, 230528),
    "190929": (3987552, 316928),
    "210224": (2782116, 428928),
    "210305": (1492118, 224128),
    "210322": (3785781, 566528),
    "210325": (1841475, 256128),
}


def _cowley() -> Variant:
    base = "https://raw.githubusercontent.com/cowleygroup/V4_compact_models/HEAD"

    def own(session: str) -> list[File]:
        names = (f"images/images_{session}.zip", f"responses_repeat_averaged/responses_{session}.npy")
        paths = [f"data_V4_responses/{name}" for name in names]
        sizes = zip(paths, _V4_BYTES.get(session, (None, None)), strict=True)
        return [File(f"{base}/{path}", path, size, PUBLISHED.get(path)) for path, size in sizes]

    return Variant(
        tuple(_V4_BYTES),
        "Cowley, Stan, Pillow & Smith 2023, repository cowleygroup/V4_compact_models: GPL-3.0; cite the paper.",
        own=own,
        further=r"\d{6}",  # the repository has 50 sessions, named by date
    )


def _hugging_face(repository: str, path: str, size: int | None) -> File:
    host = os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"
    return File(f"{host}/datasets/{repository}/resolve/main/{quote(path)}", path, size, PUBLISHED.get(path))


def _known(what: str, name: str, names: tuple[str, ...]) -> str:
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UserError(f"{what} {name!r} is not known to the download; {hint}Known: {', '.join(names)}")
