"""`python -m cohort` is the command `cohort`; so is `torchrun ... -m cohort`."""

from cohort.cli.app import main

if __name__ == "__main__":
    main()
