"""Triton Inference Server: a model repository made of bundles, and what runs in its Python backend.

NAME             the network, for tensors            ONNX Runtime backend
NAME_preprocess  the bytes of an image file -> what the network takes   Python backend
NAME_image       both, one after the other           ensemble
"""
