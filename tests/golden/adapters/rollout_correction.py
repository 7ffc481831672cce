import torch

from cohort.axes import correction
from cohort.axes.filter import fresh_groups, staleness
from cohort.types import Batch, StepInfo
from tests.golden.runner import make_batch, tensor

RENAME = {"weight_low": "low", "weight_high": "high"}
OUTPUTS = {
    "weights": lambda run: run.method.correction[0](run.trained),
    "keep": lambda run: (run.method.bind().correct(run.trained)[0].loss_mask).double(),
}


def KIND_ratio(case):
    batch, _ = make_batch(case["inputs"])
    out = []
    for settings in case["config"]["settings"]:
        settings = dict(settings)
        normalize = settings.pop("batch_normalize")
        fn = correction.normalized_importance_weight if normalize else correction.importance_weight
        out.append(fn(batch, **settings))
    return {"weights": out}


def _rejection(case):
    batch, _ = make_batch(case["inputs"])
    return {"keep": [correction.reject(batch, criteria=criteria).double() for criteria in case["config"]["criteria"]]}


def KIND_filter(case):
    if "criteria" in case["config"]:
        return _rejection(case)
    versions = [[int(v) for v in row] for row in case["inputs"]["token_versions"]]
    width = max(map(len, versions))
    mask = torch.tensor([[k < len(row) for k in range(width)] for row in versions])
    version = torch.tensor([row + [0] * (width - len(row)) for row in versions])
    group = tensor(case["inputs"]["group"])
    batch = Batch(mask=mask, tokens={"version": version}, rollouts={"group": group})
    now, bound = case["config"]["current_version"], case["config"]["max_staleness"]
    stale = staleness(batch, version=now)
    return {
        "staleness": stale,
        "keep_rollout": (stale <= bound).double(),
        "keep_group": fresh_groups(batch, max_staleness=bound, info=StepInfo(version=now)).double(),
    }
