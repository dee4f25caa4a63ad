"""Runs programs that a language model wrote, and judges them by tests, without trusting them in anything.

    trainer ──┬── worker (zygote) ──┬── the model's program       knows its own text and the arguments of
      calls pool.py │     zygote.py       │     program_side.py
              │                     └── the tests                 know the expected values, write the verdict
              └── worker ...              test_side.py

`pool.Sandbox` is what a reward uses, `job.Job` what it hands in, `job.Verdict` what it gets. Standard library
only: workers start in milliseconds, and nothing of JAX is in a process that a hostile program can look
around in.
"""
