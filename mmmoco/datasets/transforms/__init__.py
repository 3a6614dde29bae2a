from .bands import (
    BandBlur,
    BandBrightnessContrast,
    BandGray,
    LoadBands,
    ScaleBands,
)
from .fast_views import (
    FastColorJitter,
    FastFlip,
    FastGaussianBlur,
    FastGrayscale,
    FastRandomResizedCrop,
    FastSolarize,
    FastView,
)
from .loading import LoadRGB, ToPIL, decode_rgb, open_image
from .multi_hot import MultiHot
from .pipeline import build_pipeline
from .satellite import DiscreteRotation, GaussianNoise, SeasonalViews
from .views import PackImage, Views
