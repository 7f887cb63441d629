"""The one error that an install ends with, and how its words are made fit to be told."""

import re
from collections.abc import Sequence


def clean(text: str) -> str:
    """A line fit for Events and logs: without control characters, credentials in URLs and signed queries."""
    line = re.sub(r"[\x00-\x1f\x7f]", " ", text)
    line = re.sub(r"://[^\s/]+@", "://", line)
    return re.sub(r"(://[^\s\"'?]*)\?[^\s\"']*", r"\1?…", line)


class InstallError(Exception):
    """An install that stopped: at which step, why, and what the user can do about it."""

    still_serves = False  # SOCI works on the node nevertheless

    def __init__(self, step: str, cause: str, remedy: str, last_words: Sequence[str] = ()) -> None:
        """``last_words`` are lines of the daemons' journal from when it stopped, if that was looked at."""
        cause = clean(cause)
        super().__init__(f"{step}: {cause}. Remedy: {remedy}.")
        self.step = step
        self.cause = cause
        self.remedy = remedy
        self.last_words = last_words

    @property
    def concerns_daemons(self) -> bool:
        """Whether containerd or SOCI's daemon may have said why in the node's journal."""
        return self.step in ("commit", "recovery", "uninstall") or self.step.startswith("verify")

    @property
    def reason(self) -> str:
        """The step as a CamelCase reason for conditions and events, e.g. ``ContainerdConfigFailed``."""
        return "".join(part.capitalize() for part in self.step.replace("-", " ").split()) + "Failed"
