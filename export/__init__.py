"""From a run folder to the one .onnx model file, checked against PyTorch before it is kept.

Rules of the room: standard ONNX operators only, one file, dynamic batch; nothing is left on disk
when a check fails. May import models, training (to load a checkpoint) and runtime; nothing but
the command line imports this room.
"""
