"""The page of a study, from made-up rewards: its numbers stand there, and what is absent is said."""

import copy
import functools
import itertools
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import made_up_study
import pytest
from test_report import Page

from score_jax import charts, paper_tables, study_charts
from score_jax.__main__ import main
from score_jax.percent import percent
from score_jax.records import write_json
from score_jax.study_file import FIGURES, check_study
from score_jax.study_page import counted, write_study_page
from score_jax.study_tables import as_markdown

ROOT = Path(__file__).resolve().parents[1]
PRINTED = ROOT.parent / "shared/paper/tables.json"
DASH = "\N{EN DASH}"
made = functools.cache(made_up_study.study)


def study() -> dict:
    return copy.deepcopy(made())


def page_of(folder: Path, content: dict) -> Page:
    folder.mkdir(exist_ok=True)
    write_json(folder / "study.json", content)
    return Page(write_study_page(folder))


def section(page: Page, key: str) -> str:
    """The source from one heading to the next."""
    start = page.source.index(f'<h2 id="{key}"')
    end = page.source.find("<h2 id=", start + 1)
    return page.source[start : end if end > 0 else None]


def cells(source: str, label: str) -> list[list[str]]:
    """What each cell of a table's row says, number by number."""
    row = next(part for part in source.split("<tr>") if f'<th scope="row">{label}' in part)
    return [
        re.findall(r">\s*([^<>\s][^<>]*?)\s*<", cell)
        for cell in re.findall(r"<td[^>]*>(.*?</span>.*?|.*?)</td>", row.split("</th>")[1], re.DOTALL)
    ]


def words(source: str) -> str:
    return " ".join(re.sub("<[^>]+>", " ", source).split())


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Page:
    return page_of(tmp_path_factory.mktemp("study") / "my_study", study())


def shown(found: dict, signed: bool) -> list[str]:
    joint = " to " if signed else DASH
    return [
        percent(found["mean"], signed),
        joint.join(percent(found[end], signed) for end in ("low", "high")),
        joint.join(percent(end(found["by_seed"]), signed) for end in (min, max)),
    ]


def test_every_methods_numbers_stand_in_the_table_of_all(page):
    for row in (row for row in study()["rows"].values() if "pool" not in row):
        found = cells(section(page, "methods"), row["label"])
        names = ["acc_t1", "acc_t2", "delta", "i_to_c", "c_to_i"]
        for cell, name in zip(found, names, strict=False):
            assert cell == shown(row["statistics"][name], signed=name == "delta"), (row["label"], name)
        gain = row.get("minus_score", {}).get("acc_t2")
        assert found[5] == (shown(gain, signed=True) if gain else [DASH])


@pytest.mark.parametrize("key", made_up_study.TABLES)
def test_the_papers_numbers_stand_beside_ours(page, key):
    source, rows = section(page, key), study()["rows"]
    paper = paper_tables.TABLES[key]
    for name, (_, numbers) in zip(made_up_study.TABLES[key], paper.rows, strict=True):
        if name in rows:
            for cell, number, statistic in zip(
                cells(source, rows[name]["label"]), numbers, paper.statistics, strict=True
            ):
                signed = statistic == "delta"
                printed = percent(number / 100, signed)
                assert cell == [*shown(rows[name]["statistics"][statistic], signed), printed]
    assert f"{paper.model} on {paper.task}: another model and another task" in source


def test_rows_that_are_not_run_are_said(page):
    table = section(page, "table4")
    assert (
        "Still to run: w/ STaR instead of REINFORCE in Stage II (star_stage_two), w/o online turn 1" in table
    )
    assert table.count("<tr>") == 1 + 4
    missing = "star_stage_two/0, offline_first/0, pair_sft_plus/2."
    for part in ("table5", "figure10"):
        assert f"Not measured yet; of the whole study are still to run: {missing}" in section(page, part)
    assert not re.search("<(table|svg)", section(page, "table5") + section(page, "figure10"))
    assert "2 of 3 seeds" in section(page, "table1")
    assert section(page, "methods").count("2 of 3 seeds") == 1


def test_what_was_not_measured_at_all_is_said(tmp_path):
    bare = {key: value for key, value in study().items() if key in ("task", "split", "problems", "seeds")}
    bare["rows"] = {"base": study()["rows"]["base"]}
    page = page_of(tmp_path, bare)
    for key in ("table1", "table2", "table4", "table5", *FIGURES):
        assert "Not measured in this study." in section(page, key)
    assert "Table 3" not in page.text and "Claims" not in page.text and "<svg" not in page.source
    assert cells(section(page, "methods"), "Base model")[0][0] == percent(
        bare["rows"]["base"]["statistics"]["acc_t1"]["mean"]
    )


def test_a_study_of_programs_has_its_table(tmp_path):
    content = study()
    content["tables"]["table3"] = ["base", "self_refine", "pair_sft", "score"]
    content["rows"]["score"]["statistics"]["mbpp_r"] = content["rows"]["score"]["statistics"]["acc_t1"]
    found = cells(section(page_of(tmp_path, content), "table3"), "SCoRe")
    assert found[0] == [*shown(content["rows"]["score"]["statistics"]["acc_t1"], False), "60.6"]
    assert len(found) == 6


def test_claims(page):
    source = section(page, "claims")
    rows = [words(part) for part in source.split("<tr>")[2:]]
    verdicts = ["holds", "does not hold", "not shown"]
    assert [next(v for v in reversed(verdicts) if v in row) for row in rows] == verdicts
    for row, method in zip(rows, ("single_turn", "single_turn", "multi_turn"), strict=True):
        gain = study()["rows"][method]["minus_score"]["acc_t2"]
        assert gain["low"] > 0, "the made-up SCoRe is the better one"
        assert f"{percent(gain['mean'], True)} points" in row
        assert f"{percent(gain['low'], True)} to {percent(gain['high'], True)}" in row
        assert ", ".join(percent(seed, True) for seed in gain["by_seed"]) in row
        assert "n = 60" in row


def test_budgets_that_differ_are_marked(page):
    source = section(page, "budget")
    row = lambda label: words(next(r for r in source.split("<tr>") if f'"row">{label}' in r))
    assert "56,320 0.5 × SCoRe’s" in row("w/o multi-turn training")
    assert "112,640" in row("SCoRe") and "×" not in row("w/o Stage I")
    assert row("Base model").count("none") == 2
    assert f"3.7 0.26 0.20{DASH}0.34" in row("SCoRe")
    assert "pool of 96" in source and "pool of 192" in source


def test_every_stage_says_what_it_was_trained_with(page):
    source = section(page, "budget").split("<details>")[1]
    rows = [[words(c) for c in re.findall(r"<t[hd].*?</t[hd]>", row)] for row in source.split("<tr>")[2:]]
    numbers = ["60", "0.00015", "0", "0.02", "0.5"], ["160", "0.00015", "5", "0.02", "0.28"]
    assert rows == [
        [
            "STaR, D+_STaR",
            "star 1",
            "74",
            "1e-05",
            *[DASH] * 3,
            "right answers kept, too, sampled at temperature 1",
        ],
        ["SCoRe", "stage one", *numbers[0], ""],
        ["SCoRe", "stage two", *numbers[1], "β₁ × (1 + α)"],
        [
            *("Multi-turn RL", "rl", *numbers[1][:2], "0", *numbers[1][3:]),
            "50% of first attempts given, critiques trained, 3 attempts",
        ],
        ["w/o multi-turn training", "rl", *numbers[0], "β₂ adapted, 1 attempt"],
        [
            *("w/o Stage I", "both", "220", "0.00015", "0 → 5", "0.02 → 0.02", "0.5 → 0.28"),
            "β₁ × (1 + α), γ 0.8, tokens after the answer paid, too",
        ],
    ]


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("figure1", "Temperature 0.7. n = 60 × 3 seeds."),
        ("figure4", "n = 60 × 3 seeds."),
        ("figure5", None),
        ("pool", "n = "),
    ],
)
def test_figures_say_of_how_many_problems_they_are(page, key, said):
    lead = words(re.search(r'<p class="lead">(.*?)</p>', section(page, key), re.DOTALL)[1])
    assert (said in lead) if said else ("n = " not in lead)


def test_problems_and_seeds_that_differ_are_given_as_a_range():
    found = [{"by_seed": [0.1] * seeds, "n": n} for n, seeds in ((40, 2), (1200, 3), (60, 3))]
    assert counted({"a": found[:1], "b": {"c": found[1:]}}) == f"n = 40{DASH}1,200 × 2{DASH}3 seeds."
    assert counted({"a": [{"by_seed": [0.1], "n": 9}]}) == "n = 9 × 1 seed."
    assert counted({"edges": [0.1, 0.2]}) == counted(None) == ""


def test_the_validation_split_has_its_own_numbers(page):
    source = section(page, "methods").split("<details>")[1]
    found = cells(source, "SCoRe")
    assert found[1] == shown(study()["rows"]["score"]["validation"]["acc_t2"], False)
    assert "problems</small>" not in source, "40 problems is what that split has"


def test_rows_of_other_problems_say_so(tmp_path):
    content = study()
    for found in content["rows"]["star"]["statistics"].values():
        found["n"] = 12
    page = page_of(tmp_path, content)
    assert re.search(r"STaR, D_STaR <small>12 problems</small>", section(page, "table1"))


def test_every_drawing_speaks_and_is_written_as_a_file(page, tmp_path):
    content = study()
    page = page_of(tmp_path / "s", content)
    names = {path.stem for path in (tmp_path / "s" / "figures").iterdir()}
    drawn = made_up_study.DRAWN
    each = {f"{figure}-{name}" for figure in ("figure3", "figure5", "figure7") for name in drawn}
    each |= {f"figure4-{name}" for name in drawn[:2]}
    assert names == each | {"figure1", "figure5-changed", "figure8", "pool-acc_t1", "pool-acc_t2"}
    assert page.tags.count("svg") == len(names)
    changed = (tmp_path / "s" / "figures" / "figure5-changed.svg").read_text()
    assert "stage two" in changed, "the one method in stages shows them"
    spoken = [value for key, value in page.attributes if key == "aria-label" and ": " in value]
    point = content["figures"]["figure8"]["score"]
    said = f"SCoRe: {point[0]['mean']:.1%} at 1, {point[-1]['mean']:.1%} at 10"
    assert any(text.startswith("Accuracy at each attempt") and said in text for text in spoken)
    point = content["figures"]["figure1"]["corrected"]
    assert any(f"half of them corrections: {point[0]['mean']:.1%} at 2" in text for text in spoken)
    level = content["figures"]["figure7"]["score"]
    said = f"level 2: corrected {level['i_to_c'][1]['mean']:.1%}, spoiled {level['c_to_i'][1]['mean']:.1%}"
    assert any(said in text for text in spoken)


def test_curves_of_training_show_how_far_the_seeds_lie_apart(page):
    bands = lambda text: len(re.findall(r'id="figure5-score-FillBetweenPolyCollection_\d+"', text))
    assert bands(section(page, "figure5")) == 2 * 2, "two attempts in two stages"


def test_files_of_drawings_stand_alone(page, tmp_path):
    page_of(tmp_path / "s", study())
    for path in (tmp_path / "s" / "figures").iterdir():
        source = path.read_text()
        root = ElementTree.fromstring(source)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "var(" not in source and "#0101" not in source
        assert not re.search(r"url\((?!#)|@import|<script", source)
        left, top, width, height = map(float, root.attrib["viewBox"].split())
        background = root[0]
        assert background.tag.endswith("rect") and charts.LIGHT["--paper"] in background.attrib["style"]
        assert [float(background.attrib[k]) for k in ("x", "y", "width", "height")] == [
            left,
            top,
            width,
            height,
        ]
        ids = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
        assert len(ids) == len(set(ids))


def test_a_drawings_titles_stand_in_its_file(tmp_path):
    page_of(tmp_path, study())
    root = ElementTree.parse(tmp_path / "figures" / "figure7-score.svg").getroot()
    words = [element.text for element in root.iter() if element.tag.endswith("}text")]
    assert words[:2] == ["SCoRe", "Corrected and spoiled, by level of difficulty"]


def test_the_colours_of_files_are_the_pages_light_ones():
    style = (ROOT / "score_jax" / "page.html.j2").read_text().split(":root {")[1].split("}")[0]
    page = dict(re.findall(r"(--\w+): ([^;]+);", style))
    for name, value in charts.LIGHT.items():
        assert page[name].replace('"', "'") == value


def test_the_page_needs_nothing_but_itself(page):
    assert not {"link", "img", "iframe", "object", "embed"} & set(page.tags)
    assert page.tags.count("script") == 1 and "src" not in dict(page.attributes)  # which sorts tables
    assert not re.search(r"@import|url\((?!#)", page.source)
    assert 'http-equiv="refresh"' not in page.source
    ids = [value for key, value in page.attributes if key == "id"]
    assert len(ids) == len(set(ids))
    assert "#0101" not in page.source


def test_hostile_words_stay_words(tmp_path):
    hostile = "<img src=x onerror=alert(1)> {{ 7 * 7 }} $\\frac$"
    content = study()
    content |= {"task": hostile, "setting": {hostile: hostile}, "missing": [hostile]}
    content["rows"]["score"]["label"] = content["claims"][0]["claim"] = hostile
    page = page_of(tmp_path, content)
    assert "img" not in page.tags
    assert page.text.count(hostile) > 10


def test_the_report_command_writes_the_page(tmp_path, capsys):
    write_json(tmp_path / "study.json", study())
    assert main(["report", f"--workdir={tmp_path}"]) == 0
    assert str(tmp_path / "report.html") in capsys.readouterr().out
    assert "What each was given" in (tmp_path / "report.html").read_text()


def test_the_markdown_table_has_every_method_in_order():
    content = study()
    lines = as_markdown(content).split("\n")
    rows = [row for row in content["rows"].values() if "pool" not in row]
    assert lines[0].startswith("| 60 problems, 3 seeds | Acc@t1 | Acc@t2 | Δ | i→c | c→i | Acc@t2 by seed |")
    assert len({line.count("|") for line in lines}) == 1
    for line, row in zip(lines[2:], rows, strict=True):
        found = row["statistics"]
        label, *rest, by_seed, gain = (cell.strip() for cell in line.strip("|").split("|"))
        assert label == row["label"]
        for cell, name in zip(rest, ("acc_t1", "acc_t2", "delta", "i_to_c", "c_to_i"), strict=True):
            numbers = [float(n.replace("\N{MINUS SIGN}", "-")) for n in re.findall(r"[+\u2212]?[\d.]+", cell)]
            shown = found.get(f"{name}_t1_t2", found[name])  # of three attempts the first two
            wanted = [100 * shown[key] for key in ("mean", "low", "high")]
            assert numbers == pytest.approx(wanted, abs=0.0501)
        assert by_seed == ", ".join(f"{100 * x:.1f}" for x in found["acc_t2"]["by_seed"])
        assert bool(gain) == ("minus_score" in row)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("rows"), "has no 'rows'"),
        (lambda s: s["rows"]["score"].pop("label"), "rows.score has no 'label'"),
        (lambda s: s["rows"].update({"a/b": s["rows"]["base"]}), "rows has 'a/b'; name rows with"),
        (lambda s: s["rows"]["base"]["statistics"]["acc_t1"].pop("low"), "rows.base.statistics.acc_t1 is"),
        (
            lambda s: s["rows"]["base"]["statistics"]["acc_t1"].update(mean=float("nan")),
            "rows.base.statistics.acc_t1 is",
        ),
        (lambda s: s["tables"].update(table9=[]), "tables has 'table9'; known are table1"),
        (lambda s: s["tables"]["table1"].pop(), "tables.table1 has 4 rows; the paper's has 5"),
        (lambda s: s["figures"].update(figure2={}), "figures has 'figure2'; known are figure1"),
        (lambda s: s["figures"]["figure8"].update(x=[]), "figures.figure8 has 'x', which rows has not"),
        (lambda s: s["figures"]["figure3"]["test"].update(x=[]), "figures.figure3 has 'x', which rows"),
    ],
)
def test_a_faulty_study_is_refused_by_the_name_of_its_field(change, message):
    content = study()
    check_study(content)
    change(content)
    with pytest.raises(ValueError, match=re.escape(f"study.json: {message}")):
        check_study(content)


def test_no_study_at_all_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no study.json; run the study first"):
        write_study_page(tmp_path)


def test_every_figure_can_be_drawn_and_is_known():
    assert set(study_charts.DRAW) == set(FIGURES)


def test_many_curves_are_told_apart_and_their_names_do_not_touch():
    labels = {name: f"method {name}" for name in "abcdefgh"} | {"score": "SCoRe"}
    point = {"mean": 0.5, "low": 0.4, "high": 0.6}
    series = study_charts.method_series({name: ([1, 2], [point, point]) for name in labels}, labels)
    assert next(iter(series)) == "score"
    assert len({(one.colour, one.dashed) for one in series.values()}) == len(labels)
    svg = study_charts.estimate_curve("x", "All alike", [*series.values()], "step").svg
    root = ElementTree.fromstring(svg)
    named = [element for element in root.iter("text") if "method" in (element.text or "")]
    places = sorted(float(element.attrib["y"]) for element in named)
    assert len(places) == 8
    assert min(b - a for a, b in itertools.pairwise(places)) > 11  # units of a font 10 high
    assert places[0] > 0 and places[-1] < float(root.attrib["viewBox"].split()[3])


@pytest.mark.skipif(not PRINTED.exists(), reason="the paper's tables are not at hand")
def test_the_papers_numbers_are_as_printed():
    printed = json.loads(PRINTED.read_text())
    for key, table in paper_tables.TABLES.items():
        (rows,) = [rows for name, rows in printed.items() if name.split("_")[0] == key]
        found = [dict(zip(table.statistics, numbers, strict=True)) for _, numbers in table.rows]
        assert found == [{k: v for k, v in row.items() if k != "method"} for row in rows], key
    assert (
        printed["inference_scaling_math"]["parallel_plus_correction_gain"] == paper_tables.FIGURE_1_CORRECTED
    )
    assert printed["inference_scaling_math"]["parallel_gain"] == paper_tables.FIGURE_1_PARALLEL
    assert list(paper_tables.FIGURE_7_I_TO_C) == printed["fig7_by_level"]["i_to_c"]
    assert list(paper_tables.FIGURE_7_C_TO_I) == printed["fig7_by_level"]["c_to_i"]


@pytest.mark.parametrize("key", paper_tables.TABLES)
def test_the_papers_numbers_agree_with_each_other(key):
    table = paper_tables.TABLES[key]
    for method, numbers in table.rows:
        row = dict(zip(table.statistics, numbers, strict=True))
        if "delta" in row:
            assert row["delta"] == pytest.approx(row["acc_t2"] - row["acc_t1"], abs=0.051), method
        if "i_to_c" in row:
            assert row["delta"] == pytest.approx(row["i_to_c"] - row["c_to_i"], abs=0.11), method
