"""From a recipe and a prepared dataset to a run folder.

A recipe is data (YAML, one pydantic model), the loop is one file read from top to bottom, and
everything a run needs to go on lies in its newest checkpoint: a run stopped at step N and resumed
ends with the same bits on CPU as one that was never stopped.
"""
