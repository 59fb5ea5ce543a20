"""Reading, checking, grading and writing medical images. Never imports torch.

Slices are float32 [H, W] graded to [-1, 1] once they have been prepared; raw slices keep their
source's own numbers and type until then.
"""
