"""The C programs, plain and under sanitizers; what the library is made of; how others find it."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from c_library import LIBRARIES, ROOT, SANITIZERS, build, cmake, need_backend
from c_library_models import write_models

from fastmrigan import __version__

pytestmark = pytest.mark.slow

MAX_BYTES = 300_000
HEADER = ROOT / "csrc" / "include" / "fastmrigan.h"


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


@pytest.fixture(scope="session", params=SANITIZERS)
def programs(request, tmp_path_factory) -> tuple[Path, str]:
    """The folder of a build, and the sanitizer it runs under."""
    if request.param == "plain":
        return request.getfixturevalue("built"), "plain"
    return build(tmp_path_factory.mktemp(request.param), request.param), request.param


PROGRAMS = ("codes_tests", "hostile_tests", "threads_tests", "allocation_tests", "backend_tests")


def fixed_addresses() -> list[str]:
    """ThreadSanitizer of GCC 12 does not know the address layouts of later kernels."""
    command = ["setarch", platform.machine(), "-R"]
    if shutil.which("setarch") is None or subprocess.run([*command, "true"]).returncode:
        return []
    return command


def suppressions(folder: Path) -> Path:
    """Leaks of third parties, by library."""
    path = folder / "suppressions"
    path.write_text("leak:libopenvino\nleak:libtbb\n")
    return path


@pytest.mark.parametrize("backend", LIBRARIES)
@pytest.mark.parametrize("program", PROGRAMS)
def test_c_program(program, backend, programs, models, tmp_path):
    build_folder, sanitizer = programs
    need_backend(build_folder, backend)
    if program == "allocation_tests" and sanitizer != "plain":
        pytest.skip("replaces malloc, as the sanitizers do")
    if program == "backend_tests" and sanitizer == "thread":
        pytest.skip(
            "the backends are not built for ThreadSanitizer: threads_tests has their stand-ins"
        )
    folder = build_folder / "tests" / "c"
    arguments = [backend, models, folder / f"libfake_{backend}.so"]
    if program == "backend_tests":
        arguments[2] = LIBRARIES[backend]()
    if program == "codes_tests":
        arguments += [folder / f"libfake_{kind}_{backend}.so" for kind in ("old", "lacking")]
    prefix = fixed_addresses() if sanitizer == "thread" else []
    environment = os.environ | {
        "LSAN_OPTIONS": f"suppressions={suppressions(tmp_path)}:print_suppressions=0",
        "TBB_ENABLE_SANITIZERS": "1",  # without it, it loads libraries in a way they refuse
    }
    done = subprocess.run(
        [*prefix, folder / program, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == f"{program}: passed\n"
    assert done.stderr == ""


def tool(*command: object) -> str:
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"no {command[0]}")
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=True
    ).stdout


def test_library_is_small_and_links_no_machine_learning_library(built, tmp_path):
    library = built / "csrc" / "capi" / "libfastmrigan.so"
    tool("strip", "-o", tmp_path / "stripped.so", library)
    assert (tmp_path / "stripped.so").stat().st_size < MAX_BYTES
    needed = set(re.findall(r"NEEDED.*\[(.*?)\.so", tool("readelf", "-d", library)))
    system = {"libstdc++", "libm", "libgcc_s", "libc", "libdl", "libpthread"}
    assert needed <= system | {f"ld-linux-{platform.machine().replace('_', '-')}"}


def test_nothing_is_exported_but_what_the_header_declares(built):
    declared = set(re.findall(r"^FMG_API .*?(fmg_\w+)\(", HEADER.read_text(), re.MULTILINE))
    symbols = tool("nm", "-D", "--defined-only", built / "csrc" / "capi" / "libfastmrigan.so")
    exported = {line.split()[2].split("@")[0] for line in symbols.splitlines() if " T " in line}
    assert exported == declared
    assert not re.findall(r" [BDVuW] ", symbols)  # no data, no weak C++ symbols


@pytest.mark.parametrize(
    ("compiler", "language"), [("cc", "c99"), ("cc", "c11"), ("c++", "c++11"), ("c++", "c++17")]
)
def test_header_compiles_in_any_language(compiler, language, tmp_path):
    source = tmp_path / ("a.c" if compiler == "cc" else "a.cpp")
    source.write_text('#include "fastmrigan.h"\nint main(void) { return FMG_OK; }\n')
    flags = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-std={language}", "-fsyntax-only"]
    tool(compiler, *flags, f"-I{HEADER.parent}", source)


def test_the_readmes_program_compiles(tmp_path):
    (block,) = re.findall(r"```c\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    include, body = block.split("\n", 1)
    source = tmp_path / "readme.c"
    source.write_text(
        f"#include <stdio.h>\n{include}\n"
        f"void program(int16_t* buffer, int16_t* translated) {{{body}}}\n"
    )
    flags = ["-Wall", "-Wextra", "-Werror", "-std=c99", "-fsyntax-only"]
    tool("cc", *flags, f"-I{HEADER.parent}", source)


@pytest.fixture(scope="session")
def installed(built, tmp_path_factory) -> Path:
    prefix = tmp_path_factory.mktemp("prefix")
    cmake("--install", built, "--prefix", prefix)
    return prefix


CONSUMER = """
cmake_minimum_required(VERSION 3.25)
project(consumer C)
find_package(fastmrigan {version} REQUIRED)
add_executable(consumer consumer.c)
target_link_libraries(consumer fastmrigan::fastmrigan)
"""
PROGRAM = """
#include <fastmrigan.h>
#include <stdio.h>
int main(void) { return puts(fmg_version()) < 0; }
"""


def test_find_package(installed, tmp_path):
    (tmp_path / "CMakeLists.txt").write_text(CONSUMER.format(version=__version__))
    (tmp_path / "consumer.c").write_text(PROGRAM)
    cmake("-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={installed}")
    cmake("--build", tmp_path / "build")
    assert tool(tmp_path / "build" / "consumer") == f"{__version__}\n"


def test_pkg_config(installed, tmp_path, monkeypatch):
    (pc,) = installed.rglob("fastmrigan.pc")
    monkeypatch.setenv("PKG_CONFIG_PATH", str(pc.parent))
    assert tool("pkg-config", "--modversion", "fastmrigan") == f"{__version__}\n"
    flags = tool("pkg-config", "--cflags", "--libs", "fastmrigan").split()
    source, program = tmp_path / "consumer.c", tmp_path / "consumer"
    source.write_text(PROGRAM)
    tool("cc", source, *flags, f"-Wl,-rpath,{pc.parents[1]}", "-o", program)
    assert tool(program) == f"{__version__}\n"


def test_library_is_position_independent_of_its_prefix(installed, tmp_path):
    """The package moves with its folder: no path of the build is in its files."""
    moved = tmp_path / "elsewhere"
    shutil.copytree(installed, moved, symlinks=True)
    for file in moved.rglob("*"):
        if file.suffix in {".cmake", ".pc"}:
            assert str(installed) not in file.read_text()
            assert os.fspath(ROOT) not in file.read_text()
