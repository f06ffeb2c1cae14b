"""Docstrings as Markdown: what stands from the first >>> on is code, <c, y> no tag."""

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Heads the examples of each docstring as the Google style does."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Indent what follows the first >>> below a heading."""
        if not obj.docstring:
            return
        text, prompt, examples = obj.docstring.value.partition(">>> ")
        text = re.sub("(`[^`]*`)|<", lambda found: found[1] or "&lt;", text)
        if prompt:
            indented = (prompt + examples).replace("\n", "\n    ")
            text += f"Examples:\n    {indented}"
        obj.docstring.value = text
