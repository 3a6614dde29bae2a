# Multi-crop (arXiv 2006.09882) around the views of MoCo v2: two global crops
# and six small ones. Use it as Views' `views`; which views an algorithm
# encodes is the algorithm's matter.
_base_ = 'mocov2.py'

global_crop = dict(type='FastRandomResizedCrop', size=224, scale=(0.14, 1.0))
local_crop = dict(type='FastRandomResizedCrop', size=96, scale=(0.05, 0.14))
local_view = [local_crop, *_base_.view_q]
views = dict(
    view_q=[global_crop, *_base_.view_q],
    view_k=[global_crop, *_base_.view_k],
    local_1=local_view,
    local_2=local_view,
    local_3=local_view,
    local_4=local_view,
    local_5=local_view,
    local_6=local_view,
)
