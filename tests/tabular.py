"""A policy small enough to enumerate: logits in a table, a row for each state (what stands before a token).

    transcript   | context | attempt 1 | context | attempt 2 | ...
    attempt           0      1 1 (-1)       0      2 2 (-1)        -1 = padding after an early STOP

Every expectation is a sum over all episodes; nothing is sampled and nothing is estimated. Nothing here uses
score_jax but its names for context and padding.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from score_jax.types import CONTEXT, PADDING

VOCAB = 3
STOP = 0  # ends an attempt early, where asked for


def strings(length: int, stops: bool) -> list[tuple[int, ...]]:
    """All attempts of up to `length` tokens, padded with PADDING after a STOP."""
    cut = lambda s: s[: s.index(STOP) + 1] if stops and STOP in s else s
    texts = {cut(s) for s in itertools.product(range(VOCAB), repeat=length)}
    return sorted(s + (PADDING,) * (length - len(s)) for s in texts)


class Tabular:
    """All episodes of attempts with the given lengths, one row each.

    Attributes:
      written: [E, N] tuples, each episode's attempts.
      attempt: [E, L] as in `Episodes`.
    """

    def __init__(self, *lengths: int, stops: bool = False):
        self.written = list(itertools.product(*(strings(length, stops) for length in lengths)))
        self.attempts = len(lengths)
        rows = [self._lay_out(texts) for texts in self.written]
        tokens, attempt, prefixes = (list(column) for column in zip(*rows, strict=True))
        states = {prefix: i for i, prefix in enumerate(dict.fromkeys(itertools.chain(*prefixes)))}
        self.tokens, self.attempt = np.array(tokens), jnp.asarray(attempt)
        self.state = np.array([[states[prefix] for prefix in row] for row in prefixes])
        self.states = len(states)

    def _lay_out(self, texts):
        tokens, attempt, prefixes = [], [], []
        for number, text in enumerate(texts, start=1):
            for token, mark in [(0, CONTEXT), *((token, number) for token in text)]:
                prefixes.append((number, *tokens))
                attempt.append(PADDING if token == PADDING else mark)
                tokens.append(token)
        return tokens, attempt, prefixes

    def table(self, seed: int) -> jax.Array:
        """Random logits [states, V]."""
        return jax.random.normal(jax.random.key(seed), (self.states, VOCAB))

    def logp(self, table):
        """[E, L] log-probability of each token; context and padding have one too, for the code to mask."""
        return jax.nn.log_softmax(table)[self.state, self.tokens]

    def kl(self, table, reference):
        """[E, L] KL(π ‖ π_ref) at each token's state."""
        logp, ref_logp = jax.nn.log_softmax(table), jax.nn.log_softmax(reference)
        return jnp.sum(jnp.exp(logp) * (logp - ref_logp), axis=-1)[self.state]

    def attempt_logp(self, table):
        """[E, N] log π(y_i | x_i)."""
        logp = self.logp(table)
        columns = [jnp.where(self.attempt == i, logp, 0.0).sum(axis=1) for i in range(1, self.attempts + 1)]
        return jnp.stack(columns, axis=1)

    def prob(self, table):
        """[E] probability of each episode."""
        return jnp.exp(self.attempt_logp(table).sum(axis=1))

    def attempt_prob(self, table, i: int):
        """[E] probability of each episode, to be differentiated through attempt i (0-based) alone."""
        logp = self.attempt_logp(table)
        others = jax.lax.stop_gradient(logp.sum(axis=1) - logp[:, i])
        return jnp.exp(others + logp[:, i])

    def rewards(self, grade) -> jax.Array:
        """[E, N] of `grade(attempt's tokens)`."""
        return jnp.array([[float(grade(text)) for text in row] for row in self.written])

    def expected_grad(self, loss, table):
        """E[∇ loss] of `loss(table)` [E]: the episodes' probabilities weigh, they are not differentiated."""
        weight = self.prob(table)
        return jax.grad(lambda table: jnp.sum(weight * loss(table)))(table)

    def expected_pair_grad(self, loss, table):
        """E[∇ mean of two episodes' losses] over all pairs of independent episodes (K = 2 of one problem).

        `loss(table, rows)` returns [2 * pairs], the losses of episodes `rows`; pairs stand together.
        """
        first, second = np.divmod(np.arange(len(self.written) ** 2), len(self.written))
        prob = self.prob(table)
        weight = jnp.repeat(prob[first] * prob[second], 2) / 2
        rows = np.stack([first, second], axis=1).ravel()
        return jax.grad(lambda table: jnp.sum(weight * loss(table, rows)))(table)


def close(a, b) -> bool:
    """Equal up to float32 rounding of sums over some hundred episodes."""
    return np.allclose(a, b, rtol=1e-4, atol=1e-6)
