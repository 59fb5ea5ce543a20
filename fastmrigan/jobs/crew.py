"""The actors of a job on a Ray cluster: processes that hold the engine, and who hands them shards.

An actor that dies, be it with its node, is replaced where the cluster has room for another, and the
shards it had in hand are given to others; where its node lives on, what it worked on may be to
blame (`inquest.py`). One that is only held for dead does no harm: it makes the same bytes, under a
temporary name of its own.
"""

from __future__ import annotations

import math
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fastmrigan.errors import FastMriganError, Interrupted, ModelRefused, UsageError
from fastmrigan.interrupt import StopSignal
from fastmrigan.jobs.diary import Diary
from fastmrigan.jobs.inquest import Inquest, past_help
from fastmrigan.jobs.job import Job
from fastmrigan.jobs.ours import check_ours
from fastmrigan.jobs.plan import Shard
from fastmrigan.jobs.search import Search
from fastmrigan.jobs.spec import Engine, JobSpec
from fastmrigan.jobs.watch import ShardDone, Watch
from fastmrigan.progress import counted

AHEAD = 2  # shards an actor has in hand: the second one waits there for the end of the first
DEATHS = 3  # of nodes by the same shard, or of actors before any engine is open, end the job
POLL_SECONDS = 0.2  # until Ctrl-C is noticed
JOIN_SECONDS = 10.0  # for the other engines, once the first is open
GRACE_SECONDS = 10.0  # for shards in hand, once the job is stopped
NODE_SECONDS = 5.0  # until Ray knows of a node that it died, or was stopped
PATIENCE_SECONDS = 30.0  # without an actor, until that is said
HOW = "as a Ray actor"  # processes die: Ray keeps no exit status
ON_GPU = ("onnxruntime-cuda", "tensorrt")


@dataclass(frozen=True)
class Opened:
    """What an actor says of its engine."""

    node: str
    node_id: str  # Ray's
    pinned: dict[str, Any]  # see `Job.pinned`


class Maker:
    """The actor."""

    def __init__(self, spec: JobSpec) -> None:
        self.spec = spec
        self.stopping = threading.Event()
        self.job: Job | None = None

    def open(self, token: Path) -> Opened:
        """Opens the job. token: a file in the output folder, which this node must see.

        Raises UsageError where it does not, and whatever opening a job raises; both name the node.
        """
        import ray

        node_id = ray.get_runtime_context().get_node_id()
        node = f"{socket.gethostname()} ({node_id[:8]})"
        try:
            if not token.exists():
                raise UsageError(
                    f"{token.parent}: is another folder there; name an --out that all nodes share"
                )
            self.job = self.spec.open()
        except FastMriganError as error:
            error.args = (f"on node {node}: {error}",)
            raise
        return Opened(node, node_id, self.job.pinned)

    def make_shard(self, shard: Shard, skipped: dict[int, str]) -> ShardDone | None:
        """Puts a shard on the disk; None where it is stopped before. skipped: of its inputs."""
        assert self.job is not None
        check_ours(self.job.output.out, self.job.pinned)
        self.job.skipped = skipped
        return self.job.make_shard(shard, self.stopping.is_set)

    def survive(self, piece: Shard, skipped: dict[int, str]) -> None:
        """Works on inputs for nothing, to see whether this process lives through it."""
        assert self.job is not None
        self.job.skipped = skipped
        for _ in self.job.make([piece], self.stopping.is_set):
            pass

    def stop(self) -> None:
        """The shard in hand is finished, or dropped with nothing left behind."""
        self.stopping.set()


@dataclass(eq=False)
class Member:
    """What is known of an actor here."""

    actor: Any
    number: int  # none has another one's
    node: str | None = None  # once its engine is open
    node_id: str | None = None
    in_hand: deque[Shard] = field(default_factory=deque)  # in order
    alone: bool = False  # it has one shard in hand, and gets no other until that is done
    search: Search | None = None  # it tries a piece of


class Crew:
    """The actors of a job; use it in a `with` statement, which ends them.

    ray: the package, connected. actors: how many; None takes one a node. token: see `Maker.open`.
    say: is told where engines are open, and what was lost. inquest: of the job.
    Raises UsageError where no node of the cluster has what an actor needs.
    """

    def __init__(
        self,
        ray: Any,
        spec: JobSpec,
        actors: int | None,
        token: Path,
        say: Callable[[str], None],
        inquest: Inquest,
    ) -> None:
        self.ray, self.spec, self.token, self.say = ray, spec, token, say
        self.inquest = inquest
        self.diary = Diary()
        self.watch: Watch | None = None  # while shards are made
        self.stopped: Callable[[], bool] = lambda: False
        self.cpus, self.gpus, nodes = needs(spec.engine, ray.nodes())
        self.members: list[Member] = []
        self.hired = 0  # so far
        self.waiting: dict[Any, tuple[Member, Shard | Search | None]] = {}  # task: who has it
        self.todo: deque[Shard] = deque()
        self.deaths: Counter[Shard] = Counter()  # actors that were lost with it, not of themselves
        self.unopened = 0  # actors that died before their engine was open, in a row
        self.pinned: dict[str, Any] | None = None  # by the first engine
        self.alone_since: float | None = time.monotonic()  # without any engine
        count = nodes if actors is None else actors
        gpus = " and a GPU" if self.gpus else ""
        each = f"{self.cpus} CPUs{gpus} each"
        say(f"ray {ray.__version__}: {count} engines of {each}, on {nodes} nodes that have them")
        self.first = count  # actors that replace none
        for _ in range(count):
            self._hire()

    def open(self, signal: StopSignal) -> dict[str, Any]:
        """Waits for the engines, and for the first of them as long as it takes: all that the bytes
        depend on. Raises what opening a job raises, UsageError where engines differ, Interrupted.
        """
        until = math.inf
        while self.pinned is None or (self.waiting and time.monotonic() < until):
            if signal.stopped:
                raise Interrupted(
                    f"{self.spec.output.out}: stopped before the engines were open; the same "
                    "command begins again"
                )
            for _ in self._done():
                pass
            if self.pinned is not None:
                until = min(until, time.monotonic() + JOIN_SECONDS)
        return self.pinned

    @property
    def size(self) -> int:
        """How many have their engines open."""
        return sum(member.node is not None for member in self.members)

    def make(self, todo: Sequence[Shard], signal: StopSignal, watch: Watch) -> None:
        """Has shards made, and tells of each once it is on the disk for good; once stopped, waits a
        little for what is in hand, which is finished or dropped.

        Raises what making a shard raises, UsageError where an engine differs from the first one,
        ModelRefused where no actor opens one, and Casualty where actors die of what cannot be left
        out.
        """
        self.todo, self.watch, self.stopped = deque(todo), watch, lambda: signal.stopped
        self.diary.open(watch)
        while not signal.stopped and self._has_more():
            self._hand_out()
            for done in self._done():
                watch.shard_done(done)
        for member in self.members:
            if member.in_hand:
                member.actor.stop.options(concurrency_group="control").remote()
        until = time.monotonic() + GRACE_SECONDS
        while any(each.in_hand for each in self.members) and time.monotonic() < until:
            for done in self._done():
                watch.shard_done(done)

    def end(self) -> None:
        """Ends all actors, whatever they have in hand."""
        for member in self.members:
            self._end(member)

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def _hire(self) -> None:
        made = self.ray.remote(
            num_cpus=self.cpus,
            num_gpus=self.gpus,
            max_restarts=0,  # a new process has no engine, and is held against the first again
            scheduling_strategy="SPREAD",
            concurrency_groups={"control": 1},  # `stop` passes by what is in hand
        )(Maker)
        member = Member(made.remote(self.spec), self.hired)
        self.hired += 1
        self.members.append(member)
        self.waiting[member.actor.open.remote(self.token)] = (member, None)

    def _hand_out(self) -> None:
        for ahead in range(AHEAD):  # one to each, then a second one
            for member in self.members:
                busy = member.alone or member.search is not None
                if member.node is not None and not busy and len(member.in_hand) == ahead:
                    self._give(member)

    def _give(self, member: Member) -> None:
        """Gives an actor one thing more to do, if there is one that it may have."""
        inquest, idle = self.inquest, not member.in_hand
        if idle and inquest.searches:
            member.search = inquest.searches.popleft()
            order = member.search.next_try(inquest.skipped)
            task = member.actor.survive.remote(order.piece, order.skipped)
            self.waiting[task] = (member, member.search)
            return
        if idle and inquest.suspects:
            member.alone = True
            shard = inquest.suspects.popleft()
        elif self.todo:
            shard = self.todo.popleft()
        else:
            return
        member.in_hand.append(shard)
        task = member.actor.make_shard.remote(shard, inquest.skipped_in(shard))
        self.waiting[task] = (member, shard)

    def _has_more(self) -> bool:
        """Whether anything is to be done, or in hand."""
        at_work = any(each.in_hand or each.search for each in self.members)
        return bool(self.todo or self.inquest.suspects or self.inquest.searches or at_work)

    def _done(self) -> Iterator[ShardDone]:
        """What is finished by now; waits for it a moment, and sees to what else has happened."""
        self._say_if_alone()
        ready, _ = self.ray.wait(list(self.waiting), timeout=POLL_SECONDS)
        for task in ready:
            member, held = self.waiting.pop(task)
            try:
                result = self.ray.get(task)
            except self.ray.exceptions.RayTaskError as error:  # raised by our own code there
                if isinstance(held, Shard):
                    member.in_hand.remove(held)
                raise (error.cause or error) from None
            except self.ray.exceptions.RayError as error:
                self._lost(member, error)
                continue
            if isinstance(result, Opened):
                self._welcome(member, result)
            elif isinstance(held, Search):
                member.search = None
                self.inquest.survived(held)
            elif held is not None:
                member.in_hand.remove(held)
                member.alone = False
                if result is not None:
                    yield replace(result, worker=member.number)

    def _welcome(self, member: Member, opened: Opened) -> None:
        member.node, member.node_id = opened.node, opened.node_id
        self.unopened, self.alone_since = 0, None
        if member.number >= self.first:
            self.diary.event("restart", worker=member.number, node=member.node)
        self._tell_size()
        has = opened.pinned
        if self.pinned is None:
            self.pinned = has
        for key in self.pinned | has:
            if self.pinned.get(key) != has.get(key):
                raise UsageError(
                    f"node {opened.node}: {key} is {has.get(key)!r} there and "
                    f"{self.pinned.get(key)!r} on others, and the bytes could differ; take nodes "
                    "that agree, or say what to take (--threads, --backend, --precision)"
                )
        engine = " ".join(str(has[key]) for key in ("backend", "version"))
        self.say(
            f"ray: {engine} in {has['precision']} on {has['device']}, threads {has['threads']}, is "
            f"open on node {opened.node}"
        )

    def _lost(self, member: Member, error: Exception) -> None:
        """Gives what an actor had in hand to others, and puts another one in its place."""
        self.members.remove(member)
        self._end(member)  # should it live after all
        self.waiting = {task: held for task, held in self.waiting.items() if held[0] is not member}
        if self.stopped():  # perhaps of the signal
            return
        model, why = self.spec.engine.model, " ".join(str(error).split())[-300:]
        where = "no node yet" if member.node is None else f"node {member.node}"
        taken = counted(len(member.in_hand), "shard goes", "shards go")
        self.say(f"ray: lost the engine on {where}; {taken} to others")
        at = member.in_hand if member.search is None else [member.search.shard]
        numbers = [shard.number for shard in at]
        self.diary.event("death", worker=member.number, node=member.node, how=why, shards=numbers)
        if member.node is None:
            self.unopened += 1
        else:
            self._tell_size()
            self._blame(member, why, of_itself=self._died_of_itself(member, error))
        if self.unopened < DEATHS:
            self._hire()
        if not self.members:
            raise ModelRefused(
                f"{model}: {DEATHS} processes died before they had opened it; Ray's logs on that "
                f"node say more ({why})"
            )
        if all(each.node is None for each in self.members):
            self.alone_since = time.monotonic()

    def _blame(self, member: Member, why: str, *, of_itself: bool) -> None:
        """Takes an actor's death into account, and takes back what it had. Raises Casualty."""
        inquest, in_hand, search = self.inquest, member.in_hand, member.search
        back = inquest.suspects if member.alone else self.todo
        if not of_itself:
            if search is not None:
                inquest.searches.appendleft(search)
            for shard in [search.shard] if search is not None else [*in_hand][:1]:
                self.deaths[shard] += 1
                if self.deaths[shard] == DEATHS:
                    raise past_help(shard, f"{DEATHS} times; the last time {why}")
        elif search is not None:
            index = inquest.died_in(search, HOW)
            if index is not None:
                reason = inquest.skipped[index]
                self.diary.event("quarantine", index=index, why=reason)
                self.say(f"ray: input {index:,} is quarantined: it {reason}")
        elif member.alone:
            assert self.pinned is not None
            inquest.died_alone(in_hand.popleft(), HOW, self.pinned["batch"])
        elif in_hand:
            inquest.suspects.append(in_hand.popleft())
        back.extendleft(reversed(in_hand))

    def _died_of_itself(self, member: Member, error: Exception) -> bool:
        """Whether it is known that an actor's process died and its node lives on. Of a node that
        dies Ray knows some time later, and until then calls its actors unavailable; of one that is
        stopped the actors may be known to be dead before it is."""
        if not isinstance(error, self.ray.exceptions.ActorDiedError) or not self._lives(member):
            return False
        if member.search is None and not member.alone:  # nothing is blamed yet
            return True
        time.sleep(NODE_SECONDS)  # before an input is left out for good, or the job ends
        return self._lives(member)

    def _lives(self, member: Member) -> bool:
        """Whether Ray holds its node for alive."""
        alive = [node["NodeID"] for node in self.ray.nodes() if node["Alive"]]
        return member.node_id in alive

    def _tell_size(self) -> None:
        if self.watch is not None:
            self.watch.staffed(self.size)

    def _say_if_alone(self) -> None:
        if self.alone_since and time.monotonic() - self.alone_since > PATIENCE_SECONDS:
            self.say(f"ray: waiting for a node with {self.cpus} CPUs to spare")
            self.alone_since = None

    def _end(self, member: Member) -> None:
        with suppress(Exception):  # Ray's own, of an actor that is dead, or a cluster that is gone
            self.ray.kill(member.actor)


def needs(engine: Engine, nodes: list[dict[str, Any]]) -> tuple[int, int, int]:
    """CPUs and GPUs of an actor, and how many nodes have those. An actor has the CPUs of its
    threads; where those are left open, all of a node.

    nodes: as `ray.nodes()` tells of them. Raises UsageError where there is none.
    """
    gpus = int(engine.backend in ON_GPU or engine.model.suffix == ".engine")
    able = [
        int(node["Resources"].get("CPU", 0))
        for node in nodes
        if node["Alive"] and node["Resources"].get("GPU", 0) >= gpus
    ]
    able = [cpus for cpus in able if cpus >= (engine.threads or 1)]
    if not able:
        wanted = f"{engine.threads or 1} CPUs" + (" and a GPU" if gpus else "")
        raise UsageError(
            f"--runner ray: no node of the cluster has {wanted}; take fewer --threads, another "
            "--backend or another cluster"
        )
    return engine.threads or min(able), gpus, len(able)
