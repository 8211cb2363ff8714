"""Every benchmark, one after another, each in a process of its own: ``make bench``."""

import subprocess
import sys

from benchmarks import results

BENCHMARKS = (
    "user_cost", "driver_memory", "refresh", "asof", "training_set", "conformance", "kv", "plan", "worker",
    "online_hits", "push", "commands", "marginal", "int8", "demo_speed", "peers",
)  # fmt: skip


def main() -> int:
    """Results and the pages that show them are fresh; 1 when a benchmark failed."""
    failed = []
    for name in BENCHMARKS:
        print(f"--- {name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}; their earlier results were kept", file=sys.stderr)
        return 1
    return results.main([])


if __name__ == "__main__":
    sys.exit(main())
