"""The page of a sweep, from made-up rewards: its numbers are those counted here by hand."""

import itertools
import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from colours import contrast, schemes_of
from test_report import Page
from test_study_page import cells, section, words

from score_jax import charts
from score_jax.__main__ import main
from score_jax.records import write_json
from score_jax.sweep_charts import axes_of, sweep_charts
from score_jax.sweep_file import findings_of, holds_sweep, read_sweep
from score_jax.sweep_page import as_markdown, ranked, write_sweep_page

ALPHA, BETA_2 = "stage2.alpha", "stage1.beta_2"
IDS = [f"problem {number}" for number in range(40)]
MINUS, DASH, STAR = "\N{MINUS SIGN}", "\N{EN DASH}", "\N{BLACK STAR}"


def rewards(first: int, second: int) -> list[list[float]]:
    """Of 40 problems the first `first` are right at attempt 1, the last `second` at attempt 2."""
    return [[float(i < first), float(i >= 40 - second)] for i in range(40)]


def made(right: dict[tuple, dict[int, tuple[int, int] | None]], kinds: dict[str, str]) -> dict:
    """A sweep.json: {values: {seed: how many are right at attempt 1 and 2, None is still to run}}."""
    points, done = [], {}
    for values, seeds in right.items():
        row = ",".join(f"{field.split('.')[-1]}={v:g}" for field, v in zip(kinds, values, strict=True))
        for seed, counts in seeds.items():
            name = f"{row},seed={seed}" if len(seeds) > 1 else row
            points.append({"name": name, "row": row, "seed": seed, "arguments": [f"--workdir=a b/{name}"]})
            points[-1]["values"] = dict(zip(kinds, values, strict=True))
            if counts:
                order = np.random.default_rng(seed).permutation(40)
                done[name] = {"id": [IDS[i] for i in order]}
                done[name]["rewards"] = [rewards(*counts)[i] for i in order]
    about = {"task": "Riddles", "split": "validation", "statistic": "acc_t2", "fields": kinds}
    return findings_of(about, points, done)


GRID = {
    (0.0, 0.1): {0: (20, 10)}, (0.0, 1.0): {0: (20, 12)}, (5.0, 0.1): {0: (20, 30)},
    (5.0, 1.0): {0: (20, 28)}, (10.0, 0.1): {0: (20, 18)}, (10.0, 1.0): {0: None},
}  # fmt: skip
KINDS = {ALPHA: "grid", BETA_2: "grid"}


def page_of(folder, found) -> Page:
    write_json(folder / "sweep.json", found)
    return Page(write_sweep_page(folder))


def texts(svg: str) -> list[str]:
    return [element.text for element in ElementTree.fromstring(svg).iter("text")]


def test_the_table_is_sorted_and_its_numbers_are_counted(tmp_path):
    page = page_of(tmp_path, made(GRID, KINDS))
    table = section(page, "rows")
    named = re.findall(r'<th scope="row">([^<]+)', table)
    order = ["alpha=5,beta_2=0.1", "alpha=5,beta_2=1", "alpha=10,beta_2=0.1", "alpha=0,beta_2=1"]
    assert [name.strip() for name in named] == [f"{STAR} {order[0]}", *order[1:], "alpha=0,beta_2=0.1"]
    best = cells(table, f"{STAR} {order[0]}")
    # 20 of 40 right at first; of these the last 10, and the 20 others, at the second attempt.
    assert [cell[0] for cell in best] == ["50.0", "75.0", "+25.0", "50.0", "25.0", DASH]
    second = cells(table, order[1])
    assert [cell[0] for cell in second] == ["50.0", "70.0", "+20.0", "50.0", "30.0", "+5.0"]
    low, high = (float(text) for text in best[1][1].split(DASH))
    assert low < 75 < high and high - low == pytest.approx(2 * 196 * np.sqrt(0.75 * 0.25 / 40), abs=5.1)


def test_the_lead_of_the_best_is_paired(tmp_path):
    """It is right wherever the second is, and at 2 problems more: no resample says otherwise."""
    found = made(GRID, KINDS)
    assert (found["best"], found["second"]) == ("alpha=5,beta_2=0.1", "alpha=5,beta_2=1")
    lead = found["rows"][found["second"]]["best_minus"]
    assert (lead["mean"], lead["n"]) == (pytest.approx(2 / 40), 40)
    rng = np.random.default_rng(1)
    gap = np.array([1.0, 1.0] + [0.0] * 38)
    resampled = gap[rng.integers(0, 40, (10_000, 40))].mean(axis=1)
    assert [lead["low"], lead["high"]] == pytest.approx(np.quantile(resampled, [0.025, 0.975]), abs=0.026)
    text = words(section(page_of(tmp_path, found), "best"))
    assert "Best by validation: alpha=5,beta_2=0.1" in text
    assert (
        "+5.0 points above the second, alpha=5,beta_2=1 (95% interval 0.0 to +12.5, an interval that" in text
    )
    assert "--workdir=a b/alpha=5,beta_2=0.1' --config.evaluate.split=test" in text.replace("&#39;", "'")
    clear = made({(0.0, 0.1): {0: (20, 10)}, (5.0, 0.1): {0: (20, 30)}}, KINDS)
    assert "leaves open" not in section(page_of(tmp_path, clear), "best")


def test_every_cell_of_the_heat_map_has_its_number(tmp_path):
    found = made(GRID, KINDS)
    (chart,) = sweep_charts(found).values()
    numbers = {"25.0", "30.0", f"75.0 {STAR}", "70.0", "45.0", DASH}
    drawn = texts(chart.svg)
    assert numbers < set(drawn)
    assert set(drawn) - numbers == {"0.1", "1", "0", "5", "10", "α, stage2.alpha", "β₂, stage1.beta_2"}
    found_at = {}
    for element in ElementTree.fromstring(chart.svg).iter("text"):
        found_at[element.text] = (-float(element.attrib["y"]), float(element.attrib["x"]))
    # From below, from the left: alpha = 0, 5, 10 with beta_2 = 0.1, 1.
    assert sorted(numbers, key=found_at.get) == ["25.0", "30.0", f"75.0 {STAR}", "70.0", "45.0", DASH]
    spoken = ElementTree.fromstring(chart.svg).attrib["aria-label"]
    for (alpha, beta_2), (counts, *_) in ((v, tuple(s.values())) for v, s in GRID.items()):
        said = f"{counts[1] / 0.4:.1f} per cent" if counts else "not measured"
        assert f"β₂, stage1.beta_2 {beta_2:g}, α, stage2.alpha {alpha:g}: {said}" in spoken
    page = page_of(tmp_path, found)
    assert chart.svg in page.source and "Still to run: alpha=10,beta_2=1." in page.text
    alone = (tmp_path / "figures" / "map.svg").read_text()
    assert "var(" not in alone and STAR in alone


def test_the_shades_follow_the_numbers():
    (chart,) = sweep_charts(made(GRID, KINDS)).values()
    shades = [float(number) for number in re.findall(r"fill: var\(--up\); fill-opacity: ([\d.]+)", chart.svg)]
    # From below, from the left: alpha = 0, 5, 10 with beta_2 = 0.1, 1.
    means = np.array([10, 12, 30, 28, 18]) / 40
    wanted = 0.06 + (means - means.min()) / (means.max() - means.min()) * 0.36
    assert shades == pytest.approx(wanted, abs=1e-4)


def test_numbers_can_be_read_on_every_shade(tmp_path):
    schemes = schemes_of(page_of(tmp_path, made(GRID, KINDS)).source)
    assert len(schemes) == 2
    for colour in schemes:
        for share in (0.06, 0.42):
            shade = share * colour["--up"] + (1 - share) * colour["--paper"]
            assert contrast(colour["--ink"], shade) > 4.5


def test_points_that_differ_in_the_seed_are_one_row(tmp_path):
    right = {
        (0.0,): {0: (20, 10), 1: (20, 20)},
        (5.0,): {0: (20, 20), 1: (20, 22)},
        (9.0,): {0: (20, 40), 1: None},
    }
    found = made(right, {ALPHA: "grid"})
    assert found["rows"]["alpha=0"]["statistics"]["acc_t2"]["by_seed"] == pytest.approx([0.25, 0.5])
    assert found["rows"]["alpha=5"]["statistics"]["acc_t2"]["mean"] == pytest.approx(21 / 40)
    # A row that lacks a seed cannot be chosen, however high it stands.
    assert (found["best"], found["second"]) == ("alpha=5", "alpha=0")
    assert found["rows"]["alpha=0"]["best_minus"]["by_seed"] == pytest.approx([0.25, 0.05])
    assert "best_minus" not in found["rows"]["alpha=9"]
    page = page_of(tmp_path, found)
    table = section(page, "rows")
    assert cells(table, f"{STAR} alpha=5")[1] == [
        "52.5",
        cells(table, f"{STAR} alpha=5")[1][1],
        f"50.0{DASH}55.0",
    ]
    assert "alpha=9 <small>1 of 2 seeds</small>" in table
    assert "seeds 0, 1" in page.text and "Still to run: alpha=9,seed=1." in page.text
    assert section(page, "best").count("evaluate ") == 2


def test_other_fields_of_the_grid_get_drawings_of_their_own():
    kinds = {"learning_rate": "grid", **KINDS}
    right = {
        (rate, alpha, beta_2): {0: (20, count)}
        for count, (rate, alpha, beta_2) in enumerate(
            itertools.product((1e-4, 1e-3), (0.0, 5.0), (0.1, 1.0)), 10
        )
    }
    drawn = sweep_charts(made(right, kinds))
    assert [chart.title for chart in drawn.values()] == [
        "Acc@t2, learning_rate = 0.0001",
        "Acc@t2, learning_rate = 0.001",
    ]
    for number, chart in enumerate(drawn.values()):
        counts = range(10 + 4 * number, 14 + 4 * number)
        for count in counts:
            assert f"{count / 0.4:.1f}" + f" {STAR}" * (count == 17) in texts(chart.svg)
        assert chart.caption == ""
    assert len({*re.findall(r'id="([^"]+)"', "".join(c.svg for c in drawn.values()))}) == sum(
        len(re.findall(r'id="', chart.svg)) for chart in drawn.values()
    )


def test_cells_are_means_over_draws_of_other_fields():
    kinds = {**KINDS, "learning_rate": "log"}
    right = {(a, 0.1, r): {0: (20, c)} for a, r, c in ((0.0, 1e-4, 10), (0.0, 2e-4, 20), (5.0, 1e-4, 30))}
    right[(0.0, 1.0, 1e-4)] = {0: (20, 4)}
    (chart,) = sweep_charts(made(right, kinds)).values()
    assert {"37.5", f"75.0 {STAR}", "10.0"} < set(texts(chart.svg))
    assert chart.caption == "Cells with several rows show their mean, of up to 2."


def test_what_is_drawn_stands_at_its_place():
    kinds = {ALPHA: "linear", BETA_2: "log"}
    right = {
        (1.0, 0.01): {0: (20, 10)},
        (3.0, 0.1): {0: (20, 20)},
        (9.0, 1.0): {0: (20, 30)},
        (5.0, 0.5): {0: None},
    }
    (chart,) = sweep_charts(made(right, kinds)).values()
    assert {"25.0", "50.0", f"75.0 {STAR}"} < set(texts(chart.svg)) and DASH not in texts(chart.svg)
    root = ElementTree.fromstring(chart.svg)
    dots = [
        (float(use.attrib["x"]), -float(use.attrib["y"]))
        for use in root.iter("use")
        if "fill-opacity" in use.attrib.get("style", "")
    ]
    (x1, y1), (x2, y2), (x3, y3) = dots
    assert x2 - x1 == pytest.approx(x3 - x2, rel=1e-3), "each ten times the one before, on a logarithmic axis"
    assert (y3 - y2) == pytest.approx(3 * (y2 - y1), rel=1e-3)


@pytest.mark.parametrize(
    ("kinds", "values", "wanted"),
    [
        ({"a": "grid", **KINDS}, [(1, 0, 0), (2, 5, 1)], (BETA_2, ALPHA)),
        ({"a": "grid", **KINDS}, [(1, 0, 0), (2, 5, 0)], ("a", ALPHA)),
        ({"a": "grid", "b": "grid", "c": "grid"}, [(1, 1, 1), (2, 1, 2)], ("a", "c")),
        ({"a": "grid", "b": "grid"}, [(1, 1), (1, 2)], ("b", None)),
        ({"a": "grid"}, [(1,)], (None, None)),
    ],
)
def test_the_fields_of_the_map(kinds, values, wanted):
    found = made({each: {0: (20, 10)} for each in values}, kinds)
    assert axes_of(found) == wanted
    assert bool(sweep_charts(found)) == (wanted != (None, None))


def test_one_field_is_a_line_of_cells():
    found = made({(a,): {0: (20, int(a))} for a in (4.0, 8.0, 12.0)}, {ALPHA: "grid"})
    (chart,) = sweep_charts(found).values()
    assert set(texts(chart.svg)) - {None} == {
        "4",
        "8",
        "12",
        "10.0",
        "20.0",
        f"30.0 {STAR}",
        "α, stage2.alpha",
    }
    (chart,) = sweep_charts(found | {"fields": {ALPHA: "linear"}}).values()
    assert {"10.0", "20.0", f"30.0 {STAR}"} < set(texts(chart.svg))


def test_the_markdown_table():
    lines = as_markdown(made(GRID, KINDS)).split("\n")
    assert lines[0].startswith(
        "| 40 problems, validation split | Acc@t1 | Acc@t2 | Δ | i→c | c→i | Acc@t2, best"
    )
    assert len(lines) == 2 + 5 and len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| alpha=5,beta_2=0.1 | 50.0 [") and lines[2].endswith("| best |")
    assert re.search(r"\| \+5\.0 \[0\.0, \+12\.5\] \|$", lines[3])


def test_before_the_first_point_is_done(tmp_path):
    found = made({values: {0: None} for values in GRID}, KINDS)
    assert found["best"] is None and ranked(found) == []
    page = page_of(tmp_path, found)
    assert "Not measured yet." in page.text and "<svg" not in page.source and "Best by" not in page.text
    assert page.text.count("alpha=") == 6


def test_a_sweep_of_several_or_single_attempts():
    for attempts in (1, 3):
        done = {"p": {"id": IDS, "rewards": [[1.0] * attempts] * 40}}
        point = {"name": "p", "row": "p", "seed": 0, "values": {"a": 1}, "arguments": []}
        about = {"task": "T", "split": "validation", "statistic": f"acc_t{attempts}", "fields": {"a": "grid"}}
        table = as_markdown(findings_of(about, [point], done))
        assert table.count("Acc@t") == attempts + 1 and ("Δ" in table) == (attempts > 1)


def test_points_of_different_problems_are_not_compared():
    with pytest.raises(ValueError, match="evaluate both methods on the same problems"):
        point = {"seed": 0, "values": {"a": 1}, "arguments": []}
        points = [point | {"name": name, "row": name} for name in "pq"]
        done = {name: {"id": [name], "rewards": [[1.0, 1.0]]} for name in "pq"}
        findings_of({"task": "T", "split": "v", "statistic": "acc_t2", "fields": {"a": "grid"}}, points, done)


def test_the_report_command_notices_a_sweep(tmp_path, capsys):
    assert not holds_sweep(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"holds no sweep\.json; run the sweep first"):
        read_sweep(tmp_path)
    write_json(tmp_path / "sweep.json", made(GRID, KINDS))
    assert main(["report", f"--workdir={tmp_path}"]) == 0
    assert str(tmp_path / "report.html") in capsys.readouterr().out
    assert "Best by validation" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "table.md").read_text().count("\n") == 7
    found = json.loads((tmp_path / "sweep.json").read_text())
    del found["rows"]
    write_json(tmp_path / "sweep.json", found)
    assert main(["report", f"--workdir={tmp_path}"]) == 2
    assert "sweep.json: has no 'rows'" in capsys.readouterr().err


def test_the_page_needs_nothing_but_itself_and_words_stay_words(tmp_path):
    hostile = "<img src=x onerror=alert(1)> {{ 7 * 7 }} $\\frac$"
    found = made(GRID, KINDS)
    found |= {"task": hostile, "missing": [hostile], "best": hostile}
    found["rows"] = {hostile: found["rows"].pop("alpha=5,beta_2=0.1"), **found["rows"]}
    page = page_of(tmp_path, found)
    assert not {"link", "img", "iframe", "object", "embed"} & set(page.tags)
    assert page.tags.count("script") == 1 and "src" not in dict(page.attributes)  # which sorts tables
    assert page.text.count(hostile) >= 4
    assert not re.search(r"@import|url\((?!#)", page.source) and "#0101" not in page.source
    ids = [value for key, value in page.attributes if key == "id"]
    assert len(ids) == len(set(ids))


def test_drawings_use_the_pages_colours():
    (chart,) = sweep_charts(made(GRID, KINDS)).values()
    assert "#0101" not in chart.svg and set(re.findall(r"var\((--\w+)\)", chart.svg)) <= {*charts.LIGHT}
