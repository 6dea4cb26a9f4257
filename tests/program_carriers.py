"""Steps of random programs that come between convolutions: every op that carries c01b, and some that do not.

As in program_sites.py, a step draws what fits and adds a line, or does nothing.
"""
import math

from hypothesis import strategies as st

# ---------------------------------------------------------------------------------------------------------------------
# Elementwise ops.

UNARY = ("T.nnet.relu({0})", "abs({0})", "-{0}", "{0} * 2", "{0} - 1", "T.clip({0}, -2, 3)", "T.clip({0}, 0, 2)", "T.sgn({0})",
         "T.switch({0} > 0, {0}, 1)", "T.maximum({0}, 0)", "T.gt({0}, 0) * {0}", "{0} + T.ones_like({0})",
         "T.sqr(T.clip({0}, -3, 3))", "T.cast(T.cast(T.clip({0}, -3, 3), 'int8'), 'float32')", "T.clip({0}, -1, 1) ** 3",
         "T.zeros_like({0}) + 1",
         "T.cast(T.cast({0}, 'float64'), 'float32')", "theano.gradient.disconnected_grad({0})",
         "T.cast(T.neq({0}, 0), 'float32')", "T.nnet.relu({0}, 0.5)")
UNARY_OF_FRACTIONS = ("T.tanh({0})", "T.nnet.sigmoid({0})", "T.exp(T.clip({0}, -2, 2))", "T.nnet.softplus({0})",
                      "T.log(1 + T.sqr({0}))", "T.sqrt(abs({0}) + 1)", "{0} / (1 + abs({0}))", "T.nnet.elu({0})",
                      "1 / (1 + T.sqr({0}))", "T.nnet.hard_sigmoid({0})", "T.sin({0})")
BINARY = ("{0} + {1}", "{0} - {1}", "{1} - {0}", "T.clip({0}, -3, 3) * T.clip({1}, -2, 2)", "T.maximum({0}, {1})",
          "T.minimum({1}, {0})", "T.switch({0} > {1}, {0}, {1})", "T.cast(T.eq({0}, {1}), 'float32') + {0}",
          "T.add({0}, {1}, {0})", "ifelse({0}.sum() > 0, {0} * 2, {0} + {1})")


def unary(d):
    x = d.pick(1, 2, 3, 4, 5)
    table = UNARY + (UNARY_OF_FRACTIONS * 2 if d.fractions else ())
    d.add(d.one_of(*table).format(x.name), x.shape)


def binary(d):
    x = d.pick(2, 3, 4, 5)
    others = [v for v in d.values if v.shape == x.shape and v.name != x.name and v.dtype == x.dtype]
    if others and not d.chance(3):
        other = d.one_of(*others).name
    else:
        other = d.one_of(bias, keeps_dims, of_lower_rank, broadcast_operand)(d, x)
    d.add(d.one_of(*BINARY).format(x.name, other), x.shape)


def bias(d, x):
    b = d.shared((x.shape[1],))
    return "%s.dimshuffle('x', 0%s)" % (b.name, ", 'x'" * (x.ndim - 2))


def keeps_dims(d, x):
    reduction = d.one_of("max", "min", "sum", "mean")
    return "%s.%s(axis=%s, keepdims=True)" % (x.name, reduction, d.axes(x.ndim))


def of_lower_rank(d, x):
    return d.one_of(d.shared, d.given)(x.shape[d.number(1, x.ndim):]).name


def broadcast_operand(d, x):
    axes = d.axes(x.ndim)
    shape = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
    return d.one_of(d.shared, lambda *a, **k: d.given(*a, changes=0 not in axes, **k))(shape, broadcast=axes).name

# ---------------------------------------------------------------------------------------------------------------------
# Ops that move axes, reduce, reshape, cut and join.


def dimshuffle(d):
    x = d.pick(2, 3, 4)
    if d.chance(3) and x.ndim < 5:
        place = d.number(0, x.ndim)
        order = list(range(x.ndim))
        order.insert(place, "x")
        d.add("%s.dimshuffle(%s)" % (x.name, ", ".join(map(repr, order))), x.shape[:place] + (1,) + x.shape[place:])
        return
    order = d.one_of((1, 2, 3, 0), (3, 0, 1, 2), (0, 1, 3, 2), (0, 2, 3, 1), (1, 0, 2, 3), None) if x.ndim == 4 else None
    order = order or tuple(d.draw(st.permutations(range(x.ndim))))
    d.add("%s.dimshuffle%s" % (x.name, order), [x.shape[axis] for axis in order])


def reduction(d):
    x = d.pick(2, 3, 4, 5)
    axes, keep = d.axes(x.ndim), d.chance(4)
    name = d.one_of("sum", "sum", "max", "min", "mean", "any", "argmax", "prod", "var" if d.fractions else "sum")
    if name == "argmax":
        axes = axes[:1]
    axis = ", axis=%s" % (axes if len(axes) > 1 else axes[0],) if len(axes) < x.ndim or d.chance(2) else ", axis=None"
    operand = "T.clip(%s, -1, 1)" % x.name if name == "prod" else x.name
    expression = "T.%s(%s%s%s)" % (name, operand, axis, ", keepdims=True" if keep else "")
    shape = [1 if axis in axes else size for axis, size in enumerate(x.shape) if keep or axis not in axes]
    d.add("T.cast(%s, 'float32')" % expression if name in ("any", "argmax") else expression, shape)


def factors(d, count, parts):
    """`count` as a product of so many numbers."""
    shape = []
    for _ in range(parts - 1):
        shape.append(d.one_of(*[n for n in range(1, min(count, 40) + 1) if count % n == 0]))
        count //= shape[-1]
    return shape + [count]


def reshape(d):
    x = d.pick(2, 3, 4, 5)
    rest, name = math.prod(x.shape[1:]), x.name
    kind = d.number(0, 8)
    if kind == 0:
        d.add("%s.flatten(2)" % name, (x.shape[0], rest))
    elif kind == 1 and x.ndim > 3:
        d.add("%s.flatten(3)" % name, x.shape[:2] + (rest // x.shape[1],))
    elif kind == 2:
        d.add("%s.reshape((%s.shape[0], -1))" % (name, name), (x.shape[0], rest))
    elif kind == 3:
        merged = x.shape[0] * x.shape[1]
        d.add("%s.reshape((%s.shape[0] * %s.shape[1], -1))" % (name, name, name), (merged, rest // x.shape[1]))
    elif kind == 4:
        last = d.one_of(*[n for n in range(1, 30) if rest % n == 0])
        d.add("%s.reshape((-1, %d))" % (name, last), (x.shape[0] * rest // last, last))
    elif kind in (5, 6):
        shape = factors(d, rest, d.number(1, 3))
        first = d.one_of("%s.shape[0]" % name, "-1", str(x.shape[0]))
        d.add("%s.reshape((%s))" % (name, ", ".join([first] + [str(n) for n in shape])), [x.shape[0]] + shape)
    elif kind == 7:
        shape = factors(d, x.shape[0] * rest, d.number(2, 4))
        d.add("%s.reshape(%s)" % (name, tuple(shape)), shape)
    else:
        other = d.pick(2, 3, 4, 5, where=lambda v: math.prod(v.shape) == math.prod(x.shape))
        d.add("%s.reshape(%s.shape, ndim=%d)" % (name, other.name, other.ndim), other.shape)


def index_of(d, x):
    """An index, as text, and the shape of the part; None for an empty part."""
    entries, shape = [], []
    for axis, size in enumerate(x.shape):
        entry, left = d.one_of(*[(":", size)] * 4, ("1:", size - 1), (":-1", size - 1), ("::2", (size + 1) // 2), ("::-1", size),
                               ("-2:", min(2, size)), ("0", 0), ("-1", 0), ("i", 0), ("i:", size - 1), ("1:-1", size - 2))
        if left < 0 or (left == 0 and entry not in ("0", "-1", "i")) or (entry in ("i", "i:") and size < 2):
            return None, None
        if "i" in entry:
            entry = entry.replace("i", d.integers(1))
        entries.append(entry)
        shape += [left] if left else []
    while len(entries) > 1 and entries[-1] == ":" and d.chance(2):
        entries.pop()
    return "[%s]" % ", ".join(entries), shape


def part(d):
    x = d.pick(1, 2, 3, 4, 5)
    index, shape = index_of(d, x)
    if index:
        d.add(x.name + index, shape)


def changed_part(d):
    x = d.pick(2, 3, 4)
    index, shape = index_of(d, x)
    if not index:
        return
    how = d.one_of("set", "inc")
    fitting = [v.name for v in d.values if v.shape == tuple(shape) and v.dtype == x.dtype]
    value = d.one_of("2", "0", x.name + index + " * 2", *fitting)
    if value == "2" and shape and d.chance(2):
        value = d.shared(tuple(shape[d.number(0, len(shape) - 1):])).name
    d.add("T.%s_subtensor(%s%s, %s)" % (how, x.name, index, value), x.shape)


def listed(d):
    """Images, or other axes, by lists of numbers."""
    x = d.pick(2, 3, 4)
    axis = d.number(0, x.ndim - 1) if d.chance(3) else 0
    rows = d.draw(st.lists(st.integers(0, x.shape[axis] - 1), min_size=1, max_size=5))
    index = "[%s%s]" % (":, " * axis, d.integers(rows))
    kind = d.number(0, 3)
    if kind == 0:
        d.add("T.%s_subtensor(%s%s, 1)" % (d.one_of("set", "inc"), x.name, index), x.shape)
    else:
        d.add(x.name + index, x.shape[:axis] + (len(rows),) + x.shape[axis + 1:])


def join(d):
    x = d.pick(2, 3, 4)
    axis = d.number(0, x.ndim - 1)
    others = [v for v in d.values if v.ndim == x.ndim and v.dtype == x.dtype
              and all(a == b for i, (a, b) in enumerate(zip(v.shape, x.shape)) if i != axis)]
    y = d.one_of(*others)
    kind = d.number(0, 4)
    if kind == 0 and x.ndim < 5 and x.shape == y.shape:
        d.add("T.stack([%s, %s], axis=%d)" % (x.name, y.name, axis), x.shape[:axis] + (2,) + x.shape[axis:])
        return
    parts = [(x.name, x.shape[axis]), (y.name, y.shape[axis])]
    if kind == 1:
        parts.append(("T.zeros_like(%s[%s:1])" % (x.name, ":, " * axis), 1))
    if kind == 2:
        parts.reverse()
    d.add("T.concatenate([%s], axis=%d)" % (", ".join(p for p, _ in parts), axis if d.chance(2) else axis - x.ndim),
          x.shape[:axis] + (sum(n for _, n in parts),) + x.shape[axis + 1:])


def split(d):
    x = d.pick(2, 3, 4, where=lambda v: max(v.shape) > 1)
    if x is None:
        return
    axis = d.one_of(*[i for i, size in enumerate(x.shape) if size > 1])
    first = d.number(1, x.shape[axis] - 1)
    which = d.number(0, 1)
    sizes = [first, x.shape[axis] - first]
    d.add("T.split(%s, %s, 2, axis=%d)[%d]" % (x.name, sizes, axis, which),
          x.shape[:axis] + (sizes[which],) + x.shape[axis + 1:])


def zeros_around(d):
    """Pads by hand, and sometimes more rows than columns of them."""
    x = d.pick(4)
    top, bottom, left, right = (d.number(0, 2) for _ in range(4))
    more = ("", "", " + %d" % (top + bottom), " + %d" % (left + right))
    sizes = ["%s.shape[%d]%s" % (x.name, axis, added) for axis, added in enumerate(more)]
    if d.chance(3) and not d.others:
        sizes = [str(n) for n in (x.shape[0], x.shape[1], x.shape[2] + top + bottom, x.shape[3] + left + right)]
    zeros = "T.zeros((%s), 'float32')" % ", ".join(sizes)
    inside = "[:, :, %d:%s, %d:%s]" % (top, -bottom or "", left, -right or "")
    if d.chance(3):
        inside = "[:, :, %d:%d + %s.shape[2], %d:%d + %s.shape[3]]" % (top, top, x.name, left, left, x.name)
    d.add("T.%s_subtensor(%s%s, %s)" % (d.one_of("set", "set", "inc"), zeros, inside, x.name),
          x.shape[:2] + (x.shape[2] + top + bottom, x.shape[3] + left + right))


def spread(d):
    """Repeated rows and the like."""
    x = d.pick(2, 3, 4)
    axis = d.number(0, x.ndim - 1)
    kind = d.number(0, 4)
    twice = x.shape[:axis] + (2 * x.shape[axis],) + x.shape[axis + 1:]
    if kind == 0:
        d.add("T.repeat(%s, 2, axis=%d)" % (x.name, axis), twice)
    elif kind == 1:
        counts = [d.number(1, 2) for _ in range(x.shape[axis])]
        d.add("T.repeat(%s, %s, axis=%d)" % (x.name, "np.array(%s)" % counts if d.chance(2) else d.integers(counts), axis),
              x.shape[:axis] + (sum(counts),) + x.shape[axis + 1:])
    elif kind == 2:
        d.add("T.tile(%s, %s)" % (x.name, tuple(2 if i == axis else 1 for i in range(x.ndim))), twice)
    elif kind == 3 and x.ndim == 4:
        size = x.shape[:2] + (2 * x.shape[2], 2 * x.shape[3])
        d.add("T.repeat(T.repeat(%s, 2, axis=2), 2, axis=3)" % x.name, size)
    elif x.ndim >= 2:
        sizes = ", ".join("%s.shape[%d]" % (x.name, i) for i in range(x.ndim))
        d.add("T.alloc(%s, %s)" % (d.one_of("np.float32(2)", "%s[0]" % x.name, "%s.max()" % x.name), sizes), x.shape)

# ---------------------------------------------------------------------------------------------------------------------
# Matrices, normalizations, loops, and ops that no layout passes.


def product(d):
    x = d.pick(2)
    if x is None:
        return
    kind, columns = d.number(0, 5), d.number(1, 6)
    if kind == 0:
        d.add("T.dot(%s.T, %s)" % (x.name, x.name), (x.shape[1],) * 2)
    elif kind == 1:
        d.add("T.dot(%s, %s.T)" % (x.name, d.shared((columns, x.shape[1])).name), (x.shape[0], columns))
    elif kind == 2:
        d.add("T.dot(%s, %s)" % (d.shared((columns, x.shape[0])).name, x.name), (columns, x.shape[1]))
    elif kind == 3:
        d.add("T.dot(%s, %s)" % (x.name, d.shared((x.shape[1],)).name), x.shape[:1])
    else:
        bias = " + %s" % d.shared((columns,)).name if kind == 4 else ""
        d.add("T.dot(%s, %s)%s" % (x.name, d.shared((x.shape[1], columns)).name, bias), (x.shape[0], columns))


def tensor_product(d):
    x = d.pick(3, 4)
    if x is None:
        return
    columns = d.number(1, 5)
    w = d.shared((x.shape[1], columns))
    d.add("T.tensordot(%s, %s, axes=[[1], [0]])" % (x.name, w.name), x.shape[:1] + x.shape[2:] + (columns,))


def row_wise(d):
    x = d.pick(2)
    if x is None:
        return
    function = d.one_of("T.nnet.softmax(%s)", "T.nnet.logsoftmax(%s)", "T.log(T.nnet.softmax(%s))")
    classes = d.integers([i % x.shape[1] for i in range(x.shape[0])])
    if d.chance(2) and not d.others:
        d.add("T.nnet.categorical_crossentropy(T.nnet.softmax(%s), %s)"
              % (x.name, "T.constant(%s)" % classes if classes[0] == "[" else classes), x.shape[:1])
    else:
        d.add(function % x.name, x.shape)


def batch_normalization(d):
    x = d.pick(4)
    axes = d.one_of("spatial", "per-activation", (0, 2, 3), (0, 1))
    numbers = {"spatial": (0, 2, 3), "per-activation": (0,)}.get(axes, axes)
    shape = tuple(1 if axis in numbers else size for axis, size in enumerate(x.shape))
    gamma, beta = (d.shared(shape, broadcast=numbers).name for _ in range(2))
    if d.chance(3):
        mean, variance = d.shared(shape, broadcast=numbers).name, d.shared(shape, broadcast=numbers).name
        d.add("bn.batch_normalization_test(%s, %s, %s, %s, abs(%s) + 1, axes=%r)"
              % (x.name, gamma, beta, mean, variance, axes), x.shape)
    else:
        d.add("bn.batch_normalization_train(%s, %s, %s, axes=%r)[0]" % (x.name, gamma, beta, axes), x.shape)


LRN = ("(lambda x, padded: x / (2 + {1} * sum(padded[:, i:i + x.shape[1]] for i in range(3))) ** {2})({0}, T.set_subtensor("
       "T.alloc(np.float32(0), {0}.shape[0], {0}.shape[1] + 2, {0}.shape[2], {0}.shape[3])[:, 1:-1], T.sqr({0})))")


def response_normalization(d):
    x = d.pick(4)
    d.add(LRN.format(x.name, d.one_of("0.5", "1e-4"), d.one_of("0.75", "1")), x.shape)


def loop(d):
    x = d.pick(4)
    filters = d.shared((x.shape[1], x.shape[1], 3, d.one_of(1, 3))).name
    step = "T.clip(T.nnet.conv2d(h, u, border_mode='half')%s, -2, 2)"
    kind = d.number(0, 2)
    if kind == 0:
        d.add("theano.scan(lambda h, u: %s, sequences=[T.stack([%s, %s * 2])], non_sequences=[%s], mode=mode)[0][1]"
              % (step % "", x.name, x.name, filters), x.shape)
    elif kind == 1:
        d.add("theano.scan(lambda h, u: %s, outputs_info=[%s], non_sequences=[%s], n_steps=2, mode=mode)[0][-1]"
              % (step % "", "T.unbroadcast(%s, 0, 1, 2, 3)" % x.name, filters), x.shape)
    else:
        d.add("theano.scan(lambda h, u, x: %s, outputs_info=[%s], non_sequences=[%s, %s], n_steps=2, mode=mode)[0].sum(axis=0)"
              % (step % " + x", "T.unbroadcast(%s, 0, 1, 2, 3)" % x.name, filters, x.name), x.shape)


def minibatch(d):
    """Images of a data set: bytes, or a slice of a shared variable at a place that the caller names."""
    shape = (d.values[0].shape[0], d.number(1, 3), d.number(4, 7), d.number(4, 7))
    if d.chance(2):
        x = d.add("given(%s, dtype='uint8')" % (shape,), shape, "uint8", prefix="b")
        d.add("T.cast(%s, 'float32')%s" % (x.name, d.one_of("", " / 2", " - 1")), shape)
    else:
        data, size = d.shared((shape[0] * 2 + 1,) + shape[1:]), shape[0]
        if data is not None:
            i = d.integers(1)
            d.add("%s[%s * %d:(%s + 1) * %d]" % (data.name, i, size, i, size), shape)


WINDOWS = ("{0}.reshape(({0}.shape[0], {0}.shape[1], {0}.shape[2] // {1}, {1}, {0}.shape[3] // {2}, {2})).{3}(axis=(3, 5))",
           "{0}.reshape(({4}, {5}, {6}, {1}, {7}, {2})).{3}(axis=(3, 5))",
           "images2neibs({0}, ({1}, {2})).{3}(axis=1).reshape(({0}.shape[0], {0}.shape[1], {0}.shape[2] // {1}, "
           "{0}.shape[3] // {2}))")


def windows(d):
    """Means over windows as programs write them without pooling."""
    x = d.pick(4)
    rows, columns = (d.one_of(*[n for n in (2, 3, 1) if size % n == 0]) for size in x.shape[2:])
    shape = x.shape[:2] + (x.shape[2] // rows, x.shape[3] // columns)
    d.add(d.one_of(*WINDOWS).format(x.name, rows, columns, d.one_of("mean", "sum"), *shape), shape)


WITHOUT_RULE = ("T.cumsum({0}, axis={1})", "T.sort({0}, axis={1})", "T.roll({0}, 1, axis={1})",
                "{0} + T.argsort({0}, axis={1}).astype('int8')")


def without_rule(d):
    x = d.pick(2, 4)
    d.add("T.cast(%s, 'float32')" % d.one_of(*WITHOUT_RULE).format(x.name, d.number(0, x.ndim - 1)), x.shape)


def size_as_number(d):
    x = d.pick(2, 3, 4)
    size = d.one_of("%s.shape[%d]" % (x.name, d.number(0, x.ndim - 1)), "%s.size" % x.name, "%s.shape[1:].prod()" % x.name)
    d.add("%s + T.cast(%s, 'float32')" % (x.name, size), x.shape)

RARE = (changed_part, listed, split, zeros_around, spread, product, tensor_product, row_wise, batch_normalization,
        response_normalization, response_normalization, loop, minibatch, windows, without_rule, size_as_number)
