"""What the tools call and users import."""

import os

# OpenCV reads it when it is imported: foreign pipelines that decode with it
# then refuse image bombs, as LoadRGB does.
os.environ.setdefault('OPENCV_IO_MAX_IMAGE_PIXELS', str(100_000_000))

from .config.files import list_configs, load_config, package_bases
from .model import get_model

__all__ = ['get_model', 'list_configs', 'load_config', 'package_bases']
