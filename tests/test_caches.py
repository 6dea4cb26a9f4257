"""Files that outlive the process, on disks that are full, read-only or not there, and with content of any kind in them.

What is shown of calibrations and verdicts alone is in test_cost.py and test_measure.py.
"""
import errno
import json
import logging
import os
import resource
import tempfile

import pytest

from layoutopt import calibrate, kept, verdicts
from layoutopt.rewrites.cost import Machine

KEY = dict(a=1)


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch):
    monkeypatch.setattr(kept, "_told", set())


@pytest.fixture
def path(tmp_path):
    """A file that is there already."""
    path = kept.path_of("number", KEY, str(tmp_path / "cache"))
    assert kept.write(path, dict(key=KEY, number=1), "number") == path
    return path


def number(path):
    return kept.read(path, KEY, "number", lambda content: content["number"])


def messages(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "layoutopt"]


def still_as_it_was(path, caplog):
    """Whether a file is whole and alone in its folder, and one sentence was said."""
    sentence, = messages(caplog)
    return number(path) == 1 and os.listdir(os.path.dirname(path)) == [os.path.basename(path)] and sentence


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES], ids=errno.errorcode.get)
@pytest.mark.parametrize("module, function", [
    (os, "makedirs"), (tempfile, "NamedTemporaryFile"), (json, "dump"), (os, "replace")],
    ids=lambda item: getattr(item, "__name__", item))
def test_a_disk_that_refuses(path, module, function, code, monkeypatch, caplog):
    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(module, function, refuse)
        assert [kept.write(path, dict(key=KEY, number=2), "number") for _ in range(2)] == [None, None]
    assert os.strerror(code) in still_as_it_was(path, caplog)
    assert kept.write(path, dict(key=KEY, number=3), "number") and number(path) == 3  # there is room again


def test_a_disk_that_is_full_while_a_file_is_written(path, caplog):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        outcome = kept.write(path, dict(key=KEY, number=[2] * 10000), "number")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert outcome is None and os.strerror(errno.EFBIG) in still_as_it_was(path, caplog)


@pytest.mark.parametrize("content", [b"", b"[" * 100000, b'{"a":' * 5000 + b"1" + b"}" * 5000, b"1" * 10000, b"\xff\xfe", b"NaN",
                                     b'"text"', b'{"key": {"a": 1}}', b'{"key": {"a": 2}, "number": 1}',
                                     b'{"key": {"a": 1}, "number": 1}' + b" " * kept.LARGEST], ids=range(10))
def test_content_of_any_kind(path, content, caplog):
    with open(path, "wb") as file:
        file.write(content)
    assert [number(path), number(path)] == [None, None]
    sentence, = messages(caplog)
    assert path in sentence and len(sentence) < len(path) + 500
    assert kept.write(path, dict(key=KEY, number=4), "number") and number(path) == 4


def test_a_folder_where_the_file_should_be(path, caplog):
    os.unlink(path)
    os.mkdir(path)
    assert number(path) is None and kept.write(path, dict(key=KEY, number=2), "number") is None
    assert len(messages(caplog)) == 2 and os.listdir(os.path.dirname(path)) == [os.path.basename(path)]


@pytest.mark.parametrize("field, value", [("core_flops", 10 ** 400), ("core_flops", True), ("threads", 2.5), ("lanes", 1e300),
                                          ("lanes", [16]), ("bandwidth", float("inf")), ("cache", None)])
def test_a_machine_of_impossible_numbers(field, value, tmp_path, caplog):
    machine = Machine()
    stored = calibrate.save(machine, str(tmp_path))
    content = json.loads(open(stored).read())
    content["machine"][field] = value
    with open(stored, "w") as file:
        json.dump(content, file)
    assert calibrate.load(machine, str(tmp_path)) == machine
    sentence, = messages(caplog)
    assert "not used" in sentence and len(sentence) < len(stored) + 200


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), 0.0, 10 ** 400, True, [1.0]], ids=lambda value: str(value)[:5])
def test_a_verdict_of_impossible_seconds(seconds):
    with pytest.raises(ValueError):
        verdicts._seconds(dict(seconds=dict(bc01=1.0, c01b=seconds)))


def test_without_a_home_nothing_is_kept_and_that_is_said_once(tmp_path, monkeypatch, caplog):
    """A user without an entry in the system's list, as containers have them: '~' stands for nothing, and is no folder to make."""
    for name in ("LAYOUTOPT_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.chdir(tmp_path)
    paths = [kept.path_of("number", dict(a=a)) for a in (1, 2)]
    assert paths[0] != paths[1]  # they tell verdicts apart in the process
    assert [kept.write(path, dict(key=KEY, number=1), "number") for path in paths] == [None, None]
    assert number(paths[0]) is None and os.listdir(str(tmp_path)) == []
    sentence, = messages(caplog)
    assert "home" in sentence and "LAYOUTOPT_CACHE" in sentence


def test_a_home_in_the_users_own_setting(monkeypatch):
    monkeypatch.setenv("LAYOUTOPT_CACHE", "~/mine")
    monkeypatch.setenv("HOME", "/home/someone")
    assert kept.cache_folder() == "/home/someone/mine"


def test_sentences_are_logged_as_warnings(path, caplog):
    with open(path, "w") as file:
        file.write("{")
    number(path)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
