"""FastMRIGAN: synthetic brain-MRI slices, from training to bulk generation.

For research; not for diagnosis.

Importing this package, `fastmrigan.imaging` or `fastmrigan.runtime` never imports torch.
"""

from importlib.metadata import version

__version__ = version("fastmrigan")

NOTICE = "for research; not for diagnosis"
