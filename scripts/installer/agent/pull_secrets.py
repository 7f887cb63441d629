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
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any

from . import pull_secret_choice, pull_secret_files
from .credential import Credential
from .errors import clean
from .host import Host
from .image_reference import is_host
from .kubelet_identity import IdentityError, Json, KubeletIdentity
from .log import Log
from .pull_secret_choice import CONFLICT, OWN, Choice, Claims, Problem, Question, in_short
from .pull_secret_content import Content, Pod, file_text, read_pod, read_secret
from .pull_secret_files import ALIVE, FOLDER, HOSTS, READ, UNREAD
from .reflector import Changed, Gone, Listed, News, Reflector, Trouble
from .transaction import STATE, recorded_plan

LOOK_SECONDS = 5.0  # between two looks at the files, which others may have removed
READ_SECONDS = 20.0  # from the first list of pods: then all secrets count as read, whatever is missing
PATIENCE_SECONDS = 10.0  # a pod may be here before its secret, or before the API server lets us read it
AGAIN_SECONDS = 30.0  # after which a registry that did not answer is asked again
LATE_SECONDS = 5.0  # an answer that takes longer was late: others go first, this registry waits
KNOWN_SECONDS = 600.0  # after which one that answered is: rights are granted and end, images are pushed
OWN_SECONDS = 60.0  # for so long the node's own credentials are used in questions
EVENT_SECONDS = 600.0  # between two Events
EVENT_TIMEOUT_SECONDS = 5.0
SECRETS_OF_NAMESPACE, SECRETS = 32, 256  # each is followed by a thread with a connection
INSTALLED = f"{STATE}/current"
PODS = ""  # the source of news about pods; else namespace/name of a secret

Ask = Callable[[Question], bool | None]
AskOwn = Callable[[str], Credential | None]


@dataclass(frozen=True)
class OwnWay:
    """The question whether the node has credentials of its own for a host."""

    host: str


@dataclass
class Secret:
    """A secret that a pod names. ``content`` None: not read yet, or not there any more."""

    follower: Reflector
    content: Content | None = None
    is_absent: bool = False  # as the API server says
    trouble: str = ""
    since: float = 0.0  # when the trouble began


@dataclass
class Answer:
    """What was answered, and when; of `OwnWay` whether there are credentials. None: it is not known."""

    said: bool | None
    at: float
    was_late: bool = False


@dataclass
class State:
    """What is known."""

    pods: dict[str, Pod] = field(default_factory=dict)
    listed_at: float | None = None  # for the first time
    trouble: str = ""  # with the pods
    since: float = 0.0
    secrets: dict[str, Secret] = field(default_factory=dict)
    answers: dict[Question, Answer] = field(default_factory=dict)
    owns: dict[str, Answer] = field(default_factory=dict)
    decided: dict[str, Credential] = field(default_factory=dict)
    late: dict[str, float] = field(default_factory=dict)  # registries, and when they were
    brought: dict[str, set[str]] = field(default_factory=dict)  # host to the secrets that its file is from
    too_many: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


class Keeper:
    """Keeps the files of one node true to its pods. Everything happens in the thread that calls `run`."""

    def __init__(
        self,
        host: Host,
        node: str,
        *,
        identity: KubeletIdentity,
        log: Callable[[str], None],
        ask: Ask,
        ask_own: AskOwn,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``ask`` puts a question to a registry, ``ask_own`` asks for the node's own credentials for a host,
        and raises if they are not known; both are called in a thread of its own."""
        self._host = host
        self._node = node
        self._identity = identity
        self._log = log
        self._ask = ask
        self._ask_own = ask_own
        self._clock = clock
        self._news: queue.SimpleQueue[tuple[Any, News | Answer]] = queue.SimpleQueue()
        self._turn = threading.Condition()  # guards the two below
        self._questions: list[Question | OwnWay] = []  # in the order in which they are asked
        self._asked: set[Question | OwnWay] = set()  # and what was answered is not taken in yet
        self._own: dict[str, tuple[float, Credential | None]] = {}  # the asking thread's
        self._asker: threading.Thread | None = None
        self._teller: threading.Thread | None = None
        self._told = ""  # with the last Event
        self._told_at = -EVENT_SECONDS
        self._state = State()
        self._claimed: Claims = {}
        self._said: set[str] = set()

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
                        path = str(error.filename or FOLDER).removeprefix(str(self._host.root))
                        with contextlib.suppress(OSError):
                            self._show([(UNREAD, path, f"it cannot be read or written: {error.strerror}")])
        finally:
            for follower in (pods, *(secret.follower for secret in self._state.secrets.values())):
                follower.stop()

    # What comes in

    def _follow(self, path: str, selector: str, keep: Callable[[Json], Any], source: str) -> Reflector:
        def tell(news: News) -> None:
            self._news.put((source, news))

        follower = Reflector(self._identity, path, selector, keep, tell)
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
        if isinstance(news, Answer):
            with self._turn:
                self._asked.discard(source)
            return self._take_answer(source, news)
        if source == PODS:
            return self._take_pods(news)
        secret = self._state.secrets.get(source)
        return secret is not None and self._take_secret(secret, news)

    def _take_answer(self, source: Question | OwnWay, answer: Answer) -> bool:
        known = self._state.owns if isinstance(source, OwnWay) else self._state.answers
        key: Any = source.host if isinstance(source, OwnWay) else source
        before = known.get(key)
        if before and answer.said is None:
            answer = Answer(before.said, answer.at)  # who does not answer takes nothing back
        known[key] = answer
        if not isinstance(source, OwnWay):
            self._state.late.pop(source[0].host, None)
            if answer.was_late:
                self._state.late[source[0].host] = answer.at
        return before is None or before.said != answer.said

    def _take_pods(self, news: News) -> bool:
        state, before = self._state, dict(self._state.pods)
        match news:
            case Trouble(words=words):
                state.since = state.since if state.trouble else self._clock()
                state.trouble = words
                return True
            case Listed(items=items):
                state.pods = dict(items)
                state.listed_at = self._clock() if state.listed_at is None else state.listed_at
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
                secret.is_absent = content is None
            case Changed(item=item):
                content, secret.is_absent = item, False
            case Gone():
                content, trouble = None, "the secret was deleted"
                secret.is_absent = True
        if trouble and not secret.trouble:
            secret.since = self._clock()
        was = (secret.content, secret.trouble)
        secret.content, secret.trouble = content, trouble
        return was != (content, trouble)

    # What comes of it

    def _claim(self) -> None:
        secrets = self._state.secrets.items()
        contents = {name: secret.content for name, secret in secrets if secret.content}
        self._claimed, self._state.too_many = pull_secret_choice.claims(self._state.pods, contents)

    def _settle(self) -> None:
        """Follow what has to be followed, ask what has to be asked, and put files and problems right."""
        if not self._is_wanted():
            pull_secret_files.remove(self._host)
            return
        state = self._state
        state.problems = []
        found = self._problems_of_reading()
        is_safe = pull_secret_files.is_safe(self._host)
        if is_safe:
            self._try_to_put(ALIVE, pull_secret_files.now())
        else:
            found.append((UNREAD, FOLDER, "it is not in memory, or not root's alone: no pull secret is kept"))
        if is_safe and state.listed_at is not None:
            self._follow_secrets()
            present = pull_secret_files.present(self._host)
            answers = {question: answer.said for question, answer in state.answers.items()}
            owns = {host: answer.said for host, answer in state.owns.items()}
            choice = pull_secret_choice.choose(self._claimed, present, answers, owns, state.decided)
            state.decided = choice.decided
            self._write(choice, present)
            if not self._host.exists(READ) and self._has_read(choice, state.listed_at):
                self._try_to_put(READ, pull_secret_files.now())
            self._put_questions(choice)
            found += choice.problems
            found += [(UNREAD, "limits", cause) for cause in state.too_many]
        self._show(found + state.problems)
        if not self._is_wanted():
            pull_secret_files.remove(self._host)  # it was uninstalled meanwhile

    def _is_wanted(self) -> bool:
        """Whether SOCI is installed: nothing of ours belongs on another node."""
        return self._host.exists(INSTALLED)

    def _follow_secrets(self) -> None:
        state = self._state
        named = self._named()
        for name in sorted(named - set(state.secrets)):
            namespace, _, own = name.partition("/")
            path = f"/api/v1/namespaces/{namespace}/secrets"
            follower = self._follow(path, f"metadata.name={own}", read_secret, name)
            state.secrets[name] = Secret(follower, since=self._clock())
        for name in set(state.secrets) - named:
            state.secrets.pop(name).follower.stop()

    def _named(self) -> set[str]:
        """The secrets that pods name, as many as are followed: rather those that are followed already."""
        state = self._state
        named = {secret for pod in state.pods.values() for secret in pod.secrets}
        chosen: list[str] = []
        of_namespace: dict[str, int] = {}
        for name in sorted(named, key=lambda name: (name not in state.secrets, name)):
            namespace = name.partition("/")[0]
            of_namespace[namespace] = of_namespace.get(namespace, 0) + 1
            if of_namespace[namespace] <= SECRETS_OF_NAMESPACE:
                chosen.append(name)
        for namespace, number in of_namespace.items():
            if number > SECRETS_OF_NAMESPACE:
                cause = f"of {number} secrets that pods name only {SECRETS_OF_NAMESPACE} are read"
                state.problems.append((UNREAD, f"namespace {namespace}", cause))
        if len(chosen) > SECRETS:
            cause = f"of {len(chosen)} secrets that pods name only {SECRETS} are read"
            state.problems.append((UNREAD, "limits", cause))
        return set(chosen[:SECRETS])

    def _has_read(self, choice: Choice, listed_at: float) -> bool:
        """Whether each secret is known, and which credential each registry gets; or it has taken so long that
        nobody who waits for it is helped. Whoever makes pods cannot put that off."""
        state = self._state
        is_known = all(secret.content or secret.is_absent for secret in state.secrets.values())
        is_decided = self._claimed.keys() <= state.owns.keys() and choice.questions <= state.answers.keys()
        return (is_known and is_decided) or self._clock() - listed_at >= READ_SECONDS

    def _write(self, choice: Choice, present: Mapping[str, Credential]) -> None:
        brought = self._state.brought
        for name in pull_secret_files.names(self._host):
            if name not in choice.kept and (name in choice.decided or not self._is_needed(name)):
                brought.pop(name, None)
                try:
                    self._host.path(f"{FOLDER}/{name}").unlink(missing_ok=True)
                except OSError as error:
                    cause = f"it cannot be removed: {error.strerror}"
                    self._state.problems.append((UNREAD, f"{FOLDER}/{name}", cause))
        for host, credential in choice.kept.items():
            brought[host] = set(self._claimed[host][credential].secrets)
            if present.get(host) != credential:
                self._try_to_put(f"{FOLDER}/{host}", file_text(host, credential))
        self._try(HOSTS, lambda: pull_secret_files.remember(self._host, choice.kept))

    def _is_needed(self, host: str) -> bool:
        """Whether pods may still read with a credential whose secret is gone, or not read yet: a pod outlives
        it, and must not lose its files with it. Who wants to take the right away does so in the registry."""
        unread = {name for name, secret in self._state.secrets.items() if not secret.content}
        unread &= self._state.brought.get(host, unread)  # which is not known after a start
        return is_host(host) and any(
            unread & set(pod.secrets) and any(image.host == host for image in pod.images)
            for pod in self._state.pods.values()
        )

    def _try_to_put(self, path: str, text: str) -> None:
        self._try(path, lambda: pull_secret_files.put(self._host, path, text))

    def _try(self, path: str, write: Callable[[], None]) -> None:
        """Write a file; one that cannot be written is a problem, and no other's."""
        try:
            write()
        except OSError as error:
            cause = f"it cannot be written: {error.strerror}"
            self._state.problems.append((UNREAD, path, cause))

    # Registries

    def _put_questions(self, choice: Choice) -> None:
        """Have asked what is not known, or no more for certain: the node itself first, then rather what was
        never asked, and last the registries that were late."""
        state, now = self._state, self._clock()
        state.answers = {key: answer for key, answer in state.answers.items() if key in choice.questions}
        state.owns = {host: answer for host, answer in state.owns.items() if host in self._claimed}
        state.late = {host: at for host, at in state.late.items() if host in self._claimed}
        own = [
            OwnWay(host) for host in sorted(self._claimed) if _is_due(state.owns.get(host), OWN_SECONDS, now)
        ]
        due: list[tuple[float, float, str, Question]] = []
        for question in choice.questions:
            image, answer, late = question[0], state.answers.get(question), state.late.get(question[0].host)
            if late is not None and now - late < AGAIN_SECONDS:
                if answer is None:
                    state.answers[question] = Answer(None, late - AGAIN_SECONDS)
            elif _is_due(answer, AGAIN_SECONDS, now):
                due.append((late or 0.0, answer.at if answer else 0.0, image.name, question))
        with self._turn:
            due.sort(key=lambda entry: entry[:3])
            questions: list[Question | OwnWay] = [*own, *(question for *_, question in due)]
            self._questions = [question for question in questions if question not in self._asked]
            self._turn.notify()
        if self._questions and not self._asker:
            self._asker = threading.Thread(target=self._answer, name="registries", daemon=True)
            self._asker.start()

    def _answer(self) -> None:
        while True:
            with self._turn:
                while not self._questions:
                    self._turn.wait()
                question = self._questions.pop(0)
                self._asked.add(question)
            began = self._clock()
            answer: bool | None = None
            with contextlib.suppress(Exception):  # whatever it is, it is no answer
                if isinstance(question, OwnWay):
                    answer = self._credential_of_node(question.host) is not None
                else:
                    image, credential = question
                    if credential == OWN:
                        credential = self._credential_of_node(image.host) or OWN
                    answer = self._ask((image, credential))
            now = self._clock()
            was_late = answer is None and now - began >= LATE_SECONDS
            if was_late and not isinstance(question, OwnWay):
                host = question[0].host
                with self._turn:
                    waiting = [
                        one for one in self._questions if isinstance(one, OwnWay) or one[0].host != host
                    ]
                    self._questions = waiting
            self._news.put((question, Answer(answer, now, was_late)))

    def _credential_of_node(self, host: str) -> Credential | None:
        now = self._clock()
        self._own = {name: known for name, known in self._own.items() if now - known[0] < OWN_SECONDS}
        if host not in self._own:
            self._own[host] = (now, self._ask_own(host))
        return self._own[host][1]

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
        self._tell(sorted({subject for kind, subject, _ in lines if kind == CONFLICT}))

    def _say(self, problems: Mapping[str, str]) -> None:
        """Log the message of each kind of problem, once."""
        for kind in sorted(problems.keys() - self._said):
            self._said.add(kind)
            self._log(problems[kind])

    def _tell(self, registries: list[str]) -> None:
        """Have one Event about all registries, now and then: tenants choose how many there are. Which secrets
        it is about is for the node's administrator, in the log and in the doctor."""
        is_busy = self._teller is not None and self._teller.is_alive()
        message = (
            f"registry {in_short(registries)}: pods of this node have different credentials, see soci-doctor"
        )
        if registries and message != self._told and not is_busy:
            if self._clock() - self._told_at < EVENT_SECONDS:
                return
            self._told, self._told_at = message, self._clock()
            self._teller = threading.Thread(target=self._emit, args=(message,), name="event", daemon=True)
            self._teller.start()

    def _emit(self, message: str) -> None:
        """Put an Event on the node, in the node's name; what fails is not tried again before the next one."""
        from .api import Api, ApiError  # few nodes ever need it

        def call(method: str, path: str, body: Json | None, content_type: str) -> Json:
            connection = self._identity.connect(EVENT_TIMEOUT_SECONDS)
            try:
                response = connection.ask(method, path, body)
                response.read()
            finally:
                connection.close()
            if response.status >= 300:
                raise ApiError(f"{method} {path}: {response.status}", response.status)
            return {}

        # One name for each message: no container that starts again says it again.
        digest = hashlib.sha256(f"{self._node} {message}".encode()).hexdigest()
        name = f"soci-credentials-{digest[:20]}"
        api = Api(self._node, os.environ.get("POD_NAME", ""), "", "", call)
        try:
            api.emit(api.on_node, "Warning", "ConflictingCredentials", f"node {self._node}: {message}", name)
        except ApiError as error:
            if 400 <= error.status < 500:
                return
            self._told = ""
        except (OSError, IdentityError, HTTPException, ValueError):
            self._told = ""


def _is_due(answer: Answer | None, again: float, now: float) -> bool:
    """Whether something is to be asked, or asked again."""
    return answer is None or now - answer.at >= (again if answer.said is None else KNOWN_SECONDS)


def ask_registry(host: Host, question: Question) -> bool | None:
    """Put a question to its registry, on the way that the daemon has to it.

    Raises:
        InstallError: that is not known, as no daemon runs.
    """
    from . import image_access, node_http  # few nodes ever need them

    opener = node_http.opener(host, _daemon_environment(host), follows_redirects=False)
    return image_access.can_read(opener, *question)


def ask_node(host: Host, registry: str) -> Credential | None:
    """What the node has for a registry without the pull secrets of pods, as its daemon would get it; None for
    nothing.

    Raises:
        InstallError: that is not known, as no daemon runs, or the helper fails.
    """
    from . import credential_helper

    return credential_helper.get(host, registry, _daemon_environment(host), is_own=True)


def _daemon_environment(host: Host) -> dict[str, str]:
    from . import daemon_environment, slots, units

    unit = slots.in_use(recorded_plan(host).get("slot")).unit
    return daemon_environment.of_process(host, units.main_pid(units.show(host, unit, "MainPID")))


def main() -> None:
    """Work until the pod's end, whatever happens."""
    # No secret in a core. One byte, not none: only that keeps the kernel from a core that goes into a pipe.
    resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
    node = os.environ["NODE_NAME"]
    log = Log(node)
    log.begin("credentials")
    host = Host(Path("/host"))
    keeper = Keeper(
        host,
        node,
        identity=KubeletIdentity(host),
        log=log,
        ask=lambda question: ask_registry(host, question),
        ask_own=lambda registry: ask_node(host, registry),
    )
    attempt(keeper, host, log)
    time.sleep(60)
    # Anew, with the memory, the threads and the connections of a new process.
    os.execv(sys.executable, sys.orig_argv)


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
