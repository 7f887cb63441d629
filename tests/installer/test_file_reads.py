"""Reads of a real overlay, by a process whose root it is, as fanotify and the page cache have them."""

import mmap
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from agent.file_reads import MOST_BYTES, PAGE, SPARE_FILES, FileRead, FileReads

from tests.fakes.overlay import Overlay, overlay

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts an overlay")
PAGES = 64


def sparse(file: int) -> None:
    """No read-ahead: the kernel reads what is asked for."""
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)


@pytest.fixture
def container() -> Iterator[Overlay]:
    names = ("usr/lib/libbig.so", "usr/lib/mapped.so", "model.bin", "never")
    with overlay({name: os.urandom(PAGES * PAGE) for name in names} | {"empty": b""}) as made:
        made.mount()
        yield made


def watched(container: Overlay, work: Callable[[], object]) -> list[FileRead]:
    found = FileReads(str(container.mount_point), str(container.mount_point))
    try:
        container.run(work)
        found.collect()
        assert found.is_complete
        return found.reads()
    finally:
        found.close()


def test_what_is_read_and_what_is_mapped_is_known_to_the_page(container: Overlay) -> None:
    """A shared library is mapped and faulted in; no read(2) of it is ever seen (fanotify(7), LIMITATIONS)."""

    def start() -> None:
        file = os.open("/model.bin", os.O_RDONLY)
        sparse(file)
        os.pread(file, PAGE, 3 * PAGE)
        os.pread(file, 2 * PAGE, 10 * PAGE)
        library = os.open("/usr/lib/mapped.so", os.O_RDONLY)
        with mmap.mmap(library, 0, prot=mmap.PROT_READ) as mapped:
            mapped.madvise(mmap.MADV_RANDOM)
            mapped[20 * PAGE]

    found = {read.path: read.ranges for read in watched(container, start)}
    assert found["/model.bin"] == ((3 * PAGE, 4 * PAGE), (10 * PAGE, 12 * PAGE))
    (mapped,) = found["/usr/lib/mapped.so"]
    assert mapped[0] <= 20 * PAGE < mapped[1]
    assert set(found) == {"/model.bin", "/usr/lib/mapped.so"}


def test_a_file_is_told_once_in_the_order_of_first_opens(container: Overlay) -> None:
    def start() -> None:
        for path in ("/model.bin", "/usr/lib/libbig.so", "/model.bin", "/usr/lib/libbig.so", "/empty"):
            Path(path).read_bytes()

    found = watched(container, start)
    assert [(read.path, read.size, read.ranges) for read in found] == [
        ("/model.bin", PAGES * PAGE, ((0, PAGES * PAGE),)),
        ("/usr/lib/libbig.so", PAGES * PAGE, ((0, PAGES * PAGE),)),
    ]
    assert [read.milliseconds for read in found] == sorted(read.milliseconds for read in found)


def test_reads_before_the_container_has_its_root_have_the_same_paths(container: Overlay) -> None:
    """runc reads the passwd file by the path on the node."""
    found = FileReads(str(container.mount_point), str(container.mount_point))
    try:
        (container.mount_point / "model.bin").read_bytes()
        found.collect()
        assert [read.path for read in found.reads()] == ["/model.bin"]
    finally:
        found.close()


@pytest.fixture
def soft_limit() -> Iterator[Callable[[int], None]]:
    """Sets how many files this process may have open."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield lambda most: resource.setrlimit(resource.RLIMIT_NOFILE, (most, before[1]))
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_files_beyond_what_a_process_may_open_make_the_record_incomplete(
    container: Overlay, soft_limit: Callable[[int], None]
) -> None:
    soft_limit(SPARE_FILES + 2)
    found = FileReads(str(container.mount_point), str(container.mount_point))
    try:
        container.run(lambda: [Path(f"/{path}").read_bytes() for path in ("model.bin", "never", "empty")])
        found.collect()
        assert not found.is_complete
        assert [read.path for read in found.reads()] == ["/model.bin", "/never"]
        Path("/proc/self/mountinfo").read_text()
    finally:
        found.close()


def test_a_sparse_file_of_any_size_takes_no_time(container: Overlay) -> None:
    """Its pages were looked at one by one: a file may say that it has exabytes."""

    def open_sparse() -> None:
        with Path("/never").open("r+b") as file:
            file.truncate(MOST_BYTES + 1)
        Path("/never").open("rb").close()

    found = FileReads(str(container.mount_point), str(container.mount_point))
    try:
        container.run(open_sparse)
        found.collect()
        assert not found.is_complete
        assert [read for read in found.reads() if read.size > MOST_BYTES] == []
    finally:
        found.close()


def test_an_open_of_which_the_kernel_cannot_tell_makes_the_record_incomplete(
    container: Overlay, soft_limit: Callable[[int], None]
) -> None:
    found = FileReads(str(container.mount_point), str(container.mount_point))
    try:
        container.run(lambda: [Path(f"/{path}").read_bytes() for path in ("model.bin", "never")])
        soft_limit(max(map(int, os.listdir("/proc/self/fd"))))
        spare = []
        try:
            while True:
                spare.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            found.collect()
        for file in spare:
            os.close(file)
        assert not found.is_complete
    finally:
        found.close()


def test_nothing_of_it_is_left(container: Overlay) -> None:
    """An open file of the container's would keep its mount busy; the fixture unmounts it."""
    before = len(os.listdir("/proc/self/fd"))
    watched(container, lambda: Path("/model.bin").read_bytes())
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_container_that_is_gone_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        FileReads("/nowhere", str(tmp_path / "nowhere"))
    assert len(os.listdir("/proc/self/fd")) == before
