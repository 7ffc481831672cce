from cohort.recipes.llds import displacement, penalised

RENAME = {"lambda": "coef"}


def _hyper(run, *names):
    given = run.method.regularizer[0].all_hyper
    return {name: given[name] for name in names}


OUTPUTS = {
    "penalty": lambda run: displacement(run.trained, **_hyper(run, "gate", "answer_weight", "denominator")),
    "penalised": lambda run: penalised(run.trained, **_hyper(run, "gate", "answer_weight"))[0],
}

# On the first update the likelihood has not moved yet.
TRAIN = {"epochs": 2, "steps": 20}
