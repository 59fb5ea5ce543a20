"""openvino without its converter: what is left out comes back when it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

FIRST = "from fastmrigan.runtime.backends.openvino_package import openvino_package as package\n"
LEFT_OUT = "import sys; print('openvino.tools.ovc' in sys.modules, end=' ')\n"
CONVERTS = "print(ov.convert_model.__module__.split('.')[:3])"
CASES = {
    "left out": (FIRST + "ov = package()\n" + LEFT_OUT + "print(ov.Core.__name__)", "False Core"),
    "asked for": (FIRST + "ov = package()\n" + CONVERTS, "['openvino', 'tools', 'ovc']"),
    "no such name": (
        FIRST + "ov = package()\nprint(hasattr(ov, 'convert'), hasattr(ov, 'convert_model'))",
        "False True",
    ),
    "importable": (
        FIRST + "package()\nfrom openvino import convert_model\nprint(callable(convert_model))",
        "True",
    ),
    "openvino came first": (
        "import openvino as ov\n" + FIRST + "print(package() is ov, 'convert_model' in vars(ov))",
        "True True",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_converter(case: str) -> None:
    code, expected = CASES[case]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == expected
