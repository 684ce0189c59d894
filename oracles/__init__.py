"""Every preset that can be is held against its provider's own library: `make oracles`.

rows says which preset is asked against which library, and what its provider does beside the preset's first scheme ·
cases makes the requests · python and node ask the libraries · differences names every verdict that may differ, with its
reason. They run in environments of their own (docs/adr/0014): nothing here is part of the bridge.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

sys.path.append(str(ROOT / "tests"))  # the signer of the bridge's own tests (sources_kit) is one of the two that sign
