"""The command `cohort`: a file a command, and what they share."""

from cohort.cli.app import app as app
from cohort.cli.app import main as main
