"""Tools write to the captured streams of one test; no logger may keep one."""

import pytest
from mmengine.logging import MMLogger


@pytest.fixture(autouse=True)
def loggers_of_this_test_only():
    before = set(MMLogger._instance_dict)
    yield
    for name in set(MMLogger._instance_dict) - before:
        del MMLogger._instance_dict[name]
