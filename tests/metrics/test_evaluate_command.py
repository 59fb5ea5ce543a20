"""The command line of `fastmrigan evaluate`: options, targets, what the terminal shows."""

import pytest

from fastmrigan.errors import UsageError
from fastmrigan.metrics.measure import Measure
from fastmrigan.metrics.report import check_writable
from fastmrigan.metrics.report_tables import terminal_table


def test_sides_are_needed_or_a_folder_of_runs(world, tmp_path, invoke):
    with pytest.raises(UsageError, match="give --real and --synthetic, or --runs"):
        invoke("--out", tmp_path / "r.html", "--real", world.data)
    with pytest.raises(UsageError, match="takes --out alone; leave --only, --real, --seed out"):
        invoke(
            "--out", tmp_path / "r.html", "--seed", 0, "--only", "kid", "--real", world.data,
            "--runs", tmp_path,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("--real", "file", "--real .*file: is a file; give the folder of a prepared dataset or"),
        ("--real", "nowhere", "--real .*nowhere: no such folder; give"),
        ("--synthetic", "file", "--synthetic .*file: is a file; give the --out of"),
        ("--run", "file", "--run .*file: is a file; give the --out of `fastmrigan train`"),
        ("--classifier-data", "file", "--classifier-data .*file: is a file; give the folder of"),
        ("--inception-weights", ".", "--inception-weights .*: is a folder, and the weights are a"),
        ("--inception-precision", "fp16", "--inception-precision 'fp16': features are computed"),
        ("--runs", "file", "--runs .*file: is a file; name the folder that holds runs"),
    ],
)
def test_what_an_option_names(world, tmp_path, invoke, option, value, text):
    (tmp_path / "file").write_text("")
    given = {"--real": world.data, "--synthetic": world.synthetic, "--only": "frechet"}
    given = {} if option == "--runs" else given
    given |= {option: value if option.endswith("precision") else tmp_path / value}
    with pytest.raises(UsageError, match=text):
        invoke("--out", tmp_path / "r.html", *sum(given.items(), ()))
    assert not (tmp_path / "r.html").exists()


def test_a_set_is_not_held_against_itself(world, tmp_path, invoke):
    (tmp_path / "link").symlink_to(world.synthetic)
    with pytest.raises(UsageError, match=r"--real and --synthetic are the same folder, .*give two"):
        invoke(
            "--real", tmp_path / "link", "--synthetic", world.synthetic,
            "--out", tmp_path / "r.html",
        )  # fmt: skip


def test_a_foreign_json_beside_the_page_stays(world, tmp_path, make, invoke):
    data = make.dataset(tmp_path / "data", {"tumour": make.discs(8, 0, tumour=True)})
    before = (data / "dataset.json").read_bytes()
    given = ("--real", data, "--synthetic", world.synthetic, "--out")
    with pytest.raises(UsageError, match=r"dataset.json: is there already .* give --out another"):
        invoke(*given, data / "dataset.html")
    assert (data / "dataset.json").read_bytes() == before
    for _ in range(2):  # its own report is replaced
        invoke(*given, tmp_path / "r.html")


def test_trying_to_write_leaves_the_files_of_others(tmp_path, monkeypatch):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    monkeypatch.setattr("fastmrigan.metrics.report.beside", lambda path: precious)
    with pytest.raises(UsageError, match="precious is a file"):
        check_writable(tmp_path / "r.html")
    assert precious.read_text() == "mine"


def test_unwritable_targets(world, tmp_path, invoke):
    given = ("--real", world.data, "--synthetic", world.synthetic, "--out")
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(UsageError, match=r"report.pdf: the report is an HTML page"):
        invoke(*given, tmp_path / "report.pdf")
    with pytest.raises(UsageError, match="file is a file"):
        invoke(*given, tmp_path / "file" / "r.html")
    with pytest.raises(UsageError, match=r"folder\.html: is a folder"):
        invoke(*given, tmp_path / "folder.html")


@pytest.mark.slow
def test_a_user_sees_one_line(fastmrigan, world, tmp_path):
    result = fastmrigan(
        "evaluate", "--real", world.data, "--synthetic", tmp_path, "--out", tmp_path / "r.html"
    )
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == (
        f"fastmrigan: {tmp_path}: holds no shards; make some with `fastmrigan synth`\n"
    )


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_the_terminal_leaves_nothing_out(monkeypatch, columns):
    def row(name, value, remark=""):
        interval = (0.125, 0.75)
        return Measure(name, name, value, "lower", "", 0.25, interval=interval, remark=remark)

    rows = [row("short", 0.5), row("a name " * 7, 0.5), row("x", 1, "It repeats itself. " * 5)]
    monkeypatch.setenv("COLUMNS", str(columns))
    found = terminal_table(rows)
    lines = found.splitlines()
    assert max(map(len, lines)) <= columns
    for part in ("(0.125 to 0.75)", "ref. 0.25", "lower is better"):
        assert found.count(part) == 3
    assert " ".join(found.split()).count("It repeats itself.") == 5
    assert " ".join(found.split()).startswith("short 0.5 (0.125 to 0.75) ref. 0.25 lower is better")
    if columns == 200:
        assert lines[0].index("ref.") == lines[2].index("ref.")
