"""Programs on eight devices, whose number is fixed when JAX starts: a process of their own."""

import json
import os
import pathlib
import subprocess
import sys


def told_by(program: str) -> dict:
    """What `program` prints last, as JSON; it runs with the settings of the suite."""
    flags = os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=8"
    root = str(pathlib.Path(__file__).parent.parent)
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    settings = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=settings, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
