"""The house rules that a machine can check: names, directions, light imports, safe loading, complete tables."""

from __future__ import annotations

import ast
import importlib
import logging
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.conftest import PROJECT

PACKAGES = ("align", "recon")
HEAVY = (
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "timm",
    "open_clip",
    "mne",
    "nibabel",
    "pandas",
    "matplotlib",
    "sklearn",
    "skimage",
    "pandas",
)

# Every entry of a table beside the test that compares it with an independent reference.
TAPS = "align/test_backbones.py::test_tap_k_is_hidden_state_k"
ENCODER = "align/test_encoders.py::test_encoder_equals_its_reference"
LPIPS = "recon/test_metrics.py::test_lpips_is_that_of_the_lpips_package"
FEATURE = "recon/test_metrics.py::test_feature_metric_reads_the_node_torchvision_extracts"
REFERENCE_TESTS = {
    "align.data.studies:STUDIES": {
        "simulated": "align/test_simulated.py::test_codes_live_where_and_when_they_should",
        "cowley2023_v4": "align/test_studies.py::test_v4_protocol_row_by_row",
        "folder": "align/test_studies.py::test_folder_row_by_row",
        "things_eeg2": "align/test_things_eeg2.py::test_variant_is_recognised_and_read",
        "things_meg": "align/test_things_meg.py::test_epochs_become_trials_of_the_pictures_their_events_name",
        "nsd": "align/test_nsd.py::test_every_row_belongs_to_its_picture",
    },
    "align.encoders:ENCODERS": {
        "encoding": "align/test_encoding.py::test_left_out_predictions_are_those_of_refits",
        **dict.fromkeys(("ridge", "banded_ridge", "linear", "mlp", "residual_mlp", "tsconv", "atm"), ENCODER),
        **dict.fromkeys(("skip_mlp", "mindbridge", "sttm"), ENCODER),
        **dict.fromkeys(("eegnet", "shallownet", "conformer", "labram", "cbramod", "reve"), ENCODER),
    },
    "align.vision.backbones:BACKBONES": {
        "mini": TAPS,
        "torchvision": TAPS,
        "timm": TAPS,
        "open_clip": TAPS,
        "transformers": TAPS,
    },
    "recon.metrics.metrics:METRICS": {
        "PixCorr": "recon/test_metrics.py::test_pix_corr_is_pearson_r_at_425_px",
        "SSIM": "recon/test_metrics.py::test_ssim_is_that_of_scikit_image",
        "LPIPS": LPIPS,
        "LPIPS(squeeze)": LPIPS,
        "LPIPS(vgg)": LPIPS,
        "AlexNet(2)": FEATURE,
        "AlexNet(5)": FEATURE,
        "Inception": FEATURE,
        "CLIP": "recon/test_metrics.py::test_clip_reads_the_projected_embedding",
        "EffNet": FEATURE,
        "SwAV": FEATURE,
    },
}


def sources(*packages: str) -> Iterator[tuple[Path, str]]:
    for package in packages or PACKAGES:
        for path in sorted((PROJECT / package).rglob("*.py")):
            yield path, path.read_text(encoding="utf-8")


def modules() -> list[str]:
    names = []
    for path, _ in sources():
        parts = path.relative_to(PROJECT).with_suffix("").parts
        names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


@cache
def nodes(source: str) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(source)))


def imported(source: str) -> set[str]:
    """Top-level names of everything a source imports, at any depth of the code."""
    found = set()
    for node in nodes(source):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def unsafe_calls(source: str) -> list[str]:
    """Calls that could run a stranger's code: pickles, torch.load with them, yaml without a SafeLoader, eval."""
    found = []
    for node in nodes(source):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        options = {item.arg: ast.unparse(item.value) for item in node.keywords}
        if options.get("allow_pickle", "False") != "False":
            found.append(f"{name}(allow_pickle=...)")
        if options.get("weights_only", "True") != "True":
            found.append(f"{name}(weights_only=...)")
        if name == "torch.load" and "weights_only" not in options:
            found.append("torch.load without weights_only")
        if name == "yaml.load" and not options.get("Loader", "").endswith(("SafeLoader", "_TextLoader")):
            found.append("yaml.load without a SafeLoader")
        if name in ("eval", "exec", "pickle.load", "pickle.loads", "joblib.load", "yaml.unsafe_load", "pd.read_pickle"):
            found.append(name)
    return found


def of_one_system(source: str) -> list[str]:
    """Modules and functions that Windows or macOS lack; one that is asked for with `getattr` is not named here."""
    calls = (
        "fork",
        "forkpty",
        "sched_getaffinity",
        "getuid",
        "geteuid",
        "killpg",
        "mkfifo",
        "nice",
        "sysconf",
        "uname",
    )
    signals = ("SIGKILL", "SIGALRM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGSTOP")
    named = {*(f"os.{name}" for name in calls), *(f"signal.{name}" for name in (*signals, "alarm", "setitimer"))}
    modules = {"fcntl", "resource", "pwd", "grp", "pty", "tty", "termios", "syslog", "posix", "msvcrt", "winreg"}
    used = [node for node in nodes(source) if isinstance(node, ast.Attribute)]
    found = {f"{node.value.id}.{node.attr}" for node in used if isinstance(node.value, ast.Name)} & named
    return sorted(found | imported(source) & modules)


def locale_texts(source: str) -> list[str]:
    """Calls that read or write text in whatever encoding the system prefers."""
    calls = [node for node in nodes(source) if isinstance(node, ast.Call)]
    return [ast.unparse(call) for call in calls if is_locale_text(call)]


def is_locale_text(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    options = {item.arg: getattr(item.value, "value", None) for item in call.keywords}
    if "encoding" in options:
        return False
    if name in ("open", "fdopen"):
        of_path = isinstance(call.func, ast.Attribute) and name == "open"
        given = [getattr(item, "value", None) for item in call.args][0 if of_path else 1 :]
        mode = options.get("mode", given[0] if given else None if of_path else "r")
        return isinstance(mode, str) and re.fullmatch("[rwax][t+]*", mode) is not None
    return name in ("read_text", "write_text") or (
        name in ("run", "Popen", "check_output") and bool(options.get("text"))
    )


def declared_distributions() -> set[str]:
    """Names of what the project depends on, directly (pyproject.toml) or not (constraints.txt), normalised."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = project["dependencies"] + (PROJECT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return {normal(re.match(r"[\w.-]+", line)[0]) for line in lines if re.match(r"[\w.-]+", line)}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_no_module_hides_another_library() -> None:
    declared = declared_distributions()
    taken = {module for module, owners in packages_distributions().items() if {normal(o) for o in owners} & declared}
    assert {"torch", "yaml", "skimage"} <= taken
    taken |= set(sys.stdlib_module_names)
    named = {path.stem for path, _ in sources()} | {path.parent.name for path, _ in sources()}
    assert not named & (taken - {"__init__", "align", "recon"})


def test_everything_imported_is_declared() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {normal(re.match(r"[\w.-]+", line)[0]) for line in project["dependencies"]}
    owners = packages_distributions()
    used = set().union(*(imported(source) for _, source in sources()))
    foreign = used - set(sys.stdlib_module_names) - set(PACKAGES)
    assert {name for name in foreign if not {normal(o) for o in owners.get(name, [])} & declared} == set()
    unused = declared - {normal(o) for name in foreign for o in owners.get(name, [])}
    assert unused == set(), "declared in pyproject.toml, imported nowhere"


def test_align_never_imports_recon() -> None:
    assert "recon" in imported("def f():\n    from recon.decoding.predict import predict")
    assert [str(path) for path, source in sources("align") if "recon" in imported(source)] == []


def test_importing_the_packages_is_light() -> None:
    code = f"import sys, align, recon, recon.cli, align.config; print(sorted(set({HEAVY}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_importing_any_module_does_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    before = list(logging.getLogger().handlers)
    for name in modules():
        importlib.import_module(name)
    assert logging.getLogger().handlers == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "planted",
    [  # text that the check below must find, put together here and never run
        "np.load(path, {}=True)".format("allow_pickle"),
        "np.load(path, {}=flag)".format("allow_pickle"),
        "torch.load(path, {}=False)".format("weights_only"),
        "torch.load(path)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.load(text)",
        "pickle.load(file)",
        "eval(text)",
    ],
)
def test_unsafe_calls_are_found(planted: str) -> None:
    assert unsafe_calls(planted)


def test_no_call_runs_the_code_of_a_stranger() -> None:
    assert unsafe_calls("torch.load(path, weights_only=True); yaml.load(text, Loader=yaml.SafeLoader)") == []
    assert {str(path): calls for path, source in sources() if (calls := unsafe_calls(source))} == {}


def test_no_call_of_one_system() -> None:
    assert of_one_system("import fcntl\nos.fork()\nsignal.alarm(3)") == ["fcntl", "os.fork", "signal.alarm"]
    assert of_one_system("getattr(os, 'fork', None); os.cpu_count(); 'fcntl'") == []
    assert {str(path): calls for path, source in sources() if (calls := of_one_system(source))} == {}


@pytest.mark.parametrize(
    "planted",
    [
        "p.read_text()",
        "p.write_text(x)",
        "open(p)",
        "open(p, 'a')",
        "p.open('w')",
        "os.fdopen(3, mode='r')",
        "subprocess.run(words, text=True)",
    ],
)
def test_text_without_an_encoding_is_found(planted: str) -> None:
    assert locale_texts(planted) == [planted]


def test_text_files_are_utf8_on_every_system() -> None:
    sound = "p.read_text(encoding='utf-8'); open(p, 'rb'); p.open('a+b'); stored.open(); archive.open(name, 'w')"
    assert locale_texts(sound) == []
    found = {str(path): calls for path, source in sources(*PACKAGES, "benchmarks") if (calls := locale_texts(source))}
    assert found == {}


def test_no_path_of_one_machine() -> None:
    pattern = re.compile(r"[\"'](/home/|/tmp/|/Users/|/mnt/)|RECON_SHARED|\.\./shared")
    assert [str(path) for path, source in sources() if pattern.search(source)] == []


@pytest.mark.parametrize("table", REFERENCE_TESTS)
def test_every_entry_has_a_reference_test(table: str) -> None:
    module, _, attribute = table.partition(":")
    entries = getattr(importlib.import_module(module), attribute)
    cases = REFERENCE_TESTS[table]
    assert len(entries) > 0
    assert set(entries) == set(cases), "an entry without a reference test, or a case without an entry"
    for entry, where in cases.items():
        file, _, function = where.partition("::")
        source = (PROJECT / "tests" / file).read_text(encoding="utf-8")
        names = {node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}
        assert function in names, where
        shared = list(cases.values()).count(where) > 1
        assert not shared or entry in source, f"{where} has no case for {entry}"
