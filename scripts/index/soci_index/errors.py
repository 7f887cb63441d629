"""Why something is not done."""

import re


def printable(text: str) -> str:
    """A text with words of registries and manifests in it, for terminals and logs: in one line, without what
    terminals act upon, and without the queries of addresses, which may be signatures."""
    words = "".join(character if character.isprintable() else " " for character in text)
    return re.sub(r"(https?://[^\s?\"']+)\?[^\s\"']+", r"\1?…", words)


class SociIndexError(Exception):
    """What cannot be done: the thing, the cause, and what to do about it; without credentials in the text.

    Attributes:
        cause: one sentence, without a full stop, as `printable` leaves it.
        remedy: what to do.
    """

    def __init__(self, cause: str, remedy: str) -> None:
        cause = printable(cause)
        super().__init__(f"{cause}. Remedy: {remedy}")
        self.cause, self.remedy = cause, remedy


class UsageError(SociIndexError):
    """The command line asks for something that cannot be."""
