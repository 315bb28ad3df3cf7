"""`spbfast init`: every template is valid, and nothing of the user's is overwritten."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from spbfast import cli
from spbfast.config import load_config
from spbfast.config.templates import template_names, write_template
from spbfast.errors import ConfigError, StorageError

pytestmark = pytest.mark.shell


@pytest.mark.parametrize("name", [n for n, _ in template_names()])
def test_templates_are_valid(tmp_path: Path, name: str) -> None:
    job = load_config(write_template(tmp_path / "mine.yaml", name))
    assert job.nr_points > 1
    assert job.name == "mine"  # two files made by `init` have their own results


def test_files_are_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("precious")
    with pytest.raises(ConfigError, match="exists"):
        write_template(path, "sweep")
    assert path.read_text() == "precious"
    with pytest.raises(ConfigError, match="did you mean 'sweep'"):
        write_template(tmp_path / "other.yaml", "sweeep")
    with pytest.raises(SystemExit):
        cli.main(["init", "--list"])
    assert "lhs  " in capsys.readouterr().out


@pytest.mark.parametrize("call", ["open", "fsync"])
def test_a_full_or_foreign_disk_is_no_wrong_usage_and_keeps_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, call, fail)
        with pytest.raises(StorageError, match="cannot be written: No space left on device"):
            write_template(tmp_path / "mine.yaml", "sweep")
    assert not (tmp_path / "mine.yaml").exists()
    write_template(tmp_path / "mine.yaml", "sweep")
