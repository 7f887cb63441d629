"""A small answer over HTTP, as the deploying machine reads it."""

import http.client
import urllib.error
import urllib.request
from email.message import Message

TIMEOUT_SECONDS = 10
ATTEMPTS = 2


class ReadError(Exception):
    """Why there is no answer, in words that end a sentence."""


class StatusError(ReadError):
    """The server says no; ``code`` is the status, below 500."""

    def __init__(self, code: int, headers: Message) -> None:
        super().__init__(f"cannot be read (HTTP status {code})")
        self.code, self.headers = code, headers


def read(request: urllib.request.Request | str, limit: int) -> bytes:
    """The first ``limit`` bytes of an answer, through the usual proxy variables; one retry.

    Raises:
        StatusError: the server refuses; it is not asked again.
        ReadError: no answer, or an error of the server's.
    """
    reason = ""
    for _ in range(ATTEMPTS):
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
                return response.read(limit)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code < 500:
                raise StatusError(error.code, error.headers) from None
            reason = f"HTTP status {error.code}"
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
    raise ReadError(f"cannot be read ({reason})")
