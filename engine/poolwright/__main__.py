"""``python -m poolwright``."""

from .cli import main

main()
