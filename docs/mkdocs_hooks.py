"""What `mkdocs.yml` builds the site of: the repository's pages, where they stand.

Every page and figure keeps its path, so that a link holds in a checkout as in the site;
README.md is the front page. Python cells are run, and what they print is put below.
"""

import re
import subprocess
from pathlib import Path
from typing import Any

from cells import with_outputs
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
SHOWN = {".md", ".png", ".svg", ".ipynb"}
STYLE = "site.css"
FROM_A_NETWORK = (
    r'<(?:script|img|link rel="stylesheet")[^>]*(?:src|href)="https?:[^"]*"'
)


@event_priority(100)
def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The theme's files, and those of the repository in the place of docs/ alone."""
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.check_output(words, cwd=ROOT, text=True).splitlines()
    own = Path(config.docs_dir)
    theme = [f for f in files if not (f.abs_src_path or "").startswith(str(own))]
    pages = [
        File(name, str(ROOT), config.site_dir, config.use_directory_urls)
        for name in sorted(listed)
        if Path(name).suffix in SHOWN and (ROOT / name).exists()
    ]
    style = File(STYLE, str(own), config.site_dir, config.use_directory_urls)
    return Files([*theme, *pages, style])


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """With what each cell prints."""
    return with_outputs(markdown)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """As it is; a page that would fetch something from a network is an error."""
    if found := re.search(FROM_A_NETWORK, output):
        raise PluginError(f"{page.file.src_uri} loads from a network: {found[0]}")
    return output
