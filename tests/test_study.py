"""A study: what its config asks for, cells that are made once, and what their files come to."""

import gc
import json
import shutil
import subprocess
import sys
import weakref
from pathlib import Path

import jax
import ml_collections
import numpy as np
import pytest
import small_runs
from etils import epath

from configs import study_quickstart
from score_jax import cell as runs
from score_jax import clock as clocks
from score_jax import study as studies
from score_jax.__main__ import main
from score_jax.config import load_config
from score_jax.findings import corrections, pools
from score_jax.metrics import per_problem
from score_jax.records import read_jsonl
from score_jax.study_cells import Cells
from score_jax.study_plan import cell_of, plan
from score_jax.task import training_task

ROOT = Path(__file__).resolve().parents[1]
HOLDER = """
import sys, time
from score_jax.lock import hold
with hold(sys.argv[1], "study"):
    print("held", flush=True)
    time.sleep(600)
"""
PIPED = {"cwd": ROOT, "stdout": subprocess.PIPE}
STUDY = "configs/study_quickstart.py"
SMALL = small_runs.SMALL | {
    "task": "tiny:EvenRiddles",
    "study.seeds": (0, 1),
    "study.rows": ("base", "score", "multi_turn", "adaptive", "unified", "three"),
    "study.fast.rows": ("base", "score"),
    "study.pools": (8,),
    "study.pool_rows": ("score",),
    "study.measures.votes.evaluate.problems": 4,
    "study.measures.edits.evaluate.problems": 4,
    "study.measures.validation.rows": ("base", "score"),
    "study.measures.own.evaluate.problems": 4,
    "study.measures.fixed.evaluate.problems": 4,
    "study.measures.attempts.evaluate.attempts": 3,  # as the row `three` has: one program less to compile
    "methods.score.stage1.steps": 2,
    "methods.score.stage2.steps": 2,
    "methods.multi_turn.stage1.steps": 4,
    "methods.adaptive.stage1.steps": 2,
    "methods.adaptive.stage2.steps": 2,
    "methods.unified.stage1.steps": 4,
    "methods.three.stage1.steps": 2,
    "methods.three.stage2.steps": 2,
    "methods.three.stage3.steps": 2,
}


def options(folder, **changes):
    fields = SMALL | {"data_dir": str(folder / "data")}
    fields |= {field.replace("__", "."): value for field, value in changes.items()}
    return [f"--config={STUDY}", *(f"--config.{field}={value}" for field, value in fields.items())]


def run(folder, *more, **changes):
    return main(["study", *options(folder, **changes), f"--workdir={folder / 'study'}", *more])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small study, made to its end."""
    folder = tmp_path_factory.mktemp("studies")
    assert run(folder) == 0
    return folder


def found_in(folder):
    return json.loads((folder / "study" / "study.json").read_text())


def test_a_study_makes_every_row_with_every_seed(made):
    found = found_in(made)
    assert {name for name in found["rows"] if "." not in name} == {
        *("base", "score", "multi_turn", "adaptive", "unified", "three", "score@8")
    }
    assert found["seeds"] == [0, 1]
    assert found["missing"] == []
    assert found["problems"] == 20
    for row in found["rows"].values():
        assert len(row["statistics"]["acc_t2"]["by_seed"]) == 2
        assert len(row["seconds"]) == 2


def test_a_row_is_what_its_files_say(made):
    rewards = [
        np.array(
            [
                row["rewards"]
                for row in read_jsonl(made / f"study/score/{seed}/attempts.jsonl")
                if row["checkpoint"] == "stage_two"
            ]
        )
        for seed in (0, 1)
    ]
    assert 0 < np.mean(rewards) < 1
    statistics = found_in(made)["rows"]["score"]["statistics"]
    for name in ("acc_t1", "acc_t2", "delta", "i_to_c", "c_to_i"):
        by_seed = [per_problem(run)[name].mean() for run in rewards]
        assert statistics[name]["by_seed"] == pytest.approx(by_seed)
        assert statistics[name]["mean"] == pytest.approx(np.mean(by_seed))


def test_the_budget_is_counted(made):
    rows = found_in(made)["rows"]
    assert rows["score"]["updates"] == rows["multi_turn"]["updates"] == 4
    assert rows["score"]["sampled"] == rows["multi_turn"]["sampled"] == 4 * 8 * 2 * 2
    assert rows["base"]["updates"] == rows["base"]["sampled"] == 0


def test_the_stages_of_a_row_are_those_of_its_config(made):
    rows, methods = found_in(made)["rows"], load_config(STUDY, options(made)[1:]).methods
    one, two = rows["score"]["stages"]
    for kept, asked in ((one, methods.score.stage1), (two, methods.score.stage2)):
        assert {"learning_rate", "alpha", "beta_1", "beta_2", "steps", "scale_kl"} <= kept.keys()
        assert all(asked[name] == value for name, value in kept.items() if name in asked)
        assert (kept["decisive_only"], kept["temperature"]) == (True, 0.5)
    assert rows["base"]["stages"] == rows["three.base"]["stages"] == []
    (unified,) = rows["unified"]["stages"]
    assert [end["name"] for end in unified["between"]] == ["stage_one", "stage_two"]
    assert unified["between"][1]["alpha"] == methods.unified.stage_two.alpha


def test_the_validation_split_is_measured_apart(made):
    rows = found_in(made)["rows"]
    assert rows["score"]["validation"]["acc_t2"]["n"] == 20
    assert "validation" not in rows["multi_turn"]
    split = {
        row["split"] for row in read_jsonl(made / "study/score/0/measures/validation/stage_two.jsonl")[1:]
    }
    assert split == {"validation"}


def test_the_seeds_vary_the_base_model(made):
    texts = [(made / f"study/base/{seed}/attempts.jsonl").read_text() for seed in (0, 1)]
    assert texts[0] != texts[1]


def test_the_measures_are_there(made):
    figures = found_in(made)["figures"]
    assert figures["figure1"]["k"] == [1, 2, 4, 8, 16]
    assert figures["figure1"]["temperature"] == 0.7
    assert {"base", "multi_turn", "score"} == set(figures["figure3"]["train"])
    assert figures["figure4"]["score"]["step"] == [0, 2, 4]
    assert len(figures["figure8"]["score"]) == 3
    assert figures["pool"]["score"]["pool"] == figures["pool"]["base"]["pool"] == [8, 12]
    assert figures["pool"]["base"]["acc_t2"][0] == figures["pool"]["base"]["acc_t2"][1]
    assert len(figures["figure5"]["multi_turn"]["changed"]) == 4


def test_the_points_of_pools_are_of_the_same_seeds(made):
    rows = ["base", "score", "score@8"]
    done = tuple((row, seed) for row in rows for seed in (0, 1) if (row, seed) != ("score@8", 1))
    found = pools(Cells(load_config(STUDY, options(made)[1:]), made / "study", done), rows)
    estimates = [estimate for curve in found.values() for estimate in curve["acc_t2"]]
    assert [len(estimate["by_seed"]) for estimate in estimates] == [1] * 4


def test_a_point_of_fewer_seeds_than_scores_is_left_out():
    class Few:
        config = ml_collections.ConfigDict({"train_problems": 768})

        def seeds(self, *rows):
            return [0] if "multi_turn@96" in rows else [0, 1]

        def attempts(self, row, seed):
            return [{"rewards": [0.0, float(seed)]}, {"rewards": [1.0, 1.0]}]

    drawn = ["base", "score", "multi_turn", "score@96", "multi_turn@96", "score@384", "multi_turn@384"]
    found = pools(Few(), drawn)
    assert {method: curve["pool"] for method, curve in found.items()} == {
        "base": [96, 384, 768],
        "score": [96, 384, 768],
        "multi_turn": [384, 768],
    }
    assert [estimate["by_seed"] for estimate in found["multi_turn"]["acc_t2"]] == [[0.5, 1.0]] * 2


def test_figure_4_has_the_checkpoints_that_all_seeds_kept(made, monkeypatch):
    done = tuple(("score", seed) for seed in (0, 1))
    cells = Cells(load_config(STUDY, options(made)[1:]), made / "study", done)
    kept = cells.measured

    def fewer(name, row, seed):
        """With seed 1 the newest checkpoint is not there."""
        found = kept(name, row, seed)
        return found if seed == 0 else dict(list(found.items())[:-1])

    whole = corrections(cells, ["score"])["score"]["step"]
    monkeypatch.setattr(Cells, "measured", lambda self, *args: fewer(*args))
    assert corrections(cells, ["score"])["score"]["step"] == whole[:-1]


def test_at_the_base_own_and_fixed_first_attempts_are_the_same(made):
    """Step 0 of Fig. 4: the given first attempts are the ones that the base model makes."""
    figure = found_in(made)["figures"]["figure4"]["score"]
    assert figure["own"][0]["by_seed"] == pytest.approx(figure["fixed"][0]["by_seed"])


def test_what_was_compiled_goes_at_a_cells_end_once_it_is_much(tmp_path, monkeypatch):
    if not runs._MAPS.exists():
        pytest.skip("reads /proc, which Linux has")
    cell = plan(load_config(STUDY, options(tmp_path)[1:]), tmp_path / "study")[0]
    gc.collect()
    first = runs._memory_maps()
    programs = [jax.jit(lambda x, n=n: x * n) for n in range(50)]
    with runs.holding(cell, "study"):
        for program in programs:
            program(1.0)
    grown = runs._memory_maps()
    assert grown > first + 50
    assert {program._cache_size() for program in programs} == {1}
    monkeypatch.setattr(runs, "_MANY_MAPS", grown - 1)
    with runs.holding(cell, "study"):
        pass
    assert {program._cache_size() for program in programs} == {0}
    assert runs._memory_maps() < first + 50


def test_what_is_done_is_not_done_again(made, capsys):
    logs = sorted((made / "study").glob("*/*/metrics.jsonl"))
    before = [path.stat().st_mtime_ns for path in logs]
    told = found_in(made)
    assert run(made) == 0
    assert [path.stat().st_mtime_ns for path in logs] == before
    assert found_in(made) == told
    assert "==" not in capsys.readouterr().out


def test_an_interrupted_study_ends_as_an_uninterrupted_one(made, tmp_path, monkeypatch):
    shutil.copytree(made / "study" / "bases", tmp_path / "study" / "bases")
    evaluate, calls = studies.evaluate, []

    def stopped(*args):
        calls.append(args)
        if len(calls) == 3:
            raise OSError("stopped")
        return evaluate(*args)

    monkeypatch.setattr(studies, "evaluate", stopped)
    few = {"study__rows": ("base", "score", "multi_turn"), "study__pools": (), "study__pool_rows": ()}
    assert run(tmp_path, study__seeds=(0,), **few) == 2
    assert found_in(tmp_path)["missing"][0] == "multi_turn/0"
    assert set(found_in(tmp_path)["rows"]) == {"base", "score"}
    assert run(tmp_path, **few) == 0
    whole, resumed = (found_in(folder)["rows"] for folder in (made, tmp_path))
    assert {*resumed} == {"base", "score", "multi_turn"}
    for name in resumed:
        assert resumed[name] | {"seconds": None} == whole[name] | {"seconds": None}
    for name in ("score/0", "multi_turn/1"):
        files = [folder / "study" / name / "attempts.jsonl" for folder in (made, tmp_path)]
        assert files[0].read_text() == files[1].read_text()


def test_what_was_evaluated_is_not_evaluated_again(made, tmp_path, monkeypatch, capsys):
    """A cell that is stopped in its further evaluations; and a page can be made from the first moment on."""
    shutil.copytree(made / "study" / "bases", tmp_path / "study" / "bases")
    alone = {f"study__{field}": ("base",) for field in ("rows", "fast__rows")}
    alone |= {f"study__{field}": () for field in ("pools", "pool_rows")} | {"study__seeds": (0,)}

    def stopped(*args, **kwargs):
        assert main(["report", f"--workdir={tmp_path / 'study'}"]) == 0
        assert "Still to run: base/0" in (tmp_path / "study" / "report.html").read_text()
        raise OSError("stopped")

    with monkeypatch.context() as context:
        context.setattr(studies, "measure", stopped)
        assert run(tmp_path, **alone) == 2
    assert found_in(tmp_path)["missing"] == ["base/0"]
    monkeypatch.setattr(studies, "evaluate", lambda *_: pytest.fail("evaluated again"))
    assert run(tmp_path, **alone) == 0
    assert found_in(tmp_path)["missing"] == []
    assert main(["compare", f"--workdir={tmp_path / 'study'}", "--method=base"]) == 0  # a run without stages
    assert "| base | 1 |" in capsys.readouterr().out


def test_two_studies_share_the_cells(made, tmp_path, capsys):
    """One finds the other at work on a row, makes what else there is, and says what it left."""
    shutil.copytree(made / "study" / "bases", tmp_path / "study" / "bases")
    few = {"study__rows": ("base", "score"), "study__fast__rows": ("base",), "study__seeds": (0,)}
    few |= {"study__pools": (), "study__pool_rows": ()}
    with subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path / "study/base/0"], **PIPED) as other:
        assert other.stdout.readline() == b"held\n"
        assert run(tmp_path, **few) == 75
        other.kill()
    said = capsys.readouterr()
    assert "study/base/0: another `study` is at work there" in said.err
    assert found_in(tmp_path)["missing"] == ["base/0"]
    assert run(tmp_path, **few) == 0
    assert found_in(tmp_path)["missing"] == []


def test_attempts_of_another_evaluation_are_not_taken_for_the_studys(made, tmp_path, capsys):
    shutil.copytree(made / "study", tmp_path / "study")
    changes = {"study__seeds": (0,)}
    workdir = tmp_path / "study" / "score" / "0"
    rows = (workdir / "attempts.jsonl").read_text()
    beside = rows.splitlines(keepends=True)[-1].replace('"stage_two"', '"best"')
    (workdir / "attempts.jsonl").write_text(rows + beside)  # another checkpoint changes nothing
    assert run(tmp_path, **changes) == 0
    (workdir / "attempts.jsonl").write_text(rows.replace('"split": "test"', '"split": "validation"'))
    assert run(tmp_path, **changes) == 2
    said = capsys.readouterr().err
    assert f"{workdir / 'attempts.jsonl'} is not as the study left it" in said
    (workdir / "done.json").unlink()
    assert run(tmp_path, **changes) == 0
    assert (workdir / "attempts.jsonl").read_text() == rows


def test_fast_after_the_whole_study_keeps_its_findings(made):
    told = found_in(made)
    assert run(made, "--fast") == 0
    assert found_in(made) == told


def test_beta_2_is_adapted_and_told(made):
    rows = read_jsonl(made / "study/adaptive/0/metrics.jsonl")
    assert [("beta_2" in row) for row in rows] == [True, True, False, False]
    first, second = rows[:2]
    wanted = first["policy_t2"] / first["kl_t1"] if first["kl_t1"] > 0 else first["beta_2"]
    moved = np.clip(first["beta_2"] ** 0.9 * wanted**0.1, first["beta_2"] / 10, first["beta_2"] * 10)
    assert second["beta_2"] == pytest.approx(moved)


def test_of_three_attempts_each_part_of_stage_one_is_held_at_the_one_before(made):
    """Appendix A.1: at its first update I(b) is its own reference, and Stage II is not that of the base."""
    rows = read_jsonl(made / "study/three/0/metrics.jsonl")
    assert [row["stage"] for row in rows[::2]] == ["stage_one_a", "stage_one_b", "stage_two"]
    a, b, two = rows[::2]
    assert "kl_t3" not in a and "kl_t3" in b and "kl_t3" in two
    for attempt in ("kl_t1", "kl_t2"):
        assert max(abs(a[attempt]), abs(b[attempt])) < 1e-9 < 1e-7 < two[attempt], attempt


def test_table_5_has_a_row_for_each_stage_of_three_attempts(made):
    found = found_in(made)
    names = ["three.base", "three.stage_one_a", "three.stage_one_b", "three"]
    assert found["tables"]["table5"] == names
    for name in names:
        assert {"acc_t1", "acc_t2", "acc_t3"} <= set(found["rows"][name]["statistics"])


def test_n_attempts_have_as_many_parts_of_stage_one_as_are_corrected():
    one, two = {"steps": 3, "beta_1": 0.0, "beta_2": 0.1}, {"steps": 3, "beta_1": 0.0, "beta_2": 0.0}
    stages = study_quickstart.several(4, one, two, updates=20)
    assert [(each.name, each.attempts, each.reference, each.steps) for each in stages] == [
        ("stage_one_a", 2, "base", 3),
        ("stage_one_b", 3, "stage_one_a", 3),
        ("stage_one_c", 4, "stage_one_b", 3),
        ("stage_two", 4, "base", 11),
    ]


def test_the_time_left_is_that_of_cells_that_cost_as_much(made, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(clocks.time, "monotonic", lambda: now[0])
    cells = plan(load_config(STUDY, options(made)[1:]), made / "elsewhere", fast=True)
    base, score = cells
    clock = clocks.Clock()
    assert clock.left(cells) == 0  # nothing is known yet
    with clock.on(score):
        now[0] += 100.0
    assert clock.seconds == 100 and clock.done == 1
    left = 100 * (runs.cost_of([base, score]) / runs.cost_of([score]))
    assert clock.left(cells) == pytest.approx(left)  # none of them is done on disk
    title = str(studies.progress(cells, clock).title)
    assert title.startswith("0 of 2 done; about 2 min so far and ") and title.endswith(" left")


def test_fast_is_a_part_of_the_study():
    config = load_config(STUDY)
    cells = plan(config, epath.Path("runs"), fast=True)
    assert {cell.row for cell in cells} == set(config.study.fast.rows) < set(config.study.rows)
    assert {cell.seed for cell in cells} == {0}


@pytest.mark.parametrize("name", ["study_quickstart", "study_math"])
def test_the_methods_have_scores_budget(name):
    """The same updates and sampled attempts; three attempts cost more, and say so in the table."""
    config = load_config(f"configs/{name}.py")
    budget = {}
    for row in config.study.rows:
        run = cell_of(config, epath.Path("runs"), row, 0).config
        stages = [run[key] for key in run.stages]
        steps = sum(stage.steps for stage in stages)
        sampled = sum(
            stage.steps
            * stage.samples_factor
            * (2 if stage.objective in ("star", "pair_sft") else stage.attempts)
            / (2 if stage.get("offline", 0) == 1 else 1)
            for stage in stages
        )
        budget[row] = (steps, sampled)
    updates, attempts = budget["score"]
    for row in set(budget) - {"base", "self_refine", "three", "offline"}:
        assert budget[row] == (updates, attempts), row
    assert budget["three"][0] == updates
    assert budget["base"] == budget["self_refine"] == (0, 0)


def test_methods_are_compared_at_the_same_kl_on_attempt_1():
    from score_jax.schedule import objective_of

    config = load_config(STUDY)
    at = lambda row, key: objective_of(cell_of(config, epath.Path("r"), row, 0).config[key]).kl_coef[0]
    held = at("score", "stage2")
    for row, key in (
        ("multi_turn", "stage1"),
        ("single_turn", "stage1"),
        ("no_stage_one", "stage1"),
        ("no_shaping", "stage2"),
        ("three", "stage3"),
    ):
        assert at(row, key) == pytest.approx(held), row


def test_a_cells_config_has_the_stages_of_its_method_alone():
    config = load_config(STUDY)
    cell = cell_of(config, epath.Path("runs"), "multi_turn@96", 2)
    assert cell.config.seed == 2
    assert cell.config.train_problems == 96
    assert "stage2" not in cell.config and "methods" not in cell.config and "study" not in cell.config
    assert cell.config.stage1.objective == "multi_turn"
    assert cell.workdir == epath.Path("runs/multi_turn@96/2")
    unified = cell_of(config, epath.Path("runs"), "unified", 0).config
    assert {"stage_one", "stage_two"} < set(unified)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"study__rows": ("base", "scor")},
            "config.study: 'scor' is not a method; config.methods has ",
        ),
        (
            {"study__measures__edits__rows": ("scor",)},
            "config.study.measures.edits.rows: 'scor' is not among config.methods",
        ),
        (
            {"study__measures__edits__checkpoints": "evry"},
            "config.study.measures.edits.checkpoints = 'evry': choose last or every",
        ),
        (
            {"study__measures__votes__samples": 16},
            "config.study.measures.votes.samples = 16: votes of up to 32 samples are counted",
        ),
        (
            {"study__measures__edits__evaluate__split": "trian"},
            "config.study.measures.edits.evaluate.split = 'trian': choose one of train, validation, test",
        ),
        (
            {"study__measures__votes__evaluate__temperature": -1.0},
            "row score, config.study.measures.votes: config.evaluate.temperature = -1.0: must not",
        ),
        (
            {"study__measures__edits__evaluate__problems": 10**6},
            "config.study.measures.edits.evaluate.problems = 1000000: the split has ",
        ),
        (
            {"study__measures__fixed__evaluate__problems": 0, "evaluate__problems": 4},
            "config.study.measures.fixed: evaluate.problems = 0: given=True gives first attempts from ",
        ),
        ({"study__fast__rows": ("star",)}, "config.study.fast.rows: 'star' is not among config.study.rows"),
        (
            {"study__tables__table4": ("score", "no_stage_won", *["base"] * 4)},
            "config.study.tables.table4: 'no_stage_won' is not among config.methods",
        ),
        (
            {"study__tables__table5": ("three.base", "three.stage_one_c", "three.stage_one_b", "three")},
            "config.study.tables.table5: 'three.stage_one_c' names no stage of three; choose base or ",
        ),
        (
            {"study__tables__table2": ("base",)},
            "config.study.tables.table2 has 1 rows, and the paper's 5: name",
        ),
        ({"study__pools": (10**6,)}, "config.study.pools: 1000000 of the "),
        (
            {"methods__score__stage2__alpha": -1.0},
            "row score: config.stage2.alpha = -1.0: must not be negative",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_any_compute(tmp_path, capsys, change, message):
    assert run(tmp_path, **change) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("given", "evaluate", "message"),
    [
        (False, {"temprature": 0.7}, "config.study.measures.own: config.evaluate.temprature"),
        (
            True,
            {"split": "train"},
            "evaluate.split = 'train': given=True gives first .* 'test'",
        ),
    ],
)
def test_a_measure_that_would_not_measure_what_it_says_is_refused(given, evaluate, message):
    config = load_config(STUDY)
    with config.unlocked():
        config.study.measures.own.given = given
        config.study.measures.own.evaluate.update(evaluate)
    with pytest.raises(ValueError, match=message):
        plan(config, epath.Path("runs"))


def test_a_section_with_a_field_too_many_or_too_few_is_refused(tmp_path):
    for change, message in (
        (lambda study: study.update({"seedz": (0,)}), r"config\.study\.seedz: no such field; .*seeds"),
        (
            lambda study: delattr(study, "tables"),
            r"config\.study\.tables is missing; configs/study_quickstart",
        ),
        (lambda study: delattr(study.fast, "rows"), r"config\.study\.fast\.rows is missing"),
        (
            lambda study: study.tables.update({"table9": ()}),
            r"config\.study\.tables\.table9: no such table; choose among table1",
        ),
    ):
        config = study_quickstart.get_config()
        with config.unlocked():
            change(config.study)
        with pytest.raises(ValueError, match=message):
            plan(config, epath.Path(tmp_path))


def test_a_run_is_no_study(tmp_path, capsys):
    assert main(["study", "--config=configs/quickstart.py", f"--workdir={tmp_path}"]) == 2
    assert "config.methods is missing; configs/study_quickstart.py shows" in capsys.readouterr().err


def test_what_was_read_goes_with_its_reader(made):
    """A study of a hundred cells reads its files and its task anew after each of them."""
    config = load_config(STUDY, options(made)[1:])
    cells = Cells(config, made / "study", (("score", 0),))
    task = training_task(config)
    assert cells.training("score", 0) is cells.training("score", 0)
    assert task.problems("train") is task.problems("train")
    gone = [weakref.ref(cells), weakref.ref(task)]
    del cells, task
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


def test_study_json_is_not_written_more_often_than_a_tenth_of_the_time(monkeypatch):
    now = iter([100.0, 102.0, 121.0, 123.0])
    monkeypatch.setattr(clocks.time, "monotonic", lambda: next(now))
    clock = clocks.Clock()
    with clock.writing():  # from 100 to 102
        pass
    assert [clock.may_write(), clock.may_write()] == [False, True]  # at 121, at 123
