"""The time that test data hang on, read once for each process.

It lies an hour back, as if the run had begun an hour ago: whatever ends before a slow run ends fails at once.
"""

import time

NOW = time.time() - 3_600
