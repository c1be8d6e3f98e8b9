"""`lightning report`: what it reads, draws and refuses."""

from pathlib import Path

import pytest

from lightning_attn.cli.commands import main
from lightning_attn.errors import InputError
from lightning_attn.visualization.curves import draw_curves, read_run, shared_curves

HEADER = "epoch,step,train/loss,val/accuracy,val/faithfulness/kendall_loo"


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    folders = [tmp_path / "plain", tmp_path / "both<b>"]
    for folder, shift in zip(folders, (0.0, 0.1), strict=True):
        folder.mkdir()
        rows = [f"{epoch},{10 * epoch},,{0.5 + shift},{0.1 * epoch + shift}" for epoch in range(3)]
        rows.append("2,29,0.25,,")
        (folder / "metrics.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    return folders


def test_curves_are_what_the_file_says(runs: list[Path]) -> None:
    run = read_run(runs[1])
    assert run.name == "both<b>"
    assert run.curves["val/faithfulness/kendall_loo"] == pytest.approx({0: 0.1, 1: 0.2, 2: 0.3})
    assert run.curves["train/loss"] == {2: 0.25}
    assert "step" not in run.curves


def test_every_curve_is_drawn(runs: list[Path]) -> None:
    read = [read_run(folder) for folder in runs]
    metrics = shared_curves(read)
    assert metrics == ["val/accuracy", "val/faithfulness/kendall_loo"]
    axes = draw_curves(read, metrics).axes
    assert [axis.get_title() for axis in axes] == ["accuracy", "faithfulness/kendall loo"]
    assert axes[1].lines[2].get_xydata().ravel() == pytest.approx([1, 0.1, 2, 0.2, 3, 0.3])


def test_seven_curves_leave_no_empty_frame(runs: list[Path]) -> None:
    run = read_run(runs[0])
    metrics = [f"val/{number}" for number in range(7)]
    run.curves = {metric: {0: 1.0} for metric in metrics}
    shown = [axis for axis in draw_curves([run], metrics).axes if axis.axison]
    assert len(shown) == 7


def test_rows_without_an_epoch_are_passed_over(runs: list[Path]) -> None:
    with (runs[0] / "metrics.csv").open("a") as file:
        file.write(",5,0.1,,\n")
    assert read_run(runs[0]).curves["train/loss"] == {2: 0.25}


def test_the_page_holds_the_last_figures_and_nothing_unescaped(runs: list[Path], tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert main(["report", *map(str, runs), "--output", str(page)]) == 0
    text = page.read_text()
    assert "<b>" not in text
    assert "both&lt;b&gt;" in text
    assert "<td>0.3000</td>" in text
    assert "data:image/png;base64," in text
    assert "http" not in text


@pytest.mark.parametrize("name", ["curves.png", "curves.svg"])
def test_a_picture_is_written(name: str, runs: list[Path], tmp_path: Path) -> None:
    assert main(["report", *map(str, runs), "--names", "a", "b", "-o", str(tmp_path / name)]) == 0
    assert (tmp_path / name).stat().st_size > 1000


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["nowhere"], "has no metrics.csv"),
        (["{0}", "--names", "a", "b"], "1 runs need as many --names, not 2"),
        (["{0}", "-o", "x.pdf"], "must end in .html, .png or .svg"),
        (["{0}", "--metrics", "val/nothing"], "No run logged 'val/nothing'"),
        ([], "the following arguments are required"),
    ],
)
def test_mistakes_get_one_sentence(
    options: list[str], sentence: str, runs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", *(option.format(runs[0]) for option in options)]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_a_broken_file_names_the_line(runs: list[Path]) -> None:
    (runs[0] / "metrics.csv").write_text(f"{HEADER}\n0,1,,0.5,x\n")
    with pytest.raises(InputError, match="line 2"):
        read_run(runs[0])


def test_a_page_is_not_replaced_unasked(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", *map(str, runs)]) == 0
    (tmp_path / "report.html").write_text("mine")
    assert main(["report", *map(str, runs)]) == 2
    assert "there is a report.html already" in capsys.readouterr().err
    assert (tmp_path / "report.html").read_text() == "mine"
    assert main(["report", *map(str, runs), "-o", "report.html"]) == 0
    assert (tmp_path / "report.html").read_text() != "mine"


def test_the_place_is_checked_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "nowhere", "-o", str(tmp_path / "no" / "page.html")]) == 2
    assert "there is no folder" in capsys.readouterr().err
