"""layoutopt as its users get it: installed, in programs that never import it. Every program here is a fresh interpreter."""
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import _layoutopt_startup

ROOT = Path(__file__).resolve().parent.parent
# What Theano says where it has no BLAS to link; layoutopt leaves it its say.
NO_BLAS = "WARNING (theano.tensor.blas): Using NumPy C-API based implementation for BLAS functions.\n"
IS_ACTIVE = "import sys, theano; print('layoutopt' in sys.modules)"
MODULES = "import sys; print(*sorted(sys.modules))"


def pip(*arguments):
    subprocess.run([sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, arguments)],
                   check=True, stdin=subprocess.DEVNULL)


class Environment:
    """A virtual environment that has what this one has, except layoutopt."""

    def __init__(self, folder):
        self.folder = folder
        self.home = folder / "home"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        self.python = folder / "bin" / "python"
        self.home.mkdir()
        # Folders named in a .pth are searched, but their own .pth files, such as layoutopt's, do not run.
        site_packages, = folder.glob("lib/python*/site-packages")
        (site_packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
        self.modules_before = self.run(MODULES).split()

    def install(self, *what):
        pip("--python", self.python, "install", "--no-index", "--no-deps", "--no-build-isolation", *what)
        return self

    def run(self, program, *options, stderr="", **variables):
        """What the program prints; it must succeed, with nothing on stderr but `stderr`."""
        environ = {name: value for name, value in os.environ.items()
                   if name not in ("THEANO_FLAGS", "THEANORC") and not name.startswith("PYTHON")}
        environ.update(variables, HOME=str(self.home))
        done = subprocess.run([self.python, *options, "-c", program], env=environ, cwd=self.home, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
        assert (done.returncode, done.stderr.replace(NO_BLAS, "")) == (0, stderr)
        return done.stdout.strip()


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources") / "layoutopt"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__"))
    return folder


@pytest.fixture(scope="module")
def wheel(sources, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, sources)
    path, = folder.glob("layoutopt-*.whl")
    return path


@pytest.fixture(scope="module")
def from_wheel(wheel, tmp_path_factory):
    return Environment(tmp_path_factory.mktemp("from_wheel")).install(wheel)


@pytest.fixture(scope="module")
def editable(sources, tmp_path_factory):
    return Environment(tmp_path_factory.mktemp("editable")).install("-e", sources)


@pytest.fixture(params=["from_wheel", "editable"])
def installed(request):
    return request.getfixturevalue(request.param)


def test_wheel_holds_every_source_file_and_the_hook(wheel):
    def sources_of(folder):
        return {path.relative_to(ROOT / folder).as_posix() for pattern in ("*.py", "*.h", "gpu/*", "gpu/cuda/*", "page/*")
                for path in (ROOT / folder).rglob(pattern) if path.is_file()}

    expected = {"layoutopt.pth", "_layoutopt_startup.py"}
    expected |= {"layoutopt/" + name for name in sources_of("layoutopt")}
    expected |= {"layoutopt/%s/%s" % (folder, name) for folder in ("rewrites", "kernels") for name in sources_of(folder)}
    names = {name for name in zipfile.ZipFile(str(wheel)).namelist() if ".dist-info/" not in name}
    assert names == expected


def test_nothing_but_the_hook_is_imported_where_theano_is_not(from_wheel):
    assert set(from_wheel.run(MODULES).split()) - set(from_wheel.modules_before) == {"_layoutopt_startup"}


def test_an_edit_is_seen_without_installing_again(editable, sources):
    with open(str(sources / "rewrites" / "__init__.py"), "a") as file:
        file.write("EDITED = True\n")
    assert editable.run("import layoutopt.rewrites; print(layoutopt.rewrites.EDITED)") == "True"


# ---------------------------------------------------------------------------------------------------------------------
# The flag, wherever it comes from.

def test_without_the_flag_theano_is_alone(installed):
    assert installed.run(IS_ACTIVE) == "False"


@pytest.mark.parametrize("tags, active", [("layoutopt", True), ("inplace:layoutopt", True), ("not_layoutopt", False)])
def test_flag_in_the_environment(installed, tags, active):
    assert installed.run(IS_ACTIVE, THEANO_FLAGS="optimizer_including=" + tags) == str(active)


def test_flag_in_theanorc(installed, tmp_path):
    (tmp_path / "rc").write_text("[global]\noptimizer_including = layoutopt\n")
    assert installed.run(IS_ACTIVE, THEANORC=str(tmp_path / "rc")) == "True"


def test_flag_set_by_the_program_itself(installed):
    assert installed.run("import os; os.environ['THEANO_FLAGS'] = 'optimizer_including=layoutopt'\n" + IS_ACTIVE) == "True"


def test_isolated_interpreter(installed):
    assert installed.run(IS_ACTIVE, "-I", THEANO_FLAGS="optimizer_including=layoutopt") == "True"


def test_child_process_of_a_program_without_theano(installed):
    program = "import subprocess, sys; print(subprocess.check_output([sys.executable, '-c', %r]).decode())" % IS_ACTIVE
    assert installed.run(program, THEANO_FLAGS="optimizer_including=layoutopt") == "True"


def test_import_registers_without_the_flag(installed):
    assert installed.run("import layoutopt, theano; print('layoutopt' in theano.compile.optdb.__position__)") == "True"


def test_settings_bring_no_warning_from_theano(installed):
    program = "import theano; print(theano.config.layoutopt.batch)"
    assert installed.run(program, THEANO_FLAGS="layoutopt.batch=32,optimizer_including=layoutopt") == "32"
    assert installed.run("import theano", THEANO_FLAGS="layoutopt.batch=32") == ""


@pytest.mark.parametrize("flags, active, line", [
    ("optimizer_including=layoutopt,layoutopt.winogrd=off", True,
     "layoutopt: there is no flag layoutopt.winogrd: is layoutopt.winograd meant?\n"),
    ("optimizer_including=layoutopt,layoutopt.winograd=f8", False, "layoutopt: not active, Theano runs without it: "
     "ValueError: layoutopt.winograd is set to 'f8'; it can be f2, f4, off\n"),
    ("optimizer_including=inplace:layout_opt", False,
     "layoutopt: not active: optimizer_including names 'layout_opt', is layoutopt meant?\n")],
    ids=["a flag's name", "a flag's value", "layoutopt's name"])
def test_what_is_misspelt_is_said(from_wheel, flags, active, line):
    assert from_wheel.run(IS_ACTIVE, stderr=line, THEANO_FLAGS=flags) == str(active)


def test_a_flag_that_cannot_be_is_refused_each_time(from_wheel):
    program = """
for _ in range(2):
    try:
        import layoutopt
    except ValueError as problem:
        print(problem)
"""
    said = "layoutopt.batch is set to 'many'; it can be a whole number of at least 1"
    assert from_wheel.run(program, THEANO_FLAGS="layoutopt.batch=many").splitlines() == [said, said]


@pytest.mark.parametrize("flags, active", [
    ("optimizer_including=layoutopt", True),
    ("optimizer_including=layoutopt,optimizer_excluding=layoutopt", False),
    ("optimizer_excluding=layoutopt", False)])
def test_what_becomes_of_a_convolution(from_wheel, flags, active):
    program = """
import theano, theano.tensor as tt
images, filters = tt.ftensor4(), tt.ftensor4()
graph = theano.gof.FunctionGraph([images, filters], [tt.nnet.conv2d(images, filters, (128, 32, 12, 12), (64, 32, 5, 5))])
graph.attach_feature(theano.compile.function_module.Supervisor([images, filters]))  # as theano.function does
theano.compile.get_default_mode().optimizer.optimize(graph)
print("FilterActs" in str(graph.toposort()))
"""
    assert from_wheel.run(program, THEANO_FLAGS=flags) == str(active)


def test_a_package_that_fails_does_not_stop_the_program(installed, tmp_path):
    (tmp_path / "layoutopt").mkdir()
    (tmp_path / "layoutopt" / "__init__.py").write_text("raise ValueError('broken for this test')\n")
    line = "layoutopt: not active, Theano runs without it: ValueError: broken for this test\n"
    assert installed.run(IS_ACTIVE, PYTHONPATH=str(tmp_path)) == "False"
    assert installed.run(IS_ACTIVE, stderr=line, PYTHONPATH=str(tmp_path),
                         THEANO_FLAGS="optimizer_including=layoutopt") == "False"


def test_a_pth_that_stayed_behind_is_silent(installed):
    assert installed.run((ROOT / "layoutopt.pth").read_text(), "-I", "-S") == ""


# ---------------------------------------------------------------------------------------------------------------------
# Other Pythons, other Theanos: one sentence each.

NEEDS = "layoutopt needs CPython 3.8 to 3.11 (Theano 1.0.5 runs on no newer one); this is %s."


@pytest.mark.parametrize("version", [(3, 7), (3, 12), (3, 13)])
def test_import_on_another_python(from_wheel, version):
    program = """
import sys
sys.version_info = %r + (0, "final", 0)
try:
    import layoutopt
except ImportError as problem:
    print(problem)
"""
    assert from_wheel.run(program % (version,)) == NEEDS % ("%d.%d" % version)


def interpreter(version):
    """A Python of this version that has pip, the system's or pyenv's; None where there is none."""
    candidates = [shutil.which("python" + version)]
    candidates += Path("~/.pyenv/versions").expanduser().glob(version + ".*/bin/python")
    for candidate in filter(None, candidates):
        if subprocess.run([candidate, "-c", "import pip"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0:
            return candidate
    return None


@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_real_newer_pythons(sources, wheel, version):
    """What pip, setup.py and an import say there."""
    def said(*arguments):
        done = subprocess.run([command, *map(str, arguments)], cwd=sources, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, universal_newlines=True,
                              env=dict(os.environ, PIP_BREAK_SYSTEM_PACKAGES="1"))  # or pip asks for a venv first
        return done.returncode != 0, done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""

    command = interpreter(version)
    if command is None:
        pytest.skip("no Python %s with pip here" % version)
    failed, line = said("-c", "import layoutopt")
    assert failed and line == "ImportError: " + NEEDS % version
    failed, line = said("setup.py", "--version")
    assert failed and line == NEEDS % version
    failed, line = said("-m", "pip", "--disable-pip-version-check", "install", "--no-index", "--no-deps", "--dry-run", wheel)
    assert failed and "requires a different Python: %s" % version in line and "not in '<3.12,>=3.8'" in line


@pytest.mark.parametrize("version, what", [("1.1.2", "1.1.2 (Theano-PyMC, whose graphs and ops have another interface)"),
                                           ("0.9.0", "0.9.0")])
def test_another_theano(installed, tmp_path, version, what):
    """The program runs without layoutopt, and is told why if it asked for it."""
    (tmp_path / "theano").mkdir()
    (tmp_path / "theano" / "__init__.py").write_text("""
import os
from . import configparser, configdefaults
__version__ = %r
class config:
    optimizer_including = os.environ.get("THEANO_FLAGS", "").partition("=")[2]
""" % version)
    (tmp_path / "theano" / "configparser.py").touch()
    (tmp_path / "theano" / "configdefaults.py").touch()
    line = "layoutopt needs Theano 1.0.5; the theano installed here is version %s." % what
    assert installed.run(IS_ACTIVE, PYTHONPATH=str(tmp_path)) == "False"
    assert installed.run(IS_ACTIVE, stderr="layoutopt: not active, Theano runs without it: ImportError: %s\n" % line,
                         PYTHONPATH=str(tmp_path), THEANO_FLAGS="optimizer_including=layoutopt") == "False"


# ---------------------------------------------------------------------------------------------------------------------
# blas.ldflags: numpy 1.22 and later would stop `import theano` where the user set none.

LDFLAGS = "import theano; print(theano.config.blas.ldflags)"


def test_what_is_chosen_links_and_runs(from_wheel):
    assert from_wheel.run("""
import theano, theano.configdefaults
chosen = theano.config.blas.ldflags
print(not chosen or theano.configdefaults.try_blas_flag(chosen.split()) == chosen)
""") == "True"


def test_without_openblas_theano_still_multiplies(from_wheel, tmp_path):
    compiler = tmp_path / "g++"  # by another name Theano warns
    compiler.write_text("""#!/bin/sh
case "$*" in *-lblas*|*-lopenblas*) exit 1 ;; *openblas*) echo libopenblas.so ;; *) exec g++ "$@" ;; esac
""")
    compiler.chmod(0o755)
    assert from_wheel.run("""
import numpy, theano, theano.tensor as tt
a = tt.fmatrix()
print(theano.function([a], tt.dot(a, a))(numpy.full((3, 3), 2, "float32")).sum(), repr(theano.config.blas.ldflags))
""", THEANO_FLAGS="cxx=%s" % compiler) == "108.0 ''"


def test_the_users_own_blas_wins(installed, tmp_path):
    (tmp_path / "rc").write_text("[blas]\nldflags = -lm\n")
    assert installed.run(LDFLAGS, THEANO_FLAGS="blas.ldflags=-lm") == "-lm"
    assert installed.run(LDFLAGS, THEANO_FLAGS="blas.ldflags=") == ""
    assert installed.run(LDFLAGS, THEANORC=str(tmp_path / "rc")) == "-lm"


@pytest.mark.parametrize("answer, flags", [
    ("/usr/lib/gcc/some-machine/12/../../../libopenblas.so", "-lopenblas"),
    ("/home/me/blas/lib/libopenblas.so", "-L/home/me/blas/lib -lopenblas"),
    ("/home/my blas/lib/libopenblas.so", ""),  # Theano cannot be told of a folder with a space
    ("libopenblas.so", "")])                   # the compiler's way to say that it found none
def test_openblas_is_where_the_compiler_says(tmp_path, monkeypatch, answer, flags):
    compiler = tmp_path / "compiler"
    compiler.write_text("#!/bin/sh\necho '%s'\n" % answer)
    compiler.chmod(0o755)
    monkeypatch.setattr(os.path, "isfile", lambda path: path == answer)
    assert _layoutopt_startup.openblas_flags(str(compiler)) == flags


def test_openblas_in_the_environment_comes_first(tmp_path, monkeypatch):
    library = tmp_path / "lib" / "libopenblas.so"
    library.parent.mkdir()
    library.touch()
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert _layoutopt_startup.openblas_flags("g++") == "-L%s -lopenblas" % library.parent


def test_without_a_compiler_there_is_nothing_to_link(monkeypatch):
    monkeypatch.setattr(os.path, "isfile", lambda path: False)
    assert _layoutopt_startup.openblas_flags("") == _layoutopt_startup.openblas_flags("/no/such/compiler") == ""
