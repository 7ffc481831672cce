"""RL-Text2Vis: Aligning Text, Code, and Vision: A Multi-Objective RL Framework for Text-to-Visualization.

arXiv:2601.04582, code vis-nlp/RL-Text2Vis. Confidence: exact for the reward's formulas; ours: what its judges say.

A completion is {"answer": short text, "code": a program with Matplotlib}, which is run in a sandbox:

    R      = R_c + [the form is right]
    R_c    = 0.5 r_text + 0.25 r_code + 0.25 r_vis                                  plot
    r_text = 0.6 s + 0.4 [s >= 0.999],   s = 1 - min(1, |gold - answer| / |gold|),  1 of an answer that matches
    r_code = 1, 0.5 or 0: it runs, it draws what was meant
    r_vis  = 1 if both ratings of 1 to 5 are at least 4, 0.5 if both are 3 or more, 0.25 if one is
    form     JSON with both texts and nothing else, the program ending in plt.show()   plot-format

The paper asks a model whether answer and chart are what was meant, and a second one how readable and how correct the
picture is. Here the data that the program draws are compared with the row's column `chart` (or with what its `chart_code`
draws): their F1 is what was meant from 0.9 on, where the kind of chart fits too, and correct to degree 1 to 5 (0.3, 0.6,
0.9, 0.99); title, names of axes, legend and ticks that do not overlap make a chart readable, one degree each.

All is in the reward: no axis is filled. The paper's run: 8 rollouts, learning rate 1e-5, gradient norm 0.1.
"""

from __future__ import annotations

from cohort.methods import Method
from cohort.recipes.recipe import recipe


@recipe(
    title="Aligning Text, Code, and Vision: A Multi-Objective Reinforcement Learning Framework for Text-to-Visualization",
    paper="arXiv:2601.04582",
    idea="answer, program and what the program draws are rewarded together",
    confidence="exact; ours: data drawn in place of the judges of charts",
    rewards=("plot", "form=plot-format"),
)
def rl_text2vis() -> Method:
    return Method()
