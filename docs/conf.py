"""Sphinx's configuration of the documentation: ``sphinx-build docs docs/_build``."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "ffdask"
author = copyright = "The ffdask developers"
version = release = version_of("ffdask")

extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc", "myst_nb", "made"]
exclude_patterns = ["_build", "_made", "notebooks/.ipynb_checkpoints"]
# A link in a page that leads nowhere is an error; of docstrings, `made` says.
nitpicky = True
# What an alias of a type is made of.
nitpick_ignore = [("py:class", "collections.abc.Callable")]

# In docstrings single backticks are names: of what is documented they are links.
default_role = "py:obj"
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autosummary_generate = False
numpydoc_show_class_members = False

# Notebooks are executed by run_notebooks.py, which stores what they print.
nb_execution_mode = "off"
myst_heading_anchors = 3
# Widgets would be fetched from another host.
nb_ipywidgets_js = {}

html_theme = "furo"
html_title = f"ffdask {release}"
html_copy_source = False
html_show_sphinx = False
