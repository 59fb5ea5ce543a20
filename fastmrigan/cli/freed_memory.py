"""The option that `train` and `evaluate` share; fastmrigan.ops.memory says what it is for."""

from __future__ import annotations

from typing import Annotated

import typer

KeepFreedMemory = Annotated[
    bool,
    typer.Option(
        "--keep-freed-memory/--return-freed-memory",
        help="Use freed memory again instead of returning it to the system: faster, and the "
        "process is larger, by a tenth as a rule, by twice at worst.",
    ),
]
