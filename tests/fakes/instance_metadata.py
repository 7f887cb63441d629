"""The instance metadata service of EC2, version 2: a token first, then the credentials of its role.

As the EC2 User Guide has it ("Use the Instance Metadata Service", "Retrieve security credentials from
instance metadata"): who asks without a token, or through a proxy, is refused.
"""

import json
import secrets

from awkward_registry import Exchange, Listener

ADDRESS = "169.254.169.254"
ROLES = "/latest/meta-data/iam/security-credentials/"
LONGEST_SECONDS = 21600


class InstanceMetadata:
    """Serves an instance's role.

    Attributes:
        role: its name; empty for an instance without one.
        credentials: what is answered for it.
        asked: methods and paths of the requests, in their order.
    """

    def __init__(self, role: str = "node-role", address: str = ADDRESS, port: int = 80) -> None:
        self.role = role
        self.session = secrets.token_hex(32)
        self.credentials = {
            "Code": "Success",
            "LastUpdated": "2026-11-27T05:00:00Z",
            "Type": "AWS-HMAC",
            "AccessKeyId": "ASIAOFTHENODE",
            "SecretAccessKey": secrets.token_hex(20),
            "Token": self.session,
            "Expiration": "2026-11-27T11:00:00Z",
        }
        self.asked: list[tuple[str, str]] = []
        self._token = secrets.token_urlsafe(40)
        self.listener = Listener(self._answer, address, port)

    def close(self) -> None:
        self.listener.heard.set()
        self.listener.stop()

    def _answer(self, exchange: Exchange) -> None:
        self.asked.append((exchange.command, exchange.path))
        seconds = exchange.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
        if exchange.command == "PUT" and exchange.path == "/latest/api/token":
            if "X-Forwarded-For" in exchange.headers:
                exchange.reply(403)
            elif not (seconds.isdecimal() and 1 <= int(seconds) <= LONGEST_SECONDS):
                exchange.reply(400)
            else:
                exchange.reply(200, {"Content-Type": "text/plain"}, self._token.encode())
        elif exchange.headers.get("X-aws-ec2-metadata-token") != self._token:
            exchange.reply(401)
        elif self.role and exchange.path == ROLES:
            exchange.reply(200, {"Content-Type": "text/plain"}, self.role.encode())
        elif self.role and exchange.path == ROLES + self.role:
            exchange.reply(200, {"Content-Type": "text/plain"}, json.dumps(self.credentials).encode())
        else:
            exchange.reply(404)
