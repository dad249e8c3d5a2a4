"""What every test may count on: no display, and none of the variables by which a surrounding run would change what is tested."""
import os

import matplotlib

matplotlib.use("Agg")
for name in ("IN_TEST", "NAS_NB_BATCH", "NAS_NB_STATUS", "NAS_NB_DEADLINE", "NAS_NB_FORCE", "NAS_NB_CHECKPOINT_SECONDS"):
    os.environ.pop(name, None)
