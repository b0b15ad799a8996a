"""Time `import aspire_guard` against importing langchain-core's runnables and messages, in pairs.

Run: `python benchmarks/import_time.py`. Prints the ratio pair by pair as min / median / max; 1.5 is the most we allow.
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


def seconds(statement: str) -> float:
    """Wall-clock seconds of a fresh interpreter that runs `statement`."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - began


def main() -> None:
    """Print the ratios of the package and of the guard class to the reference."""
    for statement in (OURS, GUARD, REFERENCE):
        seconds(statement)
    for statement in (OURS, GUARD):
        ratios = sorted(seconds(statement) / seconds(REFERENCE) for _ in range(_PAIRS))
        print(
            f"{statement}: {ratios[0]:.2f} / {statistics.median(ratios):.2f} / {ratios[-1]:.2f} of langchain-core"
        )


if __name__ == "__main__":
    main()
