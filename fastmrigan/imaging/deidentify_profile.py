"""What becomes of each element of a data set: PS3.15 table E.1-1 and a small policy on top.

dicom-anonymizer brings the table (its 2026c database) and the dummy value for each VR. It looks at
the outermost elements alone, so the walk through sequences is here. Where this policy says
otherwise than dicom-anonymizer:

- UIDs and patient IDs become keyed hashes of what they were: equal in all files of a run, and over
  runs with the same salt. There they are random, and every patient is "ANONYMIZED".
- What is to be removed is removed, dates too. A date that is replaced becomes 1 January 1900: valid
  everywhere, where year 1 is before the first date that many databases hold.
- Within a sequence to be replaced, code strings and class UIDs stay: they say what kind of item it
  is, and "ANONYMIZED" is none of the terms that the standard allows there.
- References to images keep their items, with hashed UIDs and the classes as they were.
- What is empty stays empty.
- An overlay or curve goes with its whole group; without the data the rest is invalid.
- What the table does not know is looked at by VR: person names, dates and free text are replaced,
  addresses (UR) removed, UIDs that name no class hashed; codes keep theirs. Private elements and
  those in no dictionary are removed.
"""

from __future__ import annotations

import hashlib
import hmac
import uuid
from enum import Enum
from typing import TYPE_CHECKING, Any

from fastmrigan import __version__
from fastmrigan.errors import MissingDependency

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.tag import BaseTag

TABLE = "dicomfields_2026c"

PATIENT_NAME, PATIENT_ID = 0x0010_0010, 0x0010_0020
CURVES, OVERLAYS = 0x50, 0x60  # the upper half of their groups

DATES = {"DA": "19000101", "TM": "000000", "DT": "19000101000000"}
INTEGERS = frozenset(("IS", "SL", "SS", "SV", "UL", "US", "UV"))  # often numbers from 1 on
REALS = frozenset(("DS", "FD", "FL"))
FREE_TEXT = frozenset(("LT", "ST", "UC", "UT"))
TEXT = frozenset(("AE", "AS", "CS", "DS", "IS", "LO", "LT", "SH", "ST", "UC", "UR", "UT"))
BULK = frozenset(("AT", "OB or OW", "OD", "OF", "OL", "OV", "OW", "US or SS", "US or OW"))
STANDARD_ROOT = "1.2.840.10008."  # of the UIDs that the standard itself gives out
CLASSES = ("ClassUID", "SyntaxUID")
TERMS = ("CodingSchemeUID", "ContextUID", "MappingResourceUID")
CODES = range(0x0008_0100, 0x0008_0124)  # a code and its scheme: text that means something

# Where the table leaves a choice that is wrong here, and names and numbers that it forgets.
OURS = {
    0x0008_1110: "delete",  # ReferencedStudySequence, X/Z: without items it is invalid
    0x0010_0033: "delete",  # PatientBirthDateInAlternativeCalendar
    0x0010_0034: "delete",  # PatientDeathDateInAlternativeCalendar
    0x0010_2295: "delete",  # BreedRegistrationNumber
    0x0018_1803: "delete",  # NTPSourceAddress
    0x0040_1006: "delete",  # PlacerOrderNumberProcedure
    0x0040_1007: "delete",  # FillerOrderNumberProcedure
    0x0040_2006: "delete",  # PlacerOrderNumberImagingServiceRequestRetired
    0x0040_2007: "delete",  # FillerOrderNumberImagingServiceRequestRetired
    0x0074_100C: "delete",  # ContactDisplayName
    0x0400_0500: "delete",  # EncryptedAttributesSequence: the identity for whoever has the key
    0x2100_0160: "delete",  # OwnerID
    0x4010_101A: "delete",  # BoardingPassID
    0x4010_1051: "delete",  # ItineraryID
}


class Action(Enum):
    """What to do with an element; the table's own letters behind it."""

    REMOVE = "X"
    EMPTY = "Z, X/Z"
    REPLACE = "D, Z/D, X/D, X/Z/D"
    HASH = "U"
    DESCEND = "X/Z/U*, and every sequence that the table does not name"
    KEEP = "not in the table"


# dicom-anonymizer's functions by name. Of several letters it takes the one that conforms always.
ACTIONS = {
    "delete": Action.REMOVE,
    "empty": Action.EMPTY,
    "delete_or_empty": Action.EMPTY,
    "replace": Action.REPLACE,
    "empty_or_replace": Action.REPLACE,
    "delete_or_replace": Action.REPLACE,
    "delete_or_empty_or_replace": Action.REPLACE,
    "replace_UID": Action.HASH,
    "delete_or_empty_or_replace_UID": Action.DESCEND,
}


class Profile:
    """The Basic Application Level Confidentiality Profile (PS3.15 annex E) under one salt.

    Raises MissingDependency where dicom-anonymizer is not installed.
    """

    def __init__(self, salt: bytes) -> None:
        try:
            from dicomanonymizer import simpledicomanonymizer as library
        except ModuleNotFoundError as error:
            raise MissingDependency("dicom-anonymizer", "dicom", "de-identification") from error
        self._salt = salt
        self._library = library
        rules = library.initialize_actions(TABLE)
        # Rules of four numbers are those of curves and overlays, which go as whole groups.
        self._actions = {
            tag[0] << 16 | tag[1]: ACTIONS[rule.__name__]
            for tag, rule in rules.items()
            if len(tag) == 2
        }
        self._actions.update({tag: ACTIONS[name] for tag, name in OURS.items()})

    def uid(self, old: str) -> str:
        """The UID that stands for `old` under this salt, in the root 2.25 (PS3.5 annex B.2)."""
        return f"2.25.{uuid.UUID(bytes=self._hash('uid', old)[:16], version=4).int}"

    def pseudonym(self, patient: str) -> str:
        """What a patient ID becomes under this salt."""
        return f"ANON-{self._hash('patient', patient).hex()[:16]}"

    def _hash(self, purpose: str, text: str) -> bytes:
        message = f"{purpose}\0{text.strip()}".encode("utf-8", "surrogateescape")
        return hmac.digest(self._salt, message, hashlib.sha256)

    def apply(self, dataset: Dataset, *, scrub: bool = False) -> None:
        """De-identifies a data set in place, at every depth, but for its file meta information.

        scrub: it is an item of a sequence to be replaced, so nothing of its values may stay.
        Raises ValueError for a sequence that cannot be looked into, and for text that is none.
        """
        from pydicom import DataElement

        name = self._patient_name(dataset)
        for tag in list(dataset.keys()):
            vr = "" if foreign(tag) else vr_of(dataset, tag)
            action = Action.REMOVE if not vr else self._action(tag, vr, scrub=scrub)
            if action is Action.REMOVE or (scrub and vr in BULK):
                del dataset[tag]
            elif action is Action.KEEP:
                check_text(dataset, tag, vr)
            elif is_empty(dataset, tag):
                continue
            elif vr == "SQ":
                self._sequence(dataset, tag, action, scrub=scrub)
            elif action is Action.HASH or vr == "UI":
                self._hash_uids(dataset, tag, CLASSES if scrub else CLASSES + TERMS)
            else:
                element = DataElement(tag, vr, None)
                if tag == PATIENT_NAME:
                    element.value = name
                elif tag == PATIENT_ID:
                    element.value = self.pseudonym(str(dataset[tag].value))
                elif vr in DATES:
                    element.value = DATES[vr]
                elif action is Action.EMPTY:
                    self._library.empty_element(element)
                elif vr in INTEGERS | REALS:
                    element.value = [int(vr in INTEGERS)] * dataset[tag].VM
                else:
                    self._library.replace_element(element)
                dataset[tag] = element

    def _action(self, tag: BaseTag, vr: str, *, scrub: bool) -> Action:
        listed = self._actions.get(int(tag))
        if listed is not None:
            return listed
        if vr == "SQ":
            return Action.DESCEND
        if vr == "UI":
            return Action.HASH
        if vr == "PN" or vr in DATES or (scrub and vr != "CS"):
            return Action.REPLACE
        if int(tag) in CODES:
            return Action.KEEP
        if vr == "UR":
            return Action.REMOVE
        return Action.REPLACE if vr in FREE_TEXT else Action.KEEP

    def _patient_name(self, dataset: Dataset) -> str:
        patient = str(dataset.get("PatientID") or "")
        return self.pseudonym(patient) if patient else ""

    def _hash_uids(self, dataset: Dataset, tag: BaseTag, kept: tuple[str, ...]) -> None:
        """Listed UIDs are hashed whatever they are, others unless they name something `kept`."""
        value = dataset[tag].value
        old = [value] if isinstance(value, str) else list(value)
        if int(tag) not in self._actions:
            if dataset[tag].keyword.endswith(kept):
                return
            new = [u if u.startswith(STANDARD_ROOT) else self.uid(u) for u in old]
        else:
            new = [self.uid(u) for u in old]
        dataset[tag].value = new if len(new) > 1 else new[0]

    def _sequence(self, dataset: Dataset, tag: BaseTag, action: Action, *, scrub: bool) -> None:
        from pydicom.sequence import Sequence

        element = dataset[tag]
        if element.VR != "SQ":
            raise ValueError(
                f"the sequence {tag} is stored as {element.VR}: nobody can look into it"
            )
        if action is Action.EMPTY:
            element.value = Sequence()
            return
        held = any(len(item) for item in element.value)
        for item in element.value:
            self.apply(item, scrub=scrub or action is Action.REPLACE)
        if held and not any(len(item) for item in element.value):
            del dataset[tag]  # empty items are valid nowhere

    def stamp(self, dataset: Dataset) -> None:
        """Says on the outermost data set what was done (PS3.3 C.7.1.1, PS3.15 E.1.1)."""
        from pydicom import Dataset as NewDataset

        code = NewDataset()
        code.CodeValue = "113100"
        code.CodingSchemeDesignator = "DCM"
        code.CodeMeaning = "Basic Application Confidentiality Profile"
        dataset.PatientIdentityRemoved = "YES"
        dataset.DeidentificationMethod = [
            f"FastMRIGAN {__version__}",
            "PS3.15 table E.1-1 (2026c)",
        ]
        dataset.DeidentificationMethodCodeSequence = [code]
        dataset.LongitudinalTemporalInformationModified = "REMOVED"


def foreign(tag: BaseTag) -> bool:
    """True for what has no place in a de-identified data set, whatever its value."""
    from pydicom.datadict import get_entry

    if tag.is_private or tag.group in (0x0000, 0x0002) or tag.element == 0:
        return True  # group lengths are wrong once anything has changed
    if tag.group >> 8 in (CURVES, OVERLAYS):
        return True
    try:
        get_entry(tag)
    except KeyError:
        return True
    return False


def vr_of(dataset: Dataset, tag: BaseTag) -> str:
    """SQ where the file or the dictionary says so, else the dictionary's VR; values stay unread."""
    from pydicom.datadict import dictionary_VR

    return "SQ" if dataset.get_item(tag).VR == "SQ" else dictionary_VR(tag)


def check_text(dataset: Dataset, tag: BaseTag, vr: str) -> None:
    """Raises ValueError for text with NUL in it: a wrong length has swallowed other elements."""
    item: Any = dataset.get_item(tag)
    if item.is_raw and vr in TEXT and item.value and b"\0" in item.value.rstrip(b"\0 "):
        raise ValueError(f"broken DICOM ({tag} holds bytes that are no text)")


def is_empty(dataset: Dataset, tag: BaseTag) -> bool:
    """True where there is no value, in a raw element as in one that was read."""
    item: Any = dataset.get_item(tag)
    return not item.value if item.is_raw else bool(item.is_empty)
