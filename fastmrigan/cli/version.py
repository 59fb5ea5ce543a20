"""`fastmrigan --version`, and the other options that stand before any command."""

from __future__ import annotations

from typing import Annotated

import typer

from fastmrigan import __version__


def tell(asked: bool) -> None:
    if asked:
        print(f"fastmrigan {__version__}")
        raise typer.Exit


def before_any_command(
    version: Annotated[
        bool,
        typer.Option("--version", callback=tell, is_eager=True, help="Print the version and stop."),
    ] = False,
) -> None:
    """Nothing else: the help is the application's."""
