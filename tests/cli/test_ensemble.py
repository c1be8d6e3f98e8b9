"""``lightning ensemble``: what it trains, keeps, goes on with, writes and refuses."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path

import psutil
import pytest
import torch
import yaml

from lightning_attn.cli.commands import main
from lightning_attn.cli.ensemble_folder import EnsembleFolder
from lightning_attn.errors import InputError
from lightning_attn.explain import Explainer
from lightning_attn.networks.trained import TrainedNetwork
from tests.helpers.commands import TINY, run, start, write_config

EPOCHS = ("--trainer.max_epochs=2", "--wandb=disabled")
SLOW = ("--trainer.callbacks+=tests.helpers.commands.Slow",)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(tmp_path_factory.mktemp("config"))


@pytest.fixture(scope="module")
def folder(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("ensemble") / "two"
    options = ["--config", str(config), "--members=2", "--seed=3", f"--output={place}", *EPOCHS]
    assert main(["ensemble", *options]) == 0
    return place


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def member_weights(folder: Path, number: int) -> dict[str, torch.Tensor]:
    (path,) = folder.glob(f"members/{number:02d}/{finished_run(folder, number)}/checkpoints/best.ckpt")
    state = torch.load(path, weights_only=True)["state_dict"]
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


def finished_run(folder: Path, number: int) -> str:
    return json.loads((folder / "members" / f"{number:02d}" / "finished.json").read_text())["run"]


def test_members_are_runs_of_their_own_with_seeds_that_count_on(config: Path, folder: Path, tmp_path: Path) -> None:
    record = json.loads((folder / "ensemble.json").read_text())
    assert (record["seed"], record["combination"]) == (3, "mean")
    assert [member["seed"] for member in record["members"]] == [3, 4]
    alone = run("fit", config, tmp_path, "--trainer.max_epochs=2", "--seed_everything=4")
    expected = torch.load(alone / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    for name, value in member_weights(folder, 1).items():  # not to the last bit: another number of threads
        torch.testing.assert_close(value, expected[name])
    assert 0 < record["members"][1]["metrics"]["val/loss"] < 2


def test_predict_gives_the_mean_of_the_members(folder: Path, tmp_path: Path) -> None:
    record = json.loads((folder / "ensemble.json").read_text())
    runs = []
    for number, path in enumerate([*(member["checkpoint"] for member in record["members"]), "ensemble.ckpt"]):
        place = tmp_path / str(number)
        options = [f"--trainer.default_root_dir={place}", "--wandb=disabled", f"--ckpt_path={folder / path}"]
        assert main(["predict", "--config", str(folder / "config.yaml"), *options]) == 0
        (made,) = place.iterdir()
        runs.append(lines(made / "predictions.jsonl"))
    for one, other, together in zip(*runs, strict=True):
        for name, value in together["probabilities"].items():
            mean = (one["probabilities"][name] + other["probabilities"][name]) / 2
            assert value == pytest.approx(mean, abs=2e-6)
        expected = [(a + b) / 2 for a, b in zip(one["attention"], other["attention"], strict=True)]
        assert together["attention"] == pytest.approx(expected, abs=2e-6)
        assert one["attention"] != other["attention"]


@pytest.mark.parametrize("command", ["validate", "test"])
def test_it_is_measured_as_any_model(folder: Path, tmp_path: Path, command: str) -> None:
    options = [
        f"--trainer.default_root_dir={tmp_path}",
        "--wandb=disabled",
        f"--ckpt_path={folder / 'ensemble.ckpt'}",
        "--trainer.callbacks+=FaithfulnessCallback",
        "--trainer.callbacks.init_args.max_examples=4",
    ]
    assert main([command, "--config", str(folder / "config.yaml"), *options]) == 0
    (made,) = tmp_path.iterdir()
    header, values = (made / "metrics.csv").read_text().splitlines()[:2]
    figures = dict(zip(header.split(","), values.split(","), strict=True))
    split = {"validate": "val", "test": "test"}[command]
    assert -1 <= float(figures[f"{split}/faithfulness/kendall_loo"]) <= 1
    assert float(figures[f"{split}/accuracy"]) > 0.3


def test_explain_reads_its_checkpoint_alone(folder: Path) -> None:
    explainer = Explainer(folder / "ensemble.ckpt")
    (found,) = explainer.explain(["the plot was not dull ."])
    members = [TrainedNetwork.read(path) for path in sorted(folder.glob("members/*/*/checkpoints/best.ckpt"))]
    batch = explainer.processor.batch(["the plot was not dull ."])
    expected = torch.stack([one.network(batch).attention[0] for one in members]).mean(dim=0)
    assert len(members) == 2
    assert found.attributions["attention"] == pytest.approx(expected[batch.inner[0]].tolist(), abs=1e-6)


def test_the_checkpoint_holds_no_mitigation(folder: Path) -> None:
    content = torch.load(folder / "ensemble.ckpt", weights_only=True)
    assert content["hyper_parameters"]["mitigation"] is None
    assert not any("mitigation" in name for name in content["state_dict"])


def test_finished_members_are_kept_and_more_are_added(
    config: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.glob("members/0[01]/**/*") if path.is_file()}
    options = ["--config", str(config), "--members=3", "--seed=3", f"--output={folder}", *EPOCHS]
    assert main(["ensemble", *options, "--combination=geometric"]) == 0
    assert "Finished already: 2 of 3 members." in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    record = json.loads((folder / "ensemble.json").read_text())
    assert [member["seed"] for member in record["members"]] == [3, 4, 5]
    assert record["combination"] == "geometric"
    network = TrainedNetwork.read(folder / "ensemble.ckpt").network
    assert [type(network.combination).__name__, len(network.members)] == ["GeometricMean", 3]


def test_whoever_has_finished_is_recognised_by_its_checkpoints(
    config: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(folder, copied)
    for name in ("ensemble.ckpt", "config.yaml", "members/00/finished.json"):  # killed before it could write them
        (copied / name).unlink()
    (lost,) = copied.glob("members/01/*/checkpoints")
    shutil.rmtree(lost)
    options = ["--config", str(config), "--members=2", "--seed=3", f"--output={copied}", *EPOCHS]
    assert main(["ensemble", *options]) == 0
    assert "Finished already: 1 of 2 members." in capsys.readouterr().out
    assert len(list(copied.glob("members/00/*/config.yaml"))) == 1
    for number in range(2):
        expected = member_weights(folder, number)
        for name, value in member_weights(copied, number).items():
            assert torch.equal(value, expected[name]), name
    metrics = [json.loads((place / "ensemble.json").read_text())["members"][1]["metrics"] for place in (copied, folder)]
    assert metrics[0] == metrics[1]


def test_what_a_killed_command_left_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "fit.yaml.part").touch()
    EnsembleFolder(tmp_path, TINY)


@pytest.mark.parametrize("request_", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_killed_members_go_on_and_end_as_if_nothing_had_been(
    config: Path, folder: Path, tmp_path: Path, request_: signal.Signals
) -> None:
    broken = tmp_path / "broken"
    options = ["--config", str(config), "--members=2", "--seed=3", f"--output={broken}", *EPOCHS, *SLOW]
    victim = start("ensemble", *options)
    while not list(broken.glob("members/*/*/checkpoints/last.ckpt")):
        assert victim.poll() is None, victim.communicate()
        time.sleep(0.02)
    members = psutil.Process(victim.pid).children(recursive=True)
    assert members
    victim.send_signal(request_)
    _, errors = victim.communicate(timeout=120)
    assert victim.returncode == (-request_ if request_ == signal.SIGKILL else 128 + request_)
    _, alive = psutil.wait_procs(members, timeout=60)
    assert not alive, "they end with the command that started them"
    assert "Traceback" not in errors
    assert not (broken / "ensemble.ckpt").exists()
    assert main(["ensemble", *options]) == 0
    commands = [member["command"] for member in json.loads((broken / "ensemble.json").read_text())["members"]]
    assert any("--ckpt_path" in command for command in commands)
    for number in range(2):
        expected = member_weights(folder, number)
        for name, value in member_weights(broken, number).items():
            assert torch.equal(value, expected[name]), name


def test_a_mistake_is_told_once_with_the_member(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = {"class_path": "SSTDataModule", "init_args": {"path": str(tmp_path / "nowhere")}}
    wrong = write_config(tmp_path, data=data)
    options = ["--config", str(wrong), "--members=3", "--jobs=1", f"--output={tmp_path / 'out'}", "--wandb=disabled"]
    assert main(["ensemble", *options]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: Member 0 (seed 0): ")
    assert "nowhere" in errors
    assert len(errors.strip().splitlines()) == 1
    assert not (tmp_path / "out" / "members" / "01").exists()  # the others would have failed alike


def test_a_configuration_that_is_wrong_starts_nothing(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--config", str(config), f"--output={tmp_path / 'out'}", "--data.init_args.train_sze=3"]
    assert main(["ensemble", *options]) == 2
    assert "did you mean train_size" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--members=0"], "--members must be at least 1, not 0"),
        (["--jobs=0"], "--jobs must be at least 1, not 0"),
        (["--seed=-1"], "--seed must be at least 0, not -1"),
        (["--combination=median"], "the combinations are geometric, logit, mean, rank"),
        (["--seed_everything=3"], "give the first member's seed with --seed"),
        (["--ckpt_path", "x.ckpt"], "give the same command with --output and their folder"),
        (["--trainer.fast_dev_run=true"], "give it to fit"),
        (["--trainer.enable_checkpointing=false"], "leave enable_checkpointing out"),
        (["--members=two"], "invalid int value: 'two'"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    config: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main(["ensemble", "--config", str(config), *options]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert len(errors.strip().splitlines()) == 1


def test_folders_of_something_else_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        EnsembleFolder(tmp_path / "file", TINY)
    with pytest.raises(InputError, match="holds something else than an ensemble"):
        EnsembleFolder(tmp_path, TINY)
    EnsembleFolder(tmp_path / "new", TINY).members(2, seed=1, vary_data_seed=False)
    other = {**TINY, "trainer": {"max_epochs": 9}}
    with pytest.raises(InputError, match="holds members of another configuration"):
        EnsembleFolder(tmp_path / "new", other)
    with pytest.raises(InputError, match="was begun with seed 1 and vary_data_seed False"):
        EnsembleFolder(tmp_path / "new", TINY).members(2, seed=2, vary_data_seed=False)


def test_the_seed_of_the_data_counts_on_if_asked(tmp_path: Path) -> None:
    data = {"class_path": "SyntheticReviewsDataModule", "init_args": {"seed": 7}}
    folder = EnsembleFolder(tmp_path / "same", {**TINY, "data": data})
    assert not any(option.startswith("--data") for member in folder.members(2, 5, False) for option in member.arguments)
    folder = EnsembleFolder(tmp_path / "varied", {**TINY, "data": data})
    members = folder.members(2, 5, True)
    assert [member.arguments[-1] for member in members] == [f"--data.init_args.seed={seed}" for seed in (7, 8)]
    assert [member.seed for member in members] == [5, 6]


def test_members_of_other_vocabularies_cannot_be_put_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = {**TINY["data"], "init_args": {**TINY["data"]["init_args"], "train_size": 16}}
    config = write_config(tmp_path, data=data)
    options = ["--config", str(config), "--members=2", "--vary_data_seed", f"--output={tmp_path / 'out'}", *EPOCHS]
    assert main(["ensemble", *options]) == 2
    errors = capsys.readouterr().err
    assert "Member 1 (seed 1) was trained with another vocabulary" in errors
    assert yaml.safe_load((tmp_path / "out" / "fit.yaml").read_text())["trainer"]["max_epochs"] == 2


def test_the_help_names_what_differs_between_members(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ensemble", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Data and their order are the same for all" in shown
    assert "mean, geometric, logit, rank" in shown
