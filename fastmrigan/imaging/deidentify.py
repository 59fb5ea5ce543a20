"""Files of DICOM re-emitted without identity: header by PS3.15 annex E, pixels to the byte.

The output folder holds de-identified files and nothing else, under names made of hashed UIDs. What
was refused is named beside it, since source names can tell who it was. Pixels stay as they are:
text in the picture, a face that can be rebuilt, and what an encoder wrote into a compressed stream.
"""

from __future__ import annotations

import fcntl
import io
import os
import re
import secrets
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fastmrigan.errors import Interrupted, UsageError
from fastmrigan.files import TMP, is_full, write_whole
from fastmrigan.imaging.deidentify_profile import OVERLAYS, Profile, is_empty
from fastmrigan.imaging.options import BURNED_IN
from fastmrigan.imaging.output import write_refused
from fastmrigan.imaging.walker import (
    DICOMDIR,
    Refused,
    Walk,
    is_dicom,
    kind_told,
    printable,
    suffix,
    walk,
)
from fastmrigan.interrupt import StopSignal
from fastmrigan.progress import Progress

if TYPE_CHECKING:
    from pydicom import Dataset

DICOM_KINDS = ("", ".dcm", ".dicom", ".ima")
DICOMDIR_CLASS = "1.2.840.10008.1.3.10"
VOICES = "1.2.840.10008.5.1.4.1.1.9.4."  # audio waveform storage: the classes begin so
NO_SERIES = "no-series"
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
MIN_SALT = 16  # bytes; UIDs hashed with a short one could be found by trying
STOPPED = {
    True: "{:,} files written; the same command with the same salt goes on",
    False: "{:,} files taken back, since no other run has their salt; give --salt-file "
    "for a run that can be resumed",
}


@dataclass(frozen=True)
class DeidentifyOptions:
    """What `fastmrigan deidentify` can be told."""

    salt: bytes | None = None  # None: drawn at random, gone with the process
    allow_burned_in: str = "no"  # the worst state of BurnedInAnnotation to let through

    def check(self) -> None:
        """Raises UsageError naming the option."""
        if self.salt is not None and len(self.salt) < MIN_SALT:
            raise UsageError(
                f"--salt: {len(self.salt)} bytes; give at least {MIN_SALT}, or UIDs can be guessed"
            )
        if self.allow_burned_in not in BURNED_IN:
            raise UsageError(
                f"--allow-burned-in {self.allow_burned_in}: expected {', '.join(BURNED_IN)}"
            )


@dataclass
class Deidentified:
    """What a run did, for the closing lines."""

    written: int = 0
    present: int = 0  # from an earlier run, or the same bytes twice in the source
    twins: int = 0  # written files that share their SOP Instance UID with another
    series: set[str] = field(default_factory=set)  # names of folders
    refused: list[Refused] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)  # files that are no DICOM, by kind


def rejects_path(out: Path) -> Path:
    """Beside the output, not in it: it names the sources."""
    return out.with_name(f"{out.name}.rejects.jsonl")


def deidentify(source: Path, out: Path, options: DeidentifyOptions) -> Deidentified:
    """Re-emits every DICOM file of a folder (or the one file `source` is) into the folder `out`.

    With a given salt a run adds what is missing; with a random one `out` must be new or empty, and
    a run that is interrupted takes back what it has written. Raises UsageError for options and
    folders that cannot be used, Interrupted, and MissingDependency.
    """
    options.check()
    source, out = source.absolute(), out.absolute()
    found = find(source, out)
    profile = Profile(options.salt or secrets.token_bytes(32))
    resumable = options.salt is not None
    done = Deidentified(refused=found.refused, ignored=found.ignored)
    with (
        writing(out, resumable=resumable),
        StopSignal() as stop,
        Progress("deidentify", len(found.files), "files") as progress,
    ):
        for name, path in found.files:
            if stop.stopped:
                raise Interrupted(f"{out}: {STOPPED[resumable].format(done.written)}")
            try:
                keep(deidentify_file(path, name, profile, options.allow_burned_in), out, done)
            except Refused as error:
                done.refused.append(error)
            progress.advance()
    if done.refused:
        write_refused(rejects_path(out), done.refused)
    else:
        rejects_path(out).unlink(missing_ok=True)  # of an earlier run
    return done


def find(source: Path, out: Path) -> Walk:
    """The DICOM files to read. Raises UsageError where there are none, or `out` lies among them."""
    if not source.exists():
        raise UsageError(f"{source}: no such file or folder")
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise UsageError(f"{out}: lies in {source}, which is read; name a folder outside")
    found = walk(source)
    files, found.files = found.files, []
    for name, path in files:
        if suffix(name) in DICOM_KINDS or is_dicom(path):
            found.files.append((name, path))
        else:
            found.ignored[kind_told(name)] += 1
    for name, _ in found.archives:
        if suffix(name) == DICOMDIR:  # tells of the files beside it
            found.ignored[DICOMDIR] += 1
        else:
            found.refused.append(Refused(name, "an archive; unpack it first"))
    if not found.files and not found.refused:
        ignored = f" ({sum(found.ignored.values()):,} other files)" if found.ignored else ""
        raise UsageError(f"{source}: no DICOM files in this folder{ignored}")
    return found


@contextmanager
def writing(out: Path, *, resumable: bool) -> Iterator[None]:
    """Makes `out` and locks it; raises UsageError where it cannot be used, or holds anything else.

    What a killed process left half written is removed. Where the run ends early, for whatever
    reason, and there is no salt to go on with, all that it has written is taken back.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        names = sorted(entry.name for entry in out.iterdir())
        lock = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if is_full(error):
            raise
        raise UsageError(f"{out}: cannot be written ({error.strerror}); name a folder") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError(f"{out}: another process writes to it; wait for it") from error
        if names and not resumable:
            raise UsageError(
                f"{out}: is not empty, and a run with a random salt cannot go on from an earlier "
                "one; name a new folder, or give --salt-file to both runs"
            )
        for name in names:
            if not re.fullmatch(rf"2\.25\.\d{{1,39}}|{NO_SERIES}", name):
                raise UsageError(
                    f"{out}: holds {printable(name)}, which no de-identification made; name a new "
                    "or empty folder"
                )
        for path in out.glob(f"*/.*{TMP}"):
            path.unlink()
        try:
            yield
        except BaseException:
            if not resumable:  # the folder was empty
                for path in out.iterdir():
                    shutil.rmtree(path)
            raise
    finally:
        os.close(lock)


@dataclass(frozen=True)
class File:
    """One de-identified file, in memory."""

    series: str  # folder
    instance: str  # new SOP Instance UID
    content: bytes


def deidentify_file(path: Path, name: str, profile: Profile, allow_burned_in: str) -> File:
    """Reads and de-identifies one file. Raises Refused with the reason."""
    from fastmrigan.imaging.dicom.bounded import plain_reasons
    from fastmrigan.imaging.dicom.header import open_bounded

    try:
        with plain_reasons():
            dataset = open_bounded(path)
            check_content(dataset, allow_burned_in)
            instance, series = new_identity(dataset, profile)
            profile.apply(dataset)
            profile.stamp(dataset)
            return File(series, instance, encode(dataset, instance))
    except ValueError as error:
        raise Refused(name, " ".join(printable(str(error)).split())) from error
    except MemoryError as error:
        raise Refused(name, "needs more memory than there is") from error


def check_content(dataset: Dataset, allow_burned_in: str) -> None:
    """Raises ValueError for a directory, a voice, and for pixels that may show who it is."""
    from fastmrigan.imaging.dicom.elements import text
    from fastmrigan.imaging.dicom.header import burned_in

    if dataset.file_meta.get("MediaStorageSOPClassUID") == DICOMDIR_CLASS:
        raise ValueError("a DICOMDIR: its files get new names; make a new one of the output")
    if (text(dataset, "SOPClassUID") or "").startswith(VOICES):
        raise ValueError("a recording of a voice, which tells who speaks")
    if not any(name in dataset for name in PIXELS):
        return
    stated = text(dataset, "BurnedInAnnotation")
    state: str = burned_in(stated)
    fact = f"BurnedInAnnotation is {stated or 'absent'}"
    if overlay_in_pixels(dataset):
        state, fact = "yes", "an overlay is kept in the high bits of its pixels"
    if BURNED_IN.index(state) > BURNED_IN.index(allow_burned_in):
        raise ValueError(
            f"in quarantine: its pixels may show who it is ({fact}); look at it, then let it "
            f"through with --allow-burned-in {state}"
        )


def overlay_in_pixels(dataset: Dataset) -> bool:
    """True for an overlay without data of its own (retired; PS3.5 8.1.2)."""
    tags = [tag for tag in dataset.keys() if tag.group >> 8 == OVERLAYS]  # noqa: SIM118
    apart = {tag.group for tag in tags if tag.element == 0x3000 and not is_empty(dataset, tag)}
    return any(tag.element == 0x0010 and tag.group not in apart for tag in tags)


def new_identity(dataset: Dataset, profile: Profile) -> tuple[str, str]:
    """New SOP Instance UID and the folder of the series; raises ValueError without an instance."""
    old = dataset.get("SOPInstanceUID") or dataset.file_meta.get("MediaStorageSOPInstanceUID")
    if not old:
        raise ValueError("DICOM without SOP Instance UID")
    series = dataset.get("SeriesInstanceUID")
    return profile.uid(str(old)), profile.uid(str(series)) if series else NO_SERIES


def encode(dataset: Dataset, instance: str) -> bytes:
    """The file: an empty preamble, new file meta information, the source's transfer syntax."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID

    old = dataset.file_meta
    sop_class = dataset.get("SOPClassUID") or old.get("MediaStorageSOPClassUID")
    if not sop_class or not old.get("TransferSyntaxUID"):
        raise ValueError("DICOM without SOP Class UID or Transfer Syntax UID")
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = UID(instance)
    meta.TransferSyntaxUID = old.TransferSyntaxUID
    implicit, little = dataset.original_encoding
    if not implicit and any(e.is_raw and e.VR is None for e in dataset.elements()):
        # Says explicit and is implicit, as pydicom has found: every VR must be looked up
        dataset.set_original_encoding(True, little, dataset.original_character_set)
    dataset.file_meta, dataset.preamble = meta, bytes(128)
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def keep(file: File, out: Path, done: Deidentified) -> None:
    """Writes a file unless it is there; another one of the same SOP Instance UID gets a number."""
    folder = out / file.series
    folder.mkdir(exist_ok=True)
    done.series.add(file.series)
    number = 1
    while True:
        path = folder / f"{file.instance}{f'-{number}' if number > 1 else ''}.dcm"
        if not path.exists():
            break
        if path.read_bytes() == file.content:
            done.present += 1
            return
        number += 1
    write_whole(path, file.content)
    done.written += 1
    done.twins += number > 1
