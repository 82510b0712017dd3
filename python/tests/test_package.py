"""The package: it installs by pip, its types hold, and it imports nothing that it need not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest
import wsredis
from conftest import ROOT


def run(*command: object, **options) -> str:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=120, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def clean_env(**more: str) -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | more


def test_it_installs_by_pip_with_everything_in_it(tmp_path):
    pytest.importorskip("setuptools", reason="setuptools is not installed: pip is NOT tested")
    # A copy: pip builds beside the source.
    shutil.copytree(ROOT / "python", tmp_path / "python")
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    # Without an index: what it needs to be built is here.
    offline = ["--no-deps", "--no-build-isolation", "--no-index"]
    run(*pip, *offline, "--target", target, tmp_path / "python", env=clean_env())
    here = {
        str(file.relative_to(ROOT / "python"))
        for file in (ROOT / "python/wsredis").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    there = {
        str(file.relative_to(target))
        for file in (target / "wsredis").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert there == here
    # The fixtures come by themselves.
    (tmp_path / "test_it.py").write_text(
        "def test_it(wsredis_outbox):\n"
        "    import wsredis\n"
        "    wsredis.publish('a', 1)\n"
        "    assert wsredis_outbox.on('a') == [1]\n"
    )
    said = run(
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        tmp_path / "test_it.py",
        cwd=tmp_path,
        env=clean_env(PYTHONPATH=str(target)),
    )
    assert "1 passed" in said


def test_its_version_is_the_librarys():
    versions = {
        re.search(r'^version = "(.*)"$', (ROOT / name).read_text(), re.M)[1]
        for name in ("Cargo.toml", "python/pyproject.toml")
    }
    assert versions == {wsredis.__version__}


def test_it_passes_mypy_strictly(tmp_path):
    pytest.importorskip("mypy", reason="mypy is not installed: the types are NOT tested")
    said = run(
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--cache-dir",
        tmp_path,
        cwd=ROOT / "python",
        env=clean_env(),
    )
    assert said.startswith("Success")


@pytest.mark.parametrize("module", ["wsredis", "wsredis.testing", "wsredis._devserver"])
def test_it_imports_no_framework_and_starts_nothing(module):
    said = run(
        sys.executable,
        "-c",
        f"import sys, threading, {module}\n"
        "print(sorted({'django', 'redis', 'flask', 'pytest', 'asgiref'} & set(sys.modules)),"
        " threading.active_count())",
    )
    assert said == "[] 1\n"
