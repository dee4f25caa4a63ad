"""A sweep: which points its config asks for, and that each is made once."""

import json
import math
import re
import shutil

import ml_collections
import numpy as np
import pytest
import small_runs
from etils import epath

from score_jax import sweep as sweeps
from score_jax import sweep_points
from score_jax.__main__ import main
from score_jax.config import config_of, load_config
from score_jax.config_check import flatten
from score_jax.records import read_jsonl
from score_jax.sweep_points import draw, expand, name_of

SWEEP = "configs/sweeps/alpha_beta_2.py"


def config_with(*, overrides=(), **sweep) -> ml_collections.ConfigDict:
    """The shipped sweep with another section: dotted fields under `grid` and `random`."""
    config = load_config(SWEEP, overrides)
    section = {"base": config.sweep.base, "grid": {}, "random": {}, "points": 0, "seed": 0} | sweep
    with config.unlocked():
        config.sweep = ml_collections.ConfigDict(section)
    return config


def names(config):
    return [point.name for point in expand(config)]


def test_a_grid_is_every_combination():
    config = config_with(grid={"stage2": {"alpha": (0, 5.0)}, "seed": (3, 1)})
    points = expand(config)
    assert {point.name for point in points} == {
        "alpha=0,seed=3", "alpha=5,seed=3", "alpha=0,seed=1", "alpha=5,seed=1"
    }  # fmt: skip
    for point in points:
        alpha, seed = (float(word.partition("=")[2]) for word in point.name.split(","))
        assert (point.config.stage2.alpha, point.config.seed) == (alpha, seed)
        assert point.values == {"seed": seed, "stage2.alpha": alpha}
        assert isinstance(point.values["stage2.alpha"], float)
    (first, *_) = points
    assert first.name == "alpha=0,seed=3"
    assert first.arguments == (
        "--config=configs/quickstart.py",
        "--config.evaluate.split=validation",
        "--config.seed=3",
        "--config.stage2.alpha=0.0",
    )


def test_a_point_differs_from_the_base_in_what_it_says_alone():
    config = config_with(
        grid={"stages": (("stage1",), ("stage1", "stage2")), "decisive_only": (True, False)},
        overrides=["--config.train_problems=96", "--config.slots.attempt=14"],
    )
    base = flatten(load_config("configs/quickstart.py"))
    changed = {"evaluate.split": "validation", "train_problems": 96, "slots.attempt": 14}
    for point in expand(config):
        wanted = base | changed | {k: list(v) if k == "stages" else v for k, v in point.values.items()}
        assert flatten(point.config) == wanted
        again = load_config(point.arguments[0].removeprefix("--config="), point.arguments[1:])
        assert flatten(again) == wanted
    assert len({point.name for point in expand(config)}) == 4


def test_list_prints_the_arguments_that_make_a_point(capsys, tmp_path):
    args = ["sweep", f"--config={SWEEP}", f"--workdir={tmp_path / 'sweep'}", "--list"]
    assert main([*args, "--config.slots.attempt=14"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 16 and not (tmp_path / "sweep").exists()
    made = {name: json.loads(arguments) for name, arguments in lines}
    for alpha in (0, 2, 5, 10):
        for beta_2 in (0.1, 0.25, 0.54, 1):
            first, *rest = made[f"alpha={alpha},beta_2={beta_2}"]
            config = load_config(first.removeprefix("--config="), rest)
            assert (config.stage2.alpha, config.stage1.beta_2) == (alpha, beta_2)
            assert (config.slots.attempt, config.evaluate.split) == (14, "validation")
    assert main([*args, "--only=alpha=5,beta_2=1,alpha=0,beta_2=0.25"]) == 0
    listed = [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()]
    assert set(listed) == {"alpha=5,beta_2=1", "alpha=0,beta_2=0.25"}


@pytest.mark.parametrize(
    ("only", "hint"),
    [
        ("alpha=0", "did you mean alpha=0,seed=3?"),
        ("beta=7,x=1,y=2", "the points are alpha=2,seed=3, alpha=0,"),
    ],
)
def test_a_point_that_there_is_not_is_told_with_those_that_begin_so(only, hint):
    points = expand(config_with(grid={"stage2": {"alpha": (2, 0)}, "seed": (3, 11)}))
    with pytest.raises(ValueError, match=f"is not a point of this sweep; {re.escape(hint)}"):
        sweep_points.chosen(points, only)


RANDOM = {
    "random": {
        "stage2": {"alpha": (0.0, 10.0, "linear"), "learning_rate": (1e-5, 1e-3, "log")},
        "stage1": {"steps": (3, 5, "integer")},
    }
}


def test_draws_depend_on_the_seed_and_their_number_alone():
    four, six = (
        [point.values for point in expand(config_with(**RANDOM, points=points, seed=7))] for points in (4, 6)
    )
    assert six[:4] == four
    fewer = {"random": {"stage2": {"alpha": (0.0, 10.0, "linear")}}}
    alone = [point.values["stage2.alpha"] for point in expand(config_with(**fewer, points=4, seed=7))]
    assert alone == [values["stage2.alpha"] for values in four]
    alike = [draw(7, 0, name, (0.0, 1.0, "linear")) for name in ("stage1.alpha", "stage2.alpha")]
    assert alike[0] != alike[1], "of fields that are drawn alike one must not follow the other"
    other = [point.values for point in expand(config_with(**RANDOM, points=4, seed=8))]
    assert not [values for values in other if values in four]


def test_draws_fill_their_range():
    spec = {kind: (low, high, kind) for kind, low, high in (("linear", -1.0, 3.0), ("log", 1e-4, 1.0))}
    linear, log = (
        np.array([draw(0, index, "field", spec[kind]) for index in range(2000)]) for kind in ("linear", "log")
    )
    assert -1 <= linear.min() < -0.9 and 2.9 < linear.max() <= 3
    np.testing.assert_allclose(np.histogram(linear, 4, (-1, 3))[0] / 2000, 0.25, atol=0.04)
    shares = [np.mean((log >= 10.0**-k) & (log < 10.0 ** (1 - k))) for k in (1, 2, 3, 4)]
    np.testing.assert_allclose(shares, 0.25, atol=0.04)
    integers = [draw(0, index, "field", (3, 5, "integer")) for index in range(2000)]
    np.testing.assert_allclose(np.bincount(integers, minlength=6)[3:] / 2000, 1 / 3, atol=0.04)
    assert all(float(f"{value:.4g}") == value for value in (*linear, *log))
    narrow = (0.123456, 0.123457, "linear")
    assert all(narrow[0] <= draw(0, index, "field", narrow) <= narrow[1] for index in range(20))


def test_every_draw_is_tried_with_every_combination_of_the_grid():
    random = {"stage2": {"alpha": (1.0, 10.0, "log")}}
    points = expand(config_with(grid={"seed": (0, 1)}, random=random, points=3))
    drawn = [draw(0, index, "stage2.alpha", (1.0, 10.0, "log")) for index in range(3)]
    assert [(p.config.seed, p.config.stage2.alpha) for p in points] == [(s, a) for s in (0, 1) for a in drawn]


def test_names_are_short_unique_and_safe():
    assert name_of({"stage2.alpha": 5.0, "stage1.beta_2": 0.1}) == "alpha=5,beta_2=0.1"
    assert name_of({"stage2.steps": 4, "stage1.steps": 2}) == "stage1.steps=2,stage2.steps=4"
    assert name_of({"a.b.c": 1, "b.c": 2, "c": 3}) == "a.b.c=1,b.c=2,c=3"
    close = [name_of({"x": value}) for value in (0.1, 0.1 + 1e-9, 1e-7, 12345678.0, 12345678.5)]
    assert len(set(close)) == 5 and close[0] == "x=0.1"
    hostile = ["a/b", "a:b", "../x", "", " ", "a,b", "a=b", "ä", "x" * 300, "x" * 301, "-"]
    found = [name_of({"x": value}) for value in hostile]
    assert len(set(found)) == len(hostile)
    for name in found:
        key, _, rest = name.partition("=")
        assert key == "x" and len(name) < 60
        assert rest and not set(rest) - set("abcdefghijklmnopqrstuvwxyz0123456789-.")


def grid(field, *values):
    for word in reversed(field.split(".")):
        values = {word: values}
    return {"grid": values}


def random(field, *spec, points=2):
    return {"random": grid(field, *spec)["grid"], "points": points}


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            grid("stage2.alfa", 1.0),
            "config.sweep.grid.stage2.alfa: no such field; did you mean stage2.alpha?",
        ),
        (random("stage2.alfa", 1.0, 2.0, "log"), "config.sweep.random.stage2.alfa: no such field; did you"),
        (grid("stage2.alpha"), "config.sweep.grid.stage2.alpha = []: give a tuple of at least one value"),
        ({"grid": {"stage2": {"alpha": 5.0}}}, "config.sweep.grid.stage2.alpha = 5.0: give a tuple of at"),
        (
            grid("stage2.alpha", 1.0, "5"),
            "config.sweep.grid.stage2.alpha: '5' is of type str, and the field of type float",
        ),
        (grid("stage2.steps", 1.5), "config.sweep.grid.stage2.steps: 1.5 is of type float, and the field of"),
        (grid("seed", True), "config.sweep.grid.seed: True is of type bool, and the field of type int"),
        (grid("stage2.alpha", math.nan), "config.sweep.grid.stage2.alpha: nan is no finite number"),
        (grid("stage2.alpha", 5, 5.0), "config.sweep.grid.stage2.alpha: has 5 more than once"),
        (grid("stage2.alpha", 1.0, -1.0), "point alpha=-1: config.stage2.alpha = -1.0: must not be negative"),
        (grid("evaluate.problems", 5), "config.sweep.grid.evaluate.problems: is the same for all points"),
        ({}, "config.sweep.grid: sweeps no field"),
        (
            random("stage2.alpha", 1.0, 2.0, "lin"),
            "config.sweep.random.stage2.alpha = [1.0, 2.0, 'lin']: write it as (lowest, highest, 'log' or",
        ),
        (
            random("stage2.alpha", 0.0, 2.0, "log"),
            "stage2.alpha: from 0.0 to 2.0 is no range above 0 to draw",
        ),
        (
            random("stage2.alpha", 2.0, 2.0, "linear"),
            "stage2.alpha: from 2.0 to 2.0 is no range to draw from",
        ),
        (random("stage2.alpha", 1, 2, "integer"), "stage2.alpha: 'integer' draws values of type int"),
        (random("stage2.steps", 1, 9, "log"), "stage2.steps: 'log' draws values of type float"),
        (
            random("stage2.alpha", 1.0, 2.0, "log", points=0),
            "config.sweep.points = 0: is the number of draws",
        ),
        (
            grid("seed", 1) | {"points": 3},
            "config.sweep.points = 3: is the number of draws of config.sweep.random",
        ),
        (grid("seed", 1) | {"points": -3}, "config.sweep.points = -3: must not be negative"),
        (random("stage2.steps", 1, 2, "integer", points=9), "config.sweep.points = 9: "),
        (
            grid("stage2.alpha", 1.0) | random("stage2.alpha", 1.0, 2.0, "log"),
            "config.sweep.random.stage2.alpha: config.sweep.grid has it, too",
        ),
        ({"grid": (1, 2)}, "config.sweep.grid = (1, 2): must be a ConfigDict of fields"),
        (
            grid("seed", 1) | {"base": "configs/none.py"},
            "config.sweep.base = 'configs/none.py': no such file",
        ),
        (grid("seed", 1) | {"gird": 1}, "config.sweep.gird: no such field; did you mean grid?"),
    ],
)
def test_what_cannot_work_is_refused_by_the_name_of_its_field(section, message):
    with pytest.raises(ValueError) as error:
        expand(config_with(**section))
    assert message in str(error.value)


def test_a_sweep_is_a_config_with_one_more_section(tmp_path, capsys):
    assert main(["sweep", "--config=configs/quickstart.py", f"--workdir={tmp_path}"]) == 2
    assert f"config.sweep is missing; {SWEEP} shows" in capsys.readouterr().err
    config = config_with(**grid("seed", 0, 1))
    config.evaluate.split = "test"
    with pytest.raises(ValueError, match=r"config\.evaluate.split = 'test': sweeps choose by their numbers"):
        expand(config)
    config = config_with(**grid("seed", 0, 1))
    with config.unlocked():
        config.stage3 = config.stage2.copy_and_resolve_references()
    with pytest.raises(ValueError, match=r"config\.stage3.adapt_beta_2: only the sweep's config has it"):
        expand(config)
    with config.unlocked():
        del config.sweep.seed
    with pytest.raises(ValueError, match=r"config\.sweep.seed is missing"):
        expand(config)


SMALL = small_runs.SMALL | {
    "task": "tiny:EvenRiddles",
    "sweep.grid.stage1.beta_2": (0.1,),
    "sweep.grid.stage2.alpha": (0.0, 5.0, 10.0),
}
NAMES = ["alpha=0,beta_2=0.1", "alpha=5,beta_2=0.1", "alpha=10,beta_2=0.1"]


def run(folder, *more, **changes):
    fields = SMALL | {"data_dir": str(folder / "data")}
    fields |= {field.replace("__", "."): value for field, value in changes.items()}
    args = [f"--config={SWEEP}", *(f"--config.{field}={value}" for field, value in fields.items())]
    return main(["sweep", *args, f"--workdir={folder / 'sweep'}", *more])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small sweep, made to its end."""
    folder = tmp_path_factory.mktemp("sweeps")
    assert run(folder) == 0
    return folder


def found_in(folder):
    return json.loads((folder / "sweep" / "sweep.json").read_text())


def rewards_in(folder, name):
    rows = read_jsonl(folder / "sweep" / name / "attempts.jsonl")
    return np.array([row["rewards"] for row in rows if row["checkpoint"] == "stage_two"])


def test_every_point_is_an_ordinary_run_of_one_base_model(made):
    assert sorted(path.name for path in (made / "sweep" / "bases").iterdir()) == ["seed=0"]
    for name, alpha in zip(NAMES, (0, 5, 10), strict=True):
        folder = made / "sweep" / name
        config = config_of(folder)
        assert (config.stage2.alpha, config.stage1.beta_2) == (alpha, 0.1) and "sweep" not in config
        assert len(read_jsonl(folder / "metrics.jsonl")) == 4
        assert {row["split"] for row in read_jsonl(folder / "attempts.jsonl")} == {"validation"}
        assert main(["report", f"--workdir={folder}"]) == 0
        assert "stage_two" in (folder / "report.html").read_text()


def test_what_is_found_is_what_the_files_say(made):
    found = found_in(made)
    assert (found["split"], found["problems"], found["missing"]) == ("validation", 20, [])
    means = {name: rewards_in(made, name).mean(axis=0) for name in NAMES}
    assert 0 < np.mean([*means.values()]) < 1
    for name, mean in means.items():
        statistics = found["rows"][name]["statistics"]
        assert [statistics[key]["mean"] for key in ("acc_t1", "acc_t2")] == pytest.approx(mean)
    assert means[found["best"]][1] == max(mean[1] for mean in means.values())


def test_what_is_done_is_not_done_again(made, capsys):
    logs = sorted((made / "sweep").glob("*/metrics.jsonl"))
    assert len(logs) == 3
    before, told = [path.stat().st_mtime_ns for path in logs], found_in(made)
    assert run(made) == 0
    assert [path.stat().st_mtime_ns for path in logs] == before
    assert found_in(made) == told
    assert "==" not in capsys.readouterr().out


def test_an_interrupted_sweep_ends_as_an_uninterrupted_one(made, tmp_path, monkeypatch):
    shutil.copytree(made / "sweep" / "bases", tmp_path / "sweep" / "bases")
    evaluate, calls = sweeps.evaluate, []

    def stopped(*args):
        calls.append(args)
        if len(calls) == 2:
            raise OSError("stopped")
        return evaluate(*args)

    monkeypatch.setattr(sweeps, "evaluate", stopped)
    assert run(tmp_path, f"--only={NAMES[2]}") == 0
    assert found_in(tmp_path)["missing"] == NAMES[:2]
    assert run(tmp_path) == 2
    assert found_in(tmp_path)["missing"] == NAMES[:2]
    assert run(tmp_path) == 0
    whole, resumed = found_in(made), found_in(tmp_path)
    for found in (whole, resumed):
        for row in found["rows"].values():
            row["points"] = list(row["points"])  # not where they lie
    assert resumed == whole
    for name in NAMES:
        files = [folder / "sweep" / name / "attempts.jsonl" for folder in (made, tmp_path)]
        assert files[0].read_text() == files[1].read_text()


def test_another_config_is_refused_before_any_compute(made, capsys):
    assert run(made, stage1__steps=4) == 2
    assert "stage1.steps is 2 there and 4 here" in capsys.readouterr().err
    assert run(made, "--only=alpha=5") == 2
    assert "--only: 'alpha=5' is not a point of this sweep; did you mean alpha=5,beta_2=0.1?" in (
        capsys.readouterr().err
    )


def test_another_grid_goes_on_and_the_test_split_changes_nothing(made, tmp_path):
    """The chosen point is evaluated on the test split by the command that the page shows."""
    shutil.copytree(made / "sweep", tmp_path / "sweep")
    logs = {name: (tmp_path / "sweep" / name / "metrics.jsonl").stat().st_mtime_ns for name in NAMES}
    assert run(tmp_path, sweep__grid__stage2__alpha=(0.0, 5.0)) == 0
    told = found_in(tmp_path)
    assert list(told["rows"]) == NAMES[:2]
    (arguments,) = told["rows"][told["best"]]["points"].values()
    assert main(["evaluate", *arguments, "--config.evaluate.split=test"]) == 0
    rows = read_jsonl(tmp_path / "sweep" / told["best"] / "attempts.jsonl")
    assert {row["split"] for row in rows} == {"test"}
    assert run(tmp_path) == 0
    assert found_in(tmp_path)["missing"] == []
    for name in NAMES[:2]:
        assert found_in(tmp_path)["rows"][name]["statistics"] == told["rows"][name]["statistics"]
    assert {n: (tmp_path / "sweep" / n / "metrics.jsonl").stat().st_mtime_ns for n in NAMES} == logs


def test_points_share_the_base_models_that_they_can():
    config = config_with(
        grid={"seed": (0, 1), "stage2": {"alpha": (1.0, 2.0)}, "model": {"width": (64, 128)}}
    )
    cells = [sweeps.cell_of(point, epath.Path("runs")) for point in expand(config)]
    assert len(cells) == 8
    bases = {cell.config.base_dir for cell in cells}
    assert bases == {f"runs/bases/seed={seed},width={width}" for seed in (0, 1) for width in (64, 128)}
    for cell in cells:
        assert f"seed={cell.config.seed},width={cell.config.model.width}" in cell.config.base_dir


def test_a_place_for_the_base_model_is_kept():
    config = config_with(**grid("stage2.alpha", 1.0, 2.0), overrides=["--config.base_dir=elsewhere"])
    for point in sweep_points.expand(config):
        assert sweeps.cell_of(point, epath.Path("runs")).config.base_dir == "elsewhere"
