"""How long the kubelet says that a pull took."""

import re

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def pull_seconds(message: str) -> float:
    """The pull time of the kubelet's `Pulled` event (pkg/kubelet/images/image_manager.go).

    Raises:
        ValueError: it pulled nothing, since the image was there.
    """
    found = re.search(r"Successfully pulled image .* in (\S+) \(", message)
    if not found:
        raise ValueError(f"the image was not pulled: {message!r}")
    return go_duration_seconds(found[1])


def go_duration_seconds(text: str) -> float:
    """A duration as Go writes it, such as `1m2.5s` or `604ms`, in seconds.

    Raises:
        ValueError: it is none.
    """
    parts = re.findall(r"([0-9.]+)(ms|s|m|h)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"not a duration: {text!r}")
    return sum(float(number) * UNITS[unit] for number, unit in parts)
