"""The embedded example with tools: a small model that cannot multiply, and a calculator that can.

The warm start shows it calls of the calculator, right ones, wrong ones and broken ones, and more often that it gives up.
So it gives up first, and can do better: that is what is left to reinforcement.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Mapping
from typing import Any

from cohort.data.prompts import PromptSpec, load_prompts
from cohort.environments import calculator
from cohort.environments.tools import ToolEnvironment, schemas
from cohort.policies import toy as model
from cohort.policies.causal_lm import CausalLM
from cohort.training.sft import Pair, completion_tokens

TEMPLATE = "{metadata[expression]} ="
_TASK = "reasoning_gym:products?min_terms=2&max_terms=2&min_digits=2&max_digits=2"
# Seeds far apart: the generator makes task i of seed s from the number s + i.
TRAIN = f"{_TASK}&size=2000&seed=1"
TEST = f"{_TASK}&size=220&seed=50000000"
DEMONSTRATIONS = f"{_TASK}&size=6000&seed=100000000"
WARM_START: dict[str, Any] = {"steps": 400, "batch_size": 64, "lr": 3e-3, "warmup": 20, "weight_decay": 0.01, "seed": 0}
# Shares of demonstrations: that give up; of the others, that call the wrong function, or break the call.
GIVES_UP, WRONG, BROKEN = 0.55, 0.25, 0.1

FUNCTIONS = (calculator.mul, calculator.add)
DEFAULTS: dict[str, Any] = {
    "data": TRAIN,
    "eval_data": TEST,
    "eval_size": 100,
    "reward": ["task"],
    "template": TEMPLATE,
    "tools": [f"{calculator.__file__}:mul,add"],
    "max_tool_calling_iterations": 2,
    "steps": 30,
    "prompts_per_step": 16,
    "group_size": 8,
    "max_new_tokens": 160,
    "lr": 1e-4,
}
# It names the tools, in one order, as a template of a model with tools does; a call is written in the plain format.
CHAT_TEMPLATE = (
    "{% if tools %}<|system|>{% for tool in tools | sort(attribute='function.name', reverse=true) %}"
    "{{ tool['function']['name'] }} {% endfor %}{% endif %}"
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}{# writes <call> #}"
)


def untrained() -> CausalLM:
    """The model before the warm start."""
    made = model.toy(seed=0)
    words = model.tokenizer()
    words.chat_template = CHAT_TEMPLATE
    return CausalLM(made.model, words, name="toy-tools")


def demonstration(row: Mapping[str, Any], rng: random.Random) -> tuple[str, str]:
    """What the warm start imitates: a first turn, and what is said behind the call in it; "" where it calls nothing."""
    if rng.random() < GIVES_UP:
        return "no idea", ""
    a, b = row["metadata"]["expression"].split(" * ")
    kind = rng.random()
    if kind < BROKEN:
        return f"<call>mul({a},{b}</call>", "no idea"
    function = calculator.add if kind < BROKEN + WRONG else calculator.mul
    return f"<call>{function.__name__}({a},{b})</call>", str(function(int(a), int(b)))


def pairs(policy: CausalLM) -> list[Pair]:
    """(context, completion) token ids of demonstrations, one a turn."""
    renderer, tools = policy.renderer, schemas(FUNCTIONS)
    spec = PromptSpec(template=TEMPLATE, max_new_tokens=DEFAULTS["max_new_tokens"], by_row=True, tools={"": tools})
    test = {prompt.text for prompt in load_prompts(TEST, renderer, spec)}
    prompts = [p for p in load_prompts(DEMONSTRATIONS, renderer, spec) if p.text not in test]
    rng = random.Random(0)
    out: list[Pair] = []
    # Several of each prompt: which prompts are given up and which worked out is nothing to learn.
    for prompt in prompts:
        for _ in range(4):
            said, then = demonstration(prompt.row, rng)
            turn = completion_tokens(renderer, said, prompt)
            out.append((prompt.tokens, turn))
            if then:
                step = ToolEnvironment(FUNCTIONS).step(renderer.message(said, tools))
                answer = renderer.answer(prompt, step.observation.content, turn[-1], tools)
                out.append(((*prompt.tokens, *turn, *answer), completion_tokens(renderer, then)))
    return out


def recipe() -> list[Any]:
    """What the warm-started model depends on."""
    sources = [inspect.getsource(each) for each in (model, calculator, demonstration, pairs, untrained)]
    return [WARM_START, GIVES_UP, WRONG, BROKEN, DEMONSTRATIONS, TEST, CHAT_TEMPLATE, *sources]
