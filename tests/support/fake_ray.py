"""As much of Ray as a crew asks for, in this process: what actors answer is a function's word."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

METHODS = ("open", "make_shard", "survive", "stop")


class RayError(Exception):
    """An actor or a node that was lost."""


class ActorDiedError(RayError):
    """An actor's process that died, as far as Ray knows."""


class RayTaskError(RayError):
    """What an actor's own code raised."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


@dataclass(eq=False)
class Task:
    actor: int
    method: str
    argument: Any = None
    skipped: Any = None


@dataclass
class FakeRay:
    """answer(task) gives what a task's `get` does, raises it, or is None: not finished yet.

    Actors are numbered as they are made; of an actor's tasks the first one is finished first.
    """

    answer: Callable[[Task], Any]
    cpus: tuple[float, ...] = (1, 1)  # of each node
    gone: set[int] = field(default_factory=set)  # nodes
    made: list[dict[str, Any]] = field(default_factory=list)  # settings of each actor
    killed: list[int] = field(default_factory=list)
    told: list[Task] = field(default_factory=list)  # tasks, in order
    __version__ = "2.50.0"
    exceptions = SimpleNamespace(
        RayError=RayError, RayTaskError=RayTaskError, ActorDiedError=ActorDiedError
    )

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {"NodeID": f"id-{number}", "Alive": number not in self.gone, "Resources": {"CPU": cpus}}
            for number, cpus in enumerate(self.cpus)
        ]

    def remote(self, **settings: Any) -> Callable[[type], Any]:
        def make(_: Any) -> SimpleNamespace:
            self.made.append(settings)
            number = len(self.made) - 1
            method = {name: self._method(number, name) for name in METHODS}
            return SimpleNamespace(number=number, **method)

        return lambda cls: SimpleNamespace(remote=make)

    def _method(self, number: int, name: str) -> SimpleNamespace:
        def call(*arguments: Any) -> Task:
            self.told.append(Task(number, name, *arguments))
            return self.told[-1]

        called = SimpleNamespace(remote=call)
        called.options = lambda **_: called
        return called

    def wait(self, tasks: list[Task], timeout: float) -> tuple[list[Task], list[Task]]:
        firsts = {task.actor: task for task in reversed(tasks)}.values()
        for task in sorted(firsts, key=tasks.index):
            try:
                if self.answer(task) is None:
                    continue
            except Exception:
                pass
            return [task], [each for each in tasks if each is not task]
        return [], tasks

    def get(self, task: Task) -> Any:
        try:
            return self.answer(task)
        except RayError:
            raise
        except Exception as error:
            raise RayTaskError(error) from error

    def kill(self, actor: SimpleNamespace) -> None:
        self.killed.append(actor.number)
