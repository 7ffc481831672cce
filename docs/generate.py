"""Write the pages that are made from the code, and the index of methods: docs/methods.md, docs/configuration.md,
docs/diagnoses.md and src/cohort/recipes/index.json.

python docs/generate.py           writes them
python docs/generate.py --check   fails if they are not up to date
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from cohort import registry
from cohort.catalogue import INDEX, index, overview
from cohort.doctor import diagnoses
from cohort.explain import costs
from cohort.methods import AXES
from cohort.training.config import FIELDS, PLACES, SECTIONS, TrainConfig
from cohort.training.values import Option

HERE = Path(__file__).parent
NOTE = "<!-- Made by docs/generate.py from the code; edit the code instead. -->\n\n"


def methods_page() -> str:
    """The table of all methods, and what each says of itself."""
    rows = overview()
    lines = [
        "# Methods",
        "",
        f"{len(rows)} methods. A method fills some axes of the training step; an axis it leaves alone keeps its default.",
        "The defaults are GRPO without a KL term; the method `grpo` has one, with coefficient 0.04.",
        "`cohort explain NAME` prints a method with its equations, defaults and sources; `cohort train A+B` combines two.",
        "",
        "| method | paper | idea | axes | specification | extra cost | needs |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        made = registry.recipe(row["name"])()
        cost = "; ".join(text.split(":")[0] for text in costs(made) if not text.startswith(("old_logp", "old_entropy")))
        asked = [f"column `{c}`" for c in made.columns] + [f"column `{c}` (of some rows)" for c in made.sparse_columns]
        own = [f"reward `{reward}` (by default)" for reward in registry.recipe(row["name"]).rewards]
        needs = ", ".join([*asked, *own, *([row["requires"]] if row["requires"] else [])])
        lines.append(
            f"| `{row['name']}` | {row['paper']} | {row['idea']} | {row['axes']} | {row['confidence']} | {cost or '-'} "
            f"| {needs or '-'} |"
        )
    lines += ["", "## By axis", ""]
    for axis, slot in AXES.items():
        names = [f"`{row['name']}`" for row in rows if axis in row["axes"].split(", ")]
        lines.append(f"- **{axis}** ({slot.question}; takes {slot.kind}): {', '.join(names) or '-'}")
    lines += ["", "## Each method", ""]
    for row in rows:
        recipe = registry.recipe(row["name"])
        lines += [f"### {row['name']}", "", "```text", recipe.doc.strip(), "```", ""]
    return "\n".join(lines)


def configuration_page() -> str:
    """Every key of the configuration."""
    lines = [
        "# Configuration",
        "",
        "Every key can be given in a file (`--config run.yaml`), as `--set KEY=VALUE`, or from Python as a keyword of",
        "`cohort.train`; the most used ones have an option of their own, in every command where they mean something. A run's",
        "`config.yaml` holds all of them, resolved, and runs the run again.",
        "",
        "A file is YAML: `true` and `false` alone are true and false, `010` is ten, a key stands there once, and a text that",
        "looks like something else (`5`, `null`) takes quotes. `--set` takes a text as it stands: `--set system=5`.",
        "",
        "From Python, `model` is also `(model, tokenizer)`, objects of transformers, of which the model is trained itself;",
        "`data`, `eval_data` and `pairs` are also rows, a data frame, an Arrow table or a data set of `datasets`;",
        "`reward` is also a function or `(weight, function)`; `environment` a class or a function that makes one, and `tools`",
        "functions; and a `pathlib.Path` stands for any path. What has no text is described in `config.yaml`, and has to be",
        "given again.",
        "",
        "Keys stand in sections, as in `config.yaml`. A key goes by its own name wherever it is given, `temperature: 0.7`, and",
        "with its section's: `--set sampling.temperature=0.7`, or `sampling: {temperature: 0.7}` in a file. Those of",
        "`checkpoint` have the section's name before them always.",
    ]
    for section, holder in {"": TrainConfig, **SECTIONS}.items():
        lines += ["", f"## {section or 'The run'}", ""]
        lines += [str(holder.__doc__).strip(), ""] if section else []
        lines += ["| key | option | default | meaning |", "|---|---|---|---|"]
        for key, (where, _) in PLACES.items():
            if where == section:
                info = FIELDS[key]
                default = repr(info.get_default(call_default_factory=True))
                marked = any(isinstance(mark, Option) for mark in info.metadata)
                option = f"`--{key.replace('_', '-')}`" if marked else ""
                lines.append(f"| `{key}` | {option} | `{default}` | {info.description} |")
    return "\n".join([*lines, ""])


def diagnoses_page() -> str:
    """Every diagnosis of the doctor, from its docstring."""
    lines = [
        "# Diagnoses",
        "",
        "What `cohort doctor` looks for, and when it says so ([how to use it](doctor.md)). Each diagnosis is a pure function",
        "in a file of its own under `src/cohort/doctor/`.",
    ]
    titles: dict[Literal["run", "data"], str] = {"run": "Diagnoses of a run", "data": "Diagnoses of data"}
    for kind, title in titles.items():
        lines += ["", f"## {title}", "", "| name | what | threshold | source |", "|---|---|---|---|"]
        lines += [
            f"| [`{each.name}`](#{kind}-{each.name}) | {each.summary} | {each.threshold.split('. ')[0].rstrip('.')}. "
            f"| {each.source} |"
            for each in diagnoses(kind)
        ]
        for each in diagnoses(kind):
            lines += ["", f'### <a id="{kind}-{each.name}"></a>{each.name}', "", each.summary, ""]
            lines += [f"- **Threshold**: {each.threshold}", f"- **Meaning**: {each.meaning}"]
            lines += [f"- **Try**: {'; '.join(map(str, each.tries))}.", f"- **Source**: {each.source}"]
    return "\n".join([*lines, ""])


PAGES = {"methods.md": methods_page, "configuration.md": configuration_page, "diagnoses.md": diagnoses_page}


def main() -> int:
    """Write the pages, or check them."""
    stale = []
    made = {INDEX: index(), **{HERE / name: NOTE + make() for name, make in PAGES.items()}}
    for path, text in made.items():
        if "--check" in sys.argv:
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                stale.append(path.name)
        else:
            path.write_text(text, encoding="utf-8")
    if stale:
        print(f"not up to date: {', '.join(stale)}; run python docs/generate.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
