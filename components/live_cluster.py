"""The cluster as it is: what the program reads from its API server, before a plan and after a failure."""

import functools
import json
import queue
import threading
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from . import redaction
from .kubeconfig import parse

REQUEST_TIMEOUT_SECONDS = 10

Object = Mapping[str, Any]


class UnreadableError(Exception):
    """The cluster cannot be read: credentials, rights, or a certificate that is not trusted."""


class UnreachableError(UnreadableError):
    """Nothing answers at the API server's address."""


class LiveCluster:
    """One cluster, read with its kubeconfig. No object is ever written. Safe to use from several threads.

    Where nothing answered once, nothing is asked again: each attempt would take the whole time limit.

    Raises, here and in each method:
        UnreachableError: nothing answers at the API server's address.
        UnreadableError: the kubeconfig or the API server refuses.
    """

    def __init__(self, kubeconfig: str, context: str = "") -> None:
        # Heavy, and of no use to a program that reads no cluster.
        from kubernetes import client, config

        # One try: who waits for an answer here is a person.
        settings = client.Configuration(retries=False)
        try:
            self._connection = config.new_client_from_config_dict(
                parse(kubeconfig),
                context=context or None,
                persist_config=False,
                client_configuration=settings,
            )
        except Exception as error:  # a credential program that fails raises whatever it likes
            raise UnreadableError(first_line(error)) from error
        self._unreachable: UnreachableError | None = None

    def get(self, path: str, **query: str) -> Object | None:
        """The object, or the list, at an API path; None when there is none."""
        from urllib3.exceptions import HTTPError, ProxyError, SSLError

        if self._unreachable:
            raise self._unreachable
        url = f"{path}?{urlencode(query)}" if query else path
        request = self._connection.param_serialize(
            "GET", url, header_params={"Accept": "application/json"}, auth_settings=["BearerToken"]
        )
        try:
            answer = self._connection.call_api(*request, _request_timeout=REQUEST_TIMEOUT_SECONDS)
            content = json.loads(answer.read() or b"{}")
        except (ProxyError, SSLError) as error:
            raise UnreadableError(first_line(error)) from error
        except HTTPError as error:
            address = self._connection.configuration.host
            server = "the API server" if redaction.credentials_in(address) else address
            reason = first_line(error).rpartition("): ")[2]
            self._unreachable = UnreachableError(f"{server} does not answer: {reason}")
            raise self._unreachable from error
        except Exception as error:
            raise UnreadableError(first_line(error)) from error
        if answer.status == 404:
            return None
        if answer.status >= 400:
            raise UnreadableError(content.get("message") or f"HTTP status {answer.status}")
        return content

    def items(self, path: str, **query: str) -> Sequence[Object]:
        """The objects of a kind at an API path."""
        return (self.get(path, **query) or {}).get("items") or []

    def run(self, namespace: str, pod: str, container: str, command: Sequence[str], seconds: float) -> str:
        """What a command in a container prints.

        Raises:
            UnreadableError: also when it fails, or has not ended in so many seconds.
        """
        answers: queue.SimpleQueue[str | Exception] = queue.SimpleQueue()

        def ask() -> None:
            try:
                answers.put(self._run(namespace, pod, container, command, seconds))
            except Exception as error:  # noqa: BLE001 (raised below)
                answers.put(error)

        # The client's handshake knows no time limit: a silent server keeps this thread, and no other.
        threading.Thread(target=ask, name=f"exec in {pod}", daemon=True).start()
        try:
            answer = answers.get(timeout=seconds)
        except queue.Empty:
            raise UnreadableError(f"{namespace}/{pod} does not answer in {seconds:.0f} s") from None
        if isinstance(answer, Exception):
            # The client's own error has its words in an attribute, and after them the answer's headers.
            words = str(getattr(answer, "reason", None) or first_line(answer))
            raise UnreadableError(words.partition(" -+-+- ")[0]) from answer
        return answer

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
        try:
            process.run_forever(timeout=seconds)
            output, errors = process.read_stdout(), process.read_stderr()
            status = process.returncode
        finally:
            process.close()
        if status:
            lines = [line for line in errors.splitlines() if line.strip()]
            raise UnreadableError((lines or [f"it ended with status {status}"])[-1])
        return output


@functools.cache
def connect(kubeconfig: str, context: str) -> LiveCluster:
    """The cluster as all parts of a program read it before a plan: one connection for each kubeconfig."""
    return LiveCluster(kubeconfig, context)


def first_line(error: Exception) -> str:
    """The first line of an error's text; its kind when it has none."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
