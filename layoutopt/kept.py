"""Small files that outlive the process: measurements, each with the key that it is valid for.

They are in $LAYOUTOPT_CACHE, else $XDG_CACHE_HOME/layoutopt, else ~/.cache/layoutopt. A file is replaced whole, so that whoever
reads it meanwhile sees the old one or the new one. One that makes no sense is as good as none, which is said once; so is a
folder that cannot be written, and a user without a home.
"""
import contextlib
import hashlib
import json
import logging
import os
import tempfile

LARGEST = 1 << 20  # bytes; ours are below a thousandth of that

logger = logging.getLogger("layoutopt")

_told = set()


def cache_folder():
    """The folder of the files; where there is no home it begins with '~', and `write` refuses to make it."""
    chosen = os.environ.get("LAYOUTOPT_CACHE")
    if chosen:
        return os.path.expanduser(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "layoutopt")


def path_of(kind, key, folder=None):
    """The file of this kind with this key, which is plain data."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return os.path.join(folder or cache_folder(), "%s-%s.json" % (kind, digest[:16]))


def write(path, content, what):
    """Write `content` as JSON.

    Parameters
    ----------
    what : str
        What it is called in the sentence that says why it is not kept.

    Returns
    -------
    str, or None
        The path; None where it cannot be written.
    """
    try:
        if path.startswith("~"):
            raise OSError("there is no home directory; LAYOUTOPT_CACHE can name a folder")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=os.path.dirname(path), suffix=".tmp", delete=False) as file:
            try:
                json.dump(content, file, indent=1)
                file.close()
                os.replace(file.name, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(file.name)
                raise
    except OSError as error:
        say_once(os.path.dirname(path), "layoutopt: the %s is not kept: %s", what, error)
        return None
    return path


def read(path, key, what, understand):
    """What `understand` makes of the content of a file.

    Parameters
    ----------
    key : plain data
        What the file must be valid for, its own field ``key``.
    understand : callable
        Takes the content, a dictionary; raises ValueError, KeyError, TypeError, AttributeError or ArithmeticError where it
        makes no sense.

    Returns
    -------
    object, or None
        None where there is no such file, or none of use.
    """
    try:
        with open(path) as file:
            text = file.read(LARGEST + 1)
        if len(text) > LARGEST:
            raise ValueError("it has more than %d bytes" % LARGEST)
        content = json.loads(text)
        if content["key"] != json.loads(json.dumps(key)):  # a tuple comes back as a list
            raise ValueError("it belongs to %.200s" % (content["key"],))
        return understand(content)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        say_once(path, "layoutopt: %s %s is not used: %.300s", what, path, error)
        return None


def say_once(subject, message, *values):
    """Log a warning about `subject`, unless there was one already."""
    if subject not in _told:
        _told.add(subject)
        logger.warning(message, *values)
