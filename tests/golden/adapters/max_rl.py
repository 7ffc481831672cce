# Groups whose mean reward is not positive have no advantage.
QUIET = True
TRAIN = {"lr": 1e-2}
