"""One image: read, its layers' zTOCs made, put together, pushed."""

import contextlib
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from . import assemble, attached, oci, prefetch
from .assemble import Documents, Image, Member
from .errors import SociIndexError
from .image_reader import ImageReader
from .layers import DEFAULT_MIN_BYTES, DEFAULT_SPAN_BYTES, Kind, kind_of
from .oci import Json
from .outcome import Outcome, Platform, Skipped, Status
from .progress import Progress
from .references import Reference
from .registry import DeniedError, NotFoundError, Registry, RegistryError
from .ztocs import Made, Maker

ASKED_AT_ONCE = 8  # manifests of an image
REFUSED_ARTIFACT = ("unsupported", "invalid", "400", "415", "media type", "mediatype")


@dataclass(frozen=True)
class Wanted:
    """What is asked for, of every image.

    Attributes:
        version: of the SOCI index, v1 or v2.
        platforms: normal ones; none for all of the image.
        prefetch: paths of files that nodes fetch before a container starts.
        is_exact: an index that is there counts only if it is the same.
        is_forced: a tag that holds something else than an indexed image is moved.
        is_unsigned: the indexed image needs nothing of what is attached to the image: signatures,
            attestations, bills of materials.
        counts_layers: an index that is there counts only if it has a zTOC of each layer from the minimum on.
        copies: an image that needs no index, or has one, is put at its target all the same.
    """

    version: str = "v2"
    platforms: tuple[tuple[str, str, str, str], ...] = ()
    span_bytes: int = DEFAULT_SPAN_BYTES
    min_layer_bytes: int = DEFAULT_MIN_BYTES
    prefetch: tuple[str, ...] = ()
    is_exact: bool = False
    is_forced: bool = False
    is_unsigned: bool = False
    counts_layers: bool = False
    copies: bool = False


@dataclass(frozen=True)
class Task:
    """An image that is to be indexed.

    Attributes:
        source: its name.
        target: where the indexed image goes.
        namesakes: others by the tag of the source and a digest, which may be the same image.
    """

    source: Reference
    target: Reference
    namesakes: tuple[Reference, ...] = ()


@dataclass
class _Work:
    """What is known of a platform that is to be indexed."""

    member: Member
    report: Platform
    layers: list[Json] = field(default_factory=list)


@dataclass
class _Reading:
    """An image as it was read, where its indexed one goes, and what is there; `outcome` hears of it."""

    source: Reference
    image: Image
    target: Reference
    there: Image | None
    outcome: Outcome


class Indexer:
    """Indexes images. Several may be worked on at a time; a layer that they share is made once."""

    def __init__(
        self, wanted: Wanted, registry: Registry, maker: Maker, progress: Progress, jobs: int
    ) -> None:
        self._wanted, self._registry, self._maker = wanted, registry, maker
        self._cache, self._progress = maker.cache, progress
        self._layers = ThreadPoolExecutor(jobs)
        self._questions = ThreadPoolExecutor(ASKED_AT_ONCE)
        self._reader = ImageReader(registry, self._ask)
        self._made: dict[Path, Future[tuple[Made, int]]] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Start nothing any more."""
        for pool in (self._layers, self._questions):
            pool.shutdown(wait=True, cancel_futures=True)

    def index(self, task: Task) -> list[Outcome]:
        """Give an image its index, at the target; whatever goes wrong is in the outcomes, one of each name.

        Raises:
            StoppedError: the run is being ended.
        """
        source, target = task.source, task.target
        outcome, image = Outcome(source.name, target=target.name), None
        with _telling(outcome):
            image = self._reader.read(source, outcome.notes)
            if self._wanted.version == "v1":
                self._index_v1(source, image, target, outcome)
            else:
                self._index_v2(source, image, target, outcome)
        return [outcome, *(self._of_namesake(pinned, task, image, outcome) for pinned in task.namesakes)]

    def _of_namesake(self, pinned: Reference, task: Task, image: Image | None, outcome: Outcome) -> Outcome:
        """What came of an image by tag and digest, beside the one that is at the tag now."""
        found = replace(outcome, image=pinned.name, made=0, kept=0, read_bytes=0, pushed_bytes=0)
        with _telling(found):
            by_itself = f"soci-index {pinned.name} --to-tag TAG"
            if image is None:
                cause = f"it is not known whether {task.source.name} is this image, since that cannot be read"
                raise SociIndexError(cause, f"mend that; or {by_itself}")
            if not self._is_same(pinned, image):
                found.platforms, found.notes = [], []
                cause = (
                    f"{task.source.name} shows another image now ({image.root['digest']}), "
                    f"for which {task.target.name} is"
                )
                raise SociIndexError(
                    cause, f"let the pods of this one take {task.source.name} as it is now; or {by_itself}"
                )
            is_done = found.status is not Status.FAILED
            found.notes = [f"it is {task.source.name}, which is indexed once"] if is_done else []
        return found

    def _is_same(self, pinned: Reference, image: Image) -> bool:
        """Whether an image by digest is this one, or the one of which this one was made with its index."""
        if pinned.digest == image.root["digest"]:
            return True
        other = self._reader.read(pinned, [])
        return any(member.content for member in other.members) and _is_held(other, image)

    # Version 2: in the image

    def _index_v2(self, source: Reference, image: Image, target: Reference, outcome: Outcome) -> None:
        works = self._plan(source, image, outcome)
        if not works and not self._wanted.copies:
            outcome.status = Status.NOTHING
            return
        reading = _Reading(source, image, target, self._read_target(source, image, target), outcome)
        if not works:
            self._copy(reading)
            return
        if not self._wanted.is_exact:
            own = [work.member.soci_digest for work in works]
            if self._has_indexes(source, works, own):
                self._place(reading)
                return
            if reading.there and self._is_at_target(image, works, target, reading.there):
                outcome.status, outcome.digest = Status.PRESENT, reading.there.root["digest"]
                return
        self._refuse_attached(source, assemble.replaced(image, {work.member.digest for work in works}))
        made = self._ztocs(source, works, outcome)
        lists = Documents()
        indexes = {work.member.digest: self._soci_index(work, made, lists, outcome) for work in works}
        documents = assemble.with_index(image, indexes)
        documents.blobs |= lists.blobs
        outcome.status = self._put(reading, documents, made.values(), indexes.values())

    def _put(
        self,
        reading: _Reading,
        documents: Documents,
        ztocs: Collection[Made],
        indexes: Collection[bytes] = (),
    ) -> Status:
        """Have what was made of an image, and these SOCI indexes, at the target's tag; was it there?"""
        source, target, outcome = reading.source, reading.target, reading.outcome
        outcome.digest = documents.root["digest"]
        mended = self._mend(reading, documents, ztocs, indexes)
        if reading.there and reading.there.root["digest"] == outcome.digest:
            return Status.INDEXED if mended else Status.PRESENT
        before = reading.image.root["digest"]
        if source.tag and not source.digest:
            self._refuse_moved(source, reading.image)
        if target.place != source.place:
            self._registry.copy(source, before, target)
        elif target.tag == source.tag and not source.digest:
            outcome.notes.append(f"what {source.tag} was before is {source.place}@{before}")
        self._push(documents, ztocs, target, target.tag, outcome)
        return Status.INDEXED

    def _mend(
        self, reading: _Reading, documents: Documents, ztocs: Collection[Made], indexes: Collection[bytes]
    ) -> bool:
        """Push SOCI indexes that are gone from behind an image that is there; whether there were any.

        oras leaves out what a manifest that is there refers to, also where that is gone.
        """
        target, outcome, mended = reading.target, reading.outcome, False
        with contextlib.suppress(DeniedError):  # who may only write learns the rest from the push
            for index in indexes if indexes and self._registry.has(target, outcome.digest) else ():
                root = oci.descriptor(oci.MANIFEST, index)
                if not self._registry.has(target, root["digest"]):
                    self._push(replace(documents, root=root), ztocs, target, "", outcome)
                    mended = True
        return mended

    def _place(self, reading: _Reading) -> None:
        """For an image that has its index: it stays where it is, or is copied to the target as it is."""
        outcome, digest = reading.outcome, reading.image.root["digest"]
        outcome.status, outcome.digest = Status.PRESENT, digest
        if not self._wanted.copies or reading.target.pinned == reading.source.pinned:
            outcome.target = reading.source.name
        elif not reading.there or reading.there.root["digest"] != digest:
            if reading.target.place != reading.source.place:
                digests = [digest, *(member.digest for member in reading.image.members)]
                self._refuse_attached(reading.source, digests, "is not copied with it")
            self._registry.copy(reading.source, digest, reading.target, reading.target.tag)
            outcome.status = Status.INDEXED
            outcome.notes.append("it had its index, and was copied as it is")

    def _copy(self, reading: _Reading) -> None:
        """For an image that needs no index: have a copy at the target, marked as one that may be replaced."""
        digest = reading.image.root["digest"]
        if reading.target.tagged == reading.source.tagged:
            reading.outcome.digest = digest
        else:
            self._refuse_attached(reading.source, assemble.replaced(reading.image, ()))
            self._put(reading, assemble.with_index(reading.image, {}, copy_of=digest), ztocs=())
        reading.outcome.status = Status.NOTHING

    def _read_target(self, source: Reference, image: Image, target: Reference) -> Image | None:
        """What is at the target's tag; None for nothing, and for the source itself.

        Raises:
            SociIndexError: it is something else than an indexed image, or the registry does not say.
        """
        if target.pinned == source.pinned:
            return None
        try:
            there = self._reader.read(target, [])
        except (NotFoundError, DeniedError):  # if it may not be read, or not be written, the push says so
            return None
        except RegistryError:
            raise
        except SociIndexError:  # no image at all
            there = None
        is_ours = there and (there.is_copy or any(member.soci_digest for member in there.members))
        is_own_tag = target.tagged == source.tagged
        if (
            there
            and is_own_tag
            and not {*map(_content_key, there.members)} & {*map(_content_key, image.members)}
        ):
            is_ours = False  # of a newer push: the tag would go back to this digest
        if not self._wanted.is_forced and not is_ours:
            if is_own_tag:
                if there and there.root["digest"] == image.root["digest"]:
                    return None
                cause = f"{target.name} is another image than {source.digest}"
                raise SociIndexError(cause, "name it without the digest, or --force to move the tag")
            cause = f"{target.name} is there, and is no indexed image"
            raise SociIndexError(cause, "another tag by --to-tag or --suffix, or --force to move this one")
        return there

    def _is_at_target(self, image: Image, works: Sequence[_Work], target: Reference, there: Image) -> bool:
        """Whether what is at the target is this image, all of it, with its indexes."""
        at_target = {_content_key(member): member.soci_digest for member in there.members}
        digests = [at_target.get(_content_key(work.member), "") for work in works]
        return _is_held(image, there) and self._has_indexes(target, works, digests)

    def _has_indexes(self, place: Reference, works: Sequence[_Work], digests: Sequence[str]) -> bool:
        """Whether a repository has these SOCI indexes, one of each platform, with what is wanted in them."""
        if not all(digests):
            return False
        indexed = self._ask(lambda digest: self._indexed_layers(place, digest), digests)
        for work, layers in zip(works, indexed, strict=True):
            wanted = {layer["digest"] for layer in work.layers} if self._wanted.counts_layers else set()
            if not layers or wanted - layers:
                return False
        for work, digest, layers in zip(works, digests, indexed, strict=True):
            work.report.index, work.report.ztocs = digest, len(layers)
        return True

    def _indexed_layers(self, place: Reference, digest: str) -> set[str]:
        """The layers of which a SOCI index has a zTOC; none where the repository has no such index."""
        try:
            index = json.loads(self._registry.manifest(place, digest)[1])
        except NotFoundError:
            return set()
        annotations = [layer.get("annotations") or {} for layer in index.get("layers") or []]
        return {found[assemble.LAYER_DIGEST] for found in annotations if assemble.LAYER_DIGEST in found}

    def _soci_index(
        self, work: _Work, made: Mapping[Path, Made], lists: Documents, outcome: Outcome
    ) -> bytes:
        """A platform's SOCI index; its prefetch lists are added to the documents."""
        version = self._wanted.version
        of_layers = [made[place] for place in self._places(work)]
        described = []
        if self._wanted.prefetch:
            layers = [
                (layer["digest"], prefetch.read(found.file.read_bytes()))
                for layer, found in zip(work.layers, of_layers, strict=True)
            ]
            artifacts, missing = prefetch.artifacts(layers, self._wanted.prefetch)
            for digest, content in artifacts.items():
                annotations = {assemble.LAYER_DIGEST: digest}
                described.append(lists.add(prefetch.MEDIA_TYPE, content) | {"annotations": annotations})
            outcome.notes += [f"{work.report.name}: no indexed layer has {path}" for path in missing]
        subject = work.member.descriptor if version == "v1" else None
        index = assemble.soci_index([layer.index for layer in of_layers], version, subject, described)
        work.report.index = oci.digest_of(index)
        return index

    def _refuse_attached(
        self, source: Reference, digests: Iterable[str], lost: str = "does not hold for the indexed image"
    ) -> None:
        """Refuse what is attached to manifests that are not at the target: it would be lost in silence."""
        if self._wanted.is_unsigned:
            return
        found = [
            words for words in self._ask(lambda digest: self._attached(source, digest), digests) if words
        ]
        if not found:
            return
        remedy = (
            "--unsigned, and sign or describe the indexed image yourself; or soci-index --index-version v1 "
            "without --to-repository, which leaves the image as it is"
        )
        raise SociIndexError(f"{source.name} has {found[0]}, which {lost}", remedy)

    def _attached(self, source: Reference, digest: str) -> str:
        """What is attached to a manifest, and where; empty for nothing."""
        for tag, what in attached.tags(digest).items():
            if self._registry.has(source, tag):
                return f"{what} (tag {tag})"
        types = [str(found.get("artifactType", "")) for found in self._registry.referrers(source, digest)]
        return next(
            (f"{attached.kind(found)} (a referrer, {found})" for found in types if attached.kind(found)), ""
        )

    def _refuse_moved(self, source: Reference, image: Image) -> None:
        """What is at the tag now must be what was read: a push in between would be lost, or the indexed image
        stay behind it."""
        if self._registry.manifest(source, source.tag)[0]["digest"] != image.root["digest"]:
            raise SociIndexError(f"{source.name} was pushed anew in the meantime", "run this again")

    # Version 1: beside the image

    def _index_v1(self, source: Reference, image: Image, target: Reference, outcome: Outcome) -> None:
        works = self._plan(source, image, outcome)
        if not works:
            outcome.status = Status.NOTHING
            return
        is_elsewhere = target.place != source.place
        wanted = (
            works
            if self._wanted.is_exact
            else [work for work in works if not self._has_v1(target if is_elsewhere else source, work)]
        )
        outcome.digest = image.root["digest"]
        if not wanted:
            outcome.status = Status.PRESENT
            return
        if is_elsewhere:
            digests = [image.root["digest"], *(work.member.digest for work in works)]
            self._refuse_attached(source, digests, "is not copied with it")
        made = self._ztocs(source, wanted, outcome)
        if is_elsewhere:
            self._registry.copy(source, image.root["digest"], target, target.tag)
        for work in wanted:
            documents = Documents()
            documents.add("", assemble.EMPTY)
            index = self._soci_index(work, made, documents, outcome)
            documents.root = documents.add(oci.MANIFEST, index)
            self._push(documents, [made[place] for place in self._places(work)], target, "", outcome)
        outcome.status = Status.INDEXED

    def _has_v1(self, place: Reference, work: _Work) -> bool:
        for found in self._registry.referrers(place, work.member.digest):
            if found.get("artifactType") == assemble.ARTIFACT_TYPES["v1"]:
                work.report.index = str(found["digest"])
                return True
        return False

    # Both

    def _plan(self, source: Reference, image: Image, outcome: Outcome) -> list[_Work]:
        """The platforms that get an index, with their layers that get a zTOC; what does not is reported.

        Raises:
            SociIndexError: a platform that is wanted is not there.
        """
        known: dict[tuple[str, str, str, str], Member] = {}
        for member in image.members:
            of = member.platform
            if (
                not of
                or "unknown" in (of.get("os"), of.get("architecture"))
                or member.is_attestation
                or assemble.is_soci_index(member.descriptor)
            ):
                continue
            if assemble.normal_platform(of) in known:
                text = assemble.platform_text(of)
                outcome.notes.append(
                    f"{text} is there twice; SOCI indexes the first ({member.digest} is not)"
                )
            else:
                known[assemble.normal_platform(of)] = member
        self._refuse_missing(source, known)
        works = []
        for normal, member in known.items():
            if self._wanted.platforms and normal not in self._wanted.platforms:
                continue
            work = _Work(member, Platform(assemble.platform_text(member.platform)))
            outcome.platforms.append(work.report)
            if normal[0] != "linux":
                work.report.why = f"SOCI is for Linux, not for {normal[0]}; carried as it is"
            elif member.content is None:
                work.report.why = "its manifest is not in the registry"
            else:
                self._plan_layers(work, member.content)
            if work.layers:
                works.append(work)
        return works

    def _refuse_missing(self, source: Reference, known: Iterable[tuple[str, str, str, str]]) -> None:
        for wanted in self._wanted.platforms:
            if wanted not in known:
                there = ", ".join("/".join(part for part in parts[:3] if part) for parts in known) or "none"
                text = "/".join(part for part in wanted[:3] if part)
                raise SociIndexError(
                    f"{source.name} has no platform {text}; it has {there}", "--platform with one"
                )

    def _plan_layers(self, work: _Work, manifest: Json) -> None:
        for layer in manifest.get("layers") or []:
            kind = kind_of(layer, self._wanted.min_layer_bytes)
            if kind is Kind.INDEXABLE:
                work.layers.append(layer)
            else:
                why = kind.value
                if kind is Kind.SMALL:
                    why += f" of {self._wanted.min_layer_bytes / (1 << 20):g} MiB"
                work.report.skipped.append(Skipped(layer["digest"], int(layer["size"]), why))
        work.report.ztocs = len(work.layers)
        if not work.layers:
            work.report.why = "nothing to index: no layer can have a zTOC"

    def _places(self, work: _Work) -> list[Path]:
        """Where the zTOCs of a platform's layers are kept."""
        return [self._cache.place(layer) for layer in work.layers]

    def _ztocs(self, source: Reference, works: Sequence[_Work], outcome: Outcome) -> dict[Path, Made]:
        """The zTOCs of all layers, by where they are kept."""
        layers = {self._cache.place(layer): layer for work in works for layer in work.layers}
        own = set()
        with self._lock:
            for place, layer in layers.items():
                if place not in self._made:
                    self._made[place] = self._layers.submit(self._ztoc, source, layer)
                    own.add(place)
            futures = {place: self._made[place] for place in layers}
        found, problems = {}, []
        for place, future in futures.items():
            try:
                try:
                    found[place], moved = future.result()
                except RegistryError:
                    if place in own:
                        raise
                    # Another image's repository does not have the layer, or not for us. This one may.
                    with self._lock:
                        if self._made[place] is future:
                            self._made[place] = self._layers.submit(self._ztoc, source, layers[place])
                            own.add(place)
                        again = self._made[place]
                    found[place], moved = again.result()
            except SociIndexError as error:
                problems.append(error)
                continue
            is_made_here = bool(moved) and place in own
            outcome.made += is_made_here
            outcome.kept += not is_made_here
            outcome.read_bytes += moved if is_made_here else 0
        if problems:
            raise problems[0]
        return found

    def _ztoc(self, source: Reference, layer: Json) -> tuple[Made, int]:
        """A layer's zTOC, and how many bytes of it were read for that."""
        known = self._cache.get(layer)
        if known:
            return known, 0
        size = int(layer["size"])
        with self._progress.layer(source.name, layer["digest"], size) as moved:
            return self._maker.make(source, layer, moved), size

    def _push(
        self, documents: Documents, ztocs: Iterable[Made], target: Reference, tag: str, outcome: Outcome
    ) -> None:
        """Push what an OCI layout holds that is made of the documents and the zTOCs."""
        layout = Path(tempfile.mkdtemp(prefix="push-", dir=self._registry.scratch))
        try:
            blobs = layout / "blobs" / "sha256"
            blobs.mkdir(parents=True)
            for digest, content in documents.blobs.items():
                (blobs / digest.removeprefix("sha256:")).write_bytes(content)
                outcome.pushed_bytes += len(content)
            for made in ztocs:
                place = blobs / made.descriptor["digest"].removeprefix("sha256:")
                if not place.exists():
                    place.symlink_to(made.file)
                    outcome.pushed_bytes += made.descriptor["size"]
            (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
            index = {"schemaVersion": 2, "manifests": [documents.root]}
            (layout / "index.json").write_bytes(oci.index_bytes(index))
            self._registry.push(layout, documents.root["digest"], target, tag)
        except RegistryError as error:
            if any(mark in error.cause.lower() for mark in REFUSED_ARTIFACT):
                other = "v1 puts it beside the image, by a fallback tag if need be" if tag else "use v2"
                remedy = f"this registry may not take artifacts: --to-repository in another one; {other}"
                raise RegistryError(error.cause, remedy) from error
            raise
        finally:
            shutil.rmtree(layout, ignore_errors=True)

    def _ask(self, question: Callable[[Any], Any], things: Iterable[Any]) -> list[Any]:
        """The answers to several questions to a registry, at once."""
        return list(self._questions.map(question, things))


@contextlib.contextmanager
def _telling(outcome: Outcome) -> Generator[None]:
    """What goes wrong with an image is in its outcome, and how long it took."""
    begin = time.monotonic()
    problem = None
    try:
        yield
    except SociIndexError as error:
        problem = error
    except OSError as error:
        problem = SociIndexError(f"the cache cannot be used ({error})", "--cache on a disk with more room")
    except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        cause = f"{outcome.image} has a manifest that is none ({type(error).__name__}: {error})"
        problem = SociIndexError(cause, "push the image again")
    if problem:
        outcome.status, outcome.problem = Status.FAILED, str(problem)
    if outcome.status is Status.FAILED or not outcome.digest:
        outcome.target = outcome.digest = ""
    outcome.seconds = time.monotonic() - begin


def _is_held(image: Image, by: Image) -> bool:
    """Whether another image has all of an image's platforms, with an index or without."""
    there = set(map(_content_key, by.members))
    return all(
        _content_key(member) in there
        for member in image.members
        if member.content and not assemble.is_soci_index(member.descriptor)
    )


def _content_key(member: Member) -> tuple[str, ...]:
    """What two manifests of the same content have in common, whatever their annotations and types."""
    content = member.content or {}
    config = content.get("config") or {}
    return (str(config.get("digest")), *(str(layer.get("digest")) for layer in content.get("layers") or []))
