from cohort.recipes.reinforce_pp import returns

# How the KL enters follows from the variant.
IGNORE = ("kl", "aggregation")
HYPER = {"kl_beta": 0.0}
OUTPUTS = {"returns": lambda run: returns(run.batch, beta=run.config["beta"], gamma=run.config["gamma"])}
