"""``python -m consumer`` is ``evalsink``."""

from consumer.cli import main

if __name__ == "__main__":
    main()
