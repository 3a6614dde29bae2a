"""Names of ResNets; ours are those of OpenMMLab and torchvision."""

from .key_table import KeyTable, unchanged

#: torchvision, timm, mmpretrain, mmdet, mmseg; the classifier has no place.
TORCHVISION = unchanged('conv1.{p}', 'bn1.{p}', 'layer{s}.{i}.{p}')

#: ``nn.Sequential(*list(resnet.children())[:-1])``.
CHILDREN = KeyTable(
    ('0.{p}', 'conv1.{p}'),
    ('1.{p}', 'bn1.{p}'),
    ('4.{i}.{p}', 'layer1.{i}.{p}'),
    ('5.{i}.{p}', 'layer2.{i}.{p}'),
    ('6.{i}.{p}', 'layer3.{i}.{p}'),
    ('7.{i}.{p}', 'layer4.{i}.{p}'),
)


def _stage(theirs: str, ours: str) -> KeyTable:
    return KeyTable(
        (
            f'{theirs}.{{i}}.conv{{j}}.norm.{{p}}',
            f'{ours}.{{i}}.bn{{j}}.{{p}}',
        ),
        (
            f'{theirs}.{{i}}.shortcut.norm.{{p}}',
            f'{ours}.{{i}}.downsample.1.{{p}}',
        ),
        (f'{theirs}.{{i}}.conv{{j}}.{{p}}', f'{ours}.{{i}}.conv{{j}}.{{p}}'),
        (f'{theirs}.{{i}}.shortcut.{{p}}', f'{ours}.{{i}}.downsample.0.{{p}}'),
    )


#: Detectron2, before its heuristics put the backbone's own prefix in front.
DETECTRON2 = (
    KeyTable(
        ('stem.conv1.norm.{p}', 'bn1.{p}'), ('stem.conv1.{p}', 'conv1.{p}')
    )
    + _stage('res2', 'layer1')
    + _stage('res3', 'layer2')
    + _stage('res4', 'layer3')
    + _stage('res5', 'layer4')
)
