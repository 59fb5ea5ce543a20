"""The file of figures: refused before anything is measured where it cannot be written."""

from __future__ import annotations

import argparse
import json

import pytest
from json_file import add_json_option, write_json


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("absent/figures.json", "absent: no such folder; make it first"),
        (".", "is a folder; name a file in it"),
        ("n" * 300, "n: File name too long; name another"),
        ("/proc/figures.json", "/proc: cannot be written to; name another"),
    ],
)
def test_a_file_that_cannot_be_written(path, why, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if path.startswith("/proc"):  # as root, to whom os.access grants the rest
        monkeypatch.setattr("os.access", lambda *_: False)
    parser = argparse.ArgumentParser("benchmark")
    add_json_option(parser)
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(["--json", path])
    assert ended.value.code == 2
    assert capsys.readouterr().err.strip().endswith(why)


def test_figures_are_whole_and_replace_what_was_there(tmp_path):
    parser = argparse.ArgumentParser()
    add_json_option(parser)
    path = parser.parse_args(["--json", str(tmp_path / "figures.json")]).json
    for figures in ({"rows": [1]}, {"rows": [1, 2.5]}):
        write_json(path, figures)
        assert json.loads(path.read_text()) == figures
    assert [each.name for each in tmp_path.iterdir()] == ["figures.json"]
    write_json(parser.parse_args([]).json, figures)  # nobody asked for it
