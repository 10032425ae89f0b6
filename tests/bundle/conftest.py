"""The maker of small screening bundles is shared with the tests of exams."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "exams"))
