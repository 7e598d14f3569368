"""`python -m qstudy` is the command `qstudy`."""

from qstudy.cli import main

if __name__ == "__main__":
    main()
