"""Opening any DICOM file at a bounded cost: bytes, elements, and what a deflated one inflates to.

pydicom trusts what a file says of itself: it inflates without end and gives every claimed length a
buffer. Here a file is read through `BoundedFile`, which gives out so many bytes in so many reads.
"""

from __future__ import annotations

import io
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

from fastmrigan.errors import MissingDependency
from fastmrigan.imaging.dicom.elements import whole
from fastmrigan.imaging.readers import MAX_PIXELS, MAX_VOXELS
from fastmrigan.imaging.worker import unclocked

if TYPE_CHECKING:
    from pydicom import Dataset, FileDataset
    from pydicom.dataset import FileMetaDataset

DEFLATED = "1.2.840.10008.1.2.1.99"
PIXEL_TAGS = frozenset((0x7FE00008, 0x7FE00009, 0x7FE00010))  # float, double, integers

MAX_HEADER = 64 << 20  # bytes before the pixels; a frame of an enhanced object takes 5 to 20 KiB
READS = 200_000  # two or three an element; an enhanced frame takes 250 to 350, and 20 items
BYTES_A_READ = 50  # for every so many bytes on the disk one more read: frames bring pixels
ITEM_TAGS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")  # little endian, big
ITEM_READS = 4  # what an item of a sequence counts beside its reads: a data set is made of it
GROUP_ITEM_READS = 15  # the same where all come in one read: its elements are read from memory
SLACK = 16 << 20  # bytes beyond what the header announces: overlays, icons, padding
CHUNK = 1 << 20
MAX_FRAMES = 1 << 16  # four hours of functional MRI
GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")


class BoundedFile(io.BufferedReader):
    """A file of which only so many bytes can be had, in so many reads.

    No read asks for more than the file has left, so that a wrong length costs no memory.
    """

    def __init__(self, source: io.FileIO | io.BytesIO, on_disk: int | None = None) -> None:
        super().__init__(cast(io.RawIOBase, source))
        self.size = self.seek(0, io.SEEK_END)
        self.seek(0)
        self.reads = READS + (self.size if on_disk is None else on_disk) // BYTES_A_READ
        self.exceeded = ""  # kept, since pydicom puts its own error in the place of any other
        self.allow(MAX_HEADER)

    def allow(self, count: int) -> None:
        """Starts a new allowance of so many bytes, and of as many reads as the file is worth."""
        self.bytes_left, self.reads_left = count, self.reads

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self.size - self.tell())
        wanted = left if size is None or size < 0 else min(size, left)
        self.bytes_left -= wanted
        self.reads_left -= 1
        if self.bytes_left < 0:
            self.exceeded = f"its header is longer than {MAX_HEADER >> 20} MiB"
        elif self.reads_left < 0:
            self.exceeded = f"its header takes more than {self.reads:,} reads: too many elements"
        if self.exceeded:
            raise ValueError(self.exceeded)
        content = super().read(wanted)
        if wanted == 8 and content[:4] in ITEM_TAGS:
            self.reads_left -= ITEM_READS
        return content


def open_bounded(path: Path) -> FileDataset:
    """A whole DICOM file as a pydicom data set, whatever it holds, at a bounded cost.

    The header may take MAX_HEADER bytes, in READS reads and those that the file's size adds. What
    follows, inflated or not, may take twice what rows x columns x frames announce and SLACK bytes.
    Raises ValueError with the reason in one line and MissingDependency.
    """
    return parse(path, whole_file=True)[0]


def parse(
    path: Path, *, whole_file: bool, only: Sequence[int] | None = None
) -> tuple[FileDataset, bool]:
    """The data set of a file, and whether it has pixels.

    whole_file: with its pixels and what follows them. only: the tags to keep of the header.
    Raises ValueError with the reason in one line and MissingDependency.
    """
    try:
        with unclocked():
            from pydicom import dcmread
    except ModuleNotFoundError as error:
        raise MissingDependency("pydicom", "dicom", f"reading DICOM ({path.name})") from error
    try:
        raw = io.FileIO(str(path))  # pydicom takes its name for text
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from error
    with BoundedFile(raw) as stream, plain_reasons(stream):
        # The syntax before anything else: pydicom would inflate all of a deflated file
        meta = file_meta(stream)
        if meta.get("TransferSyntaxUID") == DEFLATED:
            return parse_deflated(path, stream, meta, whole_file, only)
        stream.seek(0)
        stream.allow(MAX_HEADER)
        dataset = dcmread(stream, stop_before_pixels=True, specific_tags=tags(only))
        check_groups(dataset, stream)
        pixels = has_more(stream)
        if whole_file and pixels:
            add_pixels(dataset, stream)
        return dataset, pixels


def parse_deflated(
    path: Path,
    stream: BoundedFile,
    meta: FileMetaDataset,
    whole_file: bool,
    only: Sequence[int] | None,
) -> tuple[FileDataset, bool]:
    """`parse` from where the deflated data set starts (PS3.5 A.5)."""
    from pydicom import FileDataset
    from pydicom.filereader import read_dataset

    start = stream.tell()
    data, complete = inflate(stream, start, MAX_HEADER)
    body = BoundedFile(io.BytesIO(data), on_disk=stream.size)
    with plain_reasons(body):
        found = read_dataset(body, False, True, stop_when=at_pixels, specific_tags=tags(only))
        dataset = FileDataset(str(path), found, preamble(stream), meta, False, True)
        dataset.set_original_encoding(False, True, found.original_character_set)
        check_groups(dataset, body)
        at, pixels = body.tell(), has_more(body)
    if not complete and (whole_file or not pixels):
        limit = at + bound(dataset) if pixels else MAX_HEADER
        if pixels:
            data, complete = inflate(stream, start, limit)
        if not complete and len(data) < limit:
            raise ValueError("its deflated data set is cut short")
        if not complete:
            raise ValueError(f"inflates to more than the {limit:,} bytes that its header allows")
    if whole_file and pixels:
        body = BoundedFile(io.BytesIO(data), on_disk=stream.size)
        body.seek(at)
        with plain_reasons(body):
            add_pixels(dataset, body)
    return dataset, pixels


def check_groups(dataset: Dataset, stream: BoundedFile) -> None:
    """Raises ValueError for functional groups of more items than a file of its size may have.

    A sequence whose length is told comes in one read, and its items are made from memory.
    """
    mark = ITEM_TAGS[dataset.original_encoding[1] is False]
    stored = [dataset.get_item(keyword) for keyword in GROUPS if keyword in dataset]
    items = sum(raw.value.count(mark) for raw in stored if isinstance(raw.value, bytes))
    most = stream.reads // GROUP_ITEM_READS
    if items > most:
        raise ValueError(
            f"its functional groups hold {items:,} items; at most {most:,} are read of a file of "
            "its size; split it"
        )


def inflate(stream: BoundedFile, start: int, limit: int) -> tuple[bytes, bool]:
    """At most `limit` bytes of the raw deflate stream at `start`, and whether that is all of it."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    parts: list[bytes] = []
    size = 0
    stream.seek(start)
    stream.allow(stream.size)
    packed = stream.read(CHUNK)
    while packed and size < limit and not inflater.eof:
        parts.append(inflater.decompress(packed, limit - size))
        size += len(parts[-1])
        packed = inflater.unconsumed_tail or stream.read(CHUNK)
    return b"".join(parts), inflater.eof


def add_pixels(dataset: FileDataset, stream: BoundedFile) -> None:
    """Reads the pixels, at which `stream` stands, and what follows them into the data set."""
    from pydicom.filereader import read_dataset

    rest = stream.size - stream.tell()
    if rest > bound(dataset):
        raise ValueError(
            f"{rest:,} bytes follow a header that announces {announced(dataset):,} bytes of pixels"
        )
    stream.allow(3 * rest + CHUNK)  # the end of fragments is looked for before they are read
    implicit, little = dataset.original_encoding
    found = read_dataset(stream, bool(implicit), bool(little))
    if not PIXEL_TAGS & set(found.keys()):  # pydicom leaves out what has no end
        raise ValueError("its pixels are cut short")
    dataset.update(found)


def file_meta(stream: BoundedFile) -> FileMetaDataset:
    """The file meta information (PS3.10 7.1); the stream then stands at the data set."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.filereader import read_dataset

    stream.seek(128)
    if stream.read(4) != b"DICM":
        raise ValueError("not a DICOM file (no DICM mark at byte 128)")
    return FileMetaDataset(read_dataset(stream, False, True, stop_when=beyond_meta))


def preamble(stream: BoundedFile) -> bytes:
    stream.seek(0)
    return stream.read(128)


def beyond_meta(tag: int, vr: str | None, length: int) -> bool:
    return tag >> 16 != 2


def at_pixels(tag: int, vr: str | None, length: int) -> bool:
    return tag in PIXEL_TAGS


def has_more(stream: BoundedFile) -> bool:
    """Whether reading stopped at the pixels rather than at the end of the file."""
    return stream.tell() < stream.size


def tags(only: Sequence[int] | None) -> list[int] | None:
    return list(only) if only is not None else None


def announced(dataset: Dataset) -> int:
    """Bytes of pixels as the header has it; 0 where it says nothing. Raises ValueError."""
    rows, columns, frames = claims(dataset, lenient)  # a file that is no image must open as well
    depth = (lenient(dataset, "SamplesPerPixel") or 1) * (lenient(dataset, "BitsAllocated") or 0)
    return rows * columns * frames * min(max(depth, 0), 3 * 64) // 8


def bound(dataset: Dataset) -> int:
    """How many bytes may follow a header: compressed pixels can be longer than plain ones."""
    return 2 * announced(dataset) + SLACK


def lenient(dataset: Dataset, keyword: str) -> int | None:
    """One whole number; None where there is none that can be read."""
    try:
        return whole(dataset, keyword)
    except ValueError:
        return None


def claims(
    dataset: Dataset, read: Callable[[Dataset, str], int | None] = whole
) -> tuple[int, int, int]:
    """Rows, columns (0 where absent) and frames. Raises ValueError for more than anyone scans."""
    rows, columns = (read(dataset, name) or 0 for name in ("Rows", "Columns"))
    frames = read(dataset, "NumberOfFrames") or 1  # some write 0 for one
    if not 0 < frames <= MAX_FRAMES:
        raise ValueError(f"claims {frames:,} frames; at most {MAX_FRAMES:,} are read")
    if rows * columns > MAX_PIXELS:
        raise ValueError(f"claims {columns}x{rows} pixels; at most {MAX_PIXELS:,} are read")
    if rows * columns * frames > MAX_VOXELS:
        raise ValueError(
            f"claims {frames} frames of {columns}x{rows} pixels; at most {MAX_VOXELS:,} voxels "
            "are read"
        )
    return rows, columns, frames


@contextmanager
def plain_reasons(stream: BoundedFile | None = None) -> Iterator[None]:
    """Turns whatever pydicom and its decoders raise into a ValueError of one line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd values in elements that are not used
        try:
            yield
        except (MemoryError, MissingDependency):
            raise
        except ValueError as error:
            reason = stream.exceeded if stream is not None else ""
            raise ValueError(reason or " ".join(str(error).split())[:300]) from error
        except RecursionError as error:
            raise ValueError("its sequences are nested too deep") from error
        except Exception as error:
            reason = stream.exceeded if stream is not None else ""
            said = f"broken DICOM ({type(error).__name__}: {brief(error)})"
            raise ValueError(reason or said) from error


def brief(error: Exception) -> str:
    """The fact at the head of pydicom's messages, without the guesses behind it."""
    fact = str(error).split("available plugins:")[-1].split(" - ")[0]
    return " ".join(fact.split())[:160]
