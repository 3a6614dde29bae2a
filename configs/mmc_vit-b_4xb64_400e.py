# MMC, ViT-B/16, 400 epochs of ImageNet (arXiv 2308.11448).
# Hardware: 4 GPUs, 64 images each (the lab's usual; not stated for MMC).
# Time: not published.
# Metric: 38.4 mIoU zero-shot on COCO (published; after 400 or 800 epochs).
#
# Known: ViT-B/16, AdamW, lr 7.5e-4, decay 0.04, teacher 0.996 to 1, noise on
# 75 % and another image on 30 %, multi-crop, an MLP for each loss.
# Unknown, as in the same lab's SiT: batch, whether lr is scaled (here: it is
# not), warm-up, end of lr and of decay (here: constant), clipping, drop path,
# crops, colours, loss weights, temperatures, shapes of the heads, the decoder,
# the form of L_PAT, noise and other image as alternatives. Unknown, as in
# DINO: the number of local crops.
_base_ = [
    '_base_/models/mmc_vit.py',
    '_base_/views/mmc.py',
    '_base_/datasets/image_folder.py',
    '_base_/schedules/mmc_adamw_400e.py',
    '_base_/default_runtime.py',
]

views = dict(type='Views', views=_base_.views)
pipeline = [dict(type='LoadRGB'), views]
train_dataloader = dict(batch_size=64, dataset=dict(pipeline=pipeline))
