"""What a compiled program costs: against formulas, and against texts as the TPU's compiler writes them."""

import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from score_jax.hlo import read
from score_jax.mesh import pmapped
from score_jax.program_cost import Cost, regions, total


def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


def text_of(fn, *shapes):
    return jax.jit(fn).lower(*shapes).compile().as_text()


def counted(text, phase_of=lambda source: ""):
    return regions(text, phase_of)


def program(entry, *others):
    """The text of a program whose ENTRY has these lines, after other computations."""
    head = "HloModule made_up, is_scheduled=true\n\n"
    parts = [textwrap.dedent(part).strip("\n") for part in others]
    body = textwrap.indent(textwrap.dedent(entry).strip("\n"), "  ")
    return head + "\n\n".join([*parts, "ENTRY %main (x: f32[1]) -> f32[1] {\n" + body + "\n}"]) + "\n"


# --- Programs that are compiled here ---


@pytest.mark.parametrize(("m", "k", "n"), [(64, 128, 32), (8, 8, 8), (3, 500, 70)])
def test_a_matrix_product(m, k, n):
    cost = total(counted(text_of(jnp.matmul, shape(m, k), shape(k, n))))
    assert cost == Cost(flops=2 * m * k * n, memory=4 * (m * k + k * n + m * n))


def test_a_batched_product_contracts_its_inner_axis_alone():
    cost = total(counted(text_of(jnp.matmul, shape(5, 6, 7), shape(5, 7, 8))))
    assert cost.flops == 2 * 5 * 6 * 7 * 8


def test_a_loop_counts_as_often_as_it_runs():
    def looped(x, w):
        def inner(x, _):
            return jnp.tanh(x @ w), None

        def outer(x, _):
            return jax.lax.scan(inner, x, None, length=5)[0] @ w, None

        return jax.lax.scan(outer, x, None, length=3)[0]

    found = counted(text_of(looped, shape(64, 64), shape(64, 64)))
    one = 2 * 64**3
    assert total(found).flops == 3 * 5 * one + 3 * one
    assert {region.runs: region.cost.flops for region in found if region.cost.flops} == {15: one, 3: one}


def test_a_loop_that_may_end_early_counts_to_its_limit():
    def drawn(x, w):
        unfinished = lambda state: (state[0] < 11) & (state[1][0, 0] < 1e9)
        step = lambda state: (state[0] + 1, jnp.tanh(state[1] @ w))
        return jax.lax.while_loop(unfinished, step, (jnp.int32(2), x))

    (region,) = [r for r in counted(text_of(drawn, shape(8, 8), shape(8, 8))) if r.cost.flops]
    assert (region.runs, region.cost.flops) == (9, 2 * 8**3)


def test_phases_are_told_by_their_scopes():
    def phased(x, w):
        with jax.named_scope("reference"):
            held = jnp.tanh(x @ w)
        return held @ w @ w

    text = text_of(phased, shape(64, 64), shape(64, 64))
    found = counted(text, lambda source: "held" if "reference" in source else "free")
    flops = {phase: sum(r.cost.flops for r in found if r.phase == phase) for phase in ("held", "free")}
    assert flops == {"held": 2 * 64**3, "free": 2 * 2 * 64**3}


@pytest.mark.parametrize(
    ("collective", "out", "sent"),
    [
        (lambda x: jax.lax.psum(x, "data"), PartitionSpec(), 2 * 7 / 8 * 400),
        (lambda x: jax.lax.all_gather(x, "data", tiled=True), PartitionSpec("data"), 7 * 400),
        (lambda x: jax.lax.psum_scatter(x, "data", tiled=True), PartitionSpec("data"), 7 / 8 * 3200),
        (lambda x: jax.lax.ppermute(x, "data", [(0, 1), (1, 0)]), PartitionSpec("data"), 400),
    ],
)
def test_bytes_between_devices(collective, out, sent):
    mesh = Mesh(np.array(jax.devices()[:8]), ("data",))
    rows = 800 if "psum_scatter" not in collective.__code__.co_names else 6400
    fn = pmapped(collective, mesh=mesh, in_specs=PartitionSpec("data"), out_specs=out)
    found = regions(fn.lower(shape(rows)).compile().as_text(), lambda source: "")
    assert total(found).network == sent


# --- As the TPU's compiler writes them ---


def test_a_product_written_as_a_convolution():
    (region,) = counted(
        program(
            """
            %x = bf16[16,32]{1,0:T(8,128)(2,1)} parameter(0)
            %w = bf16[32,64]{1,0:T(8,128)(2,1)} parameter(1)
            ROOT %dot = f32[16,64]{1,0:T(8,128)} convolution(%x, %w), dim_labels=bf_io->bf
            """
        )
    )
    assert region.cost == Cost(flops=2 * 16 * 32 * 64, memory=2 * 16 * 32 + 2 * 32 * 64 + 4 * 16 * 64)


@pytest.mark.parametrize(
    ("length", "size", "stride", "pad", "base", "dilate"),
    [(8, 3, 1, 0, 1, 1), (8, 8, 1, 7, 1, 1), (8, 3, 2, 1, 1, 1), (5, 4, 1, 3, 2, 1), (9, 3, 1, 2, 1, 3)],
)
def test_a_window_counts_where_it_meets_numbers(length, size, stride, pad, base, dilate):
    """A convolution of ones with ones adds up as many ones as it multiplies."""
    convolve = lambda x, w: jax.lax.conv_general_dilated(
        x, w, (stride,), [(pad, pad)], (base,), (dilate,), ("NCW", "OIW", "NCW")
    )
    ones = np.ones((2, 3, length), np.float32), np.ones((5, 3, size), np.float32)
    out = convolve(*ones)
    (region,) = counted(
        program(
            f"""
            %x = f32[2,3,{length}]{{2,1,0}} parameter(0)
            %w = f32[5,3,{size}]{{2,1,0}} parameter(1)
            ROOT %c = f32[2,5,{out.shape[2]}]{{2,1,0}} convolution(%x, %w), window={{size={size} stride={stride} pad={pad}_{pad} lhs_dilate={base} rhs_dilate={dilate}}}, dim_labels=bf0_oi0->bf0
            """  # noqa: E501
        )
    )
    assert region.cost.flops == 2 * float(out.sum())


def test_what_lies_on_the_chip_moves_no_memory():
    (region,) = counted(
        program(
            """
            %x = f32[1024]{0:T(1024)} parameter(0)
            %start = (f32[1024]{0:T(1024)S(1)}, f32[1024]{0:T(1024)}, u32[]{:S(2)}) copy-start(%x)
            %held = f32[1024]{0:T(1024)S(1)} copy-done(%start)
            %twice = f32[1024]{0:T(1024)S(1)} add(%held, %held)
            ROOT %out = f32[1024]{0:T(1024)} add(%twice, %held)
            """
        )
    )
    assert region.cost.memory == 4096 + 4096  # read once by the copy, written once at the end


def test_a_cache_that_is_changed_in_place_moves_what_changes():
    (region,) = counted(
        program(
            """
            %cache = f32[8,100,64]{2,1,0} parameter(0)
            %new = f32[8,1,64]{2,1,0} parameter(1)
            %at = s32[] parameter(2)
            ROOT %put = f32[8,100,64]{2,1,0} fusion(%cache, %new, %at), kind=kLoop, calls=%write
            """,
            """
            %write (c: f32[8,100,64], n: f32[8,1,64], i: s32[]) -> f32[8,100,64] {
              %c = f32[8,100,64]{2,1,0} parameter(0)
              %n = f32[8,1,64]{2,1,0} parameter(1)
              %i = s32[] parameter(2)
              %z = s32[] constant(0)
              ROOT %d = f32[8,100,64]{2,1,0} dynamic-update-slice(%c, %n, %z, %i, %z)
            }
            """,
        )
    )
    row = 4 * 8 * 64
    assert region.cost.memory == row + 4 + row  # the new row and its place are read, the row is written


def test_a_fusion_reads_of_what_it_slices_the_slice():
    (region,) = counted(
        program(
            """
            %all = f32[26,100]{1,0} parameter(0)
            %layer = s32[] parameter(1)
            ROOT %one = f32[1,100]{1,0} fusion(%all, %layer), kind=kLoop, calls=%slice
            """,
            """
            %slice (a: f32[26,100], i: s32[]) -> f32[1,100] {
              %a = f32[26,100]{1,0} parameter(0)
              %i = s32[] parameter(1)
              %z = s32[] constant(0)
              %s = f32[1,100]{1,0} dynamic-slice(%a, %i, %z), dynamic_slice_sizes={1,100}
              ROOT %n = f32[1,100]{1,0} negate(%s)
            }
            """,
        )
    )
    assert region.cost.memory == 400 + 4 + 400


def test_an_asynchronous_collective_counts_once():
    gather = "channel_id=7, replica_groups=[1,4]<=[4], dimensions={0}"
    (region,) = counted(
        program(
            f"""
            %x = f32[100]{{0}} parameter(0)
            %s = (f32[100]{{0}}, f32[400]{{0}}) all-gather-start(%x), {gather}
            %d = f32[400]{{0}} all-gather-done(%s)
            %again = f32[400]{{0}} fusion(%x), kind=kCustom, calls=%same
            ROOT %n = f32[400]{{0}} negate(%d)
            """,
            f"""
            %same (x: f32[100]) -> f32[400] {{
              %x = f32[100]{{0}} parameter(0)
              ROOT %g = f32[400]{{0}} all-gather(%x), {gather}
            }}
            """,
        )
    )
    assert region.cost.network == 3 * 400


def test_of_a_conditional_the_heavier_branch_counts():
    (region,) = counted(
        program(
            """
            %p = pred[] parameter(0)
            %x = f32[10]{0} parameter(1)
            ROOT %c = f32[10]{0} conditional(%p, %x, %x), true_computation=%light, false_computation=%heavy
            """,
            """
            %light (x: f32[10]) -> f32[10] {
              %x = f32[10]{0} parameter(0)
              ROOT %n = f32[10]{0} negate(%x)
            }
            """,
            """
            %heavy (x: f32[10]) -> f32[10] {
              %x = f32[10]{0} parameter(0)
              %n = f32[10]{0} negate(%x)
              ROOT %m = f32[10]{0} negate(%n)
            }
            """,
        )
    )
    assert region.cost.memory == 2 * 80


LOOP = """
    %body (state: (s32[], s32[], f32[10])) -> (s32[], s32[], f32[10]) {
      %state = (s32[], s32[], f32[10]{0}) parameter(0)
      %at = s32[] get-tuple-element(%state), index=0
      %limit = s32[] get-tuple-element(%state), index=1
      %x = f32[10]{0} get-tuple-element(%state), index=2
      %n = f32[10]{0} negate(%x)
      ROOT %next = (s32[], s32[], f32[10]{0}) tuple(%at, %limit, %n)
    }
"""


@pytest.mark.parametrize("limit", ["constant(20)", "parameter(1)"])
def test_a_loop_without_a_known_count_is_read_from_its_start_and_its_condition(limit):
    text = program(
        f"""
        %x = f32[10]{{0}} parameter(0)
        %begin = s32[] constant(4)
        %end = s32[] {limit}
        %copied = s32[] copy(%end)
        %all = (s32[], s32[], f32[10]{{0}}) tuple(%begin, %copied, %x)
        ROOT %loop = (s32[], s32[], f32[10]{{0}}) while(%all), condition=%unfinished, body=%body, metadata={{op_name="draw"}}
        """,  # noqa: E501
        LOOP,
        """
        %less (a: s32[], b: s32[]) -> pred[] {
          %a = s32[] parameter(0)
          %b = s32[] parameter(1)
          ROOT %c = pred[] compare(%a, %b), direction=LT
        }
        """,
        """
        %unfinished (s: (s32[], s32[], f32[10])) -> pred[] {
          %s = (s32[], s32[], f32[10]{0}) parameter(0)
          %i = s32[] get-tuple-element(%s), index=0
          %l = s32[] get-tuple-element(%s), index=1
          ROOT %f = pred[] fusion(%i, %l), kind=kLoop, calls=%less
        }
        """,
    )
    if limit.startswith("parameter"):
        with pytest.raises(ValueError, match="cannot tell how often the loop 'draw' runs"):
            counted(text)
    else:
        assert {r.runs for r in counted(text) if r.loop == "draw"} == {16}


def test_what_is_no_program_is_refused():
    with pytest.raises(ValueError, match="it has no ENTRY"):
        read("module @jit_f { }")
    with pytest.raises(ValueError, match="a bracket without its fellow"):
        read("ENTRY %main (x: f32[1]) -> f32[1] {\n  %x = (f32[1], f32[2]\n}")
