"""The cluster as it is: what the program asks its API server, before a plan and after a failure."""

import contextlib
import functools
import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, TypeVar, cast
from urllib.parse import urlencode

from . import redaction
from .kubeconfig import (
    as_kubectl_means,
    cluster_and_user,
    impersonation_headers,
    of_one,
    parse,
    take_token,
)
from .values import RefusedError

REQUEST_TIMEOUT_SECONDS = 10
MOST_CHARACTERS = 4 << 20  # of what a command prints
CERTIFICATES = "check the certificates, server and tls-server-name in soci:kubeconfig"
CREDENTIALS = "check the credentials in soci:kubeconfig, and whether they have expired"

Object = Mapping[str, Any]
T = TypeVar("T")


class UnreadableError(Exception):
    """The cluster cannot be asked: credentials, rights, or a certificate that is not trusted.

    ``remedy`` is what ends that, for the user of a kubeconfig; empty where rights are missing, which only who
    asks can name.
    """

    def __init__(self, cause: str, remedy: str = "") -> None:
        super().__init__(cause)
        self.remedy = remedy


class UnreachableError(UnreadableError):
    """Nothing answers at the API server's address."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause, "check the network, and soci:kubeconfig and soci:context")


class LiveCluster:
    """One cluster, by its kubeconfig. Only `delete_pod` changes it. Safe to use from several threads.

    Where nothing answered once, nothing is asked again: each attempt would take the whole time limit.

    Raises, here and in each method:
        UnreachableError: nothing answers at the API server's address.
        UnreadableError: the kubeconfig or the API server refuses.
    """

    def __init__(self, kubeconfig: str, context: str = "") -> None:
        # Heavy, and of no use to a program that reads no cluster.
        import urllib3
        from kubernetes import client, config

        # Who skips the verification says so himself; a warning at each request tells nobody more.
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        # One try: who waits for an answer here is a person.
        settings = client.Configuration(retries=False)
        try:
            cluster, user = cluster_and_user(parse(kubeconfig), context)
            take_token(user)
            cluster, user = as_kubectl_means(cluster, user)
            self._impersonation = impersonation_headers(user)
            self._has_socks_proxy = cluster.get("proxy-url", "").startswith("socks")
            program = user.get("exec", {}).get("command")
            with _said_by_the_loader() as said:
                self._connection = config.new_client_from_config_dict(
                    of_one(cluster, user), persist_config=False, client_configuration=settings
                )
        except RefusedError as refused:
            raise UnreadableError(f"the kubeconfig is refused: {refused.reason}") from refused
        except Exception as error:  # a credential program that fails raises whatever it likes
            raise UnreadableError(first_line(error)) from error
        # The client goes on without credentials, and what it may not do would be told as a lack of rights.
        if program and not (settings.api_key or settings.cert_file):
            cause = "".join(f": {line}" for line in said[:1])
            raise UnreadableError(f"{program}, which the kubeconfig names, gave no credentials{cause}")
        self._unreachable: UnreachableError | None = None

    def get(self, path: str, **query: str) -> Object | None:
        """The object, or the list, at an API path; None when there is none."""
        return self._ask("GET", path, query)

    def delete_pod(self, namespace: str, name: str) -> None:
        """Delete the object of a pod at once, without its node's word; nothing when it has gone already."""
        self._ask("DELETE", f"/api/v1/namespaces/{namespace}/pods/{name}", {"gracePeriodSeconds": "0"})

    def _ask(self, verb: str, path: str, query: Mapping[str, str]) -> Object | None:
        from kubernetes.client import ApiException
        from urllib3 import HTTPHeaderDict
        from urllib3.exceptions import HTTPError, ProxyError

        if self._unreachable:
            raise self._unreachable
        url = f"{path}?{urlencode(query)}" if query else path
        method, address, headers, *content = self._connection.param_serialize(
            verb, url, header_params={"Accept": "application/json"}, auth_settings=["BearerToken"]
        )
        request = method, address, HTTPHeaderDict([*headers.items(), *self._impersonation]), *content
        try:
            answer = self._connection.call_api(*request, _request_timeout=REQUEST_TIMEOUT_SECONDS)
            text = answer.read()
        except ProxyError as error:
            raise UnreadableError(first_line(error), "check proxy-url in soci:kubeconfig") from error
        except ApiException as error:  # what the client makes of an error of TLS: its kind, then its words
            raise UnreadableError(f"{error.reason}".splitlines()[-1], CERTIFICATES) from error
        except HTTPError as error:
            address = self._connection.configuration.host
            server = "the API server" if redaction.credentials_in(address) else address
            reason = first_line(error).rpartition("): ")[2]
            self._unreachable = UnreachableError(f"{server} does not answer: {reason}")
            raise self._unreachable from error
        except ValueError as error:
            # Of a header that cannot be sent; its words show the credential.
            if not str(error).startswith("Invalid header"):
                raise UnreadableError(first_line(error)) from error
            raise UnreadableError("a credential of the kubeconfig has a line break in it") from None
        except Exception as error:
            raise UnreadableError(first_line(error)) from error
        return object_of(answer.status, text)

    def items(self, path: str, **query: str) -> Sequence[Object]:
        """The objects of a kind at an API path."""
        return (self.get(path, **query) or {}).get("items") or []

    def run(self, namespace: str, pod: str, container: str, command: Sequence[str], seconds: float) -> str:
        """What a command in a container prints.

        Raises:
            UnreadableError: also when it fails, or has not ended in so many seconds.
        """
        if self._impersonation:
            raise UnreadableError("the kubeconfig acts as another user, with whom no command can be run here")
        if self._has_socks_proxy:
            raise UnreadableError("no command can be run through the kubeconfig's SOCKS proxy")
        return within(seconds, lambda: self._run(namespace, pod, container, command, seconds))

    def _run(self, namespace: str, pod: str, container: str, command: Sequence[str], seconds: float) -> str:
        from kubernetes.client import ApiClient, CoreV1Api
        from kubernetes.stream import stream

        # A stream changes its client for a while: it has one of its own.
        api = CoreV1Api(ApiClient(self._connection.configuration))
        process = stream(
            api.connect_get_namespaced_pod_exec,
            pod,
            namespace,
            container=container,
            command=list(command),
            stdout=True,
            stderr=True,
            _preload_content=False,
        )
        deadline = time.monotonic() + seconds
        output = errors = ""
        try:
            while process.is_open() and time.monotonic() < deadline and len(output) < MOST_CHARACTERS:
                process.update(timeout=1)
                output += process.read_stdout(timeout=0)
                errors += process.read_stderr(timeout=0)
            status = None if process.is_open() else process.returncode
        except (TypeError, ValueError, LookupError) as error:  # of a status that is none
            raise UnreadableError("the connection ended before the command did") from error
        finally:
            process.close()
        if status is None:
            raise UnreadableError("the command says too much, or does not end")
        if status:
            lines = [line for line in errors.splitlines() if line.strip()]
            raise UnreadableError((lines or [f"it ended with status {status}"])[-1])
        return output


def object_of(status: int, text: bytes) -> Object | None:
    """What an answer with this HTTP status says; None where the API server has no such object.

    Raises:
        UnreadableError: the API server refuses, or it is none: a proxy's page, or that of a login.
    """
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    # Objects, lists and refusals have their kind: https://kubernetes.io/docs/reference/using-api/api-concepts
    if not isinstance(content, dict) or "kind" not in content or 300 <= status < 400:
        raise UnreadableError(
            f"HTTP status {status} with an answer that is none of an API server",
            "check the server's address in soci:kubeconfig, and what answers in its place",
        )
    if status == 404:
        return None
    if status < 400:
        return content
    cause = str(content.get("message") or f"HTTP status {status}")
    raise UnreadableError(cause, CREDENTIALS if status == 401 else "")


def within(seconds: float, ask: Callable[[], T]) -> T:
    """What `ask` returns, or raises.

    Raises:
        UnreadableError: it takes longer; it goes on in a thread that keeps no program from its end. Neither
            the client's handshake for a command nor a credential program has a time limit.
    """
    answers: queue.SimpleQueue[tuple[T | None, Exception | None]] = queue.SimpleQueue()

    def answer() -> None:
        try:
            answers.put((ask(), None))
        except Exception as error:  # noqa: BLE001 (raised below)
            answers.put((None, error))

    threading.Thread(target=answer, name="cluster", daemon=True).start()
    try:
        said, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise UnreadableError(f"no answer in {seconds:.0f} s") from None
    if error:
        # The client's own error has its words in an attribute, and after them the answer's headers.
        words = str(getattr(error, "reason", None) or first_line(error))
        raise UnreadableError(words.partition(" -+-+- ")[0]) from error
    return cast(T, said)


@functools.cache
def connect(kubeconfig: str, context: str) -> LiveCluster:
    """The cluster as all parts of a program read it before a plan: one connection for each kubeconfig."""
    return LiveCluster(kubeconfig, context)


@contextlib.contextmanager
def _said_by_the_loader() -> Generator[list[str]]:
    """What the client's reader of kubeconfigs logs, which is why a program gave no credentials; its first
    lines, instead of standard error."""
    said: list[str] = []

    def is_of_another(record: logging.LogRecord) -> bool:
        if record.module != "kube_config":
            return True
        said.append(first_line(record.getMessage()))
        return False

    logger = logging.getLogger()
    logger.addFilter(is_of_another)
    try:
        yield said
    finally:
        logger.removeFilter(is_of_another)


def first_line(error: Exception | str) -> str:
    """The first line of an error's text; its kind when it has none."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
