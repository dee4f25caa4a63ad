"""policy: log-probabilities against full logits in numpy, memory, and padding that changes nothing."""

import math
import re

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
import tiny
from gemma import gm

from score_jax import model as models
from score_jax import policy
from score_jax.types import CONTEXT, PADDING, Episodes

WIDTH = 16


def states(episodes: Episodes, seed: int):
    """Random hidden states and an output table."""
    rng = np.random.default_rng(seed)
    normal = lambda *shape: jnp.array(rng.normal(size=shape), jnp.float32)
    return normal(*episodes.tokens.shape, WIDTH), normal(tiny.VOCAB, WIDTH)


def plain_scores(hidden, table, ref_hidden, ref_table, episodes, softcap, temperature, xp=np):
    """[3, E, L] log-prob, entropy and KL from all logits at once; `xp` is numpy or jax.numpy."""

    def log_probs(hidden, table):
        logits = xp.einsum("eld,vd->elv", hidden, table)
        if softcap:
            logits = softcap * xp.tanh(logits / softcap)
        logits = logits / temperature
        return logits - xp.log(xp.exp(logits).sum(-1, keepdims=True))

    log_p, log_q = log_probs(hidden[:, :-1], table), log_probs(ref_hidden[:, :-1], ref_table)
    logp = xp.take_along_axis(log_p, episodes.tokens[:, 1:, None], -1)[..., 0]
    entropy = -(xp.exp(log_p) * log_p).sum(-1)
    kl = (xp.exp(log_p) * (log_p - log_q)).sum(-1)
    sampled = episodes.attempt[:, 1:] > CONTEXT
    return xp.pad(xp.stack([logp, entropy, kl]) * sampled, ((0, 0), (0, 0), (1, 0)))


@pytest.mark.parametrize(
    ("softcap", "temperature", "chunk"),
    [(None, 1.0, 4), (3.0, 1.0, 19), (None, 0.7, 64), (3.0, 0.7, 1), (3.0, 0.7, 8)],
)
def test_scores_and_their_gradients_equal_those_of_full_logits(softcap, temperature, chunk):
    episodes = tiny.transcripts(3)  # 19 places to score: chunks divide them, or do not, or are longer
    (hidden, table), (ref_hidden, ref_table) = states(episodes, seed=0), states(episodes, seed=1)
    weight = np.random.default_rng(2).normal(size=(3, *episodes.tokens.shape))

    def scored(hidden, table):
        head = policy.Head(table, softcap=softcap, temperature=temperature)
        reference = policy.Reference(ref_hidden, head.replace(table=ref_table))
        scores = policy.score_tokens(head, hidden, episodes, reference=reference, chunk=chunk)
        stacked = jnp.stack([scores.logp, scores.entropy, scores.kl])
        return jnp.sum(weight * stacked), stacked

    def plain(hidden, table, xp=jnp):
        args = (ref_hidden, ref_table, episodes, softcap, temperature, xp)
        scores = plain_scores(hidden, table, *args)
        return (weight * scores).sum(), scores

    exact = plain(np.float64(hidden), np.float64(table), np)[1]
    grads, scores = jax.jit(jax.grad(scored, argnums=(0, 1), has_aux=True))(hidden, table)
    np.testing.assert_allclose(scores, exact, rtol=1e-4, atol=1e-4)
    plain_grads, _ = jax.jit(jax.grad(plain, argnums=(0, 1), has_aux=True))(hidden, table)
    for grad, plain_grad in zip(grads, plain_grads, strict=True):
        np.testing.assert_allclose(grad, plain_grad, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_scores_of_the_model_equal_the_plain_forward_pass(softcap):
    gemma, params, episodes = tiny.model(softcap=softcap), tiny.params(), tiny.transcripts(8)
    scores = policy.score_episodes(gemma, params, episodes, temperature=0.7, chunk=6)
    log_p, attempt, tokens = tiny.distributions(gemma, params, episodes, temperature=0.7)
    logp = np.take_along_axis(log_p, tokens[..., None], -1)[..., 0]
    entropy = -(np.exp(log_p) * log_p).sum(-1)
    _, mine, my_entropy = tiny.move_left(episodes.attempt, scores.logp, scores.entropy)
    np.testing.assert_allclose(mine[attempt > 0], logp[attempt > 0], atol=1e-4)
    np.testing.assert_allclose(my_entropy[attempt > 0], entropy[attempt > 0], atol=1e-4)
    assert not mine[attempt <= 0].any() and not my_entropy[attempt <= 0].any()
    assert not np.any(scores.kl)  # no reference was given


def largest_array(compiled) -> int:
    """Elements of the largest array that a compiled program speaks of."""
    shapes = re.findall(r"\b(?:f|bf|s|u|pred)\d*\[([\d,]+)\]", compiled.as_text())
    return max(math.prod(map(int, shape.split(","))) for shape in shapes)


def test_no_program_holds_logits_of_all_places():
    vocab, chunk = 997, 5  # so large that the parameters are smaller than all logits
    gemma, params, episodes = tiny.model(vocab), tiny.params(vocab), tiny.transcripts(3)
    rows, length = episodes.tokens.shape

    def loss(params, chunk):
        scores = policy.score_episodes(gemma, params, episodes, temperature=1.0, chunk=chunk)
        return scores.logp.sum() + scores.entropy.sum()

    compiled = lambda fn, chunk: largest_array(jax.jit(fn, static_argnums=1).lower(params, chunk).compile())
    all_logits = rows * (length - 1) * vocab
    assert compiled(loss, length) >= all_logits  # the measure sees them where they are
    for fn in (loss, jax.grad(loss)):
        assert compiled(fn, chunk) == max(rows * chunk * vocab, vocab * WIDTH)


def spread(episodes: Episodes, length: int, seed: int) -> Episodes:
    """More padding with junk in it, anywhere but directly before a sampled token."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, tiny.VOCAB, (len(episodes.tokens), length)).astype(np.int32)
    attempt = np.full_like(tokens, PADDING)
    old_tokens, old_attempt = np.asarray(episodes.tokens), np.asarray(episodes.attempt)
    for row in range(len(tokens)):
        kept = old_attempt[row] != PADDING
        who = old_attempt[row][kept]
        gaps = np.flatnonzero(np.r_[who <= CONTEXT, True])  # what a gap may stand before; at the end, too
        counts = np.bincount(rng.choice(gaps, length - len(who)), minlength=len(who) + 1)
        place = np.arange(len(who)) + np.cumsum(counts)[:-1]
        tokens[row, place], attempt[row, place] = old_tokens[row][kept], who
    return Episodes(*map(jnp.array, (tokens, attempt, np.zeros(tokens.shape, np.float32))))


@pytest.mark.parametrize("seed", [0, 1])
def test_more_padding_changes_nothing(seed):
    """The first layer's window (4) is shorter than a transcript, and reaches back over padding."""
    gemma, params, episodes = tiny.model(), tiny.params(), tiny.transcripts(8, seed=3)
    padded = spread(episodes, length=31, seed=seed)
    before = policy.score_episodes(gemma, params, episodes)
    after = policy.score_episodes(gemma, params, padded)
    for name in ("logp", "entropy"):
        expected = getattr(before, name)[episodes.attempt > CONTEXT]
        np.testing.assert_allclose(getattr(after, name)[padded.attempt > CONTEXT], expected, atol=1e-5)


def test_a_sampled_pad_id_is_a_token_like_any_other():
    gemma, params, episodes = tiny.model(), tiny.params(), tiny.transcripts(8, seed=1)
    inside = (episodes.attempt == 1) & (jnp.roll(episodes.attempt, -1, axis=1) == 1)
    episodes = episodes.replace(tokens=jnp.where(inside, tiny.PAD, episodes.tokens))
    assert inside.any()
    log_p, attempt, tokens = tiny.distributions(gemma, params, episodes)
    expected = np.take_along_axis(log_p, tokens[..., None], -1)[..., 0]
    _, logp = tiny.move_left(episodes.attempt, policy.score_episodes(gemma, params, episodes).logp)
    assert (logp[(attempt == 1) & (tokens == tiny.PAD)] < 0).all()
    np.testing.assert_allclose(logp[attempt > 0], expected[attempt > 0], atol=1e-4)


def test_positions_count_what_stands_there():
    valid = jnp.array([[0, 0, 1, 1, 0, 1], [1, 1, 1, 0, 0, 1]], bool)
    np.testing.assert_array_equal(policy.positions_of(valid), [[0, 0, 0, 1, 1, 2], [0, 1, 2, 2, 2, 3]])


def test_small_gemma_is_gemma_3_in_small():
    config = {"layers": 3, "width": 16, "hidden_width": 24, "heads": 2, "head_width": 8, "kv_heads": 1}
    config |= {"sliding_window": 4, "dtype": "bfloat16"}
    small = models.small_gemma(ml_collections.ConfigDict(config), vocab_size=50)
    kinds = gm.nn.config.AttentionType
    assert small.config.attention_types == (kinds.LOCAL_SLIDING, kinds.LOCAL_SLIDING, kinds.GLOBAL)
    assert small.dtype == jnp.bfloat16
    large = gm.nn.Gemma3_1B().config
    for field in (
        "use_post_attn_norm", "use_post_ffw_norm", "use_qk_norm", "transpose_gating_einsum",
        "local_base_frequency", "global_base_frequency", "final_logit_softcap",
    ):  # fmt: skip
        assert getattr(small.config, field) == getattr(large, field), field
