"""What proves to a registry who asks; apart from how registries are asked, as who keeps it needs no HTTP."""

from dataclasses import dataclass, field

IDENTITY_TOKEN = "<token>"  # the user by which the credential helpers' protocol knows one


@dataclass(frozen=True)
class Credential:
    """User and secret, as the credential helpers' protocol has them."""

    user: str = field(repr=False)
    secret: str = field(repr=False)
