"""The shipped configs, shrunk so far that a run takes seconds."""

SMALL = {
    "model.layers": 2,
    "model.width": 16,
    "model.hidden_width": 16,
    "model.heads": 2,
    "model.head_width": 8,
    "pretrain.guess.steps": 2,
    "pretrain.correct.steps": 2,
    "pretrain.batch": 8,
    "train_problems": 12,
    "problems_per_step": 8,
    "samples_per_problem": 2,
    "micro_batches": 1,
    "score_chunk": 16,  # fewer than there are
    "stage1.steps": 2,
    "stage2.steps": 2,
    "checkpoint_every": 2,
    "evaluate.problems": 20,
    "evaluate.batch": 16,
    "log.every": 1,
    "log.transcript_every": 1,
}


def options(folder, config="configs/quickstart.py", **changes):
    """Command-line options of a shrunk run in `folder`."""
    fields = SMALL | {"base_dir": str(folder / "base"), "data_dir": str(folder / "data")}
    if config != "configs/quickstart.py":
        fields.pop("stage2.steps")
    fields |= {field.replace("__", "."): value for field, value in changes.items()}
    return [f"--config={config}", *(f"--config.{field}={value}" for field, value in fields.items())]
