"""Makes the makers of hostile files importable, here and in the workers of a decode pool."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
