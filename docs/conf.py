"""How Sphinx builds these pages; run it with ``make docs``."""

import importlib.metadata
import os
import sys

from sphinx.application import Sphinx

sys.path.insert(0, os.path.dirname(__file__))
import citations

project = "revstore"
author = "The revstore authors"
try:
    release = importlib.metadata.version("revstore")
except importlib.metadata.PackageNotFoundError:  # the sources are on the path, not installed
    release = ""
# The footer of every page.
project_copyright = f"{author}. revstore {release} is licensed under the Apache License 2.0."

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"revstore {release}".strip()
# Every heading down to the third level can be linked to.
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
# Without these the signatures repeat the whole module path of each type.
python_use_unqualified_type_names = True
add_module_names = False


def _escape_patterns(*arguments: list[str]) -> None:
    """Docstrings write "*.apps" for a pattern; to Sphinx the asterisk would begin emphasis."""
    lines = arguments[-1]
    lines[:] = [line.replace('"*.', '"\\*.') for line in lines]


def _add_tests(app: Sphinx, docname: str, source: list[str]) -> None:
    """behaviours.md names the tests of each row, which only a look at the tests can tell."""
    if docname == "behaviours":
        source[0] = citations.behaviours(source[0])
        for path in citations.files_of_tests():
            app.env.note_dependency(path)


def setup(app: Sphinx) -> None:
    """Connect the hooks; Sphinx calls this."""
    app.connect("source-read", _add_tests)
    app.connect("autodoc-process-docstring", _escape_patterns)
