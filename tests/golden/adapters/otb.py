import torch

from cohort.recipes.otb import baseline, energy, returns_of


def _hyper(run):
    return run.method.advantage.all_hyper


def _energy(run):
    return energy(run.batch, weight_high=_hyper(run)["weight_high"])


def _baseline(run):
    how = {name: _hyper(run)[name] for name in ("eps", "zero_tail")}
    return baseline(run.batch, returns_of(run.batch), _energy(run), **how)


OUTPUTS = {"energy": _energy, "baseline": _baseline, "token_advantages": lambda run: run.assigned.advantages}


def random_fields(batch, generator):
    return batch.with_tokens(sum_pi_squared=torch.rand(batch.mask.shape, generator=generator, dtype=torch.float64) ** 2)
