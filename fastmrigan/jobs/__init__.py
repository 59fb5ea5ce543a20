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
supervisor.py   a job in worker processes: who makes what, and what is done when one dies
process.py, worker.py, messages.py   the two sides of a worker, and what they say to each other
search.py, quarantine.py   inputs that end processes: which they are, and the list of them
"""
