"""python -m layoutopt run, explain and info, on programs that are files of their own and know nothing of layoutopt."""
import json
import os
import subprocess
import sys

import pytest

from json_schema import breaches
from layoutopt.__main__ import main
from layoutopt.facts import SCHEMA, document, from_dict

PROGRAM = """
import sys
import numpy, theano, theano.tensor as tt
import neighbour
x = tt.tensor4("x", dtype="float32")
w = theano.shared(numpy.ones((16, 4, 3, 3), "float32"), "filters")
def compiled():
    return theano.function([x], tt.nnet.conv2d(x, w, input_shape=(64, 4, 16, 16)))
f = compiled()
print(__name__, sys.argv[1:], sys.path[0] == neighbour.folder, "FilterActs" in str(f.maker.fgraph.toposort()), flush=True)
f(numpy.ones((64, 4, 16, 16), "float32"))
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def script(tmp_path, monkeypatch):
    (tmp_path / "neighbour.py").write_text("import os\nfolder = os.path.dirname(os.path.abspath(__file__))\n")
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "failing.py").write_text("import sys\nsys.exit(5)\n")
    (tmp_path / "plain.py").write_text("pass\n")
    flags = [flag for flag in os.environ.get("THEANO_FLAGS", "").split(",") if "layoutopt" not in flag and flag]
    monkeypatch.setenv("THEANO_FLAGS", ",".join(flags))
    return lambda name="program.py": str(tmp_path / name)


def test_run_is_python_with_the_flag(script):
    done = subprocess.run([sys.executable, "-m", "layoutopt", "run", script(), "3", "--report", "mine"], stdout=subprocess.PIPE,
                          universal_newlines=True)
    assert (done.stdout, done.returncode) == ("__main__ ['3', '--report', 'mine'] True True\n", 3)


def test_compare_runs_without_and_with_it_and_writes_the_page(script, capfd, tmp_path):
    page = tmp_path / "page.html"
    assert main(["run", "--compare", "--report", str(page), script(), "0"]) == 0
    without, with_it, times = capfd.readouterr().out.splitlines()
    assert (without.split()[-1], with_it.split()[-1]) == ("False", "True")
    assert times.startswith("without layoutopt ") and "times as fast" in times
    assert page.read_text().startswith("<!DOCTYPE html>") and "program.py:" in page.read_text()


def test_explain_gives_json_that_fits_its_schema_and_comes_back(script, capfd, tmp_path):
    output = tmp_path / "report.json"
    assert main(["explain", "--profile", "--json", "-o", str(output), script(), "0"]) == 0
    captured = capfd.readouterr()
    assert captured.out == "" and "__main__" in captured.err  # what the program prints is no part of the JSON
    facts = json.loads(output.read_text())
    with open(SCHEMA) as schema:
        schema = json.load(schema)
    assert breaches(facts, schema) == []
    report = from_dict(facts["functions"][0])
    assert document([report]) == facts
    text = str(report)
    assert set(report.profiled) == {("site", 0)} | {("conversion", i) for i in range(len(report.record.conversions))}
    assert "not profiled" not in text and report.copies == 0
    assert "1 of 1 convolutions and poolings in c01b" in text and "program.py:" in text
    line, = (number for number, line in enumerate(PROGRAM.splitlines(), 1) if "theano.function(" in line)
    assert report.place == "program.py:%d" % line
    facts["functions"][0]["sites"][0]["bc01_seconds"] = -1.0
    del facts["functions"][0]["graph"]["nodes"][0]["role"]
    assert len(breaches(facts, schema)) == 2


@pytest.mark.parametrize("arguments, status, sentence", [
    (["run", "nowhere.py"], 2, "there is no program"),
    (["explain", "nowhere.py"], 2, "there is no program"),
    (["run", "--report", "no/such/folder/page.html", "plain.py"], 1, "cannot be written: No such file or directory"),
    (["explain", "-o", "no/such/folder/page.html", "plain.py"], 1, "cannot be written: No such file or directory"),
    (["run", "--compare", "failing.py"], 5, "failed without layoutopt, with exit status 5"),
    (["run", "--report", "page.html", "failing.py"], 5, "compiled no function with a convolution or pooling"),
    (["explain", "failing.py"], 5, "failed with exit status 5; this is what it had compiled: nothing"),
    (["explain", "plain.py"], 1, "compiled no function with a convolution or pooling"),
])
def test_what_is_wrong_is_said_in_a_sentence(script, capfd, arguments, status, sentence):
    arguments = [script(a) if a.endswith((".py", ".html")) else a for a in arguments]
    assert main(arguments) == status
    line, = [line for line in capfd.readouterr().err.splitlines() if line]
    assert line.startswith("layoutopt: ") and sentence in line
    assert not os.path.exists(script("page.html"))


def test_info_has_what_a_bug_report_needs(capsys):
    assert main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line[:23].strip() for line in lines]
    assert {"layoutopt", "Python", "Theano", "BLAS", "SIMD", "OpenMP", "GPU", "calibration", "cache", "compiler"} <= set(names)
    assert not [line for line in lines if "cannot be told" in line]
    assert "batch=128" in lines[names.index("flags")]
