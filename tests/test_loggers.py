"""Loggers beside TensorBoard, without a network; traces of steps; the time left."""

import json
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from rdejax.errors import RdejaxError
from rdejax.train.config import TrainConfig
from rdejax.train.loggers import LOGGERS, open_loggers
from rdejax.train.monitor import Monitor
from rdejax.train.profile import Trace


def run(workdir, name: str, first: int = 0) -> None:
    config = {"steps": 9, "optimizer": {"lr": 0.1}}
    monitor = Monitor(workdir, first=first, total=9, loggers=(name,), config=config)
    with monitor:
        monitor.metrics(first + 3, {"loss": 0.25, "seconds_per_step": 2.0})
        monitor.picture(first + 3, np.zeros((8, 12, 3), np.uint8))


def test_mlflow_keeps_one_run_of_a_resumed_one(tmp_path, monkeypatch) -> None:
    pytest.importorskip("mlflow", reason="pip install '.[loggers]'")
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run(tmp_path, "mlflow")
    run(tmp_path, "mlflow", first=3)
    client = MlflowClient((tmp_path / "mlruns").as_uri())
    (experiment,) = [e for e in client.search_experiments() if e.name == "rdejax"]
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.data.params["optimizer.lr"] == "0.1" and found.info.status == "FINISHED"
    losses = client.get_metric_history(found.info.run_id, "loss/loss")
    assert [(m.step, m.value) for m in losses] == [(3, 0.25), (6, 0.25)]


def test_mlflow_without_its_server_says_where_to_look(tmp_path, monkeypatch) -> None:
    pytest.importorskip("mlflow", reason="pip install '.[loggers]'")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://x")
    with pytest.raises(RdejaxError, match="logger mlflow: nowhere://x: .*MLFLOW_TRACKING_URI"):
        open_loggers(["mlflow"], tmp_path, {}, 0)


@pytest.mark.slow  # W&B starts a process of its own
def test_wandb_works_offline(tmp_path, monkeypatch) -> None:
    pytest.importorskip("wandb", reason="pip install '.[loggers]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run(tmp_path, "wandb")
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    assert list(folder.glob("run-*.wandb"))


def test_what_is_not_installed_is_named_and_the_others_are_closed(tmp_path, monkeypatch) -> None:
    closed = []

    class First:
        def __init__(self, *_):
            pass

        def close(self):
            closed.append(True)

    monkeypatch.setitem(LOGGERS, "tensorboard", First)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(RdejaxError, match=r"wandb is not installed; pip install 'rdejax\[loggers"):
        open_loggers(["tensorboard", "wandb"], tmp_path, {}, 0)
    assert closed == [True]


def test_the_time_left_is_shown_and_not_logged(tmp_path, capsys) -> None:
    run(tmp_path, "tensorboard")
    shown = json.loads(capsys.readouterr().out.splitlines()[0])
    assert shown.pop("time_left") == "0:00:12"
    assert json.loads((tmp_path / "log.jsonl").read_text()) == shown


def test_a_trace_of_some_steps(tmp_path) -> None:
    with Trace(tmp_path / "profile", 2) as trace:
        for _ in range(5):
            trace.step(jnp.ones(3) + 1)
            trace.begin()
    assert len(list((tmp_path / "profile").rglob("*.xplane.pb"))) == 1
    with Trace(tmp_path / "none", 0) as trace:
        trace.begin()
        trace.step(jnp.ones(1))
    assert not (tmp_path / "none").exists()
    # A run that ends before keeps what there is.
    with Trace(tmp_path / "early", 9) as trace:
        trace.begin()
    assert list((tmp_path / "early").rglob("*.xplane.pb"))


def test_the_defaults_are_as_before() -> None:
    config = TrainConfig()
    assert config.logger == ("tensorboard",) and config.profile == 0
    with pytest.raises(RdejaxError, match="profile=-1"):
        TrainConfig(profile=-1)
