"""Run the command line as ``python -m adanat_cli``."""

from adanat_cli.cli import main

if __name__ == "__main__":
    main()
