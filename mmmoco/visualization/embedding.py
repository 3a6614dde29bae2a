from typing import Any

import numpy as np
from numpy.typing import NDArray

METHODS = {'pca': 'PCA', 'tsne': 't-SNE'}


def embed(
    features: NDArray[Any], method: str = 'pca', seed: int = 0
) -> NDArray[np.float64]:
    """Map features to the plane.

    Args:
        features: N×C, N of at least 3; normalised to length 1 first, since
            cosine similarity is what the training is about.
        method: ``'pca'``: the two directions of largest variance;
            ``'tsne'``: neighbourhoods (van der Maaten and Hinton, 2008),
            distances between groups mean little.
        seed: Of t-SNE.

    Returns:
        N×2.

    Raises:
        ValueError: If the method is unknown, or the features are not finite
            or too few.
    """
    if method not in METHODS:
        raise ValueError(
            f'map method {method!r} is unknown; use one of '
            f'{", ".join(METHODS)}.'
        )
    if features.ndim != 2 or min(features.shape) < 2 or len(features) < 3:
        raise ValueError(
            f'features of shape {features.shape} cannot be mapped; expected '
            'N×C, at least 3×2.'
        )
    if not np.isfinite(features).all():
        raise ValueError('the features are not finite.')
    # scikit-learn takes a second to import; only this needs it.
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    length = np.linalg.norm(features, axis=1, keepdims=True)
    normal = features.astype(np.float64) / np.maximum(length, 1e-12)
    if method == 'pca':
        flat = PCA(n_components=2, random_state=seed).fit_transform(normal)
    else:
        flat = TSNE(
            n_components=2,
            init='pca',
            perplexity=min(30.0, (len(normal) - 1) / 3),
            random_state=seed,
        ).fit_transform(normal)
    return np.asarray(flat, dtype=np.float64)
