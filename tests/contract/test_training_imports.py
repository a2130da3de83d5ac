"""`hansa_client.training` stands alone: it can be benched on a GPU machine that has no Flower."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
for name in ("flwr", "ray", "grpc"):
    sys.modules[name] = None  # importing it raises ImportError
import hansa_client.training, hansa_client.training.gradients, hansa_client.training.microbatch
import hansa.privacy.randomness
print("imported")
"""


def test_training_imports_without_flower() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "imported\n"
