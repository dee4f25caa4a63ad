# /// script
# requires-python = ">=3.12"
# dependencies = ["gemma==4.0.1", "jax==0.12.0.1", "flax==0.12.12", "protobuf==7.36.2"]
# [tool.uv]
# exclude-newer = "2026-11-27T00:00:00Z"
# ///
"""The gemma package's sampler, its cache and buffers cut to what is sampled. It has no steps of RL.

With its defaults (a cache of 4,096 places, an output of 2,048) it would be many times slower.
"""

import gemma.gm as gm
import jax
import jax.numpy as jnp
import numpy as np
from protocol import Watch, serve, shape

SHAPE = shape()


class Never:
    """Ends that are no token: all slots are filled."""

    PAD, BOS = 0, 0
    EOS = END_OF_TURN = BEGIN_OF_TOOL_RESPONSE = SHAPE.vocabulary


class Numbers(gm.text.Tokenizer):
    """A tokenizer of texts such as "17 4 201"."""

    special_tokens = Never

    def encode(self, text: str, **_) -> list[int]:
        return [int(word) for word in text.split()]

    def decode(self, ids, **_) -> str:
        return " ".join(map(str, np.asarray(ids)))


def model_of() -> gm.nn.Transformer:
    kinds = gm.nn.config.AttentionType
    config = gm.nn.config.TransformerConfig(
        num_embed=SHAPE.vocabulary,
        embed_dim=SHAPE.width,
        hidden_dim=SHAPE.hidden_width,
        num_heads=SHAPE.heads,
        head_dim=SHAPE.head_width,
        num_kv_heads=SHAPE.kv_heads,
        attention_types=(kinds.LOCAL_SLIDING,) * (SHAPE.layers - 1) + (kinds.GLOBAL,),
        sliding_window_size=SHAPE.window,
        final_logit_softcap=None,
        use_post_attn_norm=True,
        use_post_ffw_norm=True,
        use_qk_norm=True,
        transpose_gating_einsum=True,
    )
    return gm.nn.Transformer(config=config, dtype=jnp.dtype(SHAPE.dtype))


model = model_of()
params = model.init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
sampler = gm.text.Sampler(
    model=model,
    params=params,
    tokenizer=Numbers(path=""),
    sampling=gm.text.RandomSampling(),
    cache_length=SHAPE.prompt + SHAPE.attempt,
    max_out_length=SHAPE.attempt,
    pad_length=SHAPE.prompt,
)
rng = np.random.default_rng(0)
rows = np.repeat(rng.integers(1, SHAPE.vocabulary, (SHAPE.problems, SHAPE.prompt)), SHAPE.samples, axis=0)
prompts = [Numbers(path="").decode(row) for row in rows]


def sampling(watch: Watch) -> None:
    texts = sampler.sample(prompts, rng=0)
    assert all(len(text.split()) == SHAPE.attempt for text in texts)


serve("gemma", ("gemma", "jax", "flax"), {"sampling": sampling})
