"""Runs the command line: `python -m trainer …`, also under torchrun."""

import os
import sys

# Torch's threads spin while they wait for each other, which makes the small steps of these networks many times slower
# on a machine with anything else to do. Torch reads this once, when it is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from trainer.cli.progress import saying
from trainer.environment import OF_THE_HUB, check_numbers, name_user
from trainer.errors import UserError

try:
    check_numbers(OF_THE_HUB)
except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
name_user()

with saying("Loading PyTorch"):
    from trainer.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
