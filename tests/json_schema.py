"""Holds JSON against a JSON schema, as far as our schema goes: a keyword that is not known here fails."""
import math

_TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float), "null": type(None)}
_NOTES = {"$schema", "$defs", "title", "description"}


def breaches(value, schema, root=None, path="$"):
    """A list of sentences, one for each breach."""
    root = root or schema
    if "$ref" in schema:
        return breaches(value, root["$defs"][schema["$ref"].split("/")[-1]], root, path)
    known = _NOTES | set(_KEYWORDS) | {"required", "additionalProperties", "properties", "items"}
    assert set(schema) <= known, set(schema) - known
    found = ["%s is %r, against %s %r" % (path, value, word, schema[word]) for word in _KEYWORDS
             if word in schema and not _KEYWORDS[word](value, schema[word])]
    if isinstance(value, dict) and "properties" in schema:
        assert schema["additionalProperties"] is False
        found += ["%s has no %s" % (path, name) for name in schema["required"] if name not in value]
        found += ["%s has %s" % (path, name) for name in value if name not in schema["properties"]]
        for name in set(value) & set(schema["properties"]):
            found += breaches(value[name], schema["properties"][name], root, "%s.%s" % (path, name))
    if isinstance(value, list) and "items" in schema:
        for i, item in enumerate(value):
            found += breaches(item, schema["items"], root, "%s[%d]" % (path, i))
    return found


def _is(value, names):
    names = [names] if isinstance(names, str) else names
    return any(isinstance(value, _TYPES[name]) and (name == "boolean") == isinstance(value, bool) for name in names)


_KEYWORDS = {
    "type": _is,
    "enum": lambda value, allowed: value in allowed,
    "const": lambda value, wanted: value == wanted,
    "minimum": lambda value, least: value is None or (least <= value < math.inf),
    "minItems": lambda value, count: len(value) >= count,
    "maxItems": lambda value, count: len(value) <= count,
}
