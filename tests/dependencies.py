"""Prints the project's dependencies with the named extras, one requirement a line for pip.

`make` installs these before the wheel, so that a change of source rebuilds the wheel alone.
"""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
extras = sys.argv[1].split(",")
wanted = project["dependencies"] + [
    name for extra in extras for name in project["optional-dependencies"][extra]
]
print("\n".join(sorted(requirement.replace(" ", "") for requirement in set(wanted))))
