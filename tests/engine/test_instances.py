"""What mmengine keeps by name goes with the work that made it."""

import pytest
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope

from mmmoco.engine.instances import KINDS, own_instances


def test_the_names_of_mmengine_are_where_they_were():
    assert all(isinstance(kind._instance_dict, dict) for kind in KINDS)


def test_a_second_run_starts_as_the_first_did():
    before = MMLogger.get_instance('before')
    with own_instances():
        MMLogger.get_instance('run', log_level='ERROR')
        MessageHub.get_instance('run').update_scalar('loss', 3.0)
        DefaultScope.get_instance('run', scope_name='mmdet')
        assert MMLogger.get_current_instance() is not before
    assert MMLogger.get_current_instance() is before
    assert DefaultScope.get_current_instance() is None
    assert not MessageHub.get_instance('run').log_scalars


def test_an_error_still_finds_the_log_of_its_run():
    with pytest.raises(KeyError), own_instances():
        run = MMLogger.get_instance('run')
        raise KeyError
    assert MMLogger.get_current_instance() is run
