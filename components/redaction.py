"""How values are shown in refusals, and how secret ones are kept out of them."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any


def shortened(value: Any) -> str:
    """A plain value in one short line; a long one by its beginning."""
    text = value if isinstance(value, str) else json.dumps(value, default=lambda item: type(item).__name__)
    return text if len(text) <= 80 else f"{text[:60]}…"


def without(value: Any, told: str) -> str:
    """What is told, without any part of a secret value."""
    parts = sorted({text for text in _texts(value) if text}, key=len, reverse=True)
    patterns = (
        re.escape(text) if len(text) > 3 else rf"(?<![\w.]){re.escape(text)}(?![\w.])" for text in parts
    )
    return re.sub("|".join(patterns), "[secret]", told) if parts else told


def _texts(value: Any) -> Iterable[str]:
    """Every text in a value, in both its forms."""
    if isinstance(value, str):
        yield value.strip()
        try:
            decoded = json.loads(value)
        except ValueError:
            return
        if not isinstance(decoded, str):
            yield from _texts(decoded)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from (*_texts(key), *_texts(item))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
    elif value is not None:
        yield str(value)
