"""The folder for Hugging Face's `datasets`."""

import json

import pytest
import yaml
from test_summary import row, write

from score_jax import records
from score_jax.__main__ import main


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def folder(tmp_path):
    workdir = tmp_path / "run"
    workdir.mkdir()
    base = [row("base", name, [float(name == "a"), 0.0]) for name in "abcd"]
    trained = [row("stage_two", name, [0.0, 1.0]) | {"subject": "maths: | *hard*"} for name in "abcd"]
    write(workdir, base, trained)
    (workdir / "config.json").write_text('{"task": "my_task:Mine", "stage2": {"alpha": 5.0}}')
    assert main(["dataset", f"--workdir={workdir}", f"--output={tmp_path / 'out'}"]) == 0
    return tmp_path / "out"


def test_the_card_names_the_files_of_every_evaluation(folder):
    _, head, text = (folder / "README.md").read_text().split("---\n", 2)
    configs = yaml.safe_load(head)["configs"]
    assert [config["config_name"] for config in configs] == ["base", "stage_two", "results"]
    for config in configs[:2]:
        ((split, path),) = [(part["split"], part["path"]) for part in config["data_files"]]
        assert split == "test"
        assert {line["checkpoint"] for line in read_lines(folder / path)} == {config["config_name"]}
    assert len(read_lines(folder / configs[2]["data_files"])) == 2
    assert "| base | test | 4 | 25.0 | 0.0 | -25.0 | 0.0 | 25.0 |" in text
    assert "| stage_two | test | 4 | 0.0 | 100.0 | 100.0 | 100.0 | 0.0 |" in text
    assert 'split="train")` reads it' in text
    assert "- `task`: my_task:Mine" in text and "- `stage2.alpha`: 5.0" in text
    fields = {line.split("`")[1] for line in text.splitlines() if line.startswith("| `")}
    assert fields == set(read_lines(folder / "attempts" / "stage_two.jsonl")[0])


def test_all_rows_of_an_evaluation_have_the_same_fields(tmp_path):
    """`datasets` takes the columns from the first rows."""
    plain, noted = row("base", "a", [0.0, 1.0]), row("base", "b", [1.0, 1.0]) | {"notes": [{"late": 1.0}, {}]}
    write(tmp_path, [plain, noted])
    assert main(["dataset", f"--workdir={tmp_path}", f"--output={tmp_path / 'out'}"]) == 0
    lines = read_lines(tmp_path / "out/attempts/base.jsonl")
    assert [*lines[0]] == [*lines[1]]
    assert [line["notes"] for line in lines] == [None, noted["notes"]]


def test_what_could_not_be_written_does_not_stand_in_the_way_of_the_next_try(folder, tmp_path, monkeypatch):
    command = ["dataset", f"--workdir={tmp_path / 'run'}", f"--output={tmp_path / 'again'}"]

    def full(path, _):
        raise records.Unwritable(path, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("score_jax.dataset.write_text", full)
        assert main(command) == 74
    assert not (tmp_path / "again").exists()
    assert main(command) == 0
    assert (tmp_path / "again" / "README.md").read_text() == (folder / "README.md").read_text()


def test_a_row_of_results_has_the_ends_of_its_intervals(folder):
    base, trained = read_lines(folder / "results.jsonl")
    assert (base["checkpoint"], base["acc_t1"], trained["acc_t2"]) == ("base", 0.25, 1.0)
    assert base["acc_t1_low"] <= 0.25 <= base["acc_t1_high"]
    assert all(not isinstance(value, dict | list) for value in base.values())


def test_the_split_of_another_task_is_one_word(tmp_path):
    write(tmp_path, [row("base", "a", [1.0, 0.0]) | {"split": "MBPPR test"}])
    assert main(["dataset", f"--workdir={tmp_path}", f"--output={tmp_path / 'out'}"]) == 0
    head = (tmp_path / "out" / "README.md").read_text().split("---\n", 2)[1]
    assert yaml.safe_load(head)["configs"][0]["data_files"][0]["split"] == "MBPPR_test"


def test_every_attempt_has_its_accuracy_on_the_card(tmp_path):
    three = row("best", "a", [0.0, 0.0, 1.0], ("it is 8", "it is 9", "it is 10")) | {"finished": [True] * 3}
    write(tmp_path, [row("base", "a", [1.0, 0.0])], [three])
    assert main(["dataset", f"--workdir={tmp_path}", f"--output={tmp_path / 'out'}"]) == 0
    text = (tmp_path / "out" / "README.md").read_text()
    assert "| acc_t1 | acc_t2 | acc_t3 | delta |" in text
    assert "| base | test | 1 | 100.0 | 0.0 |  | -100.0 |" in text
    assert "| best | test | 1 | 0.0 | 0.0 | 100.0 | 100.0 |" in text


def test_a_folder_that_is_there_is_left_alone(folder, capsys):
    before = (folder / "README.md").read_text()
    assert main(["dataset", f"--workdir={folder.parent / 'run'}", f"--output={folder}"]) == 2
    assert "is there already; name a new folder" in capsys.readouterr().err
    assert (folder / "README.md").read_text() == before


def test_nothing_evaluated_ends_in_one_line(tmp_path, capsys):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "stage": "stage_one"}\n')
    assert main(["dataset", f"--workdir={tmp_path}", f"--output={tmp_path / 'out'}"]) == 2
    assert "nothing was evaluated there yet" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
