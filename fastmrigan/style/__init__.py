"""The style stage: a real slice's content in a generated slice's style.

Rules of the room: it imports models, imaging, and the four files at the top of the package; it
knows nothing of shards, recipes or run folders. Arrays of slices come in, a folder goes out.
`losses.py` is pure functions, shared by the optimisation here and by the style-transfer GAN.
"""
