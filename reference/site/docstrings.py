"""For mkdocstrings: docstrings as they are written here, as Markdown."""
from __future__ import annotations

import inspect
from typing import Any

import griffe

from reference.site.markdown import readable


class Docstrings(griffe.Extension):
    """Rewrites each docstring before it is parsed."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = readable(inspect.cleandoc(obj.docstring.value))
