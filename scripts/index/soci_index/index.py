"""`soci-index IMAGE...`: the images' index, made and pushed."""

import argparse
import contextlib
import fcntl
import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import options, references, sources, tools
from .assemble import normal_platform
from .errors import SociIndexError, UsageError
from .indexer import Indexer, Task, Wanted
from .layers import DEFAULT_MIN_BYTES, DEFAULT_SPAN_BYTES
from .outcome import Outcome, exit_status, page
from .processes import Children, StoppedError, ending_by_signals
from .progress import Progress
from .references import Reference
from .ztocs import Cache, DiskBudget, Maker, prune

IMAGES_AT_ONCE = 4
USAGE, INTERRUPTED = 2, 130
FREE_SHARE = 0.8  # of the free disk, unless --disk says otherwise


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="soci-index",
        description="Give images their SOCI index: of all platforms, without containerd, without root.",
        epilog="Exit status: 0 every image has its index, or needs none; 1 some failed; 2 usage. "
        "Another command: soci-index advise --help.",
    )
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="name:tag or name@digest")
    which = parser.add_argument_group("images")
    which.add_argument(
        "-f",
        "--file",
        action="append",
        default=[],
        metavar="FILE",
        help="one image a line, or Kubernetes manifests (helm template); - for standard input",
    )
    which.add_argument("--cluster", action="store_true", help="the images of a cluster's pods")
    which.add_argument("--context", default="", metavar="NAME", help="of the kubeconfig, for --cluster")
    which.add_argument(
        "-n",
        "--namespace",
        action="append",
        default=[],
        metavar="NAME",
        help="for --cluster: the pods of this one only; repeatable; default: all. Images of kube-system are "
        "often in registries to which only their makers push, and fail each time: name your own namespaces, "
        "or --to-repository",
    )
    which.add_argument("--kubectl", default="kubectl", metavar="COMMAND", help="how kubectl is run")
    which.add_argument(
        "--platform", action="append", default=[], metavar="OS/ARCH", help="only this one; repeatable"
    )
    where = parser.add_argument_group("where the indexed image goes", "by default TAG-soci beside the image")
    name = where.add_mutually_exclusive_group()
    name.add_argument("--suffix", default=references.SUFFIX, help="of its tag; default: %(default)s")
    name.add_argument("--to-tag", default="", metavar="TAG", help="its tag, of a single image")
    name.add_argument("--replace", action="store_true", help="move the image's own tag to it")
    where.add_argument(
        "--to-repository",
        default="",
        metavar="NAME",
        help="another repository; with a / at its end, what stands before the images' own",
    )
    where.add_argument(
        "--copy-all",
        action="store_true",
        help="images that need no index, or have one, are copied there, so that every image is",
    )
    how = parser.add_argument_group("the index")
    how.add_argument(
        "--index-version",
        choices=("v2", "v1"),
        default="v2",
        help="v2: in the image, which gets a new digest; v1: beside the image, which stays as it is",
    )
    how.add_argument("--span-size", type=options.size, metavar="SIZE", help="default: 4MiB")
    how.add_argument(
        "--min-layer-size", type=options.size, metavar="SIZE", help="of layers with a zTOC; default: 10MiB"
    )
    how.add_argument(
        "--prefetch",
        default="",
        metavar="FILE",
        help="a JSON list of files to fetch before a container starts",
    )
    how.add_argument(
        "--force", action="store_true", help="move a tag that holds something else than an indexed image"
    )
    how.add_argument(
        "--unsigned",
        action="store_true",
        help="index images that are signed or described, without that: signatures, attestations, bills of "
        "materials",
    )
    work = parser.add_argument_group("work")
    work.add_argument(
        "--jobs", type=options.count, default=options.default_jobs(), metavar="N", help="layers at a time"
    )
    work.add_argument(
        "--disk",
        type=options.size,
        default=0,
        metavar="SIZE",
        help="for layers; default: most of what is free",
    )
    work.add_argument("--output", choices=("table", "json"), default="table")
    work.add_argument("--quiet", action="store_true", help="no progress")
    options.add_registries(parser)
    options.add_tools(parser)
    parsed = parser.parse_args(arguments)
    if not (parsed.images or parsed.file or parsed.cluster):
        parser.error("name images, or --file, or --cluster")
    if (parsed.context or parsed.namespace) and not parsed.cluster:
        parser.error("--context and --namespace are for --cluster")
    if parsed.index_version == "v1" and (
        parsed.to_tag or parsed.replace or parsed.suffix != references.SUFFIX
    ):
        parser.error("an index v1 lies beside the image: it has no tag")
    if parsed.index_version == "v1" and parsed.copy_all:
        parser.error("--copy-all is for an index v2; v1 leaves every image its name")
    return parsed


def main(arguments: Sequence[str]) -> int:
    """Index, print, and return the exit status."""
    parsed = parse(arguments)
    try:
        tasks, refused = _tasks(parsed)
        outcomes = [*_run(parsed, tasks), *refused]
    except UsageError as error:
        print(f"soci-index: {error}", file=sys.stderr)
        return USAGE
    except SociIndexError as error:
        print(f"soci-index: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("soci-index: stopped; what was made is kept, and used the next time", file=sys.stderr)
        return INTERRUPTED
    if parsed.output == "json":
        print(json.dumps({"images": [outcome.to_json() for outcome in outcomes]}, indent=2))
    else:
        for line in page(outcomes):
            print(line)
    return exit_status(outcomes)


def _tasks(parsed: argparse.Namespace) -> tuple[list[Task], list[Outcome]]:
    """Each image, and where its indexed one goes; and those that have no such place.

    Raises:
        UsageError: there is no image, or one of the command line is none.
    """
    # A digest by two tags has a place by each of them.
    pairs: dict[tuple[str, str], tuple[Reference, Reference]] = {}

    def add(image: Reference) -> None:
        target = _target(parsed, image)
        pairs.setdefault((image.pinned, target.pinned), (image, target))

    for name in parsed.images:
        add(references.parse(name))
    found, refused = [], []
    for file in parsed.file:
        found += sources.of_text(_text(file, "--file"), file)
    if parsed.cluster:
        found += sources.of_cluster(shlex.split(parsed.kubectl), parsed.context, parsed.namespace)
    for name in sources.unique(found):
        try:
            add(references.parse(name))
        except UsageError as error:  # the others do not wait until it is mended
            refused.append(Outcome(name, problem=str(error)))
    if not pairs and not refused:
        raise UsageError("there is no image in what was given", "name one")
    images = {image.tagged if image.tag else image.pinned for image, _ in pairs.values()}
    if len(images) > 1 and (
        parsed.to_tag or (parsed.to_repository and not parsed.to_repository.endswith("/"))
    ):
        cause = f"--to-tag and --to-repository NAME are for one image; there are {len(images)}"
        raise UsageError(cause, "--suffix, or --to-repository NAME/ with a slash at its end")
    tasks, sharing = _apart(list(pairs.values()))
    return tasks, [*refused, *sharing]


def _apart(pairs: Sequence[tuple[Reference, Reference]]) -> tuple[list[Task], list[Outcome]]:
    """Those with a target of their own; and those of which several would be one, the last one winning.

    An image by its tag, and others by that tag and a digest, are a task: what the tag shows decides.
    """
    sharing: dict[str, list[tuple[Reference, Reference]]] = {}
    for image, target in pairs:
        sharing.setdefault(target.pinned, []).append((image, target))
    tasks, refused = [], []
    for place, found in sharing.items():
        images = [image for image, _ in found]
        by_tag = [image for image in images if not image.digest]
        pinned = tuple(image for image in images if image.digest)
        if len(images) == 1:
            tasks.append(Task(*found[0]))
        elif len(by_tag) == 1 and all(image.tagged == by_tag[0].tagged for image in pinned):
            tasks.append(Task(by_tag[0], found[0][1], pinned))
        else:
            cause = f"{' and '.join(image.name for image in images)} would all be {place}"
            error = SociIndexError(cause, "one of them; or each by itself, with --to-tag")
            refused += [Outcome(image.name, problem=str(error)) for image in images]
    return tasks, refused


def _target(parsed: argparse.Namespace, image: Reference) -> Reference:
    """Where an image's indexed one goes; an index v1 leaves the image what it is."""
    is_beside = parsed.index_version == "v1"
    if is_beside and not parsed.to_repository:
        return image
    return references.target_of(
        image,
        suffix="" if is_beside else parsed.suffix,
        tag=parsed.to_tag,
        repository=parsed.to_repository,
        in_place=parsed.replace,
    )


def _text(file: str, option: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} cannot be read ({error})", f"check {option}") from error


def _run(parsed: argparse.Namespace, tasks: Sequence[Task]) -> list[Outcome]:
    wanted = Wanted(
        version=parsed.index_version,
        platforms=tuple(map(platform, parsed.platform)),
        span_bytes=parsed.span_size or DEFAULT_SPAN_BYTES,
        min_layer_bytes=DEFAULT_MIN_BYTES if parsed.min_layer_size is None else parsed.min_layer_size,
        prefetch=_prefetch(parsed.prefetch),
        is_exact=bool(parsed.span_size or parsed.prefetch),
        is_forced=parsed.force,
        is_unsigned=parsed.unsigned,
        counts_layers=parsed.min_layer_size is not None,
        copies=bool(parsed.copy_all or parsed.to_tag or parsed.to_repository),
    )
    progress, children = Progress(is_quiet=parsed.quiet), Children()
    with ending_by_signals(children.stop), workplace(parsed.cache) as work:
        registry_by = options.registries(parsed, children, work)
        programs = tools.get(options.wanted_tools(parsed), parsed.cache, registry_by, progress.say)
        registry = registry_by(programs.oras)
        cache = Cache(parsed.cache, programs.soci_version, wanted.span_bytes)
        budget = DiskBudget(parsed.disk or int(shutil.disk_usage(work).free * FREE_SHARE))
        maker = Maker(programs, children, registry, cache, budget, work, wanted.span_bytes)
        indexer = Indexer(wanted, registry, maker, progress, parsed.jobs)
        pool = ThreadPoolExecutor(IMAGES_AT_ONCE)
        try:
            return [outcome for outcomes in pool.map(indexer.index, tasks) for outcome in outcomes]
        except StoppedError:
            raise KeyboardInterrupt from None
        finally:
            pool.shutdown(cancel_futures=True)
            indexer.close()


def _prefetch(file: str) -> tuple[str, ...]:
    if not file:
        return ()
    try:
        paths = json.loads(_text(file, "--prefetch"))
    except ValueError:
        paths = None
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise UsageError(f"{file} is no JSON list of paths", '["/opt/app/model.bin"]')
    return tuple(path.strip() for path in paths if path.strip())


def platform(text: str) -> tuple[str, str, str, str]:
    """A platform as it is compared: linux/arm64. Raises UsageError."""
    parts = text.split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise UsageError(f"--platform {text!r} is no platform", "linux/amd64, linux/arm64, linux/arm/v7")
    return normal_platform(dict(zip(("os", "architecture", "variant"), parts, strict=False)))


@contextlib.contextmanager
def workplace(cache: Path) -> Generator[Path]:
    """A directory for this run, which ends with it; those of runs that were killed are removed."""
    try:
        top = cache / "work"
        top.mkdir(parents=True, exist_ok=True)
        for old in top.iterdir():
            _remove_if_left(old)
        prune(cache)
        work = Path(tempfile.mkdtemp(dir=top))
    except OSError as error:
        raise SociIndexError(
            f"{cache} cannot be written ({error})", "--cache with another directory"
        ) from error
    lock = os.open(work, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        os.close(lock)


def _remove_if_left(directory: Path) -> None:
    """Remove a run's directory unless the run, which holds its lock, is alive."""
    with contextlib.suppress(OSError):
        lock = os.open(directory, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(directory, ignore_errors=True)
        finally:
            os.close(lock)
