from . import (
    algorithms,
    backbones,
    dictionaries,
    encoders,
    heads,
    losses,
    norms,
    preprocessors,
)
