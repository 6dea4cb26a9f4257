"""Packaging. What a user's environment may contain stands here as ranges; what the Makefile's environment
contains stands in requirements.txt as exact versions."""
import sys

# pip itself says this from python_requires; this is for who runs setup.py by hand, where setuptools may be missing too.
SUPPORTED = (3, 8) <= sys.version_info[:2] <= (3, 11)
BY_HAND = "setuptools.build_meta" not in sys.modules
if BY_HAND and not SUPPORTED:
    sys.exit("layoutopt needs CPython 3.8 to 3.11 (Theano 1.0.5 runs on no newer one); this is %d.%d."
             % sys.version_info[:2])
if BY_HAND and {"install", "develop"} & set(sys.argv):
    sys.exit("Install layoutopt with `pip install .`, or `pip install -e .` (pip 21.3 or later), not with setup.py.")

from setuptools import Command, find_packages, setup  # noqa: E402
from setuptools.command.build import build  # noqa: E402

# Three folders in the root, one name in site-packages.
FOLDERS = {"layoutopt": "layoutopt", "layoutopt.rewrites": "rewrites", "layoutopt.kernels": "kernels"}


class BuildPth(Command):
    """Puts layoutopt.pth, the line that runs _layoutopt_startup at the start of the interpreter, beside the package."""
    user_options = []
    editable_mode = False  # setuptools sets it

    def initialize_options(self):
        pass

    def finalize_options(self):
        # An editable wheel leaves out what was built, but not what lies in its install folder.
        self.folder = (self.get_finalized_command("install").install_lib if self.editable_mode
                       else self.get_finalized_command("build").build_lib)

    def run(self):
        self.mkpath(self.folder)
        self.copy_file("layoutopt.pth", self.folder)


class Build(build):
    sub_commands = build.sub_commands + [("build_pth", None)]


REQUIRES = [
    "Theano==1.0.5",
    "numpy>=1.19.5,<1.24",  # 1.24 dropped aliases (np.bool) that Theano uses
    "scipy>=1.5.4,<1.11",   # 1.11 was made for later numpys
    "setuptools<82",        # Theano imports pkg_resources, which 82 dropped
    "networkx>=2.6.2",
    "tqdm>=4",
]

setup(
    name="layoutopt",
    version="0.1.0",
    description="A graph optimizer for Theano that runs bc01 convolutions as faster c01b ones",
    license="BSD-3-Clause",
    python_requires=">=3.8,<3.12",
    # Older pips build the requirements before they look at python_requires: no long error where one line will do.
    install_requires=REQUIRES if SUPPORTED else [],
    packages=list(FOLDERS) + ["%s.%s" % (name, sub) for name, folder in FOLDERS.items() for sub in find_packages(folder)],
    package_dir=FOLDERS,
    package_data={"layoutopt.page": ["*.css", "*.html", "*.js", "*.json"],
                  "layoutopt.kernels": ["cpu/*.h", "gpu/*", "gpu/cuda/*"]},
    py_modules=["_layoutopt_startup"],
    cmdclass={"build": Build, "build_pth": BuildPth},
    zip_safe=False,
)
