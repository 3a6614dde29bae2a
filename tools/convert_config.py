"""Turn a config of OpenMMLab into ours: ``tools/convert_config.py --help``."""

from mmmoco.apis.convert_config import main

if __name__ == '__main__':
    main()
