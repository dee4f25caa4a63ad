"""What a user can get wrong: it ends in one line that names it and its mend, exit code 2, and no compute."""

import pytest
import tiny
from published_rows import GSM8K, JSONL, write
from small_runs import options

from score_jax import pretrain, rl, sampling, sft
from score_jax.__main__ import main
from score_jax.task import Task
from score_jax.types import Problem


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("shared")


@pytest.fixture
def refusal(tmp_path, shared, monkeypatch, capfd):
    """Calls main and returns the one line that it ends with."""

    def computed(*args, **kwargs):
        raise AssertionError("something was computed")

    for module, name in (
        (pretrain, "sft_step"), (sft, "sft_step"), (rl, "train_step"), (sampling, "sample"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, computed)

    def there():
        """What Python keeps of a config that it has compiled is none of ours."""
        return {path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts}

    def call(*args: str) -> str:
        before = there()
        capfd.readouterr()
        try:
            code = main(list(args))
        except SystemExit as end:
            code = end.code
        said = capfd.readouterr()
        lines = [line for line in said.err.splitlines() if "oneDNN" not in line and "absl::" not in line]
        assert code == 2, said
        assert len(lines) == 1 and lines[0].startswith("score_jax"), said.err
        assert there() == before, "something was left"
        return lines[0]

    return call


def assert_said(line: str, *parts: str):
    assert [part for part in parts if part not in line] == [], line


def train(tmp_path, shared, config="configs/quickstart.py", **changes):
    """The arguments of a small run; '__' in a field's name stands for a dot."""
    fields = {"base_dir": tmp_path / "base", "data_dir": shared / "data", "tokenizer.texts": 200} | changes
    return ["train", f"--workdir={tmp_path / 'run'}", *options(tmp_path, config, **fields)]


FIELDS = {
    # A value of another kind.
    "seed=one": "seed",
    "stage1.steps=2.5": "stage1.steps",
    "stage2.alpha=much": "stage2.alpha",
    "remat=perhaps": "remat",
    "files.train=a": ("config.files.train: this config reads no such file", "into it"),
    # A field that there is not.
    "stage2.alfa=5": ("config.stage2.alfa: no such field", "did you mean stage2.alpha?"),
    "stage2=3": ("config.stage2: no such field; stage2 is a section, its fields are stage2.", "stage2.alpha"),
    "learning_rate=1": ("config.learning_rate: no such field", "did you mean"),
    # Out of range.
    "seed=-1": ("config.seed = -1", "[0, 2**31)"),
    "stage2.alpha=-1": ("config.stage2.alpha = -1.0", "must not be negative"),
    "stage1.alpha=3": ("config.stage1.alpha = 3.0", "has no effect on the objective stage_one; set it to 0"),
    "stage1.beta_1=-0.1": ("config.stage1.beta_1 = -0.1", "must not be negative"),
    "stage1.beta_2=-0.1": ("config.stage1.beta_2 = -0.1", "must not be negative"),
    "stage2.beta_1=nan": ("config.stage2.beta_1 = nan", "a finite number"),
    "stage2.learning_rate=0": ("config.stage2.learning_rate = 0.0", "greater than 0"),
    "stage2.learning_rate=inf": ("config.stage2.learning_rate = inf", "a finite number"),
    "stage2.learning_rate=nan": ("config.stage2.learning_rate = nan", "a finite number"),
    "stage2.steps=0": ("config.stage2.steps = 0", "greater than 0"),
    "stage2.attempts=0": ("config.stage2.attempts = 0", "greater than 0"),
    "stage2.samples_factor=0": ("config.stage2.samples_factor = 0", "greater than 0"),
    "stage2.warmup_steps=-1": ("config.stage2.warmup_steps = -1", "must not be negative"),
    "stage2.hold=1.5": ("config.stage2.hold = 1.5", "must lie in [0, 1]"),
    "stage2.discount=1.5": ("config.stage2.discount = 1.5", "must lie in [0, 1]"),
    "stage2.discount=0.5": ("config.stage2.discount = 0.5", "set config.decisive_only=False"),
    "stage2.offline=2": ("config.stage2.offline = 2.0", "[0, 1]"),
    "stage2.offline=0.3": ("config.stage2.offline = 0.3", "no whole number; change either"),
    "stage1.adapt_beta_2=-1": ("config.stage1.adapt_beta_2 = -1.0", "must not be negative"),
    "samples_per_problem=1": ("config.samples_per_problem = 1", "RLOO needs at least 2 samples"),
    "problems_per_step=0": ("config.problems_per_step = 0", "greater than 0"),
    "problems_per_step=7": ("config.problems_per_step gives 14 rows", "make it a multiple of 8"),
    "micro_batches=3": ("config.micro_batches = 3", "must divide problems_per_step = 8"),
    "rollout_parts=3": ("config.rollout_parts = 3", "must divide problems_per_step = 8"),
    "micro_batches=8": ("config.micro_batches gives 2 rows", "make it a multiple of 8"),
    "rollout_parts=4": ("config.rollout_parts gives 4 rows", "make it a multiple of 8"),
    "pretrain.batch=12": ("config.pretrain.batch gives 12 rows", "make it a multiple of 8"),
    "mesh.data=3": ("config.mesh has data=3", "8 devices; give sizes whose product is 8"),
    "mesh.fsdp=0": ("config.mesh.fsdp = 0", "greater than 0, or -1"),
    "mesh.tensor=-1": ("config.mesh.data = -1: so has config.mesh.tensor", "only one of the mesh's axes"),
    "train_problems=-4": ("config.train_problems = -4", "must not be negative"),
    "train_problems=10000": ("config.train_problems = 10000", "6336 problems; choose at most that"),
    "evaluate.problems=2000": ("config.evaluate.problems = 2000", "1056 problems; choose at most that"),
    "evaluate.split=tset": ("config.evaluate.split = 'tset'", "choose one of train, validation, test"),
    "evaluate.temperature=-1": ("config.evaluate.temperature = -1.0", "must not be negative"),
    "evaluate.critique=True": ("config.evaluate.critique = True", "config.slots.critique = 0"),
    "temperature=0": ("config.temperature = 0.0", "must be greater than 0 to explore"),
    "kl_estimator=k4": ("config.kl_estimator = 'k4'", "choose one of k1, k2, k3, full"),
    "train_dtype=float16": ("config.train_dtype = 'float16'", "choose one of float32, bfloat16"),
    "model.dtype=flot32": ("config.model.dtype = 'flot32'", "choose one of float32, bfloat16"),
    "lora_rank=-1": ("config.lora_rank = -1", "must not be negative"),
    "checkpoint_every=0": ("config.checkpoint_every = 0", "greater than 0"),
    "max_skipped=0": ("config.max_skipped = 0", "greater than 0"),
    "score_chunk=0": ("config.score_chunk = 0", "greater than 0"),
    "log.every=0": ("config.log.every = 0", "greater than 0"),
    "alarms.window=0": ("config.alarms.window = 0", "greater than 0"),
    "alarms.unparsed_max=2": ("config.alarms.unparsed_max = 2.0", "must lie in [0, 1]"),
    "alarms.kl_max=-3": ("config.alarms.kl_max = -3.0", "greater than 0"),
    "optimizer.clip_norm=0": ("config.optimizer.clip_norm = 0.0", "greater than 0"),
    "optimizer.b1=1": ("config.optimizer.b1 = 1.0", "must lie in [0, 1)"),
    "optimizer.weight_decay=-1": ("config.optimizer.weight_decay = -1.0", "must not be negative"),
    "pretrain.warmup=2": ("config.pretrain.warmup = 2.0", "[0, 1]"),
    "pretrain.guess.steps=0": ("config.pretrain.guess.steps = 0", "greater than 0"),
    "pretrain.guess.unlearned=-0.5": ("config.pretrain.guess.unlearned = -0.5", "[0, 1]"),
    "pretrain.phases=('gess',)": ("config.pretrain.phases", "there is no section config.pretrain.gess"),
    "stages=('stage1','stage9')": ("config.stages", "there is no section config.stage9"),
    "stages=('stage1','stage1')": ("config.stage1.name = 'stage_one'", "another stage has this name"),
    "stage1.name=a/b": ("config.stage1.name = 'a/b'", "write it in letters, digits, - and _"),
    "stage1.objective=ppo": ("config.stage1.objective = 'ppo'", "choose one of stage_one, stage_two"),
    "stage1.start=last": ("config.stage1.start = 'last'", "choose one of previous, base"),
    "stage2.reference=three": ("config.stage2.reference = 'three'", "choose one of base, stage_one"),
    "model.layers=0": ("config.model.layers = 0", "greater than 0"),
    "model.kv_heads=3": ("config.model.kv_heads = 3", "must divide model.heads = 2"),
    "model.head_width=7": ("config.model.head_width = 7", "must be even"),
    "model.name=Gemma9": ("config.model.checkpoint is missing", "quickstart.released shows"),
    "tokenizer.vocab_size=9": ("config.tokenizer.vocab_size = 9", "no vocabulary of that size"),
    "tokenizer.vocab_size=99999": ("config.tokenizer.vocab_size = 99999", "no vocabulary of that size"),
    # Slots.
    "slots.prompt=0": ("config.slots.prompt = 0", "greater than 0"),
    "slots.prompt=4": ("config.slots.prompt = 4", "prompts are longer", "train with config.slots.prompt = "),
    "slots.attempt=3": ("config.slots.attempt = 3", "raise config.slots.attempt to"),
    "slots.critique=-1": ("config.slots.critique = -1", "must not be negative"),
    # Tasks and files.
    "task=no.such:Task": ("config.task = 'no.such:Task'", "write it as 'package.module:Class'"),
    "task=score_jax.task:Answer": ("config.task", "is not a subclass of score_jax.task.Task"),
    "task=tiny": ("config.task = 'tiny'", "write it as 'package.module:Class'"),
    "evaluate.task=no.such:Task": ("config.evaluate.task = 'no.such:Task'", "package.module:Class"),
    "task=test_bad_input:Empty": ("config.train_problems", "the split has no problems; name a task or files"),
    "task=score_jax.datasets.gsm8k:GSM8K": ("config.files.train = ''", "give the path of"),
}  # fmt: skip


class Empty(tiny.Riddles):
    def problems(self, split):
        return []


@pytest.mark.parametrize("field", FIELDS)
def test_a_field(field, refusal, tmp_path, shared):
    said = FIELDS[field]
    args = train(tmp_path, shared, **({"train_problems": 0} if "Empty" in field else {}))
    assert_said(refusal(*args, f"--config.{field}"), *((said,) if isinstance(said, str) else said))


FILES = {
    "config.stages = 'stage1'": ("mine.py: ", "'stages'", "mend the file"),
    "config.slots = ml_collections.ConfigDict({'prompt': '13', 'attempt': 13, 'critique': 0})": (
        "config.slots.prompt = '13'", "a whole number",
    ),
    "config.stage2 = ml_collections.ConfigDict(config.stage2.to_dict() | {'steps': 2.5})": (
        "config.stage2.steps = 2.5", "a whole number",
    ),
    "config.stage2 = ml_collections.ConfigDict(config.stage2.to_dict() | {'scale_kl': 1})": (
        "config.stage2.scale_kl = 1", "True or False",
    ),
    "config.stage2 = 3": ("mine.py: ", "'stage2'", "mend the file"),
    "config.stage2.alfa = 3.0": ("config.stage2.alfa: no such field", "did you mean stage2.alpha?"),
    "config.bata = 1": ("config.bata: no such field", "did you mean"),
    "del config.slots": ("config.slots.prompt is missing", "configs/quickstart.py shows"),
    "del config.stage2['beta_1']": ("config.stage2.beta_1 is missing", "configs/quickstart.py shows"),
    "del config.alarms": ("config.alarms.window is missing", "configs/quickstart.py shows"),
    "config.files = 3": ("mine.py: ", "'files'", "mend the file"),
    "config.files.train = 3": ("config.files.train = 3", "must be the path of a file"),
    "config.pretrain.phases = ('guess', 3)": ("config.pretrain.phases", "a tuple of texts"),
    "config.seed = True": ("config.seed = True", "a whole number"),
    "config.seed = config.sead": ("mine.py: ", "sead", "mend the file"),
    "config = None": ("mine.py: get_config() returned no ml_collections.ConfigDict", "mend the file"),
    "import no_such_module": ("mine.py: ", "No module named 'no_such_module'", "mend the file"),
    "config.seed = = 3": ("mine.py: ", "invalid syntax", "mend the file"),
    "raise OSError('gone')": ("mine.py: ", "a file that it opens cannot be read", "mend the file"),
    "config.seed = 1 / 0": ("mine.py: ", "ZeroDivisionError", "mend the file"),
}  # fmt: skip


@pytest.mark.parametrize("line", FILES)
def test_a_config_file(line, refusal, tmp_path):
    path = tmp_path / "mine.py"
    head = "import ml_collections\nfrom configs import quickstart\n\ndef get_config():\n"
    path.write_text(f"{head}    config = quickstart.get_config()\n    {line}\n    return config\n")
    assert_said(refusal("train", f"--config={path}", f"--workdir={tmp_path / 'run'}"), *FILES[line])


@pytest.mark.parametrize("text", ["", "get_config = 3\n", "\x00\x01"])
def test_a_file_that_is_no_config(text, refusal, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(text)
    assert_said(refusal("train", f"--config={path}", f"--workdir={tmp_path / 'run'}"), "mine.py")


ROWS = {
    "not JSON": (["{"], ["train.jsonl:1", "not JSON", "mend the line"]),
    "no object": ([JSONL, "[1]"], ["train.jsonl:2", "no JSON object", "mend the line"]),
    "no answer": ([{"problem": "P"}], ["train.jsonl:1", "no field 'answer'"]),
    "a number": ([JSONL | {"answer": 3}], ["train.jsonl:1", "answer = 3", "must be of type str"]),
    "empty": ([JSONL | {"answer": " "}], ["train.jsonl:1", "gold answer is empty", "write it into the row"]),
    "twice": ([JSONL | {"id": "a"}] * 2, ["train.jsonl:2", "'a'", "the same id; give each problem one"]),
    "level": ([JSONL | {"level": 0}], ["train.jsonl:1", "level = 0", "1 is the easiest"]),
    "no rows": ([], ["config.files.train", "it holds no rows"]),
}


def with_files(tmp_path, data, **files):
    """The arguments of a run of JSONL files."""
    fields = {"task": "score_jax.datasets.jsonl:Jsonl", "data_dir": data, "mesh.data": -1, "mesh.fsdp": 1}
    fields |= {f"files.{name}": path for name, path in files.items()}
    args = [f"--config.{name}={value}" for name, value in fields.items()]
    return ["train", "--config=configs/gsm8k_gemma3_1b.py", f"--workdir={tmp_path / 'run'}", *args]


@pytest.mark.parametrize("name", ROWS)
def test_rows(name, refusal, tmp_path, tmp_path_factory):
    rows, said = ROWS[name]
    path = write(tmp_path / "train.jsonl", rows)
    assert_said(refusal(*with_files(tmp_path, tmp_path_factory.mktemp("data"), train=path)), *said)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.jsonl", None, ["there is no such file", "give the path of"]),
        ("folder", "", ["there is no such file", "give the path of"]),
        ("latin.jsonl", b'{"problem": "\xe9"}', ["latin.jsonl", "cannot be read", "fetch the file again"]),
        ("torn.jsonl.gz", b"\x1f\x8b\x08", ["torn.jsonl.gz", "cannot be read", "fetch the file again"]),
    ],
)
def test_files(name, content, said, refusal, tmp_path, tmp_path_factory):
    path = tmp_path / name
    if content:
        path.write_bytes(content)
    elif content is not None:
        path.mkdir()
    assert_said(refusal(*with_files(tmp_path, tmp_path_factory.mktemp("data"), train=path)), *said)


def test_a_file_that_the_task_does_not_read(refusal, tmp_path, shared):
    args = train(tmp_path, shared)
    assert_said(refusal(*args, "--config.evaluate.files.tset=a"), "evaluate.files.tset")


class Silent(tiny.Riddles):
    def demonstration(self, problem, rng):
        return Task.demonstration(self, problem, rng)


def test_a_task_without_demonstrations(refusal, tmp_path, shared):
    line = refusal(*train(tmp_path, shared, task="test_bad_input:Silent"))
    assert_said(line, "config.task: Silent has no demonstrations", "set config.model = quickstart.released")


class Long(tiny.Riddles):
    """Test problems with long prompts; 25 of them, so that a message cannot list them all."""

    def problems(self, split):
        problems = super().problems(split)
        if split != "test":
            return problems
        return [Problem(f"long/{n}", "many " * (20 + n), gold="1") for n in range(25)] + list(problems[:5])


def test_prompts_that_are_too_long_are_counted_and_listed(refusal, tmp_path, shared):
    """Those of the test split, too, before anything is trained."""
    line = refusal(*train(tmp_path, shared, task="test_bad_input:Long"))
    assert_said(
        line, "config.slots.prompt = 13: 20 of 20 prompts are longer", "'long/19' with ", "'long/0' with"
    )
    line = refusal(*train(tmp_path, shared, task="test_bad_input:Long", evaluate__problems=0))
    assert_said(line, "25 of 30 prompts are longer ('long/24' with ", " and 5 more tokens); shorten them")


@pytest.fixture(scope="module")
def gemma_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gemma")
    for version in (2, 3):
        tiny.released_tokenizer(folder / f"tokenizer{version}.model", version)
    (folder / "garbage.model").write_bytes(b"garbage")
    (folder / "checkpoint").mkdir()
    write(folder / "train.jsonl", [GSM8K | {"question": f"{n} pears and 3?"} for n in range(8)])
    write(folder / "test.jsonl", [GSM8K | {"question": f"{n} plums and 3?"} for n in range(8)])
    return folder


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tokenizer": "none"}, ["config.model.tokenizer", "no such file", "--config.model.tokenizer=FILE"]),
        ({"tokenizer": ""}, ["config.model.tokenizer = ''", "no such file"]),
        ({"tokenizer": "garbage.model"}, ["config.model.tokenizer", "not a SentencePiece file"]),
        ({"tokenizer": "tokenizer2.model"}, ["config.model.tokenizer", "not the tokenizer of TinyGemma3"]),
        (
            {"checkpoint": "none"},
            ["config.model.checkpoint", "no such folder", "give an official"],
        ),
        (
            {"checkpoint": "checkpoint"},
            ["config.model.checkpoint", "not a checkpoint that the gemma"],
        ),
        ({"name": "Gemma9_1T"}, ["config.model.name = 'Gemma9_1T'", "name one of Gemma2"]),
        ({"chat": "maybe"}, ["model.chat"]),
    ],
    ids=str,
)
def test_released_models(changes, said, refusal, gemma_files, tmp_path):
    fields = {
        "name": "tiny:TinyGemma3",
        "tokenizer": "tokenizer3.model",
        "checkpoint": "checkpoint",
    } | changes
    for name in ("tokenizer", "checkpoint"):
        fields[name] = fields[name] and gemma_files / fields[name]
    given = {"data_dir": gemma_files / "data", "problems_per_step": 8, "samples_per_problem": 2}
    given |= {
        "micro_batches": 1,
        "train_problems": 0,
        "mesh.data": -1,
        "mesh.fsdp": 1,
        "evaluate.problems": 0,
    }
    given |= {f"files.{split}": gemma_files / f"{split}.jsonl" for split in ("train", "test")}
    given |= {f"model.{name}": value for name, value in fields.items()}
    args = [f"--config.{name}={value}" for name, value in given.items()]
    head = ["train", "--config=configs/gsm8k_gemma3_1b.py", f"--workdir={tmp_path / 'run'}"]
    assert_said(refusal(*head, *args), *said)


COMMANDS = {
    "": ["the following arguments are required: COMMAND", "--help"],
    "tarin": ["invalid choice: 'tarin'", "did you mean train?", "--help"],
    "xyz": ["invalid choice: 'xyz'", "--help"],
    "train --config=configs/quickstart.py --workdir={}/run --config.stage2.alpha=ten": [
        "config.stage2.alpha = 'ten': must be a number, as 5.0"
    ],
    "train --config=configs/quickstart.py --workdir={}/run --config.seed=1.5": [
        "config.seed = '1.5': must be a whole number, as 0"
    ],
    "train --config=configs/quickstart.py --workdir={}/run --config.stage2.scale_kl=maybe": [
        "config.stage2.scale_kl = 'maybe': must be true or false, as True"
    ],
    "train --workdir={}/run": ["required: --config", "--help"],
    "train --config=configs/quickstart.py": ["required: --workdir", "--help"],
    "train --config=configs/none.py --workdir={}/run": ["--config=configs/none.py: no such file", "configs/"],
    "train --config=configs --workdir={}/run": ["--config=configs: no such file"],
    "train --config=configs/quickstart.py --workdir={}/run --cofnig.seed=1": ["--cofnig.seed=1", "--config."],
    "train --config=configs/quickstart.py --workdir={}/run --sandbox=off": ["--sandbox", "choose from"],
    "train --config=configs/quickstart.py --workdir={}/run --hosts=me": ["--hosts=me", "ADDRESS:PORT,COUNT"],
    "evaluate --config=configs/quickstart.py --workdir={}/run": ["holds no run", "score_jax train"],
    "solve --workdir={}/run x": ["holds no run", "score_jax train"],
    "export --workdir={}/run --output={}/out": ["holds no run", "score_jax train"],
    "report --workdir={}": ["no results here yet", "score_jax evaluate"],
    "report --workdir={}/run": ["/run: there is no such folder", "--workdir="],
    "report --workdir={}/run --fast": ["'--fast' is not an option of this command", "--help"],
    "compare --workdir={}": ["no evaluated score/SEED"],
    "study --config=configs/quickstart.py --workdir={}/run": ["config.methods is missing", "study_quick"],
    "sweep --config=configs/quickstart.py --workdir={}/run": ["config.sweep", "configs/sweeps"],
    "plan --config=configs/quickstart.py --topology=v9:2": ["--topology", "v5e:4x4"],
    "benchmark --config=configs/benchmark.py:tiny --repeats=0": ["--repeats: '0': give a whole"],
    "benchmark --config=configs/benchmark.py:tiny --attempts=2,a": ["--attempts: 'a': give a whole"],
    "benchmark --config=configs/benchmark.py:tiny --attempts=0": ["--attempts: '0': give a whole"],
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_commands(command, refusal, tmp_path):
    assert_said(refusal(*command.replace("{}", str(tmp_path)).split()), *COMMANDS[command])


def test_places_where_nothing_can_be_written(refusal, tmp_path, shared):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "run"):
        args = [arg for arg in train(tmp_path, shared) if not arg.startswith("--workdir")]
        assert_said(refusal(*args, f"--workdir={place}"), str(tmp_path / "file"))
        assert_said(refusal(*train(tmp_path, shared, base_dir=place)), str(tmp_path / "file"))


@pytest.mark.parametrize("text", ["{", "[1, 2]", '"x"', ""])
def test_a_broken_config_json(text, refusal, tmp_path, shared):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(text)
    assert_said(refusal(*train(tmp_path, shared)), "run/config.json", "write it again or delete it")
    assert_said(refusal("solve", f"--workdir={tmp_path / 'run'}", "x"), "run/config.json")


def test_there_are_enough_cases():
    """Each of them its own way to go wrong."""
    assert len(FIELDS) + len(FILES) + len(ROWS) + len(COMMANDS) >= 60
