"""How Sphinx builds these pages: `sphinx-build -W -n -b html docs build/docs`."""

import poller

project = "live-screenshot-poller"
author = "The authors of live-screenshot-poller"
project_copyright = author
version = release = poller.__version__

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["generate", "pictures"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
nitpicky = True

html_theme = "furo"
html_title = f"poller {release}"
html_copy_source = False
html_show_sourcelink = False
