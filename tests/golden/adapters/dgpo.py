from cohort.recipes.dgpo import question_weights, valid_groups

# The token mean over groups with non-zero variance: the method's own filter and aggregation.
IGNORE = ("aggregation",)

OUTPUTS = {
    "valid": lambda run: valid_groups(run.batch),
    "question_weights": lambda run: question_weights(run.batch, temperature=run.config["temperature"]),
}
