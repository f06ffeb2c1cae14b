"""Examples of docstrings as code: what stands from the first >>> on is one section."""

from typing import Any

import griffe


class Examples(griffe.Extension):
    """Heads the examples of each docstring as the Google style does."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Indent what follows the first >>> below a heading."""
        if obj.docstring and ">>> " in obj.docstring.value:
            text, _, examples = obj.docstring.value.partition(">>> ")
            indented = (">>> " + examples).replace("\n", "\n    ")
            obj.docstring.value = f"{text}Examples:\n    {indented}"
