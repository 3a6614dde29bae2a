"""What each of two processes does in test_knn_shards.py."""

import sys

import torch
import torch.distributed as torch_dist
from torch.utils.data import DataLoader

from mmmoco.datasets import AddressedDataset, AddressedSampler
from mmmoco.engine.evaluation import KNN, Splits, extract_features
from mmmoco.functional import nearest_in_shards

M, N, C = 101, 23, 8


def data():
    """Bank, queries and their labels."""
    draws = torch.Generator().manual_seed(0)
    bank = torch.randn(M, C, generator=draws)
    queries = torch.randn(N, C, generator=draws)
    labels = torch.randint(0, 5, (M,), generator=draws)
    truth = torch.randint(0, 5, (N,), generator=draws)
    return bank, queries, labels, truth


class Vectors(AddressedDataset):
    """Features that pass for images."""

    def __init__(self, values, labels):
        super().__init__()
        self.values, self.labels = values, labels

    def __len__(self):
        return len(self.values)

    def sample(self, index):
        return {
            'inputs': {'image': self.values[index]},
            'ids': index,
            'labels': self.labels[index],
        }


class Same(torch.nn.Module):
    """A model whose features are its inputs."""

    def data_preprocessor(self, batch, training):
        return batch

    def extract_feat(self, x, stage):
        return x


def evaluate(folder):
    """Everything that must not depend on the number of processes."""
    bank, queries, labels, truth = data()
    loaders = []
    for values, numbers in ((bank, labels), (queries, truth)):
        dataset = Vectors(values, numbers)
        sampler = AddressedSampler(dataset, shuffle=False)
        loaders.append(DataLoader(dataset, batch_size=10, sampler=sampler))
    splits = Splits(*loaders, memory_map=folder)
    found = KNN((5, 40)).measure(Same(), splits)
    return {
        'metrics': {part.setting['k']: part.metrics for part in found},
        'features': extract_features(Same(), loaders[1]),
    }


def search(rank):
    """Parts of different size, one of them smaller than k."""
    bank, queries, _, _ = data()
    ids = torch.randperm(M, generator=torch.Generator().manual_seed(1))
    part = ids[:7] if rank else ids[7:]
    return nearest_in_shards(bank[part], part, queries, 20)


if __name__ == '__main__':
    torch_dist.init_process_group('gloo')
    rank = torch_dist.get_rank()
    folder = sys.argv[1]
    result = {
        'search': tuple(search(rank)),
        'memory': evaluate(None),
        'mapped': evaluate(f'{folder}/bank'),
    }
    torch.save(result, f'{folder}/rank{rank}.pth')
    torch_dist.destroy_process_group()
