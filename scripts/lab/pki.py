"""Certificates of the cluster and the kubeconfig files made of them."""

import base64
import json
import subprocess
import tempfile
from pathlib import Path

from settings import ADDRESS, API_PORT, LabError

API_NAMES = (
    f"DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,"
    f"IP:{ADDRESS},IP:10.96.0.1,IP:127.0.0.1"
)
DAYS = "3650"


class Authority:
    """The cluster's certificate authority and all that it has signed, in one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.certificate = directory / "ca.crt"
        self.key = directory / "ca.key"
        self.service_account_key = directory / "service-account.key"

    def create(self) -> None:
        """Make the authority and the service-account key when they do not exist."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self.service_account_key.exists():
            _generate_key(self.service_account_key)
        if not self.certificate.exists():
            _generate_key(self.key)
            own = ["req", "-x509", "-new", "-key", str(self.key), "-subj", "/CN=lab-ca", "-days", DAYS]
            _openssl([*own, "-out", str(self.certificate)])

    def sign(self, name: str, user: str, group: str, alternative_names: str = "") -> tuple[Path, Path]:
        """Return the paths of certificate and key of that name, made when they do not exist.

        Kubernetes reads the certificate's CN as the user and its O as the group.
        """
        certificate, key = self.directory / f"{name}.crt", self.directory / f"{name}.key"
        if certificate.exists():
            return certificate, key
        _generate_key(key)
        names = alternative_names or f"DNS:{name}"
        subject = f"/O={group}/CN={user}"
        authority = ["-CA", str(self.certificate), "-CAkey", str(self.key), "-CAcreateserial", "-days", DAYS]
        with tempfile.NamedTemporaryFile("w") as extensions, tempfile.NamedTemporaryFile() as request:
            extensions.write(f"extendedKeyUsage=serverAuth,clientAuth\nsubjectAltName={names}\n")
            extensions.flush()
            _openssl(["req", "-new", "-key", str(key), "-subj", subject, "-out", request.name])
            signing = ["x509", "-req", "-in", request.name, *authority, "-extfile", extensions.name]
            _openssl([*signing, "-out", str(certificate)])
        return certificate, key

    def kubeconfig(self, name: str, user: str, group: str) -> str:
        """Return a kubeconfig (JSON, which is YAML) with the user's certificate and one context, `lab`."""
        certificate, key = self.sign(name, user, group)
        server = f"https://{ADDRESS}:{API_PORT}"
        cluster = {"server": server, "certificate-authority-data": _base64(self.certificate)}
        credentials = {"client-certificate-data": _base64(certificate), "client-key-data": _base64(key)}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "lab",
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": name}}],
            "clusters": [{"name": "lab", "cluster": cluster}],
            "users": [{"name": name, "user": credentials}],
        }
        return json.dumps(content, indent=1)


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _generate_key(path: Path) -> None:
    _openssl(["ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", str(path)])


def _openssl(arguments: list[str]) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"openssl {arguments[0]} failed: {done.stderr.strip()}")
