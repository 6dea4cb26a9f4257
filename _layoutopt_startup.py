"""What layoutopt does in a program that never imports it. Runs at the start of every interpreter (layoutopt.pth).

It stands outside the package, and imports nothing, because it must cost nothing in a program without Theano: all it does
there is leave a finder on sys.meta_path. When the program imports Theano, whoever asked for it and however the flags were
set (THEANO_FLAGS, .theanorc, os.environ in the program itself), three moments of that import are used:

    theano.configparser   has read the flags: keep layoutopt.* out of sight, or Theano warns that it does not know them
    theano.configdefaults has defined its settings: blas.ldflags gets a default that works with numpy >= 1.22
    theano                is complete: where optimizer_including names layoutopt, import it, and it registers itself

Theano's own parser decides what is set and which source wins; nothing here reads a flag or a file by itself.
"""
import sys


class TheanoWatcher:
    """Finds nothing itself: lets the other finders find Theano's modules, and acts once they are loaded."""

    def __init__(self):
        self.after = {
            "theano.configparser": self.flags_are_read,
            "theano.configdefaults": self.settings_are_defined,
            "theano": self.theano_is_complete,
        }
        self.hidden_flags = {}

    def find_spec(self, name, path=None, target=None):
        if name not in self.after:
            return None
        for finder in sys.meta_path:
            find_spec = None if finder is self else getattr(finder, "find_spec", None)
            spec = find_spec and find_spec(name, path, target)
            if spec:
                self.watch(name, spec.loader)
                return spec
        return None

    def watch(self, name, loader):
        """Make this one loader call self.after[name] when it has executed its module."""
        if not hasattr(loader, "exec_module"):  # a namespace package, as a folder that happens to be called theano
            return
        execute = loader.exec_module

        def exec_module(module):
            execute(module)
            try:
                self.after[name](module)
            except Exception as problem:  # the program must start, with layoutopt or without
                if asked_for():
                    print("layoutopt: not active, Theano runs without it: %s: %s"
                          % (type(problem).__name__, problem), file=sys.stderr)

        loader.exec_module = exec_module

    def flags_are_read(self, configparser):
        flags = configparser.THEANO_FLAGS_DICT
        flags.update(commanded_flags(configparser))
        for key in [key for key in flags if key.startswith("layoutopt.")]:
            self.hidden_flags[key] = flags.pop(key)

    def settings_are_defined(self, configdefaults):
        configdefaults.THEANO_FLAGS_DICT.update(self.hidden_flags)
        variables = sys.modules["theano.configparser"]._config_var_list
        ldflags = next(variable for variable in variables if variable.fullname == "blas.ldflags")
        # Theano calls the default only where the user set nothing anywhere.
        ldflags.default = blas_default(ldflags.default, configdefaults.config)

    def theano_is_complete(self, theano):
        sys.meta_path.remove(self)
        if asked_for():
            import layoutopt  # noqa: F401
            return
        for tag in filter(misspelt, included(theano.config)):
            print("layoutopt: not active: optimizer_including names %r, is layoutopt meant?" % tag, file=sys.stderr)


def commanded_flags(configparser):
    """What `python -m layoutopt run` and `explain` ask for, which wins; lists of optimizations are added to the user's own."""
    import os

    flags = configparser.parse_config_string(os.environ.get("LAYOUTOPT_FLAGS", ""))
    for key in flags:
        if key.startswith("optimizer_"):
            try:
                users = configparser.fetch_val_for_key(key)
            except KeyError:
                users = ""
            flags[key] = ":".join(filter(None, (users, flags[key])))
    return flags


def asked_for():
    return "layoutopt" in included(getattr(sys.modules.get("theano"), "config", None))


def included(config):
    """The optimizations that the user asks for besides Theano's."""
    return [tag for tag in getattr(config, "optimizer_including", "").split(":") if tag]


def misspelt(tag):
    """Whether a tag, which Theano ignores where it knows none of that name, is ours but for a character or two."""
    from difflib import SequenceMatcher

    return SequenceMatcher(None, tag.lower(), "layoutopt").ratio() > 0.85


def blas_default(stock, config):
    """Theano's own default for blas.ldflags where it works; numpy >= 1.22 no longer has what it reads."""
    def default():
        try:
            return stock()
        except AttributeError:
            return openblas_flags(config.cxx)
    return default


def openblas_flags(cxx):
    """The flags that link OpenBLAS, or "" where there is none: then Theano multiplies through numpy, which brings a fast
    BLAS of its own. A bare -lblas is not tried, because that is often the reference BLAS, many times slower than numpy."""
    import os
    import subprocess

    if not cxx:
        return ""
    # An environment's own (conda) first, then the compiler's, then where a build from source puts it.
    candidates = [os.path.join(prefix, "lib", "libopenblas.so") for prefix in (sys.prefix, sys.base_prefix)]
    try:
        answer = subprocess.check_output([cxx, "-print-file-name=libopenblas.so"], stderr=subprocess.DEVNULL)
        candidates.append(answer.decode().strip())  # a bare name where it found nothing
    except (OSError, subprocess.CalledProcessError):
        pass
    candidates += ["/usr/local/lib/libopenblas.so", "/opt/OpenBLAS/lib/libopenblas.so"]
    for library in candidates:
        if os.path.isabs(library) and os.path.isfile(library):
            folder = os.path.realpath(os.path.dirname(library))
            if folder.startswith(("/usr/lib", "/lib")):
                return "-lopenblas"
            if " " not in folder:  # Theano splits the flags at spaces
                return "-L%s -lopenblas" % folder  # Theano turns -L into an rpath too, so that it is found at run time
    return ""


if "theano" not in sys.modules:
    sys.meta_path.insert(0, TheanoWatcher())
