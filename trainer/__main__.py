"""python -m trainer …, also under torchrun."""

import sys

from trainer.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
