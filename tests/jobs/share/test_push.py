"""What a push loads; what it sends is tested with the Hub."""

from __future__ import annotations

import subprocess
import sys


def test_a_push_loads_no_training() -> None:
    code = (
        "import sys, adanat_cli.jobs.share.push\n"
        "sys.exit([name for name in sys.modules if name.startswith(('adanat_cli.jobs.train', 'adanat_cli.core.ppo'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]"
