"""Sphinx configuration: `make docs` builds the site into docs/_build/html, offline, with warnings as errors."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from generate import write_pages  # noqa: E402 - found through the line above

import align  # noqa: E402

# Examples write their runs to the temporary folder: here one that `make docs` owns and that is kept between builds.
SCRATCH = HERE / "_build" / "scratch"
SCRATCH.mkdir(parents=True, exist_ok=True)
os.environ |= {"TMPDIR": str(SCRATCH), "HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg", "TQDM_DISABLE": "1"}
warnings.filterwarnings("ignore", category=DeprecationWarning)  # of other libraries; those of ours end the tests

write_pages(HERE)

project = "shallow-recon"
author = "the shallow-recon authors"
version = release = align.__version__
copyright = author

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
    "myst_parser",
]
source_suffix = {".rst": "restructuredtext", ".md": "markdown"}
exclude_patterns = ["_build", "api_names.rst"]  # the latter is a part of api.md
default_role = "code"  # `name` in a docstring is code
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
suppress_warnings = ["config.cache"]  # the gallery's configuration holds objects; Sphinx then reads every page again

autosummary_generate = ["api_names.rst"]
templates_path = ["_templates"]  # a class shows its methods on its own page
autodoc_typehints = "none"  # they stand in the signature; the docstring says shapes and units
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

sphinx_gallery_conf = {
    "examples_dirs": ["../examples"],
    "gallery_dirs": ["auto_examples"],
    "filename_pattern": r"plot_",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "show_signature": False,
    "remove_config_comments": True,
    "abort_on_example_error": True,
    "min_reported_time": 0,
    "image_scrapers": ("matplotlib",),
    "matplotlib_animations": False,
    "plot_gallery": "True",
}

html_theme = "pydata_sphinx_theme"
html_title = "shallow-recon"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "show_prev_next": True,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 6,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
