"""What becomes of a publishing that is killed, or finds the disk full: the bundle before it serves on, whole.

One process (``WORKER``) has everything imported and runs each command in a fork of its own. There the audit events of
Python tell each file that is opened to be written and each rename, and at one of them the fork ends itself with
SIGKILL, or fills the disk: a small one of its own, where this machine lets one mount it.
"""

from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.steps import Pipeline
from graph_store.progress import NoProgress
from graph_store.project import load_project
from model_store import layout
from model_store.bundle_store import BundleStore
from model_store.errors import DiskFull
from server.index.scann_index import scann_version
from tests.toy import write_toy

ROOT = Path(__file__).resolve().parents[2]
MOUNT = "mkdir -p $0 && mount -t tmpfs -o size=24m tmpfs $0"

WORKER = """
import json, os, resource, shutil, signal, sys
from pathlib import Path
import training.evaluate, training.publish, training.evaluation.html_report, server.index.publish
from cli import main

disk = Path(sys.argv[1])

def fill():
    with open(disk / "filler", "wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError:
            pass

def watch(given, folder):
    passed = {}

    def hook(event, arguments):
        if event == "open":
            written = isinstance(arguments[0], str) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if not written or not arguments[0].startswith(folder):
                return
        elif event != "os.rename":
            return
        name = Path(arguments[0]).name
        kind = "unfinished" if name.startswith(".unfinished") else "ACTIVE" if name.startswith(".ACTIVE") else name
        place = event.removeprefix("os.") + " " + kind
        passed[place] = passed.get(place, 0) + 1
        if (place, passed[place]) == tuple(given["kill_at"] or ()):
            os.kill(os.getpid(), signal.SIGKILL)
        if (place, passed[place]) == tuple(given["full_at"] or ()):
            fill()

    sys.addaudithook(hook)

def run(given):
    folder, work = Path(given["folder"]), Path(given["folder"]) / ".kithkin"
    if given["full_at"]:
        work = disk / "work"
        os.environ["KITHKIN_WORK"] = str(work)
    watch(given, str(work))
    if given["largest_file"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (given["largest_file"],) * 2)
    sys.argv = ["kithkin", *given["command"], "-p", str(folder)]
    main.main()

for line in sys.stdin:
    given = json.loads(line)
    kept = Path(given["folder"]) / ".kithkin"
    if given["full_at"]:
        for left in disk.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        shutil.copytree(kept, disk / "work")
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            os.dup2(writing, 1), os.dup2(writing, 2)
            os.close(reading), os.close(writing)
            run(given)
            code = 0
        except SystemExit as ended:
            code = ended.code or 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as said:
        text = said.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if given["full_at"]:
        shutil.rmtree(kept)
        shutil.copytree(disk / "work", kept)
    print(json.dumps([code, text]), flush=True)
"""


def _own_disk() -> bool:
    """Whether this machine lets a process mount a disk that nobody else sees."""
    try:
        tried = subprocess.run(["unshare", "-rm", "sh", "-c", MOUNT, "/tmp"], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return tried.returncode == 0


needs_a_disk = pytest.mark.skipif(not _own_disk(), reason="no small disk can be mounted here")


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    said: str


class Worker:
    """Runs commands in forks of one process."""

    def __init__(self, disk: Path) -> None:
        command = [sys.executable, "-c", WORKER, str(disk)]
        if _own_disk():
            command = ["unshare", "-rm", "sh", "-c", f'{MOUNT} && exec "$@"', str(disk), *command]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, folder: Path, *command: str, **given: Any) -> Ended:
        words = {"kill_at": None, "full_at": None, "largest_file": None, "command": command or ["publish"]} | given
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"folder": str(folder), **words}) + "\n")
        self.process.stdin.flush()
        code, said = json.loads(self.process.stdout.readline())
        return Ended(code, said)


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    worker = Worker(tmp_path_factory.mktemp("disk"))
    yield worker
    assert worker.process.stdin is not None
    assert worker.process.stdout is not None
    worker.process.stdin.close()
    worker.process.stdout.close()
    assert worker.process.wait(timeout=60) == 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, worker: Worker) -> Path:
    """The toy with a published bundle, and a model of another seed that is trained and not published."""
    folder = write_toy(tmp_path_factory.mktemp("trained"))
    declared = (folder / "kithkin.toml").read_text(encoding="utf-8")
    for seed, command in ((7, "build"), (8, "train")):
        own = f"\n[training]\nseed = {seed}\nsimilar = {{ steps = 2 }}\nuser = {{ steps = 2 }}\n"
        (folder / "kithkin.toml").write_text(declared + own, encoding="utf-8")
        ended = worker.run(folder, command)
        assert ended.code == 0, ended.said
    return folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, worker: Worker, trained: Path) -> dict[str, str]:
    """Checksums of the second bundle's files where nothing happens."""
    folder = tmp_path_factory.mktemp("undisturbed") / "toy"
    shutil.copytree(trained, folder)
    ended = worker.run(folder)
    assert ended.code == 0, ended.said
    return _files(folder, bundles(folder).versions()[1])


@pytest.fixture
def folder(tmp_path: Path, trained: Path) -> Path:
    shutil.copytree(trained, tmp_path / "toy")
    return tmp_path / "toy"


def bundles(folder: Path) -> BundleStore:
    return BundleStore(folder / ".kithkin" / "models")


def _files(folder: Path, version: str) -> dict[str, str]:
    return {entry.path: entry.sha256 for entry in bundles(folder).open(version).manifest.files}


def check_whole(folder: Path, first: str) -> None:
    """What is active opens with every checksum right, and the first bundle does."""
    store = bundles(folder)
    assert store.open().version in store.versions()
    assert store.open(first).version == first


def check_published_once(folder: Path, first: str, undisturbed: dict[str, str]) -> None:
    """The same command again has published the second bundle: one, whole, active, and nothing else is left."""
    store = bundles(folder)
    before, second = store.versions()
    assert before == first
    assert store.open().version == second
    assert _files(folder, second) == undisturbed
    assert {path.name for path in store.root.iterdir()} == {first, second, layout.ACTIVE, layout.HISTORY}
    history = [line.split()[:2] for line in (store.root / layout.HISTORY).read_text().splitlines()]
    assert history == [["activated", first], ["activated", second]]
    steps = json.loads((folder / ".kithkin" / "steps.json").read_text(encoding="utf-8"))
    assert steps["publish"]["outcome"]["version"] == second
    assert "publishing" not in steps
    assert store.previous() == first
    assert Pipeline(load_project(folder, environment={}), NoProgress()).publish().skipped


# Where it ends, whether the new bundle is active then, and how many there are.
KILLED = {
    "the first array": ("open Film__HAS_GENRE__Genre.indptr.npy", 1, False, 1),
    "an encoder": ("open User.onnx", 1, False, 1),
    "the seal": ("open manifest.sha256", 1, False, 1),
    "all is written, and has no name": ("rename unfinished", 1, False, 1),
    "named, and not active": ("open ACTIVE", 1, False, 2),
    "the pointer is written beside": ("rename ACTIVE", 1, False, 2),
    "active, and not in the history": ("open HISTORY", 1, True, 2),
    "active, and not noted as done": ("rename steps.tmp", 2, True, 2),
}


@pytest.mark.parametrize("case", KILLED)
def test_killed_anywhere_the_bundle_before_is_whole_and_the_next_publishing_completes(
    worker: Worker, folder: Path, undisturbed: dict[str, str], case: str
) -> None:
    place, time, active, count = KILLED[case]
    (first,) = bundles(folder).versions()
    killed = worker.run(folder, kill_at=[place, time])
    assert killed.code == -signal.SIGKILL, killed.said
    assert len(bundles(folder).versions()) == count
    assert (bundles(folder).active() != first) == active
    check_whole(folder, first)
    ended = worker.run(folder)
    assert ended.code == 0, ended.said
    check_published_once(folder, first, undisturbed)


def test_what_served_already_and_was_rolled_back_is_not_made_active_again(worker: Worker, folder: Path) -> None:
    (first,) = bundles(folder).versions()
    assert worker.run(folder, kill_at=["rename steps.tmp", 2]).code == -signal.SIGKILL
    bundles(folder).roll_back()
    assert bundles(folder).active() == first
    ended = worker.run(folder)
    assert ended.code == 0, ended.said
    assert bundles(folder).active() == first, "it is somebody's choice"


def test_killed_again_and_again_nothing_piles_up(worker: Worker, folder: Path, undisturbed: dict[str, str]) -> None:
    (first,) = bundles(folder).versions()
    for place in ("open features.json", "open manifest.json", "open ACTIVE"):
        assert worker.run(folder, kill_at=[place, 1]).code == -signal.SIGKILL
        left = [path for path in bundles(folder).root.iterdir() if path.name.startswith(".unfinished")]
        assert len(left) == (place != "open ACTIVE")
        assert bundles(folder).active() == first
    assert worker.run(folder).code == 0
    check_published_once(folder, first, undisturbed)


FULL = {
    "an array": ("open Film__HAS_GENRE__Genre.indptr.npy", 1, "Film__HAS_GENRE__Genre.indptr.npy", False),
    "the features": ("open features.json", 1, "features.json", False),
    "an encoder": ("open User.onnx", 1, "User.onnx", False),
    "the log of steps": ("open steps.tmp", 1, "steps.json", False),
    "the manifest": ("open manifest.json", 1, "manifest.json", False),
    "the pointer": ("open ACTIVE", 1, "ACTIVE", False),
    "the report": ("open evaluation.html.part", 1, "evaluation.html", True),
}


@needs_a_disk
@pytest.mark.parametrize("case", FULL)
def test_a_full_disk_is_told_and_the_bundle_before_serves_on(
    worker: Worker, folder: Path, undisturbed: dict[str, str], case: str
) -> None:
    place, time, file, active = FULL[case]
    (first,) = bundles(folder).versions()
    ended = worker.run(folder, full_at=[place, time])
    check_told(ended, file, "No space left on device")
    assert (bundles(folder).active() != first) == active
    assert not list(bundles(folder).root.glob(".*"))
    check_whole(folder, first)
    assert worker.run(folder).code == 0
    check_published_once(folder, first, undisturbed)


def test_a_file_that_may_not_be_as_large_is_named(worker: Worker, folder: Path, undisturbed: dict[str, str]) -> None:
    (first,) = bundles(folder).versions()
    ended = worker.run(folder, largest_file=5_000)
    check_told(ended, "features/array-005.npy", "File too large")
    assert "nothing was published, and what serves serves on" in " ".join(ended.said.split())
    assert bundles(folder).versions() == (first,)
    check_whole(folder, first)
    assert worker.run(folder).code == 0
    check_published_once(folder, first, undisturbed)


@needs_a_disk
@pytest.mark.parametrize("file", ["checkpoint.pt.part", "model.json"])
def test_a_training_that_finds_the_disk_full_is_told_and_run_again(worker: Worker, folder: Path, file: str) -> None:
    (first,) = bundles(folder).versions()
    own = (folder / "kithkin.toml").read_text(encoding="utf-8")
    (folder / "kithkin.toml").write_text(own.replace("seed = 8", "seed = 9"), encoding="utf-8")
    place = "open model.json.part" if file == "model.json" else f"open {file}"
    check_told(worker.run(folder, "train", full_at=[place, 1]), file, "No space left on device")
    assert bundles(folder).open().version == first
    for command in ("train", "publish"):
        ended = worker.run(folder, command)
        assert ended.code == 0, ended.said
    assert len(bundles(folder).versions()) == 2


def check_told(ended: Ended, file: str, why: str) -> None:
    said = " ".join(ended.said.split())
    assert ended.code == 6, said
    assert "Traceback" not in said
    assert f"{file} cannot be written: {why} (" in said
    assert "MiB are free)" in said
    assert "Make room, or set `work` to a folder on a larger disk, and run the same command again" in said


MAPPED = """
import sys
from pathlib import Path
import numpy as np
from training.inference.arrays import Arrays
from training.node_features import empty_rows

def rows(first, last):
    return [np.ones((last - first, 64), np.float32)]

disk = Path(sys.argv[1])
arrays = Arrays(disk, fingerprint="one", nodes_at_once=1000)
print(len(arrays.fill("small", 1000, {"vectors": 64}, rows, print)["vectors"]))
large = (
    lambda: arrays.fill("large", 100_000, {"vectors": 64}, rows, print)["vectors"],
    lambda: empty_rows(disk, (100_000, 64)),
)
for make in large:
    try:
        make()[:] = 1
    except OSError as error:
        print(error.strerror, error.filename)
"""


@needs_a_disk
def test_inference_in_files_finds_a_full_disk_before_it_writes(tmp_path: Path) -> None:
    # Pages of a mapped file that find no place would end the process by SIGBUS, without a word.
    command = ["unshare", "-rm", "sh", "-c", f'{MOUNT} && exec "$@"', str(tmp_path), sys.executable, "-c", MAPPED]
    ended = subprocess.run([*command, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    told = [line for line in ended.stdout.splitlines() if line.startswith("No space")]
    assert told == [
        f"No space left on device {tmp_path}/large.vectors.npy",
        f"No space left on device {tmp_path}",
    ]


@pytest.mark.skipif(scann_version() is None, reason="ScaNN is not installed")
def test_an_index_that_finds_no_room_names_its_folder(tmp_path: Path) -> None:
    from server.index.scann_index import ScannIndex, ScannParameters

    vectors = np.random.default_rng(1).standard_normal((3_000, 16)).astype(np.float32)
    index = ScannIndex.build(vectors, ScannParameters(leaves=20, leaves_to_search=5, reorder=50), spherical=False)
    most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, most[1]))
    try:
        with pytest.raises(DiskFull) as told, BundleStore(tmp_path / "models").writer("films") as writer:
            index.save(writer.index_folder("similar", "Film"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, most)
    assert told.value.file.name == "Film"
    assert "cannot be written: Input/output error (" in told.value.message
    assert list((tmp_path / "models").iterdir()) == []
