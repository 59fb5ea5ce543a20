"""The contrast of DICOM series, as dcm2niix's BidsGuess has it; no rules of our own.

dcm2niix tells a sequence from what its maker writes about it and says what BIDS would call the
image (`BidsGuess`, e.g. ["anat", "_acq-tse2_run-3_T2w"]). What it does not name is "unknown".
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from fastmrigan.errors import MissingDependency, UsageError
from fastmrigan.imaging.walker import printable

UNKNOWN = "unknown"
# BIDS suffix to one of options.CONTRASTS. BIDS defines UNIT1 as the T1-weighted image of MP2RAGE.
# T1w holds images with and without contrast agent: dcm2niix does not tell them apart.
CONTRAST_OF_SUFFIX = {
    "T1w": "t1",
    "UNIT1": "t1",
    "T2w": "t2",
    "FLAIR": "flair",
    "PDw": "pd",
    "dwi": "dwi",
}

FIRST_VERSION = 20230731  # of dcm2niix that guesses
MEMORY = 2 << 30  # bytes it may map
WRITTEN = 1 << 26  # bytes it may write to one file
READ = 1 << 20  # bytes of a sidecar, and of what it printed last, that are read

# Its exit codes (nii_dicom.h). After those of USABLE it may have written sidecars.
USABLE = (0, 8, 10)
MEANING = {
    1: "it failed",
    2: "it finds no image it can read",
    4: "it finds a corrupt file",
    8: "it reads some of the files only",
    10: "it finds incomplete volumes",
}


class Silent(Exception):
    """dcm2niix said nothing of a series; the message is the reason."""


def to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def guess_contrasts(
    files: Sequence[Path], *, seconds: float = 60.0, report: Callable[[str], None] = to_stderr
) -> dict[str, str]:
    """One of options.CONTRASTS for each DICOM series among `files`, by SeriesInstanceUID.

    CT is told by its Modality, everything else by `guess_contrast`, which may take `seconds` for a
    series. `report` gets a line for each series that dcm2niix stumbled over; it is "unknown" then.
    Files that are no DICOM, and those of no series, are left out. Raises MissingDependency, and
    UsageError for a dcm2niix too old to guess.
    """
    from fastmrigan.imaging.dicom.header import read_header

    series: dict[str, list[Path]] = {}
    ct: set[str] = set()
    for path in files:
        try:
            header = read_header(path)
        except (ValueError, OSError):  # refused by name where its pixels are read
            continue
        if header.series is not None:
            series.setdefault(header.series, []).append(path)
            if header.modality == "CT":
                ct.add(header.series)
    guessed = {}
    for uid, paths in series.items():
        try:
            guessed[uid] = "ct" if uid in ct else guess_contrast(paths, seconds=seconds)
        except Silent as error:
            report(f"warning: {printable(str(paths[0]))} and its series: contrast unknown: {error}")
            guessed[uid] = UNKNOWN
    return guessed


def guess_contrast(files: Sequence[Path], *, seconds: float = 60.0) -> str:
    """One of options.CONTRASTS for the files of one series; "unknown" where dcm2niix has no word.

    It sees links of our own naming in a scratch folder, reads no settings of the user's and may
    take `seconds`, 2 GiB of memory and no more. Raises Silent with the reason where it fails, and
    MissingDependency and UsageError as `guess_contrasts` does.
    """
    program = find_program()
    with tempfile.TemporaryDirectory(prefix="fastmrigan-contrast-") as scratch:
        source, sidecars = Path(scratch, "series"), Path(scratch, "sidecars")
        source.mkdir()
        sidecars.mkdir()
        for number, path in enumerate(files):
            (source / f"{number:06}.dcm").symlink_to(path.resolve())
        # JSON only (-b o), without identity (-ba y), in this one folder (-d 0)
        options = ["-b", "o", "-ba", "y", "-d", "0", "-z", "n", "-f", "guess"]
        run([program, *options, "-o", str(sidecars), str(source)], Path(scratch), seconds)
        found = [read_sidecar(path) for path in sorted(sidecars.glob("*.json"))]
    return agreed(contrast_of(guess) for guess in found)


def find_program() -> str:
    """The dcm2niix of the Python package, else the one on the PATH. Raises MissingDependency."""
    try:
        import dcm2niix
    except ModuleNotFoundError as error:
        program = shutil.which("dcm2niix")
        if program is None:
            purpose = "telling the contrast of DICOM series"
            raise MissingDependency("dcm2niix", "dicom", purpose) from error
        return program
    return str(dcm2niix.bin)


def run(command: Sequence[str], scratch: Path, seconds: float) -> None:
    """Runs dcm2niix under limits. Raises Silent with its reason where no sidecar can be had.

    Raises UsageError where it cannot be started at all.
    """
    said = scratch / "said.txt"  # in a file, which a limit holds
    environment = {"HOME": str(scratch), "LC_ALL": "C", "TZ": "UTC"}  # ~/.dcm2nii.ini changes it
    with said.open("wb") as output:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=scratch,
                env=environment,
                start_new_session=True,  # Ctrl-C ends the caller, which ends it
            )
        except OSError as error:
            raise UsageError(
                f"{command[0]}: cannot be run ({error.strerror}): pip install --force-reinstall "
                "dcm2niix, or name the contrast with --contrast"
            ) from error
    with process:
        try:
            limit(process.pid)
            code = process.wait(seconds)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise Silent(f"dcm2niix took more than {seconds:g} s") from error
            raise
    if code not in USABLE:
        raise Silent(f"dcm2niix: {meaning(code)}{last_words(said, scratch)}")


def limit(pid: int) -> None:
    """Bounds what a running process may map and write; it may have ended already."""
    with suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (WRITTEN, WRITTEN))


def meaning(code: int) -> str:
    if code < 0:
        return f"it was killed ({signal.Signals(-code).name})"
    return MEANING.get(code, "it failed") + f" (exit {code})"


def last_words(said: Path, scratch: Path) -> str:
    """The last complaint among what dcm2niix printed, as one short line; empty without one."""
    with said.open("rb") as file:
        file.seek(max(0, said.stat().st_size - READ))
        text = file.read().decode("utf-8", "replace").replace(f"{scratch}{os.sep}", "")
    words = re.compile(r"error|warning|unable|unsupported", re.IGNORECASE)
    complaints = [line for line in text.splitlines() if words.search(line)]
    return f": {printable(' '.join(complaints[-1].split())[:160])}" if complaints else ""


def read_sidecar(path: Path) -> tuple[str, str]:
    """BidsGuess of one sidecar, data type and suffix with its entities; ("", "") where it has none.

    Raises UsageError where the dcm2niix that wrote it is too old to guess.
    """
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            document = json.loads(file.read(READ))
        guess, version = document.get("BidsGuess"), document["ConversionSoftwareVersion"]
        date = int(re.findall(r"\d+", version)[2])  # v1.0.20240202
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise Silent(f"dcm2niix wrote a sidecar that cannot be read ({error!r})") from error
    if date < FIRST_VERSION:
        raise UsageError(
            f"dcm2niix {version} does not tell contrasts, versions from {FIRST_VERSION} on do: "
            "pip install --upgrade dcm2niix, or name the contrast with --contrast"
        )
    match guess:
        case [str(kind), str(suffix)]:
            return kind, suffix
    return "", ""


def contrast_of(guess: tuple[str, str]) -> str:
    """BidsGuess to one of options.CONTRASTS: the word behind the last underscore decides."""
    kind, suffix = guess
    return UNKNOWN if kind == "discard" else CONTRAST_OF_SUFFIX.get(suffix.split("_")[-1], UNKNOWN)


def agreed(contrasts: Iterable[str]) -> str:
    """The one contrast that all images of a series share; "unknown" for none or several."""
    several = set(contrasts)
    return several.pop() if len(several) == 1 else UNKNOWN
