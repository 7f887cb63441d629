"""``python3 -B -m agent credentials``: hands the pull secrets of this node's own pods to the SOCI daemon.

It follows the pods of its node and the secrets that they name, with the identity of the node's kubelet, and
keeps a file for each registry in the node's memory, where the credential helper finds it. Both are watched,
not asked for again and again: a watch of one object costs the API server a message when it changes, and a
secret that is rotated is in place within a second. The kubelet watches the same objects.

Whatever fails is said once and tried again: the pod stays as ready as the node is.
"""

import contextlib
import hashlib
import os
import queue
import resource
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import pull_secret_files, registry_choice
from .errors import clean
from .follow import Changed, Follower, Gone, Listed, News, Trouble
from .host import Host
from .log import Log
from .node_identity import IdentityError, Json, NodeIdentity
from .pull_secret_files import FOLDER, UNREAD
from .registry_auth import Credential
from .registry_choice import CONFLICT, Choice, Claim, Problem, Question, in_short
from .registry_credentials import (
    Content,
    Pod,
    file_text,
    is_host,
    read_pod,
    read_secret,
)
from .transaction import STATE, recorded_plan

LOOK_SECONDS = 5.0  # between two looks at the files, which others may have removed
PATIENCE_SECONDS = 10.0  # a pod may be here before its secret, or before the API server lets us read it
AGAIN_SECONDS = 30.0  # after which a registry that did not answer is asked again
REFUSED_SECONDS = 600.0  # after which one that refused is: rights are granted, images are pushed
INSTALLED = f"{STATE}/current"
PODS = ""  # the source of news about pods; else namespace/name of a secret

Ask = Callable[[Question], bool | None]


@dataclass
class Secret:
    """A secret that a pod names. ``content`` None: not read yet, or not there any more."""

    follower: Follower
    content: Content | None = None
    trouble: str = ""
    since: float = 0.0  # when the trouble began
    was_answered: bool = False


@dataclass
class Answer:
    """What a registry said, and when."""

    said: bool | None
    at: float


@dataclass
class State:
    """What is known."""

    pods: dict[str, Pod] = field(default_factory=dict)
    has_listed: bool = False
    trouble: str = ""  # with the pods
    since: float = 0.0
    secrets: dict[str, Secret] = field(default_factory=dict)
    answers: dict[Question, Answer] = field(default_factory=dict)
    asked: set[Question] = field(default_factory=set)  # and not answered yet


class Keeper:
    """Keeps the files of one node true to its pods. Everything happens in the thread that calls `run`."""

    def __init__(
        self,
        host: Host,
        node: str,
        *,
        identity: NodeIdentity,
        log: Callable[[str], None],
        ask: Ask,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``ask`` puts a question to a registry; it is called in a thread of its own."""
        self._host = host
        self._node = node
        self._identity = identity
        self._log = log
        self._ask = ask
        self._clock = clock
        self._news: queue.SimpleQueue[tuple[str, News] | tuple[Question, bool | None]] = queue.SimpleQueue()
        self._questions: queue.SimpleQueue[Question] = queue.SimpleQueue()
        self._asker: threading.Thread | None = None
        self._state = State()
        self._claimed: dict[str, dict[Credential, Claim]] = {}
        self._said: set[str] = set()
        self._told: set[str] = set()  # the registries of which there was an Event

    def run(self, ended: threading.Event | None = None) -> None:
        """Work until the process, or ``ended``, ends."""
        ended = ended or threading.Event()
        pods = self._follow("/api/v1/pods", f"spec.nodeName={self._node}", read_pod, PODS)
        looked = 0.0
        try:
            while not ended.is_set():
                is_new = self._take_news(LOOK_SECONDS)
                if is_new or self._clock() - looked >= LOOK_SECONDS:
                    looked = self._clock()
                    if is_new:
                        self._claim()
                    try:
                        self._settle()
                    except OSError as error:
                        self._say({"files": f"the node's files cannot be written: {error.strerror}"})
        finally:
            for follower in (pods, *(secret.follower for secret in self._state.secrets.values())):
                follower.stop()

    # What comes in

    def _follow(self, path: str, selector: str, keep: Callable[[Json], Any], source: str) -> Follower:
        def tell(news: News) -> None:
            self._news.put((source, news))

        follower = Follower(self._identity, path, selector, keep, tell)
        follower.start()
        return follower

    def _take_news(self, seconds: float) -> bool:
        """Wait for news, then take all that is there; whether any changes what is known."""
        is_new = False
        with contextlib.suppress(queue.Empty):
            is_new = self._take(*self._news.get(timeout=seconds))
            while True:
                is_new |= self._take(*self._news.get_nowait())
        return is_new

    def _take(self, source: Any, news: Any) -> bool:
        if isinstance(source, tuple):
            self._state.asked.discard(source)
            self._state.answers[source] = Answer(news, self._clock())
            return True
        if source == PODS:
            return self._take_pods(news)
        secret = self._state.secrets.get(source)
        return secret is not None and self._take_secret(secret, news)

    def _take_pods(self, news: News) -> bool:
        state, before = self._state, dict(self._state.pods)
        match news:
            case Trouble(words=words):
                state.since = state.since if state.trouble else self._clock()
                state.trouble = words
                return True
            case Listed(items=items):
                state.pods, state.has_listed = dict(items), True
            case Changed(name=name, item=item):
                state.pods[name] = item
            case Gone(name=name):
                state.pods.pop(name, None)
        is_first = bool(state.trouble) or isinstance(news, Listed)
        state.trouble = ""
        return is_first or state.pods != before

    def _take_secret(self, secret: Secret, news: News) -> bool:
        content = secret.content
        trouble = ""
        match news:
            case Trouble(words=words):
                # What is known stays: a server that is away says nothing about a secret.
                trouble = "" if content else words
            case Listed(items=items):
                content = next(iter(items.values()), None)
                trouble = "" if content else "there is no such secret"
            case Changed(item=item):
                content = item
            case Gone():
                content, trouble = None, "the secret was deleted"
        if trouble and not secret.trouble:
            secret.since = self._clock()
        was = (secret.content, secret.trouble, secret.was_answered)
        secret.content, secret.trouble = content, trouble
        secret.was_answered |= not isinstance(news, Trouble) or news.status in (403, 404)
        return was != (secret.content, secret.trouble, secret.was_answered)

    # What comes of it

    def _claim(self) -> None:
        secrets = self._state.secrets.items()
        contents = {name: secret.content for name, secret in secrets if secret.content}
        self._claimed = registry_choice.claims(self._state.pods, contents)

    def _settle(self) -> None:
        """Follow what has to be followed, ask what has to be asked, and put files and problems right."""
        if not self._host.exists(INSTALLED):
            pull_secret_files.remove(self._host)  # an uninstall may have come while some were written
            return
        state = self._state
        found = self._problems_of_reading()
        if not pull_secret_files.is_safe(self._host):
            found.append((UNREAD, FOLDER, "it is not in memory, or not root's alone: no pull secret is kept"))
        elif state.has_listed:
            self._follow_secrets()
            present = pull_secret_files.present(self._host)
            answers = {question: answer.said for question, answer in state.answers.items()}
            choice = registry_choice.choose(self._claimed, present, answers)
            self._write(choice, present)
            self._put_questions(choice)
            found += choice.problems
        self._show(found)

    def _follow_secrets(self) -> None:
        state = self._state
        named = {secret for pod in state.pods.values() for secret in pod.secrets}
        for name in named - set(state.secrets):
            namespace, _, own = name.partition("/")
            path = f"/api/v1/namespaces/{namespace}/secrets"
            follower = self._follow(path, f"metadata.name={own}", read_secret, name)
            state.secrets[name] = Secret(follower, since=self._clock())
        for name in set(state.secrets) - named:
            state.secrets.pop(name).follower.stop()

    def _write(self, choice: Choice, present: Mapping[str, Credential]) -> None:
        for host, credential in choice.kept.items():
            if present.get(host) != credential:
                pull_secret_files.put(self._host, f"{FOLDER}/{host}", file_text(host, credential))
        if any(not secret.was_answered for secret in self._state.secrets.values()):
            return  # a file may be theirs
        for name in pull_secret_files.names(self._host):
            if name not in choice.kept and not self._is_needed(name):
                self._host.path(f"{FOLDER}/{name}").unlink(missing_ok=True)

    def _is_needed(self, host: str) -> bool:
        """Whether pods may still read with a credential whose secret is gone: a pod outlives it, and must not
        lose its files with it. Who wants to take the right away does so in the registry."""
        unread = {name for name, secret in self._state.secrets.items() if not secret.content}
        return is_host(host) and any(
            unread & set(pod.secrets) and any(image.host == host for image in pod.images)
            for pod in self._state.pods.values()
        )

    # Registries

    def _put_questions(self, choice: Choice) -> None:
        state, now = self._state, self._clock()
        state.answers = {key: answer for key, answer in state.answers.items() if key in choice.questions}
        due = {question for question in choice.questions if self._is_due(question, now)}
        for question in sorted(due, key=lambda question: question[0].name):
            state.asked.add(question)
            self._questions.put(question)
        if due and not self._asker:
            self._asker = threading.Thread(target=self._answer, name="registries", daemon=True)
            self._asker.start()

    def _is_due(self, question: Question, now: float) -> bool:
        answer = self._state.answers.get(question)
        if question in self._state.asked or (answer and answer.said):
            return False
        wait = REFUSED_SECONDS if answer and answer.said is False else AGAIN_SECONDS
        return answer is None or now - answer.at >= wait

    def _answer(self) -> None:
        while True:
            question = self._questions.get()
            try:
                answer = self._ask(question)
            except Exception:  # noqa: BLE001 (whatever it is, it is no answer)
                answer = None
            self._news.put((question, answer))

    # What is said

    def _problems_of_reading(self) -> list[Problem]:
        state, now = self._state, self._clock()
        found: list[Problem] = []
        if state.trouble and now - state.since >= PATIENCE_SECONDS:
            found.append((UNREAD, "pods", f"the pods of this node cannot be listed: {state.trouble}"))
        for name, secret in sorted(state.secrets.items()):
            users = sorted(
                pod for pod, what in state.pods.items() if name in what.secrets and not what.has_ended
            )
            if users and secret.trouble and now - secret.since >= PATIENCE_SECONDS:
                cause = f"{secret.trouble}; it is named by {in_short(users)}"
                found.append((UNREAD, f"secret {name}", cause))
            for problem in secret.content.problems if secret.content else ():
                found.append((UNREAD, f"secret {name}", problem))
        return found

    def _show(self, found: list[Problem]) -> None:
        lines = pull_secret_files.cleaned(found)
        pull_secret_files.show(self._host, lines)
        said = {f"{kind} {subject}": f"{subject}: {cause}" for kind, subject, cause in lines}
        said |= {key: f"{key} of the kubelet's kubeconfig is not followed" for key in self._identity.ignored}
        self._said &= said.keys()  # what comes back is said again
        self._say(said)
        conflicts = {subject: cause for kind, subject, cause in lines if kind == CONFLICT}
        self._told &= conflicts.keys()
        for subject in sorted(conflicts.keys() - self._told):
            if emit(self._identity, self._node, subject, conflicts[subject]):
                self._told.add(subject)

    def _say(self, problems: Mapping[str, str]) -> None:
        """Log the message of each kind of problem, once."""
        for kind in sorted(problems.keys() - self._said):
            self._said.add(kind)
            self._log(problems[kind])


def emit(identity: NodeIdentity, node: str, registry: str, cause: str) -> bool:
    """Put an Event about a registry on the node, in the node's name; whether it need not be tried again."""
    from .api import Api, ApiError  # few nodes ever need it

    def call(method: str, path: str, body: Json | None, content_type: str) -> Json:
        connection = identity.connect(10)
        try:
            response = connection.ask(method, path, body)
            response.read()
        finally:
            connection.close()
        if response.status >= 300:
            raise ApiError(f"{method} {path}: {response.status}", response.status)
        return {}

    on_node = {"apiVersion": "v1", "kind": "Node", "name": node, "uid": node}
    message = f"node {node}: registry {registry}: {cause}"
    # One name for each registry: no container that starts again says it again.
    digest = hashlib.sha256(f"{node} {registry}".encode()).hexdigest()
    name = f"soci-credentials-{digest[:20]}"
    api = Api(node, os.environ.get("POD_NAME", ""), "", "", call)
    try:
        api.emit(on_node, "Warning", "ConflictingCredentials", message, name)
    except ApiError as error:
        return 400 <= error.status < 500
    except (OSError, IdentityError):
        return False
    return True


def ask_registry(host: Host, question: Question) -> bool | None:
    """Put a question to its registry, on the way that the daemon has to it.

    Raises:
        InstallError: that is not known, as no daemon runs.
    """
    from . import detect, environment, node_http, registry_probe, slots  # few nodes ever need them

    unit = slots.in_use(recorded_plan(host).get("slot")).unit
    variables = environment.of_process(host, detect.main_pid(detect.show(host, unit, "MainPID")))
    opener = node_http.opener(host, variables, follows_redirects=False)
    return registry_probe.can_read(opener, *question)


def main() -> None:
    """Work until the pod's end, whatever happens."""
    # No secret in a core. One byte, not none: only that keeps the kernel from a core that goes into a pipe.
    resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
    node = os.environ["NODE_NAME"]
    log = Log(node)
    log.begin("credentials")
    host = Host(Path("/host"))

    def ask(question: Question) -> bool | None:
        return ask_registry(host, question)

    while True:
        attempt(Keeper(host, node, identity=NodeIdentity(host), log=log, ask=ask), host, log)
        time.sleep(60)


def attempt(keeper: Keeper, host: Host, log: Callable[[str], None]) -> None:
    """Let it work; when it fails, which nothing outside makes it do, say so, also to the doctor."""
    try:
        keeper.run()
    except Exception as error:  # noqa: BLE001 (a container that ends would take the pod's readiness along)
        words = f"{type(error).__name__}: {clean(str(error))[:200]}"
        log(f"report this with the pod's log: {words}")
        if host.exists(INSTALLED):
            with contextlib.suppress(OSError):
                problem = (UNREAD, "process", f"it failed, and is begun anew: {words}")
                pull_secret_files.show(host, pull_secret_files.cleaned([problem]))


if __name__ == "__main__":
    main()
