import torch

from cohort import registry
from cohort.axes.optimizer import decode, encode, quantised, restored
from cohort.recipes.spsa_one_byte import seed_of

# A byte of the paper's scale takes nine bits.
PAPER = {"scale": 16.0, "cap": 127}
ELSEWHERE = "projections on a direction tell little of a gradient; see tests/recipes/test_spsa_one_byte.py"


def KIND_optimizer(case):
    inputs, config = case["inputs"], case["config"]
    if "iteration_sample_time" in inputs:
        return {"seed": [str(seed_of(*each)) for each in inputs["iteration_sample_time"]]}
    if "values" in inputs:
        found = [quantised(value, config["scale"], config["cap"]) for value in inputs["values"]]
        ends = [restored(1, power, config["scale"]) for power in (-config["cap"], config["cap"])]
        return {
            "sign": [sign for sign, _ in found],
            "power": [power for _, power in found],
            # As they arrive at another machine.
            "decoded": decode(encode(inputs["values"], config["scale"], config["cap"]), config["scale"], config["cap"]),
            "smallest": ends[0],
            "largest": ends[1],
        }
    return {"steps": two_iterations(case)}


def two_iterations(case):
    """The method's optimizer on one parameter, whose losses are quadratic, one a probe."""
    given = {name: torch.tensor(value, dtype=torch.float64) for name, value in case["inputs"].items()}
    machines, samples = case["config"]["machines"], case["config"]["samples"]
    theta, steps = torch.nn.Parameter(given["theta"]), []
    hyper = {"epsilon": case["config"]["epsilon"], "probes": samples, **PAPER}
    made = registry.method("spsa-one-byte", **hyper).stage("optimizer")([theta], case["config"]["lr"])
    for z in given["z"]:
        made.directions = lambda machine, sample, z=z: [(made.param_groups[0], theta, z[machine * samples + sample])]
        calls = []

        def loss(machine, calls=calls):
            k = machine * samples + len(calls) // 2 % samples
            calls.append(k)
            return float(0.5 * theta @ given["A"][k] @ theta - given["b"][k] @ theta)

        start = theta.detach().clone()
        found = [made.measure(lambda m=m: loss(m), m) for m in range(machines)]
        assert torch.equal(theta, start)
        codes = [encode(values, PAPER["scale"], PAPER["cap"]) for values in found]
        made.apply(codes, float("inf"))
        one_byte = theta.detach().clone()
        with torch.no_grad():
            theta.copy_(start)
        made.move(found)
        flat = [value for values in found for value in values]
        pairs = [quantised(value, **PAPER) for value in flat]
        steps.append(
            {
                "projected_grads": flat,
                "sign": [sign for sign, _ in pairs],
                "power": [power for _, power in pairs],
                "decoded": [value for each in codes for value in decode(each, PAPER["scale"], PAPER["cap"])],
                "theta_exact": theta.detach().clone(),
                "theta_one_byte": one_byte,
            }
        )
    return steps
