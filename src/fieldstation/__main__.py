"""`python -m fieldstation` is the `fieldstation` command."""

from fieldstation.cli.main import main

if __name__ == "__main__":
    main()
