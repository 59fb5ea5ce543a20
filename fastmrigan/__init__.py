"""FastMRIGAN: synthetic brain-MRI slices, from training to bulk generation.

For research; not for diagnosis.

Importing this package, `fastmrigan.imaging` or `fastmrigan.runtime` never imports torch.
"""

__version__ = "0.1.0"

NOTICE = "for research; not for diagnosis"
