"""Why something is not done."""


class SociIndexError(Exception):
    """What cannot be done: the thing, the cause, and what to do about it; without credentials in the text.

    Attributes:
        cause: one sentence, without a full stop.
        remedy: what to do.
    """

    def __init__(self, cause: str, remedy: str) -> None:
        super().__init__(f"{cause}. Remedy: {remedy}")
        self.cause, self.remedy = cause, remedy


class UsageError(SociIndexError):
    """The command line asks for something that cannot be."""
