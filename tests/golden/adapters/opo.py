from cohort.recipes.opo import baseline

OUTPUTS = {"baseline": lambda run: baseline(run.batch)}
IGNORE = ("surrogate", "aggregation")
