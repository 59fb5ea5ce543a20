"""The tissues of the phantom: their numbers in a tissue map, relaxation times and CT numbers."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class Tissue(IntEnum):
    """The value of a tissue in a tissue map; 0 to 4 are BrainWeb's own numbers."""

    AIR = 0
    CSF = 1
    GREY_MATTER = 2
    WHITE_MATTER = 3
    FAT = 4
    MUSCLE = 5
    SKIN = 6
    BONE = 7
    MARROW = 8
    DURA = 9
    DEEP_GREY = 10
    TUMOUR = 11
    NECROSIS = 12
    OEDEMA = 13


class Properties(NamedTuple):
    """What a tissue is made of, as far as a scanner sees it."""

    t1_ms: float  # longitudinal relaxation at 1.5 T
    t2_ms: float  # transverse relaxation at 1.5 T
    proton_density: float  # relative to water, 0 to 1
    hounsfield: float  # CT number; air is -1000, water 0


PROPERTIES: dict[Tissue, Properties] = {
    Tissue.AIR: Properties(1.0, 1.0, 0.0, -1000.0),
    Tissue.CSF: Properties(2569.0, 329.0, 1.0, 8.0),
    Tissue.GREY_MATTER: Properties(833.0, 83.0, 0.86, 38.0),
    Tissue.WHITE_MATTER: Properties(500.0, 70.0, 0.77, 28.0),
    Tissue.FAT: Properties(350.0, 70.0, 1.0, -90.0),
    Tissue.MUSCLE: Properties(900.0, 47.0, 1.0, 55.0),
    Tissue.SKIN: Properties(900.0, 47.0, 1.0, 45.0),
    Tissue.BONE: Properties(1.0, 1.0, 0.0, 1100.0),
    Tissue.MARROW: Properties(550.0, 50.0, 0.6, 450.0),
    Tissue.DURA: Properties(900.0, 20.0, 0.7, 60.0),
    Tissue.DEEP_GREY: Properties(750.0, 74.0, 0.83, 37.0),
    Tissue.TUMOUR: Properties(1150.0, 120.0, 0.92, 42.0),
    Tissue.NECROSIS: Properties(1900.0, 230.0, 0.97, 18.0),
    Tissue.OEDEMA: Properties(1050.0, 130.0, 0.88, 18.0),
}
"""Sources.

CSF, grey matter, white matter, fat, muscle and skin: the tissue parameters of the BrainWeb
simulated brain database at 1.5 T (Kwan, Evans, Pike, "MRI simulation-based evaluation of
image-processing and classification methods", IEEE Trans. Med. Imaging 18(11), 1999; Collins et
al., "Design and construction of a realistic digital brain phantom", IEEE Trans. Med. Imaging
17(3), 1998). Like BrainWeb, cortical bone and air give no signal.

No one table covers the rest. Marrow, dura, deep grey (between BrainWeb's grey and white, for its
iron shortens T2), tumour, necrosis and oedema are representative values chosen for this phantom:
both relaxation times of tumour and oedema lie above those of grey matter and below those of CSF,
as Bottomley et al., Med. Phys. 14(1), 1987, and Just and Thelen, Radiology 169(3), 1988, report;
individual tumours scatter widely about them.

CT numbers are textbook values for a head at 120 kV (soft tissue 20 to 60 HU, cortical bone above
1000 HU, fat about -90 HU).
"""
