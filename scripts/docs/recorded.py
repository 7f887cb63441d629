"""A recorded run that the documents show: the file in docs/, and the document that is written from it."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def load(file: Path) -> dict[str, Any]:
    """The run that the documents show now."""
    return json.loads(file.read_text(encoding="utf-8"))


def take(file: Path) -> dict[str, Any]:
    """The run to show: the one that the command line names becomes the file first."""
    if len(sys.argv) > 1:
        shutil.copyfile(sys.argv[1], file)
    return load(file)


def rewrite(document: Path, change: Callable[[str], str]) -> None:
    """Write a document anew, as a change of its text."""
    document.write_text(change(document.read_text(encoding="utf-8")), encoding="utf-8")
