from cohort.axes.ratio import sequence_product

HYPER = {"kl_beta": 0.0}
# k1 is the only estimate the method uses in the reward; the aggregation follows from the form.
IGNORE = ("kl", "aggregation")
OUTPUTS = {"shaped_rewards": lambda run: run.shaped.rewards, "ratio": lambda run: sequence_product(run.trained)[:, 0]}
