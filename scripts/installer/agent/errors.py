"""The one error that an install ends with."""


class InstallError(Exception):
    """An install that stopped: at which step, why, and what the user can do about it."""

    still_serves = False  # SOCI works on the node nevertheless

    def __init__(self, step: str, cause: str, remedy: str) -> None:
        super().__init__(f"{step}: {cause}. Remedy: {remedy}.")
        self.step = step
        self.cause = cause
        self.remedy = remedy

    @property
    def reason(self) -> str:
        """The step as a CamelCase reason for conditions and events, e.g. ``ContainerdConfigFailed``."""
        return "".join(part.capitalize() for part in self.step.replace("-", " ").split()) + "Failed"
