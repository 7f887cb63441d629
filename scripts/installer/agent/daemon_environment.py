"""The environment of the slots' daemons: proxies and trust as the running containerd has them.

Names and meaning: Go's net/http ProxyFromEnvironment (golang.org/x/net/http/httpproxy) and crypto/x509
(root_unix.go). Quoting: systemd.exec(5), "EnvironmentFile=".
"""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from .errors import InstallError
from .host import Host
from .settings import Settings
from .slots import OUR_MARK

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
NO_PROXY = "NO_PROXY"
CERT_FILE, CERT_DIR = "SSL_CERT_FILE", "SSL_CERT_DIR"
# Go's own directories: SSL_CERT_DIR stands in their place, while its files are read all the same.
SYSTEM_CERT_DIRS = ("/etc/ssl/certs", "/etc/pki/tls/certs")
# The instance metadata by both protocols, the node itself, and the cluster.
NEVER_PROXIED = ("169.254.169.254", "fd00:ec2::254", "localhost", ".svc", ".cluster.local")


def of_process(host: Host, pid: int) -> dict[str, str]:
    """The variables of a process that matter here, as they were at its start.

    Raises:
        InstallError: they cannot be seen.
    """
    variables = host.environment_of(pid)
    if variables is None:
        raise InstallError("preflight", f"the environment of the process {pid} cannot be seen", "try again")
    return chosen(variables)


def chosen(variables: Mapping[str, str]) -> dict[str, str]:
    """Of these variables proxies and trust, by their names in capitals, which go before others."""
    found = {}
    for name in (*PROXIES, NO_PROXY, CERT_FILE, CERT_DIR):
        names = (name, name.lower()) if name.endswith("PROXY") else (name,)
        value = next((variables[key] for key in names if variables.get(key)), "")
        # systemd refuses a file with other characters, and no proxy's address has any.
        if value and value.isprintable() and "\ufffd" not in value:
            found[name] = value
    return found


def of_daemon(containerd: Mapping[str, str], settings: Settings, api_server: str) -> dict[str, str]:
    """The variables of SOCI's daemon: containerd's, unless the settings say otherwise. ``api_server`` is the
    address of the API server's service."""
    said = {
        "HTTP_PROXY": settings.http_proxy,
        "HTTPS_PROXY": settings.https_proxy,
        NO_PROXY: settings.no_proxy,
    }
    found = {**containerd, **{name: value for name, value in said.items() if value}}
    if any(name in found for name in PROXIES):
        entries = [entry.strip() for entry in found.get(NO_PROXY, "").split(",")]
        entries += [*NEVER_PROXIED, api_server]
        found[NO_PROXY] = ",".join(dict.fromkeys(entry for entry in entries if entry))
    else:
        found.pop(NO_PROXY, None)
    return found


def trusting(variables: Mapping[str, str], directory: str) -> dict[str, str]:
    """The same with the certificates in a directory trusted besides the others."""
    others = variables.get(CERT_DIR) or ":".join(SYSTEM_CERT_DIRS)
    return {**variables, CERT_DIR: f"{directory}:{others}"}


def in_both_cases(variables: Mapping[str, str]) -> dict[str, str]:
    """The same with each proxy in small letters, too: programs differ in which they read."""
    proxies = {name.lower(): value for name, value in variables.items() if name.endswith("PROXY")}
    return {**variables, **proxies}


def render(variables: Mapping[str, str]) -> str | None:
    """The text of the file for systemd; None for no file."""
    lines = []
    for name, value in in_both_cases(variables).items():
        quoted = re.sub(r'(["\\$`])', r"\\\1", value)
        lines.append(f'{name}="{quoted}"\n')
    head = f"{OUR_MARK}: containerd's proxies and trust, with those of the Pulumi configuration.\n"
    return head + "".join(lines) if lines else None


def proxy_for(url: str, variables: Mapping[str, str]) -> str:
    """The proxy through which a URL is fetched, as Go chooses it; empty for none."""
    parts = urlsplit(url)
    host, port = (parts.hostname or "").lower(), parts.port or (443 if parts.scheme == "https" else 80)
    proxy = variables.get(f"{parts.scheme.upper()}_PROXY", "")
    if not proxy or _is_local(host) or any(_matches(entry, host, port) for entry in _entries(variables)):
        return ""
    return proxy if "://" in proxy else f"http://{proxy}"


def _entries(variables: Mapping[str, str]) -> Sequence[str]:
    return [entry.strip().lower() for entry in variables.get(NO_PROXY, "").split(",") if entry.strip()]


def _is_local(host: str) -> bool:
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


def _matches(entry: str, host: str, port: int) -> bool:
    """Whether an entry of NO_PROXY is about a host: a network, an address, or a name with those below it."""
    address = _address(host)
    if entry == "*":
        return True
    if "/" in entry:
        try:
            return address is not None and address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    with_port = re.fullmatch(r"(\[[^\]]*\]|[^:]*):([0-9]+)", entry)
    if with_port:
        entry = with_port[1]
        if int(with_port[2]) != port:
            return False
    if (wanted := _address(entry)) is not None:
        return wanted == address
    name = entry.removeprefix("*")
    return host.endswith(name) if name.startswith(".") else host == name or host.endswith(f".{name}")
