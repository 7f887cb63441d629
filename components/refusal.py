"""The refusal of one value."""


class RefusedError(ValueError):
    """One value that cannot work: the reason, and the remedy to show with it."""

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        self.reason, self.remedy = reason, remedy
