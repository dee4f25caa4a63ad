"""What it adds to a step that its 256 programs are graded.

    PYTHONPATH=. python tests/overlap.py mid   # or tiny

prints, as JSON, the median seconds of a step without and with them, and how many programs the sandbox's one
worker runs in a second: the trainer has one core, the worker another. The step is that of
configs/benchmark.py with 128 episodes of two attempts, sampled in eight parts. At mid a worker keeps up with
the sampler, at tiny it does not.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from boxes import job

EPISODES, ATTEMPTS, PARTS, REPEATS = 128, 2, 8, 3
PROGRAM = "def add(a, b):\n    return sum(b if i else a for i in range(2)) + {0} - {0}"


def main(shape: str = "mid") -> None:
    first, second, *_ = sorted(os.sched_getaffinity(0))
    from score_jax.rewards.sandbox.pool import Sandbox

    os.sched_setaffinity(0, {second})  # the worker stays on the core where it begins
    with Sandbox(workers=1) as box, tempfile.TemporaryDirectory() as folder:
        os.sched_setaffinity(0, {first})
        jobs = [job(PROGRAM.format(number)) for number in range(EPISODES * ATTEMPTS)]
        box.run(jobs[:32])
        print(json.dumps(measured(shape, Path(folder), lambda count: box.run(jobs[:count]))))


def measured(shape: str, folder: Path, run: Callable) -> dict[str, float]:
    """The numbers that are printed. `run` runs so many programs and gives their verdicts."""
    import jax  # only now, as its threads stay on the core where it begins
    import tiny

    from configs import benchmark
    from score_jax import chat, rollout
    from score_jax.workload import workload_of

    config, task = benchmark.get_config(shape), tiny.Riddles()
    config.problems_per_step, config.rollout_parts = EPISODES // config.samples_per_problem, PARTS
    words = chat.plain(tiny.tokenizer(folder))
    work = workload_of(config, instruction=16)
    actor = rollout.actor_of(config, work.model, words, task)
    problems = np.repeat(task.problems("train")[: config.problems_per_step], work.learner.samples).tolist()
    keys = rollout.row_keys(0, "overlap", 0, EPISODES)

    def step(grade: Callable[[int], np.ndarray]) -> float:
        start = time.perf_counter()
        rollout.grade = lambda actor, problems, *_: graded(problems, actor.slots.attempt, grade)
        episodes, rows = rollout.roll_out(
            actor, work.params(), problems, keys, temperature=1.0, parts=PARTS, samples=work.learner.samples
        )
        jax.block_until_ready(work.update(rollout.experience_of(actor, episodes, rows)))
        return time.perf_counter() - start

    def graded(problems: list, length: int, grade: Callable[[int], np.ndarray]) -> rollout.Graded:
        size = rows, columns = len(problems), ATTEMPTS
        rewards = grade(rows * columns).astype(np.float32).reshape(size)
        texts, notes = [[""] * columns] * rows, [[{}] * columns] * rows
        ends, lengths = np.ones(size, bool), np.full(size, length, np.int32)
        return rollout.Graded(problems, texts, texts, rewards, ends, lengths, notes, [[]] * rows, ends)

    def by_programs(count: int) -> np.ndarray:
        verdicts = run(count)
        assert [verdict.status for verdict in verdicts] == ["passed"] * count
        return made_up(count)

    made_up = lambda count: np.arange(count) % 3 == 0
    pairs = [(step(made_up), step(by_programs)) for _ in range(REPEATS + 1)][1:]  # the first compiles
    start = time.perf_counter()
    by_programs(EPISODES * ATTEMPTS)
    seconds = time.perf_counter() - start
    without, with_programs = (statistics.median(times) for times in zip(*pairs, strict=True))
    return {
        "without": without,
        "with": with_programs,
        "added": statistics.median(b / a for a, b in pairs) - 1,
        "programs_per_second": EPISODES * ATTEMPTS / seconds,
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
