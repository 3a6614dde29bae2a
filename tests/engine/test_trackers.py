"""Experiment trackers, switched on by one line of a config."""

from pathlib import Path

import pytest

LINE = (
    "visualizer = dict(vis_backends=[dict(type='LocalVisBackend'), "
    "dict(type='{}'{})])"
)


def train_with(line, small_config, runner_of, tmp_path):
    """Train with a config that adds one line, as a user writes it."""
    from mmengine.config import Config

    cfg = small_config(knn=True)
    base = tmp_path / 'base.py'
    cfg.dump(str(base))
    mine = tmp_path / 'mine.py'
    mine.write_text(f"_base_ = 'base.py'\n{line}\n")
    runner = runner_of(Config.fromfile(str(mine)))
    runner.train()
    # The report's own file is written as before.
    assert (Path(runner.log_dir) / 'vis_data' / 'scalars.json').is_file()
    return runner


@pytest.mark.slow
def test_tensorboard(small_config, runner_of, tmp_path):
    from tensorboard.backend.event_processing import event_accumulator

    line = LINE.format('TensorboardVisBackend', '')
    runner = train_with(line, small_config, runner_of, tmp_path)
    events = event_accumulator.EventAccumulator(
        str(Path(runner.log_dir) / 'vis_data')
    )
    events.Reload()
    names = set(events.Tags()['scalars'])
    assert {'loss', 'm', 'pos_sim', 'grad_norm', 'knn/top1'} <= names
    steps = [event.step for event in events.Scalars('loss')]
    assert steps == [1, 2, 3, 4]
    hub = runner.message_hub.get_scalar('train/loss').data[0]
    assert events.Scalars('loss')[0].value == pytest.approx(float(hub[0]))


@pytest.mark.slow
def test_mlflow_with_files_only(
    small_config, runner_of, tmp_path, monkeypatch
):
    import mlflow

    monkeypatch.setenv('MLFLOW_ALLOW_FILE_STORE', 'true')
    line = LINE.format('MLflowVisBackend', ", exp_name='moco'")
    runner = train_with(line, small_config, runner_of, tmp_path)
    store = Path(runner.log_dir) / 'vis_data'
    client = mlflow.MlflowClient(tracking_uri=f'file://{store}')
    experiment = client.get_experiment_by_name('moco')
    (record,) = client.search_runs([experiment.experiment_id])
    assert record.info.status == 'FINISHED'
    assert record.data.params['model.type'] == 'MoCoV2'
    history = client.get_metric_history(record.info.run_id, 'loss')
    assert [point.step for point in history] == [1, 2, 3, 4]
    assert 'knn/top1' in record.data.metrics
