import torch

from cohort import registry
from tests.golden.runner import make_batch


def KIND_filter(case):
    assert case["config"]["strategy"] == "all_correct"
    batch, _ = make_batch(case["inputs"])
    right = (batch.rewards >= case["config"]["r_max"]).double()
    batch = batch.replace(accuracy=right)
    kept = registry.method("ngrpo").bind().keep(batch)
    return {"keep_group": torch.isin(torch.arange(batch.groups.count), batch.groups.index[kept])}
