"""Pictures are drawn without pyplot, whose backend is the user's."""

import subprocess
import sys

CODE = """
import sys
from mmmoco.visualization.curves import plot_curves
plot_curves(sys.argv[1], [(1, 2.0), (2, 1.0)], [(1, 50.0)])
assert 'matplotlib.pyplot' not in sys.modules
"""


def test_a_notebook_keeps_its_backend(tmp_path):
    path = tmp_path / 'curves.png'
    subprocess.run([sys.executable, '-c', CODE, path], check=True)
    assert path.read_bytes().startswith(b'\x89PNG')
