"""The package: what it needs, and what a wheel of it carries."""

import shutil
from pathlib import Path
from typing import Any

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent

# OpenMMLab's packages are needed by everything, but they stand in extras.
# The maintained line is called onedl-mmengine, onedl-mmcv, ...; the original
# one mmengine, mmcv, ...; both fill the same directories, and pip would write
# one over the other without a word. So they come by the name of their line.
ONEDL = [
    'onedl-mmengine>=0.10.12',
    'onedl-mmcv>=2.3.6',
    'onedl-mmpretrain>=1.3.6',
]
REQUIRES = [
    'jinja2',
    'matplotlib',
    'numpy>=1.26',
    'packaging',
    'pillow',
    'scikit-learn>=1.5',
    # What these lack stands in mmmoco/older_versions.py.
    'torch>=2.1',
    'torchvision>=0.16',
]
DET = ['pycocotools']
HF = ['datasets']
# imagecodecs: most GeoTIFFs are compressed.
SATELLITE = ['imagecodecs', 'tifffile']
WEBDATASET = ['webdataset']
ONNX = ['onnx', 'onnxruntime', 'onnxscript']
OPTIONAL = [
    *HF,
    *ONNX,
    *SATELLITE,
    *WEBDATASET,
    'faiss-cpu',
    'kornia',
    'safetensors',
    'timm',
]
DEMO = ['gradio']
TRACKING = ['mlflow-skinny', 'tensorboard']
# Only the full set-up runs the tests in a browser.
BROWSER = ['playwright']
TEST = [
    'hypothesis',
    'mypy',
    'pytest',
    'pytest-timeout',
    'pytest-xdist',
    'ruff',
    'tensorboard',
    'vermin',
]
EXTRAS = {
    'onedl': ONEDL,
    'onedl-det': [*ONEDL, 'onedl-mmdetection>=3.5.1', *DET],
    'onedl-seg': [*ONEDL, 'onedl-mmsegmentation>=1.4.2'],
    'openmmlab': ['mmengine>=0.10.3', 'mmcv>=2.1', 'mmpretrain>=1.2'],
    'det': DET,
    'hf': HF,
    'onnx': ONNX,
    'satellite': SATELLITE,
    'webdataset': WEBDATASET,
    'tracking': TRACKING,
    'demo': DEMO,
    'optional': OPTIONAL,
    'test': TEST,
    'browser': BROWSER,
    'all': sorted({*DET, *OPTIONAL, *TRACKING, *DEMO}),
}

# Tools that make sense in a checkout only.
CHECKOUT_ONLY = (
    'setup.sh',
    'quickstart.sh',
    'run_tests.sh',
    'test_matrix.sh',
)

# Where MIM looks for the models of a package; names configs/metafile.yml.
MODEL_INDEX = 'model-index.yml'


class BuildWithConfigs(build_py):
    """Puts configs/ and tools/ where OpenMMLab looks for them.

    A wheel gets copies in mmmoco/.mim; an editable install gets symbolic
    links, so that an edited config counts at once. What cannot be copied or
    linked is an error: a package without its configs is of no use.
    """

    def run(self) -> None:
        """Builds the package, then adds configs and tools."""
        super().run()
        if self.editable_mode:
            for name in ('configs', 'tools', MODEL_INDEX):
                link(HERE / 'mmmoco' / '.mim' / name, name)
        else:
            # What an earlier build left there may be gone from the checkout.
            shutil.rmtree(
                Path(self.build_lib, 'mmmoco', '.mim'), ignore_errors=True
            )
            for source, target in self.mim_files():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)

    def mim_files(self) -> list[tuple[Path, Path]]:
        """All files for mmmoco/.mim, as pairs of source and target."""
        target = Path(self.build_lib) / 'mmmoco' / '.mim'
        files = [(HERE / MODEL_INDEX, target / MODEL_INDEX)]
        for name in ('configs', 'tools'):
            found = [
                path
                for path in sorted((HERE / name).rglob('*'))
                if path.is_file()
                and '__pycache__' not in path.parts
                and path.name not in CHECKOUT_ONLY
            ]
            if not found:
                raise FileNotFoundError(
                    f'{HERE / name} holds no file: the package would lack '
                    f'its {name}. Build from a complete checkout.'
                )
            files += [
                (path, target / path.relative_to(HERE)) for path in found
            ]
        return files

    def get_outputs(self, *args: Any, **kwargs: Any) -> list[str]:
        """Names every file of the wheel."""
        outputs = super().get_outputs(*args, **kwargs)
        if self.editable_mode:
            return outputs
        return outputs + [str(target) for _, target in self.mim_files()]


def link(place: Path, name: str) -> None:
    """Makes `place` a relative link to `name` in the checkout."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_symlink() or place.is_file():
        place.unlink()
    elif place.is_dir():
        shutil.rmtree(place)  # copies left by an earlier build
    place.symlink_to(Path('..', '..', name))


def version() -> str:
    """Reads the version without importing the package and its needs."""
    names: dict[str, str] = {}
    exec((HERE / 'mmmoco' / 'version.py').read_text('utf-8'), names)
    return names['__version__']


def long_description() -> str:
    """The README, as shown by a package index."""
    readme = HERE / 'README.md'
    return readme.read_text('utf-8') if readme.is_file() else ''


setup(
    name='mmmoco',
    version=version(),
    description='Momentum contrast pre-training for OpenMMLab',
    long_description=long_description(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    license_files=['LICENSE'],
    classifiers=[
        'Development Status :: 4 - Beta',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
    keywords='self-supervised learning, contrastive learning, MoCo, OpenMMLab',
    packages=find_packages(include=['mmmoco', 'mmmoco.*']),
    package_data={
        'mmmoco': [
            *('py.typed', 'visualization/*.html', 'visualization/*.css'),
            *('apis/exchange/*.jinja', 'apis/page/*.css'),
        ]
    },
    python_requires='>=3.10',
    install_requires=REQUIRES,
    entry_points={'console_scripts': ['mmmoco = mmmoco.apis.command:main']},
    extras_require=EXTRAS,
    cmdclass={'build_py': BuildWithConfigs},
    zip_safe=False,
)
