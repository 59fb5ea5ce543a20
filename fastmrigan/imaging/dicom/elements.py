"""Values of a data set, read defensively, and those that hold for one frame of an enhanced one."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.tag import BaseTag

MAX_VALUE = 1 << 16  # bytes; what is read one value at a time is far shorter


def value(dataset: Dataset, keyword: str) -> Any:
    """A value, or None where it is absent or empty. Raises ValueError where it cannot be read."""
    tag = tag_of(keyword)
    if tag not in dataset:
        return None
    stored = dataset.get_item(tag).value  # bytes, unless it has been converted before
    if isinstance(stored, bytes) and len(stored) > MAX_VALUE:  # all of it would be converted
        raise ValueError(f"its {keyword} takes {len(stored):,} bytes")
    try:
        found = dataset[tag].value
    except Exception as error:
        raise ValueError(f"its {keyword} cannot be read") from error
    return None if found is None or found == "" or found == b"" else found


def text(dataset: Dataset, keyword: str) -> str | None:
    """A value as text, several joined by DICOM's own backslash; None where there is none."""
    try:
        found = value(dataset, keyword)
    except ValueError:
        return None
    if found is None:
        return None
    several = not isinstance(found, str | bytes) and hasattr(found, "__iter__")
    return "\\".join(map(str, found)) if several else str(found)


def numbers(dataset: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """Exactly `count` finite numbers; None where there is no value. Raises ValueError otherwise."""
    found: Any = plain_decimals(dataset, keyword, count) or value(dataset, keyword)
    if found is None:
        return None
    try:
        several = not isinstance(found, str | bytes) and hasattr(found, "__iter__")
        got = tuple(float(number) for number in (found if several else [found]))
    except (TypeError, ValueError) as error:
        raise ValueError(f"its {keyword} is not a number") from error
    if len(got) != count or not all(map(math.isfinite, got)):
        raise ValueError(f"its {keyword} holds {len(got)} values; expected {count} finite ones")
    return got


def plain_decimals(dataset: Dataset, keyword: str, count: int) -> list[float] | None:
    """Decimal strings (DS) straight from the file; None for all else, which pydicom converts.

    pydicom takes longer, since it keeps and checks how each was written.
    """
    stored = dataset.get_item(tag_of(keyword))
    if stored is None or stored.VR != "DS" or not isinstance(stored.value, bytes):
        return None
    if len(stored.value) > MAX_VALUE:  # `value` refuses it
        return None
    parts = stored.value.split(b"\\", count)
    try:
        return [float(part) for part in parts] if len(parts) == count else None
    except ValueError:
        return None


def number(dataset: Dataset, keyword: str) -> float | None:
    """One finite number; None where there is no value. Raises ValueError otherwise."""
    found = numbers(dataset, keyword, 1)
    return found[0] if found is not None else None


def whole(dataset: Dataset, keyword: str) -> int | None:
    """One whole number; None where there is no value. Raises ValueError otherwise."""
    found = number(dataset, keyword)
    return int(found) if found is not None else None


class Frames:
    """The functional groups of an enhanced object (PS3.3 C.7.6.16); empty for a classic one.

    What all frames share is looked at once: there may be thousands.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        shared = sequence(dataset, "SharedFunctionalGroupsSequence")
        self.shared = shared[0] if shared else None
        self.own = sequence(dataset, "PerFrameFunctionalGroupsSequence")
        self._shared_items: dict[str, Dataset | None] = {}  # by macro
        self._shared_numbers: dict[tuple[str, str], tuple[float, ...] | None] = {}

    def groups(self, frame: int) -> list[Dataset]:
        """What holds for a frame, the nearest first: its own group, then the shared one."""
        own = [self.own[frame]] if frame < len(self.own) else []
        return own + ([self.shared] if self.shared is not None else [])

    def own_item(self, frame: int, macro: str) -> Dataset | None:
        """The macro's item in a frame's own group, or None."""
        items = sequence(self.own[frame], macro) if frame < len(self.own) else []
        return items[0] if items else None

    def shared_item(self, macro: str) -> Dataset | None:
        """The macro's item in the group that all frames share, or None."""
        if macro not in self._shared_items:
            items = sequence(self.shared, macro) if self.shared is not None else []
            self._shared_items[macro] = items[0] if items else None
        return self._shared_items[macro]

    def item(self, frame: int, macro: str) -> Dataset | None:
        """The macro's item for a frame, or None."""
        own = self.own_item(frame, macro)
        return own if own is not None else self.shared_item(macro)

    def holder(self, frame: int, macro: str) -> Dataset:
        """Where a frame's attributes of a macro stand: its item, else the data set itself."""
        item = self.item(frame, macro)
        return self.dataset if item is None else item

    def numbers(self, frame: int, macro: str, keyword: str, count: int) -> tuple[float, ...] | None:
        """`numbers` of a frame's holder of a macro."""
        own = self.own_item(frame, macro)
        if own is not None:
            return numbers(own, keyword, count)
        key = macro, keyword
        if key not in self._shared_numbers:
            item = self.shared_item(macro)
            found = numbers(self.dataset if item is None else item, keyword, count)
            self._shared_numbers[key] = found
        return self._shared_numbers[key]


def sequence(dataset: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence; none where it is absent. Raises ValueError where it is broken."""
    tag = tag_of(keyword)
    if tag not in dataset:
        return []
    try:
        found = dataset[tag].value
        return list(found) if found else []
    except RecursionError:
        raise
    except Exception as error:
        raise ValueError(f"its {keyword} cannot be read") from error


@cache
def tag_of(keyword: str) -> BaseTag:
    """A keyword's tag: pydicom looks a name up three times for each value."""
    from pydicom.tag import Tag

    return Tag(keyword)
