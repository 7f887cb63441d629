"""Each step as it begins: in the pod's log, and once the node is being changed at the API too."""

from . import report
from .log import Log

LOOKING = ("preflight", "wait")  # what every start of the installer does, also where nothing is to be changed


class Progress:
    """Tells of steps. An API server that does not listen is told no more of them: no install waits for it."""

    def __init__(self, reporter: report.Reporter, log: Log) -> None:
        self._reporter = reporter
        self._log = log
        self._is_heard = True

    def begin(self, step: str) -> None:
        """A step begins."""
        self._log.begin(step)
        if step in LOOKING or not self._is_heard:
            return
        try:
            self._reporter.step(step)
        except report.ApiError as error:
            self._is_heard = False
            self._log(f"steps are not told to the API server any more: {error}")
