"""Generators and discriminators: plain torch modules that know nothing of recipes or files.

A generator maps its input to slices in [-1, 1]; a discriminator returns logits, so that every
loss can be taken on logits in float32. Each network's initial weights come from its own
`initialise`, never from the module's constructor, so that one seed gives one generator.
"""
