"""Run ``python -m torchrl``, the same as the console script ``torchrl``."""

from torchrl.commands.main import main

if __name__ == "__main__":
    main()
