"""Which files `prepare` is to read: those of a folder, of archives, of a table; one by one."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from fastmrigan.errors import UsageError
from fastmrigan.imaging.options import PrepareOptions
from fastmrigan.imaging.pairs import Job, Named, find_label_maps, pair_folder, pair_table
from fastmrigan.imaging.tables import Groups, read_groups
from fastmrigan.imaging.walker import (
    DICOMDIR,
    Refused,
    Walk,
    keep_regular,
    natural,
    suffix,
    walk,
)

NOT_ASKED = ("force", "workers")  # options on which the result does not depend


@dataclass(frozen=True)
class Found:
    """What there is before an archive is opened."""

    source: Path
    images: Walk
    table: list[Job] | None = None  # pairs named by a table; `images` holds its refusals alone
    twins: Walk | None = None  # of a folder of twins
    label_maps: Walk | None = None  # of a folder of label maps
    groups: Groups | None = None  # read once: it may be a pipe, or change during the run

    def files(self) -> list[Named]:
        """All of it: what the request is made of."""
        named = [file for job in self.table or () for file in job.files]
        for walked in (self.images, self.twins, self.label_maps):
            named += [*walked.files, *walked.archives] if walked is not None else []
        return named


@dataclass
class Members:
    """The files of the source once its archives are open."""

    files: list[Named] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    stamps: dict[Path, str] = field(default_factory=dict)  # of archives, by what came out of them


def find(source: Path, options: PrepareOptions) -> Found:
    """Looks at names and at tables. Raises UsageError for paths that lead nowhere, tables that are
    none and empty folders."""
    if not source.exists():
        raise UsageError(f"{source}: no such file or folder")
    pairs = options.pairs
    if pairs is not None and not pairs.exists():
        raise UsageError(f"--pairs {pairs}: no such file or folder")
    groups = read_groups(options.groups) if options.groups is not None else None
    label_maps = None
    if options.label_maps is not None and Path(options.label_maps).is_dir():
        label_maps = walk(Path(options.label_maps))
    if pairs is not None and pairs.is_file():
        if not source.is_dir():
            raise UsageError(f"--pairs {pairs}: a table names files of a folder; {source} is none")
        table, refused = pair_table(source, pairs)
        inside = walk(source) if options.label_maps is not None and label_maps is None else Walk()
        return Found(source, Walk(inside.files, [], refused), table, None, label_maps, groups)
    images = walk(source)
    if not (images.files or images.archives or images.refused):
        count = sum(images.ignored.values())
        ignored = f" ({count:,} other files)" if count else ""
        raise UsageError(f"{source}: no images in this folder{ignored}")
    twins = walk(pairs) if pairs is not None else None
    return Found(source, images, None, twins, label_maps, groups)


def request_of(found: Found, options: PrepareOptions) -> str:
    """sha256 over the options and the names and sizes of all files: what was asked for."""
    asked = asdict(options) | {"pairs": options.pairs is not None}
    asked |= {"label_maps": found.label_maps is not None or options.label_maps}
    for name in NOT_ASKED:
        del asked[name]
    del asked["groups"]
    if found.groups is not None:
        asked["groups"] = found.groups.partition()
    total = hashlib.sha256(json.dumps(asked, sort_keys=True).encode())
    for name, path in found.files():
        total.update(f"{path.stat().st_size} {name}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def jobs_of(
    found: Found, options: PrepareOptions, scratch: Path, pause: Callable[[], None]
) -> tuple[list[Job], list[Refused]]:
    """Every file to read with what belongs to it, in natural order, and those refused already.

    Archives are written out under `scratch`; `pause` is called now and then and may raise.
    Raises UsageError for a pattern that fits nothing.
    """
    members = opened(found, scratch, pause)
    files, refused = members.files, members.refused
    maps = None
    if options.label_maps is not None:
        maps = find_label_maps(options.label_maps, files, found.label_maps)
        files = [file for file in files if file[0] not in maps.inside]
    if found.table is not None:
        jobs = found.table
    elif found.twins is not None and options.pairs is not None:
        jobs, single = pair_folder(files, found.twins, options.pairs)
        refused += [*found.twins.refused, *single]
        refused += [
            Refused(name, "archives of twins are not opened; unpack it")
            for name, _ in found.twins.archives
        ]
    else:
        jobs = [Job(name, path) for name, path in files]
    if maps is not None:
        jobs, mapless = maps.attach(jobs)
        refused += mapless
    if not jobs and not refused:
        raise UsageError(f"{found.source}: no images in it")
    pattern = options.group_pattern
    if pattern is not None and jobs and not any(re.search(pattern, job.name) for job in jobs):
        raise UsageError(f"--group-pattern {pattern}: matches no name, e.g. {jobs[0].name}")
    groups = found.groups
    if groups is not None and jobs and not any(groups.shared([job.name]) for job in jobs):
        raise UsageError(f"--groups {groups.table}: names no file, e.g. {jobs[0].name}")
    return [stamped(job, members.stamps) for job in jobs], refused


def opened(found: Found, scratch: Path, pause: Callable[[], None]) -> Members:
    """The files of the source, and the members of its archives behind their archive's name.

    The members of an archive that is the whole source keep their own names: a packed folder gives
    what the folder gives.
    """
    images = found.images
    members = Members(list(images.files), list(images.refused))
    known = {path.resolve() for _, path in images.files} if images.archives else set()
    for number, (name, archive) in enumerate(images.archives):
        try:
            if suffix(name) == DICOMDIR:
                add_medium(members, name, archive, known)
            else:
                whole = not found.source.is_dir()
                add_archive(members, name, archive, scratch / str(number), whole, pause)
        except Refused as error:  # the archive itself, under its own name
            members.refused.append(Refused(name, error.reason))
    members.files.sort(key=lambda file: natural(file[0]))
    return members


def add_medium(members: Members, name: str, directory: Path, known: set[Path]) -> None:
    """The files that a DICOMDIR names, but for those that were found without it. Raises Refused."""
    from fastmrigan.imaging.archives import dicomdir_files

    above = "".join(name.rpartition("/")[:2])
    named = Walk()
    absent = f"is not there, though {directory.name} names it; copy the whole medium"
    for path in dicomdir_files(directory):
        if path.resolve() not in known:
            own = above + path.relative_to(directory.parent).as_posix()
            keep_regular(named, path, own, absent=absent)
    members.files += named.files
    members.refused += named.refused


def add_archive(
    members: Members,
    name: str,
    archive: Path,
    folder: Path,
    whole: bool,
    pause: Callable[[], None],
) -> None:
    """Writes the images of an archive into `folder`. Raises Refused."""
    from fastmrigan.imaging.archives import open_archive

    stat = archive.stat()
    stamp = f"{stat.st_size}-{stat.st_mtime_ns}"
    packed_file = suffix(name) == ".gz"  # one file, which keeps the archive's name
    folder.mkdir(parents=True)
    for member in open_archive(archive, folder):
        pause()
        own = member.name if isinstance(member, Refused) else member[0]
        shown = name if packed_file else own if whole else f"{name}/{own}"
        if isinstance(member, Refused):
            members.refused.append(Refused(shown, member.reason))
        else:
            members.files.append((shown, member[1]))
            members.stamps[member[1]] = stamp


def stamped(job: Job, archives: dict[Path, str]) -> Job:
    """The job with the bytes of its files, and a stamp that changes where one of them does."""
    size, stamp = 0, []
    for name, path in job.files:
        try:
            stat = path.stat()
        except OSError:  # gone since: refused by name when it is read
            continue
        size += stat.st_size
        # What comes out of an archive is as old as this run
        stamp.append(f"{name} {stat.st_size} {archives.get(path, stat.st_mtime_ns)}")
    return replace(job, size=size, stamp="\n".join(stamp))
