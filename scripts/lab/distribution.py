"""The registry of the CNCF's distribution project, over TLS, with users by htpasswd or by signed tokens.

It is what the stand-in beside it imitates: challenges, tokens and rights are checked by its own code. It has
no referrers API. Tokens come from a service that it only names, and which is here.
"""

import base64
import json
import secrets
import ssl
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import binaries
from awkward_registry import Exchange, Listener, User, basic_credentials, fits, server_context
from background import Process, free_port
from settings import LabError

SERVICE = "lab"
PASSWORD = "lab-password"
# Of PASSWORD, by bcrypt with the least cost: the one kind that distribution reads.
HTPASSWD = "{user}:$2b$04$abcdefghijklmnopqrstuuRmh8HtELSGLRIbn8Tav9ZLLfCC8wwMW"
LEEWAY_S = 60  # by which distribution takes an expired token for good (registry/auth/token/token.go)


class Distribution:
    """The registry, with the files of its images in a directory.

    Attributes:
        name: host:port of its images.
        users: with tokens, who may read what.
        token_seconds: with tokens, their life.
    """

    def __init__(
        self,
        directory: Path,
        address: str,
        certificate: tuple[Path, Path],
        *,
        tokens: bool,
        users: dict[str, User],
        authority: Path,
    ) -> None:
        """Begin to serve; without tokens every user's password is PASSWORD, and each may do everything."""
        self.users = users
        self.token_seconds = 300.0
        self.name = f"{address}:{free_port(address)}"
        self._certificate, self._key = certificate
        self._tokens = Listener(self._give_token, address, 0, server_context(certificate)) if tokens else None
        directory.mkdir(parents=True, exist_ok=True)
        htpasswd = directory / "htpasswd"
        htpasswd.write_text("".join(HTPASSWD.format(user=user) + "\n" for user in users))
        access: dict[str, object] = {"htpasswd": {"realm": "lab", "path": str(htpasswd)}}
        if self._tokens:
            token = {"realm": f"{self._tokens.url}/token", "service": SERVICE, "issuer": SERVICE}
            access = {"token": {**token, "rootcertbundle": str(authority)}}
        configuration = {
            "version": "0.1",
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(directory / "data")}},
            "http": {
                "addr": self.name,
                "tls": {"certificate": str(self._certificate), "key": str(self._key)},
            },
            "auth": access,
        }
        file = directory / "config.json"  # which is YAML
        file.write_text(json.dumps(configuration, indent=1))
        program = binaries.build("distribution") / "distribution"
        self._process = Process(directory / "log", [str(program), "serve", str(file)])
        self._await_answer(authority)

    def close(self) -> None:
        if self._tokens:
            self._tokens.stop()
        self._process.stop()

    def _await_answer(self, authority: Path, patience_s: float = 10) -> None:
        context = ssl.create_default_context(cafile=str(authority))
        deadline = time.monotonic() + patience_s
        while True:
            try:
                with urllib.request.urlopen(f"https://{self.name}/v2/", timeout=2, context=context):
                    return
            except urllib.error.HTTPError:  # it asks for credentials
                return
            except OSError as error:
                if time.monotonic() > deadline:
                    words = self._process.words()
                    raise LabError(f"distribution does not answer at {self.name}: {words}") from error
            time.sleep(0.05)

    def _give_token(self, exchange: Exchange) -> None:
        user, password = basic_credentials(exchange)
        if exchange.command != "GET":
            exchange.refuse(405, "UNSUPPORTED", "tokens are had by GET")
        elif user and (user not in self.users or self.users[user].password != password):
            exchange.refuse(401, "UNAUTHORIZED", "incorrect username or password")
        else:
            query = urllib.parse.parse_qs(exchange.path.partition("?")[2])
            scopes = [part.split(":") for text in query.get("scope", []) for part in text.split()]
            rights = self.users[user].repositories if user else ()
            granted = [
                {"type": kind, "name": name, "actions": actions.split(",")}
                for kind, name, actions in scopes
                if fits(name, rights)
            ]
            token = self._sign(user, granted)
            life = {"expires_in": max(1, int(self.token_seconds))}
            exchange.reply_json(200, {"token": token, "access_token": token, **life})

    def _sign(self, user: str, access: list[dict]) -> str:
        """A JSON Web Token by ES256 (RFC 7519, RFC 7518), with the certificate of its key in it."""
        now = int(time.time())
        text = self._certificate.read_text().partition("-----\n")[2].partition("-----")[0]
        header = {"typ": "JWT", "alg": "ES256", "x5c": [text.replace("\n", "")]}
        claims = {
            "iss": SERVICE,
            "aud": SERVICE,
            "sub": user,
            "jti": secrets.token_hex(8),
            "iat": now - LEEWAY_S,
            "nbf": now - LEEWAY_S,
            "exp": now + int(self.token_seconds) - LEEWAY_S,
            "access": access,
        }
        signed = b".".join(_base64url(json.dumps(part).encode()) for part in (header, claims))
        command = ["openssl", "dgst", "-sha256", "-sign", str(self._key)]
        made = subprocess.run(command, input=signed, capture_output=True, check=True).stdout
        return b".".join([signed, _base64url(_plain_signature(made))]).decode()


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _plain_signature(der: bytes) -> bytes:
    """The two numbers of an ECDSA signature, out of the DER that openssl writes (RFC 3279, 2.2.3)."""
    numbers, rest = b"", der[2:]
    for _ in range(2):
        length = rest[1]
        numbers += rest[2 : 2 + length].lstrip(b"\0").rjust(32, b"\0")
        rest = rest[2 + length :]
    return numbers
