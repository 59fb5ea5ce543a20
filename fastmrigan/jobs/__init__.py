"""Bulk jobs: every slice of a plan, once each, whatever interrupts it. Never imports torch.

plan.py         shards, what they hold, and what is said of every slice
formats*.py     the bytes of a shard in each output format
receipts.py     sha256 of every shard; slices left out or flagged
shards.py       how a shard gets onto the disk for good, and is read again
output.py       where the slices go, and as what
sampling.py, translation.py   the two kinds of work
job.py          work with its engine: shards made and committed
watch.py        what a running job tells of itself
run.py          a job in this process: lock, run.json, resumption
spec.py         a job as plain values, for other processes
file.py         jobs in a TOML file
inputs.py       a folder of images as inputs, prepared first
ready.py        what can be known of a job before its engine starts
budget.py       what a job needs on the disk, against what is free
forecast.py     when it would end
"""
