"""``python -m hilbound``: the command line, as ``torchrun -m hilbound`` starts it."""

from hilbound.cli import main

if __name__ == "__main__":
    main()
