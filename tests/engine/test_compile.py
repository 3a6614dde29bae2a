"""torch.compile: the networks are compiled, the step stays as it is."""

import pytest
import torch

pytestmark = pytest.mark.slow


def test_a_compiled_run_equals_a_plain_one(small_config, runner_of):
    """With the tracing back end; code generation takes minutes on a CPU."""
    states = []
    for options in (None, dict(backend='eager')):
        cfg = small_config(randomness=dict(seed=0))
        cfg.compile = options
        runner = runner_of(cfg)
        runner.train()
        states.append(runner.model.state_dict())
        compiled = runner.model.backbone._compiled_call_impl is not None
        assert compiled == (options is not None)
    plain, traced = states
    assert list(plain) == list(traced)  # no prefix of a wrapper
    moved = 0
    for name, value in plain.items():
        torch.testing.assert_close(traced[name], value, msg=name)
        moved += name.startswith('key_encoder.')
    assert moved and plain['dictionary.ptr'] == traced['dictionary.ptr']
