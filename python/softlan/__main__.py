"""`python -m softlan`, and the `softlan` command."""

from softlan.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main(prog_name="softlan")
