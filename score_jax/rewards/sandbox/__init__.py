"""Runs programs that a language model wrote, and judges them by tests, without trusting them in anything.

    trainer ──┬── worker ──┬── the model's program    knows its own text and the arguments of calls
      pool    │   zygote   │   program_side
              │            └── the tests              know the expected values, write the verdict
              │                test_side
              └── worker ...

`pool.Sandbox` is what a reward uses, `job.Job` what it hands in, `job.Verdict` what it gets. `lockdown` and
`seccomp` are what confines, `layers` which of it holds here, `check` tries it out. Standard library only, so
that nothing of JAX is in a process that a hostile program can look around in.
"""
