"""The table from op classes to carrier rules."""

_RULES = {}
_UNLESS = {}


def carries(*op_classes, unless="it has no layout to keep"):
    """Decorator: the function is the rule of these op classes (and of their subclasses that have none of their own).

    `unless` says, for reports, what it is with an op for which the rule has no c01b version.
    """

    def register(rule):
        for op_class in op_classes:
            assert op_class not in _RULES, op_class
            _RULES[op_class] = rule
            _UNLESS[op_class] = unless
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
    op_class = _rule_class(node)
    return None if op_class is None else _RULES[op_class](node, shapes)


def why_not(node):
    """Why a node without a c01b version has none, in words."""
    op_class = _rule_class(node)
    return "there is no rule for it" if op_class is None else _UNLESS[op_class]


def _rule_class(node):
    return next((op_class for op_class in type(node.op).__mro__ if op_class in _RULES), None)
