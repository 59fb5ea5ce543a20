"""Bulk jobs: every slice of a plan, once each, whatever interrupts it. Never imports torch.

plan.py         shards, what they hold, and what is said of every slice
formats*.py     the bytes of a shard in each output format
receipts.py     sha256 of every shard; slices left out or flagged
shards.py       how a shard gets onto the disk for good, and is read again
output.py       where the slices go, and as what
sampling.py, translation.py   the two kinds of work
job.py          work with its engine: shards made and committed
gate*.py        slices that are not worth keeping, left out or named
watch.py        what a running job tells of itself: progress, and these files of its folder:
  status.py, log.py    status.json, how it stands; log.jsonl, all that happened
  history.py           what log and receipts say of all its runs
  report.py, contact.py  job.html and contact_sheet.png, at its end
  report_figures.py    throughput over time, percentiles
  stages.py, disk.py   which stage limits; whether the disk suffices
  telling.py           none of that decides how the job ends
locks.py        who may write which shards
ours.py         whose folder it is that a job writes to, and what else would have to agree
run.py          a job in this process: run.json, resumption
spec.py         a job as plain values, for other processes
supervisor.py   a job in worker processes: who makes what, and what is done when one dies
process.py, worker.py, messages.py   the two sides of a worker, and what they say to each other
inquest.py, search.py, quarantine.py   shards and inputs that end processes: what is done about
                           them, which inputs they are, and the list of them
cluster.py, crew.py   a job on Ray, and its actors
file.py         jobs in a TOML file
inputs.py       a folder of images as inputs, prepared first
ready.py        what can be known of a job before its engine starts
budget.py       what a job needs on the disk, against what is free
forecast.py     when it would end
"""
