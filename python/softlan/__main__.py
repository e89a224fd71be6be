"""`python -m softlan`, and the `softlan` command."""

from typing import NoReturn

from softlan.cli import main as command
from softlan.program import run_program

__all__ = ["main"]


def main() -> NoReturn:
    """Run the `softlan` command."""
    run_program(command, prog_name="softlan")


if __name__ == "__main__":
    main()
