from cohort.axes.objective import binary
from cohort.recipes.capo_calibration import pairwise, plausible
from cohort.reductions.groups import token_mean

# No standard deviation anywhere.
IGNORE = ("eps_std", "std_ddof")


def _lpm(run):
    return token_mean(run.batch.old_logp, run.batch.mask)


def _correct(run):
    return binary(run.batch.rewards, None, run.slug)


def _keep(run):
    return plausible(run.batch, _correct(run), ref_high=run.config["ref_high"], ref_low=run.config["ref_low"])


OUTPUTS = {
    "lpm": _lpm,
    "ref_ppl": lambda run: (-token_mean(run.batch.ref_logp, run.batch.mask)).exp(),
    "keep": lambda run: _keep(run).double(),
    "pairwise": lambda run: pairwise(_lpm(run), _correct(run), run.batch.groups, tau=run.config["tau"]),
}


# Short answers are mostly ranked right from the start; at the default tau such pairs have next to no weight.
HYPER_TRAIN = "(tau=2.0)"
