"""Time `import aspire_guard` against importing langchain-core's runnables and messages, in pairs.

Run: `python benchmarks/import_time.py`. Prints the ratio pair by pair as min / median / max. It may be at most 1.5.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

OURS = "import aspire_guard"
GUARD = "from aspire_guard import AspireGuard"
REFERENCE = "from langchain_core.runnables import RunnableSerializable; from langchain_core.messages import AIMessage"
_PAIRS = 15


def time_statement(statement: str) -> float:
    """Return the wall-clock seconds of a fresh interpreter that runs `statement`."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - start


def main() -> None:
    """Print the ratios of the package and of the guard class to the reference."""
    # The first import of each module compiles it.
    for statement in (OURS, GUARD, REFERENCE):
        time_statement(statement)
    for statement in (OURS, GUARD):
        ratios = [time_statement(statement) / time_statement(REFERENCE) for _ in range(_PAIRS)]
        spread = f"{min(ratios):.2f} / {statistics.median(ratios):.2f} / {max(ratios):.2f}"
        print(f"{statement}: {spread} of langchain-core")


if __name__ == "__main__":
    main()
