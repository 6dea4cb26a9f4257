"""Flags that the user set: what they cannot be, and names that are none. In programs of their own: test_install.py."""
import pytest
import theano.configparser

from layoutopt import flags


@pytest.mark.parametrize("section, key, words", [
    ("", "layoutopt.winogrd", "there is no flag layoutopt.winogrd: is layoutopt.winograd meant?"),
    ("", "layoutopt.Batch", "is layoutopt.batch meant?"),
    ("layoutopt", "reports", "there is no flag layoutopt.reports: is layoutopt.report meant?"),
    ("global", "layoutopt.batc", "is layoutopt.batch meant?"),
    ("", "layoutopt.xyz", "there are constraints, batch, cost, "),
    ("", "layoutopt.", "there are constraints, batch, cost, "),
    ("global", "layoutopt.batch", "no effect in the section [global]: put batch into a section [layoutopt]")])
def test_a_name_that_is_none_is_said_with_the_nearest(section, key, words):
    sentence, = flags.complaints([(section, key)])
    assert words in sentence


def test_flags_bring_no_complaint():
    assert list(flags.complaints([("", "layoutopt." + name) for name in flags.names()])) == []
    assert list(flags.complaints([("layoutopt", name) for name in flags.names()])) == []


@pytest.mark.parametrize("name, value, can_be", [
    ("winograd", "f8", "f2, f4, off"), ("batch", "0", "at least 1"), ("batch", "many", "at least 1"),
    ("batch", "1e3", "whole number"), ("workspace", "-1", "at least 0"), ("partial_sum", "0", "auto, None"),
    ("cost", "", "model, measure"), ("simd", "AVX", "avx2"), ("verify", "always", "no, first_call"),
    ("memory", "kept", "keep, system")])
def test_what_a_flag_cannot_be_is_said_with_what_it_can(name, value, can_be, monkeypatch):
    parameter = next(parameter for known, _, parameter in flags._FLAGS if known == name)
    monkeypatch.setitem(theano.configparser.THEANO_FLAGS_DICT, "layoutopt." + name, value)
    with pytest.raises(ValueError) as caught:
        flags._check(name, parameter)
    assert str(caught.value).startswith("layoutopt.%s is set to %r; it can be " % (name, value)) and can_be in str(caught.value)


def test_every_flag_says_what_it_can_be():
    for name, _, parameter in flags._FLAGS:
        assert hasattr(parameter, "all") or name in flags._CAN_BE or parameter.filter("any text at all") == "any text at all"


def test_both_files_and_the_environment_are_looked_at(monkeypatch):
    settings = theano.configparser.ConfigParser.ConfigParser({"USER": "someone"})
    settings.read_string("[layoutopt]\nbacth = 3\ncost = model\n[global]\nlayoutopt.batch = 3\nfloatX = float32\n")
    monkeypatch.setattr(flags, "theano_cfg", settings)
    monkeypatch.setattr(flags, "THEANO_FLAGS_DICT", {"layoutopt.wino": "f2", "floatX": "float32"})
    pairs = flags._set_by_user()
    assert pairs == [("", "layoutopt.wino"), ("layoutopt", "bacth"), ("layoutopt", "cost"), ("global", "layoutopt.batch")]
    assert len(list(flags.complaints(pairs))) == 3
