"""A job on a Ray cluster of this machine: nodes die, and nothing is lost or made twice."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_model as tiny
from PIL import Image

from fastmrigan.imaging.dataset import PreparedDataset
from fastmrigan.imaging.options import PrepareOptions
from fastmrigan.imaging.prepare import prepare
from fastmrigan.jobs import quarantine
from fastmrigan.jobs.shards import read_slices

SUPPORT = Path(__file__).parents[1] / "support"
RAY = importlib.util.find_spec("ray") is not None
WITHOUT = "ray is not installed: pip install 'fastmrigan[cluster]'"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not RAY, reason=WITHOUT)]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of every shard and every receipt."""
    found = [p for p in folder.rglob("*") if p.is_file() and "shard-" in str(p)]
    return {str(p.relative_to(folder)): p.read_bytes() for p in found}


def arguments(model: Path, out: Path, shards: int) -> list[str]:
    fixed = ["synth", model, "--out", out, "--count", 16 * shards, "--seed", 7]
    return [str(a) for a in (*fixed, "--shard-size", 16, "--batch", 8, "--threads", 1)]


class Nodes:
    """The cluster of ray_nodes.py."""

    def __init__(self, log: Path) -> None:
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, SUPPORT / "ray_nodes.py"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
            )
        self.added = 0
        self.address = self.process.stdout.readline().strip()
        if not self.address:
            self.end()
            raise AssertionError(f"the cluster did not start: {log.read_text()}")

    def ask(self, what: str) -> None:
        print(what, file=self.process.stdin, flush=True)
        assert self.process.stdout.readline() == "done\n"
        self.added += 1 if what.startswith("add") else -1

    def end(self) -> None:
        self.process.communicate(timeout=300)  # closes its stdin


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Nodes]:
    log = tmp_path_factory.mktemp("cluster") / "nodes.log"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", uuid.uuid4().hex)  # or Ray writes one into the home folder
        try:
            cluster = Nodes(log)
        except AssertionError:  # Ray waits half a minute for its own processes: on a busy machine,
            cluster = Nodes(log)  # once more
        try:
            yield cluster
        finally:
            cluster.end()


@pytest.fixture
def nodes(cluster) -> Iterator[Nodes]:
    """The cluster, of its head alone."""
    yield cluster
    while cluster.added:
        cluster.ask("kill")


class Started:
    """A command that runs; what it says is read as it comes."""

    def __init__(self, command: list[str], **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fastmrigan", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
            start_new_session=True,
        )
        self.told = ""

    def wait_for(self, text: str, times: int = 1) -> None:
        while self.told.count(text) < times:
            line = self.process.stdout.readline()
            assert line, self.told + self.process.stderr.read()
            self.told += line

    def end(self) -> tuple[int, str, str]:
        stdout, stderr = self.process.communicate(timeout=300)
        return self.process.returncode, self.told + stdout, stderr


def wait_until(true: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("death", ["kill", "kill-raylet"])
def test_a_node_dies_in_mid_job(write_model, tmp_path, fastmrigan, nodes, death):
    model, shards = write_model(), 600
    out, whole = tmp_path / "out", tmp_path / "whole"
    nodes.ask("add")
    command = [*arguments(model, out, shards), "--runner", "ray", "--ray-address", nodes.address]
    job = Started(command)
    job.wait_for("is open on node", 2)
    wait_until(lambda: len(list(out.glob("shard-*.tar"))) > 60)
    nodes.ask(death)
    assert len(list(out.glob("shard-*.tar"))) < shards - 60, "the node died too late to matter"
    returncode, stdout, stderr = job.end()
    assert returncode == 0, stderr
    assert re.search(r"lost the engine on node \S+ \(\w{8}\); [12] shards go to others", stdout)
    assert f"out: {16 * shards:,} slices, {16 * shards:,} made now" in stdout
    assert [index for index, _ in read_slices(out)] == list(range(16 * shards))
    assert not list(out.rglob("*.tmp"))
    assert json.loads((out / "status.json").read_text())["workers"] == 1  # no room for another
    assert fastmrigan(*arguments(model, whole, shards)).returncode == 0
    assert contents(out) == contents(whole)
    assert (out / "run.json").read_bytes() == (whole / "run.json").read_bytes()


def test_what_disagrees_is_refused(write_model, tmp_path, fastmrigan, nodes):
    model, out = write_model(), tmp_path / "out"
    command = [*arguments(model, out, 4), "--runner", "ray", "--ray-address", nodes.address]
    part = fastmrigan(*command, "--shard-range", "1:3")
    assert part.returncode == 0, part.stderr
    assert "out: 32 slices in shards 1:3, 32 made now" in part.stdout
    assert part.stdout.endswith("of the whole, 2 of 4 shards are there\n")
    other = fastmrigan(*command, "--seed", 8)
    assert other.returncode == 2
    assert "run.json: seed is 7 there and 8 here" in other.stderr
    crowd = fastmrigan(*command, "--threads", 64)
    assert crowd.returncode == 2
    assert "no node of the cluster has 64 CPUs" in crowd.stderr
    nodes.ask("add FASTMRIGAN_ISA=baseline")
    differing = fastmrigan(*command)
    assert differing.returncode == 2, differing.stderr
    assert re.search(r"node \S+ \(\w{8}\): instruction_set is '\w+' there and", differing.stderr)
    assert len(differing.stderr.splitlines()) == 1
    assert len(list(out.glob("shard-*.tar"))) == 2
    model.rename(tmp_path / "moved.onnx")
    gone = fastmrigan(*command)
    assert gone.returncode == 2
    assert "tiny.onnx" in gone.stderr


def test_a_poisoned_input_is_quarantined(write_model, tmp_path, nodes):
    dice, png, data, out = np.random.default_rng(0), *(tmp_path / n for n in ("png", "set", "out"))
    png.mkdir()
    for number in range(20):
        x = dice.integers(0, 256, (tiny.SIZE, tiny.SIZE), dtype=np.uint8)
        Image.fromarray(x).save(png / f"{number:02}.png")
    prepare(png, data, PrepareOptions(size=tiny.SIZE, contrast="t1", label=""))
    document = tiny.metadata(task="translate", latent_size=None, source_contrast="t1")
    model = write_model(document, tiny.tiny_graph("translate"), "negatives.onnx")
    out.mkdir()
    (out / ".run.json.0.tmp").write_text("of a run that was killed")
    command = [sys.executable, SUPPORT / "ray_job.py", nodes.address, model, data, out, "9"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    reason = "ends the process that works on it (as a Ray actor)"
    assert f"ray: input 9 is quarantined: it {reason}\n" in done.stdout
    assert done.stdout.endswith("20 1\n")
    assert [index for index, _ in read_slices(out)] == [i for i in range(20) if i != 9]
    negatives = 255 - np.load(data / "slices.npy") / 257
    assert all(np.allclose(x, negatives[i], atol=1) for i, x in read_slices(out))
    source = PreparedDataset.open(data).records[9].source
    line = json.loads((out / quarantine.NAME).read_text())
    assert line == {"index": 9, "source": source, "reason": reason}
    assert not list(out.rglob("*.tmp"))


WITHOUT_ENGINES = (
    "import sys; from fastmrigan.cli import main; "
    "sys.modules.update(dict.fromkeys(['openvino', 'onnxruntime', 'tensorrt'])); main()"
)


def test_who_starts_a_job_needs_no_engine(write_model, tmp_path, nodes):
    out = tmp_path / "out"
    command = [sys.executable, "-c", WITHOUT_ENGINES, *arguments(write_model(), out, 2)]
    options = ["--runner", "ray", "--ray-address", nodes.address]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert f"{json.loads((out / 'run.json').read_text())['backend']} " in done.stdout
    here = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert here.returncode == 2
    assert "generating slices needs the package openvino" in here.stderr


def test_a_cluster_that_is_not_there(write_model, tmp_path, fastmrigan):
    command = [*arguments(write_model(), tmp_path / "out", 4), "--runner", "ray"]
    done = fastmrigan(*command, "--ray-address", "127.0.0.1:9")
    assert done.returncode == 2
    assert "--ray-address 127.0.0.1:9: no cluster of Ray" in done.stderr.splitlines()[-1]


def marked(mark: str) -> list[str]:
    """The processes that have `mark` in their environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            pass
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_cluster_of_this_machine(write_model, tmp_path, number):
    model, shards, mark = write_model(), 20_000, uuid.uuid4().hex
    out = tmp_path / "out"
    command = [*arguments(model, out, shards), "--runner", "ray"]
    home = tmp_path / "home"
    home.mkdir()
    job = Started(command, FASTMRIGAN_TEST_MARK=mark, HOME=str(home))
    job.wait_for("is open on node")
    wait_until(lambda: len(list(out.glob("shard-*.tar"))) > 20)
    assert any("raylet" in each for each in marked(mark))
    if number == signal.SIGINT:
        os.killpg(job.process.pid, number)  # as a terminal does
    else:
        job.process.send_signal(number)
    returncode, _, stderr = job.end()
    assert returncode == 130, stderr
    made = 16 * len(list(out.glob("shard-*.tar")))
    assert f"stopped with {made:,} of {16 * shards:,} slices made; the same command" in stderr
    assert json.loads((out / "status.json").read_text())["state"] == "stopped"
    events = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["state"] for line in events if line["event"] == "end"] == ["stopped"]
    assert not list(out.rglob("*.tmp"))
    wait_until(lambda: not marked(mark), 20)
    assert not list(home.rglob("*"))  # no secret of a cluster that is gone
