"""What the tools call and users import."""

from .config import list_configs, load_config, package_bases
from .model import get_model

__all__ = ['get_model', 'list_configs', 'load_config', 'package_bases']
