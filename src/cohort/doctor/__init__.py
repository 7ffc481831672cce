"""The doctor: names what is wrong with a run, or with data before it, from what is stored.

Every diagnosis is a pure function in a file of its own, in `run/` or `data/`; `diagnoses` finds them, `examine` makes all of
a run's, `Watch` those that need no more than metrics while the run goes on.
"""

from cohort.doctor.examine import Report, examine
from cohort.doctor.finding import Diagnosis, Evidence, Finding, Missing, Seen, Try, diagnoses, diagnosis
from cohort.doctor.record import Record, Rollouts, Series

__all__ = [
    "Diagnosis",
    "Evidence",
    "Finding",
    "Missing",
    "Record",
    "Report",
    "Rollouts",
    "Seen",
    "Series",
    "Try",
    "diagnoses",
    "diagnosis",
    "examine",
]
