"""Features of a data set: each sample once, in its place, kept once."""

import shutil

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmmoco.engine.evaluation import features
from mmmoco.engine.evaluation.features import extract

from .colour_folders import Pixels, draw_class, figures, loader, splits_of


@pytest.fixture
def folder(tmp_path):
    """Class folders; two of the thirty images cannot be read."""
    for number in range(5):
        draw_class(tmp_path / f'bank/{number}x', number, 6, seed=0)
    for bad in ('0x/2', '3x/5'):
        (tmp_path / f'bank/{bad}.png').write_bytes(b'\x89PNG, cut off')
    return tmp_path


def test_unreadable_samples_are_left_out_and_counted(folder, capsys):
    lost = {2, 23}
    for batch in (7, 30):
        split = loader(folder / 'bank')
        split = torch.utils.data.DataLoader(
            split.dataset, batch_size=batch, sampler=split.sampler
        )
        for found in (
            extract(Pixels(), split),
            extract(Pixels(), split, share=True),
        ):
            assert found.unreadable == 2
            assert found.ids.tolist() == [
                i for i in range(30) if i not in lost
            ]
        found = extract(Pixels(), split)
        for row, i in zip(found.values, found.ids, strict=True):
            image = split.dataset[int(i)]['inputs']['image']
            assert torch.equal(row, image.flatten() - 127.5)
        labels = [split.dataset.labels[i] for i in found.ids]
        assert found.labels.tolist() == labels
    told = capsys.readouterr().out
    assert '2 of 30 images could not be read; they are left out' in told
    assert 'out: ' in told and '/0x/2.png, ' in told


def test_the_count_stands_beside_the_figures(folder):
    shutil.copytree(folder / 'bank', folder / 'query')
    (folder / 'query/3x/5.png').unlink()
    splits = splits_of(loader(folder / 'bank'), loader(folder / 'query'))
    assert figures(splits)[3]['top1'] == 100.0
    assert splits.remarks['unreadable_bank'] == 2
    assert splits.remarks['unreadable_query'] == 1


def test_nothing_readable_is_an_error(folder):
    for path in (folder / 'bank').rglob('*.png'):
        path.write_bytes(b'no image')
    with pytest.raises(ValueError, match='could not be read'):
        extract(Pixels(), loader(folder / 'bank'))


class Allocations(TorchDispatchMode):
    """Counts storages of a certain size."""

    def __init__(self, least):
        super().__init__()
        self.least, self.large = least, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else (out,):
            if isinstance(x, torch.Tensor):
                storage = x.untyped_storage()
                if storage.nbytes() >= self.least:
                    self.large[storage.data_ptr()] = storage
        return out


class Wide(Pixels):
    """Features so wide that a copy of all of them is told from the rest."""

    def extract_feat(self, x, stage):
        return x.flatten(1).float().repeat(1, 50)


@pytest.mark.parametrize('share', [False, True])
def test_features_are_kept_once(tmp_path, share):
    """No list of parts that is joined at the end: 21 GB for ImageNet."""
    for number in range(4):
        draw_class(tmp_path / f'{number}x', number, 20, seed=0)
    whole = 80 * 192 * 50 * 4
    with Allocations(whole // 2) as counted:
        found = extract(Wide(), loader(tmp_path), share=share)
    assert found.values.nbytes == whole
    assert len(counted.large) == 1


def test_what_does_not_fit_the_gpu_is_kept_by_the_host(monkeypatch):
    gpu = torch.device('cuda', 0)
    monkeypatch.setattr(features, '_free_bytes', lambda device: 24 * 10**9)
    imagenet = 1_281_167 * 2048 * 4
    assert features.place_for(imagenet, gpu) == torch.device('cpu')
    assert features.place_for(50_000 * 2048 * 4, gpu) == gpu
    monkeypatch.setattr(features, '_free_bytes', lambda device: 79 * 10**9)
    assert features.place_for(imagenet, gpu) == gpu
    assert features.place_for(imagenet, torch.device('cpu')).type == 'cpu'
