"""The table from op classes to carrier rules."""

_RULES = {}


def carries(*op_classes):
    """Decorator: the function is the rule of these op classes (and of their subclasses that have none of their own)."""

    def register(rule):
        for op_class in op_classes:
            assert op_class not in _RULES, op_class
            _RULES[op_class] = rule
        return rule

    return register


def carriers():
    """The registered op classes and their rules, a copy."""
    return dict(_RULES)


def choice_of(node, shapes):
    """The versions of a node by the rule of its op, or None if no rule applies.

    Parameters
    ----------
    node : theano.Apply
    shapes : rewrites.shapes.Shapes
    """
    for op_class in type(node.op).__mro__:
        if op_class in _RULES:
            return _RULES[op_class](node, shapes)
    return None
