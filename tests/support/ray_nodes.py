"""A Ray cluster on this machine: a head node, and others beside it.

    python ray_nodes.py

Prints the address. Then takes a line at a time from stdin: `add [NAME=VALUE …]` starts another node
of one CPU, with these in its environment; `kill` sends SIGKILL to all processes of the node that
was added last, `kill-raylet` to its raylet alone, whose processes outlive it for a moment. Each is
answered with `done`. The end of stdin is the end of the cluster.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

from ray.cluster_utils import Cluster


def children(pid: int) -> list[int]:
    """A process's children, and theirs."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"\nPPid:\t{pid}\n" in (entry / "status").read_text():
                found += [int(entry.name), *children(int(entry.name))]
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


def kill(node: object, *, raylet_alone: bool) -> None:
    (raylet,) = (each.process for each in node.all_processes["raylet"])  # type: ignore[attr-defined]
    victims = [raylet.pid] if raylet_alone else [raylet.pid, *children(raylet.pid)]
    for pid in victims:
        os.kill(pid, signal.SIGSTOP)  # none may act on the death of another
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    raylet.wait()


temporary = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # short: sockets lie in it
settings = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 * 2**20}
# A cluster in another folder writes its address into Ray's own all the same, and does not make it
Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir()), "ray").mkdir(parents=True, exist_ok=True)
cluster = Cluster(initialize_head=True, head_node_args={"temp_dir": temporary, **settings})
print(cluster.address, flush=True)
added = []
for line in sys.stdin:
    what, *names = line.split()
    if what == "add":
        environment = dict(name.split("=") for name in names)
        added.append(cluster.add_node(env_vars=environment, **settings))
    else:
        kill(added.pop(), raylet_alone=what == "kill-raylet")
    print("done", flush=True)
cluster.shutdown()
shutil.rmtree(temporary, ignore_errors=True)
