"""What gpu_gate.sh does in Python: what is missing, the machine's facts, the tests, the one JSON.

gpu_gate.py missing             one line on what to bring, exit 2; nothing where all is there
gpu_gate.py arch                the GPU's architecture for CMake (90)
gpu_gate.py facts FILE          device, driver, CUDA, torch, date, commit
gpu_gate.py tests FILE          the tests marked gpu; their counts into FILE
gpu_gate.py report WORK [FILE]  facts and steps of the folder WORK into one JSON; exit 6 on failure
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS_NEED = ["numpy", "torch", "pytest", "iniconfig", "pluggy", "packaging", "pygments"]
# Of train_step.py: what fastmrigan.training imports.
TRAINING_NEEDS = ["pillow", "pydantic", "pydantic-core", "annotated-types", "typing-inspection"]
TRAINING_NEEDS += ["typing-extensions", "pyyaml"]
PROGRAMS = {"cmake": ["cmake"], "ninja": ["ninja"], "a C++ compiler": ["c++", "g++", "clang++"]}


def missing() -> int:
    """What build, tests and training require; the build's versions as pyproject.toml asks."""
    try:
        from packaging.requirements import Requirement  # scikit-build-core and pytest need it too
    except ImportError:
        return bring(["packaging"])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = project["build-system"]["requires"] + TESTS_NEED + TRAINING_NEEDS
    wanted += [d for d in project["project"]["dependencies"] if d.startswith("nanobind-backend")]
    absent = []
    for requirement in map(Requirement, wanted):
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            absent.append(str(requirement))
        else:
            if not requirement.specifier.contains(version, prereleases=True):
                absent.append(f"{requirement} (there is {version})")
    if absent:
        return bring(absent)
    programs = dict(PROGRAMS, nvcc=[os.environ.get("CUDACXX", "nvcc")])
    lost = [what for what, names in programs.items() if not any(map(shutil.which, names))]
    if "cuda" not in torch_build():
        lost.append("CUDA in this torch")
    if lost:
        print(f"gpu_gate: not found: {', '.join(lost)}: bring it", file=sys.stderr)
        return 2
    return 0


def torch_build() -> str:
    import torch

    return f"cuda {torch.version.cuda}" if torch.version.cuda else "cpu"


def bring(absent: list[str]) -> int:
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    names = " ".join(f"'{one.split(' (')[0]}'" for one in absent)
    print(
        f"gpu_gate: {sys.executable} lacks {', '.join(absent)}: bring wheels (pip download "
        f"--no-deps --only-binary=:all: --python-version {python} -d wheels {names}) and set "
        "WHEELS=wheels",
        file=sys.stderr,
    )
    return 2


def arch() -> int:
    import torch

    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        print(f"{major}{minor}")
    else:
        print(
            "gpu_gate: no CUDA device: compiling for sm_90; the other steps fail", file=sys.stderr
        )
        print(90)
    return 0


def output(*command: str) -> str | None:
    """What a command prints, or None where it is absent or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def facts(file: str) -> int:
    import torch

    status = output("git", "status", "--porcelain")
    release = re.search(r"release ([\d.]+)", output(os.environ.get("CUDACXX", "nvcc"), "-V") or "")
    driver = output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    known = {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "driver": driver.splitlines()[0] if driver else None,
        "cuda": {"torch": torch.version.cuda, "nvcc": release[1] if release else None},
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": output("git", "rev-parse", "HEAD") or os.environ.get("COMMIT"),
        "dirty": None if status is None else bool(status),
    }
    Path(file).write_text(json.dumps(known))
    print(", ".join(f"{key} {value}" for key, value in known.items()), flush=True)
    return 0


PYTEST = [sys.executable, "-P", "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider"]


def gpu_files() -> tuple[list[str], list[str]]:
    """The test files that hold tests marked gpu, and those that do not import here."""
    command = [*PYTEST, "--collect-only", "-q", "--continue-on-collection-errors"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    found = sorted(set(re.findall(r"^(tests/\S+?\.py)::", listing.stdout, re.MULTILINE)))
    closed = sorted(set(re.findall(r"^ERROR (tests/\S+?\.py)", listing.stdout, re.MULTILINE)))
    if not found:
        print(listing.stdout[-3000:], listing.stderr[-3000:])
    return found, closed


def tests(file: str) -> int:
    """Runs the files that hold tests marked gpu alone; others may need packages that are absent.

    Tests that were all skipped are a failure here: without a CUDA device, that is what happens.
    """
    files, closed = gpu_files()
    if closed:
        print(f"gpu_gate: not looked into, for they do not import here: {', '.join(closed)}")
    counts: dict[str, object] = {"not_imported": closed, "passed": 0}
    status = 5  # pytest's own for "no tests"
    if files:
        results = Path(file).with_suffix(".xml")
        status = subprocess.run([*PYTEST, f"--junitxml={results}", *files], cwd=ROOT).returncode
        if results.is_file():
            suite = next(ElementTree.parse(results).iter("testsuite"))
            kinds = {name: int(suite.get(name, 0)) for name in ("failures", "errors", "skipped")}
            counts |= kinds | {"passed": int(suite.get("tests", 0)) - sum(kinds.values())}
    Path(file).write_text(json.dumps(counts))
    if status in (0, 5) and counts["passed"] == 0:
        print("gpu_gate: no test marked gpu ran (is there a CUDA device?)", file=sys.stderr)
        return 6
    return status


def report(work: Path, file: str) -> int:
    document = {"schema": 1, **json.loads((work / "facts.json").read_text()), "steps": []}
    for line in (work / "steps.tsv").read_text().splitlines():
        name, status, seconds, limit, command = line.split("\t", 4)
        step = {"name": name, "command": plain(command, work), "rc": int(status)}
        step |= {"seconds": int(seconds), "limit_seconds": int(limit)}
        if step["rc"] in (124, 137):
            step["timed_out"] = True
        if step["rc"] != 0:
            log = (work / f"{name}.log").read_text(errors="replace")
            step["log"] = plain(log, work).splitlines()[-30:]
        results = work / f"{name}.json"
        step["results"] = json.loads(results.read_text()) if results.is_file() else None
        document["steps"].append(step)
    failed = [step["name"] for step in document["steps"] if step["rc"] != 0]
    document["seconds"] = sum(step["seconds"] for step in document["steps"])
    document["failed"] = failed
    if file:
        path = Path(file)
    else:
        device = re.sub(r"[^a-z0-9]+", "-", (document["device"] or "no-device").lower()).strip("-")
        path = ROOT / "benchmarks" / "results" / f"{device}-{document['date'][:10]}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")
    print(f"gpu_gate: {path}: {'failed: ' + ', '.join(failed) if failed else 'all steps passed'}")
    return 6 if failed else 0


def plain(text: str, work: Path) -> str:
    """Without the folders of this machine: the JSON is committed."""
    prefix = os.path.relpath(sys.prefix, ROOT)  # as pytest prints it
    places = {str(work): "WORK", str(ROOT): ".", sys.prefix: "PYTHON", prefix: "PYTHON"}
    places[str(Path.home())] = "~"
    for place, name in places.items():
        text = text.replace(place, name)
    return text


def main(arguments: list[str]) -> int:
    match arguments:
        case ["missing"]:
            return missing()
        case ["arch"]:
            return arch()
        case ["facts", file]:
            return facts(file)
        case ["tests", file]:
            return tests(file)
        case ["report", work, file]:
            return report(Path(work), file)
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
