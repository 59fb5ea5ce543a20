"""The technical tags that may leave a header: an allow-list, so that identity never enters.

Numbers, and words of DICOM's own short lists. No free text (protocol and sequence names,
descriptions, comments): sites write what they like there. No dates, makers, devices or places.
"""

from __future__ import annotations

from fastmrigan.imaging.dicom.elements import Frames, numbers, text


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


CODES = {  # words beyond these are left out: a site's own may say anything
    "Modality": words("CR CT DX MG MR NM OT PT RF SC US XA"),
    "ImageType": words(
        "ORIGINAL DERIVED MIXED PRIMARY SECONDARY OTHER AXIAL LOCALIZER MPR NONE VOLUME "
        "M P R I M_FFE M_SE M_IR P_FFE ND NORM DIS2D DIS3D ADC TRACEW FA DIFFUSION "
        "MAGNITUDE PHASE T1 T2 T2_STAR FLAIR STIR PROTON_DENSITY PERFUSION"
    ),
    "MRAcquisitionType": words("2D 3D"),
    "PatientPosition": words("HFS HFP HFDR HFDL FFS FFP FFDR FFDL"),
    "ScanningSequence": words("SE IR GR EP RM"),
    "SequenceVariant": words("SK MTC SS TRSS SP MP OSP NONE"),
}

NUMBERS = {  # the name here and in classic objects: (macro of enhanced ones, the name there)
    "MagneticFieldStrength": (None, ""),  # T
    "RepetitionTime": ("MRTimingAndRelatedParametersSequence", "RepetitionTime"),  # ms
    "EchoTime": ("MREchoSequence", "EffectiveEchoTime"),  # ms
    "InversionTime": ("MRModifierSequence", "InversionTimes"),  # ms
    "FlipAngle": ("MRTimingAndRelatedParametersSequence", "FlipAngle"),  # degrees
    "EchoTrainLength": ("MRTimingAndRelatedParametersSequence", "EchoTrainLength"),
    "NumberOfAverages": ("MRAveragesSequence", "NumberOfAverages"),
    "KVP": ("CTXRayDetailsSequence", "KVP"),  # kV
    "SliceThickness": ("PixelMeasuresSequence", "SliceThickness"),  # mm
    "SpacingBetweenSlices": ("PixelMeasuresSequence", "SpacingBetweenSlices"),  # mm
    "PixelSpacing": ("PixelMeasuresSequence", "PixelSpacing"),  # mm between rows \ columns
}


def technical_tags(frames: Frames) -> dict[str, str | float]:
    """The allowed tags of a data set, those of its first frame where frames differ.

    Numbers are floats; codes and the two pixel spacings are text, joined by \\ as in DICOM. What
    is absent, empty or not a number is left out.
    """
    found: dict[str, str | float] = {}
    for keyword, allowed in CODES.items():
        words = (text(frames.dataset, keyword) or "").split("\\")
        if known := [word for word in words if word in allowed]:
            found[keyword] = "\\".join(known)
    for keyword, (macro, enhanced) in NUMBERS.items():
        count = 2 if keyword == "PixelSpacing" else 1
        try:
            item = frames.item(0, macro) if macro else None
            if item is not None:
                got = numbers(item, enhanced, count)
            else:
                got = numbers(frames.dataset, keyword, count)
        except ValueError:
            continue
        if got is not None:
            found[keyword] = got[0] if count == 1 else "\\".join(f"{part:g}" for part in got)
    return found
