"""What the paper printed: Kumar et al., ICLR 2025 (arXiv 2409.12917), Tables 1-7, Figures 1 and 7.

Facts to stand beside a study's own numbers. They come from other models and other tasks than a study's, so
that they compare in kind (what rises, what falls, which method leads) and not as numbers. Accuracies, i->c
and c->i in per cent, delta in percentage points, as printed.
"""

from __future__ import annotations

from dataclasses import dataclass

FLOWS = ("acc_t1", "acc_t2", "delta", "i_to_c", "c_to_i")
GEMINI_FLASH, GEMINI_PRO, GEMMA = "Gemini 1.5 Flash", "Gemini 1.0 Pro", "Gemma 2 2B"


@dataclass(frozen=True)
class PaperTable:
    """One printed table.

    Attributes:
      title: what it shows.
      model: that was trained.
      task: that it was evaluated on.
      statistics: names of the columns, as in score_jax.metrics (mbpp_r: accuracy of offline repair).
      rows: (method, number of each column), in the paper's order.
    """

    title: str
    model: str
    task: str
    statistics: tuple[str, ...]
    rows: tuple[tuple[str, tuple[float, ...]], ...]


TABLES = {
    "table1": PaperTable(
        "Self-correction after supervised fine-tuning",
        GEMINI_FLASH,
        "MATH",
        FLOWS,
        (
            ("Base model", (52.6, 41.4, -11.2, 4.6, 15.8)),
            ("STaR, D_STaR", (55.4, 41.2, -14.2, 5.4, 19.6)),
            ("STaR, D+_STaR", (53.6, 54.0, 0.4, 2.6, 2.2)),
            ("Pair-SFT, D_SFT", (52.4, 54.2, 1.8, 5.4, 3.6)),
            ("Pair-SFT, D+_SFT", (55.0, 55.0, 0.0, 0.0, 0.0)),
        ),
    ),
    "table2": PaperTable(
        "SCoRe beside prompting and supervised fine-tuning",
        GEMINI_FLASH,
        "MATH",
        FLOWS,
        (
            ("Base model", (52.6, 41.4, -11.2, 4.6, 15.8)),
            ("Self-Refine", (52.8, 51.8, -1.0, 3.2, 4.2)),
            ("STaR, D+_STaR", (53.6, 54.0, 0.4, 2.6, 2.2)),
            ("Pair-SFT, D_SFT", (52.4, 54.2, 1.8, 5.4, 3.6)),
            ("SCoRe", (60.0, 64.4, 4.4, 5.8, 1.4)),
        ),
    ),
    "table3": PaperTable(
        "Programs",
        GEMINI_PRO,
        "HumanEval",
        ("mbpp_r", *FLOWS),
        (
            ("Base model", (47.3, 53.7, 56.7, 3.0, 7.9, 4.9)),
            ("Self-Refine", (30.7, 53.7, 52.5, -1.2, 9.8, 11.0)),
            ("Pair-SFT", (59.8, 56.1, 54.3, -1.8, 4.3, 6.1)),
            ("SCoRe", (60.6, 52.4, 64.6, 12.2, 15.2, 3.0)),
        ),
    ),
    "table4": PaperTable(
        "What each part of SCoRe adds",
        GEMINI_FLASH,
        "MATH",
        ("acc_t1", "acc_t2", "delta"),
        (
            ("SCoRe", (60.0, 64.4, 4.4)),
            ("w/o multi-turn training", (61.8, 59.4, -2.4)),
            ("w/o Stage I", (59.2, 61.4, 2.2)),
            ("w/o reward shaping", (60.0, 62.6, 2.6)),
            ("w/ STaR instead of REINFORCE in Stage II", (56.2, 58.4, 2.2)),
            ("w/o online turn 1 samples", (60.4, 60.6, 0.2)),
        ),
    ),
    "table5": PaperTable(
        "Three attempts",
        GEMMA,
        "MATH",
        ("acc_t1", "acc_t2", "acc_t3"),
        (
            ("Base model", (16.8, 16.8, 17.0)),
            ("Stage I(a)", (17.6, 20.0, 19.8)),
            ("Stage I(b)", (16.6, 18.4, 23.2)),
            ("Stage II", (23.0, 24.0, 24.0)),
        ),
    ),
    "table6": PaperTable(
        "Three attempts, on another task",
        GEMMA,
        "Functional MATH",
        ("acc_t1", "acc_t2", "acc_t3"),
        (
            ("Base model", (21.4, 20.7, 20.9)),
            ("Stage I(a)", (17.5, 20.3, 20.9)),
            ("Stage I(b)", (17.7, 20.4, 24.8)),
            ("Stage II", (23.4, 25.7, 25.6)),
        ),
    ),
    "table7": PaperTable(
        "Three attempts, on a third task",
        GEMMA,
        "MathOdyssey",
        ("acc_t1", "acc_t2", "acc_t3"),
        (
            ("Base model", (4.1, 3.9, 3.6)),
            ("Stage I(a)", (3.1, 3.1, 3.4)),
            ("Stage I(b)", (2.3, 2.8, 4.1)),
            ("Stage II", (3.9, 5.2, 5.7)),
        ),
    ),
}

# Figure 1, right (MATH): points gained by 32 sampled attempts, all in parallel and half of them corrections.
FIGURE_1_BUDGET, FIGURE_1_PARALLEL, FIGURE_1_CORRECTED = 32, 7.4, 10.5

# Figure 7 (MATH, SCoRe), at levels 1 to 5.
FIGURE_7_I_TO_C = (4.7, 6.7, 5.8, 6.2, 6.0)
FIGURE_7_C_TO_I = (0.0, 0.0, 2.9, 3.1, 2.3)
