"""The commands that read a run, on one in a bucket: a local folder behind gs://."""

import made_up_study
import pytest
from etils.epath import backend, gpath
from test_report import full_run

from score_jax.__main__ import main
from score_jax.records import write_json

URI = "gs://bucket"


class Emulated:
    """epath's backend for a bucket, with what it is asked done below a local folder."""

    def __init__(self, folder):
        self.folder, self.asked = str(folder), set()

    def inside(self, value):
        text = str(value)
        return self.folder + text[len(URI) :] if text.startswith(URI) else value

    def outside(self, value):
        return value.replace(self.folder, URI) if isinstance(value, str) else value

    def __getattr__(self, name):
        method = getattr(backend.os_backend, name)

        def call(*args, **kwargs):
            self.asked.add(name)
            found = method(*map(self.inside, args), **{k: self.inside(v) for k, v in kwargs.items()})
            return [self.outside(each) for each in found] if isinstance(found, list) else found

        return call


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    emulated = Emulated(tmp_path / "bucket")
    (tmp_path / "bucket").mkdir()
    monkeypatch.setitem(gpath._PREFIX_TO_BACKEND, "gs", emulated)
    monkeypatch.setattr(gpath, "_is_tf_installed", lambda: False)  # else TensorFlow would be asked
    monkeypatch.chdir(tmp_path)
    yield emulated
    assert emulated.asked
    assert not (tmp_path / "gs:").exists(), "the bucket was taken for a local folder"


def test_a_run_in_a_bucket_is_shown(bucket, tmp_path, capsys):
    full_run(tmp_path / "bucket" / "run")
    full_run(tmp_path / "local")
    assert main(["report", f"--workdir={URI}/run"]) == 0
    assert f"Report: {URI}/run/report.html" in capsys.readouterr().out
    assert main(["report", f"--workdir={tmp_path / 'local'}"]) == 0
    pages = [(folder / "report.html").read_text() for folder in (tmp_path / "bucket/run", tmp_path / "local")]
    assert pages[0].replace("<title>run", "<title>local").replace("<h1>run", "<h1>local") == pages[1]


def test_a_study_in_a_bucket_is_shown_with_its_figures(bucket, tmp_path):
    (tmp_path / "bucket" / "study").mkdir()
    write_json(f"{URI}/study/study.json", made_up_study.study())
    assert main(["report", f"--workdir={URI}/study"]) == 0
    there = tmp_path / "bucket" / "study"
    assert {"report.html", "table.md", "study.json", "figures"} == {path.name for path in there.iterdir()}
    assert any((there / "figures").iterdir())


def test_a_run_in_a_bucket_is_summed_up(bucket, tmp_path, capsys):
    full_run(tmp_path / "bucket" / "run")
    capsys.readouterr()
    assert main(["summary", f"--workdir={URI}/run"]) == 0
    assert f"solve --workdir={URI}/run" in capsys.readouterr().out


def test_a_run_in_a_bucket_is_exported_as_a_dataset_in_it(bucket, tmp_path):
    full_run(tmp_path / "bucket" / "run")
    assert main(["dataset", f"--workdir={URI}/run", f"--output={URI}/shared/attempts"]) == 0
    assert (tmp_path / "bucket/shared/attempts/README.md").read_text().startswith('---\npretty_name: "run"')


def test_a_folder_that_is_not_in_the_bucket_is_named(bucket, capsys):
    assert main(["report", f"--workdir={URI}/nothing"]) == 2
    assert f"--workdir={URI}/nothing: there is no such folder" in capsys.readouterr().err
