"""Loading a run folder, strictly."""

from __future__ import annotations

from pathlib import Path

from align.checkpoint.facts import stored_config, stored_meta
from align.checkpoint.hashes import require_named, require_numbers, tensors_hash
from align.checkpoint.names import CONFIG, FORMAT, MODEL, SPLIT, preparation_path
from align.checkpoint.run import Run
from align.errors import UserError
from align.files import read_tensors
from align.files.json_text import reading
from align.files.together import require_together


def load_run(path: str | Path, subject: str | None = None) -> Run:
    """Load a run folder; the weights file alone is enough, its metadata holds the configuration.

    ``subject``: whose recording is meant, where the encoder is for several subjects (protocol=pooled).

    Raises
    ------
    UserError
        No run there, a truncated, damaged or foreign file, names or shapes that do not fit (strict; wrapped models
        refused), another subject's run, weights that are not those their metadata name, a configuration, split or
        preparation beside them that is of other weights.
    """
    from align.model.aligner import Aligner

    path = Path(path).expanduser()
    folder, file = (path.parent, path) if path.suffix == ".safetensors" else (path, path / MODEL)
    if not file.is_file():
        runs = sorted(str(found.parent) for found in path.glob(f"*/{MODEL}"))
        wanted = f"one of its runs: {', '.join(runs)}" if runs else "the folder of a run that recon train made"
        raise UserError(f"{str(path)!r} holds no {MODEL}; pass {wanted}")
    tensors, metadata = read_tensors(file)
    if metadata.get("format") != FORMAT or "config" not in metadata:
        raise UserError(f"{str(file)!r} is not the model of an alignment run (format {metadata.get('format')!r})")
    config, meta = stored_config(metadata, file), stored_meta(metadata, file)
    subjects = meta.get("subjects", [meta["subject"]])
    if subject is None and len(subjects) > 1:
        raise UserError(f"{str(path)!r} is an encoder of several subjects; say whose recording: {', '.join(subjects)}")
    if subject is not None and subject not in subjects:
        raise UserError(f"run {str(path)!r} is of subject {', '.join(subjects)}, not {subject!r}; pass another --run")
    require_numbers(tensors, file)
    try:
        with reading(repr(str(file))):
            aligner = Aligner.from_state(config, tensors, meta)
    except UserError as error:
        raise UserError(f"{str(file)!r}: {str(error).removeprefix(f'{str(file)!r} ')}") from error
    require_named(tensors_hash(tensors), meta, file)
    require_together(folder / SPLIT, folder / CONFIG, preparation_path(folder, subject or subjects[0]), meta)
    return Run(config, aligner, subject or subjects[0], meta["study"], meta, folder)
