"""A fuzz target over the reader: any file is read or refused, and nothing else happens.

    python tests/fuzz/fuzz_reader.py [--corpus FOLDER] [libFuzzer's options]

The first byte chooses the file's extension, the rest is its content. Without a corpus the seeds are
made anew: phantom slices of every format and the hand-made files of tests/hostile. A crash, an
exception other than a refusal, more than 1 GiB or 10 s of one input end the run, with the input in
the current folder. `-max_total_time=60` ends it in good order.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["fastmrigan.imaging", "pydicom"]):
    import pydicom  # here: else the first DICOM file imports it without instruments
    import pydicom.encaps
    import pydicom.pixels  # noqa: F401

    from fastmrigan.errors import MissingDependency
    from fastmrigan.imaging import dicom, nifti  # noqa: F401
    from fastmrigan.imaging.readers import read
    from fastmrigan.imaging.walker import Refused

KINDS = (".dcm", ".png", ".jpg", ".tif", ".nii", ".nii.gz", "")
LIMITS = ("-rss_limit_mb=1536", "-timeout=10", "-max_len=16384")
SCRATCH = Path(tempfile.mkdtemp(prefix="fastmrigan-fuzz-"))


def one_input(data: bytes) -> None:
    """Reads `data` as a file."""
    name = f"input{KINDS[data[0] % len(KINDS)] if data else ''}"
    path = SCRATCH / name
    path.write_bytes(data[1:])
    try:
        slices = read(path, name).slices
    except (Refused, MissingDependency):
        return
    assert slices.ndim == 3
    assert slices.dtype.name == "float32"


def main() -> None:
    arguments = sys.argv[1:]
    if "--corpus" in arguments:
        at = arguments.index("--corpus")
        corpus = Path(arguments[at + 1])
        del arguments[at : at + 2]
        corpus.mkdir(parents=True, exist_ok=True)
    else:
        corpus = SCRATCH / "corpus"
        corpus.mkdir()
    if not any(corpus.iterdir()):
        sys.path.insert(0, str(Path(__file__).parent))
        from seeds import write_seeds

        write_seeds(corpus, KINDS)
    atheris.Setup([sys.argv[0], *LIMITS, *arguments, str(corpus)], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
