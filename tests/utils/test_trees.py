"""Whatever is taken apart is put together again, to the bit; what cannot be is refused by its path."""

import json
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct
from flax.core import freeze
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.utils.states import a_state, same
from ztb_jax.utils import trees

WIDE = frozenset({"int64", "uint64", "float64", "complex128"})


@st.composite
def numpy_arrays(draw, without=frozenset()) -> np.ndarray:
    """Of any bits, so that NaN of every payload is among them."""
    dtype = jnp.dtype(draw(st.sampled_from(sorted(trees.NUMBERS - without))))
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
    size = int(np.prod(shape)) * dtype.itemsize
    held = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), np.uint8)
    return ((held % 2).astype(bool) if dtype.name == "bool" else held.view(dtype)).reshape(shape)


JAX = numpy_arrays(WIDE).map(jnp.asarray)
KEYS = st.builds(
    lambda seed, impl: jax.random.key(seed, impl=impl),
    st.integers(0, 9),
    st.sampled_from(["threefry2x32", "rbg"]),
)
PLAIN = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.complex_numbers() | st.text(st.characters())
)
SCALARS = numpy_arrays().filter(np.size).map(lambda array: array.reshape(-1)[0])
STATES = st.recursive(
    PLAIN | numpy_arrays() | JAX | KEYS | SCALARS,
    lambda part: (
        st.lists(part, max_size=3)
        | st.lists(part, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers() | st.none(), part, max_size=3)
    ),
    max_leaves=8,
)


def there_and_back(state: Any, **named: Any) -> Any:
    parts = trees.take_apart(state)
    form = json.loads(json.dumps(parts.form, allow_nan=False))
    told = json.loads(json.dumps(trees.described(parts.arrays)))
    wanted = trees.stand_ins(told)
    assert trees.described(wanted) == trees.described(parts.arrays)
    return trees.put_together(form, parts.arrays, **named)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(STATES)
def test_any_state_comes_back_to_the_bit(state):
    assert same(there_and_back(state), state)
    assert same(there_and_back(state, like=state), state)


@pytest.mark.parametrize(
    "value",
    [
        10**5000,
        -(2**63),
        -0.0,
        float("-inf"),
        complex(float("nan"), -0.0),
        "\udc80 \0 ü",
        {True: 1, 2: 0, None: 3, 0.5: 4, "": 5},
        np.float64(0.1),
        np.bool_(True),
        np.asarray(jnp.float8_e5m2(2.0)),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(10.0)[::-3],
        jnp.zeros((), jnp.bfloat16),
        jnp.zeros((0, 3)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_odd_values_come_back(value):
    assert same(there_and_back({"value": value})["value"], value)


def test_arrays_that_were_loaded_can_be_assigned_to():
    there_and_back({"a": np.zeros(3), "b": np.zeros(3, np.float32)})["a"][0] = 1.0
    there_and_back(np.zeros(3, np.float32))[0] = 1.0


def test_what_is_changed_after_it_was_taken_is_not_changed_in_it():
    state = {"prices": np.zeros(3), "history": [1], "w": jnp.arange(1 << 16, dtype=jnp.float32)}
    parts = trees.take_apart(state)
    state["prices"][:] = 1.0
    state["history"].append(2)
    w = jax.jit(lambda w: w + 1.0, donate_argnums=0)(state["w"])
    w = jax.jit(lambda w: w + 1.0, donate_argnums=0)(w)
    back = trees.put_together(parts.form, parts.arrays)
    assert same(back, {"prices": np.zeros(3), "history": [1], "w": jnp.arange(1 << 16, dtype=jnp.float32)})


class Account(struct.PyTreeNode):
    cash: jax.Array
    limit: int = struct.field(pytree_node=False)


class Pair(NamedTuple):
    first: Any
    second: Any


def a_training(value: float) -> dict[str, Any]:
    params = {"w": jnp.full(3, value), "b": jnp.full((), value)}
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
    return {
        "params": freeze(params),
        "optimizer": optimizer.init(params),
        "account": Account(jnp.full(2, value), 7),
        "pair": Pair(value, [None, "text"]),
        "key": jax.random.key(int(value)),
    }


def test_pytrees_come_back_by_an_example():
    state, like = a_training(2.0), a_training(0.0)
    back = there_and_back(state, like=like)
    assert jax.tree.structure(back) == jax.tree.structure(state)
    assert all(map(same, jax.tree.leaves(back), jax.tree.leaves(state)))
    assert type(back["optimizer"][1][0]) is type(state["optimizer"][1][0])
    assert isinstance(back["pair"], Pair)
    assert back["account"].limit == 7


def test_shapes_are_example_enough():
    state = (optax.adam(1e-3).init({"w": jnp.ones(3)}), jax.random.key(3))
    back = there_and_back(state, like=jax.eval_shape(lambda: state))
    assert all(map(same, jax.tree.leaves(back), jax.tree.leaves(state)))


@pytest.mark.parametrize(
    ("state", "path"),
    [
        ({"a": [Pair(1, 2)]}, r"state/a/0 is of type .*Pair.*`like=`"),
        ((optax.EmptyState(),), r"state/0 is of type .*EmptyState.*`like=`"),
        (freeze({"w": 1}), r"state is of type .*FrozenDict.*`like=`"),
    ],
)
def test_pytrees_without_an_example_are_told_by_their_path(state, path):
    with pytest.raises(ValueError, match=path):
        there_and_back(state)


@pytest.mark.parametrize(
    ("state", "like", "told"),
    [
        ({"a": 1}, {"b": 1}, r"state is a dict of \['a'\], and `like` has a dict of \['b'\]"),
        ({"a": [1, 2]}, {"a": [1]}, "state/a is a list of 2, and `like` has a list of 1"),
        ([1], (1,), "state is a list of 1, and `like` has a tuple of 1"),
        ([1], [1.0], "state/0 is of type int, and `like` has of type float"),
        ([jnp.ones(3)], [jnp.ones(4)], r"state/0 is float32\[3\], and `like` has float32\[4\]"),
        ([jnp.ones(3)], [jnp.ones(3, int)], r"state/0 is float32\[3\], and `like` has int32\[3\]"),
        ([jnp.ones(3)], [None], r"state/0 is float32\[3\], and `like` has of type NoneType"),
        ([jax.random.key(0)], [jax.random.key(0, impl="rbg")], "state/0 is key<fry>"),
        (Pair(1, 2), [1, 2], "state is of type .*Pair, and `like` has a list of 2"),
        (freeze({"a": 1}), freeze({"b": 1}), r"state has \['a'\], and `like` has \['b'\]"),
    ],
)
def test_an_example_that_does_not_fit_is_told_by_its_path(state, like, told):
    with pytest.raises(ValueError, match=told):
        there_and_back(state, like=like)


def test_arrays_go_where_those_of_the_example_are():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("x",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    state = {"w": jnp.arange(4.0)}
    assert not there_and_back(state, like=state)["w"].committed
    for like in (
        jax.device_put(jnp.zeros(4), sharding),
        jax.ShapeDtypeStruct((4,), jnp.float32, sharding=sharding),
    ):
        assert there_and_back(state, like={"w": like})["w"].sharding == sharding


def itself() -> list:
    state: list = [np.ones(3)]
    state.append(state)
    return state


def deleted() -> jax.Array:
    array = jnp.ones(3) + 1.0
    array.delete()
    return array


@pytest.mark.parametrize(
    ("value", "error", "told"),
    [
        (lambda: {"log": sys.stdout}, TypeError, "state/part/log is of type .* cannot be saved"),
        (object, TypeError, "state/part is of type builtins:object"),
        (lambda: [print], TypeError, "state/part/0 is of type builtins:builtin_function"),
        (lambda: b"bytes", TypeError, "state/part is of type builtins:bytes"),
        (lambda: {(1, 2): 3}, TypeError, r"state/part has the key \(1, 2\)"),
        (lambda: np.array(["text"]), TypeError, "state/part is an array of <U4"),
        (lambda: np.array([object()]), TypeError, "state/part is an array of object"),
        (lambda: np.array(["2024-01-02"], "M8[D]"), TypeError, "state/part is an array of datetime64"),
        (lambda: np.ones(2, ">f4"), TypeError, "state/part is an array of >f4.*byte order"),
        (lambda: np.longdouble(1), TypeError, "state/part is an array of float128"),
        (lambda: np.ma.masked_array([1.0], [True]), TypeError, "state/part is of type .*MaskedArray"),
        (lambda: jax.ShapeDtypeStruct((3,), jnp.float32), TypeError, "state/part is of type"),
        (deleted, ValueError, "state/part cannot be read.*deleted"),
        (itself, ValueError, "state/part/1/1.*does it contain itself"),
        (lambda: optax.ScaleByScheduleState(count=open), TypeError, "state/part/count is of type"),
    ],
)
def test_what_cannot_be_saved_is_told_by_its_path(value, error, told):
    with pytest.raises(error, match=told):
        trees.take_apart({"fine": 1, "part": value()})


def test_inside_a_jitted_function_nothing_is_saved():
    with pytest.raises(ValueError, match="state/w cannot be read"):
        jax.jit(lambda w: trees.take_apart({"w": w}))(jnp.ones(3))


def test_wide_arrays_of_jax_are_not_narrowed_unsaid():
    with jax.enable_x64(True):
        state = {"w": jnp.arange(3, dtype=jnp.float64) / 3}
        parts = trees.take_apart(state)
        assert same(trees.put_together(parts.form, parts.arrays), state)
    with pytest.raises(ValueError, match=r"state/w is an array of float64.*jax_enable_x64"):
        trees.put_together(parts.form, parts.arrays)


def test_a_state_of_every_kind_comes_back():
    assert same(there_and_back(a_state(3)), a_state(3))
    assert not same(there_and_back(a_state(3)), a_state(4))
