"""The two lines of OpenMMLab's packages, which fill the same directories.

The maintained line is installed as ``onedl-mmengine``, …, the original one as
``mmengine``, …; what is imported has the same name in both.
"""

from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from traceback import walk_tb

#: The compiled ops of mmcv, which mmdet and mmseg import.
OPS = 'mmcv._ext'
#: What is imported, and the names under which it is installed.
DISTRIBUTIONS = {
    'mmengine': ('onedl-mmengine', 'mmengine'),
    'mmcv': ('onedl-mmcv', 'mmcv', 'mmcv-lite'),
    'mmpretrain': ('onedl-mmpretrain', 'mmpretrain'),
    'mmdet': ('onedl-mmdetection', 'mmdet'),
    'mmseg': ('onedl-mmsegmentation', 'mmsegmentation'),
}


def require_one_line() -> None:
    """Raise ImportError if two distributions own the files of a package.

    One that lies in front of the other on the path is no conflict.
    """
    for package, names in DISTRIBUTIONS.items():
        found = [name for name in names if _installed(name)]
        if len(found) > 1 and len(owners := _owners(package, found)) > 1:
            both = ' and '.join(owners)
            mends = ' or '.join(
                f'pip install --force-reinstall --no-deps {name}=='
                f'{distribution(name).version}'
                for name in owners
            )
            raise ImportError(
                f'{both} are both installed and wrote over each other: each '
                f'has files of {package} in {_place(package)}. Keep one: pip '
                f'uninstall -y {" ".join(owners)}, then {mends}.'
            )


def owner_of(package: str) -> Distribution | None:
    """Return the distribution whose files a package is imported from.

    Args:
        package: Any one, of OpenMMLab or not.
    """
    names = DISTRIBUTIONS.get(package, (package,))
    found = [name for name in names if _installed(name)]
    # What is linked to a checkout owns no files.
    owners = _owners(package, found) if len(found) > 1 else found
    return distribution(owners[0]) if owners else None


def how_to_install(*packages: str) -> str:
    """Return what to call for packages that are missing.

    Of the line that the others are of; without any, of either.
    """
    lines = [
        [DISTRIBUTIONS[package][line] for package in packages]
        for line in (0, 1)
    ]
    others = [owner_of(other) for other in DISTRIBUTIONS if _place(other)]
    names = [other.metadata['Name'] for other in others if other is not None]
    if names:
        original = not any(name.startswith('onedl-') for name in names)
        return f'pip install {" ".join(lines[original])}'
    return (
        f'pip install {" ".join(lines[0])} for the maintained line of '
        f'OpenMMLab, or pip install {" ".join(lines[1])} for the original one'
    )


def how_to_compile(error: ImportError) -> str:
    """Return what is said where the compiled ops of mmcv do not load."""
    owner = owner_of('mmcv')
    name, number = 'mmcv', ''
    if owner is not None:
        name, number = owner.metadata['Name'], f'=={owner.version}'
    lacks = 'has for another torch' if error.path else 'lacks'
    uninstall = ''
    if name == 'mmcv-lite':
        name, uninstall = 'mmcv', 'pip uninstall -y mmcv-lite; '
    return (
        'mmdet and mmseg need the compiled ops of mmcv, which the installed '
        f'one {lacks} ({error}). To compile them, which takes 5 to 30 '
        f'minutes: {uninstall}CPPFLAGS=-g0 pip install --force-reinstall '
        f'--no-deps --no-cache-dir --no-build-isolation {name}{number}; in a '
        'checkout bash tools/setup.sh full does it.'
    )


def explain_refusal(error: AssertionError) -> str | None:
    """Return what is said where a package refuses the mmcv beside it.

    Those of the original line assert so when they are imported, and not all
    name the version that they would take. None for any other assertion.
    """
    names = [frame.f_globals for frame, _ in walk_tb(error.__traceback__)][-1]
    package = names.get('__name__')
    most = [v for k, v in names.items() if k.upper().startswith('MMCV_MAX')]
    if package not in DISTRIBUTIONS or 'MMCV' not in str(error) or not most:
        return None
    newest = next(text for text in most if isinstance(text, str))
    owner, mmcv = owner_of(package), owner_of('mmcv')
    if owner is None or mmcv is None:
        return None
    name, below = owner.metadata['Name'], mmcv.metadata['Name']
    mend = f'pip install "{below}<{newest}"'
    if below.startswith('onedl-'):
        maintained = DISTRIBUTIONS[package][0]
        mend = f'pip uninstall -y {name}, then pip install {maintained}'
    return (
        f'{name} {owner.version} takes mmcv below {newest}, and {below} '
        f'{mmcv.version} is installed ({_place("mmcv")}): {mend}.'
    )


def _installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def _owners(package: str, names: list[str]) -> list[str]:
    """Return those whose files lie where the package is imported from."""
    place = _place(package)
    init = f'{package}/__init__.py'
    owners = []
    for name in names:
        found = distribution(name)
        listed = any(str(path) == init for path in found.files or ())
        here = Path(str(found.locate_file(init))).resolve()
        if listed and place is not None and here == place:
            owners.append(name)
    return owners


def _place(package: str) -> Path | None:
    spec = find_spec(package)
    origin = None if spec is None else spec.origin
    return None if origin is None else Path(origin).resolve()
