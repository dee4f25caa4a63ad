# /// script
# requires-python = "==3.11.*"
# dependencies = ["torch==2.13.0", "transformers==5.24.0", "trl==1.16.0"]
# [tool.uv]
# exclude-newer = "2026-11-27T00:00:00Z"
# ///
"""transformers' `generate` and Gemma 3 with TRL's log-probabilities, and its policy gradient with a KL.

A second turn's whole transcript is fed as a prompt, as `generate` has no cache of an episode's first turn.
Around the model stands what a step cannot do without; the trainer's housekeeping is left out, in its favour.
"""

import copy
import os

import torch
from protocol import Watch, serve, shape
from transformers import Gemma3ForCausalLM, Gemma3TextConfig
from trl.trainer.utils import selective_log_softmax

SHAPE = shape()
torch.manual_seed(0)
torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
device = "cuda" if torch.cuda.is_available() else "cpu"

config = Gemma3TextConfig(
    vocab_size=SHAPE.vocabulary,
    hidden_size=SHAPE.width,
    intermediate_size=SHAPE.hidden_width,
    num_hidden_layers=SHAPE.layers,
    num_attention_heads=SHAPE.heads,
    num_key_value_heads=SHAPE.kv_heads,
    head_dim=SHAPE.head_width,
    query_pre_attn_scalar=SHAPE.head_width,
    sliding_window=SHAPE.window,
    layer_types=["sliding_attention"] * (SHAPE.layers - 1) + ["full_attention"],
    pad_token_id=0,
    bos_token_id=None,
    eos_token_id=None,  # none ends: all slots are filled
)
model = Gemma3ForCausalLM(config).to(device, getattr(torch, SHAPE.dtype))
reference = copy.deepcopy(model).eval()
optimizer = torch.optim.AdamW(model.parameters(), lr=SHAPE.learning_rate)
prompts = torch.randint(1, SHAPE.vocabulary, (SHAPE.problems, SHAPE.prompt), device=device)
prompts = prompts.repeat_interleave(SHAPE.samples, dim=0)
instruction = torch.arange(1, 1 + SHAPE.instruction, device=device).repeat(SHAPE.episodes, 1)


@torch.no_grad()
def generate(rows: torch.Tensor) -> torch.Tensor:
    """(E, P) -> (E, T)."""
    model.eval()
    out = model.generate(
        input_ids=rows,
        attention_mask=torch.ones_like(rows),
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=SHAPE.attempt,
    )
    assert out.shape[1] == rows.shape[1] + SHAPE.attempt
    return out[:, rows.shape[1] :]


def logps(network: torch.nn.Module, asked: torch.Tensor, answer: torch.Tensor) -> torch.Tensor:
    """(E, T): those of the answer's tokens."""
    rows = torch.cat((asked, answer), dim=1)
    kept = answer.shape[1]
    out = network(rows, attention_mask=torch.ones_like(rows), logits_to_keep=kept + 1, use_cache=False)
    return selective_log_softmax(out.logits[:, :-1], answer)


def wait() -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def sampling(watch: Watch) -> None:
    generate(prompts)
    wait()


def step(watch: Watch) -> None:
    first = generate(prompts)
    asked = torch.cat((prompts, first, instruction), dim=1)
    turns = [(prompts, first), (asked, generate(asked))]
    wait()
    watch.part("rollout")
    with torch.no_grad():
        references = [logps(reference, *turn) for turn in turns]
    wait()
    watch.part("reference")
    model.train()
    optimizer.zero_grad()
    for (asked, answer), held in zip(turns, references, strict=True):
        now = logps(model, asked, answer)
        paid = (answer[:, -1] % 2).float()[:, None]
        ahead = held - now
        loss = (-(now * paid) + 0.01 * (ahead.exp() - ahead - 1)).sum() / SHAPE.episodes
        loss.backward()
    optimizer.step()
    wait()
    watch.part("update")


serve(
    "transformers, TRL",
    ("transformers", "trl", "torch"),
    {"sampling": sampling, "step": step},
    torch.cuda.max_memory_allocated if device == "cuda" else None,
)
