"""From a run folder to the one .onnx model file, checked against PyTorch before it is kept.

Rules of the room: standard ONNX operators only, one file, dynamic batch; nothing is left on disk
when a check fails. May import models, training (to load a checkpoint), runtime and the SSIM of
metrics; nothing but the command line imports this room.

onnx.py        the public face: a run or a module to a file
facts.py       where a generator comes from, what it takes and makes
graph.py       PyTorch to ONNX (translations.py: our own operators), and what a graph must be
folding.py, rewrites.py   changes that keep the mathematics; choice.py: which of them, and why
precision.py, int8.py     graphs typed in fp16, bf16 and int8
probes.py, parity.py      what goes in, and how far engines are from PyTorch
gates.py       what a graph must reach
metadata.py    what the file says of it
tensorrt.py, tensorrt_build.py   engines of a model file (plugin.py: our operator in their graph)
"""
