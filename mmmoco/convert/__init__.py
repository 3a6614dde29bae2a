"""Checkpoint formats: state dicts in, state dicts out; no file is read here.

``formats`` describes each foreign layout by its keys, the tables of names
stand in ``resnet``, ``vit`` and ``heads``.
"""
