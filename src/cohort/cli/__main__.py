"""`python -m cohort.cli` is the command `cohort`."""

from cohort.cli.app import main

if __name__ == "__main__":
    main()
