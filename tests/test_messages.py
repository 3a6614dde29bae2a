from mmengine.logging import MMLogger

from mmmoco.messages import log_info, log_warning


def test_messages_go_to_the_log_of_what_runs(tmp_path):
    file = tmp_path / 'a.log'
    MMLogger.get_instance('messages', log_file=str(file), log_level='INFO')
    log_info('all is well')
    log_warning('nothing is well')
    lines = file.read_text().splitlines()
    assert 'INFO - all is well' in lines[0]
    assert 'WARNING - nothing is well' in lines[1]
